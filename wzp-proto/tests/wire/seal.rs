//! Sealed payloads against the recordings, and replays.

use bytes::Bytes;
use proptest::prelude::*;
use wzp_proto::seal::{SealError, Sealing, TAG_LEN, rekey};
use wzp_proto::{MediaHeader, MediaPacket, MediaType, QualityReport};

use crate::golden::{array, bytes, list, load};
use crate::media_properties::any_header;

fn sealing() -> Sealing {
    let golden = load("handshake_crypto.json");
    Sealing::with_key(&array(&golden, "session_key_hex"), array(&golden, "session_id_hex"))
}

fn packet(media_type: MediaType, seq: u32) -> MediaPacket {
    let header = MediaHeader::decode(&[2, 0, media_type.id(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    MediaPacket {
        header: MediaHeader { seq, ..header },
        payload: Bytes::from_static(b"sound"),
        quality: None,
    }
}

#[test]
fn packets_are_sealed_and_opened_as_recorded() {
    let golden = load("handshake_crypto.json");
    let mut sealing = sealing();
    for example in list(&golden["aead"], "examples") {
        let sealed = MediaPacket::decode(bytes(example, "wire_hex")).unwrap();
        assert_eq!(sealed.header.encode().as_slice(), bytes(example, "header_aad_hex"));
        assert_eq!(sealed.payload, bytes(example, "ciphertext_and_tag_hex"));
        let plain = MediaPacket {
            payload: bytes(example, "plaintext_hex"),
            ..sealed.clone()
        };
        assert_eq!(sealing.seal(&plain).unwrap().encode(), bytes(example, "wire_hex"));
        assert_eq!(sealing.open(&sealed).unwrap(), plain);
        assert_eq!(sealing.open(&sealed), Err(SealError::Replay { seq: sealed.header.seq }));
    }
}

#[test]
fn the_example_of_the_protocol_text_comes_out_the_same() {
    let key = hex::decode("b2fa5213ed350d8e9847b7e25dd3a79107a4ab6aa753832e3d00bb6660fcf666").unwrap();
    let sealing = Sealing::with_key(&key.try_into().unwrap(), [0x20, 0xdd, 0xa3, 0x2a]);
    let plain = Bytes::from_static(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x14, 0, 0, 0xf8, 0xff, 0xfe]);
    let sealed = sealing.seal(&MediaPacket::decode(plain).unwrap()).unwrap();
    assert_eq!(hex::encode(&sealed.payload), "cc825ef1c98cabb6d0e6bfd4c7ce1c83dac688");
}

#[test]
fn the_next_key_is_the_recorded_one() {
    let golden = load("handshake_crypto.json");
    let golden = &golden["rekey"];
    let next = rekey(
        &array(golden, "old_key_hex"),
        array(golden, "our_secret_hex"),
        &array(golden, "peer_public_hex"),
    );
    assert_eq!(next.unwrap(), array(golden, "new_key_hex"));
    assert_eq!(rekey(&[1; 32], [2; 32], &[0; 32]), None);
}

#[test]
fn changed_packets_are_refused_and_do_not_count_as_seen() {
    let mut sealing = sealing();
    let sealed = sealing.seal(&packet(MediaType::Audio, 5)).unwrap();
    let mut damaged = sealed.clone();
    damaged.payload = sealed.payload.iter().map(|byte| byte ^ 1).collect::<Vec<_>>().into();
    assert_eq!(sealing.open(&damaged), Err(SealError::NotAuthentic));
    let mut relabelled = sealed.clone();
    relabelled.header.stream_id = 7;
    assert_eq!(sealing.open(&relabelled), Err(SealError::NotAuthentic));
    let mut short = sealed.clone();
    short.payload.truncate(TAG_LEN - 1);
    assert_eq!(sealing.open(&short), Err(SealError::NotAuthentic));
    assert!(sealing.open(&sealed).is_ok());
}

#[test]
fn windows_are_as_long_as_natives_have_them() {
    for (media_type, len) in [
        (MediaType::Audio, 64),
        (MediaType::Video, 1024),
        (MediaType::Data, 256),
        (MediaType::Control, 32),
    ] {
        let mut sealing = sealing();
        let mut open = |seq| {
            let sealed = sealing.seal(&packet(media_type, seq)).unwrap();
            sealing.open(&sealed).map(|_| ())
        };
        // Across the wrap of the counter.
        let newest = len / 2;
        open(newest).unwrap();
        let oldest = newest.wrapping_sub(len - 1);
        assert_eq!(
            open(oldest.wrapping_sub(1)),
            Err(SealError::Replay {
                seq: oldest.wrapping_sub(1)
            })
        );
        open(oldest).unwrap();
        assert_eq!(open(oldest), Err(SealError::Replay { seq: oldest }));
        // A jump of more than a window forgets nothing that it should not.
        open(newest + 3 * len).unwrap();
        assert_eq!(open(newest), Err(SealError::Replay { seq: newest }));
        open(newest + 2 * len + 1).unwrap();
    }
}

proptest! {
    #[test]
    fn every_packet_opens_once(header in any_header(), payload: Vec<u8>, quality: Option<[u8; 4]>) {
        let mut sealing = sealing();
        let packet = MediaPacket { header, payload: payload.into(), quality: quality.map(QualityReport::decode) };
        let sealed = MediaPacket::decode(sealing.seal(&packet).unwrap().encode()).unwrap();
        prop_assert_eq!(sealing.open(&sealed).unwrap().encode(), packet.encode());
        prop_assert!(sealing.open(&sealed).is_err());
    }

    #[test]
    fn nothing_is_opened_twice_and_nothing_new_within_the_window_refused(
        start: u32, order in proptest::collection::vec(0..200u32, 0..100)) {
        let mut sealing = sealing();
        let mut opened = std::collections::BTreeSet::new();
        for n in order {
            let sealed = sealing.seal(&packet(MediaType::Audio, start.wrapping_add(n))).unwrap();
            let newest: Option<&u32> = opened.last();
            let expected = !opened.contains(&n) && newest.is_none_or(|newest| n + 64 > *newest);
            prop_assert_eq!(sealing.open(&sealed).is_ok(), expected);
            if expected {
                opened.insert(n);
            }
        }
    }

    #[test]
    fn any_bytes_are_refused(header in any_header(), payload: Vec<u8>) {
        let packet = MediaPacket { header, payload: payload.into(), quality: None };
        prop_assert_eq!(sealing().open(&packet), Err(SealError::NotAuthentic));
    }
}

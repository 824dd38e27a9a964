//! The forms that no native sends today, and telling all forms apart.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;
use wzp_proto::compact::{CompactDecoder, CompactEncoder, CompactError, MiniHeader};
use wzp_proto::trunk::{TrunkEntry, TrunkError, decode_trunk, encode_trunk};
use wzp_proto::{DatagramForm, Flags, MediaPacket, QualityReport};

use crate::golden::{array, bytes, list, load, number, objects, text};
use crate::media_packet::header;
use crate::media_properties::any_header;

#[test]
fn mini_headers_are_written_and_read_as_recorded() {
    let golden = load("mini_header_and_compact.json");
    assert_eq!(list(&golden, "mini_headers").len(), 5);
    for vector in list(&golden, "mini_headers") {
        let mini = MiniHeader {
            seq_delta: number(vector, "seq_delta"),
            timestamp_delta_ms: number(vector, "timestamp_delta_ms"),
            payload_len: number(vector, "payload_len"),
        };
        assert_eq!(mini.encode(), array(vector, "wire_hex"));
        assert_eq!(MiniHeader::decode(array(vector, "wire_hex")), mini);
    }
}

/// The packet that a decoder makes of a recorded frame.
fn decoded(decoder: &mut CompactDecoder, frame: &Value) -> MediaPacket {
    let wire = bytes(frame, "wire_hex");
    assert_eq!(
        DatagramForm::classify(&wire),
        if wire[0] == 0 {
            DatagramForm::CompactFull
        } else {
            DatagramForm::CompactMini
        }
    );
    decoder.decode(wire).unwrap()
}

#[test]
fn fifty_three_packets_are_compacted_as_recorded() {
    let golden = load("mini_header_and_compact.json");
    let (mut encoder, mut decoder) = (CompactEncoder::default(), CompactDecoder::default());
    let frames = list(&list(&golden, "sequences")[0], "frames");
    assert_eq!(frames.len(), 53);
    for frame in frames {
        let packet = decoded(&mut decoder, frame);
        assert_eq!(
            (packet.header.seq, packet.header.timestamp),
            (number(frame, "seq"), number(frame, "timestamp"))
        );
        assert_eq!(text(frame, "kind") == "full", bytes(frame, "wire_hex")[0] == 0);
        assert_eq!(encoder.encode(&packet), bytes(frame, "wire_hex"));
    }
}

#[test]
fn gaps_reports_and_backward_time_are_lost_as_recorded() {
    let golden = load("mini_header_and_compact.json");
    let (mut encoder, mut decoder) = (CompactEncoder::default(), CompactDecoder::default());
    for frame in list(&list(&golden, "sequences")[1], "frames") {
        let packet = decoded(&mut decoder, frame);
        assert_eq!(packet.header, header(&frame["decoded"]["header"]));
        assert_eq!(packet.payload, bytes(&frame["decoded"], "payload_hex"));
        assert_eq!(packet.quality.is_some(), frame["decoded"]["quality_report"]);
        let mut original = packet.clone();
        original.header.seq = number(frame, "in_seq");
        original.header.timestamp = number(frame, "in_timestamp");
        original.quality = (frame["in_quality_report"] == true).then(QualityReport::default);
        assert_eq!(encoder.encode(&original), bytes(frame, "wire_hex"));
    }
    let early = bytes(&list(&golden, "sequences")[2], "wire_hex");
    assert_eq!(CompactDecoder::default().decode(early), Err(CompactError::NoFullPacket));
}

#[test]
fn a_mini_packet_does_not_claim_a_report() {
    let mut packet =
        MediaPacket::decode(Bytes::from_static(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])).unwrap();
    packet.quality = Some(QualityReport::default());
    let (mut encoder, mut decoder) = (CompactEncoder::default(), CompactDecoder::default());
    let full = decoder.decode(encoder.encode(&packet)).unwrap();
    assert_eq!(full.quality, packet.quality);
    let mini = decoder.decode(encoder.encode(&packet)).unwrap();
    assert_eq!(mini.quality, None);
    assert!(!mini.header.flags.contains(Flags::QUALITY));
}

fn entries(vector: &Value) -> Vec<TrunkEntry> {
    let entry = |entry| TrunkEntry {
        session_id: array(entry, "session_id"),
        packet: bytes(entry, "payload_hex"),
    };
    list(vector, "entries").iter().map(entry).collect()
}

#[test]
fn trunk_frames_are_written_and_read_as_recorded() {
    let golden = load("trunk_frame.json");
    for vector in list(&golden, "vectors") {
        let (entries, wire) = (entries(vector), bytes(vector, "wire_hex"));
        assert_eq!(encode_trunk(&entries).unwrap(), wire);
        assert_eq!(decode_trunk(wire.clone()).unwrap(), entries);
        assert_eq!(DatagramForm::classify(&wire), DatagramForm::Trunk);
    }
    for vector in list(&golden, "decode") {
        assert_eq!(
            decode_trunk(bytes(vector, "wire_hex")).is_ok(),
            vector["accepted"],
            "{vector}"
        );
    }
}

#[test]
fn recorded_trunk_datagrams_hold_the_packets_that_went_in() {
    let golden = load("behaviours.json");
    let mut held = 0;
    for event in objects(&golden["trunking_relay"]) {
        if event["event"] != "send trunk_datagram" {
            continue;
        }
        let wire = bytes(event, "hex");
        assert_eq!(DatagramForm::classify(&wire), DatagramForm::Trunk);
        for entry in decode_trunk(wire).unwrap() {
            MediaPacket::decode(entry.packet).unwrap();
            held += 1;
        }
    }
    assert!(held >= 3);
}

#[test]
fn oversized_trunk_frames_are_refused() {
    let entry = |len| TrunkEntry {
        session_id: [0; 2],
        packet: vec![0; len].into(),
    };
    assert!(encode_trunk(&[entry(65_535)]).is_ok());
    assert_eq!(
        encode_trunk(&[entry(65_536)]),
        Err(TrunkError::PacketTooLong { len: 65_536 })
    );
    assert!(encode_trunk(&vec![entry(0); 65_535]).is_ok());
    assert_eq!(
        encode_trunk(&vec![entry(0); 65_536]),
        Err(TrunkError::TooMany { count: 65_536 })
    );
    // A count without entries behind it.
    assert_eq!(
        decode_trunk(Bytes::from_static(&[0xff, 0xff, 0, 0, 0, 0])),
        Err(TrunkError::Truncated {
            announced: 65_535,
            complete: 1
        })
    );
}

#[test]
fn forms_are_told_apart() {
    let form = |bytes: &[u8]| DatagramForm::classify(&Bytes::copy_from_slice(bytes));
    let plain = [2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0xf8, 0xff, 0xfe];
    assert_eq!(form(&plain), DatagramForm::Plain);
    assert_eq!(form(&[[0].as_slice(), &plain].concat()), DatagramForm::CompactFull);
    assert_eq!(
        form(&[1, 1, 0, 0x14, 0, 3, 0xf8, 0xff, 0xfe]),
        DatagramForm::CompactMini
    );
    let trunk = encode_trunk(&[TrunkEntry {
        session_id: [0xab, 0xcd],
        packet: Bytes::copy_from_slice(&plain),
    }]);
    assert_eq!(form(&trunk.unwrap()), DatagramForm::Trunk);
    assert_eq!(form(&[0, 0]), DatagramForm::Trunk);
    let many = vec![
        TrunkEntry {
            session_id: [0; 2],
            packet: Bytes::new()
        };
        256
    ];
    assert_eq!(form(&encode_trunk(&many).unwrap()), DatagramForm::Trunk);
    for other in [
        [].as_slice(),
        &[0],
        &[1],
        &[1, 1, 0, 0x14, 0, 4, 0xf8],
        &[3; 30],
        &[0x80; 30],
        &[0, 9, 9],
    ] {
        assert_eq!(form(other), DatagramForm::Unknown, "{other:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_have_a_form_and_break_nothing(datagrams in proptest::collection::vec(
        (0..4u8, proptest::collection::vec(any::<u8>(), 0..40)), 0..20)) {
        let mut decoder = CompactDecoder::default();
        for (first, rest) in datagrams {
            let datagram: Bytes = std::iter::once(first).chain(rest).collect::<Vec<_>>().into();
            let trunk = decode_trunk(datagram.clone());
            let compact = decoder.decode(datagram.clone());
            match DatagramForm::classify(&datagram) {
                DatagramForm::Plain => prop_assert_eq!(first, 2),
                DatagramForm::Trunk => prop_assert!(trunk.is_ok()),
                DatagramForm::CompactMini => prop_assert!(matches!(compact, Ok(_) | Err(CompactError::NoFullPacket))),
                DatagramForm::CompactFull => prop_assert_eq!(first, 0),
                DatagramForm::Unknown => prop_assert!(first == 3 || trunk.is_err()),
            }
            if let Ok(entries) = trunk {
                let again = encode_trunk(&entries).unwrap();
                prop_assert!(datagram.starts_with(&again));
            }
        }
    }

    #[test]
    fn a_stream_of_consecutive_packets_survives_compaction(
        mut first in any_header(),
        steps in proptest::collection::vec((any::<u16>(), proptest::collection::vec(any::<u8>(), 0..20)), 0..120),
    ) {
        first.flags.remove(Flags::QUALITY);
        let (mut encoder, mut decoder) = (CompactEncoder::default(), CompactDecoder::default());
        let mut header = first;
        for (step, payload) in steps {
            let packet = MediaPacket { header, payload: payload.into(), quality: None };
            prop_assert_eq!(decoder.decode(encoder.encode(&packet)).unwrap(), packet);
            header.seq = header.seq.wrapping_add(1);
            header.timestamp = header.timestamp.wrapping_add(u32::from(step));
        }
    }

    #[test]
    fn trunk_frames_survive_a_round_trip(entries: Vec<([u8; 2], Vec<u8>)>) {
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(session_id, packet)| TrunkEntry { session_id, packet: packet.into() })
            .collect();
        prop_assert_eq!(decode_trunk(encode_trunk(&entries).unwrap()).unwrap(), entries);
    }
}

//! What the fuzz targets run, as plain functions, so that the corpora are replayed by every test run too.

use std::time::Duration;

use bytes::Bytes;
use wzp_proto::compact::{CompactDecoder, CompactEncoder};
use wzp_proto::fec::FecDecoder;
use wzp_proto::seal::Sealing;
use wzp_proto::trunk::{decode_trunk, encode_trunk};
use wzp_proto::video::{ReassemblyLimits, fragment_header};
use wzp_proto::{
    Answerer, DatagramForm, Fingerprint, FrameSize, Identity, LossRepair, MediaPacket, Reassembler, RoomName,
    SentPackets, Sni, decode_frame_len, decode_signal, encode_signal, fragments,
};

/// Runs a target.
pub fn run(target: &str, data: &[u8]) {
    match target {
        "compact" => compact(data),
        "fec" => fec(data),
        "handshake" => handshake(data),
        "media_packet" => media_packet(data),
        "nack" => nack(data),
        "names" => names(data),
        "seal" => seal(data),
        "signal" => signal(data),
        "trunk" => trunk(data),
        "video" => video(data),
        other => panic!("no fuzz target {other}"),
    }
}

/// Splits the input into datagrams: a length byte (in units of 8 bytes, rounded up to what is there), then the bytes.
fn datagrams(mut data: &[u8]) -> Vec<Bytes> {
    let mut datagrams = Vec::new();
    while let Some((len, rest)) = data.split_first() {
        let (datagram, rest) = rest.split_at(rest.len().min(usize::from(*len) * 8));
        datagrams.push(Bytes::copy_from_slice(datagram));
        data = rest;
    }
    datagrams
}

/// One datagram as a packet.
fn media_packet(data: &[u8]) {
    let datagram = Bytes::copy_from_slice(data);
    let plain = DatagramForm::classify(&datagram) == DatagramForm::Plain;
    if let Ok(packet) = MediaPacket::decode(datagram) {
        assert!(plain);
        assert_eq!(packet.encode(), data);
    }
}

/// Datagrams to a reassembler with tight bounds; then the input as a frame, cut and put together.
fn video(data: &[u8]) {
    let limits = ReassemblyLimits {
        bytes: 4096,
        frames: 4,
        age_ms: 1000,
        wait: Duration::from_secs(1),
    };
    let mut reassembler = Reassembler::new(limits);
    let mut header = None;
    for (n, datagram) in (0u64..).zip(datagrams(data)) {
        let Ok(packet) = MediaPacket::decode(datagram) else {
            continue;
        };
        let now = Duration::from_millis(n * u64::from(packet.header.fec_ratio));
        if reassembler.push(&packet, now).is_ok() {
            header = Some(packet.header);
        }
        assert!(reassembler.pending_bytes() <= limits.bytes);
        assert!(reassembler.pending_frames() <= limits.frames);
    }
    let Some(header) = header else { return };
    let frame = Bytes::copy_from_slice(data);
    let size = Some(FrameSize {
        width: 640,
        height: 480,
    });
    let Ok(parts) = fragments(&frame, size, 9 + usize::from(header.fec_ratio)) else {
        return;
    };
    let Ok(count) = u8::try_from(parts.len()) else {
        panic!("more fragments than can be counted")
    };
    let mut reassembler = Reassembler::default();
    for (index, payload) in (0..count).zip(parts).rev() {
        let packet = MediaPacket {
            header: fragment_header(&header, index, count),
            payload,
            quality: None,
        };
        if let Some(whole) = reassembler
            .push(&packet, Duration::ZERO)
            .expect("a fragment of our own")
        {
            assert_eq!((whole.payload, whole.size), (frame, size));
            return;
        }
    }
    panic!("the frame did not come out");
}

/// The JSON of a signal.
fn signal(data: &[u8]) {
    if let Some(prefix) = data.first_chunk() {
        let _ = decode_frame_len(*prefix);
    }
    let Ok(signal) = decode_signal(data) else { return };
    let frame = encode_signal(&signal);
    if let Ok(again) = decode_signal(&frame[4..]) {
        assert_eq!(encode_signal(&again), frame);
    }
}

/// The JSON of an offer.
fn handshake(data: &[u8]) {
    let Ok(signal) = decode_signal(data) else { return };
    match Answerer::accept(&Identity::from_seed(&[1; 32]), [2; 32], signal) {
        Ok(accepted) => assert_eq!(accepted.fingerprint, Fingerprint::of(&accepted.peer_identity)),
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
}

/// Datagrams in compact form.
fn compact(data: &[u8]) {
    let (mut decoder, mut encoder) = (CompactDecoder::default(), CompactEncoder::default());
    for datagram in datagrams(data) {
        DatagramForm::classify(&datagram);
        if let Ok(packet) = decoder.decode(datagram) {
            encoder.encode(&packet);
        }
    }
}

/// A trunk frame.
fn trunk(data: &[u8]) {
    let datagram = Bytes::copy_from_slice(data);
    DatagramForm::classify(&datagram);
    if let Ok(entries) = decode_trunk(datagram) {
        let again = encode_trunk(&entries).expect("entries that came out of a trunk frame fit into one");
        assert!(data.starts_with(&again));
    }
}

/// Datagrams with Codec2 and its repair.
fn fec(data: &[u8]) {
    let mut decoder = FecDecoder::new();
    for datagram in datagrams(data) {
        if let Ok(packet) = MediaPacket::decode(datagram) {
            for frame in decoder.push(&packet) {
                assert!(frame.payload.len() <= 8);
            }
        }
    }
}

/// Numbers, times and requests to the machines of loss repair: per step a kind byte and two bytes.
fn nack(data: &[u8]) {
    let (mut repair, mut sent) = (LossRepair::new(), SentPackets::default());
    let (mut seq, mut now) = (u32::MAX - 100, Duration::ZERO);
    for step in data.chunks_exact(3) {
        let value = u16::from_be_bytes([step[1], step[2]]);
        match step[0] % 8 {
            0 => now += Duration::from_millis(value.into()),
            1 => seq = seq.wrapping_sub(value.into()),
            2 => seq = u32::from(value) << 16,
            3 => repair.on_keyframe(seq),
            4 => repair.set_rtt(Duration::from_millis(value.into())),
            5 => repair.set_frame_interval(Duration::from_millis(value.into())),
            6 => drop(sent.answer(&[seq, seq.wrapping_sub(value.into())], now)),
            _ => seq = seq.wrapping_add((value % 200).into()),
        }
        repair.on_packet(seq, now);
        sent.insert(seq, Bytes::from(vec![0; value.into()]), now);
        let polls = std::iter::from_fn(|| repair.poll(now)).take(5).count();
        assert!(polls < 5, "poll does not come to rest");
        assert!(repair.next_poll().is_none_or(|at| at > now));
        assert!(repair.missing() <= 128);
        assert!(sent.len() <= 1024 && sent.bytes() <= 1 << 20);
    }
}

/// Room names, server names and fingerprints.
fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let classified = Sni::classify(Some(text));
    if let Ok(room) = RoomName::parse(text) {
        assert_eq!(classified, Sni::Room(room.clone()));
        assert_eq!(RoomName::parse(&room.to_string()).expect("a room's name is one"), room);
        assert_eq!(
            RoomName::parse(&room.key().to_string()).expect("a room's key is a name"),
            room
        );
    }
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        assert_eq!(fingerprint.to_string(), text.to_ascii_lowercase());
    }
}

/// Datagrams as sealed packets.
fn seal(data: &[u8]) {
    let mut sealing = Sealing::with_key(&[1; 32], [2; 4]);
    for datagram in datagrams(data) {
        let Ok(packet) = MediaPacket::decode(datagram) else {
            continue;
        };
        assert!(sealing.open(&packet).is_err());
        let Ok(sealed) = sealing.seal(&packet) else { continue };
        if let Ok(opened) = sealing.open(&sealed) {
            assert_eq!(opened, packet);
        }
    }
}

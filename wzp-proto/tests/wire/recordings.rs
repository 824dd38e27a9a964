//! Every datagram and every signal of the recorded sessions can be read, and written again byte for byte.

use serde_json::Value;
use wzp_proto::{Flags, MediaPacket, Signal, decode_frame_len, decode_signal, encode_signal};

use crate::golden::{bytes, load, number, objects, text};

/// Counts of what was read in a recording.
#[derive(Debug, Default, PartialEq)]
struct Read {
    datagrams: usize,
    signals: usize,
}

fn check_datagram(event: &Value) {
    let wire = bytes(event, "hex");
    let packet = MediaPacket::decode(wire.clone()).unwrap_or_else(|error| panic!("{error}: {event}"));
    let (header, recorded) = (packet.header, &event["header"]);
    assert_eq!(wire.len(), number::<usize>(event, "bytes"));
    assert_eq!(packet.encode(), wire);
    assert_eq!(header.flags, Flags::from_bits_retain(number(recorded, "flags")));
    assert_eq!(header.media_type.id(), number::<u8>(recorded, "media_type"));
    assert_eq!(header.codec.id(), number::<u8>(recorded, "codec"));
    assert_eq!(header.stream_id, number::<u8>(recorded, "stream_id"));
    assert_eq!(header.fec_ratio, number::<u8>(recorded, "fec_ratio"));
    assert_eq!(header.seq, number::<u32>(recorded, "seq"));
    assert_eq!(header.timestamp, number::<u32>(recorded, "timestamp"));
    assert_eq!(header.fec_block, number::<u16>(recorded, "fec_block"));
}

fn check_signal(event: &Value) {
    let json = text(event, "json");
    let signal = decode_signal(json.as_bytes()).unwrap_or_else(|error| panic!("{error}: {json}"));
    let frame = encode_signal(&signal);
    assert_eq!(&frame[4..], json.as_bytes());
    assert_eq!(frame.len(), number::<usize>(event, "bytes"));
    assert_eq!(decode_frame_len(frame[..4].try_into().unwrap()), Ok(json.len()));
    if event.get("frame_hex").is_some() {
        assert_eq!(frame, bytes(event, "frame_hex"));
    }
}

fn read_all(file: &str) -> Read {
    let mut read = Read::default();
    for event in objects(&load(file)) {
        if event["header"].is_object() && event["hex"].is_string() {
            check_datagram(event);
            read.datagrams += 1;
        }
        if event["json"].is_string() && event["event"].as_str().is_some_and(|kind| kind.ends_with(" signal")) {
            check_signal(event);
            read.signals += 1;
        }
    }
    read
}

#[test]
fn recorded_sessions_are_read_completely() {
    for file in [
        "session_timeline.json",
        "video_room_timeline.json",
        "direct_call_timeline.json",
        "behaviours.json",
    ] {
        let read = read_all(file);
        let text = load(file).to_string();
        assert_eq!(read.datagrams, text.matches("\"header\":{").count(), "{file}");
        assert_eq!(read.signals, text.matches(" signal\"").count(), "{file}");
        assert!(read.datagrams > 10 && read.signals > 10, "{file}: {read:?}");
    }
}

#[test]
fn tone_and_silence_are_contiguous() {
    for file in ["tone_datagrams.json", "silence_datagrams.json"] {
        let golden = load(file);
        let read = read_all(file);
        assert!(read.datagrams > 10, "{file}");
        let datagrams = golden["datagrams"].as_array().unwrap();
        assert_eq!(read.datagrams, datagrams.len());
        for (seq, event) in datagrams.iter().enumerate() {
            let packet = MediaPacket::decode(bytes(event, "hex")).unwrap();
            assert_eq!(packet.header.seq as usize, seq, "{file}");
        }
    }
}

#[test]
fn a_late_joiner_is_told_who_is_there() {
    let golden = load("video_room_timeline.json");
    let updates = objects(&golden)
        .into_iter()
        .filter_map(|event| decode_signal(event["json"].as_str()?.as_bytes()).ok())
        .filter_map(|signal| match signal {
            Signal::RoomUpdate {
                count, participants, ..
            } => Some((count as usize, participants)),
            _ => None,
        })
        .collect::<Vec<_>>();
    assert!(!updates.is_empty());
    for (count, participants) in updates {
        assert_eq!(count, participants.len());
    }
}

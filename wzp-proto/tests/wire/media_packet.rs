//! Headers and packets against the recordings.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use wzp_proto::encode_datagram;
use wzp_proto::header::encode_fec_ratio;
use wzp_proto::{Codec, Flags, HeaderError, MediaHeader, MediaPacket, MediaType, PacketError, QualityReport};

use crate::golden::{bytes, list, load, number, text};

/// The header that a vector's fields describe.
pub fn header(fields: &Value) -> MediaHeader {
    let header = MediaHeader {
        flags: Flags::from_bits_retain(number(fields, "flags")),
        media_type: MediaType::from_id(number(fields, "media_type_wire")).unwrap(),
        codec: Codec::from_id(number(fields, "codec_id_wire")).unwrap(),
        stream_id: number(fields, "stream_id"),
        fec_ratio: number(fields, "fec_ratio"),
        seq: number(fields, "seq"),
        timestamp: number(fields, "timestamp"),
        fec_block: number(fields, "fec_block"),
    };
    assert_eq!(header.codec.name(), text(fields, "codec_id"));
    assert_eq!(format!("{:?}", header.media_type), text(fields, "media_type"));
    assert_eq!(header.is_repair(), fields["is_repair"]);
    assert_eq!(header.is_keyframe(), fields["is_keyframe"]);
    assert_eq!(header.flags.contains(Flags::QUALITY), fields["has_quality"]);
    assert_eq!(header.flags.contains(Flags::FRAME_END), fields["is_frame_end"]);
    header
}

#[test]
fn headers_are_written_and_read_as_recorded() {
    let golden = load("media_header_v2.json");
    assert_eq!(list(&golden, "vectors").len(), 12);
    for vector in list(&golden, "vectors") {
        let (header, wire) = (header(&vector["fields"]), bytes(vector, "wire_hex"));
        assert_eq!(header.encode().as_slice(), wire, "{vector}");
        assert_eq!(MediaHeader::decode(&wire), Ok(header), "{vector}");
    }
}

#[test]
fn headers_are_refused_as_by_natives() {
    for vector in list(&load("media_header_v2.json"), "reader") {
        let wire = bytes(vector, "wire_hex");
        let read = MediaHeader::decode(&wire);
        assert_eq!(read.is_ok(), vector["accepted"], "{vector}");
        if let Ok(header) = read {
            assert_eq!(header.encode().as_slice(), wire, "{vector}");
        }
    }
    let v1 = [1; 16];
    assert_eq!(MediaHeader::decode(&v1), Err(HeaderError::Version(1)));
}

#[test]
fn fec_ratio_is_rounded_as_by_natives() {
    for vector in list(&load("media_header_v2.json"), "encode_fec_ratio") {
        let ratio = vector["ratio"].as_f64().unwrap() as f32;
        assert_eq!(encode_fec_ratio(ratio), number::<u8>(vector, "encoded"), "{vector}");
    }
    assert_eq!(encode_fec_ratio(f32::NAN), 0);
    assert_eq!(encode_fec_ratio(-1.0), 0);
}

#[test]
fn packets_are_written_and_read_as_recorded() {
    let golden = load("media_packet.json");
    for vector in list(&golden, "vectors") {
        let wire = bytes(vector, "wire_hex");
        if vector["accepted"] == false {
            assert_eq!(
                MediaPacket::decode(wire.clone()),
                Err(PacketError::NoQualityReport { len: wire.len() })
            );
            continue;
        }
        let header = header(&vector["header"]);
        let report: Option<QualityReport> = serde_json::from_value(vector["quality_report"].clone()).unwrap();
        let read = MediaPacket::decode(wire.clone()).unwrap();
        assert_eq!(read.header, header, "{vector}");
        assert_eq!(read.encode(), wire, "{vector}");
        match report {
            // A report without the flag is payload to every reader.
            Some(report) if !header.flags.contains(Flags::QUALITY) => {
                let expected = [bytes(vector, "payload_hex").as_ref(), &report.encode()].concat();
                assert_eq!(read.payload, expected, "{vector}");
            }
            _ => {
                assert_eq!(read.quality, report, "{vector}");
                assert_eq!(read.payload, bytes(vector, "payload_hex"), "{vector}");
            }
        }
    }
}

#[test]
fn the_payload_is_a_slice_of_the_datagram() {
    let datagram = Bytes::from_static(&hex_literal::AUDIO_WITH_REPORT);
    let packet = MediaPacket::decode(datagram.clone()).unwrap();
    assert_eq!(packet.payload.as_ptr(), datagram[16..].as_ptr());
    assert_eq!(packet.payload.as_ref(), [0xf8, 0xff, 0xfe]);
    assert_eq!(
        packet.quality,
        Some(QualityReport {
            loss_pct: 25,
            rtt_4ms: 25,
            jitter_ms: 20,
            bitrate_cap_kbps: 200
        })
    );
}

mod hex_literal {
    /// Example B of section 2.9.
    pub const AUDIO_WITH_REPORT: [u8; 23] = [
        0x02, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x32, 0, 0, 0x03, 0xe8, 0, 0, 0xf8, 0xff, 0xfe, 0x19, 0x19, 0x14, 0xc8,
    ];
}

#[test]
fn reports_are_measured_as_by_natives() {
    let report = QualityReport::measured(10.0, Duration::from_millis(100), Duration::from_millis(20), 200);
    assert_eq!(report.encode(), [25, 25, 20, 200]);
    let worst = QualityReport::measured(1000.0, Duration::MAX, Duration::MAX, 255);
    assert_eq!(worst.encode(), [255; 4]);
    assert_eq!(worst.rtt(), Duration::from_millis(1020));
    assert_eq!(worst.loss_percent(), 100.0);
}

#[test]
fn the_quality_flag_follows_the_report() {
    let mut packet = MediaPacket::decode(Bytes::from_static(&hex_literal::AUDIO_WITH_REPORT)).unwrap();
    packet.quality = None;
    let without = packet.encode();
    assert_eq!(without, encode_datagram(&packet.header, &packet.payload));
    let read = MediaPacket::decode(without).unwrap();
    assert_eq!(read.payload, packet.payload);
    assert!(!read.header.flags.contains(Flags::QUALITY));
}

#[test]
fn codec_table_is_complete() {
    let known: Vec<_> = (0..=255).filter_map(Codec::from_id).collect();
    assert_eq!(known, Codec::ALL);
    for codec in Codec::ALL {
        assert_eq!(Codec::from_id(codec.id()), Some(codec));
        assert_eq!(serde_json::to_string(&codec).unwrap(), format!("\"{codec}\""));
        assert_eq!(
            codec.media_type(),
            if codec.id() >= 9 {
                MediaType::Video
            } else {
                MediaType::Audio
            }
        );
        assert_eq!(codec.is_opus(), matches!(codec.id(), 0..=2 | 6..=8));
    }
    assert_eq!(Codec::Opus6k.frame_ms(), 40);
    assert_eq!(Codec::Codec2_3200.nominal_bitrate(), 3200);
}

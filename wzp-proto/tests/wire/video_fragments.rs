//! Frames cut into packets.

use bytes::Bytes;
use proptest::prelude::*;
use wzp_proto::video::fragment_header;
use wzp_proto::{
    Codec, FRAGMENT_PAYLOAD, Flags, FragmentError, FrameSize, MAX_FRAGMENTS, MediaHeader, MediaPacket, MediaType,
    encode_datagram, fragments,
};

use crate::golden::{bytes, list, load, number};
use crate::media_packet::header;

pub const VGA: FrameSize = FrameSize {
    width: 640,
    height: 480,
};

/// The header of a frame's first packet.
pub fn frame_header(seq: u32, timestamp: u32, keyframe: bool) -> MediaHeader {
    MediaHeader {
        flags: if keyframe { Flags::KEYFRAME } else { Flags::empty() },
        media_type: MediaType::Video,
        codec: Codec::H264Baseline,
        stream_id: 0,
        fec_ratio: 0,
        seq,
        timestamp,
        fec_block: 0,
    }
}

/// A frame as packets.
pub fn packets(frame: &Bytes, size: Option<FrameSize>, max_payload: usize, first: &MediaHeader) -> Vec<MediaPacket> {
    let parts = fragments(frame, size, max_payload).unwrap();
    let count = u8::try_from(parts.len()).unwrap();
    let packet = |(index, payload)| MediaPacket {
        header: fragment_header(first, index, count),
        payload,
        quality: None,
    };
    (0..).zip(parts).map(packet).collect()
}

#[test]
fn frames_are_cut_as_recorded() {
    let golden = load("video_packets.json");
    let wire = &golden["on_the_wire"];
    let illustration = &golden["small_chunk_illustration"];
    let max: usize = number(wire, "max_payload");
    for (frame, max) in [(wire, max), (&wire["delta_frame"], max), (illustration, 100)] {
        let recorded = list(frame, "packets");
        let first = header(&recorded[0]["header"]);
        let cut = packets(&bytes(frame, "access_unit_hex"), None, max, &first);
        assert_eq!(cut.len(), recorded.len());
        for (packet, recorded) in cut.iter().zip(recorded) {
            assert_eq!(packet.header, header(&recorded["header"]));
            assert_eq!(packet.payload, bytes(recorded, "payload_hex"));
            assert_eq!(packet.encode(), bytes(recorded, "wire_hex"));
            assert_eq!(encode_datagram(&packet.header, &packet.payload), packet.encode());
        }
    }
}

#[test]
fn the_size_is_in_front_of_the_first_fragment() {
    // The example of section 7.3.
    let frame = Bytes::from(vec![0xaa; 2000]);
    let cut = packets(&frame, Some(VGA), 1168, &frame_header(100, 1000, true));
    let wire: Vec<Bytes> = cut.iter().map(MediaPacket::encode).collect();
    assert_eq!(
        hex::encode(&wire[0][..24]),
        "02200109000000000064000003e80002575a5631028001e0"
    );
    assert_eq!(hex::encode(&wire[1][..16]), "02300109000000000065000003e80102");
    assert_eq!([wire[0].len(), wire[1].len()], [16 + 1168, 16 + 840]);
    // Only the first fragment is a copy.
    assert_eq!(cut[1].payload.as_ptr(), frame[1160..].as_ptr());
}

#[test]
fn frames_beyond_255_fragments_are_refused() {
    let most = MAX_FRAGMENTS * FRAGMENT_PAYLOAD;
    let frame = Bytes::from(vec![0; most]);
    assert_eq!(fragments(&frame, None, FRAGMENT_PAYLOAD).unwrap().len(), MAX_FRAGMENTS);
    assert_eq!(
        fragments(&frame.slice(8..), Some(VGA), FRAGMENT_PAYLOAD).unwrap().len(),
        MAX_FRAGMENTS
    );
    assert_eq!(
        fragments(&frame.slice(7..), Some(VGA), FRAGMENT_PAYLOAD),
        Err(FragmentError::TooLarge {
            len: most - 7,
            max: most - 8
        })
    );
    assert!(fragments(&Bytes::from(vec![0; most + 1]), None, FRAGMENT_PAYLOAD).is_err());
    assert_eq!(
        fragments(&Bytes::new(), Some(VGA), FRAGMENT_PAYLOAD),
        Err(FragmentError::Empty)
    );
    assert_eq!(
        fragments(&frame, Some(VGA), 8),
        Err(FragmentError::PayloadTooSmall { max_payload: 8 })
    );
    assert_eq!(
        fragments(&frame, None, 0),
        Err(FragmentError::PayloadTooSmall { max_payload: 0 })
    );
}

proptest! {
    #[test]
    fn fragments_join_to_the_frame(
        frame in proptest::collection::vec(any::<u8>(), 1..3000),
        size: Option<(u16, u16)>,
        max_payload in 0..1200usize,
    ) {
        let frame = Bytes::from(frame);
        let size = size.map(|(width, height)| FrameSize { width, height });
        match fragments(&frame, size, max_payload) {
            Ok(parts) => {
                prop_assert!(parts.len() <= MAX_FRAGMENTS);
                prop_assert!(parts.iter().all(|part| !part.is_empty() && part.len() <= max_payload));
                let joined = parts.concat();
                prop_assert_eq!(&joined[joined.len() - frame.len()..], &frame);
                prop_assert_eq!(joined.len() - frame.len(), if size.is_some() { 8 } else { 0 });
            }
            Err(FragmentError::PayloadTooSmall { .. }) => prop_assert!(max_payload <= 8),
            Err(error) => prop_assert!(frame.len() + 8 > MAX_FRAGMENTS * max_payload, "{}", error),
        }
    }
}

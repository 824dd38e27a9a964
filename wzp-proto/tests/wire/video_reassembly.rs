//! Fragments in any order, lost, repeated, contradicting each other.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use wzp_proto::header::Flags;
use wzp_proto::video::{ReassemblyLimits, ReassemblyStats};
use wzp_proto::{AssembledFrame, Codec, MediaPacket, MediaType, Reassembler, ReassemblyError};

use crate::golden::{bytes, list, load};
use crate::video_fragments::{VGA, frame_header, packets};

const NOW: Duration = Duration::from_secs(1000);

fn push_all<'a>(
    reassembler: &mut Reassembler,
    packets: impl IntoIterator<Item = &'a MediaPacket>,
    now: Duration,
) -> Vec<AssembledFrame> {
    packets
        .into_iter()
        .filter_map(|packet| reassembler.push(packet, now).unwrap())
        .collect()
}

fn frame(seq: u32, timestamp: u32, len: usize) -> Vec<MediaPacket> {
    packets(
        &vec![timestamp as u8; len].into(),
        None,
        100,
        &frame_header(seq, timestamp, false),
    )
}

#[test]
fn the_recorded_frames_come_out_in_any_order() {
    let golden = load("video_packets.json");
    for recorded in [
        &golden["on_the_wire"],
        &golden["on_the_wire"]["delta_frame"],
        &golden["small_chunk_illustration"],
    ] {
        let packets: Vec<MediaPacket> = list(recorded, "packets")
            .iter()
            .map(|packet| MediaPacket::decode(bytes(packet, "wire_hex")).unwrap())
            .collect();
        for backwards in [false, true] {
            let mut reassembler = Reassembler::default();
            let frames = if backwards {
                push_all(&mut reassembler, packets.iter().rev(), NOW)
            } else {
                push_all(&mut reassembler, &packets, NOW)
            };
            assert_eq!(frames.len(), 1);
            assert_eq!(frames[0].payload, bytes(recorded, "access_unit_hex"));
            assert_eq!(frames[0].first_seq, packets[0].header.seq);
            assert_eq!(frames[0].last_seq, packets[packets.len() - 1].header.seq);
            assert_eq!(frames[0].keyframe, packets[0].header.is_keyframe());
            assert_eq!(frames[0].size, None);
            assert_eq!(reassembler.pending_bytes(), 0);
        }
    }
}

#[test]
fn recorded_video_of_a_room_comes_out_whole_at_every_receiver() {
    let golden = load("video_room_timeline.json");
    let mut receivers: BTreeMap<String, (Reassembler, usize, usize)> = BTreeMap::new();
    for event in golden["timeline"]["events"].as_array().unwrap() {
        let Some(kind) = event["event"].as_str().filter(|kind| kind.ends_with("datagram")) else {
            continue;
        };
        let place = format!("{} {kind} {}", event["at"], event["peer"]);
        let (reassembler, frames, ends) = receivers.entry(place).or_default();
        let packet = MediaPacket::decode(bytes(event, "hex")).unwrap();
        if packet.header.media_type == MediaType::Video {
            *frames += usize::from(reassembler.push(&packet, NOW).unwrap().is_some());
            *ends += usize::from(packet.header.flags.contains(Flags::FRAME_END));
        }
    }
    let seeing = receivers.values().filter(|(_, frames, _)| *frames > 0).count();
    assert!(seeing >= 3, "{seeing} of {} places had pictures", receivers.len());
    for (place, (reassembler, frames, ends)) in &receivers {
        assert_eq!(frames, ends, "{place}");
        assert_eq!(reassembler.stats().refused, 0, "{place}");
        assert_eq!(reassembler.pending_bytes(), 0, "{place}");
    }
}

#[test]
fn the_size_is_taken_off() {
    let unit = Bytes::from(vec![7; 1000]);
    let mut reassembler = Reassembler::default();
    let frames = push_all(
        &mut reassembler,
        &packets(&unit, Some(VGA), 300, &frame_header(5, 9, true)),
        NOW,
    );
    assert_eq!(frames[0].size, Some(VGA));
    assert_eq!(frames[0].payload, unit);
    assert!(frames[0].keyframe);
    assert_eq!((frames[0].first_seq, frames[0].last_seq), (5, 8));
    // Also when the prefix itself is cut.
    let framed = Bytes::from([b"WZV1\x02\x80\x01\xe0".as_slice(), &unit].concat());
    let frames = push_all(
        &mut reassembler,
        &packets(&framed, None, 5, &frame_header(20, 30, true)),
        NOW,
    );
    assert_eq!((frames[0].size, &frames[0].payload), (Some(VGA), &unit));
    // A size of nothing is no size.
    let framed = Bytes::from_static(b"WZV1\x00\x00\x01\xe0abc");
    let frames = push_all(
        &mut reassembler,
        &packets(&framed, None, 100, &frame_header(900, 40, true)),
        NOW,
    );
    assert_eq!((frames[0].size, frames[0].payload.as_ref()), (None, b"abc".as_slice()));
}

#[test]
fn a_single_fragment_is_not_copied() {
    let unit = Bytes::from(vec![7; 50]);
    let frames = push_all(
        &mut Reassembler::default(),
        &packets(&unit, None, 100, &frame_header(0, 0, false)),
        NOW,
    );
    assert_eq!(frames[0].payload.as_ptr(), unit.as_ptr());
}

#[test]
fn a_frame_needs_all_fragments_and_not_only_the_last() {
    let packets = frame(0, 0, 300);
    let mut reassembler = Reassembler::default();
    assert!(
        push_all(
            &mut reassembler,
            [&packets[0], &packets[2], &packets[2], &packets[0]],
            NOW
        )
        .is_empty()
    );
    assert_eq!(reassembler.stats().repeated, 2);
    assert_eq!(push_all(&mut reassembler, [&packets[1]], NOW).len(), 1);
}

#[test]
fn a_repeated_fragment_replaces() {
    let mut packets = frame(0, 0, 200);
    let mut other = packets[0].clone();
    other.payload = Bytes::from_static(b"other");
    packets.insert(1, other);
    let frames = push_all(&mut Reassembler::default(), &packets, NOW);
    assert!(frames[0].payload.starts_with(b"other"));
    assert_eq!(frames[0].payload.len(), 105);
}

#[test]
fn streams_with_equal_timestamps_are_kept_apart() {
    let (one, mut two) = (frame(0, 0, 200), frame(0, 0, 200));
    for packet in &mut two {
        packet.header.stream_id = 9;
    }
    let mixed = [&one[0], &two[1], &one[1], &two[0]];
    let frames = push_all(&mut Reassembler::default(), mixed, NOW);
    assert_eq!(frames.iter().map(|frame| frame.stream_id).collect::<Vec<_>>(), [0, 9]);
}

#[test]
fn late_fragments_do_not_start_a_frame_again() {
    let packets = frame(0, 0, 100);
    let mut reassembler = Reassembler::default();
    assert_eq!(push_all(&mut reassembler, &packets, NOW).len(), 1);
    assert!(push_all(&mut reassembler, &packets, NOW).is_empty());
    assert_eq!(
        reassembler.stats(),
        ReassemblyStats {
            completed: 1,
            late: 1,
            ..Default::default()
        }
    );
    assert_eq!(reassembler.pending_frames(), 0);
}

#[test]
fn contradictions_are_errors_and_the_frame_survives_them() {
    let packets = frame(0, 0, 200);
    let mut reassembler = Reassembler::default();
    reassembler.push(&packets[0], NOW).unwrap();
    let mut wrong_count = packets[1].clone();
    wrong_count.header.fec_block = 0x0103;
    assert_eq!(
        reassembler.push(&wrong_count, NOW),
        Err(ReassemblyError::ContradictoryCount { count: 3, known: 2 })
    );
    let mut wrong_codec = packets[1].clone();
    wrong_codec.header.codec = Codec::Av1Main;
    assert_eq!(
        reassembler.push(&wrong_codec, NOW),
        Err(ReassemblyError::ContradictoryCodec {
            codec: Codec::Av1Main,
            known: Codec::H264Baseline
        })
    );
    for (fec_block, index, count) in [(0, 0, 0), (0x0200, 2, 0), (0x0202, 2, 2), (0xff01, 255, 1)] {
        let mut impossible = packets[1].clone();
        impossible.header.fec_block = fec_block;
        assert_eq!(
            reassembler.push(&impossible, NOW),
            Err(ReassemblyError::FragmentIndex { index, count })
        );
    }
    let mut audio = packets[1].clone();
    audio.header.media_type = MediaType::Audio;
    assert!(matches!(
        reassembler.push(&audio, NOW),
        Err(ReassemblyError::NotVideo { .. })
    ));
    assert_eq!(reassembler.stats().refused, 7);
    assert!(reassembler.push(&packets[1], NOW).unwrap().is_some());
}

#[test]
fn pending_frames_are_bounded_in_number() {
    let mut reassembler = Reassembler::default();
    let frames: Vec<_> = (0..17).map(|n| frame(n * 2, n * 33, 200)).collect();
    for packets in &frames {
        reassembler.push(&packets[0], NOW).unwrap();
        assert!(reassembler.pending_frames() <= 16);
    }
    assert_eq!(reassembler.stats().incomplete, 1);
    // The first frame was given up, the second one was not.
    assert!(reassembler.push(&frames[0][1], NOW).unwrap().is_none());
    assert_eq!(reassembler.stats().late, 1);
    assert!(reassembler.push(&frames[1][1], NOW).unwrap().is_some());
}

#[test]
fn pending_bytes_are_bounded() {
    let limits = ReassemblyLimits {
        bytes: 1000,
        ..Default::default()
    };
    let mut reassembler = Reassembler::new(limits);
    let big = |seq, timestamp| packets(&vec![0; 1200].into(), None, 400, &frame_header(seq, timestamp, true));
    push_all(&mut reassembler, &big(0, 0)[..2], NOW);
    push_all(&mut reassembler, &big(3, 33)[..1], NOW);
    assert_eq!(reassembler.pending_bytes(), 400);
    assert_eq!(reassembler.stats().incomplete_keyframes, 1);
    // One frame that alone is too much.
    let huge = packets(&vec![0; 4000].into(), None, 600, &frame_header(9, 66, true));
    reassembler.push(&huge[0], NOW).unwrap();
    assert_eq!(
        reassembler.push(&huge[1], NOW),
        Err(ReassemblyError::TooLarge { len: 1200, max: 1000 })
    );
    assert!(reassembler.pending_bytes() <= 1000);
    assert!(reassembler.push(&huge[2], NOW).unwrap().is_none());
    assert!(reassembler.pending_bytes() <= 1000);
}

#[test]
fn pending_frames_are_bounded_in_age() {
    let (old, young) = (frame(0, u32::MAX - 99, 200), frame(2, 4_901, 100));
    let mut reassembler = Reassembler::default();
    reassembler.push(&old[0], NOW).unwrap();
    // 5000 ms of media time later it is still there, one ms more and it is gone.
    reassembler.push(&frame(5, 4_900, 100)[0], NOW).unwrap().unwrap();
    assert_eq!(reassembler.pending_frames(), 1);
    reassembler.push(&young[0], NOW).unwrap().unwrap();
    assert_eq!(reassembler.pending_frames(), 0);

    // The other clock: arrival.
    let stale = frame(10, 5_000, 200);
    reassembler.push(&stale[0], NOW).unwrap();
    reassembler.expire(NOW + Duration::from_secs(5));
    assert_eq!(reassembler.pending_frames(), 1);
    reassembler.expire(NOW + Duration::from_millis(5001));
    assert_eq!(reassembler.pending_frames(), 0);
    assert_eq!(reassembler.stats().incomplete, 2);
}

#[test]
fn clocks_of_other_streams_do_not_age_a_frame() {
    let (frame_of_one, mut other) = (frame(0, 0, 200), frame(0, 900_000, 100));
    other[0].header.stream_id = 9;
    let frames = push_all(
        &mut Reassembler::default(),
        [&frame_of_one[0], &other[0], &frame_of_one[1]],
        NOW,
    );
    assert_eq!(frames.iter().map(|frame| frame.stream_id).collect::<Vec<_>>(), [9, 0]);
}

#[test]
fn a_sender_that_starts_again_is_assembled() {
    let mut reassembler = Reassembler::default();
    push_all(&mut reassembler, &frame(7000, 900_000, 200), NOW);
    reassembler.push(&frame(7002, 900_033, 200)[0], NOW).unwrap();
    assert_eq!(push_all(&mut reassembler, &frame(0, 0, 200), NOW).len(), 1);
}

/// Deliveries of fragments: lost, repeated, mixed up, within a window.
fn deliveries() -> impl Strategy<Value = (Vec<usize>, Vec<(usize, usize)>)> {
    let lens = proptest::collection::vec(1..2000usize, 1..12);
    lens.prop_flat_map(|lens| {
        let all: Vec<(usize, usize)> = lens
            .iter()
            .enumerate()
            .flat_map(|(frame, len)| (0..len.div_ceil(100)).map(move |part| (frame, part)))
            .collect();
        let copies = proptest::collection::vec(0..3usize, all.len());
        let order = Just(all).prop_shuffle();
        (Just(lens), order, copies).prop_map(|(lens, order, copies)| {
            let deliveries = order
                .iter()
                .zip(copies)
                .flat_map(|(part, copies)| std::iter::repeat_n(*part, copies));
            (lens, deliveries.collect())
        })
    })
}

proptest! {
    #[test]
    fn exactly_the_frames_whose_fragments_all_came_come_out_once((lens, deliveries) in deliveries()) {
        let frames: Vec<_> = (0u32..).zip(&lens).map(|(n, len)| {
            let unit: Bytes = (0..*len).map(|i| (i as u32 + n) as u8).collect::<Vec<_>>().into();
            let first = frame_header(n.wrapping_mul(100).wrapping_sub(50), n.wrapping_mul(33).wrapping_sub(60), n == 0);
            (packets(&unit, None, 100, &first), unit)
        }).collect();
        let mut reassembler = Reassembler::default();
        let mut out = BTreeMap::new();
        for (frame, part) in &deliveries {
            if let Some(assembled) = reassembler.push(&frames[*frame].0[*part], NOW).unwrap() {
                prop_assert_eq!(&assembled.payload, &frames[*frame].1);
                prop_assert_eq!(assembled.first_seq, frames[*frame].0[0].header.seq);
                prop_assert_eq!(assembled.keyframe, *frame == 0);
                prop_assert!(out.insert(*frame, assembled).is_none());
            }
        }
        for (n, (packets, _)) in frames.iter().enumerate() {
            let complete = (0..packets.len()).all(|part| deliveries.contains(&(n, part)));
            prop_assert_eq!(out.contains_key(&n), complete);
        }
        if out.len() == frames.len() {
            prop_assert_eq!(reassembler.pending_bytes(), 0);
        }
    }

    #[test]
    fn anything_stays_within_bounds(
        pushes in proptest::collection::vec(
            (0..3u8, 0..40u32, any::<u16>(), 0..5u8, 0..600usize, 0..200u64), 0..400),
    ) {
        let limits = ReassemblyLimits {
            bytes: 2000, frames: 4, age_ms: 20, wait: Duration::from_millis(1000),
        };
        let mut reassembler = Reassembler::new(limits);
        let mut now = NOW;
        for (stream_id, timestamp, fec_block, small, len, elapsed) in pushes {
            let mut header = frame_header(0, timestamp.wrapping_sub(20), false);
            header.stream_id = stream_id;
            header.fec_block = if small > 0 { fec_block & 0x0303 } else { fec_block };
            let packet = MediaPacket { header, payload: vec![0; len].into(), quality: None };
            now += Duration::from_millis(elapsed);
            let _ = reassembler.push(&packet, now);
            prop_assert!(reassembler.pending_bytes() <= limits.bytes);
            prop_assert!(reassembler.pending_frames() <= limits.frames);
        }
        reassembler.expire(now + Duration::from_secs(2));
        prop_assert_eq!((reassembler.pending_frames(), reassembler.pending_bytes()), (0, 0));
    }
}

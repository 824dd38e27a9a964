//! The log: what it takes, what it keeps, and the forms that its frames remember.

use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use wzp_gateway::media::frame::{Draft, Frame, MAX_FRAME, MESSAGE_HEADER, MESSAGE_PAYLOAD, RtpPayload, TrackId};
use wzp_gateway::room::subscription::Start;
use wzp_gateway::room::track::{Appended, Bounds};
use wzp_proto::codec::Codec;
use wzp_proto::header::{Flags, MediaHeader, MediaType};
use wzp_proto::video::{FragmentError, FrameSize, MAX_FRAGMENTS};

use crate::support::{NONE, Source, audio_id, indices, ms, read, video_id};

#[test]
fn first_delta_of_a_track_is_refused() {
    let mut source = Source::video();
    assert_eq!(source.delta(), Appended::NeedsKeyframe);
    assert_eq!(source.key(), Appended::At(0));
    assert_eq!(source.delta(), Appended::At(1));
    assert_eq!(source.track.counters().refused.load(Ordering::Relaxed), 1);
}

#[test]
fn frame_that_is_lost_on_the_way_in_stops_deltas_until_a_keyframe_completes() {
    let mut source = Source::video();
    let mut live = source.cursor();
    source.key();
    source.delta();
    source.lose();
    assert_eq!(source.delta(), Appended::NeedsKeyframe);
    assert_eq!(source.delta(), Appended::NeedsKeyframe);
    assert_eq!(indices(&mut live), [0, 1], "what came before the gap is good");
    let mut late = source.cursor();
    late.start();
    assert_eq!(indices(&mut late), [0, 1], "and good for a newcomer");
    assert_eq!(source.key(), Appended::At(2));
    assert_eq!(source.delta(), Appended::At(3));
    assert_eq!(indices(&mut live), [2, 3]);
    assert_eq!(indices(&mut late), [2, 3]);
}

#[test]
fn lost_audio_stops_nothing() {
    let mut source = Source::audio();
    source.key();
    source.lose();
    assert_eq!(source.key(), Appended::At(1));
}

#[test]
fn delta_of_another_codec_than_its_predecessor_is_refused() {
    let mut source = Source::video();
    source.key();
    source.codec = Codec::Av1Main;
    assert_eq!(source.delta(), Appended::NeedsKeyframe);
    source.codec = Codec::H264Baseline;
    assert_eq!(source.delta(), Appended::NeedsKeyframe, "the one before it was refused");
    source.codec = Codec::Av1Main;
    assert_eq!(source.key(), Appended::At(1));
    assert_eq!(source.delta(), Appended::At(2));
}

#[test]
fn frame_that_no_message_count_can_name_is_refused() {
    let mut source = Source::video();
    source.size = MAX_FRAME + 1;
    assert_eq!(source.key(), Appended::NeedsKeyframe);
    source.size = MAX_FRAME;
    assert_eq!(source.key(), Appended::At(0));
    let mut cursor = source.cursor();
    cursor.start();
    let frame = read(&mut cursor).remove(0);
    assert_eq!(frame.messages().len(), 255);
    check_messages(&frame);
}

#[test]
fn newest_keyframe_is_the_replay_point() {
    let mut source = Source::video();
    source.key();
    source.deltas(5);
    source.key();
    source.deltas(3);
    let mut late = source.cursor();
    assert_eq!(
        late.start(),
        Start::Replay {
            age: 120_000,
            bytes: 4000,
            fresh: true
        }
    );
    assert_eq!(indices(&mut late), [6, 7, 8, 9]);
}

#[test]
fn audio_on_the_same_stream_number_is_harmless() {
    let mut video = Source::video();
    let mut audio = Source::audio();
    let (mut sees, mut hears) = (video.cursor(), audio.cursor());
    video.key();
    for _ in 0..50 {
        audio.key();
        audio.lose();
        video.delta();
    }
    assert_eq!(indices(&mut sees), (0..51).collect::<Vec<_>>());
    assert_eq!(indices(&mut hears).len(), 13, "half a second of it is within the lag");
    drop(audio);
    assert_eq!(video.delta(), Appended::At(51));
}

#[test]
fn frames_before_the_keyframe_are_kept_for_the_tail_only() {
    let mut source = Source::video();
    for _ in 0..10 {
        source.key();
        source.deltas(74);
    }
    let (frames, _) = source.track.held();
    // The newest group of 75, a second before it, and nothing more than what leaves little by little.
    assert!((75..=75 + 26).contains(&frames), "{frames} frames");
}

#[test]
fn log_is_bounded_in_time() {
    let mut source = Source::video();
    source.key();
    source.deltas(299);
    let mut late = source.cursor();
    assert!(matches!(late.start(), Start::Replay { fresh: false, .. }));
    assert_eq!(
        source.track.held().0,
        300,
        "up to the hard bound the whole group is there"
    );
    source.deltas(2);
    assert_eq!(
        late.start(),
        Start::NeedsKeyframe,
        "the keyframe is older than twelve seconds"
    );
}

#[test]
fn group_without_its_keyframe_is_let_go_little_by_little() {
    let mut source = Source::video();
    source.key();
    source.deltas(301);
    let mut most = 0;
    for _ in 0..200 {
        let before = source.track.held().0;
        source.delta();
        most = most.max((before + 1).saturating_sub(source.track.held().0));
    }
    assert_eq!(
        source.track.held().0,
        26,
        "nobody can begin with it: the tail is enough"
    );
    assert!(most <= 5, "{most} frames at once");
}

#[test]
fn log_is_bounded_in_bytes_with_every_form_that_is_made() {
    let bounds = Bounds::VIDEO;
    let mut source = Source::video();
    source.size = 12_000;
    let mut cursor = source.cursor();
    cursor.start();
    // A keyframe every ten seconds.
    let mut most = 0;
    for at in 0..750 {
        source.append(at % 250 == 0);
        assert!(source.track.held().1 <= bounds.hard_bytes);
        most = most.max(source.track.held().0);
    }
    assert!(most >= 250, "without forms, a whole group finds place");
    for at in 0..750 {
        source.append(at % 250 == 0);
        assert!(source.track.held().1 <= bounds.hard_bytes);
        for frame in read(&mut cursor) {
            frame.messages();
            frame.wzp_fragments().expect("12 kB fit");
            frame.rtp_payloads(rtp_copies);
        }
    }
}

#[test]
fn newest_frame_is_kept_whatever_it_costs() {
    let mut source = Source::new(
        video_id(1),
        Bounds {
            hard_bytes: 10_000,
            tail_bytes: 10_000,
            ..Bounds::VIDEO
        },
    );
    let mut live = source.cursor();
    source.key();
    source.size = 50_000;
    source.key();
    assert_eq!(source.track.held().0, 1);
    assert_eq!(indices(&mut live), [1]);
}

#[test]
fn nothing_past_the_hard_bounds_is_replayed_and_live_has_its_tail_all_the_same() {
    let age = Bounds {
        soft_age: 100_000,
        hard_age: 300_000,
        ..Bounds::VIDEO
    };
    let bytes = Bounds {
        soft_bytes: 1000,
        hard_bytes: 8000,
        ..Bounds::VIDEO
    };
    for bounds in [age, bytes] {
        let mut source = Source::new(video_id(1), bounds);
        let mut live = source.cursor();
        source.key();
        // 280 ms and 8,000 bytes.
        source.deltas(7);
        assert!(matches!(source.cursor().start(), Start::Replay { fresh: false, .. }));
        source.delta();
        let mut late = source.cursor();
        assert_eq!(late.start(), Start::NeedsKeyframe);
        assert_eq!(indices(&mut late), NONE);
        assert_eq!(indices(&mut live), (0..9).collect::<Vec<_>>(), "within half a second");
        let found = source.track.counters().replays.now();
        assert_eq!((found.hit, found.stale, found.miss), (0, 1, 1));
    }
}

#[test]
fn without_replay_live_goes_on_and_newcomers_wait() {
    for (hard_age, hard_bytes) in [(0, 0), (0, 1 << 20), (12_000_000, 0)] {
        let bounds = Bounds {
            hard_age,
            hard_bytes,
            ..Bounds::VIDEO
        };
        let mut source = Source::new(video_id(1), bounds);
        let mut live = source.cursor();
        source.key();
        source.deltas(5);
        assert_eq!(indices(&mut live), [0, 1, 2, 3, 4, 5]);
        let mut late = source.cursor();
        assert_eq!(late.start(), Start::NeedsKeyframe);
        source.delta();
        assert_eq!(indices(&mut late), NONE);
        source.key();
        assert_eq!(indices(&mut late), [7]);
    }
}

#[test]
fn sound_is_bounded_to_a_second() {
    let mut source = Source::audio();
    for _ in 0..500 {
        source.key();
    }
    assert_eq!(source.track.held().0, 51);
    source.size = 60_000;
    for _ in 0..50 {
        source.key();
        assert!(source.track.held().1 <= Bounds::AUDIO.hard_bytes);
    }
}

#[test]
fn times_are_at_least_a_millisecond_apart_and_otherwise_the_sources_own() {
    let mut source = Source::audio();
    let mut cursor = source.cursor();
    // A burst after a stall arrives at one instant: its spacing is the source's all the same.
    for at in [0, 20, 40, 60] {
        let draft = Draft {
            time: ms(10_000 + at),
            ..source.draft(true, Bytes::from_static(b"x"))
        };
        source.writer.append(draft, ms(10_500));
    }
    // Packets that bear one timestamp, and one from the past.
    for at in [60, 60, 10, 80] {
        let draft = Draft {
            time: ms(10_000 + at),
            ..source.draft(true, Bytes::from_static(b"x"))
        };
        source.writer.append(draft, ms(10_500));
    }
    let times: Vec<_> = read(&mut cursor).iter().map(|frame| frame.time.as_millis()).collect();
    assert_eq!(times, [10_000, 10_020, 10_040, 10_060, 10_061, 10_062, 10_063, 10_080]);
}

/// RTP payloads that are copies, as fragmentation units are.
fn rtp_copies(frame: &Frame) -> std::sync::Arc<[RtpPayload]> {
    frame
        .payload
        .chunks(1100)
        .map(|part| RtpPayload {
            bytes: [&[0x7c, 0x85], part].concat().into(),
            marker: false,
        })
        .collect()
}

/// Parses the messages of a frame back, as `docs/browser-protocol.md` section 3 defines them.
fn check_messages(frame: &Frame) {
    let mut payload = BytesMut::new();
    let messages = frame.messages();
    for (index, message) in messages.iter().enumerate() {
        assert_eq!(message[0], 1);
        assert_eq!(message[1..5], frame.track.source.0.to_be_bytes());
        let header = MediaHeader::decode(&message[5..]).expect("a header");
        assert_eq!(header.seq, frame.message_seq.wrapping_add(index as u32));
        assert_eq!(header.timestamp, frame.time.wire_millis());
        assert_eq!(header.codec, frame.codec);
        assert_eq!(header.stream_id, frame.track.stream());
        assert_eq!(header.fec_ratio, 0);
        assert!(message.len() <= MESSAGE_HEADER + MESSAGE_PAYLOAD || header.media_type == MediaType::Audio);
        if header.media_type == MediaType::Video {
            assert_eq!(header.flags.contains(Flags::KEYFRAME), frame.keyframe);
            assert_eq!(header.flags.contains(Flags::FRAME_END), index + 1 == messages.len());
            assert_eq!(header.fec_block.to_be_bytes(), [index as u8, messages.len() as u8]);
        } else {
            assert_eq!((header.flags, header.fec_block, messages.len()), (Flags::empty(), 0, 1));
        }
        payload.extend_from_slice(&message[MESSAGE_HEADER..]);
    }
    assert_eq!(payload, frame.payload);
}

fn check_fragments(frame: &Frame) {
    let fragments = frame.wzp_fragments().expect("it fits");
    assert!(fragments.len() <= MAX_FRAGMENTS);
    assert!(fragments.iter().all(|fragment| fragment.len() <= 1100));
    let mut whole = Bytes::from(fragments.concat());
    if let Some(size) = frame.size {
        let head = whole.split_to(8);
        assert_eq!(&head[..4], b"WZV1");
        assert_eq!(head[4..6], size.width.to_be_bytes());
        assert_eq!(head[6..8], size.height.to_be_bytes());
    }
    assert_eq!(whole, frame.payload);
}

/// What the forms of a frame really hold, handles included.
fn bytes_in_forms(frame: &Frame) -> usize {
    let list = |items: &[Bytes]| items.iter().map(|item| item.len() + size_of::<Bytes>()).sum::<usize>();
    let copied_by_wzp = match frame.wzp_fragments() {
        Ok(fragments) => fragments.first().map_or(0, Bytes::len) + fragments.len() * size_of::<Bytes>(),
        Err(_) => 0,
    };
    let rtp = frame.rtp_payloads(rtp_copies);
    let rtp: usize = rtp
        .iter()
        .map(|payload| payload.bytes.len() + size_of::<RtpPayload>())
        .sum();
    size_of::<Frame>() + frame.payload.len() + list(frame.messages()) + copied_by_wzp + rtp
}

#[test]
fn audio_forms_are_one_packet_each() {
    let mut source = Source::audio();
    let mut cursor = source.cursor();
    source.size = 80;
    source.key();
    source.key();
    for frame in read(&mut cursor) {
        check_messages(&frame);
        let fragments = frame.wzp_fragments().expect("sound is never cut");
        assert_eq!(fragments.to_vec(), vec![frame.payload.clone()]);
    }
}

#[test]
fn frame_that_no_fragment_count_can_name_says_so_every_time() {
    let mut source = Source::video();
    source.size = 1100 * 255 + 1;
    source.key();
    let mut cursor = source.cursor();
    cursor.start();
    let frame = read(&mut cursor).remove(0);
    for _ in 0..2 {
        assert!(matches!(frame.wzp_fragments(), Err(FragmentError::TooLarge { .. })));
    }
}

proptest! {
    #[test]
    fn forms_can_be_put_together_again_and_are_made_once(
        len in 1usize..60_000,
        keyframe in any::<bool>(),
        size in proptest::option::of((1u16.., 1u16..)),
        slot in 0u8..16,
        layer in 0u8..16,
        source in 1u32..,
    ) {
        let id = TrackId { slot, layer, ..video_id(source) };
        let mut source = Source::new(id, Bounds::VIDEO);
        source.key();
        let mut cursor = source.cursor();
        let payload: Bytes = (0..len).map(|at| (at * 31 % 251) as u8).collect();
        let draft = Draft {
            size: size.map(|(width, height)| FrameSize { width, height }),
            ..source.draft(keyframe, payload)
        };
        source.writer.append(draft, ms(10_040));
        cursor.start();
        let frame = read(&mut cursor).pop().expect("it was appended");
        check_messages(&frame);
        check_fragments(&frame);
        prop_assert!(std::sync::Arc::ptr_eq(frame.messages(), frame.messages()));
        prop_assert!(bytes_in_forms(&frame) <= frame.cost(), "{} > {}", bytes_in_forms(&frame), frame.cost());
    }

    #[test]
    fn small_sound_costs_no_more_than_it_is_counted_for(len in 0usize..400) {
        let mut source = Source::new(audio_id(3), Bounds::AUDIO);
        let mut cursor = source.cursor();
        source.size = len;
        source.key();
        let frame = read(&mut cursor).remove(0);
        check_messages(&frame);
        prop_assert!(bytes_in_forms(&frame) <= frame.cost());
    }

    #[test]
    fn message_numbers_run_on_without_a_gap(sizes in proptest::collection::vec(0usize..40_000, 1..30)) {
        let mut source = Source::video();
        let mut cursor = source.cursor();
        let mut expected = 1000u32;
        for size in sizes {
            source.size = size;
            source.key();
            for frame in read(&mut cursor) {
                prop_assert_eq!(frame.message_seq, expected);
                expected += frame.messages().len() as u32;
            }
        }
    }
}

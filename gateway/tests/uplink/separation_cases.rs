//! Single cases: what each event means, what is bounded, what nobody can break.

use std::time::Duration;

use proptest::prelude::*;
use wzp_gateway::uplink::separate::{Config, Event, Placement, Separator, StreamId};
use wzp_proto::codec::Codec;
use wzp_proto::header::{Flags, MediaHeader, MediaType};

use crate::separation::audio;

/// Pushes one packet after the other, 20 ms apart.
fn push_all(separator: &mut Separator, from_ms: u64, headers: impl IntoIterator<Item = MediaHeader>) -> Vec<Placement> {
    let at = |n: u64| Duration::from_millis(from_ms + n * 20);
    (0..)
        .zip(headers)
        .map(|(n, header)| separator.push(&header, at(n)))
        .collect()
}

fn sound(range: std::ops::Range<u32>) -> impl Iterator<Item = MediaHeader> {
    range.map(|n| audio(Codec::Opus24k, n, n * 20))
}

fn picture(stream_id: u8, seq: u32, timestamp: u32) -> MediaHeader {
    MediaHeader {
        media_type: MediaType::Video,
        codec: Codec::H264Baseline,
        stream_id,
        fec_block: 1,
        ..audio(Codec::H264Baseline, seq, timestamp)
    }
}

#[test]
fn newcomer_in_a_silence_is_found_out_when_the_silent_one_returns() {
    let mut separator = Separator::new(Config::default());
    let old = push_all(&mut separator, 0, sound(0..100));
    let newcomer = push_all(&mut separator, 4_000, sound(0..65));
    assert_eq!(
        (newcomer[0].stream, newcomer[0].event),
        (old[0].stream, Event::Restarted)
    );
    let returned = push_all(&mut separator, 5_310, [audio(Codec::Opus24k, 100, 2_000)]);
    assert_eq!(
        (returned[0].stream, returned[0].event),
        (old[0].stream, Event::Continued)
    );
    let other = push_all(&mut separator, 5_320, sound(66..68));
    assert_ne!(other[0].stream, old[0].stream);
    assert_eq!((other[0].event, other[1].event), (Event::New, Event::Continued));
}

#[test]
fn expected_newcomer_is_nobodys_restart() {
    let mut separator = Separator::new(Config::default());
    let old = push_all(&mut separator, 0, sound(0..100));
    separator.expect_newcomers(1);
    let newcomer = push_all(&mut separator, 4_000, sound(0..100));
    assert_ne!(newcomer[0].stream, old[0].stream);
    assert_eq!(newcomer[0].event, Event::New);
    let again = push_all(&mut separator, 8_000, sound(5..6));
    assert_eq!(
        again[0].event,
        Event::New,
        "two are silent: it may be either's, or somebody else's"
    );
}

#[test]
fn codec_may_change_within_a_stream() {
    let mut separator = Separator::new(Config::default());
    let mut timestamp = 0;
    for seq in 0..400 {
        let codec = [Codec::Opus24k, Codec::Opus6k, Codec::Codec2_1200, Codec::Opus64k][seq as usize / 100];
        let placement = separator.push(&audio(codec, seq, timestamp), Duration::from_millis(timestamp.into()));
        assert_eq!(placement.stream, StreamId(0), "packet {seq}");
        timestamp += codec.frame_ms();
    }
}

#[test]
fn repeated_packet_is_a_duplicate_and_constant_repetition_another_sender() {
    let mut separator = Separator::new(Config::default());
    push_all(&mut separator, 0, sound(0..50));
    let again = separator.push(&audio(Codec::Opus24k, 49, 980), Duration::from_millis(985));
    assert_eq!((again.stream, again.event), (StreamId(0), Event::Duplicate));
    push_all(&mut separator, 1_000, sound(50..100));
    let mut events = Vec::new();
    for n in 100..200u32 {
        for delay in [0, 3] {
            let at = Duration::from_millis(u64::from(n) * 20 + delay);
            events.push(separator.push(&audio(Codec::Opus24k, n, n * 20), at));
        }
    }
    assert_eq!(separator.len(), 2);
    assert!(events[20..].iter().all(|p| p.event != Event::Duplicate));
    assert!(
        events.iter().any(|p| p.event == Event::Merged),
        "who is who cannot be told, and that is said"
    );
}

#[test]
fn video_goes_by_stream_id_even_when_old_keyframes_come_in_between() {
    let mut separator = Separator::new(Config::default());
    let mut ms = 1_000;
    let mut push = |header| {
        ms += 1;
        separator.push(&header, Duration::from_millis(ms))
    };
    // Replayed to a newcomer, a minute old, with a live packet of the same sender in between.
    let first = push(picture(7, 100, 4_000));
    assert_eq!(first.event, Event::New);
    let live = push(picture(7, 9_000, 64_000));
    assert_eq!((live.stream, live.event), (first.stream, Event::Restarted));
    let replayed = push(picture(7, 101, 4_000));
    assert_eq!((replayed.stream, replayed.event), (first.stream, Event::Continued));
    let other = push(picture(8, 100, 4_000));
    assert_eq!((other.stream == first.stream, other.event), (false, Event::New));
    for n in 1..100 {
        let placements = [
            push(picture(7, 9_000 + n, 64_000 + n)),
            push(picture(8, 100 + n, 4_000 + n)),
        ];
        assert_eq!(
            placements.map(|p| (p.stream, p.event)),
            [first, other].map(|p| (p.stream, Event::Continued))
        );
    }
}

#[test]
fn picture_that_flows_lives_on_when_an_old_keyframe_comes_after_it() {
    let idle = Duration::from_secs(10);
    let mut separator = Separator::new(Config {
        idle,
        ..Config::default()
    });
    let live = |n: u32| picture(7, 5_000 + n, 160_000 + n * 20);
    let begun = push_all(&mut separator, 0, (0..10).map(live));
    let replayed = push_all(&mut separator, 200, [picture(7, 40, 1_300), picture(7, 41, 1_300)]);
    assert!(replayed.iter().all(|placed| placed.stream == begun[0].stream));
    for second in 0..30 {
        let from = 10 + second * 50;
        let placed = push_all(&mut separator, u64::from(from) * 20, (from..from + 50).map(live));
        assert!(placed.iter().all(|placed| *placed
            == Placement {
                stream: begun[0].stream,
                event: Event::Continued
            }));
        assert_eq!(separator.expire(Duration::from_millis(u64::from(from + 50) * 20)), []);
    }
}

#[test]
fn sessions_of_trunk_frames_tell_even_twins_apart() {
    let mut separator = Separator::new(Config::default());
    for n in 0..200 {
        let at = Duration::from_millis(u64::from(n) * 20);
        for (session, stream) in [([1, 0], StreamId(0)), ([2, 0], StreamId(1))] {
            // One of them begins again in between.
            let seq = if stream.0 == 1 && n >= 100 { n - 100 } else { n };
            let placement = separator.push_from(session, &audio(Codec::Opus24k, seq, seq * 20), at);
            let event = match n {
                0 => Event::New,
                100 if stream.0 == 1 => Event::Restarted,
                _ => Event::Continued,
            };
            assert_eq!((placement.stream, placement.event), (stream, event), "packet {n}");
        }
    }
}

#[test]
fn two_senders_on_video_stream_zero_come_apart_by_their_counts() {
    let mut separator = Separator::new(Config::default());
    let mut wrong = 0;
    for frame in 0..300u32 {
        for (sender, ahead_ms) in [(0, 0), (1, 40_000)] {
            for part in 0..3 {
                let header = picture(0, frame * 3 + part + sender * 20_000, frame * 33 + ahead_ms);
                let at = Duration::from_millis(u64::from(frame * 33 + sender * 10 + part));
                wrong += u32::from(separator.push(&header, at).stream != StreamId(sender));
            }
        }
    }
    assert_eq!((wrong, separator.len()), (0, 2));
}

#[test]
fn silent_streams_vanish_and_strays_sooner() {
    let mut separator = Separator::new(Config::default());
    push_all(&mut separator, 0, sound(0..100));
    let stray = separator.push(&audio(Codec::Opus24k, 77_777, 5), Duration::from_secs(2));
    assert_eq!(stray.event, Event::New);
    assert_eq!(separator.expire(Duration::from_millis(3_900)), []);
    assert_eq!(separator.expire(Duration::from_millis(4_000)), [stray.stream]);
    assert_eq!(separator.expire(Duration::from_secs(31)), []);
    assert_eq!(separator.expire(Duration::from_secs(32)), [StreamId(0)]);
    assert!(separator.is_empty());
}

#[test]
fn streams_beyond_the_limit_are_merged_and_said_to_be() {
    let mut separator = Separator::new(Config {
        streams: 3,
        ..Config::default()
    });
    let at = Duration::from_secs(1);
    let events: Vec<_> = (0..10)
        .map(|n| separator.push(&audio(Codec::Opus24k, n << 20, n), at).event)
        .collect();
    assert_eq!(events[..3], [Event::New; 3]);
    assert_eq!(events[3..], [Event::Merged; 7]);
    // Another media type has places of its own, and another lane of the same type has not.
    let events: Vec<_> = (1..=5).map(|id| separator.push(&picture(id, 0, 0), at).event).collect();
    assert_eq!(
        events,
        [Event::New, Event::New, Event::New, Event::Merged, Event::Merged]
    );
    assert_eq!(separator.len(), 6);
}

fn any_header() -> impl Strategy<Value = MediaHeader> {
    let near = prop_oneof![0..20u32, Just(u32::MAX), Just(1 << 31), any::<u32>()];
    (
        any::<u8>(),
        0..4u8,
        0..13u8,
        0..3u8,
        any::<u8>(),
        near.clone(),
        near,
        any::<u16>(),
    )
        .prop_map(
            |(flags, media_type, codec, stream_id, fec_ratio, seq, timestamp, fec_block)| MediaHeader {
                flags: Flags::from_bits_retain(flags),
                media_type: MediaType::from_id(media_type).unwrap_or(MediaType::Audio),
                codec: Codec::from_id(codec).unwrap_or(Codec::Opus24k),
                stream_id,
                fec_ratio,
                seq,
                timestamp,
                fec_block,
            },
        )
}

proptest! {
    #[test]
    fn nothing_panics_and_nothing_grows(
        packets in proptest::collection::vec((any_header(), prop_oneof![0..50_000u64, Just(u64::MAX)], any::<bool>()), 0..300),
        streams in 0..5usize,
    ) {
        let mut separator = Separator::new(Config { streams, ..Config::default() });
        let mut at = Duration::ZERO;
        let mut ids = std::collections::BTreeSet::new();
        for (header, step, expire) in packets {
            at = at.saturating_add(Duration::from_micros(step));
            if expire {
                for gone in separator.expire(at) {
                    prop_assert!(ids.remove(&gone), "a stream vanishes once, and only after it was announced or split off");
                }
            }
            let placement = separator.push(&header, at);
            prop_assert!(separator.len() <= 4 * streams.max(1));
            let known = !ids.insert(placement.stream);
            prop_assert!(known || placement.event == Event::New, "{placement:?} comes out of nowhere");
        }
    }
}

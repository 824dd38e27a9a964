//! What can only be shown from inside.

use std::sync::Arc;

use tokio::sync::Notify;

use super::*;
use crate::media::frame::{Frame, ParticipantId, TrackId};
use crate::room::subscription::{Cursor, Lag, Next};
use crate::room::track::{Bounds, Track};

const STEP: Duration = Duration::from_millis(20);

/// A track that is fed by packets 20 ms apart, and what came out of it.
struct World {
    incoming: Incoming,
    codec: Codec,
    cursor: Cursor,
    frames: Vec<Arc<Frame>>,
    shared: SourceClock,
    start: Instant,
    now: Instant,
}

impl World {
    fn new(codec: Codec) -> Self {
        let kind = match codec {
            Codec::Opus => Kind::Audio,
            _ => Kind::Video,
        };
        let id = TrackId {
            source: ParticipantId(1),
            kind,
            slot: 0,
            layer: 0,
        };
        let (track, writer) = Track::create(id, Bounds::of(kind, Bounds::VIDEO), 0);
        let start = Instant::now();
        Self {
            incoming: Incoming::new(kind, 0, writer),
            codec,
            cursor: cursor(&track),
            frames: Vec::new(),
            shared: SourceClock::default(),
            start,
            now: start,
        }
    }

    fn packet(&mut self, ssrc: u32, seq: u64, timestamp: u32, payload: &[u8]) -> Outcome {
        self.now += STEP;
        let meta = RtpMeta {
            payload_type: 96,
            codec: self.codec,
            seq,
            timestamp,
            ssrc,
            marker: true,
            audio_level: None,
            repaired: false,
            arrived: self.now,
        };
        let room_now = RoomTime(1_000_000 + (self.now - self.start).as_micros() as u64);
        let payload = Bytes::copy_from_slice(payload);
        let outcome = self
            .incoming
            .packet(&meta, payload, self.now, room_now, &mut self.shared);
        let lag = Lag {
            most: u64::MAX,
            resync_age: 0,
        };
        while let Next::Frame(frame) = self.cursor.next(&lag) {
            self.frames.push(frame);
        }
        outcome
    }
}

/// An H.264 keyframe with its parameter sets in one packet (STAP-A).
fn keyframe() -> Vec<u8> {
    let sps: &[u8] = &[
        0x67, 0x42, 0xc0, 0x16, 0xd9, 0x00, 0xa0, 0x3d, 0xb0, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03,
        0x00, 0x30, 0x0f, 0x16, 0x2e, 0x48,
    ];
    let mut payload = vec![0x78];
    for unit in [sps, &[0x68, 0xce, 0x3c, 0x80], &[0x65, 0x88, 1, 2]] {
        payload.extend_from_slice(&[0, unit.len() as u8]);
        payload.extend_from_slice(unit);
    }
    payload
}

fn cursor(track: &Arc<Track>) -> Cursor {
    let mut cursor = Cursor::new(track, &Arc::new(Notify::new()));
    cursor.start();
    cursor
}

#[test]
fn sound_goes_on_when_its_stream_is_exchanged_for_another() {
    let mut world = World::new(Codec::Opus);
    // The streams have nothing in common, and each numbers from where it likes.
    for (ssrc, seq, timestamp) in [(7, 90_000, 4_000_000_000), (8, 65_600, 10), (9, 120_000, 3_000_000_000)] {
        for step in 0..10u32 {
            let seq = seq + u64::from(step);
            world.packet(ssrc, seq, timestamp + step * 960, &[0xfc, 1, 2]);
        }
    }
    assert_eq!(world.frames.len(), 30);
    for pair in world.frames.windows(2) {
        let ticks = pair[1].ticks - pair[0].ticks;
        assert!((950..=970).contains(&ticks), "{ticks} ticks between two packets");
        let time = pair[1].time.since(pair[0].time);
        assert!((19_000..=21_000).contains(&time), "{time} µs between two packets");
    }
}

#[test]
fn a_picture_goes_on_at_the_keyframe_of_the_stream_that_took_over() {
    const DELTA: &[u8] = &[0x61, 0x88, 1, 2];
    let key = keyframe();
    let mut world = World::new(Codec::H264);
    assert!(!world.packet(7, 90_000, 0, &key).needs_keyframe);
    world.packet(7, 90_001, 1_800, DELTA);
    // One packet of it is still missing: nobody waits for that any more.
    world.packet(7, 90_003, 5_400, DELTA);
    assert!(world.packet(8, 65_600, 77_000, DELTA).needs_keyframe);
    assert_eq!(world.incoming.next_timeout(), None);
    assert!(!world.packet(8, 65_601, 78_800, &key).needs_keyframe);
    world.packet(8, 65_602, 80_600, DELTA);
    assert_eq!(world.frames.len(), 4);
}

#[test]
fn a_stream_that_was_left_does_not_come_back_while_its_packets_trickle_in() {
    let mut world = World::new(Codec::Opus);
    for step in 0..100u32 {
        let seq = u64::from(step);
        world.packet(7, 90_000 + seq, step * 960, &[0xfc, 1]);
        world.packet(8, 65_600 + seq, step * 960, &[0xfc, 2]);
    }
    let seen: Vec<u8> = world.frames.iter().map(|frame| frame.payload[1]).collect();
    assert_eq!(seen, [vec![1], vec![2; 100]].concat());
    // Once the other is silent for long it may.
    world.now += LEFT_FOR;
    world.packet(7, 91_000, 0, &[0xfc, 1]);
    assert_eq!(world.frames.len(), 102);
}

#[test]
fn a_stream_that_was_left_takes_over_when_its_successor_stops() {
    let mut world = World::new(Codec::Opus);
    world.packet(7, 90_000, 0, &[0xfc, 1]);
    assert_eq!(world.packet(8, 65_600, 0, &[0xfc, 2]).follows, Some(8));
    let mut followed = Vec::new();
    // Ten seconds of the first alone, then the second as well.
    for step in 1..=500u32 {
        followed.extend(
            world
                .packet(7, 90_000 + u64::from(step), step * 960, &[0xfc, 1])
                .follows,
        );
    }
    assert_eq!(followed, [7]);
    let kept = world.frames.len() - 2;
    assert!((240..=260).contains(&kept), "{kept} of 500");
    assert_eq!(world.packet(8, 65_601, 960, &[0xfc, 2]).follows, Some(8));
    assert_eq!(world.packet(7, 90_501, 501 * 960, &[0xfc, 1]).follows, None);
}

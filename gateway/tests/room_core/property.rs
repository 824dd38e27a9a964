//! One source and many receivers, at random: joins, leaves, losses on the way in, slow receivers, pauses and resumptions,
//! a source that answers keyframe requests or not. What must hold at every moment is checked at every moment.

use std::sync::Arc;

use proptest::prelude::*;
use tokio::sync::Notify;
use wzp_gateway::media::frame::{ParticipantId, RoomTime};
use wzp_gateway::room::keyframes::{Reason, WINDOW};
use wzp_gateway::room::member::{Control, Door, Join, LeaveReason, Origin, ResumeToken, TrackInfo};
use wzp_gateway::room::replay::Replay;
use wzp_gateway::room::state::{Effect, Joined, Room};
use wzp_gateway::room::subscription::{Cursor, Lag, Next, Start};
use wzp_gateway::room::track::{Appended, Bounds};
use wzp_proto::codec::Codec;
use wzp_proto::identity::Fingerprint;

use crate::support::{LAG, Source, ms, video_id};

/// Receivers at once.
const MOST: usize = 6;
/// Time between the source's frames, ms.
const STEP: u64 = 40;

/// What may happen between two frames of the source.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A frame arrives; the number decides its size.
    Frame(usize),
    /// A frame does not.
    Loss,
    /// The source's own keyframe.
    Keyframe,
    Join,
    Leave(usize),
    /// A receiver reads no more than this many frames per frame of the source; 0: nothing.
    Rate(usize, usize),
    Pause(usize),
    Resume(usize),
    /// A receiver's window is shut: it goes on at a keyframe.
    Resync(usize),
    /// A receiver's decoder has lost something.
    Ask,
    /// Sound of the same stream number.
    Sound,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let receiver = 0..MOST;
    let event = prop_oneof![
        40 => (1usize..40_000).prop_map(Event::Frame),
        2 => Just(Event::Loss),
        1 => Just(Event::Keyframe),
        3 => Just(Event::Join),
        1 => receiver.clone().prop_map(Event::Leave),
        3 => (receiver.clone(), prop_oneof![Just(0), Just(1), Just(1), Just(2), Just(1000)])
            .prop_map(|(receiver, rate)| Event::Rate(receiver, rate)),
        1 => receiver.clone().prop_map(Event::Pause),
        2 => receiver.clone().prop_map(Event::Resume),
        1 => receiver.prop_map(Event::Resync),
        2 => Just(Event::Ask),
        2 => Just(Event::Sound),
    ];
    proptest::collection::vec(event, 50..600)
}

/// A frame that the log took: which one of the source's it is, and whether it can be decoded alone.
#[derive(Debug, Clone, Copy)]
struct Taken {
    number: u64,
    keyframe: bool,
}

/// A receiver, and what it knows.
struct Receiver {
    member: Joined,
    cursor: Cursor,
    replay: Replay,
    rate: usize,
    paused: bool,
    asked: bool,
    last: Option<u64>,
    /// Frames that it was given a reason not to get: a start, a lag, a resync.
    dropped: u64,
    /// Began with a cursor of its own, and read all there was at every moment since.
    steady: bool,
    /// It has nothing yet but a stale keyframe.
    still: bool,
}

struct World {
    room: Room,
    source: Source,
    publisher: Joined,
    sound: Source,
    receivers: Vec<Receiver>,
    people: u32,
    /// Every frame that the log took, by its index.
    taken: Vec<Taken>,
    /// Frames that the source sent, lost ones too.
    sent: u64,
    answers: bool,
    keyframe_wanted: bool,
    asked_at: Vec<u64>,
    forms: bool,
}

impl World {
    fn new(bounds: Bounds, answers: bool, forms: bool) -> Self {
        let mut room = Room::new(100);
        let source = Source::new(video_id(1), bounds);
        let sound = Source::audio();
        let publisher = join(&mut room, 1);
        let info = |origin, codec, source: &Source| TrackInfo {
            kind: source.track.id().kind,
            slot: 0,
            layer: 0,
            origin,
            codec,
            size: None,
        };
        let tracks = vec![
            (info(Origin::Camera, Codec::H264Baseline, &source), source.track.clone()),
            (info(Origin::Microphone, Codec::Opus24k, &sound), sound.track.clone()),
        ];
        room.set_tracks(publisher.id, publisher.epoch, tracks);
        Self {
            room,
            source,
            publisher,
            sound,
            receivers: Vec::new(),
            people: 1,
            taken: Vec::new(),
            sent: 0,
            answers,
            keyframe_wanted: false,
            asked_at: Vec::new(),
            forms,
        }
    }

    fn now(&self) -> RoomTime {
        ms(self.source.now)
    }

    fn step(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Frame(size) => {
                self.source.size = size;
                self.frame(false)?;
            }
            Event::Keyframe => self.frame(true)?,
            Event::Loss => {
                self.source.lose();
                self.sent += 1;
                let now = self.now();
                self.room.request_keyframe(video_id(1), now, Reason::Loss, now);
            }
            Event::Sound => {
                self.sound.now = self.source.now;
                self.sound.key();
                self.sound.lose();
            }
            Event::Join => self.join(),
            Event::Leave(at) if at < self.receivers.len() => {
                let receiver = self.receivers.swap_remove(at);
                let (member, now) = (receiver.member, self.now());
                self.room.leave(member.id, member.epoch, LeaveReason::Left, now);
            }
            Event::Rate(at, rate) => self.receiver(at, |receiver, _| {
                receiver.rate = rate;
                receiver.steady = false;
            }),
            Event::Pause(at) => self.receiver(at, |receiver, _| {
                receiver.paused = true;
                receiver.steady = false;
            }),
            Event::Resume(at) => self.receiver(at, |receiver, now| {
                if receiver.paused {
                    receiver.paused = false;
                    receiver.begin(now);
                }
            }),
            Event::Resync(at) => self.receiver(at, |receiver, now| {
                receiver.cursor.resync(&LAG);
                receiver.steady = false;
                receiver.replay = Replay::new(Start::Live, now);
            }),
            Event::Ask => {
                let now = self.now();
                self.room.request_keyframe(video_id(1), now, Reason::Viewer, now);
            }
            Event::Leave(_) => {}
        }
        self.run_room();
        for receiver in &mut self.receivers {
            receiver.read(&mut self.room, &self.source, &self.taken, self.forms)?;
        }
        self.run_room();
        Ok(())
    }

    /// One frame of the source's, and what its encoder makes of requests.
    fn frame(&mut self, keyframe: bool) -> Result<(), TestCaseError> {
        let keyframe = keyframe || (self.answers && self.keyframe_wanted);
        if keyframe {
            self.keyframe_wanted = false;
        }
        if let Appended::At(index) = self.source.append(keyframe) {
            prop_assert_eq!(index, self.taken.len() as u64, "no index comes twice");
            self.taken.push(Taken {
                number: self.sent,
                keyframe,
            });
        } else {
            let now = self.now();
            self.room.request_keyframe(video_id(1), now, Reason::Loss, now);
        }
        self.sent += 1;
        let bounds = *self.source.track.bounds();
        let (frames, bytes) = self.source.track.held();
        prop_assert!(bytes <= bounds.hard_bytes || frames == 1, "{} bytes", bytes);
        prop_assert!((frames as u64).saturating_sub(1) * STEP * 1000 <= bounds.hard_age);
        Ok(())
    }

    fn join(&mut self) {
        if self.receivers.len() == MOST {
            return;
        }
        self.people += 1;
        let member = join(&mut self.room, self.people);
        let cursor = Cursor::new(&self.source.track, &Arc::new(Notify::new()));
        let mut receiver = Receiver {
            member,
            cursor,
            replay: Replay::new(Start::Live, self.now()),
            rate: 1000,
            paused: false,
            asked: false,
            last: None,
            dropped: 0,
            steady: true,
            still: false,
        };
        receiver.begin(self.now());
        self.receivers.push(receiver);
    }

    fn receiver(&mut self, at: usize, act: impl FnOnce(&mut Receiver, RoomTime)) {
        let now = self.now();
        if let Some(receiver) = self.receivers.get_mut(at) {
            act(receiver, now);
        }
    }

    /// The room's timers and effects.
    fn run_room(&mut self) {
        let now = self.now();
        while let Some(at) = self.room.poll_timeout().filter(|at| *at <= now) {
            self.room.handle_timeout(at);
            self.effects(at);
        }
        self.effects(now);
    }

    fn effects(&mut self, now: RoomTime) {
        while let Some(effect) = self.room.poll_effect() {
            if let Effect::Tell(id, Control::Keyframe { .. }) = effect {
                assert_eq!(id, self.publisher.id, "only the source is asked");
                self.keyframe_wanted = true;
                self.asked_at.push(now.0);
            }
        }
    }
}

fn join(room: &mut Room, number: u32) -> Joined {
    let join = Join {
        name: String::new(),
        fingerprint: Fingerprint::of(&number.to_be_bytes()),
        door: Door::Webrtc,
        resume: None,
        resumable: false,
    };
    let joined = room.join(join, ResumeToken(u128::from(number)), ms(0));
    let joined = joined.expect("there is place");
    assert_eq!(joined.id, ParticipantId(number));
    joined
}

impl Receiver {
    fn begin(&mut self, now: RoomTime) {
        self.replay = Replay::new(self.cursor.start(), now);
        self.asked = false;
        self.dropped = u64::MAX;
    }

    fn read(&mut self, room: &mut Room, source: &Source, taken: &[Taken], forms: bool) -> Result<(), TestCaseError> {
        if self.paused {
            return Ok(());
        }
        let now = ms(source.now);
        if self.replay.wants_keyframe() && !self.asked {
            self.asked = true;
            room.request_keyframe(video_id(1), now, Reason::Join, now);
        }
        for _ in 0..self.rate {
            let before = self.cursor.dropped();
            match self
                .replay
                .next(&mut self.cursor, &LAG, source.track.is_unanswering(), now)
            {
                Next::Frame(frame) => {
                    let this = taken[frame.index as usize];
                    prop_assert_eq!(frame.keyframe, this.keyframe);
                    match self.last {
                        Some(last) => {
                            prop_assert!(frame.index > last, "{} after {}", frame.index, last);
                            let gap = frame.index != last + 1;
                            let follows = this.number == taken[last as usize].number + 1;
                            prop_assert!(follows || frame.keyframe, "delta {} after {}", frame.index, last);
                            // Nothing is left out without being counted, but for what a start leaves out on purpose.
                            if gap && self.dropped != u64::MAX {
                                prop_assert!(self.cursor.dropped() > self.dropped);
                            }
                            // And nothing at all between the replay and live, but what the source itself lost, and the
                            // deltas of a stale keyframe when a fresh one took over.
                            let waited = std::mem::take(&mut self.still) && frame.keyframe;
                            prop_assert!(!self.steady || !gap || waited, "{} after {}", frame.index, last);
                        }
                        None => {
                            prop_assert!(frame.keyframe, "begins with delta {}", frame.index);
                            self.still = self.replay.poll_timeout().is_some();
                        }
                    }
                    if forms {
                        frame.messages();
                    }
                    self.last = Some(frame.index);
                    self.dropped = self.cursor.dropped();
                    self.asked = false;
                }
                Next::Empty => return Ok(()),
                Next::NeedsKeyframe => {
                    prop_assert!(self.cursor.dropped() >= before);
                    if !self.asked {
                        self.asked = true;
                        room.request_keyframe(video_id(1), now, Reason::Loss, now);
                    }
                    return Ok(());
                }
                Next::Ended => return Err(TestCaseError::fail("the source is still there")),
            }
        }
        Ok(())
    }
}

fn bounds() -> impl Strategy<Value = Bounds> {
    prop_oneof![
        Just(Bounds::VIDEO),
        // Tight ones, so that they are met often.
        Just(Bounds {
            soft_age: 400_000,
            soft_bytes: 100_000,
            hard_age: 2_000_000,
            hard_bytes: 600_000,
            tail: 300_000,
            tail_bytes: 100_000,
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn nobody_gets_what_it_cannot_decode_and_nobody_misses_what_it_could(
        events in events(),
        bounds in bounds(),
        answers in any::<bool>(),
        forms in any::<bool>(),
    ) {
        let mut world = World::new(bounds, answers, forms);
        for event in events {
            world.step(event)?;
        }
        // Requests stay within their budget: one per window.
        for pair in world.asked_at.windows(2) {
            prop_assert!(pair[1] - pair[0] >= WINDOW);
        }
        // In the end everybody has what the source sends, once it sends a keyframe, and nothing disturbs that.
        world.frame(true)?;
        for receiver in &mut world.receivers {
            receiver.paused = false;
            receiver.rate = 1000;
        }
        for _ in 0..3 {
            world.step(Event::Frame(100))?;
        }
        let newest = world.taken.len() as u64 - 1;
        for receiver in &world.receivers {
            prop_assert_eq!(receiver.last, Some(newest));
        }
        // And when all are gone nothing is left of them.
        while !world.receivers.is_empty() {
            world.step(Event::Leave(0))?;
        }
        let now = world.now();
        world.room.leave(world.publisher.id, world.publisher.epoch, LeaveReason::Left, now);
        prop_assert!(world.room.is_empty());
        prop_assert_eq!(world.room.poll_timeout(), None);
        prop_assert_eq!(Arc::strong_count(&world.source.track), 2, "the source's own handles");
    }

    #[test]
    fn sound_is_in_order_bounded_in_lag_and_every_gap_is_counted(
        rates in proptest::collection::vec((0usize..4, 0usize..4), 1..300),
        most in 40_000u64..2_000_000,
    ) {
        let mut source = Source::audio();
        let mut cursor = source.cursor();
        let lag = Lag { most, resync_age: 0 };
        let (mut next, mut dropped) = (0, 0);
        for (sent, read) in rates {
            for _ in 0..sent {
                source.key();
            }
            for _ in 0..read {
                match cursor.next(&lag) {
                    Next::Frame(frame) => {
                        prop_assert_eq!(frame.index, next + cursor.dropped() - dropped);
                        (next, dropped) = (frame.index + 1, cursor.dropped());
                        let late = (source.now - source.step) * 1000 - frame.time.0;
                        prop_assert!(late <= most);
                    }
                    Next::Empty => break,
                    other => return Err(TestCaseError::fail(format!("{other:?}"))),
                }
            }
            let (_, bytes) = source.track.held();
            prop_assert!(bytes <= Bounds::AUDIO.hard_bytes);
        }
    }
}

//! One run: who is there, what happens when, and what must hold.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use wzp_gateway::media::frame::RoomTime;
use wzp_gateway::native::counters::Counters;
use wzp_gateway::native::ingress::Ingress;
use wzp_gateway::native::rate::Rates;
use wzp_gateway::room::keyframes::{Reason, WINDOW};
use wzp_gateway::room::member::{Control, Door, Join, LeaveReason, ResumeToken};
use wzp_gateway::room::replay::FRESH_KEYFRAME_WAIT;
use wzp_gateway::room::state::{Effect, Joined, Room};
use wzp_gateway::room::track::{Bounds, Track};
use wzp_proto::Signal;
use wzp_proto::identity::Fingerprint;

use crate::links::{Conditions, Link, Random, Stream};
use crate::native_viewer::NativeViewer;
use crate::publisher::Publisher;
use crate::viewers::{Decoder, Seat, WebRtcViewer, WebSocketViewer};

/// What happens within it is looked at once, µs.
const STEP: u64 = 4_000;
/// From here on the links are good.
const CALM: u64 = 7_000_000;
/// The publisher's own keyframe, for those whom it would not have answered.
const LAST_KEYFRAME: u64 = 8_000_000;
const END: u64 = 10_500_000;
/// Whoever shows a frame this old in the end, or older, is not live.
const LIVE: u64 = 12;
/// Between two pictures, µs.
const PICTURE: u64 = 33_334;
/// A replay may wait for a fresh keyframe first, and times of the pictures right after it give way to its own, µs.
const UNSETTLED: u64 = FRESH_KEYFRAME_WAIT + 100_000;
/// How far timestamps and arrivals may come apart, µs: what a replay's may be old, a picture, and the drift of a clock.
const PUNCTUAL: u64 = 100_000;
/// What a frame may take beyond the delays of its links: it waits for the steps of the ingress and of the egress, and for the
/// link's rate.
const HOPS: u64 = 4 * STEP + 12_000;
/// A source that does not answer is asked every 2 s in the end, and a little more often in the beginning.
const REQUESTS_TO_THE_SILENT: usize = 9;

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Scenario {
    seed: u64,
    good: bool,
    pub answers_keyframes: bool,
    pub answers_nacks: bool,
    group: u32,
    drift: i64,
    up: Conditions,
    bounds: Bounds,
    viewers: Vec<Newcomer>,
    end: u64,
}

#[derive(Debug, Clone, Copy)]
struct Newcomer {
    at: u64,
    leaves: Option<u64>,
    kind: u64,
    down: Conditions,
    /// Bytes per ms.
    rate: u64,
}

impl Scenario {
    pub fn random(seed: u64) -> Self {
        Self::new(seed, false)
    }

    /// Links without loss, jitter or bounds.
    pub fn good(seed: u64) -> Self {
        Self::new(seed, true)
    }

    /// A crowd that comes within a second.
    pub fn crowd(seed: u64, viewers: u64) -> Self {
        let mut scenario = Self::new(seed, true);
        let newcomer = |n| Newcomer {
            at: 3_000_000 + 1_000_000 * n / viewers,
            leaves: None,
            kind: n % 4,
            down: Conditions {
                delay: 5_000,
                ..Conditions::default()
            },
            rate: 10_000,
        };
        scenario.viewers = (0..viewers).map(newcomer).collect();
        scenario.end = 5_000_000;
        scenario
    }

    /// Good links for `seconds`, a viewer of each kind, and a source whose clock is off by `drift` millionths.
    pub fn drifting(seed: u64, drift: i64, seconds: u64) -> Self {
        let mut scenario = Self::crowd(seed, 4);
        scenario.drift = drift;
        scenario.end = 1_000_000 * seconds;
        scenario
    }

    fn new(seed: u64, good: bool) -> Self {
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
        let tight = Bounds {
            soft_age: 400_000,
            soft_bytes: 100_000,
            hard_age: 2_000_000,
            hard_bytes: 600_000,
            tail: 300_000,
            tail_bytes: 100_000,
        };
        let up = conditions(&mut random, good, true);
        let answers_keyframes = random.chance(500);
        let answers_nacks = random.chance(500);
        let viewers = 1 + random.below(5);
        let viewers = (0..viewers)
            .map(|_| {
                let kind = random.below(4);
                // Today's apps take packets that overtook each other for loss, and what comes late for the newest.
                let down = conditions(&mut random, good, kind != 0);
                let at = random.between(100_000, CALM - 1_000_000);
                let stays = random.between(500_000, 4_000_000);
                Newcomer {
                    at,
                    leaves: random.chance(200).then_some(at + stays),
                    kind,
                    down,
                    rate: if good { 10_000 } else { random.between(60, 3_000) },
                }
            })
            .collect();
        Self {
            seed,
            good,
            answers_keyframes,
            answers_nacks,
            group: if random.chance(500) {
                300
            } else {
                random.between(20, 120) as u32
            },
            drift: random.below(401) as i64 - 200,
            up,
            bounds: if good || random.chance(500) {
                Bounds::VIDEO
            } else {
                tight
            },
            viewers,
            end: END,
        }
    }
}

fn conditions(random: &mut Random, good: bool, overtaking: bool) -> Conditions {
    let mut bad = Conditions {
        loss: [0, 5, 20, 80][random.below(4) as usize],
        twice: random.below(20),
        delay: random.between(500, 50_000),
        jitter: random.below(15_000),
    };
    if !overtaking {
        bad.jitter = 0;
    }
    let delay = bad.delay;
    if good {
        return Conditions {
            delay,
            ..Conditions::default()
        };
    }
    bad
}

/// What came of a run, or of many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub viewers: u64,
    pub decoded: u64,
    pub jumps: u64,
    pub lost: u64,
    pub repaired: u64,
    /// `Nack`s to the publisher.
    pub nacks: u64,
    pub nacks_of_viewers: u64,
    pub keyframes_asked: u64,
    /// From a join to the first frame, beyond the link's delay: the slowest, µs.
    pub first: u64,
    /// From a join until what is shown is live, beyond the links' delay and a round trip to the source: the slowest, µs.
    pub live: u64,
    /// The longest time without a new frame from a second after the join on, µs.
    pub pause: u64,
    /// How far timestamps come away from the time at which the frame was made, µs.
    pub off: u64,
    pub trace: u64,
}

impl Outcome {
    pub fn add(&mut self, other: &Self) {
        self.viewers += other.viewers;
        self.decoded += other.decoded;
        self.jumps += other.jumps;
        self.lost += other.lost;
        self.repaired += other.repaired;
        self.nacks += other.nacks;
        self.nacks_of_viewers += other.nacks_of_viewers;
        self.keyframes_asked += other.keyframes_asked;
        self.first = self.first.max(other.first);
        self.live = self.live.max(other.live);
        self.pause = self.pause.max(other.pause);
        self.off = self.off.max(other.off);
        self.trace ^= other.trace;
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} viewers decoded {} frames with {} jumps; {} packets lost, {} repaired; {} Nacks to publishers, {} of viewers; {} \
             keyframes asked for",
            self.viewers,
            self.decoded,
            self.jumps,
            self.lost,
            self.repaired,
            self.nacks,
            self.nacks_of_viewers,
            self.keyframes_asked
        )?;
        // Measured on good links only.
        if self.live > 0 {
            let [first, live, pause] = [self.first, self.live, self.pause].map(|time| time / 1000);
            write!(
                f,
                "; first frame after {first} ms, live after {live} ms, pauses of {pause} ms; timestamps off by {} µs",
                self.off
            )?;
        }
        Ok(())
    }
}

enum Viewer {
    Native(Box<NativeViewer>),
    WebSocket(Box<WebSocketViewer>),
    WebRtc(Box<WebRtcViewer>),
}

impl Viewer {
    fn decoder(&self) -> &Decoder {
        match self {
            Self::Native(viewer) => &viewer.decoder,
            Self::WebSocket(viewer) => &viewer.decoder,
            Self::WebRtc(viewer) => &viewer.decoder,
        }
    }
}

pub struct World {
    scenario: Scenario,
    base: Instant,
    random: Random,
    room: Room,
    publisher: Publisher,
    member: Joined,
    ingress: Ingress,
    counters: Arc<Counters>,
    up: Link<Bytes>,
    signals: Stream<Signal>,
    track: Option<Arc<Track>>,
    viewers: BTreeMap<usize, (Joined, Viewer)>,
    /// When each frame was made.
    made: Vec<u64>,
    asked_at: Vec<u64>,
    outcome: Outcome,
    trace: DefaultHasher,
}

impl World {
    pub fn new(scenario: Scenario, base: Instant) -> Self {
        let mut random = Random(scenario.seed);
        let mut room = Room::new(1 + scenario.viewers.len());
        let member = enter(&mut room, 0, 0);
        let counters = Arc::<Counters>::default();
        let ingress = Ingress::new(member.id, Rates::default(), [1, 1], counters.clone(), RoomTime(0));
        let mut ingress = ingress.with_video_bounds(scenario.bounds);
        ingress.set_rtt(2 * scenario.up.delay);
        let publisher = Publisher::new(
            scenario.answers_keyframes,
            scenario.answers_nacks,
            scenario.group,
            scenario.drift,
            Random(random.next()),
        );
        Self {
            base,
            room,
            publisher,
            member,
            ingress,
            counters,
            up: Link::new(scenario.up, Random(random.next())),
            signals: Stream::new(scenario.up.delay, 0),
            track: None,
            viewers: BTreeMap::new(),
            made: Vec::new(),
            asked_at: Vec::new(),
            outcome: Outcome::default(),
            trace: DefaultHasher::new(),
            random,
            scenario,
        }
    }

    pub fn run(mut self) -> Outcome {
        let mut now = 0;
        while now < self.scenario.end {
            self.step(now);
            now += STEP;
        }
        self.judge();
        self.outcome
    }

    fn step(&mut self, now: u64) {
        if now == CALM {
            self.calm();
        }
        if now == LAST_KEYFRAME {
            self.publisher.want_keyframe();
        }
        self.publish(now);
        self.come_and_go(now);
        self.room.handle_timeout(RoomTime(now));
        for (_, viewer) in self.viewers.values_mut() {
            match viewer {
                Viewer::Native(viewer) => viewer.step(&mut self.room, STEP, now),
                Viewer::WebSocket(viewer) => viewer.step(&mut self.room, now),
                Viewer::WebRtc(viewer) => viewer.step(&mut self.room, now),
            }
        }
        self.effects(now);
        if let Some(track) = &self.track {
            let (frames, bytes) = track.held();
            let bounds = track.bounds();
            assert!(
                frames <= 1 || bytes <= bounds.hard_bytes,
                "{bytes} bytes in the log at {now}"
            );
        }
    }

    /// The publisher's side: frames, repairs, the gateway's ingress.
    fn publish(&mut self, now: u64) {
        let datagrams = self.publisher.frame(now);
        if !datagrams.is_empty() {
            self.made.push(now);
        }
        for datagram in datagrams {
            self.up.send(datagram, now);
        }
        for signal in self.signals.arrived(now) {
            for datagram in self.publisher.hear(&signal, now) {
                self.up.send(datagram, now);
            }
        }
        let time = RoomTime(now);
        for datagram in self.up.arrived(now) {
            self.ingress.datagram(datagram, time).expect("within the rate");
        }
        self.ingress.handle_timeout(time);
        for nack in self.ingress.take_nacks() {
            (now, &nack.seqs).hash(&mut self.trace);
            self.outcome.nacks += 1;
            self.signals.send(Signal::nack(nack.stream_id, nack.seqs), 0, now);
        }
        if let Some(tracks) = self.ingress.take_tracks() {
            self.track = tracks.first().map(|(_, track)| track.clone());
            self.room.set_tracks(self.member.id, self.member.epoch, tracks);
        }
        if let Some(track) = self.ingress.take_keyframe_wish(time) {
            self.room.request_keyframe(track, time, Reason::Loss, time);
        }
    }

    fn come_and_go(&mut self, now: u64) {
        for n in 0..self.scenario.viewers.len() {
            let newcomer = self.scenario.viewers[n];
            let due = |at: u64| at >= now && at < now + STEP;
            if due(newcomer.at)
                && let Some(track) = self.track.clone()
            {
                let joined = enter(&mut self.room, n as u32 + 1, now);
                let viewer = self.viewer(&newcomer, &joined, &track, now);
                self.outcome.viewers += 1;
                self.viewers.insert(n, (joined, viewer));
            }
            if newcomer.leaves.is_some_and(due)
                && let Some((joined, viewer)) = self.viewers.remove(&n)
            {
                self.room
                    .leave(joined.id, joined.epoch, LeaveReason::Left, RoomTime(now));
                self.count(&viewer);
            }
        }
    }

    fn viewer(&mut self, newcomer: &Newcomer, joined: &Joined, track: &Arc<Track>, now: u64) -> Viewer {
        let random = Random(self.random.next());
        let Newcomer { down, rate, .. } = *newcomer;
        let snapshot = self.room.snapshot();
        let seat = Seat::new(self.base, now);
        match newcomer.kind {
            0 | 1 => {
                let asks = newcomer.kind == 1;
                let mut viewer = NativeViewer::new(joined.id, asks, down, rate.max(100) as usize, random, now);
                viewer.set_room(&snapshot);
                Viewer::Native(Box::new(viewer))
            }
            2 => {
                let mut viewer = WebSocketViewer::new(joined.id, joined.epoch, seat, down.delay, rate);
                viewer.set_room(&snapshot, now);
                Viewer::WebSocket(Box::new(viewer))
            }
            _ => {
                let mut viewer = WebRtcViewer::new(seat, down, random);
                viewer.set_track(track, now);
                Viewer::WebRtc(Box::new(viewer))
            }
        }
    }

    fn effects(&mut self, now: u64) {
        let mut changed = false;
        while let Some(effect) = self.room.poll_effect() {
            match effect {
                Effect::Changed => changed = true,
                Effect::Tell(id, Control::Keyframe { .. }) => {
                    assert_eq!(id, self.member.id);
                    (now, "keyframe").hash(&mut self.trace);
                    self.asked_at.push(now);
                    let stream = self.ingress.video_stream().unwrap_or(0);
                    self.signals.send(Signal::picture_loss(stream), 0, now);
                }
                Effect::Tell(..) => {}
            }
        }
        if changed {
            let snapshot = self.room.snapshot();
            for (_, viewer) in self.viewers.values_mut() {
                match (viewer, &self.track) {
                    (Viewer::Native(viewer), _) => viewer.set_room(&snapshot),
                    (Viewer::WebSocket(viewer), _) => viewer.set_room(&snapshot, now),
                    (Viewer::WebRtc(viewer), Some(track)) => viewer.set_track(track, now),
                    (Viewer::WebRtc(_), None) => {}
                }
            }
        }
    }

    fn calm(&mut self) {
        let delay = self.up.conditions.delay;
        self.up.conditions = Conditions {
            delay,
            ..Conditions::default()
        };
        for (_, viewer) in self.viewers.values_mut() {
            match viewer {
                Viewer::Native(viewer) => viewer.calm(),
                Viewer::WebRtc(viewer) => viewer.calm(),
                Viewer::WebSocket(_) => {}
            }
        }
    }

    fn count(&mut self, viewer: &Viewer) {
        let decoder = viewer.decoder();
        decoder.seen.hash(&mut self.trace);
        self.outcome.decoded += decoder.decoded;
        self.outcome.jumps += decoder.jumps;
        match viewer {
            Viewer::Native(viewer) => {
                self.outcome.lost += viewer.lost();
                self.outcome.repaired += viewer.repaired();
                self.outcome.nacks_of_viewers += viewer.nacks;
            }
            Viewer::WebRtc(viewer) => {
                self.outcome.lost += viewer.lost();
                self.outcome.nacks_of_viewers += viewer.nacks;
            }
            Viewer::WebSocket(_) => {}
        }
    }

    /// How fast a viewer on a good link had a picture, a live one, and how steadily it moved.
    fn measure(&mut self, newcomer: &Newcomer, viewer: &Viewer) {
        let (decoder, made) = (viewer.decoder(), &self.made);
        let since = |at: u64| at.saturating_sub(newcomer.at + newcomer.down.delay);
        let first = decoder.seen.first().map_or(u64::MAX, |(at, _)| since(*at));
        let path = self.scenario.up.delay + newcomer.down.delay + HOPS;
        let live = |(at, number): &&(u64, u32)| at.saturating_sub(made[*number as usize]) <= path + PICTURE;
        let live = decoder.seen.iter().find(live).map_or(u64::MAX, |(at, _)| {
            since(*at).saturating_sub(2 * self.scenario.up.delay)
        });
        let pause = decoder.longest_pause(newcomer.at + 1_000_000, self.scenario.end);
        // From the time at which a frame came to the gateway its timestamp may be away by what its clock has to learn.
        let off = |(number, ms): &(u32, u32)| {
            let came = made[*number as usize] + self.scenario.up.delay;
            (u64::from(*ms) * 1000).abs_diff(came)
        };
        let off = match viewer {
            Viewer::WebSocket(viewer) => viewer.timestamps().iter().map(off).max().unwrap_or(0),
            Viewer::WebRtc(viewer) => {
                assert_times(viewer.timestamps(), newcomer.at, |number| {
                    made[number as usize] + self.scenario.up.delay
                });
                0
            }
            Viewer::Native(_) => 0,
        };
        let outcome = &mut self.outcome;
        outcome.first = outcome.first.max(first);
        outcome.live = outcome.live.max(live);
        outcome.pause = outcome.pause.max(pause);
        outcome.off = outcome.off.max(off);
    }

    fn judge(&mut self) {
        for pair in self.asked_at.windows(2) {
            // A request that was due within a step goes out at its end.
            assert!(
                pair[1] - pair[0] + STEP >= WINDOW,
                "requests at {pair:?}: {:?}",
                self.scenario
            );
        }
        // A keyframe of its own that comes soon after a request is taken for an answer.
        if !self.scenario.answers_keyframes && self.scenario.group >= 300 {
            let asked = self.asked_at.len();
            assert!(asked <= REQUESTS_TO_THE_SILENT, "{asked} requests: {:?}", self.scenario);
        }
        let newest = u64::from(self.publisher.newest());
        let viewers = std::mem::take(&mut self.viewers);
        for (n, (_, viewer)) in &viewers {
            let newcomer = self.scenario.viewers[*n];
            // A path that does not take the stream's rate is live at its keyframes only.
            if self.scenario.good || newcomer.rate > 400 {
                let last = viewer.decoder().last.map(u64::from);
                let live = last.is_some_and(|last| last + LIVE >= newest);
                assert!(live, "viewer {n} is at {last:?} of {newest}: {:?}", self.scenario);
            }
            self.count(viewer);
            if self.scenario.good {
                self.measure(&newcomer, viewer);
            }
        }
        self.outcome.keyframes_asked = self.asked_at.len() as u64;
        self.outcome.lost += self.up.lost;
        self.outcome.repaired += self.counters.video_repaired_in.get();
        self.outcome.trace = self.trace.finish();
    }
}

/// RTP timestamps are those of the source, as far apart as its own, for all that came (`came`, by number) since the viewer was
/// there. What it gets from before that, in one go, has times as if it came in time: a browser holds pictures back by what it
/// has seen of the way from timestamps to arrivals.
fn assert_times(timestamps: &[(u64, u32, u32)], joined: u64, came: impl Fn(u32) -> u64) {
    for pair in timestamps.windows(2) {
        let [(_, before, at), (_, number, then)] = [pair[0], pair[1]];
        let own = (number * 100 / 3 - before * 100 / 3) * 90;
        let given = then.wrapping_sub(at);
        assert!(
            (20..1 << 31).contains(&given),
            "{given} ticks from frame {before} to {number}"
        );
        if came(before) > joined + UNSETTLED {
            assert_eq!(given, own, "from frame {before} to {number}");
        }
    }
    let Some((end, _, last)) = timestamps.last() else {
        return;
    };
    for (at, number, timestamp) in timestamps {
        let (passed, said) = ((end - at) as i64, i64::from(last.wrapping_sub(*timestamp)) * 100 / 9);
        let late = passed - said;
        assert!(late.unsigned_abs() <= PUNCTUAL, "frame {number} is {late} µs off");
    }
}

fn enter(room: &mut Room, number: u32, now: u64) -> Joined {
    let join = Join {
        name: format!("person {number}"),
        fingerprint: Fingerprint::of(&number.to_be_bytes()),
        door: Door::Native,
        resume: None,
        resumable: false,
    };
    room.join(join, ResumeToken(number.into()), RoomTime(now))
        .expect("there is place")
}

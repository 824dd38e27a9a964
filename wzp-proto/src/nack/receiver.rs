//! What is missing, and whether to ask for it again or for a keyframe.

use std::collections::VecDeque;
use std::time::Duration;

/// Missing packets kept at most; a longer gap is past repair.
const MAX_MISSING: usize = 128;
/// Numbers asked for within any second at most.
const ASKS_PER_SECOND: usize = 50;
/// How often one number is asked for.
const ASKS_PER_PACKET: u8 = 3;
/// The same as long as the peer has never answered: most never will.
const ASKS_UNPROVEN: u8 = 1;
/// The last request for a number is waited on for at least this long, however short the path: the peer has to get to it.
const LAST_WAIT: Duration = Duration::from_millis(40);
/// Senders keep packets this long.
const HOLD: Duration = Duration::from_millis(500);
/// Shortest assumed round trip: timers of the other side are not finer.
const MIN_RTT: Duration = Duration::from_millis(5);
/// Round trip assumed until one is measured.
const INITIAL_RTT: Duration = Duration::from_millis(50);
/// Frame interval assumed until the caller knows better: 30 frames per second.
const INITIAL_FRAME_INTERVAL: Duration = Duration::from_millis(33);
/// Between requests for keyframes; relays drop what comes faster.
const KEYFRAME_REQUEST_GAP: Duration = Duration::from_millis(250);
/// A request for a keyframe without effect is repeated after this.
const KEYFRAME_REQUEST_AGAIN: Duration = Duration::from_millis(500);
/// Rounds of requests without any answer after which a peer counts as one that never answers.
const SILENT_AFTER: u32 = 3;
/// The same for a peer that seemed to answer before; a very late packet can look like an answer.
const SILENT_AFTER_ANSWERS: u32 = 10;
/// A jump this far, in either direction, is another counter rather than loss or reordering.
const RESTART: u32 = 10_000;

/// What to ask the sender for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// These packets again: to be sent as `Nack`.
    Nack(Vec<u32>),
    /// A keyframe: to be sent as `PictureLossIndication`.
    Keyframe,
}

/// What [`LossRepair`] has seen and done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairStats {
    /// Numbers that were skipped when a later one came.
    pub missing: u64,
    /// Of these, packets that came by themselves, late.
    pub reordered: u64,
    /// Of these, packets that came after they were asked for.
    pub repaired: u64,
    /// Of these, packets that are lost for good.
    pub lost: u64,
    /// Numbers asked for, repetitions included.
    pub asked: u64,
    /// Keyframes asked for.
    pub keyframes_asked: u64,
}

#[derive(Debug)]
struct Missing {
    seq: u32,
    since: Duration,
    asks: u8,
    first_asked: Duration,
    last_asked: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keyframe {
    NotNeeded,
    Needed,
    AskedAt(Duration),
}

/// Repair of one incoming sequence of packets.
///
/// Feed it every packet, call [`poll`](Self::poll) until it returns `None`, and again at [`next_poll`](Self::next_poll).
#[derive(Debug)]
pub struct LossRepair {
    /// For timers, at least [`MIN_RTT`].
    rtt: Duration,
    /// What came sooner than this after a request was on its way already. Half of the round trip, since an estimate may be
    /// too long and on short paths is.
    soonest_answer: Duration,
    frame_interval: Duration,
    /// The number after the highest one seen.
    expected: Option<u32>,
    /// In the order of the counter.
    missing: VecDeque<Missing>,
    /// The number that would confirm that the counter has jumped.
    suspect: Option<u32>,
    last_packet: Duration,
    /// When numbers were asked for, within the last second.
    asks: VecDeque<Duration>,
    keyframe: Keyframe,
    last_keyframe_request: Option<Duration>,
    ever_answered: bool,
    unanswered_rounds: u32,
    stats: RepairStats,
}

impl Default for LossRepair {
    fn default() -> Self {
        Self::new()
    }
}

impl LossRepair {
    /// A machine that has seen nothing.
    pub fn new() -> Self {
        Self {
            rtt: INITIAL_RTT,
            soonest_answer: INITIAL_RTT / 2,
            frame_interval: INITIAL_FRAME_INTERVAL,
            expected: None,
            missing: VecDeque::new(),
            suspect: None,
            last_packet: Duration::ZERO,
            asks: VecDeque::with_capacity(ASKS_PER_SECOND),
            keyframe: Keyframe::NotNeeded,
            last_keyframe_request: None,
            ever_answered: false,
            unanswered_rounds: 0,
            stats: RepairStats::default(),
        }
    }

    /// Sets the round-trip time to the sender.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt.max(MIN_RTT);
        self.soonest_answer = rtt / 2;
    }

    /// Sets the time between frames, which is how long reordered packets are waited for.
    pub fn set_frame_interval(&mut self, interval: Duration) {
        self.frame_interval = interval.max(Duration::from_millis(1));
    }

    /// A packet with this number arrived at `now`.
    pub fn on_packet(&mut self, seq: u32, now: Duration) {
        self.last_packet = now;
        let Some(expected) = self.expected else {
            self.expected = Some(seq.wrapping_add(1));
            return;
        };
        let ahead = seq.wrapping_sub(expected);
        let behind = expected.wrapping_sub(seq);
        if ahead < RESTART {
            self.suspect = None;
            self.on_gap(expected, ahead, now);
            self.expected = Some(seq.wrapping_add(1));
        } else if behind <= RESTART {
            self.on_late(seq, now);
        } else if self.suspect == Some(seq) {
            // Two in a row: the sender counts from somewhere else now.
            self.suspect = None;
            self.give_up_all();
            self.expected = Some(seq.wrapping_add(1));
        } else {
            self.suspect = Some(seq.wrapping_add(1));
        }
    }

    /// A whole keyframe is there whose first packet has this number: what was sent before it needs no repair.
    pub fn on_keyframe(&mut self, first_seq: u32) {
        self.keyframe = Keyframe::NotNeeded;
        let before = |seq: u32| (1..1 << 31).contains(&first_seq.wrapping_sub(seq));
        while self.missing.front().is_some_and(|missing| before(missing.seq)) {
            self.missing.pop_front();
            self.stats.lost += 1;
        }
    }

    /// The caller waits no longer for anything before this number. What is still missing there is lost, and what follows it
    /// needs a keyframe.
    pub fn give_up_before(&mut self, seq: u32) {
        let before = |missing: &Missing| (1..1 << 31).contains(&seq.wrapping_sub(missing.seq));
        if self.missing.iter().any(before) {
            let unanswered = (self.missing.iter()).any(|missing| before(missing) && self.is_unanswered(missing));
            self.unanswered_rounds += u32::from(unanswered);
            self.give_up_all();
        }
    }

    /// What to ask for at `now`. Call it again until it returns `None`.
    pub fn poll(&mut self, now: Duration) -> Option<Repair> {
        self.give_up_expired(now);
        if self.keyframe_request_at().is_some_and(|at| at <= now) {
            self.keyframe = Keyframe::AskedAt(now);
            self.last_keyframe_request = Some(now);
            self.stats.keyframes_asked += 1;
            return Some(Repair::Keyframe);
        }
        let due = self
            .missing
            .iter()
            .filter(|missing| self.due_at(missing) <= now)
            .count();
        if due == 0 {
            return None;
        }
        while self
            .asks
            .front()
            .is_some_and(|at| now.saturating_sub(*at) >= Duration::from_secs(1))
        {
            self.asks.pop_front();
        }
        let too_slow = self.rtt >= self.frame_interval * 2;
        if too_slow || self.is_silent() || self.asks.len() + due > ASKS_PER_SECOND {
            self.give_up_all();
            return self.poll(now);
        }
        let (interval, again_after, most) = (self.frame_interval, self.rtt * 2, self.asks_per_packet());
        let mut seqs = Vec::with_capacity(due);
        for missing in &mut self.missing {
            if due_at(missing, interval, again_after, most) <= now {
                if missing.asks == 0 {
                    missing.first_asked = now;
                }
                missing.asks += 1;
                missing.last_asked = now;
                self.asks.push_back(now);
                seqs.push(missing.seq);
            }
        }
        self.stats.asked += seqs.len() as u64;
        Some(Repair::Nack(seqs))
    }

    /// When [`poll`](Self::poll) may have something to say, if no packet comes before; possibly in the past.
    pub fn next_poll(&self) -> Option<Duration> {
        let missing = self
            .missing
            .iter()
            .map(|missing| self.due_at(missing).min(self.hopeless_at(missing)));
        missing.chain(self.keyframe_request_at()).min()
    }

    /// Whether the sender has been found not to answer; it is from then on asked for keyframes only.
    pub fn is_silent(&self) -> bool {
        self.unanswered_rounds
            >= if self.ever_answered {
                SILENT_AFTER_ANSWERS
            } else {
                SILENT_AFTER
            }
    }

    /// Whether a keyframe is needed and has not come.
    pub fn needs_keyframe(&self) -> bool {
        self.keyframe != Keyframe::NotNeeded
    }

    /// Packets that are missing and not given up.
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// Counters since the start.
    pub fn stats(&self) -> RepairStats {
        self.stats
    }

    fn on_gap(&mut self, expected: u32, ahead: u32, now: Duration) {
        self.stats.missing += u64::from(ahead);
        if ahead as usize + self.missing.len() > MAX_MISSING {
            self.give_up_all();
            if ahead as usize > MAX_MISSING {
                self.stats.lost += u64::from(ahead);
                return;
            }
        }
        self.missing.extend((0..ahead).map(|n| Missing {
            seq: expected.wrapping_add(n),
            since: now,
            asks: 0,
            first_asked: now,
            last_asked: now,
        }));
    }

    fn on_late(&mut self, seq: u32, now: Duration) {
        let Some(missing) = self.missing.iter().position(|missing| missing.seq == seq) else {
            return;
        };
        let Some(missing) = self.missing.remove(missing) else {
            return;
        };
        if missing.asks == 0 || now < missing.first_asked + self.soonest_answer {
            self.stats.reordered += 1;
        } else {
            self.stats.repaired += 1;
            self.ever_answered = true;
            if !self.is_silent() {
                self.unanswered_rounds = 0;
            }
        }
    }

    /// Gives up packets that will not come any more. A frame without one of its packets breaks all that follow, so
    /// that nothing else of what is missing is worth asking for.
    fn give_up_expired(&mut self, now: Duration) {
        let hopeless = |missing: &Missing| self.hopeless_at(missing) <= now;
        if !self.missing.iter().any(hopeless) {
            return;
        }
        let unanswered = (self.missing.iter()).any(|missing| hopeless(missing) && self.is_unanswered(missing));
        self.unanswered_rounds += u32::from(unanswered);
        self.give_up_all();
    }

    /// Asked for, and silence tells something, because the path from the sender was alive after the request.
    fn is_unanswered(&self, missing: &Missing) -> bool {
        missing.asks > 0 && self.last_packet >= missing.first_asked + self.rtt
    }

    fn give_up_all(&mut self) {
        self.stats.lost += self.missing.len() as u64;
        self.missing.clear();
        if self.keyframe == Keyframe::NotNeeded {
            self.keyframe = Keyframe::Needed;
        }
    }

    fn due_at(&self, missing: &Missing) -> Duration {
        due_at(missing, self.frame_interval, self.rtt * 2, self.asks_per_packet())
    }

    fn asks_per_packet(&self) -> u8 {
        if self.ever_answered {
            ASKS_PER_PACKET
        } else {
            ASKS_UNPROVEN
        }
    }

    fn hopeless_at(&self, missing: &Missing) -> Duration {
        let held = missing.since + HOLD;
        if missing.asks >= self.asks_per_packet() {
            held.min(missing.last_asked + (self.rtt * 2).max(LAST_WAIT))
        } else {
            held
        }
    }

    fn keyframe_request_at(&self) -> Option<Duration> {
        match self.keyframe {
            Keyframe::NotNeeded => None,
            Keyframe::Needed => Some(
                self.last_keyframe_request
                    .map_or(Duration::ZERO, |last| last + KEYFRAME_REQUEST_GAP),
            ),
            Keyframe::AskedAt(at) => Some(at + KEYFRAME_REQUEST_AGAIN),
        }
    }
}

fn due_at(missing: &Missing, frame_interval: Duration, again_after: Duration, most: u8) -> Duration {
    match missing.asks {
        0 => missing.since + frame_interval,
        // Given up rather than asked for again.
        asks if asks >= most => Duration::MAX,
        _ => missing.last_asked + again_after,
    }
}

//! Puts a publisher's packets in order and has the missing ones repaired, within a bounded wait.
//!
//! A gap is asked for (NACK) after a short wait, since most gaps are reordering and close by themselves; then again at
//! the pace of the round trip; and given up after a few tries or when the wait is over. The caller answers a
//! [`Out::Lost`] with one keyframe request.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Bounds of a [`Reorder`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A gap younger than this is not asked for yet.
    pub first_nack: Duration,
    /// Shortest time between two requests for the same packet; the round trip counts if it is longer.
    pub min_interval: Duration,
    /// Requests for one packet; 0 asks for none.
    pub tries: u8,
    /// A gap this old is given up.
    pub max_wait: Duration,
    /// Packets that may wait behind a gap, and missing ones that are waited for.
    pub capacity: usize,
}

impl Limits {
    /// For video: repair is worth the wait, a lost packet costs a keyframe.
    pub const VIDEO: Limits = Limits {
        first_nack: Duration::from_millis(8),
        min_interval: Duration::from_millis(20),
        tries: 6,
        max_wait: Duration::from_millis(400),
        capacity: 1_024,
    };
    /// For audio: order only. What does not come in 60 ms is concealed by the decoder.
    pub const AUDIO: Limits = Limits {
        first_nack: Duration::from_millis(10),
        min_interval: Duration::from_millis(20),
        tries: 0,
        max_wait: Duration::from_millis(60),
        capacity: 64,
    };
}

/// What comes out, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out<P> {
    /// The next packet.
    Packet {
        /// Its extended sequence number.
        seq: u64,
        /// The packet.
        packet: P,
    },
    /// These will not come.
    Lost {
        /// First missing number.
        first: u64,
        /// How many.
        count: u64,
    },
}

/// What became of the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Arrived after the ones behind them.
    pub reordered: u64,
    /// Came twice, or after they were given up.
    pub late: u64,
    /// Given up.
    pub lost: u64,
    /// Asked for; repeats count.
    pub nacked: u64,
}

struct Gap {
    since: Instant,
    asked: Option<Instant>,
    tries: u8,
}

/// See the [module's text](self).
pub struct Reorder<P> {
    limits: Limits,
    rtt: Duration,
    /// The next number to hand out.
    next: Option<u64>,
    /// One past the highest number seen.
    end: u64,
    waiting: BTreeMap<u64, P>,
    gaps: BTreeMap<u64, Gap>,
    /// No gap is to be asked for before.
    asks_at: Option<Instant>,
    counts: Counts,
}

impl<P> Reorder<P> {
    /// An empty buffer.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            rtt: Duration::from_millis(50),
            next: None,
            end: 0,
            waiting: BTreeMap::new(),
            gaps: BTreeMap::new(),
            asks_at: None,
            counts: Counts::default(),
        }
    }

    /// The round trip to the publisher; requests are not repeated faster.
    pub fn set_rtt(&mut self, rtt: Duration) {
        if rtt != self.rtt {
            self.rtt = rtt;
            self.asks_at = self.first_due();
        }
    }

    /// Forgets what waits: the next packet is the first of another stream.
    pub fn restart(&mut self) {
        self.waiting.clear();
        self.gaps.clear();
        (self.next, self.end, self.asks_at) = (None, 0, None);
    }

    /// Counters since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes a packet under its extended sequence number.
    pub fn push(&mut self, now: Instant, seq: u64, packet: P) {
        let next = *self.next.get_or_insert_with(|| {
            self.end = seq;
            seq
        });
        if seq < next || self.waiting.contains_key(&seq) {
            self.counts.late += 1;
            return;
        }
        if seq < self.end {
            self.gaps.remove(&seq);
            self.counts.reordered += 1;
        } else {
            // A publisher that jumps further than a buffer's worth has started anew; one that leaves more holes than that,
            // jump by jump, is not waited for either.
            let jump = seq - self.end;
            let room = self.limits.capacity.saturating_sub(self.gaps.len());
            if jump > 0 && jump <= room as u64 {
                if self.limits.tries > 0 {
                    let at = now + self.limits.first_nack;
                    self.asks_at = Some(self.asks_at.map_or(at, |known| known.min(at)));
                }
                for missing in self.end..seq {
                    self.gaps.insert(
                        missing,
                        Gap {
                            since: now,
                            asked: None,
                            tries: 0,
                        },
                    );
                }
            }
            self.end = seq + 1;
        }
        self.waiting.insert(seq, packet);
    }

    /// The next packet in order, or the news that some are lost. Call until `None` after [`Reorder::push`] and when
    /// [`Reorder::next_timeout`] is reached.
    pub fn pop(&mut self, now: Instant) -> Option<Out<P>> {
        let next = self.next?;
        if let Some(packet) = self.waiting.remove(&next) {
            self.next = Some(next + 1);
            return Some(Out::Packet { seq: next, packet });
        }
        let &first_waiting = self.waiting.keys().next()?;
        let full = self.waiting.len() > self.limits.capacity;
        let hopeless = match self.gaps.get(&next) {
            // Not even noted as a gap: a jump.
            None => true,
            Some(gap) => full || now >= self.hope_until(gap),
        };
        if !hopeless {
            return None;
        }
        // What is as hopeless right behind it goes with it.
        let mut until = next + 1;
        while until < first_waiting
            && self
                .gaps
                .get(&until)
                .is_none_or(|gap| full || now >= self.hope_until(gap))
        {
            until += 1;
        }
        self.gaps = self.gaps.split_off(&until);
        self.next = Some(until);
        self.counts.lost += until - next;
        Some(Out::Lost {
            first: next,
            count: until - next,
        })
    }

    fn hope_until(&self, gap: &Gap) -> Instant {
        let whole = gap.since + self.limits.max_wait;
        match gap.asked {
            Some(asked) if gap.tries >= self.limits.tries => whole.min(asked + self.interval()),
            _ => whole,
        }
    }

    fn interval(&self) -> Duration {
        (self.rtt + Duration::from_millis(5)).max(self.limits.min_interval)
    }

    fn due(&self, gap: &Gap) -> Option<Instant> {
        let at = match gap.asked {
            None => gap.since + self.limits.first_nack,
            Some(asked) => asked + self.interval(),
        };
        (gap.tries < self.limits.tries && at < gap.since + self.limits.max_wait).then_some(at)
    }

    /// Packets to ask the publisher for now, ascending, each noted as asked for.
    pub fn nacks(&mut self, now: Instant) -> Vec<u64> {
        if self.asks_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let due: Vec<u64> = self
            .gaps
            .iter()
            .filter(|(_, gap)| self.due(gap).is_some_and(|at| now >= at))
            .map(|(&seq, _)| seq)
            .collect();
        for seq in &due {
            if let Some(gap) = self.gaps.get_mut(seq) {
                gap.asked = Some(now);
                gap.tries += 1;
            }
        }
        self.counts.nacked += due.len() as u64;
        self.asks_at = self.first_due();
        due
    }

    fn first_due(&self) -> Option<Instant> {
        self.gaps.values().filter_map(|gap| self.due(gap)).min()
    }

    /// When to call [`Reorder::nacks`] and [`Reorder::pop`] again; at times a little too early, for a packet that has come
    /// meanwhile.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.gaps.is_empty() {
            return None;
        }
        let give_up = self
            .next
            .and_then(|next| self.gaps.get(&next))
            .map(|gap| self.hope_until(gap));
        self.asks_at.into_iter().chain(give_up).min()
    }

    /// Packets that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// None waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn drain(buffer: &mut Reorder<u64>, now: Instant) -> Vec<Out<u64>> {
        std::iter::from_fn(|| buffer.pop(now)).collect()
    }

    fn packet(seq: u64) -> Out<u64> {
        Out::Packet { seq, packet: seq }
    }

    #[test]
    fn order_is_restored_without_asking() {
        let start = Instant::now();
        let mut buffer = Reorder::new(Limits::VIDEO);
        for seq in [10, 12, 11] {
            buffer.push(start, seq, seq);
        }
        assert_eq!(drain(&mut buffer, start), [packet(10), packet(11), packet(12)]);
        assert!(buffer.nacks(start + MS(50)).is_empty());
        assert_eq!(buffer.counts().reordered, 1);
    }

    #[test]
    fn a_duplicate_is_dropped() {
        let start = Instant::now();
        let mut buffer = Reorder::new(Limits::VIDEO);
        for seq in [10, 10, 12, 12] {
            buffer.push(start, seq, seq);
        }
        assert_eq!(drain(&mut buffer, start), [packet(10)]);
        assert_eq!((buffer.counts().late, buffer.len()), (2, 1));
    }

    #[test]
    fn a_gap_is_asked_for_after_a_short_wait_and_at_the_pace_of_the_round_trip() {
        let start = Instant::now();
        let mut buffer = Reorder::new(Limits::VIDEO);
        buffer.set_rtt(MS(95));
        buffer.push(start, 10, 10);
        buffer.push(start, 13, 13);
        assert!(buffer.nacks(start + MS(7)).is_empty());
        assert_eq!(buffer.next_timeout(), Some(start + MS(8)));
        assert_eq!(buffer.nacks(start + MS(8)), [11, 12]);
        assert!(buffer.nacks(start + MS(107)).is_empty());
        buffer.push(start + MS(107), 11, 11);
        assert_eq!(buffer.nacks(start + MS(108)), [12]);
    }

    #[test]
    fn a_gap_is_given_up_once() {
        let start = Instant::now();
        let mut buffer = Reorder::new(Limits::VIDEO);
        buffer.set_rtt(MS(1));
        for seq in [10, 13, 14] {
            buffer.push(start, seq, seq);
        }
        let mut now = start;
        let mut out = drain(&mut buffer, now);
        let mut asked = 0;
        while let Some(at) = buffer.next_timeout() {
            assert!(at >= now && at <= start + Limits::VIDEO.max_wait);
            now = at;
            asked += buffer.nacks(now).len();
            out.extend(drain(&mut buffer, now));
        }
        assert_eq!(
            out,
            [packet(10), Out::Lost { first: 11, count: 2 }, packet(13), packet(14)]
        );
        assert_eq!(asked, 2 * usize::from(Limits::VIDEO.tries));
        buffer.push(now, 11, 11);
        assert_eq!(drain(&mut buffer, now), []);
    }

    #[test]
    fn audio_waits_but_does_not_ask() {
        let start = Instant::now();
        let mut buffer = Reorder::new(Limits::AUDIO);
        for seq in [1, 3] {
            buffer.push(start, seq, seq);
        }
        assert!(buffer.nacks(start + MS(30)).is_empty());
        assert_eq!(drain(&mut buffer, start + MS(59)), [packet(1)]);
        assert_eq!(
            drain(&mut buffer, start + MS(60)),
            [Out::Lost { first: 2, count: 1 }, packet(3)]
        );
    }

    #[test]
    fn the_buffer_is_bounded() {
        let start = Instant::now();
        let mut buffer = Reorder::new(Limits::AUDIO);
        buffer.push(start, 0, 0);
        assert_eq!(drain(&mut buffer, start).len(), 1);
        for seq in 2..200 {
            buffer.push(start, seq, seq);
            drain(&mut buffer, start);
            assert!(buffer.len() <= Limits::AUDIO.capacity);
        }
        assert_eq!(buffer.counts().lost, 1);
    }

    #[test]
    fn a_far_jump_starts_anew_without_asking() {
        let start = Instant::now();
        let mut buffer = Reorder::new(Limits::VIDEO);
        buffer.push(start, 10, 10);
        buffer.push(start, 50_000, 50_000);
        let out = drain(&mut buffer, start);
        assert_eq!(
            out,
            [
                packet(10),
                Out::Lost {
                    first: 11,
                    count: 49_989
                },
                packet(50_000)
            ]
        );
        assert!(buffer.nacks(start + MS(100)).is_empty());
    }

    #[test]
    fn another_stream_starts_anew() {
        let start = Instant::now();
        let mut buffer = Reorder::new(Limits::VIDEO);
        for seq in [100, 103] {
            buffer.push(start, seq, seq);
        }
        drain(&mut buffer, start);
        buffer.restart();
        assert_eq!((buffer.next_timeout(), buffer.len()), (None, 0));
        buffer.push(start, 7, 7);
        assert_eq!(drain(&mut buffer, start), [packet(7)]);
    }

    proptest! {
        #[test]
        fn gaps_are_bounded_and_no_deadline_is_missed(
            steps in prop::collection::vec((0u64..1_100, 0u64..4), 1..200),
        ) {
            let mut now = Instant::now();
            let limits = Limits { capacity: 100, ..Limits::VIDEO };
            let mut buffer = Reorder::new(limits);
            let (mut seq, mut expected) = (1_000, 1_000);
            for (jump, ms) in steps {
                // Mostly small steps, now and then one as large as the buffer or larger.
                seq += 1 + if jump < 900 { jump % 30 } else { jump % 300 };
                now += MS(ms);
                buffer.push(now, seq, seq);
                let due = buffer.first_due();
                if let Some(due) = due {
                    prop_assert!(buffer.next_timeout().is_some_and(|at| at <= due));
                }
                prop_assert_eq!(buffer.nacks(now).is_empty(), due.is_none_or(|at| at > now));
                for out in drain(&mut buffer, now) {
                    match out {
                        Out::Packet { seq, .. } => {
                            prop_assert!(expected == seq || expected == 1_000);
                            expected = seq + 1;
                        }
                        Out::Lost { first, count } => {
                            prop_assert_eq!(first, expected);
                            expected += count;
                        }
                    }
                }
                prop_assert!(buffer.gaps.len() <= limits.capacity, "{} gaps", buffer.gaps.len());
                prop_assert!(buffer.len() <= limits.capacity);
            }
        }

        #[test]
        fn comes_out_in_order_once_and_complete(
            seqs in prop::collection::vec(1_000u64..1_300, 1..400),
            steps in prop::collection::vec(0u64..30, 1..400),
        ) {
            let mut now = Instant::now();
            let mut buffer = Reorder::new(Limits::VIDEO);
            let mut out = Vec::new();
            for (seq, step) in seqs.iter().zip(steps.iter().cycle()) {
                now += MS(*step);
                buffer.push(now, *seq, *seq);
                buffer.nacks(now);
                out.extend(drain(&mut buffer, now));
            }
            out.extend(drain(&mut buffer, now + MS(1_000)));
            prop_assert!(buffer.is_empty());
            let mut expected = seqs[0];
            for entry in out {
                match entry {
                    Out::Packet { seq, packet } => {
                        prop_assert_eq!((seq, packet), (expected, expected));
                        expected += 1;
                    }
                    Out::Lost { first, count } => {
                        prop_assert!(first == expected && count > 0);
                        expected += count;
                    }
                }
            }
        }
    }
}

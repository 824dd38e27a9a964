//! The jitter buffer of one source: packets in when they come, out when they should sound.

use std::collections::VecDeque;

use bytes::Bytes;
use wzp_proto::codec::Codec;

use crate::media::audio::{BLOCK, decode};
use crate::media::frame::RoomTime;

/// A source begins to sound this long after its first packet, at the earliest, µs.
const FIRST_WAIT: u64 = 20_000;
/// More than this never waits, samples: 120 ms.
pub const MOST: usize = 5_760;
/// A gap of up to this is loss and gets concealed; a longer one is a pause of the source, samples: 120 ms.
const LONGEST_GAP: u64 = 5_760;
/// How long what waits must have been more than needed before something is left out, µs.
const WINDOW: u64 = 2_000_000;
/// What may always wait, samples: a packet's time, so that a late one is not missed at once.
const SPARE: usize = BLOCK;

/// A packet that waits for its time.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Codec of the payload.
    pub codec: Codec,
    /// The coded sound.
    pub payload: Bytes,
    /// The packet's place in the source's log.
    pub index: u64,
    ticks: u64,
    duration: usize,
}

/// What sounds next.
#[derive(Debug)]
pub enum Next {
    /// This packet.
    Packet(Packet),
    /// So many samples were lost.
    Lost(usize),
    /// Something should be there and has not come: something of a block's length stands in for it.
    Late,
    /// The source pauses, or has not begun.
    Pause,
}

/// What a buffer did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets left out: too many waited.
    pub dropped: u64,
    /// Packets that came after their time, or are no sound.
    pub refused: u64,
    /// Samples concealed.
    pub lost: u64,
    /// Times that nothing was there.
    pub late: u64,
}

/// The packets of one source that have not sounded yet. Holds 20 to 120 ms: every underrun makes the delay longer by what was
/// missing, and a delay that was longer than needed for two seconds is made shorter.
#[derive(Debug, Default)]
pub struct Jitter {
    waiting: VecDeque<Packet>,
    held: usize,
    /// Where the next sample stands on the source's clock, once it sounds.
    expected: Option<u64>,
    first_at: Option<RoomTime>,
    /// Least that waited right after a block was taken, since when.
    least: Option<(usize, RoomTime)>,
    /// Samples that sounded in place of what was late: if it turns out to be lost, they stand for it.
    stood_in: u64,
    counters: Counters,
}

impl Jitter {
    /// Takes a packet. `ticks` is its time on the source's clock at 48 kHz; packets come in order.
    pub fn push(&mut self, codec: Codec, payload: Bytes, ticks: u64, index: u64, now: RoomTime) {
        let Some(duration) = decode::duration(codec, &payload) else {
            self.counters.refused += 1;
            return;
        };
        let before = (self.waiting.back().map(|last| last.ticks + last.duration as u64)).or(self.expected);
        if let Some(before) = before
            && ticks < before
        {
            if before - ticks <= LONGEST_GAP {
                self.counters.refused += 1;
                return;
            }
            // The source began its clock anew.
            self.restart();
        }
        self.first_at.get_or_insert(now);
        self.held += duration;
        self.waiting.push_back(Packet {
            codec,
            payload,
            index,
            ticks,
            duration,
        });
        while self.held > MOST && self.waiting.len() > 1 {
            self.drop_oldest();
        }
    }

    /// What sounds next at `now`.
    pub fn next(&mut self, now: RoomTime) -> Next {
        let Some(expected) = self.expected else {
            return match (self.waiting.front(), self.first_at) {
                (Some(_), Some(at)) if now.since(at) >= FIRST_WAIT || self.held > 2 * BLOCK => self.take(),
                _ => Next::Pause,
            };
        };
        let Some(front) = self.waiting.front() else {
            self.counters.late += 1;
            self.stood_in += BLOCK as u64;
            return Next::Late;
        };
        let expected = expected + front.ticks.saturating_sub(expected).min(self.stood_in);
        self.stood_in = 0;
        match front.ticks.saturating_sub(expected) {
            0 => self.take(),
            gap if gap <= LONGEST_GAP => {
                let samples = (gap as usize).min(BLOCK);
                self.expected = Some(expected + samples as u64);
                self.counters.lost += samples as u64;
                Next::Lost(samples)
            }
            _ => {
                // What follows a pause builds up its own delay.
                self.pause();
                self.first_at = Some(now);
                Next::Pause
            }
        }
    }

    /// The source is silent from here on until it sends again, and builds up its delay anew.
    pub fn pause(&mut self) {
        self.expected = None;
        self.first_at = None;
        self.least = None;
        self.stood_in = 0;
    }

    /// Called after each block, with how many decoded samples wait besides: whether something should be left out, because
    /// more waits than has been needed for two seconds.
    pub fn is_late(&mut self, decoded: usize, now: RoomTime) -> bool {
        let depth = self.held + decoded;
        let (least, since) = match self.least {
            Some((least, since)) => (least.min(depth), since),
            None => (depth, now),
        };
        if now.since(since) < WINDOW {
            self.least = Some((least, since));
            return false;
        }
        self.least = None;
        least >= SPARE + BLOCK
    }

    /// Leaves out the oldest packet.
    pub fn drop_oldest(&mut self) {
        if let Some(packet) = self.waiting.pop_front() {
            self.held -= packet.duration;
            self.counters.dropped += 1;
            if self.expected.is_some() {
                self.expected = Some(packet.ticks + packet.duration as u64);
            }
        }
    }

    /// Samples that wait.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Log index of the packet that sounds next.
    pub fn next_index(&self) -> Option<u64> {
        self.waiting.front().map(|packet| packet.index)
    }

    /// What it did so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn take(&mut self) -> Next {
        match self.waiting.pop_front() {
            Some(packet) => {
                self.held -= packet.duration;
                self.expected = Some(packet.ticks + packet.duration as u64);
                Next::Packet(packet)
            }
            None => Next::Pause,
        }
    }

    fn restart(&mut self) {
        self.counters.dropped += self.waiting.len() as u64;
        self.waiting.clear();
        self.held = 0;
        self.pause();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push(jitter: &mut Jitter, n: u64, ms: u64) {
        jitter.push(
            Codec::Opus24k,
            Bytes::from_static(&[0x78, 1, 2]),
            n * 960,
            n,
            RoomTime::from_millis(ms),
        );
    }

    fn at(jitter: &mut Jitter, ms: u64) -> Option<u64> {
        match jitter.next(RoomTime::from_millis(ms)) {
            Next::Packet(packet) => Some(packet.index),
            _ => None,
        }
    }

    #[test]
    fn steady_packets_sound_one_packet_later() {
        let mut jitter = Jitter::default();
        for n in 0..50 {
            push(&mut jitter, n, 5 + n * 20);
            let sounding = at(&mut jitter, 10 + n * 20);
            assert_eq!(sounding, n.checked_sub(1));
        }
        assert_eq!(jitter.counters(), Counters::default());
    }

    #[test]
    fn lost_packet_is_a_gap_of_its_length() {
        let mut jitter = Jitter::default();
        for n in [0, 1, 3, 4] {
            push(&mut jitter, n, 0);
        }
        assert_eq!((at(&mut jitter, 20), at(&mut jitter, 40)), (Some(0), Some(1)));
        assert!(matches!(jitter.next(RoomTime::from_millis(60)), Next::Lost(960)));
        assert_eq!(at(&mut jitter, 80), Some(3));
    }

    #[test]
    fn underrun_makes_the_delay_longer_and_steadiness_shorter_again() {
        let mut jitter = Jitter::default();
        for n in 0..3 {
            push(&mut jitter, n, 0);
        }
        for n in 0..3 {
            assert_eq!(at(&mut jitter, 20 + n * 20), Some(n));
        }
        assert!(matches!(jitter.next(RoomTime::from_millis(80)), Next::Late));
        // All that was late comes at once, and nothing of it is lost.
        for n in 3..7 {
            push(&mut jitter, n, 90);
        }
        let mut shortened = false;
        for n in 3..200 {
            let now = RoomTime::from_millis(40 + n * 20);
            push(&mut jitter, n + 4, now.as_millis());
            if jitter.is_late(0, now) {
                jitter.drop_oldest();
                shortened = true;
            }
            assert!(matches!(jitter.next(now), Next::Packet(_)), "at {n}");
        }
        assert!(shortened);
        assert!(jitter.held() <= 3 * BLOCK, "{}", jitter.held());
    }

    #[test]
    fn long_pause_and_restarted_clock_begin_anew() {
        let mut jitter = Jitter::default();
        push(&mut jitter, 1_000, 0);
        assert_eq!(at(&mut jitter, 20), Some(1_000));
        push(&mut jitter, 5_000, 1_000);
        assert!(matches!(jitter.next(RoomTime::from_millis(1_000)), Next::Pause));
        assert_eq!(at(&mut jitter, 1_020), Some(5_000));
        push(&mut jitter, 3, 2_000);
        assert_eq!((at(&mut jitter, 2_000), at(&mut jitter, 2_020)), (None, Some(3)));
        push(&mut jitter, 2, 2_030);
        assert_eq!(jitter.counters().refused, 1, "what comes after its time is refused");
    }

    proptest! {
        #[test]
        fn never_holds_more_than_its_bound_and_never_goes_back(
            events in proptest::collection::vec((any::<bool>(), any::<u8>(), 0u64..40), 1..300),
        ) {
            let mut jitter = Jitter::default();
            let (mut ticks, mut now) = (0u64, RoomTime(0));
            let mut last = None;
            for (index, (push, step, wait)) in events.into_iter().enumerate() {
                now = now.plus(wait * 1000);
                if push {
                    ticks += u64::from(step) * 480;
                    jitter.push(Codec::Opus24k, Bytes::from_static(&[0x78]), ticks, index as u64, now);
                    prop_assert!(jitter.held() <= MOST);
                } else if let Next::Packet(packet) = jitter.next(now) {
                    prop_assert!(last.is_none_or(|last| packet.index > last));
                    last = Some(packet.index);
                }
            }
        }
    }
}

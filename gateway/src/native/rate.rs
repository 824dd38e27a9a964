//! How much a member may send.

use crate::media::frame::RoomTime;

/// Bounds of what one member sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Datagrams per second.
    pub datagrams: u32,
    /// Bytes of datagrams per second.
    pub bytes: u32,
    /// Signals per second. More are left unread: each may become a command of the room's.
    pub signals: u32,
}

impl Default for Rates {
    /// 2,000 datagrams and 10 Mbit per second: an app at its best sends 150 and 1 Mbit. 200 signals, as browsers have: one
    /// that asks for lost packets on a bad network sends 50.
    fn default() -> Self {
        Self {
            datagrams: 2_000,
            bytes: 10_000_000 / 8,
            signals: 200,
        }
    }
}

/// A member's verdict for one datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Within bounds.
    Pass,
    /// Over the bounds: leave it out.
    Drop,
    /// So far over the bounds, for so long, that it is no accident.
    Violation(Bound),
}

/// Which bound was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// [`Rates::datagrams`].
    Datagrams,
    /// [`Rates::bytes`].
    Bytes,
}

/// Excess is judged over this long, µs.
const WINDOW: u64 = 2_000_000;
/// A member that sends this many times its rate throughout a window breaks the rule.
const FAR_OVER: u64 = 3;

/// Meters one member: a second's worth may come at once, since keyframes do.
#[derive(Debug, Clone)]
pub struct Meter {
    datagrams: Bucket,
    bytes: Bucket,
}

/// An allowance per second, all of which may be used at once.
#[derive(Debug, Clone)]
pub struct Bucket {
    rate: u64,
    /// Millionths of a unit, so that refilling by the microsecond loses nothing.
    level: u64,
    filled_at: RoomTime,
    window_start: RoomTime,
    seen: u64,
}

impl Meter {
    /// A meter with full allowance at `now`.
    pub fn new(rates: Rates, now: RoomTime) -> Self {
        Self {
            datagrams: Bucket::new(rates.datagrams, now),
            bytes: Bucket::new(rates.bytes, now),
        }
    }

    /// Takes a datagram of `len` bytes into account.
    pub fn take(&mut self, len: usize, now: RoomTime) -> Verdict {
        let datagrams = self.datagrams.take(1, now);
        let bytes = self.bytes.take(len as u64, now);
        if self.datagrams.far_over() {
            return Verdict::Violation(Bound::Datagrams);
        }
        if self.bytes.far_over() {
            return Verdict::Violation(Bound::Bytes);
        }
        if datagrams && bytes {
            Verdict::Pass
        } else {
            Verdict::Drop
        }
    }
}

impl Bucket {
    /// A full one at `now`, of `rate` units per second.
    pub fn new(rate: u32, now: RoomTime) -> Self {
        let rate = u64::from(rate.max(1));
        Self {
            rate,
            level: rate * 1_000_000,
            filled_at: now,
            window_start: now,
            seen: 0,
        }
    }

    /// Takes so many units, or none if they are not there.
    pub fn take(&mut self, units: u64, now: RoomTime) -> bool {
        let elapsed = now.since(self.filled_at).min(1_000_000);
        self.level = (self.level + elapsed * self.rate).min(self.rate * 1_000_000);
        self.filled_at = now;
        if now.since(self.window_start) >= WINDOW {
            self.window_start = now;
            self.seen = 0;
        }
        self.seen += units;
        match self.level.checked_sub(units * 1_000_000) {
            Some(left) => {
                self.level = left;
                true
            }
            None => false,
        }
    }

    fn far_over(&self) -> bool {
        self.seen > FAR_OVER * self.rate * WINDOW / 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates {
        datagrams: 100,
        bytes: 100_000,
        signals: 10,
    };

    #[test]
    fn steady_sender_at_its_rate_passes_for_ever() {
        let mut meter = Meter::new(RATES, RoomTime(0));
        for i in 0..10_000u64 {
            assert_eq!(meter.take(1000, RoomTime(i * 10_000)), Verdict::Pass, "datagram {i}");
        }
    }

    #[test]
    fn excess_is_dropped_and_the_rest_passes() {
        let mut meter = Meter::new(RATES, RoomTime(0));
        let passed = (0..2_000u64)
            .filter(|i| meter.take(10, RoomTime(i * 5_000)) == Verdict::Pass)
            .count();
        assert!((1_050..=1_110).contains(&passed), "{passed} of 2000 in 10 s at 100/s");
    }

    #[test]
    fn flood_is_a_violation_of_the_bound_it_breaks() {
        let mut meter = Meter::new(RATES, RoomTime(0));
        let verdict = (0..5_000u64)
            .map(|i| meter.take(10, RoomTime(i * 100)))
            .find(|verdict| matches!(verdict, Verdict::Violation(_)));
        assert_eq!(verdict, Some(Verdict::Violation(Bound::Datagrams)));
        let mut meter = Meter::new(RATES, RoomTime(0));
        let verdict = (0..5_000u64)
            .map(|i| meter.take(50_000, RoomTime(i * 20_000)))
            .find(|verdict| matches!(verdict, Verdict::Violation(_)));
        assert_eq!(verdict, Some(Verdict::Violation(Bound::Bytes)));
    }
}

//! How much video a client takes, judged by how long its window was shut while pictures waited. Time is an argument.

use std::time::{Duration, Instant};

use crate::browser::window::Window;

/// How often it is judged.
const INTERVAL: Duration = Duration::from_millis(500);
/// The path is full if pictures waited for more than 1/this of the time,
const FULL: u32 = 6;
/// or for more than 1/this of it so that some were left out.
const FULL_WITH_DROPS: u32 = 10;
/// After the path was full, no more is tried for this long,
const HOLD: Duration = Duration::from_millis(400);
/// and nothing less either for this long: publishers do not follow at once.
const HOLD_LOWER: Duration = Duration::from_millis(1000);
/// A path that is seen to carry so many times the capacity has become a better one.
const AMPLE: u32 = 4;
/// A path that lets short bursts through and fills up all the same did so within this, and is
const AMPLE_TRIAL: Duration = Duration::from_secs(3);
/// not taken for a better one for so long at first, and for twice as long each time, up to the latter.
const DISTRUST: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// A capacity above this is no bound, bit/s.
const FREE: u32 = 6_000_000;
/// Never less than this, bit/s.
const FLOOR: u32 = 50_000;

/// The judgement on one client.
#[derive(Debug)]
pub struct Capacity {
    /// bit/s.
    bits: u32,
    /// The last try to give more went well.
    rising: bool,
    narrowed_at: Option<Instant>,
    /// When it was raised by much because the path looked ample.
    widened_at: Option<Instant>,
    distrust: Duration,
    distrusted_until: Option<Instant>,
    judged_at: Option<Instant>,
    /// Since when pictures wait for the window.
    waits_since: Option<Instant>,
    /// How long they waited since the last judgement, until `waits_since`.
    waited: Duration,
    dropped: u64,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            bits: u32::MAX,
            rising: false,
            narrowed_at: None,
            widened_at: None,
            distrust: DISTRUST.0,
            distrusted_until: None,
            judged_at: None,
            waits_since: None,
            waited: Duration::ZERO,
            dropped: 0,
        }
    }
}

impl Capacity {
    /// Pictures wait because the window is shut, from now on, or do not.
    pub fn note(&mut self, waits: bool, now: Instant) {
        match (self.waits_since, waits) {
            (None, true) => self.waits_since = Some(now),
            (Some(since), false) => {
                self.waited += now.saturating_duration_since(since);
                self.waits_since = None;
            }
            _ => {}
        }
    }

    /// The capacity in bit/s ([`u32::MAX`]: no bound seen), if it is time to judge. `dropped` frames were left out so far.
    pub fn judge(&mut self, window: &mut Window, dropped: u64, now: Instant) -> Option<u32> {
        let elapsed = match self.judged_at {
            Some(at) => now.saturating_duration_since(at),
            None => INTERVAL,
        };
        if elapsed < INTERVAL {
            return None;
        }
        self.judged_at = Some(now);
        // What has waited until now counts for this judgement, the rest for the next.
        let waits = self.waits_since.is_some();
        self.note(false, now);
        self.note(waits, now);
        let waited = std::mem::take(&mut self.waited);
        let drops = std::mem::replace(&mut self.dropped, dropped) != dropped;
        let full = waited >= elapsed / FULL || (drops && waited >= elapsed / FULL_WITH_DROPS);
        let rate = window.delivered_rate(now);
        let path = window.take_path_rate();
        let narrowed = |least: Duration| {
            self.narrowed_at
                .is_some_and(|at| now.saturating_duration_since(at) < least)
        };
        if full && narrowed(HOLD_LOWER) {
            self.rising = false;
        } else if full {
            // What went through is what the path carries; a little less lets the queue drain.
            self.bits = (rate - rate / 4).max(FLOOR).min(self.bits);
            self.narrowed_at = Some(now);
            self.rising = false;
            match self.widened_at.take() {
                Some(at) if now.saturating_duration_since(at) <= AMPLE_TRIAL => {
                    self.distrusted_until = Some(now + self.distrust);
                    self.distrust = (2 * self.distrust).min(DISTRUST.1);
                }
                Some(_) => self.distrust = DISTRUST.0,
                None => {}
            }
        } else if self.bits != u32::MAX && waited.is_zero() && !narrowed(HOLD) {
            self.rise(rate, path, now);
        }
        Some(self.bits)
    }

    /// Nothing had to wait: how much more is tried depends on what the path is seen to carry. If that is not to be seen, or
    /// not much, on whether the publishers make use of what there is, and have made use of the last step.
    fn rise(&mut self, rate: u32, path: Option<u32>, now: Instant) {
        let used = rate >= self.bits / 10 * 8;
        let trusted = self.distrusted_until.is_none_or(|until| now >= until);
        let step = match path {
            Some(path) if trusted && path / AMPLE >= self.bits => {
                self.widened_at = Some(now);
                self.bits.max(path / AMPLE)
            }
            _ if used && self.rising => self.bits / 12,
            _ => self.bits / 24,
        };
        self.rising = used;
        self.bits = self.bits.saturating_add(step + 2_500);
        if self.bits > FREE {
            self.bits = u32::MAX;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = INTERVAL;

    /// A client that has taken `bits`, of whose path bursts tell that it carries 10 Mbit/s; what it is judged to take after
    /// each of the next `ticks`.
    fn run(capacity: &mut Capacity, now: &mut Instant, ticks: u32, limit: u32) -> Vec<u32> {
        let mut rates = Vec::new();
        for _ in 0..ticks {
            let mut window = Window::default();
            window.sent(10, *now);
            window.acked(1, 0, *now).unwrap();
            let bits = capacity.bits.min(1_000_000);
            // A bucket of tokens lets every burst through and fills up all the same.
            let full = bits > limit;
            for i in 0..10 {
                let at = *now + TICK / 10 * i;
                window.sent((bits.min(limit) / 8 / 20) as usize + 700, at);
                window
                    .acked(2 + u64::from(i), 0, at + Duration::from_millis(1))
                    .unwrap();
            }
            *now += TICK;
            capacity.note(full, *now - TICK / 2);
            capacity.note(false, *now);
            rates.push(capacity.judge(&mut window, 0, *now).unwrap());
        }
        rates
    }

    #[test]
    fn path_that_has_become_a_better_one_is_used_at_once() {
        let (mut capacity, mut now) = (Capacity::default(), Instant::now());
        run(&mut capacity, &mut now, 20, 300_000);
        assert!(capacity.bits < 400_000, "{}", capacity.bits);
        now += DISTRUST.1;
        let rates = run(&mut capacity, &mut now, 4, u32::MAX);
        assert_eq!(rates.last(), Some(&u32::MAX), "{rates:?}");
    }

    #[test]
    fn path_that_lets_bursts_through_and_fills_up_is_tried_less_and_less_often() {
        let (mut capacity, mut now) = (Capacity::default(), Instant::now());
        let rates = run(&mut capacity, &mut now, 400, 300_000);
        let tried: Vec<usize> = (1..rates.len())
            .filter(|at| rates[*at - 1] < 500_000 && rates[*at] > 1_000_000)
            .collect();
        assert!((2..=7).contains(&tried.len()), "{tried:?}");
        let waits: Vec<usize> = tried.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(waits.is_sorted() && waits[0] >= 10, "{waits:?}");
    }
}

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
const AMPLE: u32 = 2;
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
        } else if self.bits != u32::MAX && waited.is_zero() && !narrowed(HOLD) {
            self.rise(rate, path);
        }
        Some(self.bits)
    }

    /// Nothing had to wait: how much more is tried depends on what the path is seen to carry. If that is not to be seen, or
    /// not much, on whether the publishers make use of what there is, and have made use of the last step.
    fn rise(&mut self, rate: u32, path: Option<u32>) {
        let used = rate >= self.bits / 10 * 8;
        let step = match path {
            Some(path) if path / AMPLE >= self.bits => self.bits,
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

//! How fast one leg sends, and all replays of a viewer together: a replay is a burst, and a burst at line rate is lost on the
//! way. Time is an argument.

use std::time::{Duration, Instant};

/// Nothing goes out faster than this, bytes per ms: 50 Mbit/s.
const FASTEST: u64 = 6_250;
/// A replay is never slowed down below this, bytes per ms (2.5 Mbit/s): it would not catch up with a picture that moves.
const SLOWEST: u64 = 312;
/// What may go out at once, as time at the rate in force, ms.
const BURST: u64 = 21;
/// A replay goes out at so many times what the path is said to carry at most: receivers' estimates follow what they
/// receive, and lie far below what the path could carry while little is sent.
const OVER_ESTIMATE: u64 = 4;
/// After packets of a replay were lost it goes on at 1/this of its rate,
const SLOWER: u64 = 4;
/// for so long after the last loss.
const SLOW_FOR: Duration = Duration::from_secs(1);

/// The budget of one leg. Repairs are charged to it like everything else.
#[derive(Debug, Default)]
pub struct Paced {
    /// Bytes that may go out now; below zero after something larger than that, or after repairs.
    level: i64,
    at: Option<Instant>,
    estimate: Option<u64>,
    lost_at: Option<Instant>,
}

impl Paced {
    /// The path is said to carry this, bit/s.
    pub fn set_estimate(&mut self, bits_per_second: u64) {
        self.estimate = Some(bits_per_second);
    }

    /// The viewer has lost packets of a replay.
    pub fn slow_down(&mut self, now: Instant) {
        self.lost_at = Some(now);
    }

    /// Whether the next frame may go out; `replaying`: it is older than live.
    pub fn may_send(&mut self, replaying: bool, now: Instant) -> bool {
        let rate = match replaying {
            true => self.replay_rate(now),
            false => FASTEST,
        };
        let burst = (rate * BURST) as i64;
        let gained = match self.at {
            Some(at) => now.saturating_duration_since(at).as_micros() as u64 * rate / 1000,
            None => rate * BURST,
        };
        if gained > 0 {
            self.at = Some(now);
        }
        self.level = self.level.saturating_add_unsigned(gained).min(burst);
        self.level > 0
    }

    /// So many bytes have gone out.
    pub fn sent(&mut self, bytes: usize) {
        self.level = self.level.saturating_sub_unsigned(bytes as u64);
    }

    /// Bytes per ms.
    fn replay_rate(&self, now: Instant) -> u64 {
        let carried = self
            .estimate
            .map_or(FASTEST, |bits| bits.saturating_mul(OVER_ESTIMATE) / 8000);
        let lost = self
            .lost_at
            .is_some_and(|at| now.saturating_duration_since(at) < SLOW_FOR);
        let rate = carried.min(FASTEST) / if lost { SLOWER } else { 1 };
        rate.max(SLOWEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worker's tick.
    const TICK: u64 = 5;

    /// A replay of `frames` frames of `size` bytes, looked at every tick; when the last one has gone out, ms. `at_each` is
    /// called at every tick.
    fn replay(paced: &mut Paced, start: Instant, frames: usize, size: usize, at_each: impl Fn(&mut Paced, u64)) -> u64 {
        let mut left = frames;
        for ms in (0..60_000).step_by(TICK as usize) {
            let now = start + Duration::from_millis(ms);
            at_each(paced, ms);
            while left > 0 && paced.may_send(true, now) {
                paced.sent(size);
                left -= 1;
            }
            if left == 0 {
                return ms;
            }
        }
        u64::MAX
    }

    #[test]
    fn largest_replay_within_the_soft_bounds_takes_150_ms_at_most() {
        for (frames, size) in [(75, (1 << 20) / 75), (1, 1 << 20), (900, 1165)] {
            let took = replay(&mut Paced::default(), Instant::now(), frames, size, |_, _| {});
            assert!(took <= 150, "{frames} frames in {took} ms");
        }
    }

    #[test]
    fn nothing_goes_out_faster_than_50_mbit_per_second() {
        // Frames larger than what a tick allows, and smaller ones.
        for (frames, size) in [(40, 150_000), (6_000, 1_000)] {
            for replaying in [true, false] {
                let start = Instant::now();
                let (mut paced, mut sent, mut left) = (Paced::default(), 0, frames);
                for ms in (0..1000).step_by(TICK as usize) {
                    let now = start + Duration::from_millis(ms);
                    while left > 0 && paced.may_send(replaying, now) {
                        paced.sent(size);
                        (sent, left) = (sent + size, left - 1);
                        let most = FASTEST * (ms + BURST);
                        assert!(sent as u64 <= most + size as u64, "{sent} bytes in {ms} ms");
                    }
                }
            }
        }
    }

    #[test]
    fn replay_is_slower_after_a_loss_and_live_is_not() {
        let start = Instant::now();
        let whole = replay(&mut Paced::default(), start, 75, 14_000, |_, _| {});
        let mut paced = Paced::default();
        let lossy = replay(&mut paced, start, 75, 14_000, |paced, ms| {
            if ms == 20 {
                paced.slow_down(start + Duration::from_millis(ms));
            }
        });
        assert!(lossy > 3 * whole, "{lossy} ms, {whole} without loss");
        assert!(!paced.may_send(true, start + Duration::from_millis(lossy)));
        // 100 ms at the full rate.
        let mut sent = 0;
        for ms in lossy..lossy + 100 {
            while paced.may_send(false, start + Duration::from_millis(ms)) {
                paced.sent(1_000);
                sent += 1_000;
            }
        }
        assert!(sent > 500_000, "{sent} bytes of live frames");
    }

    #[test]
    fn full_rate_is_back_a_second_after_the_last_loss() {
        let start = Instant::now();
        let mut paced = Paced::default();
        paced.slow_down(start);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(paced.replay_rate(at(999)), FASTEST / SLOWER);
        assert_eq!(paced.replay_rate(at(1000)), FASTEST);
    }

    #[test]
    fn replay_is_no_faster_than_the_viewers_estimate_allows() {
        for (estimate, least) in [(50_000_000, 0), (5_000_000, 350), (1_000_000, 1_500), (1_000, 2_500)] {
            let mut paced = Paced::default();
            paced.set_estimate(estimate);
            let took = replay(&mut paced, Instant::now(), 75, 14_000, |_, _| {});
            assert!(took >= least, "{took} ms at {estimate} bit/s");
            assert!(took < 4_000, "and not for ever: {took} ms at {estimate} bit/s");
        }
    }

    #[test]
    fn repairs_are_charged_to_the_same_budget() {
        let start = Instant::now();
        let whole = replay(&mut Paced::default(), start, 75, 14_000, |_, _| {});
        let repaired = replay(&mut Paced::default(), start, 75, 14_000, |paced, ms| {
            if ms == 50 {
                paced.sent(500_000);
            }
        });
        assert!(
            (whole + 75..whole + 90).contains(&repaired),
            "{repaired} ms, {whole} without"
        );
    }
}

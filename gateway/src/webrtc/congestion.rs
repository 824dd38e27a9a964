//! What publishers are asked for on behalf of a viewer whose path carries less than is sent, and what shows that it does.
//!
//! In: round trips, what is sent and what the viewer says of the path, twice a second. Out: a bound, or none.
//!
//! A receiver's estimate alone is no measure of its path: it grows by some 8 % a second and not far beyond what arrives
//! (draft-ietf-rmcat-gcc-02, section 5.5), so that after a small picture it lies far below a large one, and Chromium's first
//! one, some five seconds after the first picture, is what arrives at that moment. A path that is full shows it otherwise,
//! too: packets wait in a queue, or are lost.

use std::time::{Duration, Instant};

use crate::webrtc::shortage::Measured;

/// An estimate that is lower by this part has fallen.
const FALL: f64 = 0.03;
/// So long after the last sign of congestion the path is taken to be no bound any more.
const CALM: Duration = Duration::from_secs(10);
/// A round trip tells of the path for so long.
const RTT_AGE: Duration = Duration::from_secs(3);
/// The shortest round trip of this time, and of as much before it, is what the path takes without a queue.
const BASE_WINDOW: Duration = Duration::from_secs(30);

/// How long packets wait on the way beyond what the way takes.
#[derive(Debug, Default)]
pub struct Queue {
    latest: Option<(Duration, Instant)>,
    /// Shortest round trip since the time, and of the window before it.
    least: Option<(Duration, Instant)>,
    least_before: Option<Duration>,
}

impl Queue {
    /// A round trip was measured.
    pub fn note(&mut self, rtt: Duration, now: Instant) {
        self.latest = Some((rtt, now));
        self.least = match self.least {
            Some((least, since)) if now.saturating_duration_since(since) < BASE_WINDOW => Some((least.min(rtt), since)),
            older => {
                self.least_before = older.map(|(least, _)| least);
                Some((rtt, now))
            }
        };
    }

    /// What the last round trip took beyond the shortest one.
    pub fn wait(&self, now: Instant) -> Duration {
        let fresh = self
            .latest
            .filter(|(_, at)| now.saturating_duration_since(*at) < RTT_AGE);
        let (Some((latest, _)), Some((least, _))) = (fresh, self.least) else {
            return Duration::ZERO;
        };
        latest.saturating_sub(self.least_before.map_or(least, |before| before.min(least)))
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Congestion {
    estimate: u64,
    was_short: bool,
    until: Option<Instant>,
}

impl Congestion {
    /// What all videos together may take, bit/s. To be called about twice a second.
    pub fn bound(&mut self, now: Instant, measured: Measured) -> Option<u64> {
        let estimate = measured.estimate?;
        let fell = (estimate as f64) < std::mem::replace(&mut self.estimate, estimate) as f64 * (1.0 - FALL);
        let short = measured.is_short();
        // One window alone may hold a replay or a large keyframe.
        let sign = std::mem::replace(&mut self.was_short, short) && short;
        let bounded = self.until.is_some_and(|until| now < until);
        // Who keeps to the bound is not short any more: the estimate goes up until it meets the path, and falls.
        if sign || bounded && fell {
            self.until = Some(now + CALM);
        }
        (sign || bounded).then_some(estimate * 19 / 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(500);
    const QUEUE: Duration = Duration::from_millis(300);

    fn measured(rate: u64, estimate: u64, waits: Duration) -> Measured {
        Measured {
            rate,
            estimate: Some(estimate),
            loss: 0,
            lost: 0,
            waits,
            arrived: None,
            videos: 1,
        }
    }

    /// A receiver as Chromium's behind a path with a queue: overuse takes its estimate to 85 % of what arrives, calm lets it
    /// grow by 8 % a second, up to one and a half times of that.
    struct Receiver {
        now: Instant,
        congestion: Congestion,
        estimate: u64,
        rate: u64,
        /// What the source sends if nobody asks for less.
        wish: u64,
        /// In the queue, bits.
        queued: u64,
    }

    impl Receiver {
        fn new(wish: u64, estimate: u64) -> Self {
            Self {
                now: Instant::now(),
                congestion: Congestion::default(),
                estimate,
                rate: wish,
                wish,
                queued: 0,
            }
        }

        /// So many seconds with a path of `capacity` bit/s; the rates of each tick.
        fn run(&mut self, seconds: u64, capacity: u64) -> Vec<u64> {
            (0..2 * seconds)
                .map(|_| {
                    self.now += TICK;
                    let arrives = (self.queued * 2 + self.rate).min(capacity);
                    self.queued = (self.queued + self.rate / 2 - arrives / 2).min(capacity / 2);
                    if self.rate > capacity {
                        self.estimate = self.estimate.min(arrives * 85 / 100);
                    } else {
                        let most = arrives.saturating_mul(3) / 2 + 10_000;
                        self.estimate = self.estimate.max((self.estimate * 104 / 100).min(most));
                    }
                    let waits = Duration::from_micros(self.queued * 1_000_000 / capacity);
                    let measured = measured(self.rate, self.estimate, waits);
                    let bound = self.congestion.bound(self.now, measured);
                    let next = bound.map_or(self.wish, |bound| self.wish.min(bound.max(100_000)));
                    std::mem::replace(&mut self.rate, next)
                })
                .collect()
        }
    }

    const WIDE: u64 = 1_000_000_000;

    #[test]
    fn an_estimate_that_follows_a_small_picture_does_not_bound_a_large_one() {
        let mut receiver = Receiver::new(1_200_000, 50_000_000);
        receiver.run(5, WIDE);
        (receiver.wish, receiver.estimate) = (200_000, 110_000);
        assert!(receiver.run(5, WIDE)[1..].iter().all(|rate| *rate == 200_000));
        receiver.wish = 1_000_000;
        let rates = receiver.run(10, WIDE);
        assert!(rates[1..].iter().all(|rate| *rate == 1_000_000), "{rates:?}");
    }

    #[test]
    fn a_path_that_carries_less_bounds_within_a_second_and_keeps_bounding() {
        let mut receiver = Receiver::new(1_000_000, 50_000_000);
        let rates = receiver.run(60, 400_000);
        assert!(rates[3..].iter().all(|rate| *rate <= 500_000), "{rates:?}");
        let mean = rates[20..].iter().sum::<u64>() / (rates.len() - 20) as u64;
        assert!((300_000..400_000).contains(&mean), "{mean}");
    }

    #[test]
    fn a_path_that_recovers_is_no_bound_after_ten_seconds_at_most() {
        let mut receiver = Receiver::new(1_000_000, 50_000_000);
        receiver.run(20, 200_000);
        let rates = receiver.run(13, WIDE);
        assert_eq!(rates.last(), Some(&1_000_000), "{rates:?}");
    }

    #[test]
    fn a_path_that_loses_what_it_does_not_carry_bounds_without_a_queue() {
        let (mut congestion, start) = (Congestion::default(), Instant::now());
        let lossy = Measured {
            loss: 60,
            lost: 60,
            ..measured(1_000_000, 600_000, Duration::ZERO)
        };
        assert_eq!(congestion.bound(start, lossy), None);
        assert_eq!(congestion.bound(start + TICK, lossy), Some(570_000));
    }

    #[test]
    fn one_window_above_the_estimate_means_nothing() {
        let (mut congestion, mut now) = (Congestion::default(), Instant::now());
        for (rate, estimate) in [
            (500_000, 600_000),
            (2_000_000, 500_000),
            (500_000, 500_000),
            (2_000_000, 480_000),
        ] {
            now += TICK;
            assert_eq!(congestion.bound(now, measured(rate, estimate, QUEUE)), None);
        }
        assert_eq!(
            congestion.bound(now + TICK, measured(2_000_000, 480_000, QUEUE)),
            Some(456_000)
        );
    }

    #[test]
    fn packets_wait_for_what_a_round_trip_takes_beyond_the_shortest() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut queue = Queue::default();
        assert_eq!(queue.wait(start), Duration::ZERO);
        queue.note(ms(40), start);
        queue.note(ms(240), start + ms(1000));
        assert_eq!(queue.wait(start + ms(1500)), ms(200));
        assert_eq!(
            queue.wait(start + ms(4000)),
            Duration::ZERO,
            "nothing is known any more"
        );
        // A way that has become longer is taken for a queue for a minute at most.
        for second in 2..70 {
            queue.note(ms(240), start + ms(second * 1000));
        }
        assert_eq!(queue.wait(start + ms(69_500)), Duration::ZERO);
    }
}

//! When a relay that was not reached is dialled again. Without clock; randomness is an argument.

use std::time::Duration;

/// The first wait.
pub const FIRST: Duration = Duration::from_millis(500);
/// The longest wait.
pub const MOST: Duration = Duration::from_secs(15);
/// A connection that has stood for this long was a good one.
pub const STEADY: Duration = Duration::from_secs(10);
/// A wait is up to this share shorter or longer, so that the gateways of a relay that comes back do not all come at once.
const JITTER: f64 = 0.2;

/// Doubling waits.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// How long to wait after a failure; `random` is within 0.0 to 1.0.
    pub fn wait(&mut self, random: f64) -> Duration {
        let wait = self.next.mul_f64(1.0 - JITTER + 2.0 * JITTER * random.clamp(0.0, 1.0));
        self.next = (self.next * 2).min(MOST);
        wait.min(MOST)
    }

    /// How long to wait though asking sooner makes no sense: the longest wait.
    pub fn wait_long(&mut self) -> Duration {
        self.next = MOST;
        MOST
    }

    /// All was well for a while.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_half_a_second_to_fifteen() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..7).map(|_| backoff.wait(0.5).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
        backoff.reset();
        assert_eq!(backoff.wait(0.5), FIRST);
    }

    #[test]
    fn jitter_is_a_fifth_to_either_side_and_never_beyond_the_longest_wait() {
        for random in [-1.0, 0.0, 0.3, 1.0, 7.0] {
            let mut backoff = Backoff::default();
            let first = backoff.wait(random);
            assert!((400..=600).contains(&first.as_millis()), "{first:?}");
            assert!((0..20).all(|_| backoff.wait(random) <= MOST));
        }
    }
}

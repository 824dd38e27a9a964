//! The time of a page's messages, which say nothing about it. Without IO; time is an argument.

use crate::media::audio::{BLOCK, BLOCK_TIME};
use crate::media::clock::SourceClock;
use crate::media::frame::RoomTime;

/// A page from which nothing came for longer than this has paused, unless the network held its messages up, µs.
const PAUSE: u64 = 100_000;

/// Counts a page's sound, and knows where that stands on the room's clock.
///
/// A page's samples are its clock, fast or slow as it may be. Only where it sends none does its clock go on by the room's: where a
/// message comes late and nothing waits behind it. If something does, the network stood still, and all that was said
/// meanwhile comes now, one after the other, as it was said.
#[derive(Debug, Default)]
pub(super) struct PageClock {
    /// Where the next message begins, samples.
    next: u64,
    last: Option<RoomTime>,
    /// Messages are made up for that were held up.
    catching_up: bool,
    clock: SourceClock,
}

impl PageClock {
    /// When a message sounds that came at `now`, samples on the page's clock and time on the room's. `more`: another one has come
    /// already.
    pub(super) fn message(&mut self, now: RoomTime, more: bool) -> (u64, RoomTime) {
        let gap = self.last.map_or(0, |last| now.since(last));
        if gap > PAUSE && !more && !self.catching_up {
            self.next += (gap - BLOCK_TIME) * BLOCK as u64 / BLOCK_TIME;
        }
        self.catching_up = more;
        self.last = Some(now);
        let ticks = self.next;
        self.next += BLOCK as u64;
        let time = self.clock.room_time(ticks * BLOCK_TIME / BLOCK as u64, now);
        (ticks, time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 180_000;

    #[test]
    fn page_whose_clock_is_off_keeps_its_rhythm_and_stays_in_the_rooms_time() {
        for (fast, step) in [(false, 20_004), (true, 19_996)] {
            let mut clock = PageClock::default();
            for n in 0..HOUR {
                // 200 ppm, and up to 15 ms of jitter.
                let sent = 5_000_000 + n * step;
                let now = RoomTime(sent + n * 7_919 % 15_000);
                let (ticks, time) = clock.message(now, false);
                assert_eq!(ticks, n * 960, "no jump, fast: {fast}");
                let off = time.0 as i64 - sent as i64;
                assert!((-5_000..20_000).contains(&off), "{off} µs at {n}, fast: {fast}");
            }
        }
    }

    #[test]
    fn stalled_network_leaves_no_gap_and_no_time_ahead() {
        let mut clock = PageClock::default();
        for n in 0..3_000u64 {
            // Every ten seconds nothing comes for 600 ms, then all at once.
            let held = (470..500).contains(&(n % 500));
            let arrival = 1_000_000 + if held { n / 500 * 500 + 500 } else { n } * 20_000;
            let more = held || n % 500 == 499;
            let (ticks, time) = clock.message(RoomTime(arrival), more);
            assert_eq!(ticks, n * 960);
            let off = time.0 as i64 - (1_000_000 + n as i64 * 20_000);
            assert!(off.abs() <= 3_000, "{off} µs at {n}");
        }
    }

    #[test]
    fn pause_of_the_page_is_one_for_everybody() {
        let mut clock = PageClock::default();
        let mut last = 0;
        for n in 0..500u64 {
            // Two seconds of silence in the middle.
            let now = RoomTime(1_000_000 + n * 20_000 + if n < 250 { 0 } else { 2_000_000 });
            let (ticks, time) = clock.message(now, false);
            let expected = if n < 250 { n * 960 } else { n * 960 + 96_000 };
            assert_eq!((ticks, time), (expected, now));
            assert!(n == 0 || ticks > last);
            last = ticks;
        }
    }
}

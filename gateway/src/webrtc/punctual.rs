//! Times of a replay, as if it came in time.
//!
//! A browser learns from the first frames how far apart timestamps and arrivals are, and holds a picture back by what it has
//! learnt (libwebrtc's `TimestampExtrapolator` fits a line through all frames so far). A replay sent with the times of its
//! source, seconds of them at one moment, bends that line for the rest of the call: measured in Chromium, 1.5 s of replay made
//! the delay of pictures drift by 25 ms a second, and the time for repairs with it.

use crate::media::frame::RoomTime;

/// Frames of a replay are this old at most, µs: about what a live one is, and room for those that go out at the same moment.
const MOST_AGE: u64 = 40_000;
/// They are this far apart at least, µs: even the longest replay is not said to be much later than it is.
const STEP: u64 = 250;

/// How old a frame is for its viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// As it came from its source.
    Live,
    /// From the log, with more to follow.
    Replayed,
    /// From the log, for as long as nothing newer comes.
    Still,
}

/// The times of one run of frames.
#[derive(Debug, Default)]
pub struct Punctual {
    /// The next frame is not earlier.
    floor: Option<RoomTime>,
}

impl Punctual {
    /// How much later than `time` a frame is said to be, µs, that goes out at `now`. Live frames keep their times, as soon as these
    /// are later than the last one's of the replay.
    pub fn shift(&mut self, age: Age, time: RoomTime, now: RoomTime) -> u64 {
        let said = match age {
            Age::Live => time,
            Age::Replayed => time.max(RoomTime(now.0.saturating_sub(MOST_AGE))),
            Age::Still => time.max(now),
        };
        let said = self.floor.map_or(said, |floor| said.max(floor));
        let shift = said.since(time);
        self.floor = (shift > 0).then(|| said.plus(STEP));
        shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> RoomTime {
        RoomTime::from_millis(ms)
    }

    #[test]
    fn live_frames_keep_their_times() {
        let mut times = Punctual::default();
        for (time, now) in [(0, 500), (33, 34), (40, 2_000), (20, 2_000)] {
            assert_eq!(times.shift(Age::Live, ms(time), ms(now)), 0);
        }
    }

    #[test]
    fn replay_ends_where_live_begins_and_no_time_comes_twice() {
        for (count, spacing) in [(1, 33), (45, 33), (30, 16), (60, 50), (300, 33)] {
            let mut times = Punctual::default();
            let now = ms(10_000);
            let mut last = 0;
            for n in 0..count {
                let time = ms(10_000 - (count - n) * spacing);
                let said = time.0 + times.shift(Age::Replayed, time, now);
                assert!(said > last, "{n} of {count}: {said} after {last}");
                assert!(
                    now.0.abs_diff(said) <= 40_000,
                    "{n} of {count} is said to be of {said} µs"
                );
                last = said;
            }
            for n in 0..4 {
                let time = ms(10_000 + n * spacing);
                let shift = times.shift(Age::Live, time, time);
                assert!(time.0 + shift > last);
                assert!(n < 2 || shift == 0, "live frame {n} is shifted by {shift} µs");
                last = time.0 + shift;
            }
        }
    }

    #[test]
    fn replay_over_a_slow_path_has_the_times_at_which_it_is_sent() {
        let mut times = Punctual::default();
        for n in 0..10 {
            let (time, now) = (ms(n * 40), ms(1_000 + n * 20));
            assert_eq!(time.0 + times.shift(Age::Replayed, time, now), now.0 - 40_000);
        }
        // Live again, and late by less than the replay was.
        let shift = times.shift(Age::Live, ms(1_100), ms(1_200));
        assert_eq!(1_100_000 + shift, 1_180_000 - 40_000 + STEP);
    }

    #[test]
    fn fresh_picture_after_a_still_is_as_much_later_as_it_is_for_the_viewer() {
        let mut times = Punctual::default();
        assert_eq!(times.shift(Age::Still, ms(1_000), ms(5_000)), 4_000_000);
        assert_eq!(times.shift(Age::Live, ms(5_100), ms(5_100)), 0);
    }
}

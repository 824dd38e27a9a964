//! Mapping a source's timestamps to the room's clock.

use crate::media::frame::RoomTime;

/// Extends a wrapping 32-bit counter (RTP timestamp, WZP milliseconds) to 64 bits.
///
/// Steps of up to half the range, forward or backward, are followed; the first value is taken as it is plus 2³², so that a
/// reordered predecessor does not go below zero.
#[derive(Debug, Clone, Default)]
pub struct Extend32 {
    last: Option<u64>,
}

impl Extend32 {
    /// What [`Extend32::extend`] would say, without moving on.
    pub fn peek(&self, value: u32) -> u64 {
        self.clone().extend(value)
    }

    /// The extended value of `value`.
    pub fn extend(&mut self, value: u32) -> u64 {
        let extended = match self.last {
            None => (1 << 32) | u64::from(value),
            Some(last) => {
                let step = value.wrapping_sub(last as u32) as i32;
                last.wrapping_add_signed(i64::from(step))
            }
        };
        self.last = Some(self.last.map_or(extended, |last| last.max(extended)));
        extended
    }
}

/// How far a timestamp may stand from where its arrival puts it before the source is taken to have restarted its clock, µs.
const RESTART: i64 = 3_000_000;
/// Length of one of the two windows that the smallest arrival offset is searched in, µs.
const WINDOW: u64 = 5_000_000;
/// Fastest correction of what drift and jitter explain: 5 ms per second, as a divisor of elapsed time.
const SLEW_DIVISOR: u64 = 200;
/// An error larger than this is none of drift, µs.
const JUMP: i64 = 100_000;
/// Fastest correction backward of such an error, and of any while the clock settles: 100 ms per second.
const FAST_DIVISOR: u64 = 10;
/// A clock settles for this long: its first packet may have waited for a connection or behind a large keyframe, µs.
const SETTLING: u64 = 10_000_000;

/// One source's clock: media time in, room time out.
///
/// The offset between the two is the smallest `arrival − media time` seen in the last 5–10 s (the packet that was delayed
/// least tells most), or what sender reports say. Corrections are slewed at no more than 5 ms per second, so that the spacing
/// of frames stays the source's own; what cannot be drift is corrected sooner, since sound and picture of a source may each
/// have a clock: backward at 100 ms per second (a first packet that was late, a source that skipped time), forward at once
/// (a source whose clock stood still: there was a gap). Time never runs back for a source whose own does not. A source that
/// restarts its clock starts anew at its arrival.
#[derive(Debug, Clone, Default)]
pub struct SourceClock {
    state: Option<State>,
    restarts: u32,
}

#[derive(Debug, Clone)]
struct State {
    offset: i64,
    target: i64,
    window_start: u64,
    window_min: i64,
    previous_min: i64,
    slewed_at: u64,
    slewed_media: u64,
    last_media: u64,
    began: u64,
    reports: bool,
}

impl SourceClock {
    /// The room time of media time `media_us` (microseconds on the source's clock), received at `arrival`.
    pub fn room_time(&mut self, media_us: u64, arrival: RoomTime) -> RoomTime {
        let sample = arrival.0 as i64 - media_us as i64;
        let state = match &mut self.state {
            Some(state) if (sample - state.offset).abs() <= RESTART => state,
            previous => {
                self.restarts += u32::from(previous.is_some());
                previous.insert(State {
                    offset: sample,
                    target: sample,
                    window_start: arrival.0,
                    window_min: sample,
                    previous_min: i64::MAX,
                    slewed_at: arrival.0,
                    slewed_media: media_us,
                    last_media: media_us,
                    began: arrival.0,
                    reports: false,
                })
            }
        };
        state.observe(sample, arrival.0);
        state.slew(media_us, arrival.0);
        RoomTime((media_us as i64 + state.offset).max(0) as u64)
    }

    /// Takes a sender report: media time `media_us` is room time `at` (both sides of the report mapped by the caller). From
    /// then on arrival times no longer count.
    pub fn report(&mut self, media_us: u64, at: RoomTime) {
        if let Some(state) = &mut self.state {
            let offset = at.0 as i64 - media_us as i64;
            if (offset - state.offset).abs() <= RESTART {
                state.target = offset;
                state.reports = true;
            }
        }
    }

    /// How often the source restarted its clock.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }
}

impl State {
    fn observe(&mut self, sample: i64, arrival: u64) {
        if self.reports {
            return;
        }
        if arrival.saturating_sub(self.window_start) > WINDOW {
            self.previous_min = self.window_min;
            self.window_min = sample;
            self.window_start = arrival;
        } else {
            self.window_min = self.window_min.min(sample);
        }
        self.target = self.window_min.min(self.previous_min);
    }

    fn slew(&mut self, media: u64, arrival: u64) {
        // A packet that comes out of order moves nothing.
        let elapsed = arrival
            .saturating_sub(self.slewed_at)
            .min(media.saturating_sub(self.slewed_media));
        let error = self.target - self.offset;
        let settling = arrival.saturating_sub(self.began) < SETTLING;
        // After a burst much time has gone, but the source's only by one packet: no step back may be larger than that.
        let back = (media.saturating_sub(self.last_media) / 2) as i64;
        self.last_media = self.last_media.max(media);
        let slow = (elapsed / SLEW_DIVISOR) as i64;
        let fast = (elapsed / FAST_DIVISOR) as i64;
        let step = match error {
            error if error > JUMP => error,
            error if error < -JUMP || settling => error.clamp(-fast.min(back), slow),
            error => error.clamp(-slow.min(back), slow),
        };
        if slow > 0 {
            self.offset += step;
            self.slewed_at = arrival;
            self.slewed_media = media;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counter_wraps_and_goes_back() {
        let mut extend = Extend32::default();
        let first = extend.extend(u32::MAX - 1);
        assert_eq!(extend.extend(1), first + 3);
        assert_eq!(extend.extend(u32::MAX), first + 1, "a late packet from before the wrap");
        assert_eq!(extend.extend(2), first + 4);
    }

    #[test]
    fn spacing_is_the_sources_own_despite_jitter() {
        let mut clock = SourceClock::default();
        let mut last = None;
        for i in 0..200u64 {
            let jitter = (i * 7919) % 30_000;
            let at = clock.room_time(i * 20_000, RoomTime(1_000_000 + i * 20_000 + jitter));
            if let Some(last) = last {
                let step = at.since(last) as i64;
                assert!((step - 20_000).abs() <= 300, "step {step}");
            }
            last = Some(at);
        }
    }

    #[test]
    fn drifting_source_stays_near_its_arrival() {
        let mut clock = SourceClock::default();
        // The source's crystal is 200 ppm fast: 10 minutes put it 120 ms ahead.
        for i in 0..30_000u64 {
            let arrival = RoomTime(5_000_000 + i * 20_000);
            let at = clock.room_time(i * 20_004, arrival);
            assert!((at.0 as i64 - arrival.0 as i64).abs() < 25_000, "at frame {i}");
        }
        assert_eq!(clock.restarts(), 0);
    }

    #[test]
    fn restarted_clock_goes_on_at_its_arrival() {
        let mut clock = SourceClock::default();
        clock.room_time(900_000_000, RoomTime(10_000_000));
        let at = clock.room_time(0, RoomTime(10_100_000));
        assert_eq!(at, RoomTime(10_100_000));
        assert_eq!(clock.restarts(), 1);
    }

    #[test]
    fn reports_win_over_arrival() {
        let mut clock = SourceClock::default();
        clock.room_time(0, RoomTime(1_000_000));
        clock.report(0, RoomTime(990_000));
        let mut at = RoomTime(0);
        for i in 1..500u64 {
            at = clock.room_time(i * 20_000, RoomTime(1_000_000 + i * 20_000));
        }
        assert_eq!(at.0, 990_000 + 499 * 20_000);
    }

    #[test]
    fn first_packet_that_was_late_is_made_good_within_seconds() {
        let mut clock = SourceClock::default();
        // 400 ms of sound arrive in one burst, then on time.
        let mut last = 0;
        for i in 0..1000u64 {
            let arrival = RoomTime(1_000_000 + (i * 20_000).max(400_000));
            let at = clock.room_time(i * 20_000, arrival).0;
            assert!(at > last, "time ran back at packet {i}");
            last = at;
            let late = at as i64 - (1_000_000 + i as i64 * 20_000);
            assert!((0..=400_000).contains(&late));
            if i >= 225 {
                assert!(late < 5_000, "{late} µs late at packet {i}");
            }
        }
        assert_eq!(clock.restarts(), 0);
    }

    #[test]
    fn clock_that_stood_still_is_followed_once_that_is_sure() {
        let mut clock = SourceClock::default();
        for i in 0..500u64 {
            clock.room_time(i * 20_000, RoomTime(i * 20_000));
        }
        // Two seconds without a tick of the source's clock, as of a capture that was stopped and goes on.
        let mut last = 0;
        for i in 500..1500u64 {
            let at = clock.room_time(i * 20_000, RoomTime(2_000_000 + i * 20_000)).0;
            assert!(at > last, "time ran back at packet {i}");
            last = at;
        }
        assert_eq!(last, 2_000_000 + 1499 * 20_000);
        assert_eq!(clock.restarts(), 0);
    }

    #[test]
    fn stalled_network_moves_nothing() {
        let mut clock = SourceClock::default();
        for i in 0..3000u64 {
            // Every twenty seconds nothing comes for two, then all at once.
            let stalled = i % 1000 >= 900;
            let arrival = if stalled { (i / 1000 + 1) * 1000 } else { i } * 20_000;
            let at = clock.room_time(i * 20_000, RoomTime(arrival)).0 as i64;
            assert!((at - i as i64 * 20_000).abs() <= 2_000, "at packet {i}");
        }
    }

    proptest! {
        #[test]
        fn time_never_runs_back_and_is_never_far_from_arrival(
            steps in proptest::collection::vec((0u64..100_000, 0u64..200_000, 0u64..3), 1..400),
        ) {
            let mut clock = SourceClock::default();
            let (mut media, mut arrival) = (0u64, 1_000_000u64);
            let mut last = 0;
            for (advance, jitter, skew) in steps {
                media += advance;
                // The source's crystal is up to 2 % off.
                arrival += advance + advance * skew / 100;
                let got = clock.room_time(media, RoomTime(arrival + jitter)).0;
                prop_assert!(got >= last);
                prop_assert!(got.abs_diff(arrival) <= 3_200_000);
                last = got;
            }
        }
    }
}

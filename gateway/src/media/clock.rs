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
/// Fastest correction: 5 ms per second, as a divisor of elapsed time.
const SLEW_DIVISOR: u64 = 200;

/// One source's clock: media time in, room time out.
///
/// The offset between the two is the smallest `arrival − media time` seen in the last 5–10 s (the packet that was delayed
/// least tells most), or what sender reports say; corrections are slewed at no more than 5 ms per second, so that the
/// spacing of frames stays the source's own. A source that restarts its clock starts anew after its last time.
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
                    reports: false,
                })
            }
        };
        state.observe(sample, arrival.0);
        state.slew(arrival.0);
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

    fn slew(&mut self, arrival: u64) {
        let most = (arrival.saturating_sub(self.slewed_at) / SLEW_DIVISOR) as i64;
        if most > 0 {
            self.offset += (self.target - self.offset).clamp(-most, most);
            self.slewed_at = arrival;
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

    proptest! {
        #[test]
        fn never_panics_and_never_steps_more_than_the_slew(steps in proptest::collection::vec((0u64..100_000, 0u64..200_000), 1..200)) {
            let mut clock = SourceClock::default();
            let (mut media, mut arrival) = (0u64, 1_000_000u64);
            let mut last: Option<(u64, u64, u64)> = None;
            for (advance, jitter) in steps {
                media += advance;
                arrival += advance;
                let got = clock.room_time(media, RoomTime(arrival + jitter)).0;
                if let Some((media0, got0, arrival0)) = last {
                    let moved = (got as i64 - got0 as i64) - (media as i64 - media0 as i64);
                    let allowed = ((arrival + jitter).saturating_sub(arrival0) / SLEW_DIVISOR) as i64 + 1;
                    prop_assert!(moved.abs() <= allowed);
                }
                last = Some((media, got, arrival + jitter));
            }
        }
    }
}

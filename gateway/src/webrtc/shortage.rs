//! When a path is too slow for a viewer's videos, and when they may come back.
//!
//! In: what is sent, what the viewer says of the path, and time, twice a second. Out: a [`Verdict`]. While a video is paused
//! nothing tells how much more the path would carry, for estimates do not grow beyond what is sent: it is tried, less and
//! less often while that fails.

use std::time::{Duration, Instant};

use crate::media::frame::TrackId;

/// A path that carries less than is sent for this long loses a video.
const PATIENCE: Duration = Duration::from_secs(2);
/// Below this, bit/s, a video costs too little to be worth judging.
const LOW_RATE: u64 = 150_000;
/// Over a path that loses more than this, in 1/256, less arrives than is sent, whatever estimates say.
const FULL_LOSS: u8 = 38;
/// A path that loses more than this, in 1/256, may be full,
const SOME_LOSS: u8 = 26;
/// and so may one on which packets wait for this long. The time of a loaded machine is in it.
const SOME_WAIT: Duration = Duration::from_millis(80);
/// Nobody can talk over a path on which packets wait for this long.
const LONG_WAIT: Duration = Duration::from_millis(300);
/// A path over which of a thousand packets so many arrive carries what is sent.
const ARRIVES: u64 = 950;
/// A paused video is tried again after this at first …
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// … and after twice as long each time that it had to be paused again, up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A video that was tried has failed if it has to be paused within this.
const TRIAL: Duration = Duration::from_secs(15);

/// What is to be done about a viewer's videos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Stay,
    /// One more has to be paused.
    Pause,
    /// This one may be tried again.
    Resume(TrackId),
}

/// What is sent and what comes of it, bits per second.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// All that was sent since the last judgement.
    pub rate: u64,
    /// What the viewer says that the path carries.
    pub estimate: Option<u64>,
    /// The part of the videos that was lost lately, in 1/256.
    pub loss: u8,
    /// The same by two reports one after the other: one burst, as of a join, is no path that is full.
    pub lost: u8,
    /// How long packets waited in a queue lately.
    pub waits: Duration,
    /// Of a thousand packets of the videos so many arrived, as far as reports tell.
    pub arrived: Option<u64>,
    /// Videos that are sent.
    pub videos: usize,
}

impl Measured {
    /// As much arrives as is sent, soon enough: that something waits is the machine's fault, not the path's.
    fn keeps_up(&self) -> bool {
        self.waits < LONG_WAIT && self.arrived.is_some_and(|part| part >= ARRIVES)
    }

    /// Less arrives than is sent. A receiver that meets congestion tells 85 % of what arrives; but so little is told, too, by
    /// one that was sent little before, whose packets neither wait nor get lost.
    pub fn is_short(&self) -> bool {
        let full = self.loss > SOME_LOSS || self.waits > SOME_WAIT;
        full && self.rate >= LOW_RATE && self.estimate.is_some_and(|bps| bps * 20 < self.rate * 17)
    }
}

#[derive(Debug)]
struct Paused {
    track: TrackId,
    /// What it took, bit/s.
    rate: u64,
    /// The path lost much, so that its estimate says nothing.
    by_loss: bool,
}

#[derive(Debug, Clone, Copy)]
struct Short {
    since: Instant,
    /// Least estimate since then.
    lowest: u64,
}

/// See the module's text.
#[derive(Debug)]
pub struct Shortage {
    rate_before: Option<u64>,
    short: Option<Short>,
    paused: Vec<Paused>,
    changed_at: Option<Instant>,
    tried_at: Option<Instant>,
    wait: Duration,
}

impl Default for Shortage {
    fn default() -> Self {
        Self {
            rate_before: None,
            short: None,
            paused: Vec::new(),
            changed_at: None,
            tried_at: None,
            wait: FIRST_WAIT,
        }
    }
}

impl Shortage {
    /// The videos that are paused, the last one last.
    pub fn paused(&self) -> impl Iterator<Item = TrackId> + '_ {
        self.paused.iter().map(|paused| paused.track)
    }

    /// To be called about twice a second.
    pub fn judge(&mut self, now: Instant, measured: Measured) -> Verdict {
        // One window alone may hold a replay or a large keyframe.
        let before = self.rate_before.replace(measured.rate);
        let measured = Measured {
            rate: before.map_or(measured.rate, |before| before.min(measured.rate)),
            ..measured
        };
        let by_loss = measured.lost > FULL_LOSS && measured.rate >= LOW_RATE;
        if measured.videos > 0 && (by_loss || measured.is_short() && !measured.keeps_up()) {
            let estimate = measured.estimate.unwrap_or(u64::MAX);
            let fresh = Short {
                since: now,
                lowest: estimate,
            };
            let short = self.short.get_or_insert(fresh);
            // An estimate that rises is on its way to what is sent: the path may carry it.
            if !by_loss && estimate > short.lowest.saturating_add(short.lowest / 20) {
                *short = fresh;
            }
            short.lowest = short.lowest.min(estimate);
            let patience_ends = short.since + PATIENCE;
            if now < patience_ends {
                return Verdict::Stay;
            }
            return Verdict::Pause;
        }
        self.short = None;
        let (Some(last), Some(changed_at)) = (self.paused.last(), self.changed_at) else {
            return Verdict::Stay;
        };
        let idle = now.saturating_duration_since(changed_at);
        let fits = !last.by_loss
            && measured
                .estimate
                .is_some_and(|bps| bps * 10 >= (measured.rate + last.rate) * 11);
        if idle >= self.wait || fits && idle >= PATIENCE {
            Verdict::Resume(last.track)
        } else {
            Verdict::Stay
        }
    }

    /// A track has been paused for [`Verdict::Pause`].
    pub fn pause(&mut self, now: Instant, track: TrackId, measured: Measured) {
        let failed = self.tried_at.is_some_and(|at| now < at + TRIAL);
        self.wait = if failed {
            (self.wait * 2).min(LONGEST_WAIT)
        } else {
            FIRST_WAIT
        };
        self.short = None;
        self.changed_at = Some(now);
        self.paused.push(Paused {
            track,
            rate: measured.rate / measured.videos.max(1) as u64,
            by_loss: measured.lost > FULL_LOSS,
        });
    }

    /// A track is sent again, or is not the viewer's any more.
    pub fn resume(&mut self, now: Instant, track: TrackId) {
        self.paused.retain(|paused| paused.track != track);
        (self.changed_at, self.tried_at) = (Some(now), Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::frame::{Kind, ParticipantId};

    const VIDEO: TrackId = TrackId {
        source: ParticipantId(1),
        kind: Kind::Video,
        slot: 0,
        layer: 0,
    };
    const TICK: Duration = Duration::from_millis(500);
    const SOUND: u64 = 40_000;
    const RATE: u64 = 1_000_000;

    /// A viewer behind a path: what the path carries, as its estimates tell it, may change at any time.
    struct Viewer {
        now: Instant,
        begun: Instant,
        shortage: Shortage,
        /// When it was paused and resumed, ms.
        changes: Vec<(u128, bool)>,
    }

    impl Viewer {
        fn new() -> Self {
            let now = Instant::now();
            Self {
                now,
                begun: now,
                shortage: Shortage::default(),
                changes: Vec::new(),
            }
        }

        fn is_paused(&self) -> bool {
            self.shortage.paused().next().is_some()
        }

        fn run(&mut self, seconds: u64, mut path: impl FnMut(bool, u64) -> (Option<u64>, u8)) {
            for tick in 0..2 * seconds {
                self.now += TICK;
                let videos = usize::from(!self.is_paused());
                let rate = SOUND + RATE * videos as u64;
                let (estimate, loss) = path(self.is_paused(), tick);
                // A queue that never drains: what is short is a matter of estimates here.
                let measured = Measured {
                    rate,
                    estimate,
                    loss,
                    lost: loss,
                    waits: 2 * SOME_WAIT,
                    arrived: None,
                    videos,
                };
                let at = (self.now - self.begun).as_millis();
                match self.shortage.judge(self.now, measured) {
                    Verdict::Stay => {}
                    Verdict::Pause => {
                        self.shortage.pause(self.now, VIDEO, measured);
                        self.changes.push((at, true));
                    }
                    Verdict::Resume(track) => {
                        self.shortage.resume(self.now, track);
                        self.changes.push((at, false));
                    }
                }
            }
        }
    }

    #[test]
    fn a_path_below_the_rate_loses_the_video_after_two_seconds() {
        let mut viewer = Viewer::new();
        viewer.run(10, |_, _| (Some(2_000_000), 0));
        assert_eq!(viewer.changes, []);
        // 80 % of what is sent, as a receiver tells it.
        viewer.run(3, |_, _| (Some(RATE * 68 / 100), 0));
        assert_eq!(viewer.changes, [(12_500, true)]);
    }

    #[test]
    fn a_hiccup_and_an_estimate_that_recovers_cost_nothing() {
        let mut viewer = Viewer::new();
        viewer.run(20, |_, tick| (Some(if tick % 10 < 3 { 500_000 } else { 1_200_000 }), 0));
        // From half of the rate up at 8 % a second, as browsers' estimates grow.
        viewer.run(12, |_, tick| (Some(500_000 + 20_000 * tick), 0));
        assert_eq!(viewer.changes, []);
        viewer.run(10, |_, _| (None, 0));
        assert_eq!(viewer.changes, []);
    }

    #[test]
    fn a_full_path_is_known_by_what_it_loses() {
        let mut viewer = Viewer::new();
        viewer.run(3, |_, _| (Some(5_000_000), 30));
        assert_eq!(viewer.changes, []);
        viewer.run(4, |paused, _| (Some(5_000_000), if paused { 0 } else { 90 }));
        // The high estimate of then does not bring it back before its time.
        assert_eq!(viewer.changes, [(5_500, true)]);
    }

    #[test]
    fn one_burst_that_is_lost_costs_nothing() {
        let burst = Measured {
            rate: RATE,
            estimate: None,
            loss: 200,
            lost: 200,
            waits: Duration::ZERO,
            arrived: Some(1000),
            videos: 9,
        };
        let (mut shortage, start) = (Shortage::default(), Instant::now());
        for tick in 0..20 {
            // A report a second; what is remembered of it fades.
            let measured = Measured {
                loss: 200 >> (tick / 2).min(7),
                lost: if tick < 2 { 200 } else { 0 },
                ..burst
            };
            assert_eq!(shortage.judge(start + TICK * tick, measured), Verdict::Stay);
        }
    }

    #[test]
    fn a_path_that_stays_slow_is_tried_less_and_less_often() {
        let mut viewer = Viewer::new();
        viewer.run(200, |_, _| (Some(400_000), 0));
        let tried: Vec<u128> = viewer
            .changes
            .chunks_exact(2)
            .map(|pair| pair[1].0 - pair[0].0)
            .collect();
        assert_eq!(tried[..4], [5_000, 10_000, 20_000, 40_000]);
        // Each trial costs two seconds, and one until the rate counts.
        let trials = viewer.changes.windows(2).filter(|pair| pair[1].1);
        assert!(trials.map(|pair| pair[1].0 - pair[0].0).all(|ms| ms <= 3_000));
    }

    #[test]
    fn the_video_comes_back_as_soon_as_the_path_is_known_to_carry_it() {
        let mut viewer = Viewer::new();
        viewer.run(3, |_, _| (Some(400_000), 0));
        assert!(viewer.is_paused());
        let paused_at = viewer.changes[0].0;
        viewer.run(4, |_, _| (Some(1_300_000), 0));
        assert_eq!(viewer.changes[1..], [(paused_at + 2_000, false)]);
        // Trouble much later begins anew with the short wait.
        viewer.run(30, |_, _| (Some(1_300_000), 0));
        viewer.run(9, |_, _| (Some(400_000), 0));
        let last = &viewer.changes[viewer.changes.len() - 2..];
        assert_eq!(last[1].0 - last[0].0, 5_000);
    }

    #[test]
    fn an_estimate_far_below_what_is_sent_costs_nothing_while_packets_neither_wait_nor_get_lost() {
        let low = Measured {
            rate: RATE,
            estimate: Some(RATE / 10),
            loss: SOME_LOSS,
            lost: SOME_LOSS,
            waits: SOME_WAIT,
            arrived: None,
            videos: 1,
        };
        assert!(!low.is_short());
        for measured in [
            Measured {
                loss: SOME_LOSS + 1,
                ..low
            },
            Measured {
                waits: SOME_WAIT + Duration::from_millis(1),
                ..low
            },
        ] {
            assert!(measured.is_short());
        }
    }

    #[test]
    fn a_loaded_machine_over_whose_path_all_arrives_keeps_its_pictures() {
        let late = Measured {
            rate: RATE,
            estimate: Some(RATE / 2),
            loss: 0,
            lost: 0,
            waits: SOME_WAIT * 2,
            arrived: Some(ARRIVES),
            videos: 1,
        };
        let paused = |measured: Measured| {
            let (mut shortage, start) = (Shortage::default(), Instant::now());
            (0..10).any(|tick| shortage.judge(start + TICK * tick, measured) == Verdict::Pause)
        };
        assert!(!paused(late));
        let full = Measured {
            arrived: Some(ARRIVES - 1),
            ..late
        };
        let hopeless = Measured {
            waits: LONG_WAIT,
            ..late
        };
        let lossy = Measured {
            lost: FULL_LOSS + 1,
            ..late
        };
        for measured in [full, hopeless, lossy] {
            assert!(paused(measured), "{measured:?}");
        }
    }

    #[test]
    fn sound_alone_is_never_judged() {
        let mut viewer = Viewer::new();
        let measured = Measured {
            rate: SOUND,
            estimate: Some(10_000),
            loss: 200,
            lost: 200,
            waits: 2 * SOME_WAIT,
            arrived: None,
            videos: 1,
        };
        for _ in 0..20 {
            viewer.now += TICK;
            assert_eq!(viewer.shortage.judge(viewer.now, measured), Verdict::Stay);
        }
    }
}

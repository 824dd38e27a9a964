//! How good a member's path is, and which profile that path asks for.
//!
//! Each member is judged by its own path alone: a bad network makes one voice thinner, never the room's. What counts is the
//! worse of two: what the member reports, and how much of its sound is lost on the way to us, since it is the sending that it is
//! told to change. Members whose path is good are told nothing; the studio profiles are the app's own choice.

use wzp_proto::codec::QualityProfile;
use wzp_proto::packet::QualityReport;

/// Worse reports in a row before the member is asked for less.
const WORSE: u32 = 3;
/// Better reports in a row before it may have one step more.
const BETTER: u32 = 5;

/// How good a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Loss of 15 % or more, or a round trip of 200 ms or more.
    Catastrophic,
    /// Loss of 5 % or more, or a round trip of 100 ms or more.
    Degraded,
    /// Anything better.
    Good,
}

impl Tier {
    /// The tier of one report.
    pub fn of(report: &QualityReport) -> Self {
        Self::of_path(report.loss_percent(), report.rtt().as_millis())
    }

    fn of_path(loss_percent: f32, rtt_ms: u128) -> Self {
        if loss_percent >= 15.0 || rtt_ms >= 200 {
            Self::Catastrophic
        } else if loss_percent >= 5.0 || rtt_ms >= 100 {
            Self::Degraded
        } else {
            Self::Good
        }
    }

    /// What a member in this tier should send.
    pub fn profile(self) -> QualityProfile {
        match self {
            Self::Catastrophic => QualityProfile::CATASTROPHIC,
            Self::Degraded => QualityProfile::DEGRADED,
            Self::Good => QualityProfile::GOOD,
        }
    }

    fn one_up(self) -> Self {
        match self {
            Self::Catastrophic => Self::Degraded,
            _ => Self::Good,
        }
    }
}

/// One member's path over time.
#[derive(Debug, Clone)]
pub struct Quality {
    tier: Tier,
    worse: u32,
    better: u32,
    /// By the loss that we saw last.
    seen: Tier,
    /// A report came since then.
    reported: bool,
}

impl Default for Quality {
    fn default() -> Self {
        Self {
            tier: Tier::Good,
            worse: 0,
            better: 0,
            seen: Tier::Good,
            reported: false,
        }
    }
}

impl Quality {
    /// Takes a report; the member's new tier, if it changes: down to what three reports in a row say, up by one step after
    /// five.
    pub fn report(&mut self, report: &QualityReport) -> Option<Tier> {
        self.reported = true;
        self.observe(Tier::of(report).min(self.seen))
    }

    /// Takes how much of the member's newest sound was lost on its way to us; the member's new tier, if it changes. Counts
    /// like a report if none came meanwhile, else with the next one.
    pub fn measured(&mut self, loss_percent: f32) -> Option<Tier> {
        self.seen = Tier::of_path(loss_percent, 0);
        if std::mem::take(&mut self.reported) {
            return None;
        }
        self.observe(self.seen)
    }

    fn observe(&mut self, observed: Tier) -> Option<Tier> {
        (self.worse, self.better) = match observed.cmp(&self.tier) {
            std::cmp::Ordering::Less => (self.worse + 1, 0),
            std::cmp::Ordering::Equal => (0, 0),
            std::cmp::Ordering::Greater => (0, self.better + 1),
        };
        let next = if self.worse >= WORSE {
            observed
        } else if self.better >= BETTER {
            self.tier.one_up()
        } else {
            return None;
        };
        (self.tier, self.worse, self.better) = (next, 0, 0);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report(loss: f32, rtt_ms: u64) -> QualityReport {
        QualityReport::measured(loss, Duration::from_millis(rtt_ms), Duration::ZERO, 0)
    }

    #[test]
    fn three_bad_reports_go_straight_down_and_five_good_ones_one_step_up() {
        let mut quality = Quality::default();
        let bad = report(20.0, 10);
        assert_eq!((quality.report(&bad), quality.report(&bad)), (None, None));
        assert_eq!(quality.report(&bad), Some(Tier::Catastrophic));
        let good = report(0.0, 10);
        let ups: Vec<_> = (0..12).filter_map(|_| quality.report(&good)).collect();
        assert_eq!(ups, [Tier::Degraded, Tier::Good]);
    }

    #[test]
    fn one_good_report_among_bad_ones_starts_the_count_anew() {
        let mut quality = Quality::default();
        for n in 0..30 {
            let report = if n % 3 == 2 { report(0.0, 10) } else { report(0.0, 150) };
            assert_eq!(quality.report(&report), None);
        }
    }

    #[test]
    fn loss_on_the_way_to_us_counts_whatever_the_member_reports() {
        // One that reports nothing.
        let mut quality = Quality::default();
        let down: Vec<_> = (0..3).filter_map(|_| quality.measured(20.0)).collect();
        assert_eq!(down, [Tier::Catastrophic]);
        let up: Vec<_> = (0..12).filter_map(|_| quality.measured(0.0)).collect();
        assert_eq!(up, [Tier::Degraded, Tier::Good]);
        // One that reports a fine path: its reports count, with what we saw.
        let mut quality = Quality::default();
        let mut told = Vec::new();
        for n in 0..20 {
            told.extend(quality.report(&report(0.0, 10)).map(|tier| (n, tier)));
            told.extend(quality.measured(if n < 8 { 7.0 } else { 1.0 }).map(|tier| (n, tier)));
        }
        assert_eq!(told, [(3, Tier::Degraded), (13, Tier::Good)]);
        // One whose own report is worse than what we see.
        let mut quality = Quality::default();
        let told = (0..3).filter_map(|_| {
            quality.measured(0.0);
            quality.report(&report(20.0, 10))
        });
        assert_eq!(told.collect::<Vec<_>>(), [Tier::Catastrophic]);
    }

    #[test]
    fn bounds_of_the_tiers() {
        // Loss comes in steps of 1/255.
        for (loss, rtt, tier) in [
            (4.9, 96, Tier::Good),
            (5.2, 0, Tier::Degraded),
            (0.0, 100, Tier::Degraded),
            (14.9, 196, Tier::Degraded),
            (15.3, 0, Tier::Catastrophic),
            (0.0, 200, Tier::Catastrophic),
        ] {
            assert_eq!(Tier::of(&report(loss, rtt)), tier, "{loss} % {rtt} ms");
        }
    }
}

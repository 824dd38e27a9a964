//! How much a source is asked to send of one video track: what its best viewer can take, no larger than its largest viewer
//! shows it, and no frame that is too large.

use std::collections::BTreeMap;

use crate::media::frame::{ParticipantId, RoomTime};
use crate::room::member::LimitReason;
use crate::room::shown::Shown;

/// A viewer's capacity report counts this long, µs.
pub const CAPACITY_AGE: u64 = 3_000_000;
/// A report of a frame that was too large counts this long, µs: the source is not led into the next one at once, and
/// recovers when the receiver that minds is gone.
pub const OVERSIZE_AGE: u64 = 30_000_000;
/// A source is told a new bit rate at most this often, µs.
pub const TELL_INTERVAL: u64 = 1_000_000;
/// Reports are weighed at most this often, µs, so that a thousand viewers cost no more than a few.
pub const WEIGH_INTERVAL: u64 = 200_000;
/// Lowest limit that is ever asked for, bit/s: below it a picture is better paused.
pub const FLOOR: u32 = 100_000;

/// A bit rate that is no bound.
const UNBOUNDED: u32 = u32::MAX;

/// What a source is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// bit/s; [`u32::MAX`]: no bound.
    pub max_bitrate: u32,
    /// Of the picture's shorter side, px.
    pub max_side: Option<u16>,
    /// Why it changed.
    pub reason: LimitReason,
}

/// The reports on one track and what its source was told of them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bounded viewers only, so never more than there are members.
    capacities: BTreeMap<ParticipantId, (u32, RoomTime)>,
    oversize: Option<(u32, RoomTime)>,
    shown: Shown,
    told: u32,
    told_at: Option<RoomTime>,
    /// It is to be told in any case.
    again: bool,
    weighed_at: Option<RoomTime>,
    weigh_at: Option<RoomTime>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            capacities: BTreeMap::new(),
            oversize: None,
            shown: Shown::default(),
            told: UNBOUNDED,
            told_at: None,
            again: false,
            weighed_at: None,
            weigh_at: None,
        }
    }
}

impl Limits {
    /// For the track that follows this one on the same slot, if its source was told anything of this one: it may hold to that
    /// still, or not, and is told again.
    pub fn succeed(&self) -> Option<Self> {
        let max_side = self.shown.max_side();
        (self.told != UNBOUNDED || max_side.is_some()).then(|| Self {
            shown: Shown::told(max_side),
            told: self.told,
            again: true,
            weigh_at: Some(RoomTime::default()),
            ..Self::default()
        })
    }

    /// A viewer can take about `bits_per_second`; [`u32::MAX`]: no bound seen.
    pub fn report(&mut self, viewer: ParticipantId, bits_per_second: u32, now: RoomTime) {
        if bits_per_second == UNBOUNDED {
            self.capacities.remove(&viewer);
        } else {
            self.capacities.insert(viewer, (bits_per_second, now));
        }
        self.weigh_soon(now);
    }

    /// A frame was too large for a receiver; `max_bitrate` would have made it fit.
    pub fn report_oversize(&mut self, max_bitrate: u32, now: RoomTime) {
        let lowest = self.oversize.map_or(max_bitrate, |(bits, _)| bits.min(max_bitrate));
        self.oversize = Some((lowest, now));
        self.weigh_soon(now);
    }

    /// A viewer needs no more than this on the shorter side of the picture, px (0: nothing now), until it says otherwise;
    /// `None`: it has no bound.
    pub fn report_side(&mut self, viewer: ParticipantId, side: Option<u16>, now: RoomTime) {
        if self.shown.report(viewer, side) {
            self.weigh_soon(now);
        }
    }

    /// A viewer is gone.
    pub fn forget(&mut self, viewer: ParticipantId) {
        self.capacities.remove(&viewer);
        self.forget_side(viewer);
    }

    /// A viewer's connection is another: it has not said how large it shows the picture.
    pub fn forget_side(&mut self, viewer: ParticipantId) {
        self.shown.report(viewer, None);
    }

    /// The viewers have changed: what was told may not be true any more.
    pub fn viewers_changed(&mut self, now: RoomTime) {
        if self.told != UNBOUNDED || !self.capacities.is_empty() || self.shown.is_bounded() {
            self.weigh_soon(now);
        }
    }

    /// Whether anything is known of how large the track is shown.
    pub fn has_size(&self) -> bool {
        self.shown.is_bounded()
    }

    /// When [`Limits::weigh`] wants to be called.
    pub fn poll_timeout(&self) -> Option<RoomTime> {
        self.weigh_at
    }

    /// Weighs the reports, if that is due, for a track that `viewers` members could watch, `settled` of them for long enough to
    /// have said how large they show it. A viewer that has not reported a bound lately has none. Returns a limit that the
    /// source is to be told.
    pub fn weigh(&mut self, viewers: usize, settled: usize, now: RoomTime) -> Option<Limit> {
        if self.weigh_at.is_none_or(|at| now < at) {
            return None;
        }
        self.weighed_at = Some(now);
        self.capacities.retain(|_, (_, at)| now.since(*at) < CAPACITY_AGE);
        self.oversize = self.oversize.filter(|(_, at)| now.since(*at) < OVERSIZE_AGE);
        let best = match self.capacities.values().map(|(bits, _)| *bits).max() {
            Some(best) if self.capacities.len() >= viewers => best.max(FLOOR),
            _ => UNBOUNDED,
        };
        let largest = self.oversize.map_or(UNBOUNDED, |(bits, _)| bits.max(FLOOR));
        let limit = best.min(largest);
        let changed = limit != self.told && limit.abs_diff(self.told) > self.told / 10;
        let tell_at = self.told_at.map_or(now, |at| at.plus(TELL_INTERVAL));
        let tell = changed && tell_at <= now;
        // A size is told when it is due, with the bit rate that was told last, so that neither holds the other up.
        let resized = self.shown.weigh(settled, now);
        let weigh_at = if changed && !tell {
            Some(tell_at)
        } else {
            self.next_expiry()
        };
        self.weigh_at = weigh_at.into_iter().chain(self.shown.poll_timeout()).min();
        if tell {
            self.told = limit;
            self.told_at = Some(now);
        }
        let reason = match tell && largest < best {
            true => LimitReason::FrameTooLarge,
            false => LimitReason::Viewers,
        };
        let again = std::mem::take(&mut self.again);
        (tell || resized || again).then(|| Limit {
            max_bitrate: self.told,
            max_side: self.shown.max_side(),
            reason,
        })
    }

    fn weigh_soon(&mut self, now: RoomTime) {
        let at = self.weighed_at.map_or(now, |at| at.plus(WEIGH_INTERVAL)).max(now);
        self.weigh_at = Some(self.weigh_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn next_expiry(&self) -> Option<RoomTime> {
        let capacities = self.capacities.values().map(|(_, at)| at.plus(CAPACITY_AGE));
        let oversize = self.oversize.map(|(_, at)| at.plus(OVERSIZE_AGE));
        capacities.chain(oversize).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::shown::LOWER_WAIT;

    const ANA: ParticipantId = ParticipantId(2);

    fn ms(ms: u64) -> RoomTime {
        RoomTime(ms * 1000)
    }

    fn limit(max_bitrate: u32, max_side: Option<u16>) -> Option<Limit> {
        let reason = LimitReason::Viewers;
        Some(Limit {
            max_bitrate,
            max_side,
            reason,
        })
    }

    #[test]
    fn a_larger_size_does_not_wait_for_the_bit_rates_turn() {
        let mut limits = Limits::default();
        limits.report_side(ANA, Some(180), ms(0));
        assert_eq!(limits.weigh(1, 1, ms(0)), None);
        assert_eq!(limits.poll_timeout(), Some(RoomTime(LOWER_WAIT)));
        assert_eq!(limits.weigh(1, 1, ms(3000)), limit(u32::MAX, Some(180)));
        limits.report(ANA, 400_000, ms(3300));
        assert_eq!(limits.weigh(1, 1, ms(3300)), limit(400_000, Some(180)));
        limits.report(ANA, 200_000, ms(3310));
        limits.report_side(ANA, Some(540), ms(3310));
        let at = limits.poll_timeout().unwrap();
        assert_eq!(at, ms(3500));
        assert_eq!(
            limits.weigh(1, 1, at),
            limit(400_000, Some(540)),
            "the rate has been told a moment ago"
        );
        assert_eq!(limits.poll_timeout(), Some(ms(4300)));
        assert_eq!(limits.weigh(1, 1, ms(4300)), limit(200_000, Some(540)));
    }

    #[test]
    fn a_need_does_not_age_as_a_capacity_does() {
        let mut limits = Limits::default();
        limits.report_side(ANA, Some(270), ms(0));
        limits.report(ANA, 400_000, ms(0));
        assert_eq!(limits.weigh(1, 1, ms(0)), limit(400_000, None));
        assert_eq!(limits.weigh(1, 1, ms(3000)), limit(u32::MAX, Some(270)));
        assert_eq!(limits.poll_timeout(), None);
        limits.viewers_changed(ms(600_000));
        assert_eq!(limits.weigh(1, 1, ms(600_000)), None);
        limits.viewers_changed(ms(601_000));
        assert_eq!(limits.weigh(2, 2, ms(601_000)), limit(u32::MAX, None));
    }

    #[test]
    fn the_source_of_the_next_track_on_a_slot_is_told_again() {
        let mut limits = Limits::default();
        assert!(limits.succeed().is_none());
        limits.report_side(ANA, Some(270), ms(0));
        limits.weigh(1, 1, ms(0));
        limits.weigh(1, 1, ms(3000));
        let mut next = limits.succeed().unwrap();
        next.report_side(ANA, Some(270), ms(4000));
        assert_eq!(next.weigh(1, 1, ms(4000)), limit(u32::MAX, Some(270)));
        assert_eq!(next.poll_timeout(), None);
        let mut next = limits.succeed().unwrap();
        assert_eq!(
            next.weigh(1, 1, ms(4000)),
            limit(u32::MAX, None),
            "nobody asks for it any more"
        );
    }
}

//! How large a picture a source is asked to send: what the viewer needs that shows it largest.

use std::collections::BTreeMap;

use crate::media::frame::{ParticipantId, RoomTime};

/// The bound is lowered when less has been needed for this long, µs: each change costs a keyframe, and layouts change back.
pub const LOWER_WAIT: u64 = 3_000_000;
/// Lowest bound on the shorter side that is ever asked for, px.
pub const FLOOR: u16 = 180;

/// A side that is no bound.
const UNBOUNDED: u16 = u16::MAX;

/// What the viewers of one track need of it, and what its source was told of that.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Shorter side, px; 0: not wanted now. Viewers without a bound are not in it.
    sides: BTreeMap<ParticipantId, u16>,
    told: u16,
    /// The most that was needed since it was less than what was told, and since when that is so.
    lower: Option<(u16, RoomTime)>,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            sides: BTreeMap::new(),
            told: UNBOUNDED,
            lower: None,
        }
    }
}

impl Shown {
    /// Of a track whose source still holds to this.
    pub fn told(max_side: Option<u16>) -> Self {
        Self {
            told: max_side.unwrap_or(UNBOUNDED),
            ..Self::default()
        }
    }

    /// A viewer needs no more than this on the shorter side, px; `None`: it has no bound, or is gone. Whether that is news.
    pub fn report(&mut self, viewer: ParticipantId, side: Option<u16>) -> bool {
        let before = match side {
            Some(side) => self.sides.insert(viewer, side),
            None => self.sides.remove(&viewer),
        };
        before != side
    }

    /// Weighs what `viewers` members need, who are all that could watch. Whether the source is to be told of another bound:
    /// of a higher one at once, of a lower one after [`LOWER_WAIT`].
    pub fn weigh(&mut self, viewers: usize, now: RoomTime) -> bool {
        let needed = match self.sides.values().max() {
            Some(largest) if self.sides.len() >= viewers => (*largest).max(FLOOR),
            _ => UNBOUNDED,
        };
        if needed >= self.told {
            self.lower = None;
            return std::mem::replace(&mut self.told, needed) != needed;
        }
        let (most, since) = self
            .lower
            .map_or((needed, now), |(most, since)| (most.max(needed), since));
        if now.since(since) < LOWER_WAIT {
            self.lower = Some((most, since));
            return false;
        }
        self.told = most;
        self.lower = (needed < most).then_some((needed, now));
        true
    }

    /// When [`Shown::weigh`] wants to be called.
    pub fn poll_timeout(&self) -> Option<RoomTime> {
        self.lower.map(|(_, since)| since.plus(LOWER_WAIT))
    }

    /// The bound on the shorter side that the source was told last, px.
    pub fn max_side(&self) -> Option<u16> {
        (self.told != UNBOUNDED).then_some(self.told)
    }

    /// Somebody has a bound, or the source holds to one.
    pub fn is_bounded(&self) -> bool {
        self.told != UNBOUNDED || !self.sides.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANA: ParticipantId = ParticipantId(2);
    const BEN: ParticipantId = ParticipantId(3);

    fn ms(ms: u64) -> RoomTime {
        RoomTime(ms * 1000)
    }

    /// Two viewers that have needed this much for long.
    fn settled(ana: u16, ben: u16) -> Shown {
        let mut shown = Shown::default();
        shown.report(ANA, Some(ana));
        shown.report(BEN, Some(ben));
        shown.weigh(2, ms(0));
        shown.weigh(2, ms(3000));
        shown
    }

    #[test]
    fn the_largest_need_of_all_is_the_bound_after_three_seconds() {
        let mut shown = Shown::default();
        shown.report(ANA, Some(270));
        shown.report(BEN, Some(360));
        assert!(!shown.weigh(2, ms(0)));
        assert_eq!(shown.poll_timeout(), Some(ms(3000)));
        assert!(!shown.weigh(2, ms(2999)));
        assert_eq!(shown.max_side(), None);
        assert!(shown.weigh(2, ms(3000)));
        assert_eq!((shown.max_side(), shown.poll_timeout()), (Some(360), None));
        assert!(!shown.weigh(2, ms(9000)), "it is told once");
    }

    #[test]
    fn one_of_many_who_does_not_report_lifts_the_bound() {
        let mut shown = Shown::default();
        shown.report(ANA, Some(270));
        assert!(!shown.weigh(2, ms(0)));
        assert!(!shown.weigh(2, ms(9000)));
        assert!(!shown.weigh(1000, ms(9000)));
        assert_eq!((shown.max_side(), shown.poll_timeout()), (None, None));
        let mut shown = settled(270, 360);
        assert!(shown.weigh(3, ms(3001)), "somebody came");
        assert_eq!(shown.max_side(), None);
        let mut shown = settled(270, 360);
        shown.report(ANA, None);
        assert!(shown.weigh(2, ms(3001)), "somebody has no bound any more");
        assert_eq!(shown.max_side(), None);
    }

    #[test]
    fn a_larger_need_is_told_at_once() {
        let mut shown = settled(180, 270);
        assert!(shown.report(ANA, Some(540)));
        assert!(shown.weigh(2, ms(3001)));
        assert_eq!(shown.max_side(), Some(540));
        assert!(!shown.report(ANA, Some(540)), "no news");
    }

    #[test]
    fn a_need_that_falls_and_rises_again_changes_nothing() {
        let mut shown = settled(180, 540);
        shown.report(BEN, Some(180));
        assert!(!shown.weigh(2, ms(4000)));
        shown.report(BEN, Some(540));
        assert!(!shown.weigh(2, ms(5000)));
        assert_eq!(shown.poll_timeout(), None);
        shown.report(BEN, Some(180));
        assert!(!shown.weigh(2, ms(6000)));
        assert!(!shown.weigh(2, ms(8999)), "the wait begins anew");
        assert!(shown.weigh(2, ms(9000)));
    }

    #[test]
    fn the_most_that_was_needed_meanwhile_is_told_first() {
        let mut shown = settled(180, 720);
        shown.report(BEN, Some(180));
        assert!(!shown.weigh(2, ms(4000)));
        shown.report(BEN, Some(360));
        assert!(!shown.weigh(2, ms(5000)));
        shown.report(BEN, Some(180));
        assert!(shown.weigh(2, ms(7000)));
        assert_eq!(shown.max_side(), Some(360));
        assert!(!shown.weigh(2, ms(9999)));
        assert!(shown.weigh(2, ms(10_000)));
        assert_eq!(shown.max_side(), Some(180));
    }

    #[test]
    fn who_leaves_and_who_pauses_does_not_hold_it_up() {
        let mut shown = settled(270, 720);
        shown.report(BEN, None);
        assert!(!shown.weigh(1, ms(4000)));
        assert!(shown.weigh(1, ms(7000)));
        assert_eq!(shown.max_side(), Some(270));
        let mut shown = settled(270, 720);
        shown.report(BEN, Some(0));
        assert!(!shown.weigh(2, ms(4000)));
        assert!(shown.weigh(2, ms(7000)));
        assert_eq!(shown.max_side(), Some(270));
    }

    #[test]
    fn a_track_that_all_have_paused_keeps_the_lowest_size() {
        assert_eq!(settled(0, 0).max_side(), Some(FLOOR));
        assert_eq!(settled(1, 20).max_side(), Some(FLOOR));
    }

    #[test]
    fn without_viewers_there_is_no_bound() {
        let mut shown = settled(180, 180);
        shown.report(ANA, None);
        shown.report(BEN, None);
        assert!(shown.weigh(0, ms(3001)));
        assert_eq!(shown.max_side(), None);
        assert!(!shown.is_bounded());
    }
}

//! How much a source is asked to send of one video track: what its best viewer can take, and no frame that is too large.

use std::collections::BTreeMap;

use crate::media::frame::{ParticipantId, RoomTime};
use crate::room::member::LimitReason;

/// A viewer's capacity report counts this long, µs.
pub const CAPACITY_AGE: u64 = 3_000_000;
/// A report of a frame that was too large counts this long, µs: the source is not led into the next one at once, and
/// recovers when the receiver that minds is gone.
pub const OVERSIZE_AGE: u64 = 30_000_000;
/// A source is told a new limit at most this often, µs.
pub const TELL_INTERVAL: u64 = 1_000_000;
/// Reports are weighed at most this often, µs, so that a thousand viewers cost no more than a few.
pub const WEIGH_INTERVAL: u64 = 200_000;
/// Lowest limit that is ever asked for, bit/s: below it a picture is better paused.
pub const FLOOR: u32 = 100_000;

/// A bit rate that is no bound.
const UNBOUNDED: u32 = u32::MAX;

/// The reports on one track and what its source was told of them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bounded viewers only, so never more than there are members.
    capacities: BTreeMap<ParticipantId, (u32, RoomTime)>,
    oversize: Option<(u32, RoomTime)>,
    told: u32,
    told_at: Option<RoomTime>,
    weighed_at: Option<RoomTime>,
    weigh_at: Option<RoomTime>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            capacities: BTreeMap::new(),
            oversize: None,
            told: UNBOUNDED,
            told_at: None,
            weighed_at: None,
            weigh_at: None,
        }
    }
}

impl Limits {
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

    /// A viewer is gone.
    pub fn forget(&mut self, viewer: ParticipantId) {
        self.capacities.remove(&viewer);
    }

    /// The viewers have changed: what was told may not be true any more.
    pub fn viewers_changed(&mut self, now: RoomTime) {
        if self.told != UNBOUNDED || !self.capacities.is_empty() {
            self.weigh_soon(now);
        }
    }

    /// When [`Limits::weigh`] wants to be called.
    pub fn poll_timeout(&self) -> Option<RoomTime> {
        self.weigh_at
    }

    /// Weighs the reports, if that is due, for a track that `viewers` members could watch. A viewer that has not reported a
    /// bound lately has none. Returns a limit that the source is to be told.
    pub fn weigh(&mut self, viewers: usize, now: RoomTime) -> Option<(u32, LimitReason)> {
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
        self.weigh_at = if changed && !tell {
            Some(tell_at)
        } else {
            self.next_expiry()
        };
        if !tell {
            return None;
        }
        self.told = limit;
        self.told_at = Some(now);
        let reason = match largest < best {
            true => LimitReason::FrameTooLarge,
            false => LimitReason::Viewers,
        };
        Some((limit, reason))
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

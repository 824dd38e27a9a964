//! The room as a receiver's state machine sees it.

use std::time::Instant;

use crate::media::frame::{RoomTime, TrackId};
use crate::room::keyframes::Reason;
use crate::room::registry::RoomHandle;

/// What a receiver needs of its room: the clock, and the owner of keyframes. A running room is one; a simulation, whose clock
/// stands still until it is moved, another.
pub trait Upstream {
    /// The room's clock, now.
    fn now(&self) -> RoomTime;

    /// The room's clock at an instant.
    fn time_at(&self, instant: Instant) -> RoomTime;

    /// Asks the keyframe owner of a track for a keyframe newer than `since`.
    fn request_keyframe(&self, id: TrackId, since: RoomTime, reason: Reason);

    /// Counts a request that the receiver has not made, because its last one is too young.
    fn withhold_keyframe(&self, reason: Reason);
}

impl Upstream for RoomHandle {
    fn now(&self) -> RoomTime {
        Self::now(self)
    }

    fn time_at(&self, instant: Instant) -> RoomTime {
        Self::time_at(self, instant)
    }

    fn request_keyframe(&self, id: TrackId, since: RoomTime, reason: Reason) {
        Self::request_keyframe(self, id, since, reason);
    }

    fn withhold_keyframe(&self, reason: Reason) {
        Self::withhold_keyframe(self, reason);
    }
}

//! The replay: how a newcomer gets from the cached keyframe to live, and how who fell behind gets there again.
//!
//! Up to the soft bounds everything goes at once. Past them the cached keyframe goes alone, so that there is a picture, and
//! the source is asked for a fresh one; the deltas, which may take long to send and to decode, follow only if it does not
//! come. Who fell behind waits for a fresh keyframe for as long, and then reads on where it was. Works on a [`Cursor`], knows
//! no transport and reads no clock.

use crate::media::frame::RoomTime;
use crate::room::subscription::{Cursor, Lag, Next, Start};

/// How long the deltas of a cached keyframe wait for a fresh one, µs: a source that answers does so within a round trip and
/// a frame or two.
pub const FRESH_KEYFRAME_WAIT: u64 = 250_000;

/// One newcomer's replay of one track; goes on as live without an end.
///
/// ```
/// # use std::sync::Arc;
/// # use tokio::sync::Notify;
/// # use wzp_gateway::media::frame::{Kind, ParticipantId, RoomTime, TrackId};
/// # use wzp_gateway::room::replay::Replay;
/// # use wzp_gateway::room::subscription::{Cursor, Lag, Next};
/// # use wzp_gateway::room::track::{Bounds, Track};
/// # let id = TrackId { source: ParticipantId(1), kind: Kind::Video, slot: 0, layer: 0 };
/// # let (track, _writer) = Track::create(id, Bounds::VIDEO, 0);
/// # let lag = Lag { most: 500_000, resync_age: 2_500_000 };
/// # let now = RoomTime::from_millis(1000);
/// let mut cursor = Cursor::new(&track, &Arc::new(Notify::new()));
/// let mut replay = Replay::new(cursor.start(), now);
/// if replay.wants_keyframe() {
///     // Ask the keyframe owner: room.request_keyframe(track.id(), now, Reason::Join).
/// }
/// // At every wake-up, and at replay.poll_timeout():
/// while let Next::Frame(frame) = replay.next(&mut cursor, &lag, track.is_unanswering(), now) {
///     // Send it.
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Replay {
    wants_keyframe: bool,
    hold: Option<Hold>,
    /// The receiver fell behind, and waits for a keyframe until then.
    behind_until: Option<RoomTime>,
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    until: RoomTime,
    /// The cached keyframe goes out before the wait, as a still.
    still: bool,
    /// Index of the cached keyframe, once it has gone out.
    sent: Option<u64>,
}

impl Replay {
    /// A replay that begins at `now` where [`Cursor::start`] put the cursor.
    pub fn new(start: Start, now: RoomTime) -> Self {
        Self::begin(start, true, now)
    }

    /// The same for a receiver that sees another source until then: no still takes the place of a picture that moves, so the
    /// cached keyframe waits with its deltas.
    pub fn switching(start: Start, now: RoomTime) -> Self {
        Self::begin(start, false, now)
    }

    fn begin(start: Start, still: bool, now: RoomTime) -> Self {
        let stale = matches!(start, Start::Replay { fresh: false, .. });
        Self {
            wants_keyframe: stale || start == Start::NeedsKeyframe,
            hold: stale.then_some(Hold {
                until: now.plus(FRESH_KEYFRAME_WAIT),
                still,
                sent: None,
            }),
            behind_until: None,
        }
    }

    /// What was found will not do, or not for long: ask the keyframe owner, once.
    pub fn wants_keyframe(&self) -> bool {
        self.wants_keyframe
    }

    /// When [`Replay::next`] should be called though nothing was appended: deltas are waiting for their time.
    pub fn poll_timeout(&self) -> Option<RoomTime> {
        self.hold.map(|hold| hold.until).or(self.behind_until)
    }

    /// Takes the place of [`Cursor::next`]. [`Next::Empty`] is returned as well while deltas wait for a fresh keyframe.
    /// `unanswering`: the source does not answer keyframe requests
    /// ([`Track::is_unanswering`](crate::room::track::Track::is_unanswering)), so that nothing is worth waiting for.
    pub fn next(&mut self, cursor: &mut Cursor, lag: &Lag, unanswering: bool, now: RoomTime) -> Next {
        let Some(hold) = &mut self.hold else {
            return self.follow(cursor, lag, unanswering, now);
        };
        let cached = hold.sent.unwrap_or(cursor.position());
        if cursor.skip_to_keyframe_from(cached + 1) {
            // The fresh one is there: the cached one and its deltas are not worth their bytes any more.
            self.hold = None;
        } else if hold.sent.is_none() && hold.still {
            let next = cursor.next(lag);
            match &next {
                Next::Frame(frame) => hold.sent = Some(frame.index),
                // The log has let go of it in the meantime.
                _ => self.hold = None,
            }
            return next;
        } else if now < hold.until && !unanswering && !cursor.track().has_ended() {
            return Next::Empty;
        } else {
            // The wait was ours, not the receiver's: it is not held against it.
            cursor.catch_up_from_here();
            self.hold = None;
        }
        cursor.next(lag)
    }

    fn follow(&mut self, cursor: &mut Cursor, lag: &Lag, unanswering: bool, now: RoomTime) -> Next {
        let next = cursor.next(lag);
        if !(matches!(next, Next::NeedsKeyframe | Next::Ended) && cursor.may_go_on_late()) {
            self.behind_until = None;
            return next;
        }
        let until = *self.behind_until.get_or_insert(now.plus(FRESH_KEYFRAME_WAIT));
        if now < until && !unanswering && !cursor.track().has_ended() {
            return next;
        }
        self.behind_until = None;
        match cursor.go_on_late() {
            true => cursor.next(lag),
            false => next,
        }
    }
}

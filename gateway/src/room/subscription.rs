//! The subscription: one receiver's cursor into a track.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::media::frame::{Frame, Kind, RoomTime};
use crate::room::track::{Log, Track};

/// What a cursor has for its receiver.
#[derive(Debug)]
pub enum Next {
    /// The next frame, contiguous with the one before it unless it is a keyframe (or sound).
    Frame(Arc<Frame>),
    /// Nothing new yet: wait for the wake-up.
    Empty,
    /// Nothing that this receiver could decode in time: a keyframe is needed, and [`Cursor::next`] goes on at the next one by
    /// itself. Comes anew at every call while that lasts; one request to the keyframe owner is enough, it repeats by itself.
    NeedsKeyframe,
    /// The track has ended and everything was read.
    Ended,
}

/// What a newcomer finds in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Starts at what comes next (sound, or replay switched off and the next frame will do).
    Live,
    /// Replays from the last keyframe; it is this old (µs of media time) and everything after it is this large (bytes).
    Replay {
        /// Media time from the keyframe to the newest frame, µs.
        age: u64,
        /// Payload bytes from the keyframe on.
        bytes: usize,
        /// Within the soft bounds: no fresh keyframe is needed.
        fresh: bool,
    },
    /// Nothing to start from that this receiver does not have already: ask for a keyframe.
    NeedsKeyframe,
}

/// How a receiver's cursor may lag, and where it goes on after that.
///
/// A receiver that replays, or goes on at a cached keyframe after lagging, reads older frames than that on purpose: it may,
/// as long as it reads at twice the source's speed or faster. A frame is therefore never delivered with more lag than the
/// keyframe had when catching up began, plus [`Lag::most`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// A frame that is this much older than the newest one is not sent any more, µs of media time.
    pub most: u64,
    /// After lagging, the newest keyframe is used if it is not older than this (or than [`Lag::most`]), else a fresh one is
    /// needed, µs.
    pub resync_age: u64,
}

/// A receiver that fell behind may go on late once it has been in time for this long since it last did, µs of media time:
/// one whose path is too slow for the stream would else be late for ever.
const STEADY: u64 = 3_000_000;

/// A receiver's place in a track. Not shared: one reader each.
#[derive(Debug)]
pub struct Cursor {
    track: Arc<Track>,
    waker: Arc<Notify>,
    place: Place,
}

#[derive(Debug)]
struct Place {
    next: u64,
    /// One more than the last index that was delivered. Nothing before it is delivered again.
    floor: u64,
    waiting: bool,
    /// While waiting: the frame that follows what the receiver has, with which it could go on late.
    follows: Option<u64>,
    /// It went on late, and has not been in time for long since.
    was_late: bool,
    /// Time of the first frame since which all were in time.
    in_time_since: Option<RoomTime>,
    catching_up: Option<CatchingUp>,
    dropped: u64,
}

/// Frames are read late on purpose, until one is within the lag that is allowed.
#[derive(Debug, Clone, Copy)]
struct CatchingUp {
    first: RoomTime,
    newest: RoomTime,
}

impl Cursor {
    /// A cursor at the track's end; [`Cursor::start`] puts it where a newcomer begins. `waker` is notified after every append:
    /// one task waits for it, and reads all its cursors that share it until they are empty before it waits again.
    pub fn new(track: &Arc<Track>, waker: &Arc<Notify>) -> Self {
        // The waker comes first: an append between the two lines is then either before the end or wakes.
        track.add_waker(waker);
        let end = track.log().end();
        Self {
            place: Place {
                next: end,
                floor: 0,
                waiting: track.id().kind == Kind::Video,
                follows: None,
                was_late: false,
                in_time_since: None,
                catching_up: None,
                dropped: 0,
            },
            track: track.clone(),
            waker: waker.clone(),
        }
    }

    /// The track it reads.
    pub fn track(&self) -> &Arc<Track> {
        &self.track
    }

    /// Frames that this receiver did not get although they were in the log.
    pub fn dropped(&self) -> u64 {
        self.place.dropped
    }

    /// A video cursor that stands before a keyframe it does not have yet.
    pub fn is_waiting(&self) -> bool {
        self.place.waiting
    }

    /// There is something that was not read yet, be it of use or not.
    pub fn has_more(&self) -> bool {
        self.track.end() > self.place.next
    }

    /// Frames are read late on purpose, at twice the source's speed or faster.
    pub fn is_catching_up(&self) -> bool {
        self.place.catching_up.is_some()
    }

    /// Moves to the last keyframe for a late join or a resumption. Nothing that this cursor has delivered comes again: a
    /// receiver whose decoder begins anew, and may be given old frames once more, takes a new cursor. What was found is
    /// counted with the track.
    pub fn start(&mut self) -> Start {
        let start = self.find_start();
        self.track.counters().replays.count(&start);
        start
    }

    fn find_start(&mut self) -> Start {
        let log = self.track.log();
        self.place.next = log.end();
        self.place.follows = None;
        if self.track.id().kind == Kind::Audio {
            return Start::Live;
        }
        let Some((keyframe, start)) = self.replay(&log) else {
            self.place.waiting = true;
            return Start::NeedsKeyframe;
        };
        self.place.go_to(&log, keyframe);
        start
    }

    /// [`Cursor::start`] would find a replay, and it is within the soft bounds; `None`: it would find none.
    pub fn is_near_live(&self) -> Option<bool> {
        let log = self.track.log();
        (self.replay(&log)).map(|(_, start)| matches!(start, Start::Replay { fresh: true, .. }))
    }

    /// The keyframe to begin with, and what follows from it.
    fn replay<'a>(&self, log: &'a Log) -> Option<(&'a Arc<Frame>, Start)> {
        let bounds = self.track.bounds();
        let keyframe = log.keyframe().filter(|keyframe| keyframe.index >= self.place.floor)?;
        let (age, bytes) = log.replay_from(keyframe, bounds)?;
        let fresh = age <= bounds.soft_age && bytes <= bounds.soft_bytes;
        Some((keyframe, Start::Replay { age, bytes, fresh }))
    }

    /// The next frame for this receiver. `lag` bounds how old it may be; frames left out are counted.
    pub fn next(&mut self, lag: &Lag) -> Next {
        // The end of the track is looked at first: what it had until then is seen after that.
        let ended = self.track.has_ended();
        let nothing = if ended { Next::Ended } else { Next::Empty };
        if self.place.waiting {
            if !self.track.has_keyframe_from(self.place.next) {
                return if ended { Next::Ended } else { Next::NeedsKeyframe };
            }
        } else if self.track.end() <= self.place.next {
            return nothing;
        }
        let log = self.track.log();
        let found = match self.track.id().kind {
            Kind::Audio => self.place.next_audio(&log, lag),
            Kind::Video => self.place.next_video(&log, lag),
        };
        match found {
            Some(frame) => {
                self.place.next += 1;
                self.place.floor = self.place.next;
                Next::Frame(frame)
            }
            None if self.place.waiting && !ended => Next::NeedsKeyframe,
            None => nothing,
        }
    }

    /// Goes back (or on) to the frame under `index`, as far as the log has it; sound only, for a receiver that let go of
    /// frames because it heard them otherwise. How many frames come again.
    pub fn rewind(&mut self, index: u64) -> u64 {
        if self.track.id().kind == Kind::Video {
            return 0;
        }
        let target = index.min(self.track.end());
        let again = self.place.next.saturating_sub(target);
        self.place.next = target;
        again
    }

    /// What was delivered last is lost to the receiver for good: leaves out everything up to the newest keyframe that is
    /// younger than `lag.resync_age`, or waits for a new one.
    pub fn resync(&mut self, lag: &Lag) {
        self.place.jump(&self.track.log(), lag);
        self.place.follows = None;
    }

    /// What was delivered last did not go out, because there was no place for it; `begun`: but for a part of it. Like
    /// [`Cursor::resync`], but if there is no such keyframe the receiver could still go on with this very frame.
    pub fn give_back(&mut self, lag: &Lag, begun: bool) {
        self.place.jump(&self.track.log(), lag);
        if self.place.waiting {
            self.place.follows = self.place.next.checked_sub(1);
        }
        // A path that takes nothing at all is not too slow, it stands still.
        self.place.was_late &= begun;
    }

    /// The receiver waits for a keyframe, and [`Cursor::go_on_late`] may help it. One that did not keep up after it last went
    /// on late is not helped again.
    pub(super) fn may_go_on_late(&self) -> bool {
        let place = &self.place;
        place.waiting && !place.was_late && (place.follows.is_some() || self.track.has_keyframe_from(place.next))
    }

    /// Goes on with old frames after all, if they are in the log and within the replay's bounds: from the newest keyframe if
    /// the receiver does not have it, else with what follows its last frame. False: nothing but a keyframe will help.
    pub(super) fn go_on_late(&mut self) -> bool {
        let log = self.track.log();
        let place = &mut self.place;
        place.was_late = true;
        let keyframe = log.keyframe().filter(|keyframe| keyframe.index >= place.next);
        let follows = || place.follows.and_then(|index| log.get(index));
        let Some(first) = keyframe.or_else(follows) else {
            return false;
        };
        let found = log.replay_from(first, self.track.bounds()).is_some();
        if found {
            place.go_to(&log, first);
        }
        found
    }

    /// Index of the frame that comes next if nothing is left out.
    pub(super) fn position(&self) -> u64 {
        self.place.next
    }

    /// Goes to the newest keyframe if its index is `index` or a later one.
    pub(super) fn skip_to_keyframe_from(&mut self, index: u64) -> bool {
        if !self.track.has_keyframe_from(index) {
            return false;
        }
        let log = self.track.log();
        let newest = log
            .keyframe()
            .filter(|keyframe| keyframe.index >= index.max(self.place.next));
        if let Some(keyframe) = newest {
            self.place.go_to(&log, keyframe);
        }
        newest.is_some()
    }

    /// Everything that is in the log now may be read late, from here on: what was waited for is not the reader's fault.
    pub fn catch_up_from_here(&mut self) {
        let log = self.track.log();
        if let Some(frame) = log.get(self.place.next) {
            self.place.catching_up = CatchingUp::from(&log, frame.time);
        }
    }
}

impl Place {
    fn next_audio(&mut self, log: &Log, lag: &Lag) -> Option<Arc<Frame>> {
        let newest = log.newest()?.time;
        // What the log has let go of is over the bound as well.
        let first = self.next.max(log.first());
        self.dropped += first - self.next;
        self.next = first;
        while let Some(frame) = log.get(self.next) {
            if newest.since(frame.time) <= lag.most {
                return Some(frame.clone());
            }
            self.next += 1;
            self.dropped += 1;
        }
        None
    }

    fn next_video(&mut self, log: &Log, lag: &Lag) -> Option<Arc<Frame>> {
        let newest = log.newest()?.time;
        let may_go = !self.waiting
            && log
                .get(self.next)
                .is_some_and(|frame| self.may_go(frame, newest, lag.most));
        if !may_go && self.next < log.end() {
            self.jump(log, lag);
        }
        if self.waiting {
            None
        } else {
            log.get(self.next).cloned()
        }
    }

    fn may_go(&mut self, frame: &Frame, newest: RoomTime, most: u64) -> bool {
        if newest.since(frame.time) <= most {
            self.catching_up = None;
            let since = *self.in_time_since.get_or_insert(frame.time);
            self.was_late &= frame.time.since(since) < STEADY;
            return true;
        }
        self.catching_up
            .is_some_and(|catching_up| catching_up.keeps_pace(frame, newest, most))
    }

    fn jump(&mut self, log: &Log, lag: &Lag) {
        let oldest = lag.resync_age.max(lag.most);
        let usable = log
            .newest()
            .zip(log.keyframe())
            .filter(|(newest, keyframe)| keyframe.index >= self.next && newest.time.since(keyframe.time) <= oldest);
        match usable {
            Some((_, keyframe)) => self.go_to(log, keyframe),
            // What that leaves out is known, and counted, when a keyframe comes.
            None => {
                if !self.waiting {
                    self.follows = (self.next == self.floor).then_some(self.next);
                }
                self.waiting = true;
                self.in_time_since = None;
            }
        }
    }

    /// To a keyframe, or to what follows the last frame that was delivered.
    fn go_to(&mut self, log: &Log, first: &Frame) {
        self.dropped += first.index.saturating_sub(self.next);
        self.next = first.index;
        self.floor = self.floor.min(first.index);
        self.waiting = false;
        self.follows = None;
        self.in_time_since = None;
        self.catching_up = CatchingUp::from(log, first.time);
    }
}

impl CatchingUp {
    /// Catching up begins now, at the frame of this time.
    fn from(log: &Log, first: RoomTime) -> Option<Self> {
        let newest = log.newest()?.time;
        Some(Self { first, newest })
    }

    /// Reading has been at least twice as fast as the source since it began.
    fn keeps_pace(&self, frame: &Frame, newest: RoomTime, most: u64) -> bool {
        let gone = newest.since(self.newest);
        let read = frame.time.since(self.first);
        gone <= most.saturating_add(read / 2)
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.track.remove_waker(&self.waker);
    }
}

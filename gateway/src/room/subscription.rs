//! The subscription: one receiver's cursor into a track.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::media::frame::{Frame, Kind};
use crate::room::track::{Log, Track};

/// What a cursor has for its receiver.
#[derive(Debug)]
pub enum Next {
    /// The next frame, contiguous with the one before it unless it is a keyframe (or sound).
    Frame(Arc<Frame>),
    /// Nothing new yet: wait for the wake-up.
    Empty,
    /// Nothing that this receiver could decode: a keyframe is needed, and [`Cursor::next`] goes on at the next one by itself.
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
    /// Nothing to start from: ask for a keyframe.
    NeedsKeyframe,
}

/// How a receiver's cursor may lag, and where it goes on after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// A frame that is this much older than the newest one is not sent any more, µs of media time.
    pub most: u64,
    /// After lagging, the newest keyframe is used if it is not older than this, else a fresh one is needed, µs.
    pub resync_age: u64,
}

/// A receiver's place in a track. Not shared: one reader each.
#[derive(Debug)]
pub struct Cursor {
    track: Arc<Track>,
    waker: Arc<Notify>,
    next: u64,
    /// Frames before this index are catching up: no lag is counted for them.
    caught_up_at: u64,
    waiting: bool,
    dropped: u64,
}

impl Cursor {
    /// A cursor at the track's end; [`Cursor::start`] puts it where a newcomer begins. `waker` is notified after every append.
    pub fn new(track: &Arc<Track>, waker: &Arc<Notify>) -> Self {
        track.add_waker(waker);
        let end = track.log().end();
        Self {
            waiting: track.id().kind == Kind::Video,
            next: end,
            caught_up_at: end,
            dropped: 0,
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
        self.dropped
    }

    /// A video cursor that stands before a keyframe it does not have yet.
    pub fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Moves to the last keyframe for a late join or a resumption.
    pub fn start(&mut self) -> Start {
        let log = self.track.log();
        self.next = log.end();
        self.caught_up_at = log.end();
        if self.track.id().kind == Kind::Audio {
            return Start::Live;
        }
        let bounds = *self.track.bounds();
        let replay = bounds.hard_age > 0 && bounds.hard_bytes > 0;
        let (Some(keyframe), Some(newest), true) = (log.keyframe(), log.newest(), replay) else {
            self.waiting = true;
            return Start::NeedsKeyframe;
        };
        let age = newest.time.since(keyframe.time);
        let bytes = log.bytes_from(keyframe.index);
        self.next = keyframe.index;
        self.waiting = false;
        Start::Replay {
            age,
            bytes,
            fresh: age <= bounds.soft_age && bytes <= bounds.soft_bytes,
        }
    }

    /// The next frame for this receiver. `lag` bounds how old it may be; frames left out are counted.
    pub fn next(&mut self, lag: &Lag) -> Next {
        let track = self.track.clone();
        let log = track.log();
        match track.id().kind {
            Kind::Audio => self.next_audio(&log, lag),
            Kind::Video => self.next_video(&log, lag),
        }
    }

    /// Goes back (or on) to the frame under `index`, as far as the log has it; sound only. How many frames that were read
    /// already come again.
    pub fn rewind(&mut self, index: u64) -> u64 {
        if self.track.id().kind == Kind::Video {
            return 0;
        }
        let target = index.min(self.track.log().end());
        let again = self.next.saturating_sub(target);
        self.next = target;
        again
    }

    /// Leaves out everything up to the newest keyframe that is younger than `lag.resync_age`, or waits for a new one.
    pub fn resync(&mut self, lag: &Lag) {
        let track = self.track.clone();
        self.jump(&track.log(), lag);
    }

    fn next_audio(&mut self, log: &Log, lag: &Lag) -> Next {
        while self.next < log.end() {
            if let (Some(frame), Some(newest)) = (log.get(self.next), log.newest())
                && newest.time.since(frame.time) <= lag.most
            {
                self.next += 1;
                return Next::Frame(frame.clone());
            }
            self.next += 1;
            self.dropped += 1;
        }
        self.empty_or_ended()
    }

    fn next_video(&mut self, log: &Log, lag: &Lag) -> Next {
        if self.waiting {
            // A keyframe at or after where we stand ends the wait; a cached one before it was judged by start or resync.
            match log.keyframe() {
                Some(keyframe) if keyframe.index >= self.next => self.go_to(log, keyframe.index),
                _ if self.track.has_ended() => return Next::Ended,
                _ => return Next::NeedsKeyframe,
            }
        }
        if self.next >= log.end() {
            return self.empty_or_ended();
        }
        let behind = match (log.get(self.next), log.newest()) {
            (Some(frame), Some(newest)) => {
                let catching_up = self.next < self.caught_up_at || frame.keyframe;
                !catching_up && newest.time.since(frame.time) > lag.most
            }
            // Overrun: the log has let go of what this cursor wanted.
            _ => true,
        };
        if behind {
            self.jump(log, lag);
            if self.waiting {
                return Next::NeedsKeyframe;
            }
        }
        match log.get(self.next) {
            Some(frame) => {
                self.next += 1;
                Next::Frame(frame.clone())
            }
            None => self.empty_or_ended(),
        }
    }

    fn jump(&mut self, log: &Log, lag: &Lag) {
        let usable = log.keyframe().filter(|keyframe| {
            keyframe.index >= self.next
                && log
                    .newest()
                    .is_some_and(|newest| newest.time.since(keyframe.time) <= lag.resync_age)
        });
        match usable.map(|keyframe| keyframe.index) {
            Some(index) => self.go_to(log, index),
            None => {
                self.dropped += log.end().saturating_sub(self.next);
                self.next = log.end();
                self.caught_up_at = log.end();
                self.waiting = true;
            }
        }
    }

    fn go_to(&mut self, log: &Log, index: u64) {
        self.dropped += index.saturating_sub(self.next);
        self.next = index;
        self.caught_up_at = log.end();
        self.waiting = false;
    }

    fn empty_or_ended(&self) -> Next {
        if self.track.has_ended() {
            Next::Ended
        } else {
            Next::Empty
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.track.remove_waker(&self.waker);
    }
}

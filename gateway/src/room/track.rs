//! The track: a bounded log of frames with one writer and any number of cursors.

use std::collections::VecDeque;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::Notify;

use crate::media::frame::{Draft, Forms, Frame, Kind, MAX_FRAME, RoomTime, TrackId};
use crate::room::keyframes::KeyframeOwner;
use crate::room::subscription::Start;

/// Frames that are not needed any more leave this many per append, so that no append holds the lock for a whole group of
/// pictures, and a replay that is faster than this many times the source's speed never loses the ground it reads from.
const SPARED_PER_APPEND: usize = 4;

/// How much a track keeps, and up to when a newcomer is served from it. A hard bound of 0 turns replay off: newcomers wait
/// for the next keyframe, and only the tail is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Up to this age of the keyframe (µs of media time) and [`Bounds::soft_bytes`], a newcomer gets everything at once.
    pub soft_age: u64,
    /// Bytes from the keyframe on, for [`Bounds::soft_age`].
    pub soft_bytes: usize,
    /// Nothing older than this is replayed, µs of media time. The log never spans more than this, or than [`Bounds::tail`].
    pub hard_age: u64,
    /// Nothing larger than this is replayed, bytes. The log never costs more than this, or than [`Bounds::tail_bytes`], after
    /// an append (payloads, bookkeeping, and every form that a door has made of a frame so far, see [`Forms`]); the newest
    /// frame alone is kept whatever it costs.
    pub hard_bytes: usize,
    /// Frames before the last keyframe are kept this long for receivers that are a little behind, µs.
    pub tail: u64,
    /// A log may cost this much for them, however little is replayed, bytes.
    pub tail_bytes: usize,
}

impl Bounds {
    /// Pictures: 2.5 s and 1 MiB at once, 12 s and 6 MiB at most.
    pub const VIDEO: Self = Self {
        soft_age: 2_500_000,
        soft_bytes: 1 << 20,
        hard_age: 12_000_000,
        hard_bytes: 6 << 20,
        tail: 1_000_000,
        tail_bytes: 1 << 20,
    };
    /// The bounds of a track of this kind, where pictures have `video`.
    pub fn of(kind: Kind, video: Self) -> Self {
        match kind {
            Kind::Audio => Self::AUDIO,
            Kind::Video => video,
        }
    }

    /// Sound: a second, so that a stalled receiver can still choose what to drop.
    pub const AUDIO: Self = Self {
        soft_age: 0,
        soft_bytes: 0,
        hard_age: 1_000_000,
        hard_bytes: 256 << 10,
        tail: 1_000_000,
        tail_bytes: 256 << 10,
    };

    /// Something is replayed at all.
    pub fn replays(&self) -> bool {
        self.hard_age > 0 && self.hard_bytes > 0
    }
}

/// What a track has seen, for statistics.
#[derive(Debug, Default)]
pub struct TrackCounters {
    /// Frames appended.
    pub frames: AtomicU64,
    /// Payload bytes appended.
    pub bytes: AtomicU64,
    /// Keyframes appended.
    pub keyframes: AtomicU64,
    /// Frames refused: the ingress lost what they refer to, or they were larger than any door can send.
    pub refused: AtomicU64,
    /// What newcomers found.
    pub replays: ReplayCounters,
}

/// What newcomers, and receivers that resumed or switched to a track, found in its log.
#[derive(Debug, Default)]
pub struct ReplayCounters {
    /// A keyframe within the soft bounds: all at once.
    pub hit: AtomicU64,
    /// One between the soft bounds and the hard ones: a fresh one was asked for.
    pub stale: AtomicU64,
    /// None to begin with.
    pub miss: AtomicU64,
}

/// The numbers of [`ReplayCounters`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Replays {
    /// See [`ReplayCounters::hit`].
    pub hit: u64,
    /// See [`ReplayCounters::stale`].
    pub stale: u64,
    /// See [`ReplayCounters::miss`].
    pub miss: u64,
}

impl ReplayCounters {
    pub(super) fn count(&self, start: &Start) {
        let counter = match start {
            Start::Live => return,
            Start::Replay { fresh: true, .. } => &self.hit,
            Start::Replay { fresh: false, .. } => &self.stale,
            Start::NeedsKeyframe => &self.miss,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// As they are now.
    pub fn now(&self) -> Replays {
        Replays {
            hit: self.hit.load(Ordering::Relaxed),
            stale: self.stale.load(Ordering::Relaxed),
            miss: self.miss.load(Ordering::Relaxed),
        }
    }
}

impl AddAssign for Replays {
    fn add_assign(&mut self, other: Self) {
        self.hit += other.hit;
        self.stale += other.stale;
        self.miss += other.miss;
    }
}

/// One audio or video stream of a source.
#[derive(Debug)]
pub struct Track {
    id: TrackId,
    bounds: Bounds,
    log: Mutex<Log>,
    /// Each waker once, with the number of cursors that use it: a worker with a thousand receivers is woken once.
    wakers: ArcSwap<Vec<(Arc<Notify>, usize)>>,
    ended: AtomicBool,
    silent: AtomicBool,
    unanswering: AtomicBool,
    /// The log's end and one more than the index of its newest keyframe (0: none yet), to be read without the lock.
    end: AtomicU64,
    keyframe_index: AtomicU64,
    /// Arrival of the newest keyframe, room time in µs plus one; 0: none yet.
    keyframe_at: AtomicU64,
    forms: Arc<Forms>,
    counters: TrackCounters,
}

#[derive(Debug)]
pub(super) struct Log {
    frames: VecDeque<Arc<Frame>>,
    /// Index of the next frame to be appended.
    end: u64,
    last_keyframe: Option<u64>,
    message_seq: u32,
    payload_bytes: usize,
    /// Set when a frame was lost before the log: deltas are refused until a keyframe.
    broken: bool,
}

impl Log {
    pub(super) fn first(&self) -> u64 {
        self.end - self.frames.len() as u64
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn get(&self, index: u64) -> Option<&Arc<Frame>> {
        self.frames.get(usize::try_from(index.checked_sub(self.first())?).ok()?)
    }

    pub(super) fn newest(&self) -> Option<&Arc<Frame>> {
        self.frames.back()
    }

    /// The newest keyframe that is still in the log.
    pub(super) fn keyframe(&self) -> Option<&Arc<Frame>> {
        self.get(self.last_keyframe?)
    }

    /// Payload bytes from `index` on. Walks the frames; only for joins and resyncs.
    pub(super) fn bytes_from(&self, index: u64) -> usize {
        let skip = usize::try_from(index.saturating_sub(self.first())).unwrap_or(usize::MAX);
        self.frames.iter().skip(skip).map(|frame| frame.payload.len()).sum()
    }

    /// Media time (µs) and payload bytes from a frame on, if that may be replayed.
    pub(super) fn replay_from(&self, first: &Frame, bounds: &Bounds) -> Option<(u64, usize)> {
        let age = self.newest()?.time.since(first.time);
        let bytes = self.bytes_from(first.index);
        (bounds.replays() && age <= bounds.hard_age && bytes <= bounds.hard_bytes).then_some((age, bytes))
    }

    fn cost(&self, forms: &Forms) -> usize {
        forms.cost(self.frames.len(), self.payload_bytes)
    }

    /// Lets go of what is over the bounds at once, and of what nobody needs any more little by little: frames older than the
    /// tail that stand before the newest keyframe, or that come after one which has left the log itself.
    fn trim(&mut self, bounds: &Bounds, forms: &Forms) {
        let Some(newest) = self.frames.back().map(|frame| frame.time) else {
            return;
        };
        // However little is replayed, there is a tail to read from.
        let hard_age = bounds.hard_age.max(bounds.tail);
        let hard_bytes = bounds.hard_bytes.max(bounds.tail_bytes);
        let keep_from = self.keyframe().map_or(u64::MAX, |keyframe| keyframe.index);
        let mut spared = 0;
        while let Some(front) = self.frames.front() {
            let age = newest.since(front.time);
            let over = age > hard_age || self.cost(forms) > hard_bytes;
            let spare = front.index < keep_from && age > bounds.tail && spared < SPARED_PER_APPEND;
            if self.frames.len() == 1 || !(over || spare) {
                return;
            }
            spared += 1;
            self.payload_bytes -= front.payload.len();
            self.frames.pop_front();
        }
    }
}

impl Track {
    /// A new, empty track and its only writer.
    pub fn create(id: TrackId, bounds: Bounds, first_message_seq: u32) -> (Arc<Self>, TrackWriter) {
        let forms = Arc::new(Forms::new(id.kind));
        let track = Arc::new(Self {
            id,
            bounds,
            log: Mutex::new(Log {
                frames: VecDeque::new(),
                end: 0,
                last_keyframe: None,
                message_seq: first_message_seq,
                payload_bytes: 0,
                broken: false,
            }),
            wakers: ArcSwap::default(),
            ended: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            unanswering: AtomicBool::new(false),
            end: AtomicU64::new(0),
            keyframe_index: AtomicU64::new(0),
            keyframe_at: AtomicU64::new(0),
            forms,
            counters: TrackCounters::default(),
        });
        (track.clone(), TrackWriter { track })
    }

    /// Its name within the room.
    pub fn id(&self) -> TrackId {
        self.id
    }

    /// Its bounds.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// The writer is gone: no more frames will come.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// What it has seen.
    pub fn counters(&self) -> &TrackCounters {
        &self.counters
    }

    /// When the newest keyframe was appended.
    pub fn keyframe_at(&self) -> Option<RoomTime> {
        self.keyframe_at.load(Ordering::Acquire).checked_sub(1).map(RoomTime)
    }

    /// The source is known not to answer keyframe requests. Kept by the room.
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// The source has not answered the last request within a window: nobody should wait for it. Kept by the room.
    pub fn is_unanswering(&self) -> bool {
        self.unanswering.load(Ordering::Relaxed)
    }

    pub(super) fn follow_owner(&self, owner: &KeyframeOwner) {
        self.silent.store(owner.is_silent(), Ordering::Relaxed);
        self.unanswering.store(owner.is_unanswering(), Ordering::Relaxed);
    }

    /// Frames and bytes (payload and memoized forms) that the log holds now.
    pub fn held(&self) -> (usize, usize) {
        let log = self.log();
        (log.frames.len(), log.cost(&self.forms))
    }

    /// Index of the next frame. May be behind the log by an append whose wake-up is still to come.
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// A keyframe with this index or a later one was appended; may be behind like [`Track::end`].
    pub fn has_keyframe_from(&self, index: u64) -> bool {
        self.keyframe_index.load(Ordering::Acquire) > index
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        // Nothing panics while it holds the log; were it to happen, the log is still a valid one.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on `waker` is notified after every append and at the end.
    pub(super) fn add_waker(&self, waker: &Arc<Notify>) {
        self.wakers.rcu(|wakers| {
            let mut wakers = Vec::clone(wakers);
            match wakers.iter_mut().find(|(other, _)| Arc::ptr_eq(other, waker)) {
                Some((_, cursors)) => *cursors += 1,
                None => wakers.push((waker.clone(), 1)),
            }
            wakers
        });
    }

    pub(super) fn remove_waker(&self, waker: &Arc<Notify>) {
        self.wakers.rcu(|wakers| {
            let mut wakers = Vec::clone(wakers);
            if let Some(at) = wakers.iter().position(|(other, _)| Arc::ptr_eq(other, waker)) {
                wakers[at].1 -= 1;
                if wakers[at].1 == 0 {
                    wakers.swap_remove(at);
                }
            }
            wakers
        });
    }

    fn wake(&self) {
        for (waker, _) in self.wakers.load().iter() {
            waker.notify_one();
        }
    }
}

/// The one writer of a track. Dropping it ends the track.
#[derive(Debug)]
pub struct TrackWriter {
    track: Arc<Track>,
}

/// What became of an appended frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is in the log under this index.
    At(u64),
    /// Not taken: it refers to a frame that was lost, has another codec than its predecessor, or is larger than
    /// [`MAX_FRAME`]. Deltas are refused until the next keyframe.
    NeedsKeyframe,
}

impl TrackWriter {
    /// The track that is written.
    pub fn track(&self) -> &Arc<Track> {
        &self.track
    }

    /// Appends a frame that was complete at `now`, and wakes the receivers. Its time is moved on, if need be, to be at least
    /// 1 ms after its predecessor's.
    pub fn append(&mut self, draft: Draft, now: RoomTime) -> Appended {
        let track = &self.track;
        let index = {
            let mut log = track.log();
            let keyframe = draft.keyframe;
            if track.id.kind == Kind::Video {
                let decodable = !log.broken && log.newest().is_some_and(|newest| newest.codec == draft.codec);
                if draft.payload.len() > MAX_FRAME || !(keyframe || decodable) {
                    log.broken = true;
                    // A form may have been made since the last append, which the bounds count.
                    log.trim(&track.bounds, &track.forms);
                    track.counters.refused.fetch_add(1, Ordering::Relaxed);
                    return Appended::NeedsKeyframe;
                }
                log.broken = false;
            }
            let floor = log
                .newest()
                .map_or(RoomTime::default(), |newest| newest.time.plus(1000));
            let time = draft.time.max(floor);
            let index = log.end;
            let seq = log.message_seq;
            log.message_seq = seq.wrapping_add(Frame::message_count(track.id.kind, draft.payload.len()));
            track.counters.frames.fetch_add(1, Ordering::Relaxed);
            track
                .counters
                .bytes
                .fetch_add(draft.payload.len() as u64, Ordering::Relaxed);
            log.payload_bytes += draft.payload.len();
            let frame = Frame::new(track.id, index, seq, time, now, draft, track.forms.clone());
            log.frames.push_back(Arc::new(frame));
            log.end += 1;
            if keyframe && track.id.kind == Kind::Video {
                log.last_keyframe = Some(index);
                track.keyframe_at.store(now.0.saturating_add(1), Ordering::Release);
                track.keyframe_index.store(index + 1, Ordering::Release);
                track.counters.keyframes.fetch_add(1, Ordering::Relaxed);
            }
            log.trim(&track.bounds, &track.forms);
            track.end.store(log.end, Ordering::Release);
            index
        };
        track.wake();
        Appended::At(index)
    }

    /// Says that a frame was lost on the way in: deltas are refused until the next keyframe.
    pub fn lost_frame(&mut self) {
        if self.track.id.kind == Kind::Video {
            self.track.log().broken = true;
        }
    }
}

impl Drop for TrackWriter {
    fn drop(&mut self) {
        self.track.ended.store(true, Ordering::Release);
        self.track.wake();
    }
}

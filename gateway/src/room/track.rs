//! The track: a bounded log of frames with one writer and any number of cursors.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::media::frame::{Draft, Frame, Kind, RoomTime, TrackId};

/// How much a track keeps, and up to when a newcomer is served from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Up to this age of the keyframe (µs of media time) and [`Bounds::soft_bytes`], a newcomer gets everything at once.
    pub soft_age: u64,
    /// Bytes from the keyframe on, for [`Bounds::soft_age`].
    pub soft_bytes: usize,
    /// The log never spans more media time than this, µs.
    pub hard_age: u64,
    /// The log never costs more than this, bytes.
    pub hard_bytes: usize,
    /// Frames before the last keyframe are kept this long for receivers that are a little behind, µs.
    pub tail: u64,
}

impl Bounds {
    /// Pictures: 2.5 s and 1 MiB at once, 12 s and 6 MiB at most.
    pub const VIDEO: Self = Self {
        soft_age: 2_500_000,
        soft_bytes: 1 << 20,
        hard_age: 12_000_000,
        hard_bytes: 6 << 20,
        tail: 1_000_000,
    };
    /// Sound: a second, so that a stalled receiver can still choose what to drop.
    pub const AUDIO: Self = Self {
        soft_age: 0,
        soft_bytes: 0,
        hard_age: 1_000_000,
        hard_bytes: 256 << 10,
        tail: 1_000_000,
    };
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
    /// Frames refused because the ingress lost what they refer to.
    pub refused: AtomicU64,
}

/// One audio or video stream of a source.
#[derive(Debug)]
pub struct Track {
    id: TrackId,
    bounds: Bounds,
    log: Mutex<Log>,
    wakers: ArcSwap<Vec<Arc<Notify>>>,
    ended: AtomicBool,
    /// Arrival of the newest keyframe, room time in µs plus one; 0: none yet.
    keyframe_at: AtomicU64,
    counters: TrackCounters,
}

#[derive(Debug)]
pub(super) struct Log {
    frames: VecDeque<Arc<Frame>>,
    /// Index of the next frame to be appended.
    end: u64,
    last_keyframe: Option<u64>,
    message_seq: u32,
    cost: usize,
    /// Set when a frame was lost before the log: deltas are refused until a keyframe.
    broken: bool,
}

impl Log {
    fn first(&self) -> u64 {
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

    fn trim(&mut self, bounds: &Bounds) {
        let Some(newest) = self.frames.back().map(|frame| frame.time) else {
            return;
        };
        let keep_from = self.last_keyframe.unwrap_or(u64::MAX);
        while let Some(front) = self.frames.front() {
            let age = newest.since(front.time);
            let over = age > bounds.hard_age || self.cost > bounds.hard_bytes;
            let spare = front.index < keep_from && age > bounds.tail;
            if self.frames.len() == 1 || !(over || spare) {
                return;
            }
            self.cost -= front.cost();
            self.frames.pop_front();
        }
    }
}

impl Track {
    /// A new, empty track and its only writer.
    pub fn create(id: TrackId, bounds: Bounds, first_message_seq: u32) -> (Arc<Self>, TrackWriter) {
        let track = Arc::new(Self {
            id,
            bounds,
            log: Mutex::new(Log {
                frames: VecDeque::new(),
                end: 0,
                last_keyframe: None,
                message_seq: first_message_seq,
                cost: 0,
                broken: false,
            }),
            wakers: ArcSwap::default(),
            ended: AtomicBool::new(false),
            keyframe_at: AtomicU64::new(0),
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

    /// Frames and bytes (payload and memoized forms) that the log holds now.
    pub fn held(&self) -> (usize, usize) {
        let log = self.log();
        (log.frames.len(), log.cost)
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        // Nothing panics while it holds the log; were it to happen, the log is still a valid one.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on `waker` is notified after every append and at the end.
    pub(super) fn add_waker(&self, waker: &Arc<Notify>) {
        self.wakers.rcu(|wakers| {
            let mut wakers = Vec::clone(wakers);
            wakers.push(waker.clone());
            wakers
        });
    }

    pub(super) fn remove_waker(&self, waker: &Arc<Notify>) {
        self.wakers.rcu(|wakers| {
            let mut wakers = Vec::clone(wakers);
            if let Some(at) = wakers.iter().position(|other| Arc::ptr_eq(other, waker)) {
                wakers.swap_remove(at);
            }
            wakers
        });
    }

    fn wake(&self) {
        let wakers = self.wakers.load();
        let mut last: Option<&Arc<Notify>> = None;
        for waker in wakers.iter() {
            // Cursors of one worker stand side by side more often than not: one wake-up serves them all.
            if last.is_none_or(|last| !Arc::ptr_eq(last, waker)) {
                waker.notify_one();
            }
            last = Some(waker);
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
    /// It refers to a frame that was lost; deltas are refused until the next keyframe.
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
            if keyframe {
                log.broken = false;
            } else if log.broken || (log.end == 0 && track.id.kind == Kind::Video) {
                track.counters.refused.fetch_add(1, Ordering::Relaxed);
                return Appended::NeedsKeyframe;
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
            let frame = Arc::new(Frame::new(track.id, index, seq, time, now, draft));
            log.cost += frame.cost();
            log.frames.push_back(frame);
            log.end += 1;
            if keyframe && track.id.kind == Kind::Video {
                log.last_keyframe = Some(index);
                track.keyframe_at.store(now.0 + 1, Ordering::Release);
                track.counters.keyframes.fetch_add(1, Ordering::Relaxed);
            }
            log.trim(&track.bounds);
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

//! Fragments back to frames: any order, bounded in bytes, frames and age.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{FrameSize, strip_size};
use crate::codec::Codec;
use crate::header::MediaType;
use crate::packet::MediaPacket;

/// How many completed or given-up frames are remembered, so that their late fragments do not start them again.
const REMEMBERED: usize = 128;

/// Bounds of a [`Reassembler`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReassemblyLimits {
    /// Payload bytes of all incomplete frames together.
    pub bytes: usize,
    /// Incomplete frames.
    pub frames: usize,
    /// How far behind its stream's newest packet an incomplete frame may be, in ms of media time.
    pub age_ms: u32,
    /// How long an incomplete frame waits after its first fragment.
    pub wait: Duration,
}

impl Default for ReassemblyLimits {
    fn default() -> Self {
        Self {
            bytes: 2 << 20,
            frames: 16,
            age_ms: 5_000,
            wait: Duration::from_secs(5),
        }
    }
}

/// A whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssembledFrame {
    /// Codec of the frame.
    pub codec: Codec,
    /// Stream it came on.
    pub stream_id: u8,
    /// Media time in ms, shared by its fragments.
    pub timestamp: u32,
    /// Whether any fragment was marked as part of a keyframe.
    pub keyframe: bool,
    /// The picture's size, if the sender says it.
    pub size: Option<FrameSize>,
    /// The coded picture without the size prefix.
    pub payload: Bytes,
    /// Sequence number of the first fragment.
    pub first_seq: u32,
    /// Sequence number of the last fragment.
    pub last_seq: u32,
}

/// What a [`Reassembler`] has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReassemblyStats {
    /// Frames handed out.
    pub completed: u64,
    /// Frames given up because fragments were missing for too long, or too much was pending.
    pub incomplete: u64,
    /// Those of them that were keyframes.
    pub incomplete_keyframes: u64,
    /// Fragments of frames that were complete or given up already.
    pub late: u64,
    /// Fragments that came again while their frame was incomplete.
    pub repeated: u64,
    /// Packets that were refused with an error.
    pub refused: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FrameKey {
    stream_id: u8,
    timestamp: u32,
}

#[derive(Debug)]
struct Pending {
    codec: Codec,
    keyframe: bool,
    parts: Vec<Option<(u32, Bytes)>>,
    received: usize,
    bytes: usize,
    /// Order of arrival among frames; ties in time happen.
    ordinal: u64,
    since: Duration,
}

/// Puts the video packets of one connection together, whatever order they come in.
#[derive(Debug)]
pub struct Reassembler {
    limits: ReassemblyLimits,
    pending: BTreeMap<FrameKey, Pending>,
    finished: VecDeque<FrameKey>,
    bytes: usize,
    next_ordinal: u64,
    stats: ReassemblyStats,
}

impl Default for Reassembler {
    fn default() -> Self {
        Self::new(ReassemblyLimits::default())
    }
}

impl Reassembler {
    /// An empty reassembler with these bounds. At least one frame may always be pending.
    pub fn new(limits: ReassemblyLimits) -> Self {
        Self {
            limits,
            pending: BTreeMap::new(),
            finished: VecDeque::with_capacity(REMEMBERED),
            bytes: 0,
            next_ordinal: 0,
            stats: ReassemblyStats::default(),
        }
    }

    /// Takes a packet that arrived at `now` (any epoch, never going back) and returns the frame that it completes.
    pub fn push(&mut self, packet: &MediaPacket, now: Duration) -> Result<Option<AssembledFrame>, ReassemblyError> {
        let result = self.take(packet, now);
        if result.is_err() {
            self.stats.refused += 1;
        }
        result
    }

    /// Gives up frames that have waited too long by `now`. [`push`](Self::push) does so too.
    pub fn expire(&mut self, now: Duration) {
        let wait = self.limits.wait;
        self.give_up_where(|_, frame| now.saturating_sub(frame.since) > wait);
    }

    /// Counters since the start.
    pub fn stats(&self) -> ReassemblyStats {
        self.stats
    }

    /// Payload bytes held for incomplete frames.
    pub fn pending_bytes(&self) -> usize {
        self.bytes
    }

    /// Incomplete frames held.
    pub fn pending_frames(&self) -> usize {
        self.pending.len()
    }

    fn take(&mut self, packet: &MediaPacket, now: Duration) -> Result<Option<AssembledFrame>, ReassemblyError> {
        let header = &packet.header;
        if header.media_type != MediaType::Video || !header.codec.is_video() || header.is_repair() {
            return Err(ReassemblyError::NotVideo {
                media_type: header.media_type,
                codec: header.codec,
            });
        }
        let (index, count) = (header.fragment_index(), header.fragment_count());
        if index >= count {
            return Err(ReassemblyError::FragmentIndex { index, count });
        }
        let key = FrameKey {
            stream_id: header.stream_id,
            timestamp: header.timestamp,
        };
        self.expire(now);
        let age_ms = self.limits.age_ms;
        self.give_up_where(|other, _| {
            let behind = key.timestamp.wrapping_sub(other.timestamp);
            other.stream_id == key.stream_id && behind > age_ms && behind < 1 << 31
        });
        if self.finished.contains(&key) {
            self.stats.late += 1;
            return Ok(None);
        }
        if let Some(frame) = self.pending.get(&key) {
            if frame.parts.len() != usize::from(count) {
                let known = frame.parts.len() as u8;
                return Err(ReassemblyError::ContradictoryCount { count, known });
            }
            if frame.codec != header.codec {
                return Err(ReassemblyError::ContradictoryCodec {
                    codec: header.codec,
                    known: frame.codec,
                });
            }
        } else {
            while self.pending.len() >= self.limits.frames.max(1) {
                self.give_up_oldest();
            }
        }

        let ordinal = self.next_ordinal;
        let frame = self.pending.entry(key).or_insert_with(|| Pending {
            codec: header.codec,
            keyframe: false,
            parts: vec![None; usize::from(count)],
            received: 0,
            bytes: 0,
            ordinal,
            since: now,
        });
        if frame.ordinal == ordinal {
            self.next_ordinal += 1;
        }
        frame.keyframe |= header.is_keyframe();
        match frame.parts[usize::from(index)].replace((header.seq, packet.payload.clone())) {
            Some((_, old)) => {
                self.stats.repeated += 1;
                frame.bytes -= old.len();
                self.bytes -= old.len();
            }
            None => frame.received += 1,
        }
        frame.bytes += packet.payload.len();
        self.bytes += packet.payload.len();

        if frame.received == frame.parts.len() {
            return Ok(self.finish(key));
        }
        let size = frame.bytes;
        if size > self.limits.bytes {
            self.give_up_where(|other, _| *other == key);
            return Err(ReassemblyError::TooLarge {
                len: size,
                max: self.limits.bytes,
            });
        }
        while self.bytes > self.limits.bytes {
            self.give_up_oldest();
        }
        Ok(None)
    }

    fn finish(&mut self, key: FrameKey) -> Option<AssembledFrame> {
        let frame = self.pending.remove(&key)?;
        self.bytes -= frame.bytes;
        self.remember(key);
        let mut parts = frame.parts.into_iter().flatten();
        let (first_seq, first) = parts.next()?;
        let mut last_seq = first_seq;
        let mut payload = if frame.received == 1 {
            first
        } else {
            let mut joined = BytesMut::with_capacity(frame.bytes);
            joined.extend_from_slice(&first);
            for (seq, part) in parts {
                joined.extend_from_slice(&part);
                last_seq = seq;
            }
            joined.freeze()
        };
        let size = strip_size(&mut payload);
        self.stats.completed += 1;
        Some(AssembledFrame {
            codec: frame.codec,
            stream_id: key.stream_id,
            timestamp: key.timestamp,
            keyframe: frame.keyframe,
            size,
            payload,
            first_seq,
            last_seq,
        })
    }

    fn give_up_oldest(&mut self) {
        if let Some(oldest) = self.pending.values().map(|frame| frame.ordinal).min() {
            self.give_up_where(|_, frame| frame.ordinal == oldest);
        }
    }

    fn give_up_where(&mut self, condition: impl Fn(&FrameKey, &Pending) -> bool) {
        let Self {
            pending,
            finished,
            bytes,
            stats,
            ..
        } = self;
        pending.retain(|key, frame| {
            if !condition(key, frame) {
                return true;
            }
            *bytes -= frame.bytes;
            stats.incomplete += 1;
            stats.incomplete_keyframes += u64::from(frame.keyframe);
            remember(finished, *key);
            false
        });
    }

    fn remember(&mut self, key: FrameKey) {
        remember(&mut self.finished, key);
    }
}

fn remember(finished: &mut VecDeque<FrameKey>, key: FrameKey) {
    if finished.len() == REMEMBERED {
        finished.pop_front();
    }
    finished.push_back(key);
}

/// Why a packet is no usable fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReassemblyError {
    /// Sound, a repair packet, or a codec that is no video codec.
    #[error("the packet is {media_type} coded as {codec}, not a fragment of a video frame")]
    NotVideo {
        /// Media type of the header.
        media_type: MediaType,
        /// Codec of the header.
        codec: Codec,
    },
    /// The index is not below the count.
    #[error("fragment {index} of {count}: the index must be below the count")]
    FragmentIndex {
        /// Index in the header.
        index: u8,
        /// Count in the header.
        count: u8,
    },
    /// Fragments of one frame disagree about their number.
    #[error("the fragment says its frame has {count} fragments, an earlier one said {known}")]
    ContradictoryCount {
        /// Count in this packet.
        count: u8,
        /// Count in the frame's first packet.
        known: u8,
    },
    /// Fragments of one frame disagree about the codec.
    #[error("the fragment says its frame is {codec}, an earlier one said {known}")]
    ContradictoryCodec {
        /// Codec in this packet.
        codec: Codec,
        /// Codec in the frame's first packet.
        known: Codec,
    },
    /// One frame alone exceeds the bound.
    #[error("the frame has {len} bytes and is not complete; at most {max} are kept")]
    TooLarge {
        /// Bytes so far.
        len: usize,
        /// The bound.
        max: usize,
    },
}

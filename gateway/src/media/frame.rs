//! The frame: one encoded audio packet or one whole video access unit, and the forms it is sent in.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use wzp_proto::codec::Codec;
use wzp_proto::header::{Flags, MediaHeader, MediaType};
use wzp_proto::video::{self, FrameSize};

pub use crate::media::rtp::packetize::RtpPayload;

/// Time on a room's clock, in microseconds since the room began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RoomTime(pub u64);

impl RoomTime {
    /// From whole milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms * 1000)
    }

    /// Whole milliseconds, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1000
    }

    /// Milliseconds as they stand in a WZP header: the low 32 bits.
    pub const fn wire_millis(self) -> u32 {
        self.as_millis() as u32
    }

    /// Microseconds from `earlier` to `self`, 0 if `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This time and `us` microseconds.
    pub const fn plus(self, us: u64) -> Self {
        Self(self.0.saturating_add(us))
    }
}

/// Sound or picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Sound.
    Audio,
    /// Picture.
    Video,
}

impl Kind {
    /// What a codec carries; `None` for codecs that are neither.
    pub fn of(codec: Codec) -> Option<Self> {
        match codec.media_type() {
            MediaType::Audio => Some(Self::Audio),
            MediaType::Video => Some(Self::Video),
            _ => None,
        }
    }

    /// Ticks per second of [`Frame::ticks`]: 48,000 for sound, 90,000 for pictures (the RTP clock rates).
    pub const fn clock_rate(self) -> u32 {
        match self {
            Self::Audio => 48_000,
            Self::Video => 90_000,
        }
    }
}

/// A participant's number within its room: from 1, never used twice in the life of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ParticipantId(pub u32);

impl fmt::Display for ParticipantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a track within its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackId {
    /// Who sends it.
    pub source: ParticipantId,
    /// Sound or picture.
    pub kind: Kind,
    /// 0–15: tells tracks of one kind and source apart (microphone and camera 0, a screen 1).
    pub slot: u8,
    /// 0–15: one per simulcast layer.
    pub layer: u8,
}

impl TrackId {
    /// The stream byte of `wzp.v2` messages: slot in the low four bits, layer in the high four.
    pub const fn stream(self) -> u8 {
        (self.slot & 15) | (self.layer << 4)
    }
}

/// Largest piece of a video frame in one `wzp.v2` message, bytes.
pub const MESSAGE_PAYLOAD: usize = 8192;
/// Pieces are this small as long as 255 of them are enough: sound passes between them, and on a link of 300 kbit/s a
/// piece of 8 KiB would hold it up for 200 ms.
const MESSAGE_PIECE: usize = 2048;
/// Largest video frame that a log takes, bytes: what 255 `wzp.v2` messages hold (their count is one byte).
pub const MAX_FRAME: usize = 255 * MESSAGE_PAYLOAD;
/// Bytes before the payload of a `wzp.v2` media message: kind, source, WZP header.
pub const MESSAGE_HEADER: usize = 5 + MediaHeader::LEN;
/// Message kind byte of media.
pub const MESSAGE_MEDIA: u8 = 1;
/// Message kind byte of several media messages together, each with its length before it, in two bytes.
pub const MESSAGE_BUNDLE: u8 = 2;

/// The size of the pieces that a video frame of `len` bytes is cut into.
fn piece_size(len: usize) -> usize {
    if len <= 255 * MESSAGE_PIECE {
        MESSAGE_PIECE
    } else {
        MESSAGE_PAYLOAD
    }
}

/// What an ingress hands to a track; the log gives it its place and its times.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Codec of the payload.
    pub codec: Codec,
    /// Decodable without any earlier frame. Always true for sound.
    pub keyframe: bool,
    /// Media timestamp in the source's clock, extended to 64 bits, in [`Kind::clock_rate`] ticks.
    pub ticks: u64,
    /// The same instant on the room's clock.
    pub time: RoomTime,
    /// Picture size, if known.
    pub size: Option<FrameSize>,
    /// Opus packet; H.264/H.265 Annex B access unit with parameter sets in every keyframe; AV1 temporal unit as OBUs with
    /// size fields and no temporal delimiter.
    pub payload: Bytes,
}

/// Which forms the doors have made of a track's frames so far. A form that was made once is counted for every frame of the
/// track: its receivers will ask for it again.
#[derive(Debug)]
pub struct Forms {
    kind: Kind,
    wzp: AtomicBool,
    messages: AtomicBool,
    rtp: AtomicBool,
}

/// A frame and its place in the log, its payload's reference count included, bytes.
const FRAME_COST: usize = 384;
/// A list of [`Bytes`] and what each of the first few costs besides its bytes.
const FORM_COST: usize = 160;

impl Forms {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            wzp: AtomicBool::new(false),
            messages: AtomicBool::new(false),
            rtp: AtomicBool::new(false),
        }
    }

    /// Bytes that `frames` frames with `payload` bytes in all take, rounded up. A form has a head of up to 48 bytes for every
    /// 1,100 bytes of payload; messages and RTP payloads are copies, WZP fragments are slices but for the first of a picture.
    pub(crate) fn cost(&self, frames: usize, payload: usize) -> usize {
        let mut cost = payload + frames * FRAME_COST;
        let heads = payload / 16;
        if self.messages.load(Ordering::Relaxed) {
            cost += payload + heads + frames * FORM_COST;
        }
        if self.rtp.load(Ordering::Relaxed) {
            cost += payload + heads + frames * FORM_COST;
        }
        if self.wzp.load(Ordering::Relaxed) {
            let copied = match self.kind {
                Kind::Audio => 0,
                Kind::Video => payload.min(frames * video::FRAGMENT_PAYLOAD),
            };
            cost += copied + heads + frames * FORM_COST;
        }
        cost
    }
}

/// One frame in a track's log. Immutable, shared by all receivers; remembers the forms that doors send it in.
#[derive(Debug)]
pub struct Frame {
    /// The track it belongs to.
    pub track: TrackId,
    /// Place in the log; never reused, +1 per frame.
    pub index: u64,
    /// Codec of the payload.
    pub codec: Codec,
    /// Decodable without any earlier frame.
    pub keyframe: bool,
    /// See [`Draft::ticks`].
    pub ticks: u64,
    /// Room time, strictly increasing by at least 1 ms from frame to frame of a track.
    pub time: RoomTime,
    /// When it was appended, on the room's clock.
    pub arrived: RoomTime,
    /// Picture size, if known.
    pub size: Option<FrameSize>,
    /// See [`Draft::payload`].
    pub payload: Bytes,
    /// Sequence number of the frame's first `wzp.v2` message.
    pub message_seq: u32,
    wzp: OnceLock<Result<Arc<[Bytes]>, video::FragmentError>>,
    messages: OnceLock<Arc<[Bytes]>>,
    rtp: OnceLock<Arc<[RtpPayload]>>,
    forms: Arc<Forms>,
}

impl Frame {
    /// Puts a draft in its place. Called by the log only.
    pub(crate) fn new(
        track: TrackId,
        index: u64,
        message_seq: u32,
        time: RoomTime,
        arrived: RoomTime,
        draft: Draft,
        forms: Arc<Forms>,
    ) -> Self {
        Self {
            track,
            index,
            codec: draft.codec,
            keyframe: draft.keyframe,
            ticks: draft.ticks,
            time,
            arrived,
            size: draft.size,
            payload: draft.payload,
            message_seq,
            wzp: OnceLock::new(),
            messages: OnceLock::new(),
            rtp: OnceLock::new(),
            forms,
        }
    }

    /// How many `wzp.v2` messages a payload of `len` bytes makes.
    pub fn message_count(kind: Kind, len: usize) -> u32 {
        match kind {
            Kind::Audio => 1,
            Kind::Video => len.div_ceil(piece_size(len)).max(1) as u32,
        }
    }

    /// Bytes that this frame costs its log, rounded up: itself and every form that its track is sent in.
    pub fn cost(&self) -> usize {
        self.forms.cost(1, self.payload.len())
    }

    /// Payloads of WZP datagrams: video in fragments of at most 1,100 bytes with the `WZV1` size in front (WZP wire v2,
    /// section 7.1), sound whole. Made once.
    ///
    /// # Errors
    /// The frame needs more than 255 fragments.
    pub fn wzp_fragments(&self) -> Result<&Arc<[Bytes]>, video::FragmentError> {
        let made = self.wzp.get_or_init(|| {
            self.forms.wzp.store(true, Ordering::Relaxed);
            match self.track.kind {
                Kind::Audio => Ok(Arc::from([self.payload.clone()])),
                Kind::Video => video::fragments(&self.payload, self.size, video::FRAGMENT_PAYLOAD).map(Arc::from),
            }
        });
        match made {
            Ok(fragments) => Ok(fragments),
            Err(error) => Err(*error),
        }
    }

    /// The `wzp.v2` messages of this frame, the same for every receiver. Made once.
    pub fn messages(&self) -> &Arc<[Bytes]> {
        self.messages.get_or_init(|| {
            self.forms.messages.store(true, Ordering::Relaxed);
            let count = Self::message_count(self.track.kind, self.payload.len());
            (0..count).map(|index| self.message(index, count)).collect()
        })
    }

    /// RTP payloads, made once by `packetize`, which is the same pure function for every caller.
    pub fn rtp_payloads(&self, packetize: impl FnOnce(&Self) -> Arc<[RtpPayload]>) -> &Arc<[RtpPayload]> {
        self.rtp.get_or_init(|| {
            self.forms.rtp.store(true, Ordering::Relaxed);
            packetize(self)
        })
    }

    fn message(&self, index: u32, count: u32) -> Bytes {
        let piece = piece_size(self.payload.len());
        let start = index as usize * piece;
        let (part, flags, fragment, media_type) = match self.track.kind {
            Kind::Audio => (&self.payload[..], Flags::empty(), 0, MediaType::Audio),
            Kind::Video => {
                let end = self.payload.len().min(start + piece);
                let mut flags = Flags::empty();
                if self.keyframe {
                    flags |= Flags::KEYFRAME;
                }
                if index + 1 == count {
                    flags |= Flags::FRAME_END;
                }
                (
                    &self.payload[start..end],
                    flags,
                    (index as u16) << 8 | count as u16,
                    MediaType::Video,
                )
            }
        };
        let header = MediaHeader {
            flags,
            media_type,
            codec: self.codec,
            stream_id: self.track.stream(),
            fec_ratio: 0,
            seq: self.message_seq.wrapping_add(index),
            timestamp: self.time.wire_millis(),
            fec_block: fragment,
        };
        let mut out = BytesMut::with_capacity(MESSAGE_HEADER + part.len());
        out.put_u8(MESSAGE_MEDIA);
        out.put_u32(self.track.source.0);
        out.put_slice(&header.encode());
        out.put_slice(part);
        out.freeze()
    }
}

//! The 16-byte media header (WZP wire v2, sections 2.2 and 2.3).

use std::fmt;

use bitflags::bitflags;

use crate::codec::Codec;

/// First byte of every media packet of this wire version.
pub const WIRE_VERSION: u8 = 2;

bitflags! {
    /// Header flags. The four low bits are unused, sent as 0 and kept as received.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Flags: u8 {
        /// The payload is an FEC repair symbol.
        const REPAIR = 0x80;
        /// A 4-byte quality report follows the payload.
        const QUALITY = 0x40;
        /// On every fragment of a video keyframe.
        const KEYFRAME = 0x20;
        /// On the last fragment of a video frame.
        const FRAME_END = 0x10;
        /// The reserved bits are legal, so that what was read can be written again unchanged.
        const _ = !0;
    }
}

/// What kind of media a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MediaType {
    /// Sound.
    Audio = 0,
    /// Pictures.
    Video = 1,
    /// Reserved by the protocol.
    Data = 2,
    /// Reserved by the protocol.
    Control = 3,
}

impl MediaType {
    /// The media type with this wire id.
    pub const fn from_id(id: u8) -> Option<Self> {
        Some(match id {
            0 => Self::Audio,
            1 => Self::Video,
            2 => Self::Data,
            3 => Self::Control,
            _ => return None,
        })
    }

    /// The wire id.
    pub const fn id(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Data => "data",
            Self::Control => "control",
        })
    }
}

/// The header of every media packet. All numbers are big-endian on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MediaHeader {
    /// Flag bits.
    pub flags: Flags,
    /// Audio or video.
    pub media_type: MediaType,
    /// How the payload is coded.
    pub codec: Codec,
    /// 0 for audio. For video the sender's layer; relays replace it by a number per sender.
    pub stream_id: u8,
    /// FEC ratio × 100; see [`encode_fec_ratio`].
    pub fec_ratio: u8,
    /// Packet counter, wrapping; audio and video count separately.
    pub seq: u32,
    /// Media time in ms since the sender's start, wrapping.
    pub timestamp: u32,
    /// Codec2: block id in the low byte, symbol index in the high one. Video: fragment index in the high byte,
    /// fragment count in the low one. Opus: 0.
    pub fec_block: u16,
}

impl MediaHeader {
    /// Length on the wire in bytes.
    pub const LEN: usize = 16;

    /// The header as it goes on the wire.
    pub const fn encode(&self) -> [u8; Self::LEN] {
        let seq = self.seq.to_be_bytes();
        let timestamp = self.timestamp.to_be_bytes();
        let fec_block = self.fec_block.to_be_bytes();
        [
            WIRE_VERSION,
            self.flags.bits(),
            self.media_type.id(),
            self.codec.id(),
            self.stream_id,
            self.fec_ratio,
            seq[0],
            seq[1],
            seq[2],
            seq[3],
            timestamp[0],
            timestamp[1],
            timestamp[2],
            timestamp[3],
            fec_block[0],
            fec_block[1],
        ]
    }

    /// Reads the header at the start of `datagram`; what follows it is not looked at.
    pub fn decode(datagram: &[u8]) -> Result<Self, HeaderError> {
        let Some(bytes) = datagram.first_chunk::<{ Self::LEN }>() else {
            return Err(HeaderError::TooShort { len: datagram.len() });
        };
        let &[
            version,
            flags,
            media_type,
            codec,
            stream_id,
            fec_ratio,
            s0,
            s1,
            s2,
            s3,
            t0,
            t1,
            t2,
            t3,
            f0,
            f1,
        ] = bytes;
        if version != WIRE_VERSION {
            return Err(HeaderError::Version(version));
        }
        Ok(Self {
            flags: Flags::from_bits_retain(flags),
            media_type: MediaType::from_id(media_type).ok_or(HeaderError::MediaType(media_type))?,
            codec: Codec::from_id(codec).ok_or(HeaderError::Codec(codec))?,
            stream_id,
            fec_ratio,
            seq: u32::from_be_bytes([s0, s1, s2, s3]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            fec_block: u16::from_be_bytes([f0, f1]),
        })
    }

    /// Video: position of this fragment in its frame, from 0.
    pub const fn fragment_index(&self) -> u8 {
        (self.fec_block >> 8) as u8
    }

    /// Video: how many fragments the frame has, 1–255; 0 is invalid.
    pub const fn fragment_count(&self) -> u8 {
        (self.fec_block & 0xff) as u8
    }

    /// Codec2: the FEC block this packet belongs to, wrapping at 256.
    pub const fn fec_block_id(&self) -> u8 {
        (self.fec_block & 0xff) as u8
    }

    /// Codec2: index of the source frame in its block, or of the repair symbol (counted on from the source frames).
    pub const fn fec_symbol_index(&self) -> u8 {
        (self.fec_block >> 8) as u8
    }

    /// Whether [`Flags::KEYFRAME`] is set.
    pub const fn is_keyframe(&self) -> bool {
        self.flags.contains(Flags::KEYFRAME)
    }

    /// Whether [`Flags::REPAIR`] is set.
    pub const fn is_repair(&self) -> bool {
        self.flags.contains(Flags::REPAIR)
    }
}

/// The `fec_ratio` byte for a ratio: × 100, rounded, at most 255.
pub fn encode_fec_ratio(ratio: f32) -> u8 {
    // A float-to-int `as` saturates and takes NaN to 0.
    (ratio * 100.0).round() as u8
}

/// Why 16 bytes are not a media header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer than 16 bytes.
    #[error("datagram of {len} bytes is too short for a media header, which takes 16")]
    TooShort {
        /// Length of what came.
        len: usize,
    },
    /// Another wire version, for instance a v1 client's.
    #[error("first byte {0:#04x} is not wire version 2; the sender speaks another version or another form")]
    Version(u8),
    /// No such media type.
    #[error("media type {0} is unknown; the protocol has 0 to 3")]
    MediaType(u8),
    /// No such codec.
    #[error("codec id {0} is unknown; the protocol has 0 to 9, 11 and 12")]
    Codec(u8),
}

//! Video frames cut into packets and put together again (WZP wire v2, section 7).
//!
//! A frame is one access unit or temporal unit. It is cut without looking inside; the first fragment may begin with the
//! picture's size. Fragments of one frame share a timestamp and carry index and count in `fec_block`.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::header::{Flags, MediaHeader};

mod reassembly;

pub use reassembly::{AssembledFrame, Reassembler, ReassemblyError, ReassemblyLimits, ReassemblyStats};

/// Most fragments a frame can have: the count is one byte.
pub const MAX_FRAGMENTS: usize = 255;

/// Payload bytes per fragment that fit every path: 16 + 1100 is below QUIC's 1162-byte datagrams at MTU 1200.
pub const FRAGMENT_PAYLOAD: usize = 1100;

/// First bytes of a frame that carries its size.
const SIZE_MAGIC: [u8; 4] = *b"WZV1";
const SIZE_PREFIX: usize = 8;

/// Size of a picture in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameSize {
    /// Pixels per line.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// Cuts a frame into payloads of at most `max_payload` bytes.
///
/// With a size, the first payload begins with `WZV1`, width and height, and is a copy; all others are slices.
pub fn fragments(payload: &Bytes, size: Option<FrameSize>, max_payload: usize) -> Result<Vec<Bytes>, FragmentError> {
    let prefix = if size.is_some() { SIZE_PREFIX } else { 0 };
    if max_payload <= prefix {
        return Err(FragmentError::PayloadTooSmall { max_payload });
    }
    if payload.is_empty() {
        return Err(FragmentError::Empty);
    }
    let count = (payload.len() + prefix).div_ceil(max_payload);
    if count > MAX_FRAGMENTS {
        return Err(FragmentError::TooLarge {
            len: payload.len(),
            max: MAX_FRAGMENTS * max_payload - prefix,
        });
    }
    let mut parts = Vec::with_capacity(count);
    let mut rest = payload.clone();
    if let Some(size) = size {
        let head = rest.split_to(rest.len().min(max_payload - SIZE_PREFIX));
        let mut first = BytesMut::with_capacity(SIZE_PREFIX + head.len());
        first.put_slice(&SIZE_MAGIC);
        first.put_u16(size.width);
        first.put_u16(size.height);
        first.put_slice(&head);
        parts.push(first.freeze());
    }
    while !rest.is_empty() {
        parts.push(rest.split_to(rest.len().min(max_payload)));
    }
    Ok(parts)
}

/// The header of fragment `index` of `count`, from the header of the frame's first packet: sequence number, fragment
/// field and FRAME_END are set, all else is the frame's.
pub fn fragment_header(frame: &MediaHeader, index: u8, count: u8) -> MediaHeader {
    let mut header = *frame;
    header.seq = frame.seq.wrapping_add(u32::from(index));
    header.fec_block = u16::from_be_bytes([index, count]);
    header
        .flags
        .set(Flags::FRAME_END, u16::from(index) + 1 == u16::from(count));
    header
}

/// Takes the size prefix off a whole frame. A prefix that says zero is taken off, but is no size.
fn strip_size(frame: &mut Bytes) -> Option<FrameSize> {
    if frame.len() < SIZE_PREFIX || !frame.starts_with(&SIZE_MAGIC) {
        return None;
    }
    frame.advance(SIZE_MAGIC.len());
    let size = FrameSize {
        width: frame.get_u16(),
        height: frame.get_u16(),
    };
    (size.width > 0 && size.height > 0).then_some(size)
}

/// Why a frame cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// A frame without bytes.
    #[error("the frame is empty; there is nothing to send")]
    Empty,
    /// No room for payload.
    #[error("{max_payload} bytes per fragment leave no room for the frame; use at least 9")]
    PayloadTooSmall {
        /// What was asked for.
        max_payload: usize,
    },
    /// More than 255 fragments.
    #[error("the frame of {len} bytes does not fit 255 fragments ({max} bytes); lower its resolution or bit rate")]
    TooLarge {
        /// Bytes of the frame.
        len: usize,
        /// Most bytes a frame may have with this fragment size.
        max: usize,
    },
}

//! RaptorQ repair of Codec2 frames (WZP wire v2, section 6.3).
//!
//! Source packets carry bare frames. Repair packets are computed over symbols of 256 bytes: a little-endian length, the
//! frame, zeros. How many source frames a block has is not said; it is learned from where the repair symbols begin.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raptorq::{EncodingPacket, ObjectTransmissionInformation, PayloadId, SourceBlockDecoder, SourceBlockEncoder};

use crate::codec::Codec;
use crate::header::{Flags, MediaHeader};
use crate::packet::MediaPacket;

/// Bytes per symbol.
pub const SYMBOL_LEN: usize = 256;
/// Longest frame that fits a symbol.
pub const MAX_FRAME_LEN: usize = SYMBOL_LEN - 2;
/// Most source frames per block that are repaired; natives use 8.
pub const MAX_BLOCK_FRAMES: usize = 64;

/// Blocks of which packets are kept.
const BLOCKS: usize = 4;
/// Block numbers wrap; one that comes again after this much media time is another block.
const BLOCK_AGE_MS: u32 = 10_000;

/// The repair symbols of a block. The first one has the index `frames.len()`.
pub fn repair_symbols(frames: &[&[u8]], count: u8) -> Result<Vec<Bytes>, FecError> {
    if frames.is_empty() || frames.len() > MAX_BLOCK_FRAMES {
        return Err(FecError::BlockSize { frames: frames.len() });
    }
    let mut data = Vec::with_capacity(frames.len() * SYMBOL_LEN);
    for frame in frames {
        data.extend_from_slice(&symbol(frame).ok_or(FecError::FrameTooLong { len: frame.len() })?);
    }
    let encoder = SourceBlockEncoder::new(0, &block_parameters(frames.len()), &data);
    let packets = encoder.repair_packets(0, u32::from(count));
    Ok(packets.into_iter().map(|packet| packet.split().1.into()).collect())
}

/// A frame that was lost and computed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredFrame {
    /// The header that its packet must have had, as far as it matters: number, time, codec and place in the block.
    pub header: MediaHeader,
    /// The coded frame.
    pub payload: Bytes,
}

/// Counters of a [`FecDecoder`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FecStats {
    /// Frames computed again.
    pub recovered: u64,
    /// Repair packets that cannot be right, or results that are no frames.
    pub ignored: u64,
}

/// Computes lost Codec2 frames of one sender from its repair packets.
#[derive(Debug, Default)]
pub struct FecDecoder {
    codec: Option<Codec>,
    /// Lowest index that a repair symbol has had. Once packets fill the space below, the number of source frames.
    repair_begin: Option<u8>,
    /// Highest index that a source frame has had.
    source_end: Option<u8>,
    blocks: VecDeque<Block>,
    stats: FecStats,
}

#[derive(Debug)]
struct Block {
    id: u8,
    timestamp: u32,
    /// A source packet of the block, from which the others' headers follow.
    source: Option<MediaHeader>,
    frames: BTreeMap<u8, Bytes>,
    repair: BTreeMap<u8, Bytes>,
    done: bool,
}

impl FecDecoder {
    /// A decoder that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a packet, source or repair, and returns the frames that can be computed now. Packets of other codecs and
    /// repair packets that make no sense are ignored.
    pub fn push(&mut self, packet: &MediaPacket) -> Vec<RecoveredFrame> {
        let header = &packet.header;
        if !header.codec.is_codec2() {
            return Vec::new();
        }
        if self.codec.replace(header.codec) != Some(header.codec) {
            self.start_again();
        }
        let index = header.fec_symbol_index();
        let fits = if header.is_repair() {
            packet.payload.len() == SYMBOL_LEN && usize::from(index) < 2 * MAX_BLOCK_FRAMES
        } else {
            packet.payload.len() <= MAX_FRAME_LEN && usize::from(index) < MAX_BLOCK_FRAMES
        };
        if !fits {
            self.stats.ignored += u64::from(header.is_repair());
            return Vec::new();
        }
        self.learn(index, header.is_repair());
        let position = self.block(header);
        let Some(block) = self.blocks.get_mut(position) else {
            return Vec::new();
        };
        if header.is_repair() {
            block.repair.insert(index, packet.payload.clone());
        } else {
            block.frames.insert(index, packet.payload.clone());
            block.source.get_or_insert(*header);
        }
        match self.block_frames() {
            Some(frames) => self.recover(position, frames, header.codec),
            None => Vec::new(),
        }
    }

    /// How many source frames the sender's blocks have, once that is known.
    pub fn block_frames(&self) -> Option<u8> {
        match (self.repair_begin, self.source_end) {
            (Some(begin), Some(end)) if begin == end + 1 => Some(begin),
            _ => None,
        }
    }

    /// Counters since the start.
    pub fn stats(&self) -> FecStats {
        self.stats
    }

    /// A repair symbol below a source frame, or the reverse, means that the sender has changed its blocks.
    fn learn(&mut self, index: u8, repair: bool) {
        let contradiction = if repair {
            self.source_end.is_some_and(|end| index <= end)
        } else {
            self.repair_begin.is_some_and(|begin| index >= begin)
        };
        if contradiction {
            self.start_again();
        }
        let seen = if repair {
            &mut self.repair_begin
        } else {
            &mut self.source_end
        };
        *seen = Some(match *seen {
            Some(other) if repair => index.min(other),
            Some(other) => index.max(other),
            None => index,
        });
    }

    fn start_again(&mut self) {
        self.repair_begin = None;
        self.source_end = None;
        self.blocks.clear();
    }

    /// Position of the packet's block, which may be a new one.
    fn block(&mut self, header: &MediaHeader) -> usize {
        let id = header.fec_block_id();
        let near = |block: &Block| {
            header
                .timestamp
                .wrapping_sub(block.timestamp)
                .min(block.timestamp.wrapping_sub(header.timestamp))
                <= BLOCK_AGE_MS
        };
        self.blocks.retain(|block| block.id != id || near(block));
        if let Some(position) = self.blocks.iter().position(|block| block.id == id) {
            return position;
        }
        if self.blocks.len() == BLOCKS {
            self.blocks.pop_front();
        }
        self.blocks.push_back(Block {
            id,
            timestamp: header.timestamp,
            source: None,
            frames: BTreeMap::new(),
            repair: BTreeMap::new(),
            done: false,
        });
        self.blocks.len() - 1
    }

    fn recover(&mut self, position: usize, source_frames: u8, codec: Codec) -> Vec<RecoveredFrame> {
        let Some(block) = self.blocks.get_mut(position) else {
            return Vec::new();
        };
        let missing: Vec<u8> = (0..source_frames)
            .filter(|index| !block.frames.contains_key(index))
            .collect();
        let Some(source) = block.source.filter(|_| !block.done && !missing.is_empty()) else {
            return Vec::new();
        };
        if block.repair.len() < missing.len() {
            return Vec::new();
        }
        let mut decoder = SourceBlockDecoder::new(
            0,
            &block_parameters(usize::from(source_frames)),
            u64::from(source_frames) * SYMBOL_LEN as u64,
        );
        let symbols = block
            .frames
            .iter()
            .filter_map(|(index, frame)| Some((*index, symbol(frame)?.to_vec())));
        let repair = block.repair.iter().map(|(index, payload)| (*index, payload.to_vec()));
        let packets: Vec<_> = symbols
            .chain(repair)
            .map(|(index, data)| EncodingPacket::new(PayloadId::new(0, u32::from(index)), data))
            .collect();
        let Some(data) = decoder.decode(packets) else {
            return Vec::new();
        };
        block.done = true;
        let mut recovered = Vec::with_capacity(missing.len());
        for index in missing {
            let symbol = data.chunks_exact(SYMBOL_LEN).nth(usize::from(index));
            match symbol.and_then(|symbol| frame_of(symbol, codec)) {
                Some(payload) => recovered.push(RecoveredFrame {
                    header: header_at(&source, index),
                    payload,
                }),
                None => self.stats.ignored += 1,
            }
        }
        self.stats.recovered += recovered.len() as u64;
        recovered
    }
}

/// Default parameters of an object that is one block of this many symbols.
fn block_parameters(source_frames: usize) -> ObjectTransmissionInformation {
    ObjectTransmissionInformation::with_defaults((source_frames * SYMBOL_LEN) as u64, SYMBOL_LEN as u16)
}

fn symbol(frame: &[u8]) -> Option<[u8; SYMBOL_LEN]> {
    let mut symbol = [0; SYMBOL_LEN];
    let len = u16::try_from(frame.len()).ok()?;
    symbol[..2].copy_from_slice(&len.to_le_bytes());
    symbol.get_mut(2..2 + frame.len())?.copy_from_slice(frame);
    Some(symbol)
}

/// The frame in a computed symbol, if that can be a frame of the codec.
fn frame_of(symbol: &[u8], codec: Codec) -> Option<Bytes> {
    let (len, rest) = symbol.split_first_chunk()?;
    let len = usize::from(u16::from_le_bytes(*len));
    let expected = match codec {
        Codec::Codec2_3200 => 8,
        _ => 6,
    };
    (len == expected && rest[len..].iter().all(|byte| *byte == 0)).then(|| Bytes::copy_from_slice(&rest[..len]))
}

/// The header of source frame `index`, seen from another source packet of its block.
fn header_at(source: &MediaHeader, index: u8) -> MediaHeader {
    let steps = u32::from(index).wrapping_sub(u32::from(source.fec_symbol_index()));
    let mut header = *source;
    header.flags = Flags::empty();
    header.seq = source.seq.wrapping_add(steps);
    header.timestamp = source
        .timestamp
        .wrapping_add(steps.wrapping_mul(source.codec.frame_ms()));
    header.fec_block = u16::from_be_bytes([index, source.fec_block_id()]);
    header
}

/// Why a block cannot be protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FecError {
    /// No frames, or too many.
    #[error("a block has 1 to 64 frames, not {frames}")]
    BlockSize {
        /// How many there were.
        frames: usize,
    },
    /// A frame longer than a symbol.
    #[error("a frame of {len} bytes does not fit a symbol, which takes 254")]
    FrameTooLong {
        /// Its length in bytes.
        len: usize,
    },
}

//! The little of AV1 (AV1 bitstream specification) that packets are made of.

use bytes::{BufMut as _, Bytes, BytesMut};

/// OBU types (section 6.2.2).
pub const SEQUENCE_HEADER: u8 = 1;
/// Start of a temporal unit; not sent over RTP.
pub const TEMPORAL_DELIMITER: u8 = 2;
/// Frame header without tiles.
pub const FRAME_HEADER: u8 = 3;
/// Frame header with tiles.
pub const FRAME: u8 = 6;
/// Large-scale tiles; not sent over RTP.
pub const TILE_LIST: u8 = 8;
/// Padding; not sent over RTP.
pub const PADDING: u8 = 15;

const HAS_EXTENSION: u8 = 0b100;
const HAS_SIZE: u8 = 0b010;

/// The bytes are not a sequence of OBUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the OBU is cut short or its size field does not fit")]
pub struct MalformedObu;

/// One open bitstream unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obu {
    /// Its type.
    pub kind: u8,
    header: u8,
    extension: Option<u8>,
    /// What follows header and size.
    pub payload: Bytes,
}

impl Obu {
    /// Reads one OBU that takes up all of `bytes`, as in an RTP packet, with or without size field.
    ///
    /// # Errors
    /// [`MalformedObu`].
    pub fn read(bytes: &Bytes) -> Result<Self, MalformedObu> {
        let (obu, used) = Self::read_first(bytes)?;
        if used == bytes.len() {
            Ok(obu)
        } else {
            Err(MalformedObu)
        }
    }

    fn read_first(bytes: &Bytes) -> Result<(Self, usize), MalformedObu> {
        let header = *bytes.first().ok_or(MalformedObu)?;
        let mut at = 1;
        let mut extension = None;
        if header & HAS_EXTENSION != 0 {
            extension = Some(*bytes.get(at).ok_or(MalformedObu)?);
            at += 1;
        }
        let end = if header & HAS_SIZE != 0 {
            let (size, used) = read_leb128(&bytes[at..]).ok_or(MalformedObu)?;
            at += used;
            at.checked_add(size)
                .filter(|&end| end <= bytes.len())
                .ok_or(MalformedObu)?
        } else {
            bytes.len()
        };
        let obu = Self {
            kind: header >> 3 & 0xf,
            header: header & !HAS_SIZE,
            extension,
            payload: bytes.slice(at..end),
        };
        Ok((obu, end))
    }

    /// Whether it goes over RTP.
    #[must_use]
    pub fn is_transmitted(&self) -> bool {
        !matches!(self.kind, TEMPORAL_DELIMITER | TILE_LIST | PADDING)
    }

    /// The OBU as RTP carries it.
    #[must_use]
    pub fn without_size(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(2 + self.payload.len());
        out.put_u8(self.header);
        out.extend(self.extension);
        out.extend_from_slice(&self.payload);
        out.freeze()
    }

    /// Appends the OBU with a size field.
    pub fn write_with_size(&self, out: &mut BytesMut) {
        out.put_u8(self.header | HAS_SIZE);
        out.extend(self.extension);
        put_leb128(out, self.payload.len());
        out.extend_from_slice(&self.payload);
    }

    /// Whether a frame (or its header) is a keyframe that is shown or decoded now: `show_existing_frame` 0 and
    /// `frame_type` KEY_FRAME (section 5.9.2). Not right for reduced still pictures, which nobody streams.
    #[must_use]
    pub fn is_key_frame(&self) -> bool {
        matches!(self.kind, FRAME | FRAME_HEADER) && self.payload.first().is_some_and(|byte| byte & 0xe0 == 0)
    }
}

/// The OBUs of a temporal unit.
pub struct Obus {
    rest: Bytes,
}

impl Obus {
    /// All but the last must have a size field.
    #[must_use]
    pub fn new(temporal_unit: &Bytes) -> Self {
        Self {
            rest: temporal_unit.clone(),
        }
    }
}

impl Iterator for Obus {
    type Item = Result<Obu, MalformedObu>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        Some(match Obu::read_first(&self.rest) {
            Ok((obu, used)) => {
                self.rest = self.rest.slice(used..);
                Ok(obu)
            }
            Err(error) => {
                self.rest.clear();
                Err(error)
            }
        })
    }
}

/// A LEB128 number of at most 4 bytes (larger ones do not fit in a frame), and how many bytes it took.
#[must_use]
pub fn read_leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// Appends a number as LEB128.
pub fn put_leb128(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Bytes that [`put_leb128`] takes.
#[must_use]
pub fn leb128_len(value: usize) -> usize {
    (usize::BITS - value.leading_zeros()).div_ceil(7).max(1) as usize
}

/// Largest width and height that a sequence header allows (section 5.5.1), in pixels. Encoders for calls use them as
/// the size of every frame.
#[must_use]
pub fn dimensions(sequence_header: &[u8]) -> Option<(u32, u32)> {
    let mut bits = Bits {
        bytes: sequence_header,
        at: 0,
    };
    bits.read(3)?; // seq_profile
    bits.read(1)?; // still_picture
    if bits.flag()? {
        bits.read(5)?;
    } else {
        let mut delay_length = None;
        if bits.flag()? {
            bits.read(64)?; // display tick, time scale
            if bits.flag()? {
                bits.skip_uvlc()?;
            }
            if bits.flag()? {
                delay_length = Some(bits.read(5)? as u32 + 1);
                bits.read(32 + 5 + 5)?;
            }
        }
        let display_delay = bits.flag()?;
        for _ in 0..=bits.read(5)? {
            bits.read(12)?; // operating_point_idc
            if bits.read(5)? > 7 {
                bits.read(1)?; // seq_tier
            }
            if let Some(length) = delay_length
                && bits.flag()?
            {
                bits.read(length)?;
                bits.read(length)?;
                bits.read(1)?;
            }
            if display_delay && bits.flag()? {
                bits.read(4)?;
            }
        }
    }
    let (width_bits, height_bits) = (bits.read(4)? as u32 + 1, bits.read(4)? as u32 + 1);
    let width = bits.read(width_bits)? as u32 + 1;
    Some((width, bits.read(height_bits)? as u32 + 1))
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn read(&mut self, count: u32) -> Option<u64> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u64::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    fn flag(&mut self) -> Option<bool> {
        self.read(1).map(|bit| bit == 1)
    }

    fn skip_uvlc(&mut self) -> Option<()> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros >= 32 {
                return Some(());
            }
        }
        self.read(zeros).map(drop)
    }
}

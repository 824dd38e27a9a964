//! The little of H.264 (ITU-T H.264, annex B and section 7.3) that packets are made of.

use bytes::Bytes;
use h264_reader::nal::sps::SeqParameterSet;
use h264_reader::nal::{Nal as _, RefNal};

/// NAL unit types.
pub const SLICE: u8 = 1;
/// Slice of an IDR picture.
pub const IDR: u8 = 5;
/// Supplemental information.
pub const SEI: u8 = 6;
/// Sequence parameter set.
pub const SPS: u8 = 7;
/// Picture parameter set.
pub const PPS: u8 = 8;
/// Access unit delimiter.
pub const DELIMITER: u8 = 9;
/// Filler data.
pub const FILLER: u8 = 12;
/// Aggregate of NAL units with one timestamp (RFC 6184).
pub const STAP_A: u8 = 24;
/// Fragment of a NAL unit (RFC 6184).
pub const FU_A: u8 = 28;

/// The type of a NAL unit.
#[must_use]
pub fn unit_type(unit: &[u8]) -> Option<u8> {
    unit.first().map(|byte| byte & 0x1f)
}

/// Whether a NAL unit may be the first of an access unit (section 7.4.1.2.3): a delimiter, a parameter set, SEI, or a
/// slice that begins at macroblock 0. A second slice of the same picture is not.
#[must_use]
pub fn starts_access_unit(unit: &[u8]) -> bool {
    match unit_type(unit) {
        Some(DELIMITER | SPS | PPS | SEI) => true,
        // first_mb_in_slice = 0 is the single bit 1 in Exp-Golomb.
        Some(SLICE | IDR) => unit.get(1).is_some_and(|byte| byte & 0x80 != 0),
        _ => false,
    }
}

/// Width and height in pixels that a sequence parameter set names, after cropping.
#[must_use]
pub fn dimensions(sps: &[u8]) -> Option<(u32, u32)> {
    if unit_type(sps) != Some(SPS) {
        return None;
    }
    let unit = RefNal::new(sps, &[], true);
    SeqParameterSet::from_bits(unit.rbsp_bits())
        .ok()?
        .pixel_dimensions()
        .ok()
}

/// The NAL units of an Annex B byte stream, without start codes, as slices of it.
pub struct NalUnits<'a> {
    stream: &'a Bytes,
    /// Where the next unit starts.
    at: Option<usize>,
}

impl<'a> NalUnits<'a> {
    /// What stands before the first start code is skipped.
    #[must_use]
    pub fn new(stream: &'a Bytes) -> Self {
        Self {
            stream,
            at: find_start_code(stream, 0).map(|(_, end)| end),
        }
    }
}

impl Iterator for NalUnits<'_> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let start = self.at?;
            let end = match find_start_code(self.stream, start) {
                Some((begin, end)) => {
                    self.at = Some(end);
                    begin
                }
                None => {
                    self.at = None;
                    self.stream.len()
                }
            };
            // Zeros after a unit belong to the byte stream (trailing_zero_8bits), also the first of a 4-byte start code.
            let length = self.stream[start..end]
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |last| last + 1);
            if length > 0 {
                return Some(self.stream.slice(start..start + length));
            }
        }
    }
}

/// The next `00 00 01` from `from` on: where it starts and where the unit after it does.
fn find_start_code(stream: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut at = from;
    while let Some(&third) = stream.get(at + 2) {
        match third {
            0 => at += 1,
            1 if stream[at] == 0 && stream[at + 1] == 0 => return Some((at, at + 3)),
            _ => at += 3,
        }
    }
    None
}

//! H.264 access units in Annex B form: NAL units, parameter sets, keyframes (ITU-T H.264, sections 7.3 and B.1).

use bytes::{BufMut, Bytes, BytesMut};
use h264_reader::nal::sps::SeqParameterSet;
use h264_reader::rbsp::{BitRead as _, BitReader, ByteReader};
use memchr::memmem;
use wzp_proto::video::FrameSize;

/// Largest number of NAL units in one frame; an encoder writes one per slice.
pub const MAX_NAL_UNITS: usize = 256;
/// Largest parameter set that is remembered, bytes.
const MAX_PARAMETER_SET: usize = 1024;
const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// `nal_unit_type` values that matter here (ITU-T H.264, table 7-1).
pub mod nal_type {
    /// Coded slice of a non-IDR picture.
    pub const SLICE: u8 = 1;
    /// Coded slice of an IDR picture.
    pub const IDR: u8 = 5;
    /// Supplemental enhancement information.
    pub const SEI: u8 = 6;
    /// Sequence parameter set.
    pub const SPS: u8 = 7;
    /// Picture parameter set.
    pub const PPS: u8 = 8;
    /// Access unit delimiter.
    pub const AUD: u8 = 9;
}

/// The `nal_unit_type` of a NAL unit without start code.
pub fn nal_unit_type(nal_unit: &[u8]) -> u8 {
    nal_unit.first().map_or(0, |byte| byte & 0x1f)
}

/// The NAL units of an Annex B byte stream, without start codes; both start code lengths are understood.
pub fn nal_units(stream: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let mut starts = memmem::find_iter(stream, &[0, 0, 1]);
    let mut next = starts.next();
    std::iter::from_fn(move || {
        loop {
            let start = next? + 3;
            next = starts.next();
            let mut end = next.unwrap_or(stream.len());
            // Zero bytes before a start code are its own, or trailing_zero_8bits; a NAL unit never ends in zero.
            while end > start && stream[end - 1] == 0 {
                end -= 1;
            }
            if end > start {
                return Some(stream.slice(start..end));
            }
        }
    })
}

/// Whether the slice is of a B picture, which is sent after a picture that is shown later (`slice_type`, ITU-T H.264, table 7-6).
pub fn is_b_slice(nal_unit: &[u8]) -> bool {
    let coded = matches!(nal_unit_type(nal_unit), nal_type::SLICE | nal_type::IDR);
    let mut bits = BitReader::new(ByteReader::skipping_h264_header(nal_unit));
    let slice_type = bits
        .read_ue("first_mb_in_slice")
        .and_then(|_| bits.read_ue("slice_type"));
    coded && slice_type.is_ok_and(|slice_type| slice_type % 5 == 1)
}

/// Whether the slice is the first of its picture (`first_mb_in_slice` = 0, whose code is a single one bit).
pub fn is_first_slice(nal_unit: &[u8]) -> bool {
    nal_unit.get(1).is_some_and(|byte| byte & 0x80 != 0)
}

/// The picture size that an SPS (without start code) gives, cropping applied.
pub fn sps_size(nal_unit: &[u8]) -> Option<FrameSize> {
    let sps = SeqParameterSet::from_bits(BitReader::new(ByteReader::skipping_h264_header(nal_unit))).ok()?;
    let (width, height) = sps.pixel_dimensions().ok()?;
    Some(FrameSize {
        width: u16::try_from(width).ok()?,
        height: u16::try_from(height).ok()?,
    })
}

/// An access unit ready for a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessUnit {
    /// Annex B with four-byte start codes; a keyframe begins with SPS and PPS.
    pub payload: Bytes,
    /// Has an IDR slice.
    pub keyframe: bool,
    /// From the newest SPS.
    pub size: Option<FrameSize>,
}

/// Why a piece of a stream was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccessUnitError {
    /// No slice in it.
    #[error("the H.264 frame holds no picture slice; send whole Annex B access units")]
    NoPicture,
    /// An IDR picture without parameter sets, and none came before.
    #[error("the H.264 keyframe has no SPS and PPS, and none came before it; put both in front of every keyframe")]
    NoParameterSets,
    /// More NAL units than an encoder makes.
    #[error("the H.264 frame has more than {MAX_NAL_UNITS} NAL units; use fewer slices")]
    TooManyNalUnits,
}

/// Normalises one source's H.264: splits what holds several access units (WZP wire v2, section 7.2: encoders of phones join
/// them), remembers parameter sets, and puts them in front of every keyframe that lacks them.
#[derive(Debug, Clone, Default)]
pub struct Normalizer {
    sps: Option<Bytes>,
    pps: Vec<Bytes>,
    size: Option<FrameSize>,
}

impl Normalizer {
    /// The access units in `stream`, in order.
    ///
    /// # Errors
    /// Nothing decodable is in it, or too much; parameter sets that it carries are remembered all the same.
    pub fn push(&mut self, stream: &Bytes) -> Result<Vec<AccessUnit>, AccessUnitError> {
        let mut units = Vec::with_capacity(1);
        let mut current: Vec<Bytes> = Vec::with_capacity(8);
        let mut has_slice = false;
        let mut missing = false;
        for (count, nal_unit) in nal_units(stream).enumerate() {
            if count == MAX_NAL_UNITS {
                return Err(AccessUnitError::TooManyNalUnits);
            }
            let kind = nal_unit_type(&nal_unit);
            let slice = matches!(kind, nal_type::SLICE..=nal_type::IDR);
            let opens = matches!(kind, nal_type::SEI..=nal_type::AUD) || (slice && is_first_slice(&nal_unit));
            if opens && has_slice {
                missing |= !self.finish(&mut current, &mut units);
                has_slice = false;
            }
            self.remember(kind, &nal_unit);
            has_slice |= slice;
            if !matches!(kind, nal_type::AUD | 10..=12) {
                current.push(nal_unit);
            }
        }
        if has_slice {
            missing |= !self.finish(&mut current, &mut units);
        }
        match (units.is_empty(), missing) {
            (false, _) => Ok(units),
            (true, true) => Err(AccessUnitError::NoParameterSets),
            (true, false) => Err(AccessUnitError::NoPicture),
        }
    }

    fn remember(&mut self, kind: u8, nal_unit: &Bytes) {
        if nal_unit.len() > MAX_PARAMETER_SET {
            return;
        }
        match kind {
            nal_type::SPS if self.sps.as_ref() != Some(nal_unit) => {
                self.size = sps_size(nal_unit);
                self.sps = Some(Bytes::copy_from_slice(nal_unit));
                self.pps.clear();
            }
            nal_type::PPS if self.pps.last() != Some(nal_unit) => {
                // Equal ids would need exponential Golomb codes to tell: the one that was seen last comes last and wins, and
                // the newest few are enough for any encoder of a call.
                self.pps.retain(|pps| pps != nal_unit);
                if self.pps.len() >= 4 {
                    self.pps.remove(0);
                }
                self.pps.push(Bytes::copy_from_slice(nal_unit));
            }
            _ => {}
        }
    }

    /// Writes the collected NAL units as one access unit; false if it is a keyframe without parameter sets.
    fn finish(&self, current: &mut Vec<Bytes>, units: &mut Vec<AccessUnit>) -> bool {
        let keyframe = current.iter().any(|nal_unit| nal_unit_type(nal_unit) == nal_type::IDR);
        let has = |wanted| current.iter().any(|nal_unit| nal_unit_type(nal_unit) == wanted);
        let (has_sps, has_pps) = (has(nal_type::SPS), has(nal_type::PPS));
        let mut parts: Vec<&Bytes> = Vec::with_capacity(current.len() + 2);
        if keyframe {
            if !has_sps {
                let Some(sps) = &self.sps else {
                    current.clear();
                    return false;
                };
                parts.push(sps);
            }
            if !has_pps {
                if self.pps.is_empty() {
                    current.clear();
                    return false;
                }
                // After an SPS of this unit's own, PPS must follow it: the rare case is sorted below.
                parts.extend(&self.pps);
            }
        }
        parts.extend(current.iter());
        if keyframe && has_sps && !has_pps {
            parts.sort_by_key(|nal_unit| match nal_unit_type(nal_unit) {
                nal_type::SPS => 0,
                nal_type::PPS => 1,
                _ => 2,
            });
        }
        let mut payload = BytesMut::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
        for part in parts {
            payload.put_slice(&START_CODE);
            payload.put_slice(part);
        }
        current.clear();
        units.push(AccessUnit {
            payload: payload.freeze(),
            keyframe,
            size: self.size,
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// SPS of a 640×360 baseline stream by x264, and its PPS.
    const SPS: &[u8] = &[
        0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00,
        0x03, 0x00, 0x3c, 0x0f, 0x16, 0x2e, 0x48,
    ];
    const PPS: &[u8] = &[0x68, 0xcb, 0x83, 0xcb, 0x20];
    const IDR: &[u8] = &[0x65, 0x88, 0x84, 0x11];
    const IDR_SECOND_SLICE: &[u8] = &[0x65, 0x08, 0x84, 0x12];
    const DELTA: &[u8] = &[0x41, 0x9a, 0x11, 0x22];

    fn annexb(nal_units: &[&[u8]]) -> Bytes {
        let mut out = Vec::new();
        for (i, nal_unit) in nal_units.iter().enumerate() {
            out.extend_from_slice(if i % 2 == 0 { &[0, 0, 0, 1] } else { &[0, 0, 1] });
            out.extend_from_slice(nal_unit);
        }
        out.into()
    }

    #[test]
    fn b_slices_are_told_from_others() {
        // first_mb_in_slice 0 is the bit 1; slice_type follows: 0 is 1, 1 is 010, 6 is 00111, 7 is 0001000.
        assert!(is_b_slice(&[0x01, 0b1010_0000, 0x80]));
        assert!(is_b_slice(&[0x01, 0b1001_1100, 0x80]));
        assert!(!is_b_slice(&[0x65, 0b1000_1000, 0x80]));
        assert!(!is_b_slice(&[0x41, 0b1100_0000, 0x80]));
        assert!(!is_b_slice(&[0x67, 0b1010_0000, 0x80]), "a parameter set");
        assert!(!is_b_slice(&[0x01]) && !is_b_slice(&[]));
    }

    #[test]
    fn size_comes_from_the_sps() {
        assert_eq!(
            sps_size(SPS),
            Some(FrameSize {
                width: 640,
                height: 360
            })
        );
        assert_eq!(sps_size(&[0x67]), None);
    }

    #[test]
    fn keyframe_without_parameter_sets_gets_those_of_before() {
        let mut normalizer = Normalizer::default();
        assert_eq!(normalizer.push(&annexb(&[IDR])), Err(AccessUnitError::NoParameterSets));
        assert_eq!(normalizer.push(&annexb(&[SPS, PPS])), Err(AccessUnitError::NoPicture));
        let units = normalizer.push(&annexb(&[IDR])).unwrap();
        let kinds: Vec<u8> = nal_units(&units[0].payload)
            .map(|nal_unit| nal_unit_type(&nal_unit))
            .collect();
        assert_eq!(kinds, [7, 8, 5]);
        assert!(units[0].keyframe);
        assert_eq!(
            units[0].size,
            Some(FrameSize {
                width: 640,
                height: 360
            })
        );
    }

    #[test]
    fn picture_set_that_was_seen_last_wins() {
        const OTHER_PPS: &[u8] = &[0x68, 0xcb, 0x83, 0xcb, 0x21];
        let mut normalizer = Normalizer::default();
        for pps in [PPS, OTHER_PPS, PPS] {
            normalizer.push(&annexb(&[SPS, pps, IDR])).unwrap();
        }
        let units = normalizer.push(&annexb(&[IDR])).unwrap();
        let sets: Vec<_> = nal_units(&units[0].payload)
            .filter(|nal_unit| nal_unit_type(nal_unit) == nal_type::PPS)
            .collect();
        assert_eq!(sets.last().map(|pps| &pps[..]), Some(PPS));
    }

    #[test]
    fn joined_access_units_come_apart_and_slices_stay_together() {
        let mut normalizer = Normalizer::default();
        let units = normalizer
            .push(&annexb(&[SPS, PPS, IDR, IDR_SECOND_SLICE, DELTA, DELTA]))
            .unwrap();
        assert_eq!(
            units.iter().map(|unit| unit.keyframe).collect::<Vec<_>>(),
            [true, false, false]
        );
        assert_eq!(nal_units(&units[0].payload).count(), 4);
    }

    #[test]
    fn missing_picture_set_goes_between_sequence_set_and_picture() {
        let mut normalizer = Normalizer::default();
        normalizer.push(&annexb(&[SPS, PPS, IDR])).unwrap();
        let units = normalizer.push(&annexb(&[SPS, IDR])).unwrap();
        let kinds: Vec<u8> = nal_units(&units[0].payload)
            .map(|nal_unit| nal_unit_type(&nal_unit))
            .collect();
        assert_eq!(kinds, [7, 8, 5]);
    }

    #[test]
    fn frame_of_too_many_slices_is_refused_not_cut() {
        let mut normalizer = Normalizer::default();
        let mut parts = vec![SPS, PPS, IDR];
        parts.resize(MAX_NAL_UNITS, IDR_SECOND_SLICE);
        let units = normalizer.push(&annexb(&parts)).unwrap();
        assert_eq!(nal_units(&units[0].payload).count(), MAX_NAL_UNITS);
        parts.push(IDR_SECOND_SLICE);
        assert_eq!(normalizer.push(&annexb(&parts)), Err(AccessUnitError::TooManyNalUnits));
    }

    /// Writes bits as a raw byte sequence payload, and that with emulation prevention (ITU-T H.264, sections 7.3.1, 9.1).
    #[derive(Default)]
    struct Bits(Vec<bool>);

    impl Bits {
        fn put(&mut self, value: u64, count: u32) {
            self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
        }

        fn ue(&mut self, value: u32) {
            let code = u64::from(value) + 1;
            let length = 64 - code.leading_zeros();
            self.put(0, length - 1);
            self.put(code, length);
        }

        fn nal_unit(&self, header: u8) -> Vec<u8> {
            let mut out = vec![header];
            let mut zeros = 0;
            for chunk in self.0.chunks(8) {
                let byte = (0..8).fold(0, |byte, bit| byte << 1 | u8::from(chunk.get(bit) == Some(&true)));
                if zeros >= 2 && byte <= 3 {
                    out.push(3);
                    zeros = 0;
                }
                zeros = if byte == 0 { zeros + 1 } else { 0 };
                out.push(byte);
            }
            out
        }
    }

    /// A sequence parameter set: its profile, three numbers up to the order of pictures, those of references, width and height,
    /// cropping, whether it has frames only, and what follows.
    fn sps(profile: u64, start: &[u32], sizes: &[u32], crop: Option<&[u32]>, frames: bool, rest: Vec<bool>) -> Bits {
        let mut sps = Bits::default();
        sps.put(profile, 8);
        sps.put(0, 8);
        sps.put(30, 8);
        for value in start {
            sps.ue(*value);
        }
        sps.ue(sizes[0] % 17);
        // No gaps in the numbers of frames.
        sps.put(0, 1);
        sps.ue(sizes[1]);
        sps.ue(sizes[2]);
        sps.put(u64::from(frames), 1);
        if !frames {
            sps.put(0, 1);
        }
        // Direct inference.
        sps.put(1, 1);
        sps.put(u64::from(crop.is_some()), 1);
        for value in crop.into_iter().flatten() {
            sps.ue(*value);
        }
        sps.0.extend(rest);
        sps.put(1, 1);
        sps
    }

    #[test]
    fn sets_of_these_tests_are_sets() {
        let size =
            |crop, frames| sps_size(&sps(66, &[0, 0, 2], &[1, 39, 22], crop, frames, vec![false]).nal_unit(0x67));
        let [width, height] = [640, 368];
        assert_eq!(size(None, true), Some(FrameSize { width, height }));
        assert_eq!(size(Some(&[0, 0, 0, 4]), true), Some(FrameSize { width, height: 360 }));
        assert_eq!(size(None, false), Some(FrameSize { width, height: 736 }));
    }

    /// Numbers at the edges of what a code can say, and ordinary ones.
    fn numbers() -> impl Strategy<Value = u32> {
        prop_oneof![
            0u32..64,
            any::<u32>(),
            Just(u32::MAX - 1),
            Just(u32::MAX),
            Just(i32::MAX as u32),
            Just(0x0fff_ffff),
        ]
    }

    proptest! {
        #[test]
        fn size_of_any_picture_is_told_or_not(
            profile in prop_oneof![Just(66u64), Just(100), Just(244), any::<u8>().prop_map(u64::from)],
            start in proptest::collection::vec(0u32..4, 3),
            sizes in proptest::collection::vec(numbers(), 3),
            crop in proptest::option::of(proptest::collection::vec(numbers(), 4)),
            frames in any::<bool>(),
            rest in proptest::collection::vec(any::<bool>(), 0..200),
        ) {
            sps_size(&sps(profile, &start, &sizes, crop.as_deref(), frames, rest).nal_unit(0x67));
        }

        #[test]
        fn size_of_a_spoilt_set_is_told_or_not(flips in proptest::collection::vec(0..SPS.len() * 8, 0..12), len in 1..=SPS.len()) {
            let mut sps = SPS.to_vec();
            for flip in flips {
                sps[flip / 8] ^= 0x80 >> (flip % 8);
            }
            sps_size(&sps[..len]);
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(1u8), any::<u8>()], 0..600)) {
            let mut normalizer = Normalizer::default();
            normalizer.push(&annexb(&[SPS, PPS])).ok();
            if let Ok(units) = normalizer.push(&Bytes::from(bytes)) {
                for unit in units {
                    prop_assert!(nal_units(&unit.payload).count() > 0);
                }
            }
        }

        #[test]
        fn normalising_twice_changes_nothing(count in 1usize..6) {
            let mut parts = vec![SPS, PPS, IDR, IDR_SECOND_SLICE];
            parts.extend(std::iter::repeat_n(DELTA, count));
            let mut normalizer = Normalizer::default();
            for unit in normalizer.push(&annexb(&parts)).unwrap() {
                prop_assert_eq!(normalizer.push(&unit.payload).unwrap(), vec![unit]);
            }
        }
    }
}

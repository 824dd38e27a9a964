//! AV1 temporal units: OBUs with size fields, keyframes, picture size (AV1 bitstream specification, section 5.3).

use bytes::{BufMut, Bytes, BytesMut};
use scuffle_av1::seq::SequenceHeaderObu;
use scuffle_av1::{ObuHeader, ObuType};
use wzp_proto::video::FrameSize;

const OBU_SEQUENCE_HEADER: u8 = 1;
const OBU_TEMPORAL_DELIMITER: u8 = 2;
const OBU_FRAME_HEADER: u8 = 3;
const OBU_FRAME: u8 = 6;
const OBU_PADDING: u8 = 15;
/// Largest number of OBUs in one temporal unit.
pub const MAX_OBUS: usize = 256;
/// Largest sequence header that is remembered, bytes.
const MAX_SEQUENCE_HEADER: usize = 256;

/// Why a temporal unit was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemporalUnitError {
    /// An OBU runs past the end, or has no size field.
    #[error("the AV1 frame is cut off or its OBUs have no size fields; send low-overhead temporal units")]
    Malformed,
    /// No frame in it.
    #[error("the AV1 temporal unit holds no picture")]
    NoPicture,
    /// A key frame, and no sequence header came with it or before it.
    #[error("the AV1 key frame has no sequence header, and none came before it")]
    NoSequenceHeader,
}

/// One OBU of a temporal unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obu {
    /// `obu_type`.
    pub kind: u8,
    /// The OBU as it stands, header and size field included.
    pub whole: Bytes,
    /// Its payload.
    pub payload: Bytes,
}

/// The OBUs of a temporal unit whose OBUs all have size fields.
///
/// # Errors
/// [`TemporalUnitError::Malformed`].
pub fn obus(unit: &Bytes) -> Result<Vec<Obu>, TemporalUnitError> {
    let mut out = Vec::with_capacity(4);
    let mut at = 0;
    while at < unit.len() {
        let header = unit[at];
        if header & 0x80 != 0 || header & 0x02 == 0 || out.len() >= MAX_OBUS {
            return Err(TemporalUnitError::Malformed);
        }
        let mut cursor = at + 1 + usize::from(header & 0x04 != 0);
        let size = leb128(unit, &mut cursor).ok_or(TemporalUnitError::Malformed)?;
        let end = cursor
            .checked_add(size)
            .filter(|end| *end <= unit.len())
            .ok_or(TemporalUnitError::Malformed)?;
        out.push(Obu {
            kind: (header >> 3) & 15,
            whole: unit.slice(at..end),
            payload: unit.slice(cursor..end),
        });
        at = end;
    }
    Ok(out)
}

fn leb128(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut value = 0u64;
    for i in 0..8 {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return usize::try_from(value).ok();
        }
    }
    None
}

/// The size that a sequence header OBU's payload gives.
pub fn sequence_size(payload: &Bytes) -> Option<FrameSize> {
    let header = ObuHeader {
        obu_type: ObuType::SequenceHeader,
        size: Some(payload.len() as u64),
        extension_header: None,
    };
    let sequence = SequenceHeaderObu::parse(header, &mut std::io::Cursor::new(payload.clone())).ok()?;
    Some(FrameSize {
        width: u16::try_from(sequence.max_frame_width).ok()?,
        height: u16::try_from(sequence.max_frame_height).ok()?,
    })
}

/// A temporal unit ready for a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemporalUnit {
    /// OBUs with size fields, no temporal delimiter and no padding; a keyframe begins with the sequence header.
    pub payload: Bytes,
    /// Begins with a shown key frame.
    pub keyframe: bool,
    /// From the newest sequence header.
    pub size: Option<FrameSize>,
}

/// Normalises one source's AV1: strips delimiters, remembers the sequence header and puts it in front of key frames.
#[derive(Debug, Clone, Default)]
pub struct Normalizer {
    sequence_header: Option<Bytes>,
    size: Option<FrameSize>,
}

impl Normalizer {
    /// Takes one temporal unit.
    ///
    /// # Errors
    /// See [`TemporalUnitError`].
    pub fn push(&mut self, unit: &Bytes) -> Result<TemporalUnit, TemporalUnitError> {
        let obus = obus(unit)?;
        let mut has_sequence_header = false;
        let mut first_frame: Option<&Obu> = None;
        for obu in &obus {
            match obu.kind {
                OBU_SEQUENCE_HEADER if obu.whole.len() <= MAX_SEQUENCE_HEADER => {
                    has_sequence_header = true;
                    if self.sequence_header.as_ref() != Some(&obu.whole) {
                        self.size = sequence_size(&obu.payload);
                        self.sequence_header = Some(Bytes::copy_from_slice(&obu.whole));
                    }
                }
                OBU_FRAME | OBU_FRAME_HEADER if first_frame.is_none() => first_frame = Some(obu),
                _ => {}
            }
        }
        let first = first_frame.ok_or(TemporalUnitError::NoPicture)?;
        let keyframe = is_key_frame(&first.payload);
        let mut front = None;
        if keyframe && !has_sequence_header {
            front = Some(
                self.sequence_header
                    .as_ref()
                    .ok_or(TemporalUnitError::NoSequenceHeader)?,
            );
        }
        let kept = |obu: &&Obu| !matches!(obu.kind, OBU_TEMPORAL_DELIMITER | OBU_PADDING);
        let payload = if front.is_none() && obus.iter().all(|obu| kept(&obu)) {
            unit.clone()
        } else {
            let mut out = BytesMut::with_capacity(unit.len() + MAX_SEQUENCE_HEADER);
            out.extend(front.into_iter().flatten());
            for obu in obus.iter().filter(kept) {
                out.put_slice(&obu.whole);
            }
            out.freeze()
        };
        Ok(TemporalUnit {
            payload,
            keyframe,
            size: self.size,
        })
    }
}

/// Reads the first bits of an uncompressed header: not `show_existing_frame`, `frame_type` 0, `show_frame` (sections 5.9.2
/// and 6.8.2). With a reduced still picture header, which no call sends, they mean something else.
fn is_key_frame(frame: &[u8]) -> bool {
    frame.first().is_some_and(|byte| byte & 0b1111_0000 == 0b0001_0000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sequence header of a 640×360 stream by libaom.
    const SEQUENCE_HEADER: &[u8] = &[
        0x0a, 0x0b, 0x00, 0x00, 0x00, 0x04, 0x4c, 0xff, 0xb3, 0xcf, 0xff, 0x30, 0x00,
    ];
    const DELIMITER: &[u8] = &[0x12, 0x00];
    const KEY_FRAME: &[u8] = &[0x32, 0x03, 0x10, 0xaa, 0xbb];
    const INTER_FRAME: &[u8] = &[0x32, 0x03, 0x30, 0xaa, 0xbb];

    fn unit(parts: &[&[u8]]) -> Bytes {
        parts.concat().into()
    }

    #[test]
    fn key_frames_begin_with_the_sequence_header_and_delimiters_go() {
        let mut normalizer = Normalizer::default();
        assert_eq!(
            normalizer.push(&unit(&[DELIMITER, KEY_FRAME])),
            Err(TemporalUnitError::NoSequenceHeader)
        );
        let first = normalizer
            .push(&unit(&[DELIMITER, SEQUENCE_HEADER, KEY_FRAME]))
            .unwrap();
        assert!(first.keyframe);
        assert_eq!(first.payload, unit(&[SEQUENCE_HEADER, KEY_FRAME]));
        let second = normalizer.push(&unit(&[KEY_FRAME])).unwrap();
        assert_eq!(second.payload, first.payload);
        let third = normalizer.push(&unit(&[DELIMITER, INTER_FRAME])).unwrap();
        assert!(!third.keyframe);
        assert_eq!(third.payload, unit(&[INTER_FRAME]));
    }

    #[test]
    fn cut_off_and_empty_units_are_refused() {
        let mut normalizer = Normalizer::default();
        assert_eq!(
            normalizer.push(&unit(&[&[0x32, 0x09, 0x10]])),
            Err(TemporalUnitError::Malformed)
        );
        assert_eq!(
            normalizer.push(&unit(&[&[0x30, 0x10]])),
            Err(TemporalUnitError::Malformed)
        );
        assert_eq!(normalizer.push(&unit(&[DELIMITER])), Err(TemporalUnitError::NoPicture));
    }

    proptest! {
        #[test]
        fn size_of_any_sequence_header_is_told_or_not(
            flips in proptest::collection::vec(0..(SEQUENCE_HEADER.len() - 2) * 8, 0..12),
            len in 0..SEQUENCE_HEADER.len() - 1,
            rest in proptest::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 0..40),
        ) {
            let mut header = SEQUENCE_HEADER[2..].to_vec();
            for flip in flips {
                header[flip / 8] ^= 0x80 >> (flip % 8);
            }
            header.truncate(len);
            header.extend(rest);
            sequence_size(&header.into());
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            Normalizer::default().push(&Bytes::from(bytes)).ok();
        }
    }
}

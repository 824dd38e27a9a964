//! H.265 access units in Annex B form: keyframes and parameter sets (ITU-T H.265, section 7.3.1.2 and table 7-1).

use bytes::{BufMut, Bytes, BytesMut};

use crate::media::h264::{MAX_NAL_UNITS, nal_units};

const VPS: u8 = 32;
const PPS: u8 = 34;
const AUD: u8 = 35;
/// Largest parameter set that is remembered, bytes.
const MAX_PARAMETER_SET: usize = 1024;

/// The `nal_unit_type` of a NAL unit without start code.
pub fn nal_unit_type(nal_unit: &[u8]) -> u8 {
    nal_unit.first().map_or(63, |byte| (byte >> 1) & 0x3f)
}

/// Remembers one source's parameter sets and puts them in front of every keyframe that lacks them.
#[derive(Debug, Clone, Default)]
pub struct Normalizer {
    /// VPS, SPS, PPS.
    sets: [Option<Bytes>; 3],
}

impl Normalizer {
    /// The access unit with four-byte start codes, and whether it is a keyframe. `None`: no picture in it, more NAL units
    /// than an encoder makes, or a keyframe without parameter sets.
    pub fn push(&mut self, unit: &Bytes) -> Option<(Bytes, bool)> {
        let mut parts = Vec::with_capacity(8);
        let (mut keyframe, mut picture) = (false, false);
        let mut present = [false; 3];
        for nal_unit in nal_units(unit) {
            let kind = nal_unit_type(&nal_unit);
            match kind {
                0..=31 => {
                    picture = true;
                    keyframe |= (16..=21).contains(&kind);
                }
                VPS..=PPS if nal_unit.len() <= MAX_PARAMETER_SET => {
                    let at = usize::from(kind - VPS);
                    present[at] = true;
                    self.sets[at] = Some(Bytes::copy_from_slice(&nal_unit));
                    continue;
                }
                _ => {}
            }
            if kind != AUD {
                parts.push(nal_unit);
            }
            if parts.len() > MAX_NAL_UNITS {
                return None;
            }
        }
        if !picture {
            return None;
        }
        let mut out = BytesMut::with_capacity(unit.len() + 64);
        let mut write = |nal_unit: &Bytes| {
            out.put_slice(&[0, 0, 0, 1]);
            out.put_slice(nal_unit);
        };
        for (set, present) in self.sets.iter().zip(present) {
            match set {
                Some(set) if keyframe || present => write(set),
                None if keyframe => return None,
                _ => {}
            }
        }
        parts.iter().for_each(write);
        Some((out.freeze(), keyframe))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nal(kind: u8) -> Vec<u8> {
        vec![0, 0, 0, 1, kind << 1, 1, 0xaa]
    }

    #[test]
    fn keyframe_gets_the_parameter_sets_of_before() {
        let mut normalizer = Normalizer::default();
        assert_eq!(normalizer.push(&nal(19).into()), None);
        let first = [nal(32), nal(33), nal(34), nal(19)].concat();
        assert_eq!(
            normalizer.push(&first.clone().into()),
            Some((first.clone().into(), true))
        );
        assert_eq!(normalizer.push(&nal(19).into()), Some((first.into(), true)));
        assert_eq!(normalizer.push(&nal(1).into()), Some((nal(1).into(), false)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            Normalizer::default().push(&Bytes::from(bytes));
        }
    }
}

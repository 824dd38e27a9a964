//! Sequence numbers: without wrap-around, and each only once.

/// Turns 16-bit sequence numbers into ones that never wrap.
///
/// The first number `n` becomes `65_536 + n`, so that packets that were sent before it are positive too.
#[derive(Clone, Copy, Debug, Default)]
pub struct SequenceExtender {
    highest: Option<u64>,
}

impl SequenceExtender {
    /// The extended number nearest to the highest one seen.
    pub fn extend(&mut self, seq: u16) -> u64 {
        let extended = match self.highest {
            None => 65_536 + u64::from(seq),
            Some(highest) => nearest(highest, seq),
        };
        self.highest = Some(self.highest.map_or(extended, |highest| highest.max(extended)));
        extended
    }

    /// The highest number seen.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

/// The number with the low bits `seq` that is closest to `reference`; never negative.
#[must_use]
pub fn nearest(reference: u64, seq: u16) -> u64 {
    let delta = seq.wrapping_sub(reference as u16) as i16;
    match reference.checked_add_signed(i64::from(delta)) {
        Some(extended) => extended,
        None => u64::from(seq),
    }
}

/// How far back [`DuplicateFilter`] remembers, in packets.
pub const DUPLICATE_WINDOW: u64 = 2_048;

/// Lets every extended sequence number pass once.
///
/// Chromium resends media as RTX while it probes for bandwidth, so duplicates are ordinary: passed on, they would be
/// renumbered and freeze every viewer.
#[derive(Clone, Debug)]
pub struct DuplicateFilter {
    highest: Option<u64>,
    seen: [u64; (DUPLICATE_WINDOW / 64) as usize],
}

impl Default for DuplicateFilter {
    fn default() -> Self {
        Self {
            highest: None,
            seen: [0; (DUPLICATE_WINDOW / 64) as usize],
        }
    }
}

impl DuplicateFilter {
    /// Whether `seq` is new. Numbers more than [`DUPLICATE_WINDOW`] behind the highest count as seen.
    pub fn is_new(&mut self, seq: u64) -> bool {
        match self.highest {
            None => self.highest = Some(seq),
            Some(highest) if seq > highest => {
                if seq - highest >= DUPLICATE_WINDOW {
                    self.seen.fill(0);
                } else {
                    for skipped in highest + 1..seq {
                        let (word, bit) = Self::place(skipped);
                        self.seen[word] &= !bit;
                    }
                }
                self.highest = Some(seq);
            }
            Some(highest) => {
                if highest - seq >= DUPLICATE_WINDOW {
                    return false;
                }
                let (word, bit) = Self::place(seq);
                if self.seen[word] & bit != 0 {
                    return false;
                }
            }
        }
        let (word, bit) = Self::place(seq);
        self.seen[word] |= bit;
        true
    }

    fn place(seq: u64) -> (usize, u64) {
        let slot = seq % DUPLICATE_WINDOW;
        ((slot / 64) as usize, 1 << (slot % 64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_on_across_the_wrap() {
        let mut extender = SequenceExtender::default();
        assert_eq!(extender.extend(65_534), 131_070);
        assert_eq!(extender.extend(1), 131_073);
        assert_eq!(extender.extend(65_535), 131_071);
        assert_eq!(extender.extend(2), 131_074);
    }

    #[test]
    fn a_packet_older_than_the_first_is_positive() {
        let mut extender = SequenceExtender::default();
        assert_eq!(extender.extend(0), 65_536);
        assert_eq!(extender.extend(65_535), 65_535);
    }

    proptest! {
        #[test]
        fn every_number_passes_once(seqs in prop::collection::vec(100_000u64..102_000, 1..500)) {
            let mut filter = DuplicateFilter::default();
            let mut known = BTreeSet::new();
            for seq in seqs {
                prop_assert_eq!(filter.is_new(seq), known.insert(seq));
            }
        }

        #[test]
        fn extending_undoes_truncation(start in 0u16.., steps in prop::collection::vec(-1_000i64..1_000, 1..200)) {
            let mut extender = SequenceExtender::default();
            let mut truth = extender.extend(start);
            for step in steps {
                truth = (extender.highest().unwrap() as i64 + step) as u64;
                prop_assert_eq!(extender.extend(truth as u16), truth);
            }
            prop_assert!(truth > 0);
        }

        #[test]
        fn nothing_panics(seqs in prop::collection::vec(any::<u64>(), 1..50)) {
            let mut filter = DuplicateFilter::default();
            for seq in seqs {
                filter.is_new(seq);
                prop_assert_eq!(nearest(seq, seq as u16), seq);
            }
        }
    }
}

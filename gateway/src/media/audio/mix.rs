//! Who talks, and sums of talkers that never clip.

use std::collections::BTreeMap;

use crate::media::audio::{BLOCK, Block, RATE};
use crate::media::frame::{ParticipantId, RoomTime};

/// Louder than this is talk, −dBov; the same bound as the room's speaker list.
pub const TALKING_LEVEL: u8 = 50;
/// A talker stays one for this long after the last loud block, µs.
pub const TALKING_HOLD: u64 = 800_000;
/// So many are mixed at most, the loudest: each costs an encoder.
pub const MOST_TALKERS: usize = 16;
/// By so much somebody has to be louder than the faintest of them to take his place, dB.
const STAYS: u8 = 6;
/// No sample of a mix is larger than this. Leaves what an Opus encoder may add.
pub const CEILING: f32 = 0.9;

/// Who talks, by level with hold time.
#[derive(Debug, Default)]
pub struct Talkers {
    heard: BTreeMap<ParticipantId, (u8, RoomTime)>,
    /// Who is in the mix, by id.
    mixed: Vec<ParticipantId>,
}

impl Talkers {
    /// Takes note of how loud a source is now, −dBov.
    pub fn level(&mut self, source: ParticipantId, level: u8, now: RoomTime) {
        if level <= TALKING_LEVEL {
            let entry = self.heard.entry(source).or_insert((level, now));
            *entry = (level, now);
        }
    }

    /// Forgets those that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(ParticipantId) -> bool) {
        self.heard.retain(|id, _| keep(*id));
    }

    /// Who talks at `now`, by id. When too many do, those who are in the mix already stay in it unless somebody is clearly
    /// louder: words are not cut to pieces.
    pub fn now(&mut self, now: RoomTime) -> Vec<ParticipantId> {
        self.heard.retain(|_, (_, at)| now.since(*at) <= TALKING_HOLD);
        let rank = |(id, (level, _)): (&ParticipantId, &(u8, RoomTime))| {
            let stays = self.mixed.binary_search(id).is_ok();
            (level.saturating_sub(if stays { STAYS } else { 0 }), *id)
        };
        let mut talkers: Vec<_> = self.heard.iter().map(rank).collect();
        talkers.sort_unstable();
        talkers.truncate(MOST_TALKERS);
        self.mixed.clear();
        self.mixed.extend(talkers.into_iter().map(|(_, id)| id));
        self.mixed.sort_unstable();
        self.mixed.clone()
    }
}

/// Adds a block to a sum.
pub fn add(sum: &mut Block, block: &Block) {
    sum.iter_mut().zip(block).for_each(|(sum, sample)| *sum += sample);
}

/// Keeps one mix below [`CEILING`]: goes down at once, comes back slowly.
#[derive(Debug, Clone)]
pub struct Limiter {
    gain: f32,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { gain: 1.0 }
    }
}

impl Limiter {
    /// Time constant of the way back: 200 ms.
    const RELEASE: f32 = 1.0 / (0.2 * RATE as f32);

    /// Limits the next block. What is not a number becomes silence.
    pub fn apply(&mut self, block: &mut Block) {
        if self.gain > 0.999 && block.iter().all(|sample| sample.abs() <= CEILING) {
            self.gain = 1.0;
            return;
        }
        for sample in block.iter_mut() {
            if !sample.is_finite() {
                *sample = 0.0;
            }
            self.gain += (1.0 - self.gain) * Self::RELEASE;
            let size = sample.abs();
            if size * self.gain > CEILING {
                self.gain = CEILING / size;
            }
            *sample = (*sample * self.gain).clamp(-CEILING, CEILING);
        }
    }
}

/// Samples as 16-bit numbers.
pub fn to_i16(block: &Block) -> [i16; BLOCK] {
    // A cast from float to integer saturates.
    std::array::from_fn(|n| (block[n] * 32_767.0).round() as i16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::audio::tests::tone;

    const A: ParticipantId = ParticipantId(1);
    const B: ParticipantId = ParticipantId(2);

    #[test]
    fn talker_is_held_through_a_short_pause() {
        let mut talkers = Talkers::default();
        talkers.level(A, 20, RoomTime::from_millis(0));
        talkers.level(B, 51, RoomTime::from_millis(0));
        assert_eq!(talkers.now(RoomTime::from_millis(800)), [A]);
        assert!(talkers.now(RoomTime::from_millis(801)).is_empty());
    }

    #[test]
    fn only_the_loudest_are_mixed_when_too_many_talk() {
        let mut talkers = Talkers::default();
        for n in 0..40 {
            talkers.level(ParticipantId(n), 45 - n as u8, RoomTime(0));
        }
        let now = talkers.now(RoomTime(0));
        assert_eq!(now, (24..40).map(ParticipantId).collect::<Vec<_>>());
    }

    #[test]
    fn who_is_in_the_mix_gives_way_only_to_somebody_clearly_louder() {
        let mut talkers = Talkers::default();
        let mut speak = |levels: &dyn Fn(u32) -> u8| {
            for n in 0..=MOST_TALKERS as u32 {
                talkers.level(ParticipantId(n), levels(n), RoomTime(0));
            }
            talkers.now(RoomTime(0))
        };
        let first = speak(&|n| if n == 16 { 31 } else { 30 });
        assert_eq!(first, (0..16).map(ParticipantId).collect::<Vec<_>>());
        assert_eq!(speak(&|n| if n == 16 { 26 } else { 30 }), first, "by 4 dB");
        let louder = speak(&|n| if n == 16 { 22 } else { 30 });
        assert!(
            louder.len() == MOST_TALKERS && louder.contains(&ParticipantId(16)),
            "by 8 dB"
        );
    }

    proptest! {
        #[test]
        fn never_clips_and_leaves_quiet_sound_alone(
            blocks in proptest::collection::vec((0.0f32..40.0, 20.0f32..8_000.0), 1..20),
            bad in proptest::option::of(0usize..960),
        ) {
            let mut limiter = Limiter::default();
            for (amplitude, hz) in blocks {
                let mut block: Block = tone(hz, amplitude, 0, BLOCK).try_into().unwrap();
                if let Some(bad) = bad {
                    block[bad] = f32::NAN;
                }
                let before = block;
                let quiet = amplitude <= CEILING && bad.is_none() && limiter.gain == 1.0;
                limiter.apply(&mut block);
                prop_assert!(block.iter().all(|sample| sample.abs() <= CEILING));
                prop_assert!(!quiet || block == before);
            }
        }
    }
}

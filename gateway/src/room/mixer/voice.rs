//! One source as the mixes have it: 20 ms after 20 ms, and what sounded just before.

use std::collections::BTreeMap;

use crate::media::audio::mix::add;
use crate::media::audio::source::Source;
use crate::media::audio::{BLOCK, Block};
use crate::media::frame::{Frame, ParticipantId, RoomTime};

/// Blocks that a mix's encoder is primed with: 60 ms.
pub(super) const PAST: usize = 3;
/// Blocks that are kept: this one, those before it, and one more of which a late ear hears the end.
const KEPT: usize = PAST + 2;

/// A source and its last blocks.
#[derive(Debug)]
pub(super) struct Voice {
    source: Source,
    /// Oldest first, the block that sounds now last.
    sounded: [Block; KEPT],
}

/// How late sources are in a mix, samples, less than a block: nothing for those who are not named.
pub(super) type Lags = BTreeMap<ParticipantId, usize>;

impl Voice {
    pub(super) fn new(id: ParticipantId) -> Self {
        Self {
            source: Source::new(id.0),
            sounded: [[0.0; BLOCK]; KEPT],
        }
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    pub(super) fn push(&mut self, frame: &Frame) {
        let payload = frame.payload.clone();
        (self.source).push(frame.codec, payload, frame.ticks, frame.index, frame.arrived);
    }

    /// See [`Source::advance`].
    pub(super) fn advance(&mut self, now: RoomTime) -> bool {
        let sounds = self.source.advance(now);
        self.sounded.rotate_left(1);
        self.sounded[KEPT - 1] = *self.source.block();
        sounds
    }

    /// See [`Source::splice`].
    pub(super) fn splice(&mut self, now: RoomTime) {
        self.sounded[KEPT - 2] = self.source.splice(&self.sounded[KEPT - 2], now);
        self.sounded[KEPT - 1] = *self.source.block();
    }

    /// How much later than it is this source should sound for those who have heard all that came, so that for them it goes on
    /// in its own rhythm, samples: up to 10 ms.
    pub(super) fn lag(&mut self, now: RoomTime) -> usize {
        self.source.lag(self.sounded.as_flattened(), now)
    }

    /// The block that sounded `ago` blocks before this one, at most [`PAST`], for ears in which the source is late.
    fn block(&self, ago: usize, lag: usize) -> Block {
        let end = (KEPT - ago) * BLOCK - lag;
        let mut block = [0.0; BLOCK];
        if let Some(samples) = self.sounded.as_flattened().get(end - BLOCK..end) {
            block.copy_from_slice(samples);
        }
        block
    }
}

/// Whose sound goes into a mix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) voices: &'a BTreeMap<ParticipantId, Voice>,
    pub(super) ids: &'a [ParticipantId],
    /// Left out.
    pub(super) but: Option<ParticipantId>,
}

impl Parts<'_> {
    /// The sum as it was `ago` blocks before this one, at most [`PAST`].
    pub(super) fn sum(&self, ago: usize, lags: &Lags) -> Block {
        let mut sum = [0.0; BLOCK];
        for id in self.ids.iter().filter(|id| Some(**id) != self.but) {
            if let Some(voice) = self.voices.get(id) {
                add(&mut sum, &voice.block(ago, lags.get(id).copied().unwrap_or(0)));
            }
        }
        sum
    }
}

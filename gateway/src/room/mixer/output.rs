//! One mix on its way out: limited, and encoded while somebody takes packets.

use bytes::Bytes;

use crate::media::audio::Block;
use crate::media::audio::encode::MixEncoder;
use crate::media::audio::mix::{Limiter, to_i16};
use crate::media::frame::ParticipantId;
use crate::room::mixer::Work;
use crate::room::mixer::voice::{Lags, PAST, Parts};

/// 20 ms of a mix in the forms that were asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Forms {
    pub(super) opus: Option<Bytes>,
    pub(super) pcm: Option<Bytes>,
}

/// In which forms a mix is needed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Needs {
    pub(super) opus: bool,
    pub(super) pcm: bool,
}

/// A mix.
#[derive(Debug, Default)]
pub(super) struct Output {
    limiter: Limiter,
    encoder: Option<MixEncoder>,
    /// The last tick that had something of it …
    made_at: Option<u64>,
    /// … and the last that had a packet.
    encoded_at: Option<u64>,
    /// Sources that are late in it.
    pub(super) lags: Lags,
    /// Somebody takes its packets from now on who took another mix's before.
    pub(super) newcomer: bool,
}

impl Output {
    /// Whether the tick before this one had a packet.
    pub(super) fn went_on(&self, index: u64) -> bool {
        self.encoded_at.is_some_and(|at| at + 1 == index)
    }

    /// Whether the tick before this one had anything.
    pub(super) fn is_kept(&self, index: u64) -> bool {
        self.made_at.is_some_and(|at| at + 1 == index)
    }

    /// Before a tick: sources that do not talk now are late no more.
    pub(super) fn expire(&mut self, index: u64, talks: impl Fn(ParticipantId) -> bool) {
        let goes_on = self.went_on(index);
        self.lags.retain(|id, _| goes_on && talks(*id));
        self.newcomer = false;
    }

    /// The next 20 ms.
    pub(super) fn forms(&mut self, parts: &Parts<'_>, needs: Needs, index: u64, work: &mut Work) -> Forms {
        let mut mix = parts.sum(0, &self.lags);
        self.limiter.apply(&mut mix);
        self.made_at = Some(index);
        let opus = needs.opus.then(|| self.encode(&mix, parts, index, work));
        let opus = opus.and_then(|encoded| {
            encoded
                .inspect_err(|error| tracing::error!(%error, "a mix was not encoded"))
                .ok()
        });
        let pcm = (needs.pcm).then(|| to_i16(&mix).iter().flat_map(|sample| sample.to_le_bytes()).collect());
        Forms { opus, pcm }
    }

    fn encode(&mut self, mix: &Block, parts: &Parts<'_>, index: u64, work: &mut Work) -> Result<Bytes, opus::Error> {
        let goes_on = self.went_on(index);
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            none => none.insert(MixEncoder::new()?),
        };
        if !goes_on {
            let mut past: [Block; PAST] = std::array::from_fn(|n| parts.sum(PAST - n, &self.lags));
            past.iter_mut().for_each(|block| Limiter::default().apply(block));
            encoder.prime(&past)?;
            work.encoded += PAST as u64;
        } else if self.newcomer {
            encoder.stand_apart()?;
        }
        self.encoded_at = Some(index);
        work.encoded += 1;
        encoder.encode(mix)
    }
}

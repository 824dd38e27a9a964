//! Comfort noise for members whose decoders do not make their own.

use std::fmt;

use bytes::Bytes;
use wzp_proto::codec::Codec;

use crate::media::audio::Block;
use crate::media::audio::decode::{DecodeError, Voice};
use crate::media::audio::transcode::TranscodeError;

/// Bits per second: packets of 15 bytes, which everybody who judges by size takes for silence.
const BIT_RATE: i32 = 6_000;
/// Largest packet, bytes.
const MAX_PACKET: usize = 16;

/// The noise of one source.
pub struct ComfortNoise {
    voice: Voice,
    encoder: opus::Encoder,
    samples: Vec<f32>,
}

impl ComfortNoise {
    /// `seed` makes the noise.
    ///
    /// # Errors
    /// libopus has no memory.
    pub fn new(seed: u32) -> Result<Self, TranscodeError> {
        let encoder = || -> Result<_, opus::Error> {
            let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip)?;
            encoder.set_bitrate(opus::Bitrate::Bits(BIT_RATE))?;
            encoder.set_vbr(false)?;
            encoder.set_complexity(0)?;
            Ok(encoder)
        };
        Ok(Self {
            voice: Voice::new(seed),
            encoder: encoder().map_err(|error| TranscodeError::Encode(error.code()))?,
            samples: Vec::new(),
        })
    }

    /// An Opus packet with 20 ms of noise as `payload`, a packet of [`Codec::ComfortNoise`], asks for it.
    ///
    /// # Errors
    /// The payload is no comfort noise, or Opus failed.
    pub fn packet(&mut self, payload: &[u8]) -> Result<Bytes, TranscodeError> {
        self.samples.clear();
        self.voice.decode(Codec::ComfortNoise, payload, &mut self.samples)?;
        let block: &Block = (self.samples.first_chunk()).ok_or(DecodeError::ComfortNoise(payload.len()))?;
        let packet = self.encoder.encode_vec_float(block, MAX_PACKET);
        Ok(packet.map_err(|error| TranscodeError::Encode(error.code()))?.into())
    }
}

impl fmt::Debug for ComfortNoise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ComfortNoise")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::audio::level;

    #[test]
    fn noise_is_small_quiet_and_never_taken_for_talk() {
        let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).unwrap();
        for said in [0, 50] {
            let mut noise = ComfortNoise::new(1).unwrap();
            for n in 0..20 {
                let packet = noise.packet(&[said]).unwrap();
                assert!(packet.len() <= MAX_PACKET, "{} bytes", packet.len());
                let mut pcm = [0.0; 960];
                assert_eq!(decoder.decode_float(&packet, &mut pcm, false).unwrap(), 960);
                let heard = level(&pcm);
                assert!(n < 5 || (51..=75).contains(&heard), "−{heard} dBov for {said}");
            }
        }
        assert!(ComfortNoise::new(1).unwrap().packet(&[1, 2]).is_err());
    }
}

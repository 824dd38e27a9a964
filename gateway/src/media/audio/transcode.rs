//! Voices that browsers and some apps cannot decode become Opus of 20 ms.

use bytes::Bytes;
use wzp_proto::codec::Codec;

use crate::media::audio::decode::{DecodeError, Voice};
use crate::media::audio::encode::MixEncoder;
use crate::media::audio::mix::Limiter;
use crate::media::audio::{BLOCK, Block};

/// Lost packets in a row that are concealed; beyond that the source pauses.
const CONCEALED: u64 = 5;

/// Why a packet was not transcoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TranscodeError {
    /// It is not what its codec says.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The Opus encoder failed.
    #[error("the Opus encoder failed: {0}")]
    Encode(opus::Error),
}

/// One source's sound, made anew as Opus.
#[derive(Debug)]
pub struct Transcoder {
    voice: Voice,
    encoder: MixEncoder,
    limiter: Limiter,
    samples: Vec<f32>,
    last: usize,
}

impl Transcoder {
    /// Whether a codec needs this: Opus plays everywhere, whatever the length of its packets.
    pub fn is_needed(codec: Codec) -> bool {
        codec.is_codec2()
    }

    /// For a source that has not sent anything yet. `seed` makes its comfort noise.
    ///
    /// # Errors
    /// libopus has no memory.
    pub fn new(seed: u32) -> Result<Self, TranscodeError> {
        Ok(Self {
            voice: Voice::new(seed),
            encoder: MixEncoder::new().map_err(TranscodeError::Encode)?,
            limiter: Limiter::default(),
            samples: Vec::new(),
            last: BLOCK,
        })
    }

    /// The Opus packets, 20 ms each, of a packet that came after `missing` lost ones; the lost ones are concealed, and how many
    /// blocks stand for them is the second number.
    ///
    /// # Errors
    /// The payload is not what the codec says, or Opus failed.
    pub fn push(&mut self, codec: Codec, payload: &[u8], missing: u64) -> Result<(Vec<Bytes>, usize), TranscodeError> {
        let mut stand_in = 0;
        if missing <= CONCEALED {
            stand_in = self.last * missing as usize;
            self.voice.conceal(stand_in, &mut self.samples);
        }
        self.last = self.voice.decode(codec, payload, &mut self.samples)?;
        let mut packets = Vec::with_capacity(2);
        let whole = self.samples.len() - self.samples.len() % BLOCK;
        for part in self.samples.drain(..whole).as_slice().chunks_exact(BLOCK) {
            let mut block: Block = [0.0; BLOCK];
            block.copy_from_slice(part);
            self.limiter.apply(&mut block);
            packets.push(self.encoder.encode(&block).map_err(TranscodeError::Encode)?);
        }
        Ok((packets, stand_in / BLOCK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forty_milliseconds_become_two_packets_and_a_loss_is_filled() {
        let mut transcoder = Transcoder::new(1).unwrap();
        let (packets, stand_in) = transcoder.push(Codec::Codec2_1200, &[7; 6], 0).unwrap();
        assert_eq!((packets.len(), stand_in), (2, 0));
        let (packets, stand_in) = transcoder.push(Codec::Codec2_1200, &[8; 6], 1).unwrap();
        assert_eq!((packets.len(), stand_in), (4, 2));
        let (packets, stand_in) = transcoder.push(Codec::Codec2_3200, &[8; 8], 1_000).unwrap();
        assert_eq!((packets.len(), stand_in), (1, 0));
        assert!(transcoder.push(Codec::Codec2_3200, &[8; 7], 0).is_err());
        for packet in packets {
            assert_eq!(opus::packet::get_nb_samples(&packet, 48_000), Ok(960));
        }
    }
}

//! Voices that browsers and some apps cannot decode become Opus of 20 ms.

use bytes::Bytes;
use wzp_proto::codec::Codec;

use crate::media::audio::decode::{DecodeError, Voice};
use crate::media::audio::encode::MixEncoder;
use crate::media::audio::mix::Limiter;
use crate::media::audio::{BLOCK, Block};

/// Blocks in a row that are concealed, 120 ms; a longer gap is a pause of the source.
const CONCEALED: usize = 6;

/// Why a packet was not transcoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TranscodeError {
    /// It is not what its codec says.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The Opus encoder failed.
    #[error("the Opus encoder failed: {}", .0.description())]
    Encode(opus::ErrorCode),
}

/// One source's sound, made anew as Opus.
#[derive(Debug)]
pub struct Transcoder {
    voice: Voice,
    encoder: MixEncoder,
    limiter: Limiter,
    samples: Vec<f32>,
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
            encoder: MixEncoder::new().map_err(|error| TranscodeError::Encode(error.code()))?,
            limiter: Limiter::default(),
            samples: Vec::new(),
        })
    }

    /// The Opus packets, 20 ms each, of a packet before which `missing` blocks of 20 ms were lost; the second number says how
    /// many of the packets stand for what was lost.
    ///
    /// # Errors
    /// The payload is not what the codec says, or Opus failed.
    pub fn push(
        &mut self,
        codec: Codec,
        payload: &[u8],
        missing: usize,
    ) -> Result<(Vec<Bytes>, usize), TranscodeError> {
        let stand_in = if missing <= CONCEALED { missing } else { 0 };
        self.samples.clear();
        self.voice.conceal(stand_in * BLOCK, &mut self.samples);
        self.voice.decode(codec, payload, &mut self.samples)?;
        let mut packets = Vec::with_capacity(2);
        // Codec2 frames last 20 or 40 ms: nothing is left over.
        for part in self.samples.chunks_exact(BLOCK) {
            let mut block: Block = [0.0; BLOCK];
            block.copy_from_slice(part);
            self.limiter.apply(&mut block);
            packets.push(
                self.encoder
                    .encode(&block)
                    .map_err(|error| TranscodeError::Encode(error.code()))?,
            );
        }
        Ok((packets, stand_in))
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
        let (packets, stand_in) = transcoder.push(Codec::Codec2_1200, &[8; 6], 2).unwrap();
        assert_eq!((packets.len(), stand_in), (4, 2));
        let (packets, stand_in) = transcoder.push(Codec::Codec2_3200, &[8; 8], 1_000).unwrap();
        assert_eq!((packets.len(), stand_in), (1, 0));
        assert!(transcoder.push(Codec::Codec2_3200, &[8; 7], 0).is_err());
        for packet in packets {
            assert_eq!(opus::packet::get_nb_samples(&packet, 48_000).unwrap(), 960);
        }
    }
}

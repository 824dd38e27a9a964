//! Voices that browsers and some apps cannot decode become Opus of 20 ms.

use bytes::Bytes;
use wzp_proto::codec::Codec;

use crate::media::audio::BLOCK;
use crate::media::audio::decode::{DecodeError, Voice, duration};
use crate::media::audio::encode::MixEncoder;
use crate::media::audio::mix::Limiter;

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
    /// Decoded and less than a block.
    samples: Vec<f32>,
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Opus packets, 20 ms each.
    pub packets: Vec<Bytes>,
    /// So many samples before the packet itself the first of them begins.
    pub before: usize,
    /// Samples of the packet itself. What is less than a block of them comes with the next packet.
    pub samples: usize,
}

impl Transcoder {
    /// Whether a packet of an app needs this: Codec2, and the Opus of bad paths, whose packets are of 40 ms. Other Opus plays
    /// everywhere as it is.
    pub fn is_needed(codec: Codec, payload: &[u8]) -> bool {
        !codec.is_opus() || (codec == Codec::Opus6k && duration(codec, payload) != Some(BLOCK))
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

    /// Makes a packet anew before which `missing` blocks of 20 ms were lost.
    ///
    /// # Errors
    /// The payload is not what the codec says, or Opus failed.
    pub fn push(&mut self, codec: Codec, payload: &[u8], missing: usize) -> Result<Made, TranscodeError> {
        let stand_in = if missing <= CONCEALED { missing } else { 0 };
        if missing > CONCEALED {
            self.samples.clear();
        }
        let waiting = self.samples.len();
        self.voice.conceal(stand_in * BLOCK, &mut self.samples);
        let before = self.samples.len();
        let samples =
            (self.voice.decode(codec, payload, &mut self.samples)).inspect_err(|_| self.samples.truncate(waiting))?;
        let mut packets = Vec::with_capacity(2);
        let (blocks, rest) = self.samples.as_chunks::<BLOCK>();
        for block in blocks {
            let mut block = *block;
            self.limiter.apply(&mut block);
            let packet = self.encoder.encode(&block);
            packets.push(packet.map_err(|error| TranscodeError::Encode(error.code()))?);
        }
        self.samples.drain(..self.samples.len() - rest.len());
        Ok(Made {
            packets,
            before,
            samples,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forty_milliseconds_become_two_packets_and_a_loss_is_filled() {
        let mut transcoder = Transcoder::new(1).unwrap();
        let mut push = |codec, payload: &[u8], missing| {
            let made = transcoder.push(codec, payload, missing).unwrap();
            for packet in &made.packets {
                assert_eq!(opus::packet::get_nb_samples(packet, 48_000).unwrap(), 960);
            }
            (made.packets.len(), made.before, made.samples)
        };
        assert_eq!(push(Codec::Codec2_1200, &[7; 6], 0), (2, 0, 1_920));
        assert_eq!(push(Codec::Codec2_1200, &[8; 6], 2), (4, 1_920, 1_920));
        assert_eq!(push(Codec::Codec2_3200, &[8; 8], 1_000), (1, 0, 960));
        assert!(transcoder.push(Codec::Codec2_3200, &[8; 7], 0).is_err());
    }

    #[test]
    fn opus_of_any_length_becomes_20_ms() {
        for (samples, packets) in [(480, [0, 1, 0, 1]), (1_920, [2; 4]), (2_880, [3; 4])] {
            let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
            let mut transcoder = Transcoder::new(1).unwrap();
            for (n, expected) in packets.into_iter().enumerate() {
                let packet = encoder.encode_vec_float(&vec![0.1; samples], 1_275).unwrap();
                assert!(Transcoder::is_needed(Codec::Opus6k, &packet));
                let made = transcoder.push(Codec::Opus6k, &packet, 0).unwrap();
                assert_eq!((made.packets.len(), made.samples), (expected, samples));
                assert_eq!(made.before, if samples == 480 { n % 2 * 480 } else { 0 });
            }
        }
        assert!(!Transcoder::is_needed(Codec::Opus6k, &[0xf8, 0xff, 0xfe]));
    }
}

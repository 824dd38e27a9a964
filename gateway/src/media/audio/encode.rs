//! Samples become Opus packets of 20 ms.

use std::fmt;

use bytes::Bytes;

use crate::media::audio::Block;

/// Bits per second of a mix: what a voice of the apps has, and a little more for several at once.
const BIT_RATE: i32 = 32_000;
/// Of 10; above this the encoder costs much and a mix of voices gains little.
const COMPLEXITY: i32 = 5;
/// Packets after a beginning that are made without prediction: what the listener's decoder has played before came from
/// another encoder, and predictions from that would be wrong.
const APART: u32 = 3;
/// Largest packet, bytes: what apps take (WZP wire v2, section 6.1).
const MAX_PACKET: usize = 512;

/// One outgoing Opus stream: 48 kHz, mono, 20 ms.
pub struct MixEncoder {
    encoder: opus::Encoder,
    /// Packets still to be made without prediction.
    apart: u32,
    packet: [u8; MAX_PACKET],
}

impl MixEncoder {
    /// A stream that has not begun.
    ///
    /// # Errors
    /// libopus has no memory.
    pub fn new() -> Result<Self, opus::Error> {
        let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip)?;
        encoder.set_bitrate(opus::Bitrate::Bits(BIT_RATE))?;
        encoder.set_complexity(COMPLEXITY)?;
        encoder.set_signal(opus::Signal::Voice)?;
        Ok(Self {
            encoder,
            apart: 0,
            packet: [0; MAX_PACKET],
        })
    }

    /// Lets the stream begin as if it had carried these blocks already, so that its first packet does not begin from
    /// silence, and for a decoder that has played another stream before.
    ///
    /// # Errors
    /// Not expected of libopus.
    pub fn prime<'a>(&mut self, before: impl IntoIterator<Item = &'a Block>) -> Result<(), opus::Error> {
        self.encoder.reset_state()?;
        self.encoder.set_prediction_disabled(true)?;
        self.apart = APART;
        for block in before {
            self.encoder.encode_float(block, &mut self.packet)?;
        }
        Ok(())
    }

    /// The next 20 ms.
    ///
    /// # Errors
    /// Not expected of libopus.
    pub fn encode(&mut self, block: &Block) -> Result<Bytes, opus::Error> {
        let len = self.encoder.encode_float(block, &mut self.packet)?;
        if self.apart > 0 {
            self.apart -= 1;
            self.encoder.set_prediction_disabled(self.apart > 0)?;
        }
        Ok(Bytes::copy_from_slice(self.packet.get(..len).unwrap_or_default()))
    }
}

impl fmt::Debug for MixEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MixEncoder")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::audio::tests::{amplitude, tone};

    fn block(n: usize) -> Block {
        tone(440.0, 0.5, n * 960, 960).try_into().unwrap()
    }

    /// What a decoder makes of this stream's first packets, having played another encoder's packets of the same tone before.
    fn first_packets(encoder: &mut MixEncoder, from: usize) -> Vec<f32> {
        let mut other = MixEncoder::new().unwrap();
        let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).unwrap();
        let mut out = Vec::new();
        for n in 0..from + 5 {
            let mut pcm = [0.0; 960];
            let source = if n < from { &mut other } else { &mut *encoder };
            decoder
                .decode_float(&source.encode(&block(n)).unwrap(), &mut pcm, false)
                .unwrap();
            if n >= from {
                out.extend(pcm);
            }
        }
        out
    }

    #[test]
    fn primed_stream_takes_over_from_another_without_a_hole() {
        let weakest = |pcm: &[f32]| (pcm.chunks(480).map(|part| amplitude(part, 440.0))).fold(1.0, f32::min);
        let mut cold = MixEncoder::new().unwrap();
        let cold = weakest(&first_packets(&mut cold, 10));
        let mut primed = MixEncoder::new().unwrap();
        primed.prime(&[block(7), block(8), block(9)]).unwrap();
        let primed = weakest(&first_packets(&mut primed, 10));
        assert!(primed > 0.3 && primed > cold, "{primed} primed, {cold} cold");
    }
}

//! Samples become Opus packets of 20 ms.

use std::fmt;

use bytes::Bytes;

use crate::media::audio::Block;

/// Bits per second of a mix: what a voice of the apps has, and more for several at once.
const BIT_RATE: i32 = 40_000;
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
        let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Audio)?;
        // Not as voice: SILK models one mouth. Of several at once it makes the higher ones fainter by 1 dB and more, and it costs
        // three times as much as CELT, which this application chooses at this rate.
        encoder.set_bitrate(opus::Bitrate::Bits(BIT_RATE))?;
        encoder.set_complexity(COMPLEXITY)?;
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
        self.stand_apart()?;
        for block in before {
            self.encoder.encode_float(block, &mut self.packet)?;
        }
        Ok(())
    }

    /// Makes the next packets decodable for somebody who has heard another encoder make the same sound.
    ///
    /// # Errors
    /// Not expected of libopus.
    pub fn stand_apart(&mut self) -> Result<(), opus::Error> {
        self.apart = APART;
        self.encoder.set_prediction_disabled(true)
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

    /// What a decoder makes of five packets after it has played ten of another encoder's of the same tone: of `encoder`, or of the
    /// same one as before.
    fn first_packets(mut encoder: Option<&mut MixEncoder>) -> Vec<f32> {
        let mut other = MixEncoder::new().unwrap();
        let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).unwrap();
        let mut out = Vec::new();
        for n in 0..15 {
            let mut pcm = [0.0; 960];
            let source = encoder.as_deref_mut().filter(|_| n >= 10).unwrap_or(&mut other);
            decoder
                .decode_float(&source.encode(&block(n)).unwrap(), &mut pcm, false)
                .unwrap();
            if n >= 10 {
                out.extend(pcm);
            }
        }
        out
    }

    #[test]
    fn primed_stream_takes_over_from_another_without_a_hole() {
        let unchanged = first_packets(None);
        let off = |pcm: &[f32]| {
            let squares = pcm.iter().zip(&unchanged).map(|(a, b)| (a - b) * (a - b));
            (squares.take(960).sum::<f32>() / 960.0).sqrt()
        };
        let cold = off(&first_packets(Some(&mut MixEncoder::new().unwrap())));
        let mut primed = MixEncoder::new().unwrap();
        primed.prime(&[block(7), block(8), block(9)]).unwrap();
        let primed = off(&first_packets(Some(&mut primed)));
        assert!(
            primed < 0.1 && primed < cold / 4.0,
            "off by {primed} primed, {cold} cold"
        );
    }

    #[test]
    fn every_voice_of_a_sum_keeps_its_level() {
        let tones = [440.0, 660.0, 880.0, 1_320.0];
        let (mut encoder, mut out) = (MixEncoder::new().unwrap(), Vec::new());
        let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).unwrap();
        for n in 0..100 {
            let mut sum: Block = [0.0; 960];
            for hz in tones {
                crate::media::audio::mix::add(&mut sum, &tone(hz, 0.2, n * 960, 960).try_into().unwrap());
            }
            let mut pcm = [0.0; 960];
            decoder
                .decode_float(&encoder.encode(&sum).unwrap(), &mut pcm, false)
                .unwrap();
            out.extend(pcm);
        }
        for hz in tones {
            let decibels = 20.0 * (amplitude(&out[48_000..], hz) / 0.2).log10();
            assert!(decibels.abs() < 0.5, "{hz} Hz: {decibels} dB");
        }
    }
}

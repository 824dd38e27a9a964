//! Sound to send as apps on bad networks send it: Codec2, or Opus of 40 ms (WZP wire v2, sections 6.1 and 6.4).

use anyhow::{Context, bail};
use bytes::Bytes;
use wzp_proto::codec::Codec;

use super::audio_out::{AudioSource, Tone};
use super::ogg_opus::OpusPacket;
use crate::media::audio::decode::Voice;
use crate::media::audio::resample::Downsampler;

/// Codecs of `--codec`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Coding {
    /// Codec2, 3200 bit/s, 20 ms
    #[value(name = "codec2-3200")]
    Codec2At3200,
    /// Codec2, 1200 bit/s, 40 ms
    #[value(name = "codec2-1200")]
    Codec2At1200,
    /// Opus, 6 kbit/s, 40 ms
    #[value(name = "opus-6k")]
    Opus6k,
}

impl Coding {
    /// What packets say.
    pub fn codec(self) -> Codec {
        match self {
            Self::Codec2At3200 => Codec::Codec2_3200,
            Self::Codec2At1200 => Codec::Codec2_1200,
            Self::Opus6k => Codec::Opus6k,
        }
    }
}

/// Samples in, packets out.
pub struct VoiceOut {
    samples: Samples,
    encoder: Encoder,
    codec: Codec,
    pcm: Vec<f32>,
}

enum Samples {
    Tone(Tone),
    /// Played in a loop.
    File {
        pcm: Vec<f32>,
        position: usize,
    },
}

enum Encoder {
    Opus(opus::Encoder),
    Codec2(Box<(codec2::Codec2, Downsampler)>),
}

impl std::fmt::Debug for VoiceOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VoiceOut")
            .field("codec", &self.codec)
            .finish_non_exhaustive()
    }
}

impl VoiceOut {
    /// Codes `source` anew.
    ///
    /// # Errors
    /// A packet of the file cannot be decoded, or libopus has no memory.
    pub fn new(source: AudioSource, coding: Coding) -> anyhow::Result<Self> {
        let samples = match source {
            AudioSource::Tone(tone) => Samples::Tone(tone),
            AudioSource::File(packets) => Samples::File {
                pcm: decoded(&packets)?,
                position: 0,
            },
            AudioSource::Voice(_) => bail!("this sound is coded already"),
        };
        let codec2 = |mode| Encoder::Codec2(Box::new((codec2::Codec2::new(mode), Downsampler::default())));
        let encoder = match coding {
            Coding::Codec2At3200 => codec2(codec2::Codec2Mode::MODE_3200),
            Coding::Codec2At1200 => codec2(codec2::Codec2Mode::MODE_1200),
            Coding::Opus6k => {
                let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip)?;
                encoder.set_bitrate(opus::Bitrate::Bits(6_000))?;
                Encoder::Opus(encoder)
            }
        };
        let codec = coding.codec();
        Ok(Self {
            samples,
            encoder,
            codec,
            pcm: vec![0.0; codec.frame_ms() as usize * 48],
        })
    }

    /// What packets say.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Samples of a packet, at 48 kHz.
    pub fn frame(&self) -> usize {
        self.pcm.len()
    }

    /// The next packet.
    ///
    /// # Errors
    /// libopus failed.
    pub fn packet(&mut self) -> anyhow::Result<Bytes> {
        match &mut self.samples {
            Samples::Tone(tone) => tone.samples(&mut self.pcm),
            Samples::File { pcm, position } => {
                for sample in &mut self.pcm {
                    *sample = pcm.get(*position).copied().unwrap_or(0.0);
                    *position = (*position + 1) % pcm.len().max(1);
                }
            }
        }
        match &mut self.encoder {
            Encoder::Opus(encoder) => Ok(encoder.encode_vec_float(&self.pcm, 512)?.into()),
            Encoder::Codec2(codec2) => {
                let (encoder, downsampler) = &mut **codec2;
                let narrow = self.pcm.iter().filter_map(|sample| downsampler.push(*sample));
                let narrow: Vec<i16> = narrow.map(|sample| (sample * 32_767.0) as i16).collect();
                let mut bits = vec![0; encoder.bits_per_frame().div_ceil(8)];
                encoder.encode(&mut bits, &narrow);
                Ok(bits.into())
            }
        }
    }
}

/// A file's samples, gaps included.
fn decoded(packets: &[OpusPacket]) -> anyhow::Result<Vec<f32>> {
    let (mut voice, mut pcm) = (Voice::new(1), Vec::new());
    for packet in packets {
        pcm.resize(pcm.len().max(packet.start as usize), 0.0);
        voice
            .decode(Codec::Opus24k, &packet.payload, &mut pcm)
            .context("the file holds a packet that Opus does not decode")?;
    }
    Ok(pcm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::audio::decode::duration;
    use crate::media::audio::level;

    #[test]
    fn packets_have_the_length_and_the_loudness_that_their_codec_promises() {
        for (coding, bytes, ms) in [
            (Coding::Codec2At3200, Some(8), 20),
            (Coding::Codec2At1200, Some(6), 40),
            (Coding::Opus6k, None, 40),
        ] {
            let mut voice = VoiceOut::new(AudioSource::Tone(Tone::new(200.0).unwrap()), coding).unwrap();
            let (mut decoder, mut heard) = (Voice::new(1), Vec::new());
            for _ in 0..50 {
                let packet = voice.packet().unwrap();
                assert!(bytes.is_none_or(|bytes| packet.len() == bytes) && packet.len() < 60);
                assert_eq!(duration(voice.codec(), &packet), Some(ms * 48));
                decoder.decode(voice.codec(), &packet, &mut heard).unwrap();
            }
            assert_eq!((voice.frame(), heard.len()), (ms * 48, 50 * ms * 48));
            let loud = level(&heard[heard.len() / 2..]);
            // Codec2 knows voices; of a sine it makes something much fainter.
            assert!(loud < 40, "{coding:?}: {loud}");
        }
    }

    #[test]
    fn file_is_coded_in_a_loop_with_its_gaps() {
        let mut tone = Tone::new(440.0).unwrap();
        let packets: Vec<_> = [0, 960, 4_800]
            .map(|start| OpusPacket {
                payload: tone.packet().unwrap(),
                start,
                samples: 960,
            })
            .into();
        let pcm = decoded(&packets).unwrap();
        assert_eq!(pcm.len(), 5_760);
        assert_eq!(level(&pcm[1_920..4_800]), 127);
        let mut voice = VoiceOut::new(AudioSource::File(packets), Coding::Opus6k).unwrap();
        for _ in 0..10 {
            voice.packet().unwrap();
        }
        assert!(VoiceOut::new(AudioSource::Voice(Box::new(voice)), Coding::Opus6k).is_err());
    }
}

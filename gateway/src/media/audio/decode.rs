//! Coded packets of one source become samples.

use std::fmt;

use wzp_proto::codec::Codec;

use crate::media::audio::BLOCK;
use crate::media::audio::mix::TALKING_LEVEL;
use crate::media::audio::resample::Upsampler;

/// Longest Opus packet, samples: 120 ms (RFC 6716, section 3.2.5).
const LONGEST: usize = 5_760;
/// Most Codec2 frames taken from one packet.
const CODEC2_FRAMES: usize = 6;
/// Each concealed block of Codec2 is this much of the one before it: silence after about 100 ms.
const FADE: f32 = 0.5;

/// Why a packet makes no sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Opus says no.
    #[error("not an Opus packet: {}", .0.description())]
    Opus(opus::ErrorCode),
    /// Codec2 frames have a fixed length.
    #[error("{len} bytes are not a whole number of {codec} frames, at most {CODEC2_FRAMES}")]
    Codec2 {
        /// The codec.
        codec: Codec,
        /// The payload's length.
        len: usize,
    },
    /// Comfort noise says its level in one byte.
    #[error("comfort noise of {0} bytes; one is expected")]
    ComfortNoise(usize),
    /// Not sound at all.
    #[error("{0} is not a sound codec")]
    NotSound(Codec),
}

/// The decoder of one source. Follows its codec from packet to packet.
pub struct Voice {
    state: State,
    noise: u32,
}

enum State {
    None,
    Opus(opus::Decoder),
    Codec2(Box<Codec2Voice>),
    Noise(f32),
}

struct Codec2Voice {
    codec: Codec,
    decoder: codec2::Codec2,
    upsampler: Upsampler,
    last: Vec<f32>,
    gain: f32,
}

impl Voice {
    /// For one source. `seed` makes its comfort noise.
    pub fn new(seed: u32) -> Self {
        Self {
            state: State::None,
            noise: seed | 1,
        }
    }

    /// Appends the packet's samples to `out`; how many.
    ///
    /// # Errors
    /// The payload is not what the codec says; nothing was appended.
    pub fn decode(&mut self, codec: Codec, payload: &[u8], out: &mut Vec<f32>) -> Result<usize, DecodeError> {
        match codec {
            Codec::ComfortNoise => {
                let &[level] = payload else {
                    return Err(DecodeError::ComfortNoise(payload.len()));
                };
                // The byte has no unit; 50 is usual and should be barely heard: taken as −dBov of the peaks, and never as loud as
                // talk.
                self.state = State::Noise(10f32.powf(-f32::from(level.max(TALKING_LEVEL)) / 20.0));
                self.conceal(BLOCK, out);
                Ok(BLOCK)
            }
            _ if codec.is_opus() => self.decode_opus(payload, out),
            _ if codec.is_codec2() => self.decode_codec2(codec, payload, out),
            _ => Err(DecodeError::NotSound(codec)),
        }
    }

    /// Appends `samples` samples in place of what did not come: the codec's concealment, fading to silence.
    pub fn conceal(&mut self, samples: usize, out: &mut Vec<f32>) {
        let start = out.len();
        out.resize(start + samples, 0.0);
        let Some(gap) = out.get_mut(start..) else { return };
        match &mut self.state {
            State::None => {}
            State::Opus(decoder) => {
                // Concealment comes in multiples of 2.5 ms; what is left over stays silent.
                for part in gap.chunks_mut(BLOCK) {
                    let whole = part.len() - part.len() % 120;
                    if let Some(part) = part.get_mut(..whole)
                        && !part.is_empty()
                        && decoder.decode_float(&[], part, false).is_err()
                    {
                        part.fill(0.0);
                    }
                }
            }
            State::Codec2(voice) => {
                for part in gap.chunks_mut(voice.last.len().max(1)) {
                    voice.gain *= FADE;
                    for (sample, last) in part.iter_mut().zip(&voice.last) {
                        *sample = last * voice.gain;
                    }
                }
            }
            State::Noise(amplitude) => {
                for sample in gap {
                    // xorshift32: white enough for noise that nobody should notice.
                    self.noise ^= self.noise << 13;
                    self.noise ^= self.noise >> 17;
                    self.noise ^= self.noise << 5;
                    *sample = (self.noise as f32 / u32::MAX as f32 * 2.0 - 1.0) * *amplitude;
                }
            }
        }
    }

    fn decode_opus(&mut self, payload: &[u8], out: &mut Vec<f32>) -> Result<usize, DecodeError> {
        if payload.is_empty() {
            // libopus would take it for a lost packet.
            self.conceal(BLOCK, out);
            return Ok(BLOCK);
        }
        let samples = opus::packet::get_nb_samples(payload, 48_000).map_err(|error| DecodeError::Opus(error.code()))?;
        if !matches!(self.state, State::Opus(_)) {
            let decoder =
                opus::Decoder::new(48_000, opus::Channels::Mono).map_err(|error| DecodeError::Opus(error.code()))?;
            self.state = State::Opus(decoder);
        }
        let State::Opus(decoder) = &mut self.state else {
            return Ok(0);
        };
        let start = out.len();
        out.resize(start + samples.min(LONGEST), 0.0);
        let space = out.get_mut(start..).unwrap_or_default();
        match decoder.decode_float(payload, space, false) {
            Ok(decoded) => {
                out.truncate(start + decoded);
                Ok(decoded)
            }
            Err(error) => {
                out.truncate(start);
                Err(DecodeError::Opus(error.code()))
            }
        }
    }

    fn decode_codec2(&mut self, codec: Codec, payload: &[u8], out: &mut Vec<f32>) -> Result<usize, DecodeError> {
        let frame = codec2_frame_bytes(codec);
        let frames = payload.len() / frame;
        if frames == 0 || frames > CODEC2_FRAMES || !payload.len().is_multiple_of(frame) {
            return Err(DecodeError::Codec2 {
                codec,
                len: payload.len(),
            });
        }
        if !matches!(&self.state, State::Codec2(voice) if voice.codec == codec) {
            self.state = State::Codec2(Box::new(Codec2Voice::new(codec)));
        }
        let State::Codec2(voice) = &mut self.state else {
            return Ok(0);
        };
        let start = out.len();
        for bits in payload.chunks_exact(frame) {
            voice.decode(bits, out);
        }
        Ok(out.len() - start)
    }
}

impl fmt::Debug for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::None => "nothing yet",
            State::Opus(_) => "Opus",
            State::Codec2(_) => "Codec2",
            State::Noise(_) => "comfort noise",
        };
        f.debug_tuple("Voice").field(&state).finish()
    }
}

/// How long a packet sounds, samples at 48 kHz; `None` if it is not a packet of this codec.
pub fn duration(codec: Codec, payload: &[u8]) -> Option<usize> {
    match codec {
        Codec::ComfortNoise => Some(BLOCK),
        _ if codec.is_opus() && payload.is_empty() => Some(BLOCK),
        _ if codec.is_opus() => opus::packet::get_nb_samples(payload, 48_000).ok(),
        _ if codec.is_codec2() => {
            let frames = payload.len() / codec2_frame_bytes(codec);
            Some(frames * codec.frame_ms() as usize * 48).filter(|samples| *samples > 0)
        }
        _ => None,
    }
}

fn codec2_frame_bytes(codec: Codec) -> usize {
    if codec == Codec::Codec2_1200 { 6 } else { 8 }
}

impl Codec2Voice {
    fn new(codec: Codec) -> Self {
        let mode = match codec {
            Codec::Codec2_1200 => codec2::Codec2Mode::MODE_1200,
            _ => codec2::Codec2Mode::MODE_3200,
        };
        Self {
            codec,
            decoder: codec2::Codec2::new(mode),
            upsampler: Upsampler::default(),
            last: Vec::new(),
            gain: 1.0,
        }
    }

    fn decode(&mut self, bits: &[u8], out: &mut Vec<f32>) {
        let mut narrow = [0i16; 320];
        let samples = self.decoder.samples_per_frame().min(narrow.len());
        let Some(narrow) = narrow.get_mut(..samples) else {
            return;
        };
        self.decoder.decode(narrow, bits);
        let start = out.len();
        for sample in narrow.iter() {
            self.upsampler.push(f32::from(*sample) / 32_768.0, out);
        }
        self.gain = 1.0;
        self.last.clear();
        self.last.extend(out.iter().skip(start));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::audio::encode::MixEncoder;
    use crate::media::audio::level;
    use crate::media::audio::tests::{amplitude, tone};

    fn codec2_packets(codec: Codec, narrow: &[i16]) -> Vec<Vec<u8>> {
        let mode = match codec {
            Codec::Codec2_1200 => codec2::Codec2Mode::MODE_1200,
            _ => codec2::Codec2Mode::MODE_3200,
        };
        let mut encoder = codec2::Codec2::new(mode);
        let bytes = encoder.bits_per_frame().div_ceil(8);
        narrow
            .chunks_exact(encoder.samples_per_frame())
            .map(|speech| {
                let mut bits = vec![0; bytes];
                encoder.encode(&mut bits, speech);
                bits
            })
            .collect()
    }

    /// Pulses of 100 Hz through a resonance, switched on and off: as near to speech as a formula gets.
    fn babble(samples: usize) -> Vec<i16> {
        let (mut a, mut b) = (0.0f32, 0.0f32);
        (0..samples)
            .map(|n| {
                let on = (n / 2_000) % 2 == 0;
                let pulse = if on && n % 80 == 0 { 3_000.0 } else { 0.0 };
                (a, b) = (pulse + 1.5 * a - 0.81 * b, a);
                a as i16
            })
            .collect()
    }

    #[test]
    fn codec2_keeps_the_envelope_and_the_length() {
        let narrow = babble(16_000);
        for codec in [Codec::Codec2_3200, Codec::Codec2_1200] {
            let mut voice = Voice::new(1);
            let mut out = Vec::new();
            for packet in codec2_packets(codec, &narrow) {
                let said = duration(codec, &packet).unwrap();
                assert_eq!(voice.decode(codec, &packet, &mut out), Ok(said));
            }
            assert_eq!(out.len(), 96_000, "{codec}");
            let envelope = |samples: &[f32]| -> Vec<f32> {
                samples
                    .chunks(2_400)
                    .map(|part| part.iter().map(|s| s.abs()).sum())
                    .collect()
            };
            let original: Vec<f32> = narrow.iter().flat_map(|s| [f32::from(*s) / 32_768.0; 6]).collect();
            let correlation = (0..3)
                .map(|shift| correlation(&envelope(&original), &envelope(&out)[shift..]))
                .fold(0.0, f32::max);
            assert!(correlation > 0.8, "{codec}: {correlation}");
        }
    }

    fn correlation(a: &[f32], b: &[f32]) -> f32 {
        let n = a.len().min(b.len());
        let mean = |x: &[f32]| x[..n].iter().sum::<f32>() / n as f32;
        let (ma, mb) = (mean(a), mean(b));
        let dot = |x: &[f32], mx: f32, y: &[f32], my: f32| -> f32 {
            x[..n].iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum()
        };
        dot(a, ma, b, mb) / (dot(a, ma, a, ma) * dot(b, mb, b, mb)).sqrt()
    }

    #[test]
    fn lost_packets_are_concealed_and_fade() {
        let mut encoder = MixEncoder::new().unwrap();
        let (mut voice, mut out) = (Voice::new(1), Vec::new());
        for n in 0..20 {
            let block = tone(440.0, 0.5, n * 960, 960).try_into().unwrap();
            let packet = encoder.encode(&block).unwrap();
            voice.decode(Codec::Opus24k, &packet, &mut out).unwrap();
        }
        out.clear();
        voice.conceal(960, &mut out);
        assert!(amplitude(&out, 440.0) > 0.2, "the first gap goes on with the tone");
        voice.conceal(48_000, &mut out);
        // From −9 dBov; libopus leaves a little noise.
        assert!(level(&out[47_000..]) > 28, "{}", level(&out[47_000..]));
        assert_eq!(out.len(), 48_960);
    }

    #[test]
    fn opus_of_40_and_60_ms_has_its_length() {
        let mut encoder = opus::Encoder::new(48_000, opus::Channels::Stereo, opus::Application::Voip).unwrap();
        for samples in [1_920, 2_880] {
            let packet = encoder.encode_vec_float(&vec![0.1; samples * 2], 1_275).unwrap();
            let mut out = Vec::new();
            assert_eq!(duration(Codec::Opus6k, &packet), Some(samples));
            assert_eq!(Voice::new(1).decode(Codec::Opus6k, &packet, &mut out), Ok(samples));
            assert_eq!(out.len(), samples);
        }
    }

    #[test]
    fn comfort_noise_is_quiet_noise() {
        let (mut voice, mut out) = (Voice::new(7), Vec::new());
        voice.decode(Codec::ComfortNoise, &[50], &mut out).unwrap();
        assert!((50..=60).contains(&level(&out)), "{}", level(&out));
        assert_eq!(
            voice.decode(Codec::ComfortNoise, &[], &mut out),
            Err(DecodeError::ComfortNoise(0))
        );
        assert!(matches!(
            voice.decode(Codec::Codec2_3200, &[1, 2, 3], &mut out),
            Err(DecodeError::Codec2 { len: 3, .. })
        ));
    }

    proptest! {
        // More than a thousand frames of each codec, each of the codec's own length.
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_codec2_frames_make_bounded_finite_sound(
            frames in proptest::collection::vec(any::<[u8; 8]>(), 32..40),
        ) {
            for (codec, len, samples) in [(Codec::Codec2_3200, 8, 960), (Codec::Codec2_1200, 6, 1_920)] {
                let (mut voice, mut out) = (Voice::new(3), Vec::new());
                for frame in &frames {
                    prop_assert_eq!(voice.decode(codec, &frame[..len], &mut out), Ok(samples));
                }
                prop_assert_eq!(out.len(), frames.len() * samples);
                prop_assert!(out.iter().all(|sample| sample.abs() < 8.0));
            }
        }

    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn any_opus_packets_make_bounded_finite_sound_or_an_error(
            packets in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 1..4),
        ) {
            let mut voice = Voice::new(3);
            for (toc, rest) in packets {
                // One frame per packet, in whichever mode and of whichever length.
                let payload: Vec<u8> = std::iter::once(toc & 0xf8).chain(rest).collect();
                let mut out = Vec::new();
                let decoded = voice.decode(Codec::Opus24k, &payload, &mut out);
                prop_assert_eq!(decoded.unwrap_or(0), out.len());
                prop_assert!(out.len() <= LONGEST && out.iter().all(|sample| sample.is_finite()));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_make_bounded_finite_sound_or_an_error(
            packets in proptest::collection::vec((0usize..12, proptest::collection::vec(any::<u8>(), 0..60)), 1..12),
        ) {
            let mut voice = Voice::new(3);
            for (codec, payload) in packets {
                let codec = Codec::ALL[codec];
                let mut out = Vec::new();
                match voice.decode(codec, &payload, &mut out) {
                    Ok(samples) => prop_assert_eq!(samples, out.len()),
                    Err(_) => prop_assert!(out.is_empty()),
                }
                prop_assert!(out.len() <= CODEC2_FRAMES * 1_920);
                prop_assert!(out.iter().all(|sample| sample.is_finite()));
                voice.conceal(960, &mut out);
            }
        }
    }
}

//! Sound as samples: what a mix, a transcoder and a level meter need. 48 kHz, mono, full scale 1, in blocks of 20 ms.
//!
//! In: coded packets of a source ([`jitter`] puts them in time, [`decode`] makes samples of them). Out: sums of sources
//! ([`mix`]) and Opus packets ([`encode`]). Time is an argument, randomness is a seed.

pub mod decode;
pub mod encode;
pub mod jitter;
pub mod mix;
pub mod noise;
pub mod resample;
pub mod source;
pub mod transcode;

/// Samples per second.
pub const RATE: usize = 48_000;
/// Samples of a block.
pub const BLOCK: usize = 960;
/// How long a block sounds, µs.
pub const BLOCK_TIME: u64 = 20_000;

/// 20 ms of sound.
pub type Block = [f32; BLOCK];

/// How loud sound is, −dBov: 0 (full scale) to 127 (digital silence), as RFC 6464 has it.
pub fn level(samples: &[f32]) -> u8 {
    if samples.is_empty() {
        return 127;
    }
    let power = samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32;
    // A full-scale sine is −3 dB of a full-scale square wave; overload counts as full scale.
    (-10.0 * power.log10()).clamp(0.0, 127.0).round() as u8
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sine of `hz` and this amplitude, beginning at sample `start`.
    pub fn tone(hz: f32, amplitude: f32, start: usize, samples: usize) -> Vec<f32> {
        (start..start + samples)
            .map(|n| amplitude * (n as f32 * hz * std::f32::consts::TAU / RATE as f32).sin())
            .collect()
    }

    /// The amplitude of `hz` in the samples (Goertzel).
    pub fn amplitude(samples: &[f32], hz: f32) -> f32 {
        let omega = f64::from(hz) * std::f64::consts::TAU / RATE as f64;
        let (mut a, mut b) = (0.0, 0.0);
        for sample in samples {
            (a, b) = (f64::from(*sample) + 2.0 * omega.cos() * a - b, a);
        }
        let power = a * a + b * b - 2.0 * omega.cos() * a * b;
        (power.max(0.0).sqrt() * 2.0 / samples.len() as f64) as f32
    }

    #[test]
    fn level_of_known_sounds() {
        assert_eq!(level(&[0.0; 960]), 127);
        assert_eq!(level(&[1.0; 960]), 0);
        assert_eq!(level(&tone(1000.0, 1.0, 0, 960)), 3);
        assert_eq!(level(&tone(1000.0, 0.01, 0, 960)), 43);
        assert_eq!(level(&[f32::INFINITY; 10]), 0);
    }
}

//! Between the 8 kHz of narrow codecs and 48 kHz, by a windowed sinc: 96 taps, pass band to 3.4 kHz. The ratio is fixed and
//! whole, so the general resampling crates would bring buffers and delay for nothing.

/// 48 kHz over 8 kHz.
const PHASES: usize = 6;
/// Taps per phase.
const TAPS: usize = 16;
/// Taps at 48 kHz.
const LENGTH: usize = TAPS * PHASES;

/// Tap `n` of the filter, before it is made to pass a constant unchanged.
fn tap(n: usize) -> f32 {
    let centre = (LENGTH - 1) as f32 / 2.0;
    let x = (n as f32 - centre) / PHASES as f32;
    let sinc = if x.abs() < 1e-6 {
        1.0
    } else {
        (std::f32::consts::PI * x).sin() / (std::f32::consts::PI * x)
    };
    let phase = std::f32::consts::TAU * n as f32 / (LENGTH - 1) as f32;
    sinc * (0.42 - 0.5 * phase.cos() + 0.08 * (2.0 * phase).cos())
}

/// 8 → 48 kHz, in six phases.
#[derive(Debug)]
pub struct Upsampler {
    taps: [[f32; TAPS]; PHASES],
    past: [f32; TAPS],
}

impl Default for Upsampler {
    fn default() -> Self {
        let mut taps = [[0.0; TAPS]; PHASES];
        for n in 0..LENGTH {
            taps[n % PHASES][n / PHASES] = tap(n);
        }
        for phase in &mut taps {
            let sum: f32 = phase.iter().sum();
            phase.iter_mut().for_each(|tap| *tap /= sum);
        }
        Self {
            taps,
            past: [0.0; TAPS],
        }
    }
}

impl Upsampler {
    /// Appends the six samples that this one becomes.
    pub fn push(&mut self, sample: f32, out: &mut Vec<f32>) {
        self.past.rotate_right(1);
        self.past[0] = sample;
        for phase in &self.taps {
            out.push(phase.iter().zip(&self.past).map(|(tap, past)| tap * past).sum());
        }
    }
}

/// 48 → 8 kHz.
#[derive(Debug)]
pub struct Downsampler {
    taps: [f32; LENGTH],
    past: [f32; LENGTH],
    phase: usize,
}

impl Default for Downsampler {
    fn default() -> Self {
        let mut taps: [f32; LENGTH] = std::array::from_fn(tap);
        let sum: f32 = taps.iter().sum();
        taps.iter_mut().for_each(|tap| *tap /= sum);
        Self {
            taps,
            past: [0.0; LENGTH],
            phase: 0,
        }
    }
}

impl Downsampler {
    /// The sample that six of them become, at the last of the six.
    pub fn push(&mut self, sample: f32) -> Option<f32> {
        self.past.rotate_right(1);
        self.past[0] = sample;
        self.phase = (self.phase + 1) % PHASES;
        (self.phase == 0).then(|| self.taps.iter().zip(&self.past).map(|(tap, past)| tap * past).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::audio::tests::{amplitude, tone};

    #[test]
    fn upsampled_tone_is_the_same_tone_without_images() {
        let mut upsampler = Upsampler::default();
        let mut out = Vec::new();
        for n in 0..8_000 {
            upsampler.push((n as f32 * 1_000.0 * std::f32::consts::TAU / 8_000.0).sin(), &mut out);
        }
        let out = &out[4_800..43_200];
        assert!((amplitude(out, 1_000.0) - 1.0).abs() < 0.01);
        for image in [7_000.0, 9_000.0, 15_000.0, 17_000.0] {
            assert!(amplitude(out, image) < 0.01, "image at {image}");
        }
    }

    #[test]
    fn downsampled_tone_is_the_same_tone_and_what_8_khz_cannot_carry_is_gone() {
        for (hz, kept) in [
            (300.0, 1.0),
            (1_000.0, 1.0),
            (3_000.0, 1.0),
            (5_200.0, 0.0),
            (7_500.0, 0.0),
            (9_000.0, 0.0),
        ] {
            let mut downsampler = Downsampler::default();
            let narrow: Vec<f32> = tone(hz, 0.5, 0, 48_000)
                .into_iter()
                .filter_map(|sample| downsampler.push(sample))
                .collect();
            assert_eq!(narrow.len(), 8_000);
            let level = (narrow[1_000..].iter().map(|sample| sample * sample).sum::<f32>() / 7_000.0 * 2.0).sqrt();
            assert!((level - 0.5 * kept).abs() < 0.02, "{hz}: {level}");
        }
    }
}

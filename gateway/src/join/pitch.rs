//! What a piece of sound is like: its strongest frequency and how loud it is.

/// Range searched, Hz.
const RANGE: std::ops::RangeInclusive<u32> = 50..=3_800;
/// Rate that is enough for that range, Hz.
const RATE: usize = 8_000;
/// Below this RMS (of full scale 1) there is no tone.
const QUIET: f64 = 0.001;

/// Loudness, linear RMS of full scale 1.
pub fn rms(samples: &[i16]) -> f64 {
    if samples.is_empty() {
        return 0.0;
    }
    let sum: f64 = samples
        .iter()
        .map(|sample| (f64::from(*sample) / 32768.0).powi(2))
        .sum();
    (sum / samples.len() as f64).sqrt()
}

/// The strongest frequency in `samples` at 48 kHz, to the Hz for a second of sound. `None` if there is hardly any sound.
pub fn dominant_hz(samples: &[i16]) -> Option<f64> {
    if samples.len() < 4_800 || rms(samples) < QUIET {
        return None;
    }
    let step = 48_000 / RATE;
    // The mean of each block is a low-pass good enough for one strong tone; the window keeps its neighbours down.
    let low: Vec<f64> = (samples.chunks_exact(step))
        .map(|block| block.iter().map(|sample| f64::from(*sample)).sum())
        .collect();
    let count = low.len() as f64;
    let windowed: Vec<f64> = (low.iter().enumerate())
        .map(|(i, sample)| sample * (0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / count).cos()))
        .collect();
    let strongest = |range: &mut dyn Iterator<Item = u32>| {
        range
            .map(|hz| (power(&windowed, f64::from(hz)), hz))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, hz)| hz)
    };
    // The window spreads a tone over 4 Hz for a second of sound, so every other Hz is enough to find it.
    let about = strongest(&mut RANGE.step_by(2))?;
    strongest(&mut (about - 1..=about + 1)).map(f64::from)
}

/// Goertzel's algorithm.
fn power(samples: &[f64], hz: f64) -> f64 {
    let coefficient = 2.0 * (std::f64::consts::TAU * hz / RATE as f64).cos();
    let (mut last, mut before) = (0.0, 0.0);
    for sample in samples {
        let now = sample + coefficient * last - before;
        before = last;
        last = now;
    }
    last * last + before * before - coefficient * last * before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tone_is_found_to_the_hertz() {
        for hz in [100.0, 440.0, 1234.0, 3000.0] {
            let tone: Vec<i16> = (0..48_000)
                .map(|i| ((f64::from(i) * hz / 48_000.0 * std::f64::consts::TAU).sin() * 8000.0) as i16)
                .collect();
            assert_eq!(dominant_hz(&tone), Some(hz));
            assert!((rms(&tone) - 8000.0 / 32768.0 / 2f64.sqrt()).abs() < 0.001);
        }
        assert_eq!(dominant_hz(&[0; 48_000]), None);
    }
}

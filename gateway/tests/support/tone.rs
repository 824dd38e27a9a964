//! A tone in Opus, and how much of one is in samples.

/// A sine in Opus, 20 ms at a time.
pub struct Tone {
    encoder: opus::Encoder,
    pub hz: f64,
    sample: u64,
}

impl Tone {
    pub fn new(hz: f64) -> Self {
        let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
        encoder.set_bitrate(opus::Bitrate::Bits(24_000)).unwrap();
        Self { encoder, hz, sample: 0 }
    }

    pub fn packet(&mut self) -> Vec<u8> {
        let pcm: Vec<f32> = (0..960)
            .map(|n| {
                let turns = (self.sample + n) as f64 * self.hz / 48_000.0;
                ((turns.fract() * std::f64::consts::TAU).sin() * 0.25) as f32
            })
            .collect();
        self.sample += 960;
        self.encoder.encode_vec_float(&pcm, 512).unwrap()
    }
}

/// The amplitude of `hz` (Goertzel).
pub fn amplitude(samples: &[f32], hz: f64) -> f64 {
    let omega = hz * std::f64::consts::TAU / 48_000.0;
    let (mut a, mut b) = (0.0, 0.0);
    for sample in samples {
        (a, b) = (f64::from(*sample) + 2.0 * omega.cos() * a - b, a);
    }
    (a * a + b * b - 2.0 * omega.cos() * a * b).max(0.0).sqrt() * 2.0 / samples.len() as f64
}

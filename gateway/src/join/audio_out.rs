//! Sound to send: a tone, or an Ogg Opus file in a loop.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use wzp_proto::codec::Codec;
use wzp_proto::header::{Flags, MediaHeader, MediaType};

use super::SentCounters;
use super::ogg_opus::{self, OpusPacket, SAMPLES_PER_MS};
use super::voice_out::{Coding, VoiceOut};
use crate::native::client::Sender;

/// Samples of a 20 ms frame.
const FRAME: usize = 960;
/// Amplitude of the tone: a quarter of full scale.
const AMPLITUDE: f64 = 0.25;

/// Where the packets come from.
#[derive(Debug)]
pub enum AudioSource {
    /// A sine.
    Tone(Tone),
    /// A file's packets.
    File(Vec<OpusPacket>),
    /// Either of them in another codec.
    Voice(Box<VoiceOut>),
}

/// A sine, coded as it goes.
pub struct Tone {
    encoder: opus::Encoder,
    hz: f64,
    sample: u64,
}

impl std::fmt::Debug for Tone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tone").field("hz", &self.hz).finish_non_exhaustive()
    }
}

impl Tone {
    /// Nominal 24 kbit/s, mono.
    pub fn new(hz: f64) -> anyhow::Result<Self> {
        let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Audio)?;
        encoder.set_bitrate(opus::Bitrate::Bits(24_000))?;
        Ok(Self { encoder, hz, sample: 0 })
    }

    /// The next samples.
    pub fn samples(&mut self, pcm: &mut [f32]) {
        for sample in pcm {
            let turns = self.sample as f64 * self.hz / 48_000.0;
            *sample = ((turns.fract() * std::f64::consts::TAU).sin() * AMPLITUDE) as f32;
            self.sample += 1;
        }
    }

    /// The next 20 ms.
    pub fn packet(&mut self) -> anyhow::Result<Bytes> {
        let mut pcm = [0.0; FRAME];
        self.samples(&mut pcm);
        let mut packet = [0; 512];
        let len = self.encoder.encode_float(&pcm, &mut packet)?;
        Ok(Bytes::copy_from_slice(&packet[..len]))
    }
}

impl AudioSource {
    /// From the command line: a file, or `tone:440`; in another codec than the file's or the usual one, if asked for.
    ///
    /// # Errors
    /// No such file, or no such tone.
    pub fn open(what: &str, coding: Option<Coding>) -> anyhow::Result<Self> {
        let source = Self::uncoded(what)?;
        match coding {
            Some(coding) => Ok(Self::Voice(Box::new(VoiceOut::new(source, coding)?))),
            None => Ok(source),
        }
    }

    fn uncoded(what: &str) -> anyhow::Result<Self> {
        let Some(hz) = what.strip_prefix("tone:") else {
            return Ok(Self::File(ogg_opus::read(Path::new(what))?));
        };
        let hz: f64 = hz
            .parse()
            .with_context(|| format!("{hz:?} is not a frequency; write tone:440"))?;
        if !(20.0..=20_000.0).contains(&hz) {
            bail!("{hz} Hz cannot be heard; write tone:440");
        }
        Ok(Self::Tone(Tone::new(hz)?))
    }

    /// Sends packets at their times, for ever.
    pub async fn play(mut self, sender: Sender, started: Instant, sent: Arc<SentCounters>) {
        let mut samples = 0;
        let mut index = 0;
        let mut round = 0;
        for seq in 0u32.. {
            let mut codec = Codec::Opus24k;
            let (payload, start, length) = match &mut self {
                Self::Voice(voice) => match voice.packet() {
                    Ok(payload) => {
                        codec = voice.codec();
                        (payload, samples, voice.frame() as u64)
                    }
                    Err(error) => return tracing::error!(%error, "the sound cannot be coded"),
                },
                Self::Tone(tone) => match tone.packet() {
                    Ok(payload) => (payload, samples, FRAME as u64),
                    Err(error) => return tracing::error!(%error, "the tone cannot be coded"),
                },
                Self::File(packets) => {
                    if index == packets.len() {
                        index = 0;
                        round = samples;
                    }
                    let packet = packets[index].clone();
                    index += 1;
                    (packet.payload, round + packet.start, packet.samples)
                }
            };
            samples = start + length;
            tokio::time::sleep_until((started + Duration::from_micros(start * 1000 / SAMPLES_PER_MS)).into()).await;
            let header = MediaHeader {
                flags: Flags::empty(),
                media_type: MediaType::Audio,
                codec,
                stream_id: 0,
                fec_ratio: 0,
                seq,
                timestamp: (start / SAMPLES_PER_MS) as u32,
                fec_block: 0,
            };
            if sender.try_packet(&header, &payload) {
                sent.audio_packets.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

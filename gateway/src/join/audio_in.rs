//! Sound from the room, as a native app takes it (WZP wire v2, section 6.5).

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use wzp_proto::codec::Codec;
use wzp_proto::packet::MediaPacket;

use super::ogg_opus::Recorder;
use super::pitch;
use super::seq::{Arrival, SeqTracker};

/// What is looked at for frequency and loudness: the last second.
const ANALYSED: usize = 48_000;
/// Longest frame that a native decodes, samples: 40 ms. Anything longer is an error there.
const LONGEST: usize = 1_920;

/// Sound that came.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AudioSummary {
    /// Packets.
    pub packets: u64,
    /// Sequence numbers missing.
    pub lost: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Packets that came out of order, or whose time did not move on.
    pub disordered: u64,
    /// Packets that could not be decoded.
    pub undecodable: u64,
    /// Codecs seen.
    pub codecs: BTreeSet<Codec>,
    /// When the first one came.
    pub first_ms: Option<u64>,
    /// When the last one came.
    pub last_ms: Option<u64>,
    /// Longest time between two packets, ms.
    pub longest_pause_ms: u64,
    /// Strongest frequency of the last second.
    pub dominant_hz: Option<f64>,
    /// Loudness of the last second, linear RMS of full scale 1.
    pub rms: Option<f64>,
}

/// Takes, decodes and records.
pub struct AudioIn {
    tracker: SeqTracker,
    decoder: opus::Decoder,
    recorder: Option<Recorder>,
    heard: VecDeque<i16>,
    last_timestamp: Option<u32>,
    summary: AudioSummary,
}

impl AudioIn {
    /// Records to `path`, if given.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(path: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self {
            tracker: SeqTracker::new(),
            decoder: opus::Decoder::new(48_000, opus::Channels::Mono)?,
            recorder: path.map(Recorder::create).transpose()?,
            heard: VecDeque::with_capacity(ANALYSED + LONGEST),
            last_timestamp: None,
            summary: AudioSummary::default(),
        })
    }

    /// Takes a packet that came at `at`.
    pub fn take(&mut self, packet: &MediaPacket, at: Duration) {
        let header = &packet.header;
        let summary = &mut self.summary;
        if header.is_repair() || header.codec == Codec::ComfortNoise {
            return;
        }
        summary.packets += 1;
        summary.codecs.insert(header.codec);
        let at = at.as_millis() as u64;
        summary.first_ms.get_or_insert(at);
        if let Some(last) = summary.last_ms.replace(at) {
            summary.longest_pause_ms = summary.longest_pause_ms.max(at - last);
        }
        let arrival = self.tracker.take(header.seq);
        if matches!(arrival, Arrival::Late | Arrival::Duplicate) {
            summary.disordered += 1;
            return;
        }
        let moved = self.last_timestamp.replace(header.timestamp);
        if moved.is_some_and(|last| header.timestamp.wrapping_sub(last).wrapping_sub(1) >= 1 << 31) {
            summary.disordered += 1;
        }
        if !header.codec.is_opus() {
            return;
        }
        let mut pcm = [0; LONGEST];
        match self.decoder.decode(&packet.payload, &mut pcm, false) {
            Ok(samples) => self.heard.extend(&pcm[..samples]),
            Err(_) => summary.undecodable += 1,
        }
        while self.heard.len() > ANALYSED {
            self.heard.pop_front();
        }
        if let Some(recorder) = &mut self.recorder
            && let Err(error) = recorder.packet(packet.payload.clone(), u64::from(header.timestamp))
        {
            tracing::error!(%error, "the sound is no longer recorded");
            self.recorder = None;
        }
    }

    /// Ends the recording and sums up.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(mut self) -> anyhow::Result<AudioSummary> {
        if let Some(recorder) = self.recorder {
            recorder.finish()?;
        }
        let heard = self.heard.make_contiguous();
        self.summary.dominant_hz = pitch::dominant_hz(heard);
        self.summary.rms = (!heard.is_empty()).then(|| pitch::rms(heard));
        self.summary.lost = self.tracker.lost;
        self.summary.duplicates = self.tracker.duplicates;
        Ok(self.summary)
    }
}

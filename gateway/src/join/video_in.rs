//! Pictures from the room, as a native app takes them (WZP wire v2, section 7.4).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use wzp_proto::codec::Codec;
use wzp_proto::packet::MediaPacket;
use wzp_proto::video::{AssembledFrame, Reassembler};

use super::seq::{Arrival, SeqTracker};

/// A keyframe is asked for at most this often.
const PLI_INTERVAL: Duration = Duration::from_millis(250);
/// Larger jumps are taken for a sender that began anew.
const LARGEST_GAP: u32 = 9_999;

/// Pictures that came.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VideoSummary {
    /// Frames that a decoder would have got.
    pub frames: u64,
    /// Those of them that were keyframes.
    pub keyframes: u64,
    /// Frames dropped after a gap, up to the next keyframe.
    pub dropped: u64,
    /// Packets.
    pub packets: u64,
    /// Sequence numbers missing.
    pub lost: u64,
    /// Times that numbers were missing.
    pub gaps: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Frames of which fragments are missing.
    pub incomplete: u64,
    /// Frames whose time did not move on.
    pub disordered: u64,
    /// When the first frame was there.
    pub first_frame_ms: Option<u64>,
    /// When the last frame was there.
    pub last_frame_ms: Option<u64>,
    /// Longest time between two frames, ms.
    pub longest_pause_ms: u64,
    /// Width of the newest frame that says it.
    pub width: Option<u16>,
    /// Its height.
    pub height: Option<u16>,
    /// Codecs seen.
    pub codecs: BTreeSet<Codec>,
    /// Stream ids seen.
    pub streams: BTreeSet<u8>,
}

/// Takes and records.
pub struct VideoIn {
    tracker: SeqTracker,
    reassembler: Reassembler,
    recorder: Option<BufWriter<File>>,
    needs_keyframe: bool,
    asked_at: Option<Duration>,
    last_timestamp: Option<u32>,
    summary: VideoSummary,
}

impl VideoIn {
    /// Records to `path`, if given.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(path: Option<&Path>) -> anyhow::Result<Self> {
        let create = |path: &Path| File::create(path).with_context(|| format!("cannot write {}", path.display()));
        Ok(Self {
            tracker: SeqTracker::new(),
            reassembler: Reassembler::default(),
            recorder: path.map(create).transpose()?.map(BufWriter::new),
            needs_keyframe: true,
            asked_at: None,
            last_timestamp: None,
            summary: VideoSummary::default(),
        })
    }

    /// Takes a packet that came at `at`; a stream id to ask for a keyframe with.
    pub fn take(&mut self, packet: &MediaPacket, at: Duration) -> Option<u8> {
        let header = &packet.header;
        self.summary.packets += 1;
        self.summary.streams.insert(header.stream_id);
        self.summary.codecs.insert(header.codec);
        let mut ask = None;
        if let Arrival::Gap(missing) = self.tracker.take(header.seq)
            && missing <= LARGEST_GAP
        {
            self.summary.gaps += 1;
            self.needs_keyframe = true;
            if self
                .asked_at
                .is_none_or(|asked| at.saturating_sub(asked) >= PLI_INTERVAL)
            {
                self.asked_at = Some(at);
                ask = Some(header.stream_id);
            }
        }
        if let Ok(Some(frame)) = self.reassembler.push(packet, at) {
            self.frame(&frame, at);
        }
        ask
    }

    fn frame(&mut self, frame: &AssembledFrame, at: Duration) {
        let summary = &mut self.summary;
        if self.needs_keyframe && !frame.keyframe {
            summary.dropped += 1;
            return;
        }
        self.needs_keyframe = false;
        let moved = self.last_timestamp.replace(frame.timestamp);
        if moved.is_some_and(|last| frame.timestamp.wrapping_sub(last).wrapping_sub(1) >= 1 << 31) {
            summary.disordered += 1;
        }
        summary.frames += 1;
        summary.keyframes += u64::from(frame.keyframe);
        let at = at.as_millis() as u64;
        summary.first_frame_ms.get_or_insert(at);
        if let Some(last) = summary.last_frame_ms.replace(at) {
            summary.longest_pause_ms = summary.longest_pause_ms.max(at - last);
        }
        if let Some(size) = frame.size {
            summary.width = Some(size.width);
            summary.height = Some(size.height);
        }
        if let Some(recorder) = &mut self.recorder
            && frame.codec == Codec::H264Baseline
            && let Err(error) = recorder.write_all(&frame.payload)
        {
            tracing::error!(%error, "the picture is no longer recorded");
            self.recorder = None;
        }
    }

    /// Ends the recording and sums up.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(mut self) -> anyhow::Result<VideoSummary> {
        if let Some(mut recorder) = self.recorder {
            recorder.flush().context("the recorded picture cannot be written")?;
        }
        self.summary.lost = self.tracker.lost;
        self.summary.duplicates = self.tracker.duplicates;
        let stats = self.reassembler.stats();
        self.summary.incomplete = stats.incomplete + self.reassembler.pending_frames() as u64;
        Ok(self.summary)
    }
}

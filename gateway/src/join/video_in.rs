//! Pictures from the room, as a native app takes them (WZP wire v2, section 7.4).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use wzp_proto::Repair;
use wzp_proto::codec::Codec;
use wzp_proto::packet::MediaPacket;
use wzp_proto::video::{AssembledFrame, Reassembler};

use super::seq::{Arrival, SeqTracker};
use crate::media::frame::RoomTime;
use crate::native::repair::RepairedOrder;

/// A keyframe is asked for at most this often.
const PLI_INTERVAL: Duration = Duration::from_millis(250);
/// Frames by which the end of the replay is found.
const BEGINNING: usize = 900;
/// A frame that comes this much later than others is not live.
const LATE: Duration = Duration::from_millis(100);
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
    /// Packets that came because they were asked for.
    pub repaired: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Frames of which fragments are missing.
    pub incomplete: u64,
    /// Frames whose time did not move on.
    pub disordered: u64,
    /// When the first frame was there.
    pub first_frame_ms: Option<u64>,
    /// From when on frames came at their own times: all that was replayed had come before.
    pub live_ms: Option<u64>,
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

/// What to ask the relay for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A keyframe of this stream.
    Keyframe(u8),
    /// Packets of this stream once more.
    Packets(u8, Vec<u32>),
}

/// Takes and records.
pub struct VideoIn {
    tracker: SeqTracker,
    reassembler: Reassembler,
    /// Order and repair, unless it is as today's apps are: frames are taken as they come, and a gap needs a keyframe.
    order: Option<RepairedOrder<AssembledFrame>>,
    stream_id: u8,
    recorder: Option<BufWriter<File>>,
    needs_keyframe: bool,
    asked_at: Option<Duration>,
    last_timestamp: Option<u32>,
    /// When the first frames came, and their times.
    beginning: Vec<(Duration, u32)>,
    summary: VideoSummary,
}

impl VideoIn {
    /// Records to `path`, if given. `repairs`: missing packets are asked for.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(path: Option<&Path>, repairs: bool) -> anyhow::Result<Self> {
        let create = |path: &Path| File::create(path).with_context(|| format!("cannot write {}", path.display()));
        Ok(Self {
            tracker: SeqTracker::new(),
            reassembler: Reassembler::default(),
            order: repairs.then(RepairedOrder::default),
            stream_id: 0,
            recorder: path.map(create).transpose()?.map(BufWriter::new),
            needs_keyframe: true,
            asked_at: None,
            last_timestamp: None,
            beginning: Vec::new(),
            summary: VideoSummary::default(),
        })
    }

    /// Takes a packet that came at `at`; what to ask for.
    pub fn take(&mut self, packet: &MediaPacket, at: Duration) -> Option<Ask> {
        let header = &packet.header;
        self.stream_id = header.stream_id;
        self.summary.packets += 1;
        self.summary.streams.insert(header.stream_id);
        self.summary.codecs.insert(header.codec);
        let arrival = self.tracker.take(header.seq);
        if let Some(order) = &mut self.order {
            let now = room_time(at);
            order.packet(header.seq, now);
            if let Ok(Some(frame)) = self.reassembler.push(packet, at) {
                let seqs = (frame.first_seq, frame.last_seq);
                order.push(seqs, frame.timestamp, frame.keyframe, frame, now);
            }
            return self.handle_timeout(at);
        }
        let mut ask = None;
        if let Arrival::Gap(missing) = arrival
            && missing <= LARGEST_GAP
        {
            self.summary.gaps += 1;
            self.needs_keyframe = true;
            if self
                .asked_at
                .is_none_or(|asked| at.saturating_sub(asked) >= PLI_INTERVAL)
            {
                self.asked_at = Some(at);
                ask = Some(Ask::Keyframe(header.stream_id));
            }
        }
        if let Ok(Some(frame)) = self.reassembler.push(packet, at) {
            self.frame(&frame, at);
        }
        ask
    }

    /// Sets the round-trip time to the relay.
    pub fn set_rtt(&mut self, rtt: Duration) {
        if let Some(order) = &mut self.order {
            order.set_rtt(rtt.as_micros() as u64);
        }
    }

    /// When [`VideoIn::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Duration> {
        Some(Duration::from_micros(self.order.as_ref()?.poll_timeout()?.0))
    }

    /// Does what is due; what to ask for. Call it again as long as it says something.
    pub fn handle_timeout(&mut self, at: Duration) -> Option<Ask> {
        let now = room_time(at);
        let ask = |what, stream_id| match what {
            Repair::Nack(seqs) => Ask::Packets(stream_id, seqs),
            Repair::Keyframe => Ask::Keyframe(stream_id),
        };
        if let Some(what) = self.order.as_mut()?.poll(now) {
            return Some(ask(what, self.stream_id));
        }
        while let Some(ordered) = self.order.as_mut()?.pop(now) {
            if ordered.missing > 0 {
                self.summary.gaps += 1;
                self.needs_keyframe = true;
            }
            self.frame(&ordered.item, at);
        }
        Some(ask(self.order.as_mut()?.poll(now)?, self.stream_id))
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
        if self.beginning.len() < BEGINNING {
            self.beginning.push((at, frame.timestamp));
        }
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
        self.summary.live_ms = live_at(&self.beginning).map(|at| at.as_millis() as u64);
        self.summary.lost = self.tracker.lost;
        self.summary.duplicates = self.tracker.duplicates;
        self.summary.repaired = self.order.as_ref().map_or(0, RepairedOrder::repaired);
        let stats = self.reassembler.stats();
        self.summary.incomplete = stats.incomplete + self.reassembler.pending_frames() as u64;
        Ok(self.summary)
    }
}

/// From when on frames came at most [`LATE`] later than those at the end did.
fn live_at(frames: &[(Duration, u32)]) -> Option<Duration> {
    let (last_at, last_timestamp) = frames.last()?;
    let late = |(at, timestamp): &(Duration, u32)| {
        let media = Duration::from_millis(last_timestamp.wrapping_sub(*timestamp).into());
        *at + media > *last_at + LATE
    };
    let first = frames.iter().rposition(late).map_or(0, |last_late| last_late + 1);
    frames.get(first).map(|(at, _)| *at)
}

fn room_time(at: Duration) -> RoomTime {
    RoomTime(at.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replay_ends_where_frames_begin_to_come_at_their_own_times() {
        let frame = |at: u64, timestamp: u32| (Duration::from_millis(at), timestamp);
        // A second of frames at once at 40 ms, and then live; the first of them is 990 ms old.
        let replayed = (0..31).map(|n| frame(40, n * 33));
        let live = (31..90).map(|n| frame(40 + (u64::from(n) - 30) * 33, n * 33));
        let frames: Vec<_> = replayed.chain(live).collect();
        assert_eq!(live_at(&frames), Some(Duration::from_millis(40)));
        // The same, sent over half a second.
        let replayed = (0..31u32).map(|n| frame(40 + u64::from(n) * 16, n * 33));
        let live = (31..90u32).map(|n| frame(40 + (u64::from(n) - 15) * 33, n * 33));
        let frames: Vec<_> = replayed.chain(live).collect();
        let at = live_at(&frames).unwrap().as_millis();
        assert!((400..560).contains(&at), "{at}");
        assert_eq!(live_at(&[]), None);
    }
}

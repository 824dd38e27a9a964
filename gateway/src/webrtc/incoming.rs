//! What a peer sends over RTP, on its way into the room's logs.

use std::time::{Duration, Instant};

use bytes::Bytes;
use wzp_proto::codec::Codec as WzpCodec;
use wzp_proto::video::FrameSize;

use crate::media::clock::{Extend32, SourceClock};
use crate::media::frame::{Draft, Kind, RoomTime};
use crate::media::rtp::depacketize::{Depacketizer, Output};
use crate::media::rtp::reorder::{Limits, Out, Reorder};
use crate::room::track::{Appended, TrackWriter};
use crate::webrtc::engine::{Codec, ReportTime, RtpMeta};

#[cfg(test)]
mod tests;

/// A stream that another one of its m-line took over from is left out as long as packets of it come no further apart
/// than this: they were on their way, or the peer sends both.
const LEFT_FOR: Duration = Duration::from_secs(1);
/// The stream that is followed gives way even to one that was left when nothing came of it for this long: a muted microphone
/// that sends comfort noise is heard several times in it.
const SILENT_FOR: Duration = Duration::from_secs(5);
/// Streams of one m-line that are remembered as left.
const MAX_LEFT: usize = 8;

/// A packet that waits for its predecessors.
#[derive(Debug, Clone)]
struct Packet {
    timestamp: u32,
    marker: bool,
    payload: Bytes,
}

/// What has to be done about the packets taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// A frame was lost for good, or refers to one that was: a keyframe is needed.
    pub needs_keyframe: bool,
    /// The track turned out to be this.
    pub described: Option<(WzpCodec, Option<FrameSize>)>,
    /// From now on this SSRC is followed.
    pub follows: Option<u32>,
}

/// One incoming stream of a peer.
pub struct Incoming {
    kind: Kind,
    slot: u8,
    writer: TrackWriter,
    /// The stream that is followed, the newest of its m-line unless that stopped, and when a packet of it came last.
    followed: Option<(u32, Instant)>,
    /// Those before it, and when a packet of each came last.
    left: Vec<(u32, Instant)>,
    codec: Option<Codec>,
    size: Option<FrameSize>,
    reorder: Reorder<Packet>,
    depacketizer: Depacketizer,
    extend: Extend32,
    /// What timestamps of this stream are moved by, to go on from those of the stream before it; modulo 2⁶⁴.
    shift: u64,
    /// The last frame's ticks and arrival.
    last: Option<(u64, RoomTime)>,
    clock: SourceClock,
    /// From the last sender report: NTP time in µs, media time in µs.
    report: Option<(u64, u64)>,
    level: Option<u8>,
}

/// The codec as the native protocol names it.
pub fn wzp_codec(codec: Codec) -> WzpCodec {
    match codec {
        Codec::Opus => WzpCodec::Opus24k,
        Codec::H264 => WzpCodec::H264Baseline,
        Codec::Av1 => WzpCodec::Av1Main,
        Codec::H265 => WzpCodec::H265Main,
    }
}

/// The codec as RTP carries it, if it does.
pub fn rtp_codec(codec: WzpCodec) -> Option<Codec> {
    match codec {
        WzpCodec::H264Baseline => Some(Codec::H264),
        WzpCodec::Av1Main => Some(Codec::Av1),
        WzpCodec::H265Main => Some(Codec::H265),
        other if other.is_opus() => Some(Codec::Opus),
        _ => None,
    }
}

impl Incoming {
    /// For a track of this kind and slot.
    pub fn new(kind: Kind, slot: u8, writer: TrackWriter) -> Self {
        let limits = if kind == Kind::Video {
            Limits::VIDEO
        } else {
            Limits::AUDIO
        };
        Self {
            kind,
            slot,
            writer,
            followed: None,
            left: Vec::new(),
            codec: None,
            size: None,
            reorder: Reorder::new(limits),
            depacketizer: Depacketizer::opus(),
            extend: Extend32::default(),
            shift: 0,
            last: None,
            clock: SourceClock::default(),
            report: None,
            level: None,
        }
    }

    /// Sound or picture.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// See [`crate::media::frame::TrackId::slot`].
    pub fn slot(&self) -> u8 {
        self.slot
    }

    /// The track.
    pub fn writer(&self) -> &TrackWriter {
        &self.writer
    }

    /// The greatest loudness since this was asked last, −dBov: 0 is the loudest.
    pub fn take_level(&mut self) -> Option<u8> {
        self.level.take()
    }

    /// The round trip to the peer.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.reorder.set_rtt(rtt);
    }

    /// Takes a packet. `shared` is the clock that all streams of the peer have in common, on NTP time.
    pub fn packet(
        &mut self,
        meta: &RtpMeta,
        payload: Bytes,
        now: Instant,
        room_now: RoomTime,
        shared: &mut SourceClock,
    ) -> Outcome {
        let follows = self.followed.is_none_or(|(ssrc, _)| ssrc != meta.ssrc);
        if follows && !self.follow(meta, now, room_now) {
            return Outcome::default();
        }
        self.followed = Some((meta.ssrc, now));
        if self.codec != Some(meta.codec) {
            self.codec = Some(meta.codec);
            self.depacketizer = depacketizer(meta.codec);
        }
        if let Some(level) = meta.audio_level {
            self.level = Some(self.level.map_or(level, |loudest| loudest.min(level)));
        }
        if let Some((ntp_us, media_us)) = self.report {
            let media = self.media_us(self.ticks_of(meta.timestamp));
            let ntp = ntp_us.wrapping_add(media.wrapping_sub(media_us));
            shared.room_time(ntp, room_now);
        }
        self.reorder.push(
            now,
            meta.seq,
            Packet {
                timestamp: meta.timestamp,
                marker: meta.marker,
                payload,
            },
        );
        Outcome {
            follows: follows.then_some(meta.ssrc),
            ..self.advance(now, room_now)
        }
    }

    /// Follows another stream of the m-line, as when a peer exchanges its sender, unless it is one that was left for another
    /// that is heard.
    ///
    /// Its numbers and timestamps begin anew; what comes out goes on from where the stream before it was.
    fn follow(&mut self, meta: &RtpMeta, now: Instant, room_now: RoomTime) -> bool {
        if let Some(at) = self.left.iter().position(|(ssrc, _)| *ssrc == meta.ssrc) {
            let (_, seen) = &mut self.left[at];
            let trickles = now.saturating_duration_since(*seen) < LEFT_FOR;
            let heard = |(_, at)| now.saturating_duration_since(at) < SILENT_FOR;
            if trickles && self.followed.is_some_and(heard) {
                *seen = now;
                return false;
            }
            self.left.remove(at);
        }
        if let Some((before, _)) = self.followed {
            if self.left.len() >= MAX_LEFT {
                self.left.remove(0);
            }
            self.left.push((before, now));
            self.reorder.restart();
            self.depacketizer = depacketizer(meta.codec);
            self.extend = Extend32::default();
            self.clock = SourceClock::default();
            self.report = None;
            let first = self.extend.extend(meta.timestamp);
            self.shift = self.last.map_or(0, |(ticks, at)| {
                let elapsed = room_now.since(at) * u64::from(self.kind.clock_rate()) / 1_000_000;
                ticks.wrapping_add(elapsed.max(1)).wrapping_sub(first)
            });
        }
        true
    }

    fn ticks_of(&self, timestamp: u32) -> u64 {
        self.extend.peek(timestamp).wrapping_add(self.shift)
    }

    /// Takes a sender report: from now on the stream's time follows the clock that the peer's streams have in common.
    pub fn sender_report(&mut self, time: ReportTime, room_now: RoomTime, shared: &mut SourceClock) {
        let ntp_us = ntp_micros(time.ntp);
        let media_us = self.media_us(self.ticks_of(time.rtp));
        self.report = Some((ntp_us, media_us));
        let at = shared.room_time(ntp_us, room_now);
        self.clock.report(media_us, at);
    }

    /// Packets to ask the peer for now.
    pub fn nacks(&mut self, now: Instant) -> Vec<u64> {
        self.reorder.nacks(now)
    }

    /// When [`Incoming::nacks`] and [`Incoming::advance`] have something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.reorder.next_timeout()
    }

    /// Makes frames of what is in order.
    pub fn advance(&mut self, now: Instant, room_now: RoomTime) -> Outcome {
        let mut outcome = Outcome::default();
        while let Some(out) = self.reorder.pop(now) {
            // What is lost shows as a gap in the numbers.
            if let Out::Packet { seq, packet } = out {
                self.depacketizer
                    .push(seq, packet.timestamp, packet.marker, &packet.payload);
            }
            while let Some(output) = self.depacketizer.poll() {
                self.frame(output, room_now, &mut outcome);
            }
        }
        outcome
    }

    fn frame(&mut self, output: Output, room_now: RoomTime, outcome: &mut Outcome) {
        let unit = match output {
            Output::Frame(unit) => unit,
            Output::Damaged { cause, .. } => {
                if self.kind == Kind::Video {
                    tracing::debug!(%cause, "a video frame was dropped");
                    self.writer.lost_frame();
                    outcome.needs_keyframe = true;
                }
                return;
            }
        };
        let Some(codec) = self.codec else { return };
        let ticks = self.extend.extend(unit.timestamp).wrapping_add(self.shift);
        self.last = Some((ticks, room_now));
        let size = unit.size.and_then(|(width, height)| {
            Some(FrameSize {
                width: u16::try_from(width).ok()?,
                height: u16::try_from(height).ok()?,
            })
        });
        let codec = wzp_codec(codec);
        let draft = Draft {
            codec,
            keyframe: unit.keyframe,
            ticks,
            time: self.clock.room_time(self.media_us(ticks), room_now),
            size,
            payload: unit.data,
        };
        match self.writer.append(draft, room_now) {
            Appended::At(index) => {
                if index == 0 || (size.is_some() && size != self.size) {
                    self.size = size;
                    outcome.described = Some((codec, size));
                }
            }
            Appended::NeedsKeyframe => outcome.needs_keyframe = true,
        }
    }

    fn media_us(&self, ticks: u64) -> u64 {
        // 48 kHz and 90 kHz: exact to the microsecond, and no overflow in any call's length.
        (u128::from(ticks) * 1_000_000 / u128::from(self.kind.clock_rate())) as u64
    }
}

fn depacketizer(codec: Codec) -> Depacketizer {
    match codec {
        Codec::Av1 => Depacketizer::av1(),
        Codec::Opus => Depacketizer::opus(),
        Codec::H264 => Depacketizer::h264(),
        Codec::H265 => Depacketizer::h265(),
    }
}

/// NTP time (32.32 fixed point) in µs.
fn ntp_micros(ntp: u64) -> u64 {
    (ntp >> 32) * 1_000_000 + (((ntp & 0xffff_ffff) * 1_000_000) >> 32)
}

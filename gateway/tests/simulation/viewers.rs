//! Viewers over WebSocket and WebRTC: the gateway's machines on one side, what browsers do on the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use wzp_gateway::browser::window::Window;
use wzp_gateway::media::frame::{Frame, RoomTime, RtpPayload};
use wzp_gateway::media::rtp::depacketize::{Depacketizer, Output};
use wzp_gateway::media::rtp::history::{self, History};
use wzp_gateway::media::rtp::packetize;
use wzp_gateway::media::rtp::reorder::{Limits, Out, Reorder};
use wzp_gateway::media::rtp::rewrite::Rewriter;
use wzp_gateway::media::rtp::sequence::{DuplicateFilter, SequenceExtender};
use wzp_gateway::room::keyframes::Reason;
use wzp_gateway::room::replay::Replay;
use wzp_gateway::room::state::Room;
use wzp_gateway::room::subscription::{Cursor, Lag, Next};
use wzp_gateway::room::track::Track;

use crate::links::{Conditions, Link, Random, Stream};
use crate::publisher::number_of;

const LAG: Lag = Lag {
    most: 500_000,
    resync_age: 1_000_000,
};
/// A receiver that waits for a keyframe asks again after this, µs.
const ASK_INTERVAL: u64 = 500_000;
/// Payload of an RTP packet.
const MTU: usize = 1150;
/// A replay over RTP goes no faster than 50 Mbit/s.
const PACE_BYTES_PER_MS: u64 = 6_250;

/// What every viewer ends in: refuses to decode what cannot be.
#[derive(Debug, Default)]
pub struct Decoder {
    pub last: Option<u32>,
    pub decoded: u64,
    /// Times that something was left out between two frames.
    pub jumps: u64,
    /// When which frame was decoded.
    pub seen: Vec<(u64, u32)>,
}

impl Decoder {
    pub fn decode(&mut self, (number, keyframe): (u32, bool), now: u64) {
        match self.last {
            Some(last) => {
                assert!(number > last, "frame {number} after {last} at {now}");
                assert!(
                    keyframe || number == last + 1,
                    "frame {number} without {}, after {last} at {now}",
                    number - 1
                );
                self.jumps += u64::from(number != last + 1);
            }
            None => assert!(keyframe, "begins with frame {number}, which is no keyframe, at {now}"),
        }
        self.last = Some(number);
        self.decoded += 1;
        self.seen.push((now, number));
    }
}

/// The gateway's end of a viewer: a cursor with its replay.
struct Feed {
    track: Arc<Track>,
    cursor: Cursor,
    replay: Replay,
    asked_at: Option<u64>,
}

impl Feed {
    fn new(track: &Arc<Track>, room: &mut Room, now: u64) -> Self {
        let mut cursor = Cursor::new(track, &Arc::new(Notify::new()));
        let replay = Replay::new(cursor.start(), RoomTime(now));
        if replay.wants_keyframe() {
            room.request_keyframe(track.id(), RoomTime(now), Reason::Join, RoomTime(now));
        }
        Self {
            track: track.clone(),
            cursor,
            replay,
            asked_at: Some(now),
        }
    }

    fn next(&mut self, room: &mut Room, now: u64) -> Option<Arc<Frame>> {
        match self
            .replay
            .next(&mut self.cursor, &LAG, self.track.is_silent(), RoomTime(now))
        {
            Next::Frame(frame) => Some(frame),
            Next::NeedsKeyframe => {
                if self.asked_at.is_none_or(|at| now - at >= ASK_INTERVAL) {
                    self.asked_at = Some(now);
                    room.request_keyframe(self.track.id(), RoomTime(now), Reason::Loss, RoomTime(now));
                }
                None
            }
            Next::Empty | Next::Ended => None,
        }
    }
}

/// A piece of a frame on a WebSocket.
#[derive(Debug, Clone)]
struct Piece {
    bytes: Bytes,
    last: bool,
}

pub struct WebSocketViewer {
    feed: Feed,
    window: Window,
    down: Stream<Piece>,
    up: Stream<u64>,
    base: Instant,
    received: u64,
    frame: BytesMut,
    pub decoder: Decoder,
}

impl WebSocketViewer {
    pub fn new(track: &Arc<Track>, room: &mut Room, delay: u64, rate: u64, base: Instant, now: u64) -> Self {
        Self {
            feed: Feed::new(track, room, now),
            window: Window::default(),
            down: Stream::new(delay, rate),
            up: Stream::new(delay, 0),
            base,
            received: 0,
            frame: BytesMut::new(),
            decoder: Decoder::default(),
        }
    }

    pub fn step(&mut self, room: &mut Room, now: u64) {
        let instant = self.base + Duration::from_micros(now);
        for count in self.up.arrived(now) {
            self.window.acked(count, 0, instant).expect("it was sent");
        }
        while self.window.open_for_video(instant)
            && let Some(frame) = self.feed.next(room, now)
        {
            // The payload's pieces stand for the messages, which have the same bounds.
            let pieces = frame.messages().len().max(1);
            let size = frame.payload.len().div_ceil(pieces);
            for n in 0..pieces {
                let bytes = frame.payload.slice(n * size..((n + 1) * size).min(frame.payload.len()));
                self.window.sent(bytes.len(), instant);
                let (len, last) = (bytes.len(), n + 1 == pieces);
                self.down.send(Piece { bytes, last }, len, now);
            }
        }
        for piece in self.down.arrived(now) {
            self.received += 1;
            self.up.send(self.received, 0, now);
            self.frame.extend_from_slice(&piece.bytes);
            if piece.last {
                let frame = self.frame.split();
                self.decoder.decode(number_of(&frame), now);
            }
        }
    }
}

#[derive(Debug, Clone)]
struct Rtp {
    seq: u16,
    timestamp: u32,
    payload: RtpPayload,
}

/// What a browser tells us by RTCP.
#[derive(Debug, Clone)]
enum Feedback {
    Nack(Vec<u16>),
    PictureLoss,
}

pub struct WebRtcViewer {
    feed: Feed,
    rewriter: Rewriter,
    history: History<Rtp>,
    credit: u64,
    rtt: u64,
    down: Link<Rtp>,
    up: Link<Feedback>,
    base: Instant,
    extender: SequenceExtender,
    filter: DuplicateFilter,
    reorder: Reorder<Rtp>,
    depacketizer: Depacketizer,
    asked_at: Option<u64>,
    began: bool,
    pub decoder: Decoder,
    pub nacks: u64,
}

impl WebRtcViewer {
    pub fn new(
        track: &Arc<Track>,
        room: &mut Room,
        conditions: Conditions,
        mut random: Random,
        base: Instant,
        now: u64,
    ) -> Self {
        let rtt = 2 * conditions.delay;
        let mut reorder = Reorder::new(Limits::VIDEO);
        reorder.set_rtt(Duration::from_micros(rtt));
        let up = Random(random.next());
        Self {
            feed: Feed::new(track, room, now),
            rewriter: Rewriter::new(90_000, random.next() as u32),
            history: History::new(history::Limits::default()),
            credit: 0,
            rtt,
            down: Link::new(conditions, random),
            up: Link::new(conditions, up),
            base,
            extender: SequenceExtender::default(),
            filter: DuplicateFilter::default(),
            reorder,
            depacketizer: Depacketizer::h264(),
            asked_at: None,
            began: false,
            decoder: Decoder::default(),
            nacks: 0,
        }
    }

    pub fn calm(&mut self) {
        let delay = self.down.conditions.delay;
        let calm = Conditions {
            delay,
            ..Conditions::default()
        };
        (self.down.conditions, self.up.conditions) = (calm, calm);
    }

    pub fn lost(&self) -> u64 {
        self.down.lost
    }

    pub fn step(&mut self, room: &mut Room, elapsed: u64, now: u64) {
        let instant = self.base + Duration::from_micros(now);
        for feedback in self.up.arrived(now) {
            match feedback {
                Feedback::Nack(seqs) => {
                    for seq in seqs {
                        if let Ok(packet) = self.history.repeat(instant, seq) {
                            self.down.send(packet.clone(), now);
                        }
                    }
                }
                Feedback::PictureLoss => {
                    let since = RoomTime(now.saturating_sub(self.rtt));
                    room.request_keyframe(self.feed.track.id(), since, Reason::Viewer, RoomTime(now));
                }
            }
        }
        self.send(room, elapsed, instant, now);
        self.receive(instant, now);
    }

    fn send(&mut self, room: &mut Room, elapsed: u64, instant: Instant, now: u64) {
        self.credit = (self.credit + PACE_BYTES_PER_MS * elapsed / 1000).min(128 * 1024);
        while self.credit > 0
            && let Some(frame) = self.feed.next(room, now)
        {
            let payloads =
                frame.rtp_payloads(|frame| packetize::h264(&frame.payload, MTU).expect("well-formed").into());
            let timestamp = self.rewriter.timestamp(instant, 1, frame.ticks as u32);
            for payload in payloads.iter() {
                let packet = Rtp {
                    seq: self.rewriter.sequence(),
                    timestamp,
                    payload: payload.clone(),
                };
                let size = payload.bytes.len();
                self.credit = self.credit.saturating_sub(size as u64);
                self.history.push(instant, packet.seq, size, packet.clone());
                self.down.send(packet, now);
            }
        }
        let limits = history::Limits::default();
        assert!(self.history.bytes() <= limits.bytes);
    }

    fn receive(&mut self, instant: Instant, now: u64) {
        for packet in self.down.arrived(now) {
            let seq = self.extender.extend(packet.seq);
            if self.filter.is_new(seq) {
                self.began = true;
                self.reorder.push(instant, seq, packet);
            }
        }
        while let Some(out) = self.reorder.pop(instant) {
            let Out::Packet { seq, packet } = out else { continue };
            let payload = &packet.payload;
            self.depacketizer
                .push(seq, packet.timestamp, payload.marker, &payload.bytes);
            while let Some(output) = self.depacketizer.poll() {
                if let Output::Frame(unit) = output {
                    self.decoder.decode(number_of(&unit.data), now);
                }
            }
        }
        let missing = self.reorder.nacks(instant);
        if !missing.is_empty() {
            self.nacks += 1;
            self.up
                .send(Feedback::Nack(missing.into_iter().map(|seq| seq as u16).collect()), now);
        }
        let stuck = self.began && self.depacketizer.needs_keyframe();
        if stuck && self.asked_at.is_none_or(|at| now - at >= ASK_INTERVAL) {
            self.asked_at = Some(now);
            self.up.send(Feedback::PictureLoss, now);
        }
    }
}

//! Viewers over WebSocket and WebRTC: the gateway's egress on one side, what browsers do on the other.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use wzp_gateway::browser::egress::{Egress, Out};
use wzp_gateway::browser::message::parse_media;
use wzp_gateway::browser::window::Window;
use wzp_gateway::media::frame::{Kind, ParticipantId, RoomTime, TrackId};
use wzp_gateway::media::rtp::depacketize::{Depacketizer, Output};
use wzp_gateway::media::rtp::history;
use wzp_gateway::media::rtp::reorder::{Limits, Out as Ordered, Reorder};
use wzp_gateway::media::rtp::sequence::{DuplicateFilter, SequenceExtender};
use wzp_gateway::room::keyframes::Reason;
use wzp_gateway::room::snapshot::Snapshot;
use wzp_gateway::room::state::Room;
use wzp_gateway::room::track::Track;
use wzp_gateway::room::upstream::Upstream;
use wzp_gateway::webrtc::assign::Line;
use wzp_gateway::webrtc::engine::{Codec, Mid, OutgoingRtp};
use wzp_gateway::webrtc::outgoing::Outgoing;

use crate::links::{Conditions, Link, Random, Stream};
use crate::publisher::number_of;
use wzp_gateway::webrtc::pace::Paced;

/// A browser that waits for a keyframe asks again after this, µs.
const ASK_INTERVAL: u64 = 500_000;
/// A viewer's request is not for a keyframe that was sent within this, µs.
const UNDER_WAY: u64 = 100_000;
/// Browsers report what they lost this often, µs.
const REPORT_INTERVAL: u64 = 1_000_000;
/// What the kernel takes beyond what is on the link: `TCP_NOTSENT_LOWAT`.
const UNSENT: usize = 16 << 10;

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

    /// The longest time without a frame between `begin` and `end`, µs.
    pub fn longest_pause(&self, begin: u64, end: u64) -> u64 {
        let times = self.seen.iter().map(|(at, _)| *at).filter(|at| *at > begin);
        let from = [begin].into_iter().chain(times.clone());
        let pauses = from.zip(times.chain([end])).map(|(from, to)| to.saturating_sub(from));
        pauses.max().unwrap_or(0)
    }
}

/// The room from the viewers' side; its clock is the simulation's.
#[derive(Debug, Clone)]
pub struct Seat {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    base: Instant,
    now: Cell<u64>,
    asked: RefCell<Vec<(TrackId, RoomTime, Reason)>>,
}

impl Seat {
    pub fn new(base: Instant, now: u64) -> Self {
        Self {
            inner: Rc::new(Inner {
                base,
                now: Cell::new(now),
                asked: RefCell::default(),
            }),
        }
    }

    fn instant(&self, now: u64) -> Instant {
        self.inner.now.set(now);
        self.inner.base + Duration::from_micros(now)
    }

    /// Hands what was asked for to the room.
    fn settle(&self, room: &mut Room, now: u64) {
        for (track, since, reason) in self.inner.asked.take() {
            room.request_keyframe(track, since, reason, RoomTime(now));
        }
    }
}

impl Upstream for Seat {
    fn now(&self) -> RoomTime {
        RoomTime(self.inner.now.get())
    }

    fn time_at(&self, instant: Instant) -> RoomTime {
        RoomTime(instant.saturating_duration_since(self.inner.base).as_micros() as u64)
    }

    fn request_keyframe(&self, id: TrackId, since: RoomTime, reason: Reason) {
        self.inner.asked.borrow_mut().push((id, since, reason));
    }

    /// Only a running room counts these.
    fn withhold_keyframe(&self, _: Reason) {}
}

pub struct WebSocketViewer {
    me: ParticipantId,
    epoch: u64,
    seat: Seat,
    egress: Egress<Seat>,
    window: Window,
    down: Stream<Bytes>,
    up: Stream<u64>,
    received: u64,
    frame: BytesMut,
    /// By number, on the room's clock, ms.
    timestamps: Vec<(u32, u32)>,
    pub decoder: Decoder,
}

impl WebSocketViewer {
    pub fn new(me: ParticipantId, epoch: u64, seat: Seat, delay: u64, rate: u64) -> Self {
        Self {
            me,
            epoch,
            egress: Egress::new(me, seat.clone(), vec!["h264".to_owned()]),
            seat,
            window: Window::default(),
            down: Stream::new(delay, rate),
            up: Stream::new(delay, 0),
            received: 0,
            frame: BytesMut::new(),
            timestamps: Vec::new(),
            decoder: Decoder::default(),
        }
    }

    pub fn set_room(&mut self, snapshot: &Snapshot, now: u64) {
        let instant = self.seat.instant(now);
        self.egress.update(snapshot, instant);
    }

    /// Timestamps of what was decoded by number, on the room's clock, ms.
    pub fn timestamps(&self) -> &[(u32, u32)] {
        &self.timestamps
    }

    pub fn step(&mut self, room: &mut Room, now: u64) {
        let instant = self.seat.instant(now);
        for count in self.up.arrived(now) {
            self.window.acked(count, 0, instant).expect("it was sent");
        }
        for (track, bits) in self.egress.judge_capacity(&mut self.window, instant) {
            room.report_capacity(self.me, self.epoch, track, bits, RoomTime(now));
        }
        while self.down.waiting(now) < UNSENT
            && let Out::Message(message) = self.egress.next(&mut self.window, instant)
        {
            self.window.sent(message.len(), instant);
            let len = message.len();
            self.down.send(message, len, now);
        }
        self.seat.settle(room, now);
        for message in self.down.arrived(now) {
            self.received += 1;
            self.up.send(self.received, 0, now);
            let media = parse_media(&message).expect("well-formed").expect("media");
            let header = &media.header;
            if header.fragment_index() == 0 {
                self.frame.clear();
            }
            self.frame.extend_from_slice(media.payload);
            if header.fragment_index() + 1 == header.fragment_count() {
                let frame = number_of(&self.frame.split());
                self.decoder.decode(frame, now);
                self.timestamps.push((frame.0, header.timestamp));
            }
        }
    }
}

/// What a browser tells us by RTCP.
#[derive(Debug, Clone)]
enum Feedback {
    Nack(Vec<u16>),
    PictureLoss,
    /// In 1/256.
    Loss(u8),
}

pub struct WebRtcViewer {
    seat: Seat,
    leg: Outgoing,
    replays: Paced,
    waker: Arc<Notify>,
    down: Link<OutgoingRtp>,
    up: Link<Feedback>,
    extender: SequenceExtender,
    filter: DuplicateFilter,
    reorder: Reorder<OutgoingRtp>,
    depacketizer: Depacketizer,
    asked_at: Option<u64>,
    began: bool,
    reported_at: u64,
    expected: u64,
    came: u64,
    /// When pictures were decoded, their numbers and RTP timestamps.
    timestamps: Vec<(u64, u32, u32)>,
    pub decoder: Decoder,
    pub nacks: u64,
}

impl WebRtcViewer {
    pub fn new(seat: Seat, conditions: Conditions, mut random: Random) -> Self {
        let mut reorder = Reorder::new(Limits::VIDEO);
        reorder.set_rtt(Duration::from_micros(2 * conditions.delay));
        let line = Line {
            mid: Mid::new("0").expect("it is short"),
            kind: Kind::Video,
            pair: 0,
            codecs: vec![Codec::H264],
        };
        let up = Random(random.next());
        Self {
            seat,
            leg: Outgoing::new(line, random.next() as u32),
            replays: Paced::default(),
            waker: Arc::default(),
            down: Link::new(conditions, random),
            up: Link::new(conditions, up),
            extender: SequenceExtender::default(),
            filter: DuplicateFilter::default(),
            reorder,
            depacketizer: Depacketizer::h264(),
            asked_at: None,
            began: false,
            reported_at: 0,
            expected: 0,
            came: 0,
            timestamps: Vec::new(),
            decoder: Decoder::default(),
            nacks: 0,
        }
    }

    pub fn set_track(&mut self, track: &Arc<Track>, now: u64) {
        self.seat.instant(now);
        if self.leg.track().is_none_or(|carried| !Arc::ptr_eq(carried, track)) {
            self.leg.assign(Some(track), &self.waker, &self.seat);
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

    /// When pictures were decoded, their numbers and RTP timestamps.
    pub fn timestamps(&self) -> &[(u64, u32, u32)] {
        &self.timestamps
    }

    pub fn step(&mut self, room: &mut Room, now: u64) {
        let instant = self.seat.instant(now);
        for feedback in self.up.arrived(now) {
            match feedback {
                Feedback::Nack(seqs) => {
                    for packet in self.leg.repeat(&seqs, instant) {
                        self.down.send(packet, now);
                    }
                }
                Feedback::PictureLoss => {
                    if let Some(track) = self.leg.track() {
                        let since = RoomTime(now.saturating_sub(UNDER_WAY));
                        self.seat.request_keyframe(track.id(), since, Reason::Viewer);
                    }
                }
                Feedback::Loss(share) => self.leg.set_loss(share),
            }
        }
        while let Some(packet) = self.leg.second_copy(instant) {
            self.down.send(packet, now);
        }
        let down = &mut self.down;
        self.leg
            .feed(&self.seat, &mut self.replays, (instant, RoomTime(now)), |_, packet| {
                down.send(packet.clone(), now);
            });
        let held = self.leg.held_bytes();
        assert!(held <= history::Limits::default().bytes, "{held} bytes in the history");
        self.seat.settle(room, now);
        self.receive(instant, now);
    }

    fn receive(&mut self, instant: Instant, now: u64) {
        for packet in self.down.arrived(now) {
            let seq = self.extender.extend(packet.seq);
            if self.filter.is_new(seq) {
                if !self.began {
                    (self.began, self.expected) = (true, seq);
                }
                self.came += 1;
                self.reorder.push(instant, seq, packet);
            }
        }
        while let Some(out) = self.reorder.pop(instant) {
            let Ordered::Packet { seq, packet } = out else { continue };
            self.depacketizer
                .push(seq, packet.timestamp, packet.marker, &packet.payload);
            while let Some(output) = self.depacketizer.poll() {
                if let Output::Frame(unit) = output {
                    let frame = number_of(&unit.data);
                    self.decoder.decode(frame, now);
                    self.timestamps.push((now, frame.0, unit.timestamp));
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
        if now - self.reported_at >= REPORT_INTERVAL {
            self.reported_at = now;
            self.report(now);
        }
    }

    fn report(&mut self, now: u64) {
        let highest = self.extender.highest().map_or(self.expected, |seq| seq + 1);
        let expected = highest.saturating_sub(self.expected);
        let lost = expected.saturating_sub(self.came);
        if let Some(share) = (256 * lost).checked_div(expected) {
            self.up.send(Feedback::Loss(share.min(255) as u8), now);
        }
        (self.expected, self.came) = (highest, 0);
    }
}

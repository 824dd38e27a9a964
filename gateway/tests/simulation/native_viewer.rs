//! A native viewer behind the gateway's own egress: like today's apps, or one that asks for packets.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use wzp_gateway::media::frame::{ParticipantId, RoomTime};
use wzp_gateway::native::egress::{Datagrams, Egress, Request, SendRoom};
use wzp_gateway::native::repair::RepairedOrder;
use wzp_gateway::native::view::{Playable, View};
use wzp_gateway::room::keyframes::Reason;
use wzp_gateway::room::snapshot::Snapshot;
use wzp_gateway::room::state::Room;
use wzp_proto::packet::MediaPacket;
use wzp_proto::video::{AssembledFrame, Reassembler};
use wzp_proto::{Repair, Signal};

use crate::links::{Conditions, Link, Random, Stream};
use crate::publisher::number_of;
use crate::viewers::Decoder;

/// Apps ask for a keyframe at most this often, µs.
const PLI_INTERVAL: u64 = 250_000;
const BUFFER: usize = 256 << 10;

/// QUIC's queue: empties at a rate.
#[derive(Debug)]
struct Port {
    bytes_per_ms: usize,
    queued: Cell<usize>,
    out: RefCell<Vec<Bytes>>,
}

impl Datagrams for Port {
    fn room(&self) -> SendRoom {
        let space = BUFFER.saturating_sub(self.queued.get());
        let allowed = (self.bytes_per_ms * 50).clamp(5_000, BUFFER);
        SendRoom {
            space,
            budget: allowed.saturating_sub(self.queued.get()).min(space),
            idle: self.queued.get() == 0,
            max_size: 1162,
        }
    }

    fn send(&self, datagram: Bytes) -> bool {
        self.queued.set(self.queued.get() + datagram.len());
        self.out.borrow_mut().push(datagram);
        true
    }
}

pub struct NativeViewer {
    egress: Egress,
    port: Port,
    link: Link<Bytes>,
    signals: Stream<Signal>,
    rtt: u64,
    reassembler: Reassembler,
    /// Asks for packets; today's apps do not.
    order: Option<RepairedOrder<AssembledFrame>>,
    expected: Option<u32>,
    needs_keyframe: bool,
    asked_at: Option<u64>,
    stream_id: u8,
    pub decoder: Decoder,
    pub nacks: u64,
}

impl NativeViewer {
    pub fn new(
        me: ParticipantId,
        asks: bool,
        conditions: Conditions,
        bytes_per_ms: usize,
        random: Random,
        now: u64,
    ) -> Self {
        let view = View::new(me, Playable::default(), 1 << 31);
        let order = asks.then(|| {
            let mut order = RepairedOrder::default();
            order.set_rtt(2 * conditions.delay);
            order
        });
        Self {
            egress: Egress::new(view, Arc::new(Notify::new()), Arc::default(), RoomTime(now)),
            port: Port {
                bytes_per_ms,
                queued: Cell::new(0),
                out: RefCell::default(),
            },
            rtt: 2 * conditions.delay,
            signals: Stream::new(conditions.delay, 0),
            link: Link::new(conditions, random),
            reassembler: Reassembler::default(),
            order,
            expected: None,
            needs_keyframe: true,
            asked_at: None,
            stream_id: 0,
            decoder: Decoder::default(),
            nacks: 0,
        }
    }

    pub fn set_room(&mut self, snapshot: &Snapshot) {
        self.egress.set_room(snapshot);
    }

    pub fn calm(&mut self) {
        let delay = self.link.conditions.delay;
        self.link.conditions = Conditions {
            delay,
            ..Conditions::default()
        };
    }

    pub fn lost(&self) -> u64 {
        self.link.lost
    }

    pub fn repaired(&self) -> u64 {
        self.order.as_ref().map_or(0, RepairedOrder::repaired)
    }

    pub fn step(&mut self, room: &mut Room, elapsed: u64, now: u64) {
        let time = RoomTime(now);
        for signal in self.signals.arrived(now) {
            match signal {
                Signal::Nack { seqs, .. } => self.egress.answer(&seqs, &self.port, time),
                Signal::PictureLossIndication { stream_id, .. } => {
                    if let Some(track) = self.egress.view().track_of(stream_id) {
                        let since = RoomTime(now.saturating_sub(self.rtt));
                        room.request_keyframe(track.id(), since, Reason::Viewer, time);
                    }
                }
                _ => {}
            }
        }
        self.egress.pump(&self.port, time);
        for request in self.egress.requests() {
            if let Request::Keyframe(track, since, reason) = request {
                room.request_keyframe(track, since, reason, time);
            }
        }
        let drained = self.port.bytes_per_ms * elapsed as usize / 1000;
        self.port.queued.set(self.port.queued.get().saturating_sub(drained));
        for datagram in self.port.out.take() {
            self.link.send(datagram, now);
        }
        for datagram in self.link.arrived(now) {
            let packet = MediaPacket::decode(datagram).expect("what we send can be read");
            self.take(&packet, now);
        }
        self.repair(now);
    }

    fn take(&mut self, packet: &MediaPacket, now: u64) {
        let header = &packet.header;
        self.stream_id = header.stream_id;
        let frame = self.reassembler.push(packet, std::time::Duration::from_micros(now));
        let frame = frame.expect("what we send is well-formed");
        if let Some(order) = &mut self.order {
            order.packet(header.seq, RoomTime(now));
            if let Some(frame) = frame {
                let seqs = (frame.first_seq, frame.last_seq);
                order.push(seqs, frame.timestamp, frame.keyframe, frame, RoomTime(now));
            }
            return;
        }
        // WZP wire v2, section 7.4.
        let expected = self.expected.unwrap_or(header.seq);
        let ahead = header.seq.wrapping_sub(expected);
        if (1..10_000).contains(&ahead) {
            self.needs_keyframe = true;
            if self.asked_at.is_none_or(|at| now - at >= PLI_INTERVAL) {
                self.ask(now);
            }
        }
        if ahead < 10_000 {
            self.expected = Some(header.seq.wrapping_add(1));
        }
        if let Some(frame) = frame {
            self.show(&frame, now);
        }
    }

    fn repair(&mut self, now: u64) {
        let time = RoomTime(now);
        loop {
            let Some(order) = &mut self.order else { return };
            let asked = order.poll(time);
            let popped = if asked.is_none() { order.pop(time) } else { None };
            match (asked, popped) {
                (Some(Repair::Nack(seqs)), _) => {
                    self.nacks += 1;
                    self.signals.send(Signal::nack(self.stream_id, seqs), 0, now);
                }
                (Some(Repair::Keyframe), _) => self.ask(now),
                (None, Some(ordered)) => {
                    self.needs_keyframe |= ordered.missing > 0;
                    self.show(&ordered.item, now);
                }
                (None, None) => return,
            }
        }
    }

    fn ask(&mut self, now: u64) {
        self.asked_at = Some(now);
        self.signals.send(Signal::picture_loss(self.stream_id), 0, now);
    }

    fn show(&mut self, frame: &AssembledFrame, now: u64) {
        if self.needs_keyframe && !frame.keyframe {
            return;
        }
        self.needs_keyframe = false;
        self.decoder.decode(number_of(&frame.payload), now);
    }
}

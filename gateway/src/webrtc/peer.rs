//! One peer connection: what its m-lines carry in both directions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::media::clock::SourceClock;
use crate::media::frame::{Kind, ParticipantId, RoomTime, TrackId};
use crate::room::keyframes::Reason;
use crate::room::peer::{Follow, PeerContext, PeerEvent, Sending};
use crate::room::snapshot::Snapshot;
use crate::room::track::Track;
use crate::webrtc::assign::{self, Line};
use crate::webrtc::congestion::{Congestion, Queue};
use crate::webrtc::engine::{self, Codec, Engine, MediaLine, Mid, OutgoingRtp, ReportTime, RtpMeta, SessionId};
use crate::webrtc::follow::{self, Chosen};
use crate::webrtc::incoming::{Incoming, Outcome, rtp_codec};
use crate::webrtc::outgoing::{Fed, Outgoing, assigned, carried};
use crate::webrtc::pace::Paced;
use crate::webrtc::shortage::{Measured, Shortage, Verdict};
use crate::webrtc::tell::Teller;
use crate::webrtc::worker::room_time;

/// The room is told how loud a peer is this often.
const LEVEL_INTERVAL: Duration = Duration::from_millis(200);
/// What is left to a publisher's sound beside a bound on its video, bit/s.
const SOUND_RATE: u64 = 64_000;

/// See the module's text.
pub struct Peer {
    context: PeerContext,
    connected: bool,
    receiving: bool,
    /// Bits per second of published video slots that are limited by RTCP.
    limits: BTreeMap<u8, u32>,
    /// Announced, and not yet found in the SDP.
    sends: Vec<Sending>,
    incoming: BTreeMap<Mid, Incoming>,
    /// The m-lines that we receive on.
    receiving_lines: Vec<(Mid, Kind)>,
    outgoing: Vec<Outgoing>,
    unwanted: Vec<(ParticipantId, Kind, u8)>,
    /// Whom a viewer that follows the speaker saw last.
    watched: Option<ParticipantId>,
    told_mids: Vec<(String, Kind, Option<TrackId>)>,
    told_carried: Vec<TrackId>,
    told_waiting: Vec<TrackId>,
    /// Tracks of the room that have been carried here: what was seen by this peer is seen by it again.
    known: BTreeSet<TrackId>,
    told_need: (usize, usize),
    /// The clock that all streams of this peer have in common, on its NTP time.
    clock: SourceClock,
    estimate: Option<u64>,
    queue: Queue,
    congestion: Congestion,
    shortage: Shortage,
    /// What all replays together may take: each at the full rate would be a burst that the receiver's socket does not hold.
    replays: Paced,
    /// The leg that is fed first.
    turn: usize,
    teller: Teller,
    levels_at: Option<Instant>,
    /// Payload bytes sent so far, on m-lines that are gone, too.
    sent: u64,
    sent_before: u64,
    judged_at: Option<Instant>,
}

impl Peer {
    /// A peer whose first offer is being answered.
    pub fn new(context: PeerContext) -> Self {
        let receiving = context.follow != Follow::Everyone;
        Self {
            teller: Teller::new(context.events.clone()),
            context,
            connected: false,
            receiving,
            limits: BTreeMap::new(),
            sends: Vec::new(),
            incoming: BTreeMap::new(),
            receiving_lines: Vec::new(),
            outgoing: Vec::new(),
            unwanted: Vec::new(),
            watched: None,
            told_mids: Vec::new(),
            told_carried: Vec::new(),
            told_waiting: Vec::new(),
            known: BTreeSet::new(),
            told_need: (0, 0),
            clock: SourceClock::default(),
            estimate: None,
            queue: Queue::default(),
            congestion: Congestion::default(),
            shortage: Shortage::default(),
            replays: Paced::default(),
            turn: 0,
            levels_at: None,
            sent: 0,
            sent_before: 0,
            judged_at: None,
        }
    }

    /// See [`PeerContext::max_video_bitrate`].
    pub fn max_video_bitrate(&self) -> u32 {
        self.context.max_video_bitrate
    }

    /// Tells the session that it is over.
    pub fn close(self, reason: String) {
        self.teller.close(reason);
    }

    /// The room's clock.
    pub fn room_now(&self, now: Instant) -> RoomTime {
        room_time(&self.context.room, now)
    }

    /// Media streams of the m-lines that we send on: the n-th for sound and the n-th for pictures are one stream.
    pub fn streams(&self, sdp: &str) -> Vec<(Mid, String)> {
        let mut counts = (0, 0);
        receiving_mids(sdp)
            .into_iter()
            .map(|(mid, kind)| {
                let count = if kind == Kind::Audio {
                    &mut counts.0
                } else {
                    &mut counts.1
                };
                let name = format!("wzp-{count}");
                *count += 1;
                (mid, name)
            })
            .collect()
    }

    /// Tracks that the peer is going to send.
    pub fn add_sends(&mut self, sends: Vec<Sending>) {
        self.sends.extend(sends);
        self.bind_sends();
    }

    /// Finds the m-lines of announced tracks.
    fn bind_sends(&mut self) {
        for (mid, kind) in &self.receiving_lines {
            if self.incoming.contains_key(mid) {
                continue;
            }
            let named = self
                .sends
                .iter()
                .position(|send| send.mid.as_deref() == Some(mid.as_str()));
            let any = || {
                self.sends
                    .iter()
                    .position(|send| send.mid.is_none() && send.kind == *kind)
            };
            if let Some(at) = named.or_else(any) {
                let send = self.sends.remove(at);
                if send.kind == *kind {
                    self.incoming.insert(*mid, Incoming::new(*kind, send.slot, send.writer));
                }
            }
        }
    }

    /// The result of an offer.
    pub fn negotiated(&mut self, lines: &[MediaLine], waker: &Arc<Notify>) {
        let kind_of = |line: &MediaLine| match line.kind {
            engine::Kind::Audio => Kind::Audio,
            engine::Kind::Video => Kind::Video,
        };
        self.receiving_lines = lines
            .iter()
            .filter(|line| line.direction.recv)
            .map(|line| (line.mid, kind_of(line)))
            .collect();
        self.bind_sends();
        // A line that is not received on any more ends its track.
        self.incoming
            .retain(|mid, _| lines.iter().any(|line| line.mid == *mid && line.direction.recv));
        let mut counts = (0, 0);
        let mut now_lines = Vec::new();
        for line in lines.iter().filter(|line| line.direction.send) {
            let kind = kind_of(line);
            let count = if kind == Kind::Audio {
                &mut counts.0
            } else {
                &mut counts.1
            };
            let codecs: Vec<Codec> = line.codecs.iter().map(|agreed| agreed.codec).collect();
            now_lines.push(Line {
                mid: line.mid,
                kind,
                pair: *count,
                codecs,
            });
            *count += 1;
        }
        self.outgoing
            .retain(|leg| now_lines.iter().any(|line| line.mid == leg.line().mid));
        for line in now_lines {
            match self.outgoing.iter_mut().find(|leg| leg.line().mid == line.mid) {
                Some(leg) => leg.set_line(line),
                None => self.outgoing.push(Outgoing::new(line, rand::random())),
            }
        }
        self.update(waker);
    }

    /// DTLS is up.
    pub fn connected(&mut self, tcp: bool, waker: &Arc<Notify>) {
        if !self.connected {
            self.connected = true;
            self.teller.tell(PeerEvent::Connected { tcp });
            self.update(waker);
        }
    }

    /// Media is wanted from now on, or not any more.
    pub fn set_receiving(&mut self, on: bool, waker: &Arc<Notify>) {
        self.receiving = on;
        self.update(waker);
    }

    /// The complete list of tracks that are not wanted.
    pub fn set_unwanted(&mut self, tracks: Vec<(ParticipantId, Kind, u8)>, waker: &Arc<Notify>) {
        self.unwanted = tracks;
        self.update(waker);
    }

    /// Follows the room.
    pub fn update(&mut self, waker: &Arc<Notify>) {
        let snapshot = self.context.snapshots.borrow_and_update().clone();
        let mut wanted: Vec<(TrackId, Codec)> = Vec::new();
        let mut tracks: BTreeMap<TrackId, Arc<Track>> = BTreeMap::new();
        let mut present: BTreeSet<TrackId> = BTreeSet::new();
        // Before DTLS is up nothing could be sent, and a keyframe that is asked for now would be wasted.
        if self.connected && self.receiving {
            let chosen = follow::choose(&snapshot, self.context.follow, self.context.viewer, self.watched);
            if let Chosen::One(source) = chosen {
                self.watched = Some(source);
            }
            for (id, codec, track) in wanted_tracks(&snapshot, &self.context, chosen) {
                present.insert(id);
                let off = self.unwanted.contains(&(id.source, id.kind, id.slot));
                if !off {
                    wanted.push((id, codec));
                    tracks.insert(id, track);
                }
            }
        }
        self.known.retain(|id| present.contains(id));
        let lines: Vec<Line> = self.outgoing.iter().map(|leg| leg.line().clone()).collect();
        let before = self
            .outgoing
            .iter()
            .filter_map(|leg| Some((leg.line().mid, assigned(leg)?)))
            .collect();
        let plan = assign::plan(&lines, &before, &wanted);
        for leg in &mut self.outgoing {
            let track = plan.assigned.get(&leg.line().mid).and_then(|id| tracks.get(id));
            let same = match (leg.track(), track) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                (None, None) => true,
                _ => false,
            };
            if !same {
                // Until its first keyframe here a member has it from its session.
                let first = track.is_some_and(|track| !self.known.contains(&track.id()));
                match self.context.follow {
                    Follow::Everyone if first => leg.assign_or_wait(track, waker, &self.context.room),
                    _ => leg.assign(track, waker, &self.context.room),
                }
            }
        }
        self.forget_pauses();
        if self.context.follow == Follow::Everyone {
            self.tell_lines();
            self.tell_need(&plan);
        }
    }

    /// Tracks that wait for a keyframe wait no longer.
    pub fn begin(&mut self, tracks: &[TrackId]) {
        for leg in &mut self.outgoing {
            if assigned(leg).is_some_and(|track| tracks.contains(&track)) {
                leg.begin(&self.context.room);
            }
        }
        self.tell_lines();
    }

    fn tell_lines(&mut self) {
        let mids: Vec<_> = (self.outgoing.iter())
            .map(|leg| (leg.line().mid.as_str().to_owned(), leg.line().kind, carried(leg)))
            .collect();
        if mids != self.told_mids {
            self.told_mids.clone_from(&mids);
            self.teller.tell(PeerEvent::Mids(mids));
        }
        let carried: Vec<TrackId> = self.outgoing.iter().filter_map(carried).collect();
        if carried != self.told_carried {
            self.known.extend(&carried);
            self.told_carried.clone_from(&carried);
            self.teller.tell(PeerEvent::Carried(carried));
        }
        let waiting = self.outgoing.iter().filter(|leg| leg.is_waiting());
        let waiting: Vec<TrackId> = waiting.filter_map(assigned).collect();
        if waiting != self.told_waiting {
            self.told_waiting.clone_from(&waiting);
            self.teller.tell(PeerEvent::Waiting(waiting));
        }
    }

    fn tell_need(&mut self, plan: &assign::Plan) {
        if plan.short != (0, 0) {
            let count = |kind| self.outgoing.iter().filter(|leg| leg.line().kind == kind).count();
            let need = (count(Kind::Audio) + plan.short.0, count(Kind::Video) + plan.short.1);
            if need != self.told_need {
                self.told_need = need;
                self.teller.tell(PeerEvent::Need {
                    audio: need.0,
                    video: need.1,
                });
            }
        }
    }

    /// A packet of the peer; the SSRC that its m-line is followed on from now on, if that is another.
    pub fn packet(
        &mut self,
        mid: Mid,
        meta: &RtpMeta,
        payload: Bytes,
        now: Instant,
        room_now: RoomTime,
    ) -> Option<u32> {
        let incoming = self.incoming.get_mut(&mid)?;
        let outcome = incoming.packet(meta, payload, now, room_now, &mut self.clock);
        self.act(mid, outcome, room_now);
        outcome.follows
    }

    /// A sender report of the peer.
    pub fn sender_report(&mut self, mid: Mid, time: ReportTime, room_now: RoomTime) {
        if let Some(incoming) = self.incoming.get_mut(&mid) {
            incoming.sender_report(time, room_now, &mut self.clock);
        }
    }

    /// Some packets wait for their predecessors, or for their second sending.
    pub fn waits_for_packets(&self) -> bool {
        self.incoming.values().any(|incoming| incoming.next_timeout().is_some())
            || self.outgoing.iter().any(Outgoing::holds_copies)
    }

    /// Asks for missing packets, and goes on without those that will not come.
    pub fn advance(&mut self, engine: &mut Engine, id: SessionId, now: Instant) {
        for leg in &mut self.outgoing {
            while let Some(packet) = leg.second_copy(now) {
                if let Err(error) = engine.write_rtx(now, id, leg.line().mid, &packet) {
                    tracing::trace!(peer = id.0, %error, "a packet was not repeated twice");
                }
            }
        }
        self.report_levels(now);
        let room_now = self.room_now(now);
        let mut outcomes = Vec::new();
        for (mid, incoming) in &mut self.incoming {
            if incoming.next_timeout().is_none_or(|at| at > now) {
                continue;
            }
            let nacks = incoming.nacks(now);
            if !nacks.is_empty()
                && let Err(error) = engine.nack(now, id, *mid, None, &nacks)
            {
                tracing::trace!(peer = id.0, %error, "NACK");
            }
            outcomes.push((*mid, incoming.advance(now, room_now)));
        }
        for (mid, outcome) in outcomes {
            self.act(mid, outcome, room_now);
        }
    }

    fn act(&mut self, mid: Mid, outcome: Outcome, room_now: RoomTime) {
        let Some(incoming) = self.incoming.get(&mid) else {
            return;
        };
        if let Some((codec, size)) = outcome.described {
            self.teller.tell(PeerEvent::Described {
                kind: incoming.kind(),
                slot: incoming.slot(),
                codec,
                size,
            });
        }
        if outcome.needs_keyframe {
            self.context
                .room
                .request_keyframe(incoming.writer().track().id(), room_now, Reason::Loss);
        }
    }

    /// Sends what is new; true if more waits for its pace.
    pub fn feed(&mut self, engine: &mut Engine, id: SessionId, now: Instant) -> bool {
        if !self.connected {
            return false;
        }
        let room_now = self.room_now(now);
        let (mut paced, mut waiting) = (false, 0);
        let sent = &mut self.sent;
        // Each time another one is the first to have of what they share.
        self.turn = (self.turn + 1) % self.outgoing.len().max(1);
        let (later, first) = self.outgoing.split_at_mut(self.turn);
        for leg in first.iter_mut().chain(later) {
            let fed = leg.feed(&self.context.room, &mut self.replays, (now, room_now), |mid, packet| {
                *sent += packet.payload.len() as u64;
                if let Err(error) = engine.write_rtp(now, id, mid, packet) {
                    tracing::trace!(peer = id.0, %error, "a packet was not sent");
                }
            });
            paced |= fed == Fed::Paced;
            waiting += usize::from(leg.is_waiting());
        }
        if waiting < self.told_waiting.len() {
            self.tell_lines();
        }
        paced
    }

    /// The packets among `seqs` that can be repeated.
    pub fn repeat(&mut self, mid: Mid, seqs: &[u16], now: Instant) -> Vec<OutgoingRtp> {
        let leg = self.outgoing.iter_mut().find(|leg| leg.line().mid == mid);
        leg.map_or_else(Vec::new, |leg| leg.repeat(seqs, now))
    }

    /// The viewer's report on one m-line: what it lost since the one before, in 1/256, the highest number that has arrived, and
    /// how many are missing.
    pub fn note_report(&mut self, mid: Mid, loss: u8, (highest, lost): (u16, u32), now: Instant) {
        if let Some(leg) = self.outgoing.iter_mut().find(|leg| leg.line().mid == mid) {
            leg.set_loss(loss);
            leg.note_arrival(highest, lost, now);
        }
    }

    /// The peer's decoder asks for a keyframe.
    pub fn viewer_wants_keyframe(&mut self, mid: Mid, room_now: RoomTime) {
        let Some(track) = self.outgoing.iter().find(|leg| leg.line().mid == mid).and_then(carried) else {
            return;
        };
        // One that was sent within the last 100 ms is on its way to this viewer.
        let since = RoomTime(room_now.0.saturating_sub(100_000));
        self.context.room.request_keyframe(track, since, Reason::Viewer);
    }

    /// The m-line on which the peer sends this video slot.
    pub fn video_mid(&self, slot: u8) -> Option<Mid> {
        self.incoming
            .iter()
            .find(|(_, incoming)| incoming.kind() == Kind::Video && incoming.slot() == slot)
            .map(|(mid, _)| *mid)
    }

    /// A published video slot is held to this, bits per second.
    pub fn limit(&mut self, slot: u8, max_bitrate: u32) {
        let published = |incoming: &Incoming| incoming.kind() == Kind::Video && incoming.slot() == slot;
        if self.incoming.values().any(published) {
            self.limits.insert(slot, max_bitrate);
        }
    }

    /// Says it again; publishers forget it otherwise.
    pub fn repeat_limit(&self, engine: &mut Engine, id: SessionId, now: Instant) {
        if self.limits.is_empty() {
            return;
        }
        // The bound is one for all that the publisher sends. A slot that is not limited has the session's bound.
        let videos = self.incoming.values().filter(|incoming| incoming.kind() == Kind::Video);
        let most = |slot: u8| {
            self.limits
                .get(&slot)
                .copied()
                .unwrap_or(self.context.max_video_bitrate)
        };
        let bps: u64 = videos.map(|incoming| u64::from(most(incoming.slot()))).sum();
        if let Err(error) = engine.limit_rate(now, id, bps + SOUND_RATE) {
            tracing::trace!(peer = id.0, %error, "REMB");
        }
    }

    /// The round trip to the peer.
    pub fn set_rtt(&mut self, rtt: Duration) {
        for incoming in self.incoming.values_mut() {
            incoming.set_rtt(rtt);
        }
    }

    /// A packet to the peer and its report took this just now.
    pub fn note_round_trip(&mut self, rtt: Duration, now: Instant) {
        self.queue.note(rtt, now);
        self.set_rtt(rtt);
    }

    /// What the path to the peer carries, bits per second.
    pub fn set_estimate(&mut self, bps: u64, _now: Instant) {
        self.estimate = Some(bps);
        for leg in &mut self.outgoing {
            leg.set_estimate(bps);
        }
    }

    /// Who sends nothing is reported no more, which the room understands.
    fn report_levels(&mut self, now: Instant) {
        if self.levels_at.is_some_and(|at| now < at + LEVEL_INTERVAL) {
            return;
        }
        self.levels_at = Some(now);
        for incoming in self.incoming.values_mut() {
            if let Some(level) = incoming.take_level() {
                let source = incoming.writer().track().id().source;
                self.context.room.report_level(source, level);
            }
        }
    }

    /// Reports, twice a second, and a judgement of the path.
    pub fn slow_tick(&mut self, engine: &mut Engine, id: SessionId, now: Instant) {
        self.teller.retry();
        if !self.connected {
            return;
        }
        let room_now = self.room_now(now);
        for leg in &self.outgoing {
            if let Some(time) = leg.report(room_now)
                && let Err(error) = engine.send_report(now, id, leg.line().mid, time)
            {
                tracing::trace!(peer = id.0, %error, "sender report");
            }
        }
        if let Some(rtt) = engine.stats(id).and_then(|stats| stats.rtt) {
            self.set_rtt(rtt);
        }
        self.judge(now);
        self.repeat_limit(engine, id, now);
    }

    /// A path that cannot carry the video gives it up for a while, so that the sound goes on.
    fn judge(&mut self, now: Instant) {
        let elapsed = self
            .judged_at
            .map(|at| now.saturating_duration_since(at).as_millis() as u64);
        let rate = elapsed
            .filter(|ms| *ms > 0)
            .map(|ms| self.sent.saturating_sub(self.sent_before) * 8 * 1000 / ms);
        (self.sent_before, self.judged_at) = (self.sent, Some(now));
        let Some(rate) = rate else { return };
        let videos: Vec<&Outgoing> = (self.outgoing.iter())
            .filter(|leg| leg.line().kind == Kind::Video && carried(leg).is_some() && !leg.is_paused())
            .collect();
        let measured = Measured {
            rate,
            estimate: self.estimate,
            loss: videos.iter().map(|leg| leg.loss()).max().unwrap_or(0),
            lost: videos.iter().map(|leg| leg.lost()).max().unwrap_or(0),
            waits: self.queue.wait(now),
            arrived: arrived(&videos, now),
            videos: videos.len(),
        };
        // The publishers are asked for less at once; the video is given up when that does not help.
        let tracks: Vec<TrackId> = videos.iter().filter_map(|leg| carried(leg)).collect();
        let bound = self.congestion.bound(now, measured);
        if self.estimate.is_some() {
            let share = bound
                .and_then(|bits| u32::try_from(bits / tracks.len().max(1) as u64).ok())
                .unwrap_or(u32::MAX);
            for track in &tracks {
                let (viewer, epoch) = (self.context.viewer, self.context.epoch);
                self.context.room.report_capacity(viewer, epoch, *track, share);
            }
        }
        match self.shortage.judge(now, measured) {
            Verdict::Stay => {}
            Verdict::Pause => {
                if let Some(track) = tracks.last() {
                    tracing::debug!(viewer = ?self.context.viewer, ?track, ?measured, "the path is too slow: a video is paused");
                    self.shortage.pause(now, *track, measured);
                    self.set_paused(*track, true);
                }
            }
            Verdict::Resume(track) => {
                self.shortage.resume(now, track);
                self.set_paused(track, false);
            }
        }
    }

    fn set_paused(&mut self, track: TrackId, paused: bool) {
        if let Some(leg) = self.outgoing.iter_mut().find(|leg| carried(leg) == Some(track)) {
            leg.set_paused(paused, &self.context.room);
        }
        self.teller.tell(PeerEvent::Bandwidth { track, paused });
    }

    /// A track that no leg holds back any more, because it is not wanted or has gone elsewhere, is not paused by us.
    fn forget_pauses(&mut self) {
        let holds = |track: TrackId| move |leg: &Outgoing| leg.is_paused() && carried(leg) == Some(track);
        let forgotten: Vec<TrackId> = (self.shortage.paused())
            .filter(|track| !self.outgoing.iter().any(holds(*track)))
            .collect();
        for track in forgotten {
            self.shortage.resume(Instant::now(), track);
            self.teller.tell(PeerEvent::Bandwidth { track, paused: false });
        }
    }
}

/// Of a thousand packets of these videos so many arrive; `None`: not known.
fn arrived(videos: &[&Outgoing], now: Instant) -> Option<u64> {
    let counts = videos.iter().filter_map(|leg| leg.arrival().counts(now));
    let (sent, arrived) = counts.fold((0, 0), |(sent, arrived), leg| (sent + leg.0, arrived + leg.1));
    (sent > 0).then(|| arrived * 1000 / sent)
}

/// The tracks that a peer should have now, with the codec of each as RTP carries it.
fn wanted_tracks(snapshot: &Snapshot, context: &PeerContext, chosen: Chosen) -> Vec<(TrackId, Codec, Arc<Track>)> {
    snapshot
        .tracks_for(context.viewer)
        .filter(|(member, _)| match chosen {
            Chosen::Nobody => false,
            Chosen::One(source) => member.id == source,
            Chosen::Everyone => true,
        })
        .filter_map(|(_, view)| Some((view.track.id(), rtp_codec(view.info.codec)?, view.track.clone())))
        .collect()
}

/// The m-lines of an offer on which the peer receives, in order.
fn receiving_mids(sdp: &str) -> Vec<(Mid, Kind)> {
    let mut found = Vec::new();
    let mut section: Option<(Kind, Option<Mid>, bool)> = None;
    let mut finish = |section: Option<(Kind, Option<Mid>, bool)>| {
        if let Some((kind, Some(mid), true)) = section {
            found.push((mid, kind));
        }
    };
    for line in sdp.lines().map(str::trim_end) {
        if let Some(media) = line.strip_prefix("m=") {
            finish(section.take());
            section = match media.split(' ').next() {
                Some("audio") => Some((Kind::Audio, None, true)),
                Some("video") => Some((Kind::Video, None, true)),
                _ => None,
            };
        } else if let Some((_, mid, receives)) = &mut section {
            match line {
                "a=sendonly" | "a=inactive" => *receives = false,
                _ => {
                    if let Some(name) = line.strip_prefix("a=mid:") {
                        *mid = Mid::new(name);
                    }
                }
            }
        }
    }
    finish(section);
    found
}

#[cfg(test)]
mod tests;

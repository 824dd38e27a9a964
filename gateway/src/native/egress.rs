//! Frames of the others become datagrams to one native member. Without IO but for [`Datagrams`]; time is an argument.
//!
//! Frames are dropped whole, never in part, and after a drop nothing goes out until the next keyframe. How much waits in
//! QUIC's queue is kept to tens of milliseconds of what the path takes; what does not fit stays in the track's log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use wzp_proto::SentPackets;
use wzp_proto::header::MediaHeader;
use wzp_proto::packet::encode_datagram;
use wzp_proto::video::{FRAGMENT_PAYLOAD, MAX_FRAGMENTS, fragment_header};

use crate::media::audio::mix::TALKING_LEVEL;
use crate::media::frame::{Frame, RoomTime, TrackId};
use crate::native::counters::Counters;
use crate::native::shortener::Shortener;
use crate::native::transport::DATAGRAM_SEND_BUFFER;
use crate::native::view::{Sound, Stamp, View};
use crate::room::keyframes::{Need, Reason, Want};
use crate::room::limits::FLOOR;
use crate::room::mixing::Listener;
use crate::room::registry::{Membership, RoomHandle};
use crate::room::replay::Replay;
use crate::room::snapshot::Snapshot;
use crate::room::subscription::{Cursor, Lag, Next};
use crate::room::track::Track;

/// Sound older than this is not worth hearing.
const AUDIO_LAG: Lag = Lag {
    most: 200_000,
    resync_age: 0,
};
/// So many packets may be ahead of their time after changes of the sound's source before silence makes up for them: what an
/// app plays from is a queue that only pauses drain.
const AHEAD: u64 = 2;
/// Longer than the longest keyframe may take ([`KEYFRAME_DEADLINE`]), so that what follows it can catch up.
const VIDEO_LAG: Lag = Lag {
    most: 800_000,
    resync_age: 500_000,
};
/// A frame that cannot begin, or a begun one that does not move on for this long, is given up, µs.
const STALL_DEADLINE: u64 = 100_000;
/// But not before so many tries: a process that had to wait for its turn has not been refused for all that time.
const STALL_TRIES: u32 = 8;
/// A frame that takes longer than this in all is given up, µs.
const KEYFRAME_DEADLINE: u64 = 500_000;
/// How often a blocked frame is tried again, µs: QUIC does not say when its queue has space. Timers come up to 1 ms late.
const RETRY: u64 = 3_000;
/// What may wait in QUIC's queue, as time at the path's rate, µs.
const QUEUE_TIME: u64 = 50_000;
/// It never holds more than this, bytes. Apps have room for 64 KiB of datagrams, and of more they lose the oldest, which of a replay
/// is the keyframe. It is filled up when a blocked frame is tried again, so this is about 32 Mbit/s too: an app may be busy for
/// 12 ms.
const QUEUE_MOST: usize = 16 << 10;
/// The queue may always hold this much, or nothing would ever move.
const QUEUE_FLOOR: usize = 4 * (MediaHeader::LEN + FRAGMENT_PAYLOAD);
/// Numbers of one `Nack` that are looked at.
const MAX_NACKED: usize = 256;
/// Distance of capacity reports, µs.
const REPORT_INTERVAL: u64 = 1_000_000;
/// What a source is asked for when a frame of it was too large before its rate was known, bit/s: no frame of an encoder that
/// keeps to this is as large as two seconds of it.
const UNKNOWN_RATE_ASK: u32 = 1_000_000;

/// Where datagrams go.
pub trait Datagrams {
    /// What fits now.
    fn room(&self) -> SendRoom;
    /// Sends one; false if the connection does not take it.
    fn send(&self, datagram: Bytes) -> bool;
}

/// What a connection takes at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendRoom {
    /// Bytes that fit into the queue.
    pub space: usize,
    /// Bytes that may be put in without waiting there for too long.
    pub budget: usize,
    /// Nothing waits.
    pub idle: bool,
    /// Largest datagram.
    pub max_size: usize,
}

impl Datagrams for quinn::Connection {
    fn room(&self) -> SendRoom {
        let space = self.datagram_send_buffer_space();
        let queued = DATAGRAM_SEND_BUFFER.saturating_sub(space);
        let path = self.stats().path;
        let rtt = (path.rtt.as_micros() as u64).max(1);
        let allowed = usize::try_from(path.cwnd.saturating_mul(QUEUE_TIME) / rtt).unwrap_or(usize::MAX);
        let allowed = allowed.clamp(QUEUE_FLOOR, QUEUE_MOST);
        SendRoom {
            space,
            budget: allowed.saturating_sub(queued).min(space),
            idle: queued == 0,
            max_size: self.max_datagram_size().unwrap_or(0),
        }
    }

    fn send(&self, datagram: Bytes) -> bool {
        self.send_datagram(datagram).is_ok()
    }
}

/// What the egress wants from the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A keyframe newer than what came at the time.
    Keyframe(TrackId, RoomTime, Reason),
    /// A frame was too large; this bit rate would have fitted.
    Oversize(TrackId, u32),
    /// How much of a track this member can take, bit/s.
    Capacity(TrackId, u32),
    /// A keyframe is needed that was not asked for, because one was a moment ago.
    Withheld(Reason),
}

impl Request {
    /// Tells the room, in the name of the members who see what goes out here.
    pub fn forward<'a>(self, room: &RoomHandle, viewers: impl IntoIterator<Item = &'a Membership>) {
        match self {
            Self::Keyframe(track, since, reason) => room.request_keyframe(track, since, reason),
            Self::Withheld(reason) => room.withhold_keyframe(reason),
            Self::Oversize(track, bits) => {
                if let Some(viewer) = viewers.into_iter().next() {
                    viewer.report_oversize(track, bits);
                }
            }
            Self::Capacity(track, bits) => {
                for viewer in viewers {
                    viewer.report_capacity(track, bits);
                }
            }
        }
    }
}

/// The receiving side of one native member.
#[derive(Debug)]
pub struct Egress {
    view: View,
    waker: Arc<Notify>,
    counters: Arc<Counters>,
    audio: Vec<Cursor>,
    mix: Option<Listener>,
    /// Packets that went out ahead of their time when the sound changed from mix to source.
    ahead: u64,
    /// The source that goes through is silent now.
    quiet: bool,
    /// Makes packets that are too long for an app anew.
    shortener: Shortener,
    shown: Option<Leg>,
    pending: Option<Leg>,
    sending: Option<Sending>,
    /// Video packets of the last half second, to be sent again.
    sent: SentPackets,
    blocked_at: Option<RoomTime>,
    requests: Vec<Request>,
    report: Report,
}

#[derive(Debug)]
struct Leg {
    cursor: Cursor,
    replay: Replay,
    want: Want,
    /// Why it needs a keyframe: for its beginning, until frames of it have gone out.
    reason: Reason,
    dropped: u64,
}

impl Leg {
    fn next(&mut self, now: RoomTime) -> Next {
        let unanswering = self.cursor.track().is_unanswering();
        self.replay.next(&mut self.cursor, &VIDEO_LAG, unanswering, now)
    }

    /// It can read nothing before a keyframe comes. What to ask for that, if anything.
    fn wants_keyframe(&mut self, now: RoomTime) -> Option<Request> {
        match self.want.loss(now) {
            Need::Ask => Some(Request::Keyframe(self.cursor.track().id(), now, self.reason)),
            Need::Withhold => Some(Request::Withheld(self.reason)),
            Need::Asked => None,
        }
    }

    fn goes_out(&mut self) {
        self.want.satisfied();
        self.reason = Reason::Loss;
        self.dropped = self.cursor.dropped();
    }
}

#[derive(Debug)]
struct Sending {
    frame: Arc<Frame>,
    parts: Arc<[Bytes]>,
    stamp: Option<Stamp>,
    next: usize,
    since: RoomTime,
    moved_at: RoomTime,
    /// Tries in vain since it last moved.
    tries: u32,
}

#[derive(Debug)]
struct Report {
    at: RoomTime,
    sent: usize,
    dropped: bool,
    /// There was no place for a frame.
    refused: bool,
    /// The shown track, its bytes when it was looked at last, and when that was.
    seen: Option<(Arc<Track>, u64, RoomTime)>,
    /// Bit rate of the shown track, once it is known.
    rate: Option<u64>,
}

impl Egress {
    /// Sends what `view` selects. `waker` is notified whenever there is something new.
    pub fn new(view: View, waker: Arc<Notify>, counters: Arc<Counters>, now: RoomTime) -> Self {
        Self {
            view,
            waker,
            counters,
            audio: Vec::new(),
            mix: None,
            ahead: 0,
            quiet: false,
            shortener: Shortener::default(),
            shown: None,
            pending: None,
            sending: None,
            sent: SentPackets::default(),
            blocked_at: None,
            requests: Vec::new(),
            report: Report {
                at: now,
                sent: 0,
                dropped: false,
                refused: false,
                seen: None,
                rate: None,
            },
        }
    }

    /// Takes the room's mix when several talk. Without it, the last talker keeps the sound.
    pub fn listen(&mut self, mix: Listener) {
        self.mix = Some(mix);
    }

    /// The selection.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Takes note of a change in the room.
    pub fn set_room(&mut self, snapshot: &Snapshot) {
        self.view.set_room(snapshot);
        let Self { view, audio, waker, .. } = self;
        audio.retain(|cursor| view.audio_tracks().any(|track| Arc::ptr_eq(track, cursor.track())));
        for track in view.audio_tracks() {
            if !audio.iter().any(|cursor| Arc::ptr_eq(track, cursor.track())) {
                audio.push(Cursor::new(track, waker));
            }
        }
    }

    /// What the room should be asked, since the last call.
    pub fn requests(&mut self) -> impl Iterator<Item = Request> + '_ {
        self.requests.drain(..)
    }

    /// Sends the video packets with these numbers again, as far as they are still held and the path takes them.
    pub fn answer(&mut self, seqs: &[u32], out: &impl Datagrams, now: RoomTime) {
        let seqs = &seqs[..seqs.len().min(MAX_NACKED)];
        let again = self.sent.answer(seqs, Duration::from_micros(now.0));
        self.counters.not_resent.add((seqs.len() - again.len()) as u64);
        let mut room = out.room();
        for datagram in again {
            let len = datagram.len();
            if len > room.budget {
                self.counters.resent_dropped_space.one();
            } else if out.send(datagram) {
                room.take(len);
                self.counters.resent_out.one();
            }
        }
    }

    /// When [`Egress::pump`] wants to be called, woken or not.
    pub fn poll_timeout(&self, now: RoomTime) -> Option<RoomTime> {
        let retry = self.blocked_at.map(|at| at.plus(RETRY));
        // No leg has its turn before the frame that is being sent is through.
        let free = self.sending.is_none();
        let replay = |leg: &Option<Leg>| leg.as_ref().filter(|_| free)?.replay.poll_timeout();
        let view = self.view.poll_timeout(now);
        [retry, view, replay(&self.shown), replay(&self.pending)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Sends whatever is there and fits.
    pub fn pump(&mut self, out: &impl Datagrams, now: RoomTime) {
        self.blocked_at = None;
        let mut room = out.room();
        self.pump_audio(out, &mut room, now);
        self.pump_video(out, &mut room, now);
        self.report(now);
    }

    fn pump_audio(&mut self, out: &impl Datagrams, room: &mut SendRoom, now: RoomTime) {
        self.pump_mix(out, room, now);
        let Self {
            view,
            audio,
            counters,
            ahead,
            quiet,
            shortener,
            ..
        } = self;
        for cursor in audio {
            while let Next::Frame(frame) = cursor.next(&AUDIO_LAG) {
                if !view.hear(&frame, now) {
                    continue;
                }
                if *ahead > AHEAD && *quiet {
                    *ahead -= 1;
                    counters.audio_silence_skipped.one();
                    continue;
                }
                let Some(parts) = shortener.parts(&frame, view.takes_any()) else {
                    counters.audio_undecodable_out.one();
                    continue;
                };
                for part in parts.iter() {
                    let len = MediaHeader::LEN + part.payload.len();
                    if !fits(len, room, counters) {
                        continue;
                    }
                    let header = view.audio(part.ticks, part.time).header(&frame);
                    if !out.send(encode_datagram(&header, &part.payload)) {
                        return;
                    }
                    room.take(len);
                    counters.audio_out.one();
                }
            }
        }
    }

    /// Follows the room's mix: which source goes through from now on, or the mix itself.
    fn pump_mix(&mut self, out: &impl Datagrams, room: &mut SendRoom, now: RoomTime) {
        let Self {
            view,
            audio,
            mix,
            counters,
            ahead,
            quiet,
            ..
        } = self;
        let Some(mix) = mix else { return };
        while let Some(tick) = mix.next_tick() {
            if let Some(source) = view.follow_mix(&tick, now)
                && let Some(index) = tick.next_index(source)
                && let Some(cursor) = audio.iter_mut().find(|cursor| cursor.track().id().source == source)
            {
                *ahead += cursor.rewind(index);
            }
            match view.sound(now) {
                Some(Sound::Through(source)) => *quiet = tick.level(source) > TALKING_LEVEL,
                Some(Sound::Mix) => {
                    let Some(packet) = tick.opus(view.me()) else { continue };
                    let len = MediaHeader::LEN + packet.len();
                    if !fits(len, room, counters) {
                        continue;
                    }
                    if !out.send(encode_datagram(&view.mixed(&tick), packet)) {
                        return;
                    }
                    room.take(len);
                    counters.audio_out.one();
                    counters.audio_mixed_out.one();
                }
                None => {}
            }
        }
    }

    fn pump_video(&mut self, out: &impl Datagrams, room: &mut SendRoom, now: RoomTime) {
        loop {
            if let Some(sending) = &mut self.sending {
                let begun = sending.next > 0;
                match sending.go_on(&mut self.view, &mut self.sent, out, room, &self.counters, now) {
                    Progress::Done(bytes) => {
                        self.report.sent += bytes;
                        self.sending = None;
                    }
                    Progress::Blocked => {
                        self.blocked_at = Some(now);
                        return;
                    }
                    Progress::GaveUp(unsent) => {
                        self.view.video_unsent(unsent);
                        self.counters.video_dropped_space.one();
                        self.report.dropped = true;
                        self.report.refused = true;
                        self.sending = None;
                        if let Some(leg) = &mut self.shown {
                            leg.cursor.give_back(&VIDEO_LAG, begun);
                            leg.dropped = leg.cursor.dropped();
                        }
                    }
                    Progress::Gone => return,
                }
            }
            self.follow(now);
            let Some(frame) = self.next_frame(now) else { return };
            self.begin(frame, room, now);
        }
    }

    /// Lets the shown leg be what the view wants, as soon as that has a keyframe.
    fn follow(&mut self, now: RoomTime) {
        let is = |leg: &Option<Leg>, track: &Arc<Track>| {
            leg.as_ref().is_some_and(|leg| Arc::ptr_eq(leg.cursor.track(), track))
        };
        if !self.view.shown().is_some_and(|track| is(&self.shown, track)) {
            self.shown = None;
        }
        let Some(wanted) = self.view.wanted_video(now).cloned() else {
            self.pending = None;
            return;
        };
        if is(&self.shown, &wanted) {
            self.pending = None;
        } else if !is(&self.pending, &wanted) {
            self.pending = Some(self.open(&wanted, now));
        }
    }

    fn open(&mut self, track: &Arc<Track>, now: RoomTime) -> Leg {
        let mut cursor = Cursor::new(track, &self.waker);
        let start = cursor.start();
        let (replay, reason) = match self.shown {
            Some(_) => (Replay::switching(start, now), Reason::Switch),
            None => (Replay::new(start, now), Reason::Join),
        };
        let mut want = Want::default();
        if replay.wants_keyframe() {
            want.started(now);
            self.requests.push(Request::Keyframe(track.id(), now, reason));
        }
        // A large replay leaves within the time that packets are held: all of it is.
        self.sent.hold_bytes(track.bounds().hard_bytes);
        Leg {
            dropped: cursor.dropped(),
            cursor,
            replay,
            want,
            reason,
        }
    }

    fn next_frame(&mut self, now: RoomTime) -> Option<Arc<Frame>> {
        if let Some(pending) = &mut self.pending {
            match pending.next(now) {
                Next::Frame(frame) => {
                    pending.goes_out();
                    let track = pending.cursor.track().clone();
                    self.view.show(&track, now);
                    self.shown = self.pending.take();
                    return Some(frame);
                }
                Next::NeedsKeyframe => self.requests.extend(pending.wants_keyframe(now)),
                Next::Empty | Next::Ended => {}
            }
        }
        let leg = self.shown.as_mut()?;
        let next = leg.next(now);
        let dropped = leg.cursor.dropped();
        if dropped > leg.dropped {
            self.counters.video_dropped_lag.add(dropped - leg.dropped);
            self.report.dropped = true;
        }
        leg.dropped = dropped;
        match next {
            Next::Frame(frame) => {
                leg.goes_out();
                Some(frame)
            }
            Next::NeedsKeyframe => {
                self.report.dropped = true;
                self.requests.extend(leg.wants_keyframe(now));
                None
            }
            Next::Empty | Next::Ended => None,
        }
    }

    fn begin(&mut self, frame: Arc<Frame>, room: &SendRoom, now: RoomTime) {
        let parts = match frame.wzp_fragments() {
            Ok(parts) if parts.iter().all(|part| MediaHeader::LEN + part.len() <= room.max_size) => parts.clone(),
            Ok(_) => {
                self.counters.video_dropped_size.one();
                return self.resync();
            }
            Err(_) => {
                self.counters.video_dropped_size.one();
                let fits = (MAX_FRAGMENTS * FRAGMENT_PAYLOAD) as u64;
                let len = (frame.payload.len() as u64).max(1);
                let bits = match self.report.rate_of(frame.track) {
                    Some(rate) => u32::try_from(rate * fits / len * 4 / 5).unwrap_or(u32::MAX),
                    None => UNKNOWN_RATE_ASK,
                };
                self.requests.push(Request::Oversize(frame.track, bits.max(FLOOR)));
                return self.resync();
            }
        };
        self.sending = Some(Sending {
            frame,
            parts,
            stamp: None,
            next: 0,
            since: now,
            moved_at: now,
            tries: 0,
        });
    }

    /// A frame can never be sent: goes on at a keyframe after it.
    fn resync(&mut self) {
        if let Some(leg) = &mut self.shown {
            leg.cursor.resync(&VIDEO_LAG);
            leg.dropped = leg.cursor.dropped();
        }
    }

    /// Once a second: how much of the shown picture gets through.
    fn report(&mut self, now: RoomTime) {
        let elapsed = now.since(self.report.at);
        let Some(leg) = &self.shown else { return };
        let track = leg.cursor.track();
        self.report.look_at(track, now);
        if elapsed < REPORT_INTERVAL {
            return;
        }
        // Who waits for a keyframe takes nothing, which says nothing of the path.
        let waits = self.report.sent == 0 && !self.report.refused && leg.cursor.is_waiting();
        let sent = self.report.sent as u64 * 8 * 1_000_000 / elapsed * 85 / 100;
        let capacity = match self.report.dropped {
            true => u32::try_from(sent).unwrap_or(u32::MAX),
            false => u32::MAX,
        };
        if !waits {
            self.requests.push(Request::Capacity(track.id(), capacity));
        }
        self.report.at = now;
        self.report.sent = 0;
        self.report.dropped = false;
        self.report.refused = false;
    }
}

impl Report {
    /// Measures the rate of the shown track, from when it was first shown on.
    fn look_at(&mut self, track: &Arc<Track>, now: RoomTime) {
        let bytes = track.counters().bytes.load(std::sync::atomic::Ordering::Relaxed);
        match &self.seen {
            Some((known, before, at)) if Arc::ptr_eq(known, track) => {
                let elapsed = now.since(*at);
                if elapsed < REPORT_INTERVAL {
                    return;
                }
                self.rate = Some(bytes.saturating_sub(*before) * 8 * 1_000_000 / elapsed);
            }
            _ => self.rate = None,
        }
        self.seen = Some((track.clone(), bytes, now));
    }

    fn rate_of(&self, track: TrackId) -> Option<u64> {
        self.rate
            .filter(|_| self.seen.as_ref().is_some_and(|(seen, ..)| seen.id() == track))
    }
}

impl SendRoom {
    fn take(&mut self, len: usize) {
        self.space = self.space.saturating_sub(len);
        self.budget = self.budget.saturating_sub(len);
        self.idle = false;
    }
}

/// Whether a sound packet of `len` bytes can go out; counted if not.
fn fits(len: usize, room: &SendRoom, counters: &Counters) -> bool {
    if len > room.max_size {
        counters.audio_dropped_size.one();
    } else if len > room.space {
        counters.audio_dropped_space.one();
    } else {
        return true;
    }
    false
}

enum Progress {
    /// All sent: so many bytes.
    Done(usize),
    /// Try again later.
    Blocked,
    /// Took too long; so many packets of it were numbered but not sent.
    GaveUp(u32),
    /// The connection takes nothing any more.
    Gone,
}

impl Sending {
    fn go_on(
        &mut self,
        view: &mut View,
        sent: &mut SentPackets,
        out: &impl Datagrams,
        room: &mut SendRoom,
        counters: &Counters,
        now: RoomTime,
    ) -> Progress {
        let total: usize = self.parts.iter().map(|part| MediaHeader::LEN + part.len()).sum();
        // A keyframe may go out in pieces; a small frame begins only when all of it fits.
        let may_begin = self.frame.keyframe || room.budget >= total || room.idle;
        if self.stamp.is_none() && !may_begin {
            return self.blocked(now);
        }
        let count = self.parts.len() as u8;
        while let Some(part) = self.parts.get(self.next) {
            let len = MediaHeader::LEN + part.len();
            if len > room.budget {
                return self.blocked(now);
            }
            let stamp = match self.stamp {
                Some(stamp) => stamp,
                None => *self.stamp.insert(view.video(&self.frame, u32::from(count))),
            };
            let header = fragment_header(&stamp.header(&self.frame), self.next as u8, count);
            let datagram = encode_datagram(&header, part);
            if !out.send(datagram.clone()) {
                return Progress::Gone;
            }
            sent.insert(header.seq, datagram, Duration::from_micros(now.0));
            room.take(len);
            counters.fragments_out.one();
            self.next += 1;
            self.moved_at = now;
            self.tries = 0;
        }
        counters.video_out.one();
        Progress::Done(total)
    }

    fn blocked(&mut self, now: RoomTime) -> Progress {
        self.tries += 1;
        let late = now.since(self.moved_at) >= STALL_DEADLINE || now.since(self.since) >= KEYFRAME_DEADLINE;
        if !late || self.tries < STALL_TRIES {
            return Progress::Blocked;
        }
        let unsent = self.parts.len() - self.next;
        Progress::GaveUp(if self.stamp.is_some() { unsent as u32 } else { 0 })
    }
}

#[cfg(test)]
mod tests;

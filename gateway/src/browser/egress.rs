//! What a browser receives over the WebSocket: the room's frames as messages, sound before pictures, bounded in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::Notify;

use crate::browser::capacity::Capacity;
use crate::browser::message::{PauseReason, ToClient, TrackRef, codec_name};
use crate::browser::window::Window;
use crate::media::frame::{Frame, Kind, MESSAGE_BUNDLE, ParticipantId, RoomTime, TrackId};
use crate::room::keyframes::{Need, Reason, Want};
use crate::room::registry::RoomHandle;
use crate::room::replay::Replay;
use crate::room::snapshot::Snapshot;
use crate::room::subscription::{Cursor, Lag, Next, Start};
use crate::room::track::Track;
use crate::room::upstream::Upstream;

/// Pictures that waited longer than this are left out; after that, a keyframe younger than half a second will do.
const VIDEO_LAG: Lag = Lag {
    most: 250_000,
    resync_age: 500_000,
};
/// Sound that waited longer than this is left out.
const AUDIO_LAG: Lag = Lag {
    most: 300_000,
    resync_age: 0,
};
/// A client decodes a replay at least so many times faster than it is played,
const DECODE_SPEED: u64 = 4;
/// and may take this much longer all the same, µs. Until then its backlog is no reason to hold live pictures back: they would
/// be too late then, and it would need a keyframe.
const DECODE_MARGIN: u64 = 1_000_000;

/// Messages of a replay go out together as long as they fit into this, bytes. Each message that comes alone costs a browser's
/// processes a tenth of a ms: of ten seconds of pictures, 1 MB, Chromium on two cores was live 30 to 110 ms sooner.
const BUNDLE: usize = 8 << 10;

/// A track that goes over to WebRTC stays so much longer, µs, and an eighth of its last keyframe's age: until the client has
/// decoded what is replayed there, and is live again. It shows that then, and what comes here until then.
const OVERLAP: u64 = 300_000;
const OVERLAP_DECODE_SPEED: u64 = 8;
/// And no longer than this, µs.
const MOST_OVERLAP: u64 = 2_000_000;

/// What the session does next.
#[derive(Debug)]
pub enum Out {
    /// Send this.
    Message(Bytes),
    /// Nothing can be sent before a wake-up, an acknowledgement or the next tick.
    Idle,
}

/// Counters of one client.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    /// Frames left out because the client or its network was too slow.
    pub dropped_frames: u64,
    /// Media messages sent.
    pub messages: u64,
    /// Media bytes sent.
    pub bytes: u64,
}

/// All that one client receives over its WebSocket.
#[derive(Debug)]
pub struct Egress<R = RoomHandle> {
    viewer: ParticipantId,
    room: R,
    waker: Arc<Notify>,
    decode: Vec<String>,
    /// The client takes several messages in one.
    bundles: bool,
    /// Was to go out with others and did not fit: it is the next.
    unfit: Option<Bytes>,
    paused: Vec<TrackRef>,
    /// Tracks that WebRTC carries to this client.
    elsewhere: Vec<TrackId>,
    /// Those of them that come here too, and until when.
    leaving: BTreeMap<TrackId, RoomTime>,
    sounds: BTreeMap<TrackId, Cursor>,
    pictures: BTreeMap<TrackId, Picture>,
    undecodable: Vec<TrackId>,
    /// Until then the client has replays to decode.
    replayed_until: RoomTime,
    /// The video track that was served last.
    turn: Option<TrackId>,
    counters: Counters,
    capacity: Capacity,
    /// The window was shut for pictures at the last look,
    shut: bool,
    /// and some have waited for it to open since then.
    waits_since: Option<RoomTime>,
}

#[derive(Debug)]
struct Picture {
    track: Arc<Track>,
    /// None while the client does not want it.
    cursor: Option<(Cursor, Replay)>,
    pending: Option<(Arc<Frame>, usize)>,
    want: Want,
    /// The client has had pictures of it.
    shown: bool,
    dropped_before: u64,
}

impl<R: Upstream> Egress<R> {
    /// For one client; `decode` names the codecs that it can play.
    pub fn new(viewer: ParticipantId, room: R, decode: Vec<String>) -> Self {
        Self {
            viewer,
            room,
            waker: Arc::new(Notify::new()),
            decode,
            bundles: false,
            unfit: None,
            paused: Vec::new(),
            elsewhere: Vec::new(),
            leaving: BTreeMap::new(),
            sounds: BTreeMap::new(),
            pictures: BTreeMap::new(),
            undecodable: Vec::new(),
            replayed_until: RoomTime::default(),
            turn: None,
            counters: Counters::default(),
            capacity: Capacity::default(),
            shut: false,
            waits_since: None,
        }
    }

    /// Whether the client takes several messages in one.
    #[must_use]
    pub fn bundling(self, bundles: bool) -> Self {
        Self { bundles, ..self }
    }

    /// Notified when there may be something new to send.
    pub fn waker(&self) -> Arc<Notify> {
        self.waker.clone()
    }

    /// When there may be something to send though nothing new has come.
    pub fn poll_timeout(&self) -> Option<RoomTime> {
        // Nothing that waits for its time could go out; an acknowledgement wakes.
        if self.shut {
            return None;
        }
        self.pictures
            .values()
            .filter_map(|picture| picture.cursor.as_ref()?.1.poll_timeout())
            .min()
    }

    /// What was sent and what was not.
    pub fn counters(&self) -> Counters {
        let sounds: u64 = self.sounds.values().map(Cursor::dropped).sum();
        let pictures: u64 = self.pictures.values().map(Picture::dropped).sum();
        Counters {
            dropped_frames: self.counters.dropped_frames + sounds + pictures,
            ..self.counters
        }
    }

    /// Follows the room: new tracks are subscribed, ended ones let go. Says what the client should be told of it.
    pub fn update(&mut self, snapshot: &Snapshot, now: Instant) -> Vec<ToClient> {
        let now = self.room.time_at(now);
        let mut told = Vec::new();
        let mut wanted: BTreeMap<TrackId, Arc<Track>> = BTreeMap::new();
        let mut undecodable = Vec::new();
        for (_, view) in snapshot.tracks_for(self.viewer) {
            let id = view.track.id();
            if !self.decode.iter().any(|name| name == codec_name(view.info.codec)) {
                undecodable.push(id);
            } else if !self.elsewhere.contains(&id) || self.leaving.get(&id).is_some_and(|until| now < *until) {
                wanted.insert(id, view.track.clone());
            }
        }
        for id in undecodable
            .iter()
            .filter(|id| id.kind == Kind::Video && !self.undecodable.contains(id))
        {
            told.push(ToClient::VideoPaused {
                source: id.source,
                slot: id.slot,
                reason: PauseReason::Codec,
            });
        }
        for id in self
            .undecodable
            .iter()
            .filter(|id| id.kind == Kind::Video && wanted.contains_key(id))
        {
            told.push(ToClient::VideoResumed {
                source: id.source,
                slot: id.slot,
                reason: PauseReason::Codec,
            });
        }
        self.undecodable = undecodable;
        let counters = &mut self.counters;
        self.sounds.retain(|id, cursor| {
            let keep = wanted.get(id).is_some_and(|track| Arc::ptr_eq(track, cursor.track()));
            counters.dropped_frames += if keep { 0 } else { cursor.dropped() };
            keep
        });
        self.pictures.retain(|id, picture| {
            let keep = wanted.get(id).is_some_and(|track| Arc::ptr_eq(track, &picture.track));
            counters.dropped_frames += if keep { 0 } else { picture.dropped() };
            keep
        });
        for (id, track) in wanted {
            match id.kind {
                Kind::Audio => {
                    self.sounds
                        .entry(id)
                        .or_insert_with(|| Cursor::new(&track, &self.waker));
                }
                Kind::Video => {
                    if !self.pictures.contains_key(&id) {
                        let mut picture = Picture::new(track);
                        if !self.paused.iter().any(|paused| paused.names(id)) {
                            let until = picture.resume(&self.waker, &self.room, now);
                            self.replayed_until = self.replayed_until.max(until);
                        }
                        self.pictures.insert(id, picture);
                    }
                }
            }
        }
        told
    }

    /// Tracks that another transport carries to this client from now on. The next [`Egress::update`] acts on it. Pictures
    /// that are live here overlap, unless this path has no room for them.
    pub fn set_elsewhere(&mut self, tracks: Vec<TrackId>, now: Instant) {
        let now = self.room.time_at(now);
        self.leaving.retain(|id, _| tracks.contains(id));
        let newly = tracks.iter().filter(|id| !self.elsewhere.contains(id));
        for id in newly.filter(|_| !self.shut) {
            let Some(picture) = self.pictures.get(id).filter(|picture| picture.is_live()) else {
                continue;
            };
            let age = picture.track.keyframe_at().map_or(0, |at| now.since(at));
            let overlap = (OVERLAP + age / OVERLAP_DECODE_SPEED).min(MOST_OVERLAP);
            self.leaving.insert(*id, now.plus(overlap));
        }
        self.elsewhere = tracks;
    }

    /// The client has this picture from us, live or soon to be.
    pub fn keeps_up(&self, id: TrackId, now: Instant) -> bool {
        let now = self.room.time_at(now);
        let stuck = self.waits_since.is_some_and(|since| now.since(since) > VIDEO_LAG.most);
        let served = |picture: &Picture| match &picture.cursor {
            Some((cursor, _)) => !cursor.is_waiting() && (picture.is_live() || now < self.replayed_until),
            None => false,
        };
        !stuck && self.pictures.get(&id).is_some_and(served)
    }

    /// Lets go of what has gone over.
    fn let_go(&mut self, now: RoomTime) {
        if self.leaving.values().all(|until| now < *until) {
            return;
        }
        let (elsewhere, counters) = (&self.elsewhere, &mut self.counters);
        let pictures = &mut self.pictures;
        self.leaving.retain(|id, until| {
            let stays = now < *until;
            if !stays
                && elsewhere.contains(id)
                && let Some(picture) = pictures.remove(id)
            {
                counters.dropped_frames += picture.dropped();
            }
            stays
        });
    }

    /// The complete list of what the client does not want now.
    pub fn pause(&mut self, paused: Vec<TrackRef>, now: Instant) {
        let now = self.room.time_at(now);
        self.paused = paused;
        for (id, picture) in &mut self.pictures {
            let off = self.paused.iter().any(|paused| paused.names(*id));
            match (&picture.cursor, off) {
                (Some(_), true) => picture.pause(),
                (None, false) => {
                    let until = picture.resume(&self.waker, &self.room, now);
                    self.replayed_until = self.replayed_until.max(until);
                }
                _ => {}
            }
        }
    }

    /// Whether the client receives this video track, or could.
    pub fn knows(&self, source: ParticipantId, slot: u8) -> Option<TrackId> {
        self.pictures
            .keys()
            .find(|id| id.source == source && id.slot == slot)
            .copied()
    }

    /// The next message that may go out now.
    pub fn next(&mut self, window: &mut Window, now: Instant) -> Out {
        if window.open_for_audio(now) {
            for cursor in self.sounds.values_mut() {
                if let Next::Frame(frame) = cursor.next(&AUDIO_LAG)
                    && let Some(message) = frame.messages().first()
                {
                    return self.count(message.clone());
                }
            }
        }
        let room_now = self.room.time_at(now);
        self.let_go(room_now);
        let open = match room_now < self.replayed_until {
            true => window.open_for_replay(now),
            false => window.open_for_video(now),
        };
        self.shut = !open;
        let waits = self.shut && self.pictures.values().any(Picture::has_more);
        self.capacity.note(waits, now);
        self.waits_since = waits.then(|| self.waits_since.unwrap_or(room_now));
        if self.shut {
            return Out::Idle;
        }
        match self.next_picture(room_now) {
            Some(message) => self.count(message),
            None => Out::Idle,
        }
    }

    /// The next message that may go out now; of a replay several in one, unless the path is slow: sound would wait behind them.
    pub fn next_bundle(&mut self, window: &mut Window, now: Instant) -> Out {
        let first = match self.unfit.take().map_or_else(|| self.next(window, now), Out::Message) {
            Out::Message(first) if self.bundles && self.is_replaying() && window.is_prompt(now) => first,
            other => return other,
        };
        let mut bundle = BytesMut::new();
        while let Out::Message(message) = self.next(window, now) {
            let held = match bundle.is_empty() {
                true => 1 + BUNDLED_HEAD + first.len(),
                false => bundle.len(),
            };
            if held + BUNDLED_HEAD + message.len() > BUNDLE {
                self.unfit = Some(message);
                break;
            }
            if bundle.is_empty() {
                bundle.reserve(BUNDLE);
                bundle.put_u8(MESSAGE_BUNDLE);
                bundle_up(&mut bundle, &first);
            }
            bundle_up(&mut bundle, &message);
        }
        Out::Message(if bundle.is_empty() { first } else { bundle.freeze() })
    }

    /// What goes out is older than what is live.
    fn is_replaying(&self) -> bool {
        let cursors = self.pictures.values().filter_map(|picture| picture.cursor.as_ref());
        cursors.into_iter().any(|(cursor, _)| cursor.is_catching_up())
    }

    /// A frame is finished before another track has its turn; then each has one in order.
    fn next_picture(&mut self, now: RoomTime) -> Option<Bytes> {
        let turn = self.turn;
        let unfinished = turn.filter(|id| self.pictures.get(id).is_some_and(|picture| picture.pending.is_some()));
        for pass in 0..3 {
            for (id, picture) in &mut self.pictures {
                let due = match pass {
                    0 => unfinished == Some(*id),
                    1 => turn.is_none_or(|turn| *id > turn),
                    _ => turn.is_some_and(|turn| *id <= turn),
                };
                if due && let Some(message) = picture.next(&self.room, now) {
                    self.turn = Some(*id);
                    return Some(message);
                }
            }
        }
        None
    }

    /// Judges, now and then, how much video the client can take, and says so to the room, which limits publishers to what
    /// their best viewer can take.
    pub fn judge_capacity(&mut self, window: &mut Window, now: Instant) -> Vec<(TrackId, u32)> {
        let dropped = self.counters().dropped_frames;
        let Some(capacity) = self.capacity.judge(window, dropped, now) else {
            return Vec::new();
        };
        let active = self.pictures.values().filter(|picture| picture.cursor.is_some());
        let share = match capacity {
            u32::MAX => u32::MAX,
            bits => bits / active.count().max(1) as u32,
        };
        self.pictures
            .iter()
            .filter(|(_, picture)| picture.cursor.is_some())
            .map(|(id, _)| (*id, share))
            .collect()
    }

    fn count(&mut self, message: Bytes) -> Out {
        self.counters.messages += 1;
        self.counters.bytes += message.len() as u64;
        Out::Message(message)
    }
}

/// Bytes before each message in a bundle.
const BUNDLED_HEAD: usize = 2;

/// Puts one message more into a bundle that has the room.
fn bundle_up(bundle: &mut BytesMut, message: &Bytes) {
    bundle.put_u16(message.len() as u16);
    bundle.put_slice(message);
}

impl Picture {
    fn new(track: Arc<Track>) -> Self {
        Self {
            track,
            cursor: None,
            pending: None,
            want: Want::default(),
            shown: false,
            dropped_before: 0,
        }
    }

    /// The client has its pictures, and not those of a replay.
    fn is_live(&self) -> bool {
        let live = |(cursor, replay): &(Cursor, Replay)| !cursor.is_catching_up() && replay.poll_timeout().is_none();
        self.shown && self.cursor.as_ref().is_some_and(live)
    }

    fn dropped(&self) -> u64 {
        self.dropped_before + self.cursor.as_ref().map_or(0, |(cursor, _)| cursor.dropped())
    }

    /// Something waits to be sent.
    fn has_more(&self) -> bool {
        self.pending.is_some() || self.cursor.as_ref().is_some_and(|(cursor, _)| cursor.has_more())
    }

    fn pause(&mut self) {
        self.dropped_before = self.dropped();
        self.cursor = None;
    }

    /// Starts, or starts again, at the last keyframe. Until when the client has that to decode.
    fn resume(&mut self, waker: &Arc<Notify>, room: &impl Upstream, now: RoomTime) -> RoomTime {
        let mut cursor = Cursor::new(&self.track, waker);
        let start = cursor.start();
        let until = match start {
            Start::Replay { age, .. } => now.plus(age / DECODE_SPEED + DECODE_MARGIN),
            _ => now,
        };
        // What the client has seen last is newer than the cached keyframe.
        let (replay, reason) = match self.shown {
            true => (Replay::switching(start, now), Reason::Switch),
            false => (Replay::new(start, now), Reason::Join),
        };
        let wants_keyframe = replay.wants_keyframe();
        self.cursor = Some((cursor, replay));
        // What was already there is to be sent without waiting for the next frame.
        waker.notify_one();
        if wants_keyframe {
            self.want.started(now);
            room.request_keyframe(self.track.id(), now, reason);
        }
        until
    }

    /// The next piece of this track.
    fn next(&mut self, room: &impl Upstream, now: RoomTime) -> Option<Bytes> {
        if self.pending.is_none() {
            let (cursor, replay) = self.cursor.as_mut()?;
            match replay.next(cursor, &VIDEO_LAG, self.track.is_unanswering(), now) {
                Next::Frame(frame) => {
                    self.want.satisfied();
                    self.shown = true;
                    self.pending = Some((frame, 0));
                }
                Next::NeedsKeyframe => {
                    match self.want.loss(now) {
                        Need::Ask => room.request_keyframe(self.track.id(), now, Reason::Loss),
                        Need::Withhold => room.withhold_keyframe(Reason::Loss),
                        Need::Asked => {}
                    }
                    return None;
                }
                Next::Empty | Next::Ended => return None,
            }
        }
        let (frame, at) = self.pending.as_mut()?;
        let messages = frame.messages();
        let message = messages.get(*at)?.clone();
        *at += 1;
        if *at == messages.len() {
            self.pending = None;
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests;

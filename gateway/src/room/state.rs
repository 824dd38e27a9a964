//! The room's state machine: members, grace times, keyframe owners, limits. Time goes in as an argument, effects come out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::media::frame::{Kind, ParticipantId, RoomTime, TrackId};
use crate::room::keyframes::{self, KeyframeOwner, Verdict};
#[cfg(doc)]
use crate::room::limits;
use crate::room::limits::Limits;
use crate::room::member::{Control, Door, Join, JoinError, LeaveReason, Muted, Presence, ResumeToken, TrackInfo, View};
use crate::room::snapshot::{MemberView, Snapshot, TrackView};
use crate::room::track::{Replays, Track};
use crate::room::uplink::UplinkStatus;

/// How long a lost member may come back, µs.
pub const RESUME_GRACE: u64 = 10_000_000;
/// Departures that a snapshot remembers.
const DEPARTED: usize = 32;
/// Louder than this is speech, −dBov.
const SPEAKING_LEVEL: u8 = 50;
/// Who was that loud speaks for this long, µs.
const SPEAKING_HOLD: u64 = 800_000;
/// The list of speakers changes at most this often, µs.
const SPEAKERS_INTERVAL: u64 = 300_000;
/// A page says how large it shows the others within so long after its join, µs. Until then it lifts no bound, or every join would
/// cost all sources two changes of size.
const SETTLE: u64 = 2_000_000;

fn settles_at(door: Door, now: RoomTime) -> Option<RoomTime> {
    matches!(door, Door::Websocket | Door::Webrtc).then(|| now.plus(SETTLE))
}

/// What a room does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Something that members see has changed: publish a new [`Snapshot`].
    Changed,
    /// Tell one member something.
    Tell(ParticipantId, Control),
}

/// A member was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// Its number.
    pub id: ParticipantId,
    /// Which connection of this member it is; later calls carry it, so that a connection that was replaced or resumed by a
    /// newer one can change nothing any more.
    pub epoch: u64,
    /// It goes on as the participant that it was.
    pub resumed: bool,
    /// What a later resumption is proved by. It stays the same through resumptions: a connection that breaks again before
    /// its client has learnt anything can be resumed all the same.
    pub token: ResumeToken,
}

#[derive(Debug)]
struct Member {
    view: Arc<MemberView>,
    resume: Option<ResumeToken>,
    epoch: u64,
    lost_at: Option<RoomTime>,
    /// How large it shows others, on tracks that are still to come too.
    shows: View,
    /// It shows no pictures at all, so that nobody's depends on it.
    blind: bool,
    /// Until then it counts as a viewer only by what it says.
    settles_at: Option<RoomTime>,
    /// By slot, what this connection holds to since it was told of a track that has ended.
    held_to: BTreeMap<u8, Limits>,
}

#[derive(Debug)]
struct VideoTrack {
    track: Arc<Track>,
    owner: KeyframeOwner,
    limits: Limits,
}

/// One room.
#[derive(Debug)]
pub struct Room {
    max_members: usize,
    members: BTreeMap<ParticipantId, Member>,
    videos: BTreeMap<TrackId, VideoTrack>,
    next_id: u32,
    next_epoch: u64,
    next_stream: u8,
    version: u64,
    departed: VecDeque<(ParticipantId, LeaveReason)>,
    speakers: Arc<[ParticipantId]>,
    levels: BTreeMap<ParticipantId, (u8, RoomTime)>,
    speakers_at: Option<RoomTime>,
    apart: BTreeSet<ParticipantId>,
    uplink: Option<Arc<UplinkStatus>>,
    effects: VecDeque<Effect>,
    keyframes: keyframes::Counters,
    /// Of tracks that are gone.
    replays: Replays,
}

impl Room {
    /// An empty room for at most `max_members`.
    pub fn new(max_members: usize) -> Self {
        Self {
            max_members,
            members: BTreeMap::new(),
            videos: BTreeMap::new(),
            next_id: 1,
            next_epoch: 1,
            next_stream: 1,
            version: 0,
            departed: VecDeque::new(),
            speakers: Arc::default(),
            levels: BTreeMap::new(),
            speakers_at: None,
            apart: BTreeSet::new(),
            uplink: None,
            effects: VecDeque::new(),
            keyframes: keyframes::Counters::default(),
            replays: Replays::default(),
        }
    }

    /// Nobody is in it, not even somebody who may come back.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Members, the lost ones included.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Lets a member in. A new member's resumption will be proved by `token`.
    ///
    /// # Errors
    /// The room is full.
    pub fn join(&mut self, join: Join, token: ResumeToken, now: RoomTime) -> Result<Joined, JoinError> {
        let epoch = self.next_epoch;
        self.next_epoch += 1;
        if let Some(id) = self.resumable(&join)
            && let Some(member) = self.members.get_mut(&id)
        {
            // The old connection, if it still stands half open, is told that it is over.
            if member.lost_at.is_none() {
                self.effects
                    .push_back(Effect::Tell(id, Control::Ended(LeaveReason::Replaced)));
            }
            member.epoch = epoch;
            member.lost_at = None;
            member.blind = false;
            member.settles_at = settles_at(join.door, now);
            let token = member.resume.unwrap_or(token);
            member.resume = join.resumable.then_some(token);
            let view = Arc::make_mut(&mut member.view);
            view.presence = Presence::Connected;
            view.name = join.name;
            view.door = join.door;
            self.set_tracks_of(id, Vec::new());
            self.forget_connection(id);
            self.viewers_changed(now);
            self.changed();
            return Ok(Joined {
                id,
                epoch,
                resumed: true,
                token,
            });
        }
        let same: Vec<_> = self
            .members
            .iter()
            // What a relay says of who its members are puts nobody out who is here himself.
            .filter(|(_, m)| m.view.is_remote() == (join.door == Door::Uplink))
            .filter(|(_, m)| m.view.fingerprint == join.fingerprint)
            .map(|(id, _)| *id)
            .collect();
        for id in same {
            self.effects
                .push_back(Effect::Tell(id, Control::Ended(LeaveReason::Replaced)));
            self.remove(id, LeaveReason::Replaced, now);
        }
        if self.members.len() >= self.max_members {
            return Err(JoinError::RoomFull {
                members: self.members.len(),
            });
        }
        let id = ParticipantId(self.next_id);
        self.next_id += 1;
        let view = MemberView {
            id,
            name: join.name,
            fingerprint: join.fingerprint,
            door: join.door,
            presence: Presence::Connected,
            muted: Muted::default(),
            native_stream: self.free_stream(),
            tracks: Vec::new(),
        };
        let resume = join.resumable.then_some(token);
        let settles_at = settles_at(join.door, now);
        self.members.insert(
            id,
            Member {
                view: Arc::new(view),
                resume,
                epoch,
                lost_at: None,
                shows: View::new(),
                blind: false,
                settles_at,
                held_to: BTreeMap::new(),
            },
        );
        self.viewers_changed(now);
        self.changed();
        Ok(Joined {
            id,
            epoch,
            resumed: false,
            token,
        })
    }

    /// A member goes, for good.
    pub fn leave(&mut self, id: ParticipantId, epoch: u64, reason: LeaveReason, now: RoomTime) {
        if self.is_current(id, epoch) {
            self.remove(id, reason, now);
        }
    }

    /// A member's connection broke: it is kept for [`RESUME_GRACE`] if it may resume, else it is gone.
    pub fn lost(&mut self, id: ParticipantId, epoch: u64, now: RoomTime) {
        if !self.is_current(id, epoch) {
            return;
        }
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        if member.resume.is_none() {
            return self.remove(id, LeaveReason::Lost, now);
        }
        member.lost_at = Some(now);
        Arc::make_mut(&mut member.view).presence = Presence::Reconnecting;
        self.set_tracks_of(id, Vec::new());
        self.forget_connection(id);
        self.forget_viewer(id, now);
        self.changed();
    }

    /// Puts a member out.
    pub fn kick(&mut self, id: ParticipantId, now: RoomTime) {
        if self.members.contains_key(&id) {
            self.effects
                .push_back(Effect::Tell(id, Control::Ended(LeaveReason::Removed)));
            self.remove(id, LeaveReason::Removed, now);
        }
    }

    /// The complete list of what a member sends. Tracks that are named for somebody else, or twice, are left out.
    pub fn set_tracks(&mut self, id: ParticipantId, epoch: u64, tracks: Vec<(TrackInfo, Arc<Track>)>) {
        if self.is_current(id, epoch) {
            let mut views: Vec<TrackView> = Vec::with_capacity(tracks.len());
            for (info, track) in tracks {
                let track_id = track.id();
                if track_id.source == id && views.iter().all(|view| view.track.id() != track_id) {
                    views.push(TrackView { info, track });
                }
            }
            // What is told twice is no news: everybody would be told again.
            let known = self.members.get(&id).map(|member| &member.view.tracks);
            if known.is_some_and(|known| *known != views) {
                self.set_tracks_of(id, views);
                self.changed();
            }
        }
    }

    /// What a member switched off.
    pub fn set_muted(&mut self, id: ParticipantId, epoch: u64, muted: Muted) {
        if self.is_current(id, epoch)
            && let Some(member) = self.members.get_mut(&id)
            && member.view.muted != muted
        {
            Arc::make_mut(&mut member.view).muted = muted;
            self.changed();
        }
    }

    /// A member changed its media transport.
    pub fn set_door(&mut self, id: ParticipantId, epoch: u64, door: Door) {
        if self.is_current(id, epoch)
            && let Some(member) = self.members.get_mut(&id)
            && member.view.door != door
        {
            Arc::make_mut(&mut member.view).door = door;
            self.changed();
        }
    }

    /// A member is to be shown under another name, already bounded by the door.
    pub fn set_name(&mut self, id: ParticipantId, epoch: u64, name: String) {
        if self.is_current(id, epoch)
            && let Some(member) = self.members.get_mut(&id)
            && member.view.name != name
        {
            Arc::make_mut(&mut member.view).name = name;
            self.changed();
        }
    }

    /// A member takes every source apart.
    pub fn set_apart(&mut self, id: ParticipantId, epoch: u64) {
        if self.is_current(id, epoch) && self.apart.insert(id) {
            self.changed();
        }
    }

    /// How the room stands with somebody else's relay; `None`: it has no uplink any more.
    pub fn set_uplink(&mut self, uplink: Option<UplinkStatus>) {
        if self.uplink.as_deref() != uplink.as_ref() {
            self.uplink = uplink.map(Arc::new);
            self.changed();
        }
    }

    /// Who talks, loudest first. Those who are not in the room are left out.
    pub fn set_speakers(&mut self, mut speakers: Vec<ParticipantId>) {
        speakers.retain(|id| self.members.contains_key(id));
        if *self.speakers != *speakers {
            self.speakers = speakers.into();
            self.changed();
        }
    }

    /// How loud a member is, −dBov: 0 (loudest) to 127 (silence). Who was louder than −50 dBov within the last 800 ms
    /// speaks; the list changes at most every 300 ms.
    pub fn report_level(&mut self, id: ParticipantId, level: u8, now: RoomTime) {
        if !self.members.contains_key(&id) {
            return;
        }
        if level <= SPEAKING_LEVEL {
            self.levels.insert(id, (level, now));
        }
        if self.speakers_at.is_some_and(|at| now.since(at) < SPEAKERS_INTERVAL) {
            return;
        }
        self.speakers_at = Some(now);
        self.levels.retain(|_, (_, at)| now.since(*at) <= SPEAKING_HOLD);
        let mut loudest: Vec<_> = self.levels.iter().map(|(id, (level, _))| (*level, *id)).collect();
        // Who spoke first before stays first unless somebody is clearly louder: 6 dB.
        let first = self.speakers.first().copied();
        loudest.sort_by_key(|(level, id)| {
            (
                if Some(*id) == first {
                    level.saturating_sub(6)
                } else {
                    *level
                },
                *id,
            )
        });
        self.set_speakers(loudest.into_iter().map(|(_, id)| id).collect());
    }

    /// A receiver needs a keyframe of a video track newer than what came at `since`.
    pub fn request_keyframe(&mut self, id: TrackId, since: RoomTime, reason: keyframes::Reason, now: RoomTime) {
        let Some(video) = self.videos.get_mut(&id) else {
            return self.keyframes.suppressed_unknown.count(reason);
        };
        let verdict = video.owner.request(since, video.track.keyframe_at(), now);
        video.track.follow_owner(&video.owner);
        self.keyframes.count(verdict, reason);
        if verdict == Verdict::Ask {
            self.ask(id);
        }
    }

    /// A receiver can take about `bits_per_second` of a video track (`u32::MAX`: no bound seen), to be repeated while it has
    /// a bound: a report counts for [`limits::CAPACITY_AGE`]. Publishers are limited to what their best receiver can take, so
    /// that no one is worse off for another's bad network; a member that does not report has no bound.
    pub fn report_capacity(
        &mut self,
        viewer: ParticipantId,
        epoch: u64,
        id: TrackId,
        bits_per_second: u32,
        now: RoomTime,
    ) {
        if viewer == id.source || !self.is_current(viewer, epoch) {
            return;
        }
        if let Some(video) = self.videos.get_mut(&id) {
            video.limits.report(viewer, bits_per_second, now);
            self.weigh(now);
        }
    }

    /// How large a viewer shows the others: the complete list, until the next one or the end of its connection. Publishers are
    /// limited to the size that their largest viewer needs; a member that says nothing of a track has no bound on it.
    pub fn set_view(&mut self, viewer: ParticipantId, epoch: u64, view: View, now: RoomTime) {
        if !self.is_current(viewer, epoch) {
            return;
        }
        for (id, video) in self.videos.iter_mut().filter(|(id, _)| id.source != viewer) {
            let side = view.get(&(id.source, id.slot)).copied();
            video.limits.report_side(viewer, side, now);
        }
        if let Some(member) = self.members.get_mut(&viewer) {
            member.shows = view;
        }
        self.weigh(now);
    }

    /// This member shows no pictures: what it does not say of them holds nobody to anything.
    pub fn set_blind(&mut self, id: ParticipantId, epoch: u64, now: RoomTime) {
        if !self.is_current(id, epoch) {
            return;
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.blind = true;
        }
        self.viewers_changed(now);
        self.weigh(now);
    }

    /// A frame of this track was too large for a receiver; `max_bitrate` would have made it fit. Its source is asked for
    /// that, until [`limits::OVERSIZE_AGE`] have passed without another.
    pub fn report_oversize(&mut self, viewer: ParticipantId, epoch: u64, id: TrackId, max_bitrate: u32, now: RoomTime) {
        if !self.is_current(viewer, epoch) {
            return;
        }
        if let Some(video) = self.videos.get_mut(&id) {
            video.limits.report_oversize(max_bitrate, now);
            self.weigh(now);
        }
    }

    /// The next effect, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Room::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<RoomTime> {
        let graces = self
            .members
            .values()
            .filter_map(|member| Some(member.lost_at?.plus(RESUME_GRACE)));
        let owners = self.videos.values().filter_map(|video| video.owner.poll_timeout());
        let limits = self.videos.values().filter_map(|video| video.limits.poll_timeout());
        let bounded = self.videos.values().any(|video| video.limits.has_size());
        let settling = (self.members.values())
            .filter_map(|member| member.settles_at)
            .filter(|_| bounded);
        graces.chain(owners).chain(limits).chain(settling).min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: RoomTime) {
        let over: Vec<_> = (self.members.iter())
            .filter(|(_, member)| member.lost_at.is_some_and(|at| now >= at.plus(RESUME_GRACE)))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.remove(id, LeaveReason::Lost, now);
        }
        let due: Vec<_> = (self.videos.iter_mut())
            .filter_map(|(id, video)| {
                let due = video.owner.handle_timeout(video.track.keyframe_at(), now);
                video.track.follow_owner(&video.owner);
                due.then_some(*id)
            })
            .collect();
        for id in due {
            self.keyframes.repeated += 1;
            self.ask(id);
        }
        let mut settled = false;
        for member in self.members.values_mut() {
            settled |= member.settles_at.take_if(|at| *at <= now).is_some();
        }
        if settled {
            self.viewers_changed(now);
        }
        self.weigh(now);
    }

    /// The room as its members see it now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            version: self.version,
            members: self.members.values().map(|member| member.view.clone()).collect(),
            departed: self.departed.iter().copied().collect(),
            speakers: self.speakers.clone(),
            apart: self.apart.clone(),
            uplink: self.uplink.clone(),
        }
    }

    /// What became of the requests for keyframes, of all tracks together.
    pub fn keyframe_counters(&self) -> keyframes::Counters {
        self.keyframes
    }

    /// What newcomers found in the logs of pictures that are gone. A track that is there counts for itself.
    pub fn past_replays(&self) -> Replays {
        self.replays
    }

    /// Whether the source of this track has stopped answering keyframe requests.
    pub fn is_silent(&self, id: TrackId) -> bool {
        self.videos.get(&id).is_some_and(|video| video.owner.is_silent())
    }

    fn weigh(&mut self, now: RoomTime) {
        let due = |video: &VideoTrack| video.limits.poll_timeout().is_some_and(|at| at <= now);
        if !self.videos.values().any(due) {
            return;
        }
        let watches = |member: &&Member| member.lost_at.is_none() && !member.blind;
        let settled = |member: &&Member| watches(member) && member.settles_at.is_none();
        let all = self.members.values().filter(watches).count();
        let all_settled = self.members.values().filter(settled).count();
        for (id, video) in &mut self.videos {
            // The source itself does not watch.
            let source = self.members.get(&id.source);
            let viewers = all - usize::from(source.as_ref().is_some_and(watches));
            let viewers_settled = all_settled - usize::from(source.as_ref().is_some_and(settled));
            if let Some(limit) = video.limits.weigh(viewers, viewers_settled, now) {
                let control = Control::Limit {
                    slot: id.slot,
                    max_bitrate: limit.max_bitrate,
                    max_side: limit.max_side,
                    reason: limit.reason,
                };
                self.effects.push_back(Effect::Tell(id.source, control));
            }
        }
    }

    /// What a connection said and was told counts for no other.
    fn forget_connection(&mut self, id: ParticipantId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.shows.clear();
            member.held_to.clear();
        }
        for video in self.videos.values_mut() {
            video.limits.forget_side(id);
        }
    }

    fn forget_viewer(&mut self, id: ParticipantId, now: RoomTime) {
        for video in self.videos.values_mut() {
            video.limits.forget(id);
        }
        self.viewers_changed(now);
    }

    fn viewers_changed(&mut self, now: RoomTime) {
        for video in self.videos.values_mut() {
            video.limits.viewers_changed(now);
        }
    }

    fn ask(&mut self, id: TrackId) {
        self.effects.push_back(Effect::Tell(
            id.source,
            Control::Keyframe {
                slot: id.slot,
                layer: id.layer,
            },
        ));
    }

    fn is_current(&self, id: ParticipantId, epoch: u64) -> bool {
        self.members.get(&id).is_some_and(|member| member.epoch == epoch)
    }

    fn resumable(&self, join: &Join) -> Option<ParticipantId> {
        let token = join.resume?;
        self.members
            .iter()
            .find(|(_, member)| member.resume == Some(token) && member.view.fingerprint == join.fingerprint)
            .map(|(id, _)| *id)
    }

    fn set_tracks_of(&mut self, id: ParticipantId, tracks: Vec<TrackView>) {
        let past = &mut self.replays;
        let mut held_to = self.members.get_mut(&id).map(|member| &mut member.held_to);
        self.videos.retain(|track_id, video| {
            let stays = |view: &TrackView| Arc::ptr_eq(&view.track, &video.track);
            let gone = track_id.source == id && !tracks.iter().any(stays);
            if gone {
                *past += video.track.counters().replays.now();
                if let (Some(held_to), Some(limits)) = (&mut held_to, video.limits.succeed()) {
                    held_to.insert(track_id.slot, limits);
                }
            }
            !gone
        });
        for view in tracks.iter().filter(|view| view.info.kind == Kind::Video) {
            let track_id = view.track.id();
            if self.videos.contains_key(&track_id) {
                continue;
            }
            let held_to = self
                .members
                .get_mut(&id)
                .and_then(|member| member.held_to.remove(&track_id.slot));
            let mut limits = held_to.unwrap_or_default();
            for (viewer, member) in self.members.iter().filter(|(viewer, _)| **viewer != id) {
                let side = member.shows.get(&(id, track_id.slot)).copied();
                limits.report_side(*viewer, side, RoomTime::default());
            }
            // A track that was published anew under its old name starts with a new owner.
            let video = VideoTrack {
                track: view.track.clone(),
                owner: KeyframeOwner::default(),
                limits,
            };
            self.videos.insert(track_id, video);
        }
        if let Some(member) = self.members.get_mut(&id) {
            Arc::make_mut(&mut member.view).tracks = tracks;
        }
    }

    fn remove(&mut self, id: ParticipantId, reason: LeaveReason, now: RoomTime) {
        self.set_tracks_of(id, Vec::new());
        self.levels.remove(&id);
        self.apart.remove(&id);
        self.forget_viewer(id, now);
        if self.members.remove(&id).is_some() {
            if self.departed.len() == DEPARTED {
                self.departed.pop_front();
            }
            self.departed.push_back((id, reason));
            if self.speakers.contains(&id) {
                self.speakers = self.speakers.iter().copied().filter(|speaker| *speaker != id).collect();
            }
            self.changed();
        }
    }

    fn changed(&mut self) {
        self.version += 1;
        if self.effects.back() != Some(&Effect::Changed) {
            self.effects.push_back(Effect::Changed);
        }
    }

    /// The next stream id that no member has. With more than 250 members they start to be shared.
    fn free_stream(&mut self) -> u8 {
        for _ in 0..250 {
            let stream = self.next_stream;
            self.next_stream = stream % 250 + 1;
            if self.members.values().all(|member| member.view.native_stream != stream) {
                return stream;
            }
        }
        self.next_stream
    }
}

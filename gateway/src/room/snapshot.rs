//! The room as its members see it at one moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use wzp_proto::identity::Fingerprint;

use crate::media::frame::{ParticipantId, TrackId};
use crate::room::member::{Door, LeaveReason, Muted, Presence, TrackInfo};
use crate::room::track::Track;
use crate::room::uplink::UplinkStatus;

/// Everybody and everything in a room. Immutable; members that did not change are shared with the snapshot before
/// ([`Arc::ptr_eq`] tells).
#[derive(Debug, Default, Clone)]
pub struct Snapshot {
    /// +1 per change.
    pub version: u64,
    /// Members by id, the order in which they joined.
    pub members: Vec<Arc<MemberView>>,
    /// The last few who left, newest last, so that a reader that skips snapshots still learns why they did.
    pub departed: Vec<(ParticipantId, LeaveReason)>,
    /// Who talks, loudest first.
    pub speakers: Arc<[ParticipantId]>,
    /// Members of this gateway that take every source apart, as other gateways do.
    pub apart: BTreeSet<ParticipantId>,
    /// How the room stands with somebody else's relay; `None`: it has no uplink.
    pub uplink: Option<Arc<UplinkStatus>>,
}

/// One member.
#[derive(Debug, Clone)]
pub struct MemberView {
    /// Its number in the room.
    pub id: ParticipantId,
    /// Name to show.
    pub name: String,
    /// Identity.
    pub fingerprint: Fingerprint,
    /// Where it came through.
    pub door: Door,
    /// Whether its connection stands.
    pub presence: Presence,
    /// What it switched off.
    pub muted: Muted,
    /// 1–250, unique among the members present: its stream id toward natives (WZP wire v2, section 4.7).
    pub native_stream: u8,
    /// What it sends.
    pub tracks: Vec<TrackView>,
}

/// One track of a member.
#[derive(Debug, Clone)]
pub struct TrackView {
    /// What its sender says of it.
    pub info: TrackInfo,
    /// Where its frames are.
    pub track: Arc<Track>,
}

impl PartialEq for TrackView {
    /// The same track, said to be the same.
    fn eq(&self, other: &Self) -> bool {
        self.info == other.info && Arc::ptr_eq(&self.track, &other.track)
    }
}

impl MemberView {
    /// It is a member of somebody else's relay, here by our uplink.
    pub fn is_remote(&self) -> bool {
        self.door == Door::Uplink
    }
}

impl Snapshot {
    /// Members of this gateway: everybody but the members of a relay.
    pub fn local(&self) -> impl Iterator<Item = &Arc<MemberView>> {
        self.members.iter().filter(|member| !member.is_remote())
    }

    /// The member with this number.
    pub fn member(&self, id: ParticipantId) -> Option<&Arc<MemberView>> {
        self.members
            .binary_search_by_key(&id, |member| member.id)
            .ok()
            .map(|at| &self.members[at])
    }

    /// The track with this name.
    pub fn track(&self, id: TrackId) -> Option<&TrackView> {
        self.member(id.source)?.tracks.iter().find(|view| view.track.id() == id)
    }

    /// All tracks of everybody but `viewer`.
    pub fn tracks_for(&self, viewer: ParticipantId) -> impl Iterator<Item = (&Arc<MemberView>, &TrackView)> {
        self.members
            .iter()
            .filter(move |member| member.id != viewer)
            .flat_map(|member| member.tracks.iter().map(move |view| (member, view)))
    }
}

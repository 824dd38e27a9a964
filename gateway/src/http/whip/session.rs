//! One WHIP or WHEP session: a task that owns the member and its peer connection, from the answer to the end of either.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use wzp_proto::codec::Codec;
use wzp_proto::identity::Fingerprint;
use wzp_proto::room_name::RoomName;

use crate::http::whip::sdp::{self, Credentials, Fragment, Section};
use crate::http::whip::table::Place;
use crate::media::frame::{Kind, ParticipantId, TrackId};
use crate::room::member::{Control, Door, Join, JoinError, LeaveReason, Origin, TrackInfo};
use crate::room::peer::{Follow, PeerCommand, PeerContext, PeerEvent, PeerId, Peers, Refused, Sending};
use crate::room::registry::{Membership, Registry, RoomHandle};
use crate::room::snapshot::Snapshot;
use crate::room::track::Track;

/// The WebRTC worker answers an offer within this.
const OFFER_DEADLINE: Duration = Duration::from_secs(5);
/// WebRTC events that may wait.
const EVENTS: usize = 64;
/// Candidates that a session takes between two ICE restarts.
const MAX_CANDIDATES: usize = 256;
/// Requests that may wait for the session.
pub const ASKS: usize = 8;

/// Which way media goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// WHIP: to the room.
    Publisher,
    /// WHEP: from the room.
    Viewer,
}

impl Role {
    /// Its name, which is also the first part of its addresses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publisher => "whip",
            Self::Viewer => "whep",
        }
    }
}

/// Whom a viewer wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Whoever speaks.
    Speaker,
    /// The member with this number or name.
    Source(String),
}

/// What all sessions share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The rooms.
    pub registry: Registry,
    /// The WebRTC worker.
    pub peers: Peers,
    /// Bits per second of one published video track.
    pub max_video_bitrate: u32,
    /// Turns true when the gateway stops.
    pub shutdown: watch::Receiver<bool>,
}

/// A new session.
#[derive(Debug)]
pub struct Request {
    /// Which way media goes.
    pub role: Role,
    /// Where.
    pub room: RoomName,
    /// Name to show.
    pub name: String,
    /// Whom a viewer wants to see.
    pub wanted: Wanted,
    /// The offer.
    pub offer: String,
}

/// Why a session did not begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The room or the gateway is full, or stops.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Nobody of this name.
    #[error("there is nobody with the number or name {0:?} in this room")]
    NoSource(String),
    /// The engine refused the offer.
    #[error("{}", .0.message)]
    Refused(Refused),
    /// The worker did not answer.
    #[error("the server is too busy for another WebRTC session now")]
    Busy,
}

/// What a request asks of a running session.
#[derive(Debug)]
pub enum Ask {
    /// PATCH.
    Patch {
        /// What `If-Match` said.
        precondition: Precondition,
        /// The body.
        fragment: Fragment,
        /// The result.
        reply: oneshot::Sender<Result<Patched, PatchError>>,
    },
    /// DELETE; answered when the member has left.
    Delete(oneshot::Sender<()>),
}

/// The `If-Match` header (RFC 9110, section 13.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// There was none.
    Missing,
    /// `*`
    Any,
    /// Entity tags, quotes included.
    Tags(Vec<String>),
}

/// What PATCH came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Patched {
    /// Candidates were added.
    Trickled,
    /// ICE begins anew.
    Restarted {
        /// The new entity tag.
        etag: String,
        /// Our side of it.
        fragment: String,
    },
}

/// Why PATCH was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// An ICE restart without `If-Match`.
    #[error("an ICE restart needs the header `If-Match: *` (RFC 9725, section 4.3.3)")]
    PreconditionRequired,
    /// The tag is that of an ICE session that is over.
    #[error("the entity tag is not that of the present ICE session; an ICE restart needs `If-Match: *`")]
    PreconditionFailed,
    /// Over [`MAX_CANDIDATES`].
    #[error("more than {MAX_CANDIDATES} candidates in this ICE session")]
    TooManyCandidates,
    /// The engine refused it.
    #[error("{0}")]
    Refused(String),
    /// The worker did not answer.
    #[error("the server is too busy now")]
    Busy,
}

/// A session that has begun: its answer, and the task to run it.
#[derive(Debug)]
pub struct Opened {
    /// The answer.
    pub answer: String,
    /// Entity tag of the ICE session.
    pub etag: String,
    /// To be run.
    pub session: Session,
}

/// See the module's text.
#[derive(Debug)]
pub struct Session {
    shared: Shared,
    role: Role,
    membership: Membership,
    peer: Connection,
    events: mpsc::Receiver<PeerEvent>,
    follow: Follow,
    tracks: Vec<(TrackInfo, Arc<Track>)>,
    /// The offer that holds now, for ICE restarts.
    offer: String,
    remote: Vec<Credentials>,
    candidates: usize,
    etag: String,
}

/// A peer connection; dropping it closes it.
#[derive(Debug)]
struct Connection {
    id: PeerId,
    peers: Peers,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.peers.send(PeerCommand::Close { peer: self.id });
    }
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// DELETE.
    Deleted,
    /// The peer connection is gone.
    Closed(String),
    /// The room let go of the member.
    Room(LeaveReason),
    /// The one that the viewer watches has left.
    SourceLeft,
    /// The gateway stops.
    Shutdown,
}

impl Session {
    /// Enters the room and answers the offer. A future that is dropped half-way leaves nothing behind.
    ///
    /// # Errors
    /// [`OpenError`]; the member has left again then.
    pub async fn open(shared: Shared, request: Request) -> Result<Opened, OpenError> {
        let Request {
            role,
            room,
            name,
            wanted,
            offer,
        } = request;
        let join = Join {
            name,
            fingerprint: Fingerprint::of(&rand::random::<[u8; 16]>()),
            door: Door::Whip,
            resume: None,
            resumable: false,
        };
        let membership = shared.registry.join(&room, join).await?;
        if role == Role::Publisher {
            membership.set_blind().await;
        }
        let follow = match (role, wanted) {
            (Role::Publisher, _) => Follow::Nobody,
            (Role::Viewer, Wanted::Speaker) => Follow::Speaker,
            (Role::Viewer, Wanted::Source(source)) => {
                match find_source(&membership.room().snapshot(), &source, membership.id()) {
                    Some(id) => Follow::Source(id),
                    None => {
                        membership.leave(LeaveReason::Left).await;
                        return Err(OpenError::NoSource(source));
                    }
                }
            }
        };
        let (sends, mut tracks) = match role {
            Role::Publisher => published(membership.id(), &sdp::sections(&offer), membership.room()),
            Role::Viewer => (Vec::new(), Vec::new()),
        };
        let (events_in, events) = mpsc::channel(EVENTS);
        let context = PeerContext {
            viewer: membership.id(),
            epoch: membership.epoch(),
            room: membership.room().clone(),
            snapshots: membership.snapshots(),
            events: events_in,
            follow,
            max_video_bitrate: shared.max_video_bitrate,
        };
        let peer = Connection {
            id: shared.peers.new_id(),
            peers: shared.peers.clone(),
        };
        let answer = match ask_worker(&peer, Some(Box::new(context)), offer.clone(), sends).await {
            Ok(answer) => answer,
            Err(error) => {
                membership.leave(LeaveReason::Left).await;
                return Err(error);
            }
        };
        let answered = sdp::sections(&answer);
        tracks.retain_mut(|(info, _)| {
            let line = answered
                .iter()
                .find(|line| line.kind == Some(info.kind) && !line.stopped && line.receives);
            if line.is_some_and(|line| line.av1_first) {
                info.codec = Codec::Av1Main;
            }
            line.is_some()
        });
        if !tracks.is_empty() {
            membership.set_tracks(tracks.clone()).await;
        }
        let etag = new_etag();
        Ok(Opened {
            answer,
            etag: etag.clone(),
            session: Self {
                shared,
                role,
                membership,
                peer,
                events,
                follow,
                tracks,
                remote: sdp::credentials(&offer),
                offer,
                candidates: 0,
                etag,
            },
        })
    }

    /// Runs until the peer, the room, or a request ends it; `place` is given back then.
    pub async fn run(mut self, mut asks: mpsc::Receiver<Ask>, place: Place) {
        let room = self.membership.room().display();
        let (member, role) = (self.membership.id(), self.role.name());
        tracing::info!(%room, %member, role, "session begins");
        let mut deleted = None;
        let end = self.converse(&mut asks, &mut deleted).await;
        tracing::info!(%room, %member, role, ?end, "session ends");
        drop(place);
        let Self { membership, peer, .. } = self;
        drop(peer);
        match end {
            End::Deleted | End::SourceLeft => membership.leave(LeaveReason::Left).await,
            End::Closed(_) => membership.leave(LeaveReason::Lost).await,
            End::Shutdown => membership.leave(LeaveReason::Removed).await,
            End::Room(_) => drop(membership),
        }
        if let Some(reply) = deleted {
            reply.send(()).ok();
        }
    }

    async fn converse(&mut self, asks: &mut mpsc::Receiver<Ask>, deleted: &mut Option<oneshot::Sender<()>>) -> End {
        let mut snapshots = self.membership.snapshots();
        let mut shutdown = self.shared.shutdown.clone();
        let mut limits: BTreeMap<u8, u32> = BTreeMap::new();
        loop {
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(Ask::Patch { precondition, fragment, reply }) => {
                        let patched = self.patch(&precondition, fragment).await;
                        reply.send(patched).ok();
                    }
                    Some(Ask::Delete(reply)) => {
                        *deleted = Some(reply);
                        return End::Deleted;
                    }
                    None => return End::Shutdown,
                },
                event = self.events.recv() => match event {
                    Some(PeerEvent::Described { kind, slot, codec, size }) => {
                        self.described(kind, slot, |info| (info.codec, info.size) = (codec, size.or(info.size))).await;
                    }
                    Some(PeerEvent::Closed(reason)) => return End::Closed(reason),
                    Some(PeerEvent::Connected { tcp }) => {
                        tracing::debug!(member = %self.membership.id(), tcp, "media flows");
                    }
                    Some(_) => {}
                    None => return End::Closed("the WebRTC worker let go of it".to_owned()),
                },
                control = self.membership.control() => match control {
                    Some(Control::Keyframe { slot, .. }) => {
                        self.peer.tell(PeerCommand::RequestKeyframe { peer: self.peer.id, slot });
                    }
                    // RTCP has no word for a size.
                    Some(Control::Limit { slot, max_bitrate, .. })
                        if limits.insert(slot, max_bitrate).unwrap_or(u32::MAX) == max_bitrate => {}
                    Some(Control::Limit { slot, max_bitrate, .. }) => {
                        let max_bitrate = max_bitrate.min(self.shared.max_video_bitrate);
                        self.peer.tell(PeerCommand::Limit { peer: self.peer.id, slot, max_bitrate });
                    }
                    Some(Control::Ended(reason)) => return End::Room(reason),
                    None => return End::Room(LeaveReason::Removed),
                },
                changed = snapshots.changed(), if self.role == Role::Viewer => {
                    if changed.is_err() {
                        return End::Room(LeaveReason::Removed);
                    }
                    let snapshot = snapshots.borrow_and_update().clone();
                    if let Follow::Source(source) = self.follow
                        && snapshot.member(source).is_none()
                    {
                        return End::SourceLeft;
                    }
                    self.peer.tell(PeerCommand::Update { peer: self.peer.id });
                }
                () = stopping(&mut shutdown) => return End::Shutdown,
            }
        }
    }

    async fn described(&mut self, kind: Kind, slot: u8, describe: impl FnOnce(&mut TrackInfo)) {
        let found = self
            .tracks
            .iter_mut()
            .find(|(info, _)| (info.kind, info.slot) == (kind, slot));
        if let Some((info, _)) = found {
            let before = *info;
            describe(info);
            if *info != before {
                self.membership.set_tracks(self.tracks.clone()).await;
            }
        }
    }

    async fn patch(&mut self, precondition: &Precondition, fragment: Fragment) -> Result<Patched, PatchError> {
        match fragment.credentials {
            Some(new) if !self.remote.contains(&new) => match precondition {
                Precondition::Missing => Err(PatchError::PreconditionRequired),
                Precondition::Tags(_) => Err(PatchError::PreconditionFailed),
                Precondition::Any => self.restart(new, &fragment.candidates).await,
            },
            _ => {
                if let Precondition::Tags(tags) = precondition
                    && !tags.contains(&self.etag)
                {
                    return Err(PatchError::PreconditionFailed);
                }
                self.trickle(&fragment.candidates)?;
                Ok(Patched::Trickled)
            }
        }
    }

    fn trickle(&mut self, candidates: &[String]) -> Result<(), PatchError> {
        if self.candidates + candidates.len() > MAX_CANDIDATES {
            return Err(PatchError::TooManyCandidates);
        }
        self.candidates += candidates.len();
        for candidate in candidates {
            self.peer.tell(PeerCommand::Candidate {
                peer: self.peer.id,
                candidate: candidate.clone(),
            });
        }
        Ok(())
    }

    /// The engine knows offers and no fragments: it gets the last one again, under the new credentials.
    async fn restart(&mut self, new: Credentials, candidates: &[String]) -> Result<Patched, PatchError> {
        let offer = sdp::restarted(&self.offer, &new);
        let answer = ask_worker(&self.peer, None, offer.clone(), Vec::new())
            .await
            .map_err(|error| match error {
                OpenError::Refused(refused) => PatchError::Refused(refused.message),
                _ => PatchError::Busy,
            })?;
        self.offer = offer;
        self.remote = vec![new];
        self.candidates = 0;
        self.etag = new_etag();
        self.trickle(candidates)?;
        Ok(Patched::Restarted {
            etag: self.etag.clone(),
            fragment: sdp::fragment_of(&answer),
        })
    }
}

impl Connection {
    fn tell(&self, command: PeerCommand) {
        // What is lost is asked for again, or the peer's own deadline ends it.
        if !self.peers.send(command) {
            tracing::debug!(peer = self.id.0, "the WebRTC worker did not take a command");
        }
    }
}

async fn stopping(shutdown: &mut watch::Receiver<bool>) {
    shutdown.wait_for(|stop| *stop).await.ok();
}

async fn ask_worker(
    peer: &Connection,
    context: Option<Box<PeerContext>>,
    sdp: String,
    sends: Vec<Sending>,
) -> Result<String, OpenError> {
    let (reply, answer) = oneshot::channel();
    let asked = peer.peers.send(PeerCommand::Offer {
        peer: peer.id,
        context,
        sdp,
        sends,
        reply,
    });
    if !asked {
        return Err(OpenError::Busy);
    }
    match timeout(OFFER_DEADLINE, answer).await {
        Ok(Ok(Ok(answer))) => Ok(answer),
        Ok(Ok(Err(refused))) => Err(OpenError::Refused(refused)),
        _ => Err(OpenError::Busy),
    }
}

/// The first sound is the microphone and the first picture the camera; more than one of each is not published.
fn published(
    source: ParticipantId,
    offered: &[Section],
    room: &RoomHandle,
) -> (Vec<Sending>, Vec<(TrackInfo, Arc<Track>)>) {
    let kinds = [
        (Kind::Audio, Origin::Microphone, Codec::Opus24k),
        (Kind::Video, Origin::Camera, Codec::H264Baseline),
    ];
    kinds
        .into_iter()
        .filter(|(kind, ..)| offered.iter().any(|line| line.kind == Some(*kind) && line.sends))
        .map(|(kind, origin, codec)| {
            let id = TrackId {
                source,
                kind,
                slot: 0,
                layer: 0,
            };
            let (track, writer) = Track::create(id, room.bounds(kind), 0);
            let sending = Sending {
                mid: None,
                kind,
                slot: 0,
                writer,
            };
            let info = TrackInfo {
                kind,
                slot: 0,
                layer: 0,
                origin,
                codec,
                size: None,
            };
            (sending, (info, track))
        })
        .unzip()
}

/// By number, else by name; among several of a name the first who sends something.
fn find_source(snapshot: &Snapshot, wanted: &str, viewer: ParticipantId) -> Option<ParticipantId> {
    let by_id = wanted
        .parse()
        .ok()
        .map(ParticipantId)
        .filter(|id| snapshot.member(*id).is_some());
    let named = || snapshot.members.iter().filter(|member| member.name == wanted);
    by_id
        .or_else(|| named().find(|member| !member.tracks.is_empty()).map(|member| member.id))
        .or_else(|| named().map(|member| member.id).next())
        .filter(|id| *id != viewer)
}

/// A strong entity tag that no other ICE session has had.
fn new_etag() -> String {
    format!("\"{:016x}\"", rand::random::<u64>())
}

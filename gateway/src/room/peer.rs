//! What a member's session and the worker that carries RTP for it say to one another. Neither knows the other's types.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot, watch};
use wzp_proto::codec::Codec;
use wzp_proto::video::FrameSize;

use crate::media::frame::{Kind, ParticipantId, TrackId};
use crate::room::registry::RoomHandle;
use crate::room::snapshot::Snapshot;
use crate::room::track::TrackWriter;

/// Commands that may wait for the worker.
const COMMANDS: usize = 4096;

/// One peer connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// What a peer receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Every source, each on m-lines of its own.
    Everyone,
    /// One source at a time: the one that speaks.
    Speaker,
    /// This source.
    Source(ParticipantId),
    /// Nothing: it only publishes.
    Nobody,
}

/// What the worker has to know of a new peer.
#[derive(Debug)]
pub struct PeerContext {
    /// The member that it belongs to.
    pub viewer: ParticipantId,
    /// Which connection of the member, see [`crate::room::registry::Membership::epoch`].
    pub epoch: u64,
    /// Its room.
    pub room: RoomHandle,
    /// The room's snapshots.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Where the worker tells what happens.
    pub events: mpsc::Sender<PeerEvent>,
    /// What it receives.
    pub follow: Follow,
    /// Bits per second of one published video track.
    pub max_video_bitrate: u32,
}

/// A track that the peer is going to send.
#[derive(Debug)]
pub struct Sending {
    /// Its m-line; `None`: the first of its kind that is not named by another.
    pub mid: Option<String>,
    /// Sound or picture.
    pub kind: Kind,
    /// See [`TrackId::slot`].
    pub slot: u8,
    /// Where its frames go.
    pub writer: TrackWriter,
}

/// Why an offer was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// No codec in common, as against an offer that is wrong.
    pub no_codec: bool,
    /// The offer is good, and the worker full or broken.
    pub unable: bool,
    /// A sentence.
    pub message: String,
}

/// To the worker.
#[derive(Debug)]
pub enum PeerCommand {
    /// An offer, the first or a later one.
    Offer {
        /// Whose.
        peer: PeerId,
        /// With the first.
        context: Option<Box<PeerContext>>,
        /// The session description.
        sdp: String,
        /// Tracks that are sent from now on and were not before.
        sends: Vec<Sending>,
        /// The answer.
        reply: oneshot::Sender<Result<String, Refused>>,
    },
    /// Tracks whose frames come over RTP from now on.
    Send {
        /// From whom.
        peer: PeerId,
        /// Which.
        sends: Vec<Sending>,
    },
    /// A trickled candidate.
    Candidate {
        /// Whose.
        peer: PeerId,
        /// The `candidate:` line.
        candidate: String,
    },
    /// Media is wanted, or not any more.
    Receive {
        /// By whom.
        peer: PeerId,
        /// From now on.
        on: bool,
    },
    /// The complete list of tracks that are not wanted now.
    Pause {
        /// By whom.
        peer: PeerId,
        /// Source, kind, slot.
        tracks: Vec<(ParticipantId, Kind, u8)>,
    },
    /// Tracks of [`PeerEvent::Waiting`] are sent at once: the member does not see them otherwise.
    Begin {
        /// To whom.
        peer: PeerId,
        /// Which.
        tracks: Vec<TrackId>,
    },
    /// The peer's source is asked for a keyframe.
    RequestKeyframe {
        /// Of whom.
        peer: PeerId,
        /// On which slot.
        slot: u8,
    },
    /// The peer sends more than it may, and only RTCP can tell it so.
    Limit {
        /// Who.
        peer: PeerId,
        /// On which video slot.
        slot: u8,
        /// Bits per second.
        max_bitrate: u32,
    },
    /// The room has changed.
    Update {
        /// For whom.
        peer: PeerId,
    },
    /// The session is over.
    Close {
        /// Whose.
        peer: PeerId,
    },
}

/// From the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent {
    /// Media flows.
    Connected {
        /// Over TCP, as against UDP.
        tcp: bool,
    },
    /// What the receiving m-lines carry from now on.
    Mids(Vec<(String, Kind, Option<TrackId>)>),
    /// More receiving m-lines are needed: so many in all.
    Need {
        /// For sound.
        audio: usize,
        /// For pictures.
        video: usize,
    },
    /// These tracks reach the member over RTP; all others do not.
    Carried(Vec<TrackId>),
    /// These will, from their source's next keyframe on: until then the session goes on to send them. The replay would be long
    /// to decode, and the member is taken to have had it from the session.
    Waiting(Vec<TrackId>),
    /// What a published track turned out to be.
    Described {
        /// Sound or picture.
        kind: Kind,
        /// Which.
        slot: u8,
        /// Its codec.
        codec: Codec,
        /// Its size.
        size: Option<FrameSize>,
    },
    /// A track is not sent for now, because the path is too slow for it; or is sent again.
    Bandwidth {
        /// Which.
        track: TrackId,
        /// Paused, as against resumed.
        paused: bool,
    },
    /// The peer connection has ended; the tracks that it published with it.
    Closed(String),
}

/// The way to the worker.
#[derive(Debug, Clone)]
pub struct Peers {
    commands: mpsc::Sender<PeerCommand>,
    next: Arc<AtomicU64>,
}

impl Peers {
    /// The way, and the end of it that the worker reads.
    pub fn channel() -> (Self, mpsc::Receiver<PeerCommand>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        (
            Self {
                commands,
                next: Arc::new(AtomicU64::new(1)),
            },
            receiver,
        )
    }

    /// A number for a new peer.
    pub fn new_id(&self) -> PeerId {
        PeerId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Tells the worker something that it must not miss. `false`: it is overloaded or gone.
    pub fn send(&self, command: PeerCommand) -> bool {
        match self.commands.try_send(command) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(command)) => {
                tracing::warn!(?command, "the WebRTC worker is overloaded");
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

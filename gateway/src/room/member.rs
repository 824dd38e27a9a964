//! What a room knows of a member, and what it may tell one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wzp_proto::codec::Codec;
use wzp_proto::identity::Fingerprint;
use wzp_proto::video::FrameSize;

use crate::media::frame::{Kind, ParticipantId};

/// The transport family that a member came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Door {
    /// A WZP app over QUIC.
    Native,
    /// A browser, media over WebSocket.
    Websocket,
    /// A browser, media over WebRTC.
    Webrtc,
    /// A publisher or viewer over WHIP or WHEP.
    Whip,
    /// An RTMP tool.
    Rtmp,
    /// A member of somebody else's relay.
    Uplink,
}

/// Where a track's picture or sound comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A microphone, or whatever stands for one.
    Microphone,
    /// A camera, or whatever stands for one.
    Camera,
    /// A screen or window.
    Screen,
}

/// What a member switched off, as others should show it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Muted {
    /// The microphone is off.
    pub audio: bool,
    /// The camera is off.
    pub video: bool,
}

/// Whether a member is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Its connection stands.
    Connected,
    /// Its connection was lost; it may come back within the grace time.
    Reconnecting,
}

/// Why a member is no longer there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaveReason {
    /// It said goodbye.
    Left,
    /// Its connection was lost and it did not come back.
    Lost,
    /// The same identity joined again.
    Replaced,
    /// It was put out.
    Removed,
}

/// What a member says of a track that it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackInfo {
    /// Sound or picture.
    pub kind: Kind,
    /// See [`crate::media::frame::TrackId::slot`].
    pub slot: u8,
    /// See [`crate::media::frame::TrackId::layer`].
    pub layer: u8,
    /// Microphone, camera or screen.
    pub origin: Origin,
    /// Codec of its newest frames.
    pub codec: Codec,
    /// Picture size, if known.
    pub size: Option<FrameSize>,
}

/// What a room tells a single member. Delivered in order through a bounded queue; a member that does not read loses the
/// oldest-first guarantee of nothing but these hints (a lost keyframe request is repeated by the keyframe owner).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Make the next frame of this video slot a keyframe.
    Keyframe {
        /// The slot.
        slot: u8,
        /// The layer.
        layer: u8,
    },
    /// Send no more than this on a video slot.
    Limit {
        /// The slot.
        slot: u8,
        /// Bits per second.
        max_bitrate: u32,
        /// Of the picture's shorter side, px.
        max_side: Option<u16>,
        /// Why.
        reason: LimitReason,
    },
    /// The member is no longer in the room.
    Ended(LeaveReason),
}

/// Of which video tracks, by source and slot, a viewer needs no more than so many px on the shorter side (0: nothing now). It
/// has no bound on all others.
pub type View = BTreeMap<(ParticipantId, u8), u16>;

/// Why a publisher is asked to send less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitReason {
    /// None of the viewers can take more.
    Viewers,
    /// A frame was larger than natives can take.
    FrameTooLarge,
    /// A limit of the configuration.
    Server,
}

/// A request to enter a room.
#[derive(Debug, Clone)]
pub struct Join {
    /// Name to show, already bounded by the door.
    pub name: String,
    /// Identity.
    pub fingerprint: Fingerprint,
    /// Where it came through.
    pub door: Door,
    /// What it was known by when its connection was lost, to go on as the same participant.
    pub resume: Option<ResumeToken>,
    /// Whether a lost connection leaves it in the room for the grace time.
    pub resumable: bool,
}

/// Proves that a connection continues a lost one. 128 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResumeToken(pub u128);

/// Why a join was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The room has as many members as it may.
    #[error("the room is full: {members} are in it already")]
    RoomFull {
        /// How many are in it.
        members: usize,
    },
    /// The gateway has as many rooms as it may.
    #[error("this server has no place for another room now; try again later")]
    ServerFull,
    /// The room's task is gone; only while the gateway stops.
    #[error("the gateway is stopping")]
    Stopping,
}

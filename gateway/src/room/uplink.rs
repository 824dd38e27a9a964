//! How a room stands with the relay that its uplink joins, as members see it.

use serde::Serialize;

/// A room's leg into a room on somebody else's relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UplinkStatus {
    /// The relay as the operator wrote it.
    pub relay: String,
    /// Where things stand.
    pub state: UplinkState,
    /// The same for people, with the cause if something is wrong.
    pub message: String,
}

/// Where an uplink stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UplinkState {
    /// It dials for the first time.
    Connecting,
    /// It is in the relay's room.
    Connected,
    /// The relay does not answer, or the connection broke; it is dialled again and again.
    Away,
    /// The relay answers and refuses; it is asked again, ever more seldom.
    Refused,
    /// The connection stands, but nothing comes over it; another one is tried beside it.
    Stalled,
    /// It is in the relay's room, but what comes from there cannot be played.
    Unreadable,
}

impl UplinkState {
    /// As it stands in messages and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Away => "away",
            Self::Refused => "refused",
            Self::Stalled => "stalled",
            Self::Unreadable => "unreadable",
        }
    }
}

//! Room names and the reserved server names (WZP wire v2, section 1.3).
//!
//! Natives dial the raw name, which TLS folds to lower case, or its hash form; browsers type what they like. All of
//! them meet in one room because a room is keyed by the hash of the folded name.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::identity::sha256_16;

/// What identifies a room: the first 16 bytes of SHA-256 over `featherchat-group:` and the folded name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomKey(pub [u8; 16]);

impl RoomKey {
    /// The hash form of exactly this text, neither folded nor checked; what a client that hashes names dials.
    pub fn hash_of(text: &str) -> Self {
        Self(sha256_16(&[b"featherchat-group:", text.as_bytes()]))
    }

    fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|n| Self(n.to_be_bytes()))
    }
}

impl fmt::Display for RoomKey {
    /// 32 lower-case hex digits: the hash form, as a client would dial it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for RoomKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoomKey({self})")
    }
}

/// A name that may be the name of a room. Two names are equal when they mean the same room.
#[derive(Clone, Debug)]
pub struct RoomName {
    key: RoomKey,
    display: Option<Box<str>>,
}

impl RoomName {
    /// Longest name, in characters.
    pub const MAX_CHARS: usize = 64;

    /// Checks and folds a name: outer white space is dropped, case does not matter. A name of 32 hex digits is the hash
    /// form of a name that is not known.
    pub fn parse(name: &str) -> Result<Self, RoomNameError> {
        let trimmed = name.trim();
        if trimmed.is_empty() {
            return Err(RoomNameError::Empty);
        }
        if trimmed.chars().count() > Self::MAX_CHARS {
            return Err(RoomNameError::TooLong);
        }
        if let Some(bad) = trimmed.chars().find(|c| c.is_control() || matches!(c, '/' | '?' | '#')) {
            return Err(RoomNameError::Character(bad));
        }
        let folded = trimmed.to_lowercase();
        if reserved::is_reserved(&folded) {
            return Err(RoomNameError::Reserved(folded));
        }
        Ok(match RoomKey::from_hex(&folded) {
            Some(key) => Self { key, display: None },
            None => Self {
                key: RoomKey::hash_of(&folded),
                display: Some(trimmed.into()),
            },
        })
    }

    /// The key of the room.
    pub fn key(&self) -> RoomKey {
        self.key
    }

    /// The name as it was written, trimmed; `None` for a hash form.
    pub fn display(&self) -> Option<&str> {
        self.display.as_deref()
    }
}

impl fmt::Display for RoomName {
    /// The name as written, or the hash form's 32 hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.display {
            Some(name) => f.write_str(name),
            None => self.key.fmt(f),
        }
    }
}

impl PartialEq for RoomName {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for RoomName {}

impl Hash for RoomName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl std::str::FromStr for RoomName {
    type Err = RoomNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::parse(name)
    }
}

/// Why a text cannot be a room name; the message is fit for the person who typed it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoomNameError {
    /// Nothing but white space.
    #[error("the room name is empty; type at least one character")]
    Empty,
    /// More than 64 characters.
    #[error("the room name is too long; use at most 64 characters")]
    TooLong,
    /// A control character, `/`, `?` or `#`.
    #[error("the room name contains {0:?}, which cannot be part of a link; choose a name without it")]
    Character(char),
    /// A name with another meaning.
    #[error("the name {0:?} has a special meaning and cannot be a room; choose another name")]
    Reserved(String),
}

/// Names that are not rooms.
pub mod reserved {
    use super::{RoomName, RoomNameError};

    /// The room of a client that sends no server name.
    pub const DEFAULT_ROOM: &str = "default";

    /// `ping` and `version` are answered by the protocol itself, the others are paths of the web server.
    const EXACT: [&str; 10] = [
        "ping", "version", "ws", "whip", "whep", "api", "assets", "metrics", "health", "healthz",
    ];
    /// `_`: connections with another purpose (`_signal`, `_federation`, …). `call-`: media of direct calls.
    const PREFIXES: [&str; 2] = ["_", "call-"];

    pub(super) fn is_reserved(folded: &str) -> bool {
        EXACT.contains(&folded) || PREFIXES.iter().any(|prefix| folded.starts_with(prefix))
    }

    /// What a TLS server name asks for.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Sni {
        /// Join this room.
        Room(RoomName),
        /// Measure the round trip; the connection is closed at once.
        Ping,
        /// Report the build version on a one-way stream.
        Version,
        /// Nothing this server offers.
        Refused {
            /// The server name as it came.
            name: String,
            /// Why not, in a sentence.
            reason: RoomNameError,
        },
    }

    impl Sni {
        /// Sorts a server name; an absent one means the room `default`.
        pub fn classify(sni: Option<&str>) -> Self {
            let name = sni.unwrap_or(DEFAULT_ROOM);
            match name.to_ascii_lowercase().as_str() {
                "ping" => Self::Ping,
                "version" => Self::Version,
                _ => match RoomName::parse(name) {
                    Ok(room) => Self::Room(room),
                    Err(reason) => Self::Refused {
                        name: name.to_owned(),
                        reason,
                    },
                },
            }
        }
    }
}

//! What one listener hears: a talker's own packets, or a mix.

use crate::media::audio::mix::TALKING_LEVEL;
use crate::media::frame::{ParticipantId, RoomTime};

/// When all but one of a listener's talkers have fallen silent, his mix goes on until that one pauses, so that nobody hears
/// the change back to his packets; but not longer than this, µs.
const LINGER: u64 = 4_000_000;

/// What a listener hears now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hears {
    /// The packets of whoever talked last; nobody's at first.
    Through(Option<ParticipantId>),
    /// A mix.
    Mix {
        /// Which; `None` for one who has just come to it.
        place: Option<Place>,
        /// Since when only one is left in it.
        alone_since: Option<RoomTime>,
    },
}

/// The mixes of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Of all talkers, for those who do not talk.
    Shared,
    /// The same, for those in whose ears one talker is late.
    Late,
    /// Without this listener's own voice.
    Own,
}

impl Default for Hears {
    fn default() -> Self {
        Self::Through(None)
    }
}

impl Hears {
    /// What he hears next, when these others talk. A mix begins with the second of them and does not end in a word: who hears
    /// one talker's packets keeps them as long as there is no other, whatever the rest of the room hears.
    pub(super) fn next(
        self,
        mut others: impl Iterator<Item = ParticipantId>,
        level: impl Fn(ParticipantId) -> u8,
        now: RoomTime,
    ) -> Self {
        let (Some(first), second) = (others.next(), others.next()) else {
            return match self {
                Self::Through(_) => self,
                Self::Mix { .. } => Self::default(),
            };
        };
        match self {
            Self::Through(_) if second.is_none() => Self::Through(Some(first)),
            Self::Through(_) => Self::Mix {
                place: None,
                alone_since: None,
            },
            Self::Mix { place, .. } if second.is_some() => Self::Mix {
                place,
                alone_since: None,
            },
            Self::Mix { place, alone_since } => {
                let since = alone_since.unwrap_or(now);
                if level(first) <= TALKING_LEVEL && now.since(since) < LINGER {
                    Self::Mix {
                        place,
                        alone_since: Some(since),
                    }
                } else {
                    Self::Through(Some(first))
                }
            }
        }
    }

    /// The mix he takes, if he takes one.
    pub(super) fn place(self) -> Option<Place> {
        match self {
            Self::Through(_) => None,
            Self::Mix { place, .. } => place,
        }
    }
}

//! The uplink: our legs into rooms on somebody else's relay.
//!
//! In: the rooms of the registry. As soon as a room has a member of this gateway, and for as long as it has one, a [`leg`] is
//! in the relay's room of the same name, like one more app. Up goes what an app could play of our own members: one sound, one
//! picture ([`crate::native::view`]). Down comes what the relay forwards of everybody there, on one connection: [`separate`]
//! tells the senders apart, [`roster`] who they are, and [`sources`] makes each a member of our room. What came down never
//! goes up.

pub mod alias;
pub mod backoff;
pub mod counters;
mod echo;
mod leg;
pub mod legible;
mod presence;
pub mod roster;
pub mod separate;
pub mod sources;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::uplink::UplinkRule;
use crate::native::client::Patience;
use crate::room::registry::{Registry, RoomHandle};
use crate::uplink::alias::Renaming;
use crate::uplink::counters::Counters;

/// Which relays are joined, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// The rules; the first one that is for a room holds.
    pub rules: Vec<UplinkRule>,
    /// How seldom legs change their name.
    pub renaming: Renaming,
    /// How patiently relays are dialled.
    pub patience: Patience,
    /// A connection over which nothing comes for this long is doubted.
    pub silence: Duration,
    /// Members of a relay that is away are shown for this long.
    pub linger: Duration,
    /// Most members of a relay in one room, so that there is place for our own.
    pub remote: usize,
    /// What the legs do.
    pub counters: Arc<Counters>,
}

impl Config {
    /// These rules, with the usual times.
    pub fn new(rules: Vec<UplinkRule>) -> Self {
        Self {
            counters: Arc::new(Counters::new(&rules)),
            rules,
            renaming: Renaming::default(),
            patience: Patience {
                // A relay that is there answers within a round trip; one that comes back is found sooner by a new attempt
                // than by an old one, whose packets come ever more seldom.
                dial: Duration::from_millis(2_500),
                answer: Duration::from_secs(10),
                keep_alive: Some(Duration::from_millis(800)),
            },
            silence: Duration::from_millis(2_200),
            linger: Duration::from_secs(10),
            remote: 50,
        }
    }
}

/// What all legs share.
#[derive(Debug)]
struct Shared {
    config: Config,
    registry: Registry,
}

/// Runs the legs of all rooms until `shutdown` turns true; then they leave.
pub async fn run(config: Config, registry: Registry, mut shutdown: watch::Receiver<bool>) {
    let shared = Arc::new(Shared {
        config,
        registry: registry.clone(),
    });
    let mut begun = registry.begun();
    // The rooms that have been dealt with, by a leg or by finding that no rule is for them.
    let mut known: Vec<RoomHandle> = Vec::new();
    let mut legs = JoinSet::new();
    while !*shutdown.borrow() {
        begun.borrow_and_update();
        let rooms: Vec<_> = registry.rooms().into_values().collect();
        known.retain(|room| rooms.iter().any(|running| running.is(room)));
        for room in rooms {
            if !known.iter().any(|known| known.is(&room)) {
                known.push(room.clone());
                legs.spawn(leg::run(room, shared.clone(), shutdown.clone()));
            }
        }
        tokio::select! {
            changed = begun.changed() => if changed.is_err() { break },
            changed = shutdown.changed() => if changed.is_err() { break },
            Some(ended) = legs.join_next(), if !legs.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "an uplink broke down");
                }
            }
        }
    }
    while legs.join_next().await.is_some() {}
}

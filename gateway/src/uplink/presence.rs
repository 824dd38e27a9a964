//! Silent legs, one for each of our members, for relays where people look at the list to see who is there.
//!
//! Such a leg joins as an app would, under the member's own name, sends nothing, and lets go what it gets. The media of all
//! goes over the room's one leg as ever.

use std::collections::BTreeMap;

use tokio::sync::oneshot;
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, sleep};
use wzp_proto::identity::Identity;

use super::backoff::{Backoff, STEADY};
use super::leg::{DialledName, Target};
use crate::media::frame::ParticipantId;
use crate::native::client::Event;
use crate::native::transport::close;

/// The silent legs of one room.
#[derive(Debug, Default)]
pub(super) struct Presence {
    shown: BTreeMap<ParticipantId, Shown>,
    legs: JoinSet<()>,
    /// Whose fingerprint each leg has, those that say goodbye included: until then the relay's list has them.
    fingerprints: BTreeMap<task::Id, String>,
}

#[derive(Debug)]
struct Shown {
    name: String,
    room: DialledName,
    /// The leg leaves when this is gone.
    _stays: oneshot::Sender<()>,
}

impl Presence {
    /// Shows these members, and nobody else, in the room `room`.
    pub(super) fn follow(&mut self, target: &Target, room: &DialledName, members: &BTreeMap<ParticipantId, String>) {
        while let Some(ended) = self.legs.try_join_next_with_id() {
            self.ended(ended);
        }
        self.shown
            .retain(|id, shown| shown.room == *room && members.get(id) == Some(&shown.name));
        for (id, name) in members {
            if self.shown.contains_key(id) {
                continue;
            }
            let identity = Identity::from_seed(&rand::random());
            let fingerprint = identity.fingerprint().to_string();
            let (stays, left) = oneshot::channel();
            let target = target.as_somebody_else(identity);
            let leg = self.legs.spawn(stand(target, room.clone(), name.clone(), left));
            self.fingerprints.insert(leg.id(), fingerprint);
            let shown = Shown {
                name: name.clone(),
                room: room.clone(),
                _stays: stays,
            };
            self.shown.insert(*id, shown);
        }
    }

    /// The fingerprints of all that may be in the relay's list.
    pub(super) fn fingerprints(&self) -> Vec<String> {
        self.fingerprints.values().cloned().collect()
    }

    fn ended(&mut self, ended: Result<(task::Id, ()), task::JoinError>) {
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        self.fingerprints.remove(&id);
    }

    /// Nobody is shown any more. Returns when all have said goodbye, which takes each a second at most.
    pub(super) async fn leave(&mut self) {
        self.shown.clear();
        while let Some(ended) = self.legs.join_next_with_id().await {
            self.ended(ended);
        }
    }
}

/// Is in the room until `left`.
async fn stand(target: Target, room: DialledName, name: String, mut left: oneshot::Receiver<()>) {
    let mut backoff = Backoff::default();
    for attempt in 0.. {
        let joining = target.clone().dial(room.clone(), name.clone(), attempt);
        let joined = tokio::select! {
            joined = joining => joined,
            _ = &mut left => return,
        };
        match joined {
            Ok(mut joined) => {
                let since = Instant::now();
                let lost = async { while !matches!(joined.next().await, Event::Closed(_)) {} };
                tokio::select! {
                    () = lost => {}
                    _ = &mut left => return joined.client.close(close::NORMAL, "normal close").await,
                }
                if since.elapsed() >= STEADY {
                    backoff.reset();
                }
            }
            Err(trouble) => tracing::debug!(name, trouble.message, "a member is not shown on the relay"),
        }
        tokio::select! {
            () = sleep(backoff.wait(rand::random())) => {}
            _ = &mut left => return,
        }
    }
}

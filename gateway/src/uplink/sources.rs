//! The relay's members in our room: each a member with tracks of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use wzp_proto::identity::Fingerprint;
use wzp_proto::packet::MediaPacket;
use wzp_proto::room_name::RoomName;

use crate::media::frame::{Kind, RoomTime};
use crate::native::counters::Counters;
use crate::native::ingress::Ingress;
use crate::native::rate::Rates;
use crate::room::keyframes::Reason;
use crate::room::member::{Control, Door, Join, LeaveReason};
use crate::room::registry::{Membership, Registry};
use crate::uplink::roster::{Owner, Roster};

/// The relay's members, as far as they are in our room.
#[derive(Debug)]
pub struct Sources {
    registry: Registry,
    room: RoomName,
    relay: String,
    counters: Arc<Counters>,
    sources: BTreeMap<Owner, Source>,
    /// Put out of our room: not let in again.
    barred: BTreeSet<Owner>,
}

#[derive(Debug)]
struct Source {
    membership: Membership,
    ingress: Ingress,
    name: String,
}

impl Sources {
    /// Nobody yet. `relay` tells nameless members of different relays apart.
    pub fn new(registry: Registry, room: RoomName, relay: String, counters: Arc<Counters>) -> Self {
        Self {
            registry,
            room,
            relay,
            counters,
            sources: BTreeMap::new(),
            barred: BTreeSet::new(),
        }
    }

    /// Nobody is there.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// The memberships, in whose name what they can take is told.
    pub fn memberships(&self) -> impl Iterator<Item = &Membership> {
        self.sources.values().map(|source| &source.membership)
    }

    /// Makes our room's list agree with the relay's.
    pub async fn follow(&mut self, roster: &Roster, now: RoomTime) {
        let members = roster
            .members()
            .map(|(key, name)| (Owner::Member(key.clone()), name.to_owned()));
        let unnamed = roster
            .unnamed()
            .into_iter()
            .map(|(number, name)| (Owner::Unnamed(number), name));
        let wanted: BTreeMap<_, _> = members.chain(unnamed).collect();
        let gone: Vec<_> = (self.sources.keys())
            .filter(|owner| !wanted.contains_key(*owner))
            .cloned()
            .collect();
        self.barred.retain(|owner| wanted.contains_key(owner));
        for owner in gone {
            if let Some(source) = self.sources.remove(&owner) {
                source.membership.leave(LeaveReason::Left).await;
            }
        }
        for (owner, name) in wanted {
            match self.sources.get_mut(&owner) {
                Some(source) => {
                    if source.name != name {
                        source.membership.set_name(name.clone()).await;
                        source.name = name;
                    }
                    let mut ended = false;
                    for kind in [Kind::Audio, Kind::Video] {
                        ended |= !roster.sends(&owner, kind) && source.ingress.end(kind, rand::random());
                    }
                    if ended {
                        source.publish().await;
                    }
                }
                None => self.admit(owner, name, now).await,
            }
        }
    }

    async fn admit(&mut self, owner: Owner, name: String, now: RoomTime) {
        if self.barred.contains(&owner) {
            return;
        }
        let join = Join {
            name: name.clone(),
            fingerprint: self.fingerprint(&owner),
            door: Door::Uplink,
            resume: None,
            resumable: false,
        };
        match self.registry.join(&self.room, join).await {
            Ok(membership) => {
                // The leg as a whole is metered, by what QUIC takes from the relay.
                let ingress = Ingress::new(
                    membership.id(),
                    Rates::default(),
                    rand::random(),
                    self.counters.clone(),
                    now,
                );
                let source = Source {
                    membership,
                    ingress,
                    name,
                };
                self.sources.insert(owner, source);
            }
            // Tried again when the relay's list changes: somebody may have left by then.
            Err(error) => {
                tracing::debug!(room = %self.room, relay = self.relay, name, %error, "a member of the relay finds no place");
            }
        }
    }

    /// What the relay says, if it says anything; otherwise something that stays the same.
    fn fingerprint(&self, owner: &Owner) -> Fingerprint {
        let said = match owner {
            Owner::Member(key) if key.nth == 0 => key.fingerprint.parse().ok(),
            _ => None,
        };
        said.unwrap_or_else(|| Fingerprint::of(format!("{} {owner:?}", self.relay).as_bytes()))
    }

    /// Takes a packet of somebody.
    pub async fn packet(&mut self, owner: &Owner, packet: MediaPacket, now: RoomTime) {
        if let Some(source) = self.sources.get_mut(owner) {
            source.ingress.packet(packet, now);
            source.settle(now).await;
        }
    }

    /// When [`Sources::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<RoomTime> {
        self.sources
            .values()
            .filter_map(|source| source.ingress.poll_timeout())
            .min()
    }

    /// Does what is due at `now`.
    pub async fn handle_timeout(&mut self, now: RoomTime) {
        for source in self.sources.values_mut() {
            if source.ingress.poll_timeout().is_some_and(|at| at <= now) {
                source.ingress.handle_timeout(now);
                source.settle(now).await;
            }
        }
    }

    /// The next that our room asks of somebody: a keyframe. Never comes back if it asks nothing. Can be cancelled.
    pub async fn keyframe_wanted(&mut self) -> Owner {
        poll_fn(|context| {
            let mut over = Vec::new();
            let mut wanted = None;
            for (owner, source) in &mut self.sources {
                match source.membership.poll_control(context) {
                    Poll::Ready(Some(Control::Keyframe { .. })) => {
                        wanted = Some(owner.clone());
                        break;
                    }
                    // A relay cannot be told a bit rate; what else may wait is looked at next time.
                    Poll::Ready(Some(Control::Limit { .. })) => {
                        self.counters.limits_ignored.one();
                        context.waker().wake_by_ref();
                    }
                    Poll::Ready(Some(Control::Ended(_)) | None) => over.push(owner.clone()),
                    Poll::Pending => {}
                }
            }
            for owner in over {
                self.sources.remove(&owner);
                self.barred.insert(owner);
            }
            wanted.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The connection is gone: those without a name go, the others stay for now, without media.
    pub async fn disconnected(&mut self) {
        let unnamed: Vec<_> = (self.sources.keys())
            .filter(|owner| matches!(owner, Owner::Unnamed(_)))
            .cloned()
            .collect();
        for owner in unnamed {
            if let Some(source) = self.sources.remove(&owner) {
                source.membership.leave(LeaveReason::Lost).await;
            }
        }
        for source in self.sources.values_mut() {
            let ended = [Kind::Audio, Kind::Video].map(|kind| source.ingress.end(kind, rand::random()));
            if ended.contains(&true) {
                source.publish().await;
            }
        }
    }

    /// Everybody leaves.
    pub async fn leave(&mut self, reason: LeaveReason) {
        while let Some((_, source)) = self.sources.pop_first() {
            source.membership.leave(reason).await;
        }
        self.barred.clear();
    }
}

impl Source {
    /// Tells the room what has changed.
    async fn settle(&mut self, now: RoomTime) {
        self.publish().await;
        if let Some(track) = self.ingress.take_keyframe_wish(now) {
            self.membership.room().request_keyframe(track, now, Reason::Loss);
        }
    }

    async fn publish(&mut self) {
        if let Some(tracks) = self.ingress.take_tracks() {
            self.membership.set_tracks(tracks).await;
        }
    }
}

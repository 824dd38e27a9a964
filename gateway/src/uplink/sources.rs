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

/// Streams without a name that are somebody here: what a bad path, or a bad relay, makes up must not fill the room.
const MOST_UNNAMED: usize = 8;

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
    /// Most at once.
    most: usize,
}

#[derive(Debug)]
struct Source {
    membership: Membership,
    ingress: Ingress,
    name: String,
}

impl Sources {
    /// Nobody yet, and never more than `most`. `relay` tells nameless members of different relays apart.
    pub fn new(registry: Registry, room: RoomName, relay: String, counters: Arc<Counters>, most: usize) -> Self {
        Self {
            registry,
            room,
            relay,
            counters,
            sources: BTreeMap::new(),
            barred: BTreeSet::new(),
            most,
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

    /// Makes our room's list agree with the relay's. Who is new comes in the relay's order, that of joining.
    pub async fn follow(&mut self, roster: &Roster, now: RoomTime) {
        let members = roster
            .members()
            .map(|(key, name)| (Owner::Member(key.clone()), name.to_owned()));
        let unnamed = roster
            .unnamed()
            .into_iter()
            .map(|(number, name)| (Owner::Unnamed(number), name));
        let wanted: Vec<_> = members.chain(unnamed).collect();
        let owners: BTreeSet<_> = wanted.iter().map(|(owner, _)| owner).collect();
        let gone: Vec<_> = (self.sources.keys())
            .filter(|owner| !owners.contains(owner))
            .cloned()
            .collect();
        self.barred.retain(|owner| owners.contains(owner));
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
        let unnamed = self.sources.keys().filter(|owner| matches!(owner, Owner::Unnamed(_)));
        let crowded = matches!(owner, Owner::Unnamed(_)) && unnamed.count() >= MOST_UNNAMED;
        if crowded || self.sources.len() >= self.most || self.barred.contains(&owner) {
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
                )
                .with_video_bounds(membership.room().bounds(Kind::Video))
                // Relays pass on no requests for packets.
                .without_requests();
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

    /// Takes a packet of somebody; false if that one has no place here.
    pub async fn packet(&mut self, owner: &Owner, packet: MediaPacket, now: RoomTime) -> bool {
        let Some(source) = self.sources.get_mut(owner) else {
            return false;
        };
        source.ingress.packet(packet, now);
        source.settle(now).await;
        true
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

#[cfg(test)]
mod tests {
    use wzp_proto::codec::Codec;
    use wzp_proto::header::{Flags, MediaHeader, MediaType};
    use wzp_proto::signal::RoomParticipant;

    use super::*;
    use crate::room::registry::RoomLimits;
    use crate::room::track::Bounds;
    use crate::uplink::separate::StreamId;

    const REPLAY: Bounds = Bounds {
        hard_age: 3_000_000,
        ..Bounds::VIDEO
    };

    fn header(media_type: MediaType, seq: u32) -> MediaHeader {
        MediaHeader {
            flags: Flags::empty(),
            media_type,
            codec: match media_type {
                MediaType::Video => Codec::H264Baseline,
                _ => Codec::Opus24k,
            },
            stream_id: 0,
            fec_ratio: 0,
            seq,
            timestamp: seq * 20,
            fec_block: 0,
        }
    }

    /// Sources, at most `most`, and their registry.
    fn sources(most: usize) -> (Registry, Sources) {
        let registry = Registry::with_replay(RoomLimits { rooms: 1, members: 100 }, REPLAY);
        let room = RoomName::parse("general").unwrap();
        let sources = Sources::new(registry.clone(), room, "relay:1".to_owned(), Arc::default(), most);
        (registry, sources)
    }

    fn list(roster: &mut Roster, members: u32) {
        let who = |n: u32| RoomParticipant {
            fingerprint: n.to_string(),
            alias: Some(format!("member {n}")),
            relay_label: None,
            stream_id: None,
        };
        roster.list((0..members).map(who).collect(), "us", RoomTime(0));
    }

    #[tokio::test]
    async fn logs_of_relay_members_have_the_configured_bounds() {
        let (registry, mut sources) = sources(10);
        let mut roster = Roster::new("us".to_owned());
        list(&mut roster, 1);
        sources.follow(&roster, RoomTime(0)).await;
        let owner = Owner::Member(roster.members().next().unwrap().0.clone());
        let packet = MediaPacket {
            header: header(MediaType::Video, 0),
            payload: vec![0; 20].into(),
            quality: None,
        };
        assert!(sources.packet(&owner, packet, RoomTime(0)).await);
        let room = registry.rooms().into_values().next().unwrap();
        let mut snapshots = room.snapshots();
        let with_track = snapshots.wait_for(|room| room.members.iter().any(|member| !member.tracks.is_empty()));
        let snapshot = with_track.await.unwrap();
        assert_eq!(snapshot.members[0].tracks[0].track.bounds(), &REPLAY);
    }

    #[tokio::test]
    async fn room_keeps_place_for_our_own_members() {
        let (registry, mut sources) = sources(5);
        let mut roster = Roster::new("us".to_owned());
        list(&mut roster, 40);
        sources.follow(&roster, RoomTime(0)).await;
        assert_eq!(sources.memberships().count(), 5);
        assert_eq!(registry.len(), 1);
    }

    #[tokio::test]
    async fn newcomers_come_in_the_relays_order() {
        let (registry, mut sources) = sources(20);
        let mut roster = Roster::new("us".to_owned());
        // As text, fingerprint 10 is before 2.
        list(&mut roster, 12);
        sources.follow(&roster, RoomTime(0)).await;
        let room = registry.rooms().into_values().next().unwrap();
        let mut snapshots = room.snapshots();
        let all = snapshots.wait_for(|room| room.members.len() == 12).await.unwrap();
        let names: Vec<_> = all.members.iter().map(|member| member.name.clone()).collect();
        assert_eq!(names, (0..12).map(|n| format!("member {n}")).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn streams_without_a_name_fill_no_room() {
        let (_registry, mut sources) = sources(50);
        let mut roster = Roster::new("us".to_owned());
        list(&mut roster, 2);
        for id in 0..30 {
            for n in 0..10 {
                roster.seen(StreamId(id), &header(MediaType::Audio, id * 1_000 + n), RoomTime(0));
            }
        }
        assert!(roster.unnamed().len() > 20);
        sources.follow(&roster, RoomTime(0)).await;
        assert_eq!(sources.memberships().count(), MOST_UNNAMED + 2);
    }
}

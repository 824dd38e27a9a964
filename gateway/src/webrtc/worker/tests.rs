//! What can only be shown from inside.

use wzp_proto::identity::Fingerprint;
use wzp_proto::room_name::RoomName;

use super::*;
use crate::room::member::{Door, Join};
use crate::room::peer::{Follow, PeerEvent};
use crate::room::registry::{Membership, Registry, RoomLimits};
use crate::webrtc::engine::tests::{OFFER, simulcast_offer};

/// A worker whose loop the test turns itself.
struct World {
    worker: Loop,
    registry: Registry,
    members: Vec<Membership>,
}

impl World {
    fn new() -> Self {
        let config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            public_ips: Vec::new(),
            ice_lite: false,
            max_sessions: 10,
            connections: ConnectionLimit::new(1, 1),
        };
        let (_, commands) = Peers::channel();
        let (worker, _) = Loop::new(&config, commands).unwrap();
        let registry = Registry::new(RoomLimits { rooms: 1, members: 10 });
        Self {
            worker,
            registry,
            members: Vec::new(),
        }
    }

    /// A member with a peer connection, its number, its answer, and what the worker tells it.
    async fn join(&mut self, offer: &str) -> (SessionId, String, mpsc::Receiver<PeerEvent>) {
        let name = format!("peer-{}", self.members.len());
        let join = Join {
            fingerprint: Fingerprint::of(name.as_bytes()),
            name,
            door: Door::Whip,
            resume: None,
            resumable: false,
        };
        let member = self
            .registry
            .join(&RoomName::parse("room").unwrap(), join)
            .await
            .unwrap();
        let (events, told) = mpsc::channel(100);
        let context = PeerContext {
            viewer: member.id(),
            epoch: member.epoch(),
            room: member.room().clone(),
            snapshots: member.snapshots(),
            events,
            follow: Follow::Everyone,
            max_video_bitrate: 1_000_000,
        };
        self.members.push(member);
        let id = PeerId(self.members.len() as u64);
        let answer = self
            .worker
            .offer(id, Some(Box::new(context)), offer, Vec::new(), Instant::now())
            .unwrap();
        (session_of(id), answer, told)
    }
}

fn was_ended(told: &mut mpsc::Receiver<PeerEvent>) -> bool {
    let events = std::iter::from_fn(|| told.try_recv().ok());
    let closed = PeerEvent::Closed(Reason::Internal.to_string());
    events.filter(|event| *event == closed).count() == 1
}

#[tokio::test]
async fn a_peer_that_breaks_is_ended_and_no_other() {
    let mut world = World::new();
    let (first, _, mut to_first) = world.join(OFFER).await;
    let (second, _, mut to_second) = world.join(OFFER).await;
    let (third, _, mut to_third) = world.join(OFFER).await;
    let now = Instant::now();
    let worker = &mut world.worker;

    let done: Option<()> = worker.with_peer(first, now, |_, _, _| panic!("as a bug would"));
    assert_eq!(done, None);
    let mut visited = Vec::new();
    worker.each_peer(now, |_, _, id| {
        visited.push(id);
        assert_ne!(id, second, "as a bug would");
    });
    assert_eq!(visited, [second, third]);

    worker.turn(now);
    assert!(was_ended(&mut to_first) && was_ended(&mut to_second));
    assert!(!was_ended(&mut to_third));
    for (id, lives) in [(first, false), (second, false), (third, true)] {
        assert_eq!(
            (worker.engine.contains(id), worker.peers.contains_key(&id)),
            (lives, lives)
        );
    }
    assert_eq!(worker.with_peer(third, now, |_, _, _| 7), Some(7));
}

#[tokio::test]
async fn a_thread_that_ends_by_itself_says_why() {
    assert!(matches!(Worker::that_breaks().join().await, Err(Ended::Panic)));
}

#[tokio::test]
async fn a_publisher_of_several_layers_is_answered_to_send_one_stream() {
    let mut world = World::new();
    let (_, answer, _told) = world.join(&simulcast_offer()).await;
    assert!(
        answer.contains("m=video 9 ") && answer.contains("a=recvonly"),
        "{answer}"
    );
    for word in ["simulcast", "a=rid", "rtp-stream-id"] {
        assert!(!answer.contains(word), "{word} in {answer}");
    }
}

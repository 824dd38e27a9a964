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
        let (id, context, told) = self.member().await;
        let now = Instant::now();
        let answer = self.worker.offer(id, Some(context), offer, Vec::new(), now).unwrap();
        (session_of(id), answer, told)
    }

    /// A member without a peer connection: the number of the next one, and what the worker has to know of it.
    async fn member(&mut self) -> (PeerId, Box<PeerContext>, mpsc::Receiver<PeerEvent>) {
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
        (PeerId(self.members.len() as u64), Box::new(context), told)
    }
}

/// The only end that was told.
fn end(told: &mut mpsc::Receiver<PeerEvent>) -> Option<String> {
    let events = std::iter::from_fn(|| told.try_recv().ok());
    let mut ends = events.filter_map(|event| match event {
        PeerEvent::Closed(reason) => Some(reason),
        _ => None,
    });
    let end = ends.next();
    assert_eq!(ends.next(), None, "one peer ends once");
    end
}

fn was_ended(told: &mut mpsc::Receiver<PeerEvent>) -> bool {
    end(told) == Some(Reason::Internal.to_string())
}

/// An offer whose answer nobody waits for any more.
fn late_offer(id: SessionId, context: Option<Box<PeerContext>>) -> PeerCommand {
    PeerCommand::Offer {
        peer: PeerId(id.0),
        context,
        sdp: OFFER.to_owned(),
        sends: Vec::new(),
        reply: oneshot::channel().0,
    }
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

#[tokio::test]
async fn a_session_is_told_that_its_peer_ended_over_a_late_answer() {
    let mut world = World::new();
    let (id, _, mut told) = world.join(OFFER).await;
    world.worker.command(late_offer(id, None));
    assert!(!world.worker.engine.contains(id));
    assert_eq!(end(&mut told).as_deref(), Some("its offer was answered too late"));
    // One that was given up before it began is not known to its session.
    let (id, context, mut told) = world.member().await;
    world.worker.command(late_offer(session_of(id), Some(context)));
    assert!(!world.worker.engine.contains(session_of(id)));
    assert_eq!(end(&mut told), None);
}

#[tokio::test]
async fn a_session_is_told_when_its_peer_ends_while_it_is_negotiated() {
    let mut world = World::new();
    let (id, _, mut told) = world.join(OFFER).await;
    let now = Instant::now();
    world.worker.engine.abandon(now, id);
    let answer = world.worker.offer(PeerId(id.0), None, "v=0", Vec::new(), now);
    assert!(answer.is_err() && !world.worker.engine.contains(id));
    assert!(was_ended(&mut told));
}

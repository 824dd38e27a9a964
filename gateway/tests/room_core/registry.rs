//! The registry with real tasks: rooms begin with their first member and end with their last, whatever the order of things.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use wzp_gateway::media::frame::RoomTime;
use wzp_gateway::room::keyframes::Reason;
use wzp_gateway::room::member::{Control, Door, Join, JoinError, LeaveReason, Origin, Presence, TrackInfo};
use wzp_gateway::room::registry::{Membership, Registry, RoomLimits};
use wzp_gateway::room::snapshot::Snapshot;
use wzp_gateway::room::state::RESUME_GRACE;
use wzp_proto::codec::Codec;
use wzp_proto::identity::Fingerprint;
use wzp_proto::room_name::RoomName;

use crate::support::{LAG, Source, indices};

const DEADLINE: Duration = Duration::from_secs(30);

fn registry() -> Registry {
    Registry::new(RoomLimits {
        rooms: 100,
        members: 1000,
    })
}

fn name(name: &str) -> RoomName {
    RoomName::parse(name).expect("a good name")
}

fn person(number: u32) -> Join {
    Join {
        name: format!("person {number}"),
        fingerprint: Fingerprint::of(&number.to_be_bytes()),
        door: Door::Websocket,
        resume: None,
        resumable: false,
    }
}

/// Waits until the room of this member looks as it should.
async fn see(member: &Membership, what: impl FnMut(&Arc<Snapshot>) -> bool) -> Arc<Snapshot> {
    let mut snapshots = member.snapshots();
    let seen = timeout(DEADLINE, snapshots.wait_for(what)).await;
    seen.expect("in time").expect("the room runs").clone()
}

/// Waits until no room runs and no task is left but the test's own.
async fn nothing_is_left(registry: &Registry) {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    timeout(DEADLINE, async {
        while !registry.is_empty() || tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{} rooms and {} tasks are left", registry.len(), tasks()));
}

/// Polls a future once.
async fn is_pending<F: Future>(future: &mut Pin<Box<F>>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

#[tokio::test]
async fn room_begins_with_its_first_member_and_ends_with_its_last() {
    let registry = registry();
    let one = registry
        .join(&name("Kitchen"), person(1))
        .await
        .expect("there is place");
    let other = registry
        .join(&name("kitchen"), person(2))
        .await
        .expect("there is place");
    assert_eq!(registry.len(), 1);
    assert_eq!(one.room_key(), other.room_key());
    assert_eq!(&*one.room().display(), "Kitchen");
    see(&one, |snapshot| snapshot.members.len() == 2).await;
    other.leave(LeaveReason::Left).await;
    let snapshot = see(&one, |snapshot| snapshot.members.len() == 1).await;
    assert_eq!(
        snapshot.departed.last().map(|(_, reason)| *reason),
        Some(LeaveReason::Left)
    );
    one.leave(LeaveReason::Left).await;
    nothing_is_left(&registry).await;
}

#[tokio::test]
async fn limits_are_refused_with_their_own_errors() {
    let registry = Registry::new(RoomLimits { rooms: 1, members: 1 });
    let only = registry.join(&name("a"), person(1)).await.expect("there is place");
    assert_eq!(
        registry.join(&name("a"), person(2)).await.map(|member| member.id()),
        Err(JoinError::RoomFull { members: 1 })
    );
    assert_eq!(
        registry.join(&name("b"), person(2)).await.map(|member| member.id()),
        Err(JoinError::ServerFull)
    );
    drop(only);
    nothing_is_left(&registry).await;
    let next = registry
        .join(&name("b"), person(2))
        .await
        .expect("there is place again");
    drop(next);
    nothing_is_left(&registry).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn number_of_rooms_is_bounded_under_a_storm() {
    let registry = Registry::new(RoomLimits { rooms: 7, members: 10 });
    let mut storm = JoinSet::new();
    for number in 0..200 {
        let registry = registry.clone();
        storm.spawn(async move { registry.join(&name(&format!("room {number}")), person(number)).await });
    }
    let answers = timeout(DEADLINE, storm.join_all()).await.expect("in time");
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 7);
    assert_eq!(registry.len(), 7);
    drop(answers);
    nothing_is_left(&registry).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_room_is_removed_under_a_joiner() {
    let registry = registry();
    let mut storm = JoinSet::new();
    for number in 0..40 {
        let registry = registry.clone();
        storm.spawn(async move {
            for turn in 0..50 {
                let room = name(if number % 2 == 0 { "one" } else { "other" });
                let member = registry.join(&room, person(number)).await.expect("there is place");
                // Whoever is in is seen in the room that everybody finds.
                let found = registry.get(member.room_key()).expect("the room is listed");
                assert!(
                    found.snapshot().member(member.id()).is_some(),
                    "turn {turn} of {number}"
                );
                match turn % 3 {
                    0 => member.leave(LeaveReason::Left).await,
                    1 => drop(member),
                    _ => {
                        tokio::task::yield_now().await;
                        drop(member);
                    }
                }
            }
        });
    }
    timeout(DEADLINE, storm.join_all()).await.expect("in time");
    nothing_is_left(&registry).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn join_that_is_given_up_at_any_moment_leaves_nothing_behind() {
    let registry = registry();
    let stays = registry.join(&name("room"), person(0)).await.expect("there is place");
    let mut storm = JoinSet::new();
    for number in 1..500u32 {
        let registry = registry.clone();
        storm.spawn(async move {
            let join = Join {
                resumable: number % 2 == 0,
                ..person(number)
            };
            // Given up after so many steps: before the knock, with the knock in the queue, and with the answer on its way.
            let (room, steps) = (name("room"), number % 8);
            tokio::select! {
                biased;
                () = async { for _ in 0..steps { tokio::task::yield_now().await } } => {}
                member = registry.join(&room, join) => drop(member.map(|member| member.id())),
            }
        });
    }
    timeout(DEADLINE, storm.join_all()).await.expect("in time");
    // Those who had their answer and could resume are away for the grace time; all others must be gone.
    let mut reader = stays.snapshots();
    timeout(
        DEADLINE,
        reader.wait_for(|snapshot| {
            let others = &snapshot.members[1..];
            others.iter().all(|member| {
                member.presence == Presence::Reconnecting && member.name.ends_with(['0', '2', '4', '6', '8'])
            })
        }),
    )
    .await
    .expect("in time")
    .expect("the room runs");
    drop(stays);
}

#[tokio::test]
async fn join_that_is_given_up_with_its_answer_in_hand_leaves_nothing_behind() {
    let registry = registry();
    for resumable in [false, true] {
        let join = Join { resumable, ..person(1) };
        let room = name("room");
        let mut joining = Box::pin(registry.join(&room, join));
        // One look sends the knock; the room's task then answers, and nobody looks again.
        assert!(is_pending(&mut joining).await);
        let key = room.key();
        timeout(DEADLINE, async {
            while registry.get(key).is_none_or(|room| room.snapshot().members.is_empty()) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the task lets it in");
        drop(joining);
        // At once: nobody has learnt how to come back, so there is no grace time to wait for.
        let half_of_grace = Duration::from_micros(RESUME_GRACE / 2);
        timeout(half_of_grace, nothing_is_left(&registry)).await.expect("gone");
    }
}

#[tokio::test]
async fn room_that_nobody_enters_after_all_ends() {
    let registry = registry();
    let room = name("room");
    let mut joining = Box::pin(registry.join(&room, person(1)));
    assert!(is_pending(&mut joining).await);
    assert_eq!(registry.len(), 1);
    drop(joining);
    nothing_is_left(&registry).await;
}

#[tokio::test]
async fn replaced_session_is_told_and_can_do_nothing_more() {
    let registry = registry();
    let mut old = registry.join(&name("room"), person(1)).await.expect("there is place");
    let new = registry.join(&name("room"), person(1)).await.expect("there is place");
    assert_ne!(old.id(), new.id());
    let control = |member: &mut Membership| {
        // `control` borrows its member for as long as it waits.
        let waiting = member.control();
        futures_util::FutureExt::now_or_never(waiting)
    };
    assert_eq!(control(&mut old), Some(Some(Control::Ended(LeaveReason::Replaced))));
    assert_eq!(control(&mut old), Some(None), "its queue has ended");
    let source = Source::video();
    old.set_tracks(vec![(info(&source), source.track.clone())]).await;
    old.leave(LeaveReason::Left).await;
    new.set_name("still here".to_owned()).await;
    let snapshot = see(&new, |snapshot| snapshot.members[0].name == "still here").await;
    assert_eq!(snapshot.members.len(), 1);
    assert_eq!(snapshot.members[0].id, new.id());
    drop(new);
    nothing_is_left(&registry).await;
}

#[tokio::test]
async fn resumed_session_goes_on_and_the_old_one_is_told() {
    let registry = registry();
    let join = Join {
        resumable: true,
        ..person(1)
    };
    let mut old = registry
        .join(&name("room"), join.clone())
        .await
        .expect("there is place");
    let back = Join {
        resume: Some(old.resume_token()),
        ..join.clone()
    };
    let new = registry
        .join(&name("room"), back.clone())
        .await
        .expect("there is place");
    assert!(new.resumed());
    assert_eq!(new.id(), old.id());
    assert_eq!(old.control().await, Some(Control::Ended(LeaveReason::Replaced)));
    assert_eq!(old.control().await, None);
    drop(old);
    // The end of the old connection is not the end of the new one.
    new.set_name("still here".to_owned()).await;
    let snapshot = see(&new, |snapshot| snapshot.members[0].name == "still here").await;
    assert_eq!(snapshot.members[0].presence, Presence::Connected);
    // A lost connection holds the room, until it is taken up again.
    drop(new);
    let again = registry.join(&name("room"), back).await.expect("there is place");
    assert!(again.resumed(), "the token stays good");
    again.leave(LeaveReason::Left).await;
    nothing_is_left(&registry).await;
}

fn info(source: &Source) -> TrackInfo {
    TrackInfo {
        kind: source.track.id().kind,
        slot: 0,
        layer: 0,
        origin: Origin::Camera,
        codec: Codec::H264Baseline,
        size: None,
    }
}

#[tokio::test]
async fn frames_and_requests_flow_between_members() {
    let registry = registry();
    let mut sender = registry.join(&name("room"), person(1)).await.expect("there is place");
    let viewer = registry.join(&name("room"), person(2)).await.expect("there is place");
    let mut source = Source::new(crate::support::video_id(sender.id().0), *Source::video().track.bounds());
    sender.set_tracks(vec![(info(&source), source.track.clone())]).await;
    let snapshot = see(&viewer, |snapshot| snapshot.tracks_for(viewer.id()).count() == 1).await;
    let track = snapshot
        .tracks_for(viewer.id())
        .next()
        .map(|(_, view)| view.track.clone());
    let track = track.expect("it is there");
    let mut cursor = wzp_gateway::room::subscription::Cursor::new(&track, &Arc::default());
    cursor.start();
    viewer
        .room()
        .request_keyframe(track.id(), RoomTime::default(), Reason::Join);
    let control = timeout(DEADLINE, sender.control()).await.expect("in time");
    assert_eq!(control, Some(Control::Keyframe { slot: 0, layer: 0 }));
    source.key();
    assert!(matches!(
        cursor.next(&LAG),
        wzp_gateway::room::subscription::Next::Frame(_)
    ));
    drop(sender);
    see(&viewer, |snapshot| snapshot.members.len() == 1).await;
    drop(source);
    assert_eq!(indices(&mut cursor), crate::support::NONE);
    drop((viewer, cursor, track, snapshot));
    nothing_is_left(&registry).await;
}

#[tokio::test]
async fn keyframe_requests_that_a_busy_room_does_not_hear_are_counted() {
    let registry = registry();
    let viewer = registry.join(&name("room"), person(1)).await.expect("there is place");
    let id = crate::support::video_id(9);
    // On this runtime the room's task has its turn only when this one waits.
    for _ in 0..3000 {
        viewer.room().request_keyframe(id, RoomTime::default(), Reason::Loss);
    }
    viewer.room().withhold_keyframe(Reason::Loss);
    let counters = || viewer.room().keyframes();
    let overflow = counters().suppressed_overflow.loss;
    assert!((1..3000).contains(&overflow), "{overflow}");
    assert_eq!(counters().suppressed_receiver.loss, 1);
    let heard = async {
        while counters().suppressed_unknown.loss < 3000 - overflow {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, heard).await.expect("all others were heard");
}

#[tokio::test]
async fn what_newcomers_found_is_summed_up_over_all_tracks() {
    let registry = registry();
    let sender = registry.join(&name("room"), person(1)).await.expect("there is place");
    let room = sender.room().clone();
    let mut source = Source::new(crate::support::video_id(sender.id().0), *Source::video().track.bounds());
    source.key();
    source.cursor().start();
    assert_eq!(room.replays().hit, 0, "the room does not know it yet");
    sender.set_tracks(vec![(info(&source), source.track.clone())]).await;
    see(&sender, |snapshot| {
        snapshot.members.iter().any(|member| !member.tracks.is_empty())
    })
    .await;
    assert_eq!(room.replays().hit, 1);
    source.cursor().start();
    assert_eq!(room.replays().hit, 2);
    sender.set_tracks(Vec::new()).await;
    see(&sender, |snapshot| {
        snapshot.members.iter().all(|member| member.tracks.is_empty())
    })
    .await;
    assert_eq!(room.replays().hit, 2, "it is gone, what it did is not");
}

#[tokio::test]
async fn member_that_does_not_read_its_controls_holds_nobody_up() {
    let registry = registry();
    let mut silent = registry.join(&name("room"), person(1)).await.expect("there is place");
    let other = registry.join(&name("room"), person(2)).await.expect("there is place");
    let sources: Vec<_> = (0..200)
        .map(|at| {
            let id = wzp_gateway::media::frame::TrackId {
                slot: at % 16,
                layer: at / 16,
                ..crate::support::video_id(silent.id().0)
            };
            Source::new(id, *Source::video().track.bounds())
        })
        .collect();
    let tracks = sources.iter().map(|source| (info(source), source.track.clone()));
    silent.set_tracks(tracks.collect()).await;
    see(&other, |snapshot| snapshot.tracks_for(other.id()).count() == 200).await;
    for source in &sources {
        other
            .room()
            .request_keyframe(source.track.id(), RoomTime::default(), Reason::Viewer);
    }
    other.room().kick(silent.id());
    see(&other, |snapshot| snapshot.members.len() == 1).await;
    let mut controls = 0;
    while timeout(DEADLINE, silent.control())
        .await
        .expect("the queue ends")
        .is_some()
    {
        controls += 1;
    }
    assert_eq!(controls, 64, "bounded, and over at the end");
    drop((silent, other));
    nothing_is_left(&registry).await;
}

#[tokio::test]
async fn leave_that_is_given_up_and_a_drop_under_a_flood_are_leaves() {
    let registry = registry();
    let (one, other) = (name("room"), name("room"));
    let one = registry.join(&one, person(1)).await.expect("there is place");
    let other = registry.join(&other, person(2)).await.expect("there is place");
    // On one thread the room's task reads nothing meanwhile: its queue is full.
    let room = one.room().clone();
    for _ in 0..5000 {
        room.set_speakers(Vec::new());
    }
    let mut leaving = Box::pin(one.leave(LeaveReason::Left));
    assert!(is_pending(&mut leaving).await);
    drop(leaving);
    drop(other);
    nothing_is_left(&registry).await;
}

#[test]
fn registry_outlives_a_runtime_that_stops() {
    let registry = registry();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
    };
    let first = runtime();
    let member = first.block_on(registry.join(&name("room"), person(1)));
    drop(first);
    assert!(registry.is_empty(), "its rooms have gone with it");
    drop(member);
    let second = runtime();
    second.block_on(async {
        let member = registry.join(&name("room"), person(1)).await.expect("there is place");
        drop(member);
        nothing_is_left(&registry).await;
    });
}

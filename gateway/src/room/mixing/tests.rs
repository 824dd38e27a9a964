use proptest::prelude::*;
use wzp_proto::codec::Codec;
use wzp_proto::identity::Fingerprint;
use wzp_proto::room_name::RoomName;

use super::*;
use crate::media::frame::TrackId;
use crate::room::member::{Join, Muted, Origin, Presence, TrackInfo};
use crate::room::registry::{Membership, Registry, RoomLimits};
use crate::room::track::Bounds;

fn view(source: u32, kind: Kind, slot: u8) -> TrackView {
    let id = TrackId {
        source: ParticipantId(source),
        kind,
        slot,
        layer: 0,
    };
    let (codec, origin) = match kind {
        Kind::Audio => (Codec::Opus24k, Origin::Microphone),
        Kind::Video => (Codec::H264Baseline, Origin::Camera),
    };
    let info = TrackInfo {
        kind,
        slot,
        layer: 0,
        origin,
        codec,
        size: None,
    };
    let track = Track::create(id, Bounds::AUDIO, 0).0;
    TrackView { info, track }
}

/// A room whose members have these doors, and so many tracks of sound and of pictures.
fn room(members: &[(Door, u8, u8)]) -> Snapshot {
    let member = |(n, (door, sounds, pictures)): (u32, &(Door, u8, u8))| {
        let sounds = (0..*sounds).map(|slot| view(n, Kind::Audio, slot));
        let pictures = (0..*pictures).map(|slot| view(n, Kind::Video, slot));
        Arc::new(MemberView {
            id: ParticipantId(n),
            name: String::new(),
            fingerprint: Fingerprint([0; 16]),
            door: *door,
            presence: Presence::Connected,
            muted: Muted::default(),
            native_stream: 1,
            tracks: sounds.chain(pictures).collect(),
        })
    };
    Snapshot {
        members: (1..).zip(members).map(member).collect(),
        ..Snapshot::default()
    }
}

/// Whose level is needed, as one says it: of who has no browser and whom somebody else hears whose door shows levels.
fn unmeasured(snapshot: &Snapshot) -> BTreeSet<ParticipantId> {
    let uses = |viewer: &MemberView| match viewer.door {
        Door::Native => {
            let pictures = (snapshot.tracks_for(viewer.id)).filter(|(_, view)| view.info.kind == Kind::Video);
            pictures.count() >= 2
        }
        Door::Webrtc | Door::Websocket => true,
        _ => false,
    };
    let sources: BTreeSet<_> = (snapshot.members.iter())
        .filter(|member| member.door != Door::Webrtc)
        .filter(|member| member.tracks.iter().any(|view| view.info.kind == Kind::Audio))
        .map(|member| member.id)
        .collect();
    let is_used = |source: &ParticipantId| {
        snapshot
            .members
            .iter()
            .any(|member| member.id != *source && uses(member))
    };
    if sources.iter().any(is_used) {
        sources
    } else {
        BTreeSet::new()
    }
}

proptest! {
    #[test]
    fn levels_are_measured_where_somebody_else_uses_them(
        members in proptest::collection::vec((0usize..5, 0u8..3, 0u8..3), 0..6),
    ) {
        let doors = [Door::Native, Door::Webrtc, Door::Websocket, Door::Whip, Door::Uplink];
        let members: Vec<_> = members.into_iter().map(|(door, a, b)| (doors[door], a, b)).collect();
        let snapshot = room(&members);
        prop_assert_eq!(Plan::of(&snapshot).unmeasured, unmeasured(&snapshot));
    }
}

#[test]
fn room_of_many_is_planned_in_no_time() {
    let snapshot = room(&[(Door::Native, 1, 2); 400]);
    let listeners = (1..=400).map(|id| (ParticipantId(id), Wants::Opus)).collect();
    let begin = std::time::Instant::now();
    for _ in 0..20 {
        let mut plan = Plan::of(&snapshot);
        assert!(plan.is_needed(&listeners));
        plan.reduce(&listeners);
        assert_eq!(plan.sources.len(), 400);
    }
    // With every member's view of all tracks it would be 400 times as much: more than ten seconds.
    let took = begin.elapsed() / 20;
    println!("{took:?} for 400 members");
    assert!(took < Duration::from_millis(100), "{took:?}");
}

async fn member(registry: &Registry, name: &str) -> Membership {
    let join = Join {
        name: name.to_owned(),
        fingerprint: Fingerprint::of(name.as_bytes()),
        door: Door::Native,
        resume: None,
        resumable: false,
    };
    registry.join(&RoomName::parse("general").unwrap(), join).await.unwrap()
}

#[tokio::test]
async fn mix_that_breaks_off_begins_anew() {
    let registry = Registry::new(RoomLimits { rooms: 4, members: 8 });
    let (one, two, three) = (
        member(&registry, "one").await,
        member(&registry, "two").await,
        member(&registry, "three").await,
    );
    let listener = three.room().listen(three.id(), Wants::Opus, &Arc::default());
    for membership in [&one, &two] {
        let view = view(membership.id().0, Kind::Audio, 0);
        membership.set_tracks(vec![(view.info, view.track)]).await;
    }
    let mixing = three.room().mixing().clone();
    let runs = async |wanted: bool| {
        let waiting = async {
            while mixing.is_running() != wanted {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap();
    };
    runs(true).await;
    // As the end of a task that panics.
    drop(Task::new(three.room().clone()));
    assert!(!mixing.is_running());
    runs(true).await;
    // One that ends because nobody needs it stays away.
    drop(listener);
    runs(false).await;
}

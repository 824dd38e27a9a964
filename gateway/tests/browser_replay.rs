//! A browser's replay over the WebSocket, and the time that it takes to decode it.

use std::time::{Duration, Instant};

use wzp_gateway::browser::egress::{Egress, Out};
use wzp_gateway::browser::window::{MAX_BACKLOG, Window};
use wzp_gateway::media::frame::{Draft, Kind, ParticipantId, RoomTime, TrackId};
use wzp_gateway::room::member::{Door, Join, Origin, TrackInfo};
use wzp_gateway::room::registry::{Membership, Registry, RoomLimits};
use wzp_gateway::room::track::{Bounds, Track, TrackWriter};
use wzp_proto::codec::Codec;
use wzp_proto::identity::Fingerprint;
use wzp_proto::room_name::RoomName;

/// Pictures in the log when the viewer comes: five seconds of them.
const REPLAYED: u64 = 150;

struct Source {
    writer: TrackWriter,
    pictures: u64,
}

impl Source {
    fn picture(&mut self) {
        let draft = Draft {
            codec: Codec::H264Baseline,
            keyframe: self.pictures == 0,
            ticks: self.pictures * 3000,
            time: RoomTime(self.pictures * 33_333),
            size: None,
            payload: vec![0x55; 1000].into(),
        };
        self.writer.append(draft, RoomTime(self.pictures * 33_333));
        self.pictures += 1;
    }
}

/// A room with a source, and the member that it belongs to.
async fn room() -> (Membership, Source) {
    let registry = Registry::new(RoomLimits { rooms: 1, members: 4 });
    let join = Join {
        name: "source".to_owned(),
        fingerprint: Fingerprint([1; 16]),
        door: Door::Native,
        resume: None,
        resumable: false,
    };
    let name = RoomName::parse("replay").unwrap();
    let membership = registry.join(&name, join).await.unwrap();
    let id = TrackId {
        source: membership.id(),
        kind: Kind::Video,
        slot: 0,
        layer: 0,
    };
    let (track, writer) = Track::create(id, Bounds::VIDEO, 0);
    let info = TrackInfo {
        kind: Kind::Video,
        slot: 0,
        layer: 0,
        origin: Origin::Camera,
        codec: Codec::H264Baseline,
        size: None,
    };
    let mut snapshots = membership.snapshots();
    membership.set_tracks(vec![(info, track)]).await;
    let published = snapshots.wait_for(|snapshot| snapshot.track(id).is_some());
    tokio::time::timeout(Duration::from_secs(5), published)
        .await
        .unwrap()
        .unwrap();
    (membership, Source { writer, pictures: 0 })
}

/// Sends what may go, one message per picture, and has it acknowledged; how many.
fn drain(egress: &mut Egress, window: &mut Window, sent: &mut u64, backlog: u32, now: Instant) {
    while let Out::Message(message) = egress.next(window, now) {
        window.sent(message.len(), now);
        *sent += 1;
    }
    window.acked(*sent, backlog, now).unwrap();
}

#[tokio::test]
async fn client_that_has_a_replay_to_decode_gets_live_pictures_all_the_same() {
    let (membership, mut source) = room().await;
    (0..REPLAYED).for_each(|_| source.picture());
    let begin = Instant::now();
    let at = |ms: u64| begin + Duration::from_millis(ms);
    let viewer = ParticipantId(99);
    let mut egress = Egress::new(viewer, membership.room().clone(), vec!["h264".to_owned()]);
    let (mut window, mut sent) = (Window::default(), 0);
    egress.update(&membership.room().snapshot(), at(0));
    drain(&mut egress, &mut window, &mut sent, 0, at(0));
    assert_eq!(sent, 1, "the keyframe, while a fresh one may come");
    // None comes; then the whole replay, which takes the client a second to decode.
    for n in 0..30 {
        let now = 300 + n * 33;
        source.picture();
        let backlog = 4_000 - n as u32 * 120;
        drain(&mut egress, &mut window, &mut sent, backlog, at(now));
        assert_eq!(
            (sent, egress.counters().dropped_frames),
            (source.pictures, 0),
            "at {now} ms"
        );
    }
    // A client that is no faster than that is slow, and judged by its backlog as ever.
    let slow = 5_000;
    source.picture();
    drain(&mut egress, &mut window, &mut sent, MAX_BACKLOG + 1, at(slow));
    let before = sent;
    source.picture();
    drain(&mut egress, &mut window, &mut sent, MAX_BACKLOG + 1, at(slow + 33));
    assert_eq!(sent, before, "nothing more while it has so much to decode");
    drain(&mut egress, &mut window, &mut sent, 0, at(slow + 66));
    drain(&mut egress, &mut window, &mut sent, 0, at(slow + 66));
    assert_eq!(sent, source.pictures);
}

//! What can only be shown from inside.

use tokio::sync::mpsc;
use wzp_proto::codec::Codec as WzpCodec;
use wzp_proto::identity::Fingerprint;
use wzp_proto::room_name::RoomName;

use super::*;
use crate::media::frame::Draft;
use crate::room::member::{Door, Join};
use crate::room::registry::{Membership, Registry, RoomLimits};
use crate::room::track::Bounds;
use crate::webrtc::engine::{AgreedCodec, Direction};

async fn member() -> (Registry, Membership) {
    let registry = Registry::new(RoomLimits { rooms: 1, members: 2 });
    let join = Join {
        name: "viewer".to_owned(),
        fingerprint: Fingerprint::of(b"viewer"),
        door: Door::Whip,
        resume: None,
        resumable: false,
    };
    let member = registry.join(&RoomName::parse("room").unwrap(), join).await.unwrap();
    (registry, member)
}

fn sending(mid: &str) -> MediaLine {
    MediaLine {
        mid: Mid::new(mid).unwrap(),
        kind: engine::Kind::Video,
        direction: Direction {
            send: true,
            recv: false,
        },
        codecs: vec![AgreedCodec {
            codec: Codec::H264,
            payload_type: 96,
            rtx: true,
            parameters: String::new(),
        }],
        rids: Vec::new(),
        stream: None,
    }
}

#[tokio::test]
async fn the_rate_is_judged_across_an_m_line_that_goes() {
    let (_registry, member) = member().await;
    let context = PeerContext {
        viewer: member.id(),
        epoch: member.epoch(),
        room: member.room().clone(),
        snapshots: member.snapshots(),
        events: mpsc::channel(100).0,
        follow: Follow::Everyone,
        max_video_bitrate: 1_000_000,
    };
    let mut peer = Peer::new(context);
    let waker = Arc::new(Notify::new());
    peer.negotiated(&[sending("0"), sending("1")], &waker);
    peer.connected(false, &waker);

    let id = TrackId {
        source: member.id(),
        kind: Kind::Video,
        slot: 0,
        layer: 0,
    };
    let (track, mut writer) = Track::create(id, Bounds::VIDEO, 0);
    let room_now = member.room().now();
    let draft = Draft {
        codec: WzpCodec::H264Baseline,
        keyframe: true,
        ticks: 0,
        time: room_now,
        size: None,
        payload: Bytes::from_static(&[0, 0, 0, 1, 0x65, 0x88, 1, 2, 3, 4]),
    };
    writer.append(draft, room_now);
    peer.outgoing[0].assign(Some(&track), &waker, member.room());
    let start = Instant::now();
    let config = engine::Config {
        udp_candidates: vec!["192.0.2.1:8444".parse().unwrap()],
        ..engine::Config::default()
    };
    let mut engine = Engine::new(start, config).unwrap();
    peer.feed(&mut engine, SessionId(1), start);
    peer.judge(start);
    assert!(peer.sent_before > 0, "nothing was sent");
    let sent = peer.sent_before;

    peer.negotiated(&[sending("1")], &waker);
    peer.judge(start + Duration::from_millis(500));
    assert_eq!(peer.sent_before, sent);
}

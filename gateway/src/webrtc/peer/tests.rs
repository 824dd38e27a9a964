use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use wzp_proto::codec::Codec as WzpCodec;
use wzp_proto::identity::Fingerprint;
use wzp_proto::room_name::RoomName;

use super::*;
use crate::media::frame::{Draft, ParticipantId};
use crate::room::member::{Door, Join, Origin, TrackInfo};
use crate::room::registry::{Membership, Registry, RoomLimits};
use crate::room::track::{Bounds, TrackWriter};
use crate::webrtc::engine::{AgreedCodec, Config, Direction};

const DEADLINE: Duration = Duration::from_secs(10);
const ID: SessionId = SessionId(1);

struct Room {
    registry: Registry,
    name: RoomName,
    engine: Engine,
    waker: Arc<Notify>,
}

impl Room {
    fn new() -> Self {
        let config = Config {
            udp_candidates: vec![([127, 0, 0, 1], 9).into()],
            ..Config::default()
        };
        Self {
            registry: Registry::new(RoomLimits { rooms: 1, members: 9 }),
            name: RoomName::parse("peers").unwrap(),
            engine: Engine::new(Instant::now(), config).unwrap(),
            waker: Arc::new(Notify::new()),
        }
    }

    async fn join(&self, name: &str) -> Membership {
        let join = Join {
            name: name.to_owned(),
            fingerprint: Fingerprint::of(name.as_bytes()),
            door: Door::Whip,
            resume: None,
            resumable: false,
        };
        self.registry.join(&self.name, join).await.unwrap()
    }

    /// A connected peer of this member, with one m-line of this kind and direction.
    fn peer(&self, member: &Membership, follow: Follow, line: MediaLine) -> (Peer, mpsc::Receiver<PeerEvent>) {
        let (events, told) = mpsc::channel(16);
        let mut peer = Peer::new(PeerContext {
            viewer: member.id(),
            epoch: member.epoch(),
            room: member.room().clone(),
            snapshots: member.snapshots(),
            events,
            follow,
            max_video_bitrate: 1_200_000,
        });
        peer.negotiated(&[line], &self.waker);
        peer.connected(false, &self.waker);
        (peer, told)
    }

    /// A member that publishes a track, by a peer of its own.
    async fn speaker(&self, name: &str) -> (Membership, Peer) {
        let member = self.join(name).await;
        let writer = publish(&member, Kind::Audio).await;
        let (mut peer, _) = self.peer(&member, Follow::Nobody, line(engine::Kind::Audio, false));
        peer.add_sends(vec![Sending {
            mid: None,
            kind: Kind::Audio,
            slot: 0,
            writer,
        }]);
        (member, peer)
    }
}

fn line(kind: engine::Kind, send: bool) -> MediaLine {
    let codec = if kind == engine::Kind::Audio {
        Codec::Opus
    } else {
        Codec::H264
    };
    MediaLine {
        mid: Mid::new("0").unwrap(),
        kind,
        direction: Direction { send, recv: !send },
        codecs: vec![AgreedCodec {
            codec,
            payload_type: 100,
            rtx: false,
            parameters: String::new(),
        }],
        rids: Vec::new(),
        stream: None,
    }
}

async fn publish(member: &Membership, kind: Kind) -> TrackWriter {
    let id = TrackId {
        source: member.id(),
        kind,
        slot: 0,
        layer: 0,
    };
    let (track, writer) = Track::create(id, Bounds::VIDEO, 0);
    let (origin, codec) = match kind {
        Kind::Audio => (Origin::Microphone, WzpCodec::Opus24k),
        Kind::Video => (Origin::Camera, WzpCodec::H264Baseline),
    };
    let info = TrackInfo {
        kind,
        slot: 0,
        layer: 0,
        origin,
        codec,
        size: None,
    };
    member.set_tracks(vec![(info, track)]).await;
    writer
}

/// A packet of sound, so loud, −dBov.
fn sound(peer: &mut Peer, seq: u64, level: u8, now: Instant) {
    let meta = RtpMeta {
        payload_type: 111,
        codec: Codec::Opus,
        seq: 65_536 + seq,
        timestamp: 960 * seq as u32,
        ssrc: 7,
        marker: false,
        audio_level: Some(level),
        repaired: false,
        arrived: now,
    };
    let room_now = peer.room_now(now);
    peer.packet(
        Mid::new("0").unwrap(),
        &meta,
        Bytes::from_static(&[0xf8]),
        now,
        room_now,
    );
}

async fn until(snapshots: &mut watch::Receiver<Arc<Snapshot>>, what: &str, holds: impl FnMut(&Arc<Snapshot>) -> bool) {
    let waited = timeout(DEADLINE, snapshots.wait_for(holds)).await;
    waited.unwrap_or_else(|_| panic!("waited for: {what}")).unwrap();
}

#[tokio::test]
async fn the_loudest_level_of_each_interval_decides_who_speaks_and_whom_a_viewer_sees() {
    let mut room = Room::new();
    let (ana, mut of_ana) = room.speaker("ana").await;
    let (bo, mut of_bo) = room.speaker("bo").await;
    let viewer = room.join("viewer").await;
    let mut snapshots = viewer.snapshots();
    let there = |snapshot: &Arc<Snapshot>| snapshot.tracks_for(viewer.id()).count() == 2;
    until(&mut snapshots, "two tracks", there).await;
    let (mut watching, _) = room.peer(&viewer, Follow::Speaker, line(engine::Kind::Audio, true));
    let carried_source = |peer: &Peer| peer.outgoing.iter().find_map(carried).map(|track| track.source);

    // Ana's one loud packet is followed by quiet ones before the report; Bo whispers all the time. Then the other way round.
    let mut seq = 0;
    for expected in [ana.id(), bo.id()] {
        let (loud, quiet) = if expected == ana.id() {
            (&mut of_ana, &mut of_bo)
        } else {
            (&mut of_bo, &mut of_ana)
        };
        let speaks = async {
            loop {
                let now = Instant::now();
                sound(loud, seq, if seq.is_multiple_of(5) { 20 } else { 90 }, now);
                sound(quiet, seq, 60, now);
                seq += 1;
                loud.advance(&mut room.engine, ID, now);
                quiet.advance(&mut room.engine, ID, now);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let alone = |snapshot: &Arc<Snapshot>| snapshot.speakers[..] == [expected];
        tokio::select! {
            () = until(&mut snapshots, "the speaker", alone) => {}
            () = speaks => {}
        }
        watching.update(&room.waker);
        assert_eq!(carried_source(&watching), Some(expected));
    }
}

#[tokio::test]
async fn levels_are_reported_five_times_a_second() {
    let mut room = Room::new();
    let (_ana, mut peer) = room.speaker("ana").await;
    let begun = Instant::now();
    let mut reports = 0;
    for tick in 0..100u32 {
        let now = begun + Duration::from_millis(20) * tick;
        sound(&mut peer, u64::from(tick), 30, now);
        peer.advance(&mut room.engine, ID, now);
        let taken = peer.incoming.values_mut().next().unwrap().take_level().is_none();
        reports += usize::from(taken);
    }
    assert_eq!(reports, 10);
}

#[tokio::test]
async fn a_video_that_is_hidden_while_it_is_paused_is_not_paused_any_more() {
    let room = Room::new();
    let ana = room.join("ana").await;
    let mut writer = publish(&ana, Kind::Video).await;
    let keyframe = Draft {
        codec: WzpCodec::H264Baseline,
        keyframe: true,
        ticks: 0,
        time: ana.room().now(),
        size: None,
        payload: Bytes::from_static(&[0, 0, 0, 1, 0x65, 0x88]),
    };
    writer.append(keyframe, ana.room().now());
    let viewer = room.join("viewer").await;
    let mut snapshots = viewer.snapshots();
    let there = |snapshot: &Arc<Snapshot>| snapshot.tracks_for(viewer.id()).count() == 1;
    until(&mut snapshots, "a track", there).await;
    let (mut peer, mut told) = room.peer(&viewer, Follow::Everyone, line(engine::Kind::Video, true));
    peer.set_receiving(true, &room.waker);
    let track = peer.outgoing.iter().find_map(carried).unwrap();
    let measured = Measured {
        rate: 1_000_000,
        estimate: Some(100_000),
        loss: 0,
        lost: 0,
        waits: Duration::from_secs(1),
        arrived: None,
        videos: 1,
    };

    let hide = |track: TrackId| vec![(track.source, track.kind, track.slot)];
    for shown in [false, true] {
        peer.shortage.pause(Instant::now(), track, measured);
        peer.set_paused(track, true);
        assert!(peer.outgoing[0].is_paused());
        peer.set_unwanted(hide(track), &room.waker);
        if shown {
            peer.set_unwanted(Vec::new(), &room.waker);
            assert!(!peer.outgoing[0].is_paused());
        }
        let mut pauses = Vec::new();
        while let Ok(event) = told.try_recv() {
            if let PeerEvent::Bandwidth { track: of, paused } = event {
                assert_eq!(of, track);
                pauses.push(paused);
            }
        }
        assert_eq!(pauses, [true, false]);
        assert_eq!(peer.shortage.paused().count(), 0);
        peer.set_unwanted(Vec::new(), &room.waker);
    }
    assert_eq!(
        carried(&peer.outgoing[0]).map(|track| track.source),
        Some::<ParticipantId>(ana.id())
    );
}

#[tokio::test]
async fn member_is_told_of_a_track_when_it_begins_and_not_while_it_waits() {
    let mut room = Room::new();
    let ana = room.join("ana").await;
    let mut writer = publish(&ana, Kind::Video).await;
    let now = ana.room().now();
    let mut picture = |keyframe, age| {
        let time = RoomTime(now.0.saturating_sub(age));
        let draft = Draft {
            codec: WzpCodec::H264Baseline,
            keyframe,
            ticks: 0,
            time: now.plus(10_000_000 - age),
            size: None,
            payload: Bytes::from_static(&[0, 0, 0, 1, 0x65, 0x88]),
        };
        writer.append(draft, time)
    };
    picture(true, 4_000_000);
    picture(false, 0);
    let viewer = room.join("viewer").await;
    let mut snapshots = viewer.snapshots();
    let there = |snapshot: &Arc<Snapshot>| snapshot.tracks_for(viewer.id()).count() == 1;
    until(&mut snapshots, "a track", there).await;
    let track = snapshots.borrow().tracks_for(viewer.id()).next().unwrap().1.track.id();
    let carries = |event: &PeerEvent| match event {
        PeerEvent::Waiting(tracks) => Some(("waiting", tracks.clone())),
        PeerEvent::Carried(tracks) => Some(("carried", tracks.clone())),
        PeerEvent::Mids(mids) => Some(("mids", mids.iter().filter_map(|(_, _, track)| *track).collect())),
        _ => None,
    };
    let news = |told: &mut mpsc::Receiver<PeerEvent>| {
        let events = std::iter::from_fn(|| told.try_recv().ok());
        events.filter_map(|event| carries(&event)).collect::<Vec<_>>()
    };
    let begun = [("mids", vec![track]), ("carried", vec![track]), ("waiting", vec![])];

    let video = line(engine::Kind::Video, true);
    let (mut peer, mut told) = room.peer(&viewer, Follow::Everyone, video.clone());
    peer.set_receiving(true, &room.waker);
    assert_eq!(news(&mut told).last(), Some(&("waiting", vec![track])));
    peer.feed(&mut room.engine, ID, Instant::now());
    assert_eq!((news(&mut told), peer.sent), (vec![], 0));
    peer.begin(&[track]);
    assert_eq!(news(&mut told), begun);
    peer.feed(&mut room.engine, ID, Instant::now());
    assert!(peer.sent > 0, "nothing was sent");
    // Hidden and shown again it does not wait.
    peer.set_unwanted(vec![(track.source, track.kind, track.slot)], &room.waker);
    news(&mut told);
    peer.set_unwanted(Vec::new(), &room.waker);
    assert_eq!(news(&mut told), begun[..2]);

    let (mut peer, mut told) = room.peer(&viewer, Follow::Everyone, video);
    peer.set_receiving(true, &room.waker);
    news(&mut told);
    picture(true, 0);
    peer.feed(&mut room.engine, ID, Instant::now());
    assert_eq!(news(&mut told), begun);
    assert!(peer.sent > 0, "nothing was sent");
}

#[tokio::test]
async fn the_rate_is_judged_across_an_m_line_that_goes() {
    let mut room = Room::new();
    let ana = room.join("ana").await;
    let mut writer = publish(&ana, Kind::Video).await;
    let keyframe = Draft {
        codec: WzpCodec::H264Baseline,
        keyframe: true,
        ticks: 0,
        time: ana.room().now(),
        size: None,
        payload: Bytes::from_static(&[0, 0, 0, 1, 0x65, 0x88, 1, 2, 3, 4]),
    };
    writer.append(keyframe, ana.room().now());
    let viewer = room.join("viewer").await;
    let mut snapshots = viewer.snapshots();
    let there = |snapshot: &Arc<Snapshot>| snapshot.tracks_for(viewer.id()).count() == 1;
    until(&mut snapshots, "a track", there).await;
    let (mut peer, _told) = room.peer(&viewer, Follow::Everyone, line(engine::Kind::Video, true));
    peer.set_receiving(true, &room.waker);
    let start = Instant::now();
    peer.feed(&mut room.engine, ID, start);
    peer.judge(start);
    assert!(peer.sent_before > 0, "nothing was sent");
    let sent = peer.sent_before;

    let other = MediaLine {
        mid: Mid::new("1").unwrap(),
        ..line(engine::Kind::Video, true)
    };
    peer.negotiated(&[other], &room.waker);
    peer.judge(start + Duration::from_millis(500));
    assert_eq!(peer.sent_before, sent);
}

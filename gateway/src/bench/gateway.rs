//! The gateway as the side that forwards: a room, a publisher's log, the WebRTC worker, a WHEP session for each viewer.

use std::time::Duration;

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use wzp_proto::codec::Codec;
use wzp_proto::identity::Fingerprint;
use wzp_proto::room_name::RoomName;

use super::{FPS, forward};
use crate::http::whip::session::{ASKS, Ask, Request, Role, Session, Shared, Wanted};
use crate::http::whip::table::Sessions;
use crate::media::frame::{Draft, Kind, TrackId};
use crate::net::ConnectionLimit;
use crate::room::member::{Door, Join, Origin, TrackInfo};
use crate::room::registry::{Membership, Registry, RoomLimits};
use crate::room::track::{Bounds, Track, TrackWriter};
use crate::webrtc::worker::{Config, Worker};

/// A keyframe this often.
const GOP: u64 = 60;
const MOST: usize = 10_000;

pub(super) struct Side {
    shared: Shared,
    sessions: Sessions,
    room: RoomName,
    /// Dropped, a session ends.
    asks: Vec<mpsc::Sender<Ask>>,
    tasks: JoinSet<()>,
    shutdown: watch::Sender<bool>,
    worker: Worker,
}

impl Side {
    pub async fn start() -> anyhow::Result<Self> {
        let (shutdown, stop) = watch::channel(false);
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            public_ips: Vec::new(),
            ice_lite: false,
            max_sessions: MOST,
            connections: ConnectionLimit::new(1, 1),
        };
        let worker = Worker::start(config, stop.clone()).await?;
        let registry = Registry::new(RoomLimits {
            rooms: 1,
            members: MOST,
        });
        let room = RoomName::parse("bench").map_err(|error| anyhow::anyhow!("{error}"))?;
        let join = Join {
            name: "source".to_owned(),
            fingerprint: Fingerprint::of(b"source"),
            door: Door::Whip,
            resume: None,
            resumable: false,
        };
        let source = registry.join(&room, join).await?;
        let id = TrackId {
            source: source.id(),
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
        source.set_tracks(vec![(info, track)]).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(publish(source, writer));
        Ok(Self {
            shared: Shared {
                registry,
                peers: worker.peers(),
                max_video_bitrate: 10_000_000,
                shutdown: stop,
            },
            sessions: Sessions::new(MOST, &[]),
            room,
            asks: Vec::new(),
            tasks,
            shutdown,
            worker,
        })
    }

    pub async fn answer(&mut self, offer: String) -> anyhow::Result<String> {
        let place = self.sessions.reserve().context("too many viewers")?;
        let request = Request {
            role: Role::Viewer,
            room: self.room.clone(),
            name: "viewer".to_owned(),
            wanted: Wanted::Source("source".to_owned()),
            offer,
        };
        let opened = Session::open(self.shared.clone(), request).await?;
        let (asks, asked) = mpsc::channel(ASKS);
        self.asks.push(asks);
        self.tasks.spawn(opened.session.run(asked, place));
        Ok(opened.answer)
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.send_replace(true);
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        Ok(self.worker.join().await?)
    }
}

/// Writes frames into the log, without end.
async fn publish(source: Membership, mut writer: TrackWriter) {
    let (keyframe, delta) = (forward::frame(true), forward::frame(false));
    let mut tick = tokio::time::interval(Duration::from_secs(1) / FPS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let room = source.room().clone();
    for index in 0u64.. {
        tick.tick().await;
        let is_keyframe = index.is_multiple_of(GOP);
        let now = room.now();
        let draft = Draft {
            codec: Codec::H264Baseline,
            keyframe: is_keyframe,
            ticks: index * 90_000 / u64::from(FPS),
            time: now,
            size: None,
            payload: if is_keyframe { keyframe.clone() } else { delta.clone() },
        };
        writer.append(draft, now);
    }
}

//! A running door, and members to put through it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use quinn::{Connection, Endpoint};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wzp_gateway::native::client::{ConnectError, Event};
use wzp_gateway::native::counters::Counters;
use wzp_gateway::native::{Config, Server};
use wzp_gateway::room::registry::{Registry, RoomLimits};
use wzp_proto::identity::Identity;
use wzp_proto::packet::MediaPacket;
use wzp_proto::signal::Signal;

#[path = "../support/member.rs"]
mod member;

pub use member::*;

/// A door that runs until dropped.
pub struct Door {
    pub address: SocketAddr,
    pub registry: Registry,
    pub counters: Arc<Counters>,
    pub stop: watch::Sender<bool>,
    pub task: JoinHandle<()>,
}

impl Door {
    pub fn open() -> Self {
        Self::open_with(|_| {})
    }

    pub fn open_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::open_room(4, change)
    }

    /// Rooms of this many members.
    pub fn open_room(members: usize, change: impl FnOnce(&mut Config)) -> Self {
        Self::open_registry(Registry::new(RoomLimits { rooms: 100, members }), change)
    }

    pub fn open_registry(registry: Registry, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(([127, 0, 0, 1], 0).into());
        change(&mut config);
        let identity = Arc::new(Identity::from_seed(&[0x24; 32]));
        let server = Server::bind(config, registry.clone(), identity).unwrap();
        let (stop, stopped) = watch::channel(false);
        Self {
            address: server.local_addr().unwrap(),
            registry,
            counters: server.counters(),
            stop,
            task: tokio::spawn(server.run(stopped)),
        }
    }

    pub async fn join(&self, room: &str, alias: &str) -> Member {
        self.try_join(room, alias, rand::random(), None).await.unwrap()
    }

    pub async fn try_join(
        &self,
        room: &str,
        alias: &str,
        seed: [u8; 32],
        token: Option<&str>,
    ) -> Result<Member, ConnectError> {
        Member::join(self.address, room, alias, seed, token).await
    }

    /// Joins like [`Door::join`], but nothing is read or accepted after the answer.
    pub async fn join_deaf(&self, room: &str, alias: &str) -> (Endpoint, Connection) {
        join_deaf(self.address, room, alias).await
    }
}

/// Runs ffmpeg.
pub fn ffmpeg(arguments: &[&str]) {
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-y"])
        .args(arguments)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "ffmpeg {arguments:?}");
}

/// Makes an H.264 file with a keyframe every `gop` pictures, ten seconds or less; its path.
pub fn h264(directory: &Path, gop: u32) -> String {
    let path = directory.join("in.h264").to_string_lossy().into_owned();
    let (seconds, gop) = (gop.div_ceil(30).max(3).to_string(), gop.to_string());
    let source = [
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=640x360:rate=30",
        "-t",
        &seconds,
        "-c:v",
        "libx264",
    ];
    let encoder = ["-profile:v", "baseline", "-bf", "0", "-g", &gop, "-b:v", "900k"];
    ffmpeg(&[&source[..], &encoder, &["-sc_threshold", "0", &path]].concat());
    path
}

impl Member {
    /// Sends a picture on stream 3; the number of packets.
    pub fn send_picture(&self, first_seq: u32, timestamp: u32, unit: &Bytes, keyframe: bool) -> u32 {
        self.send_picture_on(3, first_seq, timestamp, unit, keyframe)
    }

    /// The answer to a ping.
    pub async fn wait_pong(&mut self) {
        self.wait("a pong", |event| {
            matches!(event, Event::Signal(Signal::Pong { .. })).then_some(())
        })
        .await;
    }

    /// Everything that came has been dealt with by the door when this returns.
    pub async fn ping(&mut self) {
        self.ping_and(|_| {}).await;
    }

    /// As [`Member::ping`]; the packets that come meanwhile are for `take`.
    pub async fn ping_and(&mut self, mut take: impl FnMut(MediaPacket)) {
        let time = rand::random::<u32>().into();
        assert!(self.client.sender().signal(Signal::ping(time)));
        self.wait("the pong", |event| match event {
            Event::Signal(Signal::Pong { timestamp_ms, .. }) if timestamp_ms == time => Some(()),
            Event::Packet(packet) => {
                take(packet);
                None
            }
            Event::Closed(error) => panic!("closed: {error}"),
            _ => None,
        })
        .await;
    }
}

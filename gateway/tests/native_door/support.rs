//! A running door, and members to put through it.

use std::net::SocketAddr;
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
        let registry = Registry::new(RoomLimits { rooms: 100, members: 4 });
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

impl Member {
    /// Sends a picture on stream 3; the number of packets.
    pub fn send_picture(&self, first_seq: u32, timestamp: u32, unit: &Bytes, keyframe: bool) -> u32 {
        self.send_picture_on(3, first_seq, timestamp, unit, keyframe)
    }

    /// Everything that came has been dealt with by the door when this returns.
    pub async fn ping(&mut self) {
        let time = rand::random::<u32>().into();
        assert!(self.client.sender().signal(Signal::ping(time)));
        self.wait("the pong", |event| match event {
            Event::Signal(Signal::Pong { timestamp_ms, .. }) if timestamp_ms == time => Some(()),
            Event::Closed(error) => panic!("closed: {error}"),
            _ => None,
        })
        .await;
    }
}

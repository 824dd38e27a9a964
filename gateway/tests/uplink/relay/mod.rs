//! A stand-in of the existing relay over real QUIC, with its habits and defects.
//!
//! What it does and does not do is taken from the code of the real one (WZP wire v2, sections 3.5, 3.6, 4.1, 4.7, 7.5 and
//! 8.2): media without sender, a cache of keyframes that audio spoils, requests for keyframes to everybody, most signals
//! ignored and an unknown one punished, one deaf member stalling the others. It runs in a runtime of its own, so that it can
//! be killed like a process: without a word.

mod net;
mod room;
mod session;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Endpoint, EndpointConfig};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::timeout;
use wzp_gateway::native::transport;
use wzp_proto::codec::QualityProfile;
use wzp_proto::identity::Identity;
use wzp_proto::signal::Signal;

use crate::member::DEADLINE;
pub use net::Link;
use net::{Blackhole, Socket};
use room::Rooms;

/// The relay's idle time.
const IDLE: Duration = Duration::from_secs(30);

/// What kind of relay.
#[derive(Clone, Debug)]
pub struct Options {
    /// Demands a token, and knows these: the fingerprint of each.
    pub accounts: Option<BTreeMap<String, String>>,
    /// Which protocol version it serves.
    pub speaks: Speaks,
    /// How it hands media on.
    pub form: Form,
    /// How old it is.
    pub vintage: Vintage,
    /// What happens to media on the way to members.
    pub link: Link,
    /// Most members in all rooms.
    pub sessions: usize,
    /// Its answer arrives before it closes on somebody who finds no place; else the close mostly overtakes it.
    pub answer_arrives: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            accounts: None,
            speaks: Speaks::Two,
            form: Form::Plain,
            vintage: Vintage::Newest,
            link: Link::default(),
            sessions: 100,
            answer_arrives: false,
        }
    }
}

/// Protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// Ours.
    Two,
    /// The older one, which it says before it closes.
    One,
    /// The older one; what it says is lost to the close.
    OneUnsaid,
}

/// Forms of media toward members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Packets as they came.
    Plain,
    /// Sealed with the session of the member they go to.
    Sealed,
    /// In trunk frames.
    Trunks,
}

/// Versions of the relay that differ in what they do with video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vintage {
    /// A number for each sender instead of the stream id; H.264 is forwarded on stream 1, too.
    Newest,
    /// Stream ids as sent, and only stream 0 is forwarded.
    Older,
}

/// What happened, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// Somebody is in a room.
    Joined {
        /// Its number.
        id: u64,
        /// The server name as it came.
        room: String,
        /// As it calls itself.
        alias: Option<String>,
        /// Its own, or its account's.
        fingerprint: String,
    },
    /// Somebody is gone.
    Left {
        /// Its number.
        id: u64,
        /// What it closed with; none if it did not close.
        code: Option<u64>,
    },
    /// The same fingerprint joined again.
    Evicted {
        /// The earlier one's number.
        id: u64,
    },
    /// Somebody was not let in.
    Refused(Refusal),
    /// A member sent a signal; what the relay does with it is another matter.
    Signal {
        /// The member's number.
        id: u64,
        /// What it sent.
        signal: Signal,
    },
    /// A member sent what the relay cannot read, and was thrown out.
    BadSignal {
        /// The member's number.
        id: u64,
    },
}

/// Why somebody was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No token, or a wrong one.
    Token,
    /// Another first message than an offer, or a bad one.
    Offer,
    /// Another version.
    Version,
    /// No place.
    Full,
}

/// What was counted, over all lives of the stand-in.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Media packets of members.
    pub packets_in: u64,
    /// Datagrams of members that are none.
    pub malformed: u64,
    /// Datagrams to members.
    pub datagrams_out: u64,
    /// Lost on purpose.
    pub lost: u64,
    /// Held back on purpose, so that others overtake.
    pub held_back: u64,
    /// Too large for a member's path.
    pub too_large: u64,
    /// Video packets not for a member's layer.
    pub other_layer: u64,
    /// Packets of cached keyframes sent to newcomers.
    pub replayed: u64,
    /// Streams opened toward members.
    pub streams_opened: u64,
    /// Of these, finished or reset by the member, too.
    pub streams_finished: u64,
    /// Keyframe requests passed on, each counted once.
    pub requests_passed: u64,
    /// Keyframe requests dropped, because nobody is known to send that stream or one passed just now.
    pub requests_dropped: u64,
}

/// What a stand-in remembers over its lives.
#[derive(Debug)]
struct Journal {
    events: Mutex<Vec<Event>>,
    counters: Mutex<Counters>,
    changed: watch::Sender<()>,
}

impl Journal {
    fn note(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        self.changed.send_replace(());
    }

    fn count(&self, count: impl FnOnce(&mut Counters)) {
        count(&mut self.counters.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
    }
}

/// One life of a stand-in.
#[derive(Debug)]
struct Relay {
    options: Options,
    identity: Identity,
    journal: Arc<Journal>,
    rooms: Mutex<Rooms>,
}

impl Relay {
    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stand-in. Dies when dropped.
#[derive(Debug)]
pub struct StandIn {
    /// Where it listens, in every life.
    pub addr: SocketAddr,
    options: Options,
    journal: Arc<Journal>,
    blackhole: Arc<Blackhole>,
    life: Option<Life>,
}

#[derive(Debug)]
struct Life {
    runtime: Runtime,
    endpoint: Endpoint,
    relay: Arc<Relay>,
}

impl StandIn {
    /// Starts one on a free port of the loopback.
    pub fn start(options: Options) -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let mut stand_in = Self {
            addr: socket.local_addr().unwrap(),
            options,
            journal: Arc::new(Journal {
                events: Mutex::default(),
                counters: Mutex::default(),
                changed: watch::Sender::new(()),
            }),
            blackhole: Arc::default(),
            life: None,
        };
        stand_in.live(socket);
        stand_in
    }

    fn live(&mut self, socket: UdpSocket) {
        let identity = Identity::from_seed(&[0x24; 32]);
        let server = transport::server_config(&identity, IDLE).unwrap();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let entered = runtime.enter();
        let socket = Socket::new(socket, self.blackhole.clone()).unwrap();
        let quinn = Arc::new(quinn::TokioRuntime);
        let endpoint =
            Endpoint::new_with_abstract_socket(EndpointConfig::default(), Some(server), socket, quinn).unwrap();
        drop(entered);
        let relay = Arc::new(Relay {
            rooms: Mutex::new(Rooms::new(self.options.vintage)),
            options: self.options.clone(),
            identity,
            journal: self.journal.clone(),
        });
        runtime.spawn(session::accept(endpoint.clone(), relay.clone()));
        self.life = Some(Life {
            runtime,
            endpoint,
            relay,
        });
    }

    /// Dies like a killed process: nobody is told, and the port is free.
    pub async fn kill(&mut self) {
        if let Some(life) = self.life.take() {
            life.runtime.shutdown_background();
        }
        self.free_port().await;
    }

    /// Stops like a program that is asked to: connections are closed, and the port is free.
    pub async fn stop(&mut self) {
        if let Some(life) = self.life.take() {
            life.endpoint.close(0u32.into(), b"");
            timeout(DEADLINE, life.endpoint.wait_idle()).await.unwrap();
            life.runtime.shutdown_background();
        }
        self.free_port().await;
    }

    /// Lives again on the same port, with the rooms empty.
    pub async fn restart(&mut self) {
        self.kill().await;
        let socket = self.free_port().await;
        self.live(socket);
    }

    async fn free_port(&self) -> UdpSocket {
        let binding = async {
            loop {
                match UdpSocket::bind(self.addr) {
                    Ok(socket) => return socket,
                    // The old life's tasks are still being dropped.
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        timeout(DEADLINE, binding).await.expect("the port becomes free")
    }

    /// Whether everything that comes and goes is swallowed. Connections stay as they are.
    pub fn set_blackhole(&self, on: bool) {
        self.blackhole.open.store(on, Ordering::SeqCst);
    }

    /// How many UDP datagrams have come and been swallowed.
    pub fn swallowed(&self) -> u64 {
        self.blackhole.swallowed.load(Ordering::SeqCst)
    }

    /// The aliases in a room, in the order of joining.
    pub fn members(&self, room: &str) -> Vec<String> {
        let life = self.life.as_ref().expect("alive");
        life.relay.rooms().aliases(room)
    }

    /// Tells everybody in a room to send in this profile.
    pub async fn direct(&self, room: &str, profile: QualityProfile) {
        let life = self.life.as_ref().expect("alive");
        let connections = life.relay.rooms().connections(room);
        let directive = Signal::quality_directive(profile, Some("weakest link".to_owned()));
        session::broadcast(&life.relay.journal, &connections, &directive).await;
    }

    /// Writes bytes on a stream to everybody in a room, and ends it, or leaves it open for ever.
    pub async fn write(&self, room: &str, bytes: &[u8], ends: bool) {
        let life = self.life.as_ref().expect("alive");
        let connections = life.relay.rooms().connections(room);
        for connection in connections {
            let (mut stream, _) = connection.open_bi().await.unwrap();
            stream.write_all(bytes).await.unwrap();
            if ends {
                stream.finish().unwrap();
            } else {
                life.runtime.spawn(async move {
                    let _open = stream;
                    std::future::pending::<()>().await;
                });
            }
        }
    }

    /// Sends a datagram to everybody in a room.
    pub fn throw(&self, room: &str, datagram: &Bytes) {
        let life = self.life.as_ref().expect("alive");
        for connection in life.relay.rooms().connections(room) {
            connection.send_datagram(datagram.clone()).unwrap();
        }
    }

    /// All that was counted so far.
    pub fn counters(&self) -> Counters {
        let counters = self.journal.counters.lock();
        counters.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All that happened so far.
    pub fn events(&self) -> Vec<Event> {
        let events = self.journal.events.lock();
        events.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for an event, which may have happened already.
    pub async fn wait<T>(&self, what: &str, pick: impl FnMut(&Event) -> Option<T>) -> T {
        let mut pick = pick;
        self.wait_until(what, |stand_in| stand_in.events().iter().find_map(&mut pick))
            .await
    }

    /// Waits for a state, looked at whenever something happened or was counted.
    pub async fn wait_until<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let mut changes = self.journal.changed.subscribe();
        let waiting = async {
            loop {
                if let Some(seen) = look(self) {
                    return seen;
                }
                changes
                    .changed()
                    .await
                    .expect("the journal lives as long as the stand-in");
            }
        };
        match timeout(DEADLINE, waiting).await {
            Ok(seen) => seen,
            Err(_) => panic!("{what} did not happen at the relay: {:#?}", self.events()),
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Some(life) = self.life.take() {
            life.runtime.shutdown_background();
        }
    }
}

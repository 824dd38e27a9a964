//! The listening side: connections in, one task for each, sorted by server name (WZP wire v2, section 1.3).

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Endpoint, EndpointConfig, Incoming};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use wzp_proto::identity::Identity;
use wzp_proto::room_name::reserved::Sni;

use crate::native::auth::Authenticate;
use crate::native::counters::Counters;
use crate::native::rate::Rates;
use crate::native::session::{self, Shared};
use crate::native::transport::{self, close};
use crate::net::{self, ConnectionLimit, LimitReached};
use crate::room::registry::Registry;

/// How long a stopping server waits for its connections to say goodbye.
const STOP_DEADLINE: Duration = Duration::from_secs(2);
/// A version text is read within this.
const VERSION_DEADLINE: Duration = Duration::from_secs(1);

/// Bounds of the native door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections whose handshake is not finished.
    pub handshakes: usize,
    /// From the first packet to the answered offer.
    pub handshake_deadline: Duration,
    /// A member that is silent for this long is lost.
    pub idle: Duration,
    /// What a member may send.
    pub rates: Rates,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 256,
            handshake_deadline: Duration::from_secs(10),
            idle: transport::IDLE,
            rates: Rates::default(),
        }
    }
}

/// Settings of the native door.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen, UDP. Port 0 picks a free one; `[::]` takes IPv4 too.
    pub listen: SocketAddr,
    /// Bounds.
    pub limits: Limits,
    /// Connections at once; with the other doors if they have a clone of it.
    pub connections: ConnectionLimit,
    /// What `version` connections are told.
    pub version: String,
    /// Demands a token, if set.
    pub auth: Option<Arc<dyn Authenticate>>,
}

impl Config {
    /// Defaults at this address.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            limits: Limits::default(),
            connections: ConnectionLimit::new(2_000, 64),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            auth: None,
        }
    }
}

/// The native door, bound and ready to run.
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    connections: ConnectionLimit,
    version: Arc<str>,
}

impl Server {
    /// Binds the UDP socket. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The address cannot be bound, or the certificate cannot be made.
    pub fn bind(config: Config, registry: Registry, identity: Arc<Identity>) -> io::Result<Self> {
        let server = transport::server_config(&identity, config.limits.idle).map_err(io::Error::other)?;
        let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("no tokio runtime to listen in"))?;
        let socket = net::udp_socket(config.listen)?;
        let endpoint = Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime)?;
        Ok(Self {
            endpoint,
            shared: Arc::new(Shared {
                registry,
                identity,
                limits: config.limits,
                auth: config.auth,
                counters: Arc::default(),
            }),
            connections: config.connections,
            version: config.version.into(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// What it has done so far.
    pub fn counters(&self) -> Arc<Counters> {
        self.shared.counters.clone()
    }

    /// Serves until `shutdown` is true or its sender is gone, then says goodbye to everyone.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let limits = self.shared.limits;
        let handshakes = Arc::new(Semaphore::new(limits.handshakes));
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => {
                    let Some(incoming) = incoming else { break };
                    while sessions.try_join_next().is_some() {}
                    let counters = &self.shared.counters;
                    let free = handshakes.available_permits();
                    // Half of the places are for those who have proved their address.
                    if free * 2 < limits.handshakes && !incoming.remote_address_validated() && incoming.may_retry() {
                        counters.retried.one();
                        incoming.retry().ok();
                        continue;
                    }
                    let Ok(handshake) = handshakes.clone().try_acquire_owned() else {
                        counters.refused_handshakes.one();
                        incoming.refuse();
                        continue;
                    };
                    let permit = match self.connections.acquire(incoming.remote_address().ip()) {
                        Ok(permit) => permit,
                        Err(reached) => {
                            match reached {
                                LimitReached::Total => counters.refused_total.one(),
                                LimitReached::PerIp => counters.refused_per_ip.one(),
                            }
                            incoming.refuse();
                            continue;
                        }
                    };
                    let (shared, version, shutdown) = (self.shared.clone(), self.version.clone(), shutdown.clone());
                    sessions.spawn(async move {
                        let _permit = permit;
                        serve(incoming, shared, version, handshake, shutdown).await;
                    });
                }
                changed = shutdown.changed() => if changed.is_err() || *shutdown.borrow() { break },
            }
        }
        self.endpoint.set_server_config(None);
        let goodbye = async { while sessions.join_next().await.is_some() {} };
        timeout(STOP_DEADLINE, goodbye).await.ok();
        self.endpoint.close(close::STOPPING, b"the server is stopping");
        timeout(STOP_DEADLINE, self.endpoint.wait_idle()).await.ok();
        let counts: BTreeMap<_, _> = self
            .shared
            .counters
            .all()
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect();
        tracing::info!(?counts, "the native door is closed");
    }
}

/// Serves one connection to its end. `handshake` is its place among the unfinished ones.
async fn serve(
    incoming: Incoming,
    shared: Arc<Shared>,
    version: Arc<str>,
    handshake: tokio::sync::OwnedSemaphorePermit,
    shutdown: watch::Receiver<bool>,
) {
    let address = incoming.remote_address();
    let deadline = tokio::time::Instant::now() + shared.limits.handshake_deadline;
    let connection = match tokio::time::timeout_at(deadline, incoming).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            shared.counters.handshake_failed.one();
            tracing::debug!(%address, %error, "a native connection did not come about");
            return;
        }
        Err(_) => {
            shared.counters.handshake_timeout.one();
            return;
        }
    };
    shared.counters.connections.one();
    match Sni::classify(server_name(&connection).as_deref()) {
        Sni::Ping => connection.close(close::NORMAL, b"pong"),
        Sni::Version => tell_version(&connection, &version).await,
        Sni::Refused { name, reason } => {
            tracing::debug!(%address, name, "server name refused");
            connection.close(close::NAME, reason.to_string().as_bytes());
        }
        Sni::Room(room) => session::run(connection, room, shared, handshake, deadline, shutdown).await,
    }
}

fn server_name(connection: &Connection) -> Option<String> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    data.server_name
}

async fn tell_version(connection: &Connection, version: &str) {
    let telling = async {
        let mut stream = connection.open_uni().await.ok()?;
        stream.write_all(version.as_bytes()).await.ok()?;
        stream.finish().ok()?;
        stream.stopped().await.ok()
    };
    timeout(VERSION_DEADLINE, telling).await.ok();
    connection.close(close::NORMAL, b"");
}

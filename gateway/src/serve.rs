//! Builds everything from the configuration, runs it, and shuts it down in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use wzp_proto::room_name::RoomName;

use crate::auth::Auth;
use crate::browser::session;
use crate::config::{Config, Tls};
use crate::http::listener::{Deadlines, Listener};
use crate::http::pages::Pages;
use crate::http::router::{App, router};
use crate::http::server;
use crate::http::whip;
use crate::metrics::{self, Metrics};
use crate::native;
use crate::net::{self, ConnectionLimit};
use crate::pcm;
use crate::room::registry::{Registry, RoomLimits};
use crate::state::StateDir;
use crate::uplink;
use crate::webrtc::worker::{self, Ended, Worker};

/// Bytes of one video frame from a browser.
const MAX_FRAME_BYTES: usize = 1 << 20;
/// Sessions get this long to say goodbye.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(4);

/// The shared tokens, as the native door asks for them.
#[derive(Debug)]
struct Tokens(Auth);

impl native::auth::Authenticate for Tokens {
    fn authenticate<'a>(&'a self, token: &'a str, _room: &'a RoomName) -> native::auth::AuthFuture<'a> {
        Box::pin(async move {
            if self.0.accepts(token) {
                Ok(native::auth::Authenticated::default())
            } else {
                Err(native::auth::AuthError("the token is not valid".to_owned()))
            }
        })
    }
}

/// Where a running gateway listens.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Addresses {
    /// HTTPS or HTTP.
    pub http: SocketAddr,
    /// QUIC.
    pub native: Option<SocketAddr>,
    /// WebRTC media, UDP and TCP.
    pub webrtc: Option<SocketAddr>,
    /// RTMP.
    pub rtmp: Option<SocketAddr>,
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    addresses: Addresses,
    registry: Registry,
    pcm: Arc<pcm::Counters>,
    shutdown: watch::Sender<bool>,
    sessions: TaskTracker,
    tasks: Vec<JoinHandle<()>>,
    failure: oneshot::Receiver<Ended>,
}

impl Gateway {
    /// Starts everything that the configuration asks for; when this returns, everything listens.
    ///
    /// # Errors
    /// A port is taken, a file is missing or wrong: the text names it.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        // Better no start than a setting that silently does nothing.
        anyhow::ensure!(
            config.rtmp.is_none(),
            "rtmp: RTMP is not in this version yet; leave it out"
        );
        let state = StateDir::open(&config.state_dir)?;
        let limits = RoomLimits {
            rooms: config.max_rooms,
            members: config.max_members,
        };
        let registry = Registry::with_replay(limits, config.replay);
        let limit = ConnectionLimit::new(config.max_connections, config.max_connections_per_ip);
        let auth = Auth::new(config.tokens.iter().map(String::as_str));
        let (shutdown, stop) = watch::channel(false);
        let mut tasks = Vec::new();

        let worker = Worker::start(
            worker::Config {
                listen: config.webrtc,
                public_ips: config.public_ip.clone(),
                ice_lite: config.ice_lite,
                max_sessions: config.max_connections,
                connections: limit.clone(),
            },
            stop.clone(),
        )
        .await?;
        let webrtc = worker.address();

        let identity = Arc::new(state.identity(rand::random())?);
        let mut native = native::Config::new(config.native);
        native.connections = limit.clone();
        native.auth = auth
            .is_required()
            .then(|| Arc::new(Tokens(auth.clone())) as Arc<dyn native::auth::Authenticate>);
        let server = native::Server::bind(native, registry.clone(), identity)
            .with_context(|| format!("cannot listen on {} (native, UDP)", config.native))?;
        let native = server.local_addr()?;
        let mut uplinks = uplink::Config::new(config.uplinks.clone());
        uplinks.remote = (config.max_members / 2).max(1);

        let tls = tls_config(config, &state)?;
        let socket =
            net::tcp_listener(config.http).with_context(|| format!("cannot listen on {} (http)", config.http))?;
        let deadlines = Deadlines::default();
        let listener = Listener::new(socket, tls, limit.clone(), deadlines)?;
        let http = listener.address();
        let sessions = TaskTracker::new();
        let whip = whip::table::Sessions::new(config.max_connections, &config.ice_servers);
        let pcm = Arc::<pcm::Counters>::default();
        let metrics = Metrics::new(metrics::Sources {
            rooms: registry.clone(),
            room_names: auth.is_required(),
            connections: limit,
            whip: whip.clone(),
            native: server.counters(),
            pcm: pcm.clone(),
            uplinks: uplinks.counters.clone(),
        });
        let app = App {
            session: session::Config {
                registry: registry.clone(),
                auth,
                max_video_bitrate: config.max_video_bitrate,
                max_frame_bytes: MAX_FRAME_BYTES,
                peers: Some(worker.peers()),
                ice_servers: config.ice_servers.clone(),
                timing: session::Timing::default(),
            },
            whip,
            pcm: pcm.clone(),
            metrics: Arc::new(metrics),
            pages: config.static_dir.clone().map_or(Pages::Embedded, Pages::Folder),
            allowed_origins: config.allowed_origins.clone().into(),
            sessions: sessions.clone(),
            shutdown: stop.clone(),
        };
        tasks.push(tokio::spawn(server::run(
            listener,
            router(app),
            deadlines,
            stop.clone(),
        )));

        if !config.uplinks.is_empty() {
            tasks.push(tokio::spawn(uplink::run(uplinks, registry.clone(), stop.clone())));
        }
        tasks.push(tokio::spawn(server.run(stop)));
        let (failed, failure) = oneshot::channel();
        tasks.push(tokio::spawn(supervise(worker, failed)));

        let addresses = Addresses {
            http,
            native: Some(native),
            webrtc: Some(webrtc),
            rtmp: None,
        };
        Ok(Self {
            addresses,
            registry,
            pcm,
            shutdown,
            sessions,
            tasks,
            failure,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Its rooms.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What the door for samples did.
    pub fn pcm(&self) -> &pcm::Counters {
        &self.pcm
    }

    /// Waits for a failure that the gateway cannot go on after: it would look alive and connect nobody any more. Whoever
    /// runs it should end it, so that it is started again.
    pub async fn failed(&mut self) -> Ended {
        match (&mut self.failure).await {
            Ok(ended) => ended,
            // The worker ended as it should, and will not fail any more.
            Err(_) => std::future::pending().await,
        }
    }

    /// Says goodbye to everybody and ends all tasks, within about five seconds.
    pub async fn shutdown(self) {
        self.shutdown.send_replace(true);
        let deadline = Instant::now() + SHUTDOWN_DEADLINE;
        self.sessions.close();
        if timeout_at(deadline, self.sessions.wait()).await.is_err() {
            tracing::warn!(sessions = self.sessions.len(), "browsers that got no goodbye in time");
        }
        for mut task in self.tasks {
            if timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

/// Waits for the worker's end and passes on one that nobody asked for.
async fn supervise(worker: Worker, failed: oneshot::Sender<Ended>) {
    if let Err(ended) = worker.join().await {
        failed.send(ended).ok();
    }
}

fn tls_config(config: &Config, state: &StateDir) -> anyhow::Result<Option<Arc<rustls::ServerConfig>>> {
    let (cert, key) = match &config.tls {
        Tls::Off => return Ok(None),
        Tls::SelfSigned => state.certificate(&config.public_ip)?,
        Tls::Files { cert, key } => {
            let read = |path: &std::path::Path| {
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
            };
            (read(cert)?, read(key)?)
        }
    };
    let chain = CertificateDer::pem_slice_iter(cert.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .context("the TLS certificate is not PEM")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("the TLS private key is not PEM")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the TLS certificate and key do not fit together")?;
    // WebSockets want a connection of their own, so HTTP/1.1 is what this door speaks.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(tls)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_breaks_is_a_failure_of_the_gateway() {
        let (failed, failure) = oneshot::channel();
        supervise(Worker::that_breaks(), failed).await;
        let ended = failure.await.unwrap();
        assert!(matches!(ended, Ended::Panic), "{ended}");
    }
}

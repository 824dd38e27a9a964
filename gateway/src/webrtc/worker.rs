//! The WebRTC worker: one thread that owns the engine, its sockets, and every peer's legs.
//!
//! In: datagrams, commands of sessions ([`PeerCommand`]), frames of the rooms' logs. Out: datagrams, frames in the logs,
//! [`PeerEvent`]s. One turn of its loop takes what came, feeds every leg that has something new, and sends the packets of
//! a frame to a viewer together.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::media::frame::RoomTime;
use crate::net::{self, ConnectionLimit};
use crate::room::peer::{PeerCommand, PeerContext, PeerId, Peers, Refused, Sending};
use crate::webrtc::engine::{self, Engine, Event, OfferError, OfferPolicy, OutgoingRtp, Protocol, Reason, SessionId};
use crate::webrtc::net::{BindError, Config as NetConfig, Sockets};
use crate::webrtc::peer::Peer;

#[cfg(test)]
mod tests;

/// While packets wait for their predecessors, or a replay for its pace, the worker looks again after this.
const TICK: Duration = Duration::from_millis(5);
/// Reports and judgements are due this often.
const SLOW_TICK: Duration = Duration::from_millis(500);
/// Commands taken in one turn.
const COMMANDS_PER_TURN: usize = 64;

/// Settings of the worker.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen, UDP and TCP.
    pub listen: SocketAddr,
    /// Addresses that peers are told in place of our own (1:1 NAT).
    pub public_ips: Vec<IpAddr>,
    /// Answer as ICE-lite.
    pub ice_lite: bool,
    /// Peers at once.
    pub max_sessions: usize,
    /// TCP connections at once; with the other doors if they have a clone of it.
    pub connections: ConnectionLimit,
}

/// Why the worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The sockets.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] engine::SetupError),
    /// The thread.
    #[error("the WebRTC thread did not start: {0}")]
    Thread(#[from] io::Error),
    /// The thread ended before it was ready.
    #[error("the WebRTC thread ended at once")]
    Gone,
}

/// Why the worker ended without having been told to.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// A socket does not work any more.
    #[error("a WebRTC socket stopped working: {0}")]
    Sockets(#[from] io::Error),
    /// A panic, which the log names.
    #[error("the WebRTC thread broke: this is a defect of the gateway; the log says where")]
    Panic,
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    peers: Peers,
    address: SocketAddr,
    thread: std::thread::JoinHandle<Result<(), Ended>>,
}

impl Worker {
    /// Starts the thread. It ends after `shutdown` has turned true.
    ///
    /// # Errors
    /// The port is taken, or no key could be made.
    pub async fn start(config: Config, shutdown: watch::Receiver<bool>) -> Result<Self, StartError> {
        let (peers, commands) = Peers::channel();
        let (ready, started) = oneshot::channel();
        let thread = std::thread::Builder::new().name("webrtc".to_owned()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    ready.send(Err(error.into())).ok();
                    return Ok(());
                }
            };
            runtime.block_on(async {
                match Loop::new(&config, commands) {
                    Ok((worker, address)) => {
                        ready.send(Ok(address)).ok();
                        worker.run(shutdown).await
                    }
                    Err(error) => {
                        ready.send(Err(error)).ok();
                        Ok(())
                    }
                }
            })
        })?;
        let address = started.await.map_err(|_| StartError::Gone)??;
        Ok(Self { peers, address, thread })
    }

    /// One whose thread breaks.
    #[cfg(test)]
    pub(crate) fn that_breaks() -> Self {
        Self {
            peers: Peers::channel().0,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            thread: std::thread::spawn(|| panic!("as a bug would")),
        }
    }

    /// The way to it.
    pub fn peers(&self) -> Peers {
        self.peers.clone()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for its end, which `shutdown` brings about.
    ///
    /// # Errors
    /// It ended without having been told to: no session of it is left, and no new one can begin.
    pub async fn join(self) -> Result<(), Ended> {
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        match joined {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) | Err(_) => Err(Ended::Panic),
        }
    }
}

struct Loop {
    engine: Engine,
    sockets: Sockets,
    commands: mpsc::Receiver<PeerCommand>,
    peers: BTreeMap<SessionId, Peer>,
    waker: Arc<Notify>,
    /// A leg has more to send than its pace allows.
    paced: bool,
    slow_at: Instant,
}

impl Loop {
    fn new(config: &Config, commands: mpsc::Receiver<PeerCommand>) -> Result<(Self, SocketAddr), StartError> {
        let listen = config.listen.ip();
        let addresses = match listen {
            IpAddr::V6(ip) if ip.is_unspecified() => vec![IpAddr::from([0, 0, 0, 0]), listen],
            other => vec![other],
        };
        let sockets = Sockets::bind(NetConfig {
            addresses,
            port: config.listen.port(),
            connections: config.connections.clone(),
        })?;
        let port = sockets.port();
        let mut ips = config.public_ips.clone();
        if listen.is_unspecified() {
            ips.extend(
                net::local_addresses()
                    .into_iter()
                    .filter(|ip| listen.is_ipv6() || ip.is_ipv4()),
            );
            ips.push(IpAddr::from([127, 0, 0, 1]));
        } else {
            ips.push(listen);
        }
        let mut candidates: Vec<SocketAddr> = Vec::with_capacity(ips.len());
        for ip in ips {
            let candidate = SocketAddr::new(ip, port);
            if !candidates.contains(&candidate) {
                candidates.push(candidate);
            }
        }
        let engine = Engine::new(
            Instant::now(),
            engine::Config {
                udp_candidates: candidates.clone(),
                tcp_candidates: candidates,
                ice_lite: config.ice_lite,
                max_sessions: config.max_sessions,
                ..engine::Config::default()
            },
        )?;
        let worker = Self {
            engine,
            sockets,
            commands,
            peers: BTreeMap::new(),
            waker: Arc::new(Notify::new()),
            paced: false,
            slow_at: Instant::now() + SLOW_TICK,
        };
        Ok((worker, SocketAddr::new(listen, port)))
    }

    async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> Result<(), Ended> {
        loop {
            let now = Instant::now();
            self.turn(now);
            let due = self.next_wake(now);
            let (engine, sockets) = (&mut self.engine, &mut self.sockets);
            tokio::select! {
                received = sockets.receive(|local, from, datagram| {
                    engine.handle_datagram(Instant::now(), local, from, datagram)
                }) => {
                    received?;
                }
                command = self.commands.recv() => match command {
                    Some(command) => {
                        self.command(command);
                        for _ in 0..COMMANDS_PER_TURN {
                            let Ok(command) = self.commands.try_recv() else { break };
                            self.command(command);
                        }
                    }
                    None => break,
                },
                () = self.waker.notified() => {}
                () = tokio::time::sleep_until(due.into()) => {}
                () = stopped(&mut shutdown) => break,
            }
        }
        let now = Instant::now();
        for id in std::mem::take(&mut self.peers).into_keys() {
            self.engine.close(now, id);
        }
        self.transmit();
        Ok(())
    }

    fn next_wake(&self, now: Instant) -> Instant {
        let mut due = self.slow_at;
        if let Some(at) = self.engine.next_timeout() {
            due = due.min(at);
        }
        if self.paced || self.peers.values().any(Peer::waits_for_packets) {
            due = due.min(now + TICK);
        }
        due
    }

    fn turn(&mut self, now: Instant) {
        self.engine.handle_timeout(now);
        self.events(now);
        let mut paced = false;
        self.each_peer(now, |peer, engine, id| {
            peer.advance(engine, id, now);
            paced |= peer.feed(engine, id, now);
        });
        self.paced = paced;
        if self.slow_at <= now {
            self.slow_at = now + SLOW_TICK;
            self.each_peer(now, |peer, engine, id| peer.slow_tick(engine, id, now));
        }
        self.transmit();
    }

    /// Does `work` on a peer behind a fence: a panic ends this peer and no other. `None`: there is no such peer, or it
    /// has just ended.
    fn with_peer<T>(
        &mut self,
        id: SessionId,
        now: Instant,
        work: impl FnOnce(&mut Peer, &mut Engine, &Arc<Notify>) -> T,
    ) -> Option<T> {
        let peer = self.peers.get_mut(&id)?;
        let (engine, waker) = (&mut self.engine, &self.waker);
        match catch_unwind(AssertUnwindSafe(|| work(peer, engine, waker))) {
            Ok(done) => Some(done),
            Err(_) => {
                self.broken(id, now);
                None
            }
        }
    }

    /// [`Loop::with_peer`] for all of them, one after the other.
    fn each_peer(&mut self, now: Instant, mut work: impl FnMut(&mut Peer, &mut Engine, SessionId)) {
        let mut broken = Vec::new();
        for (&id, peer) in &mut self.peers {
            let engine = &mut self.engine;
            if catch_unwind(AssertUnwindSafe(|| work(peer, engine, id))).is_err() {
                broken.push(id);
            }
        }
        for id in broken {
            self.broken(id, now);
        }
    }

    /// A peer's half of its session is not to be trusted any more.
    fn broken(&mut self, id: SessionId, now: Instant) {
        tracing::error!(
            peer = id.0,
            "a WebRTC session broke and was ended: this is a defect of the gateway"
        );
        if let Some(peer) = self.peers.remove(&id) {
            let _ = catch_unwind(AssertUnwindSafe(|| peer.close(Reason::Internal.to_string())));
        }
        self.engine.abandon(now, id);
    }

    fn transmit(&mut self) {
        while let Some(transmit) = self.engine.poll_transmit() {
            self.sockets.send(transmit);
        }
    }

    fn events(&mut self, now: Instant) {
        while let Some(event) = self.engine.poll_event() {
            if let Event::Closed { session, reason } = event {
                if let Some(peer) = self.peers.remove(&session) {
                    tracing::debug!(peer = session.0, %reason, left = self.engine.len(), "WebRTC session ended");
                    peer.close(reason.to_string());
                }
                continue;
            }
            let session = match &event {
                Event::Connected { session, .. }
                | Event::Disconnected { session }
                | Event::Negotiated { session, .. }
                | Event::Rtp { session, .. }
                | Event::KeyframeRequest { session, .. }
                | Event::Nack { session, .. }
                | Event::ReceiverReport { session, .. }
                | Event::SenderReport { session, .. }
                | Event::Estimate { session, .. }
                | Event::Closed { session, .. } => *session,
            };
            self.with_peer(session, now, |peer, engine, waker| {
                peer_event(peer, event, engine, waker, now);
            });
        }
    }

    fn command(&mut self, command: PeerCommand) {
        let now = Instant::now();
        match command {
            PeerCommand::Offer {
                peer,
                context,
                sdp,
                sends,
                reply,
            } => {
                let known = context.is_none();
                let answer = self.offer(peer, context, &sdp, sends, now);
                if reply.send(answer).is_err()
                    && let Some(gone) = self.close(peer, now)
                    && known
                {
                    // Its session holds on to it. One that has just begun was given up, perhaps for another.
                    gone.close("its offer was answered too late".to_owned());
                }
            }
            PeerCommand::Send { peer, sends } => {
                self.with_peer(session_of(peer), now, |peer, _, _| peer.add_sends(sends));
            }
            PeerCommand::Candidate { peer, candidate } => {
                if let Err(error) = self.engine.add_remote_candidate(now, session_of(peer), &candidate) {
                    tracing::debug!(peer = peer.0, %error, "candidate refused");
                }
            }
            PeerCommand::Receive { peer, on } => {
                self.with_peer(session_of(peer), now, |peer, _, waker| peer.set_receiving(on, waker));
            }
            PeerCommand::Pause { peer, tracks } => {
                self.with_peer(session_of(peer), now, |peer, _, waker| peer.set_unwanted(tracks, waker));
            }
            PeerCommand::Begin { peer, tracks } => {
                self.with_peer(session_of(peer), now, |peer, _, _| peer.begin(&tracks));
            }
            PeerCommand::RequestKeyframe { peer, slot } => {
                let id = session_of(peer);
                self.with_peer(id, now, |peer, engine, _| {
                    if let Some(mid) = peer.video_mid(slot)
                        && let Err(error) = engine.request_keyframe(now, id, mid, None)
                    {
                        tracing::debug!(peer = id.0, %error, "keyframe request");
                    }
                });
            }
            PeerCommand::Limit {
                peer,
                slot,
                max_bitrate,
            } => {
                let id = session_of(peer);
                self.with_peer(id, now, |peer, engine, _| {
                    peer.limit(slot, max_bitrate);
                    peer.repeat_limit(engine, id, now);
                });
            }
            PeerCommand::Update { peer } => {
                self.with_peer(session_of(peer), now, |peer, _, waker| peer.update(waker));
            }
            PeerCommand::Close { peer } => drop(self.close(peer, now)),
        }
    }

    fn offer(
        &mut self,
        id: PeerId,
        context: Option<Box<PeerContext>>,
        sdp: &str,
        sends: Vec<Sending>,
        now: Instant,
    ) -> Result<String, Refused> {
        // What came before the offer is of the m-lines before it.
        self.events(now);
        let session = session_of(id);
        let known = context.is_none();
        let peer = match (self.peers.remove(&session), context) {
            (Some(peer), _) => peer,
            (None, Some(context)) => Peer::new(*context),
            (None, None) => {
                return Err(Refused {
                    no_codec: false,
                    unable: false,
                    message: "this WebRTC session has ended".to_owned(),
                });
            }
        };
        let streams = catch_unwind(AssertUnwindSafe(|| peer.streams(sdp))).unwrap_or_default();
        let policy = OfferPolicy {
            max_video_bps: Some(u64::from(peer.max_video_bitrate())),
            streams,
            ..OfferPolicy::default()
        };
        let answer = self.engine.accept_offer(now, session, sdp, &policy);
        if self.engine.contains(session) {
            self.peers.insert(session, peer);
            self.with_peer(session, now, |peer, _, _| peer.add_sends(sends));
        } else if known {
            peer.close(Reason::Internal.to_string());
        }
        self.events(now);
        answer.map_err(|error| Refused {
            no_codec: matches!(error, OfferError::NoCommonCodec(_)),
            unable: matches!(error, OfferError::TooManySessions(_) | OfferError::Engine(_)),
            message: error.to_string(),
        })
    }

    /// Ends a session; what is left of it, which has not been told.
    fn close(&mut self, peer: PeerId, now: Instant) -> Option<Peer> {
        let session = session_of(peer);
        let gone = self.peers.remove(&session)?;
        self.engine.close(now, session);
        tracing::debug!(peer = session.0, left = self.engine.len(), "WebRTC session closed");
        Some(gone)
    }
}

/// What a session's event means for its peer.
fn peer_event(peer: &mut Peer, event: Event, engine: &mut Engine, waker: &Arc<Notify>, now: Instant) {
    let room_now = peer.room_now(now);
    match event {
        Event::Connected { protocol, .. } => peer.connected(protocol == Protocol::Tcp, waker),
        Event::Negotiated { lines, .. } => peer.negotiated(&lines, waker),
        Event::Rtp {
            session,
            mid,
            meta,
            payload,
            ..
        } => {
            if let Some(ssrc) = peer.packet(mid, &meta, payload, now, room_now) {
                engine.follow(session, ssrc);
            }
        }
        Event::KeyframeRequest { mid, .. } => peer.viewer_wants_keyframe(mid, room_now),
        Event::Nack { session, mid, seqs } => {
            for packet in peer.repeat(mid, &seqs, now) {
                write_rtx(engine, session, mid, &packet, now);
            }
        }
        Event::ReceiverReport {
            mid,
            fraction_lost,
            total_lost,
            highest,
            rtt,
            ..
        } => {
            peer.note_report(mid, fraction_lost, (highest, total_lost), now);
            if let Some(rtt) = rtt {
                peer.note_round_trip(rtt, now);
            }
        }
        Event::SenderReport { mid, time, .. } => peer.sender_report(mid, time, room_now),
        Event::Estimate { bps, .. } => peer.set_estimate(bps, now),
        Event::Disconnected { .. } | Event::Closed { .. } => {}
    }
}

fn session_of(peer: PeerId) -> SessionId {
    SessionId(peer.0)
}

fn write_rtx(engine: &mut Engine, session: SessionId, mid: engine::Mid, packet: &OutgoingRtp, now: Instant) {
    if let Err(error) = engine.write_rtx(now, session, mid, packet) {
        tracing::trace!(peer = session.0, %error, "a packet was not repeated");
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    shutdown.wait_for(|stop| *stop).await.ok();
}

/// The room's time at an instant, for peers.
pub(super) fn room_time(room: &crate::room::registry::RoomHandle, now: Instant) -> RoomTime {
    room.time_at(now)
}

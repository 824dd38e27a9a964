//! One session's transport: ICE, DTLS and SRTP of the protocol crate, joined without its peer-connection layer, so that
//! packets pass through no queue of it and m-lines, SSRCs and extensions stay ours.
//!
//! The crate's ICE agent does the checks. Which path is used is decided here, for two reasons: the agent does not
//! answer a nomination before its own check succeeded (RFC 8445, section 7.3.1, wants an answer always), and it never
//! leaves the first nominated pair, while browsers nominate another one when their network changes.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc::dtls::config::HandshakeConfig;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::ice::agent::Agent;
use rtc::ice::agent::agent_config::AgentConfig;
use rtc::ice::candidate::CandidateConfig;
use rtc::ice::candidate::candidate_host::CandidateHostConfig;
use rtc::ice::candidate::{CandidateType, unmarshal_candidate};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::ice::tcp_type::TcpType;
use rtc::sansio::Protocol as _;
use rtc::shared::error::Error;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc::srtp::context::Context;

use super::consent::Consent;
use super::keys::{Identity, handshake_config, srtp_contexts};
use super::offer::{Credentials, Fingerprint};
use super::srtp::Decryption;
use super::stun::{Class, Parsed};
use super::types::{Config, Local, Protocol, Reason};

/// How often unanswered checks are repeated while connecting.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Checks sent to a candidate before it is given up.
const MAX_CHECKS: u16 = 40;
/// The agent's housekeeping once connected.
const CONNECTED_INTERVAL: Duration = Duration::from_secs(1);
/// Source addresses that one session may use between two ICE restarts, so that a peer cannot grow the agent's tables. A peer
/// that wanders on is not answered at the next one until it restarts ICE.
const MAX_PEER_ADDRESSES: usize = 64;
/// Candidates a peer may name; each makes the gateway send checks to an address of the peer's choice.
const MAX_REMOTE_CANDIDATES: usize = 24;
/// A path whose peer was silent for this long gives way to another one that works, nominated or not: the peer's NAT has
/// moved it, which the peer itself does not notice. Peers check their path every 2 to 3 s.
const PATH_HOLD: Duration = Duration::from_secs(4);
/// DTLS runs on whatever path ICE has chosen; the crate wants an address to name the association by.
const DTLS_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1);

/// Where packets to the peer go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub local: Local,
    pub peer: SocketAddr,
}

/// What a datagram turned out to be.
pub(super) enum Incoming {
    Nothing,
    Rtp(BytesMut),
    Rtcp(BytesMut),
    Rejected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dtls {
    Waiting,
    Up,
    Ended(Reason),
}

/// See the module's text.
pub(super) struct Transport {
    identity: Arc<Identity>,
    agent: Agent,
    local: Credentials,
    remote: Credentials,
    lite: bool,
    path: Option<Path>,
    /// The peer has chosen the path; before, it is merely one that works.
    nominated: bool,
    /// The last nomination that the agent could not act on yet.
    pending_nomination: Option<(Path, BytesMut)>,
    peers: Vec<(Protocol, SocketAddr)>,
    /// Named by the peer.
    remote_candidates: usize,
    /// The candidate of ours that stands for each socket family, as the agent knows it.
    sockets: Vec<(Protocol, SocketAddr)>,
    consent: Consent,
    /// Last genuine message over the path in use.
    path_seen: Instant,
    last_check: Instant,
    check_in_flight: Option<([u8; 12], Instant)>,
    pub rtt: Option<Duration>,
    dtls: Endpoint,
    dtls_state: Dtls,
    client_config: Option<Arc<HandshakeConfig>>,
    srtp_in: Option<Decryption>,
    srtp_out: Option<Context>,
    outgoing: VecDeque<(Path, BytesMut)>,
}

impl Transport {
    pub fn new(
        now: Instant,
        identity: Arc<Identity>,
        config: &Config,
        local: Credentials,
        remote: Credentials,
        fingerprints: Vec<Fingerprint>,
        dtls_client: bool,
    ) -> Result<Self, Error> {
        let agent_config = AgentConfig {
            local_ufrag: local.ufrag.clone(),
            local_pwd: local.password.clone(),
            multicast_dns_mode: MulticastDnsMode::Disabled,
            // Deadlines are the session's affair.
            disconnected_timeout: Some(Duration::ZERO),
            failed_timeout: Some(Duration::ZERO),
            check_interval: CHECK_INTERVAL,
            max_binding_requests: Some(MAX_CHECKS),
            candidate_types: vec![CandidateType::Host],
            lite: config.ice_lite,
            ..AgentConfig::default()
        };
        let mut agent = Agent::new(now, Arc::new(agent_config), identity.crypto.clone())?;
        let mut sockets: Vec<(Protocol, SocketAddr)> = Vec::new();
        let udp = config.udp_candidates.iter().map(|&address| (Protocol::Udp, address));
        let tcp = config.tcp_candidates.iter().map(|&address| (Protocol::Tcp, address));
        for (protocol, address) in udp.chain(tcp) {
            // Behind 1:1 NAT nobody can tell which of several public addresses a packet was sent to: one stands for all.
            if sockets
                .iter()
                .any(|&(known, at)| known == protocol && at.is_ipv4() == address.is_ipv4())
            {
                continue;
            }
            let network = match protocol {
                Protocol::Udp => "udp",
                Protocol::Tcp => "tcp",
            };
            let tcp_type = if protocol == Protocol::Tcp {
                TcpType::Passive
            } else {
                TcpType::Unspecified
            };
            let base_config = CandidateConfig {
                network: network.to_owned(),
                address: address.ip().to_string(),
                port: address.port(),
                component: 1,
                ..CandidateConfig::default()
            };
            agent.add_local_candidate(CandidateHostConfig { base_config, tcp_type }.new_candidate_host()?)?;
            sockets.push((protocol, address));
        }
        agent.start_connectivity_checks(now, false, remote.ufrag.clone(), remote.password.clone())?;

        let handshake = handshake_config(&identity, fingerprints, dtls_client)?;
        let server_config = (!dtls_client).then(|| handshake.clone());
        Ok(Self {
            agent,
            local,
            remote,
            lite: config.ice_lite,
            path: None,
            nominated: false,
            pending_nomination: None,
            peers: Vec::new(),
            remote_candidates: 0,
            sockets,
            consent: Consent::new(now),
            path_seen: now,
            last_check: now,
            check_in_flight: None,
            rtt: None,
            dtls: Endpoint::new(DTLS_PEER, TransportProtocol::UDP, server_config),
            dtls_state: Dtls::Waiting,
            client_config: dtls_client.then_some(handshake),
            srtp_in: None,
            srtp_out: None,
            outgoing: VecDeque::new(),
            identity,
        })
    }

    /// The path in use.
    pub fn path(&self) -> Option<Path> {
        self.path
    }

    /// DTLS is up and the keys are in place.
    pub fn is_up(&self) -> bool {
        self.dtls_state == Dtls::Up
    }

    /// The transport has ended by itself.
    pub fn ended(&self) -> Option<Reason> {
        match self.dtls_state {
            Dtls::Ended(reason) => Some(reason),
            Dtls::Waiting | Dtls::Up => None,
        }
    }

    /// When the peer last proved that it wants our packets.
    pub fn last_consent(&self) -> Instant {
        self.consent.last()
    }

    /// Our credentials.
    pub fn credentials(&self) -> &Credentials {
        &self.local
    }

    /// ICE restart (RFC 8445, section 9): new credentials on both sides. The old path carries on until the peer
    /// nominates one under the new credentials.
    pub fn restart(&mut self, now: Instant, local: Credentials, remote: Credentials) -> Result<(), Error> {
        self.agent
            .restart(now, local.ufrag.clone(), local.password.clone(), true)?;
        self.agent
            .start_connectivity_checks(now, false, remote.ufrag.clone(), remote.password.clone())?;
        (self.local, self.remote) = (local, remote);
        self.nominated = false;
        self.pending_nomination = None;
        self.peers.clear();
        self.remote_candidates = 0;
        self.consent.renew(now);
        self.flush_agent(now);
        Ok(())
    }

    /// A candidate of the peer's, as in `a=candidate` or a trickled `candidate:` line.
    pub fn add_remote_candidate(&mut self, candidate: &str) -> Result<(), Error> {
        let text = candidate.trim();
        let text = text.strip_prefix("a=").unwrap_or(text);
        let text = text.strip_prefix("candidate:").unwrap_or(text);
        // Names ending in .local cannot be resolved here, and are not needed: the peer's checks tell its address.
        if self.remote_candidates >= MAX_REMOTE_CANDIDATES || text.contains(".local ") {
            return Ok(());
        }
        let candidate = unmarshal_candidate(text)?;
        let target = candidate.addr();
        if target.port() < 1024 || target.ip().is_unspecified() || target.ip().is_multicast() {
            return Ok(());
        }
        self.remote_candidates += 1;
        self.agent.add_remote_candidate(candidate)?;
        Ok(())
    }

    /// Takes one datagram of the peer's. A STUN request must have been checked against our password already.
    pub fn handle(&mut self, now: Instant, from: Path, datagram: &[u8], stun: Option<&Parsed>) -> Incoming {
        match (stun, datagram.first()) {
            (Some(message), _) => {
                self.handle_stun(now, from, datagram, message);
                Incoming::Nothing
            }
            // RFC 7983
            (None, Some(20..=63)) => {
                self.handle_dtls(now, datagram);
                Incoming::Nothing
            }
            (None, Some(128..=191)) => self.decrypt(datagram),
            _ => Incoming::Rejected,
        }
    }

    fn handle_stun(&mut self, now: Instant, from: Path, datagram: &[u8], message: &Parsed) {
        if message.class == Class::Request {
            let key = (from.local.protocol, from.peer);
            if !self.peers.contains(&key) {
                if self.peers.len() >= MAX_PEER_ADDRESSES {
                    return;
                }
                self.peers.push(key);
            }
        }
        if message.class == Class::Response && self.consent.is_awaited(message) {
            self.note_consent(now, from, datagram);
            return;
        }
        let Some(accepted) = self.feed_agent(now, from, datagram) else {
            return;
        };
        match message.class {
            Class::Request => {
                let answered = self.flush_agent_for(now, Some((from, message.transaction.0)));
                if !answered {
                    let crypto = self.identity.crypto.clone();
                    if let Some(response) = message.success(from.peer, &self.local.password, crypto.crypto()) {
                        self.outgoing.push_back((from, BytesMut::from(&response[..])));
                    }
                }
                if accepted {
                    self.note_genuine(now, from);
                }
                if message.use_candidate {
                    // A full agent first makes sure that the peer is really there: the request may be a replay.
                    if self.lite || self.path == Some(from) {
                        self.select(now, from, true);
                    } else {
                        self.pending_nomination = Some((from, BytesMut::from(datagram)));
                    }
                } else if self.lite && self.path.is_none() {
                    self.select(now, from, false);
                }
            }
            Class::Response if accepted => {
                self.note_genuine(now, from);
                if let Some((transaction, sent)) = self.check_in_flight
                    && transaction == message.transaction.0
                {
                    self.rtt = Some(now.saturating_duration_since(sent));
                    self.check_in_flight = None;
                }
                match self.pending_nomination.take() {
                    Some((path, request)) if path.peer == from.peer => {
                        self.consent.renew(now);
                        self.select(now, from, true);
                        // Now that its own check succeeded, the agent accepts the nomination it had to leave aside.
                        let _ = self.feed_agent(now, from, &request);
                    }
                    other => {
                        self.pending_nomination = other;
                        if self.path.is_none() || now >= self.path_seen + PATH_HOLD {
                            self.consent.renew(now);
                            self.select(now, from, false);
                        }
                    }
                }
                self.flush_agent(now);
            }
            Class::Response | Class::Other => self.flush_agent(now),
        }
    }

    /// Hands a STUN message to the agent. `None` when we have no socket of this family; else whether it was valid.
    fn feed_agent(&mut self, now: Instant, from: Path, datagram: &[u8]) -> Option<bool> {
        let socket = self
            .sockets
            .iter()
            .find(|(protocol, at)| *protocol == from.local.protocol && at.is_ipv4() == from.peer.is_ipv4())?;
        let message = TaggedBytesMut {
            now,
            transport: TransportContext {
                local_addr: socket.1,
                peer_addr: from.peer,
                transport_protocol: match from.local.protocol {
                    Protocol::Udp => TransportProtocol::UDP,
                    Protocol::Tcp => TransportProtocol::TCP,
                },
                ecn: None,
            },
            message: BytesMut::from(datagram),
        };
        Some(self.agent.handle_read(message).is_ok())
    }

    /// A response to one of our own checks came.
    fn note_consent(&mut self, now: Instant, from: Path, datagram: &[u8]) {
        let (Some(path), Some(mut response)) = (self.path, Parsed::read(datagram)) else {
            return;
        };
        let crypto = self.identity.crypto.clone();
        let round_trip = self
            .consent
            .take_response(now, path, &mut response, &self.remote, crypto.crypto());
        if let Some(round_trip) = round_trip
            && path.peer == from.peer
        {
            self.rtt = Some(round_trip);
            self.path_seen = now;
        }
    }

    fn check_consent(&mut self, now: Instant) {
        // An ICE-lite agent sends no checks.
        let Some(path) = self.path.filter(|_| !self.lite) else {
            return;
        };
        let crypto = self.identity.crypto.clone();
        let check = self
            .consent
            .check(now, path, &self.local, &self.remote, crypto.crypto());
        if let Some(check) = check {
            self.outgoing.push_back((path, BytesMut::from(&check[..])));
        }
    }

    fn note_genuine(&mut self, now: Instant, from: Path) {
        if self.lite {
            self.consent.renew(now);
        }
        if self.path.is_some_and(|path| path.peer == from.peer) {
            self.path_seen = now;
        }
    }

    fn select(&mut self, now: Instant, path: Path, nominated: bool) {
        let first = self.path.is_none();
        self.nominated |= nominated;
        self.path = Some(path);
        self.path_seen = now;
        if first
            && let Some(config) = self.client_config.take()
            && self.dtls.connect(now, DTLS_PEER, config, None).is_err()
        {
            self.dtls_state = Dtls::Ended(Reason::DtlsFailed);
        }
        self.flush_dtls();
    }

    fn flush_agent(&mut self, now: Instant) {
        self.flush_agent_for(now, None);
    }

    /// Moves the agent's messages to the output. Says whether the response to the transaction was among them.
    fn flush_agent_for(&mut self, now: Instant, request: Option<(Path, [u8; 12])>) -> bool {
        let mut answered = false;
        while self.agent.poll_event().is_some() {}
        while let Some(message) = self.agent.poll_write() {
            let protocol = match message.transport.transport_protocol {
                TransportProtocol::TCP => Protocol::Tcp,
                _ => Protocol::Udp,
            };
            let transaction = message.message.get(8..20).and_then(|id| <[u8; 12]>::try_from(id).ok());
            let is_response = message.message.first().is_some_and(|byte| byte & 1 == 1);
            if let (Some(id), false) = (transaction, is_response) {
                self.check_in_flight = Some((id, now));
            }
            let peer = message.transport.peer_addr;
            let path = match (request, self.path) {
                (Some((from, id)), _) if from.peer == peer => {
                    answered |= is_response && transaction == Some(id);
                    from
                }
                (_, Some(path)) if path.peer == peer => path,
                _ => Path {
                    local: Local { protocol, ip: None },
                    peer,
                },
            };
            self.outgoing.push_back((path, message.message));
        }
        answered
    }

    fn handle_dtls(&mut self, now: Instant, datagram: &[u8]) {
        if matches!(self.dtls_state, Dtls::Ended(_)) {
            return;
        }
        match self.dtls.read(now, DTLS_PEER, None, BytesMut::from(datagram)) {
            Ok(events) => {
                for event in events {
                    match event {
                        EndpointEvent::HandshakeComplete => self.dtls_state = self.install_keys(),
                        EndpointEvent::PeerClosed => self.dtls_state = Dtls::Ended(Reason::PeerClosed),
                        // Data channels are not offered.
                        _ => {}
                    }
                }
            }
            // Anyone on the path can send garbage; only an unfinished handshake that broke is fatal, and that shows
            // by its deadline. A certificate that does not match is refused for good by the crate.
            Err(Error::ErrNoMatchingCertificateFingerprint) => self.dtls_state = Dtls::Ended(Reason::DtlsFailed),
            Err(_) => {}
        }
        self.flush_dtls();
    }

    /// What DTLS says before there is a path waits for it: lost, it would be repeated only a timeout later.
    fn flush_dtls(&mut self) {
        let Some(path) = self.path else { return };
        while let Some(message) = self.dtls.poll_transmit() {
            self.outgoing.push_back((path, message.message));
        }
    }

    fn install_keys(&mut self) -> Dtls {
        let Some(state) = self.dtls.get_connection_state(DTLS_PEER) else {
            return Dtls::Ended(Reason::DtlsFailed);
        };
        match srtp_contexts(state, &self.identity) {
            Ok((outgoing, incoming)) => {
                self.srtp_out = Some(outgoing);
                self.srtp_in = Some(incoming);
                Dtls::Up
            }
            Err(_) => Dtls::Ended(Reason::DtlsFailed),
        }
    }

    fn decrypt(&mut self, datagram: &[u8]) -> Incoming {
        let Some(decryption) = &mut self.srtp_in else {
            return Incoming::Rejected;
        };
        // RFC 5761, section 4
        let is_rtcp = matches!(datagram.get(1), Some(192..=223));
        if is_rtcp {
            decryption.rtcp(datagram).map_or(Incoming::Rejected, Incoming::Rtcp)
        } else {
            decryption.rtp(datagram).map_or(Incoming::Rejected, Incoming::Rtp)
        }
    }

    /// Encrypts an RTP packet whose header is `header`. Errors before DTLS is up.
    pub fn protect_rtp(&mut self, packet: &[u8], header: &rtc::rtp::Header) -> Option<(Path, BytesMut)> {
        let path = self.path?;
        let encrypted = self.srtp_out.as_mut()?.encrypt_rtp_with_header(packet, header).ok()?;
        Some((path, encrypted))
    }

    /// Encrypts a compound RTCP packet.
    pub fn protect_rtcp(&mut self, packet: &[u8]) -> Option<(Path, BytesMut)> {
        let path = self.path?;
        let encrypted = self.srtp_out.as_mut()?.encrypt_rtcp(packet).ok()?;
        Some((path, encrypted))
    }

    /// STUN and DTLS to send.
    pub fn poll_outgoing(&mut self) -> Option<(Path, BytesMut)> {
        self.outgoing.pop_front()
    }

    /// When [`Transport::handle_timeout`] wants to be called.
    pub fn next_timeout(&mut self) -> Option<Instant> {
        let ice = if self.nominated {
            Some(self.last_check + CONNECTED_INTERVAL)
        } else {
            self.agent.poll_timeout()
        };
        let dtls = self.dtls.poll_timeout(&DTLS_PEER);
        let consent = self.path.filter(|_| !self.lite).map(|_| self.consent.next());
        ice.into_iter().chain(dtls).chain(consent).min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.check_consent(now);
        let due = if self.nominated {
            now >= self.last_check + CONNECTED_INTERVAL
        } else {
            self.agent.poll_timeout().is_some_and(|at| now >= at)
        };
        if due {
            self.last_check = now;
            let _ = self.agent.handle_timeout(now);
            self.flush_agent(now);
        }
        if self.dtls.poll_timeout(&DTLS_PEER).is_some_and(|at| now >= at) {
            let failed = self.dtls.handle_timeout(DTLS_PEER, now).is_err();
            if failed && self.dtls_state == Dtls::Waiting {
                self.dtls_state = Dtls::Ended(Reason::DtlsFailed);
            }
            self.flush_dtls();
        }
    }

    /// Tells the peer that it is over (DTLS `close_notify`).
    pub fn close(&mut self, now: Instant) {
        if self.dtls_state == Dtls::Up {
            let _ = self.dtls.close(now);
            self.flush_dtls();
        }
    }
}

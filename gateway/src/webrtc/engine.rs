//! The WebRTC engine: the part that knows packets and no rooms.
//!
//! Datagrams, offers and time go in; datagrams, answers and [`Event`]s come out. It opens no socket and reads no clock.
//! Below it works the sans-IO crate `rtc` (its ICE agent, DTLS, SRTP, STUN, RTCP and SDP), of which no type shows here.
//! One engine serves all sessions of one worker thread:
//!
//! ```text
//! handle_datagram ─▶ demux (ICE ufrag, then address) ─▶ session: ICE ─ DTLS ─ SRTP ─ streams ─▶ poll_event
//! write_rtp, write_rtx, nack, … ──────────────────────▶ session ─▶ outbox ─▶ poll_transmit (runs for UDP_SEGMENT)
//! ```
//!
//! A session's failure is its own: every call into it is fenced, and a panic ends that session with
//! [`Reason::Internal`]. The crate logs under targets that begin with `rtc`, up to one line per packet: the application
//! caps those at `error`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

mod addresses;
mod bandwidth;
mod consent;
mod feedback;
mod inbound;
mod keys;
mod line;
mod offer;
mod outbox;
mod session;
mod srtp;
mod stun;
#[cfg(test)]
pub(super) mod tests;
mod transport;
mod types;

pub use offer::{MAX_LINES, MAX_OFFER, OfferError};
pub use session::WriteError;
pub use types::*;

use addresses::Addresses;
use keys::Identity;
use offer::Credentials;
use outbox::Outbox;
use session::{Session, Sinks};
use stun::{Class, Parsed};
use transport::Path;

/// The engine could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No certificate could be made.
    #[error("the DTLS certificate could not be generated: {0}")]
    Certificate(String),
    /// Nowhere to be reached.
    #[error("no candidate address is configured: give at least one public address of the WebRTC port")]
    NoCandidates,
}

/// A candidate was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CandidateError {
    /// The session has ended or never was.
    #[error("no such WebRTC session")]
    NoSession,
    /// Not a candidate line.
    #[error("not an ICE candidate: {0}")]
    Malformed(String),
}

/// See the [module's text](self).
pub struct Engine {
    config: Arc<Config>,
    identity: Arc<Identity>,
    candidates: Vec<String>,
    sessions: HashMap<SessionId, Box<Session>>,
    ufrags: HashMap<String, SessionId>,
    addresses: Addresses,
    timers: BinaryHeap<Reverse<(Instant, SessionId)>>,
    outbox: Outbox,
    events: VecDeque<Event>,
    epoch: Instant,
}

impl Engine {
    /// An engine with a fresh certificate. `now` is where its clock starts.
    ///
    /// # Errors
    /// [`SetupError`], when no candidate is configured or no key can be generated.
    pub fn new(now: Instant, config: Config) -> Result<Self, SetupError> {
        let candidates = candidate_lines(&config);
        if candidates.is_empty() {
            return Err(SetupError::NoCandidates);
        }
        let identity = Identity::generate().map_err(|error| SetupError::Certificate(error.to_string()))?;
        Ok(Self {
            config: Arc::new(config),
            identity: Arc::new(identity),
            candidates,
            sessions: HashMap::new(),
            ufrags: HashMap::new(),
            addresses: Addresses::default(),
            timers: BinaryHeap::new(),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            epoch: now,
        })
    }

    /// Answers an offer (RFC 8829). An unknown `id` starts a session; a known one is renegotiated: m-lines are matched
    /// by position, ICE restarts if the offer's credentials are new. On an error a running session is left as it was.
    ///
    /// # Errors
    /// [`OfferError`], in words for the peer.
    pub fn accept_offer(
        &mut self,
        now: Instant,
        id: SessionId,
        sdp: &str,
        policy: &OfferPolicy,
    ) -> Result<String, OfferError> {
        let offer = catch_unwind(|| offer::parse(sdp))
            .unwrap_or_else(|_| Err(OfferError::Malformed("the parser gave up on it".to_owned())))?;
        let is_new = !self.sessions.contains_key(&id);
        if is_new {
            if offer.peer_is_lite {
                return Err(OfferError::Missing("full ICE agent: two ICE-lite peers cannot connect"));
            }
            if !Session::agrees(&offer, policy) {
                return Err(OfferError::NoCommonCodec(Session::codec_names(policy)));
            }
            if self.sessions.len() >= self.config.max_sessions {
                return Err(OfferError::TooManySessions(self.config.max_sessions));
            }
            let local = self.fresh_credentials();
            let made = catch_unwind(AssertUnwindSafe(|| {
                Session::new(now, id, self.config.clone(), self.identity.clone(), &offer, local)
            }));
            let session = match made {
                Ok(Ok(session)) => session,
                Ok(Err(error)) => return Err(OfferError::Engine(error.to_string())),
                Err(_) => return Err(OfferError::Engine("it gave up".to_owned())),
            };
            self.ufrags.insert(session.credentials().ufrag.clone(), id);
            self.sessions.insert(id, Box::new(session));
        }

        let local = self.fresh_credentials();
        let candidates = std::mem::take(&mut self.candidates);
        let answer = self.with_session(now, id, |session, sinks| {
            session.check_offer(&offer)?;
            let mut new_ufrag = None;
            if session.restarts(&offer) {
                new_ufrag = Some(local.ufrag.clone());
                session
                    .restart(now, &offer, local)
                    .map_err(|error| OfferError::Engine(error.to_string()))?;
            }
            Ok((session.answer(&offer, policy, &candidates, sinks), new_ufrag))
        });
        self.candidates = candidates;
        match answer {
            Some(Ok((answer, new_ufrag))) => {
                // Checks under the old name are not answered any more; the media goes on over the old path meanwhile.
                if let Some(ufrag) = new_ufrag {
                    self.ufrags.retain(|_, owner| *owner != id);
                    self.ufrags.insert(ufrag, id);
                }
                Ok(answer)
            }
            Some(Err(error)) => Err(error),
            None => Err(OfferError::Engine(
                "the session ended while it was negotiated".to_owned(),
            )),
        }
    }

    fn fresh_credentials(&self) -> Credentials {
        loop {
            let credentials = Credentials::generate();
            if !self.ufrags.contains_key(&credentials.ufrag) {
                return credentials;
            }
        }
    }

    /// A trickled candidate (RFC 8838): `candidate:…`, with or without `a=`. An empty one, which ends the list, and one
    /// that is of no use here (mDNS names, TCP active) are ignored.
    ///
    /// # Errors
    /// [`CandidateError`].
    pub fn add_remote_candidate(&mut self, now: Instant, id: SessionId, candidate: &str) -> Result<(), CandidateError> {
        if candidate.trim().is_empty() {
            return Ok(());
        }
        if candidate.len() > 512 {
            return Err(CandidateError::Malformed("longer than 512 bytes".to_owned()));
        }
        self.with_session(now, id, |session, _| session.add_remote_candidate(candidate))
            .ok_or(CandidateError::NoSession)?
            .map_err(|error| CandidateError::Malformed(error.to_string()))
    }

    /// Ends a session; [`Event::Closed`] follows with [`Reason::Local`].
    pub fn close(&mut self, now: Instant, id: SessionId) {
        if self.sessions.contains_key(&id) {
            self.end(now, id, Reason::Local);
        }
    }

    /// Ends a session whose owner broke on it; [`Event::Closed`] follows with [`Reason::Internal`].
    pub fn abandon(&mut self, now: Instant, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            let mut sinks = Sinks {
                outbox: &mut self.outbox,
                events: &mut self.events,
            };
            // The session itself is sound: the peer is told, so that it need not wait for a deadline.
            let _ = catch_unwind(AssertUnwindSafe(|| session.close(now, &mut sinks)));
            self.end(now, id, Reason::Internal);
        }
    }

    /// Whether the session exists.
    #[must_use]
    pub fn contains(&self, id: SessionId) -> bool {
        self.sessions.contains_key(&id)
    }

    /// Sessions at present.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// No session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Counters of a session.
    #[must_use]
    pub fn stats(&self, id: SessionId) -> Option<SessionStats> {
        self.sessions.get(&id).map(|session| session.stats)
    }

    /// Packets that were thrown away because nobody called [`Engine::poll_transmit`].
    #[must_use]
    pub fn transmits_dropped(&self) -> u64 {
        self.outbox.dropped
    }

    /// Takes a datagram, or a frame of a TCP connection. Returns whether it was a genuine ICE request, which is what a
    /// TCP connection must show to be kept.
    ///
    /// STUN requests find their session by the USERNAME; everything else by the address it comes from. An address
    /// belongs to a session only by a request whose MESSAGE-INTEGRITY is right, and stays its own while it is in use.
    pub fn handle_datagram(&mut self, now: Instant, local: Local, from: SocketAddr, datagram: &[u8]) -> bool {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let path = Path { local, peer: from };
        match datagram.first() {
            // RFC 7983
            Some(0..=3) => self.handle_stun(now, path, datagram),
            Some(20..=63 | 128..=191) => {
                let Some(bound) = self.addresses.get(local.protocol, from) else {
                    return false;
                };
                let path = Path {
                    local: Local {
                        ip: bound.local_ip,
                        ..local
                    },
                    peer: from,
                };
                self.with_session(now, bound.session, |session, sinks| {
                    session.handle(now, path, datagram, None, sinks);
                });
                false
            }
            _ => false,
        }
    }

    fn handle_stun(&mut self, now: Instant, path: Path, datagram: &[u8]) -> bool {
        let Some(mut message) = catch_unwind(|| Parsed::read(datagram)).ok().flatten() else {
            return false;
        };
        if message.class != Class::Request {
            // Responses carry no USERNAME; the agent checks that it asked, and the integrity.
            let Some(bound) = self.addresses.get(path.local.protocol, path.peer) else {
                return false;
            };
            self.with_session(now, bound.session, |session, sinks| {
                session.handle(now, path, datagram, Some(&message), sinks);
            });
            return false;
        }
        let Some(id) = message.local_ufrag().and_then(|ufrag| self.ufrags.get(&ufrag).copied()) else {
            return false;
        };
        let Some(session) = self.sessions.get(&id) else {
            return false;
        };
        let crypto = self.identity.crypto.clone();
        let password = &session.credentials().password;
        let genuine = catch_unwind(AssertUnwindSafe(|| message.is_genuine(password, crypto.crypto())));
        if !genuine.unwrap_or(false) {
            return false;
        }
        let in_use = session.path();
        if !self.addresses.claim(now, id, path, in_use) {
            return false;
        }
        self.with_session(now, id, |session, sinks| {
            session.handle(now, path, datagram, Some(&message), sinks)
        });
        true
    }

    /// Sends media. Packets written one after the other to the same session leave in one system call where they can.
    ///
    /// # Errors
    /// [`WriteError`]; nothing is queued then.
    pub fn write_rtp(&mut self, now: Instant, id: SessionId, mid: Mid, packet: &OutgoingRtp) -> Result<(), WriteError> {
        let send_time = self.send_time(now);
        self.write(now, id, |session, sinks| {
            session.write(now, mid, packet, false, send_time, sinks)
        })
    }

    /// Repeats a packet as RTX (RFC 4588): `packet` as it was written before, original sequence number included.
    ///
    /// # Errors
    /// [`WriteError::NoCodec`] when the peer did not agree to RTX; else as [`Engine::write_rtp`].
    pub fn write_rtx(&mut self, now: Instant, id: SessionId, mid: Mid, packet: &OutgoingRtp) -> Result<(), WriteError> {
        let send_time = self.send_time(now);
        self.write(now, id, |session, sinks| {
            session.write(now, mid, packet, true, send_time, sinks)
        })
    }

    /// Of several streams on one m-line, this one counts from now on: keyframes and packets are asked of it, and its sender
    /// reports are told. Without this, it is the one that began last.
    pub fn follow(&mut self, id: SessionId, ssrc: u32) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.follow(ssrc);
        }
    }

    /// Asks a publisher for a keyframe (PLI).
    ///
    /// # Errors
    /// [`WriteError::NoLine`] while no packet of the stream has arrived; else as [`Engine::write_rtp`].
    pub fn request_keyframe(
        &mut self,
        now: Instant,
        id: SessionId,
        mid: Mid,
        rid: Option<Rid>,
    ) -> Result<(), WriteError> {
        self.write(now, id, |session, sinks| session.request_keyframe(mid, rid, sinks))
    }

    /// Asks a publisher for packets again. `seqs` are extended numbers, ascending.
    ///
    /// # Errors
    /// As [`Engine::request_keyframe`].
    pub fn nack(
        &mut self,
        now: Instant,
        id: SessionId,
        mid: Mid,
        rid: Option<Rid>,
        seqs: &[u64],
    ) -> Result<(), WriteError> {
        self.write(now, id, |session, sinks| session.nack(mid, rid, seqs, sinks))
    }

    /// Tells a publisher to send no more than `bps` altogether, sound included (REMB). Publishers forget it after a while:
    /// to be repeated about twice a second.
    ///
    /// # Errors
    /// [`WriteError::NoLine`] while no packet of a video that takes REMB has arrived; else as [`Engine::write_rtp`].
    pub fn limit_rate(&mut self, now: Instant, id: SessionId, bps: u64) -> Result<(), WriteError> {
        self.write(now, id, |session, sinks| session.limit_rate(bps, sinks))
    }

    /// Sends a sender report for the stream on an m-line. Counts are the engine's, clocks the caller's.
    ///
    /// # Errors
    /// As [`Engine::write_rtp`].
    pub fn send_report(&mut self, now: Instant, id: SessionId, mid: Mid, time: ReportTime) -> Result<(), WriteError> {
        self.write(now, id, |session, sinks| session.send_report(now, mid, time, sinks))
    }

    /// Calls into a session without the bookkeeping that only incoming packets and timers need.
    fn write(
        &mut self,
        now: Instant,
        id: SessionId,
        work: impl FnOnce(&mut Session, &mut Sinks<'_>) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let session = self.sessions.get_mut(&id).ok_or(WriteError::NoSession)?;
        let mut sinks = Sinks {
            outbox: &mut self.outbox,
            events: &mut self.events,
        };
        match catch_unwind(AssertUnwindSafe(|| work(session, &mut sinks))) {
            Ok(result) => result,
            Err(_) => {
                self.end(now, id, Reason::Internal);
                Err(WriteError::NoSession)
            }
        }
    }

    /// `abs-send-time`: seconds as 6.18 fixed point, in the low 24 bits.
    fn send_time(&self, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.epoch);
        let fraction = (u64::from(elapsed.subsec_nanos()) << 18) / 1_000_000_000;
        (((elapsed.as_secs() << 18) + fraction) & 0x00ff_ffff) as u32
    }

    /// The next packets to send. Call until `None` after every turn.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.outbox.pop()
    }

    /// The next event. Call until `None` after every turn.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Engine::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&Reverse((at, id))) = self.timers.peek() {
            if at > now {
                break;
            }
            self.timers.pop();
            match self.sessions.get_mut(&id) {
                // Others are entries that an earlier one has replaced.
                Some(session) if session.scheduled == Some(at) => session.scheduled = None,
                _ => continue,
            }
            self.with_session(now, id, |session, sinks| session.handle_timeout(now, sinks));
        }
    }

    /// Does `work` on a session behind the fence, then its follow-ups: output, changes of state, the next timer.
    fn with_session<T>(
        &mut self,
        now: Instant,
        id: SessionId,
        work: impl FnOnce(&mut Session, &mut Sinks<'_>) -> T,
    ) -> Option<T> {
        let session = self.sessions.get_mut(&id)?;
        let mut sinks = Sinks {
            outbox: &mut self.outbox,
            events: &mut self.events,
        };
        let done = catch_unwind(AssertUnwindSafe(|| {
            let result = work(session, &mut sinks);
            (result, session.settle(now, &mut sinks), session.next_timeout())
        }));
        match done {
            Ok((result, None, next)) => {
                // A timer that is already due still must not starve the rest of the turn.
                let next = next.max(now + Duration::from_millis(1));
                if session.scheduled.is_none_or(|at| next < at) {
                    session.scheduled = Some(next);
                    self.timers.push(Reverse((next, id)));
                }
                Some(result)
            }
            Ok((result, Some(reason), _)) => {
                self.end(now, id, reason);
                Some(result)
            }
            Err(_) => {
                self.end(now, id, Reason::Internal);
                None
            }
        }
    }

    fn end(&mut self, now: Instant, id: SessionId, reason: Reason) {
        if let Some(mut session) = self.sessions.remove(&id) {
            let mut sinks = Sinks {
                outbox: &mut self.outbox,
                events: &mut self.events,
            };
            if reason != Reason::Internal {
                let _ = catch_unwind(AssertUnwindSafe(|| session.close(now, &mut sinks)));
            }
            let _ = catch_unwind(AssertUnwindSafe(|| drop(session)));
        }
        self.ufrags.retain(|_, owner| *owner != id);
        self.addresses.forget(id);
        self.events.push_back(Event::Closed { session: id, reason });
    }
}

/// Host candidates for the answer (RFC 8839, RFC 6544). UDP goes before TCP, and in the order configured.
fn candidate_lines(config: &Config) -> Vec<String> {
    let line = |index: usize, protocol: &str, address: &SocketAddr, type_preference: u32, suffix: &str| {
        let preference = 65_535 - index as u32;
        let priority = type_preference << 24 | preference << 8 | 255;
        let foundation = type_preference * 100 + index as u32;
        let (ip, port) = (address.ip(), address.port());
        format!("candidate:{foundation} 1 {protocol} {priority} {ip} {port} typ host{suffix}")
    };
    let udp = config
        .udp_candidates
        .iter()
        .enumerate()
        .map(|(index, at)| line(index, "udp", at, 126, ""));
    let tcp = config.tcp_candidates.iter().enumerate();
    udp.chain(tcp.map(|(index, at)| line(index, "tcp", at, 90, " tcptype passive")))
        .collect()
}

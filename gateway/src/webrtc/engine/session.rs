//! One session: its m-lines, the streams on them, and the transport below.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use rand::Rng as _;
use rtc::rtcp;
use rtc::rtp;
use rtc::shared::error::Error;
use rtc::shared::marshal::Unmarshal as _;

use super::bandwidth::Bandwidth;
use super::feedback::Feedback;
use super::inbound::{Inbound, Resolved};
use super::keys::Identity;
use super::line::{AnswerContext, Line, LocalSsrcs, write_answer};
use super::offer::{Credentials, Fingerprint, Offer, OfferError, Setup};
use super::outbox::Outbox;
use super::stun::Parsed;
use super::transport::{Incoming, Path, Transport};
use super::types::{
    Config, Direction, Event, MAX_PAYLOAD, Mid, OfferPolicy, OutgoingRtp, Protocol, Reason, RtpMeta, SessionId,
    SessionStats,
};

mod reports;

/// Why a packet was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The session has ended or never was.
    #[error("no such WebRTC session")]
    NoSession,
    /// DTLS is not up yet.
    #[error("the session is not connected yet: wait for its Connected event")]
    NotConnected,
    /// No such m-line, or it does not flow in this direction.
    #[error("the m-line is unknown or does not flow in this direction")]
    NoLine,
    /// The codec was not agreed on this m-line, or has no RTX.
    #[error("the codec (or RTX for it) was not agreed on this m-line")]
    NoCodec,
    /// Over [`MAX_PAYLOAD`].
    #[error("the payload is larger than {MAX_PAYLOAD} bytes")]
    TooLarge,
    /// The engine refused.
    #[error("the packet could not be encrypted")]
    Engine,
}

/// What sends on one m-line.
#[derive(Default)]
struct Outgoing {
    rtx_seq: u16,
    packets: u32,
    octets: u32,
    /// Middle bits of the NTP time of our last sender reports, and when they left.
    reports: VecDeque<(u32, Instant)>,
}

/// See the module's text.
pub(super) struct Session {
    id: SessionId,
    config: Arc<Config>,
    identity: Arc<Identity>,
    transport: Transport,
    remote: Credentials,
    fingerprints: Vec<Fingerprint>,
    setup: &'static str,
    cname: String,
    sdp_id: u64,
    sdp_version: u64,
    lines: Vec<Line>,
    outgoing: Vec<Outgoing>,
    inbound: Inbound,
    feedback: Feedback,
    bandwidth: Bandwidth,
    created: Instant,
    path_since: Option<Instant>,
    connected: bool,
    silent: bool,
    /// Stands for us as an RTCP sender where no stream of ours is concerned.
    ssrc: u32,
    scratch: Vec<u8>,
    /// One header per shape, only for its size: the encryption wants to know where the payload starts.
    plain_header: rtp::Header,
    extended_header: rtp::Header,
    pub stats: SessionStats,
    /// The next entry for this session in the engine's heap.
    pub scheduled: Option<Instant>,
}

/// Where a session puts what it produces.
pub(super) struct Sinks<'a> {
    pub outbox: &'a mut Outbox,
    pub events: &'a mut VecDeque<Event>,
}

fn random_text(length: usize) -> String {
    rand::rng()
        .sample_iter(rand::distr::Alphanumeric)
        .take(length)
        .map(char::from)
        .collect()
}

impl Credentials {
    /// Fresh ones: 48 and 143 bits (RFC 8445, section 5.3, wants 24 and 128).
    pub fn generate() -> Self {
        Self {
            ufrag: random_text(8),
            password: random_text(24),
        }
    }
}

impl Session {
    pub fn new(
        now: Instant,
        id: SessionId,
        config: Arc<Config>,
        identity: Arc<Identity>,
        offer: &Offer,
        local: Credentials,
    ) -> Result<Self, Error> {
        let dtls_client = offer.setup == Setup::Passive;
        let transport = Transport::new(
            now,
            identity.clone(),
            &config,
            local,
            offer.credentials.clone(),
            offer.fingerprints.clone(),
            dtls_client,
        )?;
        let element = rtp::header::Extension {
            id: 1,
            payload: Bytes::from_static(&[0; 3]),
        };
        Ok(Self {
            id,
            config,
            identity,
            transport,
            remote: offer.credentials.clone(),
            fingerprints: offer.fingerprints.clone(),
            setup: if dtls_client { "active" } else { "passive" },
            cname: random_text(16),
            sdp_id: rand::random::<u64>() >> 2,
            sdp_version: 0,
            lines: Vec::new(),
            outgoing: Vec::new(),
            inbound: Inbound::default(),
            feedback: Feedback::new(),
            bandwidth: Bandwidth::default(),
            created: now,
            path_since: None,
            connected: false,
            silent: false,
            ssrc: random_ssrc(&[]),
            scratch: Vec::new(),
            plain_header: rtp::Header {
                version: 2,
                ..rtp::Header::default()
            },
            extended_header: rtp::Header {
                version: 2,
                extension: true,
                extension_profile: 0xBEDE,
                extensions: vec![element],
                ..rtp::Header::default()
            },
            stats: SessionStats::default(),
            scheduled: None,
        })
    }

    pub fn credentials(&self) -> &Credentials {
        self.transport.credentials()
    }

    /// The path that its packets take.
    pub fn path(&self) -> Option<Path> {
        self.transport.path()
    }

    /// Refuses what a renegotiation must not change.
    pub fn check_offer(&self, offer: &Offer) -> Result<(), OfferError> {
        if offer.lines.len() < self.lines.len() {
            return Err(OfferError::LinesRemoved {
                offered: offer.lines.len(),
                known: self.lines.len(),
            });
        }
        if offer.fingerprints != self.fingerprints {
            return Err(OfferError::FingerprintChanged);
        }
        Ok(())
    }

    /// Whether the offer restarts ICE.
    pub fn restarts(&self, offer: &Offer) -> bool {
        offer.credentials != self.remote
    }

    /// Restarts ICE under new credentials.
    pub fn restart(&mut self, now: Instant, offer: &Offer, local: Credentials) -> Result<(), Error> {
        self.transport.restart(now, local, offer.credentials.clone())?;
        self.remote = offer.credentials.clone();
        Ok(())
    }

    /// Takes over an offer that [`Session::check_offer`] found good, and answers it.
    pub fn answer(
        &mut self,
        offer: &Offer,
        policy: &OfferPolicy,
        candidates: &[String],
        sinks: &mut Sinks<'_>,
    ) -> String {
        let mut used: Vec<u32> = vec![self.ssrc];
        used.extend(self.lines.iter().flat_map(|line| [line.local.media, line.local.rtx]));
        used.extend(
            offer
                .lines
                .iter()
                .flat_map(|line| line.ssrcs.iter().flat_map(|&(a, b)| [Some(a), b]).flatten()),
        );
        let mut lines = Vec::with_capacity(offer.lines.len());
        for (index, offered) in offer.lines.iter().enumerate() {
            // A stopped m-line is reused under a new mid (RFC 8829, section 5.2.2): a new line in every respect.
            let known = self.lines.get(index).filter(|line| line.mid == offered.mid);
            let local = known.map_or_else(
                || {
                    let media = random_ssrc(&used);
                    used.push(media);
                    let rtx = random_ssrc(&used);
                    used.push(rtx);
                    LocalSsrcs { media, rtx }
                },
                |line| line.local,
            );
            if known.is_none() {
                let outgoing = Outgoing {
                    rtx_seq: rand::random::<u16>() >> 2,
                    ..Outgoing::default()
                };
                match self.outgoing.get_mut(index) {
                    Some(slot) => *slot = outgoing,
                    None => self.outgoing.push(outgoing),
                }
            }
            lines.push(Line::negotiate(offered, policy, local));
        }
        for ssrc in self.inbound.renegotiate(&self.lines, &lines) {
            self.feedback.unbind(ssrc);
        }
        self.lines = lines;
        for candidate in &offer.candidates {
            let _ = self.transport.add_remote_candidate(candidate);
        }
        self.sdp_version += 1;
        let credentials = self.transport.credentials();
        let answer = write_answer(
            &self.lines,
            &AnswerContext {
                ufrag: &credentials.ufrag,
                password: &credentials.password,
                fingerprint: &self.identity.fingerprint,
                setup: self.setup,
                lite: self.config.ice_lite,
                extmap_allow_mixed: offer.extmap_allow_mixed,
                candidates,
                cname: &self.cname,
                session_id: self.sdp_id,
                version: self.sdp_version,
                policy,
            },
        );
        let lines = self.lines.iter().map(Line::describe).collect();
        sinks.events.push_back(Event::Negotiated {
            session: self.id,
            lines,
        });
        answer
    }

    pub fn add_remote_candidate(&mut self, candidate: &str) -> Result<(), Error> {
        self.transport.add_remote_candidate(candidate)
    }

    /// Takes a datagram of the peer's.
    pub fn handle(&mut self, now: Instant, from: Path, datagram: &[u8], stun: Option<&Parsed>, sinks: &mut Sinks<'_>) {
        match self.transport.handle(now, from, datagram, stun) {
            Incoming::Nothing => {}
            Incoming::Rejected => self.stats.rejected += 1,
            Incoming::Rtp(packet) => {
                self.stats.packets_in += 1;
                if self.handle_rtp(now, packet, sinks).is_none() {
                    self.stats.rejected += 1;
                }
            }
            Incoming::Rtcp(mut packet) => match rtcp::packet::unmarshal(&mut packet) {
                Ok(packets) => self.handle_rtcp(now, packets, sinks),
                Err(_) => self.stats.rejected += 1,
            },
        }
    }

    /// See [`super::Engine::follow`].
    pub fn follow(&mut self, ssrc: u32) {
        self.inbound.follow(ssrc);
    }

    fn handle_rtp(&mut self, now: Instant, mut packet: BytesMut, sinks: &mut Sinks<'_>) -> Option<()> {
        let packet = rtp::Packet::unmarshal(&mut packet).ok()?;
        let resolved = self.inbound.resolve(&self.lines, &packet.header)?;
        if resolved.is_first {
            let line = self.lines.get(resolved.line)?;
            let clock_rate = line.codecs.first()?.codec.clock_rate();
            self.feedback
                .bind(packet.header.ssrc, clock_rate, line.extensions.transport_cc);
        }
        let packet = self.feedback.note_rtp(now, packet)?;
        self.deliver(now, resolved, packet, sinks);
        Some(())
    }

    /// Undoes RTX, drops duplicates, reads the extensions.
    fn deliver(&mut self, now: Instant, resolved: Resolved, packet: rtp::Packet, sinks: &mut Sinks<'_>) {
        let rtp::Packet { header, mut payload } = packet;
        let Some(line) = self.lines.get(resolved.line) else {
            return;
        };
        let Some((codec, is_rtx)) = line.by_payload_type(header.payload_type) else {
            return;
        };
        let mut seq = header.sequence_number;
        if is_rtx {
            // RFC 4588, section 4: the original number comes first. Without it, it is a bandwidth probe.
            if payload.len() < 2 {
                return;
            }
            seq = u16::from_be_bytes([payload[0], payload[1]]);
            payload = payload.split_off(2);
        }
        // Padding in RTX repairs nothing; on the media's own SSRC it takes up a number, which the application must know.
        if payload.is_empty() && is_rtx {
            return;
        }
        let Some((seq, ssrc, rid)) = self.inbound.accept(resolved.stream, seq) else {
            self.stats.duplicates += 1;
            return;
        };
        self.stats.repaired += u64::from(is_rtx);
        let extension = |id: Option<u8>| header.get_extension(id?).and_then(|value| value.first().copied());
        let meta = RtpMeta {
            payload_type: codec.payload_type,
            codec: codec.codec,
            seq,
            timestamp: header.timestamp,
            ssrc,
            marker: header.marker,
            audio_level: extension(line.extensions.audio_level).map(|value| value & 0x7f),
            repaired: is_rtx,
            arrived: now,
        };
        sinks.events.push_back(Event::Rtp {
            session: self.id,
            mid: line.mid,
            rid,
            meta,
            payload,
        });
    }

    pub(super) fn line(&self, mid: Mid, flows: impl Fn(Direction) -> bool) -> Result<usize, WriteError> {
        let index = self
            .lines
            .iter()
            .position(|line| line.mid == mid)
            .ok_or(WriteError::NoLine)?;
        if flows(self.lines[index].direction) {
            Ok(index)
        } else {
            Err(WriteError::NoLine)
        }
    }

    /// Sends a packet of media, or repeats one as RTX.
    pub fn write(
        &mut self,
        now: Instant,
        mid: Mid,
        packet: &OutgoingRtp,
        repeat: bool,
        send_time: u32,
        sinks: &mut Sinks<'_>,
    ) -> Result<(), WriteError> {
        if !self.transport.is_up() {
            return Err(WriteError::NotConnected);
        }
        if packet.payload.len() > MAX_PAYLOAD {
            return Err(WriteError::TooLarge);
        }
        let index = self.line(mid, |direction| direction.send)?;
        let line = &self.lines[index];
        let outgoing = &mut self.outgoing[index];
        let codec = line.codec(packet.codec).ok_or(WriteError::NoCodec)?;
        let (ssrc, payload_type, seq) = if repeat {
            let payload_type = codec.rtx.ok_or(WriteError::NoCodec)?;
            outgoing.rtx_seq = outgoing.rtx_seq.wrapping_add(1);
            (line.local.rtx, payload_type, outgoing.rtx_seq)
        } else {
            (line.local.media, codec.payload_type, packet.seq)
        };

        let extension = if line.uses_remb() {
            line.extensions.abs_send_time.map(|id| (id, 3))
        } else {
            line.extensions.transport_cc.map(|id| (id, 2))
        };
        let header = if extension.is_some() {
            &mut self.extended_header
        } else {
            &mut self.plain_header
        };
        header.ssrc = ssrc;
        header.sequence_number = seq;
        let plain = &mut self.scratch;
        plain.clear();
        plain.extend_from_slice(&[
            0x80 | u8::from(extension.is_some()) << 4,
            u8::from(packet.marker) << 7 | payload_type,
        ]);
        plain.extend_from_slice(&seq.to_be_bytes());
        plain.extend_from_slice(&packet.timestamp.to_be_bytes());
        plain.extend_from_slice(&ssrc.to_be_bytes());
        // One element of at most 3 bytes: always one word (RFC 8285, section 4.2).
        match extension {
            Some((id, 3)) => {
                plain.extend_from_slice(&[0xBE, 0xDE, 0, 1, id << 4 | 2]);
                plain.extend_from_slice(&send_time.to_be_bytes()[1..]);
            }
            Some((id, _)) => {
                let size = 20 + packet.payload.len() + 2 * usize::from(repeat);
                let [high, low] = self.bandwidth.next_sequence(now, size).to_be_bytes();
                plain.extend_from_slice(&[0xBE, 0xDE, 0, 1, id << 4 | 1, high, low, 0]);
            }
            None => {}
        }
        if repeat {
            plain.extend_from_slice(&packet.seq.to_be_bytes());
        }
        plain.extend_from_slice(&packet.payload);

        let (path, encrypted) = self.transport.protect_rtp(plain, header).ok_or(WriteError::Engine)?;
        sinks.outbox.push(path, &encrypted);
        self.stats.packets_out += 1;
        self.stats.bytes_out += packet.payload.len() as u64;
        if repeat {
            self.stats.rtx_out += 1;
        } else {
            outgoing.packets = outgoing.packets.wrapping_add(1);
            outgoing.octets = outgoing.octets.wrapping_add(packet.payload.len() as u32);
        }
        Ok(())
    }

    pub fn handle_timeout(&mut self, now: Instant, sinks: &mut Sinks<'_>) {
        self.transport.handle_timeout(now);
        self.feedback.handle_timeout(now);
        while let Some(packets) = self.feedback.poll() {
            let _ = self.write_rtcp(&packets, sinks);
        }
    }

    /// Moves output out and notices changes of state. Called after everything else. `Some` when the session is over.
    pub fn settle(&mut self, now: Instant, sinks: &mut Sinks<'_>) -> Option<Reason> {
        while let Some((path, packet)) = self.transport.poll_outgoing() {
            sinks.outbox.push(path, &packet);
        }
        self.stats.rtt = self.transport.rtt;
        if self.path_since.is_none() && self.transport.path().is_some() {
            self.path_since = Some(now);
        }
        if let Some(reason) = self.transport.ended() {
            return Some(reason);
        }
        let session = self.id;
        let protocol = self.transport.path().map_or(Protocol::Udp, |path| path.local.protocol);
        if !self.connected && self.transport.is_up() {
            self.connected = true;
            sinks.events.push_back(Event::Connected { session, protocol });
        }
        if self.connected {
            let silent = now >= self.transport.last_consent() + self.config.consent_deadline / 2;
            if silent != self.silent {
                self.silent = silent;
                sinks.events.push_back(if silent {
                    Event::Disconnected { session }
                } else {
                    Event::Connected { session, protocol }
                });
            }
        }
        let (deadline, reason) = self.deadline();
        (now >= deadline).then_some(reason)
    }

    fn deadline(&self) -> (Instant, Reason) {
        match self.path_since {
            _ if self.connected => (
                self.transport.last_consent() + self.config.consent_deadline,
                Reason::ConsentLost,
            ),
            None => (self.created + self.config.ice_deadline, Reason::IceTimeout),
            Some(since) => (since + self.config.dtls_deadline, Reason::DtlsTimeout),
        }
    }

    pub fn next_timeout(&mut self) -> Instant {
        let (mut deadline, _) = self.deadline();
        if self.connected && !self.silent {
            deadline -= self.config.consent_deadline / 2;
        }
        let others = self
            .transport
            .next_timeout()
            .into_iter()
            .chain(self.feedback.next_timeout());
        others.fold(deadline, Instant::min)
    }

    pub fn close(&mut self, now: Instant, sinks: &mut Sinks<'_>) {
        self.transport.close(now);
        while let Some((path, packet)) = self.transport.poll_outgoing() {
            sinks.outbox.push(path, &packet);
        }
    }

    /// Codecs that a kind of m-line may use, for messages.
    pub fn codec_names(policy: &OfferPolicy) -> String {
        let names: Vec<&str> = policy.codecs.iter().map(|codec| codec.mime()).collect();
        names.join(", ")
    }

    /// Whether anything at all was agreed.
    pub fn agrees(offer: &Offer, policy: &OfferPolicy) -> bool {
        let local = LocalSsrcs { media: 0, rtx: 0 };
        offer
            .lines
            .iter()
            .any(|line| Line::negotiate(line, policy, local).accepted())
    }
}

/// An SSRC that is not among `used`. 0 is avoided: it stands for "none" in some peers.
fn random_ssrc(used: &[u32]) -> u32 {
    loop {
        let ssrc: u32 = rand::random();
        if ssrc != 0 && !used.contains(&ssrc) {
            return ssrc;
        }
    }
}

//! The engine against a peer connection of the protocol crate, all in memory and in virtual time: deadlines, address
//! takeover, limits.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use rtc::crypto::default_provider;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_H264, MIME_TYPE_RTX, MediaEngine};
use rtc::peer_connection::event::RTCPeerConnectionEvent;
use rtc::peer_connection::message::RTCMessage;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use rtc::sansio::Protocol as _;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc::stun::attributes::{ATTR_USE_CANDIDATE, ATTR_USERNAME};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_REQUEST, Message, TransactionId};
use rtc::stun::textattrs::TextAttribute;
use wzp_gateway::webrtc::engine::{
    Codec, Config, Engine, Event, Local, MAX_LINES, MAX_OFFER, MAX_PAYLOAD, Mid, OfferError, OfferPolicy, OutgoingRtp,
    Reason, SessionId, WriteError,
};

const SERVER: &str = "192.0.2.10:8444";
const STEP: Duration = Duration::from_millis(5);

struct Client {
    pc: RTCPeerConnection,
    /// Its own address.
    inner: SocketAddr,
    /// What the network makes of it.
    address: SocketAddr,
    received: Vec<rtc::rtp::Packet>,
    /// DTLS alerts that came in.
    alerts: usize,
    connected: bool,
    /// The network to and from it is cut.
    silent: bool,
    /// The network to it is cut; what it sends arrives.
    deaf: bool,
}

fn h264() -> RTCRtpCodec {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback {
        typ: typ.to_owned(),
        parameter: parameter.to_owned(),
    };
    RTCRtpCodec {
        mime_type: MIME_TYPE_H264.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f".to_owned(),
        rtcp_feedback: vec![feedback("nack", ""), feedback("nack", "pli")],
    }
}

impl Client {
    fn new(now: Instant, address: &str, sends: bool) -> Self {
        let mut media = MediaEngine::default();
        let rtx = RTCRtpCodec {
            mime_type: MIME_TYPE_RTX.to_owned(),
            sdp_fmtp_line: "apt=102".to_owned(),
            rtcp_feedback: vec![],
            ..h264()
        };
        for (rtp_codec, payload_type) in [(h264(), 102), (rtx, 103)] {
            let codec = RTCRtpCodecParameters {
                rtp_codec,
                payload_type,
            };
            media.register_codec(codec, RtpCodecKind::Video).unwrap();
        }
        let mut pc = RTCPeerConnectionBuilder::new()
            .with_configuration(RTCConfigurationBuilder::new().build())
            .with_media_engine(media)
            .build(now)
            .unwrap();
        if sends {
            let coding = RTCRtpEncodingParameters {
                rtp_coding_parameters: RTCRtpCodingParameters {
                    ssrc: Some(77),
                    ..Default::default()
                },
                codec: h264(),
                ..Default::default()
            };
            let track = MediaStreamTrack::new(
                "stream".to_owned(),
                "track".to_owned(),
                "label".to_owned(),
                RtpCodecKind::Video,
                vec![coding],
            );
            pc.add_track(track).unwrap();
        } else {
            let init = RTCRtpTransceiverInit {
                direction: RTCRtpTransceiverDirection::Recvonly,
                ..Default::default()
            };
            pc.add_transceiver_from_kind(RtpCodecKind::Video, Some(init)).unwrap();
        }
        let address = address.parse().unwrap();
        Self {
            pc,
            inner: address,
            address,
            received: Vec::new(),
            alerts: 0,
            connected: false,
            silent: false,
            deaf: false,
        }
    }

    fn offer(&mut self, now: Instant) -> String {
        let base_config = CandidateConfig {
            network: "udp".to_owned(),
            address: self.address.ip().to_string(),
            port: self.address.port(),
            component: 1,
            ..Default::default()
        };
        let candidate = CandidateHostConfig {
            base_config,
            ..Default::default()
        }
        .new_candidate_host()
        .unwrap();
        let offer = self.pc.create_offer(None).unwrap();
        self.pc.set_local_description(now, offer).unwrap();
        self.pc
            .add_local_candidate(RTCIceCandidate::from(&candidate).to_json().unwrap())
            .unwrap();
        self.pc.local_description().unwrap().sdp
    }

    fn answer(&mut self, now: Instant, sdp: String) {
        self.pc
            .set_remote_description(now, RTCSessionDescription::answer(sdp).unwrap())
            .unwrap();
    }

    fn take(&mut self, now: Instant, datagram: &[u8]) {
        self.alerts += usize::from(datagram[0] == 21);
        let transport = TransportContext {
            local_addr: self.inner,
            peer_addr: SERVER.parse().unwrap(),
            transport_protocol: TransportProtocol::UDP,
            ecn: None,
        };
        let _ = self.pc.handle_read(TaggedBytesMut {
            now,
            transport,
            message: BytesMut::from(datagram),
        });
    }

    fn turn(&mut self, now: Instant) -> Vec<BytesMut> {
        if self.pc.poll_timeout().is_some_and(|at| at <= now) {
            let _ = self.pc.handle_timeout(now);
        }
        while let Some(event) = self.pc.poll_event() {
            if let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) = event {
                self.connected = state == RTCPeerConnectionState::Connected;
            }
        }
        while let Some(message) = self.pc.poll_read() {
            if let RTCMessage::RtpPacket(_, packet) = message.message {
                self.received.push(packet);
            }
        }
        std::iter::from_fn(|| self.pc.poll_write())
            .map(|message| message.message)
            .collect()
    }
}

/// An engine and its peers on a network without delay.
struct World {
    now: Instant,
    engine: Engine,
    clients: Vec<Client>,
    events: Vec<(Duration, Event)>,
    start: Instant,
    /// Datagrams the engine sent to an address nobody lives at.
    stray: Vec<SocketAddr>,
}

fn id(index: usize) -> SessionId {
    SessionId(index as u64 + 1)
}

impl World {
    fn new(config: Config) -> Self {
        let now = Instant::now();
        let engine = Engine::new(
            now,
            Config {
                udp_candidates: vec![SERVER.parse().unwrap()],
                ..config
            },
        )
        .unwrap();
        Self {
            now,
            engine,
            clients: Vec::new(),
            events: Vec::new(),
            start: now,
            stray: Vec::new(),
        }
    }

    fn join(&mut self, address: &str, sends: bool) -> usize {
        let mut client = Client::new(self.now, address, sends);
        let offer = client.offer(self.now);
        let index = self.clients.len();
        let answer = self
            .engine
            .accept_offer(self.now, id(index), &offer, &OfferPolicy::default())
            .unwrap();
        client.answer(self.now, answer);
        self.clients.push(client);
        index
    }

    fn turn(&mut self) {
        self.now += STEP;
        let now = self.now;
        for client in &mut self.clients {
            for datagram in client.turn(now) {
                if !client.silent {
                    self.engine.handle_datagram(now, Local::UDP, client.address, &datagram);
                }
            }
        }
        self.engine.handle_timeout(now);
        while let Some(transmit) = self.engine.poll_transmit() {
            let Some(client) = self.clients.iter_mut().find(|client| client.address == transmit.to) else {
                self.stray.push(transmit.to);
                continue;
            };
            let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
            if !client.silent && !client.deaf {
                transmit
                    .contents
                    .chunks(segment)
                    .for_each(|datagram| client.take(now, datagram));
            }
        }
        while let Some(event) = self.engine.poll_event() {
            self.events.push((now - self.start, event));
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.turn();
        }
    }

    fn connect(&mut self, index: usize) {
        let end = self.now + Duration::from_secs(5);
        let up = |world: &Self| {
            world.clients[index].connected
                && world
                    .events
                    .iter()
                    .any(|(_, e)| matches!(e, Event::Connected { session, .. } if *session == id(index)))
        };
        while !up(self) {
            assert!(self.now < end, "not connected: {:?}", self.events);
            self.turn();
        }
    }

    fn closed(&self, index: usize) -> Option<(Duration, Reason)> {
        self.events.iter().find_map(|(at, event)| match event {
            Event::Closed { session, reason } if *session == id(index) => Some((*at, *reason)),
            _ => None,
        })
    }

    fn mid(&self, index: usize) -> Mid {
        let negotiated = self.events.iter().find_map(|(_, event)| match event {
            Event::Negotiated { session, lines } if *session == id(index) => Some(lines[0].mid),
            _ => None,
        });
        negotiated.unwrap()
    }

    fn write(&mut self, index: usize, seq: u16, payload: &Bytes) -> Result<(), WriteError> {
        let mid = self.mid(index);
        let (timestamp, marker, payload) = (u32::from(seq) * 3_000, true, payload.clone());
        let packet = OutgoingRtp {
            codec: Codec::H264,
            seq,
            timestamp,
            marker,
            payload,
        };
        self.engine.write_rtp(self.now, id(index), mid, &packet)
    }
}

fn near(at: Duration, expected: u64) -> bool {
    let expected = Duration::from_secs(expected);
    at >= expected && at <= expected + Duration::from_millis(500)
}

/// `name` of the answer's first m-line.
fn attribute(sdp: &str, name: &str) -> String {
    let prefix = format!("a={name}:");
    sdp.lines()
        .find_map(|line| line.strip_prefix(&prefix))
        .unwrap()
        .trim()
        .to_owned()
}

fn binding_request(username: &str, password: &str, nominate: bool) -> Vec<u8> {
    let provider = default_provider().unwrap();
    let mut message = Message::new();
    message
        .build(&[
            Box::new(BINDING_REQUEST),
            Box::new(TransactionId::new()),
            Box::new(TextAttribute::new(ATTR_USERNAME, username.to_owned())),
        ])
        .unwrap();
    if nominate {
        message.add(ATTR_USE_CANDIDATE, &[]);
    }
    let integrity = MessageIntegrity::new_short_term_integrity_with_provider(password.to_owned(), provider.crypto());
    rtc::stun::message::Setter::add_to(&integrity, &mut message).unwrap();
    rtc::stun::message::Setter::add_to(&FINGERPRINT, &mut message).unwrap();
    message.raw
}

#[test]
fn media_flows_both_ways_in_memory() {
    let mut world = World::new(Config::default());
    let viewer = world.join("198.51.100.1:5000", false);
    world.connect(viewer);
    let payload = Bytes::from_static(&[0x65, 0x88, 1, 2, 3]);
    for seq in 256..266 {
        world.write(viewer, seq, &payload).unwrap();
    }
    world.run(Duration::from_millis(50));
    let received = &world.clients[viewer].received;
    assert_eq!(received.len(), 10);
    assert!(
        received
            .iter()
            .all(|packet| packet.payload == payload && packet.header.payload_type == 102)
    );
    assert_eq!(received[0].header.timestamp, 256 * 3_000);
}

#[test]
fn a_repeated_packet_comes_as_rtx() {
    let mut world = World::new(Config::default());
    let viewer = world.join("198.51.100.1:5000", false);
    world.connect(viewer);
    let payload = Bytes::from_static(&[0x65, 0x88, 1, 2, 3]);
    world.write(viewer, 256, &payload).unwrap();
    world.write(viewer, 258, &payload).unwrap();
    let missing = OutgoingRtp {
        codec: Codec::H264,
        seq: 257,
        timestamp: 257 * 3_000,
        marker: true,
        payload: payload.clone(),
    };
    let mid = world.mid(viewer);
    world.engine.write_rtx(world.now, id(viewer), mid, &missing).unwrap();
    world.run(Duration::from_millis(50));
    let seqs: Vec<u16> = world.clients[viewer]
        .received
        .iter()
        .map(|packet| packet.header.sequence_number)
        .collect();
    assert_eq!(seqs, [256, 258, 257]);
    assert_eq!(world.clients[viewer].received[2].payload, payload);
    assert_eq!(world.engine.stats(id(viewer)).unwrap().rtx_out, 1);
}

#[test]
fn nothing_is_sent_before_the_session_is_up_or_where_it_was_not_agreed() {
    let mut world = World::new(Config::default());
    let viewer = world.join("198.51.100.1:5000", false);
    world.turn();
    let payload = Bytes::from_static(&[0x65, 0x88]);
    assert_eq!(world.write(viewer, 256, &payload), Err(WriteError::NotConnected));
    world.connect(viewer);
    assert_eq!(
        world.write(viewer, 256, &Bytes::from(vec![0; MAX_PAYLOAD + 1])),
        Err(WriteError::TooLarge)
    );
    assert_eq!(world.write(viewer, 256, &Bytes::from(vec![0; MAX_PAYLOAD])), Ok(()));
    let (now, mid) = (world.now, world.mid(viewer));
    let packet = OutgoingRtp {
        codec: Codec::Av1,
        seq: 1,
        timestamp: 0,
        marker: false,
        payload,
    };
    assert_eq!(
        world.engine.write_rtp(now, id(viewer), mid, &packet),
        Err(WriteError::NoCodec)
    );
    let unknown = Mid::new("nope").unwrap();
    assert_eq!(
        world.engine.write_rtp(now, id(viewer), unknown, &packet),
        Err(WriteError::NoLine)
    );
    assert_eq!(
        world.engine.write_rtp(now, SessionId(99), mid, &packet),
        Err(WriteError::NoSession)
    );
    assert_eq!(
        world.engine.request_keyframe(now, id(viewer), mid, None),
        Err(WriteError::NoLine)
    );
}

#[test]
fn a_session_without_a_path_ends_after_15_s() {
    let mut world = World::new(Config::default());
    let viewer = world.join("198.51.100.1:5000", false);
    world.clients[viewer].silent = true;
    world.run(Duration::from_secs(16));
    let (at, reason) = world.closed(viewer).unwrap();
    assert!(near(at, 15) && reason == Reason::IceTimeout, "{at:?} {reason:?}");
    assert!(world.engine.is_empty());
}

#[test]
fn a_session_without_a_handshake_ends_after_10_s_more() {
    let mut world = World::new(Config {
        ice_lite: true,
        ..Config::default()
    });
    let mut client = Client::new(world.now, "198.51.100.1:5000", false);
    let offer = client.offer(world.now);
    let answer = world
        .engine
        .accept_offer(world.now, id(0), &offer, &OfferPolicy::default())
        .unwrap();
    let username = format!("{}:{}", attribute(&answer, "ice-ufrag"), attribute(&offer, "ice-ufrag"));
    let password = attribute(&answer, "ice-pwd");
    for second in 0..12 {
        let request = binding_request(&username, &password, true);
        world
            .engine
            .handle_datagram(world.now, Local::UDP, client.address, &request);
        if second < 11 {
            world.run(Duration::from_secs(1));
        }
    }
    let (at, reason) = world.closed(0).unwrap();
    assert!(near(at, 10) && reason == Reason::DtlsTimeout, "{at:?} {reason:?}");
}

#[test]
fn a_peer_that_falls_silent_is_gone_after_10_s() {
    let mut world = World::new(Config::default());
    let (viewer, other) = (
        world.join("198.51.100.1:5000", false),
        world.join("198.51.100.2:5000", false),
    );
    world.connect(viewer);
    world.connect(other);
    world.run(Duration::from_secs(20));
    assert_eq!(world.closed(viewer), None, "a quiet but living session stays");
    let cut = world.now - world.start;
    world.clients[viewer].silent = true;
    world.run(Duration::from_secs(7));
    assert!(
        world
            .events
            .iter()
            .any(|(_, e)| matches!(e, Event::Disconnected { session } if *session == id(viewer)))
    );
    world.run(Duration::from_secs(4));
    let (at, reason) = world.closed(viewer).unwrap();
    assert_eq!(reason, Reason::ConsentLost);
    let took = at - cut;
    assert!(
        took > Duration::from_secs(7) && took < Duration::from_millis(10_500),
        "{took:?}"
    );
    assert_eq!(world.closed(other), None, "another session ended with it");
}

#[test]
fn requests_alone_prove_no_consent() {
    let mut world = World::new(Config::default());
    let viewer = world.join("198.51.100.1:5000", false);
    world.connect(viewer);
    world.run(Duration::from_secs(5));
    let cut = world.now - world.start;
    world.clients[viewer].deaf = true;
    let offer = world.clients[viewer].pc.local_description().unwrap().sdp;
    let answer = world.clients[viewer].pc.remote_description().unwrap().sdp.clone();
    let username = format!("{}:{}", attribute(&answer, "ice-ufrag"), attribute(&offer, "ice-ufrag"));
    for _ in 0..11 {
        // Somebody who knows the password keeps asking, from the address that the media goes to.
        let request = binding_request(&username, &attribute(&answer, "ice-pwd"), true);
        let from = world.clients[viewer].address;
        world.engine.handle_datagram(world.now, Local::UDP, from, &request);
        world.run(Duration::from_secs(1));
    }
    let (at, reason) = world.closed(viewer).expect("still sent to");
    let took = at - cut;
    assert_eq!(reason, Reason::ConsentLost);
    assert!(
        took > Duration::from_secs(7) && took <= Duration::from_millis(10_500),
        "{took:?}"
    );
}

#[test]
fn a_peer_that_comes_back_in_time_is_connected_again() {
    let mut world = World::new(Config::default());
    let viewer = world.join("198.51.100.1:5000", false);
    world.connect(viewer);
    world.clients[viewer].silent = true;
    world.run(Duration::from_secs(7));
    world.clients[viewer].silent = false;
    world.run(Duration::from_secs(7));
    let states: Vec<bool> = world
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Connected { .. } => Some(true),
            Event::Disconnected { .. } => Some(false),
            _ => None,
        })
        .collect();
    assert_eq!(states, [true, false, true]);
    assert_eq!(world.closed(viewer), None);
}

#[test]
fn closing_tells_the_peer() {
    let mut world = World::new(Config::default());
    let viewer = world.join("198.51.100.1:5000", false);
    world.connect(viewer);
    world.engine.close(world.now, id(viewer));
    world.run(Duration::from_millis(50));
    assert_eq!(world.closed(viewer).map(|(_, reason)| reason), Some(Reason::Local));
    assert_eq!(world.clients[viewer].alerts, 1, "no close_notify");
    assert!(world.engine.is_empty());
}

#[test]
fn a_wrong_password_moves_nothing() {
    let mut world = World::new(Config::default());
    let mut client = Client::new(world.now, "198.51.100.1:5000", false);
    let offer = client.offer(world.now);
    let answer = world
        .engine
        .accept_offer(world.now, id(0), &offer, &OfferPolicy::default())
        .unwrap();
    let username = format!("{}:{}", attribute(&answer, "ice-ufrag"), attribute(&offer, "ice-ufrag"));
    let attacker: SocketAddr = "203.0.113.66:666".parse().unwrap();
    let forged = binding_request(&username, "not the password, but long enough", true);
    assert!(!world.engine.handle_datagram(world.now, Local::UDP, attacker, &forged));
    let unknown = binding_request("nobody:here", &attribute(&answer, "ice-pwd"), true);
    assert!(!world.engine.handle_datagram(world.now, Local::UDP, attacker, &unknown));
    world.run(Duration::from_millis(300));
    assert!(!world.stray.contains(&attacker), "the engine answered a forged request");
}

#[test]
fn a_forged_source_address_does_not_cut_off_the_session_that_lives_there() {
    let mut world = World::new(Config::default());
    let victim = world.join("198.51.100.1:5000", false);
    world.connect(victim);
    // The attacker has a session of its own, and sends its own, genuine requests in the victim's name.
    let mut attacker = Client::new(world.now, "198.51.100.2:5000", false);
    let offer = attacker.offer(world.now);
    let answer = world
        .engine
        .accept_offer(world.now, SessionId(50), &offer, &OfferPolicy::default())
        .unwrap();
    let username = format!("{}:{}", attribute(&answer, "ice-ufrag"), attribute(&offer, "ice-ufrag"));
    let request = binding_request(&username, &attribute(&answer, "ice-pwd"), true);
    let address = world.clients[victim].address;
    for seq in 256..356 {
        assert!(!world.engine.handle_datagram(world.now, Local::UDP, address, &request));
        world.write(victim, seq, &Bytes::from_static(&[0x65, 0x88, 1])).unwrap();
        world.run(Duration::from_millis(100));
    }
    assert_eq!(world.clients[victim].received.len(), 100);
    assert!(world.clients[victim].connected);
    assert_eq!(world.closed(victim), None);
}

#[test]
fn a_replayed_request_from_elsewhere_does_not_draw_the_media_away() {
    let mut world = World::new(Config::default());
    let viewer = world.join("198.51.100.1:5000", false);
    world.connect(viewer);
    // Someone on the path copies the viewer's own requests and sends them from another address.
    let thief: SocketAddr = "203.0.113.66:666".parse().unwrap();
    for _ in 0..2_000 {
        world.now += STEP;
        let now = world.now;
        for datagram in world.clients[viewer].turn(now) {
            let address = world.clients[viewer].address;
            world.engine.handle_datagram(now, Local::UDP, address, &datagram);
            world.engine.handle_datagram(now, Local::UDP, thief, &datagram);
        }
        world.turn();
    }
    world.stray.clear();
    for seq in 256..276 {
        world.write(viewer, seq, &Bytes::from_static(&[0x65, 0x88, 1])).unwrap();
        world.turn();
    }
    world.turn();
    assert_eq!(world.clients[viewer].received.len(), 20);
}

#[test]
fn a_session_moves_with_its_peer() {
    let mut world = World::new(Config::default());
    let viewer = world.join("198.51.100.1:5000", false);
    world.connect(viewer);
    // The viewer's NAT gives it another port.
    world.clients[viewer].address = "198.51.100.1:6000".parse().unwrap();
    world.run(Duration::from_secs(6));
    world.stray.clear();
    world.write(viewer, 256, &Bytes::from_static(&[0x65, 0x88, 1])).unwrap();
    world.run(Duration::from_millis(50));
    assert_eq!(world.clients[viewer].received.len(), 1, "stray: {:?}", world.stray);
    world.run(Duration::from_secs(20));
    assert_eq!(world.closed(viewer), None, "it is well where it is");
}

#[test]
fn sessions_are_limited() {
    let mut world = World::new(Config {
        max_sessions: 2,
        ..Config::default()
    });
    world.join("198.51.100.1:5000", false);
    world.join("198.51.100.2:5000", false);
    let offer = Client::new(world.now, "198.51.100.3:5000", false).offer(world.now);
    let refused = world
        .engine
        .accept_offer(world.now, SessionId(9), &offer, &OfferPolicy::default());
    assert_eq!(refused, Err(OfferError::TooManySessions(2)));
    world.engine.close(world.now, id(0));
    assert!(
        world
            .engine
            .accept_offer(world.now, SessionId(9), &offer, &OfferPolicy::default())
            .is_ok()
    );
}

fn refuse(change: impl Fn(String) -> String) -> OfferError {
    let mut world = World::new(Config::default());
    let offer = change(Client::new(world.now, "198.51.100.3:5000", false).offer(world.now));
    let refused = world
        .engine
        .accept_offer(world.now, id(0), &offer, &OfferPolicy::default());
    assert!(world.engine.is_empty(), "a refused offer left a session behind");
    refused.unwrap_err()
}

#[test]
fn offers_that_cannot_be_used_are_refused_with_a_reason() {
    let too_long = refuse(|offer| format!("{offer}{}", "a=x\r\n".repeat(MAX_OFFER / 5)));
    assert!(matches!(too_long, OfferError::TooLong(_)), "{too_long}");
    let many = refuse(|offer| {
        let (head, line) = offer.split_at(offer.find("m=").unwrap());
        let lines: String = (0..=MAX_LINES)
            .map(|mid| line.replace("a=mid:0", &format!("a=mid:{mid}")))
            .collect();
        format!("{head}{lines}")
    });
    assert_eq!(many, OfferError::TooManyLines(MAX_LINES + 1));
    assert!(matches!(
        refuse(|_| "not sdp".to_owned()),
        OfferError::Malformed(_) | OfferError::Missing(_)
    ));
    assert!(matches!(
        refuse(|offer| offer.replace("a=fingerprint", "a=nothing")),
        OfferError::Missing(_)
    ));
    assert!(matches!(
        refuse(|offer| offer.replace("a=ice-pwd", "a=nothing")),
        OfferError::Missing(_)
    ));
    assert!(matches!(
        refuse(|offer| offer.replace("a=mid:0", "a=mid:01234567890123456")),
        OfferError::Missing(_)
    ));
    assert!(matches!(
        refuse(|offer| offer.replace("H264", "VP8")),
        OfferError::NoCommonCodec(_)
    ));
    assert!(matches!(
        refuse(|offer| offer.replace("packetization-mode=1", "packetization-mode=0")),
        OfferError::NoCommonCodec(_)
    ));
    assert!(matches!(
        refuse(|offer| offer.replacen("t=0 0\r\n", "t=0 0\r\na=ice-lite\r\n", 1)),
        OfferError::Missing(_)
    ));
    let twice = refuse(|offer| format!("{offer}{}", &offer[offer.find("m=").unwrap()..]));
    assert_eq!(twice, OfferError::DuplicateMid(Mid::new("0").unwrap()));
}

#[test]
fn a_bad_renegotiation_leaves_the_session_as_it_was() {
    let mut world = World::new(Config::default());
    let mut client = Client::new(world.now, "198.51.100.1:5000", false);
    let offer = client.offer(world.now);
    let policy = OfferPolicy::default();
    let second = offer[offer.find("m=").unwrap()..].replace("a=mid:0", "a=mid:1");
    let two = format!("{offer}{second}");
    world.engine.accept_offer(world.now, id(0), &two, &policy).unwrap();
    let removed = world.engine.accept_offer(world.now, id(0), &offer, &policy);
    assert_eq!(removed, Err(OfferError::LinesRemoved { offered: 1, known: 2 }));
    let other = Client::new(world.now, "198.51.100.1:5000", false).offer(world.now);
    let changed = two.replace(&attribute(&offer, "fingerprint"), &attribute(&other, "fingerprint"));
    assert_eq!(
        world.engine.accept_offer(world.now, id(0), &changed, &policy),
        Err(OfferError::FingerprintChanged)
    );
    assert!(world.engine.accept_offer(world.now, id(0), &two, &policy).is_ok());
}

#[test]
fn m_lines_keep_their_ssrc_and_a_reused_one_gets_another() {
    let mut world = World::new(Config::default());
    let offer = Client::new(world.now, "198.51.100.1:5000", false).offer(world.now);
    let policy = OfferPolicy::default();
    let mut ssrc = |offer: &str| {
        let answer = world.engine.accept_offer(world.now, id(0), offer, &policy).unwrap();
        assert!(answer.contains("a=ssrc-group:FID "), "no RTX in {answer}");
        attribute(&answer, "ssrc")
    };
    let first = ssrc(&offer);
    assert_eq!(first, ssrc(&offer));
    assert_ne!(
        first,
        ssrc(&offer.replace("a=mid:0", "a=mid:7").replace("BUNDLE 0", "BUNDLE 7"))
    );
}

#[test]
fn pausing_and_resuming_an_m_line_shows_in_its_direction() {
    let mut world = World::new(Config::default());
    let offer = Client::new(world.now, "198.51.100.1:5000", false).offer(world.now);
    let policy = OfferPolicy::default();
    for (theirs, ours) in [
        ("recvonly", "sendonly"),
        ("inactive", "inactive"),
        ("sendrecv", "sendrecv"),
        ("recvonly", "sendonly"),
    ] {
        let answer = world.engine.accept_offer(
            world.now,
            id(0),
            &offer.replace("a=recvonly", &format!("a={theirs}")),
            &policy,
        );
        assert!(
            answer.unwrap().contains(&format!("a={ours}\r\n")),
            "{theirs} was not answered with {ours}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn garbage_harms_no_session(datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..40)) {
        let mut world = World::new(Config::default());
        let offer = Client::new(world.now, "198.51.100.1:5000", false).offer(world.now);
        let answer = world.engine.accept_offer(world.now, id(0), &offer, &OfferPolicy::default()).unwrap();
        let username = format!("{}:{}", attribute(&answer, "ice-ufrag"), attribute(&offer, "ice-ufrag"));
        let from: SocketAddr = "198.51.100.1:5000".parse().unwrap();
        let request = binding_request(&username, &attribute(&answer, "ice-pwd"), true);
        prop_assert!(world.engine.handle_datagram(world.now, Local::UDP, from, &request));
        for mut datagram in datagrams {
            world.engine.handle_datagram(world.now, Local::UDP, from, &datagram);
            for kind in [0, 1, 20, 22, 0x80, 0x90] {
                if let Some(first) = datagram.first_mut() {
                    *first = kind;
                }
                world.engine.handle_datagram(world.now, Local::UDP, from, &datagram);
            }
            if datagram.len() >= 8 {
                datagram[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
                datagram[0] = 0;
                world.engine.handle_datagram(world.now, Local::UDP, from, &datagram);
            }
        }
        prop_assert!(world.engine.contains(id(0)));
    }

    #[test]
    fn mangled_offers_do_not_panic(cuts in prop::collection::vec((0usize..3_000, 0usize..200), 0..4), junk in ".{0,20}") {
        let mut world = World::new(Config::default());
        let mut offer = Client::new(world.now, "198.51.100.1:5000", false).offer(world.now).into_bytes();
        for (at, length) in cuts {
            let at = at.min(offer.len());
            let end = (at + length).min(offer.len());
            offer.splice(at..end, junk.bytes());
        }
        let offer = String::from_utf8_lossy(&offer);
        let _ = world.engine.accept_offer(world.now, id(0), &offer, &OfferPolicy::default());
    }
}

#[test]
fn a_viewer_decrypts_across_the_wrap_of_its_sequence_numbers() {
    let mut world = World::new(Config::default());
    let viewer = world.join("198.51.100.1:5000", false);
    world.connect(viewer);
    let payload = Bytes::from_static(&[0x65, 0x88, 1]);
    for index in 0..70_000u32 {
        world.write(viewer, (256 + index) as u16, &payload).unwrap();
        if index % 50 == 0 {
            world.turn();
        }
    }
    world.run(Duration::from_millis(50));
    assert_eq!(world.clients[viewer].received.len(), 70_000);
}

#[test]
fn the_packets_of_a_frame_leave_together() {
    let mut world = World::new(Config::default());
    let viewer = world.join("198.51.100.1:5000", false);
    world.connect(viewer);
    world.run(Duration::from_millis(10));
    for seq in 256..263 {
        world.write(viewer, seq, &Bytes::from(vec![7; MAX_PAYLOAD])).unwrap();
    }
    world.write(viewer, 263, &Bytes::from_static(&[7; 100])).unwrap();
    let transmit = world.engine.poll_transmit().unwrap();
    let segment = transmit.segment_size.unwrap();
    assert_eq!(transmit.contents.len().div_ceil(segment), 8);
    assert!(
        segment > MAX_PAYLOAD && segment <= 1_232,
        "{segment} bytes do not fit every path"
    );
    assert!(world.engine.poll_transmit().is_none());
}

#[test]
fn a_certificate_that_is_not_the_one_in_the_offer_ends_the_session() {
    let mut world = World::new(Config::default());
    let mut client = Client::new(world.now, "198.51.100.1:5000", false);
    let offer = client.offer(world.now);
    let other = Client::new(world.now, "198.51.100.2:5000", false).offer(world.now);
    let forged = offer.replace(&attribute(&offer, "fingerprint"), &attribute(&other, "fingerprint"));
    let answer = world
        .engine
        .accept_offer(world.now, id(0), &forged, &OfferPolicy::default())
        .unwrap();
    client.answer(world.now, answer);
    world.clients.push(client);
    world.run(Duration::from_secs(12));
    let (at, reason) = world.closed(0).unwrap();
    assert_eq!(reason, Reason::DtlsFailed, "after {at:?}");
    assert!(
        !world
            .events
            .iter()
            .any(|(_, event)| matches!(event, Event::Connected { .. }))
    );
}

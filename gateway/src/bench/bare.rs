//! The yardstick: peer connections of the crate `rtc` with its default interceptors, in a loop that does nothing but
//! write the same packets to all of them. It sends through the same sockets as the gateway, with segmentation offload.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use rtc::interceptor::Registry;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::interceptor_registry::register_default_interceptors;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_H264, MIME_TYPE_RTX, MediaEngine};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::RTCPeerConnectionEvent;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCDtlsRole, RTCIceCandidate};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp;
use rtc::rtp_transceiver::RTCRtpSenderId;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::sansio::Protocol as _;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use tokio::sync::{mpsc, oneshot};

use super::{FPS, forward};
use crate::media::rtp::packetize;
use crate::webrtc::engine::{Local, MAX_PAYLOAD, Transmit};
use crate::webrtc::net::{Config, Sockets};

/// Name of the thread.
pub(super) const THREAD: &str = "bare";
const PAYLOAD_TYPE: u8 = 102;
const SSRC: u32 = 77;
const FRAME: Duration = Duration::from_nanos(1_000_000_000 / FPS as u64);

type Ask = (String, oneshot::Sender<anyhow::Result<String>>);

pub(super) struct Side {
    asks: mpsc::UnboundedSender<Ask>,
    thread: std::thread::JoinHandle<anyhow::Result<()>>,
}

impl Side {
    pub async fn start() -> anyhow::Result<Self> {
        let (asks, asked) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { Loop::new()?.run(asked).await })
        })?;
        Ok(Self { asks, thread })
    }

    pub async fn answer(&mut self, offer: String) -> anyhow::Result<String> {
        let (reply, answer) = oneshot::channel();
        self.asks.send((offer, reply)).ok().context("the loop has ended")?;
        answer.await.context("the loop has ended")?
    }

    pub async fn stop(self) {
        drop(self.asks);
        let _ = tokio::task::spawn_blocking(move || self.thread.join()).await;
    }
}

struct Peer {
    pc: RTCPeerConnection,
    sender: RTCRtpSenderId,
    connected: bool,
    seq: u16,
}

struct Loop {
    sockets: Sockets,
    address: SocketAddr,
    peers: Vec<Peer>,
    ufrags: Vec<String>,
    by_address: HashMap<SocketAddr, usize>,
}

impl Loop {
    fn new() -> anyhow::Result<Self> {
        let config = Config {
            addresses: vec![[127, 0, 0, 1].into()],
            port: 0,
            ..Config::default()
        };
        let sockets = Sockets::bind(config)?;
        let address = ([127, 0, 0, 1], sockets.port()).into();
        Ok(Self {
            sockets,
            address,
            peers: Vec::new(),
            ufrags: Vec::new(),
            by_address: HashMap::new(),
        })
    }

    async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Ask>) -> anyhow::Result<()> {
        let payloads = packetize::h264(&forward::frame(false), MAX_PAYLOAD)?;
        let mut frame_at = Instant::now();
        let mut timestamp = 0u32;
        let mut datagrams: Vec<(SocketAddr, BytesMut)> = Vec::new();
        loop {
            let now = Instant::now();
            let due = self
                .peers
                .iter_mut()
                .filter_map(|peer| peer.pc.poll_timeout())
                .fold(frame_at, Instant::min);
            tokio::select! {
                received = self.sockets.receive(|_, from, datagram| {
                    datagrams.push((from, BytesMut::from(datagram)));
                    true
                }) => received?,
                ask = asked.recv() => match ask {
                    Some((offer, reply)) => { reply.send(self.join(now, offer)).ok(); }
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(due.into()) => {}
            }
            let now = Instant::now();
            for (from, datagram) in datagrams.drain(..) {
                self.take(now, from, datagram);
            }
            if frame_at <= now {
                frame_at += FRAME;
                timestamp = timestamp.wrapping_add(90_000 / FPS);
                for peer in self.peers.iter_mut().filter(|peer| peer.connected) {
                    peer.write(now, timestamp, &payloads)?;
                    flush(&mut peer.pc, &mut self.sockets);
                }
            }
            for peer in &mut self.peers {
                if peer.pc.poll_timeout().is_some_and(|at| at <= now) {
                    peer.pc.handle_timeout(now)?;
                }
                peer.settle();
                flush(&mut peer.pc, &mut self.sockets);
            }
        }
    }

    fn join(&mut self, now: Instant, offer: String) -> anyhow::Result<String> {
        let coding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters {
                ssrc: Some(SSRC),
                ..Default::default()
            },
            codec: h264(),
            ..Default::default()
        };
        let names = ["stream", "track", "label"].map(str::to_owned);
        let [stream, track, label] = names;
        let mut pc = peer_connection(now, Some(RTCDtlsRole::Server))?;
        let sender = pc.add_track(MediaStreamTrack::new(
            stream,
            track,
            label,
            RtpCodecKind::Video,
            vec![coding],
        ))?;
        pc.set_remote_description(now, RTCSessionDescription::offer(offer)?)?;
        let base_config = CandidateConfig {
            network: "udp".to_owned(),
            address: self.address.ip().to_string(),
            port: self.address.port(),
            component: 1,
            ..Default::default()
        };
        let config = CandidateHostConfig {
            base_config,
            ..Default::default()
        };
        let candidate = config.new_candidate_host()?;
        pc.add_local_candidate(RTCIceCandidate::from(&candidate).to_json()?)?;
        let answer = pc.create_answer(None)?;
        pc.set_local_description(now, answer)?;
        let sdp = pc.local_description().context("no local description")?.sdp;
        let ufrag = sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:"));
        self.ufrags.push(format!("{}:", ufrag.context("no ufrag")?.trim()));
        self.peers.push(Peer {
            pc,
            sender,
            connected: false,
            seq: 0,
        });
        Ok(sdp)
    }

    fn take(&mut self, now: Instant, from: SocketAddr, datagram: BytesMut) {
        // An unknown address shows by the USERNAME of its binding request whose it is.
        let names = |ufrag: &String| memchr::memmem::find(&datagram, ufrag.as_bytes()).is_some();
        let known = self.by_address.get(&from).copied();
        let Some(index) = known.or_else(|| self.ufrags.iter().position(names)) else {
            return;
        };
        self.by_address.insert(from, index);
        let transport = TransportContext {
            local_addr: self.address,
            peer_addr: from,
            transport_protocol: TransportProtocol::UDP,
            ecn: None,
        };
        let _ = self.peers[index].pc.handle_read(TaggedBytesMut {
            now,
            transport,
            message: datagram,
        });
    }
}

impl Peer {
    fn write(
        &mut self,
        now: Instant,
        timestamp: u32,
        payloads: &[crate::media::frame::RtpPayload],
    ) -> anyhow::Result<()> {
        let mut sender = self.pc.rtp_sender(self.sender).context("no sender")?;
        for payload in payloads {
            self.seq = self.seq.wrapping_add(1);
            let header = rtp::Header {
                version: 2,
                marker: payload.marker,
                payload_type: PAYLOAD_TYPE,
                sequence_number: self.seq,
                timestamp,
                ssrc: SSRC,
                ..Default::default()
            };
            let packet = rtp::Packet {
                header,
                payload: payload.bytes.clone(),
            };
            sender.write_rtp(now, packet)?;
        }
        Ok(())
    }

    fn settle(&mut self) {
        while let Some(event) = self.pc.poll_event() {
            if let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) = event {
                self.connected = state == RTCPeerConnectionState::Connected;
            }
        }
        while self.pc.poll_read().is_some() {}
    }
}

/// Sends what a peer connection has to send, packets of one size together.
fn flush(pc: &mut RTCPeerConnection, sockets: &mut Sockets) {
    let mut run: Option<(SocketAddr, BytesMut, usize)> = None;
    let send = |run: Option<(SocketAddr, BytesMut, usize)>, sockets: &mut Sockets| {
        if let Some((to, contents, segment)) = run {
            sockets.send(Transmit {
                local: Local::UDP,
                to,
                segment_size: (contents.len() > segment).then_some(segment),
                contents: Bytes::from(contents),
            });
        }
    };
    while let Some(TaggedBytesMut { transport, message, .. }) = pc.poll_write() {
        let to = transport.peer_addr;
        match &mut run {
            Some((same, contents, segment))
                if *same == to
                    && contents.len() % *segment == 0
                    && message.len() <= *segment
                    && contents.len() < 50_000 =>
            {
                contents.extend_from_slice(&message);
            }
            _ => {
                let size = message.len();
                send(run.take(), sockets);
                run = Some((to, message, size));
            }
        }
    }
    send(run, sockets);
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
        rtcp_feedback: vec![
            feedback("nack", ""),
            feedback("nack", "pli"),
            feedback("transport-cc", ""),
        ],
    }
}

/// A peer connection for H.264 with RTX; the cipher is the one that browsers take.
pub(super) fn peer_connection(now: Instant, dtls_role: Option<RTCDtlsRole>) -> anyhow::Result<RTCPeerConnection> {
    let mut media = MediaEngine::default();
    let rtx = RTCRtpCodec {
        mime_type: MIME_TYPE_RTX.to_owned(),
        sdp_fmtp_line: format!("apt={PAYLOAD_TYPE}"),
        rtcp_feedback: vec![],
        ..h264()
    };
    for (rtp_codec, payload_type) in [(h264(), PAYLOAD_TYPE), (rtx, PAYLOAD_TYPE + 1)] {
        let codec = RTCRtpCodecParameters {
            rtp_codec,
            payload_type,
        };
        media.register_codec(codec, RtpCodecKind::Video)?;
    }
    let registry = register_default_interceptors(Registry::new(), &mut media)?;
    let mut settings = SettingEngineBuilder::new()
        .with_srtp_protection_profiles(vec![
            rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        ])
        .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled);
    if let Some(role) = dtls_role {
        settings = settings.with_answering_dtls_role(role);
    }
    Ok(RTCPeerConnectionBuilder::new()
        .with_configuration(RTCConfigurationBuilder::new().build())
        .with_media_engine(media)
        .with_setting_engine(settings.build())
        .with_interceptor_registry(registry)
        .build(now)?)
}

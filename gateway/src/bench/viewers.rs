//! Viewers for `bench forward`: peer connections of the crate `rtc`, each on a socket of its own, all on one thread.
//!
//! They do what a browser does: ICE with checks of their own, DTLS as the client, the cipher that browsers take, receiver
//! reports, transport-wide feedback, NACK.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::BytesMut;
use rtc::peer_connection::RTCPeerConnection;
use rtc::peer_connection::event::RTCPeerConnectionEvent;
use rtc::peer_connection::message::RTCMessage;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use rtc::sansio::Protocol as _;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::bare;
use super::forward::Line;
use super::print_line;

/// Datagrams taken from one socket in one turn.
const DATAGRAMS_PER_TURN: usize = 64;

/// Counts of all viewers.
#[derive(Default)]
struct Counts {
    packets: Cell<u64>,
    connected: Cell<usize>,
}

pub(super) async fn run(count: usize) -> anyhow::Result<()> {
    tokio::task::LocalSet::new().run_until(run_local(count)).await
}

async fn run_local(count: usize) -> anyhow::Result<()> {
    let counts = Rc::new(Counts::default());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let (done, mut all_done) = mpsc::unbounded_channel();
    for _ in 0..count {
        let mut viewer = Viewer::new(counts.clone()).await?;
        print_line(&serde_json::to_string(&Line::Offer(viewer.offer()?))?)?;
        let line = lines.next_line().await?.context("the measuring process is gone")?;
        let Line::Answer(answer) = serde_json::from_str(&line)? else {
            anyhow::bail!("an answer was expected");
        };
        let now = Instant::now();
        viewer
            .pc
            .set_remote_description(now, RTCSessionDescription::answer(answer)?)?;
        let done = done.clone();
        tokio::task::spawn_local(async move {
            let result = viewer.run().await;
            done.send(result).ok();
        });
    }
    let mut told = false;
    let mut look = tokio::time::interval(Duration::from_millis(20));
    loop {
        tokio::select! {
            line = lines.next_line() => {
                if line?.is_none() {
                    return Ok(());
                }
                print_line(&serde_json::to_string(&Line::Counted(counts.packets.get()))?)?;
            }
            result = all_done.recv() => return result.context("no viewer")?,
            _ = look.tick(), if !told => if counts.connected.get() == count {
                told = true;
                print_line(&serde_json::to_string(&Line::Connected)?)?;
            },
        }
    }
}

struct Viewer {
    pc: RTCPeerConnection,
    socket: UdpSocket,
    counts: Rc<Counts>,
    has_received: bool,
}

impl Viewer {
    async fn new(counts: Rc<Counts>) -> anyhow::Result<Self> {
        let mut pc = bare::peer_connection(Instant::now(), None)?;
        let init = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Recvonly,
            ..Default::default()
        };
        pc.add_transceiver_from_kind(RtpCodecKind::Video, Some(init))?;
        Ok(Self {
            pc,
            socket: UdpSocket::bind("127.0.0.1:0").await?,
            counts,
            has_received: false,
        })
    }

    fn offer(&mut self) -> anyhow::Result<String> {
        let offer = self.pc.create_offer(None)?;
        self.pc.set_local_description(Instant::now(), offer)?;
        let address = self.socket.local_addr()?;
        let base_config = CandidateConfig {
            network: "udp".to_owned(),
            address: address.ip().to_string(),
            port: address.port(),
            component: 1,
            ..Default::default()
        };
        let config = CandidateHostConfig {
            base_config,
            ..Default::default()
        };
        let candidate = config.new_candidate_host()?;
        self.pc
            .add_local_candidate(RTCIceCandidate::from(&candidate).to_json()?)?;
        Ok(self.pc.local_description().context("no local description")?.sdp)
    }

    async fn run(mut self) -> anyhow::Result<()> {
        let local_addr = self.socket.local_addr()?;
        let mut buffer = vec![0; 2_048];
        loop {
            self.turn().await?;
            let due = self
                .pc
                .poll_timeout()
                .unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
            tokio::select! {
                ready = self.socket.readable() => ready?,
                () = tokio::time::sleep_until(due.into()) => {}
            }
            for _ in 0..DATAGRAMS_PER_TURN {
                let Ok((length, peer_addr)) = self.socket.try_recv_from(&mut buffer) else {
                    break;
                };
                let transport = TransportContext {
                    local_addr,
                    peer_addr,
                    transport_protocol: TransportProtocol::UDP,
                    ecn: None,
                };
                let datagram = TaggedBytesMut {
                    now: Instant::now(),
                    transport,
                    message: BytesMut::from(&buffer[..length]),
                };
                // What the crate does not like counts as lost.
                let _ = self.pc.handle_read(datagram);
            }
        }
    }

    async fn turn(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        if self.pc.poll_timeout().is_some_and(|at| at <= now) {
            self.pc.handle_timeout(now)?;
        }
        while let Some(event) = self.pc.poll_event() {
            if let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(RTCPeerConnectionState::Failed) = event {
                anyhow::bail!("a viewer lost its connection");
            }
        }
        while let Some(message) = self.pc.poll_read() {
            if let RTCMessage::RtpPacket(..) = message.message {
                self.counts.packets.set(self.counts.packets.get() + 1);
                if !self.has_received {
                    self.has_received = true;
                    self.counts.connected.set(self.counts.connected.get() + 1);
                }
            }
        }
        while let Some(message) = self.pc.poll_write() {
            self.socket
                .send_to(&message.message, message.transport.peer_addr)
                .await?;
        }
        Ok(())
    }
}

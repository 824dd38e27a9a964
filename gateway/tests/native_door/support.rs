//! A running door, and members to put through it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, Endpoint};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use wzp_gateway::native::client::{self, Client, ConnectError, Event};
use wzp_gateway::native::counters::Counters;
use wzp_gateway::native::{Config, Server};
use wzp_gateway::room::registry::{Registry, RoomLimits};
use wzp_proto::codec::{Codec, QualityProfile};
use wzp_proto::handshake::{Dialer, OfferOptions};
use wzp_proto::header::{Flags, MediaHeader, MediaType};
use wzp_proto::identity::Identity;
use wzp_proto::packet::MediaPacket;
use wzp_proto::signal::{RoomParticipant, Signal, decode_frame_len, decode_signal, encode_signal};
use wzp_proto::video::{FrameSize, fragment_header, fragments};

/// Long enough for a loaded machine, short enough to fail.
pub const DEADLINE: Duration = Duration::from_secs(10);

pub const SPS: &[u8] = &[
    0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03,
    0x00, 0x3c, 0x0f, 0x16, 0x2e, 0x48,
];
pub const PPS: &[u8] = &[0x68, 0xcb, 0x83, 0xcb, 0x20];

/// A door that runs until dropped.
pub struct Door {
    pub address: SocketAddr,
    pub registry: Registry,
    pub counters: Arc<Counters>,
    pub stop: watch::Sender<bool>,
    pub task: JoinHandle<()>,
}

impl Door {
    pub fn open() -> Self {
        Self::open_with(|_| {})
    }

    pub fn open_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::open_room(4, change)
    }

    /// Rooms of this many members.
    pub fn open_room(members: usize, change: impl FnOnce(&mut Config)) -> Self {
        Self::open_registry(Registry::new(RoomLimits { rooms: 100, members }), change)
    }

    pub fn open_registry(registry: Registry, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(([127, 0, 0, 1], 0).into());
        change(&mut config);
        let identity = Arc::new(Identity::from_seed(&[0x24; 32]));
        let server = Server::bind(config, registry.clone(), identity).unwrap();
        let (stop, stopped) = watch::channel(false);
        Self {
            address: server.local_addr().unwrap(),
            registry,
            counters: server.counters(),
            stop,
            task: tokio::spawn(server.run(stopped)),
        }
    }

    pub async fn join(&self, room: &str, alias: &str) -> Member {
        self.try_join(room, alias, rand::random(), None).await.unwrap()
    }

    pub async fn try_join(
        &self,
        room: &str,
        alias: &str,
        seed: [u8; 32],
        token: Option<&str>,
    ) -> Result<Member, ConnectError> {
        let options = client::Options {
            relay: self.address,
            server_name: room.to_owned(),
            token: token.map(str::to_owned),
            offer: offer(alias),
        };
        let client = Client::connect(options, &Identity::from_seed(&seed)).await?;
        Ok(Member { client })
    }

    /// Joins like [`Door::join`], but nothing is read or accepted after the answer.
    pub async fn join_deaf(&self, room: &str, alias: &str) -> (Endpoint, Connection) {
        let (endpoint, connection) = client::dial(self.address, room).await.unwrap();
        let identity = Identity::from_seed(&rand::random());
        let (_, offer) = Dialer::new(&identity, rand::random(), offer(alias));
        send_raw(&connection, &encode_signal(&offer)).await;
        let answer = next_raw(&connection).await;
        assert_eq!(answer.name(), "CallAnswer");
        (endpoint, connection)
    }
}

pub fn offer(alias: &str) -> OfferOptions {
    OfferOptions {
        alias: Some(alias.to_owned()),
        profiles: QualityProfile::OFFERED.to_vec(),
        video_codecs: vec![Codec::H264Baseline],
        extension: None,
    }
}

/// Runs ffmpeg.
pub fn ffmpeg(arguments: &[&str]) {
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-y"])
        .args(arguments)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "ffmpeg {arguments:?}");
}

/// Makes an H.264 file with a keyframe every `gop` pictures, ten seconds or less; its path.
pub fn h264(directory: &Path, gop: u32) -> String {
    let path = directory.join("in.h264").to_string_lossy().into_owned();
    let (seconds, gop) = (gop.div_ceil(30).max(3).to_string(), gop.to_string());
    let source = [
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=640x360:rate=30",
        "-t",
        &seconds,
        "-c:v",
        "libx264",
    ];
    let encoder = ["-profile:v", "baseline", "-bf", "0", "-g", &gop, "-b:v", "900k"];
    ffmpeg(&[&source[..], &encoder, &["-sc_threshold", "0", &path]].concat());
    path
}

/// Writes bytes to a stream of their own.
pub async fn send_raw(connection: &Connection, bytes: &[u8]) {
    let (mut stream, _) = connection.open_bi().await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.finish().unwrap();
}

/// Reads the next stream's signal.
pub async fn next_raw(connection: &Connection) -> Signal {
    timeout(DEADLINE, async {
        let (_, mut stream) = connection.accept_bi().await.unwrap();
        let mut prefix = [0; 4];
        stream.read_exact(&mut prefix).await.unwrap();
        let mut json = vec![0; decode_frame_len(prefix).unwrap()];
        stream.read_exact(&mut json).await.unwrap();
        decode_signal(&json).unwrap()
    })
    .await
    .expect("a signal in time")
}

pub struct Member {
    pub client: Client,
}

impl Member {
    /// The first event that `pick` takes; the others are let go.
    pub async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let waiting = async {
            loop {
                if let Some(picked) = pick(self.client.next().await) {
                    return picked;
                }
            }
        };
        timeout(DEADLINE, waiting)
            .await
            .unwrap_or_else(|_| panic!("{what} did not come"))
    }

    /// Waits for a member list of these names, in this order.
    pub async fn wait_list(&mut self, names: &[&str]) -> Vec<RoomParticipant> {
        self.wait(&format!("the list {names:?}"), |event| match event {
            Event::Signal(Signal::RoomUpdate {
                participants, count, ..
            }) => {
                assert_eq!(count as usize, participants.len());
                let aliases: Vec<_> = participants.iter().filter_map(|who| who.alias.as_deref()).collect();
                (aliases == names).then_some(participants)
            }
            Event::Closed(error) => panic!("closed: {error}"),
            _ => None,
        })
        .await
    }

    pub async fn wait_packet(&mut self, kind: MediaType) -> MediaPacket {
        self.wait("a packet", |event| match event {
            Event::Packet(packet) if packet.header.media_type == kind => Some(packet),
            Event::Closed(error) => panic!("closed: {error}"),
            _ => None,
        })
        .await
    }

    pub async fn wait_closed(&mut self) -> (u64, String) {
        self.wait("the close", |event| match event {
            Event::Closed(quinn::ConnectionError::ApplicationClosed(close)) => Some((
                close.error_code.into_inner(),
                String::from_utf8_lossy(&close.reason).into_owned(),
            )),
            Event::Closed(other) => panic!("closed otherwise: {other}"),
            _ => None,
        })
        .await
    }

    /// Everything that came has been dealt with by the door when this returns.
    pub async fn ping(&mut self) {
        let time = rand::random::<u32>().into();
        assert!(self.client.sender().signal(Signal::ping(time)));
        self.wait("the pong", |event| match event {
            Event::Signal(Signal::Pong { timestamp_ms, .. }) if timestamp_ms == time => Some(()),
            Event::Closed(error) => panic!("closed: {error}"),
            _ => None,
        })
        .await;
    }

    pub fn send_sound(&self, seq: u32, payload: &[u8]) {
        assert!(self.client.sender().try_packet(&sound_header(seq), payload));
    }

    /// Sends a picture; the number of packets.
    pub fn send_picture(&self, first_seq: u32, timestamp: u32, unit: &Bytes, keyframe: bool) -> u32 {
        let size = FrameSize {
            width: 640,
            height: 360,
        };
        let parts = fragments(unit, Some(size), 1100).unwrap();
        let header = MediaHeader {
            flags: if keyframe { Flags::KEYFRAME } else { Flags::empty() },
            media_type: MediaType::Video,
            codec: Codec::H264Baseline,
            stream_id: 3,
            fec_ratio: 0,
            seq: first_seq,
            timestamp,
            fec_block: 0,
        };
        for (i, part) in parts.iter().enumerate() {
            let header = fragment_header(&header, i as u8, parts.len() as u8);
            assert!(self.client.sender().try_packet(&header, part));
        }
        parts.len() as u32
    }
}

pub fn sound_header(seq: u32) -> MediaHeader {
    MediaHeader {
        flags: Flags::empty(),
        media_type: MediaType::Audio,
        codec: Codec::Opus24k,
        stream_id: 0,
        fec_ratio: 0,
        seq,
        timestamp: seq * 20,
        fec_block: 0,
    }
}

/// An access unit with filler, as the door writes it out again: four-byte start codes.
pub fn access_unit(keyframe: bool, filler: usize) -> Bytes {
    let mut unit = Vec::new();
    let slice: &[u8] = if keyframe { &[0x65, 0x88] } else { &[0x41, 0x9a] };
    for nal_unit in [SPS, PPS, slice].into_iter().skip(if keyframe { 0 } else { 2 }) {
        unit.extend_from_slice(&[0, 0, 0, 1]);
        unit.extend_from_slice(nal_unit);
    }
    unit.resize(unit.len() + filler, 0x55);
    unit.into()
}

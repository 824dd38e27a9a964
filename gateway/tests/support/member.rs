//! A member of a room, as tests drive one: a native client over real QUIC.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, Endpoint};
use tokio::time::timeout;
use wzp_gateway::native::client::{self, Client, ConnectError, Event};
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

pub fn offer(alias: &str) -> OfferOptions {
    OfferOptions {
        alias: Some(alias.to_owned()),
        profiles: QualityProfile::OFFERED.to_vec(),
        video_codecs: vec![Codec::H264Baseline],
        extension: None,
    }
}

/// Joins a room, but nothing is read or accepted after the answer.
pub async fn join_deaf(relay: SocketAddr, room: &str, alias: &str) -> (Endpoint, Connection) {
    let (endpoint, connection) = client::dial(relay, room).await.unwrap();
    let identity = Identity::from_seed(&rand::random());
    let (_, offer) = Dialer::new(&identity, rand::random(), offer(alias));
    send_raw(&connection, &encode_signal(&offer)).await;
    let answer = next_raw(&connection).await;
    assert_eq!(answer.name(), "CallAnswer");
    (endpoint, connection)
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
    /// Joins a room of the relay at `relay`.
    pub async fn join(
        relay: SocketAddr,
        room: &str,
        alias: &str,
        seed: [u8; 32],
        token: Option<&str>,
    ) -> Result<Self, ConnectError> {
        let options = client::Options {
            relay,
            server_name: room.to_owned(),
            token: token.map(str::to_owned),
            offer: offer(alias),
        };
        let client = Client::connect(options, &Identity::from_seed(&seed)).await?;
        Ok(Self { client })
    }

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

    pub fn send_sound(&self, seq: u32, payload: &[u8]) {
        assert!(self.client.sender().try_packet(&sound_header(seq), payload));
    }

    /// Sends a picture on this stream, which is 0 for natives; the number of packets.
    pub fn send_picture_on(&self, stream_id: u8, first_seq: u32, timestamp: u32, unit: &Bytes, keyframe: bool) -> u32 {
        let size = FrameSize {
            width: 640,
            height: 360,
        };
        let parts = fragments(unit, Some(size), 1100).unwrap();
        let header = MediaHeader {
            flags: if keyframe { Flags::KEYFRAME } else { Flags::empty() },
            media_type: MediaType::Video,
            codec: Codec::H264Baseline,
            stream_id,
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

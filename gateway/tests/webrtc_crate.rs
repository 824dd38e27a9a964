//! The async crate `webrtc` as a peer: it publishes over WHIP and watches over WHEP. What is seen must be what was sent,
//! byte for byte, and what is heard the tone that was played.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use clap::Parser;
use rtc::interceptor::{Attribute, Interceptor, Packet, Registry, Slot, StreamInfo, TaggedPacket};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::interceptor_registry::register_default_interceptors;
use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_H264, MIME_TYPE_HEVC, MIME_TYPE_OPUS, MIME_TYPE_RTX, MediaEngine,
};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtp;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use rtc::sansio::Protocol;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_local::{TrackLocal, TrackLocalEvent};
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState, RTCPeerConnectionState,
};
use wzp_gateway::config::Settings;
use wzp_gateway::join;
use wzp_gateway::media::frame::{Kind, TrackId};
use wzp_gateway::media::h264::nal_units;
use wzp_gateway::media::h265;
use wzp_gateway::media::rtp::depacketize::{Depacketizer, Output};
use wzp_gateway::media::rtp::h265 as rtp_h265;
use wzp_gateway::media::rtp::packetize;
use wzp_gateway::media::rtp::sequence::SequenceExtender;
use wzp_gateway::room::member::{Door, Join};
use wzp_gateway::serve::Gateway;
use wzp_proto::identity::Fingerprint;
use wzp_proto::room_name::RoomName;

const DEADLINE: Duration = Duration::from_secs(20);
const OPUS: u8 = 111;
const H264: u8 = 102;
const HZ: f64 = 440.0;

/// Lets RTCP through to the application; the crate keeps all RTCP to itself otherwise.
#[derive(Default)]
struct Feedback {
    read: VecDeque<TaggedPacket>,
    written: VecDeque<TaggedPacket>,
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Feedback {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = rtc::shared::error::Error;
    type Time = Instant;

    fn handle_read(&mut self, mut message: TaggedPacket) -> Result<(), Self::Error> {
        if let Packet::Rtcp(_) = &message.message.packet {
            message.message.add(Attribute::DeliverToApplication);
        }
        self.read.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.read.pop_front()
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Self::Error> {
        self.written.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.written.pop_front()
    }
}

impl Interceptor for Feedback {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}

struct Handler {
    gathered: watch::Sender<bool>,
    state: watch::Sender<RTCPeerConnectionState>,
    tracks: mpsc::UnboundedSender<Arc<dyn TrackRemote>>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        self.gathered.send_replace(state == RTCIceGatheringState::Complete);
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.state.send_replace(state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        self.tracks.send(track).ok();
    }
}

fn codec(mime_type: &str, clock_rate: u32, channels: u16, fmtp: &str) -> RTCRtpCodec {
    let video = ["nack", "nack pli", "goog-remb", "transport-cc"];
    let feedback = video.iter().filter(|_| mime_type == MIME_TYPE_H264).map(|line| {
        let (typ, parameter) = line.split_once(' ').unwrap_or((line, ""));
        RTCPFeedback {
            typ: typ.to_owned(),
            parameter: parameter.to_owned(),
        }
    });
    RTCRtpCodec {
        mime_type: mime_type.to_owned(),
        clock_rate,
        channels,
        sdp_fmtp_line: fmtp.to_owned(),
        rtcp_feedback: feedback.collect(),
    }
}

fn opus() -> RTCRtpCodec {
    codec(MIME_TYPE_OPUS, 48_000, 2, "minptime=10;useinbandfec=1")
}

fn h264() -> RTCRtpCodec {
    let fmtp = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
    codec(MIME_TYPE_H264, 90_000, 0, fmtp)
}

/// A peer connection of the crate, and the session's address at the gateway.
struct Peer {
    pc: Arc<dyn PeerConnection>,
    tracks: mpsc::UnboundedReceiver<Arc<dyn TrackRemote>>,
    gathered: watch::Receiver<bool>,
    state: watch::Receiver<RTCPeerConnectionState>,
    location: String,
}

fn h265() -> RTCRtpCodec {
    codec(
        MIME_TYPE_HEVC,
        90_000,
        0,
        "level-id=93;profile-id=1;tier-flag=0;tx-mode=SRST",
    )
}

impl Peer {
    async fn new() -> Self {
        Self::with(h264()).await
    }

    /// One whose only codec for pictures is this.
    async fn with(video: RTCRtpCodec) -> Self {
        let mut media = MediaEngine::default();
        let rtx = codec(MIME_TYPE_RTX, 90_000, 0, "apt=102");
        let codecs = [
            (opus(), OPUS, RtpCodecKind::Audio),
            (video, H264, RtpCodecKind::Video),
            (rtx, H264 + 1, RtpCodecKind::Video),
        ];
        for (rtp_codec, payload_type, kind) in codecs {
            let parameters = RTCRtpCodecParameters {
                rtp_codec,
                payload_type,
            };
            media.register_codec(parameters, kind).unwrap();
        }
        let registry = register_default_interceptors(Registry::new(), &mut media).unwrap();
        let (gathered, when_gathered) = watch::channel(false);
        let (state, states) = watch::channel(RTCPeerConnectionState::New);
        let (tracks, all_tracks) = mpsc::unbounded_channel();
        let handler = Handler {
            gathered,
            state,
            tracks,
        };
        let pc = PeerConnectionBuilder::new()
            .with_media_engine(media)
            .with_interceptor_registry(registry.with(Slot::from(14_000), Feedback::default()))
            .with_handler(Arc::new(handler))
            .with_runtime(webrtc::runtime::default_runtime().unwrap())
            .with_udp_addrs(vec!["127.0.0.1:0"])
            .build()
            .await
            .unwrap();
        Self {
            pc: Arc::new(pc),
            tracks: all_tracks,
            gathered: when_gathered,
            state: states,
            location: String::new(),
        }
    }

    async fn connect(&mut self, base: &str, path: &str) {
        let offer = self.pc.create_offer(None).await.unwrap();
        self.pc.set_local_description(offer).await.unwrap();
        let gathered = timeout(DEADLINE, self.gathered.wait_for(|done| *done)).await;
        gathered.expect("candidates were never gathered").unwrap();
        let offer = self.pc.local_description().await.unwrap().sdp;
        let (url, root) = (format!("{base}{path}"), base.to_owned());
        let (location, answer) = tokio::task::spawn_blocking(move || {
            let request = ureq::post(&url).header("Content-Type", "application/sdp");
            let mut response = request.send(offer).unwrap();
            assert_eq!(response.status(), 201);
            let location = response.headers()["location"].to_str().unwrap().to_owned();
            (root + &location, response.body_mut().read_to_string().unwrap())
        })
        .await
        .unwrap();
        self.location = location;
        let answer = RTCSessionDescription::answer(answer).unwrap();
        self.pc.set_remote_description(answer).await.unwrap();
        let connected = |state: &RTCPeerConnectionState| *state == RTCPeerConnectionState::Connected;
        let connected = timeout(DEADLINE, self.state.wait_for(connected)).await;
        connected.expect("not connected").unwrap();
    }

    async fn leave(self) {
        let url = self.location;
        let status = tokio::task::spawn_blocking(move || ureq::delete(&url).call().unwrap().status())
            .await
            .unwrap();
        assert_eq!(status, 200);
        self.pc.close().await.unwrap();
    }
}

fn local_track(name: &str, kind: RtpCodecKind, ssrc: u32, codec: RTCRtpCodec) -> Arc<TrackLocalStaticRTP> {
    let coding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters {
            ssrc: Some(ssrc),
            ..Default::default()
        },
        codec,
        ..Default::default()
    };
    let track = MediaStreamTrack::new("crate".to_owned(), name.to_owned(), name.to_owned(), kind, vec![coding]);
    Arc::new(TrackLocalStaticRTP::new(track))
}

/// The slice of frame `number`: large enough for several packets, and like no other.
fn slice(number: u32) -> Bytes {
    let mut slice = BytesMut::new();
    slice.put_u8(if number.is_multiple_of(30) { 0x65 } else { 0x41 });
    // first_mb_in_slice = 0 begins with a one; the rest holds no start code.
    slice.extend_from_slice(&[
        0x9a,
        1 | (number >> 8) as u8,
        1 | (number << 1) as u8,
        0x80 | (number >> 7) as u8,
    ]);
    slice.put_bytes(0x40 | (number % 50) as u8, 3_000);
    slice.freeze()
}

/// Sends a tone and pictures, without end. Sequence numbers roll over in mid-stream.
async fn publish(audio: Arc<TrackLocalStaticRTP>, video: Arc<TrackLocalStaticRTP>) {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Audio).unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let (mut audio_seq, mut video_seq, mut frames) = (65_500u16, 65_500u16, 0u32);
    let packet = |ssrc, payload_type, sequence_number, timestamp, marker, payload| rtp::Packet {
        header: rtp::Header {
            version: 2,
            marker,
            payload_type,
            sequence_number,
            timestamp,
            ssrc,
            ..Default::default()
        },
        payload,
    };
    for tick in 0u32.. {
        ticks.tick().await;
        let sample =
            |index: u32| (f64::from(tick * 960 + index) * HZ * std::f64::consts::TAU / 48_000.0).sin() * 12_000.0;
        let samples: Vec<i16> = (0..960).map(|index| sample(index) as i16).collect();
        let encoded = encoder.encode_vec(&samples, 4_000).unwrap();
        audio_seq = audio_seq.wrapping_add(1);
        let sound = packet(7, OPUS, audio_seq, tick * 960, false, encoded.into());
        audio.write_rtp(sound).await.unwrap();
        if tick.is_multiple_of(2) {
            const PARAMETER_SETS: &[u8] = &[
                0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1e, 0xda, 0x02, 0x80, 0xbf, 0xe5, 0x9a, 0x80, 0x80, 0x80, 0xa0, 0, 0,
                0, 1, 0x68, 0xce, 0x3c, 0x80,
            ];
            let mut unit = BytesMut::new();
            if frames.is_multiple_of(30) {
                unit.extend_from_slice(PARAMETER_SETS);
            }
            unit.extend_from_slice(&[0, 0, 0, 1]);
            unit.extend_from_slice(&slice(frames));
            frames += 1;
            for payload in packetize::h264(&unit.freeze(), 1_100).unwrap() {
                video_seq = video_seq.wrapping_add(1);
                let picture = packet(8, H264, video_seq, tick * 1_800, payload.marker, payload.bytes);
                video.write_rtp(picture).await.unwrap();
            }
        }
    }
}

/// Frames of one track: numbers of pictures, or samples of sound, until there are enough.
async fn watch(track: Arc<dyn TrackRemote>) -> Seen {
    let video = track.kind().await == RtpCodecKind::Video;
    let mut depacketizer = if video {
        Depacketizer::h264()
    } else {
        Depacketizer::opus()
    };
    let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).unwrap();
    let mut extender = SequenceExtender::default();
    let mut seen = Seen::default();
    while seen.slices.len() < 75 && seen.samples.len() < 48_000 * 3 {
        let Some(event) = track.poll().await else { break };
        let TrackRemoteEvent::OnRtpPacket(packet) = event else {
            continue;
        };
        let header = packet.header;
        let seq = extender.extend(header.sequence_number);
        depacketizer.push(seq, header.timestamp, header.marker, &packet.payload);
        while let Some(Output::Frame(unit)) = depacketizer.poll() {
            if video {
                let slices = nal_units(&unit.data).filter(|unit| matches!(unit[0] & 31, 1 | 5));
                seen.slices.extend(slices);
            } else {
                let mut samples = [0i16; 5_760];
                let count = decoder.decode(&unit.data, &mut samples, false).unwrap();
                seen.samples.extend_from_slice(&samples[..count]);
            }
        }
    }
    seen
}

#[derive(Default)]
struct Seen {
    slices: Vec<Bytes>,
    samples: Vec<i16>,
}

impl Seen {
    fn assert_is_what_was_sent(&self) {
        if self.samples.is_empty() {
            assert!(self.slices.len() >= 75, "{} pictures", self.slices.len());
            // The first is a keyframe; from it on every picture comes, in order.
            let first = (0..10_000).find(|number| slice(*number) == self.slices[0]);
            let first = first.expect("the first picture was never sent");
            assert!(first.is_multiple_of(30), "picture {first} is no keyframe");
            for (number, seen) in (first..).zip(&self.slices) {
                assert!(*seen == slice(number), "picture {number} is not what was sent");
            }
            return;
        }
        // The decoder needs a moment to settle.
        let samples = &self.samples[24_000..];
        let mean = samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len() as f64;
        let level = mean.sqrt() / 32_768.0;
        let rises = samples.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
        let hz = rises as f64 * 48_000.0 / samples.len() as f64;
        println!("level {level:.3}, {hz:.1} Hz");
        assert!((0.2..0.3).contains(&level), "level {level}");
        assert!((hz - HZ).abs() < 5.0, "{hz} Hz");
    }
}

async fn start() -> (Gateway, String, tempfile::TempDir) {
    let state = tempfile::tempdir().unwrap();
    let any = Some(([127, 0, 0, 1], 0).into());
    let settings = Settings {
        http: any,
        native: any,
        webrtc: any,
        no_tls: Some(true),
        state_dir: Some(state.path().to_owned()),
        ..Settings::default()
    };
    let gateway = Gateway::start(&settings.resolve().unwrap()).await.unwrap();
    let url = format!("http://{}", gateway.addresses().http);
    (gateway, url, state)
}

/// A peer that watches, sound and pictures.
async fn viewer(url: &str, path: &str) -> Peer {
    watching(Peer::new().await, url, path).await
}

async fn watching(mut viewer: Peer, url: &str, path: &str) -> Peer {
    for kind in [RtpCodecKind::Audio, RtpCodecKind::Video] {
        let init = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Recvonly,
            ..Default::default()
        };
        viewer.pc.add_transceiver_from_kind(kind, Some(init)).await.unwrap();
    }
    viewer.connect(url, path).await;
    viewer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webrtc_crate_publishes_and_watches_and_is_told_to_send_less() {
    let (gateway, url, _state) = start().await;
    let mut publisher = Peer::new().await;
    let audio = local_track("audio", RtpCodecKind::Audio, 7, opus());
    let video = local_track("video", RtpCodecKind::Video, 8, h264());
    publisher.pc.add_track(audio.clone()).await.unwrap();
    publisher.pc.add_track(video.clone()).await.unwrap();
    publisher.connect(&url, "/whip/crate?name=Cam").await;
    let sending = tokio::spawn(publish(audio, video.clone()));

    let mut viewer = viewer(&url, "/whep/crate?source=Cam").await;
    let mut watching = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let track = timeout(DEADLINE, viewer.tracks.recv())
            .await
            .expect("no track")
            .unwrap();
        watching.spawn(timeout(DEADLINE, watch(track)));
    }
    while let Some(seen) = watching.join_next().await {
        seen.unwrap().expect("too little came").assert_is_what_was_sent();
    }

    // A member whose receiver cannot take frames so large, as natives say it.
    let room = RoomName::parse("crate").unwrap();
    let join = Join {
        name: "native".to_owned(),
        fingerprint: Fingerprint::of(b"native"),
        door: Door::Native,
        resume: None,
        resumable: false,
    };
    let member = gateway.registry().join(&room, join).await.unwrap();
    let source = member
        .room()
        .snapshot()
        .members
        .iter()
        .find(|m| m.name == "Cam")
        .unwrap()
        .id;
    let track = TrackId {
        source,
        kind: Kind::Video,
        slot: 0,
        layer: 0,
    };
    member.report_oversize(track, 300_000);
    let limited = async {
        loop {
            let Some(TrackLocalEvent::OnRtcpPacket(packets)) = video.poll().await else {
                continue;
            };
            let remb = packets
                .iter()
                .find_map(|packet| packet.as_any().downcast_ref::<ReceiverEstimatedMaximumBitrate>());
            if let Some(remb) = remb {
                return remb.bitrate;
            }
        }
    };
    let limit = timeout(DEADLINE, limited).await.expect("no REMB");
    assert!((300_000.0..400_000.0).contains(&limit), "limited to {limit} bit/s");

    sending.abort();
    viewer.leave().await;
    publisher.leave().await;
    gateway.shutdown().await;
}

/// NTP time of an RTP timestamp, in ms, by a sender report about the same stream.
fn ntp_ms(report: &SenderReport, timestamp: u32, clock_rate: f64) -> f64 {
    let offset = f64::from(timestamp.wrapping_sub(report.rtp_time).cast_signed()) * 1000.0 / clock_rate;
    (report.ntp_time >> 32) as f64 * 1000.0 + (report.ntp_time & 0xffff_ffff) as f64 * 1000.0 / 4_294_967_296.0 + offset
}

/// When something begins in a track after nothing, in RTP time, and the reports that tell what time that is.
async fn onsets(track: Arc<dyn TrackRemote>, enough: usize) -> (bool, Vec<f64>) {
    let video = track.kind().await == RtpCodecKind::Video;
    let mut depacketizer = if video {
        Depacketizer::h264()
    } else {
        Depacketizer::opus()
    };
    let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).unwrap();
    let mut extender = SequenceExtender::default();
    let (mut report, mut found) = (None, Vec::new());
    let mut silent_samples = 0;
    let mut was_bright = true;
    while found.len() < enough {
        let Some(event) = track.poll().await else { break };
        let packet = match event {
            TrackRemoteEvent::OnRtpPacket(packet) => packet,
            TrackRemoteEvent::OnRtcpPacket(packets) => {
                let newest = packets
                    .iter()
                    .find_map(|packet| packet.as_any().downcast_ref::<SenderReport>());
                report = newest.cloned().or(report);
                continue;
            }
            _ => continue,
        };
        let header = packet.header;
        let seq = extender.extend(header.sequence_number);
        depacketizer.push(seq, header.timestamp, header.marker, &packet.payload);
        while let Some(Output::Frame(unit)) = depacketizer.poll() {
            if video {
                // The flash is a pattern, and all else is black, which takes few bytes.
                let bright = unit.data.len() > 4_000;
                if let (true, false, Some(report)) = (bright, was_bright, &report) {
                    found.push(ntp_ms(report, unit.timestamp, 90_000.0));
                }
                was_bright = bright;
                continue;
            }
            let mut samples = [0i16; 5_760];
            let count = decoder.decode(&unit.data, &mut samples, false).unwrap();
            for (index, sample) in samples[..count].iter().enumerate() {
                if sample.unsigned_abs() < 1_500 {
                    silent_samples += 1;
                    continue;
                }
                if let (true, Some(report)) = (silent_samples > 4_800, &report) {
                    found.push(ntp_ms(report, unit.timestamp.wrapping_add(index as u32), 48_000.0));
                }
                silent_samples = 0;
            }
        }
    }
    (video, found)
}

/// A file that ffmpeg makes.
fn made(folder: &std::path::Path, name: &str, line: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    let done = std::process::Command::new("ffmpeg")
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"])
        .args(line.split(' '))
        .arg(&path)
        .status()
        .unwrap();
    assert!(done.success());
    path
}

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: join::Args,
}

#[tokio::test(flavor = "multi_thread")]
async fn flash_and_beep_of_a_native_leave_the_gateway_together() {
    let (gateway, url, state) = start().await;
    // Each picture is a keyframe, so that play may go on anywhere.
    let pictures = "-f lavfi -i testsrc2=size=320x180:rate=50,drawbox=color=black:t=fill:enable='gte(mod(t\\,1)\\,0.1)' -t 10 \
                    -c:v libx264 -profile:v baseline -preset veryfast -tune zerolatency -crf 23 -g 1 -bf 0 -f h264";
    let sound = "-f lavfi -i aevalsrc='0.5*sin(2*PI*1000*t)*lt(mod(t\\,1)\\,0.1)':s=48000 -t 10 -c:a libopus -b:a 48k \
                 -frame_duration 20 -f ogg";
    let video = made(state.path(), "flashes.h264", pictures);
    let audio = made(state.path(), "beeps.ogg", sound);
    let relay = gateway.addresses().native.unwrap().to_string();
    let (video, audio) = (video.to_str().unwrap(), audio.to_str().unwrap());
    let sources = ["--audio", audio, "--video", video, "--fps", "50", "--seconds", "60"];
    let fixed = ["join", relay.as_str(), "--room", "sync", "--alias", "Cam"];
    let args = Cli::parse_from(fixed.iter().chain(&sources)).args;
    let native = tokio::spawn(join::run(args));
    let key = RoomName::parse("sync").unwrap().key();
    let there = async {
        while gateway
            .registry()
            .get(key)
            .is_none_or(|room| room.snapshot().members.iter().all(|m| m.tracks.len() < 2))
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, there).await.expect("the native sends nothing");

    let mut viewer = viewer(&url, "/whep/sync?source=Cam").await;
    let mut watching = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let track = timeout(DEADLINE, viewer.tracks.recv())
            .await
            .expect("no track")
            .unwrap();
        watching.spawn(timeout(DEADLINE, onsets(track, 6)));
    }
    let (mut flashes, mut beeps) = (Vec::new(), Vec::new());
    while let Some(done) = watching.join_next().await {
        let (video, found) = done.unwrap().expect("too few flashes or beeps");
        *(if video { &mut flashes } else { &mut beeps }) = found;
    }
    // Of a pair, each is the nearest to the other; the file has one a second.
    let skews: Vec<f64> = flashes
        .iter()
        .filter_map(|flash| beeps.iter().map(|beep| beep - flash).find(|skew| skew.abs() < 500.0))
        .collect();
    println!("beep after flash, ms: {skews:.1?}");
    assert!(skews.len() >= 4, "flashes {flashes:?}, beeps {beeps:?}");
    // A few ms are the encoder's own delay, which players take off at the beginning of a file.
    assert!(skews.iter().all(|skew| skew.abs() <= 20.0), "{skews:.1?}");
    // The session ends with its source, so the viewer goes first.
    viewer.leave().await;
    native.abort();
    gateway.shutdown().await;
}

/// The access units of a byte stream in which each begins with a delimiter, which is left out.
fn access_units(stream: &Bytes) -> Vec<Bytes> {
    let mut units: Vec<BytesMut> = Vec::new();
    for unit in nal_units(stream) {
        if h265::nal_unit_type(&unit) == 35 {
            units.push(BytesMut::new());
        } else if let Some(last) = units.last_mut() {
            last.extend_from_slice(&[0, 0, 0, 1]);
            last.extend_from_slice(&unit);
        }
    }
    units.into_iter().map(BytesMut::freeze).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn h265_goes_from_one_peer_that_has_it_to_another_as_it_was_encoded() {
    let (gateway, url, state) = start().await;
    let line = "-f lavfi -i testsrc2=size=640x360:rate=25 -t 2 -c:v libx265 -preset ultrafast -tune zerolatency -pix_fmt yuv420p \
                -x265-params aud=1:repeat-headers=1:keyint=25:min-keyint=25:scenecut=0:bframes=0:log-level=none -f hevc";
    let clip = Bytes::from(std::fs::read(made(state.path(), "clip.h265", line)).unwrap());
    let sent = access_units(&clip);
    assert_eq!(sent.len(), 50);
    let mut publisher = Peer::with(h265()).await;
    let video = local_track("video", RtpCodecKind::Video, 8, h265());
    publisher.pc.add_track(video.clone()).await.unwrap();
    publisher.connect(&url, "/whip/hevc?name=Cam").await;
    let frames = sent.clone();
    let sending = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(40));
        let mut sequence_number = 0u16;
        for (number, frame) in (0u32..).zip(frames.iter().cycle()) {
            ticks.tick().await;
            for payload in rtp_h265::packetize(frame, 1_100).unwrap() {
                sequence_number = sequence_number.wrapping_add(1);
                let header = rtp::Header {
                    version: 2,
                    marker: payload.marker,
                    payload_type: H264,
                    sequence_number,
                    timestamp: number * 3_600,
                    ssrc: 8,
                    ..Default::default()
                };
                let packet = rtp::Packet {
                    header,
                    payload: payload.bytes,
                };
                video.write_rtp(packet).await.unwrap();
            }
        }
    });
    let mut viewer = watching(Peer::with(h265()).await, &url, "/whep/hevc?source=Cam").await;
    let track = timeout(DEADLINE, viewer.tracks.recv())
        .await
        .expect("no track")
        .unwrap();
    let watched = timeout(DEADLINE, async {
        let (mut depacketizer, mut extender) = (Depacketizer::h265(), SequenceExtender::default());
        let mut seen = Vec::new();
        while seen.len() < 40 {
            let Some(TrackRemoteEvent::OnRtpPacket(packet)) = track.poll().await else {
                continue;
            };
            let header = packet.header;
            let seq = extender.extend(header.sequence_number);
            depacketizer.push(seq, header.timestamp, header.marker, &packet.payload);
            while let Some(Output::Frame(unit)) = depacketizer.poll() {
                seen.push((unit.data, unit.keyframe));
            }
        }
        seen
    });
    let seen = watched.await.expect("too little came");
    let first = sent.iter().position(|frame| *frame == seen[0].0);
    let first = first.expect("the first picture was never sent");
    assert!(seen[0].1 && first.is_multiple_of(25), "picture {first} is no keyframe");
    for (number, (data, keyframe)) in (first..).zip(&seen) {
        assert!(
            *data == sent[number % sent.len()],
            "picture {number} is not what was sent"
        );
        assert_eq!(*keyframe, number.is_multiple_of(25));
    }
    sending.abort();
    viewer.leave().await;
    publisher.leave().await;
    gateway.shutdown().await;
}

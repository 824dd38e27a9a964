//! The engine and its sockets against headless Chromium and Firefox: pages publish and watch through a small forwarder.
//!
//! Needs `/usr/bin/chromium` (or `CHROMIUM`), `/usr/bin/firefox` (or `FIREFOX`), `node`, and the packages of `tests/`
//! (`npm ci` there).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use wzp_gateway::media::rtp::depacketize::{AccessUnit, Depacketizer, Output};
use wzp_gateway::media::rtp::history::{History, Limits};
use wzp_gateway::media::rtp::packetize;
use wzp_gateway::media::rtp::reorder::{self, Out, Reorder};
use wzp_gateway::media::rtp::rewrite::Rewriter;
use wzp_gateway::webrtc::engine::{
    self, Codec, Engine, Event, Kind, MAX_PAYLOAD, MediaLine, Mid, OfferPolicy, OutgoingRtp, Reason, ReportTime, Rid,
    RtpMeta, SessionId,
};
use wzp_gateway::webrtc::net::{self, Sockets};

enum Ask {
    Offer {
        id: SessionId,
        publishes: bool,
        sdp: String,
        reply: oneshot::Sender<Result<String, String>>,
    },
    Candidate {
        id: SessionId,
        candidate: String,
    },
    Summary(oneshot::Sender<Summary>),
}

#[derive(Clone, Debug, Default)]
struct Summary {
    closed: Vec<(SessionId, Reason)>,
    estimates: Vec<u64>,
    duplicates: u64,
    rtx_sent: u64,
    dropped: u64,
    reports: u64,
    rtt: Option<Duration>,
    negotiations: usize,
    sender_reports: usize,
    udp_lost: u64,
    levels: usize,
    sessions: usize,
    frames: u64,
    damaged: u64,
    lost_on_ingress: u64,
    repaired_on_ingress: u64,
    size: (u32, u32),
    /// Payload bytes of each simulcast layer.
    layers: BTreeMap<(SessionId, Mid, Rid), usize>,
}

struct Leg {
    rewriter: Rewriter,
    history: History<OutgoingRtp>,
    last: Option<(u32, Instant)>,
}

#[derive(Default)]
struct Peer {
    publishes: bool,
    connected: bool,
    lines: Vec<MediaLine>,
    legs: BTreeMap<Mid, Leg>,
}

/// A publisher's stream on its way to frames.
struct Ingress {
    codec: Codec,
    reorder: Reorder<(RtpMeta, bytes::Bytes)>,
    depacketizer: Depacketizer,
}

/// A room of one publisher: whatever it sends goes to all viewers, frame by frame.
struct Forwarder {
    engine: Engine,
    peers: BTreeMap<SessionId, Peer>,
    ingress: BTreeMap<(SessionId, Mid), Ingress>,
    summary: Summary,
    /// Every n-th video packet to a viewer is withheld, as a network loses it.
    drop_every: Option<u64>,
    /// Every n-th larger datagram from a publisher is lost.
    lose_every: Option<u64>,
    packets: u64,
    datagrams: u64,
    keyframe_wanted: bool,
    max_video_bps: Option<u64>,
    layers: bool,
    last_keyframe_request: Option<Instant>,
    last_report: Instant,
}

impl Forwarder {
    fn ask(&mut self, now: Instant, ask: Ask) {
        match ask {
            Ask::Offer {
                id,
                publishes,
                sdp,
                reply,
            } => {
                let policy = OfferPolicy {
                    max_video_bps: self.max_video_bps,
                    layers: self.layers,
                    ..OfferPolicy::default()
                };
                let answer = self.engine.accept_offer(now, id, &sdp, &policy);
                if answer.is_ok() {
                    self.peers.entry(id).or_default().publishes = publishes;
                }
                let _ = reply.send(answer.map_err(|error| error.to_string()));
            }
            Ask::Candidate { id, candidate } => drop(self.engine.add_remote_candidate(now, id, &candidate)),
            Ask::Summary(reply) => {
                let mut summary = self.summary.clone();
                summary.sessions = self.engine.len();
                for &id in self.peers.keys() {
                    let stats = self.engine.stats(id).unwrap_or_default();
                    summary.duplicates += stats.duplicates;
                    summary.rtx_sent += stats.rtx_out;
                    summary.repaired_on_ingress += stats.repaired;
                }
                let _ = reply.send(summary);
            }
        }
    }

    fn events(&mut self, now: Instant) {
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::Connected { session, .. } => {
                    if let Some(peer) = self.peers.get_mut(&session) {
                        peer.connected = true;
                    }
                    self.request_keyframe(now);
                }
                Event::Closed { session, reason } => {
                    self.peers.remove(&session);
                    self.summary.closed.push((session, reason));
                }
                Event::Negotiated { session, lines } => {
                    self.summary.negotiations += 1;
                    let peer = self.peers.entry(session).or_default();
                    peer.lines = lines;
                    if peer.connected && !peer.publishes {
                        self.request_keyframe(now);
                    }
                }
                Event::Rtp {
                    session,
                    mid,
                    rid: Some(rid),
                    payload,
                    ..
                } => {
                    *self.summary.layers.entry((session, mid, rid)).or_default() += payload.len();
                }
                Event::Rtp {
                    session,
                    mid,
                    meta,
                    payload,
                    ..
                } => {
                    self.summary.levels += usize::from(meta.audio_level.is_some());
                    self.ingest(now, session, mid, meta, payload);
                }
                Event::KeyframeRequest { .. } => self.request_keyframe(now),
                Event::Nack { session, mid, seqs } => {
                    let Some(leg) = self.peers.get_mut(&session).and_then(|peer| peer.legs.get_mut(&mid)) else {
                        continue;
                    };
                    for seq in seqs {
                        if let Ok(packet) = leg.history.repeat(now, seq) {
                            let _ = self.engine.write_rtx(now, session, mid, packet);
                        }
                    }
                }
                Event::Estimate { bps, .. } => self.summary.estimates.push(bps),
                Event::ReceiverReport { rtt, .. } => {
                    self.summary.reports += 1;
                    self.summary.rtt = rtt.or(self.summary.rtt);
                }
                Event::SenderReport { .. } => self.summary.sender_reports += 1,
                Event::Disconnected { .. } => {}
            }
        }
        if now >= self.last_report + Duration::from_secs(1) {
            self.last_report = now;
            self.send_reports(now);
        }
    }

    fn ingest(&mut self, now: Instant, from: SessionId, mid: Mid, meta: RtpMeta, payload: bytes::Bytes) {
        let fresh = || {
            let (limits, depacketizer) = match meta.codec {
                Codec::Opus => (reorder::Limits::AUDIO, Depacketizer::opus()),
                Codec::H264 => (reorder::Limits::VIDEO, Depacketizer::h264()),
                _ => (reorder::Limits::VIDEO, Depacketizer::av1()),
            };
            Ingress {
                codec: meta.codec,
                reorder: Reorder::new(limits),
                depacketizer,
            }
        };
        let ingress = self.ingress.entry((from, mid)).or_insert_with(fresh);
        ingress.reorder.push(now, meta.seq, (meta, payload));
        self.drain(now, from, mid);
    }

    fn drain(&mut self, now: Instant, from: SessionId, mid: Mid) {
        let Some(ingress) = self.ingress.get_mut(&(from, mid)) else {
            return;
        };
        let codec = ingress.codec;
        let nacks = ingress.reorder.nacks(now);
        if !nacks.is_empty() {
            let _ = self.engine.nack(now, from, mid, None, &nacks);
        }
        let mut frames = Vec::new();
        while let Some(out) = ingress.reorder.pop(now) {
            if let Out::Packet {
                seq,
                packet: (meta, payload),
            } = out
            {
                ingress.depacketizer.push(seq, meta.timestamp, meta.marker, &payload);
                while let Some(output) = ingress.depacketizer.poll() {
                    match output {
                        Output::Frame(frame) => frames.push((frame, meta.marker)),
                        Output::Damaged { .. } => {
                            self.summary.damaged += 1;
                            self.keyframe_wanted = true;
                        }
                    }
                }
            }
        }
        for (frame, marker) in frames {
            self.forward(now, from, codec, &frame, marker);
        }
        if std::mem::take(&mut self.keyframe_wanted) {
            self.request_keyframe(now);
        }
    }

    /// When a stream wants to be looked at again.
    fn next_timeout(&self) -> Option<Instant> {
        self.ingress
            .values()
            .filter_map(|ingress| ingress.reorder.next_timeout())
            .min()
    }

    fn timeout(&mut self, now: Instant) {
        let streams: Vec<(SessionId, Mid)> = self.ingress.keys().copied().collect();
        for (session, mid) in streams {
            self.drain(now, session, mid);
        }
    }

    fn forward(&mut self, now: Instant, from: SessionId, codec: Codec, frame: &AccessUnit, talk_start: bool) {
        let payloads = match codec {
            Codec::Opus => packetize::opus(&frame.data, MAX_PAYLOAD).map(|mut payload| {
                payload.marker = talk_start;
                vec![payload]
            }),
            Codec::H264 => packetize::h264(&frame.data, MAX_PAYLOAD),
            _ => packetize::av1(&frame.data, MAX_PAYLOAD),
        };
        let payloads = payloads.expect("what was depacketized can be packetized");
        self.summary.frames += u64::from(codec.kind() == Kind::Video);
        if let Some(size) = frame.size {
            self.summary.size = size;
        }
        for (&to, peer) in self
            .peers
            .iter_mut()
            .filter(|(id, peer)| **id != from && peer.connected && !peer.publishes)
        {
            for line in peer
                .lines
                .iter()
                .filter(|line| line.kind == codec.kind() && line.direction.send)
            {
                let leg = peer.legs.entry(line.mid).or_insert_with(|| Leg {
                    rewriter: Rewriter::new(codec.clock_rate(), 0),
                    history: History::new(Limits::default()),
                    last: None,
                });
                let timestamp = leg.rewriter.timestamp(now, from.0, frame.timestamp);
                leg.last = Some((timestamp, now));
                for payload in &payloads {
                    let seq = leg.rewriter.sequence();
                    let (marker, payload) = (payload.marker, payload.bytes.clone());
                    let packet = OutgoingRtp {
                        codec,
                        seq,
                        timestamp,
                        marker,
                        payload,
                    };
                    leg.history.push(now, seq, packet.payload.len(), packet.clone());
                    self.packets += 1;
                    let is_video = codec.kind() == Kind::Video;
                    if is_video && self.drop_every.is_some_and(|every| self.packets.is_multiple_of(every)) {
                        self.summary.dropped += 1;
                        continue;
                    }
                    let _ = self.engine.write_rtp(now, to, line.mid, &packet);
                }
            }
        }
    }

    /// Loses some of the publisher's video on its way in.
    fn loses(&mut self, datagram: &[u8]) -> bool {
        let is_video = matches!(datagram.first(), Some(128..=191)) && datagram.len() > 400;
        self.datagrams += u64::from(is_video);
        let lost = is_video
            && self
                .lose_every
                .is_some_and(|every| self.datagrams.is_multiple_of(every));
        self.summary.lost_on_ingress += u64::from(lost);
        lost
    }

    fn send_reports(&mut self, now: Instant) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let fraction = (u64::from(unix.subsec_nanos()) << 32) / 1_000_000_000;
        let ntp = ((unix.as_secs() + 2_208_988_800) << 32) | fraction;
        for (&id, peer) in &self.peers {
            for line in &peer.lines {
                let Some((timestamp, at)) = peer.legs.get(&line.mid).and_then(|leg| leg.last) else {
                    continue;
                };
                let rate = if line.kind == Kind::Audio { 48_000 } else { 90_000 };
                let elapsed = now.duration_since(at).as_micros() as u64 * rate / 1_000_000;
                let time = ReportTime {
                    ntp,
                    rtp: timestamp.wrapping_add(elapsed as u32),
                };
                let _ = self.engine.send_report(now, id, line.mid, time);
            }
        }
    }

    fn request_keyframe(&mut self, now: Instant) {
        if self
            .last_keyframe_request
            .is_some_and(|at| now < at + Duration::from_millis(300))
        {
            return;
        }
        for (&id, peer) in self.peers.iter().filter(|(_, peer)| peer.publishes && peer.connected) {
            for line in peer
                .lines
                .iter()
                .filter(|line| line.kind == Kind::Video && line.direction.recv)
            {
                if self.engine.request_keyframe(now, id, line.mid, None).is_ok() {
                    self.last_keyframe_request = Some(now);
                }
            }
        }
    }
}

async fn run(mut sockets: Sockets, mut forwarder: Forwarder, mut asks: mpsc::Receiver<Ask>) {
    loop {
        let deadline = forwarder
            .engine
            .next_timeout()
            .into_iter()
            .chain(forwarder.next_timeout())
            .min();
        let deadline = deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
        let ask = tokio::select! {
            received = sockets.receive(|local, from, datagram| {
                if forwarder.loses(datagram) {
                    return false;
                }
                let genuine = forwarder.engine.handle_datagram(Instant::now(), local, from, datagram);
                forwarder.events(Instant::now());
                genuine
            }) => {
                received.expect("the sockets are open");
                None
            }
            ask = asks.recv() => match ask {
                Some(ask) => Some(ask),
                None => return,
            },
            () = tokio::time::sleep_until(deadline.into()) => None,
        };
        let now = Instant::now();
        if let Some(ask) = ask {
            forwarder.ask(now, ask);
        }
        forwarder.engine.handle_timeout(now);
        forwarder.timeout(now);
        forwarder.events(now);
        while let Some(transmit) = forwarder.engine.poll_transmit() {
            sockets.send(transmit);
        }
        forwarder.summary.udp_lost = sockets.stats().udp_dropped;
    }
}

struct Setup {
    drop_every: Option<u64>,
    lose_every: Option<u64>,
    max_video_bps: Option<u64>,
    layers: bool,
    lite: bool,
    ip: IpAddr,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            drop_every: None,
            lose_every: None,
            max_video_bps: None,
            layers: false,
            lite: false,
            ip: IpAddr::from([127, 0, 0, 1]),
        }
    }
}

#[derive(Clone)]
struct Server {
    asks: mpsc::Sender<Ask>,
    page: Arc<str>,
}

#[derive(Deserialize)]
struct Who {
    id: u64,
    role: Option<String>,
}

async fn offer(State(server): State<Server>, Query(who): Query<Who>, sdp: String) -> Response {
    let (reply, answer) = oneshot::channel();
    let publishes = who.role.as_deref() == Some("publish");
    let ask = Ask::Offer {
        id: SessionId(who.id),
        publishes,
        sdp,
        reply,
    };
    server.asks.send(ask).await.expect("the forwarder runs");
    match answer.await.expect("the forwarder answers") {
        Ok(sdp) => sdp.into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, error).into_response(),
    }
}

async fn candidate(State(server): State<Server>, Query(who): Query<Who>, candidate: String) {
    let ask = Ask::Candidate {
        id: SessionId(who.id),
        candidate,
    };
    server.asks.send(ask).await.expect("the forwarder runs");
}

fn scripts() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/browser/engine")
}

/// Starts everything, lets the pages do `scenario`, and returns what they saw and what the forwarder saw.
fn play(scenario: &str, options: &str, setup: Setup) -> (Value, Summary) {
    assert!(
        scripts().join("../../node_modules/puppeteer-core").exists(),
        "the browsers' drivers are missing: npm ci in tests/"
    );
    let (asks, receiver) = mpsc::channel(64);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let config = net::Config {
                addresses: vec![setup.ip],
                port: 0,
                ..net::Config::default()
            };
            let sockets = Sockets::bind(config).expect("a free port");
            let address = SocketAddr::new(setup.ip, sockets.port());
            let config = engine::Config {
                udp_candidates: vec![address],
                tcp_candidates: vec![address],
                ice_lite: setup.lite,
                ..engine::Config::default()
            };
            let now = Instant::now();
            let forwarder = Forwarder {
                engine: Engine::new(now, config).expect("an engine"),
                peers: BTreeMap::new(),
                summary: Summary::default(),
                drop_every: setup.drop_every,
                lose_every: setup.lose_every,
                packets: 0,
                datagrams: 0,
                keyframe_wanted: false,
                max_video_bps: setup.max_video_bps,
                layers: setup.layers,
                ingress: BTreeMap::new(),
                last_keyframe_request: None,
                last_report: now,
            };
            run(sockets, forwarder, receiver).await;
        });
    });

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let script = std::fs::read_to_string(scripts().join("page.js")).expect("page.js");
        let page = format!("<!doctype html><title>engine</title><body><script type=module>{script}</script>");
        let server = Server {
            asks: asks.clone(),
            page: page.into(),
        };
        let router = Router::new()
            .route(
                "/",
                get(|State(server): State<Server>| async move { Html(server.page.to_string()) }),
            )
            .route("/offer", post(offer))
            .route("/candidate", post(candidate))
            .with_state(server);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!(
            "http://localhost:{}/",
            listener.local_addr().expect("an address").port()
        );
        tokio::spawn(async move { axum::serve(listener, router).await.expect("the server runs") });

        let (scenario, options) = (scenario.to_owned(), options.to_owned());
        let output = tokio::task::spawn_blocking(move || {
            Command::new("node")
                .args(["run.mjs", &url, &scenario, &options])
                .current_dir(scripts())
                .stderr(Stdio::inherit())
                .output()
                .expect("node is installed")
        })
        .await
        .expect("the script runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let seen = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
        let (reply, summary) = oneshot::channel();
        asks.send(Ask::Summary(reply)).await.expect("the forwarder runs");
        let summary = summary.await.expect("the forwarder answers");
        let seen: Value = seen.unwrap_or_else(|| panic!("the pages failed; the forwarder saw {summary:?}"));
        println!("{seen}\n{summary:?}");
        (seen, summary)
    })
}

fn number(seen: &Value, pointer: &str) -> f64 {
    seen.pointer(pointer)
        .and_then(Value::as_f64)
        .unwrap_or_else(|| panic!("no {pointer} in {seen}"))
}

/// A changing picture, sound, nothing lost.
fn assert_flows(seen: &Value) {
    let frames = number(seen, "/after/framesDecoded") - number(seen, "/before/framesDecoded");
    assert!(frames >= 40.0, "only {frames} frames in 4 s: {seen}");
    assert!(
        number(seen, "/after/audioPackets") - number(seen, "/before/audioPackets") >= 150.0,
        "no sound: {seen}"
    );
    assert!(
        number(seen, "/after/audioEnergy") > number(seen, "/before/audioEnergy"),
        "silence: {seen}"
    );
}

#[test]
fn h264_and_opus_reach_another_browser() {
    let (seen, summary) = play("forward", "{}", Setup::default());
    assert_flows(&seen);
    assert_eq!(seen["after"]["codec"], "video/H264");
    assert_eq!(seen["after"]["protocol"], "udp");
    assert_eq!(number(&seen, "/after/height"), 480.0);
    assert_eq!(summary.size, (640, 480));
    assert_eq!(number(&seen, "/after/lost"), 0.0);
    assert!(
        summary.reports > 0 && summary.rtt.is_some(),
        "no receiver reports: {summary:?}"
    );
    assert!(
        summary.sender_reports > 0,
        "the publisher's sender reports did not come through: {summary:?}"
    );
    assert!(summary.levels > 100, "no audio levels: {summary:?}");
    assert!(
        !summary.estimates.is_empty(),
        "the viewer's estimate did not come through: {summary:?}"
    );
    assert!(
        number(&seen, "/outbound/available") > 500_000.0,
        "the publisher did not ramp up: {seen}"
    );
}

#[test]
#[ignore = "long (make soak): tests/browser/whip.test.mjs has it through the whole gateway"]
fn av1_reaches_another_browser() {
    let (seen, summary) = play("forward", r#"{"codec":"AV1"}"#, Setup::default());
    assert_flows(&seen);
    assert_eq!(summary.size, (640, 480));
    assert_eq!(seen["after"]["codec"], "video/AV1");
}

#[test]
fn lost_packets_are_repaired_by_rtx() {
    let (seen, summary) = play(
        "forward",
        r#"{"seconds":6}"#,
        Setup {
            drop_every: Some(20),
            ..Setup::default()
        },
    );
    assert_flows(&seen);
    let repaired = number(&seen, "/after/retransmitted");
    assert!(repaired > 0.0, "no RTX arrived: {seen}");
    assert!(
        repaired >= 0.95 * summary.dropped as f64 - 2.0,
        "{repaired} of {} repaired: {seen}",
        summary.dropped
    );
    assert!(
        number(&seen, "/after/keyFrames") <= 4.0,
        "repair fell back to keyframes: {seen}"
    );
}

#[test]
fn a_publishers_lost_packets_are_asked_for_again() {
    let (seen, summary) = play(
        "forward",
        r#"{"seconds":6}"#,
        Setup {
            lose_every: Some(20),
            ..Setup::default()
        },
    );
    assert_flows(&seen);
    assert!(summary.lost_on_ingress >= 5, "nothing was lost: {summary:?}");
    // Some of what is lost is bandwidth probes, which repeat media and need no repair.
    assert!(
        summary.repaired_on_ingress >= summary.lost_on_ingress / 3,
        "not repaired: {summary:?}"
    );
    assert_eq!(summary.damaged, 0, "frames were lost: {summary:?}");
    assert_eq!(number(&seen, "/after/lost"), 0.0, "the viewer must not notice: {seen}");
    assert!(
        number(&seen, "/after/keyFrames") <= 4.0,
        "repair fell back to keyframes: {seen}"
    );
}

#[test]
fn media_flows_over_tcp_when_udp_is_not_offered() {
    let (seen, _) = play("tcp", "{}", Setup::default());
    assert_flows(&seen);
    assert_eq!(seen["after"]["protocol"], "tcp");
}

#[test]
fn a_publisher_keeps_to_its_cap() {
    let setup = Setup {
        max_video_bps: Some(1_200_000),
        ..Setup::default()
    };
    let (seen, _) = play("forward", "{}", setup);
    assert_flows(&seen);
    assert!(number(&seen, "/outbound/target") <= 1_200_000.0, "over its cap: {seen}");
}

#[test]
#[ignore = "long (make soak): tests/browser/matrix.test.mjs has it through the whole gateway, with Debian's Firefox"]
fn firefox_reaches_chromium_with_av1() {
    let (seen, summary) = play("fromFirefox", r#"{"codec":"AV1"}"#, Setup::default());
    let frames = number(&seen, "/after/framesDecoded") - number(&seen, "/before/framesDecoded");
    assert!(frames >= 20.0, "only {frames} frames in 4 s: {seen}");
    assert!(number(&seen, "/after/audioPackets") > 100.0, "no sound: {seen}");
    assert!(summary.sender_reports > 0, "{summary:?}");
}

#[test]
fn chromium_reaches_firefox_with_av1() {
    let (seen, _) = play("toFirefox", r#"{"codec":"AV1"}"#, Setup::default());
    let frames = number(&seen, "/after/framesDecoded") - number(&seen, "/before/framesDecoded");
    assert!(frames >= 20.0, "only {frames} frames in 4 s: {seen}");
    assert!(number(&seen, "/after/audioPackets") > 100.0, "no sound: {seen}");
}

#[test]
fn simulcast_layers_are_told_apart() {
    let setup = Setup {
        layers: true,
        ..Setup::default()
    };
    let (_, summary) = play("simulcast", r#"{"seconds":5}"#, setup);
    let names: Vec<&str> = summary.layers.keys().map(|(_, _, rid)| rid.as_str()).collect();
    assert!(
        names.len() >= 2 && names.iter().all(|name| ["q", "h", "f"].contains(name)),
        "{summary:?}"
    );
}

#[test]
fn a_publisher_of_layers_sends_one_stream_where_no_layers_are_wanted() {
    let (_, summary) = play("simulcast", r#"{"seconds":2}"#, Setup::default());
    assert!(summary.layers.is_empty(), "{summary:?}");
    assert!(summary.frames > 10 && summary.damaged == 0, "{summary:?}");
}

#[test]
fn twenty_renegotiations_reuse_the_m_lines() {
    let (seen, summary) = play("renegotiate", "{}", Setup::default());
    assert_eq!(number(&seen, "/renegotiated/lines"), 4.0);
    assert_eq!(seen["renegotiated"]["state"], "connected");
    assert!(number(&seen, "/after/framesDecoded") > number(&seen, "/before/framesDecoded") + 5.0);
    assert_eq!(summary.negotiations, 22);
}

#[test]
fn media_goes_on_over_an_ice_restart() {
    let (seen, _) = play("restart", "{}", Setup::default());
    assert_eq!(seen["viewerRestart"]["state"], "connected");
}

#[test]
fn an_ice_lite_engine_connects() {
    let (seen, _) = play(
        "forward",
        "{}",
        Setup {
            lite: true,
            ..Setup::default()
        },
    );
    assert_flows(&seen);
}

#[test]
fn ipv6_connects() {
    let (seen, _) = play(
        "forward",
        "{}",
        Setup {
            ip: IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            ..Setup::default()
        },
    );
    assert_flows(&seen);
}

#[test]
#[ignore = "long (make soak): tests/browser/whip.test.mjs has it through the whole gateway"]
fn ten_viewers_join_quickly() {
    let (seen, summary) = play("joins", "{}", Setup::default());
    let mut times: Vec<f64> = (0..10)
        .map(|join| number(&seen, &format!("/times/{join}/firstFrameMs")))
        .collect();
    times.sort_by(f64::total_cmp);
    println!("first frame: median {:.0} ms, worst {:.0} ms", times[5], times[9]);
    assert!(times[5] < 1_000.0, "{times:?}");
    assert!(
        summary.closed.len() >= 9,
        "viewers that left are still there: {summary:?}"
    );
}

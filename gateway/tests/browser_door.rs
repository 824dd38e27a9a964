//! The control channel `wzp.v2` against a real gateway: order, limits and errors of docs/browser-protocol.md.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use wzp_gateway::auth::Auth;
use wzp_gateway::browser::session;
use wzp_gateway::config::Settings;
use wzp_gateway::http::listener::{Deadlines, Listener};
use wzp_gateway::http::pages::Pages;
use wzp_gateway::http::router::{App, router};
use wzp_gateway::http::{server, whip};
use wzp_gateway::metrics::{self, Metrics};
use wzp_gateway::net::{self, ConnectionLimit};
use wzp_gateway::room::member::{Door, Join};
use wzp_gateway::room::registry::{Registry, RoomLimits};
use wzp_gateway::serve::Gateway;
use wzp_proto::codec::Codec;
use wzp_proto::header::{Flags, MediaHeader, MediaType};
use wzp_proto::identity::Fingerprint;
use wzp_proto::room_name::RoomName;

const DEADLINE: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Server {
    gateway: Gateway,
    _state: tempfile::TempDir,
}

impl Server {
    async fn start(settings: Settings) -> Self {
        let state = tempfile::tempdir().unwrap();
        let any = Some(([127, 0, 0, 1], 0).into());
        let settings = Settings {
            http: any,
            native: any,
            webrtc: any,
            no_tls: Some(true),
            state_dir: Some(state.path().to_owned()),
            ..settings
        };
        let gateway = Gateway::start(&settings.resolve().unwrap()).await.unwrap();
        Self { gateway, _state: state }
    }

    /// The HTTP answer to an upgrade that is refused: status and code.
    async fn refused(&self, path: &str, headers: &[(&'static str, &str)]) -> (u16, String) {
        let url = format!("ws://{}{path}", self.gateway.addresses().http);
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match connect_async(request).await {
            Err(Error::Http(response)) => {
                let body: Value = serde_json::from_slice(response.body().as_deref().unwrap_or_default()).unwrap();
                (response.status().as_u16(), body["code"].as_str().unwrap().to_owned())
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    /// An HTTP answer: status and JSON.
    async fn get(&self, path: &str, token: Option<&str>) -> (u16, Value) {
        let (status, body) = self.text(path, token).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    /// An HTTP answer: status and text.
    async fn text(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let url = format!("http://{}{path}", self.gateway.addresses().http);
        let authorization = format!("Bearer {}", token.unwrap_or_default());
        let get = move || {
            let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
            let mut response = agent.get(url).header("authorization", authorization).call().unwrap();
            let body = response.body_mut().read_to_string().unwrap();
            (response.status().as_u16(), body)
        };
        tokio::task::spawn_blocking(get).await.unwrap()
    }

    async fn connect(&self, room: &str) -> Client {
        Client::connect(self.gateway.addresses().http, room).await
    }

    async fn join(&self, room: &str, name: &str) -> Client {
        let mut client = self.connect(room).await;
        client.send(json!({"type": "hello", "versions": [2]})).await;
        client.send(join(name)).await;
        client.until("joined").await;
        client
    }
}

fn join(name: &str) -> Value {
    json!({"type": "join", "name": name, "id": format!("0123456789abcdef-{name}")})
}

struct Client {
    socket: Socket,
}

impl Client {
    async fn connect(address: SocketAddr, room: &str) -> Self {
        let mut request = format!("ws://{address}/ws/{room}").into_client_request().unwrap();
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", "wzp.v2".parse().unwrap());
        let (socket, response) = connect_async(request).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "wzp.v2");
        Self { socket }
    }

    async fn send(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn binary(&mut self, bytes: Vec<u8>) {
        self.socket.send(Message::binary(bytes)).await.unwrap();
    }

    /// The next control message of this type; others are passed over.
    async fn until(&mut self, kind: &str) -> Value {
        let read = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        let message: Value = serde_json::from_str(&text).unwrap();
                        if message["type"] == kind {
                            return message;
                        }
                    }
                    Some(Ok(Message::Close(frame))) => panic!("closed before {kind}: {frame:?}"),
                    Some(Ok(_)) => {}
                    other => panic!("ended before {kind}: {other:?}"),
                }
            }
        };
        timeout(DEADLINE, read).await.unwrap_or_else(|_| panic!("no {kind}"))
    }

    /// How many messages of one type come before one of another.
    async fn before(&mut self, last: &str, counted: &str) -> usize {
        let read = async {
            let mut count = 0;
            while let Some(Ok(message)) = self.socket.next().await {
                let Message::Text(text) = message else { continue };
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["type"] == last {
                    return count;
                }
                count += usize::from(message["type"] == counted);
            }
            panic!("ended before {last}");
        };
        timeout(DEADLINE, read).await.unwrap_or_else(|_| panic!("no {last}"))
    }

    /// The fatal error and the close code that end the session.
    async fn fatal(&mut self) -> (String, u16) {
        self.fatal_within(DEADLINE).await
    }

    async fn fatal_within(&mut self, deadline: Duration) -> (String, u16) {
        let read = async {
            let mut code = String::new();
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        let message: Value = serde_json::from_str(&text).unwrap();
                        if message["type"] == "error" && message["fatal"] == true {
                            assert!(
                                message["message"].as_str().unwrap().len() > 10,
                                "no sentence: {message}"
                            );
                            code = message["code"].as_str().unwrap().to_owned();
                        }
                    }
                    Some(Ok(Message::Close(frame))) => return (code, frame.map_or(0, |frame| frame.code.into())),
                    Some(Ok(_)) => {}
                    other => panic!("ended without a close: {other:?}"),
                }
            }
        };
        timeout(deadline, read).await.expect("no end")
    }
}

fn media(kind: MediaType, codec: Codec, stream: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let header = MediaHeader {
        flags: Flags::KEYFRAME | Flags::FRAME_END,
        media_type: kind,
        codec,
        stream_id: stream,
        fec_ratio: 0,
        seq: 0,
        timestamp: 0,
        fec_block: fragment,
    };
    [&[1, 0, 0, 0, 0][..], &header.encode(), payload].concat()
}

fn error(code: &str, close: u16) -> (String, u16) {
    (code.to_owned(), close)
}

#[tokio::test]
async fn upgrades_are_refused_with_status_and_code() {
    let server = Server::start(Settings {
        allow_origin: Some(vec!["https://a.example".into()]),
        ..Settings::default()
    })
    .await;
    let protocol = ("Sec-WebSocket-Protocol", "wzp.v2");
    let other = ("Sec-WebSocket-Protocol", "chat");
    assert_eq!(
        server.refused("/ws/demo", &[other]).await,
        (400, "subprotocol_required".into())
    );
    for room in ["_signal", "ping", "call-1", "a%2Fb", &"x".repeat(65)] {
        assert_eq!(
            server.refused(&format!("/ws/{room}"), &[protocol]).await,
            (400, "bad_room".into()),
            "{room}"
        );
    }
    let foreign = server
        .refused("/ws/demo", &[protocol, ("Origin", "https://b.example")])
        .await;
    assert_eq!(foreign, (403, "origin_not_allowed".into()));
}

#[tokio::test]
async fn wrong_first_messages_name_their_cause() {
    let server = Server::start(Settings::default()).await;
    let hello = json!({"type": "hello", "versions": [2]});
    let cases = [
        (
            vec![json!({"type": "hello", "versions": [1, 3]})],
            error("version_mismatch", 4400),
        ),
        (
            vec![json!({"type": "mute", "audio": true, "video": true})],
            error("not_joined", 4400),
        ),
        (vec![join("Ana")], error("not_joined", 4400)),
        (vec![hello.clone(), join("")], error("bad_name", 4400)),
        (vec![hello.clone(), join(&"n".repeat(65))], error("bad_name", 4400)),
        (
            vec![hello.clone(), json!({"type": "join", "name": "Ana", "id": "short"})],
            error("bad_id", 4400),
        ),
        (vec![json!({"type": "join", "name": 7})], error("bad_message", 4400)),
        (vec![json!([1])], error("bad_message", 4400)),
        (
            vec![json!({"type": "hello", "versions": [2], "client": "c".repeat(65)})],
            error("bad_message", 4400),
        ),
        (
            vec![hello.clone(), json!({"type": "auth", "token": "t".repeat(4_097)})],
            error("bad_message", 4400),
        ),
    ];
    for (messages, expected) in cases {
        let mut client = server.connect("first").await;
        for message in &messages {
            client.send(message.clone()).await;
        }
        assert_eq!(client.fatal().await, expected, "{messages:?}");
    }
    let mut client = server.connect("first").await;
    client.binary(vec![1; 40]).await;
    assert_eq!(client.fatal().await, error("not_joined", 4400));
    assert!(
        server.gateway.registry().is_empty(),
        "a refused client left a room behind"
    );
}

#[tokio::test]
async fn client_that_never_joins_is_closed() {
    let server = Server::start(Settings::default()).await;
    let begun = Instant::now();
    let mut client = server.connect("never").await;
    assert_eq!(
        client.fatal_within(Duration::from_secs(13)).await,
        error("join_timeout", 4408)
    );
    assert!(begun.elapsed() >= Duration::from_secs(9));
}

#[tokio::test]
async fn every_limit_of_a_member_has_its_error() {
    let server = Server::start(Settings::default()).await;
    let too_many: Vec<_> = (0..17)
        .map(|slot| json!({"slot": slot % 16, "kind": "video", "source": "camera", "codec": "h264"}))
        .collect();
    let texts = [
        (
            json!({"type": "bye", "reason": "x".repeat(65_536)}),
            error("too_large", 4413),
        ),
        (json!({"type": "ack", "media": 1_000_000}), error("bad_message", 4400)),
        (
            json!({"type": "publish", "tracks": too_many}),
            error("bad_message", 4400),
        ),
        (
            json!({"type": "publish", "tracks": [{"slot": 0, "kind": "audio", "source": "microphone", "codec": "mp3"}]}),
            error("bad_message", 4400),
        ),
        (
            json!({"type": "publish", "tracks": [{"slot": 16, "kind": "video", "source": "camera", "codec": "av1"}]}),
            error("bad_message", 4400),
        ),
        (
            json!({"type": "view", "tracks": [{"source": 1, "slot": 0, "side": 0}]}),
            error("bad_message", 4400),
        ),
    ];
    for (message, expected) in texts {
        let mut client = server.join("limits", "Ana").await;
        let shown: String = message.to_string().chars().take(80).collect();
        client.send(message).await;
        assert_eq!(client.fatal().await, expected, "{shown}");
    }
    let binaries = [
        (vec![1; 16_385], error("too_large", 4413)),
        (vec![1; 10], error("bad_message", 4400)),
        (
            media(MediaType::Video, Codec::H264Baseline, 0, 0x0101, &[1]),
            error("bad_message", 4400),
        ),
        (
            media(MediaType::Audio, Codec::H264Baseline, 0, 0, &[1]),
            error("bad_message", 4400),
        ),
    ];
    for (bytes, expected) in binaries {
        let mut client = server.join("limits", "Ana").await;
        let length = bytes.len();
        client.binary(bytes).await;
        assert_eq!(client.fatal().await, expected, "{length} bytes");
    }
    let mut flood = server.join("limits", "Ana").await;
    for t in 0..450 {
        if flood
            .socket
            .feed(Message::text(json!({"type": "ping", "t": t}).to_string()))
            .await
            .is_err()
        {
            break;
        }
    }
    flood.socket.flush().await.ok();
    assert_eq!(flood.fatal().await, error("rate_limited", 4429));
}

#[tokio::test]
async fn what_is_merely_wrong_is_told_and_the_session_goes_on() {
    let server = Server::start(Settings::default()).await;
    let mut client = server.join("mild", "Ana").await;
    client
        .binary(media(MediaType::Audio, Codec::Opus24k, 0, 0, &[1, 2, 3]))
        .await;
    assert_eq!(client.until("error").await["code"], "unknown_track");
    client
        .send(json!({"type": "publish", "tracks": [
            {"slot": 0, "kind": "video", "source": "camera", "codec": "h264"},
            {"slot": 0, "kind": "audio", "source": "microphone", "codec": "opus"}]}))
        .await;
    client.until("member_changed").await;
    client
        .binary(media(MediaType::Video, Codec::H264Baseline, 0, 1, b"no picture"))
        .await;
    assert_eq!(client.until("error").await["code"], "bad_media");
    for index in 0..=65u16 {
        let mut piece = media(MediaType::Video, Codec::H264Baseline, 0, index << 8 | 200, &[7; 16_300]);
        piece[11..15].copy_from_slice(&u32::from(index + 1).to_be_bytes());
        client.binary(piece).await;
    }
    assert_eq!(client.until("error").await["code"], "frame_too_large");
    client.send(json!({"type": "keyframe", "source": 99, "slot": 1})).await;
    client.send(json!({"type": "dance", "steps": 3})).await;
    client.send(json!({"type": "ping", "t": 5})).await;
    assert_eq!(client.until("pong").await["t"], 5.0);
}

/// How many media messages come, and in how many binary messages, until there are `count` of them.
async fn replayed(client: &mut Client, count: usize) -> (usize, usize) {
    let read = async {
        let (mut media, mut binary) = (0, 0);
        while media < count {
            let Some(Ok(Message::Binary(bytes))) = client.socket.next().await else {
                continue;
            };
            binary += 1;
            let mut rest = &bytes[1..];
            while let (2, [high, low, after @ ..]) = (bytes[0], rest) {
                rest = &after[usize::from(u16::from_be_bytes([*high, *low]))..];
                media += 1;
            }
            media += usize::from(bytes[0] == 1);
        }
        (media, binary)
    };
    timeout(DEADLINE, read).await.expect("no replay")
}

#[tokio::test]
async fn who_takes_bundles_has_a_replay_in_a_few_messages() {
    const PICTURES: u32 = 40;
    let server = Server::start(Settings::default()).await;
    let mut source = server.join("bundles", "Ana").await;
    source
        .send(json!({"type": "publish", "tracks": [{"slot": 0, "kind": "video", "source": "camera", "codec": "h264"}]}))
        .await;
    for number in 0..PICTURES {
        // Parameter sets and an IDR slice, then other slices.
        let unit: &[u8] = match number {
            0 => &[
                0, 0, 1, 0x67, 0x42, 0xc0, 0x1e, 0xd9, 0, 0, 1, 0x68, 0xcb, 0x83, 0, 0, 1, 0x65, 0x88,
            ],
            _ => &[0, 0, 1, 0x41, 0x9a, 0x24, 0x6c],
        };
        let mut message = media(MediaType::Video, Codec::H264Baseline, 0, 1, unit);
        message[6] = if number == 0 { 0x30 } else { 0x10 };
        message[11..15].copy_from_slice(&(number + 1).to_be_bytes());
        message[15..19].copy_from_slice(&(number * 33).to_be_bytes());
        source.binary(message).await;
    }
    source.send(json!({"type": "ping", "t": 1})).await;
    source.until("pong").await;
    for (bundles, most) in [(true, 10), (false, PICTURES as usize)] {
        let mut viewer = server.connect("bundles").await;
        viewer.send(json!({"type": "hello", "versions": [2]})).await;
        let mut message = join("Bo");
        message["bundles"] = json!(bundles);
        viewer.send(message).await;
        viewer.until("joined").await;
        let (media, binary) = replayed(&mut viewer, PICTURES as usize).await;
        assert_eq!(media, PICTURES as usize);
        assert!(binary <= most, "{media} pictures in {binary} messages");
        assert!(bundles || binary == most);
    }
}

/// How long the acknowledgement of this many messages takes, ten times, ascending.
async fn acknowledgements(client: &mut Client, sent: &mut u64, messages: u64) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..10 {
        let begin = Instant::now();
        for _ in 0..messages {
            client
                .binary(media(MediaType::Audio, Codec::Opus24k, 0, 0, &[1, 2, 3]))
                .await;
        }
        *sent += messages;
        while client.until("ack").await["media"] != *sent {}
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    times
}

#[tokio::test]
async fn binary_messages_are_acknowledged_in_time() {
    let server = Server::start(Settings::default()).await;
    let mut client = server.join("acks", "Ana").await;
    client
        .send(json!({"type": "publish", "tracks": [{"slot": 0, "kind": "audio", "source": "microphone", "codec": "opus"}]}))
        .await;
    let mut sent = 0;
    // One machine may be late for one of them, but not for half.
    let one = acknowledgements(&mut client, &mut sent, 1).await;
    assert!(one[5] <= Duration::from_millis(100), "{one:?}");
    assert!(one[9] <= Duration::from_secs(1), "{one:?}");
    // 50 ms are waited for more, but not by the sixteenth.
    let fifteen = acknowledgements(&mut client, &mut sent, 15).await;
    assert!(fifteen[0] >= Duration::from_millis(45), "{fifteen:?}");
    let sixteen = acknowledgements(&mut client, &mut sent, 16).await;
    assert!(sixteen[0] < Duration::from_millis(45), "{sixteen:?}");
}

#[tokio::test]
async fn full_room_and_wrong_token_are_refused() {
    let settings = Settings {
        max_members: Some(1),
        token: Some(vec!["sesame".into()]),
        ..Settings::default()
    };
    let server = Server::start(settings).await;
    let enter = async |name: &str, token: Option<&str>| {
        let mut client = server.connect("full").await;
        assert_eq!(client.until("hello").await["auth_required"], true);
        client.send(json!({"type": "hello", "versions": [2]})).await;
        if let Some(token) = token {
            client.send(json!({"type": "auth", "token": token})).await;
        }
        client.send(join(name)).await;
        client
    };
    assert_eq!(enter("Ana", None).await.fatal().await, error("unauthorized", 4401));
    assert_eq!(
        enter("Ana", Some("guess")).await.fatal().await,
        error("unauthorized", 4401)
    );
    let mut ana = enter("Ana", Some("sesame")).await;
    ana.until("joined").await;
    assert_eq!(
        enter("Bo", Some("sesame")).await.fatal().await,
        error("room_full", 4503)
    );
}

#[tokio::test]
async fn same_browser_replaces_its_older_self() {
    let server = Server::start(Settings::default()).await;
    let mut first = server.join("again", "Ana").await;
    let _second = server.join("again", "Ana").await;
    assert_eq!(first.fatal().await, error("replaced", 4409));
}

#[tokio::test]
async fn cut_session_resumes_as_the_same_participant_and_nobody_sees_a_leave() {
    let server = Server::start(Settings::default()).await;
    let mut bo = server.join("resume", "Bo").await;
    let mut ana = server.connect("resume").await;
    ana.send(json!({"type": "hello", "versions": [2]})).await;
    ana.send(join("Ana")).await;
    let joined = ana.until("joined").await;
    bo.until("member_joined").await;
    // Gone without a word.
    drop(ana);
    assert_eq!(bo.until("member_changed").await["member"]["state"], "reconnecting");
    let mut back = server.connect("resume").await;
    back.send(json!({"type": "hello", "versions": [2]})).await;
    let mut again = join("Ana");
    again["resume"] = joined["resume"].clone();
    back.send(again).await;
    let resumed = back.until("joined").await;
    assert_eq!(
        (&resumed["resumed"], &resumed["participant"]),
        (&json!(true), &joined["participant"])
    );
    assert_eq!(bo.until("member_changed").await["member"]["state"], "connected");
    // An orderly close is a leave at once.
    back.socket
        .close(Some(CloseFrame {
            code: 1000.into(),
            reason: "".into(),
        }))
        .await
        .unwrap();
    let begun = Instant::now();
    assert_eq!(bo.until("member_left").await["reason"], "left");
    assert!(begun.elapsed() < Duration::from_secs(1));
}

/// A server whose clients may be silent for so long only; the address, and what keeps it running.
fn impatient(timing: session::Timing) -> (SocketAddr, AbortOnDropHandle<()>, watch::Sender<bool>) {
    let deadlines = Deadlines::default();
    let socket = net::tcp_listener(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = Listener::new(socket, None, ConnectionLimit::new(10, 10), deadlines).unwrap();
    let address = listener.address();
    let (stop, shutdown) = watch::channel(false);
    let registry = Registry::new(RoomLimits { rooms: 2, members: 4 });
    let whip = whip::table::Sessions::new(1, &[]);
    let metrics = Metrics::new(metrics::Sources {
        rooms: registry.clone(),
        room_names: false,
        connections: ConnectionLimit::new(10, 10),
        whip: whip.clone(),
        native: Arc::default(),
        pcm: Arc::default(),
        uplinks: Arc::default(),
    });
    let app = App {
        session: session::Config {
            registry,
            auth: Auth::new([]),
            max_video_bitrate: 1_000_000,
            max_frame_bytes: 1 << 20,
            peers: None,
            ice_servers: Vec::new(),
            timing,
        },
        whip,
        pcm: Arc::default(),
        metrics: Arc::new(metrics),
        pages: Pages::Embedded,
        allowed_origins: Arc::new([]),
        sessions: TaskTracker::new(),
        shutdown: shutdown.clone(),
    };
    let running = tokio::spawn(server::run(listener, router(app), deadlines, shutdown));
    (address, AbortOnDropHandle::new(running), stop)
}

#[tokio::test]
async fn silent_client_is_pinged_told_and_may_come_back() {
    let timing = session::Timing {
        ping: Duration::from_millis(50),
        idle: Duration::from_secs(1),
    };
    let (address, _running, _stop) = impatient(timing);
    let mut ana = Client::connect(address, "idle").await;
    ana.send(json!({"type": "hello", "versions": [2]})).await;
    ana.send(join("Ana")).await;
    let joined = ana.until("joined").await;
    let mut bo = Client::connect(address, "idle").await;
    bo.send(json!({"type": "hello", "versions": [2]})).await;
    bo.send(join("Bo")).await;
    // Bo answers pings, Ana does not.
    let lost = async {
        loop {
            if let Some(Ok(Message::Text(text))) = bo.socket.next().await {
                let message: Value = serde_json::from_str(&text).unwrap();
                match message["type"].as_str() {
                    Some("ping") => bo.send(json!({"type": "pong", "t": message["t"]})).await,
                    Some("member_changed") if message["member"]["state"] == "reconnecting" => return message,
                    Some("member_left") => panic!("{message}"),
                    _ => {}
                }
            }
        }
    };
    let (ended, lost) = timeout(2 * DEADLINE, async { tokio::join!(ana.fatal(), lost) })
        .await
        .unwrap();
    assert_eq!(ended, error("idle_timeout", 4408));
    assert_eq!(lost["member"]["id"], joined["participant"]);
    let mut again = Client::connect(address, "idle").await;
    again.send(json!({"type": "hello", "versions": [2]})).await;
    let mut resume = join("Ana");
    resume["resume"] = joined["resume"].clone();
    again.send(resume).await;
    let resumed = again.until("joined").await;
    assert_eq!(
        (&resumed["resumed"], &resumed["participant"]),
        (&json!(true), &joined["participant"])
    );
}

#[tokio::test]
async fn sound_in_another_codec_than_opus_is_refused() {
    let server = Server::start(Settings::default()).await;
    let mut client = server.join("codec", "Ana").await;
    client
        .send(json!({"type": "publish", "tracks": [{"slot": 0, "kind": "audio", "source": "microphone", "codec": "opus"}]}))
        .await;
    client
        .binary(media(MediaType::Audio, Codec::Codec2_1200, 0, 0, &[1; 6]))
        .await;
    let refused = client.until("error").await;
    assert_eq!(
        (&refused["code"], &refused["fatal"]),
        (&json!("bad_media"), &json!(false))
    );
}

#[tokio::test]
async fn stopping_gateway_says_goodbye() {
    let server = Server::start(Settings::default()).await;
    let mut client = server.join("stop", "Ana").await;
    let stopping = tokio::spawn(server.gateway.shutdown());
    let read = async {
        while let Some(Ok(message)) = client.socket.next().await {
            if let Message::Close(Some(frame)) = message {
                return u16::from(frame.code);
            }
        }
        0
    };
    assert_eq!(timeout(DEADLINE, read).await.unwrap(), 1001);
    timeout(Duration::from_secs(6), stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn size_that_all_viewers_need_is_told_until_somebody_comes_who_says_nothing() {
    let server = Server::start(Settings::default()).await;
    let mut ana = server.join("sizes", "ana").await;
    ana.send(json!({"type": "publish", "tracks": [{"slot": 0, "kind": "video", "source": "camera", "codec": "h264"}]}))
        .await;
    ana.until("member_changed").await;
    let mut bo = server.join("sizes", "bo").await;
    let mut cy = server.join("sizes", "cy").await;
    bo.send(json!({"type": "view", "tracks": [{"source": 1, "slot": 0, "side": 360}]}))
        .await;
    cy.send(json!({"type": "pause", "tracks": [{"source": 1, "kind": "video", "slot": 0}]}))
        .await;
    let limit = ana.until("limit").await;
    assert_eq!(limit["max_side"], 360);
    assert_eq!(limit["reason"], "viewers");
    bo.send(json!({"type": "view", "tracks": [{"source": 1, "slot": 0, "side": 540}]}))
        .await;
    assert_eq!(ana.until("limit").await["max_side"], 540);
    let _silent = server.join("sizes", "di").await;
    assert_eq!(ana.until("limit").await.get("max_side"), None);
}

#[tokio::test]
async fn who_sends_what_natives_do_not_take_is_told_so_once_they_are_there() {
    let server = Server::start(Settings::default()).await;
    let mut sender = server.join("codecs", "ana").await;
    let track = |codec: &str| json!({"type": "publish", "tracks": [{"slot": 0, "kind": "video", "source": "camera", "codec": codec}]});
    sender.send(track("av1")).await;
    sender.until("member_changed").await;
    let room = RoomName::parse("codecs").unwrap();
    let native = |name: &str| Join {
        name: name.to_owned(),
        fingerprint: Fingerprint::of(name.as_bytes()),
        door: Door::Native,
        resume: None,
        resumable: false,
    };
    let _first = server.gateway.registry().join(&room, native("bo")).await.unwrap();
    let notice = sender.until("notice").await;
    assert_eq!(notice["code"], "unseen_by_natives");
    assert!(notice["message"].as_str().unwrap().contains("native apps"), "{notice}");
    // Another native is no news, and neither is H.264.
    let _second = server.gateway.registry().join(&room, native("cy")).await.unwrap();
    sender.send(track("h264")).await;
    sender.send(json!({"type": "ping", "t": 7})).await;
    assert_eq!(sender.before("pong", "notice").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_of_the_uplink_is_told_to_pages_and_programs() {
    let relay = Server::start(Settings::default()).await;
    let address = relay.gateway.addresses().native.unwrap().to_string();
    let server = Server::start(Settings {
        relay: Some(address.clone()),
        ..Settings::default()
    })
    .await;
    let mut client = server.join("demo", "Ana").await;
    let told = loop {
        let told = client.until("uplink").await;
        if told["state"] == "connected" {
            break told;
        }
    };
    assert_eq!(told["relay"], address);
    let (status, list) = server.get("/api/uplinks", None).await;
    assert_eq!((status, list.as_array().map(Vec::len)), (200, Some(1)));
    let expected = json!({
        "local": 1, "remote": 0, "relay": address, "state": "connected", "message": "in the relay's room",
    });
    assert_eq!(
        list[0], expected,
        "the room's name is told to nobody who need not know it"
    );
    let (_, room) = server.get("/api/rooms/demo", None).await;
    assert_eq!(room["uplink"]["state"], "connected");
    assert_eq!(room["replays"], json!({ "hit": 0, "stale": 0, "miss": 0 }));
    assert_eq!(room["keyframes"]["suppressed_overflow"]["loss"], 0);
    let (status, metrics) = server.text("/metrics", None).await;
    assert_eq!(status, 200);
    for line in [
        format!("wzp_uplink_rooms{{relay=\"{address}\",state=\"connected\"}} 1"),
        format!("wzp_uplink_connected_total{{relay=\"{address}\"}} 1"),
        "wzp_members{door=\"websocket\"} 1".to_owned(),
    ] {
        assert!(metrics.lines().any(|is| is == line), "{line} is not in\n{metrics}");
    }
    assert!(
        !metrics.contains("demo"),
        "the room's name is told to nobody who need not know it"
    );

    let locked = Server::start(Settings {
        relay: Some(address),
        token: Some(vec!["sesame".to_owned()]),
        ..Settings::default()
    })
    .await;
    assert_eq!(locked.get("/api/uplinks", None).await.0, 401);
    assert_eq!(locked.get("/api/uplinks", Some("sesame")).await, (200, json!([])));
    assert_eq!(locked.text("/metrics", None).await.0, 401);
    assert_eq!(locked.text("/metrics", Some("sesame")).await.0, 200);
}

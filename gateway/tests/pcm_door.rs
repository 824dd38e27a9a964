//! Pages that send samples, in a real gateway, together with a native member.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use wzp_gateway::config::Settings;
use wzp_gateway::native::client::{Client, Event, Options};
use wzp_gateway::serve::Gateway;
use wzp_proto::codec::QualityProfile;
use wzp_proto::handshake::OfferOptions;
use wzp_proto::header::{Flags, MediaHeader, MediaType};
use wzp_proto::identity::Identity;

const DEADLINE: Duration = Duration::from_secs(10);

type Page = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Server {
    gateway: Gateway,
    _state: tempfile::TempDir,
}

impl Server {
    async fn start(tokens: &[&str]) -> Self {
        let state = tempfile::tempdir().unwrap();
        let any = Some(([127, 0, 0, 1], 0).into());
        let settings = Settings {
            http: any,
            native: any,
            webrtc: any,
            no_tls: Some(true),
            state_dir: Some(state.path().to_owned()),
            token: Some(tokens.iter().map(|token| (*token).to_owned()).collect()),
            ..Settings::default()
        };
        let gateway = Gateway::start(&settings.resolve().unwrap()).await.unwrap();
        Self { gateway, _state: state }
    }

    async fn page(&self, room: &str) -> Page {
        let url = format!("ws://{}/ws/{room}", self.gateway.addresses().http);
        connect_async(url).await.unwrap().0
    }

    async fn native(&self, room: &str) -> Client {
        let options = Options {
            relay: self.gateway.addresses().native.unwrap(),
            server_name: room.to_owned(),
            token: None,
            offer: OfferOptions {
                alias: Some("native".to_owned()),
                profiles: QualityProfile::OFFERED.to_vec(),
                video_codecs: Vec::new(),
                extension: None,
            },
        };
        Client::connect(options, &Identity::from_seed(&rand::random()))
            .await
            .unwrap()
    }
}

async fn next_json(page: &mut Page) -> Value {
    let next = async {
        loop {
            match page.next().await.expect("a message").expect("a sound connection") {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Close(close) => panic!("closed: {close:?}"),
                _ => {}
            }
        }
    };
    timeout(DEADLINE, next).await.expect("a text in time")
}

async fn wait_close(page: &mut Page) -> u16 {
    let next = async {
        loop {
            if let Message::Close(Some(close)) = page.next().await.expect("a close").expect("a close") {
                return close.code.into();
            }
        }
    };
    timeout(DEADLINE, next).await.expect("a close in time")
}

fn tone(hz: f64, block: u64) -> impl Iterator<Item = f32> {
    (block * 960..block * 960 + 960).map(move |n| {
        let turns = n as f64 * hz / 48_000.0;
        ((turns.fract() * std::f64::consts::TAU).sin() * 0.25) as f32
    })
}

/// The usual amplitude of `hz`: the median over parts of 100 ms, since concealment may shift a tone's phase.
fn loudness(samples: &[f32], hz: f64) -> f64 {
    let mut parts: Vec<_> = samples.chunks_exact(4_800).map(|part| amplitude(part, hz)).collect();
    parts.sort_by(f64::total_cmp);
    parts[parts.len() / 2]
}

fn amplitude(samples: &[f32], hz: f64) -> f64 {
    let omega = hz * std::f64::consts::TAU / 48_000.0;
    let (mut a, mut b) = (0.0, 0.0);
    for sample in samples {
        (a, b) = (f64::from(*sample) + 2.0 * omega.cos() * a - b, a);
    }
    (a * a + b * b - 2.0 * omega.cos() * a * b).max(0.0).sqrt() * 2.0 / samples.len() as f64
}

/// Sends a tone for this long; the samples that came, and in how many messages.
async fn talk_page(mut page: Page, hz: f64, time: Duration) -> (Vec<f32>, usize) {
    let mut ticks = interval(Duration::from_millis(20));
    let (mut heard, mut messages, mut block) = (Vec::new(), 0, 0);
    let end = Instant::now() + time;
    while Instant::now() < end {
        tokio::select! {
            _ = ticks.tick() => {
                let bytes: Vec<u8> = tone(hz, block).flat_map(|s| ((s * 32_767.0) as i16).to_le_bytes()).collect();
                block += 1;
                page.send(Message::binary(bytes)).await.unwrap();
            }
            message = page.next() => if let Message::Binary(bytes) = message.unwrap().unwrap() {
                assert_eq!(bytes.len(), 1_920);
                messages += 1;
                heard.extend(bytes.chunks_exact(2).map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0));
            },
        }
    }
    (heard, messages)
}

async fn talk_native(mut native: Client, hz: f64, time: Duration) -> Vec<f32> {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
    let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).unwrap();
    let mut ticks = interval(Duration::from_millis(20));
    let (mut heard, mut seq, mut last) = (Vec::new(), 0u32, None);
    let end = Instant::now() + time;
    while Instant::now() < end {
        tokio::select! {
            _ = ticks.tick() => {
                let samples: Vec<f32> = tone(hz, seq.into()).collect();
                let header = MediaHeader {
                    flags: Flags::empty(),
                    media_type: MediaType::Audio,
                    codec: wzp_proto::codec::Codec::Opus24k,
                    stream_id: 0,
                    fec_ratio: 0,
                    seq,
                    timestamp: seq * 20,
                    fec_block: 0,
                };
                seq += 1;
                assert!(native.sender().try_packet(&header, &encoder.encode_vec_float(&samples, 512).unwrap()));
            }
            event = native.next() => match event {
                Event::Packet(packet) => {
                    if let Some(last) = last.replace(packet.header.seq) {
                        assert_eq!(packet.header.seq, u32::wrapping_add(last, 1));
                    }
                    let mut pcm = [0.0; 1_920];
                    let samples = decoder.decode_float(&packet.payload, &mut pcm, false).unwrap();
                    heard.extend_from_slice(&pcm[..samples]);
                }
                Event::Closed(error) => panic!("closed: {error}"),
                _ => {}
            },
        }
    }
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_a_native_hear_each_other_and_not_themselves() {
    let server = Server::start(&[]).await;
    let mut one = server.page("general").await;
    assert_eq!(next_json(&mut one).await, serde_json::json!({"type": "auth_ok"}));
    let two = server.page("general").await;
    let native = server.native("general").await;
    let time = Duration::from_secs(6);
    let (one, two, native) = tokio::join!(
        talk_page(one, 440.0, time),
        talk_page(two, 660.0, time),
        talk_native(native, 880.0, time),
    );
    for (heard, own) in [(&one.0, 440.0), (&two.0, 660.0), (&native, 880.0)] {
        let heard = &heard[heard.len() - 144_000..];
        for hz in [440.0, 660.0, 880.0] {
            let loud = loudness(heard, hz);
            if hz == own {
                assert!(loud < 0.01, "{own} Hz hears himself: {loud}");
            } else {
                let off = (20.0 * (loud / 0.25).log10()).abs();
                assert!(off < 3.0, "{own} Hz hears {hz} Hz at {loud}");
            }
        }
    }
    assert!((250..=310).contains(&one.1), "{} messages in 6 s", one.1);
    server.gateway.shutdown().await;
}

#[tokio::test]
async fn members_are_named_and_levels_make_speakers() {
    let server = Server::start(&[]).await;
    let page = server.page("general").await;
    let mut quiet = server.page("general").await;
    next_json(&mut quiet).await;
    let key = wzp_proto::room_name::RoomName::parse("general").unwrap().key();
    let talking = tokio::spawn(talk_page(page, 440.0, Duration::from_secs(3)));
    let speaks = async {
        loop {
            let snapshot = server.gateway.registry().get(key).map(|room| room.snapshot());
            if let Some(snapshot) = snapshot.filter(|snapshot| !snapshot.speakers.is_empty()) {
                return snapshot;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let snapshot = timeout(DEADLINE, speaks).await.unwrap();
    let speaker = snapshot.member(snapshot.speakers[0]).unwrap();
    assert_eq!(speaker.tracks.len(), 1);
    assert!(
        snapshot
            .members
            .iter()
            .all(|member| member.name.starts_with("browser "))
    );
    talking.await.unwrap();
}

#[tokio::test]
async fn token_is_asked_for_and_answered_in_json() {
    let server = Server::start(&["say \"friend\""]).await;
    let mut wrong = server.page("general").await;
    wrong
        .send(Message::text(r#"{"type":"auth","token":"\"}"}"#))
        .await
        .unwrap();
    assert_eq!(next_json(&mut wrong).await["type"], "auth_error");
    assert_eq!(wait_close(&mut wrong).await, 4401);
    let mut garbage = server.page("general").await;
    garbage.send(Message::text("hello")).await.unwrap();
    assert_eq!(next_json(&mut garbage).await["type"], "auth_error");
    let mut right = server.page("general").await;
    right.send(Message::binary(vec![0; 1_920])).await.unwrap();
    right
        .send(Message::text(r#"{"type":"auth","token":"say \"friend\""}"#))
        .await
        .unwrap();
    assert_eq!(next_json(&mut right).await["type"], "auth_ok");
}

#[tokio::test]
async fn wrong_sizes_and_a_flood_are_answered_and_not_heard() {
    let server = Server::start(&[]).await;
    let mut page = server.page("general").await;
    next_json(&mut page).await;
    page.send(Message::binary(vec![0; 1_919])).await.unwrap();
    let error = next_json(&mut page).await;
    assert_eq!((&error["type"], &error["code"]), (&"error".into(), &"bad_frame".into()));
    assert!(error["message"].as_str().unwrap().contains("1919 bytes"));
    for _ in 0..600 {
        if page.send(Message::binary(vec![0; 1_920])).await.is_err() {
            break;
        }
    }
    // At once 50 are taken; 500 refused in a row end it.
    assert_eq!(wait_close(&mut page).await, 4429);
    let counters = server.gateway.pcm();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(count(&counters.bad_size_in), 1);
    let (taken, refused) = (count(&counters.blocks_in), count(&counters.over_rate_in));
    assert_eq!(refused, 500);
    // 49 at once, and 52 for every second that it took.
    assert!((49..=100).contains(&taken), "{taken} taken");
    let other = format!("ws://{}/ws/general", server.gateway.addresses().http);
    let mut request = tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(other).unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", "chat".parse().unwrap());
    assert!(connect_async(request).await.is_err(), "other subprotocols are refused");
}

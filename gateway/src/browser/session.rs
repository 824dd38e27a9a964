//! One browser: its control channel, from the upgrade to the close.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{timeout, timeout_at};
use wzp_proto::identity::Fingerprint;
use wzp_proto::room_name::RoomName;

use crate::auth::Auth;
use crate::browser::egress::{Egress, Out};
use crate::browser::ingress::{Ingress, Outcome};
use crate::browser::message::{
    FromClient, JoinMessage, JoinedMessage, Limits, MAX_BINARY, MAX_NAME, MAX_TEXT, MAX_TRACKS, MediaTransport, Member,
    PauseReason, ReceiveMid, SendMid, ToClient, TrackRef, VERSION, parse_media,
};
use crate::browser::window::Window;
use crate::media::frame::{Kind, ParticipantId, TrackId};
use crate::room::keyframes::Reason;
use crate::room::member::{Control, Door, Join, JoinError, LeaveReason, Muted, ResumeToken, TrackInfo};
use crate::room::peer::{Follow, PeerCommand, PeerContext, PeerEvent, PeerId, Peers, Sending};
use crate::room::registry::{Membership, Registry, RoomHandle};
use crate::room::snapshot::{MemberView, Snapshot};
use crate::room::state::RESUME_GRACE;
use crate::room::track::Track;

/// A client joins within this.
const JOIN_DEADLINE: Duration = Duration::from_secs(10);
/// The server pings this often.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A client that is silent this long is gone.
const IDLE_DEADLINE: Duration = Duration::from_secs(15);
/// A message that the network does not take within this ends the session.
const SEND_DEADLINE: Duration = Duration::from_secs(15);
/// The farewell is worth this much waiting.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// Binary messages are acknowledged after this time at the latest …
const ACK_DELAY: Duration = Duration::from_millis(50);
/// … and after this many.
const ACK_EVERY: u64 = 16;
/// The client's capacity is looked at again after this, even if nothing happens.
const TICK: Duration = Duration::from_millis(250);
/// The WebRTC worker answers an offer within this.
const OFFER_DEADLINE: Duration = Duration::from_secs(5);
/// WebRTC events that may wait.
const PEER_EVENTS: usize = 256;
/// Control messages that may wait to be sent.
const OUTBOX: usize = 256;
/// Text messages per second, and at once.
const TEXT_RATE: (f64, f64) = (200.0, 400.0);
/// Media messages per second, and at once: 16 tracks at 30 frames of several pieces.
const MEDIA_RATE: (f64, f64) = (2000.0, 4000.0);
/// Media bytes per second, and at once: generous for a camera and a screen.
const BYTE_RATE: (f64, f64) = (2_500_000.0, 8_000_000.0);
/// The same non-fatal error is told at most this often.
const ERROR_INTERVAL: Duration = Duration::from_secs(2);

/// What all sessions share.
#[derive(Debug, Clone)]
pub struct Config {
    /// The rooms.
    pub registry: Registry,
    /// Who may enter.
    pub auth: Auth,
    /// Bits per second of one published video track.
    pub max_video_bitrate: u32,
    /// Bytes of one video frame.
    pub max_frame_bytes: usize,
    /// Who carries media over RTP; `None`: nobody.
    pub peers: Option<Peers>,
}

/// Why a session ended from this side: close code, error code, sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Fatal {
    close: u16,
    code: &'static str,
    message: String,
}

impl Fatal {
    fn new(close: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            close,
            code,
            message: message.into(),
        }
    }

    fn bad_message(message: impl Into<String>) -> Self {
        Self::new(4400, "bad_message", message)
    }
}

impl From<JoinError> for Fatal {
    fn from(error: JoinError) -> Self {
        let code = match error {
            JoinError::RoomFull { .. } => "room_full",
            JoinError::ServerFull => "server_full",
            JoinError::Stopping => return Self::new(1001, "shutting_down", error.to_string()),
        };
        Self::new(4503, code, error.to_string())
    }
}

/// How a session ended.
#[derive(Debug)]
enum End {
    /// The client said goodbye, or closed in an orderly way.
    Left,
    /// The connection broke.
    Lost,
    /// We ended it.
    Fatal(Fatal),
    /// The room ended it.
    Room(LeaveReason),
    /// The gateway stops.
    Shutdown,
}

type Sink = SplitSink<WebSocket, Message>;
type Source = SplitStream<WebSocket>;

/// Runs a session until it ends. `shutdown` turns true when the gateway stops.
pub async fn run(socket: WebSocket, room: RoomName, config: Config, mut shutdown: watch::Receiver<bool>) {
    let (mut sink, mut source) = socket.split();
    let end = match timeout(JOIN_DEADLINE, enter(&mut sink, &mut source, &room, &config)).await {
        Ok(Ok((membership, join))) => {
            let id = membership.id();
            tracing::info!(room = %room_label(&room), member = %id, resumed = membership.resumed(), "browser joined");
            let end = converse(&mut sink, &mut source, membership, join, &config, &mut shutdown).await;
            tracing::info!(room = %room_label(&room), member = %id, ?end, "browser left");
            end
        }
        Ok(Err(end)) => end,
        Err(_) => End::Fatal(Fatal::new(
            4408,
            "join_timeout",
            "no join message came within 10 seconds",
        )),
    };
    close(sink, end).await;
}

fn room_label(room: &RoomName) -> String {
    room.display().map_or_else(|| room.key().to_string(), str::to_owned)
}

async fn close(mut sink: Sink, end: End) {
    let (code, reason, last) = match end {
        End::Left => (1000, "bye".to_owned(), None),
        End::Lost => return,
        End::Shutdown => (
            1001,
            "shutting_down".to_owned(),
            Some(ToClient::Bye {
                reason: "shutting_down",
            }),
        ),
        End::Room(LeaveReason::Replaced) => {
            let message = "this name is in use in a newer tab or device; this connection was replaced".to_owned();
            (
                4409,
                "replaced".to_owned(),
                Some(ToClient::Error {
                    code: "replaced",
                    message,
                    fatal: true,
                }),
            )
        }
        End::Room(_) => {
            let message = "you were removed from the room".to_owned();
            (
                4403,
                "removed".to_owned(),
                Some(ToClient::Error {
                    code: "refused",
                    message,
                    fatal: true,
                }),
            )
        }
        End::Fatal(Fatal { close, code, message }) => (
            close,
            code.to_owned(),
            Some(ToClient::Error {
                code,
                message,
                fatal: true,
            }),
        ),
    };
    let farewell = async {
        if let Some(text) = last.as_ref().and_then(|message| serde_json::to_string(message).ok()) {
            sink.send(Message::text(text)).await.ok();
        }
        sink.send(Message::Close(Some(CloseFrame {
            code,
            reason: reason.into(),
        })))
        .await
        .ok();
    };
    timeout(CLOSE_DEADLINE, farewell).await.ok();
}

async fn send_now(sink: &mut Sink, message: &ToClient) -> Result<(), End> {
    let text = serde_json::to_string(message).map_err(|error| {
        tracing::error!(%error, "a control message could not be written");
        End::Lost
    })?;
    match timeout(SEND_DEADLINE, sink.send(Message::text(text))).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(End::Lost),
    }
}

/// `hello`, `auth` if need be, `join`.
async fn enter(
    sink: &mut Sink,
    source: &mut Source,
    room: &RoomName,
    config: &Config,
) -> Result<(Membership, JoinMessage), End> {
    let server = concat!("wzp-gateway/", env!("CARGO_PKG_VERSION"));
    send_now(
        sink,
        &ToClient::Hello {
            version: VERSION,
            server,
            auth_required: config.auth.is_required(),
        },
    )
    .await?;
    let mut greeted = false;
    let mut admitted = !config.auth.is_required();
    loop {
        let text = match source.next().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Binary(_))) => {
                return Err(End::Fatal(Fatal::new(4400, "not_joined", "media came before join")));
            }
            Some(Ok(Message::Close(_))) => return Err(End::Left),
            Some(Ok(_)) => continue,
            Some(Err(error)) => return Err(broken(&error)),
            None => return Err(End::Lost),
        };
        match parse_text(&text)? {
            FromClient::Hello { versions, client } => {
                if !versions.contains(&VERSION) {
                    let message = format!("this server speaks version {VERSION}; the client offers {versions:?}");
                    return Err(End::Fatal(Fatal::new(4400, "version_mismatch", message)));
                }
                tracing::debug!(client, "hello");
                greeted = true;
            }
            FromClient::Auth { token } => {
                if !config.auth.accepts(&token) {
                    return Err(End::Fatal(Fatal::new(4401, "unauthorized", "the token is not valid")));
                }
                admitted = true;
                send_now(sink, &ToClient::AuthOk).await?;
            }
            FromClient::Join(join) if greeted => {
                if !admitted {
                    return Err(End::Fatal(Fatal::new(
                        4401,
                        "unauthorized",
                        "this server asks for a token",
                    )));
                }
                let request = check_join(&join).map_err(End::Fatal)?;
                let membership = config
                    .registry
                    .join(room, request)
                    .await
                    .map_err(|error| End::Fatal(error.into()))?;
                return Ok((membership, join));
            }
            FromClient::Ping { t } => send_now(sink, &ToClient::Pong { t }).await?,
            FromClient::Bye { .. } => return Err(End::Left),
            FromClient::Unknown | FromClient::Pong { .. } => {}
            _ => {
                return Err(End::Fatal(Fatal::new(
                    4400,
                    "not_joined",
                    "hello and join come before everything else",
                )));
            }
        }
    }
}

fn check_join(join: &JoinMessage) -> Result<Join, Fatal> {
    let name = join.name.trim();
    let length = name.chars().count();
    if length == 0 || length > MAX_NAME || name.chars().any(char::is_control) {
        let message = format!("the name must have 1 to {MAX_NAME} characters, none of them a control character");
        return Err(Fatal::new(4400, "bad_name", message));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !(16..=64).contains(&join.id.len()) || !join.id.bytes().all(fits) {
        return Err(Fatal::new(
            4400,
            "bad_id",
            "the id must have 16 to 64 characters of A–Z, a–z, 0–9, _ and -",
        ));
    }
    let resume = join
        .resume
        .as_deref()
        .and_then(|token| u128::from_str_radix(token, 16).ok())
        .map(ResumeToken);
    Ok(Join {
        name: name.to_owned(),
        fingerprint: Fingerprint::of(join.id.as_bytes()),
        door: Door::Websocket,
        resume,
        resumable: true,
    })
}

fn parse_text(text: &str) -> Result<FromClient, End> {
    if text.len() > MAX_TEXT {
        let message = format!("a text message of {} bytes is larger than {MAX_TEXT}", text.len());
        return Err(End::Fatal(Fatal::new(4413, "too_large", message)));
    }
    serde_json::from_str(text)
        .map_err(|error| End::Fatal(Fatal::bad_message(format!("not a control message: {error}"))))
}

fn broken(error: &axum::Error) -> End {
    use std::error::Error as _;
    use tungstenite::Error;
    let cause = error.source().and_then(|source| source.downcast_ref::<Error>());
    match cause {
        Some(Error::Capacity(error)) => End::Fatal(Fatal::new(4413, "too_large", error.to_string())),
        _ => End::Lost,
    }
}

/// What the reading and the writing half share.
struct Shared {
    window: Mutex<Window>,
    ingress: Mutex<Ingress>,
    /// The WebRTC session, once there is one.
    peer: Mutex<Option<PeerId>>,
    egress: Mutex<Egress>,
    received: AtomicU64,
    acknowledged: AtomicU64,
    heard: Mutex<Instant>,
    nudge: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn converse(
    sink: &mut Sink,
    source: &mut Source,
    mut membership: Membership,
    join: JoinMessage,
    config: &Config,
    shutdown: &mut watch::Receiver<bool>,
) -> End {
    let id = membership.id();
    let room = membership.room().clone();
    let decode = join
        .decode
        .unwrap_or_else(|| ["opus", "h264", "av1"].map(str::to_owned).to_vec());
    let shared = Shared {
        window: Mutex::default(),
        ingress: Mutex::new(Ingress::new(id, config.max_frame_bytes)),
        peer: Mutex::new(None),
        egress: Mutex::new(Egress::new(id, room.clone(), decode.into_iter().take(16).collect())),
        received: AtomicU64::new(0),
        acknowledged: AtomicU64::new(0),
        heard: Mutex::new(Instant::now()),
        nudge: Notify::new(),
    };
    let (outbox, posted) = mpsc::channel(OUTBOX);
    let (requests, mut requested) = mpsc::channel(16);
    let (peer_events, mut peer_event) = mpsc::channel(PEER_EVENTS);
    let mut snapshots = membership.snapshots();
    let snapshot = snapshots.borrow_and_update().clone();
    let joined = ToClient::Joined(Box::new(JoinedMessage {
        participant: id,
        room: room.display().to_string(),
        fingerprint: Fingerprint::of(join.id.as_bytes()).to_string(),
        resume: format!("{:032x}", membership.resume_token().0),
        resumed: membership.resumed(),
        time_ms: room.now().as_millis(),
        members: snapshot.members.iter().map(|member| Member::from(&**member)).collect(),
        limits: Limits {
            max_video_bitrate: config.max_video_bitrate,
            max_frame_bytes: config.max_frame_bytes,
            ack_ms: ACK_DELAY.as_millis() as u64,
            resume_ms: RESUME_GRACE / 1000,
        },
        webrtc: config.peers.is_some(),
    }));
    if let Err(end) = send_now(sink, &joined).await {
        return end;
    }
    let mut reader = Reader {
        id,
        room: room.clone(),
        shared: &shared,
        outbox: outbox.clone(),
        requests,
        peers: config.peers.clone(),
        peer_events,
        snapshots: membership.snapshots(),
        max_video_bitrate: config.max_video_bitrate,
        texts: Bucket::new(TEXT_RATE),
        messages: Bucket::new(MEDIA_RATE),
        bytes: Bucket::new(BYTE_RATE),
        told: BTreeMap::new(),
    };
    let mut writer = Writer {
        id,
        epoch: membership.epoch(),
        shared: &shared,
        posted,
        snapshots,
        snapshot,
        room: room.clone(),
        peers: config.peers.clone(),
    };
    let mut reading = std::pin::pin!(reader.run(source));
    let mut writing = std::pin::pin!(writer.run(sink));
    let end = loop {
        tokio::select! {
            end = &mut reading => break end,
            end = &mut writing => break end,
            () = stopping(shutdown) => break End::Shutdown,
            Some(request) = requested.recv() => match request {
                Request::Tracks(tracks) => membership.set_tracks(tracks).await,
                Request::Muted(muted) => membership.set_muted(muted).await,
                Request::Door(door) => membership.set_door(door).await,
            },
            Some(event) = peer_event.recv() => {
                if let Some(tracks) = peer_changed(event, &shared, &room, &outbox) {
                    membership.set_tracks(tracks).await;
                }
            }
            control = membership.control() => match control {
                Some(Control::Keyframe { slot, .. }) => {
                    let peer = *lock(&shared.peer);
                    match (peer, &config.peers) {
                        (Some(peer), Some(peers)) if lock(&shared.ingress).is_over_rtp(Kind::Video, slot) => {
                            peers.send(PeerCommand::RequestKeyframe { peer, slot });
                        }
                        _ => post(&outbox, ToClient::Keyframe { slot }),
                    }
                }
                Some(Control::Limit { slot, max_bitrate, reason }) => {
                    let max_bitrate = max_bitrate.min(config.max_video_bitrate);
                    post(&outbox, ToClient::Limit { slot, max_bitrate, reason });
                }
                Some(Control::Ended(reason)) => break End::Room(reason),
                None => break End::Room(LeaveReason::Removed),
            },
        }
    };
    let peer = *lock(&shared.peer);
    if let (Some(peer), Some(peers)) = (peer, &config.peers) {
        peers.send(PeerCommand::Close { peer });
    }
    match end {
        End::Left => membership.leave(LeaveReason::Left).await,
        End::Fatal(_) | End::Shutdown => membership.leave(LeaveReason::Removed).await,
        // Dropping the membership starts the grace time, or does nothing if the room has already let go of it.
        End::Lost | End::Room(_) => drop(membership),
    }
    end
}

/// Acts on what the WebRTC worker tells; the tracks to publish, if they changed.
fn peer_changed(
    event: PeerEvent,
    shared: &Shared,
    room: &RoomHandle,
    outbox: &mpsc::Sender<ToClient>,
) -> Option<Tracks> {
    let elsewhere = |tracks: Vec<TrackId>| {
        let mut egress = lock(&shared.egress);
        egress.set_elsewhere(tracks);
        for message in egress.update(&room.snapshot()) {
            post(outbox, message);
        }
        shared.nudge.notify_one();
    };
    match event {
        PeerEvent::Connected { tcp } => {
            tracing::debug!(tcp, "WebRTC connected");
            None
        }
        PeerEvent::Mids(mids) => {
            let mids = mids.into_iter().map(|(mid, kind, track)| ReceiveMid {
                mid,
                kind,
                source: track.map(|track| track.source),
                slot: track.map_or(0, |track| track.slot),
            });
            post(outbox, ToClient::Mids { mids: mids.collect() });
            None
        }
        PeerEvent::Need { audio, video } => {
            post(outbox, ToClient::NeedMids { audio, video });
            None
        }
        PeerEvent::Carried(tracks) => {
            elsewhere(tracks);
            None
        }
        PeerEvent::Described {
            kind,
            slot,
            codec,
            size,
        } => {
            let mut ingress = lock(&shared.ingress);
            ingress.describe(kind, slot, codec, size).then(|| ingress.tracks())
        }
        PeerEvent::Bandwidth { track, paused } => {
            let (source, slot, reason) = (track.source, track.slot, PauseReason::Bandwidth);
            let message = if paused {
                ToClient::VideoPaused { source, slot, reason }
            } else {
                ToClient::VideoResumed { source, slot, reason }
            };
            post(outbox, message);
            None
        }
        PeerEvent::Closed(message) => {
            *lock(&shared.peer) = None;
            elsewhere(Vec::new());
            post(
                outbox,
                ToClient::Error {
                    code: "webrtc_failed",
                    message,
                    fatal: false,
                },
            );
            let mut ingress = lock(&shared.ingress);
            ingress.take_back();
            Some(ingress.tracks())
        }
    }
}

async fn stopping(shutdown: &mut watch::Receiver<bool>) {
    shutdown.wait_for(|stop| *stop).await.ok();
}

fn post(outbox: &mpsc::Sender<ToClient>, message: ToClient) {
    if outbox.try_send(message).is_err() {
        tracing::debug!("a client does not read its control messages");
    }
}

type Tracks = Vec<(TrackInfo, Arc<Track>)>;

/// What the reading half asks of the membership.
enum Request {
    Tracks(Tracks),
    Muted(Muted),
    Door(Door),
}

struct Reader<'a> {
    id: ParticipantId,
    room: RoomHandle,
    shared: &'a Shared,
    outbox: mpsc::Sender<ToClient>,
    requests: mpsc::Sender<Request>,
    peers: Option<Peers>,
    peer_events: mpsc::Sender<PeerEvent>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    max_video_bitrate: u32,
    texts: Bucket,
    messages: Bucket,
    bytes: Bucket,
    told: BTreeMap<&'static str, Instant>,
}

impl Reader<'_> {
    async fn run(&mut self, source: &mut Source) -> End {
        loop {
            let idle_at = *lock(&self.shared.heard) + IDLE_DEADLINE;
            let message = match timeout_at(idle_at.into(), source.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => return broken(&error),
                Ok(None) => return End::Lost,
                Err(_) => {
                    // Nothing at all for 15 s: the connection is as good as broken, and the member may come back.
                    return End::Lost;
                }
            };
            let now = Instant::now();
            *lock(&self.shared.heard) = now;
            let outcome = match message {
                Message::Text(text) => self.text(&text, now).await,
                Message::Binary(bytes) => self.binary(&bytes, now).await,
                Message::Close(frame) => match frame.map(|frame| frame.code) {
                    Some(1000 | 1001) => Err(End::Left),
                    _ => Err(End::Lost),
                },
                Message::Ping(_) | Message::Pong(_) => Ok(()),
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    async fn text(&mut self, text: &str, now: Instant) -> Result<(), End> {
        if !self.texts.take(1.0, now) {
            let message = "more than 200 control messages a second";
            return Err(End::Fatal(Fatal::new(4429, "rate_limited", message)));
        }
        match parse_text(text)? {
            FromClient::Ack { media, backlog_ms } => {
                let acked = lock(&self.shared.window).acked(media, backlog_ms, now);
                acked.map_err(|error| End::Fatal(Fatal::bad_message(error.to_string())))?;
                self.shared.nudge.notify_one();
            }
            FromClient::Publish { tracks } => {
                let published = lock(&self.shared.ingress).publish(&tracks);
                published.map_err(|text| End::Fatal(Fatal::bad_message(text)))?;
                self.announce().await;
            }
            FromClient::Mute(muted) => {
                self.requests.send(Request::Muted(muted)).await.ok();
            }
            FromClient::Pause { tracks } => self.pause(tracks),
            FromClient::Keyframe { source, slot } => self.keyframe(source, slot),
            FromClient::Ping { t } => post(&self.outbox, ToClient::Pong { t }),
            FromClient::Bye { reason } => {
                tracing::debug!(member = %self.id, reason, "bye");
                return Err(End::Left);
            }
            FromClient::Offer { sdp, send } => self.offer(sdp, send, now).await,
            FromClient::Candidate { candidate } => {
                self.to_peer(|peer| PeerCommand::Candidate { peer, candidate });
            }
            FromClient::Transport { media } => {
                let on = media == MediaTransport::Webrtc;
                if self.to_peer(|peer| PeerCommand::Receive { peer, on }) {
                    let door = if on { Door::Webrtc } else { Door::Websocket };
                    self.requests.send(Request::Door(door)).await.ok();
                } else if on {
                    let message = "WebRTC is not set up: an offer comes first".to_owned();
                    self.complain("webrtc_failed", message, now);
                }
            }
            FromClient::Hello { .. }
            | FromClient::Auth { .. }
            | FromClient::Join(_)
            | FromClient::Pong { .. }
            | FromClient::Unknown => {}
        }
        Ok(())
    }

    async fn binary(&mut self, bytes: &[u8], now: Instant) -> Result<(), End> {
        if bytes.len() > MAX_BINARY {
            let message = format!("a media message of {} bytes is larger than {MAX_BINARY}", bytes.len());
            return Err(End::Fatal(Fatal::new(4413, "too_large", message)));
        }
        if !self.messages.take(1.0, now) || !self.bytes.take(bytes.len() as f64, now) {
            let message = "more media than 2,000 messages or 20 Mbit a second";
            return Err(End::Fatal(Fatal::new(4429, "rate_limited", message)));
        }
        let received = self.shared.received.fetch_add(1, Ordering::Relaxed) + 1;
        let waiting = received - self.shared.acknowledged.load(Ordering::Relaxed);
        if waiting == 1 || waiting >= ACK_EVERY {
            self.shared.nudge.notify_one();
        }
        let message = parse_media(bytes).map_err(|error| End::Fatal(Fatal::bad_message(error.to_string())))?;
        let Some(message) = message else { return Ok(()) };
        let outcome = lock(&self.shared.ingress).media(&message, self.room.time_at(now));
        match outcome {
            Outcome::Taken => {}
            Outcome::Changed => self.announce().await,
            Outcome::NeedsKeyframe(track) => {
                self.room.request_keyframe(track, self.room.time_at(now), Reason::Loss);
            }
            Outcome::Refused(code, text) => self.complain(code, text, now),
        }
        Ok(())
    }

    async fn announce(&mut self) {
        let tracks = lock(&self.shared.ingress).tracks();
        self.requests.send(Request::Tracks(tracks)).await.ok();
    }

    /// Tells the WebRTC worker something about this client's session; false if it has none.
    fn to_peer(&self, command: impl FnOnce(PeerId) -> PeerCommand) -> bool {
        let peer = *lock(&self.shared.peer);
        match (peer, &self.peers) {
            (Some(peer), Some(peers)) => peers.send(command(peer)),
            _ => false,
        }
    }

    /// Has an offer answered. Tracks that it is to carry are handed to the worker.
    async fn offer(&mut self, sdp: String, send: Vec<SendMid>, now: Instant) {
        let Some(peers) = &self.peers else {
            let message = "this server has no WebRTC media; media goes over the WebSocket".to_owned();
            return self.complain("webrtc_unavailable", message, now);
        };
        let known = *lock(&self.shared.peer);
        let peer = known.unwrap_or_else(|| peers.new_id());
        let context = known.is_none().then(|| {
            Box::new(PeerContext {
                viewer: self.id,
                room: self.room.clone(),
                snapshots: self.snapshots.clone(),
                events: self.peer_events.clone(),
                follow: Follow::Everyone,
                max_video_bitrate: self.max_video_bitrate,
            })
        });
        let sends: Vec<Sending> = {
            let mut ingress = lock(&self.shared.ingress);
            send.into_iter()
                .take(MAX_TRACKS)
                .filter_map(|SendMid { mid, kind, slot }| {
                    let writer = ingress.take_writer(kind, slot)?;
                    Some(Sending {
                        mid: Some(mid),
                        kind,
                        slot,
                        writer,
                    })
                })
                .collect()
        };
        *lock(&self.shared.peer) = Some(peer);
        let (reply, answer) = oneshot::channel();
        let asked = peers.send(PeerCommand::Offer {
            peer,
            context,
            sdp,
            sends,
            reply,
        });
        let answer = if asked {
            timeout(OFFER_DEADLINE, answer).await.ok().and_then(Result::ok)
        } else {
            None
        };
        match answer {
            Some(Ok(sdp)) => post(&self.outbox, ToClient::Answer { sdp }),
            refused => {
                let message = match refused {
                    Some(Err(refused)) => refused.message,
                    _ => "the server is too busy for WebRTC now".to_owned(),
                };
                // A session that stands goes on as it was; a new one never began, and its tracks come as messages.
                if known.is_none() {
                    *lock(&self.shared.peer) = None;
                    lock(&self.shared.ingress).take_back();
                    self.announce().await;
                }
                self.complain("webrtc_failed", message, now);
            }
        }
    }

    fn pause(&mut self, tracks: Vec<TrackRef>) {
        let tracks: Vec<TrackRef> = tracks.into_iter().take(1024).collect();
        let named = tracks
            .iter()
            .map(|track| (track.source, track.kind, track.slot))
            .collect();
        self.to_peer(|peer| PeerCommand::Pause { peer, tracks: named });
        lock(&self.shared.egress).pause(tracks);
        self.shared.nudge.notify_one();
    }

    fn keyframe(&mut self, source: ParticipantId, slot: u8) {
        let id = lock(&self.shared.egress).knows(source, slot).unwrap_or(TrackId {
            source,
            kind: Kind::Video,
            slot,
            layer: 0,
        });
        let now = self.room.now();
        if self.room.snapshot().track(id).is_none() {
            let message = format!("there is no video slot {slot} of participant {source}");
            return self.complain("unknown_track", message, Instant::now());
        }
        // One that came within the last 100 ms is on its way to this client already.
        let since = crate::media::frame::RoomTime(now.0.saturating_sub(100_000));
        self.room.request_keyframe(id, since, Reason::Viewer);
    }

    fn complain(&mut self, code: &'static str, message: String, now: Instant) {
        if self
            .told
            .get(code)
            .is_none_or(|at| now.saturating_duration_since(*at) >= ERROR_INTERVAL)
        {
            self.told.insert(code, now);
            post(
                &self.outbox,
                ToClient::Error {
                    code,
                    message,
                    fatal: false,
                },
            );
        }
    }
}

struct Writer<'a> {
    id: ParticipantId,
    epoch: u64,
    shared: &'a Shared,
    posted: mpsc::Receiver<ToClient>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    snapshot: Arc<Snapshot>,
    room: RoomHandle,
    peers: Option<Peers>,
}

impl Writer<'_> {
    async fn run(&mut self, sink: &mut Sink) -> End {
        let waker = lock(&self.shared.egress).waker();
        let mut ping_at = Instant::now() + PING_INTERVAL;
        let mut ack_due: Option<Instant> = None;
        let mut last_ack = Instant::now();
        let first = self.snapshot.clone();
        if let Err(end) = self.follow(sink, &first).await {
            return end;
        }
        loop {
            let now = Instant::now();
            // Control messages first: they are small, and media waits for what they say.
            while let Ok(message) = self.posted.try_recv() {
                if let Err(end) = send_now(sink, &message).await {
                    return end;
                }
            }
            let received = self.shared.received.load(Ordering::Relaxed);
            let waiting = received - self.shared.acknowledged.load(Ordering::Relaxed);
            if waiting > 0 && ack_due.is_none() {
                ack_due = Some(now + ACK_DELAY);
            }
            let spaced = now.saturating_duration_since(last_ack) >= Duration::from_millis(10);
            if spaced && waiting > 0 && (waiting >= ACK_EVERY || ack_due.is_some_and(|due| due <= now)) {
                if let Err(end) = send_now(sink, &ToClient::Ack { media: received }).await {
                    return end;
                }
                self.shared.acknowledged.store(received, Ordering::Relaxed);
                last_ack = now;
                ack_due = None;
            }
            if ping_at <= now {
                ping_at = now + PING_INTERVAL;
                let t = lock(&self.shared.egress).counters().messages as f64;
                if let Err(end) = send_now(sink, &ToClient::Ping { t }).await {
                    return end;
                }
            }
            if self.snapshots.has_changed().unwrap_or(false) {
                let snapshot = self.snapshots.borrow_and_update().clone();
                if let Err(end) = self.follow(sink, &snapshot).await {
                    return end;
                }
            }
            self.judge(now);
            let next = {
                let mut window = lock(&self.shared.window);
                let mut egress = lock(&self.shared.egress);
                let next = egress.next(&mut window, now);
                if let Out::Message(message) = &next {
                    window.sent(message.len(), now);
                }
                next
            };
            match next {
                Out::Message(message) => {
                    if !matches!(
                        timeout(SEND_DEADLINE, sink.send(Message::Binary(message))).await,
                        Ok(Ok(()))
                    ) {
                        return End::Lost;
                    }
                }
                Out::Idle => {
                    let replay = lock(&self.shared.egress)
                        .poll_timeout()
                        .map(|at| now + Duration::from_micros(at.since(self.room.time_at(now))));
                    let wake = [Some(ping_at), Some(now + TICK), ack_due, replay]
                        .into_iter()
                        .flatten()
                        .min()
                        .unwrap_or(ping_at);
                    tokio::select! {
                        message = self.posted.recv() => match message {
                            Some(message) => if let Err(end) = send_now(sink, &message).await { return end },
                            None => return End::Lost,
                        },
                        () = waker.notified() => {}
                        () = self.shared.nudge.notified() => {}
                        _ = self.snapshots.changed() => self.snapshots.mark_changed(),
                        () = tokio::time::sleep_until(wake.into()) => {}
                    }
                }
            }
        }
    }

    /// Says to the room how much video this client can take.
    fn judge(&self, now: Instant) {
        let capacities = lock(&self.shared.egress).judge_capacity(&mut lock(&self.shared.window), now);
        for (track, bits_per_second) in capacities {
            self.room.report_capacity(self.id, self.epoch, track, bits_per_second);
        }
    }

    /// Tells the client what changed since the snapshot before, and follows it with the subscriptions.
    async fn follow(&mut self, sink: &mut Sink, new: &Arc<Snapshot>) -> Result<(), End> {
        let old = std::mem::replace(&mut self.snapshot, new.clone());
        for message in changes(&old, new) {
            send_now(sink, &message).await?;
        }
        let peer = *lock(&self.shared.peer);
        if let (Some(peer), Some(peers)) = (peer, &self.peers) {
            peers.send(PeerCommand::Update { peer });
        }
        let told = lock(&self.shared.egress).update(new);
        for message in told {
            send_now(sink, &message).await?;
        }
        tracing::trace!(member = %self.id, version = new.version, "followed");
        Ok(())
    }
}

/// The messages that turn one snapshot into another.
fn changes(old: &Snapshot, new: &Snapshot) -> Vec<ToClient> {
    let mut out = Vec::new();
    for member in &old.members {
        if new.member(member.id).is_none() {
            let reason = new
                .departed
                .iter()
                .rev()
                .find(|(id, _)| *id == member.id)
                .map_or(LeaveReason::Lost, |d| d.1);
            out.push(ToClient::MemberLeft { id: member.id, reason });
        }
    }
    for member in &new.members {
        match old.member(member.id) {
            None => out.push(ToClient::MemberJoined {
                member: Member::from(&**member),
            }),
            Some(before) if !Arc::ptr_eq(before, member) && differs(before, member) => {
                out.push(ToClient::MemberChanged {
                    member: Member::from(&**member),
                });
            }
            Some(_) => {}
        }
    }
    if old.speakers != new.speakers {
        out.push(ToClient::Speakers {
            ids: new.speakers.to_vec(),
        });
    }
    out
}

fn differs(a: &MemberView, b: &MemberView) -> bool {
    let tracks = |view: &MemberView| view.tracks.iter().map(|track| track.info).collect::<Vec<_>>();
    a.name != b.name || a.door != b.door || a.presence != b.presence || a.muted != b.muted || tracks(a) != tracks(b)
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    burst: f64,
    level: f64,
    at: Option<Instant>,
}

impl Bucket {
    fn new((rate, burst): (f64, f64)) -> Self {
        Self {
            rate,
            burst,
            level: burst,
            at: None,
        }
    }

    fn take(&mut self, amount: f64, now: Instant) -> bool {
        let elapsed = self
            .at
            .map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.at = Some(now);
        self.level = (self.level + elapsed * self.rate).min(self.burst);
        let enough = self.level >= amount;
        if enough {
            self.level -= amount;
        }
        enough
    }
}

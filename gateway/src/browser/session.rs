//! One browser: its control channel, from the upgrade to the close.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use wzp_proto::identity::Fingerprint;
use wzp_proto::room_name::RoomName;

mod reader;
mod writer;

use reader::{ClientLimits, Reader};
pub use writer::TOGETHER;
use writer::Writer;

use crate::auth::Auth;
use crate::browser::egress::Egress;
use crate::browser::ingress::Ingress;
use crate::browser::message::{
    FromClient, JoinMessage, JoinedMessage, Limits, MAX_CLIENT, MAX_NAME, MAX_OFFER_TEXT, MAX_TEXT, MAX_TOKEN,
    MAX_TRACKS, Member, PauseReason, ReceiveMid, SendMid, ToClient, VERSION,
};
use crate::browser::window::Window;
use crate::config::ice::IceServer;
use crate::media::frame::{Kind, TrackId};
use crate::room::member::{Control, Door, Join, JoinError, LeaveReason, Muted, ResumeToken, TrackInfo, View};
use crate::room::peer::{PeerCommand, PeerEvent, PeerId, Peers, Sending};
use crate::room::registry::{Membership, Registry, RoomHandle};
use crate::room::state::RESUME_GRACE;
use crate::room::track::Track;

/// A client joins within this.
const JOIN_DEADLINE: Duration = Duration::from_secs(10);
/// A message that the network does not take within this ends the session.
const SEND_DEADLINE: Duration = Duration::from_secs(15);
/// The farewell is worth this much waiting.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// Binary messages are acknowledged after this time at the latest …
const ACK_DELAY: Duration = Duration::from_millis(50);
/// … and after this many, …
const ACK_EVERY: u64 = 16;
/// … but no sooner after the last time than this.
const ACK_SPACING: Duration = Duration::from_millis(10);
/// WebRTC events that may wait.
const PEER_EVENTS: usize = 256;
/// Control messages that may wait to be sent.
const OUTBOX: usize = 256;

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
    /// STUN and TURN servers that clients are told of.
    pub ice_servers: Vec<IceServer>,
    /// How silence is dealt with.
    pub timing: Timing,
}

/// How silence is dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The server pings this often.
    pub ping: Duration,
    /// A client that is silent this long is gone.
    pub idle: Duration,
}

impl Default for Timing {
    /// The page's own: three pings may get lost.
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(5),
            idle: Duration::from_secs(15),
        }
    }
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
    /// Nothing came for too long: as good as broken, but the client may still hear us.
    Silent,
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
    close(sink, source, end).await;
}

fn room_label(room: &RoomName) -> String {
    room.display().map_or_else(|| room.key().to_string(), str::to_owned)
}

async fn close(mut sink: Sink, mut source: Source, end: End) {
    let (code, reason, last) = match end {
        End::Left => (1000, "bye".to_owned(), None),
        End::Lost => return,
        End::Silent => {
            let message = "nothing came from this client for too long; its place is kept for a moment".to_owned();
            (
                4408,
                "idle_timeout".to_owned(),
                Some(ToClient::Error {
                    code: "idle_timeout",
                    message,
                    fatal: true,
                }),
            )
        }
        End::Shutdown => (
            1001,
            "shutting_down".to_owned(),
            Some(ToClient::Bye {
                reason: "shutting_down",
            }),
        ),
        End::Room(LeaveReason::Replaced) => {
            let message = "you have joined from another tab or device; this one has left".to_owned();
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
        // Until the client has closed, too: a socket that is dropped with something unread takes back what was sent last.
        while let Some(Ok(_)) = source.next().await {}
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
                check_length("client", &client, MAX_CLIENT)?;
                if !versions.contains(&VERSION) {
                    let message = format!("this server speaks version {VERSION}; the client offers {versions:?}");
                    return Err(End::Fatal(Fatal::new(4400, "version_mismatch", message)));
                }
                tracing::debug!(client, "hello");
                greeted = true;
            }
            FromClient::Auth { token } => {
                check_length("token", &token, MAX_TOKEN)?;
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

fn check_length(field: &str, text: &str, most: usize) -> Result<(), End> {
    if text.chars().count() <= most {
        return Ok(());
    }
    let message = format!("`{field}` has more than {most} characters");
    Err(End::Fatal(Fatal::bad_message(message)))
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
    let too_large = |limit: usize| {
        let message = format!("a text message of {} bytes is larger than {limit}", text.len());
        End::Fatal(Fatal::new(4413, "too_large", message))
    };
    if text.len() > MAX_OFFER_TEXT {
        return Err(too_large(MAX_OFFER_TEXT));
    }
    let message = serde_json::from_str(text)
        .map_err(|error| End::Fatal(Fatal::bad_message(format!("not a control message: {error}"))))?;
    if text.len() > MAX_TEXT && !matches!(message, FromClient::Offer { .. }) {
        return Err(too_large(MAX_TEXT));
    }
    Ok(message)
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
    rtp: Mutex<Rtp>,
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
        ingress: Mutex::new(Ingress::new(id, config.max_frame_bytes, room.bounds(Kind::Video))),
        peer: Mutex::new(None),
        rtp: Mutex::default(),
        egress: Mutex::new(Egress::new(id, room.clone(), decode.into_iter().take(16).collect()).bundling(join.bundles)),
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
        ice_servers: config.ice_servers.clone(),
    }));
    if let Err(end) = send_now(sink, &joined).await {
        return end;
    }
    let mut reader = Reader {
        id,
        epoch: membership.epoch(),
        room: room.clone(),
        shared: &shared,
        outbox: outbox.clone(),
        requests,
        peers: config.peers.clone(),
        peer_events,
        snapshots: membership.snapshots(),
        max_video_bitrate: config.max_video_bitrate,
        idle: config.timing.idle,
        limits: ClientLimits::default(),
        paused: Vec::new(),
        shown: Vec::new(),
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
        ping: config.timing.ping,
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
                Request::View(view) => membership.set_view(view).await,
            },
            Some(event) = peer_event.recv() => {
                if let Some(tracks) = peer_changed(event, &shared, &room, &outbox, config.peers.as_ref()) {
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
                Some(Control::Limit { slot, max_bitrate, max_side, reason }) => {
                    let max_bitrate = max_bitrate.min(config.max_video_bitrate);
                    post(&outbox, ToClient::Limit { slot, max_bitrate, max_side, reason });
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
        End::Lost | End::Silent | End::Room(_) => drop(membership),
    }
    end
}

/// How far a client's tracks have gone over to RTP.
#[derive(Default)]
struct Rtp {
    connected: bool,
    /// Named in an offer, and not handed to the worker yet.
    pending: Vec<SendMid>,
    /// Videos that the client was told are held back for the sake of bandwidth.
    paused: BTreeSet<TrackId>,
    /// These will come over RTP, from their next keyframe on.
    waiting: Vec<TrackId>,
}

/// Pictures that wait for a keyframe go over to RTP at once if the client does not have them from us.
fn hurry(shared: &Shared, peers: &Peers, now: Instant) {
    let Some(peer) = *lock(&shared.peer) else { return };
    let mut rtp = lock(&shared.rtp);
    if rtp.waiting.is_empty() {
        return;
    }
    let egress = lock(&shared.egress);
    let (wait, tracks): (Vec<_>, Vec<_>) = (rtp.waiting.iter()).partition(|track| egress.keeps_up(**track, now));
    // A worker that is overloaded is told later.
    if !tracks.is_empty() && peers.send(PeerCommand::Begin { peer, tracks }) {
        rtp.waiting = wait;
    }
}

/// Hands the tracks that offers have named to the worker, once RTP can carry them.
fn hand_over(shared: &Shared, peers: &Peers) {
    let Some(peer) = *lock(&shared.peer) else { return };
    let mut rtp = lock(&shared.rtp);
    if !rtp.connected {
        return;
    }
    let mut ingress = lock(&shared.ingress);
    let mut sends = Vec::new();
    rtp.pending
        .retain(|send| match ingress.take_writer(send.kind, send.slot) {
            Some(writer) => {
                sends.push(Sending {
                    mid: Some(send.mid.clone()),
                    kind: send.kind,
                    slot: send.slot,
                    writer,
                });
                false
            }
            // Not published yet; what is over RTP already needs no second hand-over.
            None => !ingress.is_over_rtp(send.kind, send.slot),
        });
    rtp.pending.truncate(MAX_TRACKS);
    if !sends.is_empty() {
        peers.send(PeerCommand::Send { peer, sends });
    }
}

/// Acts on what the WebRTC worker tells; the tracks to publish, if they changed.
fn peer_changed(
    event: PeerEvent,
    shared: &Shared,
    room: &RoomHandle,
    outbox: &mpsc::Sender<ToClient>,
    peers: Option<&Peers>,
) -> Option<Tracks> {
    let elsewhere = |tracks: Vec<TrackId>| {
        let mut egress = lock(&shared.egress);
        let now = Instant::now();
        egress.set_elsewhere(tracks, now);
        for message in egress.update(&room.snapshot(), now) {
            post(outbox, message);
        }
        shared.nudge.notify_one();
    };
    match event {
        PeerEvent::Connected { tcp } => {
            tracing::debug!(tcp, "WebRTC connected");
            lock(&shared.rtp).connected = true;
            if let Some(peers) = peers {
                hand_over(shared, peers);
            }
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
        PeerEvent::Waiting(tracks) => {
            lock(&shared.rtp).waiting = tracks;
            if let Some(peers) = peers {
                hurry(shared, peers, Instant::now());
            }
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
                lock(&shared.rtp).paused.insert(track);
                ToClient::VideoPaused { source, slot, reason }
            } else {
                lock(&shared.rtp).paused.remove(&track);
                ToClient::VideoResumed { source, slot, reason }
            };
            post(outbox, message);
            None
        }
        PeerEvent::Closed(message) => {
            *lock(&shared.peer) = None;
            let rtp = std::mem::take(&mut *lock(&shared.rtp));
            for track in rtp.paused {
                let (source, slot, reason) = (track.source, track.slot, PauseReason::Bandwidth);
                post(outbox, ToClient::VideoResumed { source, slot, reason });
            }
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
    View(View),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(bytes: usize) -> String {
        let sdp = "a".repeat(bytes);
        serde_json::json!({"type": "offer", "sdp": sdp}).to_string()
    }

    fn close_code(text: &str) -> Option<u16> {
        match parse_text(text) {
            Err(End::Fatal(fatal)) => Some(fatal.close),
            _ => None,
        }
    }

    #[test]
    fn only_an_offer_may_be_long() {
        assert!(matches!(parse_text(&offer(3_400 * 40)), Ok(FromClient::Offer { .. })));
        assert_eq!(close_code(&offer(MAX_OFFER_TEXT)), Some(4413));
        let bye = |bytes: usize| serde_json::json!({"type": "bye", "reason": "a".repeat(bytes)}).to_string();
        assert!(matches!(parse_text(&bye(1_000)), Ok(FromClient::Bye { .. })));
        assert_eq!(close_code(&bye(MAX_TEXT)), Some(4413));
        assert_eq!(close_code(&"[".repeat(MAX_OFFER_TEXT)), Some(4400));
    }
}

//! The reading half of a session: what the client says and sends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::extract::ws::Message;
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{timeout, timeout_at};

use super::{ACK_EVERY, End, Fatal, Request, Shared, Source, broken, hand_over, lock, parse_text, post};
use crate::browser::ingress::Outcome;
use crate::browser::message::{
    FromClient, MAX_BINARY, MAX_NAMED, MAX_TRACKS, MediaTransport, SendMid, ShownTrack, ToClient, TrackRef, parse_media,
};
use crate::media::frame::{Kind, ParticipantId, RoomTime, TrackId};
use crate::room::keyframes::Reason;
use crate::room::member::{Door, View};
use crate::room::peer::{Follow, PeerCommand, PeerContext, PeerEvent, PeerId, Peers};
use crate::room::registry::RoomHandle;
use crate::room::snapshot::Snapshot;

/// The WebRTC worker answers an offer within this.
const OFFER_DEADLINE: Duration = Duration::from_secs(5);
/// Text messages per second, and at once.
const TEXT_RATE: (f64, f64) = (200.0, 400.0);
/// Media messages per second, and at once: 16 tracks at 30 frames of several pieces.
const MEDIA_RATE: (f64, f64) = (2000.0, 4000.0);
/// Media bytes per second, and at once: generous for a camera and a screen.
const BYTE_RATE: (f64, f64) = (2_500_000.0, 8_000_000.0);
/// The same non-fatal error is told at most this often.
const ERROR_INTERVAL: Duration = Duration::from_secs(2);
pub(super) struct Reader<'a> {
    pub(super) id: ParticipantId,
    pub(super) epoch: u64,
    pub(super) room: RoomHandle,
    pub(super) shared: &'a Shared,
    pub(super) outbox: mpsc::Sender<ToClient>,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) peers: Option<Peers>,
    pub(super) peer_events: mpsc::Sender<PeerEvent>,
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(super) max_video_bitrate: u32,
    pub(super) idle: Duration,
    pub(super) limits: ClientLimits,
    /// The client's last `pause` and `view`.
    pub(super) paused: Vec<TrackRef>,
    pub(super) shown: Vec<ShownTrack>,
}

impl Reader<'_> {
    pub(super) async fn run(&mut self, source: &mut Source) -> End {
        loop {
            let idle_at = *lock(&self.shared.heard) + self.idle;
            let message = match timeout_at(idle_at.into(), source.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => return broken(&error),
                Ok(None) => return End::Lost,
                Err(_) => return End::Silent,
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
        // Offers may be long, so their bytes count too.
        if !self.limits.texts.take(1.0, now) || !self.limits.bytes.take(text.len() as f64, now) {
            let message = "more than 200 control messages or 20 Mbit a second";
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
                if let Some(peers) = &self.peers {
                    hand_over(self.shared, peers);
                }
            }
            FromClient::Mute(muted) => {
                self.requests.send(Request::Muted(muted)).await.ok();
            }
            FromClient::Pause { tracks } => self.pause(tracks).await,
            FromClient::View { mut tracks } => {
                tracks.truncate(MAX_NAMED);
                self.shown = tracks;
                self.tell_view().await;
            }
            FromClient::Keyframe { source, slot } => self.keyframe(source, slot),
            FromClient::Ping { t } => post(&self.outbox, ToClient::Pong { t }),
            FromClient::Pong { t } => lock(&self.shared.window).ponged(t, now),
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
            FromClient::Hello { .. } | FromClient::Auth { .. } | FromClient::Join(_) | FromClient::Unknown => {}
        }
        Ok(())
    }

    async fn binary(&mut self, bytes: &[u8], now: Instant) -> Result<(), End> {
        if bytes.len() > MAX_BINARY {
            let message = format!("a media message of {} bytes is larger than {MAX_BINARY}", bytes.len());
            return Err(End::Fatal(Fatal::new(4413, "too_large", message)));
        }
        if !self.limits.messages.take(1.0, now) || !self.limits.bytes.take(bytes.len() as f64, now) {
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
                epoch: self.epoch,
                room: self.room.clone(),
                snapshots: self.snapshots.clone(),
                events: self.peer_events.clone(),
                follow: Follow::Everyone,
                max_video_bitrate: self.max_video_bitrate,
            })
        });
        // Tracks go over to RTP when it is up, and stay messages until then.
        lock(&self.shared.rtp).pending.extend(send.into_iter().take(MAX_TRACKS));
        *lock(&self.shared.peer) = Some(peer);
        let (reply, answer) = oneshot::channel();
        let asked = peers.send(PeerCommand::Offer {
            peer,
            context,
            sdp,
            sends: Vec::new(),
            reply,
        });
        let answer = if asked {
            timeout(OFFER_DEADLINE, answer).await.ok().and_then(Result::ok)
        } else {
            None
        };
        match answer {
            Some(Ok(sdp)) => {
                post(&self.outbox, ToClient::Answer { sdp });
                hand_over(self.shared, peers);
            }
            refused => {
                let message = match refused {
                    Some(Err(refused)) => refused.message,
                    _ => "the server is too busy for WebRTC now".to_owned(),
                };
                // A session that stands goes on as it was; a new one never began, and its tracks come as messages.
                if known.is_none() {
                    *lock(&self.shared.peer) = None;
                }
                self.complain("webrtc_failed", message, now);
            }
        }
    }

    async fn pause(&mut self, mut tracks: Vec<TrackRef>) {
        tracks.truncate(MAX_NAMED);
        let named = tracks
            .iter()
            .map(|track| (track.source, track.kind, track.slot))
            .collect();
        self.to_peer(|peer| PeerCommand::Pause { peer, tracks: named });
        self.paused.clone_from(&tracks);
        lock(&self.shared.egress).pause(tracks, Instant::now());
        self.shared.nudge.notify_one();
        self.tell_view().await;
    }

    /// Tells the room how large the client shows the others. What it has paused it does not show at all.
    async fn tell_view(&self) {
        let shown = self.shown.iter();
        let mut view: View = shown
            .map(|track| ((track.source, track.slot), track.side.get()))
            .collect();
        let hidden = self.paused.iter().filter(|track| track.kind == Kind::Video);
        view.extend(hidden.map(|track| ((track.source, track.slot), 0)));
        self.requests.send(Request::View(view)).await.ok();
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
        // What it has from us cannot be decoded.
        if lock(&self.shared.rtp).waiting.contains(&id) {
            self.to_peer(|peer| PeerCommand::Begin { peer, tracks: vec![id] });
        }
        // One that came within the last 100 ms is on its way to this client already.
        let since = RoomTime(now.0.saturating_sub(100_000));
        self.room.request_keyframe(id, since, Reason::Viewer);
    }

    fn complain(&mut self, code: &'static str, message: String, now: Instant) {
        if self
            .limits
            .told
            .get(code)
            .is_none_or(|at| now.saturating_duration_since(*at) >= ERROR_INTERVAL)
        {
            self.limits.told.insert(code, now);
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

/// How much a client may say.
pub(super) struct ClientLimits {
    texts: Bucket,
    messages: Bucket,
    bytes: Bucket,
    /// When each non-fatal error was told last.
    told: BTreeMap<&'static str, Instant>,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            texts: Bucket::new(TEXT_RATE),
            messages: Bucket::new(MEDIA_RATE),
            bytes: Bucket::new(BYTE_RATE),
            told: BTreeMap::new(),
        }
    }
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

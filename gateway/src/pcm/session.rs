//! One page, from its token to its leaving.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use wzp_proto::identity::Fingerprint;
use wzp_proto::room_name::RoomName;

use crate::pcm::Config;
use crate::pcm::ingress::{Ingress, Refused};
use crate::room::member::{Control, Door, Join, JoinError, LeaveReason};
use crate::room::mixer::Wants;
use crate::room::registry::Membership;

/// A token comes within this.
const AUTH_DEADLINE: Duration = Duration::from_secs(10);
/// A message that the network does not take within this ends the session.
const SEND_DEADLINE: Duration = Duration::from_secs(5);
/// The farewell is worth this much waiting.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// Pages are pinged this often; the browser answers by itself.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A page that is silent this long is gone.
const IDLE_DEADLINE: Duration = Duration::from_secs(15);
/// Errors are told at most this often.
const ERROR_INTERVAL: Duration = Duration::from_secs(1);
/// A page of whose messages so many in a row were refused will not learn it.
const MOST_REFUSED: u32 = 500;
/// Longest token, bytes.
const MAX_TOKEN: usize = 4_096;

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum FromPage {
    Auth { token: String },
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ToPage<'a> {
    AuthOk,
    AuthError { error: &'a str },
    Error { code: &'a str, message: &'a str },
}

/// How a session ended: close code and reason; `None` if the connection is gone anyway.
type End = Option<(u16, &'static str)>;

/// Runs a session until it ends. `shutdown` turns true when the gateway stops.
pub async fn run(mut socket: WebSocket, room: RoomName, config: Config, mut shutdown: watch::Receiver<bool>) {
    let end = match admit(&mut socket, &config).await {
        Ok(()) => match enter(&room, &config).await {
            Ok(membership) => {
                let id = membership.id();
                tracing::info!(room = %room, member = %id, "a page joined that sends samples");
                let end = Session::converse(&mut socket, membership, &config, &mut shutdown).await;
                tracing::info!(room = %room, member = %id, ?end, "it left");
                end
            }
            Err(error) => {
                let code = match error {
                    JoinError::RoomFull { .. } => "room_full",
                    JoinError::ServerFull => "server_full",
                    JoinError::Stopping => "shutting_down",
                };
                let message = error.to_string();
                tell(
                    &mut socket,
                    &ToPage::Error {
                        code,
                        message: &message,
                    },
                )
                .await
                .ok();
                Some((4503, code))
            }
        },
        Err(end) => end,
    };
    if let Some((code, reason)) = end {
        let close = Message::Close(Some(CloseFrame {
            code,
            reason: reason.into(),
        }));
        timeout(CLOSE_DEADLINE, socket.send(close)).await.ok();
    }
}

async fn tell(socket: &mut WebSocket, message: &ToPage<'_>) -> Result<(), End> {
    let text = serde_json::to_string(message).map_err(|_| None)?;
    send(socket, Message::text(text)).await
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), End> {
    match timeout(SEND_DEADLINE, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(None),
    }
}

/// The token, if the server wants one. Without, the page is told at once that all is well, as older bridges did.
async fn admit(socket: &mut WebSocket, config: &Config) -> Result<(), End> {
    if !config.auth.is_required() {
        return tell(socket, &ToPage::AuthOk).await;
    }
    let error = match timeout(AUTH_DEADLINE, first_text(socket)).await {
        Ok(Some(text)) => match serde_json::from_str(&text) {
            _ if text.len() > MAX_TOKEN => "the token is too long",
            Ok(FromPage::Auth { token }) if config.auth.accepts(&token) => return tell(socket, &ToPage::AuthOk).await,
            Ok(FromPage::Auth { .. }) => "the token is not valid",
            Err(_) => "the first message must be {\"type\":\"auth\",\"token\":\"…\"}",
        },
        Ok(None) => return Err(None),
        Err(_) => "no token came within 10 seconds",
    };
    config.counters.unauthorized.fetch_add(1, Ordering::Relaxed);
    tell(socket, &ToPage::AuthError { error }).await?;
    Err(Some((4401, "unauthorized")))
}

/// The first text message; samples that a page sends before are not heard. `None` if the page has gone.
async fn first_text(socket: &mut WebSocket) -> Option<String> {
    loop {
        match socket.recv().await?.ok()? {
            Message::Text(text) => return Some(text.to_string()),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

async fn enter(room: &RoomName, config: &Config) -> Result<Membership, JoinError> {
    let number = config.counters.joined.fetch_add(1, Ordering::Relaxed) + 1;
    let join = Join {
        name: format!("browser {number}"),
        fingerprint: Fingerprint(rand::random()),
        door: Door::Websocket,
        resume: None,
        resumable: false,
    };
    let membership = config.registry.join(room, join).await?;
    membership.set_blind().await;
    Ok(membership)
}

/// What a socket gives: nothing when the page has gone.
type Received = Option<Result<Message, axum::Error>>;

struct Session<'a> {
    socket: &'a mut WebSocket,
    /// Came right behind the message before.
    waiting: Option<Received>,
    config: &'a Config,
    ingress: Ingress,
    published: bool,
    refused: u32,
    told_at: Option<Instant>,
    heard_at: Instant,
}

/// The next message, first the one that waits.
async fn receive(waiting: &mut Option<Received>, socket: &mut WebSocket) -> Received {
    match waiting.take() {
        Some(message) => message,
        None => socket.recv().await,
    }
}

impl Session<'_> {
    async fn converse(
        socket: &mut WebSocket,
        membership: Membership,
        config: &Config,
        shutdown: &mut watch::Receiver<bool>,
    ) -> End {
        let now = membership.room().now();
        let ingress = match Ingress::new(membership.id(), rand::random(), now) {
            Ok(ingress) => ingress,
            Err(error) => {
                tracing::error!(%error, "no Opus encoder for a page");
                membership.leave(LeaveReason::Removed).await;
                return Some((1011, "no encoder"));
            }
        };
        let session = Session {
            socket,
            waiting: None,
            config,
            ingress,
            published: false,
            refused: 0,
            told_at: None,
            heard_at: Instant::now(),
        };
        session.run(membership, shutdown).await
    }

    async fn run(mut self, mut membership: Membership, shutdown: &mut watch::Receiver<bool>) -> End {
        let end = match self.exchange(&mut membership, shutdown).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        let reason = if end.is_some() {
            LeaveReason::Left
        } else {
            LeaveReason::Lost
        };
        membership.leave(reason).await;
        end
    }

    async fn exchange(
        &mut self,
        membership: &mut Membership,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<std::convert::Infallible, End> {
        let waker = Arc::new(Notify::new());
        let mut mix = membership.room().listen(membership.id(), Wants::Pcm, &waker);
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut dropped = 0;
        loop {
            tokio::select! {
                message = receive(&mut self.waiting, self.socket) => match message {
                    Some(Ok(message)) => {
                        self.waiting = self.socket.recv().now_or_never();
                        self.take(message, membership).await?;
                    }
                    _ => return Err(None),
                },
                () = waker.notified() => {
                    while let Some(tick) = mix.next_tick() {
                        if let Some(block) = tick.pcm(membership.id()) {
                            send(self.socket, Message::Binary(block.clone())).await?;
                            self.config.counters.blocks_out.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    let newly = mix.dropped() - dropped;
                    dropped += newly;
                    self.config.counters.dropped_out.fetch_add(newly, Ordering::Relaxed);
                }
                control = membership.control() => match control {
                    Some(Control::Ended(_)) | None => return Err(Some((4403, "removed"))),
                    Some(_) => {}
                },
                _ = pings.tick() => send(self.socket, Message::Ping(bytes::Bytes::new())).await?,
                () = sleep_until(self.heard_at + IDLE_DEADLINE) => return Err(Some((4408, "idle_timeout"))),
                changed = shutdown.changed() => if changed.is_err() || *shutdown.borrow() {
                    return Err(Some((1001, "shutting_down")));
                },
            }
        }
    }

    async fn take(&mut self, message: Message, membership: &Membership) -> Result<(), End> {
        self.heard_at = Instant::now();
        match message {
            Message::Binary(samples) => {
                let more = matches!(&self.waiting, Some(Some(Ok(Message::Binary(_)))));
                let taken = self.ingress.message(&samples, membership.room().now(), more);
                if let Err(refused) = taken {
                    return self.refuse(refused).await;
                }
                self.refused = 0;
                self.config.counters.blocks_in.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut self.published, true) {
                    membership.set_tracks(vec![self.ingress.track()]).await;
                }
                Ok(())
            }
            Message::Close(_) => Err(Some((1000, "bye"))),
            // A token that nobody asked for, or asked for twice, changes nothing.
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) => Ok(()),
        }
    }

    async fn refuse(&mut self, refused: Refused) -> Result<(), End> {
        let counters = &self.config.counters;
        match refused {
            Refused::Rate => counters.over_rate_in.fetch_add(1, Ordering::Relaxed),
            _ => counters.bad_size_in.fetch_add(1, Ordering::Relaxed),
        };
        self.refused += 1;
        let last = self.refused >= MOST_REFUSED;
        if last || self.told_at.is_none_or(|at| at.elapsed() >= ERROR_INTERVAL) {
            self.told_at = Some(Instant::now());
            let (code, message) = (refused.code(), refused.to_string());
            tell(
                self.socket,
                &ToPage::Error {
                    code,
                    message: &message,
                },
            )
            .await?;
        }
        if last {
            Err(Some((4429, refused.code())))
        } else {
            Ok(())
        }
    }
}

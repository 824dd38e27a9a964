//! Which request goes where.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use wzp_proto::room_name::RoomName;

use crate::browser::message::{MAX_OFFER_TEXT, MAX_TEXT, SUBPROTOCOL};
use crate::browser::session;
use crate::http::pages::Pages;
use crate::http::problem::Problem;
use crate::http::whip;
use crate::metrics::{self, Metrics};
use crate::pcm;
use crate::room::keyframes;
use crate::room::member::Door;
use crate::room::registry::RoomHandle;
use crate::room::snapshot::MemberView;
use crate::room::track::Replays;
use crate::room::uplink::UplinkStatus;

/// What requests need.
#[derive(Debug, Clone)]
pub struct App {
    /// For browser sessions.
    pub session: session::Config,
    /// WHIP and WHEP sessions.
    pub whip: whip::table::Sessions,
    /// What the PCM door does.
    pub pcm: Arc<pcm::Counters>,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// The page.
    pub pages: Pages,
    /// Origins that may connect, besides our own.
    pub allowed_origins: Arc<[String]>,
    /// WebSocket sessions that run, so that a stopping gateway can wait for their goodbyes.
    pub sessions: TaskTracker,
    /// Turns true when the gateway stops.
    pub shutdown: watch::Receiver<bool>,
}

/// The router of the HTTP door.
pub fn router(app: App) -> Router {
    let header = |name: &'static str, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(header::HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    Router::new()
        .route("/ws/{room}", get(websocket))
        .route("/api/rooms/{room}", get(room_members))
        .route("/api/uplinks", get(uplinks))
        .route("/metrics", get(metrics))
        .route("/health", get(|| async { "ok\n" }))
        .fallback(get(page))
        .layer(CompressionLayer::new())
        // Short answers whose reader waits for nothing else: not compressed.
        .merge(whip::routes())
        .with_state(app)
        .layer(header("x-content-type-options", "nosniff"))
        .layer(header("referrer-policy", "no-referrer"))
}

type Upgrade = Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>;

async fn websocket(
    State(app): State<App>,
    Path(room): Path<String>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    // A page that is refused, of another site perhaps, asks again by plain HTTP to learn why: it must be able to read that.
    accept(app, &room, &headers, upgrade)
        .map_err(|problem| problem.with(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")))
}

fn accept(app: App, room: &str, headers: &HeaderMap, upgrade: Upgrade) -> Result<Response, Problem> {
    let room = parse_room(room)?;
    check_origin(&app, headers)?;
    let upgrade = upgrade.map_err(|rejection| {
        Problem::new(
            rejection.status(),
            "not_a_websocket",
            format!("this address is for WebSockets: {rejection}"),
        )
    })?;
    let running = app.sessions.token();
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    if offered.iter().next().is_none() {
        // Pages of older bridges name no subprotocol: they send and expect bare samples.
        let config = pcm::Config {
            registry: app.session.registry,
            auth: app.session.auth,
            counters: app.pcm,
        };
        return Ok(upgrade
            .max_message_size(MAX_TEXT)
            .max_frame_size(MAX_TEXT)
            .write_buffer_size(0)
            .max_write_buffer_size(1 << 20)
            .on_upgrade(move |socket| async move {
                pcm::session::run(socket, room, config, app.shutdown).await;
                drop(running);
            }));
    }
    let speaks = offered
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim() == SUBPROTOCOL);
    if !speaks {
        let message = format!("the WebSocket subprotocol must be {SUBPROTOCOL}, or none for bare samples");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "subprotocol_required", message));
    }
    // More than our own bound: the session then names the cause instead of the library's bare close.
    let limit = MAX_OFFER_TEXT + MAX_TEXT;
    Ok(upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(limit)
        .max_frame_size(limit)
        .write_buffer_size(session::TOGETHER)
        .max_write_buffer_size(1 << 20)
        .on_upgrade(move |socket| async move {
            session::run(socket, room, app.session, app.shutdown).await;
            drop(running);
        }))
}

fn parse_room(room: &str) -> Result<RoomName, Problem> {
    RoomName::parse(room).map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "bad_room", error.to_string()))
}

/// A page of another site must not use a visitor's browser to enter rooms here. Programs send no `Origin`.
fn check_origin(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok()) else {
        return Ok(());
    };
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let of_origin = origin.split_once("://").map(|(_, rest)| rest);
    if of_origin.is_some() && of_origin == host || app.allowed_origins.iter().any(|allowed| allowed == origin) {
        return Ok(());
    }
    let message = format!("pages of {origin} may not connect here; the operator can allow it with --allow-origin");
    Err(Problem::new(StatusCode::FORBIDDEN, "origin_not_allowed", message))
}

#[derive(Debug, Serialize)]
struct RoomMembers {
    room: String,
    /// Left out for those who would need a token to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<RoomMember>>,
    /// What became of the requests for keyframes; not before there is a room.
    #[serde(skip_serializing_if = "Option::is_none")]
    keyframes: Option<keyframes::Counters>,
    /// What newcomers found to begin with; under the same condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    replays: Option<Replays>,
    /// How the room stands with somebody else's relay, under the same condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    uplink: Option<UplinkStatus>,
}

#[derive(Debug, Serialize)]
struct RoomMember {
    name: String,
    door: Door,
    /// It sends pictures and does not answer requests for keyframes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    silent: bool,
}

/// Who is in a room, for the page before joining. Where tokens are needed, only for those who have one.
async fn room_members(
    State(app): State<App>,
    Path(room): Path<String>,
    headers: HeaderMap,
) -> Result<Json<RoomMembers>, Problem> {
    let room = parse_room(&room)?;
    let name = room.display().map_or_else(|| room.key().to_string(), str::to_owned);
    let member = |member: &Arc<MemberView>| RoomMember {
        name: member.name.clone(),
        door: member.door,
        silent: member.tracks.iter().any(|view| view.track.is_silent()),
    };
    let admitted = app.session.auth.accepts(token(&headers));
    let running = app.session.registry.get(room.key()).filter(|_| admitted);
    let snapshot = running.as_ref().map(RoomHandle::snapshot).unwrap_or_default();
    Ok(Json(RoomMembers {
        room: name,
        members: admitted.then(|| snapshot.members.iter().map(member).collect()),
        keyframes: running.as_ref().map(RoomHandle::keyframes),
        replays: running.as_ref().map(RoomHandle::replays),
        uplink: snapshot.uplink.as_deref().cloned(),
    }))
}

fn token(headers: &HeaderMap) -> &str {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default()
}

#[derive(Debug, Serialize)]
struct RoomUplink {
    /// Who may enter any room may enter this one only by knowing its name, so the name is told only where tokens are needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<String>,
    /// Members of this gateway.
    local: usize,
    /// Members of the relay.
    remote: usize,
    #[serde(flatten)]
    status: UplinkStatus,
}

/// How all rooms stand with the relays that they join.
async fn uplinks(State(app): State<App>, headers: HeaderMap) -> Result<Json<Vec<RoomUplink>>, Problem> {
    let auth = &app.session.auth;
    if !auth.accepts(token(&headers)) {
        let message = "this list is for those who have a token: Authorization: Bearer …".to_owned();
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", message));
    }
    let uplink = |room: RoomHandle| {
        let snapshot = room.snapshot();
        let local = snapshot.local().count();
        Some(RoomUplink {
            room: auth.is_required().then(|| room.display().to_string()),
            local,
            remote: snapshot.members.len() - local,
            status: snapshot.uplink.as_deref()?.clone(),
        })
    };
    Ok(Json(
        app.session.registry.rooms().into_values().filter_map(uplink).collect(),
    ))
}

/// Everything that is measured, for Prometheus, under the same condition as the lists.
async fn metrics(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    if !app.session.auth.accepts(token(&headers)) {
        let message = "metrics are for those who have a token: Authorization: Bearer …".to_owned();
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", message));
    }
    let text = app.metrics.text().map_err(|error| {
        let message = format!("the metrics could not be written: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    })?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

/// A file of the page, or the page itself for `/` and `/{room}`.
async fn page(State(app): State<App>, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    if path.is_empty() {
        return app.pages.index(&headers).await;
    }
    if path != "index.html"
        && let Some(file) = app.pages.file(path, &headers).await
    {
        return file;
    }
    let not_found = |message: String| Problem::new(StatusCode::NOT_FOUND, "not_found", message).into_response();
    if path.contains('/') {
        return not_found("there is nothing under this address".to_owned());
    }
    let Ok(name) = percent_decode(path) else {
        return not_found("this is not a room name".to_owned());
    };
    match RoomName::parse(&name) {
        Ok(_) => app.pages.index(&headers).await,
        Err(error) => not_found(error.to_string()),
    }
}

fn percent_decode(text: &str) -> Result<String, std::str::Utf8Error> {
    percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
}

//! WHIP and WHEP: standard tools publish to a room and watch it over HTTP (RFC 9725, draft-ietf-wish-whep).
//!
//! In: an SDP offer by POST. Out: the answer, and the address of a session that PATCH (trickled candidates, ICE restart)
//! and DELETE speak to. Each session is a member of its room and a task of its own ([`session`]), kept in a bounded table
//! ([`table`]) under an address that cannot be guessed.
//!
//! Pages of other sites may use it: what lets somebody in is the Bearer token, never a cookie.

mod rate;
mod request;
pub mod sdp;
pub mod session;
pub mod table;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, patch, post};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use wzp_proto::room_name::RoomName;

use crate::http::listener::Client;
use crate::http::problem::Problem;
use crate::http::router::App;
use crate::room::member::JoinError;
pub use request::MAX_BODY;
use request::{Room, authorize, bad, bounded, check_offer, check_type, parse_room, precondition, read_body};
use session::{Ask, OpenError, PatchError, Patched, Request as SessionRequest, Role, Session, Wanted};

/// A session answers a request within this; its own waiting for the worker is shorter.
const SESSION_DEADLINE: Duration = Duration::from_secs(8);
/// What may stand in a path segment as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ENDPOINT_METHODS: &str = "POST, OPTIONS";
const RESOURCE_METHODS: &str = "PATCH, DELETE, OPTIONS";

/// The routes of both protocols.
pub fn routes() -> Router<App> {
    let router = Router::new()
        .route(
            "/whip/{room}",
            endpoint(post(|app, room, query, request| {
                begin(Role::Publisher, app, room, query, request)
            })),
        )
        .route(
            "/whep/{room}",
            endpoint(post(|app, room, query, request| {
                begin(Role::Viewer, app, room, query, request)
            })),
        );
    let router = ["/whip", "/whip/", "/whep", "/whep/"]
        .into_iter()
        .fold(router, |router, path| router.route(path, any(no_room)));
    let router = router
        .route("/whip/{room}/{id}", resource(Role::Publisher))
        .route("/whep/{room}/{id}", resource(Role::Viewer));
    router.layer(middleware::map_response(share))
}

/// The address of a tool whose room was forgotten.
async fn no_room() -> Problem {
    let message = "the address names no room: /whip/ROOM publishes into it, /whep/ROOM watches it";
    Problem::new(StatusCode::NOT_FOUND, "no_such_room", message)
}

fn endpoint(methods: MethodRouter<App>) -> MethodRouter<App> {
    methods
        .options(|| async { preflight(ENDPOINT_METHODS, HeaderName::from_static("accept-post"), SDP) })
        .fallback(|| async { not_allowed(ENDPOINT_METHODS) })
}

fn resource(role: Role) -> MethodRouter<App> {
    patch(move |app, path, request| change(role, app, path, request))
        .delete(move |app, path, headers| end(role, app, path, headers))
        .options(|| async { preflight(RESOURCE_METHODS, HeaderName::from_static("accept-patch"), FRAGMENT) })
        .fallback(|| async { not_allowed(RESOURCE_METHODS) })
}

/// Lets pages of other sites read every response, refusals too.
async fn share(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Location, ETag, Link, Retry-After, Accept-Post, Accept-Patch"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn preflight(methods: &'static str, accept: HeaderName, media_type: &'static str) -> Response {
    let headers = [
        (accept, media_type),
        (header::ALLOW, methods),
        (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Authorization, Content-Type, If-Match",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn not_allowed(methods: &'static str) -> Problem {
    let message = format!("this address takes {methods}");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        .with(header::ALLOW, HeaderValue::from_static(methods))
}

#[derive(Debug, Default, Deserialize)]
struct Options {
    name: Option<String>,
    source: Option<String>,
}

type Parsed = Result<Query<Options>, axum::extract::rejection::QueryRejection>;
type Resource = Result<Path<(String, String)>, axum::extract::rejection::PathRejection>;

/// POST: a new session.
async fn begin(
    role: Role,
    State(app): State<App>,
    room: Room,
    query: Parsed,
    request: Request,
) -> Result<Response, Problem> {
    let now = Instant::now();
    if let Some(ConnectInfo(Client(from))) = request.extensions().get::<ConnectInfo<Client>>() {
        app.whip.admit(from.ip(), now).map_err(too_many)?;
    }
    authorize(&app, request.headers())?;
    let room = parse_room(room)?;
    let Query(options) = query.map_err(|error| bad("bad_query", error.body_text()))?;
    let name = bounded(options.name, "name")?;
    let source = bounded(options.source, "source")?;
    check_type(request.headers(), SDP)?;
    let offer = read_body(request).await?;
    check_offer(role, &offer)?;
    let Some(peers) = app.session.peers.clone() else {
        return Err(later(
            "webrtc_unavailable",
            "this server has no WebRTC media".to_owned(),
            60,
        ));
    };
    let Some(place) = app.whip.reserve() else {
        return Err(later(
            "server_full",
            "this server has as many WHIP and WHEP sessions as it may".to_owned(),
            10,
        ));
    };
    let shared = session::Shared {
        registry: app.session.registry.clone(),
        peers,
        max_video_bitrate: app.session.max_video_bitrate,
        shutdown: app.shutdown.clone(),
    };
    let opened = Session::open(
        shared,
        SessionRequest {
            role,
            room: room.clone(),
            name: name.unwrap_or_else(|| default_name(role).to_owned()),
            wanted: source.map_or(Wanted::Speaker, Wanted::Source),
            offer,
        },
    )
    .await
    .map_err(refused)?;
    let (asks, asked) = mpsc::channel(session::ASKS);
    place.publish(role, room.key(), asks);
    let shown = room
        .display()
        .map_or_else(|| Cow::Owned(room.key().to_string()), Cow::Borrowed);
    let location = format!(
        "/{}/{}/{}",
        role.name(),
        utf8_percent_encode(&shown, SEGMENT),
        place.id()
    );
    // The task owns itself: it ends with the peer connection, the room, the gateway, or by DELETE.
    tokio::spawn(opened.session.run(asked, place));
    let headers = [
        (header::LOCATION, location),
        (header::ETAG, opened.etag),
        (header::CONTENT_TYPE, SDP.to_owned()),
    ];
    let mut response = (StatusCode::CREATED, headers, opened.answer).into_response();
    for server in app.whip.ice_servers() {
        if let Ok(link) = HeaderValue::from_str(server) {
            response.headers_mut().append(header::LINK, link);
        }
    }
    Ok(response)
}

/// PATCH: trickled candidates, or an ICE restart.
async fn change(role: Role, State(app): State<App>, path: Resource, request: Request) -> Result<Response, Problem> {
    authorize(&app, request.headers())?;
    let asks = find(&app, role, path)?;
    check_type(request.headers(), FRAGMENT)?;
    let precondition = precondition(request.headers())?;
    let body = read_body(request).await?;
    let fragment = sdp::parse_fragment(&body).map_err(|error| bad("bad_fragment", error.to_string()))?;
    let (reply, patched) = oneshot::channel();
    let ask = Ask::Patch {
        precondition,
        fragment,
        reply,
    };
    match ask_session(&asks, ask, patched).await? {
        Ok(Patched::Trickled) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(Patched::Restarted { etag, fragment }) => {
            let headers = [(header::ETAG, etag), (header::CONTENT_TYPE, FRAGMENT.to_owned())];
            Ok((StatusCode::OK, headers, fragment).into_response())
        }
        Err(error) => {
            let (status, code) = match &error {
                PatchError::PreconditionRequired => (StatusCode::PRECONDITION_REQUIRED, "precondition_required"),
                PatchError::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "precondition_failed"),
                PatchError::TooManyCandidates => (StatusCode::BAD_REQUEST, "too_many_candidates"),
                PatchError::Refused(_) => (StatusCode::UNPROCESSABLE_ENTITY, "restart_refused"),
                PatchError::Busy => return Err(later("busy", error.to_string(), 1)),
            };
            Err(Problem::new(status, code, error.to_string()))
        }
    }
}

/// DELETE: the session ends.
async fn end(role: Role, State(app): State<App>, path: Resource, headers: HeaderMap) -> Result<Response, Problem> {
    authorize(&app, &headers)?;
    let asks = find(&app, role, path)?;
    let (reply, done) = oneshot::channel();
    ask_session(&asks, Ask::Delete(reply), done).await?;
    Ok(StatusCode::OK.into_response())
}

async fn ask_session<T>(asks: &mpsc::Sender<Ask>, ask: Ask, answer: oneshot::Receiver<T>) -> Result<T, Problem> {
    let asked = async {
        asks.send(ask).await.ok()?;
        answer.await.ok()
    };
    match timeout(SESSION_DEADLINE, asked).await {
        Ok(Some(answer)) => Ok(answer),
        // It ended while the request was on its way.
        Ok(None) => Err(no_session()),
        Err(_) => Err(later("busy", "the session does not answer now".to_owned(), 1)),
    }
}

fn find(app: &App, role: Role, path: Resource) -> Result<mpsc::Sender<Ask>, Problem> {
    let Ok(Path((room, id))) = path else {
        return Err(no_session());
    };
    RoomName::parse(&room)
        .ok()
        .and_then(|room| app.whip.find(role, room.key(), &id))
        .ok_or_else(no_session)
}

fn no_session() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_such_session",
        "there is no session under this address; it may have ended",
    )
}

fn later(code: &'static str, message: String, seconds: u64) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, message).with(header::RETRY_AFTER, seconds)
}

fn too_many(wait: Duration) -> Problem {
    let message = "too many sessions were begun from this address";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message).with(header::RETRY_AFTER, wait.as_secs() + 1)
}

fn default_name(role: Role) -> &'static str {
    match role {
        Role::Publisher => "WHIP",
        Role::Viewer => "WHEP viewer",
    }
}

fn refused(error: OpenError) -> Problem {
    let message = error.to_string();
    match error {
        OpenError::Join(JoinError::RoomFull { .. }) => later("room_full", message, 10),
        OpenError::Join(JoinError::ServerFull) => later("server_full", message, 10),
        OpenError::Join(JoinError::Stopping) => later("shutting_down", message, 10),
        OpenError::Busy => later("busy", message, 1),
        OpenError::NoSource(_) => Problem::new(StatusCode::NOT_FOUND, "no_such_source", message),
        OpenError::Refused(refused) if refused.no_codec => {
            Problem::new(StatusCode::NOT_ACCEPTABLE, "no_common_codec", message)
        }
        OpenError::Refused(refused) if refused.unable => later("server_full", message, 10),
        OpenError::Refused(_) => bad("bad_offer", message),
    }
}

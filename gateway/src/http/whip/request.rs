//! What a request must be before a session hears of it: who may, where, of which type, how long.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use futures_util::StreamExt;
use tokio::time::timeout;
use wzp_proto::room_name::RoomName;

use crate::browser::message::MAX_NAME;
use crate::http::problem::Problem;
use crate::http::router::App;
use crate::http::whip::sdp;
use crate::http::whip::session::{Precondition, Role};

/// Largest body, bytes. An offer of OBS or of a browser with two m-lines has 2 to 12 kB.
pub const MAX_BODY: usize = 64 * 1024;
/// A body comes within this.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// The room in the address, if it could be read.
pub type Room = Result<Path<String>, PathRejection>;

/// A fault of the client's.
pub fn bad(code: &'static str, message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, code, message)
}

/// Whoever has a token may do everything.
pub fn authorize(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map_or("", |(_, token)| token.trim());
    if app.session.auth.accepts(token) {
        return Ok(());
    }
    let message = "this server asks for a token: send the header `Authorization: Bearer TOKEN`";
    Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
        .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
}

/// The room that the address names.
pub fn parse_room(room: Room) -> Result<RoomName, Problem> {
    let Path(room) = room.map_err(|error| bad("bad_room", error.body_text()))?;
    RoomName::parse(&room).map_err(|error| bad("bad_room", error.to_string()))
}

/// A name in the query, bounded like those of browsers.
pub fn bounded(value: Option<String>, what: &str) -> Result<Option<String>, Problem> {
    let Some(value) = value else { return Ok(None) };
    let value = value.trim();
    let length = value.chars().count();
    if length == 0 || length > MAX_NAME || value.chars().any(char::is_control) {
        let message = format!("?{what}= must have 1 to {MAX_NAME} characters, none of them a control character");
        return Err(bad("bad_name", message));
    }
    Ok(Some(value.to_owned()))
}

/// The body is of this type; parameters do not matter.
pub fn check_type(headers: &HeaderMap, wanted: &str) -> Result<(), Problem> {
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    if essence.trim().eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    let message = format!("the body must be {wanted}; the Content-Type header says {essence:?}");
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        message,
    ))
}

/// The `If-Match` header.
pub fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let mut tags = Vec::new();
    for value in headers.get_all(header::IF_MATCH) {
        let value = value
            .to_str()
            .map_err(|_| bad("bad_if_match", "the If-Match header is not text"))?;
        for tag in value.split(',').map(str::trim) {
            if tag == "*" {
                return Ok(Precondition::Any);
            }
            tags.push(tag.to_owned());
        }
    }
    if tags.is_empty() {
        Ok(Precondition::Missing)
    } else {
        Ok(Precondition::Tags(tags))
    }
}

/// The body as text: at most [`MAX_BODY`], within a deadline.
pub async fn read_body(request: Request) -> Result<String, Problem> {
    let too_large = || {
        let message = format!("the body is larger than {MAX_BODY} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    };
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_BODY) {
        return Err(too_large());
    }
    let body: Body = request.into_body();
    let read = async {
        let mut stream = body.into_data_stream();
        let mut bytes = Vec::with_capacity(announced.unwrap_or_default());
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| bad("bad_body", error.to_string()))?;
            if bytes.len() + piece.len() > MAX_BODY {
                return Err(too_large());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    };
    let bytes = timeout(BODY_DEADLINE, read).await.map_err(|_| {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "the body did not come within 10 seconds",
        )
    })??;
    String::from_utf8(bytes).map_err(|_| bad("bad_body", "the body is not UTF-8"))
}

/// Refuses early what is no offer, or one in the wrong direction.
pub fn check_offer(role: Role, offer: &str) -> Result<(), Problem> {
    if !sdp::is_sdp(offer) {
        return Err(bad("bad_sdp", "the body is not an SDP offer with at least one m-line"));
    }
    let lines = sdp::sections(offer);
    let media = || lines.iter().filter(|line| line.kind.is_some() && !line.stopped);
    match role {
        Role::Publisher if !media().any(|line| line.sends) => Err(bad(
            "nothing_sent",
            "a WHIP offer must send sound or pictures (a=sendonly)",
        )),
        Role::Viewer if !media().any(|line| line.receives) => Err(bad(
            "nothing_received",
            "a WHEP offer must receive sound or pictures (a=recvonly)",
        )),
        _ => Ok(()),
    }
}

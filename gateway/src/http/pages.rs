//! The page and its files: built into the binary, or from a folder while one works on them.

use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

/// What the page may do: everything from here, nothing from elsewhere.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; \
    img-src 'self'; font-src 'self'; connect-src 'self'; media-src 'self' mediastream:; manifest-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(RustEmbed)]
#[folder = "../web-client/dist/page"]
#[allow_missing = true]
struct Built;

/// Where the page's files come from.
#[derive(Debug, Clone)]
pub enum Pages {
    /// The binary.
    Embedded,
    /// A folder.
    Folder(PathBuf),
}

impl Pages {
    /// The file under this path, relative to the page's root.
    pub async fn file(&self, path: &str, headers: &HeaderMap) -> Option<Response> {
        let relative = Path::new(path);
        if relative
            .components()
            .any(|part| !matches!(part, std::path::Component::Normal(_)))
        {
            return None;
        }
        match self {
            Self::Embedded => Built::get(path).map(|file| embedded(path, file, headers)),
            Self::Folder(folder) => {
                let content = tokio::fs::read(folder.join(relative)).await.ok()?;
                let mime = mime_of(path);
                Some(
                    (
                        [(header::CONTENT_TYPE, mime), (header::CACHE_CONTROL, "no-cache")],
                        content,
                    )
                        .into_response(),
                )
            }
        }
    }

    /// The page itself.
    pub async fn index(&self, headers: &HeaderMap) -> Response {
        match self.file("index.html", headers).await {
            Some(mut response) => {
                let headers = response.headers_mut();
                headers.insert(
                    header::CONTENT_SECURITY_POLICY,
                    HeaderValue::from_static(CONTENT_SECURITY_POLICY),
                );
                headers.insert(
                    "permissions-policy",
                    HeaderValue::from_static(
                        "camera=(self), microphone=(self), display-capture=(self), fullscreen=(self)",
                    ),
                );
                headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
                response
            }
            None => (
                StatusCode::NOT_FOUND,
                "this gateway was built without its page; build it with `make build`\n",
            )
                .into_response(),
        }
    }
}

fn mime_of(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("wasm") => "application/wasm",
        _ => "application/octet-stream",
    }
}

fn embedded(path: &str, file: EmbeddedFile, headers: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", hex::encode(&file.metadata.sha256_hash()[..16]));
    // Files below assets/ carry a hash in their name: what they hold never changes.
    let cache = if path.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let status = if known {
        StatusCode::NOT_MODIFIED
    } else {
        StatusCode::OK
    };
    let body = if known {
        Body::empty()
    } else {
        Body::from(file.data.into_owned())
    };
    let headers = [
        (header::CONTENT_TYPE, mime_of(path).to_owned()),
        (header::CACHE_CONTROL, cache.to_owned()),
        (header::ETAG, tag),
    ];
    (status, headers, body).into_response()
}

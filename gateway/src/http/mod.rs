//! HTTP: the router, the page, the small API, and the listener below them.
//!
//! In: TCP connections, TLS or plain. Out: the page and its assets, WebSockets handed to the browser door, WHIP and WHEP
//! sessions, JSON.

pub mod listener;
pub mod pages;
pub mod problem;
pub mod router;
pub mod server;
pub mod whip;

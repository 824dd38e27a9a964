//! The native door over real QUIC on loopback: a real server, real clients.

mod limits;
mod media;
mod mixing;
mod rooms;
mod support;

#[path = "../support/tone.rs"]
mod tone;

//! The native door over real QUIC on loopback: a real server, real clients.

mod apart;
mod limits;
mod lossy;
mod media;
mod mixing;
mod repair;
mod requests;
mod rooms;
mod support;

#[path = "../support/tone.rs"]
mod tone;

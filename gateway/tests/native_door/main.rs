//! The native door over real QUIC on loopback: a real server, real clients.

mod apart;
mod limits;
mod media;
mod mixing;
mod rooms;
mod support;

//! The crate against recorded bytes, and against bytes that nobody would send.

mod compact_and_trunk;
mod fec;
mod golden;
mod handshake;
mod media_packet;
mod media_properties;
mod nack;
mod nack_simulation;
mod recordings;
mod room_name;
mod seal;
mod signals;
mod video_fragments;
mod video_reassembly;

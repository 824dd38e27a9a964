//! The crate against recorded bytes, and against bytes that nobody would send.

mod golden;
mod handshake;
mod media_packet;
mod media_properties;
mod recordings;
mod room_name;
mod signals;
mod video_fragments;
mod video_reassembly;

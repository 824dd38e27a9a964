//! `wzp-gateway`: WZP calls from a browser. Native apps, browsers and streaming tools meet in one room.
#![forbid(unsafe_code)]

pub mod media;
pub mod webrtc;

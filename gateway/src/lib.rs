//! `wzp-gateway`: native WZP apps, browsers and streaming tools in one room.
//!
//! What flows: a door's *ingress* turns what a peer sends into frames and appends them to a [`room::track`] log; every
//! receiver's *egress* reads that log through a cursor of its own. Rooms keep the books (members, keyframe owners, who
//! speaks) and never touch a frame.
#![forbid(unsafe_code)]
// What is to be said goes to the log. A command that prints is allowed to below.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro))]

pub mod auth;
pub mod bench;
pub mod browser;
pub mod config;
pub mod doctor;
pub mod greeting;
pub mod http;
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub mod join;
pub mod media;
pub mod metrics;
pub mod native;
pub mod net;
pub mod pcm;
pub mod room;
pub mod serve;
pub mod state;
pub mod uplink;
pub mod webrtc;

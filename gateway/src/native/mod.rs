//! The native door: a WZP relay over QUIC, as the apps expect it.
//!
//! In: QUIC connections ([`server`]), each one a member of the room that its server name says ([`session`]). Datagrams
//! become frames of that member's tracks ([`ingress`]). Out: one sound and one picture of all the others, which is what an
//! app can play ([`view`] chooses, [`egress`] sends), the member list, and keyframe requests. [`client`] is the other end of
//! the same wire.

pub mod auth;
pub mod client;
pub mod counters;
pub mod egress;
pub mod ingress;
pub mod outgoing;
pub mod quality;
pub mod rate;
pub mod reorder;
pub mod repair;
pub mod server;
pub mod session;
pub mod shortener;
pub mod signals;
pub mod transport;
pub mod view;

pub use server::{Config, Limits, Server};

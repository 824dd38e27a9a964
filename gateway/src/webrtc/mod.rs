//! The WebRTC door. [`engine`] turns datagrams into packets and events and back (ICE, DTLS, SRTP, SDP) and knows no
//! rooms; [`net`] owns the sockets that feed it; [`worker`] is the thread that joins both to rooms.
//!
//! In: offers and commands of sessions, RTP. Out: answers, RTP, and frames in the rooms' logs.

pub mod arrival;
pub mod assign;
mod congestion;
pub mod engine;
mod follow;
pub mod incoming;
pub mod net;
pub mod outgoing;
pub mod pace;
pub mod peer;
mod punctual;
pub mod shortage;
pub mod tell;
pub mod worker;

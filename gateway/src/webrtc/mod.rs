//! The WebRTC door. [`engine`] turns datagrams into packets and events and back (ICE, DTLS, SRTP, SDP) and knows no
//! rooms; [`net`] owns the sockets that feed it.

pub mod engine;
pub mod net;

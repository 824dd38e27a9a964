//! The browser door: the control channel `wzp.v2` over WebSocket, and media as binary messages on it.
//!
//! In: a WebSocket that the router has upgraded. Out: a member of a room; its uplink becomes frames ([`ingress`]), the
//! room's frames become messages ([`egress`]), paced by what the client acknowledges ([`window`]), which also tells how
//! much it takes ([`capacity`]). The protocol is written down in `docs/browser-protocol.md`.

pub mod capacity;
pub mod egress;
pub mod ingress;
pub mod message;
pub mod session;
pub mod window;

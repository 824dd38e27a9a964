//! The uplink: our leg into a room on somebody else's relay.

pub mod separate;

//! Our leg into a room of an existing relay.

mod separation;

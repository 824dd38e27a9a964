//! Our leg into a room of an existing relay.

mod legs;
mod separation;
mod support;
#[path = "../common/tone.rs"]
mod tone;

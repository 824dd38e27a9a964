//! Our leg into a room of an existing relay.

#[path = "../support/member.rs"]
mod member;
mod relay;
mod separation;
mod separation_cases;
mod stand_in;

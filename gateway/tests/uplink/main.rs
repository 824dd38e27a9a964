//! Our leg into a room of an existing relay.

mod apart;
mod existing;
mod faults;
mod legs;
#[path = "../support/member.rs"]
mod member;
mod relay;
mod separation;
mod separation_cases;
mod stand_in;
mod support;
#[path = "../support/tone.rs"]
mod tone;

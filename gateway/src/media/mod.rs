//! Media formats as pure functions and state machines: no socket, no clock. Time is always an argument.

pub mod rtp;

//! Frames, clocks and what has to be known of each codec.
//!
//! In: payloads that a door received. Out: [`frame::Frame`]s with times on the room's clock, and the forms in which each
//! door sends them. Nothing in here opens a socket or reads a clock.

pub mod audio;
pub mod av1;
pub mod clock;
pub mod frame;
pub mod h264;
pub mod h265;
pub mod rtp;
pub mod video_in;

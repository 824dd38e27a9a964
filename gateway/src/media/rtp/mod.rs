//! RTP as pure functions and state machines: payloads in, frames out, and back. No socket, no clock, no randomness.
//!
//! What arrives passes [`sequence`] (wrap-around, duplicates), [`reorder`] (order, repair) and [`depacketize`] (whole
//! access units). What leaves passes [`packetize`] once per frame, then per viewer [`rewrite`] (sequence numbers and
//! timestamps without a seam) and [`history`] (answers to NACKs).

pub mod av1;
pub mod depacketize;
pub mod h264;
pub mod h265;
pub mod history;
pub mod packetize;
pub mod reorder;
pub mod rewrite;
pub mod sequence;
#[cfg(test)]
mod tests;

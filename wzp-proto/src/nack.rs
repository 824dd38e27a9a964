//! Loss repair by retransmission (WZP wire v2, section 8.3, with its flaws mended).
//!
//! [`SentPackets`] keeps what was sent and answers `Nack` with the same datagrams again. [`LossRepair`] watches the
//! sequence numbers of one incoming stream and says what to ask for: missing packets while that is quick enough, a
//! keyframe otherwise. Against section 8.3 it starts at the first number it sees, forgets what is past repair, and
//! recognises peers that never answer, which today's natives do not.

mod receiver;
mod sender;

pub use receiver::{LossRepair, Repair, RepairStats};
pub use sender::{SentLimits, SentPackets, SentStats};

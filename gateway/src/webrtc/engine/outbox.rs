//! Packets on their way out, gathered into runs for one destination so that the packets of a frame leave in one system
//! call (`UDP_SEGMENT`).

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::BytesMut;

use super::transport::Path;
use super::types::{Local, Protocol, Transmit};

/// Most packets in one run; Linux takes 64 segments, and 65,507 bytes.
const MAX_SEGMENTS: usize = 44;
const MAX_RUN_BYTES: usize = 60_000;
/// Bytes that may wait. They are fetched after every turn of the loop; more than this means that nobody fetches.
const MAX_WAITING: usize = 64 << 20;

struct Run {
    local: Local,
    to: SocketAddr,
    contents: BytesMut,
    segment: usize,
    packets: usize,
    /// The last packet was shorter: nothing may follow.
    closed: bool,
}

/// The queue.
#[derive(Default)]
pub(super) struct Outbox {
    runs: VecDeque<Run>,
    waiting: usize,
    /// Packets dropped because nobody fetched them.
    pub dropped: u64,
}

impl Outbox {
    pub fn push(&mut self, path: Path, packet: &[u8]) {
        if packet.is_empty() {
            return;
        }
        if self.waiting + packet.len() > MAX_WAITING {
            self.dropped += 1;
            return;
        }
        self.waiting += packet.len();
        if let Some(run) = self.runs.back_mut()
            && run.local == path.local
            && run.to == path.peer
            && path.local.protocol == Protocol::Udp
            && !run.closed
            && packet.len() <= run.segment
            && run.packets < MAX_SEGMENTS
            && run.contents.len() + packet.len() <= MAX_RUN_BYTES
        {
            run.contents.extend_from_slice(packet);
            run.packets += 1;
            run.closed = packet.len() < run.segment;
            return;
        }
        let mut contents = BytesMut::with_capacity(if packet.len() > 1_000 {
            8 * packet.len()
        } else {
            packet.len()
        });
        contents.extend_from_slice(packet);
        self.runs.push_back(Run {
            local: path.local,
            to: path.peer,
            contents,
            segment: packet.len(),
            packets: 1,
            closed: false,
        });
    }

    pub fn pop(&mut self) -> Option<Transmit> {
        let run = self.runs.pop_front()?;
        self.waiting -= run.contents.len();
        Some(Transmit {
            local: run.local,
            to: run.to,
            contents: run.contents.freeze(),
            segment_size: (run.packets > 1).then_some(run.segment),
        })
    }
}

//! What was sent lately, to send it again.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

/// Packets of a stream are at least about this large on the average, bytes.
const SMALL_PACKET: usize = 512;

/// Bounds of [`SentPackets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentLimits {
    /// How long a packet is kept.
    pub hold: Duration,
    /// Packets kept.
    pub packets: usize,
    /// Bytes kept.
    pub bytes: usize,
    /// A packet is not sent again within this time of its last sending.
    pub again_after: Duration,
    /// How often a packet is sent again, so that requests cannot multiply traffic.
    pub resends: u8,
}

impl Default for SentLimits {
    fn default() -> Self {
        Self {
            hold: Duration::from_millis(500),
            packets: 1024,
            bytes: 1 << 20,
            again_after: Duration::from_millis(10),
            resends: 3,
        }
    }
}

/// What [`SentPackets`] did with requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentStats {
    /// Packets sent again.
    pub resent: u64,
    /// Requested numbers that were too old, unknown, or sent again often or lately enough.
    pub not_resent: u64,
}

#[derive(Debug)]
struct Sent {
    seq: u32,
    datagram: Bytes,
    at: Duration,
    last: Duration,
    resends: u8,
}

/// The datagrams that one sequence counter has numbered in the last half second.
#[derive(Debug)]
pub struct SentPackets {
    limits: SentLimits,
    /// In the order of the counter.
    packets: VecDeque<Sent>,
    bytes: usize,
    stats: SentStats,
}

impl Default for SentPackets {
    fn default() -> Self {
        Self::new(SentLimits::default())
    }
}

impl SentPackets {
    /// An empty history.
    pub fn new(limits: SentLimits) -> Self {
        Self {
            limits,
            packets: VecDeque::new(),
            bytes: 0,
            stats: SentStats::default(),
        }
    }

    /// Makes place for so many bytes of packets, if there is less, however small they are: for a sender whose bursts are
    /// larger than what a steady stream sends in the time that packets are kept.
    pub fn hold_bytes(&mut self, bytes: usize) {
        self.limits.bytes = self.limits.bytes.max(bytes);
        self.limits.packets = self.limits.packets.max(bytes / SMALL_PACKET);
    }

    /// Remembers a datagram sent at `now`. A number that does not follow the last one means that the counter has
    /// started again: all before it is forgotten.
    pub fn insert(&mut self, seq: u32, datagram: Bytes, now: Duration) {
        if self.packets.back().is_some_and(|last| !follows(seq, last.seq)) {
            self.packets.clear();
            self.bytes = 0;
        }
        self.bytes += datagram.len();
        self.packets.push_back(Sent {
            seq,
            datagram,
            at: now,
            last: now,
            resends: 0,
        });
        self.expire(now);
    }

    /// The datagrams to send again for the numbers of a `Nack`; at most as many as are held, each once.
    pub fn answer(&mut self, seqs: &[u32], now: Duration) -> Vec<Bytes> {
        self.expire(now);
        let limits = self.limits;
        let mut again = Vec::new();
        for seq in seqs {
            let sent = self.find(*seq).filter(|sent| {
                let rested = sent.resends == 0 || now.saturating_sub(sent.last) >= limits.again_after;
                rested && sent.resends < limits.resends
            });
            match sent {
                Some(sent) => {
                    sent.resends += 1;
                    sent.last = now;
                    again.push(sent.datagram.clone());
                    self.stats.resent += 1;
                }
                None => self.stats.not_resent += 1,
            }
        }
        again
    }

    /// Counters since the start.
    pub fn stats(&self) -> SentStats {
        self.stats
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Packets held.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    fn find(&mut self, seq: u32) -> Option<&mut Sent> {
        let first = self.packets.front()?.seq;
        let distance = seq.wrapping_sub(first);
        let index = self
            .packets
            .partition_point(|sent| sent.seq.wrapping_sub(first) < distance);
        self.packets.get_mut(index).filter(|sent| sent.seq == seq)
    }

    fn expire(&mut self, now: Duration) {
        while let Some(oldest) = self.packets.front() {
            let full = self.packets.len() > self.limits.packets || self.bytes > self.limits.bytes;
            if !full && now.saturating_sub(oldest.at) <= self.limits.hold {
                break;
            }
            self.bytes -= oldest.datagram.len();
            self.packets.pop_front();
        }
    }
}

/// Whether `seq` comes after `last`, at most half the number space later.
fn follows(seq: u32, last: u32) -> bool {
    (1..1 << 31).contains(&seq.wrapping_sub(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_is_held_as_far_as_place_was_made_for_it() {
        let packet = Bytes::from(vec![0; 1100]);
        let now = Duration::from_secs(1);
        for (place, held) in [(0, false), (6 << 20, true)] {
            let mut sent = SentPackets::default();
            sent.hold_bytes(place);
            for seq in 0..5_500 {
                sent.insert(seq, packet.clone(), now);
            }
            assert_eq!(!sent.answer(&[0], now + Duration::from_millis(400)).is_empty(), held);
            assert!(sent.bytes() <= place.max(1 << 20));
            assert!(sent.answer(&[5_499], now + Duration::from_millis(501)).is_empty());
        }
    }
}

//! What was sent to one viewer lately, to answer its NACKs from.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bounds of a [`History`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A packet older than this is of no use to a viewer any more.
    pub age: Duration,
    /// Payload bytes kept at most. The payloads themselves are shared between viewers; this bounds what a viewer that
    /// has fallen behind keeps alive.
    pub bytes: usize,
    /// The same packet is repeated no sooner than this. A viewer asks again after a round trip; asking faster than that
    /// is a loop or an attack.
    pub interval: Duration,
    /// Payload bytes that may be repeated at once. Every byte sent allows another byte of repeats, so that over time these
    /// cost no more than the stream itself; a viewer that loses one packet in ten, and every repair once, takes a fifth.
    pub burst: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            age: Duration::from_secs(2),
            bytes: 2 << 20,
            interval: Duration::from_millis(20),
            burst: 512 << 10,
        }
    }
}

/// Why a packet is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Miss {
    /// Not sent, or dropped out of the history.
    #[error("the packet is no longer in the history")]
    Gone,
    /// Repeated a moment ago.
    #[error("the packet was repeated less than the minimum interval ago")]
    TooSoon,
    /// The viewer asks for more than it was sent.
    #[error("the viewer has asked for more repeats than the stream allows")]
    TooMuch,
}

struct Sent<P> {
    packet: P,
    bytes: usize,
    at: Instant,
    repeated: Option<Instant>,
}

/// Packets of one stream to one viewer, under consecutive sequence numbers.
pub struct History<P> {
    limits: Limits,
    first: u16,
    sent: VecDeque<Sent<P>>,
    bytes: usize,
    /// Payload bytes that may be repeated now.
    allowance: usize,
    refused: u64,
}

impl<P> History<P> {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            first: 0,
            sent: VecDeque::new(),
            bytes: 0,
            allowance: limits.burst,
            refused: 0,
        }
    }

    /// Makes place for so many payload bytes, if there is less: for what is sent faster than it is played.
    pub fn hold_bytes(&mut self, bytes: usize) {
        self.limits.bytes = self.limits.bytes.max(bytes);
    }

    /// Notes a packet with a payload of `bytes`. Sequence numbers must be consecutive; a gap empties the history.
    pub fn push(&mut self, now: Instant, seq: u16, bytes: usize, packet: P) {
        if seq != self.first.wrapping_add(self.sent.len() as u16) {
            self.clear();
        }
        if self.sent.is_empty() {
            self.first = seq;
        }
        self.sent.push_back(Sent {
            packet,
            bytes,
            at: now,
            repeated: None,
        });
        self.bytes += bytes;
        self.allowance = (self.allowance + bytes).min(self.limits.burst);
        while let Some(oldest) = self.sent.front() {
            // Half the number space: beyond it, a 16-bit number is ambiguous.
            let over = self.bytes > self.limits.bytes || self.sent.len() > 32_768;
            if !over && now.saturating_duration_since(oldest.at) <= self.limits.age {
                break;
            }
            self.bytes -= oldest.bytes;
            self.sent.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }

    /// Lets go of all packets.
    pub fn clear(&mut self) {
        self.sent = VecDeque::new();
        self.bytes = 0;
    }

    /// The packet to repeat.
    ///
    /// # Errors
    /// [`Miss`].
    pub fn repeat(&mut self, now: Instant, seq: u16) -> Result<&P, Miss> {
        let index = usize::from(seq.wrapping_sub(self.first));
        let sent = self.sent.get_mut(index).ok_or(Miss::Gone)?;
        if now.saturating_duration_since(sent.at) > self.limits.age {
            return Err(Miss::Gone);
        }
        if sent
            .repeated
            .is_some_and(|at| now.saturating_duration_since(at) < self.limits.interval)
        {
            return Err(Miss::TooSoon);
        }
        let Some(rest) = self.allowance.checked_sub(sent.bytes) else {
            self.refused += 1;
            return Err(Miss::TooMuch);
        };
        self.allowance = rest;
        sent.repeated = Some(now);
        Ok(&sent.packet)
    }

    /// Another copy of a repeat, with a payload of `bytes`: whether the viewer may have it.
    pub fn repeat_again(&mut self, bytes: usize) -> bool {
        let rest = self.allowance.checked_sub(bytes);
        self.allowance = rest.unwrap_or(self.allowance);
        self.refused += u64::from(rest.is_none());
        rest.is_some()
    }

    /// Repeats that were refused because the viewer asked for more than [`Limits::burst`] allows.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Packets kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sent.len()
    }

    /// None kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Payload bytes kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            age: Duration::from_secs(1),
            bytes: 1_000,
            interval: Duration::from_millis(20),
            burst: 1_000,
        }
    }

    #[test]
    fn repeats_across_the_wrap() {
        let now = Instant::now();
        let mut history = History::new(limits());
        for step in 0..6u16 {
            history.push(now, 65_533u16.wrapping_add(step), 10, step);
        }
        assert_eq!(history.repeat(now, 65_533), Ok(&0));
        assert_eq!(history.repeat(now, 2), Ok(&5));
        assert_eq!(history.repeat(now, 3), Err(Miss::Gone));
        assert_eq!(history.repeat(now, 65_532), Err(Miss::Gone));
    }

    #[test]
    fn bytes_are_bounded() {
        let now = Instant::now();
        let mut history = History::new(limits());
        for seq in 0..50 {
            history.push(now, seq, 100, seq);
            assert!(history.bytes() <= 1_000);
        }
        assert_eq!(history.len(), 10);
        assert_eq!(history.repeat(now, 39), Err(Miss::Gone));
        assert_eq!(history.repeat(now, 40), Ok(&40));
    }

    #[test]
    fn old_packets_are_gone() {
        let start = Instant::now();
        let mut history = History::new(limits());
        history.push(start, 1, 10, ());
        assert_eq!(history.repeat(start + Duration::from_millis(1_001), 1), Err(Miss::Gone));
        history.push(start + Duration::from_millis(1_500), 2, 10, ());
        assert_eq!(history.len(), 1);
    }

    #[test]
    fn the_same_packet_is_not_repeated_at_once() {
        let start = Instant::now();
        let mut history = History::new(limits());
        history.push(start, 7, 10, ());
        assert!(history.repeat(start, 7).is_ok());
        assert_eq!(history.repeat(start + Duration::from_millis(19), 7), Err(Miss::TooSoon));
        assert!(history.repeat(start + Duration::from_millis(20), 7).is_ok());
    }

    #[test]
    fn a_gap_starts_anew() {
        let now = Instant::now();
        let mut history = History::new(limits());
        history.push(now, 1, 10, ());
        history.push(now, 5, 10, ());
        assert_eq!((history.len(), history.bytes()), (1, 10));
        assert_eq!(history.repeat(now, 1), Err(Miss::Gone));
        assert!(history.repeat(now, 5).is_ok());
        history.clear();
        assert_eq!((history.len(), history.bytes()), (0, 0));
        assert_eq!(history.repeat(now, 5), Err(Miss::Gone));
        history.push(now, 6, 10, ());
        assert_eq!((history.len(), history.bytes()), (1, 10));
    }

    #[test]
    fn a_viewer_that_asks_for_everything_all_the_time_gets_as_much_again_as_the_stream_has() {
        let start = Instant::now();
        let limits = Limits {
            bytes: 10_000,
            ..limits()
        };
        let mut history = History::new(limits);
        let (mut sent, mut repeated) = (0, 0);
        for step in 0..500u16 {
            let now = start + limits.interval * u32::from(step);
            history.push(now, step, 100, ());
            sent += 100;
            for seq in 0..=step {
                repeated += 100 * usize::from(history.repeat(now, seq).is_ok());
            }
            assert!(repeated <= sent + limits.burst, "{repeated} of {sent} at packet {step}");
        }
        assert!(repeated >= sent, "it is not cut off");
        assert!(history.refused() > 1_000);
    }

    #[test]
    fn repairs_of_a_lossy_path_are_not_refused() {
        let start = Instant::now();
        let mut history = History::new(limits());
        // Every eighth packet is lost, its repair is sent twice, and asked for once more.
        for seq in 0..2_000u16 {
            let now = start + Duration::from_millis(10) * u32::from(seq);
            history.push(now, seq, 100, ());
            for age in [3, 6] {
                if seq >= age && (seq - age) % 8 == 0 {
                    assert!(history.repeat(now, seq - age).is_ok());
                    assert!(history.repeat_again(100));
                }
            }
        }
        assert_eq!(history.refused(), 0);
    }
}

//! Sequence numbers and timestamps of one stream to one viewer, continuous whatever feeds it.

use std::time::Instant;

/// The first sequence number a viewer gets. A receiver's roll-over counter (RFC 3711, section 3.3.1) starts at 0 with
/// the first packet it sees: a viewer whose numbers went on from a source that has sent 65,536 packets would decrypt
/// nothing. Not 0, so that a packet reordered before the first one does not look like the end of an earlier cycle.
pub const FIRST_SEQUENCE: u16 = 256;

/// What feeds the stream: a number the caller changes whenever the timestamps it hands in begin anew, that is with
/// another source, another layer, or a jump back in the same one.
pub type Run = u64;

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Rewriter {
    clock_rate: u32,
    next: u16,
    run: Option<Run>,
    offset: u32,
    last: Option<(u32, Instant)>,
}

impl Rewriter {
    /// For a stream of `clock_rate` Hz whose first timestamp will be `first_timestamp`.
    #[must_use]
    pub fn new(clock_rate: u32, first_timestamp: u32) -> Self {
        Self {
            clock_rate,
            next: FIRST_SEQUENCE,
            run: None,
            offset: first_timestamp,
            last: None,
        }
    }

    /// The next sequence number.
    pub fn sequence(&mut self) -> u16 {
        let seq = self.next;
        self.next = seq.wrapping_add(1);
        seq
    }

    /// The sequence number that was given last; before the first, the one before it.
    #[must_use]
    pub fn last_sequence(&self) -> u16 {
        self.next.wrapping_sub(1)
    }

    /// The viewer's timestamp for `timestamp` of `run`. A new run goes on where the last one ended, as much later as
    /// time has passed, and by a frame of 1/30 s at least.
    pub fn timestamp(&mut self, now: Instant, run: Run, timestamp: u32) -> u32 {
        if self.run != Some(run) {
            let start = match self.last {
                None => self.offset,
                Some((last, at)) => {
                    let elapsed =
                        now.saturating_duration_since(at).as_micros() * u128::from(self.clock_rate) / 1_000_000;
                    // Modulo 2^32, as timestamps are.
                    last.wrapping_add((elapsed as u32).max(self.clock_rate / 30))
                }
            };
            self.offset = start.wrapping_sub(timestamp);
            self.run = Some(run);
        }
        let out = timestamp.wrapping_add(self.offset);
        // The furthest point counts: decoding order is not display order in every codec, and replays come late.
        let further = self.last.is_none_or(|(last, _)| out.wrapping_sub(last) as i32 > 0);
        if further {
            self.last = Some((out, now));
        }
        out
    }

    /// The viewer's timestamp of a point in the current run, for sender reports; `None` before the first packet.
    #[must_use]
    pub fn translate(&self, timestamp: u32) -> Option<u32> {
        self.run.map(|_| timestamp.wrapping_add(self.offset))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn starts_low_for_every_viewer() {
        let mut rewriter = Rewriter::new(90_000, 0);
        assert!(rewriter.sequence() < 1 << 15);
        assert_eq!(rewriter.sequence(), FIRST_SEQUENCE + 1);
    }

    #[test]
    fn keeps_the_spacing_of_a_source() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(90_000, 1_000);
        assert_eq!(rewriter.timestamp(now, 1, u32::MAX - 1_000), 1_000);
        assert_eq!(rewriter.timestamp(now, 1, 1_999), 4_000);
        assert_eq!(rewriter.translate(1_999), Some(4_000));
    }

    #[test]
    fn a_switch_leaves_the_time_that_passed() {
        let start = Instant::now();
        let mut rewriter = Rewriter::new(90_000, 0);
        rewriter.timestamp(start, 1, 500_000);
        let out = rewriter.timestamp(start + Duration::from_millis(100), 2, 77);
        assert_eq!(out, 9_000);
        assert_eq!(
            rewriter.timestamp(start + Duration::from_millis(140), 2, 77 + 3_600),
            12_600
        );
    }

    #[test]
    fn a_switch_within_a_frame_still_moves_on() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(90_000, 0);
        rewriter.timestamp(now, 1, 5);
        assert_eq!(rewriter.timestamp(now, 2, 5), 3_000);
    }

    #[test]
    fn a_late_frame_does_not_pull_the_next_run_back() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(90_000, 0);
        rewriter.timestamp(now, 1, 0);
        rewriter.timestamp(now, 1, 9_000);
        rewriter.timestamp(now, 1, 6_000);
        assert_eq!(rewriter.timestamp(now, 2, 0), 12_000);
    }
}

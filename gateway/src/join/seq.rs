//! Which sequence numbers have come.

/// Numbers remembered behind the newest.
const WINDOW: u32 = 1024;

/// Tells new, missing, late and repeated numbers of one stream apart.
#[derive(Debug)]
pub struct SeqTracker {
    newest: Option<u32>,
    seen: [u64; (WINDOW / 64) as usize],
    /// Numbers missing so far.
    pub lost: u64,
    /// Numbers that came again, or from so far back that nobody knows.
    pub duplicates: u64,
}

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The next one, or the first.
    Next,
    /// Newer, with this many missing before it.
    Gap(u32),
    /// Older, not seen before.
    Late,
    /// Seen before.
    Duplicate,
}

impl SeqTracker {
    /// Nothing seen.
    pub fn new() -> Self {
        Self {
            newest: None,
            seen: [0; (WINDOW / 64) as usize],
            lost: 0,
            duplicates: 0,
        }
    }

    /// Takes a number.
    pub fn take(&mut self, seq: u32) -> Arrival {
        let Some(newest) = self.newest else {
            self.mark(seq);
            self.newest = Some(seq);
            return Arrival::Next;
        };
        let ahead = seq.wrapping_sub(newest);
        if ahead != 0 && ahead < 1 << 31 {
            for skipped in 1..=ahead.min(WINDOW) {
                self.clear(newest.wrapping_add(skipped));
            }
            self.mark(seq);
            self.newest = Some(seq);
            self.lost += u64::from(ahead - 1);
            return if ahead == 1 {
                Arrival::Next
            } else {
                Arrival::Gap(ahead - 1)
            };
        }
        let behind = newest.wrapping_sub(seq);
        if behind >= WINDOW || self.is_marked(seq) {
            self.duplicates += 1;
            return Arrival::Duplicate;
        }
        self.mark(seq);
        self.lost = self.lost.saturating_sub(1);
        Arrival::Late
    }

    fn mark(&mut self, seq: u32) {
        let bit = seq % WINDOW;
        self.seen[(bit / 64) as usize] |= 1 << (bit % 64);
    }

    fn clear(&mut self, seq: u32) {
        let bit = seq % WINDOW;
        self.seen[(bit / 64) as usize] &= !(1 << (bit % 64));
    }

    fn is_marked(&self, seq: u32) -> bool {
        let bit = seq % WINDOW;
        self.seen[(bit / 64) as usize] & (1 << (bit % 64)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_lateness_and_repetition_are_told_apart() {
        let mut tracker = SeqTracker::new();
        let arrivals: Vec<_> = [u32::MAX, 0, 3, 2, 2, 4, 2000, 10].map(|seq| tracker.take(seq)).into();
        use Arrival::{Duplicate, Gap, Late, Next};
        assert_eq!(
            arrivals,
            [Next, Next, Gap(2), Late, Duplicate, Next, Gap(1995), Duplicate]
        );
        assert_eq!((tracker.lost, tracker.duplicates), (1 + 1995, 2));
    }
}

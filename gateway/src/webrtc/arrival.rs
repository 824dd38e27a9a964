//! How much of what is sent on a stream arrives, by the viewer's reports.
//!
//! A receiver report says how far it has come in the stream's sequence numbers, and how many of them are missing (RFC 3550,
//! section 6.4.1). What is on its way at the moment of each report cancels out between two of them, and so does the time that
//! either side takes to answer: a loaded machine answers late, but to everything, and only over a full path less comes than is sent.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Reports count for so long.
const WINDOW: Duration = Duration::from_secs(4);
/// Two reports closer than this say little: each may be late by a tenth of a second.
const SPAN: Duration = Duration::from_millis(1500);
/// Reports that are kept.
const KEPT: usize = 16;

/// A report: when it came, the last number that was sent by then, the last one that had arrived, and those missing up to it.
#[derive(Debug, Clone, Copy)]
struct Report {
    at: Instant,
    sent: u16,
    highest: u16,
    lost: u32,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Arrival {
    reports: VecDeque<Report>,
}

impl Arrival {
    /// The viewer has come to `highest`, and `lost` are missing in all; the last packet that was sent has the number `sent`.
    pub fn note(&mut self, sent: u16, highest: u16, lost: u32, now: Instant) {
        let fresh = |report: &Report| now.saturating_duration_since(report.at) < WINDOW;
        // Reports may overtake each other.
        if (self.reports.back()).is_some_and(|last| (highest.wrapping_sub(last.highest) as i16) < 0) {
            return;
        }
        while self.reports.front().is_some_and(|report| !fresh(report)) || self.reports.len() >= KEPT {
            self.reports.pop_front();
        }
        self.reports.push_back(Report {
            at: now,
            sent,
            highest,
            lost,
        });
    }

    /// Packets sent and arrived between the first and the last of the reports; `None`: they say nothing of now.
    pub fn counts(&self, now: Instant) -> Option<(u64, u64)> {
        let fresh = |report: &&Report| now.saturating_duration_since(report.at) < WINDOW;
        let first = self.reports.iter().find(fresh)?;
        let last = self.reports.back()?;
        let count = |from: u16, to: u16| u64::from(to.wrapping_sub(from));
        // A signed number of 24 bits, below zero after duplicates.
        let signed = |lost: u32| ((lost << 8) as i32) >> 8;
        let lost = u64::try_from(signed(last.lost) - signed(first.lost)).unwrap_or(0);
        let arrived = count(first.highest, last.highest).saturating_sub(lost);
        (last.at.saturating_duration_since(first.at) >= SPAN).then(|| (count(first.sent, last.sent), arrived))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn late_answers_are_no_loss_and_a_full_path_is() {
        let start = Instant::now();
        // What arrives of a hundred packets a second, what is missing of the rest, and what that makes.
        for (each, lost, share) in [(100, 0, 100), (80, 0, 80), (100, 20, 80)] {
            let mut arrival = Arrival::default();
            // Over the end of the numbers, and every report is late by more than the one before.
            for second in 0..4_u16 {
                let now = start + SECOND * u32::from(second) + Duration::from_millis(20) * u32::from(second);
                let sent = 65_400_u16.wrapping_add(100 * second);
                arrival.note(
                    sent,
                    65_390_u16.wrapping_add(each * second),
                    lost * u32::from(second),
                    now,
                );
            }
            let (sent, arrived) = arrival.counts(start + SECOND * 3).unwrap();
            assert_eq!((sent, arrived * 100 / sent), (300, share));
        }
    }

    #[test]
    fn duplicates_and_reports_that_overtake_each_other_are_no_loss() {
        let start = Instant::now();
        let mut arrival = Arrival::default();
        arrival.note(100, 100, 0, start);
        arrival.note(300, 300, 0xff_ffff, start + SECOND * 2);
        arrival.note(200, 200, 0, start + SECOND * 2);
        assert_eq!(arrival.counts(start + SECOND * 2), Some((200, 200)));
        arrival.note(400, 400, 9, start + SECOND * 3);
        assert_eq!(arrival.counts(start + SECOND * 3), Some((300, 291)));
    }

    #[test]
    fn says_nothing_of_a_time_without_reports() {
        let start = Instant::now();
        let mut arrival = Arrival::default();
        assert_eq!(arrival.counts(start), None);
        arrival.note(10, 9, 0, start);
        arrival.note(20, 19, 0, start + SECOND);
        assert_eq!(arrival.counts(start + SECOND), None, "too close");
        arrival.note(30, 29, 0, start + SECOND * 2);
        assert_eq!(arrival.counts(start + SECOND * 2), Some((20, 20)));
        assert_eq!(arrival.counts(start + SECOND * 7), None, "too old");
        for n in 0..1000 {
            arrival.note(n, n, 0, start + SECOND * 7);
        }
        assert!(arrival.reports.len() <= KEPT);
    }
}

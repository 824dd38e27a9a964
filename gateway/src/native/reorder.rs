//! Packets back in the order in which they were sent, within a bounded wait.

use std::collections::BTreeMap;

use crate::media::clock::Extend32;
use crate::media::frame::RoomTime;

/// A jump of more than this many sequence numbers is a sender that began anew, not loss.
const RESTART: u64 = 3_000;
/// This many numbers from the past in a row, with none from the present among them, are a sender that began anew.
const RESTART_RUN: u32 = 12;

/// Bounds of one [`Reorder`].
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long an item waits for what is missing before it, µs.
    pub wait: u64,
    /// How many items may wait.
    pub held: usize,
}

/// Orders items that each cover a run of sequence numbers, and tells what is missing between them.
#[derive(Debug)]
pub struct Reorder<T> {
    patience: Patience,
    extend: Extend32,
    next: Option<u64>,
    held: BTreeMap<u64, Held<T>>,
    late_run: u32,
    late: u64,
}

#[derive(Debug)]
struct Held<T> {
    item: T,
    end: u64,
    since: RoomTime,
    urgent: bool,
}

/// An item in its place.
#[derive(Debug, PartialEq, Eq)]
pub struct Ordered<T> {
    /// The item.
    pub item: T,
    /// Sequence numbers missing right before it. After a restart of the sender 0, with `restarted` set.
    pub missing: u64,
    /// The sender began anew with this item.
    pub restarted: bool,
}

impl<T> Reorder<T> {
    /// Nothing seen yet.
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            extend: Extend32::default(),
            next: None,
            held: BTreeMap::new(),
            late_run: 0,
            late: 0,
        }
    }

    /// Changes the bounds, also for what waits already.
    pub fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// Takes an item that covers the numbers `first` to `last`. An urgent one makes what stands before it come out at once.
    pub fn push(&mut self, first: u32, last: u32, item: T, urgent: bool, now: RoomTime) {
        let mut start = self.extend.extend(first);
        if let Some(next) = self.next {
            let jump = start.abs_diff(next) > RESTART;
            if start < next && !jump {
                self.late_run += 1;
                if self.late_run < RESTART_RUN {
                    self.late += 1;
                    return;
                }
            }
            if jump || start < next {
                self.extend = Extend32::default();
                start = self.extend.extend(first);
                self.next = None;
                self.held.clear();
            }
        }
        self.late_run = 0;
        let end = start + u64::from(last.wrapping_sub(first)) + 1;
        if self.held.contains_key(&start) {
            self.late += 1;
            return;
        }
        let since = now;
        self.held.insert(
            start,
            Held {
                item,
                end,
                since,
                urgent,
            },
        );
    }

    /// The next item that need not wait any longer.
    pub fn pop(&mut self, now: RoomTime) -> Option<Ordered<T>> {
        let (start, first) = self.held.first_key_value()?;
        let due = self.next.is_none_or(|next| *start <= next)
            || now.since(first.since) >= self.patience.wait
            || self.held.len() > self.patience.held
            || self.held.values().any(|held| held.urgent);
        if !due {
            return None;
        }
        let (start, held) = self.held.pop_first()?;
        let restarted = self.next.is_none();
        let missing = self.next.map_or(0, |next| start.saturating_sub(next));
        self.next = Some(held.end.max(self.next.unwrap_or(0)));
        Some(Ordered {
            item: held.item,
            missing,
            restarted,
        })
    }

    /// The first item that waits.
    pub fn first(&self) -> Option<&T> {
        self.held.first_key_value().map(|(_, held)| &held.item)
    }

    /// Whether `seq` has not come and is still of use.
    pub fn lacks(&self, seq: u32) -> bool {
        let start = self.extend.peek(seq);
        (self.next).is_some_and(|next| start >= next && start - next <= RESTART) && !self.held.contains_key(&start)
    }

    /// What is missing before the first waiting item is of no use: the item comes out at once.
    pub fn skip_missing(&mut self) {
        if let Some(mut first) = self.held.first_entry() {
            first.get_mut().urgent = true;
        }
    }

    /// When the first waiting item has waited enough.
    pub fn poll_timeout(&self) -> Option<RoomTime> {
        self.poll_timeout_with(self.patience)
    }

    /// The same with other bounds.
    pub fn poll_timeout_with(&self, patience: Patience) -> Option<RoomTime> {
        let (_, first) = self.held.first_key_value()?;
        Some(first.since.plus(patience.wait))
    }

    /// Items that came again, or after their place was given up.
    pub fn late(&self) -> u64 {
        self.late
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Patience = Patience { wait: 20_000, held: 2 };

    fn drain(order: &mut Reorder<u32>, now: u64) -> Vec<(u32, u64)> {
        std::iter::from_fn(|| order.pop(RoomTime(now)))
            .map(|ordered| (ordered.item, ordered.missing))
            .collect()
    }

    fn push(order: &mut Reorder<u32>, seq: u32, now: u64) {
        order.push(seq, seq, seq, false, RoomTime(now));
    }

    #[test]
    fn swapped_packets_come_out_in_order_and_duplicates_once() {
        let mut order = Reorder::new(PATIENCE);
        let mut out = Vec::new();
        for seq in [7, 9, 8, 8, 9, 10] {
            push(&mut order, seq, 0);
            out.extend(drain(&mut order, 0));
        }
        assert_eq!(out, [(7, 0), (8, 0), (9, 0), (10, 0)]);
        assert_eq!(order.late(), 2);
    }

    #[test]
    fn missing_packet_is_waited_for_20_ms_at_most() {
        let mut order = Reorder::new(PATIENCE);
        push(&mut order, u32::MAX, 0);
        assert_eq!(drain(&mut order, 0), [(u32::MAX, 0)]);
        push(&mut order, 1, 100);
        assert_eq!(drain(&mut order, 20_099), []);
        assert_eq!(order.poll_timeout(), Some(RoomTime(20_100)));
        assert_eq!(drain(&mut order, 20_100), [(1, 1)]);
        push(&mut order, 0, 20_200);
        assert_eq!(drain(&mut order, 90_000), [], "too late");
    }

    #[test]
    fn third_waiting_packet_ends_the_wait() {
        let mut order = Reorder::new(PATIENCE);
        for seq in [0, 2, 3] {
            push(&mut order, seq, 0);
        }
        assert_eq!(drain(&mut order, 0), [(0, 0)]);
        push(&mut order, 4, 0);
        assert_eq!(drain(&mut order, 0), [(2, 1), (3, 0), (4, 0)]);
    }

    #[test]
    fn urgent_item_does_not_wait() {
        let mut order = Reorder::new(PATIENCE);
        push(&mut order, 0, 0);
        drain(&mut order, 0);
        order.push(5, 8, 5, true, RoomTime(0));
        assert_eq!(drain(&mut order, 0), [(5, 4)]);
        push(&mut order, 9, 0);
        assert_eq!(drain(&mut order, 0), [(9, 0)]);
    }

    #[test]
    fn useless_number_is_not_waited_for_and_the_next_missing_one_is() {
        let mut order = Reorder::new(PATIENCE);
        push(&mut order, 0, 0);
        drain(&mut order, 0);
        push(&mut order, 2, 0);
        push(&mut order, 4, 0);
        assert_eq!(order.first(), Some(&2));
        let lacking: Vec<_> = (0..7).filter(|seq| order.lacks(*seq)).collect();
        assert_eq!(lacking, [1, 3, 5, 6]);
        order.skip_missing();
        assert_eq!(drain(&mut order, 0), [(2, 1)]);
        assert!(!order.lacks(1) && order.lacks(3));
    }

    #[test]
    fn sender_that_begins_anew_is_followed() {
        let mut order = Reorder::new(PATIENCE);
        push(&mut order, 100_000, 0);
        drain(&mut order, 0);
        push(&mut order, 0, 0);
        let ordered = order.pop(RoomTime(0)).unwrap();
        assert!(ordered.restarted && ordered.missing == 0);
        // A short call: the numbers are near each other.
        let mut order = Reorder::new(PATIENCE);
        push(&mut order, 500, 0);
        drain(&mut order, 0);
        let mut out = Vec::new();
        for seq in 0..50 {
            push(&mut order, seq, 0);
            out.extend(drain(&mut order, 0));
        }
        assert_eq!(out.len(), 50 - (RESTART_RUN as usize - 1));
    }

    proptest! {
        #[test]
        fn order_holds_and_nothing_comes_twice(seqs in proptest::collection::vec(0u32..200, 0..400)) {
            let mut order = Reorder::new(PATIENCE);
            let mut last: Option<u32> = None;
            for (i, seq) in seqs.into_iter().enumerate() {
                push(&mut order, seq, i as u64 * 1000);
                while let Some(ordered) = order.pop(RoomTime(i as u64 * 1000)) {
                    if let Some(last) = last {
                        prop_assert!(ordered.restarted || ordered.item > last);
                    }
                    last = Some(ordered.item);
                }
                prop_assert!(order.held.len() <= PATIENCE.held);
            }
        }
    }
}

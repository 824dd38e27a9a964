//! Frames of one incoming video stream in their order, with the packets that are missing asked for again while that is quick
//! enough (WZP wire v2, section 8.3). Without IO; time is an argument.
//!
//! A frame after a gap waits for the repair no longer than a request and its answer take, and not at all for a sender that
//! is known not to answer: then only packets that overtook each other are waited for.

use std::time::Duration;

use wzp_proto::{LossRepair, Repair};

use crate::media::frame::RoomTime;
use crate::native::reorder::{Ordered, Patience, Reorder};

/// A complete frame waits this long for an incomplete one before it when nothing is going to be sent again.
const OVERTAKEN: Patience = Patience { wait: 30_000, held: 4 };
/// Frames that may wait for a repair.
const HELD: usize = 12;
/// Longest wait for a repair, µs: everybody in the room waits with it.
const LONGEST_WAIT: u64 = 200_000;
/// A repair is waited for at least this long after its request, µs.
const SHORTEST_ANSWER: u64 = 45_000;
/// Frame intervals outside of these bounds say more about a pause than about the source, µs.
const INTERVALS: std::ops::RangeInclusive<u64> = 8_000..=50_000;

/// Order and repair of one stream of video frames.
#[derive(Debug)]
pub struct RepairedOrder<T> {
    repair: LossRepair,
    /// The sender can be asked for packets.
    asks: bool,
    order: Reorder<Placed<T>>,
    rtt: u64,
    interval: u64,
    last_timestamp: Option<u32>,
}

#[derive(Debug)]
struct Placed<T> {
    first_seq: u32,
    keyframe: bool,
    item: T,
}

impl<T> Default for RepairedOrder<T> {
    fn default() -> Self {
        Self {
            repair: LossRepair::new(),
            asks: true,
            order: Reorder::new(OVERTAKEN),
            rtt: 50_000,
            interval: 33_000,
            last_timestamp: None,
        }
    }
}

impl<T> RepairedOrder<T> {
    /// For a sender that cannot be asked for packets, so that none are waited for; keyframes are asked for as ever.
    pub fn without_requests() -> Self {
        Self {
            asks: false,
            ..Self::default()
        }
    }

    /// Sets the round-trip time to the sender, µs. Needed only while there [are gaps](Self::has_gaps).
    pub fn set_rtt(&mut self, rtt: u64) {
        self.rtt = rtt;
        self.repair.set_rtt(Duration::from_micros(rtt));
    }

    /// Packets are missing and may still come.
    pub fn has_gaps(&self) -> bool {
        self.repair.missing() > 0
    }

    /// A packet with this number came.
    pub fn packet(&mut self, seq: u32, now: RoomTime) {
        self.repair.on_packet(seq, time(now));
    }

    /// Takes a whole frame that covers the numbers `first` to `last`; `timestamp` is the sender's, ms.
    pub fn push(&mut self, (first, last): (u32, u32), timestamp: u32, keyframe: bool, item: T, now: RoomTime) {
        if let Some(before) = self.last_timestamp.replace(timestamp) {
            let step = u64::from(timestamp.wrapping_sub(before)) * 1000;
            if INTERVALS.contains(&step) {
                self.interval = (self.interval * 7 + step) / 8;
                self.repair.set_frame_interval(Duration::from_micros(self.interval));
            }
        }
        if keyframe {
            self.repair.on_keyframe(first);
        }
        let placed = Placed {
            first_seq: first,
            keyframe,
            item,
        };
        self.order.push(first, last, placed, keyframe, now);
    }

    /// The next frame that need not wait any longer.
    pub fn pop(&mut self, now: RoomTime) -> Option<Ordered<T>> {
        self.order.set_patience(self.patience());
        let Ordered {
            item: placed,
            missing,
            restarted,
        } = self.order.pop(now)?;
        if missing > 0 && !placed.keyframe {
            self.repair.give_up_before(placed.first_seq);
        }
        Some(Ordered {
            item: placed.item,
            missing,
            restarted,
        })
    }

    /// What to ask the sender for at `now`. Call it again until it returns `None`, and then [`pop`](Self::pop).
    pub fn poll(&mut self, now: RoomTime) -> Option<Repair> {
        loop {
            match self.repair.poll(time(now)) {
                Some(Repair::Nack(_)) if !self.asks => {}
                other => return other,
            }
        }
    }

    /// When [`poll`](Self::poll) or [`pop`](Self::pop) may have something though nothing came.
    pub fn poll_timeout(&self) -> Option<RoomTime> {
        let repair = self.repair.next_poll().map(|at| RoomTime(at.as_micros() as u64));
        let order = self.order.poll_timeout_with(self.patience());
        [repair, order].into_iter().flatten().min()
    }

    /// Packets that came because they were asked for.
    pub fn repaired(&self) -> u64 {
        self.repair.stats().repaired
    }

    /// The sender has been found not to answer.
    pub fn is_silent(&self) -> bool {
        self.repair.is_silent()
    }

    fn patience(&self) -> Patience {
        if !self.asks || self.repair.is_silent() || !self.has_gaps() {
            return OVERTAKEN;
        }
        // One request, its answer, and once more if that is lost.
        let wait = self.interval + (self.rtt * 3).max(SHORTEST_ANSWER);
        Patience {
            wait: wait.min(LONGEST_WAIT),
            held: HELD,
        }
    }
}

fn time(now: RoomTime) -> Duration {
    Duration::from_micros(now.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: u64 = 4_000;

    fn order() -> RepairedOrder<u32> {
        let mut order = RepairedOrder::default();
        order.set_rtt(FAST);
        order
    }

    /// A frame of one packet.
    fn frame(order: &mut RepairedOrder<u32>, seq: u32, ms: u64) {
        order.packet(seq, RoomTime::from_millis(ms));
        order.push((seq, seq), seq * 33, false, seq, RoomTime::from_millis(ms));
    }

    fn pop(order: &mut RepairedOrder<u32>, ms: u64) -> Vec<(u32, u64)> {
        std::iter::from_fn(|| order.pop(RoomTime::from_millis(ms)))
            .map(|ordered| (ordered.item, ordered.missing))
            .collect()
    }

    #[test]
    fn repaired_frame_takes_its_place_and_nobody_asks_for_a_keyframe() {
        let mut order = order();
        frame(&mut order, 0, 0);
        assert_eq!(pop(&mut order, 0), [(0, 0)]);
        frame(&mut order, 2, 66);
        let asked = RoomTime::from_millis(100);
        assert_eq!(order.poll(asked), Some(Repair::Nack(vec![1])));
        assert_eq!(order.poll(asked), None);
        assert_eq!(pop(&mut order, 104), [], "it waits for the repair");
        frame(&mut order, 1, 105);
        assert_eq!(pop(&mut order, 105), [(1, 0), (2, 0)]);
        assert_eq!((order.repaired(), order.poll(RoomTime::from_millis(500))), (1, None));
        assert_eq!(order.poll_timeout(), None);
    }

    #[test]
    fn wait_for_a_repair_has_an_end_and_then_a_keyframe_is_asked_for() {
        let mut order = order();
        frame(&mut order, 0, 0);
        pop(&mut order, 0);
        frame(&mut order, 2, 66);
        let mut asked = Vec::new();
        let mut out = Vec::new();
        for ms in 66..400 {
            // The next frames keep coming, and keep waiting.
            if ms % 33 == 0 && ms > 66 {
                frame(&mut order, ms as u32 / 33, ms);
            }
            while let Some(what) = order.poll(RoomTime::from_millis(ms)) {
                asked.push((ms, what));
            }
            out.extend(pop(&mut order, ms).into_iter().map(|(seq, missing)| (ms, seq, missing)));
        }
        assert_eq!(asked[0], (99, Repair::Nack(vec![1])));
        assert_eq!(asked[1], (139, Repair::Keyframe), "{asked:?}");
        assert_eq!(out[0], (139, 2, 1), "{out:?}");
        assert_eq!(order.repaired(), 0);
    }

    #[test]
    fn who_cannot_be_asked_is_asked_for_keyframes_only_and_not_waited_for() {
        let mut order = RepairedOrder::without_requests();
        order.set_rtt(FAST);
        frame(&mut order, 0, 0);
        pop(&mut order, 0);
        frame(&mut order, 2, 66);
        let mut asked = Vec::new();
        let mut out = Vec::new();
        for ms in 66..400 {
            asked.extend(std::iter::from_fn(|| order.poll(RoomTime::from_millis(ms))));
            out.extend(pop(&mut order, ms).into_iter().map(|(seq, _)| (ms, seq)));
        }
        assert_eq!(out, [(96, 2)], "as long as packets that overtook each other");
        assert!(asked.iter().all(|what| *what == Repair::Keyframe), "{asked:?}");
    }

    #[test]
    fn silent_sender_is_not_waited_for() {
        let mut order = order();
        let (mut seq, mut ms, mut nacks) = (0, 0, 0);
        while !order.is_silent() {
            for _ in 0..20 {
                frame(&mut order, seq, ms);
                seq += 1;
                for _ in 0..33 {
                    ms += 1;
                    while let Some(what) = order.poll(RoomTime::from_millis(ms)) {
                        nacks += u32::from(matches!(what, Repair::Nack(_)));
                    }
                    pop(&mut order, ms);
                }
            }
            order.push((seq, seq), seq * 33, true, seq, RoomTime::from_millis(ms));
            order.packet(seq, RoomTime::from_millis(ms));
            seq += 2;
            assert!(nacks <= 3);
        }
        assert_eq!(nacks, 3);
        frame(&mut order, seq - 1, ms);
        pop(&mut order, ms);
        frame(&mut order, seq + 1, ms + 66);
        assert_eq!(pop(&mut order, ms + 95), []);
        assert_eq!(
            pop(&mut order, ms + 96),
            [(seq + 1, 1)],
            "packets that overtook each other are waited for"
        );
    }
}

//! Links that lose, delay, reorder and duplicate, by a seed.

use std::collections::{BTreeMap, VecDeque};

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn between(&mut self, begin: u64, end: u64) -> u64 {
        begin + self.below(end - begin)
    }

    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }
}

/// How a link behaves; times in µs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions {
    /// Per thousand.
    pub loss: u64,
    /// Per thousand.
    pub twice: u64,
    pub delay: u64,
    /// What a packet may take longer than others, so that they overtake each other.
    pub jitter: u64,
}

/// A link for datagrams.
#[derive(Debug)]
pub struct Link<T> {
    pub conditions: Conditions,
    random: Random,
    under_way: BTreeMap<(u64, u64), T>,
    sent: u64,
    pub lost: u64,
}

impl<T: Clone> Link<T> {
    pub fn new(conditions: Conditions, random: Random) -> Self {
        Self {
            conditions,
            random,
            under_way: BTreeMap::new(),
            sent: 0,
            lost: 0,
        }
    }

    pub fn send(&mut self, item: T, now: u64) {
        if self.random.chance(self.conditions.loss) {
            self.lost += 1;
            return;
        }
        let copies = 1 + u64::from(self.random.chance(self.conditions.twice));
        for _ in 0..copies {
            let late = self.random.below(self.conditions.jitter + 1);
            self.sent += 1;
            let place = (now + self.conditions.delay + late, self.sent);
            self.under_way.insert(place, item.clone());
        }
    }

    /// What has arrived by `now`.
    pub fn arrived(&mut self, now: u64) -> Vec<T> {
        let later = self.under_way.split_off(&(now + 1, 0));
        std::mem::replace(&mut self.under_way, later).into_values().collect()
    }
}

/// A reliable stream: in order, complete, and no faster than its rate.
#[derive(Debug)]
pub struct Stream<T> {
    delay: u64,
    /// Bytes per ms; 0: no bound.
    rate: u64,
    free_at: u64,
    under_way: VecDeque<(u64, T)>,
}

impl<T> Stream<T> {
    pub fn new(delay: u64, rate: u64) -> Self {
        Self {
            delay,
            rate,
            free_at: 0,
            under_way: VecDeque::new(),
        }
    }

    pub fn send(&mut self, item: T, bytes: usize, now: u64) {
        let takes = (bytes as u64 * 1000).checked_div(self.rate).unwrap_or(0);
        self.free_at = self.free_at.max(now) + takes;
        self.under_way.push_back((self.free_at + self.delay, item));
    }

    /// Bytes that wait for their turn on the link.
    pub fn waiting(&self, now: u64) -> usize {
        (self.free_at.saturating_sub(now) * self.rate / 1000) as usize
    }

    /// What has arrived by `now`.
    pub fn arrived(&mut self, now: u64) -> Vec<T> {
        let count = self.under_way.iter().take_while(|(at, _)| *at <= now).count();
        self.under_way.drain(..count).map(|(_, item)| item).collect()
    }
}

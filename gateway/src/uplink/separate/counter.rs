//! What one sender's next packet should look like.

use std::time::Duration;

use wzp_proto::codec::Codec;
use wzp_proto::header::{MediaHeader, MediaType};

/// Numbers remembered behind the newest: 2.5 s of 20 ms frames.
const WINDOW: u32 = 128;
/// The least that a sender's jitter is taken for, µs.
const LEAST_JITTER: i64 = 20_000;
/// The most, so that senders that joined a second apart stay apart on bad paths, µs.
const MOST_JITTER: i64 = 60_000;
/// Pictures wait behind each other: a keyframe may take this long to come, µs.
const PICTURE_JITTER: i64 = 150_000;
/// Being later than this is no jitter: the sender's clock stood still, or a queue built up, µs.
const STEP: u64 = 500_000;
/// The share of a packet's lateness that moves the expectation, as a divisor.
const FOLLOW: i64 = 16;
/// Packets that may be missing or out of order without casting doubt on who sent them.
const NEAR: u32 = 8;
/// How far behind the newest a late packet may be.
const BEHIND: i32 = WINDOW as i32;
/// How far ahead of the number that the time since the last packet allows for.
const AHEAD: i64 = 64;

/// What weighs as much as time: the miss of one jitter is 1.
mod weight {
    /// A lateness that says nothing more.
    pub const MOST_LATE: f64 = 8.0;
    /// The same when the numbers follow each other.
    pub const MOST_LATE_NEAR: f64 = 3.0;
    /// A number that has come already: a duplicate comes at once, or it is another sender's.
    pub const SEEN: f64 = 4.0;
    /// A number that cannot be.
    pub const IMPOSSIBLE: f64 = 8.0;
    /// Another codec: profiles change, but rarely.
    pub const CODEC: f64 = 2.5;
    /// More time than packets: a pause.
    pub const PAUSE: f64 = 1.0;
    /// More packets than time.
    pub const CROWD: f64 = 3.0;
}

/// How far a packet is from what was expected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Miss {
    /// All together, in units of jitter.
    pub total: f64,
    /// The number has come before.
    pub seen: bool,
}

/// One sender's numbers and clock.
#[derive(Debug, Clone)]
pub(super) struct Counter {
    pub codec: Codec,
    pub arrival: Duration,
    /// Newest number, and the timestamp beside it.
    seq: u32,
    timestamp: u32,
    /// Repair packets take numbers, but no time, so that the two do not go together.
    repaired: bool,
    /// When a packet of that timestamp is expected, averaged over those that came, µs.
    due: i64,
    jitter: i64,
    /// Bit i: `seq − i` has come.
    seen: u128,
}

impl Counter {
    pub fn new(header: &MediaHeader, at: Duration) -> Self {
        Self {
            codec: header.codec,
            arrival: at,
            seq: header.seq,
            timestamp: header.timestamp,
            repaired: is_repaired(header),
            due: micros(at),
            jitter: LEAST_JITTER,
            seen: 1,
        }
    }

    pub fn miss(&self, header: &MediaHeader, at: Duration) -> Miss {
        let ahead = header.seq.wrapping_sub(self.seq) as i32;
        let seen = self.has_seen(ahead);
        let off_beat = self.off_beat(header, ahead);
        let near = !seen && ahead.unsigned_abs() <= NEAR && off_beat == 0.0;
        let jitter = if header.media_type == MediaType::Audio {
            (2 * self.jitter).clamp(LEAST_JITTER, MOST_JITTER)
        } else {
            PICTURE_JITTER
        };
        let most_late = if near {
            weight::MOST_LATE_NEAR
        } else {
            weight::MOST_LATE
        };
        let late = (self.lateness(header, at) as f64 / jitter as f64).abs().min(most_late);
        let mut total = late + off_beat + self.gap(header, ahead, at);
        if seen {
            total += weight::SEEN;
        }
        if !self.speaks(header.codec) {
            total += weight::CODEC;
        }
        Miss { total, seen }
    }

    /// Takes a packet as this sender's. `sure` if its arrival may move the expectation.
    pub fn take(&mut self, header: &MediaHeader, at: Duration, sure: bool) {
        let late = self.lateness(header, at);
        if sure {
            if late.unsigned_abs() > STEP {
                self.due = self.due.saturating_add(late);
            } else {
                self.due = self.due.saturating_add(late / FOLLOW);
                self.jitter += (late.saturating_abs() - self.jitter) / FOLLOW;
            }
        }
        self.arrival = self.arrival.max(at);
        if header.codec != Codec::ComfortNoise {
            self.codec = header.codec;
        }
        let ahead = header.seq.wrapping_sub(self.seq) as i32;
        if ahead > 0 {
            self.seen = self.seen.checked_shl(ahead.unsigned_abs()).unwrap_or(0) | 1;
            self.due = self.due.saturating_add(self.media_step(header));
            self.seq = header.seq;
            self.timestamp = header.timestamp;
            self.repaired = is_repaired(header);
        } else if ahead > -BEHIND {
            self.seen |= 1 << ahead.unsigned_abs();
        }
    }

    fn has_seen(&self, ahead: i32) -> bool {
        (-BEHIND + 1..=0).contains(&ahead) && self.seen >> ahead.unsigned_abs() & 1 == 1
    }

    fn speaks(&self, codec: Codec) -> bool {
        codec == self.codec || codec == Codec::ComfortNoise || self.codec == Codec::ComfortNoise
    }

    fn media_step(&self, header: &MediaHeader) -> i64 {
        i64::from(header.timestamp.wrapping_sub(self.timestamp) as i32) * 1000
    }

    /// How much later than expected the packet is, µs; negative if it is early.
    fn lateness(&self, header: &MediaHeader, at: Duration) -> i64 {
        micros(at).saturating_sub(self.due.saturating_add(self.media_step(header)))
    }

    /// How badly number and timestamp go together: audio advances one frame per packet.
    fn off_beat(&self, header: &MediaHeader, ahead: i32) -> f64 {
        if header.media_type != MediaType::Audio || self.repaired || is_repaired(header) {
            return 0.0;
        }
        let step = i64::from(header.timestamp.wrapping_sub(self.timestamp) as i32);
        let beside = |codec: Codec| step - i64::from(ahead) * i64::from(codec.frame_ms());
        let (by_new, by_old) = (beside(header.codec), beside(self.codec));
        // The frames between may be of the old length or of the new one.
        if by_new.min(by_old) <= 0 && by_new.max(by_old) >= 0 {
            return 0.0;
        }
        let pause = (by_new > 0) == (ahead > 0);
        if pause { weight::PAUSE } else { weight::CROWD }
    }

    /// How unlikely the distance to the newest number is.
    fn gap(&self, header: &MediaHeader, ahead: i32, at: Duration) -> f64 {
        match ahead {
            0 | 1 => 0.0,
            2.. => {
                let silence = at.saturating_sub(self.arrival).as_millis() as i64;
                let frames = if header.media_type == MediaType::Audio {
                    silence / i64::from(header.codec.frame_ms().max(1))
                } else {
                    // 2,000 packets per second are 18 Mbit/s.
                    silence * 2
                };
                if i64::from(ahead) > 2 * frames + AHEAD {
                    return weight::IMPOSSIBLE;
                }
                (0.7 + f64::from(ahead).ln() * 0.3).min(2.0)
            }
            _ if ahead > -BEHIND => 0.5 - f64::from(ahead) * 0.02,
            _ => weight::IMPOSSIBLE,
        }
    }
}

fn is_repaired(header: &MediaHeader) -> bool {
    header.fec_ratio > 0 || header.is_repair()
}

fn micros(at: Duration) -> i64 {
    i64::try_from(at.as_micros()).unwrap_or(i64::MAX)
}

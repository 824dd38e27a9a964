//! The acknowledged window: how much may be under way to a client, measured in time (docs/browser-protocol.md, section 4).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Video waits while the oldest unacknowledged message is older than this and the base delay. The protocol allows 200 ms;
/// routers of slow links queue about that much, and what overflows them costs more than it gains.
pub const VIDEO_AGE: Duration = Duration::from_millis(120);
/// Sound waits at this age and the base delay.
pub const AUDIO_AGE: Duration = Duration::from_millis(1200);
/// Video waits while the client has this much of it to decode, ms.
pub const MAX_BACKLOG: u32 = 400;
/// The base delay is never taken to be more than this.
const MAX_BASE: Duration = Duration::from_millis(500);
/// How long a smallest delay counts.
const BASE_WINDOW: Duration = Duration::from_secs(15);
/// Rates are measured over this.
const RATE_WINDOW: Duration = Duration::from_millis(1000);
/// A burst of fewer bytes tells nothing about what the path carries.
const TELLING: u64 = 700;
/// What was sent within this is a burst.
const BURST: Duration = Duration::from_millis(3);
/// A path is full, and no longer just stalled once, when acknowledgements have been late for this long.
const FULL_AFTER: Duration = Duration::from_millis(300);
/// A path that was full is taken to be so for this long.
const FULL_FOR: Duration = Duration::from_millis(1000);
/// So much may be under way on a full path in any case, bytes: two pieces of a picture.
const LEAST: u64 = 4096;
/// A client that lets this many messages go unacknowledged gets nothing more until it acknowledges.
const MAX_IN_FLIGHT: usize = 4096;

/// An acknowledgement of messages that were never sent, or that goes backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ack {acked} is impossible: {sent} binary messages were sent and {before} acknowledged")]
pub struct ImpossibleAck {
    acked: u64,
    sent: u64,
    before: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Instant,
    bytes: u32,
    /// When the first of those went out that were sent together with it, and the bytes of them up to and with it.
    burst: (Instant, u64),
}

/// What is under way on one connection.
#[derive(Debug, Default)]
pub struct Window {
    in_flight: VecDeque<Sent>,
    in_flight_bytes: u64,
    /// When messages were first and last acknowledged so late that they must have waited in a queue.
    late: Option<(Instant, Instant)>,
    sent: u64,
    /// See [`Sent::burst`].
    burst: Option<(Instant, u64)>,
    acked: u64,
    ping: Option<(u32, Instant)>,
    backlog_ms: u32,
    base: Option<Duration>,
    base_next: Option<Duration>,
    base_since: Option<Instant>,
    delivered: VecDeque<(Instant, u32)>,
    delivered_bytes: u64,
    /// Bytes of bursts, and how long they took beyond the base delay.
    carried: (u64, Duration),
}

impl Window {
    /// A binary message of `bytes` goes out.
    pub fn sent(&mut self, bytes: usize, now: Instant) {
        self.sent += 1;
        self.in_flight_bytes += bytes as u64;
        let (since, before) = self
            .burst
            .filter(|(since, _)| now.saturating_duration_since(*since) <= BURST)
            .unwrap_or((now, 0));
        let burst = (since, before + bytes as u64);
        self.burst = Some(burst);
        self.in_flight.push_back(Sent {
            at: now,
            bytes: bytes as u32,
            burst,
        });
    }

    /// The client has received `count` messages in all.
    ///
    /// # Errors
    /// It cannot have.
    pub fn acked(&mut self, count: u64, backlog_ms: u32, now: Instant) -> Result<(), ImpossibleAck> {
        if count > self.sent || count < self.acked {
            return Err(ImpossibleAck {
                acked: count,
                sent: self.sent,
                before: self.acked,
            });
        }
        self.backlog_ms = backlog_ms;
        let mut newest = None;
        for _ in self.acked..count {
            if let Some(sent) = self.in_flight.pop_front() {
                self.delivered.push_back((now, sent.bytes));
                self.delivered_bytes += u64::from(sent.bytes);
                self.in_flight_bytes -= u64::from(sent.bytes);
                newest = Some(sent);
            }
        }
        self.acked = count;
        if let Some(Sent { at, burst, .. }) = newest {
            if now.saturating_duration_since(at) > VIDEO_AGE / 2 + self.base_delay() {
                let recent = self
                    .late
                    .filter(|(_, last)| now.saturating_duration_since(*last) <= FULL_FOR);
                self.late = Some((recent.map_or(now, |(first, _)| first), now));
            }
            let took = now.saturating_duration_since(at);
            self.observe(took, now);
            let (since, bytes) = burst;
            if bytes >= TELLING {
                let took = now.saturating_duration_since(since);
                self.carried.0 += bytes;
                self.carried.1 += took.saturating_sub(self.base_delay()).max(Duration::from_millis(1));
            }
        }
        self.forget(now);
        Ok(())
    }

    /// A ping goes out; what it carries.
    pub fn pinged(&mut self, now: Instant) -> f64 {
        let number = self.ping.map_or(0, |(number, _)| number + 1);
        self.ping = Some((number, now));
        f64::from(number)
    }

    /// The answer to a ping came: messages so small show best what the path takes without a queue.
    pub fn ponged(&mut self, carried: f64, now: Instant) {
        if let Some((number, at)) = self.ping
            && f64::from(number) == carried
        {
            self.observe(now.saturating_duration_since(at), now);
        }
    }

    /// Whether video may be sent now.
    pub fn open_for_video(&self, now: Instant) -> bool {
        self.open(MAX_BACKLOG, now)
    }

    /// The same for a client that was given a replay and has that to decode yet: what it says of its backlog counts for
    /// nothing.
    pub fn open_for_replay(&self, now: Instant) -> bool {
        self.open(u32::MAX, now)
    }

    fn open(&self, max_backlog: u32, now: Instant) -> bool {
        self.age(now) <= VIDEO_AGE + self.base_delay()
            && self.backlog_ms <= max_backlog
            && self.in_flight.len() < MAX_IN_FLIGHT
            && self.fits(now)
    }

    /// A path that is full is given no more at once than it carries in the time that video may wait. All that is sent at one
    /// moment has the same age, and a large picture would overflow the queue of the slowest router: what is lost there holds
    /// up the sound behind it for a retransmission time-out.
    fn fits(&self, now: Instant) -> bool {
        let full = self.late.is_some_and(|(first, last)| {
            last.saturating_duration_since(first) >= FULL_AFTER && now.saturating_duration_since(last) <= FULL_FOR
        });
        let wait = VIDEO_AGE + self.base_delay();
        let carried = self.delivered_bytes * wait.as_millis() as u64 / RATE_WINDOW.as_millis() as u64;
        !full || self.in_flight_bytes < carried.max(LEAST)
    }

    /// Nothing was acknowledged late lately, or ever.
    pub fn is_prompt(&self, now: Instant) -> bool {
        self.late
            .is_none_or(|(_, last)| now.saturating_duration_since(last) > FULL_FOR)
    }

    /// Whether sound may be sent now.
    pub fn open_for_audio(&self, now: Instant) -> bool {
        self.age(now) <= AUDIO_AGE + self.base_delay() && self.in_flight.len() < MAX_IN_FLIGHT
    }

    /// Age of the oldest unacknowledged message.
    pub fn age(&self, now: Instant) -> Duration {
        self.in_flight
            .front()
            .map_or(Duration::ZERO, |sent| now.saturating_duration_since(sent.at))
    }

    /// The smallest acknowledgement delay of late, at most 500 ms.
    pub fn base_delay(&self) -> Duration {
        self.base.unwrap_or(Duration::ZERO).min(MAX_BASE)
    }

    /// Bits per second that the client has acknowledged over the last second.
    pub fn delivered_rate(&mut self, now: Instant) -> u32 {
        self.forget(now);
        (self.delivered_bytes * 8 * 1000 / RATE_WINDOW.as_millis() as u64).min(u64::from(u32::MAX)) as u32
    }

    /// Bits per second at which bursts went through since the last call: what the path carries, however little of the time it has
    /// something to carry, and less than that if a client acknowledges late. `None` if there was none.
    pub fn take_path_rate(&mut self) -> Option<u32> {
        let (bytes, took) = std::mem::take(&mut self.carried);
        let rate = u128::from(bytes) * 8_000_000 / took.as_micros().max(1);
        (bytes > 0).then(|| u32::try_from(rate).unwrap_or(u32::MAX))
    }

    fn observe(&mut self, delay: Duration, now: Instant) {
        let over = self
            .base_since
            .is_none_or(|since| now.saturating_duration_since(since) > BASE_WINDOW);
        if over {
            self.base = self.base_next.take().map_or(Some(delay), |next| Some(next.min(delay)));
            self.base_since = Some(now);
        }
        self.base = Some(self.base.map_or(delay, |base| base.min(delay)));
        self.base_next = Some(self.base_next.map_or(delay, |next| next.min(delay)));
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, bytes)) = self.delivered.front() {
            if now.saturating_duration_since(*at) <= RATE_WINDOW {
                break;
            }
            self.delivered_bytes -= u64::from(*bytes);
            self.delivered.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn video_waits_for_acknowledgements_and_sound_waits_longer() {
        let start = Instant::now();
        let mut window = Window::default();
        window.sent(1000, start);
        assert!(window.open_for_video(start + ms(120)));
        assert!(!window.open_for_video(start + ms(121)));
        assert!(window.open_for_audio(start + ms(1200)));
        assert!(!window.open_for_audio(start + ms(1201)));
        window.acked(1, 0, start + ms(1300)).unwrap();
        assert!(window.open_for_video(start + ms(1300)));
    }

    #[test]
    fn far_client_is_not_taken_for_a_slow_one() {
        let start = Instant::now();
        let mut window = Window::default();
        for i in 0..100 {
            let sent = start + ms(i * 20);
            window.sent(100, sent);
            window.acked(i + 1, 0, sent + ms(300)).unwrap();
        }
        assert_eq!(window.base_delay(), ms(300));
        window.sent(100, start + ms(3000));
        assert!(window.open_for_video(start + ms(3410)));
        assert!(!window.open_for_video(start + ms(3421)));
    }

    #[test]
    fn queue_that_builds_up_is_not_taken_for_distance() {
        let start = Instant::now();
        let mut window = Window::default();
        window.sent(100, start);
        window.acked(1, 0, start + ms(10)).unwrap();
        for i in 1..200u64 {
            let sent = start + ms(i * 20);
            window.sent(100, sent);
            window.acked(i + 1, 0, sent + ms(10 + i)).unwrap();
        }
        assert_eq!(window.base_delay(), ms(10));
    }

    #[test]
    fn full_path_gets_no_more_at_once_than_it_carries_in_the_time_that_video_may_wait() {
        let start = Instant::now();
        let burst = |window: &mut Window, now: Instant| {
            let mut bytes = 0;
            while window.open_for_video(now) && bytes < 100_000 {
                window.sent(2000, now);
                bytes += 2000;
            }
            bytes
        };
        let mut window = Window::default();
        window.sent(100, start);
        window.acked(1, 0, start + ms(20)).unwrap();
        assert_eq!(
            burst(&mut window, start + ms(100)),
            100_000,
            "nothing is known against it"
        );
        // It takes two seconds.
        for i in 1..=50u64 {
            window.acked(1 + i, 0, start + ms(100 + 40 * i)).unwrap();
        }
        // 50,000 bytes in the last second, so 7,000 in 140 ms.
        assert_eq!(burst(&mut window, start + ms(2100)), 8000);
        window.acked(55, 0, start + ms(2130)).unwrap();
        assert_eq!(burst(&mut window, start + ms(3200)), 100_000, "that was long ago");
    }

    #[test]
    fn impossible_acknowledgements_are_refused() {
        let now = Instant::now();
        let mut window = Window::default();
        assert!(window.acked(1, 0, now).is_err());
        window.sent(10, now);
        window.sent(10, now);
        window.acked(2, 0, now).unwrap();
        assert!(window.acked(1, 0, now).is_err());
    }

    #[test]
    fn decode_backlog_closes_the_window() {
        let now = Instant::now();
        let mut window = Window::default();
        window.sent(10, now);
        window.acked(1, 401, now).unwrap();
        assert!(!window.open_for_video(now));
        assert!(window.open_for_audio(now));
    }

    #[test]
    fn rate_of_the_path_is_seen_though_little_is_sent() {
        let start = Instant::now();
        for (bytes_per_ms, expected) in [(100, 800_000), (1000, 8_000_000)] {
            let mut window = Window::default();
            window.sent(100, start);
            window.acked(1, 0, start + ms(20)).unwrap();
            assert_eq!(window.take_path_rate(), None);
            // A picture of 4,000 bytes in two pieces, twice a second, over a path that takes 20 ms.
            for i in 1..10u64 {
                let sent = start + ms(i * 500);
                window.sent(2000, sent);
                window.sent(2000, sent);
                let took = 4000 / bytes_per_ms;
                window.acked(2 * i, 0, sent + ms(20 + took / 2)).unwrap();
                window.acked(2 * i + 1, 0, sent + ms(20 + took)).unwrap();
            }
            assert_eq!(window.take_path_rate(), Some(expected));
        }
    }

    #[test]
    fn pictures_of_one_size_do_not_hide_what_they_take_on_the_way() {
        let start = Instant::now();
        let mut window = Window::default();
        let ping = window.pinged(start);
        window.ponged(ping + 1.0, start);
        assert_eq!(window.base_delay(), ms(0), "no answer to anything");
        window.ponged(ping, start + ms(20));
        for i in 1..=10u64 {
            let sent = start + ms(i * 100);
            window.sent(1000, sent);
            window.acked(i, 0, sent + ms(40)).unwrap();
        }
        assert_eq!(window.take_path_rate(), Some(400_000));
    }

    #[test]
    fn what_is_sent_over_a_while_is_not_one_burst() {
        let start = Instant::now();
        let mut window = Window::default();
        window.sent(100, start);
        window.acked(1, 0, start + ms(20)).unwrap();
        for i in 0..100 {
            window.sent(1000, start + ms(1000 + 2 * i));
        }
        // All of it is queued, 100 bytes per ms.
        for i in 0..100 {
            window.acked(2 + i, 0, start + ms(1000 + 10 * (i + 1) + 20)).unwrap();
        }
        assert!(window.take_path_rate().unwrap() < 800_000);
    }

    #[test]
    fn rate_is_what_was_acknowledged_in_the_last_second() {
        let start = Instant::now();
        let mut window = Window::default();
        for i in 0..100u64 {
            let now = start + ms(i * 20);
            window.sent(1250, now);
            window.acked(i + 1, 0, now).unwrap();
        }
        let rate = window.delivered_rate(start + ms(99 * 20));
        assert!((490_000..=520_000).contains(&rate), "{rate}");
        assert_eq!(window.delivered_rate(start + ms(4000)), 0);
    }
}

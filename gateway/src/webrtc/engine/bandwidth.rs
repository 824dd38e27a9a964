//! How much the path to a viewer carries, as the viewer tells: by REMB, or by transport-wide feedback.
//!
//! REMB is a finished estimate (Chromium and Firefox compute it from our send times). From transport-wide feedback the
//! estimate is made here, simply: the rate that arrived, raised while nothing is lost and cut as loss grows, as in the
//! loss-based half of Google congestion control (draft-ietf-rmcat-gcc-02, section 6).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rtc::rtcp::transport_feedbacks::transport_layer_cc::{PacketStatusChunk, SymbolTypeTcc, TransportLayerCc};

/// Packets whose fate is awaited.
const MAX_IN_FLIGHT: usize = 4_096;
/// Estimates are reported when they have moved by this part, or this old.
const MIN_CHANGE: f64 = 0.05;
const MAX_AGE: Duration = Duration::from_secs(1);
/// Until loss says otherwise, the path is not known to be a bound.
const START_BPS: f64 = MAX_BPS;
const MIN_BPS: f64 = 50_000.0;
const MAX_BPS: f64 = 50_000_000.0;
/// Over which the arriving rate is measured.
const WINDOW: Duration = Duration::from_millis(500);

struct Sent {
    seq: u16,
    size: usize,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Bandwidth {
    seq: u16,
    in_flight: VecDeque<Sent>,
    reported: Option<(u64, Instant)>,
    last_remb: Option<Instant>,
    estimate: Option<f64>,
    window_start: Option<Instant>,
    delivered: usize,
    received: u32,
    lost: u32,
    /// Smoothed over a few windows: one of half a second holds so few packets that chance looks like congestion.
    loss: f64,
}

impl Bandwidth {
    /// The transport-wide number of the next packet of `size` bytes.
    pub fn next_sequence(&mut self, _now: Instant, size: usize) -> u16 {
        self.seq = self.seq.wrapping_add(1);
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            self.in_flight.pop_front();
        }
        self.in_flight.push_back(Sent { seq: self.seq, size });
        self.seq
    }

    /// Whether this estimate is worth an event.
    pub fn note_remb(&mut self, now: Instant, bps: u64) -> bool {
        self.last_remb = Some(now);
        self.report(now, bps)
    }

    fn report(&mut self, now: Instant, bps: u64) -> bool {
        let worth = match self.reported {
            None => true,
            Some((last, at)) => {
                let change = (bps as f64 - last as f64).abs() / (last as f64).max(1.0);
                change >= MIN_CHANGE || now.saturating_duration_since(at) >= MAX_AGE
            }
        };
        if worth {
            self.reported = Some((bps, now));
        }
        worth
    }

    /// Takes feedback; a new estimate when it is worth an event.
    pub fn note_feedback(&mut self, now: Instant, feedback: &TransportLayerCc) -> Option<u64> {
        let mut seq = feedback.base_sequence_number;
        let mut left = feedback.packet_status_count;
        let mut note = |bandwidth: &mut Self, symbol: SymbolTypeTcc| {
            if left > 0 {
                bandwidth.note_packet(seq, symbol != SymbolTypeTcc::PacketNotReceived);
                seq = seq.wrapping_add(1);
                left -= 1;
            }
        };
        for chunk in &feedback.packet_chunks {
            match chunk {
                PacketStatusChunk::RunLengthChunk(run) => {
                    for _ in 0..run.run_length {
                        note(self, run.packet_status_symbol);
                    }
                }
                PacketStatusChunk::StatusVectorChunk(vector) => {
                    for &symbol in &vector.symbol_list {
                        note(self, symbol);
                    }
                }
            }
        }
        let start = *self.window_start.get_or_insert(now);
        let elapsed = now.saturating_duration_since(start);
        if elapsed < WINDOW {
            return None;
        }
        let rate = self.delivered as f64 * 8.0 / elapsed.as_secs_f64();
        let loss = f64::from(self.lost) / f64::from((self.lost + self.received).max(1));
        self.loss += (loss - self.loss) * 0.3;
        let loss = self.loss;
        let estimate = self.estimate.unwrap_or(START_BPS);
        let next = if loss > 0.10 {
            estimate.min(rate * 1.1) * (1.0 - 0.5 * loss)
        } else if loss < 0.02 {
            // What was never sent cannot be known to arrive: no growth far beyond the rate in use.
            (estimate * 1.05).min((rate * 2.0).max(estimate))
        } else {
            estimate
        };
        self.estimate = Some(next.clamp(MIN_BPS, MAX_BPS));
        self.window_start = Some(now);
        (self.delivered, self.received, self.lost) = (0, 0, 0);
        let fresh_remb = self
            .last_remb
            .is_some_and(|at| now.saturating_duration_since(at) < Duration::from_secs(5));
        let bps = self.estimate? as u64;
        (!fresh_remb && self.report(now, bps)).then_some(bps)
    }

    fn note_packet(&mut self, seq: u16, arrived: bool) {
        // Feedback comes in order; what it skips is of no interest any more.
        while let Some(front) = self.in_flight.front() {
            let behind = seq.wrapping_sub(front.seq) as i16;
            if behind < 0 {
                return;
            }
            let size = front.size;
            self.in_flight.pop_front();
            if behind == 0 {
                if arrived {
                    self.received += 1;
                    self.delivered += size;
                } else {
                    self.lost += 1;
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rtc::rtcp::transport_feedbacks::transport_layer_cc::{RunLengthChunk, StatusChunkTypeTcc};

    use super::*;

    /// 10 s of 1,000-byte packets every 5 ms (1.6 Mbit/s), `lost` of every 10 of them lost, feedback every 100 ms.
    fn run(lost: u16) -> u64 {
        let mut now = Instant::now();
        let mut bandwidth = Bandwidth::default();
        let mut last = 0;
        for _ in 0..100 {
            let base = bandwidth.seq.wrapping_add(1);
            for _ in 0..20 {
                bandwidth.next_sequence(now, 1_000);
                now += Duration::from_millis(5);
            }
            let chunk = |packet_status_symbol, run_length| {
                PacketStatusChunk::RunLengthChunk(RunLengthChunk {
                    type_tcc: StatusChunkTypeTcc::RunLengthChunk,
                    packet_status_symbol,
                    run_length,
                })
            };
            let feedback = TransportLayerCc {
                base_sequence_number: base,
                packet_status_count: 20,
                packet_chunks: vec![
                    chunk(SymbolTypeTcc::PacketReceivedSmallDelta, 20 - 2 * lost),
                    chunk(SymbolTypeTcc::PacketNotReceived, 2 * lost),
                ],
                ..TransportLayerCc::default()
            };
            last = bandwidth.note_feedback(now, &feedback).unwrap_or(last);
        }
        last
    }

    #[test]
    fn a_path_that_loses_nothing_is_no_bound() {
        let bps = run(0);
        assert!(bps as f64 >= MAX_BPS * 0.9, "{bps}");
    }

    #[test]
    fn an_estimate_falls_below_what_is_sent_when_much_is_lost() {
        let bps = run(3);
        assert!(bps < 1_600_000 * 7 / 10, "{bps}");
    }

    #[test]
    fn feedback_about_packets_never_sent_does_nothing() {
        let mut bandwidth = Bandwidth::default();
        let feedback = TransportLayerCc {
            base_sequence_number: 40_000,
            packet_status_count: u16::MAX,
            packet_chunks: vec![PacketStatusChunk::RunLengthChunk(RunLengthChunk {
                type_tcc: StatusChunkTypeTcc::RunLengthChunk,
                packet_status_symbol: SymbolTypeTcc::PacketReceivedSmallDelta,
                run_length: 8_191,
            })],
            ..TransportLayerCc::default()
        };
        assert_eq!(bandwidth.note_feedback(Instant::now(), &feedback), None);
        assert_eq!(bandwidth.received, 0);
    }
}

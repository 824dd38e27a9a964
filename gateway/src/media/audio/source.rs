//! One source on its way into a mix: its jitter buffer, its decoder, and how loud it is.

use std::ops::RangeInclusive;

use bytes::Bytes;
use wzp_proto::codec::Codec;

use crate::media::audio::decode::Voice;
use crate::media::audio::jitter::{Counters, Jitter, Next};
use crate::media::audio::{BLOCK, Block, level};
use crate::media::frame::RoomTime;

/// Opus packets of up to this many bytes say that silence begins (DTX): nothing may follow for a while.
const DTX: usize = 2;
/// Late blocks in a row that are concealed before the source counts as pausing …
const CONCEALED: u32 = 3;
/// … and after DTX, where libopus makes comfort noise.
const CONCEALED_DTX: u32 = 20;

/// So much sound is compared to find where a voice goes on, samples: 10 ms.
const LIKE: usize = BLOCK / 2;
/// What comes out of a new Opus stream is this much older than what goes in, samples: 6.5 ms.
const LOOKAHEAD: usize = 312;

/// A source, 20 ms after 20 ms.
#[derive(Debug)]
pub struct Source {
    jitter: Jitter,
    voice: Voice,
    decoded: Vec<f32>,
    block: Block,
    level: u8,
    late: u32,
    dtx: bool,
    undecodable: u64,
}

impl Source {
    /// A source that has not sent anything yet. `seed` makes its comfort noise.
    pub fn new(seed: u32) -> Self {
        Self {
            jitter: Jitter::default(),
            voice: Voice::new(seed),
            decoded: Vec::with_capacity(BLOCK * 4),
            block: [0.0; BLOCK],
            level: 127,
            late: 0,
            dtx: false,
            undecodable: 0,
        }
    }

    /// Takes a packet; see [`Jitter::push`].
    pub fn push(&mut self, codec: Codec, payload: Bytes, ticks: u64, index: u64, now: RoomTime) {
        self.jitter.push(codec, payload, ticks, index, now);
    }

    /// Moves on by 20 ms: [`Source::block`] and [`Source::level`] are then those of the block that sounds now. False if the
    /// source is silent because it sends nothing.
    pub fn advance(&mut self, now: RoomTime) -> bool {
        let mut sounds = self.fill(BLOCK, now);
        self.take_block(0);
        if sounds && self.jitter.is_late(self.decoded.len(), now) {
            // Two blocks in the time of one, each fading into the other: the delay gets shorter and nobody hears it.
            sounds = self.fill(BLOCK, now);
            self.take_block(1);
        }
        self.level = if sounds { level(&self.block) } else { 127 };
        sounds
    }

    /// Lets the current block be the best continuation of all that has come, for listeners who have heard all of it already and
    /// now take an Opus stream: of the last 20 to 37 ms that came, the block begins where the sound before is most like the end of what came, so
    /// that a voice goes on in its own rhythm. `previous` sounded before the block that is current until now. How the 20 ms before the new
    /// one sounded, which may begin in it.
    pub fn splice(&mut self, previous: &Block, now: RoomTime) -> Block {
        self.decode_waiting(now);
        let mut came = self.block.to_vec();
        came.append(&mut self.decoded);
        let at = continuation(&came);
        let all: Vec<f32> = previous.iter().chain(&came).copied().collect();
        let part = |from: usize| -> Block { std::array::from_fn(|n| all.get(from + n).copied().unwrap_or(0.0)) };
        self.block = part(BLOCK + at);
        self.decoded.extend(came.iter().skip(at + BLOCK));
        part(at)
    }

    /// How many samples before the current block listeners who have heard all that has come should go on in an Opus stream, so
    /// that the voice keeps its rhythm: up to 10 ms. Others hear the block as it is. `sounded` ends with the current block.
    pub fn lag(&mut self, sounded: &[f32], now: RoomTime) -> usize {
        self.decode_waiting(now);
        let came: Vec<f32> = self.block.iter().chain(&self.decoded).copied().collect();
        let last = sounded.len().saturating_sub(BLOCK + LOOKAHEAD);
        likest(sounded, last.saturating_sub(LIKE)..=last, &came).map_or(0, |at| last - at)
    }

    /// The block that sounds now.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// How loud it is, −dBov.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Log index of the packet that is the first not to have sounded; `None` if all that came has.
    pub fn next_index(&self) -> Option<u64> {
        self.jitter.next_index()
    }

    /// Samples that wait, decoded or not.
    pub fn waiting(&self) -> usize {
        self.jitter.held() + self.decoded.len()
    }

    /// What the jitter buffer did.
    pub fn counters(&self) -> Counters {
        self.jitter.counters()
    }

    /// Packets that no decoder took.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// Decodes whatever waits. What sounds next stays the same.
    fn decode_waiting(&mut self, now: RoomTime) {
        while self.jitter.held() > 0 {
            match self.jitter.next(now) {
                Next::Packet(packet) => {
                    if self
                        .voice
                        .decode(packet.codec, &packet.payload, &mut self.decoded)
                        .is_err()
                    {
                        self.undecodable += 1;
                        self.voice.conceal(BLOCK, &mut self.decoded);
                    }
                }
                Next::Lost(lost) => self.voice.conceal(lost, &mut self.decoded),
                Next::Late | Next::Pause => break,
            }
        }
    }

    /// Decodes until `samples` are there; false if there is nothing but silence.
    fn fill(&mut self, samples: usize, now: RoomTime) -> bool {
        let mut sounds = !self.decoded.is_empty();
        while self.decoded.len() < samples {
            match self.jitter.next(now) {
                Next::Packet(packet) => {
                    sounds = true;
                    self.late = 0;
                    self.dtx = packet.codec.is_opus() && packet.payload.len() <= DTX;
                    if let Err(error) = self.voice.decode(packet.codec, &packet.payload, &mut self.decoded) {
                        tracing::trace!(%error, "a sound packet was not decoded");
                        self.undecodable += 1;
                        self.voice.conceal(BLOCK, &mut self.decoded);
                    }
                }
                Next::Lost(lost) => {
                    sounds = true;
                    self.voice.conceal(lost, &mut self.decoded);
                }
                Next::Late => {
                    self.late += 1;
                    sounds = true;
                    let missing = samples - self.decoded.len();
                    self.voice.conceal(missing, &mut self.decoded);
                    if self.late > if self.dtx { CONCEALED_DTX } else { CONCEALED } {
                        self.jitter.pause();
                    }
                }
                Next::Pause => {
                    self.late = 0;
                    self.decoded.resize(samples, 0.0);
                }
            }
        }
        sounds
    }

    /// Makes the next decoded block the current one, or fades from the current one to it.
    fn take_block(&mut self, fade: usize) {
        for (n, sample) in self.decoded.drain(..BLOCK.min(self.decoded.len())).enumerate() {
            let Some(current) = self.block.get_mut(n) else { break };
            *current = if fade == 0 {
                sample
            } else {
                let share = n as f32 / BLOCK as f32;
                *current * (1.0 - share) + sample * share
            };
        }
    }
}

/// Where to go on in `samples` so that a whole block is left and, [`LOOKAHEAD`] earlier, the 10 ms before are most like the last
/// 10 ms; 0 if there is too little to choose from.
fn continuation(samples: &[f32]) -> usize {
    let last = samples.len().saturating_sub(BLOCK + LOOKAHEAD);
    let first = last.saturating_sub(BLOCK / 2).max(LIKE);
    likest(samples, first..=last, samples).map_or(0, |at| at + LOOKAHEAD)
}

/// Before which of these places the 10 ms are most like the last 10 ms of `came`.
fn likest(samples: &[f32], places: RangeInclusive<usize>, came: &[f32]) -> Option<usize> {
    let end = came.len().checked_sub(LIKE).and_then(|from| came.get(from..))?;
    let likeness = |at: usize| {
        let before = at.checked_sub(LIKE).and_then(|from| samples.get(from..at));
        let Some(before) = before else { return f32::MIN };
        let (mut dot, mut power) = (0.0, 1e-9);
        for (a, b) in before.iter().zip(end) {
            dot += a * b;
            power += a * a;
        }
        dot / f32::sqrt(power)
    };
    places.max_by(|a, b| likeness(*a).total_cmp(&likeness(*b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::audio::encode::MixEncoder;
    use crate::media::audio::tests::{amplitude, tone};

    /// Sends a tone; `lost` says which packets do not come, `delay_ms` how late packet n is. What sounds, and the source.
    fn sound(packets: usize, lost: impl Fn(usize) -> bool, delay_ms: impl Fn(usize) -> u64) -> (Vec<f32>, Source) {
        let mut encoder = MixEncoder::new().unwrap();
        let mut source = Source::new(1);
        let mut out = Vec::new();
        let coded: Vec<_> = (0..packets)
            .map(|n| {
                encoder
                    .encode(&tone(440.0, 0.5, n * BLOCK, BLOCK).try_into().unwrap())
                    .unwrap()
            })
            .collect();
        let mut next = 0;
        for ms in 0..packets as u64 * 20 {
            let now = RoomTime::from_millis(ms);
            while next < packets && next as u64 * 20 + delay_ms(next) <= ms {
                if !lost(next) {
                    source.push(Codec::Opus24k, coded[next].clone(), next as u64 * 960, next as u64, now);
                }
                next += 1;
            }
            if ms % 20 == 10 {
                source.advance(now);
                out.extend_from_slice(source.block());
            }
        }
        (out, source)
    }

    #[test]
    fn tone_comes_through_untouched_and_with_its_level() {
        let (out, source) = sound(100, |_| false, |_| 0);
        assert!((amplitude(&out[9_600..], 440.0) - 0.5).abs() < 0.05);
        assert!((8..=10).contains(&source.level()), "{}", source.level());
        assert!(source.waiting() <= 2 * BLOCK);
    }

    #[test]
    fn every_tenth_packet_lost_is_hardly_heard() {
        let (out, source) = sound(200, |n| n % 10 == 9, |_| 0);
        assert!(amplitude(&out[9_600..], 440.0) > 0.4);
        assert!(source.waiting() <= 3 * BLOCK, "loss is not delay: {}", source.waiting());
    }

    #[test]
    fn jitter_of_60_ms_is_taken_up_without_loss() {
        let (out, source) = sound(300, |_| false, |n| if n % 7 == 3 { 60 } else { 0 });
        assert_eq!(source.counters().dropped + source.counters().refused, 0);
        assert!(amplitude(&out[48_000..], 440.0) > 0.4);
        assert!(source.waiting() <= 6 * BLOCK);
        let quiet = out[48_000..].chunks(480).filter(|part| level(part) > 20).count();
        assert_eq!(quiet, 0, "no hole after the first second");
    }

    #[test]
    fn splice_goes_on_in_the_rhythm_of_what_came() {
        for hz in [110.0, 223.0, 440.0, 1_234.0] {
            let came = tone(hz, 0.5, 0, 2 * BLOCK);
            let at = continuation(&came);
            assert!((BLOCK..=BLOCK * 3 / 2).contains(&(came.len() - at)));
            let at = at - LOOKAHEAD;
            // The next sample after the splice is what would have come after all that came.
            let (wanted, got) = (tone(hz, 0.5, 2 * BLOCK, 200), &came[at..at + 200]);
            let off = wanted.iter().zip(got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 0.1, "{hz}: {off}");
        }
        assert_eq!(continuation(&[]), 0);
        assert_eq!(continuation(&[0.0; 100]), 0);
    }

    #[test]
    fn what_sounded_before_a_splice_is_never_missing() {
        let hz = 440.0;
        let mut source = Source::new(1);
        source.block = tone(hz, 0.5, BLOCK, BLOCK).try_into().unwrap();
        source.decoded = tone(hz, 0.5, 2 * BLOCK, BLOCK);
        let previous: Block = tone(hz, 0.5, 0, BLOCK).try_into().unwrap();
        let before = source.splice(&previous, RoomTime(0));
        let around = [before, *source.block()].concat();
        for at in (0..around.len() - 240).step_by(60) {
            let loud = amplitude(&around[at..at + 240], hz);
            assert!((0.4..0.6).contains(&loud), "{loud} at {at}");
        }
    }

    #[test]
    fn source_that_stops_is_silent_soon() {
        let (_, mut source) = sound(20, |_| false, |_| 0);
        for n in 0..10 {
            source.advance(RoomTime::from_millis(400 + n * 20));
        }
        assert!(!source.advance(RoomTime::from_millis(600)));
        assert_eq!(source.level(), 127);
    }
}

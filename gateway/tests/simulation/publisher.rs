//! A native publisher: pictures by its own clock, keyframes and packets again if it answers such requests.

use std::time::Duration;

use bytes::Bytes;
use wzp_proto::codec::Codec;
use wzp_proto::header::{Flags, MediaHeader, MediaType};
use wzp_proto::packet::encode_datagram;
use wzp_proto::video::{FRAGMENT_PAYLOAD, fragment_header, fragments};
use wzp_proto::{SentPackets, Signal};

use crate::links::Random;

const SPS: &[u8] = &[
    0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03,
    0x00, 0x3c, 0x0f, 0x16, 0x2e, 0x48,
];
const PPS: &[u8] = &[0x68, 0xcb, 0x83, 0xcb, 0x20];
const STREAM: u8 = 3;

/// An access unit that carries its number.
fn access_unit(number: u32, keyframe: bool, filler: usize) -> Bytes {
    let mut unit = Vec::with_capacity(filler + 64);
    let slice: &[u8] = if keyframe { &[0x65, 0x88] } else { &[0x41, 0x9a] };
    for nal_unit in [SPS, PPS, slice].into_iter().skip(if keyframe { 0 } else { 2 }) {
        unit.extend_from_slice(&[0, 0, 0, 1]);
        unit.extend_from_slice(nal_unit);
    }
    // Seven bits each, so that it never looks like a start code.
    unit.extend((0..4).map(|n| 0x80 | (number >> (7 * n)) as u8));
    unit.resize(unit.len() + filler, 0x55);
    unit.into()
}

/// The number of an access unit, and whether it is a keyframe.
pub fn number_of(unit: &[u8]) -> (u32, bool) {
    const KEYFRAME: usize = 4 + SPS.len() + 4 + PPS.len() + 4;
    let keyframe = unit[4] == SPS[0];
    let at = if keyframe { KEYFRAME } else { 4 };
    assert_eq!(unit[at..at + 2], if keyframe { [0x65, 0x88] } else { [0x41, 0x9a] });
    let bits = unit[at + 2..at + 6].iter().enumerate();
    let number = bits.fold(0, |number, (n, byte)| number | u32::from(byte & 0x7f) << (7 * n));
    (number, keyframe)
}

#[derive(Debug)]
pub struct Publisher {
    answers_keyframes: bool,
    answers_nacks: bool,
    /// Frames from one keyframe of its own to the next.
    group: u32,
    /// How much faster its clock goes, millionths.
    drift: i64,
    random: Random,
    history: SentPackets,
    number: u32,
    seq: u32,
    since_keyframe: u32,
    keyframe_wanted: bool,
}

impl Publisher {
    pub fn new(answers_keyframes: bool, answers_nacks: bool, group: u32, drift: i64, random: Random) -> Self {
        let mut random = random;
        Self {
            answers_keyframes,
            answers_nacks,
            group,
            drift,
            history: SentPackets::default(),
            number: 0,
            // Not far from where 32 bits end.
            seq: u32::MAX - random.below(2000) as u32,
            since_keyframe: 0,
            keyframe_wanted: true,
            random,
        }
    }

    /// The number of the newest frame.
    pub fn newest(&self) -> u32 {
        self.number.saturating_sub(1)
    }

    pub fn want_keyframe(&mut self) {
        self.keyframe_wanted = true;
    }

    /// The datagrams of the frame that is due, if one is.
    pub fn frame(&mut self, now: u64) -> Vec<Bytes> {
        let own = now as i64 + now as i64 * self.drift / 1_000_000;
        if own < i64::from(self.number) * 33_333 {
            return Vec::new();
        }
        let keyframe = std::mem::take(&mut self.keyframe_wanted) || self.since_keyframe >= self.group;
        self.since_keyframe = if keyframe { 1 } else { self.since_keyframe + 1 };
        let filler = match keyframe {
            true => self.random.between(4_000, 20_000),
            false => self.random.between(100, 4_000),
        };
        let unit = access_unit(self.number, keyframe, filler as usize);
        let parts = fragments(&unit, None, FRAGMENT_PAYLOAD).expect("it is small enough");
        let header = MediaHeader {
            flags: if keyframe { Flags::KEYFRAME } else { Flags::empty() },
            media_type: MediaType::Video,
            codec: Codec::H264Baseline,
            stream_id: STREAM,
            fec_ratio: 0,
            seq: self.seq,
            timestamp: self.number * 100 / 3,
            fec_block: 0,
        };
        self.number += 1;
        self.seq = self.seq.wrapping_add(parts.len() as u32);
        let mut datagrams = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            let header = fragment_header(&header, i as u8, parts.len() as u8);
            let datagram = encode_datagram(&header, part);
            self.history
                .insert(header.seq, datagram.clone(), Duration::from_micros(now));
            datagrams.push(datagram);
        }
        datagrams
    }

    /// What it sends upon a signal.
    pub fn hear(&mut self, signal: &Signal, now: u64) -> Vec<Bytes> {
        match signal {
            Signal::PictureLossIndication { stream_id, .. } => {
                assert_eq!(*stream_id, STREAM);
                self.keyframe_wanted |= self.answers_keyframes;
                Vec::new()
            }
            Signal::Nack { seqs, .. } if self.answers_nacks => self.history.answer(seqs, Duration::from_micros(now)),
            _ => Vec::new(),
        }
    }
}

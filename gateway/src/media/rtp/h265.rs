//! The RTP payload format of H.265 (RFC 7798), both ways: single NAL units, aggregation packets, fragmentation units.
//! Without decoding order numbers: no offer that asks for them (`sprop-max-don-diff`) fits talking.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::depacketize::Damage;
use super::packetize::{MIN_MTU, PacketizeError, RtpPayload, with_marker};
use crate::media::h264::{MAX_NAL_UNITS, nal_units};
use crate::media::h265::{Normalizer, nal_unit_type};

/// Bytes of a NAL unit's header, and of a payload's.
const HEADER: usize = 2;
const VPS: u8 = 32;
const PPS: u8 = 34;
const DELIMITER: u8 = 35;
const FILLER: u8 = 38;
const PREFIX_SEI: u8 = 39;
const AGGREGATION: u8 = 48;
const FRAGMENT: u8 = 49;
const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// An access unit in Annex B to payloads of at most `mtu` bytes: parameter sets and SEI together, small NAL units as they
/// are, larger ones in fragments. Access unit delimiters and filler stay behind.
///
/// # Errors
/// [`PacketizeError::Empty`].
pub fn packetize(access_unit: &Bytes, mtu: usize) -> Result<Vec<RtpPayload>, PacketizeError> {
    let mtu = mtu.max(MIN_MTU);
    let mut payloads = Vec::with_capacity(access_unit.len() / mtu + 4);
    let mut small: Vec<Bytes> = Vec::new();
    for unit in nal_units(access_unit).filter(|unit| unit.len() > HEADER) {
        let kind = nal_unit_type(&unit);
        if matches!(kind, DELIMITER | FILLER) || kind >= AGGREGATION {
            continue;
        }
        let aggregates = matches!(kind, VPS..=PPS | PREFIX_SEI);
        if !aggregates || aggregate_size(&small) + 2 + unit.len() > mtu {
            flush_aggregate(&mut small, &mut payloads);
        }
        if aggregates && HEADER + 2 + unit.len() <= mtu {
            small.push(unit);
        } else if unit.len() <= mtu {
            payloads.push(unit);
        } else {
            fragment(&unit, mtu, &mut payloads);
        }
    }
    flush_aggregate(&mut small, &mut payloads);
    with_marker(payloads)
}

fn aggregate_size(units: &[Bytes]) -> usize {
    HEADER + units.iter().map(|unit| 2 + unit.len()).sum::<usize>()
}

fn flush_aggregate(units: &mut Vec<Bytes>, payloads: &mut Vec<Bytes>) {
    match units.as_slice() {
        [] => return,
        [single] => payloads.push(single.clone()),
        several => {
            let mut aggregate = BytesMut::with_capacity(aggregate_size(several));
            // Layer and temporal id are the lowest of those inside (section 4.4.2).
            let lowest = |value: fn(&Bytes) -> u8| several.iter().map(value).min().unwrap_or(0);
            let layer = lowest(|unit| (unit[0] & 1) << 5 | unit[1] >> 3);
            let temporal = lowest(|unit| unit[1] & 7);
            aggregate.put_slice(&[AGGREGATION << 1 | layer >> 5, layer << 3 | temporal]);
            for unit in several {
                aggregate.put_u16(unit.len() as u16);
                aggregate.extend_from_slice(unit);
            }
            payloads.push(aggregate.freeze());
        }
    }
    units.clear();
}

fn fragment(unit: &Bytes, mtu: usize, payloads: &mut Vec<Bytes>) {
    let body = &unit[HEADER..];
    let room = mtu - HEADER - 1;
    let count = body.len().div_ceil(room);
    let mut all = BytesMut::with_capacity(body.len() + (HEADER + 1) * count);
    for (index, part) in body.chunks(room).enumerate() {
        let start = u8::from(index == 0) << 7;
        let end = u8::from(index + 1 == count) << 6;
        all.put_slice(&[
            unit[0] & 0x81 | FRAGMENT << 1,
            unit[1],
            start | end | nal_unit_type(unit),
        ]);
        all.extend_from_slice(part);
        payloads.push(all.split().freeze());
    }
}

/// Whether a NAL unit may be the first of an access unit (ITU-T H.265, section 7.4.2.4.4).
fn starts_access_unit(unit: &[u8]) -> bool {
    match nal_unit_type(unit) {
        VPS..=DELIMITER | PREFIX_SEI => true,
        // first_slice_segment_in_pic_flag
        0..=31 => unit.get(HEADER).is_some_and(|byte| byte & 0x80 != 0),
        _ => false,
    }
}

/// Puts the payloads of one stream together again.
#[derive(Default)]
pub(super) struct Assembler {
    /// A fragmented unit is open.
    fragment: bool,
    parameter_sets: Normalizer,
}

impl Assembler {
    /// A new frame begins.
    pub fn start(&mut self) {
        self.fragment = false;
    }

    /// Whether a payload may be the first of its frame.
    pub fn is_start(payload: &Bytes) -> bool {
        match nal_unit_type(payload) {
            AGGREGATION => payload.get(HEADER + 2..).is_some_and(starts_access_unit),
            FRAGMENT => match payload[..] {
                [high, low, header, first, ..] => {
                    header & 0x80 != 0 && starts_access_unit(&[high & 0x81 | (header & 0x3f) << 1, low, first])
                }
                _ => false,
            },
            _ => starts_access_unit(payload),
        }
    }

    /// Adds a payload's NAL units to `out`, in Annex B.
    pub fn append(&mut self, payload: &Bytes, out: &mut BytesMut) -> Result<(), Damage> {
        if payload.len() <= HEADER {
            return Err(Damage::Malformed("a payload without NAL unit"));
        }
        let kind = nal_unit_type(payload);
        if self.fragment && kind != FRAGMENT {
            return Err(Damage::Malformed("a fragmented NAL unit without its end"));
        }
        match kind {
            AGGREGATION => {
                let mut rest = &payload[HEADER..];
                while let [high, low, tail @ ..] = rest {
                    let size = usize::from(u16::from_be_bytes([*high, *low]));
                    let unit = tail.get(..size).filter(|unit| unit.len() > HEADER);
                    let unit = unit.ok_or(Damage::Malformed("the sizes of an aggregation do not add up"))?;
                    out.extend_from_slice(&START_CODE);
                    out.extend_from_slice(unit);
                    rest = &tail[size..];
                }
                if !rest.is_empty() {
                    return Err(Damage::Malformed("the sizes of an aggregation do not add up"));
                }
            }
            FRAGMENT => {
                let header = payload[HEADER];
                let (start, end) = (header & 0x80 != 0, header & 0x40 != 0);
                if start == self.fragment {
                    return Err(Damage::Malformed("fragments of a NAL unit out of turn"));
                }
                if start {
                    out.extend_from_slice(&START_CODE);
                    out.put_slice(&[payload[0] & 0x81 | (header & 0x3f) << 1, payload[1]]);
                }
                out.extend_from_slice(&payload[HEADER + 1..]);
                self.fragment = !end;
            }
            0..AGGREGATION => {
                out.extend_from_slice(&START_CODE);
                out.extend_from_slice(payload);
            }
            _ => return Err(Damage::Malformed("a payload of a kind that was not agreed on")),
        }
        Ok(())
    }

    /// The frame, parameter sets before every keyframe, and whether it is one; `None`: no picture in it.
    pub fn finish(&mut self, data: &Bytes) -> Result<Option<(Bytes, bool)>, Damage> {
        if self.fragment {
            return Err(Damage::Malformed("a fragmented NAL unit without its end"));
        }
        if nal_units(data).nth(MAX_NAL_UNITS).is_some() {
            return Err(Damage::TooManyUnits(MAX_NAL_UNITS));
        }
        match self.parameter_sets.push(data) {
            Some(frame) => Ok(Some(frame)),
            None if nal_units(data).any(|unit| nal_unit_type(&unit) < VPS) => Err(Damage::NoKeyframe),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::rtp::depacketize::{Depacketizer, Output};

    /// A NAL unit whose body can hold no start code.
    fn unit(kind: u8, first: u8, length: usize) -> Vec<u8> {
        let mut unit = vec![0, 0, 0, 1, kind << 1, 1, first];
        unit.extend((0..length).map(|at| at as u8 | 1));
        unit
    }

    fn keyframe(slices: &[usize]) -> Bytes {
        let mut whole = [unit(32, 0x0c, 20), unit(33, 1, 60), unit(34, 0xc1, 7)].concat();
        for (index, length) in slices.iter().enumerate() {
            whole.extend(unit(19, if index == 0 { 0xaf } else { 0x2f }, *length));
        }
        whole.into()
    }

    fn delta(slices: &[usize]) -> Bytes {
        let units = slices.iter().enumerate();
        let units = units.map(|(index, length)| unit(1, if index == 0 { 0xd0 } else { 0x50 }, *length));
        units.flatten().collect::<Vec<u8>>().into()
    }

    fn outputs(depacketizer: &mut Depacketizer) -> Vec<Output> {
        std::iter::from_fn(|| depacketizer.poll()).collect()
    }

    /// Sends frames through both ends; `lost` leaves a packet out.
    fn run(frames: &[Bytes], mtu: usize, lost: Option<u64>) -> Vec<Output> {
        let mut depacketizer = Depacketizer::h265();
        let mut seq = 0;
        for (index, frame) in frames.iter().enumerate() {
            for payload in packetize(frame, mtu).unwrap() {
                assert!(payload.bytes.len() <= mtu);
                if lost != Some(seq) {
                    depacketizer.push(seq, index as u32 * 3000, payload.marker, &payload.bytes);
                }
                seq += 1;
            }
        }
        outputs(&mut depacketizer)
    }

    fn frames(outputs: &[Output]) -> Vec<(Bytes, bool)> {
        let frame = |output: &Output| match output {
            Output::Frame(unit) => Some((unit.data.clone(), unit.keyframe)),
            Output::Damaged { .. } => None,
        };
        outputs.iter().filter_map(frame).collect()
    }

    #[test]
    fn parameter_sets_share_a_packet_and_large_slices_are_cut() {
        let payloads = packetize(&keyframe(&[3_000, 100]), 1_200).unwrap();
        let kinds: Vec<u8> = payloads.iter().map(|payload| nal_unit_type(&payload.bytes)).collect();
        assert_eq!(kinds, [AGGREGATION, FRAGMENT, FRAGMENT, FRAGMENT, 19]);
        let markers: Vec<bool> = payloads.iter().map(|payload| payload.marker).collect();
        assert_eq!(markers, [false, false, false, false, true]);
        assert_eq!(payloads[1].bytes[HEADER], 0x80 | 19);
        assert_eq!(payloads[2].bytes[HEADER], 19);
        assert_eq!(payloads[3].bytes[HEADER], 0x40 | 19);
    }

    #[test]
    fn a_lost_packet_costs_all_up_to_the_next_keyframe() {
        let sent = [
            keyframe(&[3_000]),
            delta(&[50]),
            delta(&[50]),
            keyframe(&[40]),
            delta(&[50]),
        ];
        let outputs = run(&sent, 1_200, Some(1));
        let good: Vec<_> = [(sent[3].clone(), true), (sent[4].clone(), false)].into();
        assert_eq!(frames(&outputs), good);
        assert_eq!(outputs.len() - good.len(), 3);
    }

    #[test]
    fn a_keyframe_gets_the_parameter_sets_of_before() {
        let bare = Bytes::from(unit(19, 0xaf, 30));
        let outputs = run(&[keyframe(&[40]), bare], 1_200, None);
        assert_eq!(frames(&outputs)[1], (keyframe(&[30]), true));
    }

    #[test]
    fn a_frame_of_more_parameter_sets_and_slices_than_an_encoder_makes_is_dropped() {
        // Three parameter sets are among them.
        let most = MAX_NAL_UNITS - 3;
        let (good, bad) = (keyframe(&vec![10; most]), keyframe(&vec![10; most + 1]));
        let sets = [unit(33, 1, 2).repeat(MAX_NAL_UNITS), keyframe(&[10]).to_vec()].concat();
        assert_eq!(frames(&run(std::slice::from_ref(&good), 1_200, None)), [(good, true)]);
        for bad in [bad, sets.into()] {
            let cause = Damage::TooManyUnits(MAX_NAL_UNITS);
            assert_eq!(run(&[bad], 1_200, None), [Output::Damaged { timestamp: 0, cause }]);
        }
    }

    #[test]
    fn what_was_not_agreed_on_is_refused() {
        let mut depacketizer = Depacketizer::h265();
        let paci = Bytes::from(vec![50 << 1, 1, 0, 0, 0]);
        let cut = Bytes::from(vec![AGGREGATION << 1, 1, 0, 9, 2, 1]);
        for (seq, payload) in [paci, cut, Bytes::from(vec![FRAGMENT << 1, 1])].iter().enumerate() {
            depacketizer.push(seq as u64, seq as u32, true, payload);
        }
        let outputs = outputs(&mut depacketizer);
        assert_eq!(outputs.len(), 3);
        assert!(frames(&outputs).is_empty());
    }

    proptest! {
        #[test]
        fn frames_arrive_as_they_were_sent(
            slices in proptest::collection::vec(proptest::collection::vec(1..5_000usize, 1..4), 1..6),
            mtu in 64..1_500usize,
        ) {
            let mut sent = vec![keyframe(&slices[0])];
            sent.extend(slices[1..].iter().map(|slices| delta(slices)));
            let outputs = run(&sent, mtu, None);
            let expected: Vec<_> = sent.into_iter().enumerate().map(|(index, frame)| (frame, index == 0)).collect();
            prop_assert_eq!(frames(&outputs), expected);
        }

        #[test]
        fn any_payloads_are_taken_or_refused(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..8)) {
            let mut depacketizer = Depacketizer::h265();
            for (seq, payload) in payloads.into_iter().enumerate() {
                depacketizer.push(seq as u64, seq as u32 / 2, seq % 2 == 1, &Bytes::from(payload));
            }
            outputs(&mut depacketizer);
        }
    }
}

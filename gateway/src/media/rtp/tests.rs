//! Packetizers and depacketizers against each other, and against garbage.

use bytes::{BufMut as _, Bytes, BytesMut};
use proptest::prelude::*;

use super::av1;
use super::depacketize::{AccessUnit, Damage, Depacketizer, MAX_ACCESS_UNIT, Output};
use super::h264::{self, NalUnits};
use super::packetize::{self, RtpPayload};
use crate::media::av1::MAX_OBUS;
use crate::media::h264::MAX_NAL_UNITS;

/// x264, baseline, 640x480.
const SPS: &[u8] = &[
    0x67, 0x42, 0xc0, 0x16, 0xd9, 0x00, 0xa0, 0x3d, 0xb0, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03, 0x00,
    0x30, 0x0f, 0x16, 0x2e, 0x48,
];
const PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];

fn annexb(units: &[&[u8]]) -> Bytes {
    let mut stream = BytesMut::new();
    for unit in units {
        stream.extend_from_slice(&[0, 0, 0, 1]);
        stream.extend_from_slice(unit);
    }
    stream.freeze()
}

/// A slice of `size` bytes; `first` when it begins at macroblock 0.
fn slice(header: u8, first: bool, size: usize, fill: u8) -> Vec<u8> {
    let mut unit = vec![fill | 1; size.max(2)];
    unit[0] = header;
    unit[1] = if first { 0x88 } else { 0x48 };
    unit
}

fn keyframe(size: usize) -> Bytes {
    let (a, b) = (slice(0x65, true, size, 2), slice(0x65, false, size / 2, 4));
    annexb(&[SPS, PPS, &a, &b])
}

fn delta(size: usize, fill: u8) -> Bytes {
    let (a, b) = (slice(0x61, true, size, fill), slice(0x61, false, size / 3, fill));
    annexb(&[&a, &b])
}

struct Feeder {
    depacketizer: Depacketizer,
    seq: u64,
}

impl Feeder {
    fn new(depacketizer: Depacketizer) -> Self {
        Self {
            depacketizer,
            seq: 65_536,
        }
    }

    /// Feeds all payloads but those at `lost`.
    fn feed(&mut self, timestamp: u32, payloads: &[RtpPayload], lost: &[usize]) -> Vec<Output> {
        for (index, payload) in payloads.iter().enumerate() {
            if !lost.contains(&index) {
                self.depacketizer
                    .push(self.seq, timestamp, payload.marker, &payload.bytes);
            }
            self.seq += 1;
        }
        std::iter::from_fn(|| self.depacketizer.poll()).collect()
    }
}

fn frame(outputs: &[Output]) -> &AccessUnit {
    match outputs {
        [Output::Frame(unit)] => unit,
        other => panic!("expected one frame, got {other:?}"),
    }
}

fn h264_payloads(unit: &Bytes) -> Vec<RtpPayload> {
    packetize::h264(unit, 1_200).unwrap()
}

#[test]
fn several_slices_make_one_access_unit() {
    let mut feeder = Feeder::new(Depacketizer::h264());
    let unit = keyframe(5_000);
    let outputs = feeder.feed(1, &h264_payloads(&unit), &[]);
    assert_eq!(frame(&outputs).data, unit);
    assert!(frame(&outputs).keyframe);
    assert_eq!(frame(&outputs).size, Some((640, 480)));
    let next = delta(100, 8);
    let outputs = feeder.feed(2, &h264_payloads(&next), &[]);
    assert_eq!(frame(&outputs).data, next);
    assert!(!frame(&outputs).keyframe);
}

#[test]
fn parameter_sets_travel_as_one_aggregate() {
    let payloads = h264_payloads(&keyframe(3_000));
    assert_eq!(h264::unit_type(&payloads[0].bytes), Some(h264::STAP_A));
    assert_eq!(h264::unit_type(&payloads[1].bytes), Some(h264::FU_A));
    assert!(payloads.iter().rev().skip(1).all(|payload| !payload.marker));
    assert!(payloads.last().unwrap().marker);
}

#[test]
fn a_timestamp_change_ends_a_frame_without_marker() {
    let mut feeder = Feeder::new(Depacketizer::h264());
    let mut payloads = h264_payloads(&keyframe(100));
    payloads.last_mut().unwrap().marker = false;
    assert!(feeder.feed(1, &payloads, &[]).is_empty());
    let outputs = feeder.feed(2, &h264_payloads(&delta(50, 2)), &[]);
    assert_eq!(outputs.len(), 2);
    assert!(matches!(&outputs[0], Output::Frame(unit) if unit.keyframe && unit.timestamp == 1));
    assert!(matches!(&outputs[1], Output::Frame(unit) if !unit.keyframe && unit.timestamp == 2));
}

#[test]
fn an_idr_without_parameter_sets_gets_the_remembered_ones() {
    let mut feeder = Feeder::new(Depacketizer::h264());
    feeder.feed(1, &h264_payloads(&keyframe(100)), &[]);
    let bare = slice(0x65, true, 300, 6);
    let outputs = feeder.feed(2, &h264_payloads(&annexb(&[&bare])), &[]);
    assert_eq!(frame(&outputs).data, annexb(&[SPS, PPS, &bare]));
    let outputs = feeder.feed(3, &h264_payloads(&annexb(&[SPS, &bare])), &[]);
    assert_eq!(frame(&outputs).data, annexb(&[SPS, PPS, &bare]));
}

#[test]
fn an_idr_before_any_parameter_set_is_no_keyframe() {
    let mut feeder = Feeder::new(Depacketizer::h264());
    let bare = slice(0x65, true, 300, 6);
    let outputs = feeder.feed(1, &h264_payloads(&annexb(&[&bare])), &[]);
    assert_eq!(
        outputs,
        [Output::Damaged {
            timestamp: 1,
            cause: Damage::NoKeyframe
        }]
    );
}

#[test]
fn a_lost_packet_costs_everything_up_to_the_next_keyframe() {
    let mut feeder = Feeder::new(Depacketizer::h264());
    feeder.feed(1, &h264_payloads(&keyframe(3_000)), &[]);
    let outputs = feeder.feed(2, &h264_payloads(&delta(3_000, 2)), &[1]);
    assert_eq!(
        outputs,
        [Output::Damaged {
            timestamp: 2,
            cause: Damage::PacketLost
        }]
    );
    let outputs = feeder.feed(3, &h264_payloads(&delta(300, 2)), &[]);
    assert_eq!(
        outputs,
        [Output::Damaged {
            timestamp: 3,
            cause: Damage::NoKeyframe
        }]
    );
    assert!(feeder.depacketizer.needs_keyframe());
    let unit = keyframe(3_000);
    assert_eq!(frame(&feeder.feed(4, &h264_payloads(&unit), &[])).data, unit);
    assert!(!feeder.depacketizer.needs_keyframe());
}

#[test]
fn a_lost_end_damages_the_frame_but_not_the_keyframe_behind_it() {
    let mut feeder = Feeder::new(Depacketizer::h264());
    feeder.feed(1, &h264_payloads(&keyframe(3_000)), &[]);
    let payloads = h264_payloads(&delta(3_000, 2));
    assert!(feeder.feed(2, &payloads, &[payloads.len() - 1]).is_empty());
    let unit = keyframe(100);
    let outputs = feeder.feed(3, &h264_payloads(&unit), &[]);
    assert_eq!(
        outputs[0],
        Output::Damaged {
            timestamp: 2,
            cause: Damage::PacketLost
        }
    );
    assert_eq!(frame(&outputs[1..]).data, unit);
}

#[test]
fn a_second_slice_does_not_pass_for_the_start_of_a_frame() {
    let mut feeder = Feeder::new(Depacketizer::h264());
    feeder.feed(1, &h264_payloads(&keyframe(100)), &[]);
    // The first slice is one packet, and it is the one that is lost.
    let (a, b) = (slice(0x65, true, 100, 2), slice(0x65, false, 100, 4));
    let outputs = feeder.feed(2, &h264_payloads(&annexb(&[&a, &b])), &[0]);
    assert_eq!(
        outputs,
        [Output::Damaged {
            timestamp: 2,
            cause: Damage::PacketLost
        }]
    );
}

#[test]
fn padding_takes_a_number_and_nothing_else() {
    let mut feeder = Feeder::new(Depacketizer::h264());
    feeder.feed(1, &h264_payloads(&keyframe(100)), &[]);
    let padding = [RtpPayload {
        bytes: Bytes::new(),
        marker: false,
    }];
    assert!(feeder.feed(1, &padding, &[]).is_empty());
    assert!(!frame(&feeder.feed(2, &h264_payloads(&delta(100, 2)), &[])).keyframe);
}

#[test]
fn an_endless_frame_is_dropped() {
    let mut feeder = Feeder::new(Depacketizer::h264());
    let mut fragment = vec![1; 60_000];
    (fragment[0], fragment[1], fragment[2]) = (0x7c, 0x85, 0x88);
    let first = RtpPayload {
        bytes: fragment.clone().into(),
        marker: false,
    };
    feeder.feed(1, &[first], &[]);
    fragment[1] = 0x05;
    let middle = RtpPayload {
        bytes: fragment.clone().into(),
        marker: false,
    };
    for _ in 0..MAX_ACCESS_UNIT / 60_000 + 1 {
        feeder.feed(1, std::slice::from_ref(&middle), &[]);
    }
    fragment[1] = 0x45;
    let last = RtpPayload {
        bytes: fragment.into(),
        marker: true,
    };
    assert_eq!(
        feeder.feed(1, &[last], &[]),
        [Output::Damaged {
            timestamp: 1,
            cause: Damage::TooLarge
        }]
    );
}

#[test]
fn a_frame_of_more_nal_units_than_an_encoder_makes_is_dropped() {
    // One in each packet, all in one aggregate, and behind start codes in a single one.
    let aggregate = |count: usize| [&[0x78][..], &[0, 2, 0x61, 0x88].repeat(count)].concat();
    let joined = |count: usize| [&[0x61, 0x88][..], &[0, 0, 1, 0x61, 0x88].repeat(count - 1)].concat();
    let feed = |payloads: Vec<Vec<u8>>| {
        let mut feeder = Feeder::new(Depacketizer::h264());
        feeder.feed(1, &h264_payloads(&keyframe(100)), &[]);
        let last = payloads.len() - 1;
        let payloads: Vec<RtpPayload> = (payloads.into_iter().enumerate())
            .map(|(index, payload)| RtpPayload {
                bytes: payload.into(),
                marker: index == last,
            })
            .collect();
        feeder.feed(2, &payloads, &[])
    };
    for (count, good) in [(MAX_NAL_UNITS, true), (MAX_NAL_UNITS + 1, false)] {
        for payloads in [
            vec![vec![0x61, 0x88]; count],
            vec![aggregate(count)],
            vec![joined(count)],
        ] {
            let outputs = feed(payloads);
            let cause = Damage::TooManyUnits(MAX_NAL_UNITS);
            if good {
                assert!(!frame(&outputs).keyframe);
            } else {
                assert_eq!(outputs, [Output::Damaged { timestamp: 2, cause }]);
            }
        }
    }
}

#[test]
fn nal_units_are_found_behind_both_start_codes() {
    let stream = Bytes::from_static(&[9, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 2, 0, 0, 0, 0, 1, 0x65, 3, 0, 0]);
    let units: Vec<Bytes> = NalUnits::new(&stream).collect();
    assert_eq!(units, [&[0x67, 1][..], &[0x68, 2], &[0x65, 3]]);
}

// A sequence header of Chromium's encoder would do; this one is written by hand: profile 0, 640x480.
fn sequence_header() -> Vec<u8> {
    let mut bits = Vec::new();
    let mut put = |value: u32, count: u32| bits.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
    for (value, count) in [
        (0, 3),
        (0, 1),
        (0, 1),
        (0, 1),
        (0, 1),
        (0, 5),
        (0, 12),
        (5, 5),
        (9, 4),
        (8, 4),
        (639, 10),
        (479, 9),
        (0, 12),
    ] {
        put(value, count);
    }
    bits.chunks(8)
        .map(|byte| {
            byte.iter()
                .enumerate()
                .fold(0, |sum, (at, &bit)| sum | u8::from(bit) << (7 - at))
        })
        .collect()
}

fn temporal_unit(obus: &[(u8, Vec<u8>)]) -> Bytes {
    let mut unit = BytesMut::new();
    for (kind, payload) in obus {
        unit.put_u8(kind << 3 | 2);
        av1::put_leb128(&mut unit, payload.len());
        unit.extend_from_slice(payload);
    }
    unit.freeze()
}

fn av1_frame(key: bool, size: usize) -> (u8, Vec<u8>) {
    let mut payload = vec![0xa5; size.max(1)];
    payload[0] = if key { 0x10 } else { 0x30 };
    (av1::FRAME, payload)
}

#[test]
fn av1_keyframes_carry_their_size() {
    let mut feeder = Feeder::new(Depacketizer::av1());
    let delimiter = (av1::TEMPORAL_DELIMITER, Vec::new());
    let header = (av1::SEQUENCE_HEADER, sequence_header());
    let unit = temporal_unit(&[delimiter, header.clone(), av1_frame(true, 5_000)]);
    let payloads = packetize::av1(&unit, 1_200).unwrap();
    assert_eq!(payloads[0].bytes[0] & 0x88, 0x08, "N set, Z clear");
    assert_eq!(payloads[1].bytes[0] & 0x80, 0x80, "Z set");
    let outputs = feeder.feed(1, &payloads, &[]);
    assert_eq!(
        frame(&outputs).data,
        temporal_unit(&[header, av1_frame(true, 5_000)]),
        "no temporal delimiter"
    );
    assert_eq!(
        (frame(&outputs).keyframe, frame(&outputs).size),
        (true, Some((640, 480)))
    );
}

#[test]
fn av1_keyframe_without_sequence_header_gets_the_remembered_one() {
    let mut feeder = Feeder::new(Depacketizer::av1());
    let header = (av1::SEQUENCE_HEADER, sequence_header());
    let first = temporal_unit(&[header.clone(), av1_frame(true, 10)]);
    feeder.feed(1, &packetize::av1(&first, 1_200).unwrap(), &[]);
    let bare = temporal_unit(&[av1_frame(true, 20)]);
    let outputs = feeder.feed(2, &packetize::av1(&bare, 1_200).unwrap(), &[]);
    assert_eq!(frame(&outputs).data, temporal_unit(&[header, av1_frame(true, 20)]));
}

#[test]
fn av1_loss_costs_everything_up_to_the_next_keyframe() {
    let mut feeder = Feeder::new(Depacketizer::av1());
    let key = temporal_unit(&[(av1::SEQUENCE_HEADER, sequence_header()), av1_frame(true, 4_000)]);
    let delta = temporal_unit(&[av1_frame(false, 4_000)]);
    let (key, delta) = (
        packetize::av1(&key, 1_200).unwrap(),
        packetize::av1(&delta, 1_200).unwrap(),
    );
    assert!(frame(&feeder.feed(1, &key, &[])).keyframe);
    assert_eq!(
        feeder.feed(2, &delta, &[2]),
        [Output::Damaged {
            timestamp: 2,
            cause: Damage::PacketLost
        }]
    );
    assert_eq!(
        feeder.feed(3, &delta, &[]),
        [Output::Damaged {
            timestamp: 3,
            cause: Damage::NoKeyframe
        }]
    );
    assert!(frame(&feeder.feed(4, &key, &[])).keyframe);
}

#[test]
fn an_av1_frame_of_more_obus_than_an_encoder_makes_is_dropped() {
    let mut feeder = Feeder::new(Depacketizer::av1());
    let unit = |count: usize| {
        let mut obus = vec![(av1::SEQUENCE_HEADER, sequence_header()), av1_frame(true, 20)];
        obus.resize(count, (4, vec![7; 20]));
        packetize::av1(&temporal_unit(&obus), 1_200).unwrap()
    };
    assert!(frame(&feeder.feed(1, &unit(MAX_OBUS), &[])).keyframe);
    let cause = Damage::TooManyUnits(MAX_OBUS);
    let outputs = feeder.feed(2, &unit(MAX_OBUS + 1), &[]);
    assert_eq!(outputs, [Output::Damaged { timestamp: 2, cause }]);
    assert!(frame(&feeder.feed(3, &unit(MAX_OBUS), &[])).keyframe);
}

#[test]
fn opus_packets_pass_as_they_are() {
    let mut feeder = Feeder::new(Depacketizer::opus());
    let packet = Bytes::from_static(&[0xfc, 1, 2]);
    let payload = packetize::opus(&packet, 1_200).unwrap();
    assert_eq!(frame(&feeder.feed(960, &[payload], &[])).data, packet);
    assert!(packetize::opus(&Bytes::from(vec![0; 1_201]), 1_200).is_err());
}

proptest! {
    #[test]
    fn h264_comes_back_whole(
        sizes in prop::collection::vec(2usize..9_000, 1..6),
        mtu in 64usize..1_400,
    ) {
        let mut feeder = Feeder::new(Depacketizer::h264());
        for (step, &size) in sizes.iter().enumerate() {
            let unit = if step == 0 { keyframe(size) } else { delta(size, step as u8 * 2) };
            let payloads = packetize::h264(&unit, mtu).unwrap();
            prop_assert!(payloads.iter().all(|payload| payload.bytes.len() <= mtu));
            prop_assert_eq!(payloads.iter().filter(|payload| payload.marker).count(), 1);
            let outputs = feeder.feed(step as u32, &payloads, &[]);
            prop_assert_eq!(&frame(&outputs).data, &unit);
        }
    }

    #[test]
    fn h264_never_hands_out_a_frame_with_a_hole(
        frames in prop::collection::vec((any::<bool>(), 2usize..4_000), 1..20),
        lost in prop::collection::vec(0usize..60, 0..6),
    ) {
        let mut feeder = Feeder::new(Depacketizer::h264());
        let (mut index, mut units, mut outputs) = (0, Vec::new(), Vec::new());
        let mut decodable = false;
        let mut expected = Vec::new();
        for (step, &(key, size)) in frames.iter().enumerate() {
            let unit = if key { keyframe(size) } else { delta(size, step as u8) };
            let payloads = h264_payloads(&unit);
            let here: Vec<usize> = (0..payloads.len()).filter(|at| lost.contains(&(index + at))).collect();
            index += payloads.len();
            // Parameter sets that are known already need not arrive again.
            let healed = key && here == [0] && !expected.is_empty();
            decodable = (here.is_empty() || healed) && (decodable || key);
            if decodable {
                expected.push(step as u32);
            }
            outputs.extend(feeder.feed(step as u32, &payloads, &here));
            units.push(unit);
        }
        let mut seen = Vec::new();
        for output in outputs {
            if let Output::Frame(unit) = output {
                prop_assert_eq!(&unit.data, &units[unit.timestamp as usize]);
                seen.push(unit.timestamp);
            }
        }
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn av1_comes_back_whole(
        sizes in prop::collection::vec(1usize..6_000, 1..7),
        mtu in 64usize..1_400,
    ) {
        let mut feeder = Feeder::new(Depacketizer::av1());
        let mut obus = vec![(av1::SEQUENCE_HEADER, sequence_header()), av1_frame(true, sizes[0])];
        obus.extend(sizes[1..].iter().map(|&size| (4, vec![7; size])));
        let unit = temporal_unit(&obus);
        let payloads = packetize::av1(&unit, mtu).unwrap();
        prop_assert!(payloads.iter().all(|payload| payload.bytes.len() <= mtu));
        let outputs = feeder.feed(1, &payloads, &[]);
        prop_assert_eq!(&frame(&outputs).data, &unit);
    }

    #[test]
    fn garbage_neither_panics_nor_passes_bounds(
        packets in prop::collection::vec((0u64..40, 0u32..4, any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..60),
    ) {
        for mut depacketizer in [Depacketizer::h264(), Depacketizer::av1(), Depacketizer::opus()] {
            for (seq, timestamp, marker, payload) in &packets {
                depacketizer.push(*seq, *timestamp, *marker, &Bytes::from(payload.clone()));
                let outputs = std::iter::from_fn(|| depacketizer.poll()).count();
                prop_assert!(outputs <= 2);
            }
        }
    }

    #[test]
    fn garbage_frames_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), mtu in 0usize..300) {
        let frame = Bytes::from(bytes);
        let _ = packetize::h264(&frame, mtu);
        let _ = packetize::av1(&frame, mtu);
        let _ = packetize::opus(&frame, mtu);
        let _ = h264::dimensions(&frame);
        let _ = av1::dimensions(&frame);
    }
}

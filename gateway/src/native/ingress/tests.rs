use proptest::prelude::*;
use tokio::sync::Notify;
use wzp_proto::header::{Flags, MediaHeader};
use wzp_proto::packet::encode_datagram;
use wzp_proto::video::{fragment_header, fragments};

use super::*;
use crate::room::subscription::{Cursor, Lag, Next};

const ME: ParticipantId = ParticipantId(5);
const SPS: &[u8] = &[
    0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03,
    0x00, 0x3c, 0x0f, 0x16, 0x2e, 0x48,
];
const PPS: &[u8] = &[0x68, 0xcb, 0x83, 0xcb, 0x20];
const LAG: Lag = Lag {
    most: 10_000_000,
    resync_age: 0,
};

fn ingress() -> Ingress {
    Ingress::new(ME, Rates::default(), [1, 1], Arc::default(), RoomTime(0))
}

fn sound(seq: u32, timestamp: u32, codec: Codec, flags: Flags) -> Bytes {
    let header = MediaHeader {
        flags,
        media_type: MediaType::Audio,
        codec,
        stream_id: 0,
        fec_ratio: 0,
        seq,
        timestamp,
        fec_block: 0,
    };
    encode_datagram(&header, &[0xf8, seq as u8])
}

fn picture(first_seq: u32, timestamp: u32, keyframe: bool, filler: usize) -> Vec<Bytes> {
    let mut payload = Vec::new();
    let slice: &[u8] = if keyframe { &[0x65, 0x88] } else { &[0x41, 0x9a] };
    for nal_unit in [SPS, PPS, slice].into_iter().skip(if keyframe { 0 } else { 2 }) {
        payload.extend_from_slice(&[0, 0, 0, 1]);
        payload.extend_from_slice(nal_unit);
    }
    payload.resize(payload.len() + filler, 0x55);
    let header = MediaHeader {
        flags: if keyframe { Flags::KEYFRAME } else { Flags::empty() },
        media_type: MediaType::Video,
        codec: Codec::H264Baseline,
        stream_id: 1,
        fec_ratio: 0,
        seq: first_seq,
        timestamp,
        fec_block: 0,
    };
    let parts = fragments(&payload.into(), None, 1100).unwrap();
    (parts.iter().enumerate())
        .map(|(i, part)| encode_datagram(&fragment_header(&header, i as u8, parts.len() as u8), part))
        .collect()
}

fn frames(track: &Arc<Track>, cursor: &mut Option<Cursor>) -> Vec<(u64, bool)> {
    let cursor = cursor.get_or_insert_with(|| {
        let mut cursor = Cursor::new(track, &Arc::new(Notify::new()));
        cursor.start();
        cursor
    });
    let mut out = Vec::new();
    while let Next::Frame(frame) = cursor.next(&LAG) {
        out.push((frame.ticks & 0xffff_ffff, frame.keyframe));
    }
    out
}

/// An ingress whose sound is listened to from the first packet on.
fn listening() -> (Ingress, Cursor) {
    let mut ingress = ingress();
    let writer = open(ME, Kind::Audio, Bounds::AUDIO, 1);
    let cursor = Cursor::new(writer.track(), &Arc::new(Notify::new()));
    ingress.audio.writer = Some(writer);
    (ingress, cursor)
}

fn sounds(cursor: &mut Cursor) -> Vec<u8> {
    let mut out = Vec::new();
    while let Next::Frame(frame) = cursor.next(&LAG) {
        out.push(frame.payload[1]);
    }
    out
}

#[test]
fn sound_comes_in_order_without_repair_noise_or_repetition() {
    let (mut ingress, mut cursor) = listening();
    let none = Flags::empty();
    for (seq, codec, flags) in [
        (0, Codec::Opus24k, none),
        (2, Codec::Opus24k, none),
        (1, Codec::Opus24k, none),
        (1, Codec::Opus24k, none),
        (3, Codec::Codec2_1200, Flags::REPAIR),
        (4, Codec::ComfortNoise, none),
        (5, Codec::Opus6k, none),
    ] {
        ingress
            .datagram(sound(seq, seq * 20, codec, flags), RoomTime(u64::from(seq) * 20_000))
            .unwrap();
    }
    assert_eq!(sounds(&mut cursor), [0, 1, 2, 5]);
    let counters = &ingress.counters;
    assert_eq!((counters.audio_in.get(), counters.audio_skipped_in.get()), (4, 1));
    assert_eq!(counters.audio_malformed_in.get(), 1, "noise of two bytes is none");
    assert_eq!((counters.audio_late_in.get(), counters.audio_lost_in.get()), (1, 0));
    let tracks = ingress.take_tracks().unwrap();
    assert_eq!((tracks.len(), tracks[0].0.codec), (1, Codec::Opus24k), "Opus is Opus");
    assert!(ingress.take_tracks().is_none());
}

/// A sound packet with this payload, `ms` after the beginning.
fn packet(seq: u32, ms: u32, codec: Codec, payload: &[u8]) -> (RoomTime, Bytes) {
    let header = MediaHeader {
        flags: Flags::empty(),
        media_type: MediaType::Audio,
        codec,
        stream_id: 0,
        fec_ratio: 0,
        seq,
        timestamp: ms,
        fec_block: 0,
    };
    (RoomTime::from_millis(ms.into()), encode_datagram(&header, payload))
}

#[test]
fn comfort_noise_sounds_until_speech_goes_on_or_for_200_ms() {
    let speech = [0xf8, 1];
    let packets = [
        packet(0, 0, Codec::Opus24k, &speech),
        packet(1, 20, Codec::ComfortNoise, &[50]),
        packet(2, 220, Codec::ComfortNoise, &[50]),
        packet(3, 300, Codec::Opus24k, &speech),
        packet(4, 320, Codec::ComfortNoise, &[50]),
        // Nothing for a second.
        packet(5, 1_320, Codec::Opus24k, &speech),
    ];
    let (ingress, made) = play(&packets);
    let mut expected: Vec<u64> = (0..26).map(|n| n * 20).collect();
    expected.push(1_320);
    assert_eq!(made.iter().map(|made| made.0).collect::<Vec<_>>(), expected);
    assert!(made.iter().all(|(_, delay)| *delay <= 20), "{made:?}");
    assert_eq!(ingress.counters.audio_transcoded_in.get(), 3);
}

#[test]
fn comfort_noise_does_not_repeat_with_its_packets() {
    let (mut ingress, mut cursor) = listening();
    for seq in 0..5 {
        let (now, datagram) = packet(seq, seq * 200, Codec::ComfortNoise, &[50]);
        ingress.datagram(datagram, now).unwrap();
        (0..10).for_each(|n| ingress.handle_timeout(now.plus(n * 20_000)));
    }
    let mut made = Vec::new();
    while let Next::Frame(frame) = cursor.next(&LAG) {
        made.push(frame.payload.clone());
    }
    assert!(made.len() >= 40, "{}", made.len());
    for (n, payload) in made.iter().enumerate() {
        assert!(!made[..n].contains(payload), "packet {n} comes again");
    }
}

#[test]
fn opus_of_other_lengths_becomes_20_ms_and_garbage_is_refused() {
    let (mut ingress, mut cursor) = listening();
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
    let (mut seq, mut ms) = (0, 0);
    for samples in [1_920, 1_920, 2_880, 960, 1_920] {
        let coded = encoder.encode_vec_float(&vec![0.1; samples], 1_275).unwrap();
        let (now, datagram) = packet(seq, ms, Codec::Opus6k, &coded);
        ingress.datagram(datagram, now).unwrap();
        seq += 1;
        ms += samples as u32 / 48;
    }
    // A packet of several frames without their count.
    let (now, datagram) = packet(seq, ms, Codec::Opus6k, &[0xfb]);
    ingress.datagram(datagram, now).unwrap();
    let mut made = Vec::new();
    while let Next::Frame(frame) = cursor.next(&LAG) {
        assert_eq!(opus::packet::get_nb_samples(&frame.payload, 48_000).unwrap(), 960);
        made.push((frame.ticks & 0xffff_ffff) / 48);
    }
    assert_eq!(made, (0..10).map(|n| n * 20).collect::<Vec<_>>());
    let counters = &ingress.counters;
    assert_eq!(
        (counters.audio_transcoded_in.get(), counters.audio_malformed_in.get()),
        (4, 1)
    );
}

#[test]
fn change_among_opus_codecs_is_no_news_for_the_room() {
    let mut ingress = ingress();
    let mut news = 0;
    for seq in 0..100 {
        let codec = [Codec::Opus24k, Codec::Opus16k, Codec::Codec2_3200][seq as usize % 3];
        let payload: &[u8] = if codec.is_opus() { &[0xf8, 1] } else { &[7; 8] };
        let (now, datagram) = packet(seq, seq * 20, codec, payload);
        ingress.datagram(datagram, now).unwrap();
        news += u32::from(ingress.take_tracks().is_some());
    }
    assert_eq!(news, 1);
}

#[test]
fn flapping_picture_size_is_told_with_keyframes_and_a_few_times_a_second() {
    let mut ingress = ingress();
    for part in picture(0, 0, true, 10) {
        ingress.datagram(part, RoomTime(0)).unwrap();
    }
    let size = |n: u64| FrameSize {
        width: 640 + 16 * (n as u16 % 2),
        height: 360,
    };
    let mut append = |n: u64, keyframe: bool| {
        let now = RoomTime::from_millis(1_000 + n * 33);
        let frame = AssembledFrame {
            codec: Codec::H264Baseline,
            stream_id: 1,
            timestamp: 0,
            keyframe,
            size: None,
            payload: Bytes::new(),
            first_seq: 0,
            last_seq: 0,
        };
        let unit = Unit {
            payload: vec![0, 0, 0, 1, 0x65].into(),
            keyframe,
            size: Some(size(n)),
        };
        ingress.append_video(unit, &frame, 1_000 + n * 33, now, now);
        ingress.take_tracks().map(|tracks| tracks[0].0.size)
    };
    append(0, true);
    assert_eq!(
        (1..60).filter_map(|n| append(n, false)).count(),
        0,
        "with keyframes alone"
    );
    let told: Vec<_> = (60..120).filter_map(|n| append(n, true)).collect();
    assert!((2..=7).contains(&told.len()), "{} in 2 s", told.len());
    // One that stays is told in the end.
    let last = (0..20).filter_map(|n| append(120 + 2 * n, true)).last();
    assert!(last.is_none_or(|last| last == Some(size(0))));
    assert_eq!(
        (0..20).filter_map(|n| append(161 + 2 * n, true)).last(),
        Some(Some(size(1)))
    );
}

#[test]
fn loss_on_the_way_here_is_told_to_the_sender_and_taken_back() {
    let mut ingress = ingress();
    let mut told = Vec::new();
    for seq in 0..2_000u32 {
        // Every fifth is lost for the first 500.
        if seq < 500 && seq % 5 == 4 {
            continue;
        }
        let (now, datagram) = packet(seq, seq * 20, Codec::Opus24k, &[0xf8, 1]);
        ingress.datagram(datagram, now).unwrap();
        ingress.handle_timeout(now);
        told.extend(ingress.take_directive());
    }
    assert_eq!(told, [Tier::Catastrophic, Tier::Degraded, Tier::Good]);
}

#[test]
fn codec2_becomes_opus_of_20_ms_and_what_was_lost_is_concealed() {
    let (mut ingress, mut cursor) = listening();
    let mut made = Vec::new();
    for (n, codec, ms, len) in [
        (0u32, Codec::Codec2_1200, 40, 6),
        (1, Codec::Codec2_1200, 40, 6),
        // The third is lost.
        (3, Codec::Codec2_1200, 40, 6),
        (8, Codec::Codec2_3200, 20, 8),
        (9, Codec::Codec2_3200, 20, 7),
        (10, Codec::Opus24k, 20, 2),
    ] {
        let header = MediaHeader {
            flags: Flags::empty(),
            media_type: MediaType::Audio,
            codec,
            stream_id: 0,
            fec_ratio: 0,
            seq: n,
            timestamp: n * ms,
            fec_block: 0,
        };
        let now = RoomTime(u64::from(n) * 40_000);
        ingress
            .datagram(encode_datagram(&header, &[0xf8; 8][..len]), now)
            .unwrap();
        ingress.handle_timeout(now.plus(30_000));
        while let Next::Frame(frame) = cursor.next(&LAG) {
            assert!(frame.codec == Codec::Opus24k && frame.payload.len() > 1);
            made.push((frame.ticks & 0xffff_ffff) / 48);
        }
    }
    assert_eq!(made[..8], [0, 20, 40, 60, 80, 100, 120, 140]);
    assert_eq!((made.len(), ingress.counters.audio_malformed_in.get()), (10, 1));
    assert_eq!(ingress.counters.audio_transcoded_in.get(), 4);
    assert_eq!(ingress.take_tracks().unwrap()[0].0.codec, Codec::Opus24k);
}

/// A packet of Codec2 with repair: `index` counts on from the `frames` source frames to the repair symbols, which follow the last
/// source frame at once. With the time at which it is sent.
fn protected(codec: Codec, frames: u32, repair: u32, block: u32, index: u32, payload: &[u8]) -> (RoomTime, Bytes) {
    let ms = (block * frames + index.min(frames - 1)) * codec.frame_ms();
    let header = MediaHeader {
        flags: if index < frames { Flags::empty() } else { Flags::REPAIR },
        media_type: MediaType::Audio,
        codec,
        stream_id: 0,
        fec_ratio: (100 * repair / frames) as u8,
        seq: block * (frames + repair) + index,
        timestamp: ms,
        fec_block: u16::from_be_bytes([index as u8, block as u8]),
    };
    (RoomTime::from_millis(ms.into()), encode_datagram(&header, payload))
}

/// Takes packets at their times and does what is due in between; what was appended, ms, and how long after its time.
fn play(packets: &[(RoomTime, Bytes)]) -> (Ingress, Vec<(u64, u64)>) {
    let (mut ingress, mut cursor) = listening();
    let mut made = Vec::new();
    let mut packets = packets.iter().peekable();
    for now in (0..).map(RoomTime::from_millis) {
        while let Some((_, packet)) = packets.next_if(|(at, _)| *at <= now) {
            ingress.datagram(packet.clone(), now).unwrap();
        }
        if ingress.poll_timeout().is_some_and(|at| at <= now) {
            ingress.handle_timeout(now);
        }
        while let Next::Frame(frame) = cursor.next(&LAG) {
            let ms = (frame.ticks & 0xffff_ffff) / 48;
            made.push((ms, (now.0 / 1000).saturating_sub(ms)));
        }
        if packets.peek().is_none() && ingress.poll_timeout().is_none() {
            return (ingress, made);
        }
    }
    unreachable!()
}

#[test]
fn lost_frames_of_recorded_blocks_come_back_where_waiting_for_them_is_short() {
    let golden = include_str!("../../../../wzp-proto/tests/golden/fec_raptorq.json");
    let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
    let text = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
    let mut packets = Vec::new();
    for (n, block) in (0u32..).zip(golden["blocks"].as_array().unwrap()).take(2) {
        let sources = block["source_frames_hex"].as_array().unwrap().iter().map(text);
        let repair = block["repair"].as_array().unwrap();
        let repair = repair.iter().map(|symbol| text(&symbol["payload_hex"]));
        for (index, payload) in (0u32..).zip(sources.chain(repair)) {
            // The second and the last two frames of the second block: one is 240 ms older than the repair packets.
            if n == 0 || ![1, 6, 7].contains(&index) {
                packets.push(protected(Codec::Codec2_1200, 8, 8, n, index, &payload));
            }
        }
    }
    let (ingress, made) = play(&packets);
    let counters = &ingress.counters;
    assert_eq!(
        (counters.audio_recovered_in.get(), counters.audio_lost_in.get()),
        (2, 1)
    );
    assert_eq!((counters.audio_in.get(), counters.audio_skipped_in.get()), (15, 16));
    // What did not come back was concealed.
    assert_eq!(
        made.iter().map(|made| made.0).collect::<Vec<_>>(),
        (0..32).map(|n| n * 20).collect::<Vec<_>>()
    );
    assert!(made.iter().all(|(_, delay)| *delay <= 80), "{made:?}");
}

#[test]
fn loss_within_the_repair_packets_power_costs_no_sound_and_140_ms_at_most() {
    let (frames, repair) = (8u32, 4u32);
    let mut dice = 1u32;
    let mut packets = Vec::new();
    let (mut lost, mut beyond) = (0, 0);
    for block in 0..120 {
        let coded: Vec<_> = (0..frames).map(|n| (block * 31 + n).to_be_bytes().repeat(2)).collect();
        let symbols = wzp_proto::fec::repair_symbols(&coded.iter().map(Vec::as_slice).collect::<Vec<_>>(), 4).unwrap();
        let all = coded
            .iter()
            .map(Vec::as_slice)
            .chain(symbols.iter().map(|symbol| &symbol[..]));
        let (mut lost_here, mut repair_here) = (0, 0);
        for (index, payload) in (0..).zip(all) {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let passes = block == 0 || !(dice >> 16).is_multiple_of(10);
            if passes {
                packets.push(protected(Codec::Codec2_3200, frames, repair, block, index, payload));
            }
            lost_here += u32::from(!passes && index < frames);
            repair_here += u32::from(passes && index >= frames);
        }
        lost += lost_here;
        beyond += if lost_here > repair_here { lost_here } else { 0 };
    }
    let (ingress, made) = play(&packets);
    let counters = &ingress.counters;
    assert!(lost > 80 && beyond < lost / 10, "{beyond} of {lost}");
    assert_eq!(counters.audio_recovered_in.get(), u64::from(lost - beyond));
    assert_eq!(counters.audio_in.get(), u64::from(120 * frames - beyond));
    assert_eq!(counters.audio_late_in.get(), 0);
    assert!(made.is_sorted() && made.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let held = made.iter().filter(|(_, delay)| *delay > 0).count();
    assert!(held < made.len() / 2, "{held} of {} wait", made.len());
    assert!(made.iter().all(|(_, delay)| *delay <= 140));
}

#[test]
fn repair_packets_that_do_not_parse_are_counted_and_change_nothing() {
    let mut packets = Vec::new();
    for index in 0..12 {
        let payload: &[u8] = if index < 8 { &[7; 8] } else { &[1, 2, 3] };
        packets.push(protected(Codec::Codec2_3200, 8, 0, 0, index, payload));
    }
    // A sender that does not say it repairs is not waited for.
    let lost = packets.remove(3);
    let (ingress, made) = play(&packets);
    let counters = &ingress.counters;
    assert_eq!(
        (
            counters.audio_repair_refused_in.get(),
            counters.audio_recovered_in.get()
        ),
        (4, 0)
    );
    assert!(lost.0 == RoomTime::from_millis(60) && made.len() == 8);
    assert!(made.iter().all(|(_, delay)| *delay <= 40), "{made:?}");
}

#[test]
fn missing_sound_holds_the_rest_for_20_ms() {
    let (mut ingress, mut cursor) = listening();
    ingress
        .datagram(sound(7, 0, Codec::Opus24k, Flags::empty()), RoomTime(0))
        .unwrap();
    ingress
        .datagram(sound(9, 40, Codec::Opus24k, Flags::empty()), RoomTime(40_000))
        .unwrap();
    assert_eq!(sounds(&mut cursor), [7]);
    assert_eq!(ingress.poll_timeout(), Some(RoomTime(60_000)));
    ingress.handle_timeout(RoomTime(60_000));
    assert_eq!(sounds(&mut cursor), [9]);
    assert_eq!(ingress.counters.audio_lost_in.get(), 1);
}

#[test]
fn picture_is_put_together_in_any_order_and_sized_by_its_bitstream() {
    let mut ingress = ingress();
    let mut parts = picture(100, 1000, true, 5_000);
    parts.reverse();
    for part in parts {
        ingress.datagram(part, RoomTime(0)).unwrap();
    }
    let tracks = ingress.take_tracks().unwrap();
    let size = tracks[0].0.size.unwrap();
    assert_eq!((size.width, size.height), (640, 360));
    assert_eq!(frames(&tracks[0].1, &mut None), [(90_000, true)]);
    assert_eq!(ingress.video_stream(), Some(1));
    assert_eq!(ingress.take_keyframe_wish(RoomTime(0)), None);
}

fn feed(ingress: &mut Ingress, parts: Vec<Bytes>, ms: u64) {
    for part in parts {
        ingress.datagram(part, RoomTime::from_millis(ms)).unwrap();
    }
}

/// A keyframe, a picture without its second fragment (number 2), and a whole one.
fn torn() -> (Ingress, Arc<Track>, Option<Cursor>) {
    let mut ingress = ingress();
    let mut cursor = None;
    ingress.set_rtt(4_000);
    feed(&mut ingress, picture(0, 0, true, 100), 0);
    let track = ingress.take_tracks().unwrap()[0].1.clone();
    assert_eq!(frames(&track, &mut cursor), [(0, true)]);
    let mut torn = picture(1, 33, false, 2_000);
    torn.remove(1);
    feed(&mut ingress, torn, 33);
    feed(&mut ingress, picture(3, 66, false, 100), 66);
    assert!(ingress.has_gaps());
    assert_eq!(frames(&track, &mut cursor), [], "it waits for the one before it");
    ingress.handle_timeout(RoomTime::from_millis(98));
    assert_eq!(ingress.take_nacks().count(), 0, "it may have been overtaken only");
    ingress.handle_timeout(RoomTime::from_millis(99));
    let seqs = vec![2];
    assert_eq!(ingress.take_nacks().collect::<Vec<_>>(), [Nack { stream_id: 1, seqs }]);
    (ingress, track, cursor)
}

#[test]
fn lost_fragment_that_is_sent_again_costs_nothing() {
    let (mut ingress, track, mut cursor) = torn();
    feed(&mut ingress, picture(4, 100, false, 100), 100);
    assert_eq!(frames(&track, &mut cursor), []);
    feed(&mut ingress, picture(1, 33, false, 2_000).split_off(1), 106);
    let ticks = [33, 66, 100].map(|ms| (ms * 90, false));
    assert_eq!(frames(&track, &mut cursor), ticks);
    ingress.handle_timeout(RoomTime::from_millis(1000));
    assert_eq!(ingress.take_keyframe_wish(RoomTime::from_millis(1000)), None);
    let counters = &ingress.counters;
    assert_eq!((counters.video_lost_in.get(), counters.video_repaired_in.get()), (0, 1));
}

#[test]
fn lost_fragment_costs_frames_up_to_the_next_keyframe_and_asks_for_one() {
    let (mut ingress, track, mut cursor) = torn();
    feed(&mut ingress, picture(4, 100, false, 100), 100);
    ingress.handle_timeout(RoomTime::from_millis(138));
    assert_eq!(ingress.take_keyframe_wish(RoomTime::from_millis(138)), None);
    ingress.handle_timeout(RoomTime::from_millis(139));
    assert_eq!(ingress.take_keyframe_wish(RoomTime::from_millis(139)), Some(track.id()));
    assert_eq!(frames(&track, &mut cursor), []);
    feed(&mut ingress, picture(5, 143, true, 100), 143);
    feed(&mut ingress, picture(6, 166, false, 100), 166);
    assert_eq!(frames(&track, &mut cursor), [(143 * 90, true), (166 * 90, false)]);
    assert_eq!(ingress.counters.video_undecodable_in.get(), 2);
    assert_eq!(ingress.counters.video_lost_in.get(), 2);
}

#[test]
fn overtaken_frame_is_put_back_in_its_place() {
    let mut ingress = ingress();
    let mut cursor = None;
    let first = picture(0, 0, true, 100);
    let second = picture(1, 33, false, 2_000);
    let third = picture(3, 66, false, 100);
    for part in first.into_iter().chain(third).chain(second) {
        ingress.datagram(part, RoomTime(0)).unwrap();
    }
    let track = ingress.take_tracks().unwrap()[0].1.clone();
    let ticks: Vec<_> = frames(&track, &mut cursor).into_iter().map(|frame| frame.0).collect();
    assert_eq!(ticks, [0, 33 * 90, 66 * 90]);
    assert_eq!(ingress.counters.video_lost_in.get(), 0);
}

#[test]
fn first_picture_without_keyframe_asks_for_one() {
    let mut ingress = ingress();
    for part in picture(50, 0, false, 10) {
        ingress.datagram(part, RoomTime(0)).unwrap();
    }
    assert!(ingress.take_keyframe_wish(RoomTime(0)).is_some());
    assert!(ingress.take_tracks().is_some());
}

#[test]
fn kind_that_ends_takes_its_track_with_it_and_may_begin_again() {
    let mut ingress = ingress();
    assert!(!ingress.end(Kind::Video, 5), "there was none");
    assert!(ingress.take_tracks().is_none());
    let show = |ingress: &mut Ingress| {
        for datagram in picture(0, 0, true, 10) {
            ingress.datagram(datagram, RoomTime(0)).unwrap();
        }
        ingress
            .datagram(sound(0, 0, Codec::Opus24k, Flags::empty()), RoomTime(0))
            .unwrap();
        ingress.take_tracks().unwrap()
    };
    let before = show(&mut ingress);
    assert!(ingress.end(Kind::Video, 5));
    let without = ingress.take_tracks().unwrap();
    assert_eq!(
        without.iter().map(|(info, _)| info.kind).collect::<Vec<_>>(),
        [Kind::Audio]
    );
    let again = show(&mut ingress);
    assert!(Arc::ptr_eq(&again[0].1, &before[0].1), "sound has gone on");
    assert!(!Arc::ptr_eq(&again[1].1, &before[1].1), "the picture is a new track");
    assert!(before[1].1.has_ended());
}

#[test]
fn flood_is_cut_and_then_reported() {
    let rates = Rates {
        datagrams: 100,
        bytes: 1_000_000,
        ..Rates::default()
    };
    let mut ingress = Ingress::new(ME, rates, [0, 0], Arc::default(), RoomTime(0));
    let broken = (0..2_000u32).find_map(|seq| {
        ingress
            .datagram(
                sound(seq, seq, Codec::Opus24k, Flags::empty()),
                RoomTime(u64::from(seq) * 100),
            )
            .err()
    });
    assert_eq!(broken, Some(Bound::Datagrams));
    assert!(ingress.counters.over_rate_in.get() > 400);
}

proptest! {
    #[test]
    fn any_datagrams_are_survived(datagrams in proptest::collection::vec(
        (proptest::collection::vec(any::<u8>(), 0..60), any::<bool>(), 0u8..3, 0u8..14), 0..200,
    )) {
        let mut ingress = ingress();
        for (i, (mut bytes, valid, media, codec)) in datagrams.into_iter().enumerate() {
            if valid && bytes.len() > 16 {
                bytes[0] = 2;
                bytes[2] = media;
                bytes[3] = codec;
                bytes[6] = 0;
                bytes[7] = 0;
                bytes[8] = 0;
            }
            let now = RoomTime::from_millis(i as u64);
            ingress.datagram(bytes.into(), now).unwrap();
            ingress.handle_timeout(now);
        }
    }
}

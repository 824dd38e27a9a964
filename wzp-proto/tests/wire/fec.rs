//! RaptorQ repair against the recordings, with loss, and with nonsense.

use bytes::Bytes;
use proptest::prelude::*;
use wzp_proto::fec::{FecDecoder, FecError, MAX_BLOCK_FRAMES, RecoveredFrame, repair_symbols};
use wzp_proto::{Codec, Flags, MediaHeader, MediaPacket, MediaType};

use crate::golden::{bytes, list, load, number, text};

fn packet(block: u8, index: u8, repair: bool, payload: Bytes) -> MediaPacket {
    let position = u32::from(block) * 16 + u32::from(index);
    let header = MediaHeader {
        flags: if repair { Flags::REPAIR } else { Flags::empty() },
        media_type: MediaType::Audio,
        codec: Codec::Codec2_1200,
        stream_id: 0,
        fec_ratio: 100,
        seq: position,
        timestamp: (u32::from(block) * 8 + u32::from(index.min(7))) * 40,
        fec_block: u16::from_be_bytes([index, block]),
    };
    MediaPacket {
        header,
        payload,
        quality: None,
    }
}

/// A block as packets: source frames, then repair symbols.
fn block(id: u8, frames: &[Vec<u8>], repair: u8) -> Vec<MediaPacket> {
    let sources: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    let symbols = repair_symbols(&sources, repair).unwrap();
    let first = frames.len() as u8;
    let sources = (0u8..)
        .zip(frames)
        .map(|(index, frame)| packet(id, index, false, frame.clone().into()));
    sources
        .chain(
            (first..)
                .zip(symbols)
                .map(|(index, symbol)| packet(id, index, true, symbol)),
        )
        .collect()
}

fn recorded_blocks() -> Vec<Vec<MediaPacket>> {
    let golden = load("fec_raptorq.json");
    let packets = |block: &serde_json::Value| {
        let id = number(block, "block_id");
        let frames = list(block, "source_frames_hex")
            .iter()
            .map(|frame| hex::decode(frame.as_str().unwrap()).unwrap());
        let sources = (0u8..)
            .zip(frames)
            .map(|(index, frame)| packet(id, index, false, frame.into()));
        let repair = list(block, "repair").iter().map(|symbol| {
            let packet = packet(id, number(symbol, "symbol_index"), true, bytes(symbol, "payload_hex"));
            assert_eq!(packet.header.fec_block, number::<u16>(symbol, "fec_block_field"));
            packet
        });
        sources.chain(repair).collect()
    };
    list(&golden, "blocks").iter().map(packets).collect()
}

#[test]
fn repair_symbols_are_those_of_natives() {
    for block in list(&load("fec_raptorq.json"), "blocks") {
        let frames: Vec<Vec<u8>> = list(block, "source_frames_hex")
            .iter()
            .map(|frame| hex::decode(frame.as_str().unwrap()).unwrap())
            .collect();
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let symbols = repair_symbols(&frames, 8).unwrap();
        for (symbol, recorded) in symbols.iter().zip(list(block, "repair")) {
            assert_eq!(hex::encode(symbol), text(recorded, "payload_hex"));
        }
        assert_eq!(symbols.len(), 8);
    }
}

#[test]
fn lost_frames_of_the_recording_are_computed_again() {
    let blocks = recorded_blocks();
    let mut decoder = FecDecoder::new();
    for packet in &blocks[0] {
        assert_eq!(decoder.push(packet), []);
    }
    // Half of the second block is lost, the last source frame and the first repair symbol among it.
    let lost = [1, 4, 7, 8, 9, 12, 14];
    let mut recovered = Vec::new();
    for (n, packet) in blocks[1].iter().enumerate() {
        if !lost.contains(&n) {
            recovered.extend(decoder.push(packet));
        }
    }
    let expected: Vec<RecoveredFrame> = [1, 4, 7]
        .map(|n: usize| RecoveredFrame {
            header: blocks[1][n].header,
            payload: blocks[1][n].payload.clone(),
        })
        .into();
    assert_eq!(recovered, expected);
    assert_eq!(decoder.stats().recovered, 3);
}

#[test]
fn loss_beyond_the_repair_symbols_stays_lost() {
    let blocks = recorded_blocks();
    let mut decoder = FecDecoder::new();
    blocks[0].iter().for_each(|packet| drop(decoder.push(packet)));
    let recovered: Vec<_> = blocks[1][3..10]
        .iter()
        .flat_map(|packet| decoder.push(packet))
        .collect();
    assert_eq!(recovered, []);
}

#[test]
fn a_sender_that_changes_its_blocks_is_learned_again() {
    let frames = |n: u8, len: usize| (0..len as u8).map(|i| vec![n ^ i; 6]).collect::<Vec<_>>();
    let mut decoder = FecDecoder::new();
    for (id, len) in [(0, 8), (1, 8), (2, 5), (3, 5), (4, 10), (5, 10)] {
        let packets = block(id, &frames(id, len), 4);
        let lost = id % 2 == 1;
        let pushed = packets.iter().enumerate().filter(|(n, _)| !lost || *n != 2);
        let recovered: Vec<_> = pushed.flat_map(|(_, packet)| decoder.push(packet)).collect();
        assert_eq!(recovered.len(), usize::from(lost), "block {id}");
    }
}

#[test]
fn packets_that_make_no_sense_are_ignored() {
    let mut decoder = FecDecoder::new();
    assert_eq!(decoder.push(&packet(0, 8, true, Bytes::from_static(b"short"))), []);
    assert_eq!(decoder.push(&packet(0, 255, true, vec![0; 256].into())), []);
    assert_eq!(decoder.push(&packet(0, 200, false, vec![0; 6].into())), []);
    assert_eq!(decoder.push(&packet(0, 0, false, vec![0; 255].into())), []);
    assert_eq!(decoder.stats().ignored, 2);
    let mut opus = packet(0, 0, false, vec![0; 6].into());
    opus.header.codec = Codec::Opus24k;
    assert_eq!(decoder.push(&opus), []);
    // A repair symbol of other data gives no frame.
    let blocks = recorded_blocks();
    blocks[0].iter().for_each(|packet| drop(decoder.push(packet)));
    let mut forged = blocks[1].clone();
    forged[8].payload = vec![0x5a; 256].into();
    assert_eq!(
        forged[1..]
            .iter()
            .flat_map(|packet| decoder.push(packet))
            .collect::<Vec<_>>(),
        []
    );
    assert!(decoder.stats().ignored > 2);
}

#[test]
fn blocks_over_the_limits_are_refused() {
    assert_eq!(repair_symbols(&[], 1), Err(FecError::BlockSize { frames: 0 }));
    assert!(repair_symbols(&vec![[0; 6].as_slice(); MAX_BLOCK_FRAMES], 1).is_ok());
    assert_eq!(
        repair_symbols(&vec![[0; 6].as_slice(); 65], 1),
        Err(FecError::BlockSize { frames: 65 })
    );
    assert!(repair_symbols(&[&[0; 254]], 1).is_ok());
    assert_eq!(
        repair_symbols(&[&[0; 255]], 1),
        Err(FecError::FrameTooLong { len: 255 })
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_recovered_is_right(
        frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 6), 16 * 12),
        lost in proptest::collection::vec(proptest::bool::weighted(0.3), 16 * 24),
    ) {
        let mut decoder = FecDecoder::new();
        let packets: Vec<_> = (0u8..).zip(frames.chunks_exact(8)).flat_map(|(id, frames)| block(id, frames, 8)).collect();
        let mut recovered = Vec::new();
        for (packet, lost) in packets.iter().zip(&lost) {
            if !lost {
                recovered.extend(decoder.push(packet));
            }
        }
        for frame in &recovered {
            let position = packets.iter().position(|packet| packet.header == frame.header).unwrap();
            prop_assert!(lost[position]);
            prop_assert_eq!(&packets[position].payload, &frame.payload);
        }
        // Once the block's length is known, enough packets are nearly always enough.
        let lost_sources = |block: usize| (0..8).filter(|i| lost[block * 16 + i]).count();
        let all_lost = |block: usize| (0..16).filter(|i| lost[block * 16 + i]).count();
        let seen = |index: usize, before: usize| (0..before).any(|block| !lost[block * 16 + index]);
        for block in (0..24).filter(|block| seen(7, *block) && seen(8, *block) && all_lost(*block) <= 6) {
            let got = recovered.iter().filter(|frame| usize::from(frame.header.fec_block_id()) == block).count();
            prop_assert_eq!(got, lost_sources(block), "block {}", block);
        }
    }

    #[test]
    fn anything_is_survived(packets in proptest::collection::vec(
        (0..3u8, 0..20u8, any::<bool>(), any::<u32>(), 0..300usize, any::<u8>()), 0..200)) {
        let mut decoder = FecDecoder::new();
        for (id, index, repair, timestamp, len, fill) in packets {
            let len = if repair && len > 100 { 256 } else { len % 20 };
            let mut packet = packet(id, index, repair, vec![fill; len].into());
            if timestamp % 8 == 0 {
                packet.header.timestamp = timestamp;
            }
            decoder.push(&packet);
        }
    }
}

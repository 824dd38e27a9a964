//! Any bytes as packets.

use bytes::Bytes;
use proptest::prelude::*;
use wzp_proto::{Codec, Flags, MediaHeader, MediaPacket, MediaType, QualityReport, encode_datagram};

/// Any header that can be written.
pub fn any_header() -> impl Strategy<Value = MediaHeader> {
    (
        any::<u8>(),
        0..4u8,
        proptest::sample::select(Codec::ALL.to_vec()),
        any::<(u8, u8, u32, u32, u16)>(),
    )
        .prop_map(
            |(flags, media_type, codec, (stream_id, fec_ratio, seq, timestamp, fec_block))| MediaHeader {
                flags: Flags::from_bits_retain(flags),
                media_type: MediaType::from_id(media_type).unwrap(),
                codec,
                stream_id,
                fec_ratio,
                seq,
                timestamp,
                fec_block,
            },
        )
}

proptest! {
    #[test]
    fn what_can_be_read_is_written_the_same(datagram: Vec<u8>) {
        if let Ok(packet) = MediaPacket::decode(datagram.clone().into()) {
            prop_assert_eq!(packet.encode(), datagram);
        }
    }

    #[test]
    fn nearly_right_datagrams_are_read_or_refused(
        mut datagram in proptest::collection::vec(any::<u8>(), 0..64),
        media_type in 0..5u8,
        codec in 0..14u8,
    ) {
        for (byte, value) in datagram.iter_mut().zip([Some(2), None, Some(media_type), Some(codec)]) {
            *byte = value.unwrap_or(*byte);
        }
        let read = MediaPacket::decode(datagram.clone().into());
        let legal = datagram.len() >= 16 && media_type < 4 && Codec::from_id(codec).is_some();
        let room = datagram.len() >= 20 || datagram.get(1).is_none_or(|flags| flags & 0x40 == 0);
        prop_assert_eq!(read.is_ok(), legal && room);
        if let Ok(packet) = read {
            prop_assert_eq!(packet.encode(), datagram);
        }
    }

    #[test]
    fn what_is_written_can_be_read(
        header in any_header(),
        payload: Vec<u8>,
        quality: Option<[u8; 4]>,
    ) {
        let mut packet =
            MediaPacket { header, payload: payload.into(), quality: quality.map(QualityReport::decode) };
        let read = MediaPacket::decode(packet.encode()).unwrap();
        packet.header.flags.set(Flags::QUALITY, quality.is_some());
        prop_assert_eq!(&read, &packet);

        let datagram = encode_datagram(&header, &packet.payload);
        let read = MediaPacket::decode(datagram).unwrap();
        prop_assert_eq!(read.payload, packet.payload);
        prop_assert_eq!(read.quality, None);
    }

    #[test]
    fn headers_survive_a_round_trip(header in any_header()) {
        prop_assert_eq!(MediaHeader::decode(&header.encode()), Ok(header));
        prop_assert_eq!(MediaHeader::decode(&Bytes::copy_from_slice(&header.encode())[..15]).is_ok(), false);
    }
}

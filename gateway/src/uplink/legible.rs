//! Whether what a relay forwards can be played at all. Without IO.
//!
//! Media of another wire version, and media that is sealed for somebody else, would be heard as silence or as noise; it is
//! recognised, so that it can be said.

use std::collections::{BTreeMap, BTreeSet};

use wzp_proto::header::{HeaderError, MediaType};
use wzp_proto::packet::{MediaPacket, PacketError};

use crate::uplink::separate::StreamId;

/// Judged by so many packets.
const SAMPLE: u32 = 50;
/// The first byte of an Opus packet says how it is coded, so that of a few senders has a few values; of a sealed packet it
/// has any.
const FIRST_BYTES: usize = 25;
/// A sealed packet has at least its seal and a byte.
const SEALED: usize = 17;

/// What comes from a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it, or not against everybody's.
    Legible,
    /// It is of another wire version.
    Version(u8),
    /// It is encrypted end to end, whoever it is of.
    Sealed,
}

/// Judges what comes.
#[derive(Debug, Default)]
pub struct Legibility {
    wrong_version: u32,
    version: u8,
    streams: BTreeMap<StreamId, Sample>,
}

/// What is known of one sender's sound.
#[derive(Debug, Default)]
struct Sample {
    opus: u32,
    first_bytes: BTreeSet<u8>,
    short: bool,
    /// Not before a whole sample.
    sealed: Option<bool>,
}

impl Legibility {
    /// Takes note of a media packet of a stream; whether that stream's media can be played.
    pub fn packet(&mut self, stream: StreamId, packet: &MediaPacket) -> bool {
        self.wrong_version = 0;
        let header = &packet.header;
        if header.media_type != MediaType::Audio || !header.codec.is_opus() || header.is_repair() {
            let sealed = self.streams.get(&stream).and_then(|sample| sample.sealed);
            return sealed != Some(true) && self.verdict() != Verdict::Sealed;
        }
        let sample = self.streams.entry(stream).or_default();
        sample.opus += 1;
        sample.first_bytes.extend(packet.payload.first());
        sample.short |= packet.payload.len() < SEALED;
        if sample.opus >= SAMPLE {
            let sealed = sample.first_bytes.len() >= FIRST_BYTES && !sample.short;
            *sample = Sample {
                sealed: Some(sealed),
                ..Sample::default()
            };
        }
        sample.sealed != Some(true)
    }

    /// Takes note of a datagram that is none.
    pub fn bad(&mut self, error: &PacketError) {
        if let PacketError::Header(HeaderError::Version(version)) = error {
            self.version = *version;
            self.wrong_version = self.wrong_version.saturating_add(1);
        }
    }

    /// These streams are no more.
    pub fn vanished(&mut self, ids: &[StreamId]) {
        self.streams.retain(|id, _| !ids.contains(id));
    }

    /// The judgement so far.
    pub fn verdict(&self) -> Verdict {
        let mut judged = self.streams.values().filter_map(|sample| sample.sealed).peekable();
        if self.wrong_version >= SAMPLE {
            Verdict::Version(self.version)
        } else if judged.peek().is_some() && judged.all(|sealed| sealed) {
            Verdict::Sealed
        } else {
            Verdict::Legible
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use wzp_proto::codec::Codec;
    use wzp_proto::header::{Flags, MediaHeader};

    use super::*;

    const ONE: StreamId = StreamId(1);
    const OTHER: StreamId = StreamId(2);

    fn packet(payload: impl Into<Bytes>) -> MediaPacket {
        MediaPacket {
            header: MediaHeader {
                flags: Flags::empty(),
                media_type: MediaType::Audio,
                codec: Codec::Opus24k,
                stream_id: 0,
                fec_ratio: 0,
                seq: 0,
                timestamp: 0,
                fec_block: 0,
            },
            payload: payload.into(),
            quality: None,
        }
    }

    #[test]
    fn opus_is_legible_silence_too() {
        let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
        let mut legibility = Legibility::default();
        for n in 0..400u32 {
            let loud = if n % 100 < 50 { 0.3 } else { 0.0 };
            let pcm: Vec<f32> = (0..960).map(|i| (i as f32 / 17.0).sin() * loud).collect();
            legibility.packet(ONE, &packet(encoder.encode_vec_float(&pcm, 512).unwrap()));
            assert_eq!(legibility.verdict(), Verdict::Legible);
        }
    }

    #[test]
    fn sealed_media_is_recognised_and_what_follows_it_unsealed_too() {
        let mut legibility = Legibility::default();
        for _ in 0..SAMPLE {
            legibility.packet(ONE, &packet(rand::random::<[u8; 32]>().repeat(3)));
        }
        assert_eq!(legibility.verdict(), Verdict::Sealed);
        for _ in 0..SAMPLE {
            legibility.packet(ONE, &packet(vec![0x48, 0xff, 0xfe]));
        }
        assert_eq!(legibility.verdict(), Verdict::Legible);
    }

    #[test]
    fn one_who_seals_is_not_everybody() {
        let mut legibility = Legibility::default();
        for _ in 0..SAMPLE {
            legibility.packet(ONE, &packet(rand::random::<[u8; 32]>().repeat(3)));
            assert!(legibility.packet(OTHER, &packet(vec![0x48, 0xff, 0xfe])));
        }
        assert_eq!(legibility.verdict(), Verdict::Legible);
        assert!(!legibility.packet(ONE, &packet(rand::random::<[u8; 32]>().repeat(3))));
        assert!(legibility.packet(OTHER, &packet(vec![0x48, 0xff, 0xfe])));
        legibility.vanished(&[OTHER]);
        assert_eq!(legibility.verdict(), Verdict::Sealed);
    }

    #[test]
    fn another_wire_version_is_recognised() {
        let mut legibility = Legibility::default();
        for _ in 0..SAMPLE {
            let error = MediaPacket::decode(Bytes::from_static(&[1; 40])).unwrap_err();
            legibility.bad(&error);
        }
        assert_eq!(legibility.verdict(), Verdict::Version(1));
        legibility.packet(ONE, &packet(vec![0x48, 0xff, 0xfe]));
        assert_eq!(legibility.verdict(), Verdict::Legible);
    }
}

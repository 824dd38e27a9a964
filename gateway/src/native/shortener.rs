//! Sound packets that are too long for an app become packets of 20 ms (WZP wire v2, section 6.5: an app has space for 40 ms).
//! Few senders make such packets, and our answers ask them not to; so every receiver does this for himself.

use std::ops::Deref;
use std::slice;

use bytes::Bytes;

use crate::media::audio::decode::duration;
use crate::media::audio::transcode::Transcoder;
use crate::media::audio::{BLOCK, BLOCK_TIME};
use crate::media::frame::{Frame, ParticipantId, RoomTime};

/// What an app has space for, samples.
const MOST: usize = 1_920;

/// A packet that an app can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Opus packet, or whatever the source's codec is.
    pub payload: Bytes,
    /// Its time on the source's clock at 48 kHz.
    pub ticks: u64,
    /// The same instant on the room's clock.
    pub time: RoomTime,
}

/// What is sent in a packet's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parts {
    /// The packet itself.
    AsItIs(Part),
    /// Shorter ones.
    Made(Vec<Part>),
}

impl Deref for Parts {
    type Target = [Part];

    fn deref(&self) -> &[Part] {
        match self {
            Self::AsItIs(part) => slice::from_ref(part),
            Self::Made(parts) => parts,
        }
    }
}

/// Makes packets of one source at a time shorter.
#[derive(Debug, Default)]
pub struct Shortener {
    /// Of whom, and where what was made ends.
    transcoder: Option<(ParticipantId, Transcoder)>,
}

impl Shortener {
    /// What is sent in the frame's place: itself, if it is short enough or the receiver takes any. `None` if it is no packet of its
    /// codec, which nobody could decode.
    pub fn parts(&mut self, frame: &Frame, takes_any: bool) -> Option<Parts> {
        let source = frame.track.source;
        if takes_any || duration(frame.codec, &frame.payload)? <= MOST {
            self.transcoder = None;
            return Some(Parts::AsItIs(Part {
                payload: frame.payload.clone(),
                ticks: frame.ticks,
                time: frame.time,
            }));
        }
        if !matches!(&self.transcoder, Some((known, _)) if *known == source) {
            self.transcoder = Some((source, Transcoder::new(source.0).ok()?));
        }
        let (_, transcoder) = self.transcoder.as_mut()?;
        let made = transcoder.push(frame.codec, &frame.payload, 0).ok()?;
        let before = made.before as u64;
        let part = |(n, payload): (usize, Bytes)| Part {
            payload,
            ticks: (frame.ticks + (n * BLOCK) as u64).saturating_sub(before),
            time: RoomTime((frame.time.0 + n as u64 * BLOCK_TIME).saturating_sub(before * 1000 / 48)),
        };
        Some(Parts::Made(made.packets.into_iter().enumerate().map(part).collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;
    use wzp_proto::codec::Codec;

    use super::*;
    use crate::media::frame::{Draft, Kind, TrackId};
    use crate::room::subscription::{Cursor, Lag, Next};
    use crate::room::track::{Bounds, Track};

    fn frame(payload: Vec<u8>) -> Arc<Frame> {
        let id = TrackId {
            source: ParticipantId(1),
            kind: Kind::Audio,
            slot: 0,
            layer: 0,
        };
        let (track, mut writer) = Track::create(id, Bounds::AUDIO, 0);
        let mut cursor = Cursor::new(&track, &Arc::new(Notify::new()));
        let draft = Draft {
            codec: Codec::Opus24k,
            keyframe: true,
            ticks: 9_600,
            time: RoomTime(200_000),
            size: None,
            payload: payload.into(),
        };
        writer.append(draft, RoomTime(200_000));
        let lag = Lag {
            most: u64::MAX,
            resync_age: 0,
        };
        match cursor.next(&lag) {
            Next::Frame(frame) => frame,
            other => panic!("{other:?}"),
        }
    }

    fn opus(samples: usize) -> Vec<u8> {
        let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
        encoder.encode_vec_float(&vec![0.1; samples], 1_275).unwrap()
    }

    #[test]
    fn packets_of_up_to_40_ms_stay_as_they_are() {
        for samples in [960, 1_920] {
            let frame = frame(opus(samples));
            let parts = Shortener::default().parts(&frame, false).unwrap();
            let Parts::AsItIs(part) = parts else {
                panic!("{parts:?}")
            };
            assert_eq!((&part.payload, part.ticks), (&frame.payload, 9_600));
        }
    }

    #[test]
    fn packet_of_60_ms_becomes_three_of_20() {
        let parts = Shortener::default().parts(&frame(opus(2_880)), false).unwrap();
        let times: Vec<_> = parts.iter().map(|part| (part.ticks, part.time.0)).collect();
        assert_eq!(times, [(9_600, 200_000), (10_560, 220_000), (11_520, 240_000)]);
        for part in parts.iter() {
            assert_eq!(duration(Codec::Opus24k, &part.payload), Some(960));
        }
    }

    #[test]
    fn what_is_no_packet_is_not_sent() {
        // A packet of several frames whose count byte is missing.
        assert_eq!(Shortener::default().parts(&frame(vec![0xfb]), false), None);
        let long = frame(opus(2_880));
        let as_it_is = Shortener::default().parts(&long, true).unwrap();
        assert_eq!((as_it_is.len(), &as_it_is[0].payload), (1, &long.payload));
        // 63 frames of 2.5 ms.
        assert_eq!(Shortener::default().parts(&frame(vec![0xe3, 63]), false), None);
    }
}

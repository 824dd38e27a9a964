//! Samples of one page become frames of its track. Without IO; time is an argument.

use std::sync::Arc;

use wzp_proto::codec::Codec;

use crate::media::audio::encode::MixEncoder;
use crate::media::audio::mix::Limiter;
use crate::media::audio::{BLOCK, Block};
use crate::media::frame::{Draft, Kind, ParticipantId, RoomTime, TrackId};
use crate::pcm::clock::PageClock;
use crate::room::member::{Origin, TrackInfo};
use crate::room::track::{Bounds, Track, TrackWriter};

/// Bytes of a message.
pub const MESSAGE: usize = BLOCK * 2;
/// Messages a second: 50, and what a page's clock may be fast.
const RATE: u64 = 52;
/// Messages at once, after the network was held up.
const BURST: u64 = 50;

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Half a sample.
    #[error("a message of {0} bytes is no whole number of 16-bit samples; send {MESSAGE} bytes, 960 samples")]
    Odd(usize),
    /// Not 20 ms.
    #[error("a message of {0} bytes is not 20 ms; send {MESSAGE} bytes, 960 samples of 16 bits at 48 kHz, mono")]
    Size(usize),
    /// Faster than sound.
    #[error("messages come faster than 50 a second; send one for every 20 ms of sound")]
    Rate,
    /// The encoder failed.
    #[error("the sound was not encoded: {}", .0.description())]
    Encode(opus::ErrorCode),
}

impl Refused {
    /// The code of the error as the page is told it.
    pub fn code(self) -> &'static str {
        match self {
            Self::Odd(_) | Self::Size(_) => "bad_frame",
            Self::Rate => "rate_limited",
            Self::Encode(_) => "encoder_failed",
        }
    }
}

/// The sending side of one page.
#[derive(Debug)]
pub struct Ingress {
    writer: TrackWriter,
    encoder: MixEncoder,
    limiter: Limiter,
    clock: PageClock,
    /// Messages that may come now, in millionths.
    allowance: u64,
    refilled_at: RoomTime,
}

impl Ingress {
    /// A page that has not sent anything yet. `first_seq` is random.
    ///
    /// # Errors
    /// libopus has no memory.
    pub fn new(source: ParticipantId, first_seq: u32, now: RoomTime) -> Result<Self, opus::Error> {
        let id = TrackId {
            source,
            kind: Kind::Audio,
            slot: 0,
            layer: 0,
        };
        Ok(Self {
            writer: Track::create(id, Bounds::AUDIO, first_seq).1,
            encoder: MixEncoder::new()?,
            limiter: Limiter::default(),
            clock: PageClock::default(),
            allowance: BURST * 1_000_000,
            refilled_at: now,
        })
    }

    /// The track, and what it is.
    pub fn track(&self) -> (TrackInfo, Arc<Track>) {
        let info = TrackInfo {
            kind: Kind::Audio,
            slot: 0,
            layer: 0,
            origin: Origin::Microphone,
            codec: Codec::Opus24k,
            size: None,
        };
        (info, self.writer.track().clone())
    }

    /// Takes a message that came at `now`; `more` says that another one has come already.
    ///
    /// # Errors
    /// It is not what the door takes: nothing of it is heard.
    pub fn message(&mut self, message: &[u8], now: RoomTime, more: bool) -> Result<(), Refused> {
        let refill = now.since(self.refilled_at) * RATE;
        self.allowance = (self.allowance + refill).min(BURST * 1_000_000);
        self.refilled_at = now;
        self.allowance = self.allowance.checked_sub(1_000_000).ok_or(Refused::Rate)?;
        if !message.len().is_multiple_of(2) {
            return Err(Refused::Odd(message.len()));
        }
        if message.len() != MESSAGE {
            return Err(Refused::Size(message.len()));
        }
        let mut block: Block = [0.0; BLOCK];
        for (sample, bytes) in block.iter_mut().zip(message.as_chunks::<2>().0) {
            *sample = f32::from(i16::from_le_bytes(*bytes)) / 32_768.0;
        }
        self.limiter.apply(&mut block);
        let payload = self
            .encoder
            .encode(&block)
            .map_err(|error| Refused::Encode(error.code()))?;
        let (ticks, time) = self.clock.message(now, more);
        let draft = Draft {
            codec: Codec::Opus24k,
            keyframe: true,
            ticks,
            time,
            size: None,
            payload,
        };
        self.writer.append(draft, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::sync::Notify;

    use super::*;
    use crate::media::audio::decode::Voice;
    use crate::media::audio::tests::{amplitude, tone};
    use crate::room::subscription::{Cursor, Lag, Next};

    const LAG: Lag = Lag {
        most: u64::MAX,
        resync_age: 0,
    };

    fn ingress() -> (Ingress, Cursor) {
        let ingress = Ingress::new(ParticipantId(3), 1, RoomTime(0)).unwrap();
        let cursor = Cursor::new(&ingress.track().1, &Arc::new(Notify::new()));
        (ingress, cursor)
    }

    #[test]
    fn samples_are_heard_as_opus_on_their_own_clock() {
        let (mut ingress, mut cursor) = ingress();
        let (mut voice, mut heard) = (Voice::new(1), Vec::new());
        let mut last = None;
        for n in 0..100u64 {
            let message: Vec<u8> = tone(440.0, 0.5, n as usize * BLOCK, BLOCK)
                .iter()
                .flat_map(|sample| ((sample * 32_767.0) as i16).to_le_bytes())
                .collect();
            // 7 ms of jitter.
            let now = RoomTime(1_000_000 + n * 20_000 + n % 3 * 7_000);
            ingress.message(&message, now, false).unwrap();
            let Next::Frame(frame) = cursor.next(&LAG) else {
                panic!("no frame")
            };
            assert!(last.is_none_or(|last| frame.ticks == last + 960));
            last = Some(frame.ticks);
            voice.decode(frame.codec, &frame.payload, &mut heard).unwrap();
        }
        assert!((amplitude(&heard[48_000..], 440.0) - 0.5).abs() < 0.1);
    }

    #[test]
    fn wrong_lengths_and_too_fast_a_rate_are_refused_and_not_heard() {
        let (mut ingress, mut cursor) = ingress();
        assert_eq!(
            ingress.message(&[0; 1_919], RoomTime(0), false),
            Err(Refused::Odd(1_919))
        );
        assert_eq!(
            ingress.message(&[0; 1_918], RoomTime(0), false),
            Err(Refused::Size(1_918))
        );
        assert_eq!(ingress.message(&[], RoomTime(0), false), Err(Refused::Size(0)));
        assert!(matches!(cursor.next(&LAG), Next::Empty));
        let taken = (0..200)
            .filter(|_| ingress.message(&[0; MESSAGE], RoomTime(0), false).is_ok())
            .count();
        assert_eq!(taken as u64, BURST - 3);
        assert_eq!(ingress.message(&[0; MESSAGE], RoomTime(0), false), Err(Refused::Rate));
        assert_eq!(ingress.message(&[0; MESSAGE], RoomTime(20_000), false), Ok(()));
        // A second of steady sending is never refused.
        for n in 0..500u64 {
            assert_eq!(
                ingress.message(&[0; MESSAGE], RoomTime(40_000 + n * 20_000), false),
                Ok(())
            );
        }
    }

    proptest! {
        #[test]
        fn any_message_is_taken_or_refused(message in proptest::collection::vec(any::<u8>(), 0..4_000), ms in 0u64..1_000_000) {
            let (mut ingress, _cursor) = ingress();
            let taken = ingress.message(&message, RoomTime::from_millis(ms), false).is_ok();
            prop_assert_eq!(taken, message.len() == MESSAGE);
        }
    }
}

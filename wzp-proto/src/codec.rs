//! Codec identifiers, media kinds and the named quality profiles (WZP wire v2, sections 2.4 and 3.3).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::header::MediaType;

/// A codec as named by the header's codec byte and, in signals, by its JSON name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Codec {
    /// Opus at 24 kbit/s, 20 ms frames; what natives send unless told otherwise.
    Opus24k = 0,
    /// Opus at 16 kbit/s, 20 ms frames.
    Opus16k = 1,
    /// Opus at 6 kbit/s, 40 ms frames.
    Opus6k = 2,
    /// Codec2 at 3200 bit/s, 20 ms frames of 8 bytes, 8 kHz.
    Codec2_3200 = 3,
    /// Codec2 at 1200 bit/s, 40 ms frames of 6 bytes, 8 kHz.
    Codec2_1200 = 4,
    /// Comfort noise: one payload byte, the level.
    ComfortNoise = 5,
    /// Opus at 32 kbit/s, 20 ms frames.
    Opus32k = 6,
    /// Opus at 48 kbit/s, 20 ms frames.
    Opus48k = 7,
    /// Opus at 64 kbit/s, 20 ms frames.
    Opus64k = 8,
    /// H.264 Annex B. Named Baseline, but Android sends High profile under this id.
    H264Baseline = 9,
    /// H.265 Annex B.
    H265Main = 11,
    /// AV1, an OBU stream with size fields.
    Av1Main = 12,
}

impl Codec {
    /// Every codec of wire v2, in the order of the ids.
    pub const ALL: [Self; 12] = [
        Self::Opus24k,
        Self::Opus16k,
        Self::Opus6k,
        Self::Codec2_3200,
        Self::Codec2_1200,
        Self::ComfortNoise,
        Self::Opus32k,
        Self::Opus48k,
        Self::Opus64k,
        Self::H264Baseline,
        Self::H265Main,
        Self::Av1Main,
    ];

    /// The codec with this wire id; `None` for the reserved id 10 and for everything above 12.
    pub const fn from_id(id: u8) -> Option<Self> {
        Some(match id {
            0 => Self::Opus24k,
            1 => Self::Opus16k,
            2 => Self::Opus6k,
            3 => Self::Codec2_3200,
            4 => Self::Codec2_1200,
            5 => Self::ComfortNoise,
            6 => Self::Opus32k,
            7 => Self::Opus48k,
            8 => Self::Opus64k,
            9 => Self::H264Baseline,
            11 => Self::H265Main,
            12 => Self::Av1Main,
            _ => return None,
        })
    }

    /// The wire id, the header's codec byte.
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// The JSON name, as signals carry it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opus24k => "Opus24k",
            Self::Opus16k => "Opus16k",
            Self::Opus6k => "Opus6k",
            Self::Codec2_3200 => "Codec2_3200",
            Self::Codec2_1200 => "Codec2_1200",
            Self::ComfortNoise => "ComfortNoise",
            Self::Opus32k => "Opus32k",
            Self::Opus48k => "Opus48k",
            Self::Opus64k => "Opus64k",
            Self::H264Baseline => "H264Baseline",
            Self::H265Main => "H265Main",
            Self::Av1Main => "Av1Main",
        }
    }

    /// Whether the codec carries sound or pictures.
    pub const fn media_type(self) -> MediaType {
        if self.is_video() {
            MediaType::Video
        } else {
            MediaType::Audio
        }
    }

    /// Whether this is one of the three video codecs.
    pub const fn is_video(self) -> bool {
        matches!(self, Self::H264Baseline | Self::H265Main | Self::Av1Main)
    }

    /// Whether the payload is an Opus packet.
    pub const fn is_opus(self) -> bool {
        matches!(
            self,
            Self::Opus24k | Self::Opus16k | Self::Opus6k | Self::Opus32k | Self::Opus48k | Self::Opus64k
        )
    }

    /// Whether the payload is a Codec2 frame.
    pub const fn is_codec2(self) -> bool {
        matches!(self, Self::Codec2_3200 | Self::Codec2_1200)
    }

    /// Nominal frame duration in ms. For video an expectation only (30 frames per second).
    pub const fn frame_ms(self) -> u32 {
        match self {
            Self::Opus6k | Self::Codec2_1200 => 40,
            Self::H264Baseline | Self::H265Main | Self::Av1Main => 33,
            _ => 20,
        }
    }

    /// Nominal bit rate in bit/s; 0 for comfort noise.
    pub const fn nominal_bitrate(self) -> u32 {
        match self {
            Self::Opus24k => 24_000,
            Self::Opus16k => 16_000,
            Self::Opus6k => 6_000,
            Self::Codec2_3200 => 3_200,
            Self::Codec2_1200 => 1_200,
            Self::ComfortNoise => 0,
            Self::Opus32k => 32_000,
            Self::Opus48k => 48_000,
            Self::Opus64k => 64_000,
            Self::H264Baseline | Self::H265Main | Self::Av1Main => 2_000_000,
        }
    }

    /// Sample rate of the coded sound in Hz; `None` for video, where the protocol's table has no meaning.
    pub const fn sample_rate(self) -> Option<u32> {
        match self {
            Self::Codec2_3200 | Self::Codec2_1200 => Some(8_000),
            Self::H264Baseline | Self::H265Main | Self::Av1Main => None,
            _ => Some(48_000),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a sender gives up last when the network gets worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PriorityMode {
    /// Sound before pictures; the default.
    #[default]
    AudioFirst,
    /// Pictures before sound.
    VideoFirst,
    /// A shared screen: sharpness before smoothness.
    ScreenShare,
    /// Both alike.
    Balanced,
}

/// How a sender should code: audio codec, error correction and, if set, video bounds (section 3.3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QualityProfile {
    /// Audio codec.
    pub codec: Codec,
    /// Repair packets per source packet, 0.0–2.0. Used by Codec2 only.
    pub fec_ratio: f32,
    /// Audio frame duration in ms.
    pub frame_duration_ms: u8,
    /// Audio frames per FEC block.
    pub frames_per_block: u8,
    /// What to protect first.
    #[serde(default)]
    pub priority_mode: PriorityMode,
    /// Upper bound of the video bit rate in kbit/s.
    pub video_bitrate_kbps: Option<u32>,
    /// Upper bound of the picture size in pixels: width, height.
    pub video_resolution: Option<(u16, u16)>,
    /// Upper bound of the frame rate.
    pub video_fps: Option<u8>,
}

impl QualityProfile {
    /// 64 kbit/s Opus.
    pub const STUDIO_64K: Self = Self::audio(Codec::Opus64k, 0.1, 20, 5);
    /// 48 kbit/s Opus.
    pub const STUDIO_48K: Self = Self::audio(Codec::Opus48k, 0.1, 20, 5);
    /// 32 kbit/s Opus.
    pub const STUDIO_32K: Self = Self::audio(Codec::Opus32k, 0.1, 20, 5);
    /// 24 kbit/s Opus: what relays answer every offer with.
    pub const GOOD: Self = Self::audio(Codec::Opus24k, 0.2, 20, 5);
    /// 6 kbit/s Opus in 40 ms frames.
    pub const DEGRADED: Self = Self::audio(Codec::Opus6k, 0.5, 40, 10);
    /// Codec2 at 1200 bit/s with one repair packet per source packet.
    pub const CATASTROPHIC: Self = Self::audio(Codec::Codec2_1200, 1.0, 40, 8);

    /// The named profiles in the order in which natives offer them.
    pub const OFFERED: [Self; 6] = [
        Self::STUDIO_64K,
        Self::STUDIO_48K,
        Self::STUDIO_32K,
        Self::GOOD,
        Self::DEGRADED,
        Self::CATASTROPHIC,
    ];

    const fn audio(codec: Codec, fec_ratio: f32, frame_duration_ms: u8, frames_per_block: u8) -> Self {
        Self {
            codec,
            fec_ratio,
            frame_duration_ms,
            frames_per_block,
            priority_mode: PriorityMode::AudioFirst,
            video_bitrate_kbps: None,
            video_resolution: None,
            video_fps: None,
        }
    }
}

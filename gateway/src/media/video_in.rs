//! What every door does with a video frame that it received: make it one or more units as the log wants them.

use bytes::Bytes;
use wzp_proto::codec::Codec;
use wzp_proto::video::FrameSize;

use crate::media::{av1, h264, h265};

/// A frame as the log wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// See [`crate::media::frame::Draft::payload`].
    pub payload: Bytes,
    /// Decodable without any earlier frame.
    pub keyframe: bool,
    /// From the bitstream, if it says.
    pub size: Option<FrameSize>,
}

/// Why a video frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VideoError {
    /// H.264.
    #[error(transparent)]
    H264(#[from] h264::AccessUnitError),
    /// AV1.
    #[error(transparent)]
    Av1(#[from] av1::TemporalUnitError),
    /// H.265.
    #[error(
        "the H.265 frame holds no picture or far too many slices, or is a keyframe and VPS, SPS and PPS have not come yet"
    )]
    H265,
    /// Not a video codec.
    #[error("{0:?} is not a video codec")]
    NotVideo(Codec),
}

/// The video of one track on its way in. A change of codec starts anew.
#[derive(Debug, Clone, Default)]
pub struct VideoIn {
    normalizer: Option<Normalizer>,
}

#[derive(Debug, Clone)]
enum Normalizer {
    H264(h264::Normalizer),
    H265(h265::Normalizer),
    Av1(av1::Normalizer),
}

impl VideoIn {
    /// The units in one received frame: one, unless the sender joined several.
    ///
    /// # Errors
    /// The payload is not what the codec says.
    pub fn push(&mut self, codec: Codec, payload: &Bytes) -> Result<Vec<Unit>, VideoError> {
        let fits = matches!(
            (&self.normalizer, codec),
            (Some(Normalizer::H264(_)), Codec::H264Baseline)
                | (Some(Normalizer::H265(_)), Codec::H265Main)
                | (Some(Normalizer::Av1(_)), Codec::Av1Main)
        );
        if !fits {
            self.normalizer = Some(match codec {
                Codec::H264Baseline => Normalizer::H264(h264::Normalizer::default()),
                Codec::H265Main => Normalizer::H265(h265::Normalizer::default()),
                Codec::Av1Main => Normalizer::Av1(av1::Normalizer::default()),
                other => return Err(VideoError::NotVideo(other)),
            });
        }
        match &mut self.normalizer {
            Some(Normalizer::H264(normalizer)) => Ok(normalizer
                .push(payload)?
                .into_iter()
                .map(|unit| Unit {
                    payload: unit.payload,
                    keyframe: unit.keyframe,
                    size: unit.size,
                })
                .collect()),
            Some(Normalizer::Av1(normalizer)) => {
                let unit = normalizer.push(payload)?;
                Ok(vec![Unit {
                    payload: unit.payload,
                    keyframe: unit.keyframe,
                    size: unit.size,
                }])
            }
            Some(Normalizer::H265(normalizer)) => {
                let (payload, keyframe) = normalizer.push(payload).ok_or(VideoError::H265)?;
                Ok(vec![Unit {
                    payload,
                    keyframe,
                    size: None,
                }])
            }
            None => Err(VideoError::NotVideo(codec)),
        }
    }
}

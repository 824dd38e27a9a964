//! Whole media packets: header, payload and the optional quality report (WZP wire v2, sections 2.1 and 2.5).

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::header::{Flags, HeaderError, MediaHeader};

/// A receiver's view of its path, 4 bytes at the end of a packet, or in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QualityReport {
    /// Packet loss, 0–255 for 0–100 %.
    pub loss_pct: u8,
    /// Round-trip time in units of 4 ms.
    pub rtt_4ms: u8,
    /// Jitter in ms.
    pub jitter_ms: u8,
    /// Upper bound for the bit rate in kbit/s.
    pub bitrate_cap_kbps: u8,
}

impl QualityReport {
    /// Length on the wire in bytes.
    pub const LEN: usize = 4;

    /// A report from measurements: loss in percent (0–100, truncated to steps of 1/255), the rest capped at the byte.
    pub fn measured(loss_percent: f32, rtt: Duration, jitter: Duration, bitrate_cap_kbps: u8) -> Self {
        let capped = |ms: u128| u8::try_from(ms).unwrap_or(u8::MAX);
        Self {
            // A float-to-int `as` saturates and takes NaN to 0.
            loss_pct: (loss_percent / 100.0 * 255.0) as u8,
            rtt_4ms: capped(rtt.as_millis() / 4),
            jitter_ms: capped(jitter.as_millis()),
            bitrate_cap_kbps,
        }
    }

    /// Packet loss in percent, 0.0–100.0.
    pub fn loss_percent(&self) -> f32 {
        f32::from(self.loss_pct) / 255.0 * 100.0
    }

    /// Round-trip time, at most 1020 ms.
    pub fn rtt(&self) -> Duration {
        Duration::from_millis(u64::from(self.rtt_4ms) * 4)
    }

    /// The report as it goes on the wire.
    pub const fn encode(&self) -> [u8; Self::LEN] {
        [self.loss_pct, self.rtt_4ms, self.jitter_ms, self.bitrate_cap_kbps]
    }

    /// Reads the four bytes; every value is legal.
    pub const fn decode([loss_pct, rtt_4ms, jitter_ms, bitrate_cap_kbps]: [u8; Self::LEN]) -> Self {
        Self {
            loss_pct,
            rtt_4ms,
            jitter_ms,
            bitrate_cap_kbps,
        }
    }
}

/// One media packet, which is one datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaPacket {
    /// The header. Its QUALITY flag follows `quality` when the packet is encoded.
    pub header: MediaHeader,
    /// The codec's bytes.
    pub payload: Bytes,
    /// The report at the end, if any.
    pub quality: Option<QualityReport>,
}

impl MediaPacket {
    /// Reads a datagram. The payload is a slice of it, nothing is copied.
    pub fn decode(mut datagram: Bytes) -> Result<Self, PacketError> {
        let header = MediaHeader::decode(&datagram)?;
        let quality = if header.flags.contains(Flags::QUALITY) {
            match datagram[MediaHeader::LEN..].last_chunk::<{ QualityReport::LEN }>() {
                Some(report) => Some(QualityReport::decode(*report)),
                None => return Err(PacketError::NoQualityReport { len: datagram.len() }),
            }
        } else {
            None
        };
        if quality.is_some() {
            datagram.truncate(datagram.len() - QualityReport::LEN);
        }
        Ok(Self {
            header,
            payload: datagram.split_off(MediaHeader::LEN),
            quality,
        })
    }

    /// The packet as a datagram. The QUALITY flag is written as `quality` says, whatever the header has.
    pub fn encode(&self) -> Bytes {
        let mut header = self.header;
        header.flags.set(Flags::QUALITY, self.quality.is_some());
        let trailer = if self.quality.is_some() { QualityReport::LEN } else { 0 };
        let mut datagram = BytesMut::with_capacity(MediaHeader::LEN + self.payload.len() + trailer);
        datagram.put_slice(&header.encode());
        datagram.put_slice(&self.payload);
        if let Some(quality) = &self.quality {
            datagram.put_slice(&quality.encode());
        }
        datagram.freeze()
    }
}

/// A datagram without quality report from header and payload, in one allocation.
///
/// The QUALITY flag is cleared, since a reader would take the payload's end for a report.
pub fn encode_datagram(header: &MediaHeader, payload: &[u8]) -> Bytes {
    let mut header = *header;
    header.flags.remove(Flags::QUALITY);
    let mut datagram = BytesMut::with_capacity(MediaHeader::LEN + payload.len());
    datagram.put_slice(&header.encode());
    datagram.put_slice(payload);
    datagram.freeze()
}

/// Why a datagram is not a media packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// The header cannot be read.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The QUALITY flag is set, but the datagram ends before the report could.
    #[error(
        "datagram of {len} bytes says it ends in a 4-byte quality report, but it is too short for header and report"
    )]
    NoQualityReport {
        /// Length of what came.
        len: usize,
    },
}

//! The compact form of media packets (WZP wire v2, section 2.6). Library code: no relay or app sends it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::header::{Flags, MediaHeader};
use crate::packet::{MediaPacket, PacketError};

/// First byte of a whole packet in compact form.
pub(crate) const FULL: u8 = 0;
/// First byte of a packet that inherits its header.
pub(crate) const MINI: u8 = 1;
/// Every so many packets one is whole.
const FULL_INTERVAL: u32 = 50;

/// What remains of a header when the rest is inherited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MiniHeader {
    /// Added to the sequence number; writers always write 1.
    pub seq_delta: u8,
    /// Added to the timestamp, in ms.
    pub timestamp_delta_ms: u16,
    /// Bytes of payload.
    pub payload_len: u16,
}

impl MiniHeader {
    /// Length on the wire in bytes.
    pub const LEN: usize = 5;

    /// The header as it goes on the wire.
    pub const fn encode(&self) -> [u8; Self::LEN] {
        let delta = self.timestamp_delta_ms.to_be_bytes();
        let len = self.payload_len.to_be_bytes();
        [self.seq_delta, delta[0], delta[1], len[0], len[1]]
    }

    /// Reads the five bytes; every value is legal.
    pub const fn decode([seq_delta, t0, t1, l0, l1]: [u8; Self::LEN]) -> Self {
        Self {
            seq_delta,
            timestamp_delta_ms: u16::from_be_bytes([t0, t1]),
            payload_len: u16::from_be_bytes([l0, l1]),
        }
    }
}

/// Writes a stream of packets in compact form.
#[derive(Clone, Debug, Default)]
pub struct CompactEncoder {
    written: u32,
    last_timestamp: u32,
}

impl CompactEncoder {
    /// The next packet. A packet that is not whole loses its quality report, and its sequence number counts as the
    /// last one plus 1; so it is in this form.
    pub fn encode(&mut self, packet: &MediaPacket) -> Bytes {
        let payload_len = u16::try_from(packet.payload.len()).ok();
        let delta = packet.header.timestamp.wrapping_sub(self.last_timestamp) as u16;
        self.last_timestamp = packet.header.timestamp;
        let mini = payload_len.filter(|_| !self.written.is_multiple_of(FULL_INTERVAL));
        // A whole packet starts the count anew, also if it is whole only for its length.
        self.written = if mini.is_some() { self.written + 1 } else { 1 };
        let mut datagram;
        if let Some(payload_len) = mini {
            datagram = BytesMut::with_capacity(1 + MiniHeader::LEN + packet.payload.len());
            datagram.put_u8(MINI);
            datagram.put_slice(
                &MiniHeader {
                    seq_delta: 1,
                    timestamp_delta_ms: delta,
                    payload_len,
                }
                .encode(),
            );
            datagram.put_slice(&packet.payload);
        } else {
            let plain = packet.encode();
            datagram = BytesMut::with_capacity(1 + plain.len());
            datagram.put_u8(FULL);
            datagram.put_slice(&plain);
        }
        datagram.freeze()
    }
}

/// Reads a stream of packets in compact form.
#[derive(Clone, Debug, Default)]
pub struct CompactDecoder {
    last: Option<MediaHeader>,
}

impl CompactDecoder {
    /// Reads the next packet; the payload is a slice. Inherited are all header fields but the QUALITY flag, since only
    /// whole packets carry a report.
    pub fn decode(&mut self, mut datagram: Bytes) -> Result<MediaPacket, CompactError> {
        match datagram.first() {
            None => Err(CompactError::Empty),
            Some(&FULL) => {
                let packet = MediaPacket::decode(datagram.slice(1..))?;
                self.last = Some(packet.header);
                Ok(packet)
            }
            Some(&MINI) => {
                datagram.advance(1);
                let Some(mini) = datagram.first_chunk() else {
                    return Err(CompactError::Truncated { len: datagram.len() });
                };
                let mini = MiniHeader::decode(*mini);
                datagram.advance(MiniHeader::LEN);
                let payload_len = usize::from(mini.payload_len);
                if datagram.len() < payload_len {
                    return Err(CompactError::Truncated { len: datagram.len() });
                }
                datagram.truncate(payload_len);
                let mut header = self.last.ok_or(CompactError::NoFullPacket)?;
                header.seq = header.seq.wrapping_add(u32::from(mini.seq_delta));
                header.timestamp = header.timestamp.wrapping_add(u32::from(mini.timestamp_delta_ms));
                header.flags.remove(Flags::QUALITY);
                self.last = Some(header);
                Ok(MediaPacket {
                    header,
                    payload: datagram,
                    quality: None,
                })
            }
            Some(&other) => Err(CompactError::Form(other)),
        }
    }
}

/// Why a datagram is not a packet in compact form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// Nothing at all.
    #[error("the datagram is empty")]
    Empty,
    /// Neither whole nor mini.
    #[error("first byte {0:#04x} is neither 0 nor 1, the two kinds of the compact form")]
    Form(u8),
    /// A mini packet that ends too early.
    #[error("the compact packet ends after {len} bytes, before its payload is complete")]
    Truncated {
        /// What was left.
        len: usize,
    },
    /// A mini packet has nothing to inherit from yet.
    #[error("a compact packet came before any whole one; wait for the next whole one")]
    NoFullPacket,
    /// The whole packet cannot be read.
    #[error(transparent)]
    Packet(#[from] PacketError),
}

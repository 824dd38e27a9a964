//! Trunk frames: several packets in one datagram (WZP wire v2, section 2.7).
//!
//! A relay started with trunking sends them; natives cannot read them.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes in front of each packet: session id and length.
const ENTRY_HEADER: usize = 4;

/// One packet of a trunk frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrunkEntry {
    /// First two bytes of the sender's session id at the relay.
    pub session_id: [u8; 2],
    /// A plain media packet, not looked at here.
    pub packet: Bytes,
}

/// A trunk frame as a datagram.
pub fn encode_trunk(entries: &[TrunkEntry]) -> Result<Bytes, TrunkError> {
    let count = u16::try_from(entries.len()).map_err(|_| TrunkError::TooMany { count: entries.len() })?;
    let len = entries
        .iter()
        .map(|entry| ENTRY_HEADER + entry.packet.len())
        .sum::<usize>();
    let mut datagram = BytesMut::with_capacity(2 + len);
    datagram.put_u16(count);
    for entry in entries {
        let len = entry.packet.len();
        datagram.put_slice(&entry.session_id);
        datagram.put_u16(u16::try_from(len).map_err(|_| TrunkError::PacketTooLong { len })?);
        datagram.put_slice(&entry.packet);
    }
    Ok(datagram.freeze())
}

/// Reads a trunk frame; the packets are slices. What follows the last one is ignored.
pub fn decode_trunk(mut datagram: Bytes) -> Result<Vec<TrunkEntry>, TrunkError> {
    let count = datagram.try_get_u16().map_err(|_| TrunkError::Truncated {
        announced: 0,
        complete: 0,
    })?;
    // The datagram's length bounds the list, whatever the count says.
    let mut entries = Vec::with_capacity(usize::from(count).min(datagram.len() / ENTRY_HEADER));
    for _ in 0..count {
        let truncated = TrunkError::Truncated {
            announced: count,
            complete: entries.len(),
        };
        let Some(&[s0, s1, l0, l1]) = datagram.first_chunk() else {
            return Err(truncated);
        };
        datagram.advance(ENTRY_HEADER);
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        if datagram.len() < len {
            return Err(truncated);
        }
        entries.push(TrunkEntry {
            session_id: [s0, s1],
            packet: datagram.split_to(len),
        });
    }
    Ok(entries)
}

/// Why something cannot be a trunk frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrunkError {
    /// The datagram ends too early.
    #[error("the trunk frame announces {announced} packets but ends after {complete}")]
    Truncated {
        /// The count in front.
        announced: u16,
        /// How many were complete.
        complete: usize,
    },
    /// More packets than can be counted.
    #[error("{count} packets do not fit a trunk frame, which counts to 65535")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// A packet longer than can be said.
    #[error("a packet of {len} bytes does not fit a trunk frame, which takes 65535")]
    PacketTooLong {
        /// Its length in bytes.
        len: usize,
    },
}

//! Which form a datagram has (WZP wire v2, section 2.8). There is no type tag; the first byte tells most.

use bytes::Bytes;

use crate::compact::{FULL, MINI, MiniHeader};
use crate::header::{MediaHeader, WIRE_VERSION};
use crate::trunk::decode_trunk;

/// The forms that media takes between a client and a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatagramForm {
    /// A plain media packet: what everybody sends.
    Plain,
    /// Several packets from a relay with trunking on.
    Trunk,
    /// A whole packet in compact form; not seen on the wire.
    CompactFull,
    /// A packet that inherits its header; not seen on the wire.
    CompactMini,
    /// Something else: a v1 client or relay, sealed whole datagrams, or no WZP at all.
    Unknown,
}

impl DatagramForm {
    /// The form of a datagram. That it has the form does not mean that it can be read.
    ///
    /// First byte 2 is plain. With 0 it is a trunk frame if the entries fill the datagram exactly, and otherwise a
    /// compact packet if a header follows. With 1 it is a compact mini if the announced payload is there.
    pub fn classify(datagram: &Bytes) -> Self {
        match datagram.first() {
            Some(&WIRE_VERSION) => Self::Plain,
            Some(&FULL) if is_whole_trunk(datagram) => Self::Trunk,
            Some(&FULL) if MediaHeader::decode(&datagram[1..]).is_ok() => Self::CompactFull,
            // Natives ignore what follows the last entry.
            Some(&FULL) if decode_trunk(datagram.clone()).is_ok() => Self::Trunk,
            Some(&MINI) if is_whole_trunk(datagram) => Self::Trunk,
            Some(&MINI) => match datagram[1..].split_first_chunk() {
                Some((mini, rest)) if rest.len() >= usize::from(MiniHeader::decode(*mini).payload_len) => {
                    Self::CompactMini
                }
                _ => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }
}

fn is_whole_trunk(datagram: &Bytes) -> bool {
    let Ok(entries) = decode_trunk(datagram.clone()) else {
        return false;
    };
    let len = entries.iter().map(|entry| 4 + entry.packet.len()).sum::<usize>();
    2 + len == datagram.len()
}

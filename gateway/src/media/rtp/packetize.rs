//! Frames to RTP payloads. Done once per frame; all viewers share the result.
//!
//! Whole NAL units are slices of the frame; a fragment must carry its own header in front of its bytes, so fragments
//! are copied, once, into one buffer per frame.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::av1;
use super::h264::{self, NalUnits};

/// One RTP payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtpPayload {
    /// The bytes after the RTP header.
    pub bytes: Bytes,
    /// The marker bit: last of its frame.
    pub marker: bool,
}

/// Why a frame cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketizeError {
    /// Nothing in it that goes on the wire.
    #[error("the frame holds no NAL unit or OBU to send")]
    Empty,
    /// Not what its codec says.
    #[error("the frame is not well-formed {0}")]
    Malformed(&'static str),
    /// Opus packets are never split.
    #[error("the Opus packet of {0} bytes does not fit into one RTP packet")]
    TooLarge(usize),
}

/// Smallest payload size that makes sense; asking for less is raised to it.
pub const MIN_MTU: usize = 64;

/// An H.264 access unit in Annex B to payloads of at most `mtu` bytes (RFC 6184, packetization mode 1): parameter sets
/// and SEI together as STAP-A, small NAL units as they are, larger ones as FU-A. Access unit delimiters and filler stay
/// behind.
///
/// # Errors
/// [`PacketizeError::Empty`].
pub fn h264(access_unit: &Bytes, mtu: usize) -> Result<Vec<RtpPayload>, PacketizeError> {
    let mtu = mtu.max(MIN_MTU);
    let units: Vec<Bytes> = NalUnits::new(access_unit)
        .filter(|unit| !matches!(h264::unit_type(unit), Some(h264::DELIMITER | h264::FILLER) | None))
        .collect();
    let mut payloads = Vec::with_capacity(access_unit.len() / mtu + units.len() + 1);
    let mut small: Vec<Bytes> = Vec::new();
    // Fragments of equal length but the last: a run that UDP_SEGMENT sends in one call.
    for unit in units {
        let aggregates = matches!(h264::unit_type(&unit), Some(h264::SPS | h264::PPS | h264::SEI));
        if !aggregates || aggregate_size(&small) + 2 + unit.len() > mtu {
            flush_aggregate(&mut small, &mut payloads);
        }
        if aggregates && 3 + unit.len() <= mtu {
            small.push(unit);
        } else if unit.len() <= mtu {
            payloads.push(unit);
        } else {
            fragment_h264(&unit, mtu, &mut payloads);
        }
    }
    flush_aggregate(&mut small, &mut payloads);
    with_marker(payloads)
}

fn aggregate_size(units: &[Bytes]) -> usize {
    1 + units.iter().map(|unit| 2 + unit.len()).sum::<usize>()
}

fn flush_aggregate(units: &mut Vec<Bytes>, payloads: &mut Vec<Bytes>) {
    match units.as_slice() {
        [] => return,
        [single] => payloads.push(single.clone()),
        several => {
            let mut aggregate = BytesMut::with_capacity(aggregate_size(several));
            // Its importance is the highest of those inside (RFC 6184, section 5.7).
            let importance = several
                .iter()
                .filter_map(|unit| unit.first())
                .map(|byte| byte & 0x60)
                .max()
                .unwrap_or(0);
            aggregate.put_u8(importance | h264::STAP_A);
            for unit in several {
                aggregate.put_u16(unit.len() as u16);
                aggregate.extend_from_slice(unit);
            }
            payloads.push(aggregate.freeze());
        }
    }
    units.clear();
}

fn fragment_h264(unit: &Bytes, mtu: usize, payloads: &mut Vec<Bytes>) {
    let (header, body) = (unit[0], &unit[1..]);
    let room = mtu - 2;
    let count = body.len().div_ceil(room);
    let mut all = BytesMut::with_capacity(body.len() + 2 * count);
    for (index, part) in body.chunks(room).enumerate() {
        let start = u8::from(index == 0) << 7;
        let end = u8::from(index + 1 == count) << 6;
        all.put_u8(header & 0xe0 | h264::FU_A);
        all.put_u8(start | end | header & 0x1f);
        all.extend_from_slice(part);
        payloads.push(all.split().freeze());
    }
}

/// An AV1 temporal unit (OBUs with size fields) to payloads of at most `mtu` bytes (AV1 RTP payload format 1.0).
/// Temporal delimiters, tile lists and padding stay behind, and so do the size fields.
///
/// # Errors
/// [`PacketizeError::Malformed`] when the OBUs do not add up, [`PacketizeError::Empty`].
pub fn av1(temporal_unit: &Bytes, mtu: usize) -> Result<Vec<RtpPayload>, PacketizeError> {
    let mtu = mtu.max(MIN_MTU);
    let mut obus = Vec::new();
    for obu in av1::Obus::new(temporal_unit) {
        let obu = obu.map_err(|_| PacketizeError::Malformed("AV1"))?;
        if obu.is_transmitted() {
            obus.push(obu);
        }
    }
    let new_sequence = obus.first().is_some_and(|obu| obu.kind == av1::SEQUENCE_HEADER);

    // The elements of one packet; all but the last of them carry their size. W counts them, up to three.
    let mut payloads = Vec::with_capacity(temporal_unit.len() / mtu + 1);
    let mut packet = BytesMut::with_capacity(mtu);
    let mut elements = 0u8;
    let mut continues = false;
    packet.put_u8(0);
    for (index, obu) in obus.iter().enumerate() {
        let whole = obu.without_size();
        let mut rest = &whole[..];
        loop {
            let last_obu = index + 1 == obus.len();
            let sized = av1::leb128_len(rest.len()) + rest.len();
            let room = mtu - packet.len();
            if !last_obu && elements < 2 && sized + 2 <= room {
                // More will follow in this packet.
                av1::put_leb128(&mut packet, rest.len());
                packet.extend_from_slice(rest);
                elements += 1;
                break;
            }
            if rest.len() <= room {
                packet.extend_from_slice(rest);
                close_packet(&mut packet, &mut payloads, elements + 1, continues, false, mtu);
                (elements, continues) = (0, false);
                break;
            }
            if room < 16 && elements > 0 {
                // Too little to be worth a fragment: what stands must then be the whole packet, its last element
                // included, whose size is known.
                close_sized(&mut packet, &mut payloads, continues, mtu);
                (elements, continues) = (0, false);
                continue;
            }
            packet.extend_from_slice(&rest[..room]);
            rest = &rest[room..];
            close_packet(&mut packet, &mut payloads, elements + 1, continues, true, mtu);
            (elements, continues) = (0, true);
        }
    }
    if elements > 0 {
        close_sized(&mut packet, &mut payloads, continues, mtu);
    }
    if new_sequence && let Some(first) = payloads.first_mut() {
        // N: a new coded video sequence starts here.
        let mut marked = BytesMut::from(&first[..]);
        marked[0] |= 1 << 3;
        *first = marked.freeze();
    }
    with_marker(payloads)
}

/// Ends a packet whose last element has no size field.
fn close_packet(
    packet: &mut BytesMut,
    payloads: &mut Vec<Bytes>,
    elements: u8,
    continues: bool,
    continued: bool,
    mtu: usize,
) {
    packet[0] = u8::from(continues) << 7 | u8::from(continued) << 6 | elements << 4;
    payloads.push(std::mem::replace(packet, BytesMut::with_capacity(mtu)).freeze());
    packet.put_u8(0);
}

/// Ends a packet all of whose elements have size fields (W = 0).
fn close_sized(packet: &mut BytesMut, payloads: &mut Vec<Bytes>, continues: bool, mtu: usize) {
    close_packet(packet, payloads, 0, continues, false, mtu);
}

/// An Opus packet (RFC 7587): itself.
///
/// # Errors
/// [`PacketizeError::TooLarge`], [`PacketizeError::Empty`].
pub fn opus(packet: &Bytes, mtu: usize) -> Result<RtpPayload, PacketizeError> {
    match packet.len() {
        0 => Err(PacketizeError::Empty),
        size if size > mtu => Err(PacketizeError::TooLarge(size)),
        // The marker means "first after silence" here, which the caller knows.
        _ => Ok(RtpPayload {
            bytes: packet.clone(),
            marker: false,
        }),
    }
}

pub(super) fn with_marker(payloads: Vec<Bytes>) -> Result<Vec<RtpPayload>, PacketizeError> {
    let last = payloads.len().checked_sub(1).ok_or(PacketizeError::Empty)?;
    Ok(payloads
        .into_iter()
        .enumerate()
        .map(|(index, bytes)| RtpPayload {
            bytes,
            marker: index == last,
        })
        .collect())
}

//! RTP payloads to frames: whole access units as the room wants them.
//!
//! One [`Depacketizer`] per incoming stream. It takes packets in order (see [`super::reorder`]) and knows a lost one by
//! the gap in the numbers. A frame with a hole is dropped, and so is everything up to the next keyframe, since it was
//! coded against the hole; each drop is told as [`Output::Damaged`], upon which the caller asks for a keyframe once.

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut as _, Bytes, BytesMut};

use super::av1::{self, Obu};
use super::h264::{self, NalUnits};
use super::h265;
use crate::media::av1::MAX_OBUS;
use crate::media::h264::MAX_NAL_UNITS;

/// Largest access unit, in bytes.
pub const MAX_ACCESS_UNIT: usize = 4 << 20;
/// Bytes of parameter sets that are remembered; real ones take less than 200.
const MAX_PARAMETER_SETS: usize = 16 << 10;
const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// A whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUnit {
    /// RTP timestamp.
    pub timestamp: u32,
    /// H.264 and H.265: Annex B with 4-byte start codes, parameter sets before every keyframe. AV1: OBUs with size fields,
    /// sequence header before every keyframe, no temporal delimiter. Opus: the packet.
    pub data: Bytes,
    /// Decoding can start here. Always true for Opus.
    pub keyframe: bool,
    /// Width and height in pixels, as far as known.
    pub size: Option<(u32, u32)>,
    /// Its first and last packet.
    pub seqs: (u64, u64),
}

/// Why a frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A packet of it, or of one before it, is missing.
    #[error("a packet of the frame is lost")]
    PacketLost,
    /// It depends on a frame that was dropped, or the stream has not had a keyframe yet.
    #[error("the frame needs a keyframe that has not come")]
    NoKeyframe,
    /// It breaks the payload format.
    #[error("the packet breaks the RTP payload format: {0}")]
    Malformed(&'static str),
    /// More NAL units or OBUs than an encoder makes: each costs every viewer.
    #[error("the frame has more than {0} units")]
    TooManyUnits(usize),
    /// Over [`MAX_ACCESS_UNIT`].
    #[error("the frame is larger than {MAX_ACCESS_UNIT} bytes")]
    TooLarge,
}

/// What comes out, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A frame.
    Frame(AccessUnit),
    /// A frame was dropped.
    Damaged {
        /// Its timestamp.
        timestamp: u32,
        /// Why.
        cause: Damage,
    },
}

/// The payload format.
enum Format {
    H264(H264),
    H265(h265::Assembler),
    Av1(Av1),
    Opus,
}

struct Current {
    timestamp: u32,
    seqs: (u64, u64),
    data: BytesMut,
    broken: Option<Damage>,
}

/// See the [module's text](self).
pub struct Depacketizer {
    format: Format,
    next: Option<u64>,
    current: Option<Current>,
    /// Nothing can be decoded before the next keyframe.
    needs_keyframe: bool,
    outputs: VecDeque<Output>,
}

impl Depacketizer {
    /// For H.264 (RFC 6184, modes 0 and 1).
    #[must_use]
    pub fn h264() -> Self {
        Self::new(Format::H264(H264::default()), true)
    }

    /// For H.265 (RFC 7798).
    #[must_use]
    pub fn h265() -> Self {
        Self::new(Format::H265(h265::Assembler::default()), true)
    }

    /// For AV1 (AV1 RTP payload format 1.0).
    #[must_use]
    pub fn av1() -> Self {
        Self::new(Format::Av1(Av1::default()), true)
    }

    /// For Opus (RFC 7587): every packet is a frame.
    #[must_use]
    pub fn opus() -> Self {
        Self::new(Format::Opus, false)
    }

    fn new(format: Format, needs_keyframe: bool) -> Self {
        Self {
            format,
            next: None,
            current: None,
            needs_keyframe,
            outputs: VecDeque::new(),
        }
    }

    /// Takes the next packet. An empty payload (padding) only takes up its number. Call [`Depacketizer::poll`] until
    /// `None` afterwards; at most two outputs come of one packet.
    pub fn push(&mut self, seq: u64, timestamp: u32, marker: bool, payload: &Bytes) {
        let gap = match self.next {
            Some(next) if seq < next => return,
            Some(next) => seq > next,
            None => false,
        };
        self.next = Some(seq + 1);
        if matches!(self.format, Format::Opus) {
            if !payload.is_empty() {
                let data = payload.clone();
                let frame = AccessUnit {
                    timestamp,
                    data,
                    keyframe: true,
                    size: None,
                    seqs: (seq, seq),
                };
                self.outputs.push_back(Output::Frame(frame));
            }
            return;
        }
        if gap {
            // What is missing may be the end of the frame at hand, all of others, or the start of this one.
            self.needs_keyframe = true;
            if let Some(current) = &mut self.current {
                current.broken = Some(Damage::PacketLost);
            }
        }
        if payload.is_empty() {
            return;
        }
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.timestamp != timestamp)
        {
            self.finish();
        }
        if self.current.is_none() {
            let starts = match &mut self.format {
                Format::H264(format) => {
                    format.fragment = false;
                    H264::is_start(payload)
                }
                Format::H265(format) => {
                    format.start();
                    h265::Assembler::is_start(payload)
                }
                Format::Av1(format) => {
                    format.start();
                    Av1::is_start(payload)
                }
                Format::Opus => true,
            };
            let broken = (gap && !starts).then_some(Damage::PacketLost);
            self.current = Some(Current {
                timestamp,
                seqs: (seq, seq),
                data: BytesMut::new(),
                broken,
            });
        }
        if let Some(current) = &mut self.current {
            current.seqs.1 = seq;
            if current.broken.is_none() {
                let appended = match &mut self.format {
                    Format::H264(format) => format.append(payload, &mut current.data),
                    Format::H265(format) => format.append(payload, &mut current.data),
                    Format::Av1(format) => format.append(payload, &mut current.data),
                    Format::Opus => Ok(()),
                };
                current.broken = match appended {
                    Err(cause) => Some(cause),
                    Ok(()) if current.data.len() > MAX_ACCESS_UNIT => Some(Damage::TooLarge),
                    Ok(()) => None,
                };
                if current.broken.is_some() {
                    current.data = BytesMut::new();
                }
            }
        }
        if marker {
            self.finish();
        }
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Nothing can be decoded before the next keyframe.
    #[must_use]
    pub fn needs_keyframe(&self) -> bool {
        self.needs_keyframe
    }

    fn finish(&mut self) {
        let Some(current) = self.current.take() else { return };
        let Current {
            timestamp,
            seqs,
            data,
            broken,
        } = current;
        let finished = match (broken, &mut self.format) {
            (Some(cause), _) => Err(cause),
            (None, Format::H264(format)) => format.finish(data.freeze()),
            (None, Format::H265(format)) => {
                let finished = format.finish(&data.freeze());
                finished.map(|frame| frame.map(|(data, keyframe)| (data, keyframe, None)))
            }
            (None, Format::Av1(format)) => format.finish(data),
            (None, Format::Opus) => return,
        };
        let output = match finished {
            Ok(Some((_, keyframe, _))) if self.needs_keyframe && !keyframe => Output::Damaged {
                timestamp,
                cause: Damage::NoKeyframe,
            },
            Ok(Some((data, keyframe, size))) => {
                self.needs_keyframe &= !keyframe;
                Output::Frame(AccessUnit {
                    timestamp,
                    data,
                    keyframe,
                    size,
                    seqs,
                })
            }
            // Only delimiters, SEI or parameter sets.
            Ok(None) => return,
            Err(cause) => {
                self.needs_keyframe = true;
                Output::Damaged { timestamp, cause }
            }
        };
        self.outputs.push_back(output);
    }
}

/// Data, whether it is a keyframe, size.
type Finished = Option<(Bytes, bool, Option<(u32, u32)>)>;

#[derive(Default)]
struct H264 {
    /// An FU-A is open.
    fragment: bool,
    parameter_sets: ParameterSets,
}

/// The last of each parameter set, by id.
#[derive(Default)]
struct ParameterSets {
    sequence: BTreeMap<u32, Bytes>,
    picture: BTreeMap<u32, Bytes>,
    bytes: usize,
    size: Option<(u32, u32)>,
}

impl H264 {
    fn is_start(payload: &Bytes) -> bool {
        match h264::unit_type(payload) {
            Some(h264::STAP_A) => payload.get(3..).is_some_and(h264::starts_access_unit),
            Some(h264::FU_A) => {
                let (Some(&indicator), Some(&header)) = (payload.first(), payload.get(1)) else {
                    return false;
                };
                let unit = [indicator & 0xe0 | header & 0x1f, payload.get(2).copied().unwrap_or(0)];
                header & 0x80 != 0 && h264::starts_access_unit(&unit)
            }
            _ => h264::starts_access_unit(payload),
        }
    }

    fn append(&mut self, payload: &Bytes, out: &mut BytesMut) -> Result<(), Damage> {
        let kind = h264::unit_type(payload).ok_or(Damage::Malformed("empty payload"))?;
        if self.fragment && kind != h264::FU_A {
            return Err(Damage::Malformed("an FU-A without its end"));
        }
        match kind {
            1..=23 => Self::put(payload, out),
            h264::STAP_A => {
                let mut rest = &payload[1..];
                while !rest.is_empty() {
                    let size = rest
                        .get(..2)
                        .map(|size| usize::from(u16::from_be_bytes([size[0], size[1]])));
                    let unit = size
                        .and_then(|size| rest.get(2..2 + size))
                        .filter(|unit| !unit.is_empty());
                    let unit = unit.ok_or(Damage::Malformed("STAP-A sizes do not add up"))?;
                    Self::put(unit, out);
                    rest = &rest[2 + unit.len()..];
                }
            }
            h264::FU_A => {
                let &[indicator, header, ..] = &payload[..] else {
                    return Err(Damage::Malformed("FU-A cut short"));
                };
                let (start, end) = (header & 0x80 != 0, header & 0x40 != 0);
                if start == self.fragment {
                    return Err(Damage::Malformed("FU-A fragments out of turn"));
                }
                if start {
                    out.extend_from_slice(&START_CODE);
                    out.put_u8(indicator & 0xe0 | header & 0x1f);
                }
                out.extend_from_slice(&payload[2..]);
                self.fragment = !end;
            }
            _ => {
                return Err(Damage::Malformed(
                    "a NAL unit type that packetization mode 1 does not have",
                ));
            }
        }
        Ok(())
    }

    fn put(unit: &[u8], out: &mut BytesMut) {
        if !matches!(h264::unit_type(unit), Some(h264::DELIMITER | h264::FILLER)) {
            out.extend_from_slice(&START_CODE);
            out.extend_from_slice(unit);
        }
    }

    fn finish(&mut self, data: Bytes) -> Result<Finished, Damage> {
        if self.fragment {
            return Err(Damage::Malformed("an FU-A without its end"));
        }
        let (mut has_sps, mut has_pps, mut idr, mut slices) = (false, false, false, false);
        for (count, unit) in NalUnits::new(&data).enumerate() {
            if count == MAX_NAL_UNITS {
                return Err(Damage::TooManyUnits(MAX_NAL_UNITS));
            }
            match h264::unit_type(&unit) {
                Some(h264::SPS) => has_sps |= self.parameter_sets.keep(&unit, true),
                Some(h264::PPS) => has_pps |= self.parameter_sets.keep(&unit, false),
                Some(h264::IDR) => (idr, slices) = (true, true),
                Some(1..=4) => slices = true,
                _ => {}
            }
        }
        if !slices {
            return Ok(None);
        }
        let data = if idr && !(has_sps && has_pps) {
            self.parameter_sets.insert(&data, has_sps, has_pps)?
        } else {
            data
        };
        Ok(Some((data, idr, self.parameter_sets.size)))
    }
}

impl ParameterSets {
    /// Remembers a parameter set, if there is room. True: it was one.
    fn keep(&mut self, unit: &Bytes, is_sequence: bool) -> bool {
        // seq_parameter_set_id follows profile, constraints and level; pic_parameter_set_id comes first.
        let Some(id) = first_exp_golomb(&unit[1..], if is_sequence { 3 } else { 0 }) else {
            return false;
        };
        let sets = if is_sequence {
            &mut self.sequence
        } else {
            &mut self.picture
        };
        let known = sets.get(&id);
        if known == Some(unit) {
            return true;
        }
        let bytes = self.bytes - known.map_or(0, Bytes::len) + unit.len();
        if bytes > MAX_PARAMETER_SETS {
            return true;
        }
        self.bytes = bytes;
        // A copy: a slice would keep the whole frame alive.
        sets.insert(id, Bytes::copy_from_slice(unit));
        if is_sequence {
            self.size = h264::dimensions(unit).or(self.size);
        }
        true
    }

    fn insert(&self, data: &Bytes, has_sps: bool, has_pps: bool) -> Result<Bytes, Damage> {
        if (!has_sps && self.sequence.is_empty()) || (!has_pps && self.picture.is_empty()) {
            return Err(Damage::NoKeyframe);
        }
        let mut whole = BytesMut::with_capacity(data.len() + self.bytes + 64);
        let sequence = self.sequence.values().filter(|_| !has_sps);
        // Picture parameter sets refer to sequence ones: where the frame brings the latter, they must come first.
        let picture = self.picture.values().filter(|_| !has_pps);
        if has_sps {
            let (parameters, rest): (Vec<Bytes>, Vec<Bytes>) =
                NalUnits::new(data).partition(|unit| h264::unit_type(unit) == Some(h264::SPS));
            for unit in parameters.iter().chain(picture).chain(&rest) {
                H264::put(unit, &mut whole);
            }
        } else {
            for unit in sequence.chain(picture) {
                H264::put(unit, &mut whole);
            }
            whole.extend_from_slice(data);
        }
        Ok(whole.freeze())
    }
}

/// The Exp-Golomb number after `skip` bytes; ids are small, so no emulation prevention can fall into it.
fn first_exp_golomb(bytes: &[u8], skip: usize) -> Option<u32> {
    let bytes = bytes.get(skip..)?;
    let bit = |at: usize| bytes.get(at / 8).map(|byte| u32::from(byte >> (7 - at % 8) & 1));
    let zeros = (0..16).find(|&at| bit(at) != Some(0))?;
    let mut value = 0;
    for at in zeros..=2 * zeros {
        value = value << 1 | bit(at)?;
    }
    (value - 1 < 256).then_some(value - 1)
}

#[derive(Default)]
struct Av1 {
    /// The beginning of an OBU whose rest is in the next packet.
    partial: BytesMut,
    continues: bool,
    sequence_header: Option<Bytes>,
    size: Option<(u32, u32)>,
    has_sequence_header: bool,
    key: Option<bool>,
    /// OBUs of the frame so far.
    obus: usize,
}

impl Av1 {
    fn start(&mut self) {
        self.partial.clear();
        (self.continues, self.has_sequence_header, self.key, self.obus) = (false, false, None, 0);
    }

    /// Z clear, and N or a sequence header or a temporal delimiter.
    fn is_start(payload: &Bytes) -> bool {
        let Some(&header) = payload.first() else { return false };
        if header & 0x80 != 0 {
            return false;
        }
        let mut elements = Elements::new(payload);
        let kind = elements
            .next()
            .and_then(Result::ok)
            .and_then(|(element, _)| Some(element.first()? >> 3 & 0xf));
        header & 0x08 != 0 || matches!(kind, Some(av1::SEQUENCE_HEADER | av1::TEMPORAL_DELIMITER))
    }

    fn append(&mut self, payload: &Bytes, out: &mut BytesMut) -> Result<(), Damage> {
        let header = *payload.first().ok_or(Damage::Malformed("empty payload"))?;
        let (continues, continued) = (header & 0x80 != 0, header & 0x40 != 0);
        if continues != self.continues {
            return Err(Damage::Malformed("an OBU fragment out of turn"));
        }
        self.continues = continued;
        for (index, element) in Elements::new(payload).enumerate() {
            let (element, is_last) = element?;
            let open = is_last && continued;
            if index == 0 && continues || open {
                if self.partial.len() + element.len() > MAX_ACCESS_UNIT {
                    return Err(Damage::TooLarge);
                }
                self.partial.extend_from_slice(&element);
                if !open {
                    let whole = self.partial.split().freeze();
                    self.put(&whole, out)?;
                }
            } else {
                self.put(&element, out)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, element: &Bytes, out: &mut BytesMut) -> Result<(), Damage> {
        if self.obus == MAX_OBUS {
            return Err(Damage::TooManyUnits(MAX_OBUS));
        }
        self.obus += 1;
        let obu = Obu::read(element).map_err(|_| Damage::Malformed("an OBU does not add up"))?;
        if !obu.is_transmitted() {
            return Ok(());
        }
        if obu.kind == av1::SEQUENCE_HEADER {
            self.has_sequence_header = true;
            let known = self
                .sequence_header
                .as_ref()
                .is_some_and(|known| known[..] == obu.payload[..]);
            if !known && obu.payload.len() <= MAX_PARAMETER_SETS {
                self.size = av1::dimensions(&obu.payload).or(self.size);
                self.sequence_header = Some(Bytes::copy_from_slice(&obu.payload));
            }
        } else if matches!(obu.kind, av1::FRAME | av1::FRAME_HEADER) {
            // The first frame of the unit decides: further spatial layers of a keyframe are not coded as one.
            self.key.get_or_insert(obu.is_key_frame());
        }
        obu.write_with_size(out);
        Ok(())
    }

    fn finish(&mut self, data: BytesMut) -> Result<Finished, Damage> {
        if self.continues {
            return Err(Damage::Malformed("an OBU fragment without its end"));
        }
        let Some(key) = self.key else { return Ok(None) };
        if !key || self.has_sequence_header {
            return Ok(Some((data.freeze(), key, self.size)));
        }
        let sequence_header = self.sequence_header.as_ref().ok_or(Damage::NoKeyframe)?;
        let mut whole = BytesMut::with_capacity(data.len() + sequence_header.len() + 8);
        whole.put_u8(av1::SEQUENCE_HEADER << 3 | 0b010);
        av1::put_leb128(&mut whole, sequence_header.len());
        whole.extend_from_slice(sequence_header);
        whole.extend_from_slice(&data);
        Ok(Some((whole.freeze(), true, self.size)))
    }
}

/// The OBU elements of one payload, each with whether it is the last.
struct Elements<'a> {
    payload: &'a Bytes,
    at: usize,
    /// Elements left by W; 0 when each says its size.
    left: Option<u8>,
}

impl<'a> Elements<'a> {
    fn new(payload: &'a Bytes) -> Self {
        let count = payload.first().map_or(0, |header| header >> 4 & 3);
        Self {
            payload,
            at: 1,
            left: (count > 0).then_some(count),
        }
    }
}

impl Iterator for Elements<'_> {
    type Item = Result<(Bytes, bool), Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.payload.len().checked_sub(self.at).filter(|&rest| rest > 0)?;
        let malformed = Some(Err(Damage::Malformed("AV1 element sizes do not add up")));
        let size = match self.left {
            Some(0) => return malformed_once(self, malformed),
            Some(1) => rest,
            _ => match av1::read_leb128(&self.payload[self.at..]) {
                Some((size, used)) if size > 0 && size <= rest - used => {
                    self.at += used;
                    size
                }
                _ => return malformed_once(self, malformed),
            },
        };
        let element = self.payload.slice(self.at..self.at + size);
        self.at += size;
        self.left = self.left.map(|left| left - 1);
        let is_last = self.at == self.payload.len();
        if is_last && self.left.is_some_and(|left| left > 0) {
            return malformed_once(self, malformed);
        }
        Some(Ok((element, is_last)))
    }
}

/// Ends the iteration with an error.
fn malformed_once<T>(elements: &mut Elements<'_>, error: Option<T>) -> Option<T> {
    elements.at = elements.payload.len();
    error
}

//! Which m-line and layer a packet belongs to, and whether it is new.

use rtc::rtp;

use super::line::Line;
use super::types::{Label, Rid};
use crate::media::rtp::sequence::{DuplicateFilter, SequenceExtender, nearest};

/// Streams that one session may have, RTX included.
const MAX_STREAMS: usize = 128;

struct Stream {
    ssrc: u32,
    line: usize,
    rid: Option<Rid>,
    role: Role,
    /// Of several on one m-line, the one with the highest counts.
    turn: u64,
}

enum Role {
    Media {
        extender: SequenceExtender,
        filter: Box<DuplicateFilter>,
    },
    /// Repairs the stream at this place.
    Rtx { media: Option<usize> },
}

/// What a packet belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resolved {
    /// Place of its m-line.
    pub line: usize,
    /// Place of its stream.
    pub stream: usize,
    /// No packet of this SSRC came before.
    pub is_first: bool,
}

/// All inbound streams of a session.
#[derive(Default)]
pub(super) struct Inbound {
    streams: Vec<Stream>,
    turns: u64,
}

impl Inbound {
    /// Drops the streams of m-lines that no longer receive, and returns their SSRCs.
    pub fn renegotiate(&mut self, before: &[Line], after: &[Line]) -> Vec<u32> {
        let stays = |stream: &Stream| {
            let (Some(old), Some(new)) = (before.get(stream.line), after.get(stream.line)) else {
                return false;
            };
            // A browser that pauses and resumes (replaceTrack, setParameters) keeps its SSRC, one that starts anew
            // announces another.
            let announced = new.remote.is_empty()
                || new
                    .remote
                    .iter()
                    .any(|&(media, rtx)| media == stream.ssrc || rtx == Some(stream.ssrc));
            old.mid == new.mid && new.direction.recv && (announced || stream.rid.is_some())
        };
        let gone: Vec<u32> = self
            .streams
            .iter()
            .filter(|stream| !stays(stream))
            .map(|stream| stream.ssrc)
            .collect();
        if !gone.is_empty() {
            self.streams.retain(stays);
            // Places have moved; the next RTX packet finds its stream again.
            for stream in &mut self.streams {
                if let Role::Rtx { media } = &mut stream.role {
                    *media = None;
                }
            }
        }
        gone
    }

    /// Finds the stream of a packet, and sets it up on first sight: by the SSRCs in the SDP (RFC 5576), by the mid and
    /// rid extensions (RFC 8843, RFC 8852), or by a payload type that only one m-line receives.
    pub fn resolve(&mut self, lines: &[Line], header: &rtp::Header) -> Option<Resolved> {
        if let Some(stream) = self.streams.iter().position(|stream| stream.ssrc == header.ssrc) {
            return Some(Resolved {
                line: self.streams[stream].line,
                stream,
                is_first: false,
            });
        }
        if self.streams.len() >= MAX_STREAMS {
            return None;
        }
        let label = |id: Option<u8>| header.get_extension(id?).and_then(|value| Label::from_bytes(&value));
        let receives = |line: &Line| line.direction.recv && line.by_payload_type(header.payload_type).is_some();
        let by_ssrc = lines.iter().position(|line| {
            line.remote
                .iter()
                .any(|&(media, rtx)| media == header.ssrc || rtx == Some(header.ssrc))
        });
        let by_mid = || {
            lines
                .iter()
                .position(|line| line.direction.recv && label(line.extensions.mid) == Some(line.mid))
        };
        let by_payload_type = || {
            let mut fitting = lines
                .iter()
                .enumerate()
                .filter(|(_, line)| receives(line))
                .map(|(index, _)| index);
            fitting.next().filter(|_| fitting.next().is_none())
        };
        let line_index = by_ssrc.or_else(by_mid).or_else(by_payload_type)?;
        let line = &lines[line_index];
        if !receives(line) {
            return None;
        }
        let (_, is_rtx) = line.by_payload_type(header.payload_type)?;
        let announced = |rid: Option<Rid>| rid.filter(|rid| line.rids.contains(rid));
        let (rid, role) = if is_rtx {
            (
                announced(label(line.extensions.repaired_rid)),
                Role::Rtx { media: None },
            )
        } else {
            let role = Role::Media {
                extender: SequenceExtender::default(),
                filter: Box::default(),
            };
            (announced(label(line.extensions.rid)), role)
        };
        if !line.rids.is_empty() && rid.is_none() {
            // Of a simulcast m-line, but the layer is not known yet: later packets tell.
            return None;
        }
        self.turns += 1;
        self.streams.push(Stream {
            ssrc: header.ssrc,
            line: line_index,
            rid,
            role,
            turn: self.turns,
        });
        let stream = self.streams.len() - 1;
        if let Some((media, rtx)) = line.remote.iter().find(|(_, rtx)| *rtx == Some(header.ssrc)).copied() {
            debug_assert_eq!(rtx, Some(header.ssrc));
            self.link(stream, self.streams.iter().position(|known| known.ssrc == media));
        }
        Some(Resolved {
            line: line_index,
            stream,
            is_first: true,
        })
    }

    fn link(&mut self, rtx: usize, to: Option<usize>) {
        if let Role::Rtx { media } = &mut self.streams[rtx].role {
            *media = to;
        }
    }

    /// The media stream that a packet of stream `place` counts for.
    fn media_of(&mut self, place: usize) -> Option<usize> {
        let stream = &self.streams[place];
        match stream.role {
            Role::Media { .. } => Some(place),
            Role::Rtx { media: Some(media) } => Some(media),
            Role::Rtx { media: None } => {
                let (line, rid) = (stream.line, stream.rid);
                let found = self.current(line, rid);
                self.link(place, found);
                found
            }
        }
    }

    /// The extended number, media SSRC and layer of a packet; `None` when it came before, or repairs an unknown stream.
    pub fn accept(&mut self, place: usize, seq: u16) -> Option<(u64, u32, Option<Rid>)> {
        let media = self.media_of(place)?;
        let stream = &mut self.streams[media];
        let Role::Media { extender, filter } = &mut stream.role else {
            return None;
        };
        let seq = match extender.highest() {
            // A repair never runs ahead by much; it must not move the window.
            Some(highest) if media != place => nearest(highest, seq),
            _ => extender.extend(seq),
        };
        filter.is_new(seq).then_some((seq, stream.ssrc, stream.rid))
    }

    /// The m-line and layer of a media SSRC.
    pub fn find(&self, ssrc: u32) -> Option<(usize, Option<Rid>)> {
        self.streams
            .iter()
            .find(|stream| stream.ssrc == ssrc)
            .map(|stream| (stream.line, stream.rid))
    }

    /// The media SSRC on an m-line; if there were several, the one that is followed, else the newest.
    pub fn ssrc_of(&self, line: usize, rid: Option<Rid>) -> Option<u32> {
        self.current(line, rid).map(|place| self.streams[place].ssrc)
    }

    /// A stream counts from now on, not another of its m-line.
    pub fn follow(&mut self, ssrc: u32) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == ssrc) {
            self.turns += 1;
            stream.turn = self.turns;
        }
    }

    fn current(&self, line: usize, rid: Option<Rid>) -> Option<usize> {
        let fits =
            |stream: &Stream| stream.line == line && stream.rid == rid && matches!(stream.role, Role::Media { .. });
        let fitting = self.streams.iter().enumerate().filter(|(_, stream)| fits(stream));
        fitting.max_by_key(|(_, stream)| stream.turn).map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_that_is_followed_is_asked_for_what_is_missing() {
        let stream = |ssrc: u32, line: usize, turn: u64| Stream {
            ssrc,
            line,
            rid: None,
            role: Role::Media {
                extender: SequenceExtender::default(),
                filter: Box::default(),
            },
            turn,
        };
        let mut inbound = Inbound {
            streams: vec![stream(7, 0, 1), stream(8, 0, 2), stream(9, 1, 3)],
            turns: 3,
        };
        assert_eq!(inbound.ssrc_of(0, None), Some(8));
        inbound.follow(7);
        assert_eq!(inbound.ssrc_of(0, None), Some(7));
        assert_eq!(inbound.ssrc_of(1, None), Some(9));
        inbound.follow(8);
        assert_eq!(inbound.ssrc_of(0, None), Some(8));
    }
}

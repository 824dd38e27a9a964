//! What a browser sends over the WebSocket, on its way into the room's logs.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use wzp_proto::codec::Codec;
use wzp_proto::video::FrameSize;

use crate::browser::message::{MAX_TRACKS, MediaMessage, PublishedTrack};
use crate::media::clock::{Extend32, SourceClock};
use crate::media::frame::{Draft, Kind, ParticipantId, RoomTime, TrackId};
use crate::media::video_in::VideoIn;
use crate::room::member::TrackInfo;
use crate::room::track::{Appended, Bounds, Track, TrackWriter};

/// Largest sound packet, bytes: an Opus packet is at most 1,275 bytes per frame (RFC 6716, section 3.4).
const MAX_AUDIO: usize = 4000;

/// Stray messages further apart than this do not belong together, µs.
const STRAY_GAP: u64 = 500_000;
/// This long a run of them is no straggler any more, µs.
const STRAY_SPAN: u64 = 1_000_000;

/// What the session has to do about a media message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Taken,
    /// The track's codec or size became known or changed: publish the list anew.
    Changed,
    /// A frame was lost or refers to one that was: ask the client for a keyframe of this slot.
    NeedsKeyframe(TrackId),
    /// Tell the client: code and sentence of a non-fatal error.
    Refused(&'static str, String),
}

/// All tracks of one client.
#[derive(Debug)]
pub struct Ingress {
    source: ParticipantId,
    max_frame: usize,
    video_bounds: Bounds,
    clock: SourceClock,
    extend: Extend32,
    tracks: BTreeMap<(Kind, u8), Incoming>,
}

#[derive(Debug)]
struct Incoming {
    info: TrackInfo,
    track: Arc<Track>,
    /// None while the frames come over RTP.
    writer: Option<TrackWriter>,
    /// Messages that come although RTP should carry the track: since when, and the last one.
    stray: Option<(RoomTime, RoomTime)>,
    next_seq: Option<u32>,
    partial: Option<Partial>,
    video: VideoIn,
    /// Messages that the client sent and that did not come: it left them out itself.
    lost: u64,
    frames: u64,
}

#[derive(Debug)]
struct Partial {
    timestamp: u32,
    next_index: u8,
    count: u8,
    data: BytesMut,
}

impl Ingress {
    /// For a client that is this participant; video frames may be `max_frame` bytes long, and their logs have these bounds.
    pub fn new(source: ParticipantId, max_frame: usize, video_bounds: Bounds) -> Self {
        Self {
            source,
            max_frame,
            video_bounds,
            clock: SourceClock::default(),
            extend: Extend32::default(),
            tracks: BTreeMap::new(),
        }
    }

    /// Takes the complete list of what the client sends. Tracks that it had before go on.
    ///
    /// # Errors
    /// A sentence that says what does not fit; nothing has changed then.
    pub fn publish(&mut self, list: &[PublishedTrack]) -> Result<(), String> {
        if list.len() > MAX_TRACKS {
            return Err(format!(
                "publish: {} tracks are more than the {MAX_TRACKS} allowed",
                list.len()
            ));
        }
        let infos = list.iter().map(PublishedTrack::info).collect::<Result<Vec<_>, _>>()?;
        self.tracks
            .retain(|key, _| infos.iter().any(|info| (info.kind, info.slot) == *key));
        for info in infos {
            let (source, bounds) = (self.source, Bounds::of(info.kind, self.video_bounds));
            self.tracks
                .entry((info.kind, info.slot))
                .and_modify(|incoming| {
                    incoming.info = TrackInfo {
                        size: info.size.or(incoming.info.size),
                        ..info
                    }
                })
                .or_insert_with(|| Incoming::new(source, info, bounds));
        }
        Ok(())
    }

    /// The tracks as the room wants them.
    pub fn tracks(&self) -> Vec<(TrackInfo, Arc<Track>)> {
        self.tracks
            .values()
            .map(|incoming| (incoming.info, incoming.track.clone()))
            .collect()
    }

    /// Hands a track's writer to whoever carries its frames over RTP from now on.
    pub fn take_writer(&mut self, kind: Kind, slot: u8) -> Option<TrackWriter> {
        self.tracks.get_mut(&(kind, slot))?.writer.take()
    }

    /// Whether a track's frames come over RTP.
    pub fn is_over_rtp(&self, kind: Kind, slot: u8) -> bool {
        self.tracks
            .get(&(kind, slot))
            .is_some_and(|incoming| incoming.writer.is_none())
    }

    /// RTP has ended: tracks that it carried begin anew, and come as messages.
    pub fn take_back(&mut self) {
        let source = self.source;
        for incoming in self.tracks.values_mut().filter(|incoming| incoming.writer.is_none()) {
            *incoming = Incoming::new(source, incoming.info, *incoming.track.bounds());
        }
    }

    /// What a track turned out to be; false if that is no news.
    pub fn describe(&mut self, kind: Kind, slot: u8, codec: Codec, size: Option<FrameSize>) -> bool {
        self.tracks
            .get_mut(&(kind, slot))
            .is_some_and(|incoming| !incoming.describes(codec, size))
    }

    /// Takes a media message received at `now`.
    pub fn media(&mut self, message: &MediaMessage<'_>, now: RoomTime) -> Outcome {
        let slot = message.header.stream_id & 15;
        let Some(incoming) = self.tracks.get_mut(&(message.kind, slot)) else {
            let kind = if message.kind == Kind::Audio { "audio" } else { "video" };
            return Outcome::Refused("unknown_track", format!("{kind} slot {slot} is sent but not published"));
        };
        if incoming.writer.is_none() {
            if !incoming.has_returned(now) {
                return Outcome::Taken;
            }
            // The client has gone back to messages: the track begins anew.
            *incoming = Incoming::new(self.source, incoming.info, *incoming.track.bounds());
            return Outcome::Changed;
        }
        let Some(writer) = &mut incoming.writer else {
            return Outcome::Taken;
        };
        let seq = message.header.seq;
        let gap = incoming.next_seq.map_or(0, |next| seq.wrapping_sub(next));
        incoming.next_seq = Some(seq.wrapping_add(1));
        if gap > 0 {
            incoming.lost += u64::from(gap.min(1 << 16));
            incoming.partial = None;
        }
        match message.kind {
            Kind::Audio => {
                if !message.header.codec.is_opus() {
                    let text = format!("sound must be Opus; this packet says {:?}", message.header.codec);
                    return Outcome::Refused("bad_media", text);
                }
                if message.payload.len() > MAX_AUDIO {
                    let len = message.payload.len();
                    return Outcome::Refused(
                        "bad_media",
                        format!("a sound packet of {len} bytes is larger than {MAX_AUDIO}"),
                    );
                }
                let draft = Draft {
                    codec: message.header.codec,
                    keyframe: true,
                    ticks: 0,
                    time: RoomTime::default(),
                    size: None,
                    payload: Bytes::copy_from_slice(message.payload),
                };
                let draft = stamp(
                    &mut self.clock,
                    &mut self.extend,
                    message.header.timestamp,
                    draft,
                    48,
                    now,
                );
                incoming.append(draft, now)
            }
            Kind::Video => {
                if gap > 0 {
                    writer.lost_frame();
                }
                match incoming.assemble(message, self.max_frame) {
                    Ok(Some(payload)) => {
                        let units = match incoming.video.push(message.header.codec, &payload) {
                            Ok(units) => units,
                            Err(error) => {
                                incoming.lost_frame();
                                return Outcome::Refused("bad_media", error.to_string());
                            }
                        };
                        let mut outcome = Outcome::Taken;
                        for unit in units {
                            let draft = Draft {
                                codec: message.header.codec,
                                keyframe: unit.keyframe,
                                ticks: 0,
                                time: RoomTime::default(),
                                size: unit.size.or(incoming.info.size),
                                payload: unit.payload,
                            };
                            let draft = stamp(
                                &mut self.clock,
                                &mut self.extend,
                                message.header.timestamp,
                                draft,
                                90,
                                now,
                            );
                            let one = incoming.append(draft, now);
                            if outcome == Outcome::Taken {
                                outcome = one;
                            }
                        }
                        outcome
                    }
                    Ok(None) => Outcome::Taken,
                    Err(refused) => {
                        incoming.lost_frame();
                        refused
                    }
                }
            }
        }
    }
}

/// Puts a draft on both clocks; `per_ms` is ticks per millisecond.
fn stamp(
    clock: &mut SourceClock,
    extend: &mut Extend32,
    timestamp: u32,
    draft: Draft,
    per_ms: u64,
    now: RoomTime,
) -> Draft {
    let ms = extend.extend(timestamp);
    Draft {
        ticks: ms * per_ms,
        time: clock.room_time(ms * 1000, now),
        ..draft
    }
}

impl Incoming {
    fn new(source: ParticipantId, info: TrackInfo, bounds: Bounds) -> Self {
        let id = TrackId {
            source,
            kind: info.kind,
            slot: info.slot,
            layer: 0,
        };
        let (track, writer) = Track::create(id, bounds, 0);
        Self {
            info,
            track,
            writer: Some(writer),
            stray: None,
            next_seq: None,
            partial: None,
            video: VideoIn::default(),
            lost: 0,
            frames: 0,
        }
    }

    /// A few messages may come after RTP has begun; a second of them means that the client sends no RTP any more.
    fn has_returned(&mut self, now: RoomTime) -> bool {
        let since = match self.stray {
            Some((since, last)) if now.since(last) < STRAY_GAP => since,
            _ => now,
        };
        self.stray = Some((since, now));
        now.since(since) >= STRAY_SPAN
    }

    fn lost_frame(&mut self) {
        if let Some(writer) = &mut self.writer {
            writer.lost_frame();
        }
    }

    fn append(&mut self, draft: Draft, now: RoomTime) -> Outcome {
        let (codec, size) = (draft.codec, draft.size);
        let id = self.track.id();
        let Some(writer) = &mut self.writer else {
            return Outcome::Taken;
        };
        match writer.append(draft, now) {
            Appended::At(_) => {
                self.frames += 1;
                if self.describes(codec, size) {
                    Outcome::Taken
                } else {
                    Outcome::Changed
                }
            }
            Appended::NeedsKeyframe => Outcome::NeedsKeyframe(id),
        }
    }

    /// Keeps the published description true to what comes; false if it had to change.
    fn describes(&mut self, codec: Codec, size: Option<FrameSize>) -> bool {
        let size = size.or(self.info.size);
        let same =
            (self.info.codec == codec || (codec.is_opus() && self.info.codec.is_opus())) && self.info.size == size;
        if !same {
            self.info.codec = codec;
            self.info.size = size;
        }
        same
    }

    /// Collects the pieces of a frame, which come in order; the whole frame with the last one.
    fn assemble(&mut self, message: &MediaMessage<'_>, max_frame: usize) -> Result<Option<Bytes>, Outcome> {
        let header = &message.header;
        let (index, count) = (header.fragment_index(), header.fragment_count());
        if index == 0 {
            if count == 1 {
                self.partial = None;
                return Ok(Some(Bytes::copy_from_slice(message.payload)));
            }
            let mut data = BytesMut::with_capacity((message.payload.len() * usize::from(count)).min(max_frame));
            data.extend_from_slice(message.payload);
            self.partial = Some(Partial {
                timestamp: header.timestamp,
                next_index: 1,
                count,
                data,
            });
            return Ok(None);
        }
        let Some(partial) = &mut self.partial else {
            return Ok(None);
        };
        let fits = partial.timestamp == header.timestamp && partial.next_index == index && partial.count == count;
        if !fits {
            self.partial = None;
            let text = format!("piece {index} of a video frame does not follow the one before it");
            return Err(Outcome::Refused("bad_media", text));
        }
        if partial.data.len() + message.payload.len() > max_frame {
            self.partial = None;
            let text = format!("a video frame is larger than {max_frame} bytes; lower the resolution or bitrate");
            return Err(Outcome::Refused("frame_too_large", text));
        }
        partial.data.extend_from_slice(message.payload);
        partial.next_index += 1;
        if partial.next_index < count {
            return Ok(None);
        }
        Ok(self.partial.take().map(|partial| partial.data.freeze()))
    }
}

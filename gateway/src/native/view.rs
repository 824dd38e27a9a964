//! The native view: of everything in a room, the one sound and the one picture that an app can play, each as one stream
//! (WZP wire v2, sections 6.5 and 7.4). Without IO; time is an argument.
//!
//! One talker's packets go through untouched; when several talk, the room's mix takes their place ([`View::follow_mix`]).
//! While the room is not mixed, because there is only one source to hear, packet sizes tell who talks.
//!
//! An app has one decoder and one sequence tracker for sound and one of each for pictures, whatever comes from whomever.
//! So this selects, and numbers what it selects: sequence numbers without holes, timestamps that are distinct, increasing
//! and spaced like the source's own, also across a change of source.

use std::collections::BTreeMap;
use std::sync::Arc;

use wzp_proto::codec::Codec;
use wzp_proto::header::{Flags, MediaHeader, MediaType};
use wzp_proto::identity::Fingerprint;

use crate::media::audio::BLOCK;
use crate::media::frame::{Frame, Kind, ParticipantId, RoomTime};
use crate::room::member::Origin;
use crate::room::mixer::{LEG, Tick};
use crate::room::snapshot::{MemberView, Snapshot};
use crate::room::track::Track;

/// A talker keeps the sound for this long after the last packet that was not silence, µs.
pub const AUDIO_HOLD: u64 = 1_000_000;
/// A picture stays for at least this long before another takes its place, µs.
pub const VIDEO_HOLD: u64 = 1_500_000;
/// The room is no longer mixed when no tick came for this long, µs.
const MIX_SILENCE: u64 = 100_000;
/// Opus packets of up to this many bytes are taken for silence: DTX, and digital silence at any bit rate.
const SILENCE: usize = 16;
/// Codec2 frames are always small, so their size says nothing.
const CODEC2_IS_VOICE: bool = true;
/// A source's clock may drift this far from the room's before the spacing gives way by 1 ms, ms.
const DRIFT: i64 = 10;
/// Beyond this the source has paused or restarted its clock, and time is taken from the room's, ms.
const JUMP: i64 = 500;

/// Which video codecs an app can show: H.264 always, the others if it offered them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Playable {
    /// AV1.
    pub av1: bool,
    /// H.265.
    pub h265: bool,
}

impl Playable {
    /// From the codecs of an offer.
    pub fn offered(codecs: &[Codec]) -> Self {
        Self {
            av1: codecs.contains(&Codec::Av1Main),
            h265: codecs.contains(&Codec::H265Main),
        }
    }

    fn shows(self, codec: Codec) -> bool {
        match codec {
            Codec::H264Baseline => true,
            Codec::H265Main => self.h265,
            Codec::Av1Main => self.av1,
            _ => false,
        }
    }
}

/// What goes into the header of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Sequence number of the first (for sound: only) packet.
    pub seq: u32,
    /// Media time, ms.
    pub timestamp: u32,
    /// Stream id of the source; 0 for sound, unless every source goes out apart.
    pub stream_id: u8,
}

impl Stamp {
    /// The header of the frame's first packet.
    pub fn header(self, frame: &Frame) -> MediaHeader {
        let video = frame.track.kind == Kind::Video;
        let mut flags = Flags::empty();
        flags.set(Flags::KEYFRAME, video && frame.keyframe);
        MediaHeader {
            flags,
            media_type: if video { MediaType::Video } else { MediaType::Audio },
            codec: frame.codec,
            stream_id: self.stream_id,
            fec_ratio: 0,
            seq: self.seq,
            timestamp: self.timestamp,
            fec_block: 0,
        }
    }
}

#[derive(Debug)]
struct Source {
    stream_id: u8,
    audio: Option<Arc<Track>>,
    video: Option<Arc<Track>>,
}

/// Which sound goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sound {
    /// One source's packets.
    Through(ParticipantId),
    /// The room's mix.
    Mix,
}

/// The selection for one receiver.
#[derive(Debug)]
pub struct View {
    me: ParticipantId,
    playable: Playable,
    /// Only members of this gateway are seen and heard, and pictures go out under this stream id.
    leg: Option<u8>,
    /// Only this member is seen and heard, under its own stream id.
    only: Option<ParticipantId>,
    /// Whose picture is shown whenever there is one: by identity, since who comes back has another id.
    pin: Option<Fingerprint>,
    pinned: Option<ParticipantId>,
    sources: BTreeMap<ParticipantId, Source>,
    /// Whose sound goes out, and when it last was not silent.
    talker: Option<(ParticipantId, Option<RoomTime>)>,
    /// What the room's mix says goes out, and when it last did.
    mix: Option<(Sound, RoomTime)>,
    /// Who talks, loudest first, as the room says.
    speakers: Arc<[ParticipantId]>,
    audio_out: Numbering,
    /// The track whose frames go out, since when, and under which stream id.
    shown: Option<(Arc<Track>, RoomTime, u8)>,
    video_out: Numbering,
    switches: u64,
}

impl View {
    /// An empty view. `audio_seq` is random and high, so that an app does not take the change to our numbers for loss.
    pub fn new(me: ParticipantId, playable: Playable, audio_seq: u32) -> Self {
        Self {
            me,
            playable,
            leg: None,
            only: None,
            pin: None,
            pinned: None,
            sources: BTreeMap::new(),
            talker: None,
            mix: None,
            speakers: Arc::default(),
            audio_out: Numbering::new(audio_seq),
            shown: None,
            video_out: Numbering::new(0),
            switches: 0,
        }
    }

    /// The view of the members of this gateway for somebody else's relay: no member of that relay is in it, or the relay
    /// would hear itself. `first_seqs`, of sound and of pictures, are random, far from everybody else's; pictures have one
    /// stream id whoever they are of.
    pub fn of_local_members(stream_id: u8, first_seqs: [u32; 2]) -> Self {
        Self {
            leg: Some(stream_id),
            video_out: Numbering::new(first_seqs[1]),
            ..Self::new(LEG, Playable::default(), first_seqs[0])
        }
    }

    /// The view of one member alone, whose sound, too, goes out under its stream id.
    pub fn of_one(me: ParticipantId, source: ParticipantId, playable: Playable) -> Self {
        Self {
            only: Some(source),
            ..Self::new(me, playable, 0)
        }
    }

    /// Shows the picture of `who` whenever there is one, whoever talks.
    pub fn pin(mut self, who: Option<Fingerprint>) -> Self {
        self.pin = who;
        self
    }

    /// Takes note of who is in the room and sends what.
    pub fn set_room(&mut self, snapshot: &Snapshot) {
        self.speakers = snapshot.speakers.clone();
        let is_pinned = |member: &&Arc<MemberView>| self.pin == Some(member.fingerprint);
        self.pinned = snapshot.members.iter().find(is_pinned).map(|member| member.id);
        self.sources = (snapshot.members.iter())
            .filter(|member| member.id != self.me && !(self.leg.is_some() && member.is_remote()))
            .filter(|member| self.only.is_none_or(|only| only == member.id))
            .map(|member| (member.id, self.source(member)))
            .collect();
        if let Some((talker, _)) = self.talker
            && (self.sources.get(&talker)).is_none_or(|source| source.audio.is_none())
        {
            self.talker = None;
        }
        if let Some((shown, ..)) = &self.shown
            && !self.sources.values().any(|source| is(&source.video, shown))
        {
            self.shown = None;
        }
    }

    /// The stream id of the one member that is seen and heard, if it is one alone.
    pub fn stream_id(&self) -> Option<u8> {
        Some(self.sources.get(&self.only?)?.stream_id)
    }

    /// Whether the receiver takes packets of any length: it asked for every source apart, and has a decoder for each.
    pub fn takes_any(&self) -> bool {
        self.only.is_some()
    }

    /// The sound tracks to listen to.
    pub fn audio_tracks(&self) -> impl Iterator<Item = &Arc<Track>> {
        self.sources.values().filter_map(|source| source.audio.as_ref())
    }

    /// Who the receiver is.
    pub fn me(&self) -> ParticipantId {
        self.me
    }

    /// Acts on the next 20 ms of the room's mix. `Some` if from now on another source's packets go through: they begin at the
    /// first frame that was not in the mix, so that nothing of what was said is left out.
    pub fn follow_mix(&mut self, tick: &Tick, now: RoomTime) -> Option<ParticipantId> {
        let before = self.sound(now);
        let is_heard = |talker: &ParticipantId| match self.leg {
            Some(_) => self.sources.contains_key(talker),
            None => *talker != self.me,
        };
        let mut others = tick.talkers.iter().copied().filter(is_heard);
        let sound = match (tick.opus(self.me), others.next()) {
            (Some(_), _) => Sound::Mix,
            (None, Some(talker)) => Sound::Through(talker),
            // Whose sound went out last keeps it until somebody else talks.
            (None, None) => match before {
                Some(Sound::Through(source)) if self.has_sound(source) => Sound::Through(source),
                _ => {
                    let last = self
                        .talker
                        .map(|(talker, _)| talker)
                        .filter(|talker| self.has_sound(*talker));
                    let any = || self.sources.keys().copied().find(|source| self.has_sound(*source));
                    Sound::Through(last.or_else(any)?)
                }
            },
        };
        self.mix = Some((sound, now));
        if before != Some(sound) {
            self.audio_out.change_source();
            self.switches += 1;
        }
        match sound {
            Sound::Through(source) => {
                let last_voice = tick.talkers.contains(&source).then_some(now);
                let known = self.talker.filter(|(talker, _)| *talker == source);
                self.talker = Some((source, last_voice.or(known.and_then(|(_, at)| at))));
                (before != Some(sound)).then_some(source)
            }
            Sound::Mix => None,
        }
    }

    /// What goes out at `now`; `None` before there is anything.
    pub fn sound(&self, now: RoomTime) -> Option<Sound> {
        match self.mix {
            Some((sound, at)) if now.since(at) <= MIX_SILENCE => Some(sound),
            _ => self.talker.map(|(talker, _)| Sound::Through(talker)),
        }
    }

    /// The header of the next packet of the mix.
    pub fn mixed(&mut self, tick: &Tick) -> MediaHeader {
        let ticks = tick.index * BLOCK as u64;
        let (seq, timestamp) = self.audio_out.next(Kind::Audio, tick.time, ticks, 1);
        MediaHeader {
            flags: Flags::empty(),
            media_type: MediaType::Audio,
            codec: Codec::Opus24k,
            stream_id: 0,
            fec_ratio: 0,
            seq,
            timestamp,
            fec_block: 0,
        }
    }

    fn has_sound(&self, source: ParticipantId) -> bool {
        self.sources.get(&source).is_some_and(|source| source.audio.is_some())
    }

    /// Listens to a sound frame of any source; whether it is one to be heard. If so, send it under [`View::audio`].
    pub fn hear(&mut self, frame: &Frame, now: RoomTime) -> bool {
        let source = frame.track.source;
        if let Some((sound, at)) = self.mix
            && now.since(at) <= MIX_SILENCE
        {
            return sound == Sound::Through(source);
        }
        let voice = is_voice(frame.codec, frame.payload.len());
        let takes_over = match self.talker {
            Some((talker, _)) if talker == source => false,
            Some((_, Some(last_voice))) => voice && now.since(last_voice) >= AUDIO_HOLD,
            Some((_, None)) => voice,
            None => true,
        };
        if takes_over {
            self.talker = Some((source, None));
            self.audio_out.change_source();
            self.switches += 1;
        }
        match &mut self.talker {
            Some((talker, last_voice)) if *talker == source => {
                if voice {
                    *last_voice = Some(now);
                }
                true
            }
            _ => false,
        }
    }

    /// The numbers to send a sound packet under that stands at `ticks` on its source's clock and at `time` on the room's.
    pub fn audio(&mut self, ticks: u64, time: RoomTime) -> Stamp {
        let (seq, timestamp) = self.audio_out.next(Kind::Audio, time, ticks, 1);
        let alone = self.only.and_then(|only| self.sources.get(&only));
        Stamp {
            seq,
            timestamp,
            stream_id: alone.map_or(0, |source| source.stream_id),
        }
    }

    /// The video track that should be shown at `now`; the one that is shown goes on until a keyframe of this one is there.
    pub fn wanted_video(&self, now: RoomTime) -> Option<&Arc<Track>> {
        let shown = self.shown.as_ref();
        let picture = |source: &ParticipantId| self.sources.get(source)?.video.as_ref();
        if let Some(track) = self.pinned.as_ref().and_then(picture) {
            return Some(track);
        }
        if let Some((track, since, _)) = shown
            && now.since(*since) < VIDEO_HOLD
        {
            return Some(track);
        }
        // The room measures loudness; where nobody does, who is heard is who talks.
        let of_speaker = self.speakers.iter().find_map(picture);
        let of_talker = || self.talker.as_ref().and_then(|(talker, _)| picture(talker));
        of_speaker
            .or_else(of_talker)
            .or(shown.map(|(track, ..)| track))
            .or_else(|| self.sources.values().find_map(|source| source.video.as_ref()))
    }

    /// When [`View::wanted_video`] may change without anything else happening.
    pub fn poll_timeout(&self, now: RoomTime) -> Option<RoomTime> {
        let (_, since, _) = self.shown.as_ref()?;
        Some(since.plus(VIDEO_HOLD)).filter(|at| *at > now)
    }

    /// From now on frames of `track` go out; the first one is a keyframe.
    pub fn show(&mut self, track: &Arc<Track>, now: RoomTime) {
        let Some(source) = self.sources.get(&track.id().source) else {
            return;
        };
        self.shown = Some((track.clone(), now, source.stream_id));
        self.video_out.change_source();
        self.switches += 1;
    }

    /// The track that is shown.
    pub fn shown(&self) -> Option<&Arc<Track>> {
        self.shown.as_ref().map(|(track, ..)| track)
    }

    /// The numbers of a frame of the shown track that goes out in `packets` packets.
    pub fn video(&mut self, frame: &Frame, packets: u32) -> Stamp {
        let (seq, timestamp) = self.video_out.next(Kind::Video, frame.time, frame.ticks, packets);
        Stamp {
            seq,
            timestamp,
            stream_id: self.shown.as_ref().map_or(0, |(_, _, stream_id)| *stream_id),
        }
    }

    /// Takes back the numbers of the last `packets` packets of the frame before: they were not sent after all.
    pub fn video_unsent(&mut self, packets: u32) {
        self.video_out.next_seq = self.video_out.next_seq.wrapping_sub(packets);
    }

    /// The video track that an app means by a stream id in its keyframe request: the source with this id, else whatever is
    /// shown.
    pub fn track_of(&self, stream_id: u8) -> Option<&Arc<Track>> {
        if self.leg.is_some() {
            return self.shown();
        }
        (self.sources.values())
            .find(|source| source.stream_id == stream_id && source.video.is_some())
            .and_then(|source| source.video.as_ref())
            .or(self.shown())
    }

    /// How often sound or picture changed its source.
    pub fn switches(&self) -> u64 {
        self.switches
    }

    fn source(&self, member: &MemberView) -> Source {
        let audio = member.tracks.iter().find(|view| view.info.kind == Kind::Audio);
        // A shared screen is what people want to see of somebody who has both. Of layers the lowest: apps are phones.
        let video = (member.tracks.iter())
            .filter(|view| view.info.kind == Kind::Video && self.playable.shows(view.info.codec))
            .filter(|view| view.info.origin != Origin::Camera || !member.muted.video)
            .min_by_key(|view| (view.info.origin != Origin::Screen, view.info.slot, view.info.layer));
        Source {
            stream_id: self.leg.unwrap_or(member.native_stream),
            audio: audio.map(|view| view.track.clone()),
            video: video.map(|view| view.track.clone()),
        }
    }
}

fn is(track: &Option<Arc<Track>>, other: &Arc<Track>) -> bool {
    track.as_ref().is_some_and(|track| Arc::ptr_eq(track, other))
}

/// A first measure of whether somebody talks: the size of the coded packet.
fn is_voice(codec: Codec, len: usize) -> bool {
    if codec.is_codec2() {
        return CODEC2_IS_VOICE;
    }
    len > SILENCE
}

/// Numbers one outgoing stream.
#[derive(Debug)]
struct Numbering {
    next_seq: u32,
    last: Option<u64>,
    /// Output ms and source ticks that belong together.
    base: Option<(i64, u64)>,
}

impl Numbering {
    fn new(first_seq: u32) -> Self {
        Self {
            next_seq: first_seq,
            last: None,
            base: None,
        }
    }

    fn change_source(&mut self) {
        self.base = None;
    }

    /// Sequence number and timestamp of a frame that takes `packets` packets; `time` is on the room's clock, `ticks` on the
    /// source's.
    fn next(&mut self, kind: Kind, time: RoomTime, ticks: u64, packets: u32) -> (u32, u32) {
        let room_ms = time.as_millis() as i64;
        let per_ms = i64::from(kind.clock_rate() / 1000);
        let own = |(base_ms, base_ticks): (i64, u64)| {
            base_ms + (ticks as i64).wrapping_sub(base_ticks as i64).div_euclid(per_ms)
        };
        let (base_ms, base_ticks) = match self.base {
            // A step of one now and then keeps the source's clock with the room's without anyone seeing it.
            Some(base) if (room_ms - own(base)).abs() <= JUMP => {
                let drift = room_ms - own(base);
                let step = if drift.abs() > DRIFT { drift.signum() } else { 0 };
                (base.0 + step, base.1)
            }
            _ => (room_ms, ticks),
        };
        let floor = self.last.map_or(0, |last| last as i64 + 1);
        let wanted = own((base_ms, base_ticks));
        // After a change of source the new one may stand before the old one: its whole clock moves on.
        let first = self.base.is_none();
        let timestamp = wanted.max(floor);
        self.base = Some((base_ms + if first { timestamp - wanted } else { 0 }, base_ticks));
        self.last = Some(timestamp as u64);
        let seq = self.next_seq;
        self.next_seq = seq.wrapping_add(packets);
        (seq, timestamp as u32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_of_a_drifting_source_stay_near_the_room_clock() {
        let mut numbering = Numbering::new(7);
        let mut last = None;
        for n in 0..200_000u64 {
            // 100 ppm fast, over 67 minutes.
            let room_ms = 1_000 + n * 20 + n * 20 / 10_000;
            let (seq, timestamp) = numbering.next(Kind::Audio, RoomTime::from_millis(room_ms), n * 960, 1);
            assert_eq!(seq, 7 + n as u32);
            assert!(u64::from(timestamp).abs_diff(room_ms) <= DRIFT as u64 + 1);
            let step = last.replace(timestamp).map_or(20, |last| timestamp - last);
            assert!((19..=21).contains(&step));
        }
    }

    #[test]
    fn thirty_pictures_a_second_fill_the_second() {
        let mut numbering = Numbering::new(0);
        let stamps: Vec<_> = (0..31)
            .map(|n| {
                numbering
                    .next(Kind::Video, RoomTime::from_millis(n * 1000 / 30), n * 3000, 4)
                    .1
            })
            .collect();
        assert_eq!(stamps[30] - stamps[0], 1000);
        assert!(stamps.windows(2).all(|pair| (33..=34).contains(&(pair[1] - pair[0]))));
    }

    proptest! {
        #[test]
        fn timestamps_increase_and_numbers_have_no_holes(
            frames in proptest::collection::vec((any::<bool>(), any::<u32>(), 0u64..100_000, 1u32..200), 1..200),
        ) {
            let mut numbering = Numbering::new(u32::MAX - 100);
            let mut before: Option<(u32, u32)> = None;
            for (change, ticks, ms, packets) in frames {
                if change {
                    numbering.change_source();
                }
                let (seq, timestamp) = numbering.next(Kind::Video, RoomTime::from_millis(ms), ticks.into(), packets);
                if let Some((expected, last)) = before {
                    prop_assert_eq!(seq, expected);
                    prop_assert!(timestamp > last);
                }
                before = Some((seq.wrapping_add(packets), timestamp));
            }
        }
    }
}

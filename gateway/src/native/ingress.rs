//! Datagrams of one native member become frames of its tracks. Without IO; time is an argument.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wzp_proto::Repair;
use wzp_proto::codec::Codec;
use wzp_proto::fec::FecDecoder;
use wzp_proto::header::{MediaHeader, MediaType};
use wzp_proto::packet::MediaPacket;
use wzp_proto::video::{AssembledFrame, FrameSize, Reassembler};

use crate::media::audio::noise::ComfortNoise;
use crate::media::audio::transcode::{TranscodeError, Transcoder};
use crate::media::audio::{BLOCK, BLOCK_TIME};
use crate::media::clock::{Extend32, SourceClock};
use crate::media::frame::{Draft, Kind, ParticipantId, RoomTime, TrackId};
use crate::media::h264::AccessUnitError;
use crate::media::video_in::{Unit, VideoError, VideoIn};
use crate::native::counters::Counters;
use crate::native::quality::{Quality, Tier};
use crate::native::rate::{Bound, Meter, Rates, Verdict};
use crate::native::reorder::{Ordered, Patience, Reorder};
use crate::native::repair::RepairedOrder;
use crate::room::member::{Origin, TrackInfo};
use crate::room::track::{Appended, Bounds, Track, TrackWriter};

/// Sound waits at most one packet's time for what is missing: longer would be heard as delay.
const AUDIO_PATIENCE: Patience = Patience { wait: 20_000, held: 2 };
/// What repair packets can bring back is waited for, at most this long: the first of a block of eight frames of 20 ms, which are
/// followed by their repair packets, can just be had. Blocks that last longer get back only their later frames.
const REPAIR_PATIENCE: Patience = Patience {
    wait: 140_000,
    held: 32,
};
/// Comfort noise goes on for this many blocks if nothing follows its packet, 200 ms: senders repeat it as often.
const NOISE_BLOCKS: u32 = 10;
/// Of so many sound packets in a row it is looked at how many were lost.
const LOSS_WINDOW: u64 = 50;
/// Changes of a picture's size are told at most this often, µs.
const SIZE_INTERVAL: u64 = 300_000;
/// Ticks of sound: 48 kHz.
const TICKS_PER_MS: u64 = 48;
/// Keyframe wishes go to the room's keyframe owner at most this often, µs; the owner has its own policy.
const WISH_INTERVAL: u64 = 100_000;
/// A video stream that was silent for this long gives way to another of the same sender, µs.
const STREAM_SILENCE: u64 = 500_000;

/// The sending side of one native member.
#[derive(Debug)]
pub struct Ingress {
    source: ParticipantId,
    counters: Arc<Counters>,
    meter: Meter,
    video_bounds: Bounds,
    /// The member can be asked for packets.
    asks: bool,
    /// First message sequence numbers of the two tracks.
    first_seqs: [u32; 2],
    audio: AudioIngress,
    video: VideoIngress,
    tracks_changed: bool,
    wish: bool,
    wished_at: Option<RoomTime>,
    quality: Quality,
    directive: Option<Tier>,
}

#[derive(Debug)]
struct AudioIngress {
    order: Reorder<AudioPacket>,
    fec: FecDecoder,
    /// The member sends repair packets, or says that it will.
    repairs: bool,
    timestamps: Extend32,
    clock: SourceClock,
    writer: Option<TrackWriter>,
    /// Codec of the track, which is Opus whatever the member sends.
    codec: Option<Codec>,
    transcoder: Option<Transcoder>,
    /// Where what was transcoded ends, ticks.
    transcoded_to: Option<u64>,
    noise: Option<Noise>,
    /// Goes on from one noise to the next, so that none is heard to repeat.
    noise_maker: Option<ComfortNoise>,
    loss: Loss,
}

/// Comfort noise that goes on until something follows.
#[derive(Debug)]
struct Noise {
    /// The next block, of which the payload is the noise's own packet.
    next: Draft,
    due: RoomTime,
    left: u32,
}

/// How much of what the member sends is lost on its way to us.
#[derive(Debug, Default)]
struct Loss {
    came: u64,
    lost: u64,
}

impl Loss {
    /// One packet came, after `missing` that did not; the loss in percent, once there is enough to tell.
    fn packet(&mut self, missing: u64) -> Option<f32> {
        self.came += 1;
        self.lost += missing;
        let sent = self.came + self.lost;
        if sent < LOSS_WINDOW {
            return None;
        }
        let percent = self.lost as f32 * 100.0 / sent as f32;
        *self = Self::default();
        Some(percent)
    }
}

#[derive(Debug)]
struct AudioPacket {
    header: MediaHeader,
    /// `None` for repair packets, which share the numbers but are no sound.
    payload: Option<Bytes>,
    arrived: RoomTime,
}

#[derive(Debug)]
struct VideoIngress {
    stream: Option<(u8, RoomTime)>,
    reassembler: Reassembler,
    order: RepairedOrder<(AssembledFrame, RoomTime)>,
    /// Packets to ask the member for.
    nacks: Vec<Nack>,
    timestamps: Extend32,
    clock: SourceClock,
    input: VideoIn,
    writer: Option<TrackWriter>,
    codec: Option<Codec>,
    size: Option<FrameSize>,
    /// What the room was told, and when.
    told: Option<(Codec, Option<FrameSize>, RoomTime)>,
}

/// Packets that a member should send again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    /// Its stream.
    pub stream_id: u8,
    /// Their numbers.
    pub seqs: Vec<u32>,
}

impl AudioIngress {
    fn new() -> Self {
        Self {
            order: Reorder::new(AUDIO_PATIENCE),
            fec: FecDecoder::new(),
            repairs: false,
            timestamps: Extend32::default(),
            clock: SourceClock::default(),
            writer: None,
            codec: None,
            transcoder: None,
            transcoded_to: None,
            noise: None,
            noise_maker: None,
            loss: Loss::default(),
        }
    }
}

impl VideoIngress {
    fn new(asks: bool) -> Self {
        Self {
            stream: None,
            reassembler: Reassembler::default(),
            order: if asks {
                RepairedOrder::default()
            } else {
                RepairedOrder::without_requests()
            },
            nacks: Vec::new(),
            timestamps: Extend32::default(),
            clock: SourceClock::default(),
            input: VideoIn::default(),
            writer: None,
            codec: None,
            size: None,
            told: None,
        }
    }
}

impl Ingress {
    /// A member that has not sent anything yet. `first_seqs` are random.
    pub fn new(
        source: ParticipantId,
        rates: Rates,
        first_seqs: [u32; 2],
        counters: Arc<Counters>,
        now: RoomTime,
    ) -> Self {
        Self {
            source,
            counters,
            meter: Meter::new(rates, now),
            video_bounds: Bounds::VIDEO,
            asks: true,
            first_seqs,
            audio: AudioIngress::new(),
            video: VideoIngress::new(true),
            tracks_changed: false,
            wish: false,
            wished_at: None,
            quality: Quality::default(),
            directive: None,
        }
    }

    /// The log of pictures will have these bounds.
    #[must_use]
    pub fn with_video_bounds(self, video_bounds: Bounds) -> Self {
        Self { video_bounds, ..self }
    }

    /// The member cannot be asked for packets, only for keyframes: there are no [`Nack`]s, and nothing waits for answers.
    #[must_use]
    pub fn without_requests(self) -> Self {
        Self {
            asks: false,
            video: VideoIngress::new(false),
            ..self
        }
    }

    /// Takes a datagram that came at `now`.
    ///
    /// # Errors
    /// The member sends so much more than it may that it should be put out.
    pub fn datagram(&mut self, datagram: Bytes, now: RoomTime) -> Result<(), Bound> {
        self.counters.datagrams_in.one();
        match self.meter.take(datagram.len(), now) {
            Verdict::Pass => {}
            Verdict::Drop => {
                self.counters.over_rate_in.one();
                return Ok(());
            }
            Verdict::Violation(bound) => return Err(bound),
        }
        match MediaPacket::decode(datagram) {
            Ok(packet) => self.packet(packet, now),
            Err(_) => self.counters.malformed_in.one(),
        }
        Ok(())
    }

    /// Takes a packet that came at `now`, of a sender whose rate is metered elsewhere.
    pub fn packet(&mut self, packet: MediaPacket, now: RoomTime) {
        if let Some(report) = &packet.quality {
            self.counters.quality_reports_in.one();
            self.directive = self.quality.report(report).or(self.directive);
        }
        match packet.header.media_type {
            MediaType::Audio if !packet.header.codec.is_video() => self.take_audio(packet, now),
            MediaType::Video if packet.header.codec.is_video() => self.take_video(&packet, now),
            _ => self.counters.malformed_in.one(),
        }
    }

    /// The member sends no more of a kind: its track, if there is one, has ended. Whether there was one. If the member sends
    /// again, it is a new track, whose message sequence numbers begin at `first_seq`.
    pub fn end(&mut self, kind: Kind, first_seq: u32) -> bool {
        let ended = match kind {
            Kind::Audio => std::mem::replace(&mut self.audio, AudioIngress::new()).writer.is_some(),
            Kind::Video => std::mem::replace(&mut self.video, VideoIngress::new(self.asks))
                .writer
                .is_some(),
        };
        self.first_seqs[usize::from(kind == Kind::Video)] = first_seq;
        self.wish &= kind != Kind::Video;
        self.tracks_changed |= ended;
        ended
    }

    /// When [`Ingress::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<RoomTime> {
        let noise = self.audio.noise.as_ref().map(|noise| noise.due);
        [self.audio.order.poll_timeout(), self.video.order.poll_timeout(), noise]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: RoomTime) {
        self.release_audio(now);
        self.release_noise(None, now);
        self.repair_video(now);
        self.release_video(now);
        // What was waited for in vain is asked for as a keyframe at once.
        self.repair_video(now);
    }

    /// Video packets are missing and may still come: how soon depends on [`Ingress::set_rtt`].
    pub fn has_gaps(&self) -> bool {
        self.video.order.has_gaps()
    }

    /// Sets the round-trip time to the member, µs.
    pub fn set_rtt(&mut self, rtt: u64) {
        self.video.order.set_rtt(rtt);
    }

    /// Packets to ask the member for, since the last call.
    pub fn take_nacks(&mut self) -> impl Iterator<Item = Nack> + '_ {
        self.video.nacks.drain(..)
    }

    /// The member's tracks, if they have changed since the last call.
    pub fn take_tracks(&mut self) -> Option<Vec<(TrackInfo, Arc<Track>)>> {
        if !std::mem::take(&mut self.tracks_changed) {
            return None;
        }
        let audio = self.audio.writer.as_ref().zip(self.audio.codec).map(|(writer, codec)| {
            let info = TrackInfo {
                kind: Kind::Audio,
                slot: 0,
                layer: 0,
                origin: Origin::Microphone,
                codec,
                size: None,
            };
            (info, writer.track().clone())
        });
        let video = self
            .video
            .writer
            .as_ref()
            .zip(self.video.told)
            .map(|(writer, (codec, size, _))| {
                let info = TrackInfo {
                    kind: Kind::Video,
                    slot: 0,
                    layer: 0,
                    origin: Origin::Camera,
                    codec,
                    size,
                };
                (info, writer.track().clone())
            });
        Some(audio.into_iter().chain(video).collect())
    }

    /// The track that needs a keyframe from this member, if there is one; at most every 100 ms.
    pub fn take_keyframe_wish(&mut self, now: RoomTime) -> Option<TrackId> {
        if !self.wish || self.wished_at.is_some_and(|at| now.since(at) < WISH_INTERVAL) {
            return None;
        }
        self.wish = false;
        self.wished_at = Some(now);
        self.video.writer.as_ref().map(|writer| writer.track().id())
    }

    /// How good the member's own path is, if that has changed since the last call.
    pub fn take_directive(&mut self) -> Option<Tier> {
        self.directive.take()
    }

    /// The stream id of the member's video as it sends it.
    pub fn video_stream(&self) -> Option<u8> {
        self.video.stream.map(|(stream, _)| stream)
    }

    fn take_audio(&mut self, packet: MediaPacket, now: RoomTime) {
        let header = packet.header;
        let refused = self.audio.fec.stats().ignored;
        let recovered = self.audio.fec.push(&packet);
        let refused = self.audio.fec.stats().ignored - refused;
        self.counters.audio_repair_refused_in.add(refused);
        if !header.codec.is_codec2() {
            self.audio.repairs = false;
        } else if header.fec_ratio > 0 || (header.is_repair() && refused == 0) {
            self.audio.repairs = true;
        }
        let sound = !header.is_repair() && !packet.payload.is_empty();
        let item = AudioPacket {
            header,
            payload: sound.then_some(packet.payload),
            arrived: now,
        };
        let late = self.audio.order.late();
        self.audio.order.push(header.seq, header.seq, item, false, now);
        self.counters.audio_late_in.add(self.audio.order.late() - late);
        for frame in recovered {
            let seq = frame.header.seq;
            // What was given up already is of no use, and must not look like a sender that began anew.
            if self.audio.order.lacks(seq) {
                let item = AudioPacket {
                    header: frame.header,
                    payload: Some(frame.payload),
                    arrived: now,
                };
                self.audio.order.push(seq, seq, item, false, now);
                self.counters.audio_recovered_in.one();
            }
        }
        self.release_audio(now);
    }

    /// Waits as long as repair packets may still help with what is missing before the first waiting packet, and no longer.
    fn adapt_patience(&mut self) {
        let audio = &mut self.audio;
        let mut patience = AUDIO_PATIENCE;
        if let Some(AudioPacket { header, payload, .. }) = audio.order.first().filter(|_| audio.repairs) {
            let follows = (audio.transcoded_to).is_some_and(|end| (end / TICKS_PER_MS) as u32 == header.timestamp);
            if payload.is_some() && follows {
                // Only repair packets are missing.
                audio.order.skip_missing();
            } else if payload.is_some() && header.fec_symbol_index() > 0 {
                let frames = audio.fec.block_frames().unwrap_or(0);
                let to_come = u64::from(frames.saturating_sub(1).saturating_sub(header.fec_symbol_index()));
                let wait = to_come * u64::from(header.codec.frame_ms()) * 1000 + AUDIO_PATIENCE.wait;
                if frames == 0 || wait <= REPAIR_PATIENCE.wait {
                    patience = REPAIR_PATIENCE;
                }
            }
        }
        audio.order.set_patience(patience);
    }

    fn release_audio(&mut self, now: RoomTime) {
        loop {
            self.adapt_patience();
            let Some(Ordered {
                item,
                missing,
                restarted,
            }) = self.audio.order.pop(now)
            else {
                return;
            };
            self.counters.audio_lost_in.add(missing);
            if let Some(percent) = self.audio.loss.packet(missing) {
                self.directive = self.quality.measured(percent).or(self.directive);
            }
            if restarted {
                self.audio.timestamps = Extend32::default();
            }
            let Some(payload) = item.payload else {
                self.counters.audio_skipped_in.one();
                continue;
            };
            let media_ms = self.audio.timestamps.extend(item.header.timestamp);
            let time = self.audio.clock.room_time(media_ms * 1000, item.arrived);
            let draft = Draft {
                codec: item.header.codec,
                keyframe: true,
                ticks: media_ms * TICKS_PER_MS,
                time,
                size: None,
                payload,
            };
            self.release_noise(Some(draft.ticks), now);
            self.audio.noise = None;
            if draft.codec == Codec::ComfortNoise {
                self.begin_noise(draft, now);
            } else if Transcoder::is_needed(draft.codec, &draft.payload) {
                self.counters.audio_in.one();
                self.transcode(draft, now);
            } else {
                self.counters.audio_in.one();
                self.audio.transcoder = None;
                self.audio.transcoded_to = None;
                self.append_audio(draft, now);
            }
        }
    }

    /// Codec2, and Opus whose packets are longer than usual, become Opus of 20 ms here, once for everybody: browsers cannot decode
    /// Codec2, apps change codecs in mid-stream without harm, and for the mix it has to be decoded anyway.
    fn transcode(&mut self, draft: Draft, now: RoomTime) {
        // By time, not by number: repair packets have numbers too.
        let gap = self
            .audio
            .transcoded_to
            .map_or(0, |end| draft.ticks.saturating_sub(end));
        let missing = usize::try_from(gap / BLOCK as u64).unwrap_or(usize::MAX);
        if self.audio.transcoder.is_none() {
            match Transcoder::new(self.source.0) {
                Ok(transcoder) => self.audio.transcoder = Some(transcoder),
                Err(error) => return tracing::error!(%error, "a voice cannot be transcoded"),
            }
        }
        let Some(transcoder) = &mut self.audio.transcoder else {
            return;
        };
        let made = match transcoder.push(draft.codec, &draft.payload, missing) {
            Ok(made) => made,
            Err(error) => return self.refuse_audio(&error),
        };
        self.counters.audio_transcoded_in.one();
        self.audio.transcoded_to = Some(draft.ticks + made.samples as u64);
        let before = made.before as u64;
        for (n, payload) in (0u64..).zip(made.packets) {
            let part = Draft {
                codec: Codec::Opus24k,
                ticks: (draft.ticks + n * BLOCK as u64).saturating_sub(before),
                time: RoomTime((draft.time.0 + n * BLOCK_TIME).saturating_sub(before * 1000 / TICKS_PER_MS)),
                payload,
                ..draft.clone()
            };
            self.append_audio(part, now);
        }
    }

    fn refuse_audio(&self, error: &TranscodeError) {
        tracing::debug!(%error, source = %self.source, "sound packet not taken");
        self.counters.audio_malformed_in.one();
    }

    /// Browsers are sent the noise that an app would make (WZP wire v2, section 6.2).
    fn begin_noise(&mut self, draft: Draft, now: RoomTime) {
        self.audio.transcoded_to = None;
        if self.audio.noise_maker.is_none() {
            match ComfortNoise::new(self.source.0) {
                Ok(maker) => self.audio.noise_maker = Some(maker),
                Err(error) => return tracing::error!(%error, "no comfort noise"),
            }
        }
        self.audio.noise = Some(Noise {
            next: draft,
            due: now,
            left: NOISE_BLOCKS,
        });
        self.release_noise(None, now);
    }

    /// Makes the noise that is due at `now`, or all that ends before `ticks`, where something else begins.
    fn release_noise(&mut self, ticks: Option<u64>, now: RoomTime) {
        while let (Some(noise), Some(maker)) = (&mut self.audio.noise, &mut self.audio.noise_maker)
            && ticks.map_or(noise.due <= now, |ticks| noise.next.ticks + BLOCK as u64 <= ticks)
        {
            let payload = match maker.packet(&noise.next.payload) {
                Ok(payload) => payload,
                Err(error) => {
                    self.audio.noise = None;
                    return self.refuse_audio(&error);
                }
            };
            let first = noise.left == NOISE_BLOCKS;
            let block = Draft {
                codec: Codec::Opus24k,
                payload,
                ..noise.next.clone()
            };
            noise.left -= 1;
            noise.next.ticks += BLOCK as u64;
            noise.next.time = noise.next.time.plus(BLOCK_TIME);
            // What comes instead may be late.
            noise.due = noise.due.plus(BLOCK_TIME + if first { AUDIO_PATIENCE.wait } else { 0 });
            if noise.left == 0 {
                self.audio.noise = None;
            }
            if first {
                self.counters.audio_in.one();
                self.counters.audio_transcoded_in.one();
            }
            self.append_audio(block, now);
        }
    }

    fn append_audio(&mut self, draft: Draft, now: RoomTime) {
        // To everybody but this member, Opus is Opus.
        if self
            .audio
            .codec
            .is_none_or(|codec| codec != draft.codec && !(codec.is_opus() && draft.codec.is_opus()))
        {
            self.audio.codec = Some(draft.codec);
            self.tracks_changed = true;
        }
        let (source, seq) = (self.source, self.first_seqs[0]);
        let writer = self
            .audio
            .writer
            .get_or_insert_with(|| open(source, Kind::Audio, Bounds::AUDIO, seq));
        writer.append(draft, now);
    }

    fn take_video(&mut self, packet: &MediaPacket, now: RoomTime) {
        let stream = packet.header.stream_id;
        match &mut self.video.stream {
            Some((known, at)) if *known == stream => *at = now,
            // Apps send one stream; another one is followed only when that one has fallen silent.
            Some((_, at)) if now.since(*at) < STREAM_SILENCE => return self.counters.video_refused_in.one(),
            other => *other = Some((stream, now)),
        }
        if self.video.writer.is_none() {
            self.video.writer = Some(open(self.source, Kind::Video, self.video_bounds, self.first_seqs[1]));
            self.video.codec = Some(packet.header.codec);
            self.video.told = Some((packet.header.codec, None, now));
            self.tracks_changed = true;
        }
        let repaired = self.video.order.repaired();
        self.video.order.packet(packet.header.seq, now);
        self.counters
            .video_repaired_in
            .add(self.video.order.repaired() - repaired);
        match self.video.reassembler.push(packet, Duration::from_micros(now.0)) {
            Ok(Some(frame)) => {
                let (seqs, timestamp) = ((frame.first_seq, frame.last_seq), frame.timestamp);
                let keyframe = frame.keyframe;
                self.video.order.push(seqs, timestamp, keyframe, (frame, now), now);
                self.release_video(now);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::trace!(%error, "video packet refused");
                self.counters.video_refused_in.one();
            }
        }
    }

    fn repair_video(&mut self, now: RoomTime) {
        let Some(stream_id) = self.video_stream() else { return };
        while let Some(what) = self.video.order.poll(now) {
            match what {
                Repair::Nack(seqs) => self.video.nacks.push(Nack { stream_id, seqs }),
                Repair::Keyframe => self.wish = true,
            }
        }
    }

    fn release_video(&mut self, now: RoomTime) {
        while let Some(ordered) = self.video.order.pop(now) {
            let (frame, arrived) = ordered.item;
            if ordered.missing > 0 || ordered.restarted {
                self.counters.video_lost_in.add(ordered.missing);
                if let Some(writer) = &mut self.video.writer {
                    writer.lost_frame();
                }
            }
            if ordered.restarted {
                self.video.timestamps = Extend32::default();
            }
            let media_ms = self.video.timestamps.extend(frame.timestamp);
            let time = self.video.clock.room_time(media_ms * 1000, arrived);
            match self.video.input.push(frame.codec, &frame.payload) {
                Ok(units) => {
                    for (i, unit) in units.into_iter().enumerate() {
                        // Joined pictures share one timestamp on the wire; in a track each has its own.
                        self.append_video(unit, &frame, media_ms + i as u64, time.plus(i as u64 * 1000), now);
                    }
                }
                // A packet with parameter sets alone is how some encoders begin; nothing was lost.
                Err(VideoError::H264(AccessUnitError::NoPicture)) => {}
                Err(error) => {
                    tracing::debug!(%error, source = %self.source, "video frame not taken");
                    self.counters.video_malformed_in.one();
                    if let Some(writer) = &mut self.video.writer {
                        writer.lost_frame();
                    }
                    self.wish = true;
                }
            }
        }
    }

    fn append_video(&mut self, unit: Unit, frame: &AssembledFrame, media_ms: u64, time: RoomTime, now: RoomTime) {
        let size = unit.size.or(frame.size).or(self.video.size);
        self.video.codec = Some(frame.codec);
        self.video.size = size;
        // The first size is told at once; afterwards it changes with a keyframe, and a sender that flaps is not followed.
        let tells = self.video.told.is_none_or(|(codec, told, at)| {
            let differs = (codec, told) != (frame.codec, size);
            differs && (told.is_none() || (unit.keyframe && now.since(at) >= SIZE_INTERVAL))
        });
        if tells {
            self.video.told = Some((frame.codec, size, now));
            self.tracks_changed = true;
        }
        let draft = Draft {
            codec: frame.codec,
            keyframe: unit.keyframe,
            ticks: media_ms * 90,
            time,
            size,
            payload: unit.payload,
        };
        let Some(writer) = &mut self.video.writer else { return };
        match writer.append(draft, now) {
            Appended::At(_) => {
                self.counters.video_in.one();
                self.wish &= !unit.keyframe;
            }
            Appended::NeedsKeyframe => {
                self.counters.video_undecodable_in.one();
                self.wish = true;
            }
        }
    }
}

fn open(source: ParticipantId, kind: Kind, bounds: Bounds, first_seq: u32) -> TrackWriter {
    let id = TrackId {
        source,
        kind,
        slot: 0,
        layer: 0,
    };
    Track::create(id, bounds, first_seq).1
}

#[cfg(test)]
mod tests;

//! Egress and view together, against a receiver that follows the rules of native apps.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BufMut;
use wzp_proto::codec::Codec;
use wzp_proto::header::MediaType;
use wzp_proto::identity::Fingerprint;
use wzp_proto::packet::MediaPacket;
use wzp_proto::video::{FrameSize, Reassembler};

use super::*;
use crate::media::frame::{Draft, Kind, ParticipantId};
use crate::native::view::{Playable, VIDEO_HOLD};
use crate::room::member::{Door, Muted, Origin, Presence, TrackInfo};
use crate::room::snapshot::{MemberView, TrackView};
use crate::room::track::{Bounds, TrackWriter};

const ME: ParticipantId = ParticipantId(99);

/// A connection with a queue that empties at a rate, and what came out of it.
#[derive(Debug)]
struct Link {
    bytes_per_ms: Cell<usize>,
    queued: RefCell<usize>,
    sent: RefCell<Vec<Bytes>>,
}

impl Link {
    fn new(bits_per_second: usize) -> Self {
        Self {
            bytes_per_ms: Cell::new(bits_per_second / 8000),
            queued: RefCell::new(0),
            sent: RefCell::default(),
        }
    }

    fn pass_ms(&self) {
        let mut queued = self.queued.borrow_mut();
        *queued = queued.saturating_sub(self.bytes_per_ms.get());
    }
}

impl Datagrams for Link {
    fn room(&self) -> SendRoom {
        let queued = *self.queued.borrow();
        let space = DATAGRAM_SEND_BUFFER.saturating_sub(queued);
        let allowed = (self.bytes_per_ms.get() * 50).clamp(QUEUE_FLOOR, DATAGRAM_SEND_BUFFER);
        SendRoom {
            space,
            budget: allowed.saturating_sub(queued).min(space),
            idle: queued == 0,
            max_size: 1162,
        }
    }

    fn send(&self, datagram: Bytes) -> bool {
        *self.queued.borrow_mut() += datagram.len();
        self.sent.borrow_mut().push(datagram);
        true
    }
}

/// WZP wire v2, sections 6.5 and 7.4: one tracker for sound, one tracker and reassembler for pictures.
#[derive(Debug, Default)]
struct NativeReceiver {
    audio_seq: Option<u32>,
    video_seq: Option<u32>,
    reassembler: Reassembler,
    concealed: u32,
    gaps: u32,
    /// Source, number within the source, timestamp.
    audio: Vec<(u32, u32, u32)>,
    /// Source, number, timestamp, keyframe.
    video: Vec<(u32, u32, u32, bool)>,
    stream_ids: Vec<u8>,
}

impl NativeReceiver {
    fn take(&mut self, datagrams: Vec<Bytes>, now: RoomTime) {
        for datagram in datagrams {
            assert!(datagram.len() <= 1162);
            let packet = MediaPacket::decode(datagram).unwrap();
            let header = packet.header;
            let number = |payload: &[u8]| {
                let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
                (word(0), word(4))
            };
            if header.media_type == MediaType::Audio {
                if let Some(expected) = self.audio_seq {
                    let missing = header.seq.wrapping_sub(expected);
                    self.concealed += if (1..=16).contains(&missing) { missing } else { 0 };
                    assert_eq!(missing, 0);
                }
                self.audio_seq = Some(header.seq.wrapping_add(1));
                let (source, n) = number(&packet.payload);
                self.audio.push((source, n, header.timestamp));
                continue;
            }
            if let Some(expected) = self.video_seq
                && header.seq != expected
            {
                self.gaps += 1;
            }
            self.video_seq = Some(header.seq.wrapping_add(1));
            if let Some(frame) = self.reassembler.push(&packet, Duration::from_micros(now.0)).unwrap() {
                let (source, n) = number(&frame.payload);
                self.video.push((source, n, frame.timestamp, frame.keyframe));
                self.stream_ids.push(frame.stream_id);
            }
        }
    }

    /// No delta without its predecessor; timestamps distinct and increasing.
    fn assert_decodable(&self) {
        let mut last: Option<(u32, u32, u32, bool)> = None;
        for frame in &self.video {
            let (source, n, timestamp, keyframe) = *frame;
            match last {
                Some((before, before_n, before_timestamp, _)) => {
                    assert!(timestamp > before_timestamp, "{last:?} then {frame:?}");
                    assert!(
                        keyframe || (before == source && before_n + 1 == n),
                        "{last:?} then {frame:?}"
                    );
                }
                None => assert!(keyframe),
            }
            last = Some(*frame);
        }
        assert!(self.audio.windows(2).all(|pair| pair[1].2 > pair[0].2));
        assert_eq!((self.gaps, self.concealed), (0, 0));
    }
}

/// A member that talks and shows something, on a clock of its own.
struct Source {
    id: u32,
    audio: TrackWriter,
    video: TrackWriter,
    sounds: u32,
    pictures: u32,
    keyframe_due: bool,
}

impl Source {
    fn new(id: u32) -> Self {
        let track = |kind| TrackId {
            source: ParticipantId(id),
            kind,
            slot: 0,
            layer: 0,
        };
        Self {
            id,
            audio: Track::create(track(Kind::Audio), Bounds::AUDIO, 0).1,
            video: Track::create(track(Kind::Video), Bounds::VIDEO, 0).1,
            sounds: 0,
            pictures: 0,
            keyframe_due: true,
        }
    }

    fn payload(&self, n: u32, len: usize) -> Bytes {
        let mut payload = Vec::with_capacity(len);
        payload.put_u32(self.id);
        payload.put_u32(n);
        payload.resize(len, 7);
        payload.into()
    }

    fn sound(&mut self, voice: bool, now: RoomTime) {
        let draft = Draft {
            codec: Codec::Opus24k,
            keyframe: true,
            ticks: u64::from(self.sounds) * 960 + 5_000_000,
            time: now,
            size: None,
            payload: self.payload(self.sounds, if voice { 60 } else { 8 }),
        };
        self.sounds += 1;
        self.audio.append(draft, now);
    }

    fn picture(&mut self, keyframe: bool, len: usize, now: RoomTime) {
        let draft = Draft {
            codec: Codec::H264Baseline,
            keyframe,
            ticks: u64::from(self.pictures) * 3000 + 77_000_000,
            time: now,
            size: Some(FrameSize {
                width: 640,
                height: 360,
            }),
            payload: self.payload(self.pictures, len),
        };
        self.pictures += 1;
        self.video.append(draft, now);
    }

    fn member(&self) -> Arc<MemberView> {
        let view = |writer: &TrackWriter, origin, codec| TrackView {
            info: TrackInfo {
                kind: writer.track().id().kind,
                slot: 0,
                layer: 0,
                origin,
                codec,
                size: None,
            },
            track: writer.track().clone(),
        };
        Arc::new(MemberView {
            id: ParticipantId(self.id),
            name: format!("source {}", self.id),
            fingerprint: Fingerprint([self.id as u8; 16]),
            door: Door::Native,
            presence: Presence::Connected,
            muted: Muted::default(),
            native_stream: self.id as u8 + 10,
            tracks: vec![
                view(&self.audio, Origin::Microphone, Codec::Opus24k),
                view(&self.video, Origin::Camera, Codec::H264Baseline),
            ],
        })
    }
}

fn snapshot(sources: &[&Source]) -> Snapshot {
    Snapshot {
        members: sources.iter().map(|source| source.member()).collect(),
        ..Snapshot::default()
    }
}

struct Bench {
    egress: Egress,
    link: Link,
    receiver: NativeReceiver,
    requests: Vec<Request>,
    now: RoomTime,
}

impl Bench {
    fn new(bits_per_second: usize) -> Self {
        let view = View::new(ME, Playable::default(), 0xffff_fff0);
        Self {
            egress: Egress::new(view, Arc::new(Notify::new()), Arc::default(), RoomTime(0)),
            link: Link::new(bits_per_second),
            receiver: NativeReceiver::default(),
            requests: Vec::new(),
            now: RoomTime::from_millis(1000),
        }
    }

    fn ms(&self) -> u64 {
        self.now.as_millis() - 1000
    }

    /// One millisecond: sources act, the egress sends, the link drains.
    fn step(&mut self, act: impl FnOnce(u64, RoomTime)) {
        act(self.ms(), self.now);
        self.egress.pump(&self.link, self.now);
        self.requests.extend(self.egress.requests());
        self.receiver.take(self.link.sent.take(), self.now);
        self.link.pass_ms();
        self.now = self.now.plus(1000);
    }

    /// The source is known not to answer.
    fn hush(&self, source: &Source) {
        let mut room = crate::room::state::Room::new(10);
        let join = crate::room::member::Join {
            name: String::new(),
            fingerprint: Fingerprint([1; 16]),
            door: Door::Native,
            resume: None,
            resumable: false,
        };
        let token = crate::room::member::ResumeToken(1);
        let joined = room.join(join, token, RoomTime(0)).unwrap();
        let tracks = source
            .member()
            .tracks
            .iter()
            .map(|view| (view.info, view.track.clone()))
            .collect();
        room.set_tracks(joined.id, joined.epoch, tracks);
        let track = source.video.track();
        room.request_keyframe(track.id(), self.now, Reason::Loss, self.now);
        for ms in 0..5_000 {
            room.handle_timeout(self.now.plus(ms * 1000));
        }
        assert!(track.is_silent());
    }

    fn keyframes_asked(&self, wanted: Reason) -> usize {
        let asked = |request: &&Request| matches!(request, Request::Keyframe(_, _, reason) if *reason == wanted);
        self.requests.iter().filter(asked).count()
    }
}

/// 50 sounds and 30 pictures a second, a keyframe every second.
fn live(source: &mut Source, ms: u64, voice: bool, now: RoomTime) {
    if ms.is_multiple_of(20) {
        source.sound(voice, now);
    }
    if (ms % 100).is_multiple_of(33) && ms % 100 < 99 {
        let keyframe = ms.is_multiple_of(1000) || std::mem::take(&mut source.keyframe_due);
        source.picture(keyframe, if keyframe { 20_000 } else { 3_000 }, now);
    }
}

#[test]
fn change_of_talker_leaves_no_gap_and_the_picture_follows_at_a_keyframe() {
    let mut bench = Bench::new(50_000_000);
    let (mut one, mut two) = (Source::new(1), Source::new(2));
    bench.egress.set_room(&snapshot(&[&one, &two]));
    while bench.ms() < 8_000 {
        bench.step(|ms, now| {
            live(&mut one, ms, ms < 3_000, now);
            live(&mut two, ms, ms >= 2_000, now);
        });
    }
    let receiver = &bench.receiver;
    receiver.assert_decodable();
    let switch = receiver
        .audio
        .windows(2)
        .position(|pair| pair[0].0 != pair[1].0)
        .unwrap();
    assert_eq!(receiver.audio[0].0, 1);
    // One's last word at 2.98 s, one second of hold.
    assert_eq!(receiver.audio[switch + 1].0, 2);
    assert_eq!(receiver.audio[switch + 1].1 * 20, 3_980);
    assert!(receiver.audio[switch + 1..].iter().all(|sound| sound.0 == 2));
    for pair in receiver.audio.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        assert_eq!(
            (pair[1].1 - pair[0].1, pair[1].2 - pair[0].2),
            (1, 20),
            "the source's own spacing"
        );
    }
    let cut = receiver
        .video
        .windows(2)
        .position(|pair| pair[0].0 != pair[1].0)
        .unwrap();
    assert!(receiver.video[cut + 1].3, "a switch begins with a keyframe");
    assert!(receiver.video[cut + 1..].iter().all(|frame| frame.0 == 2));
    assert_eq!((receiver.stream_ids[0], receiver.stream_ids[cut + 1]), (11, 12));
    assert!(receiver.video.len() > 235, "{} pictures in 8 s", receiver.video.len());
}

#[test]
fn pinned_member_is_shown_whoever_talks_and_the_talker_while_it_has_no_picture() {
    let mut bench = Bench::new(50_000_000);
    let view = View::new(ME, Playable::default(), 0).pin(Some(Fingerprint([2; 16])));
    bench.egress = Egress::new(view, Arc::new(Notify::new()), Arc::default(), bench.now);
    let (mut one, mut two) = (Source::new(1), Source::new(2));
    bench.egress.set_room(&snapshot(&[&one]));
    while bench.ms() < 6_000 {
        if bench.ms() == 3_000 {
            bench.egress.set_room(&snapshot(&[&one, &two]));
        }
        bench.step(|ms, now| {
            live(&mut one, ms, true, now);
            live(&mut two, ms, false, now);
        });
    }
    bench.receiver.assert_decodable();
    assert!(bench.receiver.audio.iter().all(|sound| sound.0 == 1));
    let cut = bench.receiver.video.iter().position(|frame| frame.0 == 2).unwrap();
    assert!((80..100).contains(&cut), "at once after 3 s: {cut}");
    assert!(bench.receiver.video[cut..].iter().all(|frame| frame.0 == 2));
}

#[test]
fn talker_keeps_the_sound_through_short_silences_and_interjections() {
    let mut bench = Bench::new(50_000_000);
    let (mut one, mut two) = (Source::new(1), Source::new(2));
    bench.egress.set_room(&snapshot(&[&one, &two]));
    while bench.ms() < 5_000 {
        bench.step(|ms, now| {
            live(&mut one, ms, ms % 1_500 < 700, now);
            live(&mut two, ms, ms % 1_500 >= 800, now);
        });
    }
    bench.receiver.assert_decodable();
    assert!(bench.receiver.audio.iter().all(|sound| sound.0 == 1));
}

#[test]
fn source_that_vanishes_and_comes_back_goes_on_without_a_gap() {
    let mut bench = Bench::new(50_000_000);
    let mut one = Source::new(1);
    bench.egress.set_room(&snapshot(&[&one]));
    while bench.ms() < 2_010 {
        bench.step(|ms, now| live(&mut one, ms, true, now));
    }
    bench.egress.set_room(&snapshot(&[]));
    while bench.ms() < 4_010 {
        bench.step(|ms, now| live(&mut one, ms, true, now));
    }
    let heard = bench.receiver.audio.len();
    let mut again = Source::new(1);
    bench.egress.set_room(&snapshot(&[&again]));
    while bench.ms() < 6_010 {
        bench.step(|ms, now| live(&mut again, ms, true, now));
    }
    bench.receiver.assert_decodable();
    assert_eq!(heard, 101);
    assert!(bench.receiver.audio.len() > heard + 95);
    assert!(bench.receiver.video.last().is_some_and(|frame| frame.1 > 50));
}

#[test]
fn slow_path_drops_whole_frames_and_sound_goes_on() {
    for bits in [400_000, 500_000, 700_000] {
        let mut bench = Bench::new(bits);
        let mut one = Source::new(1);
        bench.egress.set_room(&snapshot(&[&one]));
        let mut most_queued = 0;
        let mut asked = 0;
        while bench.ms() < 10_000 {
            // The source answers a request, as the keyframe owner would let it: at most every 500 ms.
            let loss = bench.keyframes_asked(Reason::Loss);
            if loss > asked && bench.ms().is_multiple_of(500) {
                asked = loss;
                one.keyframe_due = true;
            }
            bench.step(|ms, now| live(&mut one, ms, true, now));
            most_queued = most_queued.max(*bench.link.queued.borrow());
        }
        let receiver = &bench.receiver;
        receiver.assert_decodable();
        assert_eq!(receiver.audio.len(), 500, "sound at {bits} bit/s");
        let delay_ms = most_queued * 8 * 1000 / bits;
        assert!(delay_ms <= 150, "{delay_ms} ms wait in the queue at {bits} bit/s");
        let shown = receiver.video.len();
        assert!((10..280).contains(&shown), "{shown} of 300 pictures at {bits} bit/s");
        assert!(
            bench
                .requests
                .iter()
                .any(|request| matches!(request, Request::Capacity(_, bits) if *bits < 700_000))
        );
    }
}

impl Bench {
    fn capacities(&self) -> Vec<u32> {
        (self.requests.iter())
            .filter_map(|request| match request {
                Request::Capacity(_, bits) => Some(*bits),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn who_waits_for_a_keyframe_says_nothing_of_his_path() {
    let mut bench = Bench::new(50_000_000);
    let mut one = Source::new(1);
    bench.egress.set_room(&snapshot(&[&one]));
    while bench.ms() < 8_000 {
        bench.step(|ms, now| match ms {
            // Too large to be sent; the next keyframe comes four seconds later.
            2_500 => one.picture(false, 300_000, now),
            _ if ms.is_multiple_of(33) => one.picture(ms == 0 || ms == 6_600, 3_000, now),
            _ => {}
        });
    }
    assert!(
        bench.receiver.video.iter().all(|frame| frame.1 < 80 || frame.1 > 200),
        "it waits"
    );
    let capacities = bench.capacities();
    assert!(
        capacities.len() < 7 && capacities.iter().all(|bits| *bits > 0),
        "{capacities:?}"
    );
}

#[test]
fn path_that_takes_nothing_is_reported() {
    let mut bench = Bench::new(50_000_000);
    let mut one = Source::new(1);
    bench.egress.set_room(&snapshot(&[&one]));
    while bench.ms() < 6_000 {
        if bench.ms() == 2_000 {
            bench.link.bytes_per_ms.set(0);
        }
        bench.step(|ms, now| live(&mut one, ms, true, now));
    }
    assert!(bench.capacities().contains(&0), "{:?}", bench.capacities());
}

#[test]
fn frame_of_more_than_255_fragments_is_reported_and_left_out() {
    let mut bench = Bench::new(50_000_000);
    let mut one = Source::new(1);
    bench.egress.set_room(&snapshot(&[&one]));
    while bench.ms() < 1_200 {
        bench.step(|ms, now| {
            if ms.is_multiple_of(33) {
                one.picture(ms == 0 || ms == 1_155, if ms == 1_155 { 300_000 } else { 4_000 }, now);
            }
        });
    }
    bench.step(|_, now| one.picture(false, 1_000, now));
    bench.step(|_, now| one.picture(true, 100_000, now));
    bench.receiver.assert_decodable();
    let oversize: Vec<_> = (bench.requests.iter())
        .filter_map(|request| match request {
            Request::Oversize(_, bits) => Some(*bits),
            _ => None,
        })
        .collect();
    assert_eq!(oversize.len(), 1);
    assert!((100_000..1_000_000).contains(&oversize[0]), "{oversize:?}");
    assert_eq!(bench.receiver.video.last().map(|frame| frame.3), Some(true));
}

/// What sources are asked for because of pictures that are too large.
fn oversizes(bench: &Bench) -> Vec<u32> {
    (bench.requests.iter())
        .filter_map(|request| match request {
            Request::Oversize(_, bits) => Some(*bits),
            _ => None,
        })
        .collect()
}

#[test]
fn first_picture_of_too_many_fragments_does_not_starve_the_source() {
    let mut bench = Bench::new(50_000_000);
    let mut one = Source::new(1);
    bench.egress.set_room(&snapshot(&[&one]));
    bench.step(|_, now| one.picture(true, 300_000, now));
    assert_eq!(oversizes(&bench), [UNKNOWN_RATE_ASK]);
}

#[test]
fn rate_of_a_source_is_measured_from_when_it_is_shown() {
    let mut bench = Bench::new(50_000_000);
    let (mut one, mut two) = (Source::new(1), Source::new(2));
    bench.egress.set_room(&snapshot(&[&one, &two]));
    // The second has sent 2 Mbit/s for a long time when it is shown, and goes on with it.
    while bench.ms() < 6_000 {
        bench.step(|ms, now| {
            live(&mut one, ms, ms < 2_000, now);
            if ms.is_multiple_of(20) {
                two.sound(ms >= 2_000, now);
            }
            if ms.is_multiple_of(40) {
                let large = ms == 5_600;
                two.picture(ms.is_multiple_of(400), if large { 300_000 } else { 10_000 }, now);
            }
        });
    }
    assert_eq!(bench.receiver.video.last().map(|frame| frame.0), Some(2));
    let asked = oversizes(&bench);
    assert_eq!(asked.len(), 1);
    assert!((1_400_000..1_800_000).contains(&asked[0]), "{asked:?}");
}

#[test]
fn rate_of_the_source_before_says_nothing_of_the_one_after_a_switch() {
    let mut bench = Bench::new(50_000_000);
    let (mut one, mut two) = (Source::new(1), Source::new(2));
    bench.egress.set_room(&snapshot(&[&one, &two]));
    let mut large = false;
    while oversizes(&bench).is_empty() {
        assert!(bench.ms() < 6_000, "no picture was too large");
        // As soon as the second is shown, its next picture is too large.
        let shown = bench.egress.view().shown().map(|track| track.id().source.0);
        bench.step(|ms, now| {
            live(&mut one, ms, ms < 2_000, now);
            live(&mut two, ms, ms >= 2_000, now);
            if shown == Some(2) && !std::mem::replace(&mut large, true) {
                two.picture(true, 300_000, now);
            }
        });
    }
    assert_eq!(oversizes(&bench), [UNKNOWN_RATE_ASK]);
}

#[test]
fn keyframe_larger_than_the_queue_goes_out_in_pieces() {
    let mut bench = Bench::new(4_000_000);
    let mut one = Source::new(1);
    bench.egress.set_room(&snapshot(&[&one]));
    bench.step(|_, now| one.picture(true, 120_000, now));
    assert!(bench.receiver.video.is_empty(), "it cannot have gone at once");
    while bench.ms() < 300 {
        bench.step(|_, _| {});
    }
    assert_eq!(bench.receiver.video.len(), 1);
    bench.receiver.assert_decodable();
}

#[test]
fn torn_keyframe_leaves_no_hole_and_nothing_follows_it_but_a_keyframe() {
    let mut bench = Bench::new(4_000_000);
    let mut one = Source::new(1);
    bench.egress.set_room(&snapshot(&[&one]));
    while bench.ms() < 600 {
        match bench.ms() {
            20 => bench.link.bytes_per_ms.set(0),
            300 => bench.link.bytes_per_ms.set(500),
            _ => {}
        }
        bench.step(|ms, now| {
            if ms.is_multiple_of(33) {
                one.picture(ms == 0 || ms == 297, if ms == 0 { 120_000 } else { 2_000 }, now);
            }
        });
    }
    bench.receiver.assert_decodable();
    let shown: Vec<_> = bench.receiver.video.iter().map(|frame| frame.1).collect();
    assert_eq!(shown, (9..19).collect::<Vec<_>>());
    assert_eq!(bench.receiver.reassembler.pending_frames(), 1, "the torn one");
    assert_eq!(bench.keyframes_asked(Reason::Loss), 1);
    assert_eq!(bench.egress.counters.video_dropped_space.get(), 1);
}

#[test]
fn codec_that_the_app_did_not_offer_is_left_out() {
    let mut one = Source::new(1);
    let mut snapshot = snapshot(&[&one]);
    Arc::make_mut(&mut snapshot.members[0]).tracks[1].info.codec = Codec::Av1Main;
    let mut bench = Bench::new(50_000_000);
    bench.egress.set_room(&snapshot);
    bench.step(|_, now| live(&mut one, 0, true, now));
    assert!(bench.receiver.video.is_empty());
    let view = View::new(ME, Playable::offered(&[Codec::Av1Main]), 0);
    bench.egress = Egress::new(view, Arc::new(Notify::new()), Arc::default(), bench.now);
    bench.egress.set_room(&snapshot);
    bench.step(|_, _| {});
    assert_eq!(bench.receiver.video.len(), 1);
}

#[test]
fn keyframe_request_of_an_app_finds_its_source() {
    let mut bench = Bench::new(50_000_000);
    let (mut one, two) = (Source::new(1), Source::new(2));
    bench.egress.set_room(&snapshot(&[&one, &two]));
    bench.step(|ms, now| live(&mut one, ms, true, now));
    let meant = |stream_id| bench.egress.view().track_of(stream_id).map(|track| track.id().source.0);
    assert_eq!(meant(11), Some(1));
    assert_eq!(meant(12), Some(2));
    assert_eq!(meant(77), Some(1), "falls back to what is shown");
}

mod mixed;
mod replay;

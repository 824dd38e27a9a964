//! What goes out when, with a window that is acknowledged by hand or by a link of a given rate; time is made up.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Buf;
use wzp_proto::codec::Codec;
use wzp_proto::identity::Fingerprint;
use wzp_proto::room_name::RoomName;

use super::*;
use crate::browser::message::{MediaMessage, parse_media};
use crate::browser::window::VIDEO_AGE;
use crate::media::frame::Draft;
use crate::room::keyframes::ByReason;
use crate::room::limits::Limits;
use crate::room::member::{Door, Join, Muted, Origin, Presence, TrackInfo};
use crate::room::registry::{Membership, Registry, RoomLimits};
use crate::room::snapshot::{MemberView, TrackView};
use crate::room::track::{Bounds, TrackWriter};

const SOURCE: ParticipantId = ParticipantId(7);
const CAMERA: TrackRef = TrackRef {
    source: SOURCE,
    kind: Kind::Video,
    slot: 0,
};

/// One viewer, and one source whom the room does not know: requests to it are counted as such.
struct Bench {
    member: Membership,
    egress: Egress,
    window: Window,
    acked: u64,
    sent: u64,
    start: Instant,
    /// ms since `start`; the room's clock is ahead of it by less.
    now: u64,
    sound: TrackWriter,
    picture: TrackWriter,
    codec: Codec,
}

impl Bench {
    async fn new() -> Self {
        let limits = RoomLimits { rooms: 1, members: 2 };
        let join = Join {
            name: String::new(),
            fingerprint: Fingerprint([1; 16]),
            door: Door::Websocket,
            resume: None,
            resumable: false,
        };
        let name = RoomName::parse("general").unwrap();
        let member = Registry::new(limits).join(&name, join).await.unwrap();
        let track = |kind| {
            let id = TrackId {
                source: SOURCE,
                kind,
                slot: 0,
                layer: 0,
            };
            Track::create(id, Bounds::of(kind, Bounds::VIDEO), 0).1
        };
        Self {
            egress: Egress::new(
                member.id(),
                member.room().clone(),
                vec!["opus".to_owned(), "h264".to_owned()],
            ),
            member,
            window: Window::default(),
            acked: 0,
            sent: 0,
            start: Instant::now(),
            now: 10_000,
            sound: track(Kind::Audio),
            picture: track(Kind::Video),
            codec: Codec::H264Baseline,
        }
    }

    fn at(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    fn room_now(&self) -> RoomTime {
        self.member.room().time_at(self.at())
    }

    fn update(&mut self) -> Vec<ToClient> {
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
        let member = MemberView {
            id: SOURCE,
            name: String::new(),
            fingerprint: Fingerprint([7; 16]),
            door: Door::Websocket,
            presence: Presence::Connected,
            muted: Muted::default(),
            native_stream: 1,
            tracks: vec![
                view(&self.sound, Origin::Microphone, Codec::Opus24k),
                view(&self.picture, Origin::Camera, self.codec),
            ],
        };
        let snapshot = Snapshot {
            members: vec![Arc::new(member)],
            ..Snapshot::default()
        };
        self.egress.update(&snapshot, self.at())
    }

    fn draft(&self, codec: Codec, keyframe: bool, size: usize) -> Draft {
        Draft {
            codec,
            keyframe,
            ticks: self.now * 48,
            time: self.room_now(),
            size: None,
            payload: vec![1; size].into(),
        }
    }

    fn sound(&mut self) {
        let draft = self.draft(Codec::Opus24k, true, 80);
        self.sound.append(draft, self.room_now());
    }

    fn picture(&mut self, keyframe: bool, size: usize) {
        let draft = self.draft(self.codec, keyframe, size);
        self.picture.append(draft, self.room_now());
    }

    /// Pictures of 40 ms, the first one a keyframe, until now.
    fn group(&mut self, count: u64) {
        self.now -= (count - 1) * 40;
        for n in 0..count {
            self.picture(n == 0, 1000);
            self.now += if n + 1 < count { 40 } else { 0 };
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        let now = self.at();
        let Out::Message(message) = self.egress.next(&mut self.window, now) else {
            return None;
        };
        self.window.sent(message.len(), now);
        self.sent += 1;
        Some(message)
    }

    /// Kind and number of all that goes out now.
    fn all(&mut self) -> Vec<(Kind, u32)> {
        std::iter::from_fn(|| self.next())
            .map(|message| numbered(&message))
            .collect()
    }

    fn pictures(&mut self) -> Vec<u32> {
        let video = |(kind, seq)| (kind == Kind::Video).then_some(seq);
        self.all().into_iter().filter_map(video).collect()
    }

    fn ack(&mut self) {
        self.acked = self.sent;
        self.window.acked(self.acked, 0, self.at()).unwrap();
    }

    async fn requests(&self) -> ByReason {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        self.member.room().keyframes().suppressed_unknown
    }
}

fn parsed(message: &Bytes) -> MediaMessage<'_> {
    parse_media(message).unwrap().unwrap()
}

fn numbered(message: &Bytes) -> (Kind, u32) {
    let message = parsed(message);
    (message.kind, message.header.seq)
}

#[tokio::test]
async fn sound_goes_between_the_pieces_of_a_keyframe() {
    let mut bench = Bench::new().await;
    bench.update();
    bench.picture(true, 100_000);
    let mut order = Vec::new();
    for at in 0..20 {
        if at == 3 || at == 6 {
            bench.sound();
        }
        order.extend(bench.next().map(|message| parsed(&message).kind));
    }
    let sounds: Vec<_> = order
        .iter()
        .enumerate()
        .filter(|(_, kind)| **kind == Kind::Audio)
        .collect();
    assert_eq!(sounds.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [3, 6]);
    assert!(order.len() > 12, "the keyframe went out around it: {order:?}");
}

#[tokio::test]
async fn pictures_that_waited_too_long_for_acknowledgements_are_left_out_up_to_the_next_keyframe() {
    let mut bench = Bench::new().await;
    bench.update();
    bench.picture(true, 1000);
    assert_eq!(bench.pictures(), [0]);
    // Nothing is acknowledged for more than the allowed age; pictures wait.
    for _ in 0..10 {
        bench.now += 40;
        bench.picture(false, 1000);
        let early = bench.now <= 10_000 + VIDEO_AGE.as_millis() as u64;
        assert_eq!(bench.pictures().is_empty(), !early);
    }
    bench.picture(true, 1000);
    bench.now += 40;
    bench.picture(false, 1000);
    assert!(bench.pictures().is_empty());
    bench.ack();
    assert_eq!(bench.pictures(), [11, 12], "the keyframe and what follows");
    assert_eq!(bench.egress.counters().dropped_frames, 7);
}

#[tokio::test]
async fn who_fell_behind_is_served_from_the_log_when_no_keyframe_comes() {
    let mut bench = Bench::new().await;
    bench.update();
    bench.picture(true, 1000);
    assert_eq!(bench.pictures(), [0]);
    for _ in 0..15 {
        bench.now += 40;
        bench.picture(false, 1000);
    }
    bench.ack();
    assert!(bench.pictures().is_empty(), "too late, and a keyframe may come");
    assert_eq!(
        bench.requests().await,
        ByReason {
            join: 1,
            loss: 1,
            ..ByReason::default()
        }
    );
    assert_eq!(bench.egress.poll_timeout(), Some(bench.room_now().plus(250_000)));
    bench.now += 250;
    assert_eq!(bench.pictures(), (1..16).collect::<Vec<_>>());
    assert_eq!(bench.egress.counters().dropped_frames, 0);
}

#[tokio::test]
async fn oldest_sound_is_left_out() {
    let mut bench = Bench::new().await;
    bench.update();
    bench.sound();
    assert_eq!(bench.all().len(), 1);
    // More than the age that sound may wait for.
    for _ in 0..70 {
        bench.now += 20;
        bench.sound();
    }
    assert!(bench.all().is_empty());
    bench.ack();
    let sounds: Vec<u32> = bench.all().into_iter().map(|(_, seq)| seq).collect();
    assert_eq!(sounds, (55..71).collect::<Vec<_>>(), "300 ms");
    assert_eq!(bench.egress.counters().dropped_frames, 54);
}

#[tokio::test]
async fn paused_picture_is_not_sent_and_resumes_at_its_keyframe() {
    let mut bench = Bench::new().await;
    bench.update();
    bench.group(10);
    assert_eq!(bench.pictures(), (0..10).collect::<Vec<_>>());
    bench.ack();
    bench.egress.pause(vec![CAMERA], bench.at());
    bench.now += 40;
    bench.picture(false, 1000);
    bench.sound();
    assert_eq!(bench.all(), [(Kind::Audio, 0)], "sound goes on");
    bench.egress.pause(Vec::new(), bench.at());
    assert_eq!(bench.pictures(), (0..11).collect::<Vec<_>>());
}

#[tokio::test]
async fn picture_that_is_shown_again_is_a_switch_and_no_old_still_takes_its_place() {
    let mut bench = Bench::new().await;
    bench.group(100);
    bench.update();
    assert_eq!(bench.pictures(), [0], "a newcomer has a still at once");
    assert_eq!(
        bench.requests().await,
        ByReason {
            join: 1,
            ..ByReason::default()
        }
    );
    bench.ack();
    bench.egress.pause(vec![CAMERA], bench.at());
    bench.egress.pause(Vec::new(), bench.at());
    assert!(bench.pictures().is_empty());
    assert_eq!(
        bench.requests().await,
        ByReason {
            join: 1,
            switch: 1,
            ..ByReason::default()
        }
    );
    bench.now += 40;
    bench.picture(true, 1000);
    assert_eq!(bench.pictures(), [100]);
}

/// A client whose tracks go over to WebRTC, with a keyframe of this age, in pictures of 40 ms.
async fn going_over(pictures: u64) -> Bench {
    let mut bench = Bench::new().await;
    bench.group(pictures);
    bench.update();
    assert_eq!(bench.pictures().len() as u64, pictures);
    bench.ack();
    let tracks = [bench.sound.track().id(), bench.picture.track().id()];
    bench.egress.set_elsewhere(tracks.to_vec(), bench.at());
    bench.update();
    bench
}

#[tokio::test]
async fn picture_that_goes_over_to_webrtc_comes_here_too_until_it_is_live_there() {
    // The keyframe is 0.96 s old: 300 ms, and an eighth of that.
    let mut bench = going_over(25).await;
    let mut numbers = Vec::new();
    for _ in 0..15 {
        bench.now += 40;
        bench.picture(false, 1000);
        bench.sound();
        // An update between does not prolong it.
        bench.update();
        let all = bench.all();
        assert!(
            all.iter().all(|(kind, _)| *kind == Kind::Video),
            "sound is not heard twice"
        );
        numbers.extend(all.iter().map(|(_, seq)| *seq));
        bench.ack();
    }
    assert_eq!(numbers, (25..35).collect::<Vec<_>>());
    // Back, it begins at its keyframe.
    bench.egress.set_elsewhere(Vec::new(), bench.at());
    bench.update();
    assert_eq!(bench.pictures(), (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn picture_that_comes_back_while_it_goes_over_goes_on() {
    let mut bench = going_over(25).await;
    bench.now += 40;
    bench.picture(false, 1000);
    assert_eq!(bench.pictures(), [25]);
    bench.egress.set_elsewhere(Vec::new(), bench.at());
    bench.update();
    bench.now += 1000;
    bench.ack();
    bench.picture(false, 1000);
    assert_eq!(bench.pictures(), [26]);
}

#[tokio::test]
async fn client_that_is_served_live_or_has_a_replay_keeps_up_and_no_other() {
    let mut bench = Bench::new().await;
    let track = bench.picture.track().id();
    let keeps_up = |bench: &Bench| bench.egress.keeps_up(track, bench.at());
    assert!(!keeps_up(&bench), "it is not subscribed");
    bench.group(50);
    bench.update();
    assert!(keeps_up(&bench), "it has a replay");
    bench.pictures();
    bench.ack();
    bench.now += 4000;
    bench.picture(true, 1000);
    assert_eq!(bench.pictures().len(), 1);
    assert!(keeps_up(&bench), "it is live");
    // Nothing is acknowledged any more.
    for _ in 0..20 {
        bench.now += 40;
        bench.picture(false, 1000);
        bench.pictures();
    }
    assert!(!keeps_up(&bench), "pictures have waited for too long");
    bench.ack();
    bench.pictures();
    assert!(!keeps_up(&bench), "it waits for a keyframe");
    bench.picture(true, 1000);
    bench.now += 40;
    bench.picture(false, 1000);
    assert_eq!(bench.pictures().len(), 2);
    assert!(keeps_up(&bench), "it is live again");
    bench.egress.pause(vec![CAMERA], bench.at());
    assert!(!keeps_up(&bench), "it does not want it");
}

#[tokio::test]
async fn picture_goes_over_at_once_when_the_path_is_full_or_nothing_is_shown() {
    let mut bench = Bench::new().await;
    bench.update();
    bench.group(2);
    assert_eq!(bench.pictures(), [0, 1]);
    bench.now += VIDEO_AGE.as_millis() as u64 + 200;
    bench.picture(false, 1000);
    assert!(bench.pictures().is_empty(), "nothing is acknowledged");
    let track = bench.picture.track().id();
    bench.egress.set_elsewhere(vec![track], bench.at());
    bench.update();
    bench.ack();
    assert!(bench.pictures().is_empty());

    let mut bench = Bench::new().await;
    bench.update();
    let track = bench.picture.track().id();
    bench.egress.set_elsewhere(vec![track], bench.at());
    bench.update();
    bench.group(2);
    assert!(bench.pictures().is_empty());
}

#[tokio::test]
async fn codec_that_the_client_cannot_play_is_paused_and_said() {
    let mut bench = Bench::new().await;
    bench.codec = Codec::Av1Main;
    let paused = bench.update();
    assert!(
        matches!(
            paused[..],
            [ToClient::VideoPaused {
                source: SOURCE,
                slot: 0,
                reason: PauseReason::Codec
            }]
        ),
        "{paused:?}"
    );
    assert!(bench.update().is_empty(), "once");
    bench.picture(true, 1000);
    bench.sound();
    assert_eq!(bench.all(), [(Kind::Audio, 0)]);
    bench.codec = Codec::H264Baseline;
    bench.now += 40;
    bench.picture(true, 1000);
    let resumed = bench.update();
    assert!(
        matches!(
            resumed[..],
            [ToClient::VideoResumed {
                reason: PauseReason::Codec,
                ..
            }]
        ),
        "{resumed:?}"
    );
    assert_eq!(bench.pictures(), [1]);
}

#[tokio::test]
async fn shut_window_wants_no_wake_up_for_a_wait_that_is_over() {
    let mut bench = Bench::new().await;
    bench.group(100);
    bench.update();
    assert_eq!(bench.pictures(), [0]);
    let until = bench.egress.poll_timeout().expect("the deltas wait");
    // The client acknowledges nothing: whatever time it is, there is nothing to wake up for.
    while bench.room_now() <= until.plus(1_000_000) {
        bench.now += 10;
        assert!(bench.pictures().is_empty());
        if bench.now > 10_000 + VIDEO_AGE.as_millis() as u64 {
            assert_eq!(bench.egress.poll_timeout(), None, "at {} ms", bench.now);
        }
    }
    bench.ack();
    assert_eq!(bench.pictures(), (1..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn first_loss_after_joining_is_asked_for_at_once_and_the_next_are_withheld_and_counted() {
    let mut bench = Bench::new().await;
    bench.update();
    let lose = |bench: &mut Bench| {
        bench.picture(true, 1000);
        assert_eq!(bench.pictures().len(), 1);
        // What follows waits for longer than it may.
        for _ in 0..10 {
            bench.now += 40;
            bench.picture(false, 1000);
        }
        bench.ack();
        assert!(bench.pictures().is_empty());
    };
    lose(&mut bench);
    assert_eq!(
        bench.requests().await,
        ByReason {
            join: 1,
            loss: 1,
            ..ByReason::default()
        }
    );
    lose(&mut bench);
    assert_eq!(bench.requests().await.loss, 1);
    assert_eq!(bench.member.room().keyframes().suppressed_receiver.loss, 1);
    bench.now += 2_000;
    bench.pictures();
    lose(&mut bench);
    assert_eq!(bench.requests().await.loss, 2);
}

/// A link that carries so many bytes per ms, and a client that acknowledges 20 ms after it received.
struct Link {
    bytes_per_ms: f64,
    queue: VecDeque<f64>,
    received: VecDeque<u64>,
}

#[tokio::test]
async fn capacity_follows_a_link_that_is_halved_and_is_back_two_seconds_after_it_is_whole() {
    const FULL: u32 = 1_000_000;
    for phase in [0, 300, 700] {
        let mut bench = Bench::new().await;
        bench.update();
        let mut limits = Limits::default();
        let mut rate = FULL;
        let mut link = Link {
            bytes_per_ms: f64::from(8 * FULL) / 8000.0,
            queue: VecDeque::new(),
            received: VecDeque::new(),
        };
        let begin = bench.now;
        let (half, whole) = (begin + 5_000 + phase, begin + 65_000 + phase);
        let mut sent = 0;
        let mut back = None;
        let mut lowest = FULL;
        for frame in 0.. {
            // 25 pictures a second, a keyframe every second.
            let keyframe = frame % 25 == 0;
            let size = rate / 8 / 28 * if keyframe { 4 } else { 1 };
            if frame % 125 == 0 {
                let queued: f64 = link.queue.iter().sum();
                let (ping, sent_at) = (bench.window.pinged(bench.at()), bench.at());
                let took = Duration::from_micros((queued / link.bytes_per_ms * 1000.0) as u64 + 20_000);
                bench.window.ponged(ping, sent_at + took);
            }
            bench.picture(keyframe, size as usize);
            for _ in 0..40 {
                bench.now += 1;
                link.bytes_per_ms = match bench.now {
                    now if now < half || now >= whole => f64::from(8 * FULL) / 8000.0,
                    _ => f64::from(FULL / 2) / 8000.0,
                };
                let mut credit = link.bytes_per_ms;
                while let Some(left) = link.queue.front_mut() {
                    let taken = credit.min(*left);
                    *left -= taken;
                    credit -= taken;
                    if *left > 0.0 {
                        break;
                    }
                    link.queue.pop_front();
                    link.received.push_back(bench.now + 20);
                }
                while link.received.front().is_some_and(|at| *at <= bench.now) {
                    link.received.pop_front();
                    bench.acked += 1;
                    bench.window.acked(bench.acked, 0, bench.at()).unwrap();
                }
                while let Some(message) = bench.next() {
                    sent += message.len();
                    link.queue.push_back(message.len() as f64);
                }
                let (now, room_now) = (bench.at(), bench.room_now());
                for (_, bits) in bench.egress.judge_capacity(&mut bench.window, now) {
                    limits.report(ParticipantId(1), bits, room_now);
                }
                if let Some(told) = limits.weigh(1, 1, room_now) {
                    rate = told.max_bitrate.min(FULL);
                }
            }
            if (half + 5_000..whole).contains(&bench.now) {
                lowest = lowest.min(rate);
            }
            if bench.now >= whole && rate >= FULL / 10 * 9 && back.is_none() {
                back = Some(bench.now - whole);
            }
            if bench.now >= whole + 3_000 {
                break;
            }
        }
        assert!(lowest >= FULL / 4, "the half that it has is used: {lowest} bit/s");
        let back = back.expect("it is let up again");
        assert!(back <= 2_000, "full rate after {back} ms");
        // Full for five seconds and for the last one at least, and most of the half in between.
        let least = 6 * FULL / 9 + 60 * FULL / 2 * 6 / 10 / 8;
        assert!(sent > least as usize, "{sent} bytes, {least} at least");
    }
}

#[tokio::test]
async fn window_that_is_shut_for_a_moment_narrows_nothing() {
    let mut bench = Bench::new().await;
    bench.update();
    let mut told = Vec::new();
    for frame in 0..250 {
        bench.picture(frame % 25 == 0, 3000);
        for ms in 0..40 {
            bench.now += 1;
            bench.all();
            // A hiccup of 180 ms every two seconds: the window is shut for 60 of them.
            if (frame % 50) * 40 + ms >= 180 {
                bench.ack();
            }
            let now = bench.at();
            let bits = bench.egress.judge_capacity(&mut bench.window, now);
            told.extend(bits.into_iter().map(|(_, bits)| bits));
        }
    }
    assert!(told.len() > 15);
    assert!(told.iter().all(|bits| *bits == u32::MAX), "{told:?}");
}

impl Bench {
    /// All that goes out now as the session sends it: each entry is one message, and holds the numbers of those in it.
    fn bundles(&mut self) -> Vec<Vec<(Kind, u32)>> {
        let mut out = Vec::new();
        loop {
            let now = self.at();
            let Out::Message(message) = self.egress.next_bundle(&mut self.window, now) else {
                return out;
            };
            self.window.sent(message.len(), now);
            self.sent += 1;
            out.push(match message[0] {
                MESSAGE_BUNDLE => {
                    assert!(message.len() <= BUNDLE);
                    unbundled(message.slice(1..))
                }
                _ => vec![numbered(&message)],
            });
        }
    }
}

fn unbundled(mut rest: Bytes) -> Vec<(Kind, u32)> {
    let mut out = Vec::new();
    while !rest.is_empty() {
        let len = usize::from(rest.get_u16());
        out.push(numbered(&rest.split_to(len)));
    }
    out
}

#[tokio::test]
async fn replay_goes_out_in_bundles_to_who_takes_them_and_what_is_live_does_not() {
    let mut bench = Bench::new().await;
    bench.egress = bench.egress.bundling(true);
    bench.group(50);
    bench.update();
    bench.sound();
    let replay = bench.bundles();
    assert!(replay.len() < 10, "{replay:?}");
    let pictures = (0..50).map(|seq| (Kind::Video, seq));
    let sent: Vec<_> = replay.concat();
    assert_eq!(sent[0].0, Kind::Audio);
    assert_eq!(sent[1..], pictures.collect::<Vec<_>>());
    bench.ack();
    bench.now += 40;
    bench.sound();
    bench.picture(false, 10_000);
    assert_eq!(bench.bundles().len(), 6, "sound, and five pieces of a picture");
}

#[tokio::test]
async fn who_does_not_ask_for_bundles_has_none() {
    let mut bench = Bench::new().await;
    bench.group(50);
    bench.update();
    let replay = bench.bundles();
    assert!(replay.len() == 50 && replay.iter().all(|messages| messages.len() == 1));
}

#[tokio::test]
async fn nothing_is_bundled_on_a_slow_path() {
    let mut bench = Bench::new().await;
    bench.egress = bench.egress.bundling(true);
    bench.update();
    bench.picture(true, 1000);
    assert_eq!(bench.bundles().len(), 1);
    bench.now += 100;
    bench.ack();
    bench.group(50);
    bench.egress.pause(vec![CAMERA], bench.at());
    bench.egress.pause(Vec::new(), bench.at());
    let replay = bench.bundles();
    assert!(replay.iter().all(|messages| messages.len() == 1), "{replay:?}");
    assert!(replay.len() > 10);
}

#[tokio::test]
async fn message_that_does_not_fit_into_a_bundle_is_the_next() {
    let mut bench = Bench::new().await;
    bench.egress = bench.egress.bundling(true);
    let largest = 255 * 2048 + 1;
    // Pieces of 8 KiB, which are too large for any bundle.
    bench.picture(true, largest);
    bench.now += 1000;
    bench.picture(false, 1000);
    bench.update();
    let replay = bench.bundles();
    let pieces = Frame::message_count(Kind::Video, largest);
    assert_eq!(
        replay.concat(),
        (0..=pieces).map(|seq| (Kind::Video, seq)).collect::<Vec<_>>()
    );
    assert!(replay[..pieces as usize - 1].iter().all(|messages| messages.len() == 1));
}

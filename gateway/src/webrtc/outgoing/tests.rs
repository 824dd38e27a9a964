//! Repairs, switches of source and the timestamps of a replay, on one leg.

use bytes::Bytes;
use wzp_proto::identity::Fingerprint;
use wzp_proto::room_name::RoomName;

use super::*;
use crate::media::frame::{Draft, ParticipantId};
use crate::room::keyframes::ByReason;
use crate::room::member::{Door, Join};
use crate::room::registry::RoomHandle;
use crate::room::registry::{Membership, Registry, RoomLimits};
use crate::room::track::{Bounds, TrackWriter};

fn leg(now: Instant) -> Outgoing {
    let line = Line {
        mid: Mid::new("0").unwrap(),
        kind: Kind::Video,
        pair: 0,
        codecs: vec![Codec::H264],
    };
    let mut leg = Outgoing::new(line, 0);
    for seq in 0..300 {
        let packet = OutgoingRtp {
            codec: Codec::H264,
            seq,
            timestamp: 0,
            marker: false,
            payload: Bytes::from_static(&[0x65]),
        };
        leg.history.push(now, seq, 1, packet);
    }
    leg
}

fn copies(leg: &mut Outgoing, now: Instant) -> Vec<u16> {
    std::iter::from_fn(|| leg.second_copy(now))
        .map(|packet| packet.seq)
        .collect()
}

#[test]
fn a_repair_over_a_lossy_path_comes_twice_a_moment_apart() {
    let now = Instant::now();
    let mut leg = leg(now);
    leg.set_loss(13);
    assert_eq!(leg.repeat(&[4, 5, 900], now).len(), 2);
    assert!(leg.holds_copies());
    assert!(copies(&mut leg, now).is_empty());
    assert_eq!(copies(&mut leg, now + SECOND_COPY), [4, 5]);
    assert!(!leg.holds_copies());
}

#[test]
fn a_repair_comes_once_over_a_clean_path_and_over_a_full_one() {
    let now = Instant::now();
    for loss in [0, 2, 39, 255] {
        let mut leg = leg(now);
        leg.set_loss(loss);
        assert_eq!(leg.repeat(&[4], now).len(), 1);
        assert!(!leg.holds_copies(), "loss of {loss}/256");
    }
}

#[test]
fn loss_that_lasts_is_in_two_reports_one_after_the_other() {
    let mut leg = leg(Instant::now());
    let lasting = [200, 0, 60, 90, 40, 0].map(|loss| {
        leg.set_loss(loss);
        leg.lost()
    });
    assert_eq!(lasting, [0, 0, 0, 60, 40, 0]);
}

#[test]
fn copies_that_wait_are_bounded() {
    let now = Instant::now();
    let mut leg = leg(now);
    leg.set_loss(13);
    let seqs: Vec<u16> = (0..300).collect();
    assert_eq!(leg.repeat(&seqs, now).len(), 300);
    assert_eq!(copies(&mut leg, now + SECOND_COPY).len(), MAX_COPIES);
}

/// A track of pictures, in a room that does not know it.
struct Source {
    writer: TrackWriter,
    count: u64,
}

impl Source {
    fn new(source: u32) -> Self {
        let id = TrackId {
            source: ParticipantId(source),
            kind: Kind::Video,
            slot: 0,
            layer: 0,
        };
        let (_, writer) = Track::create(id, Bounds::VIDEO, 0);
        Self { writer, count: 0 }
    }

    fn picture(&mut self, keyframe: bool, time: RoomTime) {
        let nal: &[u8] = if keyframe {
            &[0, 0, 0, 1, 0x65, 1, 2]
        } else {
            &[0, 0, 0, 1, 0x41, 1, 2]
        };
        let draft = Draft {
            codec: wzp_proto::codec::Codec::H264Baseline,
            keyframe,
            ticks: time.0 * 9 / 100,
            time,
            size: None,
            payload: Bytes::from_static(nal),
        };
        self.writer.append(draft, time);
        self.count += 1;
    }

    /// A keyframe that is four seconds old at `now`, and deltas since.
    fn stale(&mut self, now: RoomTime) {
        for n in 0..=100u64 {
            self.picture(n == 0, RoomTime(now.0 + n * 40_000 - 4_000_000));
        }
    }
}

async fn member() -> Membership {
    let limits = RoomLimits { rooms: 1, members: 2 };
    let join = Join {
        name: String::new(),
        fingerprint: Fingerprint([1; 16]),
        door: Door::Webrtc,
        resume: None,
        resumable: false,
    };
    let name = RoomName::parse("general").unwrap();
    Registry::new(limits).join(&name, join).await.unwrap()
}

fn video_leg() -> Outgoing {
    let line = Line {
        mid: Mid::new("0").unwrap(),
        kind: Kind::Video,
        pair: 0,
        codecs: vec![Codec::H264],
    };
    Outgoing::new(line, 0)
}

/// Timestamps of the frames that go out now.
fn fed(leg: &mut Outgoing, room: &impl Upstream, now: Instant, room_now: RoomTime) -> Vec<u32> {
    let mut timestamps = Vec::new();
    let replays = &mut Paced::default();
    leg.feed(room, replays, (now, room_now), |_, packet| {
        timestamps.push(packet.timestamp)
    });
    timestamps.dedup();
    timestamps
}

/// Requests for tracks that the room does not know.
async fn requests(room: &RoomHandle) -> ByReason {
    let mut before = ByReason::default();
    loop {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let now = room.keyframes().suppressed_unknown;
        if now == before {
            return now;
        }
        before = now;
    }
}

/// A room's clock that stands.
struct At(RoomTime);

impl Upstream for At {
    fn now(&self) -> RoomTime {
        self.0
    }

    fn time_at(&self, _: Instant) -> RoomTime {
        self.0
    }

    fn request_keyframe(&self, _: TrackId, _: RoomTime, _: Reason) {}

    fn withhold_keyframe(&self, _: Reason) {}
}

#[test]
fn fresh_picture_after_a_still_is_not_held_back_by_its_time() {
    let (now, room_now) = (Instant::now(), RoomTime(20_000_000));
    let mut source = Source::new(1);
    source.stale(room_now);
    let mut leg = video_leg();
    leg.assign(Some(&source.writer.track().clone()), &Arc::default(), &At(room_now));
    let still = fed(&mut leg, &At(room_now), now, room_now);
    assert_eq!(still.len(), 1, "the cached keyframe");
    let later = Duration::from_millis(100);
    let room_later = room_now.plus(100_000);
    source.picture(true, room_later);
    let fresh = fed(&mut leg, &At(room_later), now + later, room_later);
    assert_eq!(
        fresh,
        [still[0].wrapping_add(9_000)],
        "as much later as it is for the viewer"
    );
    // From there on in the source's own spacing.
    source.picture(false, room_later.plus(40_000));
    let next = fed(&mut leg, &At(room_later), now + later, room_later.plus(1_000));
    assert_eq!(next, [fresh[0].wrapping_add(3_600)]);
}

#[test]
fn replay_has_times_as_if_it_came_in_time_and_the_report_those_of_its_source() {
    let (now, room_now) = (Instant::now(), RoomTime(20_000_000));
    let mut source = Source::new(1);
    source.stale(room_now);
    let mut leg = video_leg();
    leg.assign(Some(&source.writer.track().clone()), &Arc::default(), &At(room_now));
    let still = fed(&mut leg, &At(room_now), now, room_now);
    // No fresh keyframe came.
    let (later, room_later) = (now + Duration::from_millis(250), room_now.plus(250_000));
    let replay = fed(&mut leg, &At(room_later), later, room_later);
    assert_eq!((still.len(), replay.len()), (1, 100));
    // 250 ms less the 40 ms that a live frame may be old.
    assert_eq!(replay[0], still[0] + 210 * 90);
    assert!(
        replay.windows(2).all(|pair| (22..=23).contains(&(pair[1] - pair[0]))),
        "{replay:?}"
    );
    let report = leg.report(room_later).unwrap();
    assert_eq!(report.rtp, still[0] + 250 * 90, "what a picture of now would have");
    source.picture(false, room_later.plus(100_000));
    let live = fed(&mut leg, &At(room_later), later, room_later.plus(100_000));
    assert_eq!(live, [still[0] + 350 * 90]);
}

/// A leg that waits for the next keyframe of a source whose last one is old.
fn waiting(source: &mut Source, at: RoomTime) -> Outgoing {
    source.stale(at);
    let mut leg = video_leg();
    leg.assign_or_wait(Some(&source.writer.track().clone()), &Arc::default(), &At(at));
    leg
}

#[test]
fn long_replay_waits_for_the_next_keyframe_where_the_viewer_has_another_way() {
    let (now, at) = (Instant::now(), RoomTime(20_000_000));
    let mut source = Source::new(1);
    let mut leg = waiting(&mut source, at);
    let track = source.writer.track().id();
    source.picture(false, at.plus(40_000));
    assert!(fed(&mut leg, &At(at), now, at.plus(1_000_000)).is_empty());
    assert_eq!((carried(&leg), assigned(&leg)), (None, Some(track)));
    source.picture(true, at.plus(80_000));
    source.picture(false, at.plus(120_000));
    let frames = fed(&mut leg, &At(at), now, at.plus(120_000));
    assert_eq!(frames.len(), 2, "the fresh one and what follows");
    assert_eq!(carried(&leg), Some(track));
}

#[test]
fn replay_that_waits_begins_when_told_to_as_long_as_there_is_one() {
    let (now, at) = (Instant::now(), RoomTime(20_000_000));
    let (mut told, mut patient) = (Source::new(1), Source::new(2));
    let mut leg = waiting(&mut told, at);
    leg.begin(&At(at));
    assert!(!leg.is_waiting());
    assert_eq!(fed(&mut leg, &At(at), now, at).len(), 1, "the cached keyframe, as ever");
    // Past the hard bound there is nothing that could be sent.
    let mut leg = waiting(&mut patient, at);
    for n in 1..=300u64 {
        patient.picture(false, at.plus(n * 40_000));
    }
    let late = at.plus(12_000_000);
    assert!(fed(&mut leg, &At(late), now, late).is_empty());
    leg.begin(&At(late));
    assert!(leg.is_waiting(), "the viewer keeps what it has");
    assert_eq!(carried(&leg), None);
    patient.picture(true, late.plus(40_000));
    assert_eq!(fed(&mut leg, &At(late), now, late.plus(40_000)).len(), 1);
}

#[tokio::test]
async fn short_replay_does_not_wait_and_a_long_one_asks_for_a_keyframe() {
    let member = member().await;
    let (now, at) = (Instant::now(), RoomTime(20_000_000));
    let mut source = Source::new(1);
    source.picture(true, at);
    let mut leg = video_leg();
    leg.assign_or_wait(Some(&source.writer.track().clone()), &Arc::default(), member.room());
    assert_eq!(fed(&mut leg, member.room(), now, at).len(), 1);
    let mut source = Source::new(2);
    source.stale(at);
    let mut leg = video_leg();
    leg.assign_or_wait(Some(&source.writer.track().clone()), &Arc::default(), member.room());
    let join = ByReason {
        join: 1,
        ..ByReason::default()
    };
    assert_eq!(requests(member.room()).await, join);
}

#[tokio::test]
async fn line_that_changes_its_source_or_resumes_shows_no_old_still() {
    let member = member().await;
    let room = member.room();
    let (now, room_now) = (Instant::now(), RoomTime(20_000_000));
    let (mut one, mut two) = (Source::new(1), Source::new(2));
    one.picture(true, room_now);
    two.stale(room_now);
    let mut leg = video_leg();
    leg.assign(Some(&one.writer.track().clone()), &Arc::default(), room);
    assert_eq!(fed(&mut leg, room, now, room_now).len(), 1);
    leg.assign(Some(&two.writer.track().clone()), &Arc::default(), room);
    assert!(
        fed(&mut leg, room, now, room.now()).is_empty(),
        "the picture of one stands"
    );
    assert_eq!(
        requests(room).await,
        ByReason {
            switch: 1,
            ..ByReason::default()
        }
    );
    leg.set_paused(true, room);
    let before = room.now();
    leg.set_paused(false, room);
    assert!(fed(&mut leg, room, now, before).is_empty());
    assert_eq!(
        requests(room).await,
        ByReason {
            switch: 2,
            ..ByReason::default()
        }
    );
    let all = fed(&mut leg, room, now, room.now().plus(250_000));
    assert_eq!(all.len(), 101);
}

#[tokio::test]
async fn viewer_that_fell_behind_is_served_from_the_log() {
    let member = member().await;
    let room = member.room();
    let (now, room_now) = (Instant::now(), RoomTime(20_000_000));
    let mut source = Source::new(1);
    source.picture(true, room_now);
    let mut leg = video_leg();
    leg.assign(Some(&source.writer.track().clone()), &Arc::default(), room);
    assert_eq!(fed(&mut leg, room, now, room_now).len(), 1);
    for n in 1..=25u64 {
        source.picture(false, room_now.plus(n * 40_000));
    }
    let later = room_now.plus(1_000_000);
    let mut written = 0;
    let waits = leg.feed(room, &mut Paced::default(), (now, later), |_, _| written += 1);
    assert_eq!((waits, written), (Fed::Paced, 0), "it wants to be called again");
    assert_eq!(
        requests(room).await,
        ByReason {
            loss: 1,
            ..ByReason::default()
        }
    );
    assert_eq!(fed(&mut leg, room, now, later.plus(250_000)).len(), 25);
}

#[tokio::test]
async fn replays_of_one_viewer_share_a_budget_and_what_is_live_does_not_wait_for_it() {
    let member = member().await;
    let room = member.room();
    let (now, room_now) = (Instant::now(), RoomTime(20_000_000));
    let mut replays = Paced::default();
    let mut source = Source::new(1);
    source.picture(true, room_now);
    source.picture(false, room_now.plus(40_000));
    let mut leg = video_leg();
    leg.assign(Some(&source.writer.track().clone()), &Arc::default(), room);
    let mut feed = |replays: &mut Paced, now: Instant, room_now: RoomTime| {
        let mut written = 0;
        let fed = leg.feed(room, replays, (now, room_now), |_, _| written += 1);
        (fed, written)
    };
    // Other legs have used it up: three times what a burst holds, which takes 42 ms to come back.
    assert!(replays.may_send(false, now));
    replays.sent(3 * 131_250);
    assert_eq!(feed(&mut replays, now, room_now.plus(41_000)), (Fed::Paced, 0));
    let later = now + Duration::from_millis(50);
    assert_eq!(feed(&mut replays, later, room_now.plus(41_000)), (Fed::All, 2));
    replays.sent(1 << 20);
    source.picture(false, room_now.plus(80_000));
    assert_eq!(feed(&mut replays, later, room_now.plus(81_000)), (Fed::All, 1));
}

#[tokio::test]
async fn history_holds_as_much_as_a_replay_may_be() {
    let member = member().await;
    let now = Instant::now();
    let mut leg = video_leg();
    let packet = |seq| OutgoingRtp {
        codec: Codec::H264,
        seq,
        timestamp: 0,
        marker: false,
        payload: Bytes::from_static(&[0x65; 1000]),
    };
    let source = Source::new(1);
    leg.assign(Some(&source.writer.track().clone()), &Arc::default(), member.room());
    let packets = Bounds::VIDEO.hard_bytes / 1000;
    for seq in 0..packets as u16 {
        leg.history.push(now, seq, 1000, packet(seq));
    }
    assert_eq!(leg.repeat(&[0], now).len(), 1);
}

#[tokio::test]
async fn idle_leg_holds_nothing_for_repairs() {
    let member = member().await;
    let now = Instant::now();
    let mut leg = leg(now);
    leg.set_loss(13);
    assert_eq!(leg.repeat(&[4], now).len(), 1);
    assert!(leg.held_bytes() > 0 && leg.holds_copies());
    leg.assign(None, &Arc::default(), member.room());
    assert_eq!(leg.held_bytes(), 0);
    assert!(!leg.holds_copies() && leg.repeat(&[4], now).is_empty());
}

#[tokio::test]
async fn report_names_one_moment_on_both_clocks_however_long_there_was_no_frame() {
    let member = member().await;
    let room = member.room();
    let start = RoomTime(20_000_000);
    let mut source = Source::new(1);
    source.picture(true, start);
    let mut leg = video_leg();
    leg.assign(Some(&source.writer.track().clone()), &Arc::default(), room);
    let first = fed(&mut leg, room, Instant::now(), start)[0];
    // A frame that is a little ahead of the room's clock, too.
    for us in [-500_000i64, 0, 1_000_000, 9_000_000, 30_000_000, 3_600_000_000] {
        let report = leg.report(RoomTime(start.0.saturating_add_signed(us))).unwrap();
        let ticks = u64::from(report.rtp.wrapping_sub(first));
        let seconds = (report.ntp >> 32) - NTP_OFFSET;
        let us = seconds * 1_000_000 + (((report.ntp & 0xffff_ffff) * 1_000_000) >> 32);
        assert!((us - start.0).abs_diff(ticks * 100 / 9) <= 20, "{us} µs, {ticks} ticks");
    }
}

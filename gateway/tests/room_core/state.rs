//! The room's state machine, one test per transition.

use std::sync::Arc;

use wzp_gateway::media::frame::{Kind, ParticipantId, RoomTime, TrackId};
use wzp_gateway::room::keyframes::Reason;
use wzp_gateway::room::limits::{CAPACITY_AGE, OVERSIZE_AGE};
use wzp_gateway::room::member::{
    Control, Door, Join, JoinError, LeaveReason, LimitReason, Muted, Origin, Presence, ResumeToken, TrackInfo,
};
use wzp_gateway::room::state::{Effect, Joined, RESUME_GRACE, Room};
use wzp_gateway::room::track::{Bounds, Track};
use wzp_gateway::room::uplink::{UplinkState, UplinkStatus};
use wzp_proto::codec::Codec;
use wzp_proto::identity::Fingerprint;

use crate::support::{Source, audio_id, ms, video_id};

pub fn person(number: u32) -> Join {
    Join {
        name: format!("person {number}"),
        fingerprint: Fingerprint::of(&number.to_be_bytes()),
        door: Door::Websocket,
        resume: None,
        resumable: true,
    }
}

fn token(number: u32) -> ResumeToken {
    ResumeToken(u128::from(number))
}

/// A room with `count` people, numbered from 1.
pub fn room_with(count: u32) -> (Room, Vec<Joined>) {
    let mut room = Room::new(1000);
    let joined = (1..=count)
        .map(|number| room.join(person(number), token(number), ms(0)).expect("there is place"))
        .collect();
    effects(&mut room);
    (room, joined)
}

fn info(track: TrackId) -> TrackInfo {
    TrackInfo {
        kind: track.kind,
        slot: track.slot,
        layer: track.layer,
        origin: Origin::Camera,
        codec: Codec::H264Baseline,
        size: None,
    }
}

pub fn publish(room: &mut Room, joined: Joined, tracks: &[&Arc<Track>]) {
    let tracks = tracks
        .iter()
        .map(|track| (info(track.id()), (*track).clone()))
        .collect();
    room.set_tracks(joined.id, joined.epoch, tracks);
}

fn effects(room: &mut Room) -> Vec<Effect> {
    std::iter::from_fn(|| room.poll_effect()).collect()
}

/// What members are told, without the changes of the snapshot.
pub fn told(room: &mut Room) -> Vec<(u32, Control)> {
    let told = effects(room).into_iter().filter_map(|effect| match effect {
        Effect::Tell(id, control) => Some((id.0, control)),
        Effect::Changed => None,
    });
    told.collect()
}

/// Runs the room's timers as its task would, up to a moment.
pub fn run_until(room: &mut Room, until: RoomTime) {
    for _ in 0..10_000 {
        match room.poll_timeout() {
            Some(at) if at <= until => room.handle_timeout(at),
            _ => return,
        }
    }
    panic!("the room's timers do not come to rest");
}

pub const KEYFRAME: Control = Control::Keyframe { slot: 0, layer: 0 };

fn limit(max_bitrate: u32) -> Control {
    Control::Limit {
        slot: 0,
        max_bitrate,
        max_side: None,
        reason: LimitReason::Viewers,
    }
}

#[test]
fn members_have_rising_ids_and_stream_ids_of_their_own() {
    let (mut room, joined) = room_with(250);
    let snapshot = room.snapshot();
    let mut streams: Vec<_> = snapshot.members.iter().map(|member| member.native_stream).collect();
    streams.sort_unstable();
    assert_eq!(streams, (1..=250).collect::<Vec<u8>>());
    assert!(joined.windows(2).all(|pair| pair[0].id < pair[1].id));
    // One leaves: its stream id is the only one that is free.
    let gone = snapshot.members[77].native_stream;
    room.leave(joined[77].id, joined[77].epoch, LeaveReason::Left, ms(1));
    let new = room.join(person(1000), token(1000), ms(2)).expect("there is place");
    let member = room.snapshot().member(new.id).cloned().expect("it is in the room");
    assert_eq!(member.native_stream, gone);
    assert_eq!(new.id, ParticipantId(251), "ids are not used again");
}

#[test]
fn stream_id_of_one_who_left_is_not_the_next_ones() {
    let (mut room, joined) = room_with(3);
    room.leave(joined[2].id, joined[2].epoch, LeaveReason::Left, ms(1));
    let new = room.join(person(9), token(9), ms(2)).expect("there is place");
    let stream = room.snapshot().member(new.id).map(|member| member.native_stream);
    assert_eq!(
        stream,
        Some(4),
        "a native may still have the old one's picture in its decoder"
    );
}

#[test]
fn full_room_refuses_and_says_how_many_are_in_it() {
    let mut room = Room::new(2);
    room.join(person(1), token(1), ms(0)).expect("there is place");
    room.join(person(2), token(2), ms(0)).expect("there is place");
    assert_eq!(
        room.join(person(3), token(3), ms(0)),
        Err(JoinError::RoomFull { members: 2 })
    );
    assert_eq!(room.len(), 2);
    assert!(
        room.join(person(2), token(4), ms(0)).is_ok(),
        "one who is in it already has a place"
    );
}

#[test]
fn lost_member_is_shown_as_reconnecting_without_tracks_and_resumes_as_itself() {
    let (mut room, joined) = room_with(2);
    let source = Source::video();
    publish(&mut room, joined[0], &[&source.track]);
    room.lost(joined[0].id, joined[0].epoch, ms(1000));
    let view = room.snapshot().members[0].clone();
    assert_eq!(view.presence, Presence::Reconnecting);
    assert!(view.tracks.is_empty());

    let back = Join {
        resume: Some(token(1)),
        ..person(1)
    };
    effects(&mut room);
    let resumed = room.join(back, token(77), ms(10_999)).expect("within the grace time");
    assert!(resumed.resumed);
    assert_eq!(resumed.id, joined[0].id);
    assert_ne!(resumed.epoch, joined[0].epoch);
    assert_eq!(told(&mut room), [], "the old connection is gone already");
    assert_eq!(room.snapshot().members[0].presence, Presence::Connected);
    run_until(&mut room, ms(60_000));
    assert_eq!(room.len(), 2, "the grace time is over for nobody");
}

#[test]
fn member_that_stays_lost_is_gone_after_the_grace_time() {
    let (mut room, joined) = room_with(2);
    room.lost(joined[0].id, joined[0].epoch, ms(1000));
    assert_eq!(room.poll_timeout(), Some(ms(1000).plus(RESUME_GRACE)));
    room.handle_timeout(ms(10_999));
    assert_eq!(room.len(), 2);
    room.handle_timeout(ms(11_000));
    assert_eq!(room.len(), 1);
    assert_eq!(room.snapshot().departed, [(joined[0].id, LeaveReason::Lost)]);
    let late = Join {
        resume: Some(token(1)),
        ..person(1)
    };
    let new = room.join(late, token(9), ms(11_001)).expect("there is place");
    assert!(!new.resumed);
    assert_ne!(new.id, joined[0].id);
}

#[test]
fn connection_that_breaks_again_before_it_learnt_anything_can_be_resumed() {
    let (mut room, joined) = room_with(1);
    room.lost(joined[0].id, joined[0].epoch, ms(0));
    for attempt in 1..4 {
        let back = Join {
            resume: Some(token(1)),
            ..person(1)
        };
        let resumed = room.join(back, token(100 + attempt), ms(0)).expect("there is place");
        assert!(resumed.resumed, "attempt {attempt}");
        assert_eq!(resumed.token, token(1));
        room.lost(resumed.id, resumed.epoch, ms(0));
    }
}

#[test]
fn resumption_needs_the_token_and_the_identity() {
    for (resume, number) in [(token(2), 1), (token(99), 1), (token(1), 5)] {
        let (mut room, joined) = room_with(2);
        room.lost(joined[0].id, joined[0].epoch, ms(0));
        let join = Join {
            resume: Some(resume),
            ..person(number)
        };
        let new = room.join(join, token(9), ms(0)).expect("there is place");
        assert!(!new.resumed);
        assert_eq!(new.id, ParticipantId(3));
    }
}

#[test]
fn one_who_cannot_resume_is_gone_at_once() {
    let mut room = Room::new(10);
    let join = Join {
        resumable: false,
        ..person(1)
    };
    let joined = room.join(join, token(1), ms(0)).expect("there is place");
    room.lost(joined.id, joined.epoch, ms(5));
    assert!(room.is_empty());
    assert_eq!(room.poll_timeout(), None);
}

#[test]
fn resumption_takes_over_from_a_connection_that_still_stands() {
    let (mut room, joined) = room_with(1);
    let back = Join {
        resume: Some(token(1)),
        ..person(1)
    };
    let resumed = room.join(back, token(2), ms(10)).expect("there is place");
    assert_eq!(resumed.id, joined[0].id);
    assert_eq!(told(&mut room), [(1, Control::Ended(LeaveReason::Replaced))]);
}

#[test]
fn same_identity_replaces_its_older_self_and_tells_it() {
    let (mut room, joined) = room_with(2);
    let new = room.join(person(1), token(3), ms(10)).expect("there is place");
    assert!(!new.resumed);
    assert_eq!(new.id, ParticipantId(3));
    assert_eq!(told(&mut room), [(1, Control::Ended(LeaveReason::Replaced))]);
    let snapshot = room.snapshot();
    assert_eq!(snapshot.departed, [(joined[0].id, LeaveReason::Replaced)]);
    assert_eq!(
        snapshot.members.iter().map(|member| member.id.0).collect::<Vec<_>>(),
        [2, 3]
    );
}

#[test]
fn old_connection_changes_nothing_any_more() {
    // Replaced by a new member, and taken over by a resumption of the same.
    for resume in [None, Some(token(1))] {
        let (mut room, joined) = room_with(2);
        let old = joined[0];
        let own = Source::video();
        let others = Source::new(video_id(2), *own.track.bounds());
        publish(&mut room, joined[1], &[&others.track]);
        let join = Join { resume, ..person(1) };
        let new = room.join(join, token(3), ms(10)).expect("there is place");
        effects(&mut room);
        let version = room.snapshot().version;

        publish(&mut room, old, &[&own.track]);
        let muted = Muted {
            audio: true,
            video: true,
        };
        room.set_muted(old.id, old.epoch, muted);
        room.set_door(old.id, old.epoch, Door::Webrtc);
        room.report_capacity(old.id, old.epoch, others.track.id(), 200_000, ms(20));
        room.report_oversize(old.id, old.epoch, others.track.id(), 200_000, ms(20));
        room.lost(old.id, old.epoch, ms(20));
        room.leave(old.id, old.epoch, LeaveReason::Left, ms(20));
        run_until(&mut room, ms(60_000));

        assert_eq!(effects(&mut room), []);
        let snapshot = room.snapshot();
        assert_eq!(snapshot.version, version);
        assert_eq!(snapshot.members.len(), 2);
        assert!(snapshot.member(new.id).is_some());
    }
}

#[test]
fn member_that_is_put_out_is_told() {
    let (mut room, _) = room_with(2);
    room.kick(ParticipantId(1), ms(0));
    room.kick(ParticipantId(7), ms(0));
    assert_eq!(told(&mut room), [(1, Control::Ended(LeaveReason::Removed))]);
    assert_eq!(room.snapshot().departed, [(ParticipantId(1), LeaveReason::Removed)]);
}

#[test]
fn last_departures_are_remembered_with_their_reasons() {
    let (mut room, joined) = room_with(40);
    for joined in &joined {
        room.leave(joined.id, joined.epoch, LeaveReason::Left, ms(0));
    }
    let departed = room.snapshot().departed;
    assert_eq!(departed.len(), 32);
    assert_eq!(departed.last(), Some(&(ParticipantId(40), LeaveReason::Left)));
    assert!(room.is_empty());
    assert_eq!(room.poll_timeout(), None, "an empty room waits for nothing");
}

#[test]
fn tracks_that_are_named_for_somebody_else_or_twice_are_left_out() {
    let (mut room, joined) = room_with(2);
    let own = Source::video();
    let again = Source::video();
    let foreign = Source::new(video_id(2), *own.track.bounds());
    publish(&mut room, joined[0], &[&own.track, &foreign.track, &again.track]);
    let snapshot = room.snapshot();
    assert_eq!(snapshot.members[0].tracks.len(), 1);
    assert!(Arc::ptr_eq(&snapshot.members[0].tracks[0].track, &own.track));
    assert_eq!(snapshot.tracks_for(ParticipantId(2)).count(), 1);
    assert_eq!(snapshot.tracks_for(ParticipantId(1)).count(), 0);
}

#[test]
fn change_is_told_once_and_only_if_it_is_one() {
    let (mut room, joined) = room_with(2);
    let muted = Muted {
        audio: true,
        video: false,
    };
    room.set_muted(joined[0].id, joined[0].epoch, muted);
    room.set_muted(joined[0].id, joined[0].epoch, muted);
    room.set_speakers(vec![joined[1].id, ParticipantId(99)]);
    room.set_speakers(vec![joined[1].id]);
    assert_eq!(effects(&mut room), [Effect::Changed]);
    assert_eq!(*room.snapshot().speakers, [joined[1].id]);
    let before = room.snapshot();
    room.leave(joined[1].id, joined[1].epoch, LeaveReason::Left, ms(0));
    let after = room.snapshot();
    assert!(after.speakers.is_empty());
    assert!(
        Arc::ptr_eq(&before.members[0], &after.members[0]),
        "who did not change is shared"
    );
}

#[test]
fn tracks_that_are_told_twice_are_no_news() {
    let (mut room, joined) = room_with(2);
    let source = Source::new(audio_id(joined[0].id.0), Bounds::AUDIO);
    for _ in 0..3 {
        publish(&mut room, joined[0], &[&source.track]);
    }
    assert_eq!(effects(&mut room), [Effect::Changed]);
    publish(&mut room, joined[0], &[]);
    publish(&mut room, joined[0], &[]);
    assert_eq!(effects(&mut room), [Effect::Changed]);
}

#[test]
fn keyframe_request_goes_to_the_one_source_meant() {
    let (mut room, joined) = room_with(3);
    let sources: Vec<_> = (1..=3)
        .map(|id| Source::new(video_id(id), *Source::video().track.bounds()))
        .collect();
    for (joined, source) in joined.iter().zip(&sources) {
        publish(&mut room, *joined, &[&source.track]);
    }
    effects(&mut room);
    room.request_keyframe(video_id(2), ms(0), Reason::Viewer, ms(0));
    assert_eq!(told(&mut room), [(2, KEYFRAME)]);
    room.request_keyframe(audio_id(1), ms(0), Reason::Viewer, ms(0));
    room.request_keyframe(TrackId { slot: 1, ..video_id(1) }, ms(0), Reason::Viewer, ms(0));
    room.request_keyframe(video_id(4), ms(0), Reason::Viewer, ms(0));
    assert_eq!(
        told(&mut room),
        [],
        "sound, and tracks that are not there, have nobody to ask"
    );
    room.lost(joined[0].id, joined[0].epoch, ms(1));
    effects(&mut room);
    room.request_keyframe(video_id(1), ms(1), Reason::Viewer, ms(1));
    assert_eq!(told(&mut room), [], "nor has a source that is away");
}

#[test]
fn keyframe_that_came_since_cancels_requests() {
    let (mut room, joined) = room_with(2);
    let mut source = Source::video();
    publish(&mut room, joined[0], &[&source.track]);
    source.key();
    let came = source.track.keyframe_at().expect("one came");
    effects(&mut room);
    room.request_keyframe(video_id(1), RoomTime(came.0 - 1), Reason::Join, came);
    assert_eq!(told(&mut room), []);
    room.request_keyframe(video_id(1), came, Reason::Loss, came);
    room.request_keyframe(video_id(1), came, Reason::Loss, came);
    assert_eq!(told(&mut room), [(1, KEYFRAME)]);
    source.key();
    run_until(&mut room, ms(60_000));
    assert_eq!(told(&mut room), []);
    let counters = room.keyframe_counters();
    assert_eq!((counters.sent(), counters.asked.loss), (1, 1));
    assert_eq!(
        (counters.suppressed_answered.join, counters.suppressed_window.loss),
        (1, 1)
    );
}

#[test]
fn source_that_does_not_answer_is_known_to_its_receivers() {
    let (mut room, joined) = room_with(2);
    let mut source = Source::video();
    publish(&mut room, joined[0], &[&source.track]);
    room.request_keyframe(video_id(1), ms(0), Reason::Join, ms(0));
    run_until(&mut room, ms(490));
    assert!(!source.track.is_unanswering());
    // It has been asked again.
    run_until(&mut room, ms(3400));
    assert!(source.track.is_unanswering() && !source.track.is_silent());
    run_until(&mut room, ms(3500));
    assert!(source.track.is_silent() && room.is_silent(video_id(1)));
    // It comes to life.
    source.now = 20_000;
    source.key();
    run_until(&mut room, ms(20_000));
    room.request_keyframe(video_id(1), ms(20_100), Reason::Join, ms(20_100));
    source.now = 20_150;
    source.key();
    run_until(&mut room, ms(60_000));
    assert!(!source.track.is_silent());
}

#[test]
fn track_that_is_published_anew_has_an_owner_of_its_own() {
    let (mut room, joined) = room_with(2);
    let first = Source::video();
    publish(&mut room, joined[0], &[&first.track]);
    room.request_keyframe(video_id(1), ms(0), Reason::Join, ms(0));
    let second = Source::video();
    publish(&mut room, joined[0], &[&second.track]);
    effects(&mut room);
    room.request_keyframe(video_id(1), ms(10), Reason::Join, ms(10));
    assert_eq!(told(&mut room), [(1, KEYFRAME)], "at once");
    publish(&mut room, joined[0], &[&second.track]);
    effects(&mut room);
    room.request_keyframe(video_id(1), ms(20), Reason::Join, ms(20));
    assert_eq!(told(&mut room), [], "the same list again changes nothing");
    publish(&mut room, joined[0], &[]);
    assert_eq!(room.poll_timeout(), None);
}

/// A room where 1 sends a picture and the others report what they can take.
fn watched(viewers: u32) -> (Room, Vec<Joined>, Source) {
    let (mut room, joined) = room_with(1 + viewers);
    let source = Source::video();
    publish(&mut room, joined[0], &[&source.track]);
    effects(&mut room);
    (room, joined, source)
}

fn report(room: &mut Room, viewer: Joined, bits: u32, at: u64) {
    run_until(room, ms(at));
    room.report_capacity(viewer.id, viewer.epoch, video_id(1), bits, ms(at));
}

#[test]
fn best_viewer_decides_what_a_source_is_limited_to() {
    let (mut room, joined, _source) = watched(2);
    report(&mut room, joined[1], 400_000, 0);
    assert_eq!(told(&mut room), [], "the other viewer has no bound");
    report(&mut room, joined[2], 900_000, 300);
    assert_eq!(told(&mut room), [(1, limit(900_000))]);
    report(&mut room, joined[1], 400_000, 1400);
    report(&mut room, joined[2], 880_000, 1400);
    run_until(&mut room, ms(2000));
    assert_eq!(told(&mut room), [], "no change worth telling");
}

#[test]
fn limit_rises_again_when_the_viewer_recovers() {
    let (mut room, joined, _source) = watched(1);
    report(&mut room, joined[1], 400_000, 0);
    assert_eq!(told(&mut room), [(1, limit(400_000))]);
    // The recovery comes within the second in which nothing new is told, and is said only once.
    report(&mut room, joined[1], u32::MAX, 300);
    assert_eq!(told(&mut room), []);
    run_until(&mut room, ms(999));
    assert_eq!(told(&mut room), []);
    run_until(&mut room, ms(1000));
    assert_eq!(told(&mut room), [(1, limit(u32::MAX))]);
    assert_eq!(room.poll_timeout(), None);
}

#[test]
fn limit_ends_with_the_reports_of_a_viewer_that_falls_silent() {
    let (mut room, joined, _source) = watched(1);
    report(&mut room, joined[1], 400_000, 0);
    assert_eq!(told(&mut room), [(1, limit(400_000))]);
    run_until(&mut room, RoomTime(CAPACITY_AGE - 1));
    assert_eq!(told(&mut room), []);
    run_until(&mut room, RoomTime(CAPACITY_AGE));
    assert_eq!(told(&mut room), [(1, limit(u32::MAX))]);
}

#[test]
fn limit_ends_when_the_slow_viewer_leaves_or_a_better_one_comes() {
    for leaves in [true, false] {
        let (mut room, joined, _source) = watched(1);
        report(&mut room, joined[1], 400_000, 0);
        effects(&mut room);
        if leaves {
            room.leave(joined[1].id, joined[1].epoch, LeaveReason::Left, ms(1500));
        } else {
            room.join(person(9), token(9), ms(1500)).expect("there is place");
        }
        run_until(&mut room, ms(2000));
        assert_eq!(told(&mut room), [(1, limit(u32::MAX))]);
    }
}

#[test]
fn limits_are_told_once_a_second_and_never_below_the_floor() {
    let (mut room, joined, _source) = watched(1);
    let mut tellings = 0;
    for at in (0..10_000).step_by(10) {
        report(&mut room, joined[1], 2_000_000 - at as u32 * 180, at);
        tellings += told(&mut room).len();
    }
    assert!((9..=10).contains(&tellings), "{tellings}");
    report(&mut room, joined[1], 1, 12_000);
    run_until(&mut room, ms(13_000));
    assert_eq!(told(&mut room).last(), Some(&(1, limit(100_000))));
}

#[test]
fn reports_of_strangers_and_of_the_source_itself_count_nothing() {
    let (mut room, joined, _source) = watched(1);
    for number in 100..200 {
        room.report_capacity(ParticipantId(number), 1, video_id(1), 200_000, ms(0));
    }
    room.report_capacity(joined[0].id, joined[0].epoch, video_id(1), 200_000, ms(0));
    room.report_capacity(joined[1].id, joined[1].epoch, audio_id(1), 200_000, ms(0));
    assert_eq!(told(&mut room), []);
    assert_eq!(room.poll_timeout(), None, "nothing is kept of them");
}

#[test]
fn frame_that_was_too_large_limits_for_a_while() {
    let (mut room, joined, _source) = watched(2);
    let viewer = joined[1];
    room.report_oversize(viewer.id, viewer.epoch, video_id(1), 1_500_000, ms(0));
    let too_large = Control::Limit {
        slot: 0,
        max_bitrate: 1_500_000,
        max_side: None,
        reason: LimitReason::FrameTooLarge,
    };
    assert_eq!(told(&mut room), [(1, too_large)]);
    report(&mut room, joined[1], 1_000_000, 2000);
    report(&mut room, joined[2], 2_000_000, 2000);
    run_until(&mut room, ms(2500));
    assert_eq!(
        told(&mut room),
        [],
        "the best viewer could take more, but not such frames"
    );
    run_until(&mut room, RoomTime(OVERSIZE_AGE));
    assert_eq!(told(&mut room), [(1, limit(u32::MAX))]);
    assert_eq!(room.poll_timeout(), None);
}

fn shows(room: &mut Room, viewer: Joined, view: &[(u32, u16)], at: u64) {
    run_until(room, ms(at));
    let view = view
        .iter()
        .map(|(source, side)| ((ParticipantId(*source), 0), *side))
        .collect();
    room.set_view(viewer.id, viewer.epoch, view, ms(at));
}

fn side(max_side: u16) -> Control {
    Control::Limit {
        slot: 0,
        max_bitrate: u32::MAX,
        max_side: Some(max_side),
        reason: LimitReason::Viewers,
    }
}

#[test]
fn largest_viewer_decides_the_size_and_whoever_says_nothing_lifts_it() {
    let (mut room, joined, _source) = watched(2);
    shows(&mut room, joined[1], &[(1, 270)], 0);
    run_until(&mut room, ms(5000));
    assert_eq!(told(&mut room), [], "the other viewer may show it large");
    shows(&mut room, joined[2], &[(1, 360)], 5000);
    run_until(&mut room, ms(7999));
    assert_eq!(told(&mut room), []);
    run_until(&mut room, ms(8000));
    assert_eq!(told(&mut room), [(1, side(360))]);
    run_until(&mut room, ms(600_000));
    assert_eq!(told(&mut room), [], "a list does not age");
    shows(&mut room, joined[2], &[(1, 720)], 600_000);
    run_until(&mut room, ms(600_200));
    assert_eq!(told(&mut room), [(1, side(720))]);
    // Who leaves holds nothing up, after the wait; who comes has said nothing.
    room.leave(joined[2].id, joined[2].epoch, LeaveReason::Left, ms(601_000));
    run_until(&mut room, ms(604_000));
    assert_eq!(told(&mut room), [(1, side(270))]);
    room.join(person(9), token(9), ms(605_000)).expect("there is place");
    run_until(&mut room, ms(606_999));
    assert_eq!(
        told(&mut room),
        [],
        "a page has its time to say how large it shows others"
    );
    run_until(&mut room, ms(607_200));
    assert_eq!(told(&mut room), [(1, limit(u32::MAX))]);
    assert_eq!(room.poll_timeout(), None);
}

#[test]
fn newcomer_who_speaks_up_changes_the_size_only_if_it_shows_more() {
    let (mut room, joined, _source) = watched(1);
    shows(&mut room, joined[1], &[(1, 270)], 2000);
    run_until(&mut room, ms(5000));
    assert_eq!(told(&mut room), [(1, side(270))]);
    let newcomer = room.join(person(8), token(8), ms(6000)).expect("there is place");
    shows(&mut room, newcomer, &[(1, 270)], 6300);
    run_until(&mut room, ms(20_000));
    assert_eq!(told(&mut room), []);
    let newcomer = room.join(person(9), token(9), ms(20_000)).expect("there is place");
    shows(&mut room, newcomer, &[(1, 540)], 20_300);
    run_until(&mut room, ms(20_500));
    assert_eq!(told(&mut room), [(1, side(540))]);
}

#[test]
fn member_that_shows_no_pictures_and_a_native_count_for_what_they_are() {
    let (mut room, joined, _source) = watched(1);
    shows(&mut room, joined[1], &[(1, 270)], 2000);
    run_until(&mut room, ms(5000));
    effects(&mut room);
    let native = Join {
        door: Door::Native,
        ..person(8)
    };
    let member = room.join(native, token(8), ms(6000)).expect("there is place");
    run_until(&mut room, ms(6200));
    assert_eq!(
        told(&mut room),
        [(1, limit(u32::MAX))],
        "it cannot say how large it shows others"
    );
    room.set_blind(member.id, member.epoch, ms(7000));
    run_until(&mut room, ms(12_000));
    assert_eq!(told(&mut room), [(1, side(270))]);
}

#[test]
fn a_viewer_without_the_track_in_its_list_or_without_its_connection_has_no_bound() {
    for lost in [true, false] {
        let (mut room, joined, _source) = watched(1);
        shows(&mut room, joined[1], &[(1, 180)], 0);
        run_until(&mut room, ms(3000));
        assert_eq!(told(&mut room), [(1, side(180))]);
        if lost {
            room.lost(joined[1].id, joined[1].epoch, ms(4000));
        } else {
            shows(&mut room, joined[1], &[(3, 180)], 4000);
        }
        run_until(&mut room, ms(4200));
        assert_eq!(told(&mut room), [(1, limit(u32::MAX))]);
    }
    let (mut room, joined, _source) = watched(1);
    shows(&mut room, joined[1], &[(1, 180)], 0);
    run_until(&mut room, ms(3000));
    effects(&mut room);
    let again = Join {
        resume: Some(joined[1].token),
        ..person(2)
    };
    let resumed = room.join(again, token(9), ms(4000)).expect("it may come back");
    assert!(resumed.resumed);
    shows(&mut room, joined[1], &[(1, 180)], 4100);
    run_until(&mut room, ms(9000));
    let all = told(&mut room);
    assert_eq!(
        all.last(),
        Some(&(1, limit(u32::MAX))),
        "the old connection says nothing any more"
    );
}

#[test]
fn a_list_counts_for_tracks_that_come_later_and_for_their_successors() {
    let (mut room, joined) = room_with(2);
    shows(&mut room, joined[1], &[(1, 270)], 0);
    let (first, second) = (Source::video(), Source::video());
    publish(&mut room, joined[0], &[&first.track]);
    room.handle_timeout(ms(0));
    run_until(&mut room, ms(3000));
    assert_eq!(told(&mut room), [(1, side(270))]);
    publish(&mut room, joined[0], &[]);
    publish(&mut room, joined[0], &[&second.track]);
    room.handle_timeout(ms(3001));
    assert_eq!(told(&mut room), [(1, side(270))], "it is told again at once");
    publish(&mut room, joined[0], &[]);
    shows(&mut room, joined[1], &[], 4000);
    publish(&mut room, joined[0], &[&first.track]);
    room.handle_timeout(ms(4001));
    assert_eq!(told(&mut room), [(1, limit(u32::MAX))]);
}

#[test]
fn a_source_that_comes_back_is_told_its_size_anew() {
    let (mut room, joined, _source) = watched(1);
    shows(&mut room, joined[1], &[(1, 270)], 0);
    run_until(&mut room, ms(3000));
    effects(&mut room);
    room.lost(joined[0].id, joined[0].epoch, ms(4000));
    let again = Join {
        resume: Some(joined[0].token),
        ..person(1)
    };
    let resumed = room.join(again, token(9), ms(5000)).expect("it may come back");
    let next = Source::video();
    publish(&mut room, resumed, &[&next.track]);
    room.handle_timeout(ms(5000));
    run_until(&mut room, ms(7999));
    assert_eq!(told(&mut room), []);
    run_until(&mut room, ms(8000));
    assert_eq!(told(&mut room), [(1, side(270))]);
}

#[test]
fn sound_has_neither_owner_nor_limit() {
    let (mut room, joined) = room_with(2);
    let source = Source::audio();
    publish(&mut room, joined[0], &[&source.track]);
    effects(&mut room);
    room.report_capacity(joined[1].id, joined[1].epoch, audio_id(1), 1000, ms(0));
    room.request_keyframe(audio_id(1), ms(0), Reason::Loss, ms(0));
    assert_eq!(effects(&mut room), []);
    assert_eq!(room.snapshot().members[0].tracks[0].info.kind, Kind::Audio);
}

#[test]
fn member_of_a_relay_puts_out_nobody_who_is_here_himself() {
    let (mut room, _) = room_with(1);
    let remote = |number| Join {
        door: Door::Uplink,
        resumable: false,
        ..person(number)
    };
    let first = room.join(remote(1), token(2), ms(1)).expect("there is place");
    assert_eq!(room.len(), 2);
    assert_eq!(told(&mut room), []);
    // Nor does he who comes himself put out what a relay says of him; a newer word of the relay replaces its older one.
    room.join(person(1), token(3), ms(2)).expect("there is place");
    assert_eq!(told(&mut room), [(1, Control::Ended(LeaveReason::Replaced))]);
    room.join(remote(1), token(4), ms(3)).expect("there is place");
    assert_eq!(told(&mut room), [(first.id.0, Control::Ended(LeaveReason::Replaced))]);
    assert_eq!((room.len(), room.snapshot().local().count()), (2, 1));
}

#[test]
fn name_and_uplink_are_told_when_they_change_and_only_then() {
    let (mut room, joined) = room_with(1);
    let status = |state| UplinkStatus {
        relay: "relay:4433".to_owned(),
        state,
        message: String::new(),
    };
    room.set_name(joined[0].id, joined[0].epoch, "Ana".to_owned());
    room.set_uplink(Some(status(UplinkState::Away)));
    assert_eq!(effects(&mut room), [Effect::Changed]);
    room.set_name(joined[0].id, joined[0].epoch, "Ana".to_owned());
    room.set_uplink(Some(status(UplinkState::Away)));
    room.set_name(joined[0].id, joined[0].epoch + 1, "somebody else".to_owned());
    assert_eq!(effects(&mut room), []);
    let snapshot = room.snapshot();
    assert_eq!(snapshot.members[0].name, "Ana");
    assert_eq!(snapshot.uplink.as_deref(), Some(&status(UplinkState::Away)));
}

#[test]
fn who_takes_every_source_apart_is_known_until_he_leaves() {
    let (mut room, joined) = room_with(2);
    room.set_apart(joined[0].id, joined[0].epoch);
    room.set_apart(joined[0].id, joined[0].epoch);
    assert_eq!(effects(&mut room), [Effect::Changed], "said twice is no news");
    assert_eq!(room.snapshot().apart.into_iter().collect::<Vec<_>>(), [joined[0].id]);
    room.set_apart(joined[1].id, joined[1].epoch + 9);
    assert_eq!(room.snapshot().apart.len(), 1);
    room.leave(joined[0].id, joined[0].epoch, LeaveReason::Left, ms(0));
    assert!(room.snapshot().apart.is_empty());
}

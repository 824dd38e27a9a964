//! The keyframe owner within a room: what its budget is, and what it tells of itself.

use wzp_gateway::room::keyframes::{ByReason, Reason};
use wzp_gateway::room::member::ResumeToken;
use wzp_gateway::room::replay::Replay;
use wzp_gateway::room::subscription::Next;
use wzp_gateway::room::track::Replays;

use crate::state::{KEYFRAME, person, publish, room_with, run_until, told};
use crate::support::{LAG, Source, ms, video_id};

#[test]
fn requests_are_counted_by_what_triggered_them_and_why_they_did_not_go_out() {
    let (mut room, joined) = room_with(2);
    let mut source = Source::video();
    publish(&mut room, joined[0], &[&source.track]);
    let all = [Reason::Join, Reason::Switch, Reason::Loss, Reason::Viewer];
    for (i, reason) in all.into_iter().enumerate() {
        // One of each goes out, at different times; the others come within its window, and then after the answer.
        let at = 20_000 * (i as u64 + 1);
        for other in all {
            room.request_keyframe(video_id(1), ms(at), other, ms(at));
        }
        room.request_keyframe(video_id(1), ms(at), reason, ms(at + 1));
        source.now = at + 10;
        source.key();
        room.request_keyframe(video_id(1), ms(at), reason, ms(at + 20));
        run_until(&mut room, ms(at + 10_000));
    }
    let counters = room.keyframe_counters();
    let each = |n| ByReason {
        join: n,
        switch: n,
        loss: n,
        viewer: n,
    };
    assert_eq!(counters.asked, ByReason { join: 4, ..each(0) });
    assert_eq!(counters.suppressed_answered, each(1));
    assert_eq!(counters.suppressed_window, ByReason { join: 1, ..each(5) });
    assert_eq!((counters.repeated, counters.sent()), (0, 4));
    // Nobody answers: what is asked again by itself has no trigger of its own.
    room.request_keyframe(video_id(1), ms(200_000), Reason::Viewer, ms(200_000));
    run_until(&mut room, ms(203_500));
    let counters = room.keyframe_counters();
    assert_eq!((counters.asked.viewer, counters.repeated), (1, 3));
}

#[test]
fn hundred_newcomers_within_a_second_cost_three_requests_at_most() {
    for answer_ms in [None, Some(30), Some(150), Some(600)] {
        let (mut room, joined) = room_with(1);
        let mut source = Source::video();
        publish(&mut room, joined[0], &[&source.track]);
        // A keyframe that is past every bound.
        source.key();
        source.deltas(400);
        let start = source.now;
        let mut due: Option<u64> = None;
        let mut newcomers = Vec::new();
        for now in start..start + 1000 {
            source.now = now;
            if now % 40 == 0 {
                source.delta();
            }
            if due.is_some_and(|at| at <= now) {
                due = None;
                source.now = now;
                source.key();
            }
            room.handle_timeout(ms(now));
            if now % 10 == 0 {
                let number = newcomers.len() as u32 + 2;
                room.join(person(number), ResumeToken(number.into()), ms(now)).unwrap();
                let mut cursor = source.cursor();
                let replay = Replay::new(cursor.start(), ms(now));
                if replay.wants_keyframe() {
                    room.request_keyframe(video_id(1), ms(now), Reason::Join, ms(now));
                }
                newcomers.push((cursor, replay));
            }
            if told(&mut room).contains(&(1, KEYFRAME)) {
                due = due.or(answer_ms.map(|ms| now + ms));
            }
        }
        assert_eq!(newcomers.len(), 100);
        let counters = room.keyframe_counters();
        assert!(
            (1..=3).contains(&counters.sent()),
            "{counters:?} with an answer after {answer_ms:?} ms"
        );
        if answer_ms.is_some_and(|ms| ms < 500) {
            for (cursor, replay) in &mut newcomers {
                let next = replay.next(cursor, &LAG, false, ms(source.now));
                assert!(
                    matches!(next, Next::Frame(frame) if frame.keyframe),
                    "everybody has a picture"
                );
            }
        }
    }
}

#[test]
fn request_for_a_track_that_is_gone_is_counted() {
    let (mut room, joined) = room_with(2);
    let source = Source::video();
    publish(&mut room, joined[0], &[&source.track]);
    publish(&mut room, joined[0], &[]);
    room.request_keyframe(video_id(1), ms(0), Reason::Loss, ms(0));
    room.request_keyframe(video_id(9), ms(0), Reason::Viewer, ms(0));
    let unknown = room.keyframe_counters().suppressed_unknown;
    let expected = ByReason {
        loss: 1,
        viewer: 1,
        ..ByReason::default()
    };
    assert_eq!((unknown, room.keyframe_counters().sent()), (expected, 0));
}

#[test]
fn what_newcomers_found_is_known_after_the_track_is_gone() {
    let (mut room, joined) = room_with(2);
    let mut source = Source::video();
    publish(&mut room, joined[0], &[&source.track]);
    source.cursor().start();
    source.key();
    source.cursor().start();
    source.deltas(70);
    source.cursor().start();
    source.cursor().start();
    let found = Replays {
        hit: 1,
        stale: 2,
        miss: 1,
    };
    assert_eq!(source.track.counters().replays.now(), found);
    assert_eq!(room.past_replays(), Replays::default());
    publish(&mut room, joined[0], &[]);
    assert_eq!(room.past_replays(), found);
}

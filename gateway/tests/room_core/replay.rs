//! The replay's rule between the soft and the hard bound, with time as an argument.

use wzp_gateway::room::replay::{FRESH_KEYFRAME_WAIT, Replay};
use wzp_gateway::room::subscription::{Cursor, Next, Start};

use crate::support::{LAG, NONE, Source, indices, ms};

/// The indices that a replay gives now.
fn pump(replay: &mut Replay, cursor: &mut Cursor, silent: bool, now: u64) -> Vec<u64> {
    let mut got = Vec::new();
    while let Next::Frame(frame) = replay.next(cursor, &LAG, silent, ms(now)) {
        got.push(frame.index);
    }
    got
}

/// A source whose keyframe is `deltas` frames of 40 ms old, and a newcomer.
fn newcomer(deltas: usize) -> (Source, Cursor, Replay) {
    let mut source = Source::video();
    source.key();
    source.deltas(deltas);
    let mut cursor = source.cursor();
    let replay = Replay::new(cursor.start(), ms(source.now));
    (source, cursor, replay)
}

#[test]
fn fresh_keyframe_and_its_deltas_go_at_once() {
    let (source, mut cursor, mut replay) = newcomer(60);
    assert!(!replay.wants_keyframe());
    assert_eq!(replay.poll_timeout(), None);
    assert_eq!(pump(&mut replay, &mut cursor, false, source.now).len(), 61);
}

#[test]
fn nothing_in_the_log_asks_for_a_keyframe_and_begins_with_it() {
    let mut source = Source::video();
    let mut cursor = source.cursor();
    let mut replay = Replay::new(cursor.start(), ms(source.now));
    assert!(replay.wants_keyframe());
    assert_eq!(replay.poll_timeout(), None);
    assert!(matches!(
        replay.next(&mut cursor, &LAG, false, ms(source.now)),
        Next::NeedsKeyframe
    ));
    source.key();
    source.delta();
    assert_eq!(pump(&mut replay, &mut cursor, false, source.now), [0, 1]);
}

#[test]
fn stale_keyframe_goes_alone_and_a_fresh_one_takes_over() {
    let (mut source, mut cursor, mut replay) = newcomer(100);
    assert!(replay.wants_keyframe());
    let began = source.now;
    assert_eq!(pump(&mut replay, &mut cursor, false, began), [0]);
    source.deltas(3);
    assert_eq!(
        pump(&mut replay, &mut cursor, false, source.now),
        NONE,
        "the deltas wait"
    );
    assert_eq!(replay.poll_timeout(), Some(ms(began).plus(FRESH_KEYFRAME_WAIT)));
    source.key();
    source.delta();
    assert_eq!(pump(&mut replay, &mut cursor, false, source.now), [104, 105]);
    assert_eq!(replay.poll_timeout(), None);
}

#[test]
fn deltas_follow_when_no_fresh_keyframe_came_in_time() {
    let (mut source, mut cursor, mut replay) = newcomer(250);
    let began = source.now;
    assert_eq!(pump(&mut replay, &mut cursor, false, began), [0]);
    assert_eq!(pump(&mut replay, &mut cursor, false, began + 249), NONE);
    source.deltas(6);
    assert_eq!(
        pump(&mut replay, &mut cursor, false, began + 250),
        (1..257).collect::<Vec<_>>()
    );
    source.delta();
    assert_eq!(
        pump(&mut replay, &mut cursor, false, source.now),
        [257],
        "and live goes on"
    );
    assert_eq!(cursor.dropped(), 0);
}

#[test]
fn waiting_is_not_held_against_a_receiver_that_then_reads_fast() {
    // The bound on lag is half of the wait.
    let lag = wzp_gateway::room::subscription::Lag {
        most: 125_000,
        resync_age: 1_000_000,
    };
    let (mut source, mut cursor, mut replay) = newcomer(100);
    let mut got = Vec::new();
    for _ in 0..80 {
        source.delta();
        for _ in 0..5 {
            if let Next::Frame(frame) = replay.next(&mut cursor, &lag, false, ms(source.now)) {
                got.push(frame.index);
            }
        }
    }
    assert_eq!(got, (0..181).collect::<Vec<_>>());
}

#[test]
fn nobody_waits_for_a_source_that_is_known_to_be_silent() {
    let (source, mut cursor, mut replay) = newcomer(100);
    assert_eq!(
        pump(&mut replay, &mut cursor, true, source.now),
        (0..101).collect::<Vec<_>>()
    );
}

#[test]
fn source_that_turns_silent_meanwhile_is_not_waited_for_any_longer() {
    let (source, mut cursor, mut replay) = newcomer(100);
    assert_eq!(pump(&mut replay, &mut cursor, false, source.now), [0]);
    assert_eq!(pump(&mut replay, &mut cursor, true, source.now + 10).len(), 100);
}

#[test]
fn fresh_keyframe_that_came_before_the_cached_one_went_out_goes_instead_of_it() {
    let (mut source, mut cursor, mut replay) = newcomer(100);
    source.key();
    assert_eq!(pump(&mut replay, &mut cursor, false, source.now), [101]);
}

#[test]
fn track_that_ends_meanwhile_is_shown_to_its_end() {
    let (source, mut cursor, mut replay) = newcomer(100);
    let now = source.now;
    assert_eq!(pump(&mut replay, &mut cursor, false, now), [0]);
    drop(source);
    assert_eq!(pump(&mut replay, &mut cursor, false, now).len(), 100);
    assert!(matches!(replay.next(&mut cursor, &LAG, false, ms(now)), Next::Ended));
}

#[test]
fn log_that_let_go_of_the_deltas_meanwhile_means_a_keyframe_is_needed() {
    let (mut source, mut cursor, mut replay) = newcomer(299);
    assert_eq!(pump(&mut replay, &mut cursor, false, source.now), [0]);
    source.deltas(7);
    let now = source.now;
    assert!(matches!(
        replay.next(&mut cursor, &LAG, false, ms(now)),
        Next::NeedsKeyframe
    ));
    source.key();
    assert_eq!(pump(&mut replay, &mut cursor, false, now), [307]);
}

#[test]
fn switch_to_a_stale_keyframe_shows_no_still() {
    for (fresh, silent) in [(true, false), (false, false), (false, true)] {
        let mut source = Source::video();
        source.key();
        source.deltas(100);
        let mut cursor = source.cursor();
        let began = source.now;
        let mut replay = Replay::switching(cursor.start(), ms(began));
        assert!(replay.wants_keyframe());
        if silent {
            let all = pump(&mut replay, &mut cursor, true, began);
            assert_eq!(all, (0..101).collect::<Vec<_>>(), "there is nothing to wait for");
            continue;
        }
        assert_eq!(pump(&mut replay, &mut cursor, false, began + 249), NONE);
        if fresh {
            source.key();
            assert_eq!(pump(&mut replay, &mut cursor, false, began + 249), [101]);
        } else {
            let all = pump(&mut replay, &mut cursor, false, began + 250);
            assert_eq!(all, (0..101).collect::<Vec<_>>());
        }
        assert_eq!(replay.poll_timeout(), None);
    }
}

/// A receiver that has seen the first frames of a source, and then nothing for `missed` frames of 40 ms.
fn fallen_behind(missed: usize) -> (Source, Cursor, Replay) {
    let mut source = Source::video();
    source.key();
    source.deltas(3);
    let mut cursor = source.cursor();
    let mut replay = Replay::new(cursor.start(), ms(source.now));
    assert_eq!(pump(&mut replay, &mut cursor, false, source.now), [0, 1, 2, 3]);
    source.deltas(missed);
    (source, cursor, replay)
}

#[test]
fn who_fell_behind_reads_on_where_it_was_when_no_keyframe_comes() {
    let (mut source, mut cursor, mut replay) = fallen_behind(20);
    let began = source.now;
    assert!(matches!(
        replay.next(&mut cursor, &LAG, false, ms(began)),
        Next::NeedsKeyframe
    ));
    assert_eq!(replay.poll_timeout(), Some(ms(began).plus(FRESH_KEYFRAME_WAIT)));
    source.deltas(6);
    assert_eq!(pump(&mut replay, &mut cursor, false, began + 249), NONE);
    assert_eq!(
        pump(&mut replay, &mut cursor, false, began + 250),
        (4..30).collect::<Vec<_>>(),
        "all that it missed"
    );
    assert_eq!((cursor.dropped(), replay.poll_timeout()), (0, None));
    source.delta();
    assert_eq!(
        pump(&mut replay, &mut cursor, false, source.now),
        [30],
        "and live goes on"
    );
}

#[test]
fn who_fell_behind_goes_on_at_the_keyframe_that_comes_in_time() {
    let (mut source, mut cursor, mut replay) = fallen_behind(20);
    assert_eq!(pump(&mut replay, &mut cursor, false, source.now), NONE);
    source.key();
    source.delta();
    assert_eq!(pump(&mut replay, &mut cursor, false, source.now), [24, 25]);
    assert_eq!((cursor.dropped(), replay.poll_timeout()), (20, None));
}

#[test]
fn who_fell_behind_does_not_wait_for_a_silent_source_or_one_that_left() {
    for ended in [false, true] {
        let (source, mut cursor, mut replay) = fallen_behind(20);
        let now = source.now;
        if ended {
            drop(source);
        }
        let got = pump(&mut replay, &mut cursor, !ended, now);
        assert_eq!(got, (4..24).collect::<Vec<_>>());
    }
}

#[test]
fn who_fell_behind_further_than_its_place_is_kept_begins_at_the_cached_keyframe() {
    let (mut source, mut cursor, mut replay) = fallen_behind(30);
    source.key();
    source.deltas(60);
    // The keyframe is 2.4 s old, and nothing before it is left.
    assert_eq!(pump(&mut replay, &mut cursor, false, source.now), NONE);
    assert_eq!(
        pump(&mut replay, &mut cursor, false, source.now + 250),
        (34..95).collect::<Vec<_>>()
    );
    assert_eq!(cursor.dropped(), 30);
}

#[test]
fn who_fell_behind_by_more_than_the_hard_bounds_waits_for_a_keyframe() {
    let (mut source, mut cursor, mut replay) = fallen_behind(310);
    assert_eq!(pump(&mut replay, &mut cursor, true, source.now), NONE);
    assert_eq!(replay.poll_timeout(), None);
    source.key();
    assert_eq!(pump(&mut replay, &mut cursor, true, source.now), [314]);
}

#[test]
fn frame_that_found_no_place_is_given_again_if_no_keyframe_comes() {
    let (source, mut cursor, mut replay) = fallen_behind(0);
    cursor.give_back(&LAG, true);
    let now = source.now;
    assert_eq!(pump(&mut replay, &mut cursor, false, now), NONE);
    assert_eq!(pump(&mut replay, &mut cursor, false, now + 250), [3]);
    // While nothing at all goes out, it is tried again; but were the path too slow for it, it would never get past it.
    cursor.give_back(&LAG, false);
    assert_eq!(pump(&mut replay, &mut cursor, true, now + 250), [3]);
    cursor.give_back(&LAG, true);
    assert_eq!(pump(&mut replay, &mut cursor, true, now + 250), NONE);
}

/// A source that never answers, with a keyframe every ten seconds, and a receiver with a reading rate of its own, which is
/// `frames` in `per` frames of the source from the second second on. The largest lag of each second from then on, ms.
fn lags(frames: u64, per: u64) -> Vec<u64> {
    let mut source = Source::video();
    let mut cursor = source.cursor();
    let mut replay = Replay::new(cursor.start(), ms(source.now));
    let mut credit = 0;
    let mut lags = vec![0; 60];
    for at in 0..25 * 60 {
        source.append(at % 250 == 0);
        let now = source.now;
        credit = if at < 25 { per } else { (credit + frames).min(2 * per) };
        while credit >= per
            && let Next::Frame(frame) = replay.next(&mut cursor, &LAG, false, ms(now))
        {
            credit -= per;
            let lag: &mut u64 = &mut lags[at as usize / 25];
            *lag = (*lag).max(now - source.step - frame.time.as_millis());
        }
    }
    lags
}

#[test]
fn receiver_that_is_too_slow_for_the_stream_does_not_catch_up_for_ever() {
    for (frames, per) in [(1, 2), (1, 3), (2, 3), (9, 10)] {
        let lags = lags(frames, per);
        let late = lags.iter().filter(|lag| **lag > LAG.most / 1000).count();
        // What it may be late by, the wait, and what it falls back while it does not catch up.
        assert!(lags.iter().all(|lag| *lag < 2500), "{frames}/{per}: {lags:?}");
        assert!(late <= 12, "late in {late} seconds of 60 at {frames}/{per}: {lags:?}");
    }
}

#[test]
fn sound_is_never_held() {
    let mut source = Source::audio();
    source.key();
    let mut cursor = source.cursor();
    let start = cursor.start();
    assert_eq!(start, Start::Live);
    let mut replay = Replay::new(start, ms(source.now));
    assert!(!replay.wants_keyframe());
    source.key();
    assert_eq!(pump(&mut replay, &mut cursor, false, source.now), [1]);
    assert_eq!(indices(&mut cursor), NONE);
}

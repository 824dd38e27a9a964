//! The cursor: where a receiver begins, how far it may lag, and when it is woken.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use wzp_gateway::room::subscription::{Cursor, Lag, Next, Start};
use wzp_gateway::room::track::Bounds;

use crate::support::{LAG, NONE, Source, indices, read, video_id};

#[test]
fn late_joiner_gets_the_keyframe_and_everything_after_it_once() {
    let mut source = Source::video();
    source.key();
    source.deltas(10);
    let mut late = source.cursor();
    assert!(matches!(late.start(), Start::Replay { fresh: true, .. }));
    source.delta();
    let mut got: Vec<_> = (0..5)
        .filter_map(|_| match late.next(&LAG) {
            Next::Frame(frame) => Some(frame.index),
            _ => None,
        })
        .collect();
    source.deltas(3);
    got.extend(indices(&mut late));
    assert_eq!(got, (0..15).collect::<Vec<_>>(), "no gap between replay and live");
    assert_eq!(late.dropped(), 0);
}

#[test]
fn two_joins_in_one_instant_see_the_same() {
    let mut source = Source::video();
    source.key();
    source.deltas(4);
    let (mut one, mut other) = (source.cursor(), source.cursor());
    assert_eq!(one.start(), other.start());
    source.delta();
    assert_eq!(indices(&mut one), [0, 1, 2, 3, 4, 5]);
    assert_eq!(indices(&mut other), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn replay_past_the_soft_bounds_says_so() {
    let mut source = Source::video();
    source.key();
    source.deltas(62);
    let mut late = source.cursor();
    assert!(matches!(
        late.start(),
        Start::Replay {
            age: 2_480_000,
            fresh: true,
            ..
        }
    ));
    source.delta();
    assert!(matches!(
        late.start(),
        Start::Replay {
            age: 2_520_000,
            fresh: false,
            ..
        }
    ));

    let mut source = Source::video();
    source.size = 100_000;
    source.key();
    source.deltas(9);
    let mut late = source.cursor();
    assert!(matches!(
        late.start(),
        Start::Replay {
            bytes: 1_000_000,
            fresh: true,
            ..
        }
    ));
    source.delta();
    assert!(matches!(
        late.start(),
        Start::Replay {
            bytes: 1_100_000,
            fresh: false,
            ..
        }
    ));
}

#[test]
fn receiver_of_an_empty_track_waits_for_its_first_keyframe() {
    let mut source = Source::video();
    let mut cursor = source.cursor();
    assert_eq!(cursor.start(), Start::NeedsKeyframe);
    assert!(matches!(cursor.next(&LAG), Next::NeedsKeyframe));
    source.key();
    source.delta();
    assert_eq!(indices(&mut cursor), [0, 1]);
}

#[test]
fn cursor_that_was_not_started_waits_for_the_next_keyframe() {
    let mut source = Source::video();
    source.key();
    let mut cursor = source.cursor();
    source.deltas(2);
    assert!(matches!(cursor.next(&LAG), Next::NeedsKeyframe));
    source.key();
    assert_eq!(indices(&mut cursor), [3]);
}

#[test]
fn lagging_picture_goes_on_at_the_newest_keyframe() {
    let mut source = Source::video();
    let mut cursor = source.cursor();
    source.key();
    source.deltas(5);
    assert_eq!(indices(&mut cursor).len(), 6);
    source.deltas(10);
    source.key();
    source.deltas(4);
    source.key();
    source.deltas(2);
    // 17 frames of 40 ms are more than half a second.
    assert_eq!(indices(&mut cursor), [21, 22, 23]);
    assert_eq!(cursor.dropped(), 15);
}

#[test]
fn keyframe_that_is_too_old_is_skipped_for_a_newer_one() {
    let mut source = Source::video();
    let mut cursor = source.cursor();
    source.key();
    assert_eq!(indices(&mut cursor), [0]);
    source.key();
    source.deltas(14);
    source.key();
    assert_eq!(
        indices(&mut cursor),
        [16],
        "the keyframe that came next would have been 600 ms late"
    );
}

#[test]
fn lagging_cursor_by_itself_waits_when_there_is_no_recent_keyframe() {
    let mut source = Source::video();
    let mut cursor = source.cursor();
    source.key();
    assert_eq!(indices(&mut cursor), [0]);
    source.deltas(14);
    assert!(matches!(cursor.next(&LAG), Next::NeedsKeyframe));
    assert!(cursor.is_waiting());
    source.deltas(5);
    assert!(matches!(cursor.next(&LAG), Next::NeedsKeyframe));
    source.key();
    assert_eq!(indices(&mut cursor), [20]);
    assert_eq!(cursor.dropped(), 19);
}

#[test]
fn keyframe_that_became_old_while_nobody_read_does_not_end_a_wait() {
    let mut source = Source::video();
    let mut cursor = source.cursor();
    assert!(matches!(cursor.next(&LAG), Next::NeedsKeyframe));
    source.key();
    source.deltas(51);
    assert!(matches!(cursor.next(&LAG), Next::NeedsKeyframe), "2,040 ms late");
    source.key();
    assert_eq!(indices(&mut cursor), [52]);
}

#[test]
fn overrun_cursor_is_told_and_goes_on_at_a_keyframe() {
    let bounds = Bounds {
        hard_bytes: 20_000,
        tail_bytes: 20_000,
        ..Bounds::VIDEO
    };
    let mut source = Source::new(video_id(1), bounds);
    let mut cursor = source.cursor();
    source.key();
    assert_eq!(indices(&mut cursor), [0]);
    source.deltas(40);
    let lenient = Lag {
        most: 60_000_000,
        resync_age: 60_000_000,
    };
    assert!(matches!(cursor.next(&lenient), Next::NeedsKeyframe));
    source.key();
    source.delta();
    assert_eq!(indices(&mut cursor), [41, 42]);
    assert_eq!(cursor.dropped(), 40);
}

#[test]
fn late_sound_drops_its_oldest() {
    let mut source = Source::audio();
    let mut cursor = source.cursor();
    for _ in 0..200 {
        source.key();
    }
    assert_eq!(indices(&mut cursor), (174..200).collect::<Vec<_>>());
    assert_eq!(cursor.dropped(), 174);
}

#[test]
fn replay_may_be_read_late_but_not_slower_than_it_grows() {
    let mut source = Source::video();
    source.key();
    source.deltas(60);
    let mut late = source.cursor();
    late.start();
    // Reads four frames per frame of the source: catches up.
    let mut got = Vec::new();
    for _ in 0..40 {
        source.delta();
        for _ in 0..4 {
            if let Next::Frame(frame) = late.next(&LAG) {
                got.push(frame.index);
            }
        }
    }
    assert_eq!(got, (0..101).collect::<Vec<_>>());
    assert_eq!(late.dropped(), 0);

    // Reads one frame per frame of the source: would stay two seconds and a half late for ever.
    let mut slow = source.cursor();
    slow.start();
    let mut frames = 0;
    for _ in 0..100 {
        source.delta();
        frames += usize::from(matches!(slow.next(&LAG), Next::Frame(_)));
    }
    assert!(slow.is_waiting());
    assert!(
        (20..=26).contains(&frames),
        "cut off after twice the bound: {frames} frames"
    );
    source.key();
    assert_eq!(indices(&mut slow).len(), 1);
}

#[test]
fn lag_of_a_slow_receiver_is_bounded_whatever_it_does() {
    // Half, a third, … a twentieth of the source's rate; a keyframe every second.
    for share in 2..20 {
        let mut source = Source::video();
        let mut cursor = source.cursor();
        for at in 0..2000u64 {
            source.append(at.is_multiple_of(25));
            if at.is_multiple_of(share)
                && let Next::Frame(frame) = cursor.next(&LAG)
            {
                let lag = (source.now - source.step) - frame.time.as_millis();
                assert!(lag <= 2500, "{lag} ms at a share of 1/{share}");
            }
        }
        assert!(cursor.dropped() > 0);
    }
}

#[test]
fn resync_leaves_out_what_was_not_read_and_never_goes_back() {
    let mut source = Source::video();
    let mut cursor = source.cursor();
    source.key();
    source.deltas(3);
    assert_eq!(indices(&mut cursor).len(), 4);
    source.key();
    source.delta();
    cursor.resync(&LAG);
    assert_eq!(indices(&mut cursor), [4, 5]);
    cursor.resync(&LAG);
    assert!(cursor.is_waiting(), "the keyframe was delivered already");
    source.delta();
    assert_eq!(indices(&mut cursor), NONE);
    source.key();
    assert_eq!(indices(&mut cursor), [7]);
}

#[test]
fn paused_track_resumes_at_a_keyframe_that_was_not_delivered_yet() {
    let mut source = Source::video();
    let mut cursor = source.cursor();
    source.key();
    source.deltas(3);
    assert_eq!(indices(&mut cursor), [0, 1, 2, 3]);
    // Paused: nobody reads. Then it resumes within the same group of pictures.
    source.deltas(3);
    assert_eq!(cursor.start(), Start::NeedsKeyframe);
    source.delta();
    assert_eq!(indices(&mut cursor), NONE);
    source.key();
    source.delta();
    assert_eq!(indices(&mut cursor), [8, 9]);
    // And when a keyframe came in the pause: replay from it.
    source.key();
    source.deltas(20);
    assert!(matches!(cursor.start(), Start::Replay { fresh: true, .. }));
    assert_eq!(indices(&mut cursor), (10..31).collect::<Vec<_>>());
}

#[test]
fn source_that_leaves_ends_the_track_after_its_last_frame() {
    let mut source = Source::video();
    let mut cursor = source.cursor();
    source.key();
    source.delta();
    drop(source);
    assert_eq!(indices(&mut cursor), [0, 1]);
    assert!(matches!(cursor.next(&LAG), Next::Ended));

    let source = Source::video();
    let mut waiting = source.cursor();
    drop(source);
    assert!(
        matches!(waiting.next(&LAG), Next::Ended),
        "one that waits for a keyframe learns it too"
    );
}

#[test]
fn one_waker_of_many_cursors_outlives_each_of_them_but_the_last() {
    let mut source = Source::video();
    let waker = Arc::new(Notify::new());
    let cursors: Vec<_> = (0..3).map(|_| Cursor::new(&source.track, &waker)).collect();
    assert_eq!(Arc::strong_count(&waker), 1 + 3 + 1);
    for cursor in cursors {
        source.key();
        drop(cursor);
    }
    assert_eq!(Arc::strong_count(&waker), 1, "the track holds on to nobody");
}

#[tokio::test]
async fn append_and_end_wake_a_receiver_that_saw_nothing_new() {
    let mut source = Source::video();
    let waker = Arc::new(Notify::new());
    let mut cursor = Cursor::new(&source.track, &waker);
    cursor.start();
    // Between the look and the wait.
    assert!(matches!(cursor.next(&LAG), Next::NeedsKeyframe));
    source.key();
    timeout(Duration::from_secs(5), waker.notified()).await.expect("woken");
    assert_eq!(read(&mut cursor).len(), 1);
    assert!(matches!(cursor.next(&LAG), Next::Empty));
    drop(source);
    timeout(Duration::from_secs(5), waker.notified()).await.expect("woken");
    assert!(matches!(cursor.next(&LAG), Next::Ended));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_append_wakes_every_receiver() {
    const READERS: usize = 5;
    let mut source = Source::video();
    let (seen, mut all_seen) = tokio::sync::mpsc::channel(READERS);
    // Two of them share a waker, as the receivers of one worker do.
    for reader in 1..READERS {
        let waker = Arc::new(Notify::new());
        let count = if reader == 1 { 2 } else { 1 };
        let mut cursors: Vec<_> = (0..count).map(|_| Cursor::new(&source.track, &waker)).collect();
        let seen = seen.clone();
        tokio::spawn(async move {
            let mut ended = 0;
            while ended < cursors.len() {
                for cursor in &mut cursors {
                    loop {
                        match cursor.next(&LAG) {
                            Next::Frame(frame) => seen.send(frame.index).await.expect("the test waits for it"),
                            Next::Ended => break ended += 1,
                            _ => break,
                        }
                    }
                }
                waker.notified().await;
            }
        });
    }
    for index in 0..500 {
        source.append(index % 25 == 0);
        // Nothing else is appended until all have seen this one: a lost wake-up cannot be made good by the next.
        for _ in 0..READERS {
            let seen = timeout(Duration::from_secs(10), all_seen.recv()).await;
            assert_eq!(seen.expect("everybody is woken"), Some(index));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost_while_receivers_come_and_go() {
    const FRAMES: u64 = 3000;
    let lag = Lag {
        most: u64::MAX,
        resync_age: u64::MAX,
    };
    let mut source = Source::video();
    source.size = 10;
    source.key();
    let readers: Vec<_> = (0..8)
        .map(|reader| {
            let track = source.track.clone();
            tokio::spawn(async move {
                let waker = Arc::new(Notify::new());
                let mut cursor = Cursor::new(&track, &waker);
                cursor.start();
                let (mut frames, mut previous) = (0u64, None);
                loop {
                    match cursor.next(&lag) {
                        Next::Frame(frame) => {
                            let contiguous = previous.is_none_or(|previous| previous + 1 == frame.index);
                            assert!(frame.keyframe || contiguous);
                            previous = Some(frame.index);
                            frames += 1;
                            // Some go, and come again to wait for the next keyframe.
                            if reader % 2 == 1 && frames.is_multiple_of(60) && frame.index < FRAMES - 100 {
                                cursor = Cursor::new(&track, &waker);
                                previous = None;
                            }
                        }
                        Next::Empty | Next::NeedsKeyframe => waker.notified().await,
                        Next::Ended => return previous,
                    }
                }
            })
        })
        .collect();
    for at in 1..FRAMES {
        source.append(at.is_multiple_of(50));
        if at.is_multiple_of(20) {
            tokio::task::yield_now().await;
        }
    }
    drop(source);
    for reader in readers {
        let last = timeout(Duration::from_secs(20), reader)
            .await
            .expect("every reader sees the end")
            .expect("and no gap");
        assert_eq!(last, Some(FRAMES - 1));
    }
}

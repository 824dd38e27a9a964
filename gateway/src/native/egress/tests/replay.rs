//! Newcomers, switches of source, and packets that are sent again.

use super::*;

#[test]
fn late_joiner_sees_the_cached_keyframe_and_all_that_followed() {
    let mut one = Source::new(1);
    for ms in 0..1_500 {
        live(&mut one, ms, true, RoomTime::from_millis(ms));
    }
    let mut bench = Bench::new(50_000_000);
    bench.now = RoomTime::from_millis(1_500);
    bench.egress.set_room(&snapshot(&[&one]));
    bench.step(|_, _| {});
    bench.receiver.assert_decodable();
    assert!(bench.receiver.video[0].3);
    assert_eq!(bench.receiver.video.last().map(|frame| frame.1), Some(one.pictures - 1));
    assert_eq!(bench.keyframes_asked(Reason::Join), 0);
}

#[test]
fn stale_keyframe_is_shown_as_a_still_until_a_fresh_one_comes() {
    let mut one = Source::new(1);
    for n in 0..150u64 {
        one.picture(n == 0, 2_000, RoomTime::from_millis(n * 33));
    }
    let mut bench = Bench::new(50_000_000);
    bench.now = RoomTime::from_millis(5_000);
    bench.egress.set_room(&snapshot(&[&one]));
    bench.step(|_, _| {});
    assert_eq!(bench.receiver.video.len(), 1);
    assert_eq!(bench.keyframes_asked(Reason::Join), 1);
    for n in 150..160 {
        let keyframe = n == 155;
        bench.step(|_, now| one.picture(keyframe, 2_000, now));
    }
    bench.receiver.assert_decodable();
    let shown: Vec<_> = bench.receiver.video.iter().map(|frame| frame.1).collect();
    assert_eq!(shown, [0, 155, 156, 157, 158, 159]);
    assert_eq!(
        bench.keyframes_asked(Reason::Join) + bench.keyframes_asked(Reason::Loss),
        1
    );
}

#[test]
fn stale_keyframe_and_its_deltas_are_shown_when_no_fresh_one_comes() {
    for silent in [false, true] {
        let mut one = Source::new(1);
        for n in 0..150u64 {
            one.picture(n == 0, 2_000, RoomTime::from_millis(n * 33));
        }
        let mut bench = Bench::new(50_000_000);
        bench.now = RoomTime::from_millis(5_000);
        if silent {
            bench.hush(&one);
        }
        bench.egress.set_room(&snapshot(&[&one]));
        bench.step(|_, _| {});
        if !silent {
            assert_eq!(bench.receiver.video.len(), 1, "the keyframe as a still");
            let wake = bench
                .egress
                .poll_timeout(bench.now)
                .expect("it wants to be called again");
            assert!(wake <= RoomTime::from_millis(5_250), "{wake:?}");
            while bench.now <= RoomTime::from_millis(5_251) {
                bench.step(|_, _| {});
            }
        }
        // 300 kB at 50 Mbit/s.
        let begun = bench.now;
        while bench.receiver.video.len() < 150 {
            bench.step(|_, _| {});
            assert!(
                bench.now.since(begun) < 200_000,
                "{} frames",
                bench.receiver.video.len()
            );
        }
        bench.receiver.assert_decodable();
        assert_eq!(bench.keyframes_asked(Reason::Join), 1);
        bench.step(|_, now| one.picture(false, 2_000, now));
        assert_eq!(
            bench.receiver.video.last().map(|frame| frame.1),
            Some(150),
            "and live goes on"
        );
    }
}

#[test]
fn wanted_source_without_keyframe_is_asked_once_while_the_old_picture_moves() {
    let mut bench = Bench::new(50_000_000);
    let (mut one, mut two) = (Source::new(1), Source::new(2));
    // Two began long ago and sends no keyframe by itself.
    two.picture(true, 1_000, RoomTime(0));
    for n in 1..100 {
        two.picture(false, 1_000, RoomTime::from_millis(n * 33));
    }
    bench.now = RoomTime::from_millis(4_000);
    bench.egress.set_room(&snapshot(&[&one, &two]));
    let start = bench.ms();
    let mut switched_at = None;
    while bench.ms() < start + 3_000 {
        let ms = bench.ms() - start;
        if switched_at.is_none() && bench.receiver.video.last().is_some_and(|frame| frame.0 == 2) {
            switched_at = Some(ms);
        }
        bench.step(|_, now| {
            live(&mut one, ms, false, now);
            if ms >= 100 && ms.is_multiple_of(20) {
                two.sound(true, now);
            }
            if ms.is_multiple_of(33) {
                two.picture(ms == 33 * 80, 1_000, now);
            }
        });
    }
    bench.receiver.assert_decodable();
    assert_eq!(bench.keyframes_asked(Reason::Switch), 1);
    // Two is heard from 100 ms on; one keeps its picture for as long as a picture stays, and then while two is asked.
    let at = switched_at.expect("the picture follows the sound");
    assert!(
        (VIDEO_HOLD / 1000 + 250..VIDEO_HOLD / 1000 + 400).contains(&at),
        "at {at} ms"
    );
    let shown = &bench.receiver.video;
    let cut = shown.iter().take_while(|frame| frame.0 == 1).count();
    assert!(cut > 50, "the old picture moved on: {cut} pictures");
    let of_two: Vec<_> = shown[cut..].iter().map(|frame| (frame.0, frame.1)).collect();
    let contiguous: Vec<_> = (0..of_two.len() as u32).map(|n| (2, n)).collect();
    assert_eq!(of_two, contiguous, "the cached keyframe, all since, and what is live");
    assert_eq!(of_two.len() as u32, two.pictures);
}

#[test]
fn packets_are_sent_again_as_they_were_and_no_more_often_than_the_path_takes() {
    let mut bench = Bench::new(4_000_000);
    let mut one = Source::new(1);
    bench.egress.set_room(&snapshot(&[&one]));
    bench.egress.pump(&bench.link, bench.now);
    one.picture(true, 5_000, bench.now);
    bench.egress.pump(&bench.link, bench.now);
    let sent = bench.link.sent.take();
    assert_eq!(sent.len(), 5);
    let at = |ms: u64| bench.now.plus(ms * 1000);
    bench.egress.answer(&[3, 1, 77], &bench.link, at(20));
    assert_eq!(bench.link.sent.take(), [sent[3].clone(), sent[1].clone()]);
    // Asked for without an end.
    let all: Vec<u32> = (0..10_000).map(|n| n % 5).collect();
    for ms in 20..500 {
        bench.egress.answer(&all, &bench.link, at(ms));
        bench.link.pass_ms();
    }
    let again = bench.link.sent.take();
    assert!(again.len() <= 3 * sent.len() - 2, "{} for 5", again.len());
    bench.egress.answer(&[0, 1, 2, 3, 4], &bench.link, at(501));
    assert!(bench.link.sent.take().is_empty(), "half a second is over");
    let counters = &bench.egress.counters;
    assert_eq!(counters.resent_out.get(), 2 + again.len() as u64);
    assert!(counters.not_resent.get() > 1);
}

#[test]
fn packets_are_not_sent_again_into_a_full_queue() {
    let mut bench = Bench::new(4_000_000);
    let mut one = Source::new(1);
    bench.egress.set_room(&snapshot(&[&one]));
    bench.egress.pump(&bench.link, bench.now);
    one.picture(true, 5_000, bench.now);
    bench.egress.pump(&bench.link, bench.now);
    bench.link.sent.take();
    *bench.link.queued.borrow_mut() = DATAGRAM_SEND_BUFFER;
    bench.egress.answer(&[1, 2], &bench.link, bench.now);
    assert!(bench.link.sent.take().is_empty());
    assert_eq!(bench.egress.counters.resent_dropped_space.get(), 2);
}

#[test]
fn stalled_viewer_of_a_source_that_does_not_answer_sees_all_that_it_missed() {
    for silent in [false, true] {
        let mut bench = Bench::new(8_000_000);
        let mut one = Source::new(1);
        if silent {
            one.picture(true, 3_000, RoomTime(0));
            bench.hush(&one);
        }
        bench.egress.set_room(&snapshot(&[&one]));
        while bench.ms() < 3_000 {
            match bench.ms() {
                1_000 => bench.link.bytes_per_ms.set(0),
                1_400 => bench.link.bytes_per_ms.set(1_000),
                _ => {}
            }
            bench.step(|ms, now| {
                if ms.is_multiple_of(33) {
                    one.picture(ms == 0, 3_000, now);
                }
            });
        }
        bench.receiver.assert_decodable();
        let shown = &bench.receiver.video;
        assert_eq!(shown.last().map(|frame| frame.1), Some(one.pictures - 1), "live again");
        assert_eq!(shown.iter().filter(|frame| frame.3).count(), 1, "without a keyframe");
        assert_eq!(shown.len() as u32, one.pictures - u32::from(silent));
    }
}

#[test]
fn wait_that_ends_while_a_frame_is_being_sent_is_not_called_for() {
    let mut one = Source::new(1);
    one.picture(true, 80_000, RoomTime(0));
    for n in 1..150u64 {
        one.picture(false, 2_000, RoomTime::from_millis(n * 33));
    }
    // The cached keyframe takes 320 ms; its deltas wait for 250.
    let mut bench = Bench::new(2_000_000);
    bench.now = RoomTime::from_millis(5_000);
    bench.egress.set_room(&snapshot(&[&one]));
    let mut blocked = 0;
    while bench.now < RoomTime::from_millis(5_400) {
        let now = bench.now;
        bench.step(|_, _| {});
        if bench.egress.sending.is_some() {
            assert_eq!(bench.egress.poll_timeout(now), Some(now.plus(RETRY)), "at {now:?}");
            blocked += u32::from(now > RoomTime::from_millis(5_250));
        }
    }
    assert!(blocked > 0, "the keyframe was on its way when the wait ended");
}

#[test]
fn keyframe_request_that_came_to_nothing_is_made_again() {
    let mut bench = Bench::new(50_000_000);
    let mut one = Source::new(1);
    bench.egress.set_room(&snapshot(&[&one]));
    bench.step(|_, _| {});
    assert_eq!(bench.keyframes_asked(Reason::Join), 1);
    while bench.ms() < 2_100 {
        bench.step(|ms, now| {
            if ms.is_multiple_of(20) {
                one.sound(true, now);
            }
        });
    }
    assert_eq!(
        bench.keyframes_asked(Reason::Join) + bench.keyframes_asked(Reason::Loss),
        2
    );
}

//! The two machines of loss repair, rule by rule.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use wzp_proto::nack::{RepairStats, SentLimits, SentStats};
use wzp_proto::{LossRepair, Repair, SentPackets};

const START: Duration = Duration::from_secs(1000);

fn at(ms: u64) -> Duration {
    START + Duration::from_millis(ms)
}

fn datagram(seq: u32) -> Bytes {
    Bytes::copy_from_slice(&seq.to_be_bytes())
}

fn polls(repair: &mut LossRepair, now: Duration) -> Vec<Repair> {
    std::iter::from_fn(|| repair.poll(now)).collect()
}

/// 10 ms away, 33 ms between frames.
fn near() -> LossRepair {
    let mut repair = LossRepair::new();
    repair.set_rtt(Duration::from_millis(10));
    repair
}

/// As [`near`], and the peer has answered a request; `last` is the number seen last.
fn proven(last: u32) -> LossRepair {
    let mut repair = near();
    let before = |ms: u64| START - Duration::from_millis(ms);
    repair.on_packet(last.wrapping_sub(2), before(2_000));
    repair.on_packet(last, before(2_000));
    assert_eq!(
        polls(&mut repair, before(1_950)),
        [Repair::Nack(vec![last.wrapping_sub(1)])]
    );
    repair.on_packet(last.wrapping_sub(1), before(1_930));
    assert_eq!((repair.missing(), repair.stats().repaired), (0, 1));
    repair
}

#[test]
fn a_stream_joined_in_the_middle_is_not_missing_its_beginning() {
    let mut repair = near();
    repair.on_packet(50_000, at(0));
    repair.on_packet(50_001, at(1));
    assert_eq!(repair.missing(), 0);
    assert_eq!(polls(&mut repair, at(1000)), []);
    assert_eq!(repair.next_poll(), None);
}

#[test]
fn missing_packets_are_asked_for_after_one_frame_interval() {
    let mut repair = proven(u32::MAX);
    repair.on_packet(2, at(10));
    assert_eq!(repair.next_poll(), Some(at(43)));
    assert_eq!(polls(&mut repair, at(42)), []);
    assert_eq!(polls(&mut repair, at(43)), [Repair::Nack(vec![0, 1])]);
    repair.on_packet(0, at(53));
    // Again after twice the round trip, and only what is still missing.
    assert_eq!(polls(&mut repair, at(62)), []);
    assert_eq!(polls(&mut repair, at(63)), [Repair::Nack(vec![1])]);
    repair.on_packet(1, at(70));
    assert_eq!(polls(&mut repair, at(1000)), []);
    assert_eq!(
        repair.stats(),
        RepairStats {
            missing: 1 + 2,
            repaired: 1 + 2,
            asked: 1 + 3,
            ..Default::default()
        }
    );
}

#[test]
fn reordered_packets_are_not_asked_for() {
    let mut repair = near();
    for seq in [10, 12, 11, 15, 13, 14, 16] {
        repair.on_packet(seq, at(seq.into()));
    }
    assert_eq!(polls(&mut repair, at(1000)), []);
    assert_eq!(
        repair.stats(),
        RepairStats {
            missing: 3,
            reordered: 3,
            ..Default::default()
        }
    );
}

#[test]
fn far_senders_are_asked_for_a_keyframe() {
    for (rtt, slow) in [(65, false), (66, true)] {
        let mut repair = LossRepair::new();
        repair.set_rtt(Duration::from_millis(rtt));
        repair.set_frame_interval(Duration::from_millis(33));
        repair.on_packet(0, at(0));
        repair.on_packet(2, at(0));
        let expected = if slow { Repair::Keyframe } else { Repair::Nack(vec![1]) };
        assert_eq!(polls(&mut repair, at(33)), [expected]);
        assert_eq!(repair.needs_keyframe(), slow);
    }
}

#[test]
fn what_does_not_come_is_given_up_for_a_keyframe() {
    let mut repair = proven(0);
    repair.on_packet(2, at(0));
    let mut asked = Vec::new();
    for ms in 0..400 {
        repair.on_packet(3 + ms as u32, at(ms));
        asked.extend(polls(&mut repair, at(ms)).into_iter().map(|what| (ms, what)));
    }
    let nack = || Repair::Nack(vec![1]);
    assert_eq!(
        asked,
        [(33, nack()), (53, nack()), (73, nack()), (113, Repair::Keyframe)]
    );
    assert_eq!((repair.missing(), repair.stats().lost), (0, 1));
}

#[test]
fn a_peer_that_has_never_answered_is_asked_once_for_each_number() {
    let mut repair = near();
    repair.on_packet(0, at(0));
    repair.on_packet(2, at(0));
    let mut asked = Vec::new();
    for ms in 0..400 {
        repair.on_packet(3 + ms as u32, at(ms));
        asked.extend(polls(&mut repair, at(ms)).into_iter().map(|what| (ms, what)));
    }
    assert_eq!(asked, [(33, Repair::Nack(vec![1])), (73, Repair::Keyframe)]);
}

#[test]
fn what_the_caller_waits_for_no_longer_is_lost_and_counts_as_unanswered() {
    let mut repair = near();
    for (round, seq) in (0..3).map(|round| (round, round as u32 * 10)) {
        let now = round * 1000;
        repair.on_packet(seq, at(now));
        repair.on_packet(seq + 2, at(now));
        assert_eq!(polls(&mut repair, at(now + 33)), [Repair::Nack(vec![seq + 1])]);
        repair.on_packet(seq + 3, at(now + 60));
        repair.give_up_before(seq + 1);
        assert_eq!(repair.missing(), 1, "the number itself is still waited for");
        repair.give_up_before(seq + 2);
        assert_eq!(polls(&mut repair, at(now + 60)), [Repair::Keyframe]);
        repair.on_keyframe(seq + 4);
        (4..10).for_each(|n| repair.on_packet(seq + n, at(now + 70)));
    }
    assert!(repair.is_silent());
    assert_eq!(repair.stats().lost, 3);
}

#[test]
fn a_keyframe_is_asked_for_again_until_it_comes() {
    let mut repair = near();
    repair.set_rtt(Duration::from_millis(100));
    repair.on_packet(0, at(0));
    repair.on_packet(2, at(0));
    assert_eq!(polls(&mut repair, at(33)), [Repair::Keyframe]);
    assert_eq!(repair.next_poll(), Some(at(533)));
    assert_eq!(polls(&mut repair, at(532)), []);
    assert_eq!(polls(&mut repair, at(533)), [Repair::Keyframe]);
    repair.on_keyframe(3);
    assert!(!repair.needs_keyframe());
    // The next loss comes at once, but requests keep their distance.
    for seq in [3, 4, 6] {
        repair.on_packet(seq, at(540));
    }
    assert_eq!(polls(&mut repair, at(600)), []);
    assert_eq!(repair.next_poll(), Some(at(783)));
    assert_eq!(polls(&mut repair, at(783)), [Repair::Keyframe]);
}

#[test]
fn a_keyframe_makes_older_losses_unimportant() {
    let mut repair = near();
    for seq in [0, 2, 4, 6] {
        repair.on_packet(seq, at(0));
    }
    repair.on_keyframe(4);
    assert_eq!(polls(&mut repair, at(33)), [Repair::Nack(vec![5])]);
}

#[test]
fn no_more_than_fifty_numbers_are_asked_for_in_a_second() {
    let mut repair = near();
    repair.on_packet(0, at(0));
    repair.on_packet(51, at(0));
    assert_eq!(repair.missing(), 50);
    let asked = polls(&mut repair, at(33));
    assert!(matches!(&asked[..], [Repair::Nack(seqs)] if seqs.len() == 50));
    (1..51).for_each(|seq| repair.on_packet(seq, at(40)));
    repair.on_packet(53, at(100));
    assert_eq!(polls(&mut repair, at(200)), [Repair::Keyframe]);
    repair.on_keyframe(54);
    for seq in [54, 56] {
        repair.on_packet(seq, at(1000));
    }
    assert_eq!(polls(&mut repair, at(1033)), [Repair::Nack(vec![55])]);
}

#[test]
fn gaps_beyond_the_bound_are_not_kept() {
    let mut repair = near();
    repair.on_packet(0, at(0));
    repair.on_packet(129, at(0));
    assert_eq!(repair.missing(), 128);
    repair.on_packet(131, at(1));
    assert_eq!(repair.missing(), 1);
    assert!(repair.needs_keyframe());
    repair.on_packet(131 + 130, at(2));
    assert_eq!(repair.missing(), 0);
    assert_eq!(repair.stats().lost, 128 + 1 + 129);
}

#[test]
fn a_peer_that_never_answers_is_not_asked_again() {
    let mut repair = near();
    let (mut now, mut seq, mut nacks) = (0, 0, 0);
    for _ in 0..20 {
        seq += 2;
        for _ in 0..40 {
            repair.on_packet(seq, at(now));
            seq += 1;
            now += 10;
            for what in polls(&mut repair, at(now)) {
                match what {
                    Repair::Nack(_) => nacks += 1,
                    Repair::Keyframe => repair.on_keyframe(seq),
                }
            }
        }
    }
    assert!(repair.is_silent());
    assert_eq!(nacks, 3);
    // It is asked for keyframes instead, one frame interval after the loss.
    repair.on_packet(seq + 1, at(now));
    assert_eq!(polls(&mut repair, at(now + 33)), [Repair::Keyframe]);
}

#[test]
fn an_outage_is_not_taken_for_silence() {
    let mut repair = near();
    let (mut now, mut seq) = (0, 0);
    for _ in 0..10 {
        repair.on_packet(seq, at(now));
        repair.on_packet(seq + 2, at(now));
        seq += 3;
        // Nothing at all comes through while the machine asks.
        for _ in 0..100 {
            now += 10;
            polls(&mut repair, at(now));
        }
        repair.on_keyframe(seq);
    }
    assert!(!repair.is_silent());
}

#[test]
fn a_peer_that_answered_is_trusted_longer() {
    let mut repair = near();
    repair.on_packet(0, at(0));
    repair.on_packet(2, at(0));
    assert_eq!(polls(&mut repair, at(33)), [Repair::Nack(vec![1])]);
    repair.on_packet(1, at(43));
    let (mut seq, mut losses) = (2, 0);
    for ms in 50.. {
        seq += 1;
        if ms % 300 == 0 {
            losses += 1;
            seq += 1;
        }
        repair.on_packet(seq, at(ms));
        if polls(&mut repair, at(ms)).contains(&Repair::Keyframe) {
            repair.on_keyframe(seq);
            assert_eq!(repair.is_silent(), losses == 10);
        }
        if losses == 11 {
            break;
        }
    }
}

#[test]
fn a_counter_that_starts_again_is_followed() {
    let mut repair = near();
    repair.on_packet(500_000, at(0));
    repair.on_packet(0, at(1));
    assert_eq!(repair.missing(), 0);
    repair.on_packet(1, at(2));
    repair.on_packet(3, at(3));
    assert_eq!(repair.missing(), 1);
    // One stray packet is not a new counter.
    repair.on_packet(900_000, at(4));
    repair.on_packet(4, at(5));
    repair.on_packet(900_001, at(6));
    assert_eq!(repair.missing(), 1);
}

#[test]
fn what_was_sent_is_sent_again() {
    let mut sent = SentPackets::default();
    for seq in 0..5u32 {
        sent.insert(seq.wrapping_sub(2), datagram(seq), at(0));
    }
    let again = sent.answer(&[u32::MAX, 1, 7, u32::MAX - 1], at(10));
    assert_eq!(again, [datagram(1), datagram(3), datagram(0)]);
    assert_eq!(
        sent.stats(),
        SentStats {
            resent: 3,
            not_resent: 1
        }
    );
}

#[test]
fn sent_packets_are_held_for_half_a_second() {
    let mut sent = SentPackets::default();
    sent.insert(0, datagram(0), at(0));
    sent.insert(1, datagram(1), at(1));
    assert_eq!(sent.answer(&[0], at(500)).len(), 1);
    assert_eq!(sent.answer(&[0, 1], at(501)), [datagram(1)]);
    sent.insert(2, datagram(2), at(1000));
    assert_eq!((sent.len(), sent.bytes()), (1, 4));
}

#[test]
fn sent_packets_are_bounded_in_number_and_bytes() {
    let limits = SentLimits {
        packets: 10,
        bytes: 1000,
        ..Default::default()
    };
    let mut sent = SentPackets::new(limits);
    (0..11).for_each(|seq| sent.insert(seq, datagram(seq), at(0)));
    assert_eq!(sent.len(), 10);
    assert_eq!(sent.answer(&[0], at(0)), [] as [Bytes; 0]);
    sent.insert(11, vec![0; 990].into(), at(0));
    assert_eq!((sent.len(), sent.bytes()), (3, 998));
    // One packet that alone is too much is not held either.
    sent.insert(12, vec![0; 1001].into(), at(0));
    assert_eq!((sent.len(), sent.bytes()), (0, 0));
}

#[test]
fn requests_do_not_multiply_traffic() {
    let mut sent = SentPackets::default();
    sent.insert(7, datagram(7), at(0));
    let again: usize = (0..400).map(|ms| sent.answer(&[7; 100], at(ms)).len()).sum();
    assert_eq!(again, 3);
}

#[test]
fn a_counter_that_starts_again_forgets_what_was_sent() {
    let mut sent = SentPackets::default();
    sent.insert(1000, datagram(1000), at(0));
    sent.insert(0, datagram(0), at(1));
    assert_eq!(sent.answer(&[1000, 0], at(2)), [datagram(0)]);
}

proptest! {
    #[test]
    fn any_requests_are_answered_within_bounds(
        inserts in proptest::collection::vec((0..4u32, 0..200usize, 0..50u64), 0..100),
        requests in proptest::collection::vec(any::<u32>(), 0..20),
        start: u32,
    ) {
        let limits = SentLimits { packets: 20, bytes: 1000, ..Default::default() };
        let mut sent = SentPackets::new(limits);
        let (mut seq, mut now) = (start, at(0));
        for (step, len, elapsed) in inserts {
            seq = seq.wrapping_add(step);
            now += Duration::from_millis(elapsed);
            sent.insert(seq, vec![0; len].into(), now);
            prop_assert!(sent.len() <= 20 && sent.bytes() <= 1000);
            let near: Vec<u32> = requests.iter().map(|n| seq.wrapping_sub(n % 32)).collect();
            prop_assert!(sent.answer(&near, now).len() <= 20 * 3);
            sent.answer(&requests, now);
        }
    }
}

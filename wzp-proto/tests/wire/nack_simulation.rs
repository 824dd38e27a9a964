//! Sender, link and receiver of a repaired stream, in memory and with a clock of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use wzp_proto::{LossRepair, Repair, SentPackets};

/// What happens to one packet.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    Lost,
    /// Arrives this many ms late.
    Late(u8),
    /// Arrives twice.
    Twice,
}

fn fate(loss_percent: u32, latest_ms: u8) -> impl Strategy<Value = Fate> {
    prop_oneof![
        100 - loss_percent => Just(Fate::Arrives),
        loss_percent => Just(Fate::Lost),
        3 => (0..latest_ms).prop_map(Fate::Late),
        1 => Just(Fate::Twice),
    ]
}

/// Packets per second of the stream: 4 per frame at 25 frames.
const PACKET_MS: u64 = 10;

struct Outcome {
    repair: LossRepair,
    received: BTreeSet<u32>,
    first_received: Option<u32>,
    sent: u32,
    /// Times at which each number was asked for.
    asked: BTreeMap<u32, Vec<u64>>,
    keyframe_requests: Vec<u64>,
}

fn simulate(first_seq: u32, one_way: u64, answers: bool, fates: &[Fate]) -> Outcome {
    let mut repair = LossRepair::new();
    repair.set_rtt(Duration::from_millis(2 * one_way));
    let mut history = SentPackets::default();
    let mut fates = fates.iter().copied().cycle();
    let mut link: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    let mut requests: VecDeque<(u64, Vec<u32>)> = VecDeque::new();
    let mut keyframes: VecDeque<u64> = VecDeque::new();
    let mut outcome = Outcome {
        repair: LossRepair::new(),
        received: BTreeSet::new(),
        first_received: None,
        sent: 0,
        asked: BTreeMap::new(),
        keyframe_requests: Vec::new(),
    };
    let mut transmit = |link: &mut BTreeMap<u64, Vec<u32>>, seq: u32, at: u64| match fates.next() {
        Some(Fate::Arrives) => link.entry(at + one_way).or_default().push(seq),
        Some(Fate::Late(by)) => link.entry(at + one_way + u64::from(by)).or_default().push(seq),
        Some(Fate::Twice) => {
            link.entry(at + one_way).or_default().push(seq);
            link.entry(at + one_way + 5).or_default().push(seq);
        }
        Some(Fate::Lost) | None => {}
    };
    for ms in 0..6_000u64 {
        let now = Duration::from_millis(ms);
        if ms % PACKET_MS == 0 && ms < 5_000 {
            let seq = first_seq.wrapping_add(outcome.sent);
            history.insert(seq, Bytes::copy_from_slice(&seq.to_be_bytes()), now);
            transmit(&mut link, seq, ms);
            outcome.sent += 1;
        }
        while requests.front().is_some_and(|(at, _)| *at <= ms) {
            let (_, seqs) = requests.pop_front().unwrap();
            if answers {
                for datagram in history.answer(&seqs, now) {
                    transmit(&mut link, u32::from_be_bytes(datagram[..].try_into().unwrap()), ms);
                }
            }
        }
        for seq in link.remove(&ms).unwrap_or_default() {
            repair.on_packet(seq, now);
            outcome.first_received.get_or_insert(seq.wrapping_sub(first_seq));
            outcome.received.insert(seq.wrapping_sub(first_seq));
        }
        // The keyframe arrives one round trip after it was asked for.
        while keyframes.front().is_some_and(|at| *at <= ms) {
            keyframes.pop_front();
            repair.on_keyframe(first_seq.wrapping_add(outcome.sent));
        }
        while let Some(what) = repair.poll(now) {
            match what {
                Repair::Nack(seqs) => {
                    assert!(!repair.is_silent(), "asked a silent peer");
                    for seq in &seqs {
                        outcome.asked.entry(seq.wrapping_sub(first_seq)).or_default().push(ms);
                    }
                    requests.push_back((ms + one_way, seqs));
                }
                Repair::Keyframe => {
                    outcome.keyframe_requests.push(ms);
                    keyframes.push_back(ms + 2 * one_way);
                }
            }
        }
        assert!(repair.next_poll().is_none_or(|at| at > now), "nothing left to do now");
        assert!(repair.missing() <= 128);
    }
    outcome.repair = repair;
    outcome
}

fn check_budgets(outcome: &Outcome, one_way: u64) -> Result<(), TestCaseError> {
    let mut all: Vec<u64> = outcome.asked.values().flatten().copied().collect();
    all.sort_unstable();
    for window in all.windows(51) {
        prop_assert!(window[50] - window[0] >= 1000, "51 numbers within a second");
    }
    for (seq, times) in &outcome.asked {
        prop_assert!(*seq < outcome.sent, "asked for what was never sent: {}", seq);
        prop_assert!(times.len() <= 3);
        prop_assert!(
            times.windows(2).all(|pair| pair[1] - pair[0] >= 4 * one_way),
            "{:?}",
            times
        );
    }
    prop_assert!(
        outcome
            .keyframe_requests
            .windows(2)
            .all(|pair| pair[1] - pair[0] >= 250)
    );
    prop_assert_eq!(outcome.repair.missing(), 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_peer_that_answers_repairs_nearly_everything(
        first_seq: u32,
        one_way in 1..16u64,
        fates in proptest::collection::vec(fate(3, 80), 200..800),
    ) {
        let outcome = simulate(first_seq, one_way, true, &fates);
        check_budgets(&outcome, one_way)?;
        if outcome.repair.is_silent() {
            // The first three answers were all lost, by chance: once in some thousand cases.
            prop_assert_eq!(outcome.repair.stats().repaired, 0);
            return Ok(());
        }
        // What is still missing was lost again every time it was sent again, or lies before the first arrival or
        // after the last one, or was given up with such a packet.
        let (first, last) = (outcome.first_received.unwrap(), *outcome.received.last().unwrap());
        let gaps = (first..last).filter(|seq| !outcome.received.contains(seq)).count();
        prop_assert!(gaps == 0 || !outcome.keyframe_requests.is_empty(), "{} gaps and no keyframe", gaps);
        prop_assert!(gaps <= 8, "{} gaps", gaps);
    }

    #[test]
    fn a_peer_that_never_answers_is_soon_asked_for_keyframes_only(
        first_seq: u32,
        one_way in 1..16u64,
        fates in proptest::collection::vec(fate(5, 30), 200..800),
    ) {
        let outcome = simulate(first_seq, one_way, false, &fates);
        check_budgets(&outcome, one_way)?;
        // Every keyframe that it was asked for followed unanswered requests, unless nothing at all came through.
        prop_assert!(outcome.repair.is_silent() || outcome.keyframe_requests.len() <= 5);
    }

    #[test]
    fn wild_numbers_and_times_are_survived(
        packets in proptest::collection::vec((any::<u32>(), 0..20u8, 0..2000u64, any::<bool>()), 0..300),
        rtt in 0..100u64,
    ) {
        let mut repair = LossRepair::new();
        repair.set_rtt(Duration::from_millis(rtt));
        let (mut seq, mut now) = (0u32, Duration::ZERO);
        for (wild, step, elapsed, keyframe) in packets {
            seq = match step {
                0 => wild,
                1 => seq.wrapping_sub(wild % 40),
                _ => seq.wrapping_add(u32::from(step) - 1),
            };
            now += Duration::from_millis(elapsed % u64::from(1 + step) * 10);
            repair.on_packet(seq, now);
            if keyframe && step % 7 == 0 {
                repair.on_keyframe(seq);
            }
            let mut polls = 0;
            while let Some(what) = repair.poll(now) {
                if let Repair::Nack(seqs) = what {
                    prop_assert!(!seqs.is_empty() && seqs.len() <= 50);
                }
                polls += 1;
                prop_assert!(polls <= 3, "poll does not come to rest");
            }
            prop_assert!(repair.missing() <= 128);
            prop_assert!(repair.next_poll().is_none_or(|at| at > now));
        }
    }
}

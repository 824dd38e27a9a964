//! Senders behind one connection, simulated in virtual time from a seed: how many packets go to the wrong stream.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wzp_gateway::media::frame::RoomTime;
use wzp_gateway::uplink::roster::{Owner, Roster};
use wzp_gateway::uplink::separate::{Config, Event, Placement, Separator, StreamId};
use wzp_proto::codec::Codec;
use wzp_proto::header::{Flags, MediaHeader, MediaType};
use wzp_proto::signal::RoomParticipant;

const SECOND: u64 = 1_000_000;
const FIVE_MINUTES: u64 = 300 * SECOND;

/// How a talker is silent.
#[derive(Clone, Copy, PartialEq)]
enum Silence {
    /// Frames go on; a muted native does that.
    Sent,
    /// Media time goes on, frames are left out, every tenth is comfort noise.
    Suppressed,
    /// Nothing goes on, media time neither.
    Stopped,
}

/// A native as the separator sees it. Times in µs.
#[derive(Clone)]
struct Talker {
    join: u64,
    leave: u64,
    first_seq: u32,
    first_timestamp: u32,
    codec: Codec,
    /// How much faster its clock runs, in millionths.
    drift_ppm: i64,
    /// Mean length of talk and of silence in seconds, and what silence is; none: it talks all the time.
    pauses: Option<(f64, f64, Silence)>,
    /// When it counts anew.
    restart: Option<u64>,
    /// From when on it uses which codec instead.
    switches: Vec<(u64, Codec)>,
    /// Delay of its own path: least, and mean of what comes on top.
    delay: (u64, f64),
}

impl Talker {
    fn joining_at(join_ms: u64) -> Self {
        Self {
            join: join_ms * 1000,
            leave: FIVE_MINUTES,
            first_seq: 0,
            first_timestamp: 0,
            codec: Codec::Opus24k,
            drift_ppm: 0,
            pauses: None,
            restart: None,
            switches: Vec::new(),
            delay: (30_000, 5_000.0),
        }
    }

    /// Departure and header of every packet.
    fn packets(&self, rng: &mut StdRng) -> Vec<(u64, MediaHeader)> {
        let (mut at, mut seq, mut timestamp) = (self.join, self.first_seq, self.first_timestamp);
        let (mut silent, mut until, mut suppressed) = (false, self.join, 0);
        let mut restart = self.restart;
        let mut packets = Vec::new();
        let mut source_frames = 0;
        while at < self.leave {
            let switched = self.switches.iter().rev().find(|(from, _)| *from <= at);
            let mut codec = switched.map_or(self.codec, |(_, codec)| *codec);
            let frame_ms = codec.frame_ms();
            let frame = u64::from(frame_ms) * 1000;
            let frame = frame.saturating_add_signed(-(frame as i64) * self.drift_ppm / 1_000_000);
            if let Some((talk, pause, _)) = self.pauses
                && at >= until
            {
                silent = !silent && at > self.join;
                until = at + (exponential(rng, if silent { pause } else { talk }) * SECOND as f64) as u64;
            }
            if restart.is_some_and(|restart| at >= restart) {
                restart = None;
                (seq, timestamp) = (0, 0);
                // An app takes a moment to come back.
                at += 400_000;
            }
            let kind = self.pauses.map_or(Silence::Sent, |(_, _, kind)| kind);
            if silent && kind == Silence::Stopped {
                at += frame;
                continue;
            }
            let leave_out = if silent && kind == Silence::Suppressed {
                suppressed += 1;
                codec = Codec::ComfortNoise;
                suppressed % 10 != 0
            } else {
                suppressed = 0;
                false
            };
            if !leave_out {
                packets.push((at, audio(codec, seq, timestamp)));
                seq = seq.wrapping_add(1);
            }
            timestamp = timestamp.wrapping_add(frame_ms);
            if codec.is_codec2() {
                packets.last_mut().expect("sent just now").1.fec_ratio = 100;
                source_frames += 1;
                for symbol in (8..16).filter(|_| source_frames % 8 == 0) {
                    let mut repair = audio(codec, seq, timestamp);
                    (repair.flags, repair.fec_ratio, repair.fec_block) = (Flags::REPAIR, 100, symbol << 8);
                    packets.push((at, repair));
                    seq = seq.wrapping_add(1);
                }
            }
            at += frame;
        }
        packets
    }
}

pub fn audio(codec: Codec, seq: u32, timestamp: u32) -> MediaHeader {
    MediaHeader {
        flags: Flags::empty(),
        media_type: MediaType::Audio,
        codec,
        stream_id: 0,
        fec_ratio: 0,
        seq,
        timestamp,
        fec_block: 0,
    }
}

fn exponential(rng: &mut StdRng, mean: f64) -> f64 {
    -mean * (1.0 - rng.random::<f64>()).ln()
}

/// What comes out of the relay: arrival, sender, header. 3 % are lost, 3 % come 20 to 100 ms later than the others.
fn arrivals(talkers: &[Talker], rng: &mut StdRng) -> Vec<(u64, usize, MediaHeader)> {
    let mut arrivals = Vec::new();
    for (sender, talker) in talkers.iter().enumerate() {
        for (sent, header) in talker.packets(rng) {
            if rng.random_bool(0.03) {
                continue;
            }
            let mut at = sent + talker.delay.0 + exponential(rng, talker.delay.1) as u64;
            if rng.random_bool(0.03) {
                at += rng.random_range(20_000..100_000);
            }
            arrivals.push((at, sender, header));
        }
    }
    arrivals.sort_by_key(|&(at, sender, _)| (at, sender));
    arrivals
}

struct Outcome {
    packets: usize,
    misassigned: usize,
    merged: usize,
    streams: usize,
    most_streams: usize,
    /// By sender: the stream of most of its packets.
    main: Vec<Option<StreamId>>,
    events: Vec<(usize, Placement)>,
}

impl Outcome {
    fn share(&self) -> f64 {
        self.misassigned as f64 / self.packets as f64
    }
}

fn separate(talkers: &[Talker], seed: u64) -> Outcome {
    separate_after(talkers, seed, |at| at)
}

/// `path` delays what all senders share.
fn separate_after(talkers: &[Talker], seed: u64, path: impl Fn(u64) -> u64) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut arrivals = arrivals(talkers, &mut rng);
    for (at, ..) in &mut arrivals {
        *at = path(*at);
    }
    arrivals.sort_by_key(|&(at, ..)| at);
    let mut separator = Separator::new(Config::default());
    let mut most_streams = 0;
    let mut events = Vec::new();
    for (at, sender, header) in &arrivals {
        let at = Duration::from_micros(*at);
        separator.expire(at);
        events.push((*sender, separator.push(header, at)));
        most_streams = most_streams.max(separator.len());
    }
    // A packet is where it belongs if it is in the stream that has most of its sender's packets, and that stream has
    // most of its packets from this sender.
    let mut counts: BTreeMap<(usize, StreamId), usize> = BTreeMap::new();
    for (sender, placement) in &events {
        *counts.entry((*sender, placement.stream)).or_default() += 1;
    }
    let main: Vec<_> = (0..talkers.len())
        .map(|sender| {
            let own = counts.iter().filter(|((s, _), _)| *s == sender);
            own.max_by_key(|(_, count)| **count).map(|((_, stream), _)| *stream)
        })
        .collect();
    let owner = |stream: StreamId| {
        let of = counts.iter().filter(|((_, s), _)| *s == stream);
        of.max_by_key(|(_, count)| **count).map(|((sender, _), _)| *sender)
    };
    let misassigned = counts
        .iter()
        .filter(|((sender, stream), _)| main[*sender] != Some(*stream) || owner(*stream) != Some(*sender))
        .map(|(_, count)| count)
        .sum();
    let mut streams: Vec<_> = counts.keys().map(|(_, stream)| *stream).collect();
    streams.sort();
    streams.dedup();
    Outcome {
        packets: events.len(),
        misassigned,
        merged: events.iter().filter(|(_, p)| p.event == Event::Merged).count(),
        streams: streams.len(),
        most_streams,
        main,
        events,
    }
}

fn assert_apart(what: &str, talkers: &[Talker]) {
    for seed in 0..5 {
        let outcome = separate(talkers, seed);
        println!(
            "{what}, seed {seed}: {} of {} packets misassigned ({:.3} %), {} merged, {} streams, at most {} at once",
            outcome.misassigned,
            outcome.packets,
            outcome.share() * 100.0,
            outcome.merged,
            outcome.streams,
            outcome.most_streams
        );
        assert!(
            outcome.share() < 0.01,
            "{what}, seed {seed}: {:.2} %",
            outcome.share() * 100.0
        );
    }
}

fn with(join_ms: u64, change: impl FnOnce(&mut Talker)) -> Talker {
    let mut talker = Talker::joining_at(join_ms);
    change(&mut talker);
    talker
}

#[test]
fn two_natives_that_joined_two_seconds_apart_come_apart() {
    let talkers = [
        with(0, |t| t.drift_ppm = 100),
        with(2_000, |t| t.delay = (60_000, 15_000.0)),
    ];
    assert_apart("two natives", &talkers);
}

/// How a leg takes what two natives send: by name. The share that goes elsewhere, also while nobody has a name yet.
fn named(talkers: &[Talker; 2], seed: u64) -> f64 {
    const NAMES: [&str; 2] = ["Bo", "Cy"];
    let mut rng = StdRng::seed_from_u64(seed);
    let mut separator = Separator::new(Config::of_leg());
    let mut roster = Roster::new("us".to_owned());
    let who = |name: &str| RoomParticipant {
        fingerprint: name.to_owned(),
        alias: Some(name.to_owned()),
        relay_label: None,
        stream_id: None,
    };
    let arrivals = arrivals(talkers, &mut rng);
    let (mut listed, mut elsewhere, mut pulse) = (0, 0, 0);
    for (at, sender, header) in &arrivals {
        let now = RoomTime(*at);
        let there = talkers.iter().filter(|talker| talker.join + 10_000 <= *at).count();
        if listed < there {
            listed = there;
            let list = ["us"].into_iter().chain(NAMES.into_iter().take(there)).map(who);
            roster.list(list.collect(), "us", now);
            separator.expect_newcomers(roster.unheard());
        }
        if at / 400_000 > pulse {
            pulse = at / 400_000;
            let vanished = separator.expire(Duration::from_micros(*at));
            roster.vanished(&vanished);
            separator.expect_newcomers(roster.unheard());
        }
        let placed = separator.push(header, Duration::from_micros(*at));
        match placed.event {
            Event::Duplicate => continue,
            Event::Restarted => roster.restarted(placed.stream),
            _ => {}
        }
        if roster.seen(placed.stream, header, now) {
            separator.expect_newcomers(roster.unheard());
        }
        roster.blur(placed.stream, placed.event == Event::Merged);
        let owner = match roster.owner(placed.stream) {
            Some(Owner::Member(key)) => key.fingerprint.as_str(),
            _ => "",
        };
        elsewhere += usize::from(owner != NAMES[*sender]);
    }
    elsewhere as f64 / arrivals.len() as f64
}

#[test]
fn two_natives_have_their_own_names_as_a_leg_gives_them() {
    let bad = |t: &mut Talker| t.delay = (80_000, 40_000.0);
    let pausing = |t: &mut Talker| t.pauses = Some((4.0, 3.0, Silence::Sent));
    let cases: [[Talker; 2]; 3] = [
        [
            with(50, |t| t.drift_ppm = 100),
            with(2_050, |t| t.delay = (60_000, 15_000.0)),
        ],
        [with(50, bad), with(2_050, bad)],
        [with(50, pausing), with(2_050, pausing)],
    ];
    for (n, talkers) in cases.iter().enumerate() {
        for seed in 0..5 {
            let share = named(talkers, seed);
            println!(
                "case {n}, seed {seed}: {:.3} % went to another name or none",
                share * 100.0
            );
            assert!(share < 0.01, "case {n}, seed {seed}: {share}");
        }
    }
}

#[test]
fn bad_paths_keep_them_apart() {
    let bad = |t: &mut Talker| t.delay = (80_000, 40_000.0);
    assert_apart("two natives on bad paths", &[with(0, bad), with(2_000, bad)]);
}

#[test]
fn silence_of_every_kind_keeps_them_apart() {
    for kind in [Silence::Sent, Silence::Suppressed, Silence::Stopped] {
        let talkers = [
            with(0, |t| {
                t.drift_ppm = 100;
                t.pauses = Some((4.0, 3.0, kind));
            }),
            with(2_000, |t| {
                t.drift_ppm = -100;
                t.pauses = Some((5.0, 2.0, kind));
            }),
        ];
        assert_apart("two natives with pauses", &talkers);
    }
}

#[test]
fn up_to_six_come_apart_whatever_they_are() {
    for count in 3..=6 {
        let talkers: Vec<_> = (0..count)
            .map(|n| {
                with(n * 2_300, |t| {
                    t.drift_ppm = [100, -100, 0, 40, -60, 20][n as usize];
                    t.delay = (20_000 + n * 15_000, 4_000.0 * (n + 1) as f64);
                    t.pauses = match n % 3 {
                        0 => None,
                        1 => Some((6.0, 3.0, Silence::Sent)),
                        _ => Some((6.0, 3.0, Silence::Suppressed)),
                    };
                    if n == 3 {
                        t.codec = Codec::Opus6k;
                    }
                    if n == 4 {
                        // Another gateway begins anywhere.
                        (t.first_seq, t.first_timestamp) = (0xc000_1234, 77_000);
                    }
                })
            })
            .collect();
        assert_apart(&format!("{count} natives"), &talkers);
    }
}

#[test]
fn everybody_may_change_to_worse_codecs_at_once() {
    // What a directive to the whole room brings about, and it takes a moment to act on.
    let switches = |ms: u64| {
        let (degraded, catastrophic) = (Codec::Opus6k, Codec::Codec2_1200);
        [
            (60, degraded),
            (120, catastrophic),
            (200, degraded),
            (250, Codec::Opus24k),
        ]
        .map(|(from, codec)| (from * SECOND + ms * 1000, codec))
        .into()
    };
    let talkers = [
        with(0, |t| t.switches = switches(10)),
        with(2_000, |t| t.switches = switches(35)),
        with(4_500, |t| t.switches = switches(20)),
    ];
    assert_apart("three natives that change codecs", &talkers);
}

#[test]
fn numbers_and_timestamps_may_wrap() {
    let talkers = [
        with(0, |t| {
            (t.first_seq, t.first_timestamp) = (u32::MAX - 3_000, u32::MAX - 90_000)
        }),
        with(2_000, |t| {
            (t.first_seq, t.first_timestamp) = (u32::MAX - 5_000, u32::MAX - 110_000)
        }),
    ];
    assert_apart("wrapping natives", &talkers);
}

#[test]
fn closer_joins_come_apart_down_to_a_fifth_of_a_second() {
    // 0 and 10 ms are below what the paths' jitter adds: a coin would do as well, and it is not judged.
    for (distance_ms, most) in [(0, 1.0), (10, 1.0), (50, 0.05), (100, 0.05), (200, 0.01), (500, 0.01)] {
        let talkers = [with(0, |_| {}), with(distance_ms, |_| {})];
        for seed in 0..5 {
            let outcome = separate(&talkers, seed);
            let (share, merged) = (outcome.share(), outcome.merged);
            println!(
                "joined {distance_ms} ms apart, seed {seed}: {:.2} % misassigned, {merged} merged",
                share * 100.0
            );
            assert!(share <= most, "joined {distance_ms} ms apart, seed {seed}: {share}");
            assert!(outcome.most_streams <= 4, "{} streams", outcome.most_streams);
        }
    }
}

#[test]
fn stalls_of_the_shared_path_change_no_assignment() {
    let talkers = [with(0, |_| {}), with(2_000, |_| {}), with(5_000, |_| {})];
    for stall in [300_000, 800_000, 1_500_000] {
        let outcome = separate_after(&talkers, 1, |at| {
            // The path stands still once in 20 s, then all comes in one burst.
            let into = at % (20 * SECOND);
            if at > 10 * SECOND && into < stall {
                at - into + stall
            } else {
                at
            }
        });
        println!(
            "stalls of {stall} µs: {:.3} % misassigned, {} streams",
            outcome.share() * 100.0,
            outcome.streams
        );
        assert!(outcome.share() < 0.01, "stalls of {stall} µs: {}", outcome.share());
    }
}

#[test]
fn restarted_counter_stays_the_same_stream() {
    let talkers = [
        with(0, |_| {}),
        with(2_500, |t| t.restart = Some(100 * SECOND)),
        with(5_000, |_| {}),
    ];
    for seed in 0..5 {
        let outcome = separate(&talkers, seed);
        let restarts: Vec<_> = outcome
            .events
            .iter()
            .filter(|(_, p)| p.event == Event::Restarted)
            .collect();
        assert_eq!(restarts.len(), 1, "seed {seed}");
        let (sender, placement) = restarts[0];
        assert_eq!((*sender, Some(placement.stream)), (1, outcome.main[1]), "seed {seed}");
        assert!(outcome.share() < 0.01, "seed {seed}: {}", outcome.share());
    }
}

use std::sync::Arc;

use tokio::sync::Notify;
use wzp_proto::codec::Codec;

use super::*;
use crate::media::audio::BLOCK;
use crate::media::audio::encode::MixEncoder;
use crate::media::audio::tests::{amplitude, tone};
use crate::media::frame::{Draft, Kind, TrackId};
use crate::room::subscription::{Cursor, Lag, Next};
use crate::room::track::{Bounds, Track, TrackWriter};

const LAG: Lag = Lag {
    most: u64::MAX,
    resync_age: 0,
};

struct Talker {
    id: ParticipantId,
    hz: f32,
    encoder: MixEncoder,
    writer: TrackWriter,
    cursor: Cursor,
}

impl Talker {
    fn new(id: u32, hz: f32) -> Self {
        let name = TrackId {
            source: ParticipantId(id),
            kind: Kind::Audio,
            slot: 0,
            layer: 0,
        };
        let (track, writer) = Track::create(name, Bounds::AUDIO, 0);
        Self {
            id: name.source,
            hz,
            encoder: MixEncoder::new().unwrap(),
            cursor: Cursor::new(&track, &Arc::new(Notify::new())),
            writer,
        }
    }

    /// The nth 20 ms, loud or silent.
    fn talk(&mut self, n: u64, loud: bool, mix: &mut RoomMix) {
        self.frames(n, loud).iter().for_each(|frame| mix.push(frame));
    }

    fn frames(&mut self, n: u64, loud: bool) -> Vec<Arc<Frame>> {
        let now = RoomTime(n * 20_000 + u64::from(self.id.0) * 1_000);
        let samples = tone(self.hz, if loud { 0.25 } else { 0.0 }, n as usize * BLOCK, BLOCK);
        let draft = Draft {
            codec: Codec::Opus24k,
            keyframe: true,
            ticks: n * 960,
            time: now,
            size: None,
            payload: self.encoder.encode(&samples.try_into().unwrap()).unwrap(),
        };
        self.writer.append(draft, now);
        let mut frames = Vec::new();
        while let Next::Frame(frame) = self.cursor.next(&LAG) {
            frames.push(frame);
        }
        frames
    }
}

/// Three with tones of their own, and how each talks at a time in ms.
fn run(ms: u64, listeners: &[(u32, Wants)], loud: impl Fn(u32, u64) -> bool) -> (Vec<Tick>, RoomMix) {
    let mut talkers = [Talker::new(1, 440.0), Talker::new(2, 660.0), Talker::new(3, 880.0)];
    let mut mix = RoomMix::default();
    mix.set_sources(&talkers.each_ref().map(|talker| talker.id));
    let listeners = listeners
        .iter()
        .map(|(id, wants)| (ParticipantId(*id), *wants))
        .collect();
    let mut ticks = Vec::new();
    for n in 0..ms / 20 {
        for talker in &mut talkers {
            talker.talk(n, loud(talker.id.0, n * 20), &mut mix);
        }
        ticks.push(mix.tick(&listeners, RoomTime(n * 20_000 + 15_000)));
    }
    (ticks, mix)
}

fn decode(ticks: &[Tick], listener: u32) -> Vec<f32> {
    decode_with(
        &mut opus::Decoder::new(48_000, opus::Channels::Mono).unwrap(),
        ticks,
        listener,
    )
}

fn decode_with(decoder: &mut opus::Decoder, ticks: &[Tick], listener: u32) -> Vec<f32> {
    let mut out = Vec::new();
    for tick in ticks {
        let mut pcm = [0.0; BLOCK];
        let packet = tick.opus(ParticipantId(listener)).expect("a packet in every tick");
        decoder.decode_float(packet, &mut pcm, false).unwrap();
        out.extend(pcm);
    }
    out
}

fn decibels(a: f32, b: f32) -> f32 {
    (20.0 * (a / b).log10()).abs()
}

#[test]
fn everyone_hears_the_others_at_their_level_and_not_himself() {
    let all = [1, 2, 3, 9].map(|id| (id, Wants::Opus));
    let (ticks, _) = run(2_000, &all, |_, _| true);
    for (me, own) in [(1, 440.0), (2, 660.0), (3, 880.0), (9, 0.0)] {
        let heard = decode(&ticks[10..], me);
        let heard = &heard[9_600..57_600];
        for hz in [440.0, 660.0, 880.0] {
            let loud = amplitude(heard, hz);
            if hz == own {
                assert!(loud < 0.005, "{me} hears himself: {loud}");
            } else {
                assert!(decibels(loud, 0.25) < 3.0, "{me} hears {hz} at {loud}");
            }
        }
    }
}

#[test]
fn mix_for_a_relay_has_nothing_in_it_that_came_from_there() {
    let mut talkers = [Talker::new(1, 440.0), Talker::new(2, 660.0), Talker::new(3, 880.0)];
    let mut mix = RoomMix::default();
    mix.set_sources(&talkers.each_ref().map(|talker| talker.id));
    mix.set_remote(&BTreeSet::from([ParticipantId(2)]));
    let listeners = BTreeMap::from([(LEG, Wants::Local), (ParticipantId(9), Wants::Opus)]);
    let mut ticks = Vec::new();
    for n in 0..100 {
        for talker in &mut talkers {
            // The third falls silent in the middle.
            talker.talk(n, talker.id.0 != 3 || n < 50, &mut mix);
        }
        ticks.push(mix.tick(&listeners, RoomTime(n * 20_000 + 15_000)));
    }
    let heard = decode(&ticks[10..48], LEG.0);
    let heard = &heard[4_800..];
    assert!(decibels(amplitude(heard, 440.0), 0.25) < 3.0 && decibels(amplitude(heard, 880.0), 0.25) < 3.0);
    assert!(amplitude(heard, 660.0) < 0.005, "{}", amplitude(heard, 660.0));
    // Others hear all three meanwhile.
    assert!(decibels(amplitude(&decode(&ticks[10..48], 9)[4_800..], 660.0), 0.25) < 3.0);
    // One talker of ours is passed through: there is no mix, though the relay's member talks on.
    let mut remote_only = mix;
    for n in 100..300 {
        talkers[1].talk(n, true, &mut remote_only);
        let tick = remote_only.tick(&listeners, RoomTime(n * 20_000 + 15_000));
        assert!(n < 200 || tick.opus(LEG).is_none());
    }
}

#[test]
fn encoders_run_only_for_who_needs_them() {
    let listeners: Vec<_> = (1..=20).map(|id| (id, Wants::Opus)).collect();
    // One talks: nothing is encoded, everything is decoded once.
    let (ticks, mix) = run(1_000, &listeners, |id, _| id == 1);
    assert_eq!(mix.work().encoded, 0);
    assert!((140..=150).contains(&mix.work().decoded), "{:?}", mix.work());
    assert_eq!(ticks.last().unwrap().talkers, [ParticipantId(1)]);
    // Two talk: one mix for the 18 others, none for the two.
    let (ticks, mix) = run(1_000, &listeners, |id, _| id <= 2);
    assert!((45..=53).contains(&mix.work().encoded), "{:?}", mix.work());
    assert!(ticks.last().unwrap().opus(ParticipantId(1)).is_none());
    // Three: one for the others, one each.
    let (_, mix) = run(1_000, &listeners, |_, _| true);
    assert!((4 * 45..=4 * 53).contains(&mix.work().encoded), "{:?}", mix.work());
}

#[test]
fn talk_begins_and_ends_with_hold_and_the_mix_begins_from_the_sound_before() {
    let (ticks, _) = run(3_000, &[(3, Wants::Opus)], |id, ms| {
        id == 1 && !(2_600..2_700).contains(&ms) || id == 2 && (1_000..1_400).contains(&ms)
    });
    let mixed: Vec<_> = ticks
        .iter()
        .filter(|tick| tick.opus(ParticipantId(3)).is_some())
        .collect();
    let (first, last) = (mixed[0].index * 20, mixed.last().unwrap().index * 20);
    assert!((1_000..=1_060).contains(&first), "{first}");
    // Until the other one has paused.
    assert!((2_600..=2_700).contains(&last), "{last}");
    assert_eq!(last - first, (mixed.len() as u64 - 1) * 20, "no hole");
    // The talker who went on is as loud in the first packets of the mix as later.
    let at = first as usize / 20;
    let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).unwrap();
    let mut encoder = MixEncoder::new().unwrap();
    // The packet that came right before was passed through too.
    for n in 0..=at {
        let packet = encoder
            .encode(&tone(440.0, 0.25, n * BLOCK, BLOCK).try_into().unwrap())
            .unwrap();
        decoder.decode_float(&packet, &mut [0.0; BLOCK], false).unwrap();
    }
    let heard = decode_with(&mut decoder, &ticks[at..at + 20], 3);
    for part in heard.chunks_exact(960).take(10) {
        assert!(amplitude(part, 440.0) > 0.15, "{}", amplitude(part, 440.0));
    }
}

#[test]
fn who_hears_one_talkers_packets_keeps_them_when_he_falls_silent_himself() {
    let all = [1, 2, 9].map(|id| (id, Wants::Opus));
    let (ticks, mix) = run(8_000, &all, |id, ms| id == 2 || id == 1 && ms < 2_000);
    let mixed = |id: u32| {
        ticks
            .iter()
            .filter(|tick| tick.opus(ParticipantId(id)).is_some())
            .count()
    };
    // The third hears the mix go on, because the other one does not pause, for as long as it may.
    assert!((330..=345).contains(&mixed(9)), "{}", mixed(9));
    assert_eq!((mixed(1), mixed(2)), (0, 0));
    assert!(mix.work().encoded <= 345 + 3);
}

/// What a member hears in whose ears the second one talks all the time, first by packets and later in the mix.
struct Ear {
    id: ParticipantId,
    decoder: opus::Decoder,
    /// Index of the next packet of the second one.
    next: usize,
    heard: Vec<f32>,
    /// Samples heard when the mix began.
    mixed_from: Option<usize>,
}

impl Ear {
    fn new(id: u32) -> Self {
        Self {
            id: ParticipantId(id),
            decoder: opus::Decoder::new(48_000, opus::Channels::Mono).unwrap(),
            next: 0,
            heard: Vec::new(),
            mixed_from: None,
        }
    }

    /// All packets that came before the tick have been passed through, unless there is a mix already.
    fn hear(&mut self, packets: &[Bytes], tick: &Tick) {
        let mut play = |packet: &[u8]| {
            let mut pcm = [0.0; BLOCK];
            self.decoder.decode_float(packet, &mut pcm, false).unwrap();
            self.heard.extend(pcm);
        };
        if self.mixed_from.is_none() {
            packets[self.next..].iter().for_each(|packet| play(packet));
            self.next = packets.len();
        }
        match tick.opus(self.id) {
            Some(packet) => {
                self.mixed_from.get_or_insert(self.next * BLOCK);
                play(packet);
            }
            None => assert!(self.mixed_from.is_none(), "the mix goes on"),
        }
    }

    /// How loud this tone was at its faintest when the mix began, in parts of 5 ms: a step of its phase, or a hole, makes one of them
    /// faint. (That one is loud for 2.5 ms is the pitch filter of the talker's own packets, which ends in the first of the mix.)
    fn faintest(&self, hz: f32) -> f32 {
        let from = self.mixed_from.expect("a mix");
        assert!((69..=76).contains(&(from / BLOCK)), "{hz}: {from}");
        let around = &self.heard[from - 4 * BLOCK..from + 15 * BLOCK];
        (0..around.len() - 240)
            .step_by(60)
            .map(|at| amplitude(&around[at..at + 240], hz))
            .fold(f32::MAX, f32::min)
    }
}

/// A second talker, of this tone, whom the first listens to, and a third who joins in at 1.4 s, while the first talks in the 20 ms
/// that say so, and somebody else hears a mix of all, once there is one, or samples.
fn third_joins(hz: f32, first_talks: impl Fn(u64) -> bool, other: Wants) -> Ear {
    let mut talkers = [Talker::new(1, 440.0), Talker::new(2, hz), Talker::new(3, 2_000.0)];
    let mut mix = RoomMix::default();
    mix.set_sources(&talkers.each_ref().map(|talker| talker.id));
    let listeners = BTreeMap::from([
        (ParticipantId(1), Wants::Opus),
        (ParticipantId(8), Wants::Opus),
        (ParticipantId(9), other),
    ]);
    let mut ear = Ear::new(1);
    let mut packets = Vec::new();
    for n in 0..95 {
        for talker in &mut talkers {
            let loud = match talker.id.0 {
                1 => first_talks(n),
                2 => true,
                _ => n >= 70,
            };
            let frames = talker.frames(n, loud);
            frames.iter().for_each(|frame| mix.push(frame));
            if talker.id.0 == 2 {
                packets.extend(frames.iter().map(|frame| frame.payload.clone()));
            }
        }
        ear.hear(&packets, &mix.tick(&listeners, RoomTime(n * 20_000 + 15_000)));
    }
    ear
}

#[test]
fn voice_that_went_through_goes_on_in_the_mix_in_its_own_rhythm() {
    let mut faint = Vec::new();
    for (first_talks, other) in [
        (true, Wants::Opus),
        (false, Wants::Opus),
        (true, Wants::Pcm),
        (false, Wants::Pcm),
    ] {
        // The mix has the voice some 46 ms later than its packets: of these tones, a whole number of turns, half a turn more …
        for hz in [600.0, 609.0, 618.0, 627.0] {
            let case = format!("{hz} Hz, first talks: {first_talks}, somebody else wants {other:?}");
            // The first has talked before.
            let ear = third_joins(hz, |n| first_talks || n < 20, other);
            if ear.faintest(hz) < 0.2 {
                faint.push(case);
            }
        }
    }
    assert!(faint.is_empty(), "{faint:?}");
}

#[test]
fn voice_that_went_through_has_no_hole_where_nobody_heard_a_mix_before() {
    let mut faint = Vec::new();
    for hz in [300.0, 440.0, 600.0, 627.0] {
        let faintest = third_joins(hz, |_| false, Wants::Opus).faintest(hz);
        if faintest < 0.2 {
            faint.push((hz, faintest));
        }
    }
    assert!(faint.is_empty(), "{faint:?}");
}

#[test]
fn mix_has_a_voice_60_ms_after_its_packet_at_the_latest() {
    let mut talkers = [Talker::new(1, 440.0), Talker::new(2, 660.0)];
    let mut mix = RoomMix::default();
    mix.set_sources(&[ParticipantId(1), ParticipantId(2)]);
    let listeners = BTreeMap::from([(ParticipantId(9), Wants::Opus)]);
    for n in 0..200 {
        talkers.iter_mut().for_each(|talker| talker.talk(n, true, &mut mix));
        let tick = mix.tick(&listeners, RoomTime(n * 20_000 + 15_000));
        for id in [1, 2].map(ParticipantId).into_iter().filter(|_| n >= 10) {
            // The packet that sounds now, and what the encoder looks ahead.
            let sounds = tick.next_index(id).unwrap() - 1;
            let came = RoomTime(sounds * 20_000 + u64::from(id.0) * 1_000);
            let delay = tick.time.since(came) + 6_500;
            assert!(delay <= 60_000, "{delay} µs");
        }
    }
    assert_eq!(mix.work().concealed, 0);
}

#[test]
fn position_says_which_frame_was_not_in_the_mix() {
    let (ticks, _) = run(1_000, &[(3, Wants::Opus)], |id, _| id == 1);
    for tick in &ticks[5..] {
        // One packet waits, 20 ms.
        assert_eq!(tick.next_index(ParticipantId(1)), Some(tick.index));
    }
}

#[test]
fn samples_for_pages_are_the_mix_too() {
    let (ticks, mix) = run(2_000, &[(1, Wants::Pcm), (9, Wants::Pcm)], |id, _| id <= 2);
    let samples = |id: u32| -> Vec<f32> {
        ticks
            .iter()
            .flat_map(|tick| {
                let pcm = tick.pcm(ParticipantId(id)).unwrap();
                assert_eq!(pcm.len(), 1_920);
                pcm.chunks_exact(2)
                    .map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0)
                    .collect::<Vec<_>>()
            })
            .collect()
    };
    let (own, all) = (samples(1), samples(9));
    assert!(amplitude(&own[9_600..], 440.0) < 0.005);
    assert!(decibels(amplitude(&own[9_600..], 660.0), 0.25) < 3.0);
    assert!(decibels(amplitude(&all[9_600..], 440.0), 0.25) < 3.0);
    assert_eq!(mix.work().encoded, 0);
}

/// Numbers that look random, always the same.
fn shuffle(state: &mut u32) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    *state
}

#[test]
fn loss_jitter_and_random_talkers_make_no_undecodable_packet_and_no_growing_delay() {
    let mut talkers: Vec<_> = (1..=5).map(|id| Talker::new(id, 300.0 + 130.0 * id as f32)).collect();
    let ids: Vec<_> = talkers.iter().map(|talker| talker.id).collect();
    let listeners: BTreeMap<_, _> = ids.iter().map(|id| (*id, Wants::Opus)).collect();
    let mut mix = RoomMix::default();
    mix.set_sources(&ids);
    let mut decoders: Vec<_> = ids
        .iter()
        .map(|_| opus::Decoder::new(48_000, opus::Channels::Mono).unwrap())
        .collect();
    let mut dice = 12_345;
    let mut loud = [false; 5];
    let mut delayed: Vec<(u64, Arc<Frame>)> = Vec::new();
    let mut mixed = 0;
    for n in 0..1_000u64 {
        for (at, talker) in talkers.iter_mut().enumerate() {
            if shuffle(&mut dice).is_multiple_of(60) {
                loud[at] = !loud[at];
            }
            for frame in talker.frames(n, loud[at]) {
                // 3 % are lost, the others come up to two packets late, in order.
                let lost = shuffle(&mut dice) % 100 < 3;
                let late = if n % 50 < 10 {
                    u64::from(shuffle(&mut dice) % 3)
                } else {
                    0
                };
                let floor = (delayed.iter().filter(|(_, other)| other.track == frame.track))
                    .map(|(due, _)| *due)
                    .max()
                    .unwrap_or(0);
                if !lost {
                    delayed.push(((n + late).max(floor), frame));
                }
            }
        }
        delayed.retain(|(due, frame)| {
            if *due <= n {
                mix.push(frame);
            }
            *due > n
        });
        let tick = mix.tick(&listeners, RoomTime(n * 20_000 + 15_000));
        for (id, decoder) in ids.iter().zip(&mut decoders) {
            if let Some(packet) = tick.opus(*id) {
                mixed += 1;
                assert_eq!(decoder.decode_float(packet, &mut [0.0; BLOCK], false).unwrap(), BLOCK);
            }
        }
    }
    assert!(mixed > 500, "{mixed}");
    for voice in mix.sources.values() {
        let source = voice.source();
        assert_eq!(source.undecodable(), 0);
        assert!(source.waiting() <= 6 * BLOCK, "{}", source.waiting());
    }
}

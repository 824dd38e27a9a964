//! Rooms of three and more: every receiver, which has one decoder, hears everybody else and not himself.

use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, timeout};
use wzp_gateway::native::client::Event;
use wzp_gateway::native::transport::close;
use wzp_proto::codec::Codec;
use wzp_proto::header::{MediaHeader, MediaType};
use wzp_proto::packet::{MediaPacket, QualityReport};
use wzp_proto::room_name::RoomName;
use wzp_proto::signal::Signal;

use crate::support::{DEADLINE, Door, Member, sound_header};
use crate::tone::{Tone, amplitude};

/// The usual amplitude of `hz`: the median over parts of 100 ms, since concealment may shift a tone's phase.
fn loudness(samples: &[f32], hz: f64) -> f64 {
    let mut parts: Vec<_> = samples.chunks_exact(4_800).map(|part| amplitude(part, hz)).collect();
    parts.sort_by(f64::total_cmp);
    parts[parts.len() / 2]
}

fn decode(packets: &[(Instant, MediaPacket)]) -> Vec<f32> {
    let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).unwrap();
    let mut out = Vec::new();
    for (_, packet) in packets {
        let mut pcm = [0.0; 1_920];
        let samples = decoder.decode_float(&packet.payload, &mut pcm, false).unwrap();
        out.extend_from_slice(&pcm[..samples]);
    }
    out
}

/// Sends a tone for this long, of the frequency that `hz` says for each packet, and takes what comes.
async fn talk(member: &mut Member, hz: impl Fn(u32) -> Option<f64>, time: Duration) -> Vec<(Instant, MediaPacket)> {
    let mut tone = Tone::new(0.0);
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut heard = Vec::new();
    let mut seq = 0;
    let end = Instant::now() + time;
    while Instant::now() < end {
        tokio::select! {
            _ = ticks.tick() => if let Some(hz) = hz(seq) {
                tone.hz = hz;
                member.send_sound(seq, &tone.packet());
                seq += 1;
            },
            event = member.client.next() => match event {
                Event::Packet(packet) => heard.push((Instant::now(), packet)),
                Event::Closed(error) => panic!("closed: {error}"),
                _ => {}
            },
        }
    }
    heard
}

/// What an app makes of it (WZP wire v2, section 6.5): one tracker, and nothing for it to conceal.
fn assert_contiguous(heard: &[(Instant, MediaPacket)]) {
    for pair in heard.windows(2) {
        let (before, after) = (&pair[0].1.header, &pair[1].1.header);
        assert_eq!(after.seq, before.seq.wrapping_add(1));
        assert!(after.timestamp > before.timestamp);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_hear_each_other_and_not_themselves() {
    let door = Door::open();
    let tones = [440.0, 660.0, 880.0];
    let mut members = Vec::new();
    for name in ["anna", "bert", "cleo"] {
        members.push(door.join("general", name).await);
    }
    let [anna, bert, cleo] = &mut members[..] else {
        unreachable!()
    };
    // The long form takes a minute.
    let seconds: u64 = std::env::var("WZP_MIX_SECONDS").map_or(10, |text| text.parse().expect("whole seconds"));
    let time = Duration::from_secs(seconds + 2);
    let heard = tokio::join!(
        talk(anna, |_| Some(tones[0]), time),
        talk(bert, |_| Some(tones[1]), time),
        talk(cleo, |_| Some(tones[2]), time),
    );
    for (heard, own) in [heard.0, heard.1, heard.2].iter().zip(tones) {
        assert_contiguous(heard);
        let ends = heard.last().unwrap().0;
        let steady: Vec<_> = heard
            .iter()
            .filter(|(at, _)| ends.duration_since(*at) < Duration::from_secs(seconds))
            .cloned()
            .collect();
        let rate = steady.len() as f64 / seconds as f64;
        println!("{own} Hz gets {rate:.2} packets a second over {seconds} s");
        assert!((49.0..=51.0).contains(&rate), "{rate} packets a second");
        let samples = decode(&steady);
        let samples = &samples[48_000..];
        for hz in tones {
            let loud = loudness(samples, hz);
            if hz == own {
                assert!(loud < 0.01, "{own} Hz hears himself: {loud}");
            } else {
                let off = (20.0 * (loud / 0.25).log10()).abs();
                assert!(off < 3.0, "{own} Hz hears {hz} Hz at {loud}");
            }
        }
    }
    assert_eq!(
        door.counters.audio_dropped_space.get() + door.counters.audio_dropped_size.get(),
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_talker_passes_untouched_and_undelayed() {
    let door = Door::open();
    let mut anna = door.join("general", "anna").await;
    let bert = door.join("general", "bert").await;
    let mut cleo = door.join("general", "cleo").await;
    // All have sent sound; two of them are silent.
    let mut silence = Tone::new(0.0);
    bert.send_sound(0, &silence.packet());
    cleo.send_sound(0, &silence.packet());
    let mut tone = Tone::new(440.0);
    let mut ticks = interval(Duration::from_millis(20));
    let (mut sent, mut delays, mut last) = (Vec::new(), Vec::new(), None);
    for seq in 0..150 {
        ticks.tick().await;
        let packet = tone.packet();
        anna.send_sound(seq, &packet);
        bert.send_sound(seq + 1, &silence.packet());
        let at = Instant::now();
        sent.push(packet);
        // Half a second for finding out who talks; from then on it is his packets, one after the other.
        if seq < 25 {
            continue;
        }
        loop {
            let heard = cleo.wait_packet(MediaType::Audio).await;
            let which = sent.iter().rposition(|packet| *packet == heard.payload);
            if let (Some((last_seq, last_which)), Some(which)) = (last, which) {
                assert_eq!(
                    (heard.header.seq, which),
                    (u32::wrapping_add(last_seq, 1), last_which + 1)
                );
            }
            let Some(which) = which else {
                assert!(last.is_none(), "{} bytes of somebody else", heard.payload.len());
                continue;
            };
            last = Some((heard.header.seq, which));
            if which == seq as usize {
                delays.push(at.elapsed());
                break;
            }
        }
    }
    delays.sort();
    let median = delays[delays.len() / 2];
    assert!(median <= Duration::from_millis(5), "{median:?}");
    anna.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mix_begins_and_ends_with_the_second_talker_without_a_gap() {
    let door = Door::open();
    let mut anna = door.join("general", "anna").await;
    let mut bert = door.join("general", "bert").await;
    let mut cleo = door.join("general", "cleo").await;
    let time = Duration::from_secs(7);
    let room = door.registry.get(RoomName::parse("general").unwrap().key()).unwrap();
    let concealed = async {
        // Just before the talkers stop sending.
        tokio::time::sleep(time - Duration::from_millis(200)).await;
        room.mixing().work().concealed as usize
    };
    let (_, _, heard, concealed) = tokio::join!(
        talk(
            &mut anna,
            |n| Some(if (270..280).contains(&n) { 0.0 } else { 440.0 }),
            time
        ),
        talk(
            &mut bert,
            |n| Some(if (100..200).contains(&n) { 660.0 } else { 0.0 }),
            time
        ),
        talk(&mut cleo, |_| None, time),
        concealed,
    );
    assert_contiguous(&heard);
    assert!(door.counters.audio_mixed_out.get() > 90);
    let samples = decode(&heard);
    // Anna is there all the time until her pause, the change from her packets to the mix included, and from 100 ms after it on.
    let weak = |part: &[f32]| {
        part.chunks_exact(960)
            .filter(|part| amplitude(part, 440.0) < 0.1)
            .count()
    };
    let paused = (samples.chunks_exact(960).enumerate().skip(200))
        .find(|(_, part)| amplitude(part, 440.0) < 0.03)
        .map(|(n, _)| n * 960)
        .expect("anna's pause");
    let before = weak(&samples[24_000..paused - 960]);
    let after = weak(&samples[paused + 14_400..samples.len() - 4_800]);
    // Where a busy machine makes packets late, the mix conceals them, which shifts the phase of a tone; otherwise nothing is weak.
    assert!(
        before + after <= 2 * concealed,
        "{before} weak parts before, {after} after; {concealed} blocks concealed"
    );
    assert!(samples.chunks_exact(48_000).any(|part| loudness(part, 660.0) > 0.17));
}

#[tokio::test]
async fn room_is_mixed_only_while_somebody_has_two_others_to_hear() {
    let door = Door::open();
    let anna = door.join("general", "anna").await;
    let bert = door.join("general", "bert").await;
    let cleo = door.join("general", "cleo").await;
    let room = door.registry.get(RoomName::parse("general").unwrap().key()).unwrap();
    let wait = async |running: bool| {
        let waiting = async {
            while room.mixing().is_running() != running {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(DEADLINE, waiting).await.expect("the mix to begin or end");
    };
    let mut tone = Tone::new(440.0);
    anna.send_sound(0, &tone.packet());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!room.mixing().is_running(), "one source is passed through");
    bert.send_sound(0, &tone.packet());
    wait(true).await;
    bert.client.close(close::NORMAL, "").await;
    wait(false).await;
    cleo.send_sound(0, &tone.packet());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!room.mixing().is_running(), "of two, each hears the other's packets");
    let dora = door.join("general", "dora").await;
    wait(true).await;
    drop((anna, cleo, dora));
    wait(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mix_delays_a_voice_by_60_ms_at_most() {
    let door = Door::open();
    let mut anna = door.join("general", "anna").await;
    let mut bert = door.join("general", "bert").await;
    let mut cleo = door.join("general", "cleo").await;
    let time = Duration::from_secs(8);
    // Bert says something for 200 ms of every 600, which keeps the mix running.
    let loud = |n: u32| n % 30 < 10;
    let begin = Instant::now();
    let (_, _, heard, lateness) = tokio::join!(
        talk(&mut anna, |_| Some(440.0), time),
        talk(&mut bert, |n| Some(if loud(n) { 660.0 } else { 0.0 }), time),
        talk(&mut cleo, |_| None, time),
        lateness(time),
    );
    assert_contiguous(&heard);
    let samples = decode(&heard);
    let mut delays = Vec::new();
    let mut before = true;
    // Windows of 10 ms, of which the voice fills half when it begins in the middle.
    for start in (0..samples.len() - 480).step_by(120) {
        let now = amplitude(&samples[start..start + 480], 660.0) > 0.12;
        let middle = start + 240;
        let arrived = heard[middle / 960].0.duration_since(begin).as_secs_f64() * 1000.0;
        let sounds = arrived + (middle % 960) as f64 / 48.0;
        if now && !before && sounds > 2_000.0 && sounds % 600.0 < 300.0 {
            // The sender's own encoder looks 6.5 ms ahead.
            delays.push(sounds % 600.0 - 6.5);
        }
        before = now;
    }
    delays.sort_unstable_by(f64::total_cmp);
    assert!(delays.len() >= 8, "{delays:?}");
    // Packets that a busy machine sends in bursts are jitter, for which the mix rightly waits.
    let allowed = 60.0 + 5.0 * lateness;
    let median = delays[delays.len() / 2];
    println!("{median:.1} ms of delay; timers are {lateness:.1} ms late");
    assert!(median <= allowed, "more than {allowed} ms: {delays:?}");
}

/// How late a timer of 20 ms is here, ms: of a hundred ticks the fifth worst.
async fn lateness(time: Duration) -> f64 {
    let mut ticks = interval(Duration::from_millis(20));
    let mut late = Vec::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let due = ticks.tick().await;
        late.push(due.elapsed().as_secs_f64() * 1000.0);
    }
    late.sort_unstable_by(f64::total_cmp);
    // A timer of tokio is up to 1 ms late anyway, and so much makes no difference.
    let worst = late[late.len() * 95 / 100];
    if worst < 3.0 { 0.0 } else { worst }
}

fn header(seq: u32, codec: Codec, ms: u32) -> MediaHeader {
    MediaHeader {
        codec,
        timestamp: seq * ms,
        ..sound_header(seq)
    }
}

#[tokio::test]
async fn codec2_voice_comes_out_as_opus() {
    let door = Door::open();
    let anna = door.join("general", "anna").await;
    let mut bert = door.join("general", "bert").await;
    bert.wait_list(&["anna", "bert"]).await;
    // The first packets make the track known; from the first one that is heard on, all are.
    let mut seq = 0;
    let first = loop {
        assert!(
            anna.client
                .sender()
                .try_packet(&header(seq, Codec::Codec2_3200, 20), &[seq as u8; 8])
        );
        seq += 1;
        if let Ok(first) = timeout(Duration::from_millis(50), bert.wait_packet(MediaType::Audio)).await {
            break first;
        }
    };
    assert_eq!(first.header.codec, Codec::Opus24k);
    for (codec, ms, len) in [(Codec::Codec2_3200, 20, 8), (Codec::Codec2_1200, 40, 6)] {
        for _ in 0..20 {
            let payload: Vec<u8> = (0..len).map(|i| (seq * 31 + i * 17) as u8).collect();
            assert!(anna.client.sender().try_packet(&header(seq, codec, ms), &payload));
            seq += 1;
            for _ in 0..ms / 20 {
                let heard = bert.wait_packet(MediaType::Audio).await;
                assert_eq!(heard.header.codec, Codec::Opus24k);
                assert_eq!(opus::packet::get_nb_samples(&heard.payload, 48_000).unwrap(), 960);
            }
        }
    }
}

#[tokio::test]
async fn bad_path_of_one_member_is_told_to_him_alone() {
    let door = Door::open();
    let mut anna = door.join("general", "anna").await;
    let mut bert = door.join("general", "bert").await;
    bert.wait_list(&["anna", "bert"]).await;
    let report = QualityReport::measured(20.0, Duration::from_millis(50), Duration::ZERO, 0);
    for seq in 0..3 {
        let packet = MediaPacket {
            header: sound_header(seq),
            payload: vec![0xf8, 0xff, 0xfe].into(),
            quality: Some(report),
        };
        assert!(anna.client.sender().datagram(packet.encode()));
    }
    let profile = anna
        .wait("a directive", |event| match event {
            Event::Signal(Signal::QualityDirective {
                recommended_profile, ..
            }) => Some(recommended_profile),
            _ => None,
        })
        .await;
    assert_eq!(profile.codec, Codec::Codec2_1200);
    let time = 77;
    assert!(bert.client.sender().signal(Signal::ping(time)));
    bert.wait("the pong", |event| match event {
        Event::Signal(Signal::QualityDirective { .. }) => panic!("somebody else's path"),
        Event::Signal(Signal::Pong { timestamp_ms, .. }) => Some(timestamp_ms),
        _ => None,
    })
    .await;
    assert_eq!(door.counters.quality_directives_out.get(), 1);
}

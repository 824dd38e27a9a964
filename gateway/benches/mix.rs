//! CPU time of a room's mix per second of sound: 20 native listeners, of whom 1, 3 or 10 talk.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tokio::sync::Notify;
use wzp_gateway::media::audio::BLOCK;
use wzp_gateway::media::audio::encode::MixEncoder;
use wzp_gateway::media::frame::{Draft, Frame, Kind, ParticipantId, RoomTime, TrackId};
use wzp_gateway::room::mixer::{RoomMix, Wants};
use wzp_gateway::room::subscription::{Cursor, Lag, Next};
use wzp_gateway::room::track::{Bounds, Track};
use wzp_proto::codec::Codec;

const SECONDS: u64 = 2;

/// Processor time of this thread so far: other than time by the clock, it says the same on a busy machine.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Two seconds of a source's frames.
fn frames(id: u32, loud: bool) -> Vec<Arc<Frame>> {
    let name = TrackId {
        source: ParticipantId(id),
        kind: Kind::Audio,
        slot: 0,
        layer: 0,
    };
    let (track, mut writer) = Track::create(name, Bounds::AUDIO, 0);
    let mut cursor = Cursor::new(&track, &Arc::new(Notify::new()));
    let mut encoder = MixEncoder::new().expect("an encoder");
    (0..SECONDS * 50)
        .map(|n| {
            let hz = 200.0 + 50.0 * id as f32;
            let block = std::array::from_fn(|i| {
                let t = (n as usize * BLOCK + i) as f32 / 48_000.0;
                let voice = (t * hz * std::f32::consts::TAU).sin() * 0.3 * (t * 4.0).sin().abs();
                if loud { voice } else { 0.0 }
            });
            let time = RoomTime(n * 20_000);
            let draft = Draft {
                codec: Codec::Opus24k,
                keyframe: true,
                ticks: n * 960,
                time,
                size: None,
                payload: encoder.encode(&block).expect("a packet"),
            };
            writer.append(draft, time);
            let lag = Lag {
                most: u64::MAX,
                resync_age: 0,
            };
            match cursor.next(&lag) {
                Next::Frame(frame) => frame,
                _ => unreachable!("it was just appended"),
            }
        })
        .collect()
}

fn mix(c: &mut Criterion) {
    let mut group = c.benchmark_group("CPU time per second of sound, 20 native listeners; talkers");
    group.sample_size(10);
    for talkers in [1u32, 3, 10] {
        let sources: Vec<_> = (1..=20).map(|id| frames(id, id <= talkers)).collect();
        let ids: Vec<_> = (1..=20).map(ParticipantId).collect();
        let listeners: BTreeMap<_, _> = ids.iter().map(|id| (*id, Wants::Opus)).collect();
        group.bench_function(BenchmarkId::from_parameter(talkers), |b| {
            let run = || {
                let mut mix = RoomMix::default();
                mix.set_sources(&ids);
                for n in 0..SECONDS * 50 {
                    for source in &sources {
                        mix.push(&source[n as usize]);
                    }
                    black_box(mix.tick(&listeners, RoomTime(n * 20_000 + 10_000)));
                }
                mix.work()
            };
            let mut total = (Duration::ZERO, 0);
            b.iter_custom(|times| {
                let begin = cpu_time();
                for _ in 0..times {
                    black_box(run());
                }
                let took = cpu_time() - begin;
                total = (total.0 + took, total.1 + times * SECONDS);
                took / SECONDS as u32
            });
            let micros = total.0.as_micros() as u64 / total.1.max(1);
            println!("{talkers} talkers, 20 listeners: {micros} µs of CPU per second of audio");
        });
    }
    group.finish();
}

criterion_group!(benches, mix);
criterion_main!(benches);

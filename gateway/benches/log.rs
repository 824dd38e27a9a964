//! What a frame costs: appended to a track's log, read by 1, 50 and 500 cursors, and turned into `wzp.v2` messages once
//! for all receivers against once for each.
//!
//! `cargo bench -p wzp-gateway --bench log`

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::sync::Notify;
use wzp_gateway::media::frame::{Draft, Frame, Kind, ParticipantId, RoomTime, TrackId};
use wzp_gateway::room::subscription::{Cursor, Lag, Next};
use wzp_gateway::room::track::{Bounds, Track, TrackWriter};
use wzp_proto::codec::Codec;

/// A keyframe every two seconds at 30 frames a second.
const GOP: u64 = 60;
/// A delta of a 2.4 Mbit/s picture.
const DELTA: usize = 10_000;
/// Its keyframe.
const KEYFRAME: usize = 60_000;
const LAG: Lag = Lag {
    most: 500_000,
    resync_age: 2_500_000,
};

struct Source {
    writer: TrackWriter,
    at: u64,
    keyframe: Bytes,
    delta: Bytes,
}

impl Source {
    fn new() -> Self {
        let id = TrackId {
            source: ParticipantId(1),
            kind: Kind::Video,
            slot: 0,
            layer: 0,
        };
        let (_, writer) = Track::create(id, Bounds::VIDEO, 1);
        let mut source = Self {
            writer,
            at: 0,
            keyframe: vec![7; KEYFRAME].into(),
            delta: vec![7; DELTA].into(),
        };
        source.append();
        source
    }

    fn append(&mut self) {
        let keyframe = self.at.is_multiple_of(GOP);
        let payload = if keyframe { &self.keyframe } else { &self.delta };
        let now = RoomTime(self.at * 33_333);
        let draft = Draft {
            codec: Codec::H264Baseline,
            keyframe,
            ticks: self.at * 3000,
            time: now,
            size: None,
            payload: payload.clone(),
        };
        self.writer.append(draft, now);
        self.at += 1;
    }

    fn cursors(&self, count: usize) -> Vec<Cursor> {
        let waker = Arc::new(Notify::new());
        (0..count)
            .map(|_| {
                let mut cursor = Cursor::new(self.writer.track(), &waker);
                cursor.start();
                cursor
            })
            .collect()
    }
}

/// Reads everything that is there, as a worker does after a wake-up.
fn drain(cursor: &mut Cursor, mut each: impl FnMut(&Frame)) {
    while let Next::Frame(frame) = cursor.next(&LAG) {
        each(&frame);
    }
}

fn append_and_read(c: &mut Criterion) {
    let mut group = c.benchmark_group("append, then read by all");
    for receivers in [1, 50, 500] {
        let mut source = Source::new();
        let mut cursors = source.cursors(receivers);
        group.throughput(Throughput::Elements(receivers as u64));
        group.bench_function(BenchmarkId::from_parameter(receivers), |b| {
            b.iter(|| {
                source.append();
                for cursor in &mut cursors {
                    drain(cursor, |frame| {
                        black_box(frame.index);
                    });
                }
            });
        });
    }
    group.finish();
}

fn append_with_wakers(c: &mut Criterion) {
    let mut group = c.benchmark_group("append with wakers of their own");
    for receivers in [1, 50, 500] {
        let mut source = Source::new();
        let cursors: Vec<_> = (0..receivers)
            .map(|_| Cursor::new(source.writer.track(), &Arc::new(Notify::new())))
            .collect();
        group.bench_function(BenchmarkId::from_parameter(receivers), |b| b.iter(|| source.append()));
        drop(cursors);
    }
    group.finish();
}

fn subscribe(c: &mut Criterion) {
    let mut group = c.benchmark_group("one more receiver comes and goes");
    for receivers in [1, 50, 500, 1000] {
        let source = Source::new();
        let cursors: Vec<_> = (0..receivers)
            .map(|_| Cursor::new(source.writer.track(), &Arc::new(Notify::new())))
            .collect();
        let waker = Arc::new(Notify::new());
        group.bench_function(BenchmarkId::from_parameter(receivers), |b| {
            b.iter(|| black_box(Cursor::new(source.writer.track(), &waker)));
        });
        drop(cursors);
    }
    group.finish();
}

fn messages(c: &mut Criterion) {
    let mut group = c.benchmark_group("messages of a 10 kB frame");
    for receivers in [1, 50, 500] {
        let mut source = Source::new();
        let mut cursors = source.cursors(receivers);
        group.throughput(Throughput::Elements(receivers as u64));
        group.bench_function(BenchmarkId::new("made once for all of", receivers), |b| {
            b.iter(|| {
                source.append();
                for cursor in &mut cursors {
                    drain(cursor, |frame| {
                        black_box(frame.messages().clone());
                    });
                }
            });
        });
        // Without the memo, every receiver has a frame of its own that shares the payload and nothing else.
        let mut source = Source::new();
        let mut cursor = source.cursors(1).pop();
        group.bench_function(BenchmarkId::new("made for each of", receivers), |b| {
            b.iter(|| {
                for _ in 0..receivers {
                    source.append();
                    if let Some(cursor) = &mut cursor {
                        drain(cursor, |frame| {
                            black_box(frame.messages().clone());
                        });
                    }
                }
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2));
    targets = append_and_read, append_with_wakers, subscribe, messages
}
criterion_main!(benches);

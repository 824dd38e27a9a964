//! A source with a writer, and readers, for the tests of this folder.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use wzp_gateway::media::frame::{Draft, Frame, Kind, ParticipantId, RoomTime, TrackId};
use wzp_gateway::room::subscription::{Cursor, Lag, Next};
use wzp_gateway::room::track::{Appended, Bounds, Track, TrackWriter};
use wzp_proto::codec::Codec;

/// Half a second of lag, and a cached keyframe of up to two seconds after it.
pub const LAG: Lag = Lag {
    most: 500_000,
    resync_age: 2_000_000,
};

pub fn ms(ms: u64) -> RoomTime {
    RoomTime::from_millis(ms)
}

pub fn video_id(source: u32) -> TrackId {
    TrackId {
        source: ParticipantId(source),
        kind: Kind::Video,
        slot: 0,
        layer: 0,
    }
}

pub fn audio_id(source: u32) -> TrackId {
    TrackId {
        kind: Kind::Audio,
        ..video_id(source)
    }
}

/// A source of one track: its media time goes on by `step` ms with every frame, lost ones too.
pub struct Source {
    pub writer: TrackWriter,
    pub track: Arc<Track>,
    pub codec: Codec,
    pub size: usize,
    pub step: u64,
    pub now: u64,
}

impl Source {
    pub fn new(id: TrackId, bounds: Bounds) -> Self {
        let (track, writer) = Track::create(id, bounds, 1000);
        let (codec, step) = match id.kind {
            Kind::Video => (Codec::H264Baseline, 40),
            Kind::Audio => (Codec::Opus24k, 20),
        };
        Self {
            writer,
            track,
            codec,
            size: 1000,
            step,
            now: 10_000,
        }
    }

    pub fn video() -> Self {
        Self::new(video_id(1), Bounds::VIDEO)
    }

    pub fn audio() -> Self {
        Self::new(audio_id(1), Bounds::AUDIO)
    }

    pub fn draft(&self, keyframe: bool, payload: Bytes) -> Draft {
        Draft {
            codec: self.codec,
            keyframe,
            ticks: self.now * 90,
            time: ms(self.now),
            size: None,
            payload,
        }
    }

    pub fn append(&mut self, keyframe: bool) -> Appended {
        let draft = self.draft(keyframe, vec![self.now as u8; self.size].into());
        let appended = self.writer.append(draft, ms(self.now));
        self.now += self.step;
        appended
    }

    pub fn key(&mut self) -> Appended {
        self.append(true)
    }

    pub fn delta(&mut self) -> Appended {
        self.append(false)
    }

    pub fn deltas(&mut self, count: usize) {
        for _ in 0..count {
            self.delta();
        }
    }

    /// A frame that does not arrive whole.
    pub fn lose(&mut self) {
        self.writer.lost_frame();
        self.now += self.step;
    }

    pub fn cursor(&self) -> Cursor {
        Cursor::new(&self.track, &Arc::new(Notify::new()))
    }
}

/// Everything that a cursor gives now.
pub fn read(cursor: &mut Cursor) -> Vec<Arc<Frame>> {
    let mut frames = Vec::new();
    while let Next::Frame(frame) = cursor.next(&LAG) {
        frames.push(frame);
    }
    frames
}

/// The indices of everything that a cursor gives now.
pub fn indices(cursor: &mut Cursor) -> Vec<u64> {
    read(cursor).iter().map(|frame| frame.index).collect()
}

/// Nothing was read.
pub const NONE: [u64; 0] = [];

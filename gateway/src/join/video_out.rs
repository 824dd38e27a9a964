//! Pictures to send: an H.264 Annex B file in a loop.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use bytes::Bytes;
use memchr::memmem;
use tokio::sync::Notify;
use wzp_proto::SentPackets;
use wzp_proto::codec::Codec;
use wzp_proto::header::{Flags, MediaHeader, MediaType};
use wzp_proto::packet::encode_datagram;
use wzp_proto::video::{FRAGMENT_PAYLOAD, fragment_header, fragments};

use super::SentCounters;
use crate::media::h264::{AccessUnit, Normalizer, is_b_slice, is_first_slice, nal_type, nal_unit_type, nal_units};
use crate::native::client::Sender;

/// H.264 goes out on stream 1: relays cache the keyframes of stream 0 badly, since sound is on it too.
const STREAM: u8 = 1;

/// What was sent lately, shared by who sends and who is asked to send again.
#[derive(Debug, Default)]
pub struct History(Mutex<SentPackets>);

impl History {
    fn insert(&self, seq: u32, datagram: &Bytes, at: Duration) {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sent.insert(seq, datagram.clone(), at);
    }

    /// Sends packets again; how many.
    pub fn answer(&self, seqs: &[u32], sender: &Sender, at: Duration) -> u64 {
        let again = (self.0.lock().unwrap_or_else(PoisonError::into_inner)).answer(seqs, at);
        again
            .into_iter()
            .filter(|datagram| sender.datagram(datagram.clone()))
            .count() as u64
    }
}

/// A file's pictures.
#[derive(Debug)]
pub struct VideoSource {
    units: Vec<AccessUnit>,
    frame: Duration,
    trace: Option<File>,
}

fn has_b_slice(unit: &AccessUnit) -> bool {
    nal_units(&unit.payload).any(|nal_unit| is_b_slice(&nal_unit))
}

impl VideoSource {
    /// Reads a file. When its pictures are sent will be written to `trace`.
    ///
    /// # Errors
    /// It cannot be read, holds no H.264, or does not begin with a keyframe; `trace` cannot be written; or `fps` makes no
    /// sense.
    pub fn open(path: &Path, fps: f64, trace: Option<&Path>) -> anyhow::Result<Self> {
        if !(1.0..=240.0).contains(&fps) {
            bail!("{fps} frames per second cannot be sent; use 1 to 240");
        }
        let create = |path: &Path| File::create(path).with_context(|| format!("cannot write {}", path.display()));
        let trace = trace.map(create).transpose()?;
        let stream = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let units = access_units(&stream.into());
        match units.first() {
            None => bail!("{} holds no H.264 pictures in Annex B form", path.display()),
            Some(unit) if !unit.keyframe => {
                bail!(
                    "{} does not begin with an IDR picture and its parameter sets",
                    path.display()
                )
            }
            Some(_) if units.iter().any(has_b_slice) => bail!(
                "{} has B pictures, which come out of order and are late for a call; encode without them (ffmpeg: -bf 0)",
                path.display()
            ),
            Some(_) => Ok(Self {
                units,
                frame: Duration::from_secs_f64(1.0 / fps),
                trace,
            }),
        }
    }

    /// Sends pictures at their times, for ever. At a request, goes on at the file's next keyframe. What was sent is
    /// remembered in `history`.
    pub async fn play(
        mut self,
        sender: Sender,
        started: Instant,
        wanted: Arc<Notify>,
        history: Arc<History>,
        sent: Arc<SentCounters>,
    ) {
        let (mut seq, mut index) = (0u32, 0);
        for count in 0u32.. {
            let offset = self.frame * count;
            tokio::time::sleep_until((started + offset).into()).await;
            // The permit of a request that came since the last frame.
            if futures_util::FutureExt::now_or_never(wanted.notified()).is_some() {
                index = self.next_keyframe(index);
            }
            let unit = &self.units[index];
            if let Some(trace) = &mut self.trace {
                let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                if let Err(error) = writeln!(trace, "{index} {:.1}", unix.as_secs_f64() * 1000.0) {
                    tracing::error!(%error, "the trace is no longer written");
                    self.trace = None;
                }
            }
            index = (index + 1) % self.units.len();
            let Ok(parts) = fragments(&unit.payload, unit.size, FRAGMENT_PAYLOAD) else {
                tracing::warn!(bytes = unit.payload.len(), "a picture is too large to be sent");
                continue;
            };
            let mut flags = Flags::empty();
            flags.set(Flags::KEYFRAME, unit.keyframe);
            let first = MediaHeader {
                flags,
                media_type: MediaType::Video,
                codec: Codec::H264Baseline,
                stream_id: STREAM,
                fec_ratio: 0,
                seq,
                timestamp: offset.as_millis() as u32,
                fec_block: 0,
            };
            for (i, part) in parts.iter().enumerate() {
                let header = fragment_header(&first, i as u8, parts.len() as u8);
                let datagram = encode_datagram(&header, part);
                history.insert(header.seq, &datagram, started.elapsed());
                if !sender.datagram_wait(datagram).await {
                    return;
                }
            }
            seq = seq.wrapping_add(parts.len() as u32);
            sent.video_frames.fetch_add(1, Ordering::Relaxed);
            sent.keyframes.fetch_add(u64::from(unit.keyframe), Ordering::Relaxed);
        }
    }

    fn next_keyframe(&self, from: usize) -> usize {
        let count = self.units.len();
        (from..from + count)
            .map(|index| index % count)
            .find(|index| self.units[*index].keyframe)
            .unwrap_or(0)
    }
}

/// Splits a whole file. The bounds of an access unit are found here, since the normaliser looks at a bounded number of NAL
/// units at a time.
fn access_units(stream: &Bytes) -> Vec<AccessUnit> {
    let mut normalizer = Normalizer::default();
    let mut units = Vec::new();
    let mut begin = 0;
    let mut has_slice = false;
    for start in memmem::find_iter(stream, &[0, 0, 1]) {
        let nal_unit = &stream[start + 3..];
        let kind = nal_unit_type(nal_unit);
        let slice = matches!(kind, nal_type::SLICE..=nal_type::IDR);
        let opens = matches!(kind, nal_type::SEI..=nal_type::AUD) || (slice && is_first_slice(nal_unit));
        if opens && has_slice {
            units.extend(normalizer.push(&stream.slice(begin..start)).unwrap_or_default());
            begin = start;
            has_slice = false;
        }
        has_slice |= slice;
    }
    units.extend(normalizer.push(&stream.slice(begin..)).unwrap_or_default());
    units
}

//! Media from the room: one sound and one picture as today's apps take them, or every source apart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quinn::Connection;
use wzp_proto::header::MediaType;
use wzp_proto::packet::MediaPacket;
use wzp_proto::signal::RoomParticipant;

use super::SourceSummary;
use super::audio_in::AudioIn;
use super::video_in::{Ask, VideoIn};

/// Takes, tells apart if so agreed, and records.
pub struct MediaIn {
    record: Record,
    /// By stream id; if sources are not told apart there is one, under 0.
    sources: BTreeMap<u8, Source>,
    names: BTreeMap<u8, Option<String>>,
}

/// How sources are taken.
pub struct Record {
    /// Where the sound goes.
    pub audio: Option<PathBuf>,
    /// Where the pictures go.
    pub video: Option<PathBuf>,
    /// Missing packets are asked for.
    pub repairs: bool,
    /// The relay was asked for every source apart.
    pub per_source: bool,
}

struct Source {
    audio: AudioIn,
    video: VideoIn,
}

impl MediaIn {
    /// Nothing yet.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn new(record: Record) -> anyhow::Result<Self> {
        let mut sources = BTreeMap::new();
        if !record.per_source {
            sources.insert(
                0,
                Source::open(&record, record.audio.as_deref(), record.video.as_deref())?,
            );
        }
        Ok(Self {
            record,
            sources,
            names: BTreeMap::new(),
        })
    }

    /// Takes a packet that came at `at`; what to ask for.
    ///
    /// # Errors
    /// A file for a new source cannot be written.
    pub fn take(&mut self, packet: &MediaPacket, at: Duration) -> anyhow::Result<Option<Ask>> {
        let id = if self.record.per_source {
            packet.header.stream_id
        } else {
            0
        };
        let source = match self.sources.entry(id) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                let own = |path: &Option<PathBuf>| path.as_deref().map(|path| of_stream(path, id));
                let (audio, video) = (own(&self.record.audio), own(&self.record.video));
                new.insert(Source::open(&self.record, audio.as_deref(), video.as_deref())?)
            }
        };
        Ok(match packet.header.media_type {
            MediaType::Audio => {
                source.audio.take(packet, at);
                None
            }
            _ => source.video.take(packet, at),
        })
    }

    /// Takes note of whose streams are whose.
    pub fn name(&mut self, participants: &[RoomParticipant]) {
        let streams = participants.iter().filter_map(|who| Some((who.stream_id?, who)));
        self.names.extend(streams.map(|(id, who)| (id, who.alias.clone())));
    }

    /// When [`MediaIn::handle_timeout`] wants to be called; told the round-trip time if it matters.
    pub fn poll_timeout(&mut self, connection: &Connection) -> Option<Duration> {
        let at = self
            .sources
            .values()
            .filter_map(|source| source.video.poll_timeout())
            .min();
        if at.is_some() {
            let rtt = connection.rtt();
            for source in self.sources.values_mut() {
                source.video.set_rtt(rtt);
            }
        }
        at
    }

    /// Does what is due; what to ask for. Call it again as long as it says something.
    pub fn handle_timeout(&mut self, at: Duration) -> Option<Ask> {
        (self.sources.values_mut()).find_map(|source| source.video.handle_timeout(at))
    }

    /// Ends the recordings and sums up: what came of all together, or of each.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish(mut self) -> anyhow::Result<(SourceSummary, Vec<SourceSummary>)> {
        let mut all = Vec::new();
        for (stream_id, source) in self.sources {
            all.push(SourceSummary {
                stream_id,
                alias: self.names.remove(&stream_id).flatten(),
                audio: source.audio.finish()?,
                video: source.video.finish()?,
            });
        }
        if self.record.per_source {
            return Ok((SourceSummary::default(), all));
        }
        Ok((all.pop().unwrap_or_default(), Vec::new()))
    }
}

impl Source {
    fn open(record: &Record, audio: Option<&Path>, video: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self {
            audio: AudioIn::new(audio)?,
            video: VideoIn::new(video, record.repairs)?,
        })
    }
}

/// `sound.ogg` of stream 3 is `sound-3.ogg`.
fn of_stream(path: &Path, id: u8) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{id}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_of_sources_have_names_of_their_own() {
        assert_eq!(of_stream(Path::new("/x/sound.ogg"), 3), Path::new("/x/sound-3.ogg"));
        assert_eq!(of_stream(Path::new("plain"), 0), Path::new("plain-0"));
    }
}

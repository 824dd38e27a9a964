//! Opus in Ogg files (RFC 7845).

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use ogg::{PacketReader, PacketWriteEndInfo, PacketWriter};

/// Samples per ms at 48 kHz, the rate that granule positions count in.
pub const SAMPLES_PER_MS: u64 = 48;
/// Serial number of the one stream in a recording.
const SERIAL: u32 = 1;

/// One packet and how long it plays, in samples at 48 kHz.
#[derive(Debug, Clone)]
pub struct OpusPacket {
    /// The packet.
    pub payload: Bytes,
    /// When it begins, samples from the start of the file.
    pub start: u64,
    /// How long it plays.
    pub samples: u64,
}

/// Reads all packets of a file, with the times that its granule positions give.
///
/// # Errors
/// The file cannot be read, or is not Ogg Opus.
pub fn read(path: &Path) -> anyhow::Result<Vec<OpusPacket>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut reader = PacketReader::new(BufReader::new(file));
    let not_ogg = || format!("{} is not an Ogg Opus file", path.display());
    let head = reader.read_packet().with_context(not_ogg)?.with_context(not_ogg)?;
    if !head.data.starts_with(b"OpusHead") {
        bail!(not_ogg());
    }
    let pre_skip = head
        .data
        .get(10..12)
        .map_or(0, |bytes| u64::from(bytes[0]) | u64::from(bytes[1]) << 8);
    reader.read_packet().with_context(not_ogg)?;
    let mut packets: Vec<OpusPacket> = Vec::new();
    let (mut position, mut page_start) = (0, 0);
    while let Some(packet) = reader.read_packet().with_context(not_ogg)? {
        let samples = opus::packet::get_nb_samples(&packet.data, 48_000)
            .with_context(|| format!("{} holds a packet that is not Opus", path.display()))?
            as u64;
        packets.push(OpusPacket {
            start: position,
            samples,
            payload: packet.data.clone().into(),
        });
        position += samples;
        if packet.last_in_page() {
            // A page that ends later than its packets play was recorded after a gap.
            let gap = packet.absgp_page().saturating_sub(position).min(48_000 * 60);
            if page_start > 0 && gap > 0 && gap != pre_skip {
                packets[page_start..].iter_mut().for_each(|packet| packet.start += gap);
                position += gap;
            }
            page_start = packets.len();
        }
    }
    if packets.is_empty() {
        bail!("{} holds no sound", path.display());
    }
    Ok(packets)
}

/// Writes packets to a file, each one at its time.
pub struct Recorder {
    writer: PacketWriter<'static, BufWriter<File>>,
    first: Option<u64>,
    last: Option<(Bytes, u64)>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("first", &self.first)
            .finish_non_exhaustive()
    }
}

impl Recorder {
    /// Begins a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut writer = PacketWriter::new(BufWriter::new(file));
        let mut head = b"OpusHead\x01\x01".to_vec();
        head.extend_from_slice(&0u16.to_le_bytes());
        head.extend_from_slice(&48_000u32.to_le_bytes());
        head.extend_from_slice(&[0, 0, 0]);
        writer.write_packet(head, SERIAL, PacketWriteEndInfo::EndPage, 0)?;
        let vendor = b"wzp-gateway";
        let mut tags = b"OpusTags".to_vec();
        tags.extend_from_slice(&(vendor.len() as u32).to_le_bytes());
        tags.extend_from_slice(vendor);
        tags.extend_from_slice(&0u32.to_le_bytes());
        writer.write_packet(tags, SERIAL, PacketWriteEndInfo::EndPage, 0)?;
        Ok(Self {
            writer,
            first: None,
            last: None,
        })
    }

    /// Adds a packet that begins at media time `ms`. What is missing before it stays a gap.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn packet(&mut self, payload: Bytes, ms: u64) -> anyhow::Result<()> {
        let Ok(samples) = opus::packet::get_nb_samples(&payload, 48_000) else {
            return Ok(());
        };
        let first = *self.first.get_or_insert(ms);
        let end = ms.saturating_sub(first) * SAMPLES_PER_MS + samples as u64;
        // One page for each packet: granule positions are per page, and gaps are to be seen where they are.
        if let Some((payload, end)) = self.last.replace((payload, end)) {
            let page = PacketWriteEndInfo::EndPage;
            self.writer.write_packet(payload.to_vec(), SERIAL, page, end)?;
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> anyhow::Result<()> {
        if let Some((payload, end)) = self.last.take() {
            let page = PacketWriteEndInfo::EndStream;
            self.writer.write_packet(payload.to_vec(), SERIAL, page, end)?;
        }
        self.writer.into_inner().flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gap_of_a_recording_is_a_gap_when_read() {
        let path = std::env::temp_dir().join(format!("wzp-ogg-{}.ogg", std::process::id()));
        let mut recorder = Recorder::create(&path).unwrap();
        // TOC 0xf8: CELT, 20 ms, mono, one frame.
        for ms in [500, 520, 600, 620] {
            recorder.packet(Bytes::from_static(&[0xf8, 0xff, 0xfe]), ms).unwrap();
        }
        recorder.finish().unwrap();
        let packets = read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let starts: Vec<_> = packets.iter().map(|packet| packet.start / SAMPLES_PER_MS).collect();
        assert_eq!(starts, [0, 20, 100, 120]);
    }
}

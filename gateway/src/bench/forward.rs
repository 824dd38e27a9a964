//! One measurement: a side that forwards, viewers in a process of their own, and the counting.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout};

use super::{Engine, FPS, Measured, PACKETS_PER_FRAME, SETTLE, bare, gateway, process};
use crate::webrtc::engine::MAX_PAYLOAD;

/// All viewers are connected by then, or something is wrong.
const JOIN_DEADLINE: Duration = Duration::from_secs(60);
/// Any other answer of the viewers' process.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// A line from or to the viewers' process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Line {
    /// A viewer's offer.
    Offer(String),
    /// The answer to the next offer in turn.
    Answer(String),
    /// All are connected and have had a packet.
    Connected,
    /// How many packets have arrived at all of them?
    Count,
    /// So many.
    Counted(u64),
}

/// What forwards.
pub(super) enum Side {
    Gateway(gateway::Side),
    Bare(bare::Side),
}

impl Side {
    async fn start(engine: Engine) -> anyhow::Result<Self> {
        Ok(match engine {
            Engine::Gateway => Self::Gateway(gateway::Side::start().await?),
            Engine::Bare => Self::Bare(bare::Side::start().await?),
        })
    }

    fn thread(&self) -> &'static str {
        match self {
            Self::Gateway(_) => "webrtc",
            Self::Bare(_) => bare::THREAD,
        }
    }

    async fn answer(&mut self, offer: String) -> anyhow::Result<String> {
        match self {
            Self::Gateway(side) => side.answer(offer).await,
            Self::Bare(side) => side.answer(offer).await,
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        match self {
            Self::Gateway(side) => side.stop().await?,
            Self::Bare(side) => side.stop().await,
        }
        Ok(())
    }
}

struct Viewers {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Viewers {
    fn start(count: usize) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench", "viewers", "--count", &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the viewers")?;
        let input = child.stdin.take().context("viewers without stdin")?;
        let output = child.stdout.take().context("viewers without stdout")?;
        Ok(Self {
            child,
            input,
            lines: BufReader::new(output).lines(),
        })
    }

    async fn read(&mut self, deadline: Duration) -> anyhow::Result<Line> {
        let line = timeout(deadline, self.lines.next_line())
            .await
            .context("the viewers did not answer in time")??;
        Ok(serde_json::from_str(&line.context("the viewers have ended")?)?)
    }

    async fn write(&mut self, line: &Line) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        Ok(self.input.write_all(&text).await?)
    }

    async fn count(&mut self) -> anyhow::Result<u64> {
        self.write(&Line::Count).await?;
        match self.read(ANSWER_DEADLINE).await? {
            Line::Counted(packets) => Ok(packets),
            other => anyhow::bail!("the viewers said {other:?}"),
        }
    }
}

pub(super) async fn measure(engine: Engine, count: usize, time: Duration) -> anyhow::Result<Measured> {
    ensure!(count > 0, "--viewers: at least one viewer is needed");
    let mut side = Side::start(engine).await?;
    tokio::time::sleep(SETTLE).await;
    let memory_before = process::resident()?;

    let mut viewers = Viewers::start(count)?;
    let begun = Instant::now();
    for _ in 0..count {
        match viewers.read(ANSWER_DEADLINE).await? {
            Line::Offer(offer) => {
                let answer = side.answer(offer).await?;
                viewers.write(&Line::Answer(answer)).await?;
            }
            other => anyhow::bail!("the viewers said {other:?}"),
        }
    }
    let connected = viewers.read(JOIN_DEADLINE).await?;
    ensure!(matches!(connected, Line::Connected), "the viewers said {connected:?}");
    let joined = begun.elapsed();
    tokio::time::sleep(SETTLE).await;

    let packets_before = viewers.count().await?;
    let (cpu_before, started) = (process::thread_cpu(side.thread())?, Instant::now());
    tokio::time::sleep(time).await;
    let (cpu, elapsed) = (process::thread_cpu(side.thread())? - cpu_before, started.elapsed());
    let packets = viewers.count().await? - packets_before;
    let memory = process::resident()?.saturating_sub(memory_before);
    ensure!(packets > 0, "no packet arrived");

    viewers.child.kill().await?;
    side.stop().await?;
    let due = elapsed.as_secs_f64() * f64::from(FPS) * PACKETS_PER_FRAME as f64 * count as f64;
    Ok(Measured {
        engine,
        viewers: count,
        packets,
        delivered: packets as f64 / due,
        cpu_us_per_packet: cpu.as_secs_f64() * 1e6 / packets as f64,
        core: cpu.as_secs_f64() / elapsed.as_secs_f64(),
        kb_per_viewer: memory as f64 / 1024.0 / count as f64,
        joined_ms: joined.as_millis() as u64,
    })
}

/// A frame that is cut into [`PACKETS_PER_FRAME`] packets: a slice for a delta; parameter sets and a shorter slice for a
/// keyframe. The slices' contents are no pictures; nothing here decodes them.
pub(super) fn frame(keyframe: bool) -> Bytes {
    const SPS: &[u8] = &[
        0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1e, 0xda, 0x02, 0x80, 0xbf, 0xe5, 0x9a, 0x80, 0x80, 0x80, 0xa0,
    ];
    const PPS: &[u8] = &[0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80];
    let mut frame = BytesMut::new();
    let packets = if keyframe {
        frame.extend_from_slice(SPS);
        frame.extend_from_slice(PPS);
        PACKETS_PER_FRAME - 1
    } else {
        PACKETS_PER_FRAME
    };
    frame.extend_from_slice(&[0, 0, 0, 1, if keyframe { 0x65 } else { 0x41 }]);
    // FU-A takes two bytes of each packet; 0x9a… begins with first_mb_in_slice = 0.
    frame.put_bytes(0x9a, packets * (MAX_PAYLOAD - 2));
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::rtp::packetize;

    #[test]
    fn frames_have_as_many_packets_as_the_benchmark_says() {
        for keyframe in [false, true] {
            let payloads = packetize::h264(&frame(keyframe), MAX_PAYLOAD).unwrap();
            assert_eq!(payloads.len(), PACKETS_PER_FRAME, "keyframe: {keyframe}");
            assert!(
                payloads
                    .iter()
                    .skip(1)
                    .all(|payload| payload.bytes.len() == MAX_PAYLOAD)
            );
        }
    }
}

//! `wzp-gateway bench`: what the gateway's work costs on this machine.
//!
//! `forward` sends H.264 frames of eight packets at 30 fps through a gateway to real DTLS-SRTP viewers over loopback, and
//! beside it the same through a bare loop around the protocol crate `rtc`. Each side runs in a process of its own, and so
//! do the viewers, whose work is not counted. What is counted is the CPU time of the one thread that forwards.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

mod bare;
mod forward;
mod gateway;
mod process;
mod viewers;

/// RTP packets of one frame.
const PACKETS_PER_FRAME: usize = 8;
/// Frames per second.
const FPS: u32 = 30;
/// What joins have to settle before anything is counted.
const SETTLE: Duration = Duration::from_secs(3);
/// CPU for a packet may be so many times that of the bare loop.
const MOST_OF_BARE: f64 = 1.3;
/// What a viewer may add to the memory, kB.
const MOST_KB_PER_VIEWER: f64 = 250.0;
/// Packets that must have arrived, or the rest says nothing.
const LEAST_DELIVERED: f64 = 0.99;

/// Arguments of `wzp-gateway bench`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// Video to many WebRTC viewers: CPU per packet and memory per viewer, beside a bare loop
    Forward(Forward),
    /// The viewers of `forward`, in a process of their own
    #[command(hide = true)]
    Viewers {
        /// How many
        #[arg(long)]
        count: usize,
    },
}

#[derive(Debug, Clone, clap::Args)]
struct Forward {
    /// Numbers of viewers to measure with
    #[arg(long, value_delimiter = ',', default_value = "50,200")]
    viewers: Vec<usize>,
    /// How long to count, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Print one JSON line for each measurement in place of the table
    #[arg(long)]
    json: bool,
    /// Fail if it costs more than 1.3 times the bare loop for a packet, or than 250 kB for a viewer
    #[arg(long, conflicts_with = "engine")]
    check: bool,
    /// Measure only this, in this process
    #[arg(long)]
    engine: Option<Engine>,
}

/// What forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Engine {
    /// This gateway: room, log, WebRTC worker.
    Gateway,
    /// A loop around `rtc` with its default interceptors, and nothing else.
    Bare,
}

/// One row.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    engine: Engine,
    viewers: usize,
    /// Packets that arrived at the viewers within the time.
    packets: u64,
    /// Of those that should have.
    delivered: f64,
    /// CPU of the forwarding thread for one packet that arrived, µs.
    cpu_us_per_packet: f64,
    /// Share of one core.
    core: f64,
    /// Resident memory that one viewer adds, kB.
    kb_per_viewer: f64,
    /// From the first offer until all viewers were connected, ms.
    joined_ms: u64,
}

/// Runs it.
///
/// # Errors
/// A process cannot be started, viewers do not connect, or a target is missed that was to be checked.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.what {
        What::Viewers { count } => viewers::run(count).await,
        What::Forward(forward) => match forward.engine {
            Some(engine) => {
                for &count in &forward.viewers {
                    let measured = forward::measure(engine, count, Duration::from_secs(forward.seconds)).await?;
                    print_line(&serde_json::to_string(&measured)?)?;
                }
                Ok(())
            }
            None => compare(&forward).await,
        },
    }
}

/// Every measurement in a fresh process, so that none finds the memory of another.
async fn compare(forward: &Forward) -> anyhow::Result<()> {
    ensure!(
        !forward.viewers.contains(&0),
        "--viewers: at least one viewer is needed"
    );
    if !forward.json {
        print_line("engine   viewers  µs/packet  of bare  core  kB/viewer  delivered  joined")?;
    }
    let mut missed = Vec::new();
    for &count in &forward.viewers {
        let bare = in_child(Engine::Bare, count, forward.seconds).await?;
        let gateway = in_child(Engine::Gateway, count, forward.seconds).await?;
        for row in [&bare, &gateway] {
            let line = if forward.json {
                serde_json::to_string(row)?
            } else {
                format!(
                    "{:<8} {:>7}  {:>9.2}  {:>6.2}×  {:>3.0}%  {:>9.0}  {:>8.1}%  {} ms",
                    format!("{:?}", row.engine).to_lowercase(),
                    row.viewers,
                    row.cpu_us_per_packet,
                    row.cpu_us_per_packet / bare.cpu_us_per_packet,
                    row.core * 100.0,
                    row.kb_per_viewer,
                    row.delivered * 100.0,
                    row.joined_ms,
                )
            };
            print_line(&line)?;
        }
        missed.extend(misses(&bare, &gateway));
    }
    ensure!(!forward.check || missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}

/// The targets that the gateway misses.
fn misses(bare: &Measured, gateway: &Measured) -> Vec<String> {
    let viewers = gateway.viewers;
    let ratio = gateway.cpu_us_per_packet / bare.cpu_us_per_packet;
    let mut missed = Vec::new();
    if ratio > MOST_OF_BARE {
        missed.push(format!(
            "{ratio:.2} times the bare loop with {viewers} viewers, more than {MOST_OF_BARE}"
        ));
    }
    if gateway.kb_per_viewer > MOST_KB_PER_VIEWER {
        let memory = gateway.kb_per_viewer;
        missed.push(format!(
            "{memory:.0} kB for each of {viewers} viewers, more than {MOST_KB_PER_VIEWER:.0}"
        ));
    }
    for measured in [bare, gateway] {
        if measured.delivered < LEAST_DELIVERED {
            let (engine, share) = (measured.engine, measured.delivered * 100.0);
            missed.push(format!(
                "only {share:.1} % of packets arrived from {engine:?} with {viewers} viewers"
            ));
        }
    }
    missed
}

async fn in_child(engine: Engine, count: usize, seconds: u64) -> anyhow::Result<Measured> {
    let name = match engine {
        Engine::Gateway => "gateway",
        Engine::Bare => "bare",
    };
    let seconds = seconds.to_string();
    let child = tokio::process::Command::new(std::env::current_exe()?)
        .args(["bench", "forward", "--engine", name, "--seconds", &seconds])
        .args(["--viewers", &count.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot start the measured process")?;
    if !child.status.success() {
        bail!("measuring {name} with {count} viewers failed");
    }
    serde_json::from_slice(&child.stdout).context("the measured process gave no result")
}

fn print_line(line: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .context("cannot write to stdout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_for_the_gateway_and_its_packets_must_arrive() {
        let measured = |engine, cpu, memory, delivered| Measured {
            engine,
            viewers: 50,
            packets: 1000,
            delivered,
            cpu_us_per_packet: cpu,
            core: 0.1,
            kb_per_viewer: memory,
            joined_ms: 100,
        };
        let bare = measured(Engine::Bare, 10.0, 300.0, 1.0);
        assert!(misses(&bare, &measured(Engine::Gateway, 12.9, 249.0, 1.0)).is_empty());
        assert_eq!(misses(&bare, &measured(Engine::Gateway, 13.1, 251.0, 0.9)).len(), 3);
    }
}

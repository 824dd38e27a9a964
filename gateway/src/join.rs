//! `wzp-gateway join`: a native member on the command line.
//!
//! In: sound and pictures from files. Out: what the room sends, judged by the rules of native apps, in recordings and in a
//! summary.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use quinn::ConnectionError;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use wzp_proto::codec::{Codec, QualityProfile};
use wzp_proto::handshake::OfferOptions;
use wzp_proto::identity::{Fingerprint, Identity};
use wzp_proto::signal::{GatewayExtension, RoomParticipant, Signal};

use self::video_in::Ask;
use crate::native::client::{self, Client, Event, Sender};
use crate::native::transport::close;

mod audio_in;
mod audio_out;
mod media_in;
mod ogg_opus;
mod pitch;
mod seq;
mod video_in;
mod video_out;
mod voice_out;

/// Longest stay, s: four months.
const MAX_SECONDS: f64 = 1e7;

/// Arguments of `wzp-gateway join`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The relay or gateway, for instance localhost:4433
    #[arg(value_name = "HOST:PORT")]
    pub relay: String,
    /// Room to join
    #[arg(long)]
    pub room: String,
    /// Name that the others see
    #[arg(long, default_value = "join")]
    pub alias: String,
    /// Sound to send: an Ogg Opus file, played in a loop, or tone:HZ
    #[arg(long, value_name = "FILE|tone:HZ")]
    pub audio: Option<String>,
    /// Send the sound in this codec, as apps on bad networks do; else a file as it is, and a tone as Opus of 24 kbit/s
    #[arg(long, value_name = "CODEC", requires = "audio")]
    pub codec: Option<voice_out::Coding>,
    /// Pictures to send: an H.264 Annex B file, played in a loop; when somebody asks for a keyframe, play jumps to the
    /// file's next one
    #[arg(long, value_name = "FILE")]
    pub video: Option<PathBuf>,
    /// Frames per second of the video file
    #[arg(long, default_value_t = 30.0)]
    pub fps: f64,
    /// Write the sound of the others to this Ogg Opus file
    #[arg(long, value_name = "FILE")]
    pub record_audio: Option<PathBuf>,
    /// Write the picture of the others to this H.264 Annex B file
    #[arg(long, value_name = "FILE")]
    pub record_video: Option<PathBuf>,
    /// Leave after this many seconds; else at Ctrl-C
    #[arg(long, value_parser = seconds)]
    pub seconds: Option<f64>,
    /// Print a JSON summary on stdout at the end
    #[arg(long)]
    pub json: bool,
    /// Token, if the relay wants one
    #[arg(long)]
    pub token: Option<String>,
    /// Identity as 64 hex digits; a new one each time if not given
    #[arg(long, value_name = "HEX")]
    pub seed: Option<String>,
    /// Ask for missing video packets, and send again what is asked for; today's apps do neither
    #[arg(long)]
    pub nack: bool,
    /// Ignore keyframe requests, as encoders that cannot be asked do
    #[arg(long)]
    pub ignore_keyframe_requests: bool,
    /// Ask for every source apart, which gateways can do and today's apps do not ask for; recordings get the stream id into
    /// their names
    #[arg(long)]
    pub per_source: bool,
    /// Ask for this member's picture whenever there is one, whoever talks
    #[arg(long, value_name = "FINGERPRINT")]
    pub pin: Option<Fingerprint>,
    /// Write when each picture was sent to this file: its number in the video file and Unix time in ms, one line each
    #[arg(long, value_name = "FILE", requires = "video")]
    pub trace_video: Option<PathBuf>,
    /// Dial the hash form of the room's name
    #[arg(long)]
    pub hashed: bool,
}

/// What came of it. Times are in ms since the relay's answer, unless they say otherwise.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Who was in the room at the end, this member included.
    pub participants: Vec<RoomParticipant>,
    /// Own fingerprint.
    pub fingerprint: String,
    /// The relay's fingerprint.
    pub relay: String,
    /// The TLS server name that was dialled.
    pub server_name: String,
    /// From dialling to the answer.
    pub connect_ms: u64,
    /// From the answer to the end.
    pub duration_ms: u64,
    /// Sound that came.
    pub audio: audio_in::AudioSummary,
    /// Pictures that came.
    pub video: video_in::VideoSummary,
    /// What came of every source, if they were asked for apart; `audio` and `video` are empty then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceSummary>,
    /// What was sent.
    pub sent: SentSummary,
    /// Member lists received.
    pub room_updates: u64,
    /// Keyframe requests.
    pub pli: PliSummary,
    /// Requests for missing packets.
    pub nack: NackSummary,
    /// Datagrams and signals that could not be read.
    pub malformed: u64,
    /// Why the relay ended it, if it did.
    pub closed: Option<String>,
}

/// What came of one source.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceSummary {
    /// Its stream id.
    pub stream_id: u8,
    /// Its name in the last member list that had it.
    pub alias: Option<String>,
    /// Sound that came.
    pub audio: audio_in::AudioSummary,
    /// Pictures that came.
    pub video: video_in::VideoSummary,
}

/// What was sent.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SentSummary {
    /// Sound packets.
    pub audio_packets: u64,
    /// Video frames.
    pub video_frames: u64,
    /// Those of them that were keyframes.
    pub keyframes: u64,
}

/// Keyframe requests.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PliSummary {
    /// Sent because of gaps.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

/// Requests for missing packets.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NackSummary {
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
    /// Packets sent again.
    pub resent: u64,
}

/// Joins, stays, leaves, and prints what came of it.
///
/// # Errors
/// The arguments make no sense, the relay cannot be joined or ended it, or a file cannot be read or written.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let json = args.json;
    let summary = stay(args).await?;
    if json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        eprintln!("{}", serde_json::to_string_pretty(&summary)?);
    }
    match summary.closed {
        Some(reason) => bail!("the relay ended it: {reason}"),
        None => Ok(()),
    }
}

/// Joins, stays and leaves.
///
/// # Errors
/// As [`run`], but an end by the relay is only told in the summary.
pub async fn stay(args: Args) -> anyhow::Result<Summary> {
    let identity = Identity::from_seed(&seed(args.seed.as_deref())?);
    let dialled = client::server_name(&args.room, args.hashed)?;
    if dialled.hashed && !args.hashed {
        eprintln!("{:?} cannot be a TLS server name; its hash form is dialled", args.room);
    }
    let audio = args
        .audio
        .as_deref()
        .map(|what| audio_out::AudioSource::open(what, args.codec))
        .transpose()?;
    let video = args
        .video
        .as_deref()
        .map(|path| video_out::VideoSource::open(path, args.fps, args.trace_video.as_deref()))
        .transpose()?;
    let mut received = Received {
        media: media_in::MediaIn::new(media_in::Record {
            audio: args.record_audio,
            video: args.record_video,
            repairs: args.nack,
            per_source: args.per_source,
        })?,
        participants: Vec::new(),
        room_updates: 0,
        pli: PliSummary::default(),
        nack: NackSummary::default(),
        malformed: 0,
    };
    let with_token = args.token.is_some();
    let relays = resolve(&args.relay).await?;
    let extension = GatewayExtension {
        per_source: args.per_source,
        pin: args.pin,
    };
    // Relays skip what they do not know, but nothing is said that need not be.
    let extension = (extension != GatewayExtension::default()).then_some(extension);
    let started = Instant::now();
    let options = client::Options {
        relay: relays[0],
        server_name: dialled.server_name.clone(),
        token: args.token,
        offer: OfferOptions {
            alias: Some(args.alias),
            profiles: QualityProfile::OFFERED.to_vec(),
            video_codecs: vec![Codec::H264Baseline],
            extension,
        },
    };
    let connecting = Client::connect_any(&relays, options, &identity).await;
    let mut client = connecting.with_context(|| {
        let token = if with_token {
            "with this token"
        } else {
            "without a token (--token)"
        };
        format!("cannot join {:?} at {} {token}", args.room, args.relay)
    })?;
    let joined = Instant::now();
    let relay = client.connection().remote_address();
    eprintln!("joined {:?} at {relay} as {}", args.room, identity.fingerprint());

    let keyframe_wanted = Arc::new(Notify::new());
    let history = Arc::new(video_out::History::default());
    let sent = Arc::new(SentCounters::default());
    let mut senders = JoinSet::new();
    if let Some(audio) = audio {
        senders.spawn(audio.play(client.sender(), joined, sent.clone()));
    }
    if let Some(video) = video {
        let (wanted, history) = (keyframe_wanted.clone(), history.clone());
        senders.spawn(video.play(client.sender(), joined, wanted, history, sent.clone()));
    }
    let deadline = args.seconds.map(|seconds| joined + Duration::from_secs_f64(seconds));
    // Made once: a new one for each event would miss an interrupt that comes while an event is handled.
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    let closed = loop {
        let repair = received.media.poll_timeout(client.connection()).map(|at| joined + at);
        tokio::select! {
            event = client.next() => {
                let sender = client.sender();
                match received.take(event, joined) {
                    Taken::Nothing => {}
                    Taken::Ask(ask) => received.ask(ask, &sender),
                    Taken::Asked if args.ignore_keyframe_requests => {}
                    Taken::Asked => keyframe_wanted.notify_one(),
                    Taken::AskedAgain(seqs) => if args.nack {
                        received.nack.resent += history.answer(&seqs, &sender, joined.elapsed());
                    },
                    Taken::Closed(error) => break Some(reason(&error)),
                }
            }
            () = sleep_until(repair), if repair.is_some() => {
                while let Some(ask) = received.media.handle_timeout(joined.elapsed()) {
                    received.ask(ask, &client.sender());
                }
            }
            () = sleep_until(deadline), if deadline.is_some() => break None,
            interrupted = &mut interrupted => {
                interrupted?;
                break None;
            }
        }
    };
    senders.abort_all();
    let relay_fingerprint = client.established().fingerprint.to_string();
    client.close(close::NORMAL, "normal close").await;
    let (one, sources) = received.media.finish()?;
    Ok(Summary {
        fingerprint: identity.fingerprint().to_string(),
        relay: relay_fingerprint,
        server_name: dialled.server_name,
        connect_ms: (joined - started).as_millis() as u64,
        duration_ms: joined.elapsed().as_millis() as u64,
        audio: one.audio,
        video: one.video,
        sources,
        sent: sent.summary(),
        participants: received.participants,
        room_updates: received.room_updates,
        pli: received.pli,
        nack: received.nack,
        malformed: received.malformed,
        closed,
    })
}

struct Received {
    media: media_in::MediaIn,
    participants: Vec<RoomParticipant>,
    room_updates: u64,
    pli: PliSummary,
    nack: NackSummary,
    malformed: u64,
}

enum Taken {
    Nothing,
    /// Send a request.
    Ask(Ask),
    /// A keyframe request came.
    Asked,
    /// A request for packets came.
    AskedAgain(Vec<u32>),
    Closed(ConnectionError),
}

impl Received {
    fn ask(&mut self, ask: Ask, sender: &Sender) {
        sender.signal(match ask {
            Ask::Keyframe(stream_id) => {
                self.pli.sent += 1;
                Signal::picture_loss(stream_id)
            }
            Ask::Packets(stream_id, seqs) => {
                self.nack.sent += 1;
                Signal::nack(stream_id, seqs)
            }
        });
    }

    fn take(&mut self, event: Event, joined: Instant) -> Taken {
        let at = joined.elapsed();
        match event {
            Event::Packet(packet) => match self.media.take(&packet, at) {
                Ok(Some(ask)) => return Taken::Ask(ask),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "a new source is not taken");
                    self.malformed += 1;
                }
            },
            Event::Signal(Signal::RoomUpdate { participants, .. }) => {
                self.room_updates += 1;
                let names: Vec<_> = participants
                    .iter()
                    .map(|who| who.alias.as_deref().unwrap_or(&who.fingerprint))
                    .collect();
                eprintln!("in the room: {}", names.join(", "));
                self.media.name(&participants);
                self.participants = participants;
            }
            Event::Signal(Signal::PictureLossIndication { .. }) => {
                self.pli.received += 1;
                return Taken::Asked;
            }
            Event::Signal(Signal::Nack { seqs, .. }) => {
                self.nack.received += 1;
                return Taken::AskedAgain(seqs);
            }
            Event::Signal(Signal::Hangup { reason, .. }) => eprintln!("the relay hangs up: {reason:?}"),
            Event::Signal(_) => {}
            // Natives cannot read trunk frames.
            Event::BadPacket(_) | Event::Trunk(_) | Event::BadSignal(_) => self.malformed += 1,
            Event::Closed(error) => return Taken::Closed(error),
        }
        Taken::Nothing
    }
}

/// What was sent so far, counted by the sending tasks.
#[derive(Debug, Default)]
struct SentCounters {
    audio_packets: std::sync::atomic::AtomicU64,
    video_frames: std::sync::atomic::AtomicU64,
    keyframes: std::sync::atomic::AtomicU64,
}

impl SentCounters {
    fn summary(&self) -> SentSummary {
        use std::sync::atomic::Ordering::Relaxed;
        SentSummary {
            audio_packets: self.audio_packets.load(Relaxed),
            video_frames: self.video_frames.load(Relaxed),
            keyframes: self.keyframes.load(Relaxed),
        }
    }
}

fn seed(hex: Option<&str>) -> anyhow::Result<[u8; 32]> {
    let Some(hex) = hex else {
        return Ok(rand::random());
    };
    let mut seed = [0; 32];
    hex::decode_to_slice(hex, &mut seed).context("--seed must be 64 hex digits")?;
    Ok(seed)
}

/// A time that can be waited for.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=MAX_SECONDS).contains(&seconds) => Ok(seconds),
        _ => Err(format!("write a number of seconds from 0 to {MAX_SECONDS}")),
    }
}

/// All addresses of a relay.
async fn resolve(relay: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let port = relay.rsplit_once(':').map(|(_, port)| port);
    anyhow::ensure!(
        port.is_some_and(|port| port.parse::<u16>().is_ok()),
        "{relay:?} has no port; write host:port, for instance localhost:4433"
    );
    let addresses: Vec<_> = tokio::net::lookup_host(relay)
        .await
        .with_context(|| format!("cannot find {relay:?}"))?
        .collect();
    anyhow::ensure!(!addresses.is_empty(), "{relay:?} has no address");
    Ok(addresses)
}

fn reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let text = String::from_utf8_lossy(&close.reason);
            format!("{text} (code {})", close.error_code)
        }
        other => other.to_string(),
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stay_that_has_no_length_is_refused_with_words() {
        assert_eq!(seconds("1.5"), Ok(1.5));
        for text in ["nan", "inf", "-1", "1e9", "soon", ""] {
            let error = seconds(text).unwrap_err();
            assert!(error.contains("number of seconds"), "{text}: {error}");
        }
    }
}

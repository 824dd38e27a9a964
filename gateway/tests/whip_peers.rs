//! aiortc publishes over WHIP and watches over WHEP; what arrives is listened to and looked at.
//!
//! Needs `python3` and a package index: aiortc is installed into a virtual environment below `target/`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::Value;
use wzp_gateway::config::{Config, Settings};
use wzp_gateway::room::member::Door;
use wzp_gateway::serve::Gateway;
use wzp_proto::room_name::RoomName;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    settings: Settings,
}

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers")
}

/// The interpreter of an environment that has what `requirements.txt` asks for.
fn python() -> PathBuf {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("aiortc");
    let python = environment.join("bin/python");
    let wanted = peers().join("requirements.txt");
    let installed = environment.join("requirements.txt");
    if std::fs::read(&installed).ok() == Some(std::fs::read(&wanted).unwrap()) {
        return python;
    }
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&environment));
    run(Command::new(&python)
        .args(["-m", "pip", "install", "-q", "-r"])
        .arg(&wanted));
    std::fs::copy(&wanted, &installed).unwrap();
    python
}

/// A running peer. It is killed if the test ends before it does.
struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(role: &str, url: &str, more: &[&str]) -> Self {
        let mut child = Command::new(python())
            .arg(peers().join("aiortc_peer.py"))
            .args([role, url])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let input = child.stdin.take();
        Self { child, input, output }
    }

    /// Its next line; the script has deadlines for everything that it waits for.
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "aiortc ended: {:?}", self.child.wait());
        serde_json::from_str(&line).unwrap()
    }

    fn end(&mut self) -> Value {
        self.input.take();
        self.line()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn start() -> (Gateway, String, tempfile::TempDir) {
    let state = tempfile::tempdir().unwrap();
    let local = "127.0.0.1:0";
    let line = [
        "gateway", "--no-tls", "--http", local, "--native", local, "--webrtc", local,
    ];
    let config = Config {
        state_dir: state.path().to_owned(),
        ..Line::parse_from(line).settings.resolve().unwrap()
    };
    let gateway = Gateway::start(&config).await.unwrap();
    let url = format!("http://{}", gateway.addresses().http);
    (gateway, url, state)
}

async fn on_its_own<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn aiortc_publishes_and_watches_sound_and_moving_pictures() {
    let (gateway, url, _state) = start().await;
    let (whip, whep) = (format!("{url}/whip/studio?name=Cam"), format!("{url}/whep/studio"));
    // One is there before anything is sent, and waits.
    let early = format!("{whep}?name=Early");
    let mut early = on_its_own(move || {
        let mut viewer = Peer::start("watch", &early, &["--seconds", "5"]);
        assert_eq!(viewer.line()["connected"], true);
        viewer
    })
    .await;
    let mut publisher = on_its_own(move || {
        let mut publisher = Peer::start("publish", &whip, &["--hz", "440"]);
        assert_eq!(publisher.line()["connected"], true);
        publisher
    })
    .await;
    let members = || {
        let room = gateway.registry().get(RoomName::parse("studio").unwrap().key());
        room.map_or_else(Vec::new, |room| room.snapshot().members.clone())
    };
    let begun = Instant::now();
    let sizes = loop {
        let cam = members().into_iter().find(|member| member.name == "Cam").unwrap();
        assert_eq!(cam.door, Door::Whip);
        assert_eq!(cam.tracks.len(), 2);
        if let Some(size) = cam.tracks.iter().find_map(|track| track.info.size) {
            break (size.width, size.height);
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "the size never became known");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(sizes, (320, 240));

    // One follows the speaker, one names its source.
    let named = format!("{whep}?source=Cam&name=Two");
    let watch = |url: String| {
        on_its_own(move || {
            let mut viewer = Peer::start("watch", &url, &["--seconds", "5"]);
            assert_eq!(viewer.line()["connected"], true);
            viewer.line()
        })
    };
    let early = on_its_own(move || early.line());
    let (first, second, early) = tokio::join!(watch(whep), watch(named), early);
    for seen in [first, second, early] {
        println!("{seen}");
        let number = |name: &str| seen[name].as_f64().unwrap();
        assert!(number("frames") > 60.0, "{seen}");
        assert!(
            number("moving") > 0.6 * number("frames"),
            "the picture stands still: {seen}"
        );
        assert!((number("hz") - 440.0).abs() < 5.0, "{seen}");
        assert!(number("rms") > 0.1 && number("seconds") > 2.5, "{seen}");
        assert_eq!(seen["deleted"], 200);
        assert_eq!(seen["closed"], true, "DELETE did not end the peer connection");
    }
    assert_eq!(members().len(), 1, "viewers are gone");

    let summary = on_its_own(move || publisher.end()).await;
    assert_eq!(summary["deleted"], 200, "{summary}");
    assert!(members().is_empty());
    gateway.shutdown().await;
}

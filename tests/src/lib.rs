//! The real program, as people start it: its flags, variables, files, lines and signals.
#![forbid(unsafe_code)]

/// A relay that behaves like the existing one.
#[path = "../../gateway/tests/uplink/relay/mod.rs"]
pub mod relay;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

/// Long enough for a loaded machine, short enough to fail.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The program: `$WZP_GATEWAY`, or what was built beside the tests.
///
/// # Errors
/// It is not there.
pub fn program() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("WZP_GATEWAY") {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let profile = own.ancestors().nth(2).context("the tests have no folder")?;
    let path = profile.join("wzp-gateway");
    ensure!(path.exists(), "{} is missing: cargo build --workspace", path.display());
    Ok(path)
}

/// A command without settings of the caller's environment.
///
/// # Errors
/// See [`program`].
pub fn command() -> anyhow::Result<Command> {
    let mut command = Command::new(program()?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WZP_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// A gateway that runs; killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    state: TempDir,
}

impl Gateway {
    /// Starts `command`, whose state folder is its own.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        let state = tempfile::tempdir()?;
        let mut child = command
            .arg("--state-dir")
            .arg(state.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdout = lines(child.stdout.take().context("no stdout")?);
        let stderr = lines(child.stderr.take().context("no stderr")?);
        Ok(Self {
            child,
            stdout,
            stderr,
            state,
        })
    }

    /// Its state folder.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// What `--print-addresses` says.
    ///
    /// # Errors
    /// It is no JSON, or does not come.
    pub fn addresses(&self) -> anyhow::Result<Value> {
        let line = self.stdout.recv_timeout(DEADLINE);
        let line = line.with_context(|| {
            format!(
                "no addresses; its log: {:?}",
                self.stderr.try_iter().collect::<Vec<_>>()
            )
        })?;
        Ok(serde_json::from_str(&line)?)
    }

    /// The next line on stderr that begins so, without that.
    ///
    /// # Errors
    /// It does not come.
    pub fn line(&self, begin: &str) -> anyhow::Result<String> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.stderr.recv_timeout(left);
            let line = line.with_context(|| format!("no line begins with {begin:?}"))?;
            if let Some(rest) = line.strip_prefix(begin) {
                return Ok(rest.to_owned());
            }
        }
    }

    /// Asks it to stop, as a service manager does.
    ///
    /// # Errors
    /// There is no `kill`.
    pub fn terminate(&self) -> anyhow::Result<()> {
        let status = Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(status.success(), "kill: {status}");
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end.
    pub fn wait(mut self) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("it still runs");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It has ended, or has to.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// One of the [`Gateway::addresses`].
///
/// # Errors
/// It is not there.
pub fn address(addresses: &Value, door: &str) -> anyhow::Result<SocketAddr> {
    let text = addresses[door]
        .as_str()
        .with_context(|| format!("no {door} in {addresses}"))?;
    Ok(text.parse()?)
}

fn lines(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    // Ends with the stream.
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

mod member {
    use std::time::Duration;

    /// Long enough for a loaded machine, short enough to fail.
    pub const DEADLINE: Duration = Duration::from_secs(10);
}

//! The `wzp-gateway` program.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use wzp_gateway::config::{self, Config, Settings};
use wzp_gateway::serve::Gateway;
use wzp_gateway::{bench, doctor, greeting, join, net};

/// WZP calls from a browser: native apps, browsers and streaming tools in one room.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway (the default)
    Serve(Box<Serve>),
    /// Join a room as a native member, for trying things out and for tests
    Join(Box<join::Args>),
    /// Measure what the gateway's work costs on this machine
    Bench(bench::Args),
    /// Ask the gateway that these settings would start whether it is well; status 0 if so
    Doctor(Box<Source>),
}

#[derive(Debug, Args)]
struct Serve {
    /// Print where everything listens as one JSON line on stdout
    #[arg(long)]
    print_addresses: bool,
    #[command(flatten)]
    source: Source,
}

/// Where settings come from.
#[derive(Debug, Args)]
struct Source {
    /// Configuration file (TOML); environment variables and flags go over it
    #[arg(long, env = "WZP_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl Source {
    fn resolve(self) -> anyhow::Result<Config> {
        let file = self.config.as_deref().map(Settings::from_file).transpose()?;
        Ok(self.settings.over(file.unwrap_or_default()).resolve()?)
    }
}

fn main() -> ExitCode {
    let command = config::without_empty_variables(Cli::command());
    let cli = Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    let done = match cli.command {
        None => run_serve(cli.serve),
        Some(Command::Serve(serve)) => run_serve(*serve),
        Some(Command::Join(args)) => run_join(*args),
        Some(Command::Bench(args)) => run_bench(args),
        Some(Command::Doctor(source)) => run_doctor(*source),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wzp-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_serve(serve: Serve) -> anyhow::Result<()> {
    let config = serve.source.resolve()?;
    log_to_stderr(&config.log, config.log_json)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut gateway = Gateway::start(&config).await?;
        if serve.print_addresses {
            let line = serde_json::to_string(&gateway.addresses())?;
            let mut stdout = std::io::stdout().lock();
            writeln!(stdout, "{line}")
                .and_then(|()| stdout.flush())
                .context("cannot write to stdout")?;
        } else {
            let lines = greeting::lines(&config.tls, &gateway.addresses(), &net::local_addresses());
            eprintln!("\n{}\n", lines.join("\n"));
        }
        let failure = tokio::select! {
            signal = until_signal() => { signal?; None }
            failure = gateway.failed() => Some(failure),
        };
        tracing::info!("stopping");
        gateway.shutdown().await;
        failure.map_or(Ok(()), |failure| Err(failure.into()))
    })
}

fn run_join(args: join::Args) -> anyhow::Result<()> {
    log_to_stderr(&std::env::var("WZP_LOG").unwrap_or_else(|_| "warn".to_owned()), false)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(join::run(args))
}

fn run_bench(args: bench::Args) -> anyhow::Result<()> {
    log_to_stderr(&std::env::var("WZP_LOG").unwrap_or_else(|_| "warn".to_owned()), false)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(bench::run(args))
}

fn run_doctor(source: Source) -> anyhow::Result<()> {
    let config = source.resolve()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let url = runtime.block_on(doctor::run(&config))?;
    println!("{url} is well");
    Ok(())
}

fn log_to_stderr(filter: &str, json: bool) -> anyhow::Result<()> {
    // The WebRTC stack logs a line per packet when something is wrong with a peer.
    let filter = EnvFilter::try_new(format!(
        "{filter},rtc=error,rtc_ice=error,rtc_dtls=error,rtc_srtp=error"
    ))
    .with_context(|| format!("log: {filter:?} is not a filter such as info or wzp_gateway=debug"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if json {
        builder.json().init()
    } else {
        builder.init()
    }
    Ok(())
}

async fn until_signal() -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            done = tokio::signal::ctrl_c() => done?,
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await?;
    Ok(())
}

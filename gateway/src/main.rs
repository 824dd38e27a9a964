//! The `wzp-gateway` program.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use tokio::sync::watch;
use wzp_gateway::room::registry::{Registry, RoomLimits};
use wzp_gateway::{join, native};
use wzp_proto::identity::Identity;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Join a room as a native member
    Join(Box<join::Args>),
    /// Serve native apps
    Serve(ServeArgs),
}

#[derive(Debug, clap::Args)]
struct ServeArgs {
    /// Where native apps connect, UDP
    #[arg(long, default_value = "[::]:4433")]
    native: SocketAddr,
    /// Print the addresses as one JSON line
    #[arg(long)]
    print_addresses: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match Cli::parse().command {
        Command::Join(args) => join::run(*args).await,
        Command::Serve(args) => serve(args).await,
    }
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let registry = Registry::new(RoomLimits {
        rooms: 1_000,
        members: 250,
    });
    let identity = Arc::new(Identity::from_seed(&rand::random()));
    let server = native::Server::bind(native::Config::new(args.native), registry, identity)?;
    if args.print_addresses {
        println!("{}", serde_json::json!({ "native": server.local_addr()?.to_string() }));
    }
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(server.run(stopped));
    tokio::signal::ctrl_c().await?;
    stop.send_replace(true);
    Ok(running.await?)
}

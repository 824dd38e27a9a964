//! A stand-in of the existing relay, for browser tests: says where it listens as one JSON line, and lives until its standard
//! input ends.
#![forbid(unsafe_code)]

use std::io::{Read, Write};

use tests::relay::{Options, StandIn};

fn main() -> anyhow::Result<()> {
    let relay = StandIn::start(Options::default());
    println!(r#"{{"native":"{}"}}"#, relay.addr);
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

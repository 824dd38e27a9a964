//! The PCM door: pages that were made for older bridges, which send and expect bare samples over a WebSocket.
//!
//! In: binary messages of 960 mono samples (48 kHz, 16 bits, little-endian), 50 a second; they become an Opus track
//! ([`ingress`]). Out: messages of the same form with the mix of everyone else ([`session`]). Text messages carry only the
//! token and errors.

mod clock;
pub mod ingress;
pub mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::auth::Auth;
use crate::room::registry::Registry;

/// What the door did and did not do, over all its sessions.
#[derive(Debug, Default)]
pub struct Counters {
    /// Pages that joined.
    pub joined: AtomicU64,
    /// Pages turned away for want of a token.
    pub unauthorized: AtomicU64,
    /// Messages taken.
    pub blocks_in: AtomicU64,
    /// Messages of a wrong length.
    pub bad_size_in: AtomicU64,
    /// Messages over the rate of 50 a second.
    pub over_rate_in: AtomicU64,
    /// Messages sent.
    pub blocks_out: AtomicU64,
    /// Messages not sent: the page, or its network, was too slow.
    pub dropped_out: AtomicU64,
}

impl Counters {
    /// All counters by name, for metrics.
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("joined", get(&self.joined)),
            ("unauthorized", get(&self.unauthorized)),
            ("blocks_in", get(&self.blocks_in)),
            ("bad_size_in", get(&self.bad_size_in)),
            ("over_rate_in", get(&self.over_rate_in)),
            ("blocks_out", get(&self.blocks_out)),
            ("dropped_out", get(&self.dropped_out)),
        ]
    }
}

/// What all sessions share.
#[derive(Debug, Clone)]
pub struct Config {
    /// The rooms.
    pub registry: Registry,
    /// Who may enter.
    pub auth: Auth,
    /// Counters.
    pub counters: Arc<Counters>,
}

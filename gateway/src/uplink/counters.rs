//! What the legs did, relay by relay.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::uplink::UplinkRule;
use crate::native::counters::{self, counters};

counters! {
    /// How legs stood with their relay, and what its packets were taken for.
    Legs {
        /// Attempts to join a room of the relay.
        attempts,
        /// Rooms of the relay that let a leg in.
        connected,
        /// Of these, rooms that the leg had been in before: the connection was lost, or renewed.
        reconnected,
        /// Connections that were lost.
        lost,
        /// Attempts that the relay refused.
        refused,
        /// Packets of which it is not clear whose they are: they could be of several senders.
        merged_in,
        /// Packets that came twice.
        duplicates_in,
        /// Packets of streams that are nobody's: too few yet, or too many senders.
        nobodys_in,
        /// Packets whose media can be played by nobody here.
        unplayable_in
    }
}

/// Counters of the legs to one relay.
#[derive(Debug, Default)]
pub struct Relay {
    /// Of the legs as such.
    pub legs: Legs,
    /// Of media and signals, as the native door counts them. What is about letting in stays 0.
    pub media: Arc<counters::Counters>,
}

/// Counters of all legs.
#[derive(Debug, Default)]
pub struct Counters {
    relays: BTreeMap<String, Arc<Relay>>,
}

impl Counters {
    /// Nothing counted yet, for the relays of these rules.
    pub fn new(rules: &[UplinkRule]) -> Self {
        Self {
            relays: rules.iter().map(|rule| (rule.relay.clone(), Arc::default())).collect(),
        }
    }

    /// By relay, as the configuration writes it.
    pub fn relays(&self) -> impl Iterator<Item = (&str, &Relay)> {
        self.relays
            .iter()
            .map(|(relay, counters)| (relay.as_str(), &**counters))
    }

    /// Of one relay.
    pub fn of(&self, relay: &str) -> Arc<Relay> {
        self.relays.get(relay).cloned().unwrap_or_default()
    }
}

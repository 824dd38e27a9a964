//! Whether the peer still wants our packets (RFC 7675): checks on the path in use, of which only the answers count. A
//! request proves that somebody knows our password, not that the packets arrive where they go.
//!
//! The protocol crate's agent checks the pair that was nominated first; the path in use may be another.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rtc::crypto::RTCCrypto;

use super::offer::Credentials;
use super::stun::{self, Parsed};
use super::transport::Path;

/// Time between two checks that are answered.
const INTERVAL: Duration = Duration::from_secs(2);
/// Time between two checks while none is answered: over a path that loses much, one must get through before the deadline.
const RETRY: Duration = Duration::from_millis(500);
/// Checks whose answers are waited for.
const MAX_PENDING: usize = 8;

struct Check {
    transaction: [u8; 12],
    peer: SocketAddr,
    sent: Instant,
}

/// See the module's text.
pub(super) struct Consent {
    /// When the peer last proved it.
    last: Instant,
    next: Instant,
    pending: VecDeque<Check>,
    tie_breaker: u64,
}

impl Consent {
    pub fn new(now: Instant) -> Self {
        Self {
            last: now,
            next: now,
            pending: VecDeque::new(),
            tie_breaker: rand::random(),
        }
    }

    /// When the peer last proved that it wants our packets.
    pub fn last(&self) -> Instant {
        self.last
    }

    /// When [`Consent::check`] has something to send.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// The path has just proved itself in another way.
    pub fn renew(&mut self, now: Instant) {
        self.last = now;
        self.next = now + INTERVAL;
    }

    /// The check that is due now, to be sent over `path`.
    pub fn check(
        &mut self,
        now: Instant,
        path: Path,
        local: &Credentials,
        remote: &Credentials,
        crypto: &dyn RTCCrypto,
    ) -> Option<Vec<u8>> {
        if now < self.next {
            return None;
        }
        let answered = now < self.last + INTERVAL + RETRY;
        self.next = now + if answered { INTERVAL } else { RETRY };
        let username = format!("{}:{}", remote.ufrag, local.ufrag);
        let (transaction, message) = stun::consent_check(username, &remote.password, self.tie_breaker, crypto)?;
        if self.pending.len() >= MAX_PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back(Check {
            transaction,
            peer: path.peer,
            sent: now,
        });
        Some(message)
    }

    /// The round trip, if a response answers a check on the path in use.
    pub fn take_response(
        &mut self,
        now: Instant,
        path: Path,
        response: &mut Parsed,
        remote: &Credentials,
        crypto: &dyn RTCCrypto,
    ) -> Option<Duration> {
        let place = self.position(response)?;
        if self.pending[place].peer != path.peer || !response.is_genuine(&remote.password, crypto) {
            return None;
        }
        let check = self.pending.remove(place)?;
        self.last = now;
        Some(now.saturating_duration_since(check.sent))
    }

    /// Whether a response is to one of our checks.
    pub fn is_awaited(&self, response: &Parsed) -> bool {
        self.position(response).is_some()
    }

    fn position(&self, response: &Parsed) -> Option<usize> {
        self.pending
            .iter()
            .position(|check| check.transaction == response.transaction.0)
    }
}

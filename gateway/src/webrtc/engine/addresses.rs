//! Which session lives at which address of a peer: how everything that is not a STUN request finds its session.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::transport::Path;
use super::types::{Protocol, SessionId};

/// As long as the owner of an address was heard from within this, no other session may take the address over. Browsers
/// check their path every 2.5 s.
const HOLD: Duration = Duration::from_secs(5);
/// Addresses remembered of one session. One that claims more loses the one it was silent at for longest, and takes no room
/// from others. How many it may wander through is bounded elsewhere: the transport answers so many between two ICE restarts.
pub(super) const MAX_PER_SESSION: usize = 64;

type Key = (Protocol, SocketAddr);

/// An address that a genuine binding request came from.
pub(super) struct Bound {
    pub session: SessionId,
    /// The address of ours that this peer sends to.
    pub local_ip: Option<IpAddr>,
    /// Last genuine request.
    seen: Instant,
}

/// The table.
#[derive(Default)]
pub(super) struct Addresses {
    bound: HashMap<Key, Bound>,
    of: HashMap<SessionId, Vec<Key>>,
}

impl Addresses {
    /// Who lives at an address.
    pub fn get(&self, protocol: Protocol, peer: SocketAddr) -> Option<&Bound> {
        self.bound.get(&(protocol, peer))
    }

    /// Binds the peer's address of `path` to a session that a genuine request named. `in_use` is the path that its media
    /// takes, which is never forgotten for another. `false`: another session lives there.
    pub fn claim(&mut self, now: Instant, session: SessionId, path: Path, in_use: Option<Path>) -> bool {
        let key = (path.local.protocol, path.peer);
        let owner = self.bound.get(&key).map(|bound| (bound.session, bound.seen));
        if owner.map(|(owner, _)| owner) != Some(session) {
            if let Some((owner, seen)) = owner {
                // Whoever knows the password of any session could send from a forged address, and so cut off the session
                // that lives there.
                if now < seen + HOLD {
                    return false;
                }
                self.forget_address(owner, key);
            }
            self.make_room(session, in_use.map(|path| (path.local.protocol, path.peer)));
            self.of.entry(session).or_default().push(key);
        }
        let bound = Bound {
            session,
            local_ip: path.local.ip,
            seen: now,
        };
        self.bound.insert(key, bound);
        true
    }

    /// A session has ended.
    pub fn forget(&mut self, session: SessionId) {
        for key in self.of.remove(&session).unwrap_or_default() {
            self.bound.remove(&key);
        }
    }

    fn make_room(&mut self, session: SessionId, in_use: Option<Key>) {
        let Some(keys) = self.of.get(&session).filter(|keys| keys.len() >= MAX_PER_SESSION) else {
            return;
        };
        let spare = keys.iter().filter(|key| Some(**key) != in_use);
        let oldest = spare
            .min_by_key(|key| self.bound.get(*key).map(|bound| bound.seen))
            .copied();
        if let Some(oldest) = oldest {
            self.bound.remove(&oldest);
            self.forget_address(session, oldest);
        }
    }

    fn forget_address(&mut self, session: SessionId, key: Key) {
        if let Some(keys) = self.of.get_mut(&session) {
            keys.retain(|known| *known != key);
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.bound.is_empty() && self.of.is_empty()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.bound.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::Local;
    use super::*;

    fn path(port: u16) -> Path {
        Path {
            local: Local::UDP,
            peer: SocketAddr::from(([192, 0, 2, 1], port)),
        }
    }

    fn owner(table: &Addresses, port: u16) -> Option<SessionId> {
        table.get(Protocol::Udp, path(port).peer).map(|bound| bound.session)
    }

    #[test]
    fn a_session_that_claims_many_addresses_loses_its_own_and_no_others() {
        let start = Instant::now();
        let mut table = Addresses::default();
        let (other, greedy) = (SessionId(1), SessionId(2));
        assert!(table.claim(start, other, path(1), None));
        assert!(table.claim(start, greedy, path(2), None));
        for port in 3..=1_000 {
            let now = start + Duration::from_millis(u64::from(port));
            assert!(table.claim(now, greedy, path(port), Some(path(2))));
        }
        assert_eq!(table.bound.len(), 1 + MAX_PER_SESSION);
        assert_eq!(table.of[&greedy].len(), MAX_PER_SESSION);
        // Its media's and its newest, and not the ones between.
        assert_eq!(owner(&table, 1), Some(other));
        assert_eq!(owner(&table, 2), Some(greedy));
        assert_eq!(owner(&table, 3), None);
        assert_eq!(owner(&table, 938), Some(greedy));
        table.forget(greedy);
        table.forget(other);
        assert!(table.is_empty());
    }

    #[test]
    fn an_address_changes_hands_only_when_its_owner_is_silent() {
        let start = Instant::now();
        let mut table = Addresses::default();
        assert!(table.claim(start, SessionId(1), path(1), None));
        assert!(!table.claim(start + Duration::from_millis(4_999), SessionId(2), path(1), None));
        assert!(table.claim(start + HOLD, SessionId(2), path(1), None));
        assert_eq!(owner(&table, 1), Some(SessionId(2)));
        table.forget(SessionId(1));
        assert_eq!(owner(&table, 1), Some(SessionId(2)), "not its former owner's any more");
        table.forget(SessionId(2));
        assert!(table.is_empty());
    }
}

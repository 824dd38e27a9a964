//! The sessions that run now, by the secret part of their address.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use tokio::sync::mpsc;
use wzp_proto::room_name::RoomKey;

use crate::config::ice::IceServer;
use crate::http::whip::rate::Rates;
use crate::http::whip::session::{Ask, Role};

/// All WHIP and WHEP sessions of a gateway.
#[derive(Debug, Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    entries: DashMap<u128, Entry>,
    count: AtomicUsize,
    most: usize,
    rates: Mutex<Rates>,
    /// `Link` values that tell clients of STUN and TURN servers (RFC 9725, section 4.6).
    ice_servers: Vec<String>,
}

#[derive(Debug)]
struct Entry {
    role: Role,
    room: RoomKey,
    asks: mpsc::Sender<Ask>,
}

/// One session's place; dropping it takes the session out of the table.
#[derive(Debug)]
pub struct Place {
    sessions: Sessions,
    id: u128,
}

impl Sessions {
    /// At most `most` at once, whose clients are told of these servers.
    pub fn new(most: usize, ice_servers: &[IceServer]) -> Self {
        Self {
            inner: Arc::new(Inner {
                entries: DashMap::new(),
                count: AtomicUsize::new(0),
                most,
                rates: Mutex::default(),
                ice_servers: ice_servers.iter().map(IceServer::link).collect(),
            }),
        }
    }

    /// Sessions that run or begin now.
    pub fn len(&self) -> usize {
        self.inner.count.load(Ordering::Relaxed)
    }

    /// No session runs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `Link` values for answers.
    pub(super) fn ice_servers(&self) -> &[String] {
        &self.inner.ice_servers
    }

    /// Whether this address may begin a session now, else after how long.
    pub(super) fn admit(&self, ip: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut rates = self.inner.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.take(ip, now)
    }

    /// A place for a session, `None` if all are taken.
    pub fn reserve(&self) -> Option<Place> {
        let one_more = |count| (count < self.inner.most).then_some(count + 1);
        self.inner
            .count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        Some(Place {
            sessions: self.clone(),
            id: rand::random(),
        })
    }

    /// The way to a session, if this is its address in every part.
    pub(super) fn find(&self, role: Role, room: RoomKey, id: &str) -> Option<mpsc::Sender<Ask>> {
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if id.len() != 32 || !id.bytes().all(lower) {
            return None;
        }
        let entry = self.inner.entries.get(&u128::from_str_radix(id, 16).ok()?)?;
        (entry.role == role && entry.room == room).then(|| entry.asks.clone())
    }
}

impl Place {
    /// The secret part of the address: 128 random bits.
    pub(super) fn id(&self) -> String {
        format!("{:032x}", self.id)
    }

    /// Makes the session known.
    pub(super) fn publish(&self, role: Role, room: RoomKey, asks: mpsc::Sender<Ask>) {
        self.sessions.inner.entries.insert(self.id, Entry { role, room, asks });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sessions.inner.entries.remove(&self.id);
        self.sessions.inner.count.fetch_sub(1, Ordering::Relaxed);
    }
}

//! One room's leg: in the relay's room for as long as somebody is in ours.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use wzp_proto::codec::{Codec, QualityProfile};
use wzp_proto::handshake::OfferOptions;
use wzp_proto::identity::Identity;
use wzp_proto::room_name::RoomName;
use wzp_proto::signal::Signal;

use super::Shared;
use super::alias::{Alias, alias};
use super::backoff::Backoff;
use super::roster::Roster;
use super::sources::Sources;
use super::trouble::Trouble;
use crate::config::uplink::{Names, UplinkRule};
use crate::media::frame::RoomTime;
use crate::native::client::{self, Client, Event};
use crate::native::transport::close;
use crate::room::member::LeaveReason;
use crate::room::registry::RoomHandle;
use crate::room::snapshot::Snapshot;
use crate::room::uplink::{UplinkState, UplinkStatus};

mod link;

/// A relay that was lost less than this ago is dialled eagerly, µs.
const EAGER: u64 = 60_000_000;
/// A relay sends its list within this after the answer.
const LIST_DEADLINE: Duration = Duration::from_secs(3);
/// A host name is looked up within this.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(3);

/// Attends to a room until it ends, or `shutdown` turns true.
pub(super) async fn run(room: RoomHandle, shared: Arc<Shared>, shutdown: watch::Receiver<bool>) {
    let identity = Arc::new(Identity::from_seed(&rand::random()));
    let mut watch = Watch {
        own: identity.fingerprint().to_string(),
        snapshots: room.snapshots(),
        shutdown,
    };
    let mut leg: Option<Leg> = None;
    while watch.somebody().await {
        // The name that somebody joined by is known as soon as he is seen.
        let display = room.display();
        let leg = match &mut leg {
            Some(leg) => leg,
            none => {
                let Ok(name) = RoomName::parse(&display) else { return };
                let Some(rule) = shared.config.rules.iter().find(|rule| rule.is_for(&name)) else {
                    return;
                };
                none.insert(Leg::new(rule, name, &room, &identity, &shared, &watch))
            }
        };
        let over = leg.attend(&mut watch).await;
        leg.leave().await;
        if over == Over::Stopping {
            return;
        }
    }
}

/// Why a leg is not wanted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// Nobody of this gateway is in the room.
    Nobody,
    /// The gateway stops, or the room has ended.
    Stopping,
}

/// What decides whether there is a leg.
#[derive(Debug, Clone)]
struct Watch {
    own: String,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    shutdown: watch::Receiver<bool>,
}

impl Watch {
    /// Names of our members. Our own leg is no reason for a leg.
    fn names(&self) -> Vec<String> {
        let snapshot = self.snapshots.borrow();
        let own = |fingerprint: String| fingerprint == self.own;
        (snapshot.local())
            .filter(|member| !own(member.fingerprint.to_string()))
            .map(|member| member.name.clone())
            .collect()
    }

    /// Our own leg is a member of our own room: the relay is this gateway.
    fn has_own_leg(&self) -> bool {
        let snapshot = self.snapshots.borrow();
        snapshot
            .local()
            .any(|member| member.fingerprint.to_string() == self.own)
    }

    /// Waits for a member; false if the room or the gateway has ended.
    async fn somebody(&mut self) -> bool {
        loop {
            if *self.shutdown.borrow() {
                return false;
            }
            self.snapshots.borrow_and_update();
            if !self.names().is_empty() {
                return true;
            }
            if self.changed().await == Some(Over::Stopping) {
                return false;
            }
        }
    }

    /// Waits for a change; says if the leg is not wanted any more. Can be cancelled.
    async fn changed(&mut self) -> Option<Over> {
        tokio::select! {
            changed = self.snapshots.changed() => match changed {
                Ok(()) => {
                    self.snapshots.borrow_and_update();
                    self.names().is_empty().then_some(Over::Nobody)
                }
                Err(_) => Some(Over::Stopping),
            },
            changed = self.shutdown.changed() => {
                (changed.is_err() || *self.shutdown.borrow()).then_some(Over::Stopping)
            }
        }
    }

    /// Waits for `future`, but no longer than the leg is wanted.
    async fn unless_over<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Over> {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                done = &mut future => return Ok(done),
                over = self.changed() => if let Some(over) = over {
                    return Err(over);
                },
            }
        }
    }
}

/// What is needed to dial.
#[derive(Debug, Clone)]
struct Target {
    rule: UplinkRule,
    identity: Arc<Identity>,
    patience: client::Patience,
}

impl Target {
    /// Joins the room `name` on the relay as `alias`.
    async fn dial(self, name: DialledName, alias: String, attempt: usize) -> Result<Client, Trouble> {
        let looked_up = timeout(LOOKUP_DEADLINE, lookup_host(self.rule.relay.clone())).await;
        let addresses: Vec<_> = match looked_up {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(error)) => return Err(Trouble::away(format!("the relay's host name is not found: {error}"))),
            Err(_) => return Err(Trouble::away("the relay's host name is not found in time")),
        };
        // A host with several addresses may be reachable by one of them only.
        let Some(relay) = addresses.get(attempt % addresses.len().max(1)) else {
            return Err(Trouble::away("the relay's host name has no address"));
        };
        let options = client::Options {
            relay: *relay,
            server_name: name.0,
            token: self.rule.token.clone(),
            offer: OfferOptions {
                alias: Some(alias),
                profiles: QualityProfile::OFFERED.to_vec(),
                video_codecs: vec![Codec::H264Baseline],
                extension: None,
            },
        };
        let connecting = Client::connect_within(options, &self.identity, self.patience).await;
        connecting.map_err(|error| Trouble::connecting(&error, self.rule.token.is_some()))
    }
}

impl Target {
    /// Whether the room `name` on the relay has anybody in it but us.
    async fn has_somebody(self, name: DialledName, alias: String) -> bool {
        // A scout of its own identity: where both names mean one room, our leg would put itself out.
        let scout = Self {
            identity: Arc::new(Identity::from_seed(&rand::random())),
            ..self.clone()
        };
        let own = [&self.identity, &scout.identity].map(|identity| identity.fingerprint().to_string());
        let Ok(mut client) = scout.dial(name, alias.clone(), 0).await else {
            return false;
        };
        let list = async {
            loop {
                match client.next().await {
                    Event::Signal(Signal::RoomUpdate { participants, .. }) => return participants,
                    Event::Closed(_) => return Vec::new(),
                    _ => {}
                }
            }
        };
        let list = timeout(LIST_DEADLINE, list).await.unwrap_or_default();
        client.close(close::NORMAL, "normal close").await;
        (list.iter()).any(|who| !own.contains(&who.fingerprint) && who.alias.as_deref() != Some(&alias))
    }
}

/// The TLS server name that stands for the room.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DialledName(String);

#[derive(Debug)]
struct Leg {
    target: Target,
    shared: Arc<Shared>,
    room: RoomHandle,
    alias: Alias,
    /// The room's name is dialled in its hash form.
    hashed: bool,
    backoff: Backoff,
    attempts: usize,
    /// When a connection that had stood for a while was last good.
    good_at: Option<RoomTime>,
    roster: Roster,
    sources: Sources,
    status: Option<UplinkStatus>,
}

impl Leg {
    fn new(
        rule: &UplinkRule,
        name: RoomName,
        room: &RoomHandle,
        identity: &Arc<Identity>,
        shared: &Arc<Shared>,
        watch: &Watch,
    ) -> Self {
        let called = alias(watch.names().iter().map(String::as_str));
        Self {
            target: Target {
                rule: rule.clone(),
                identity: identity.clone(),
                patience: shared.config.patience,
            },
            shared: shared.clone(),
            room: room.clone(),
            alias: Alias::new(shared.config.renaming, called, room.now()),
            hashed: rule.names == Names::Hashed,
            backoff: Backoff::default(),
            attempts: 0,
            good_at: None,
            roster: Roster::new(watch.own.clone()),
            sources: Sources::new(
                shared.registry.clone(),
                name,
                rule.relay.clone(),
                shared.counters.clone(),
            ),
            status: None,
        }
    }

    /// Is in the relay's room, or tries to be, until the leg is not wanted any more.
    async fn attend(&mut self, watch: &mut Watch) -> Over {
        self.say(UplinkState::Connecting, "dialling the relay").await;
        // Members of a relay that is away are shown until then.
        let mut linger = Instant::now();
        loop {
            let trouble = match self.connect(watch).await {
                Ok(Ok(client)) => match self.converse(client, watch).await {
                    Ok(trouble) => {
                        self.sources.disconnected().await;
                        linger = Instant::now() + self.shared.config.linger;
                        trouble
                    }
                    Err(over) => return over,
                },
                Ok(Err(trouble)) => trouble,
                Err(over) => return over,
            };
            let wait = self.wait(trouble.state);
            tracing::debug!(room = %self.room.display(), relay = self.target.rule.relay, ?wait, trouble.message, "uplink");
            self.say(trouble.state, &trouble.message).await;
            let retry = Instant::now() + wait;
            if !self.sources.is_empty() && linger < retry {
                if let Err(over) = watch.unless_over(sleep_until(linger)).await {
                    return over;
                }
                self.sources.leave(LeaveReason::Lost).await;
            }
            if let Err(over) = watch.unless_over(sleep_until(retry)).await {
                return over;
            }
        }
    }

    /// How long to wait after a failure.
    fn wait(&mut self, state: UplinkState) -> Duration {
        let now = self.room.now();
        let eager = state == UplinkState::Away && self.good_at.is_some_and(|at| now.since(at) < EAGER);
        match eager {
            true => self.backoff.wait_eagerly(rand::random()),
            false => self.backoff.wait(rand::random()),
        }
    }

    async fn connect(&mut self, watch: &mut Watch) -> Result<Result<Client, Trouble>, Over> {
        self.alias.want(self.called(watch), self.room.now());
        let called = self.alias.wanted().to_owned();
        let name = match self.dialled_name() {
            Ok(name) => name,
            Err(trouble) => return Ok(Err(trouble)),
        };
        self.attempts += 1;
        let dialling = self.target.clone().dial(name, called.clone(), self.attempts - 1);
        let connected = watch.unless_over(dialling).await?;
        if connected.is_ok() {
            self.alias.joined(called, self.room.now());
        }
        Ok(connected)
    }

    fn called(&self, watch: &Watch) -> String {
        alias(watch.names().iter().map(String::as_str))
    }

    /// By the name that people know, as soon as one is known.
    fn dialled_name(&self) -> Result<DialledName, Trouble> {
        self.name_in_form(self.hashed)
    }

    fn name_in_form(&self, hashed: bool) -> Result<DialledName, Trouble> {
        match client::server_name(&self.room.display(), hashed) {
            Ok(dialled) => Ok(DialledName(dialled.server_name)),
            Err(error) => Err(Trouble::new(UplinkState::Refused, error.to_string())),
        }
    }

    /// Everybody of the relay goes, and nothing is said of it any more.
    async fn leave(&mut self) {
        self.sources.leave(LeaveReason::Left).await;
        if self.status.take().is_some() {
            tracing::info!(room = %self.room.display(), relay = self.target.rule.relay, "uplink left");
            self.room.set_uplink(None).await;
        }
    }

    /// Tells members where things stand, and the log, if they stand elsewhere than before.
    async fn say(&mut self, state: UplinkState, message: &str) {
        let status = UplinkStatus {
            relay: self.target.rule.relay.clone(),
            state,
            message: message.to_owned(),
        };
        if self.status.as_ref() == Some(&status) {
            return;
        }
        if self.status.as_ref().map(|before| before.state) != Some(state) {
            let (room, relay) = (self.room.display(), &status.relay);
            match state {
                UplinkState::Connecting | UplinkState::Connected => {
                    tracing::info!(%room, relay, state = state.name(), message, "uplink");
                }
                _ => tracing::warn!(%room, relay, state = state.name(), message, "uplink"),
            }
        }
        self.room.set_uplink(Some(status.clone())).await;
        self.status = Some(status);
    }
}

/// A time that may not be set.
async fn after(time: Option<Duration>) {
    match time {
        Some(time) => sleep(time).await,
        None => std::future::pending().await,
    }
}

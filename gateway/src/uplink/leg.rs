//! One room's leg: in the relay's room for as long as somebody is in ours.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use wzp_proto::codec::{Codec, QualityProfile};
use wzp_proto::handshake::OfferOptions;
use wzp_proto::identity::Identity;
use wzp_proto::room_name::RoomName;
use wzp_proto::signal::{GatewayExtension, RoomParticipant, Signal};

use super::Shared;
use super::alias::{Alias, alias};
use super::backoff::Backoff;
use super::counters;
use super::echo::echo;
use super::presence::Presence;
use super::roster::Roster;
use super::sources::Sources;
use super::trouble::Trouble;
use crate::config::uplink::{Names, UplinkRule};
use crate::media::frame::ParticipantId;
use crate::native::client::{self, Client, Event};
use crate::native::transport::close;
use crate::room::member::LeaveReason;
use crate::room::registry::RoomHandle;
use crate::room::snapshot::Snapshot;
use crate::room::uplink::{UplinkState, UplinkStatus};
use crate::uplink::leg::address::{Address, answering};

mod address;
mod link;

/// While a relay is away in the middle of a call, it is looked whether it answers again so often: it is to have media again
/// within 3 s of its coming back, however long it was away, and a look costs each of its addresses one packet.
const LOOK: Duration = Duration::from_secs(1);
/// An answer comes within this, or at the next look.
const LOOK_DEADLINE: Duration = Duration::from_millis(800);
/// Events that may come before a relay shows its room.
const EARLY: usize = 256;
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

    /// Our members one by one.
    fn members(&self) -> BTreeMap<ParticipantId, String> {
        let snapshot = self.snapshots.borrow();
        (snapshot.local())
            .filter(|member| member.fingerprint.to_string() != self.own)
            .map(|member| (member.id, member.name.clone()))
            .collect()
    }

    /// Whether what we send to the relay would come back here: the relay is this gateway, or one that joins our room in turn.
    fn echo(&self, list: &[RoomParticipant]) -> Option<Trouble> {
        echo(&self.snapshots.borrow(), &self.own, list)
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
pub(super) struct Target {
    rule: UplinkRule,
    identity: Arc<Identity>,
    patience: client::Patience,
    address: Address,
}

impl Target {
    /// The same for another identity.
    pub(super) fn as_somebody_else(&self, identity: Identity) -> Self {
        Self {
            identity: Arc::new(identity),
            ..self.clone()
        }
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, Trouble> {
        let looked_up = timeout(LOOKUP_DEADLINE, lookup_host(self.rule.relay.clone())).await;
        match looked_up {
            Ok(Ok(addresses)) => Ok(addresses.collect()),
            Ok(Err(error)) => Err(Trouble::away(format!("the relay's host name is not found: {error}"))),
            Err(_) => Err(Trouble::away("the relay's host name is not found in time")),
        }
    }

    /// Joins the room `name` on the relay as `alias`. A relay that has no place answers all the same and closes then, so that
    /// we are in only when it shows something of the room.
    pub(super) async fn dial(self, name: DialledName, alias: String, attempt: usize) -> Result<Joined, Trouble> {
        let relay = (self.address.choose(&self.addresses().await?, attempt))
            .ok_or_else(|| Trouble::away("the relay's host name has no address"))?;
        let joined = self.dial_at(relay, name, alias).await;
        match &joined {
            Ok(_) => self.address.works(relay),
            Err(_) => self.address.fails(relay),
        }
        joined
    }

    async fn dial_at(&self, relay: SocketAddr, name: DialledName, alias: String) -> Result<Joined, Trouble> {
        let options = client::Options {
            relay,
            server_name: name.0,
            token: self.rule.token.clone(),
            offer: OfferOptions {
                alias: Some(alias),
                profiles: QualityProfile::OFFERED.to_vec(),
                video_codecs: vec![Codec::H264Baseline],
                // Of a relay that is a gateway: other relays skip this.
                extension: Some(GatewayExtension {
                    per_source: true,
                    pin: None,
                }),
            },
        };
        let connecting = Client::connect_within(options, &self.identity, self.patience).await;
        let mut client = connecting.map_err(|error| Trouble::connecting(&error, self.rule.token.is_some()))?;
        let mut early = VecDeque::new();
        let mut word = None;
        let admitted = async {
            while early.len() < EARLY {
                match client.next().await {
                    Event::Closed(error) => return Err(Trouble::not_let_in(&error, word.as_ref())),
                    Event::Signal(Signal::Hangup { reason, .. }) => word = Some(reason),
                    event => {
                        let of_room = matches!(
                            event,
                            Event::Packet(_) | Event::Trunk(_) | Event::Signal(Signal::RoomUpdate { .. })
                        );
                        early.push_back(event);
                        if of_room {
                            break;
                        }
                    }
                }
            }
            Ok(())
        };
        // A relay that shows nothing has let us in, for all we know.
        timeout(LIST_DEADLINE, admitted).await.unwrap_or(Ok(()))?;
        Ok(Joined { client, early })
    }

    /// Waits for so long, or until a relay that did not answer does again; `silent`: it did not at the last attempt.
    async fn rest(self, wait: Duration, silent: bool) {
        let over = Instant::now() + wait;
        let mut silent = silent;
        let mut look = Instant::now() + if silent { Duration::ZERO } else { LOOK };
        while look < over {
            sleep_until(look).await;
            let answers = match self.addresses().await {
                Ok(addresses) => answering(&addresses, LOOK_DEADLINE).await,
                Err(_) => None,
            };
            if let Some(address) = answers {
                self.address.works(address);
                if silent {
                    return;
                }
            }
            silent = answers.is_none();
            // Not all rooms of all gateways at once.
            look = Instant::now().max(look + LOOK.mul_f64(rand::random_range(0.7..1.0)));
        }
        sleep_until(over).await;
    }
}

/// A connection to a relay that has let us in.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) client: Client,
    /// What came before that was certain.
    early: VecDeque<Event>,
}

impl Joined {
    /// What comes next. Can be cancelled.
    pub(super) async fn next(&mut self) -> Event {
        match self.early.pop_front() {
            Some(event) => event,
            None => self.client.next().await,
        }
    }

    /// The first list, if it has come already.
    fn list(&self) -> &[RoomParticipant] {
        let list = |event: &'_ Event| matches!(event, Event::Signal(Signal::RoomUpdate { .. }));
        match self.early.iter().find(|event| list(event)) {
            Some(Event::Signal(Signal::RoomUpdate { participants, .. })) => participants,
            _ => &[],
        }
    }
}

impl Target {
    /// Whether the room `name` on the relay has anybody in it but us, who are called `alias` there or have one of the fingerprints
    /// `own`.
    async fn has_somebody(self, name: DialledName, alias: String, mut own: Vec<String>) -> bool {
        // A scout of its own identity: where both names mean one room, our leg would put itself out.
        let scout = self.as_somebody_else(Identity::from_seed(&rand::random()));
        own.push(scout.identity.fingerprint().to_string());
        let Ok(mut joined) = scout.dial(name, alias.clone(), 0).await else {
            return false;
        };
        let list = async {
            loop {
                match joined.next().await {
                    Event::Signal(Signal::RoomUpdate { participants, .. }) => return participants,
                    Event::Closed(_) => return Vec::new(),
                    _ => {}
                }
            }
        };
        let list = timeout(LIST_DEADLINE, list).await.unwrap_or_default();
        joined.client.close(close::NORMAL, "normal close").await;
        (list.iter()).any(|who| !own.contains(&who.fingerprint) && who.alias.as_deref() != Some(&alias))
    }
}

/// The TLS server name that stands for the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DialledName(String);

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
    /// The relay has let us in before.
    was_in: bool,
    roster: Roster,
    sources: Sources,
    presence: Presence,
    status: Option<UplinkStatus>,
    counters: Arc<counters::Relay>,
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
        let counters = shared.config.counters.of(&rule.relay);
        Self {
            target: Target {
                rule: rule.clone(),
                identity: identity.clone(),
                patience: shared.config.patience,
                address: Address::default(),
            },
            shared: shared.clone(),
            room: room.clone(),
            alias: Alias::new(shared.config.renaming, called, room.now()),
            hashed: rule.names == Names::Hashed,
            backoff: Backoff::default(),
            attempts: 0,
            was_in: false,
            roster: Roster::new(watch.own.clone()),
            sources: Sources::new(
                shared.registry.clone(),
                name,
                rule.relay.clone(),
                counters.media.clone(),
                shared.config.remote,
            ),
            presence: Presence::default(),
            status: None,
            counters,
        }
    }

    /// Is in the relay's room, or tries to be, until the leg is not wanted any more.
    async fn attend(&mut self, watch: &mut Watch) -> Over {
        self.say(UplinkState::Connecting, "dialling the relay").await;
        // Members of a relay that is away are shown until then.
        let mut linger = Instant::now();
        loop {
            let trouble = match self.connect(watch).await {
                Ok(Ok(joined)) => match self.converse(joined, watch).await {
                    Ok(trouble) => {
                        if trouble.state == UplinkState::Away {
                            self.counters.legs.lost.one();
                        }
                        self.sources.disconnected().await;
                        linger = Instant::now() + self.shared.config.linger;
                        trouble
                    }
                    Err(over) => return over,
                },
                Ok(Err(trouble)) => trouble,
                Err(over) => return over,
            };
            let wait = self.wait(&trouble);
            tracing::debug!(room = %self.room.display(), relay = self.target.rule.relay, ?wait, trouble.message, "uplink");
            self.say(trouble.state, &trouble.message).await;
            if trouble.state == UplinkState::Refused {
                // Nobody follows who is here until the next connection, and who is not let in has nobody to show.
                self.presence.leave().await;
            }
            let mut rest = std::pin::pin!(self.rest(wait, &trouble));
            if !self.sources.is_empty() {
                tokio::select! {
                    rested = watch.unless_over(rest.as_mut()) => match rested {
                        Ok(()) => continue,
                        Err(over) => return over,
                    },
                    () = sleep_until(linger) => self.sources.leave(LeaveReason::Lost).await,
                }
            }
            if let Err(over) = watch.unless_over(rest.as_mut()).await {
                return over;
            }
        }
    }

    /// How long to wait after a failure.
    fn wait(&mut self, trouble: &Trouble) -> Duration {
        if trouble.state == UplinkState::Refused {
            self.counters.legs.refused.one();
        }
        if trouble.lasting {
            self.backoff.wait_long()
        } else {
            self.backoff.wait(rand::random())
        }
    }

    /// Waits after a failure; in the middle of a call, for the relay's coming back.
    fn rest(&self, wait: Duration, trouble: &Trouble) -> impl Future<Output = ()> + use<> {
        let target = (self.was_in && trouble.state == UplinkState::Away).then(|| self.target.clone());
        let silent = trouble.silent;
        async move {
            match target {
                Some(target) => target.rest(wait, silent).await,
                None => sleep(wait).await,
            }
        }
    }

    async fn connect(&mut self, watch: &mut Watch) -> Result<Result<Joined, Trouble>, Over> {
        self.alias.want(self.called(watch), self.room.now());
        let called = self.alias.wanted().to_owned();
        let name = match self.dialled_name() {
            Ok(name) => name,
            Err(trouble) => return Ok(Err(trouble)),
        };
        self.attempts += 1;
        self.counters.legs.attempts.one();
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
        self.presence.leave().await;
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

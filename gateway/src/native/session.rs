//! One native member, from its offer to its goodbye.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use quinn::{Connection, ConnectionError, VarInt};
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use wzp_proto::handshake::{Accepted, Answerer};
use wzp_proto::identity::{Fingerprint, Identity};
use wzp_proto::room_name::RoomName;
use wzp_proto::signal::{HangupReason, RoomParticipant, Signal, SignalError, ViolationCode};

use crate::media::frame::{Kind, ParticipantId, RoomTime};
use crate::native::auth::Authenticate;
use crate::native::counters::Counters;
use crate::native::egress::Egress;
use crate::native::ingress::Ingress;
use crate::native::outgoing::Outgoing;
use crate::native::rate::{Bound, Bucket};
use crate::native::server::Limits;
use crate::native::signals::{self, Outbox, ReadError};
use crate::native::transport::close;
use crate::native::view::{Playable, View};
use crate::room::keyframes::Reason;
use crate::room::member::{Control, Door, Join, JoinError, LeaveReason};
use crate::room::mixer::Wants;
use crate::room::registry::{Membership, Registry};
use crate::room::snapshot::Snapshot;

/// Longest signal that a member may send. The longest that apps send has 2 kB.
const MAX_SIGNAL: usize = 64 << 10;
/// Streams of one member that are read at once. A stream that stays silent holds its place for [`SIGNAL_DEADLINE`].
const MAX_READS: usize = 64;
/// A signal must be complete this long after its stream began.
const SIGNAL_DEADLINE: Duration = Duration::from_secs(5);
/// A last word gets this long to arrive before the connection is closed.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Signals that may come before the offer.
const BEFORE_OFFER: usize = 8;
/// Datagrams taken in one go before others get their turn.
const BATCH: usize = 64;
/// Longest name to show, characters.
const MAX_ALIAS: usize = 64;

/// What all sessions of a server have in common.
#[derive(Debug)]
pub struct Shared {
    /// The rooms.
    pub registry: Registry,
    /// Who the server is.
    pub identity: Arc<Identity>,
    /// Bounds.
    pub limits: Limits,
    /// Demands a token, if set.
    pub auth: Option<Arc<dyn Authenticate>>,
    /// Counters.
    pub counters: Arc<Counters>,
}

/// Runs a connection that asks for `room`, to its end. `handshake` is given back when the offer is answered.
pub async fn run(
    connection: Connection,
    room: RoomName,
    shared: Arc<Shared>,
    handshake: OwnedSemaphorePermit,
    deadline: Instant,
    shutdown: watch::Receiver<bool>,
) {
    let address = connection.remote_address();
    let entered = match timeout_at(deadline, enter(&connection, &room, &shared)).await {
        Ok(entered) => entered,
        Err(_) => {
            shared.counters.handshake_timeout.one();
            connection.close(close::HANDSHAKE, b"no offer came in time");
            return;
        }
    };
    drop(handshake);
    let (membership, wishes) = match entered {
        Ok(entered) => entered,
        Err(refusal) => {
            shared.counters.handshake_failed.one();
            tracing::info!(%address, room = %room, reason = %refusal.text, "a native app was turned away");
            if let Some(hangup) = &refusal.hangup {
                signals::deliver(&connection, hangup, LAST_WORD).await;
            }
            connection.close(refusal.code, refusal.text.as_bytes());
            return;
        }
    };
    shared.counters.joined.one();
    let id = membership.id();
    tracing::info!(%address, room = %room, member = %id, "a native app joined");
    let mut session = Session::new(connection.clone(), membership, wishes, &shared);
    let end = session.run(shutdown).await;
    tracing::info!(room = %room, member = %id, ?end, "a native app is gone");
    session.finish(end).await;
}

/// Why a connection was turned away.
struct Refusal {
    hangup: Option<Signal>,
    code: VarInt,
    text: String,
}

impl Refusal {
    fn new(hangup: Option<HangupReason>, code: VarInt, text: impl Into<String>) -> Self {
        Self {
            hangup: hangup.map(Signal::hangup),
            code,
            text: text.into(),
        }
    }
}

/// What a member can take, as its offer says.
#[derive(Debug, Clone, Copy)]
struct Wishes {
    playable: Playable,
    /// Every source is wanted apart.
    apart: bool,
    /// Whose picture is wanted above all.
    pin: Option<Fingerprint>,
}

/// Handshake and join. The member is in the room before the answer goes out, so that a full room can still say so.
async fn enter(connection: &Connection, room: &RoomName, shared: &Shared) -> Result<(Membership, Wishes), Refusal> {
    if connection.max_datagram_size().is_none() {
        let text = "media travels in QUIC datagrams, which this connection does not have";
        return Err(Refusal::new(Some(HangupReason::Error), close::NO_DATAGRAMS, text));
    }
    let mut account = None;
    if let Some(auth) = &shared.auth {
        let Signal::AuthToken { token, .. } = next_signal(connection, &shared.counters).await? else {
            let text = "this server wants a token first";
            return Err(Refusal::new(Some(HangupReason::Declined), close::AUTH, text));
        };
        let checked = auth.authenticate(&token, room).await;
        let who = checked.map_err(|error| Refusal::new(Some(HangupReason::Declined), close::AUTH, error.0))?;
        account = who.fingerprint;
    }
    let mut offer = next_signal(connection, &shared.counters).await?;
    if shared.auth.is_none() && matches!(offer, Signal::AuthToken { .. }) {
        // Somebody who has a token for other servers need not know that this one wants none.
        offer = next_signal(connection, &shared.counters).await?;
    }
    let accepted = Answerer::accept(&shared.identity, rand::random(), offer).map_err(|refused| Refusal {
        code: match refused.error {
            wzp_proto::handshake::HandshakeError::Version { .. } => close::VERSION,
            _ => close::HANDSHAKE,
        },
        text: refused.error.to_string(),
        hangup: refused.hangup,
    })?;
    let fingerprint = account.unwrap_or(accepted.fingerprint);
    let join = Join {
        name: alias(&accepted, fingerprint),
        fingerprint,
        door: Door::Native,
        resume: None,
        resumable: false,
    };
    let membership = shared.registry.join(room, join).await.map_err(|error| match error {
        JoinError::Stopping => Refusal::new(Some(HangupReason::Error), close::STOPPING, error.to_string()),
        _ => Refusal::new(Some(HangupReason::Busy), close::FULL, error.to_string()),
    })?;
    let wishes = Wishes {
        playable: Playable::offered(&accepted.video_codecs),
        apart: accepted.extension.is_some_and(|extension| extension.per_source),
        pin: accepted.extension.and_then(|extension| extension.pin),
    };
    // The room knows it before it can have any effect.
    if wishes.apart {
        membership.set_apart().await;
    }
    let sent = signals::send(connection, &accepted.answer, LAST_WORD).await;
    sent.map_err(|error| Refusal::new(None, close::HANDSHAKE, error.to_string()))?;
    Ok((membership, wishes))
}

async fn next_signal(connection: &Connection, counters: &Counters) -> Result<Signal, Refusal> {
    for _ in 0..BEFORE_OFFER {
        let accepted = connection.accept_bi().await;
        let (_, mut stream) = accepted.map_err(|error| Refusal::new(None, close::HANDSHAKE, error.to_string()))?;
        match signals::read(&mut stream, MAX_SIGNAL, SIGNAL_DEADLINE).await {
            Ok(signal) => {
                counters.signals_in.one();
                return Ok(signal);
            }
            Err(ReadError::Signal(SignalError::UnknownVariant { .. })) => counters.signals_unknown.one(),
            Err(error) => {
                counters.signals_bad.one();
                let text = error.to_string();
                return Err(Refusal::new(Some(HangupReason::Error), close::HANDSHAKE, text));
            }
        }
    }
    let text = "too many unknown signals came before the offer";
    Err(Refusal::new(Some(HangupReason::Error), close::HANDSHAKE, text))
}

/// The name to show: what the app says, without what cannot be shown; else the fingerprint's beginning.
fn alias(accepted: &Accepted, fingerprint: Fingerprint) -> String {
    let said = accepted.alias.as_deref().unwrap_or_default();
    let shown: String = said.chars().filter(|c| !c.is_control()).take(MAX_ALIAS).collect();
    match shown.trim() {
        "" => fingerprint.to_string().chars().take(9).collect(),
        name => name.to_owned(),
    }
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Left,
    Lost,
    Ended(LeaveReason),
    Violation(Bound),
    Stopping,
}

struct Session {
    connection: Connection,
    membership: Membership,
    counters: Arc<Counters>,
    ingress: Ingress,
    outgoing: Outgoing,
    waker: Arc<Notify>,
    outbox: Arc<Outbox>,
    signals: Bucket,
    listed: Vec<(ParticipantId, RoomParticipant)>,
    _tasks: JoinSet<()>,
}

impl Session {
    fn new(connection: Connection, membership: Membership, wishes: Wishes, shared: &Shared) -> Self {
        let now = membership.room().now();
        let counters = shared.counters.clone();
        let bounds = membership.room().bounds(Kind::Video);
        let waker = Arc::new(Notify::new());
        let (me, playable) = (membership.id(), wishes.playable);
        let outgoing = if wishes.apart {
            Outgoing::apart(me, playable, waker.clone(), counters.clone())
        } else {
            // High, and far from every app's own counter, which begins at 0.
            let audio_seq = rand::random::<u32>() | 1 << 31;
            let view = View::new(me, playable, audio_seq).pin(wishes.pin);
            let mut egress = Egress::new(view, waker.clone(), counters.clone(), now);
            egress.listen(membership.room().listen(me, Wants::Opus, &waker));
            Outgoing::view(egress)
        };
        let outbox = Arc::new(Outbox::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(outbox.clone().run(connection.clone(), counters.clone()));
        Self {
            ingress: Ingress::new(
                membership.id(),
                shared.limits.rates,
                rand::random(),
                counters.clone(),
                now,
            )
            .with_video_bounds(bounds),
            outgoing,
            connection,
            membership,
            counters,
            waker,
            outbox,
            signals: Bucket::new(shared.limits.rates.signals, now),
            listed: Vec::new(),
            _tasks: tasks,
        }
    }

    async fn run(&mut self, mut shutdown: watch::Receiver<bool>) -> End {
        let mut snapshots = self.membership.snapshots();
        let connection = self.connection.clone();
        let waker = self.waker.clone();
        let mut reads: JoinSet<Result<Signal, ReadError>> = JoinSet::new();
        // The cached picture first, then the list of who is there.
        let snapshot = snapshots.borrow_and_update().clone();
        self.outgoing.set_room(&snapshot, self.now());
        self.pump();
        self.list(&snapshot);
        loop {
            let now = self.now();
            let wake = [self.ingress.poll_timeout(), self.outgoing.poll_timeout(now)]
                .into_iter()
                .flatten()
                .min();
            let mut pump = true;
            tokio::select! {
                datagram = connection.read_datagram() => {
                    match datagram {
                        Ok(datagram) => if let Err(bound) = self.take(datagram) {
                            return End::Violation(bound);
                        },
                        Err(error) => return end_of(&error),
                    }
                    pump = false;
                }
                () = waker.notified() => {}
                () = sleep_until(wake.map(|at| at.since(now))), if wake.is_some() => {}
                control = self.membership.control() => match control {
                    Some(Control::Ended(reason)) => return End::Ended(reason),
                    Some(control) => self.obey(control),
                    None => return End::Ended(LeaveReason::Removed),
                },
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        return End::Ended(LeaveReason::Removed);
                    }
                    let snapshot = snapshots.borrow_and_update().clone();
                    self.outgoing.set_room(&snapshot, self.now());
                    self.list(&snapshot);
                }
                stream = connection.accept_bi(), if reads.len() < MAX_READS => match stream {
                    // The other half is dropped at once: an answer has a stream of its own.
                    Ok((_, stream)) if !self.signals.take(1, now) => {
                        self.counters.signals_over_rate.one();
                        drop(stream);
                        pump = false;
                    }
                    Ok((_, mut stream)) => {
                        reads.spawn(async move { signals::read(&mut stream, MAX_SIGNAL, SIGNAL_DEADLINE).await });
                        pump = false;
                    }
                    Err(error) => return end_of(&error),
                },
                Some(read) = reads.join_next(), if !reads.is_empty() => {
                    if let Ok(read) = read && self.hear(read) {
                        return End::Left;
                    }
                }
                changed = shutdown.changed() => if changed.is_err() || *shutdown.borrow() {
                    return End::Stopping;
                },
            }
            let now = self.now();
            if self.ingress.has_gaps() {
                self.ingress.set_rtt(self.connection.rtt().as_micros() as u64);
            }
            self.ingress.handle_timeout(now);
            for nack in self.ingress.take_nacks() {
                self.counters.nacks_out.one();
                if !self.outbox.push(Signal::nack(nack.stream_id, nack.seqs)) {
                    self.counters.signals_dropped.one();
                }
            }
            if let Some(tracks) = self.ingress.take_tracks() {
                self.membership.set_tracks(tracks).await;
            }
            if let Some(tier) = self.ingress.take_directive() {
                self.counters.quality_directives_out.one();
                let reason = "your own path".to_owned();
                self.say(Signal::quality_directive(tier.profile(), Some(reason)));
            }
            if let Some(track) = self.ingress.take_keyframe_wish(now) {
                self.membership.room().request_keyframe(track, now, Reason::Loss);
            }
            if pump {
                self.pump();
            }
        }
    }

    /// Says goodbye as the end demands, and leaves the room.
    async fn finish(self, end: End) {
        let hangup = |reason| Signal::hangup(reason);
        let (word, code, text) = match end {
            End::Left | End::Lost => (None, close::NORMAL, ""),
            End::Ended(LeaveReason::Replaced) => (
                Some(hangup(HangupReason::Normal)),
                close::REPLACED,
                "the same identity joined again",
            ),
            End::Ended(_) => (
                Some(hangup(HangupReason::Declined)),
                close::REMOVED,
                "you were put out of the room",
            ),
            End::Violation(bound) => {
                let (code, text) = match bound {
                    Bound::Datagrams => (ViolationCode::PacketRate, "too many packets per second"),
                    Bound::Bytes => (ViolationCode::Bitrate, "too many bits per second"),
                };
                let reason = HangupReason::PolicyViolation {
                    code,
                    reason: text.to_owned(),
                };
                (Some(hangup(reason)), close::POLICY, text)
            }
            End::Stopping => (
                Some(hangup(HangupReason::Normal)),
                close::STOPPING,
                "the server is stopping",
            ),
        };
        let reason = match end {
            End::Left | End::Stopping => LeaveReason::Left,
            End::Lost => LeaveReason::Lost,
            End::Ended(reason) => reason,
            End::Violation(_) => LeaveReason::Removed,
        };
        match reason {
            LeaveReason::Left => self.counters.left.one(),
            LeaveReason::Lost => self.counters.lost.one(),
            _ => {}
        }
        if matches!(end, End::Violation(_)) {
            self.counters.violations.one();
        }
        // The others are told first; the last word may take its time. The tracks end with the ingress.
        let Self {
            connection,
            membership,
            ingress,
            outgoing,
            ..
        } = self;
        membership.leave(reason).await;
        drop((ingress, outgoing));
        if let Some(word) = word {
            signals::deliver(&connection, &word, LAST_WORD).await;
        }
        connection.close(code, text.as_bytes());
    }

    fn now(&self) -> RoomTime {
        self.membership.room().now()
    }

    /// Takes a datagram and whatever else has come already.
    fn take(&mut self, datagram: bytes::Bytes) -> Result<(), Bound> {
        let now = self.now();
        self.ingress.datagram(datagram, now)?;
        for _ in 1..BATCH {
            match self.connection.read_datagram().now_or_never() {
                Some(Ok(datagram)) => self.ingress.datagram(datagram, now)?,
                // An error comes again at the next turn.
                _ => break,
            }
        }
        Ok(())
    }

    fn pump(&mut self) {
        let now = self.now();
        self.outgoing.pump(&self.connection, now);
        for request in self.outgoing.requests() {
            request.forward(self.membership.room(), Some(&self.membership));
        }
    }

    fn obey(&mut self, control: Control) {
        match control {
            Control::Keyframe { .. } => {
                // The app looks at no stream id, but it gets the one it sent all the same.
                self.counters.pli_out.one();
                self.say(Signal::picture_loss(self.ingress.video_stream().unwrap_or(0)));
            }
            Control::Limit { .. } => self.counters.limits_ignored.one(),
            Control::Ended(_) => {}
        }
    }

    /// Acts on a signal; true if the member leaves.
    fn hear(&mut self, read: Result<Signal, ReadError>) -> bool {
        let signal = match read {
            Ok(signal) => signal,
            Err(ReadError::Signal(SignalError::UnknownVariant { name })) => {
                tracing::debug!(member = %self.membership.id(), name, "unknown signal skipped");
                self.counters.signals_unknown.one();
                return false;
            }
            Err(error) => {
                tracing::debug!(member = %self.membership.id(), %error, "signal skipped");
                self.counters.signals_bad.one();
                return false;
            }
        };
        self.counters.signals_in.one();
        match signal {
            Signal::PictureLossIndication { stream_id, .. } => {
                self.counters.pli_in.one();
                if let Some(track) = self.outgoing.track_of(stream_id) {
                    // A keyframe that came less than a round trip ago had not arrived when this was said.
                    let rtt = self.connection.rtt().as_micros() as u64;
                    let since = RoomTime(self.now().0.saturating_sub(rtt));
                    self.membership
                        .room()
                        .request_keyframe(track.id(), since, Reason::Viewer);
                }
            }
            Signal::Nack { stream_id, seqs, .. } => {
                self.counters.nacks_in.one();
                let now = self.now();
                self.outgoing.answer(stream_id, &seqs, &self.connection, now);
            }
            Signal::Ping { timestamp_ms, .. } => self.say(Signal::pong(timestamp_ms)),
            Signal::Hangup { .. } => return true,
            _ => {}
        }
        false
    }

    fn say(&self, signal: Signal) {
        if !self.outbox.push(signal) {
            self.counters.signals_dropped.one();
        }
    }

    /// Tells the member who is there, if that has changed.
    fn list(&mut self, snapshot: &Snapshot) {
        let listed: Vec<_> = (snapshot.members.iter())
            .map(|member| {
                let participant = RoomParticipant {
                    fingerprint: member.fingerprint.to_string(),
                    alias: Some(member.name.clone()),
                    relay_label: None,
                    stream_id: (self.outgoing.is_apart() && member.id != self.membership.id())
                        .then_some(member.native_stream),
                };
                (member.id, participant)
            })
            .collect();
        if listed != self.listed {
            self.say(Signal::room_update(listed.iter().map(|(_, who)| who.clone()).collect()));
            self.listed = listed;
        }
    }
}

fn end_of(error: &ConnectionError) -> End {
    match error {
        ConnectionError::ApplicationClosed(_) => End::Left,
        _ => End::Lost,
    }
}

async fn sleep_until(us: Option<u64>) {
    if let Some(us) = us {
        tokio::time::sleep(Duration::from_micros(us)).await;
    }
}

//! All rooms of the gateway, one task each, and the handles by which doors deal with them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;
use wzp_proto::room_name::{RoomKey, RoomName};

use crate::media::frame::{Kind, ParticipantId, RoomTime, TrackId};
use crate::room::keyframes::{Counters, Reason, SharedByReason};
use crate::room::member::{Control, Door, Join, JoinError, LeaveReason, Muted, ResumeToken, TrackInfo, View};
use crate::room::mixer::{LEG, Wants};
use crate::room::mixing::{Listener, Mixing};
use crate::room::snapshot::Snapshot;
use crate::room::state::{Effect, Room};
use crate::room::track::{Bounds, Replays, Track};
use crate::room::uplink::UplinkStatus;

/// Commands that may wait for a room's task.
const COMMANDS: usize = 1024;
/// Control messages that may wait for a member.
const CONTROLS: usize = 64;
/// A room that nobody has entered this long after it began, or after its last member left, ends.
const EMPTY_DEADLINE: Duration = Duration::from_secs(10);
/// A room's task answers a join within this, or something is broken.
const JOIN_DEADLINE: Duration = Duration::from_secs(5);

/// Limits of all rooms.
#[derive(Debug, Clone, Copy)]
pub struct RoomLimits {
    /// Rooms at once.
    pub rooms: usize,
    /// Members of one room.
    pub members: usize,
}

/// All rooms.
#[derive(Debug, Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    rooms: DashMap<RoomKey, RoomHandle>,
    count: AtomicUsize,
    /// +1 whenever a room begins.
    begun: watch::Sender<u64>,
    limits: RoomLimits,
    video: Bounds,
}

/// A running room, from outside.
#[derive(Debug, Clone)]
pub struct RoomHandle {
    commands: mpsc::Sender<Command>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The first plain name that somebody joined by; the hash form until then.
    display: watch::Receiver<Arc<str>>,
    keyframes: watch::Receiver<(Counters, Replays)>,
    unheard: Arc<Unheard>,
    video: Bounds,
    epoch: Instant,
    mixing: Arc<Mixing>,
}

/// Keyframe requests that never came to the room's task.
#[derive(Debug, Default)]
struct Unheard {
    withheld: SharedByReason,
    overflow: SharedByReason,
}

enum Command {
    Join(Box<Knock>),
    Leave(ParticipantId, u64, LeaveReason),
    Lost(ParticipantId, u64),
    Tracks(ParticipantId, u64, Vec<(TrackInfo, Arc<Track>)>),
    Muted(ParticipantId, u64, Muted),
    Door(ParticipantId, u64, Door),
    Speakers(Vec<ParticipantId>),
    Level(ParticipantId, u8),
    Keyframe(TrackId, RoomTime, Reason),
    Capacity(ParticipantId, u64, TrackId, u32),
    View(ParticipantId, u64, View),
    Blind(ParticipantId, u64),
    Oversize(ParticipantId, u64, TrackId, u32),
    Kick(ParticipantId),
    Name(ParticipantId, u64, String),
    Apart(ParticipantId, u64),
    Uplink(Option<UplinkStatus>),
}

/// Somebody at the door. The answer is the membership itself, so that one that its owner has stopped waiting for is given
/// back by being dropped, wherever it is at that moment.
struct Knock {
    join: Join,
    display: Option<String>,
    key: RoomKey,
    room: RoomHandle,
    reply: oneshot::Sender<Result<Membership, JoinError>>,
}

impl Registry {
    /// No rooms yet.
    pub fn new(limits: RoomLimits) -> Self {
        Self::with_replay(limits, Bounds::VIDEO)
    }

    /// No rooms yet; logs of pictures will have these bounds.
    pub fn with_replay(limits: RoomLimits, video: Bounds) -> Self {
        Self {
            inner: Arc::new(Inner {
                rooms: DashMap::new(),
                count: AtomicUsize::new(0),
                begun: watch::Sender::new(0),
                limits,
                video,
            }),
        }
    }

    /// Rooms that run now.
    pub fn len(&self) -> usize {
        self.inner.rooms.len()
    }

    /// No room runs.
    pub fn is_empty(&self) -> bool {
        self.inner.rooms.is_empty()
    }

    /// A room that runs now.
    pub fn get(&self, key: RoomKey) -> Option<RoomHandle> {
        self.inner.rooms.get(&key).map(|room| room.clone())
    }

    /// All rooms that run now, by key.
    pub fn rooms(&self) -> BTreeMap<RoomKey, RoomHandle> {
        self.inner
            .rooms
            .iter()
            .map(|entry| (*entry.key(), entry.value().clone()))
            .collect()
    }

    /// How many rooms have begun, as it changes.
    pub fn begun(&self) -> watch::Receiver<u64> {
        self.inner.begun.subscribe()
    }

    /// Enters a room, which begins if need be. A future that is dropped half-way leaves nothing behind.
    ///
    /// # Errors
    /// The room or the gateway is full, or the gateway stops.
    pub async fn join(&self, room: &RoomName, join: Join) -> Result<Membership, JoinError> {
        // Only a room that has just ended is knocked at in vain; the next look makes a new one.
        timeout(JOIN_DEADLINE, async {
            loop {
                if let Some(answer) = self.knock(room, &join).await? {
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap_or(Err(JoinError::Stopping))
    }

    async fn knock(&self, room: &RoomName, join: &Join) -> Result<Option<Result<Membership, JoinError>>, JoinError> {
        let handle = self.open(room)?;
        let (reply, answer) = oneshot::channel();
        let knock = Knock {
            join: join.clone(),
            display: room.display().map(str::to_owned),
            key: room.key(),
            room: handle.clone(),
            reply,
        };
        if handle.commands.send(Command::Join(Box::new(knock))).await.is_err() {
            return Ok(None);
        }
        Ok(answer.await.ok().map(|answer| {
            answer.map(|mut membership| {
                membership.claimed = true;
                membership
            })
        }))
    }

    fn open(&self, room: &RoomName) -> Result<RoomHandle, JoinError> {
        match self.inner.rooms.entry(room.key()) {
            Entry::Occupied(entry) => Ok(entry.get().clone()),
            Entry::Vacant(entry) => {
                let one_more = |rooms| (rooms < self.inner.limits.rooms).then_some(rooms + 1);
                if (self.inner.count)
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
                    .is_err()
                {
                    return Err(JoinError::ServerFull);
                }
                let handle = self.spawn(room.key());
                entry.insert(handle.clone());
                self.inner.begun.send_modify(|begun| *begun += 1);
                Ok(handle)
            }
        }
    }

    fn spawn(&self, key: RoomKey) -> RoomHandle {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (snapshot_sender, snapshots) = watch::channel(Arc::new(Snapshot::default()));
        let (display_sender, display) = watch::channel(Arc::from(key.to_string()));
        let (keyframes_sender, keyframes) = watch::channel(Default::default());
        let unheard = Arc::<Unheard>::default();
        let epoch = Instant::now();
        let mixing = Arc::<Mixing>::default();
        let task = RoomTask {
            listing: Listing {
                key,
                registry: self.inner.clone(),
            },
            room: Room::new(self.inner.limits.members),
            epoch,
            controls: BTreeMap::new(),
            snapshots: snapshot_sender,
            display: display_sender,
            keyframes: keyframes_sender,
            unheard: unheard.clone(),
            named: false,
            commands: commands.downgrade(),
            mixing: mixing.clone(),
        };
        // The task owns itself: it ends when the room has emptied, and with the runtime.
        tokio::spawn(task.run(receiver));
        RoomHandle {
            commands,
            snapshots,
            display,
            keyframes,
            unheard,
            video: self.inner.video,
            epoch,
            mixing,
        }
    }
}

impl RoomHandle {
    /// The room's clock, now.
    pub fn now(&self) -> RoomTime {
        RoomTime(self.epoch.elapsed().as_micros() as u64)
    }

    /// The room's clock at an instant.
    pub fn time_at(&self, instant: Instant) -> RoomTime {
        RoomTime(instant.saturating_duration_since(self.epoch).as_micros() as u64)
    }

    /// The room as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// The name to show.
    pub fn display(&self) -> Arc<str> {
        self.display.borrow().clone()
    }

    /// Snapshots as they come; only the newest is kept.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// The bounds that logs of this kind have here.
    pub fn bounds(&self, kind: Kind) -> Bounds {
        Bounds::of(kind, self.video)
    }

    /// What became of the requests for keyframes so far.
    pub fn keyframes(&self) -> Counters {
        Counters {
            suppressed_receiver: self.unheard.withheld.now(),
            suppressed_overflow: self.unheard.overflow.now(),
            ..self.keyframes.borrow().0
        }
    }

    /// What newcomers found in logs of pictures so far.
    pub fn replays(&self) -> Replays {
        let mut all = self.keyframes.borrow().1;
        for member in &self.snapshot().members {
            for view in &member.tracks {
                all += view.track.counters().replays.now();
            }
        }
        all
    }

    /// The room's mix.
    pub fn mixing(&self) -> &Arc<Mixing> {
        &self.mixing
    }

    /// Listens to the room's mix, which runs while somebody needs it. `waker` is notified when there is something new.
    pub fn listen(&self, id: ParticipantId, wants: Wants, waker: &Arc<Notify>) -> Listener {
        let listener = self.mixing.listen(id, wants, waker);
        Mixing::begin(self, &self.snapshot());
        listener
    }

    /// Says how the room stands with somebody else's relay.
    pub async fn set_uplink(&self, uplink: Option<UplinkStatus>) {
        // The task drains its queue without waiting for anything; one that is gone has nobody to tell.
        timeout(JOIN_DEADLINE, self.commands.send(Command::Uplink(uplink)))
            .await
            .ok();
    }

    /// Both are handles of one running room, as against one that ended and one that began after it.
    pub fn is(&self, other: &Self) -> bool {
        self.commands.same_channel(&other.commands)
    }

    /// Listens to the mix of those who are members of this gateway; see [`RoomHandle::listen`].
    pub fn listen_local(&self, waker: &Arc<Notify>) -> Listener {
        self.listen(LEG, Wants::Local, waker)
    }

    /// Puts a member out.
    pub fn kick(&self, id: ParticipantId) {
        self.send(Command::Kick(id));
    }

    /// Asks the keyframe owner of a track for a keyframe newer than `since`.
    pub fn request_keyframe(&self, id: TrackId, since: RoomTime, reason: Reason) {
        let command = Command::Keyframe(id, since, reason);
        if let Err(mpsc::error::TrySendError::Full(_)) = self.commands.try_send(command) {
            self.unheard.overflow.count(reason);
        }
    }

    /// Takes note that a receiver did not ask for a keyframe that it needs, because it asked for one a moment ago.
    pub fn withhold_keyframe(&self, reason: Reason) {
        self.unheard.withheld.count(reason);
    }

    /// Says how loud a member is, −dBov: 0 (loudest) to 127 (silence).
    pub fn report_level(&self, id: ParticipantId, level: u8) {
        self.send(Command::Level(id, level));
    }

    /// Says who talks, loudest first.
    pub fn set_speakers(&self, speakers: Vec<ParticipantId>) {
        self.send(Command::Speakers(speakers));
    }

    /// Says how much of a video track a member can take, bit/s; `u32::MAX` for no bound.
    pub fn report_capacity(&self, viewer: ParticipantId, epoch: u64, track: TrackId, bits_per_second: u32) {
        self.send(Command::Capacity(viewer, epoch, track, bits_per_second));
    }

    /// Hints: a full queue may drop them, they are repeated by whoever needs them.
    fn send(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            tracing::debug!("a room's queue is full or the room has ended: a hint was dropped");
        }
    }
}

/// A member's place in a room, held by its session. Dropping it without [`Membership::leave`] counts as a lost connection.
#[derive(Debug)]
pub struct Membership {
    id: ParticipantId,
    epoch: u64,
    resumed: bool,
    resume: ResumeToken,
    key: RoomKey,
    room: RoomHandle,
    controls: mpsc::Receiver<Control>,
    /// Whoever asked for it has it.
    claimed: bool,
    /// The room knows that it is over.
    over: bool,
}

impl Membership {
    /// The member's number.
    pub fn id(&self) -> ParticipantId {
        self.id
    }

    /// Which connection of the member this is.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// It goes on as the participant that it was.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// What proves a later resumption.
    pub fn resume_token(&self) -> ResumeToken {
        self.resume
    }

    /// The room's key.
    pub fn room_key(&self) -> RoomKey {
        self.key
    }

    /// The room.
    pub fn room(&self) -> &RoomHandle {
        &self.room
    }

    /// Snapshots as they come; only the newest is kept.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.room.snapshots.clone()
    }

    /// What the room tells this member; `None` when it is over. A member that let its queue run full may see that without a
    /// [`Control::Ended`] before it. Can be cancelled without losing anything.
    pub async fn control(&mut self) -> Option<Control> {
        self.controls.recv().await
    }

    /// As [`Membership::control`], for whoever waits for many.
    pub fn poll_control(&mut self, context: &mut Context<'_>) -> Poll<Option<Control>> {
        self.controls.poll_recv(context)
    }

    /// Publishes the complete list of what the member sends.
    pub async fn set_tracks(&self, tracks: Vec<(TrackInfo, Arc<Track>)>) {
        self.send(Command::Tracks(self.id, self.epoch, tracks)).await;
    }

    /// Says what the member switched off.
    pub async fn set_muted(&self, muted: Muted) {
        self.send(Command::Muted(self.id, self.epoch, muted)).await;
    }

    /// Says how large the member shows the others: the complete list.
    pub async fn set_view(&self, view: View) {
        self.send(Command::View(self.id, self.epoch, view)).await;
    }

    /// Says that the member shows no pictures at all.
    pub async fn set_blind(&self) {
        self.send(Command::Blind(self.id, self.epoch)).await;
    }

    /// Shows the member under another name.
    pub async fn set_name(&self, name: String) {
        self.send(Command::Name(self.id, self.epoch, name)).await;
    }

    /// Says that the member takes every source apart.
    pub async fn set_apart(&self) {
        self.send(Command::Apart(self.id, self.epoch)).await;
    }

    /// Says that the member's media changed its transport.
    pub async fn set_door(&self, door: Door) {
        self.send(Command::Door(self.id, self.epoch, door)).await;
    }

    /// Says how much of a video track this member can take, bit/s; `u32::MAX` for no bound. A bound is to be repeated at
    /// least every two seconds while it lasts.
    pub fn report_capacity(&self, track: TrackId, bits_per_second: u32) {
        self.room.report_capacity(self.id, self.epoch, track, bits_per_second);
    }

    /// Says that a frame of this track was too large for this member; `max_bitrate` would have fitted.
    pub fn report_oversize(&self, track: TrackId, max_bitrate: u32) {
        self.room
            .send(Command::Oversize(self.id, self.epoch, track, max_bitrate));
    }

    /// Leaves for good. Dropped half-way, it counts as a lost connection.
    pub async fn leave(mut self, reason: LeaveReason) {
        self.over = self.send(Command::Leave(self.id, self.epoch, reason)).await;
    }

    /// True if the room has it, or is no more.
    async fn send(&self, command: Command) -> bool {
        // The task drains its queue without waiting for anything, so this waits only under a flood of commands.
        let sent = timeout(JOIN_DEADLINE, self.room.commands.send(command)).await.is_ok();
        if !sent {
            tracing::error!(room = %self.key, "the room's task does not take commands");
        }
        sent
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        // Nobody has learnt the token of a new member that was never handed out: it cannot come back.
        let command = if self.claimed || self.resumed {
            Command::Lost(self.id, self.epoch)
        } else {
            Command::Leave(self.id, self.epoch, LeaveReason::Lost)
        };
        if let Err(mpsc::error::TrySendError::Full(command)) = self.room.commands.try_send(command) {
            let commands = self.room.commands.clone();
            // Without a runtime the gateway has stopped, and its rooms with it. The wait has no deadline of its own: it ends
            // when the room's task takes the command or ends, and giving up would leave a member behind.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { commands.send(command).await.ok() });
            }
        }
    }
}

/// A room's entry in the registry. Dropped with the room's task, however that ends: nobody finds a room without a task.
struct Listing {
    key: RoomKey,
    registry: Arc<Inner>,
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.registry.rooms.remove(&self.key);
        self.registry.count.fetch_sub(1, Ordering::Relaxed);
    }
}

struct RoomTask {
    listing: Listing,
    room: Room,
    epoch: Instant,
    controls: BTreeMap<ParticipantId, mpsc::Sender<Control>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    display: watch::Sender<Arc<str>>,
    keyframes: watch::Sender<(Counters, Replays)>,
    unheard: Arc<Unheard>,
    named: bool,
    /// For a handle of our own room, without keeping it open.
    commands: mpsc::WeakSender<Command>,
    mixing: Arc<Mixing>,
}

impl RoomTask {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let key = self.listing.key;
        tracing::debug!(room = %key, "room begins");
        loop {
            let deadline = self.room.poll_timeout();
            // A room that nobody enters after all (the joiner went away at the door) ends too.
            let wake = match deadline {
                Some(at) => Some(self.epoch + Duration::from_micros(at.0)),
                None if self.room.is_empty() => Some(Instant::now() + EMPTY_DEADLINE),
                None => None,
            };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.handle(command),
                    None => break,
                },
                () = sleep_until(wake), if wake.is_some() => {
                    let now = self.now();
                    self.room.handle_timeout(now);
                }
            }
            self.carry_out();
            if self.room.is_empty() && commands.is_empty() {
                break;
            }
        }
        // From here on nobody finds this room; whoever already holds its handle is turned away, by the end of the queue or by
        // a knock that is dropped unanswered, and looks again. Receiving to the end waits for those who are about to send.
        drop(self);
        commands.close();
        while commands.recv().await.is_some() {}
        tracing::debug!(room = %key, "room ends");
    }

    fn now(&self) -> RoomTime {
        RoomTime(self.epoch.elapsed().as_micros() as u64)
    }

    fn handle(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Join(knock) => self.join(*knock, now),
            Command::Leave(id, epoch, reason) => self.room.leave(id, epoch, reason, now),
            Command::Lost(id, epoch) => self.room.lost(id, epoch, now),
            Command::Tracks(id, epoch, tracks) => self.room.set_tracks(id, epoch, tracks),
            Command::Muted(id, epoch, muted) => self.room.set_muted(id, epoch, muted),
            Command::Door(id, epoch, door) => self.room.set_door(id, epoch, door),
            Command::Speakers(speakers) => self.room.set_speakers(speakers),
            Command::Level(id, level) => self.room.report_level(id, level, now),
            Command::Keyframe(track, since, reason) => self.room.request_keyframe(track, since, reason, now),
            Command::Capacity(viewer, epoch, track, bits) => self.room.report_capacity(viewer, epoch, track, bits, now),
            Command::View(viewer, epoch, view) => self.room.set_view(viewer, epoch, view, now),
            Command::Blind(id, epoch) => self.room.set_blind(id, epoch, now),
            Command::Oversize(viewer, epoch, track, bits) => self.room.report_oversize(viewer, epoch, track, bits, now),
            Command::Kick(id) => self.room.kick(id, now),
            Command::Name(id, epoch, name) => self.room.set_name(id, epoch, name),
            Command::Apart(id, epoch) => self.room.set_apart(id, epoch),
            Command::Uplink(uplink) => self.room.set_uplink(uplink),
        }
    }

    fn join(&mut self, knock: Knock, now: RoomTime) {
        if knock.reply.is_closed() {
            return;
        }
        let joined = match self.room.join(knock.join, ResumeToken(rand::random()), now) {
            Ok(joined) => joined,
            Err(error) => {
                knock.reply.send(Err(error)).ok();
                return;
            }
        };
        // Whoever sees the member knows the name of the room.
        if !self.named
            && let Some(name) = knock.display
        {
            self.named = true;
            self.display.send_replace(name.into());
        }
        // Effects for those who were there before go out through the senders of before.
        self.carry_out();
        let (sender, controls) = mpsc::channel(CONTROLS);
        self.controls.insert(joined.id, sender);
        // If nobody waits for it any more it is dropped here, and takes itself out.
        let membership = Membership {
            id: joined.id,
            epoch: joined.epoch,
            resumed: joined.resumed,
            resume: joined.token,
            key: knock.key,
            room: knock.room,
            controls,
            claimed: false,
            over: false,
        };
        knock.reply.send(Ok(membership)).ok();
    }

    fn carry_out(&mut self) {
        let counters = (self.room.keyframe_counters(), self.room.past_replays());
        self.keyframes
            .send_if_modified(|known| std::mem::replace(known, counters) != counters);
        let mut changed = false;
        while let Some(effect) = self.room.poll_effect() {
            match effect {
                Effect::Changed => changed = true,
                Effect::Tell(id, control) => {
                    if let Some(controls) = self.controls.get(&id)
                        && controls.try_send(control).is_err()
                    {
                        tracing::debug!(member = %id, ?control, "a member does not take control messages");
                    }
                }
            }
        }
        if changed {
            let snapshot = self.room.snapshot();
            self.controls.retain(|id, _| snapshot.member(*id).is_some());
            let snapshot = Arc::new(snapshot);
            self.snapshots.send_replace(snapshot.clone());
            if let Some(commands) = self.commands.upgrade() {
                let handle = RoomHandle {
                    commands,
                    snapshots: self.snapshots.subscribe(),
                    display: self.display.subscribe(),
                    keyframes: self.keyframes.subscribe(),
                    unheard: self.unheard.clone(),
                    video: self.listing.registry.video,
                    epoch: self.epoch,
                    mixing: self.mixing.clone(),
                };
                Mixing::begin(&handle, &snapshot);
            }
        }
    }
}

async fn sleep_until(wake: Option<Instant>) {
    if let Some(wake) = wake {
        tokio::time::sleep_until(wake.into()).await;
    }
}

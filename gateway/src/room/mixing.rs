//! The task that mixes a room while somebody needs it, and the log from which listeners read what it made.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, interval, sleep};

use crate::media::audio::BLOCK_TIME;
use crate::media::frame::{Kind, ParticipantId, RoomTime};
use crate::room::member::Door;
use crate::room::mixer::{RoomMix, Tick, Wants, Work};
use crate::room::registry::RoomHandle;
use crate::room::snapshot::{MemberView, Snapshot, TrackView};
use crate::room::subscription::{Cursor, Lag, Next};
use crate::room::track::Track;

/// Ticks that a listener may lag, 200 ms; older ones are left out.
const LAG: u64 = 10;
/// Frames older than this do not reach the mix any more.
const FRAME_LAG: Lag = Lag {
    most: 200_000,
    resync_age: 0,
};
/// A task that was held up for longer than this does not make up for it, ticks.
const CATCH_UP: u64 = 10;
/// A mix that broke off begins anew after this long, so that one that breaks at once does not keep a core busy.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// Levels are reported every so many ticks: 10 per second.
const REPORT_EVERY: u64 = 5;

/// What a room's mix and its listeners share.
#[derive(Debug, Default)]
pub struct Mixing {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    running: bool,
    listeners: BTreeMap<ParticipantId, (Wants, Arc<Notify>)>,
    ticks: VecDeque<Arc<Tick>>,
    /// Number of the next tick in this log; other than [`Tick::index`] it goes on when a mix ends and another begins.
    end: u64,
    work: Work,
}

/// A listener's place in the log of ticks. Dropping it ends the listening.
#[derive(Debug)]
pub struct Listener {
    mixing: Arc<Mixing>,
    id: ParticipantId,
    waker: Arc<Notify>,
    next: u64,
    dropped: u64,
}

impl Mixing {
    /// Registers a listener; `waker` is notified after every tick. A room's mix is begun by [`RoomHandle::listen`].
    pub fn listen(self: &Arc<Self>, id: ParticipantId, wants: Wants, waker: &Arc<Notify>) -> Listener {
        let mut inner = self.inner();
        inner.listeners.insert(id, (wants, waker.clone()));
        Listener {
            mixing: self.clone(),
            id,
            waker: waker.clone(),
            next: inner.end,
            dropped: 0,
        }
    }

    /// Puts a tick into the log and wakes the listeners.
    pub fn publish(&self, tick: Tick) {
        let mut inner = self.inner();
        inner.ticks.push_back(Arc::new(tick));
        inner.end += 1;
        if inner.ticks.len() as u64 > LAG {
            inner.ticks.pop_front();
        }
        inner.listeners.values().for_each(|(_, waker)| waker.notify_one());
    }

    /// Whether the room is being mixed now.
    pub fn is_running(&self) -> bool {
        self.inner().running
    }

    /// What the room's mix has cost since it last began.
    pub fn work(&self) -> Work {
        self.inner().work
    }

    /// Begins the room's mix if it is needed and does not run.
    pub fn begin(room: &RoomHandle, snapshot: &Snapshot) {
        if room.mixing().is_running() {
            return;
        }
        let plan = Plan::of(snapshot);
        let mut inner = room.mixing().inner();
        if !inner.running && plan.is_needed(&inner.wishes()) {
            inner.running = true;
            drop(inner);
            // The task owns itself: it ends when nobody needs it, and with the room.
            tokio::spawn(Task::new(room.clone()).run());
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn wishes(&self) -> BTreeMap<ParticipantId, Wants> {
        self.listeners.iter().map(|(id, (wants, _))| (*id, *wants)).collect()
    }
}

impl Listener {
    /// The next tick, if there is one. Ticks that are too old are left out.
    pub fn next_tick(&mut self) -> Option<Arc<Tick>> {
        let inner = self.mixing.inner();
        let first = inner.end - inner.ticks.len() as u64;
        if self.next < first {
            self.dropped += first - self.next;
            self.next = first;
        }
        let tick = inner.ticks.get((self.next - first) as usize)?.clone();
        self.next += 1;
        Some(tick)
    }

    /// Ticks that were left out.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut inner = self.mixing.inner();
        let mine = inner.listeners.get(&self.id);
        if mine.is_some_and(|(_, waker)| Arc::ptr_eq(waker, &self.waker)) {
            inner.listeners.remove(&self.id);
        }
    }
}

/// Which sources are to be decoded, and for what.
#[derive(Debug, Default)]
struct Plan {
    sources: BTreeMap<ParticipantId, Arc<Track>>,
    /// Sources whose level nobody else reports, while somebody uses it.
    unmeasured: BTreeSet<ParticipantId>,
    /// Sources that are members of somebody else's relay.
    remote: BTreeSet<ParticipantId>,
}

impl Plan {
    /// What could be decoded in a room. Looks at every track once.
    fn of(snapshot: &Snapshot) -> Self {
        let mut plan = Self::default();
        let is_picture = |view: &&TrackView| view.info.kind == Kind::Video;
        let pictures = |member: &MemberView| member.tracks.iter().filter(is_picture).count();
        let all_pictures: usize = snapshot.members.iter().map(|member| pictures(member)).sum();
        let mut level_users = Vec::new();
        for member in &snapshot.members {
            // Pages show who speaks; an app shows the picture of who does, if it can choose.
            let uses_levels = match member.door {
                Door::Native => all_pictures - pictures(member) >= 2,
                Door::Webrtc | Door::Websocket => true,
                _ => false,
            };
            if uses_levels {
                level_users.push(member.id);
            }
            // The sound that apps hear of a member: the first of its tracks.
            let Some(view) = member.tracks.iter().find(|view| view.info.kind == Kind::Audio) else {
                continue;
            };
            plan.sources.insert(member.id, view.track.clone());
            if member.is_remote() {
                plan.remote.insert(member.id);
            }
            // Browsers say in every RTP packet how loud it is.
            if member.door != Door::Webrtc {
                plan.unmeasured.insert(member.id);
            }
        }
        // Levels are for others.
        let is_used = match level_users[..] {
            [] => false,
            [alone] => plan.unmeasured.iter().any(|source| *source != alone),
            _ => true,
        };
        if !is_used {
            plan.unmeasured.clear();
        }
        plan
    }

    /// Whether somebody takes a mix of two or more, or samples.
    fn is_mixed(&self, listeners: &BTreeMap<ParticipantId, Wants>) -> bool {
        let others = |listener| self.sources.len() - usize::from(self.sources.contains_key(listener));
        listeners.iter().any(|(listener, wants)| match wants {
            Wants::Opus => others(listener) >= 2,
            Wants::Local => self.sources.len() - self.remote.len() >= 2,
            Wants::Pcm => others(listener) >= 1,
        })
    }

    fn is_needed(&self, listeners: &BTreeMap<ParticipantId, Wants>) -> bool {
        !self.unmeasured.is_empty() || self.is_mixed(listeners)
    }

    /// Leaves out what nobody needs.
    fn reduce(&mut self, listeners: &BTreeMap<ParticipantId, Wants>) {
        if !self.is_mixed(listeners) {
            self.sources.retain(|id, _| self.unmeasured.contains(id));
        }
    }
}

struct Task {
    room: RoomHandle,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    mix: RoomMix,
    cursors: BTreeMap<ParticipantId, Cursor>,
    plan: Plan,
    /// Loudest since the last report.
    levels: BTreeMap<ParticipantId, u8>,
    ticks: u64,
    begin: RoomTime,
    /// Nobody needs the mix any more, and the room knows that it has ended.
    ended: bool,
}

impl Drop for Task {
    fn drop(&mut self) {
        let work = self.mix.work();
        tracing::debug!(?work, ticks = self.ticks, "a mix ends");
        if self.ended {
            return;
        }
        // It broke off: one bad tick must not leave the room without a mix for good.
        self.room.mixing().inner().running = false;
        if std::thread::panicking() {
            tracing::error!("a mix broke off and begins anew");
        }
        if let Ok(runtime) = Handle::try_current() {
            let room = self.room.clone();
            runtime.spawn(async move {
                sleep(RESTART_AFTER).await;
                Mixing::begin(&room, &room.snapshot());
            });
        }
    }
}

impl Task {
    fn new(room: RoomHandle) -> Self {
        Self {
            snapshots: room.snapshots(),
            mix: RoomMix::default(),
            cursors: BTreeMap::new(),
            plan: Plan::default(),
            levels: BTreeMap::new(),
            ticks: 0,
            begin: room.now(),
            ended: false,
            room,
        }
    }

    async fn run(mut self) {
        let mut interval = interval(Duration::from_micros(BLOCK_TIME));
        let mut known = Vec::new();
        self.snapshots.mark_changed();
        loop {
            let due = interval.tick().await;
            if Instant::now().saturating_duration_since(due) > Duration::from_micros(CATCH_UP * BLOCK_TIME) {
                interval.reset_immediately();
                self.begin = self.room.now();
                self.ticks = 0;
            }
            let listeners = self.room.mixing().inner().wishes();
            let Ok(changed) = self.snapshots.has_changed() else {
                break;
            };
            let listening: Vec<_> = listeners.keys().copied().collect();
            if (changed || listening != known) && !self.replan() {
                return;
            }
            known = listening;
            self.tick(&listeners);
        }
        self.end();
    }

    fn end(&mut self) {
        self.ended = true;
        self.room.mixing().inner().running = false;
    }

    /// Looks at the room again; false if nobody needs the mix any more.
    fn replan(&mut self) -> bool {
        loop {
            let snapshot = self.snapshots.borrow_and_update().clone();
            self.plan = Plan::of(&snapshot);
            let mut inner = self.room.mixing().inner();
            // Looked at under the lock that [`Mixing::begin`] takes after a change: either we see it, or it sees that we end.
            if self.snapshots.has_changed().unwrap_or(false) {
                continue;
            }
            let wishes = inner.wishes();
            if self.plan.is_needed(&wishes) {
                self.plan.reduce(&wishes);
                break;
            }
            inner.running = false;
            self.ended = true;
            return false;
        }
        let plan = &self.plan;
        let mix = &mut self.mix;
        self.cursors.retain(|id, cursor| {
            let same = (plan.sources.get(id)).is_some_and(|track| Arc::ptr_eq(track, cursor.track()));
            if !same {
                mix.restart(*id);
            }
            same
        });
        let sources: Vec<_> = plan.sources.keys().copied().collect();
        mix.set_sources(&sources);
        mix.set_remote(&plan.remote);
        // Frames are fetched at every tick; nobody waits for this.
        let waker = Arc::new(Notify::new());
        for (id, track) in &plan.sources {
            self.cursors.entry(*id).or_insert_with(|| Cursor::new(track, &waker));
        }
        self.levels.retain(|id, _| plan.unmeasured.contains(id));
        true
    }

    fn tick(&mut self, listeners: &BTreeMap<ParticipantId, Wants>) {
        for cursor in self.cursors.values_mut() {
            while let Next::Frame(frame) = cursor.next(&FRAME_LAG) {
                self.mix.push(&frame);
            }
        }
        let time = self.begin.plus(self.ticks * BLOCK_TIME);
        self.ticks += 1;
        let tick = self.mix.tick(listeners, time);
        for id in &self.plan.unmeasured {
            let level = self.levels.entry(*id).or_insert(127);
            *level = (*level).min(tick.level(*id));
        }
        if tick.index.is_multiple_of(REPORT_EVERY) {
            for (id, level) in std::mem::take(&mut self.levels) {
                self.room.report_level(id, level);
            }
        }
        let mixing = self.room.mixing().clone();
        mixing.publish(tick);
        mixing.inner().work = self.mix.work();
    }
}

#[cfg(test)]
mod tests;

//! The writing half of a session: control messages, acknowledgements, media, in that order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::extract::ws::Message;
use futures_util::SinkExt;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use wzp_proto::codec::Codec;

use super::{ACK_DELAY, ACK_EVERY, ACK_SPACING, End, SEND_DEADLINE, Shared, Sink, hurry, lock, send_now};
use crate::browser::egress::Out;
use crate::browser::message::{Member, ToClient};
use crate::media::frame::ParticipantId;
use crate::room::member::{Door, LeaveReason};
use crate::room::peer::{PeerCommand, Peers};
use crate::room::registry::RoomHandle;
use crate::room::snapshot::{MemberView, Snapshot};

/// The client's capacity is looked at again after this, even if nothing happens.
const TICK: Duration = Duration::from_millis(250);
/// What goes out in one write at most, bytes: a replay is hundreds of messages, each of which would wake the client.
pub const TOGETHER: usize = 16 << 10;

pub(super) struct Writer<'a> {
    pub(super) id: ParticipantId,
    pub(super) epoch: u64,
    pub(super) shared: &'a Shared,
    pub(super) posted: mpsc::Receiver<ToClient>,
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) room: RoomHandle,
    pub(super) peers: Option<Peers>,
    pub(super) ping: Duration,
}

impl Writer<'_> {
    pub(super) async fn run(&mut self, sink: &mut Sink) -> End {
        let waker = lock(&self.shared.egress).waker();
        let mut ping_at = Instant::now() + self.ping;
        let mut ack_due: Option<Instant> = None;
        let mut last_ack = Instant::now();
        let first = self.snapshot.clone();
        if let Some(uplink) = &first.uplink
            && let Err(end) = send_now(sink, &ToClient::from(&**uplink)).await
        {
            return end;
        }
        if let Err(end) = self.follow(sink, &first).await {
            return end;
        }
        let mut hurry_at = Instant::now();
        // Bytes that were handed over and not flushed.
        let mut held = 0;
        loop {
            let now = Instant::now();
            // Control messages first: they are small, and media waits for what they say.
            while let Ok(message) = self.posted.try_recv() {
                if let Err(end) = send_now(sink, &message).await {
                    return end;
                }
            }
            let received = self.shared.received.load(Ordering::Relaxed);
            let waiting = received - self.shared.acknowledged.load(Ordering::Relaxed);
            if waiting > 0 && ack_due.is_none() {
                ack_due = Some(now + ACK_DELAY);
            }
            let mut ack_at = match waiting >= ACK_EVERY {
                true => Some(last_ack + ACK_SPACING),
                false => ack_due,
            };
            if ack_at.is_some_and(|at| at <= now) {
                if let Err(end) = send_now(sink, &ToClient::Ack { media: received }).await {
                    return end;
                }
                self.shared.acknowledged.store(received, Ordering::Relaxed);
                last_ack = now;
                (ack_due, ack_at) = (None, None);
            }
            if ping_at <= now {
                ping_at = now + self.ping;
                let t = lock(&self.shared.window).pinged(now);
                if let Err(end) = send_now(sink, &ToClient::Ping { t }).await {
                    return end;
                }
            }
            if self.snapshots.has_changed().unwrap_or(false) {
                let snapshot = self.snapshots.borrow_and_update().clone();
                if let Err(end) = self.follow(sink, &snapshot).await {
                    return end;
                }
            }
            self.judge(now);
            if let Some(peers) = &self.peers
                && now >= hurry_at
            {
                hurry_at = now + TICK;
                hurry(self.shared, peers, now);
            }
            let next = {
                let mut window = lock(&self.shared.window);
                let mut egress = lock(&self.shared.egress);
                let next = egress.next_bundle(&mut window, now);
                if let Out::Message(message) = &next {
                    window.sent(message.len(), now);
                }
                next
            };
            match next {
                Out::Message(message) => {
                    held += message.len();
                    let flushes = held >= TOGETHER;
                    let handed = async {
                        sink.feed(Message::Binary(message)).await?;
                        if flushes { sink.flush().await } else { Ok(()) }
                    };
                    if !matches!(timeout(SEND_DEADLINE, handed).await, Ok(Ok(()))) {
                        return End::Lost;
                    }
                    if flushes {
                        held = 0;
                    }
                }
                Out::Idle => {
                    if std::mem::take(&mut held) > 0
                        && !matches!(timeout(SEND_DEADLINE, sink.flush()).await, Ok(Ok(())))
                    {
                        return End::Lost;
                    }
                    let replay = lock(&self.shared.egress)
                        .poll_timeout()
                        .map(|at| now + Duration::from_micros(at.since(self.room.time_at(now))));
                    let wake = [Some(ping_at), Some(now + TICK), ack_at, replay]
                        .into_iter()
                        .flatten()
                        .min()
                        .unwrap_or(ping_at);
                    tokio::select! {
                        message = self.posted.recv() => match message {
                            Some(message) => if let Err(end) = send_now(sink, &message).await { return end },
                            None => return End::Lost,
                        },
                        () = waker.notified() => {}
                        () = self.shared.nudge.notified() => {}
                        _ = self.snapshots.changed() => self.snapshots.mark_changed(),
                        () = tokio::time::sleep_until(wake.into()) => {}
                    }
                }
            }
        }
    }

    /// Says to the room how much video this client can take.
    fn judge(&self, now: Instant) {
        let capacities = lock(&self.shared.egress).judge_capacity(&mut lock(&self.shared.window), now);
        for (track, bits_per_second) in capacities {
            self.room.report_capacity(self.id, self.epoch, track, bits_per_second);
        }
    }

    /// Tells the client what changed since the snapshot before, and follows it with the subscriptions.
    async fn follow(&mut self, sink: &mut Sink, new: &Arc<Snapshot>) -> Result<(), End> {
        let old = std::mem::replace(&mut self.snapshot, new.clone());
        for message in changes(&old, new) {
            send_now(sink, &message).await?;
        }
        let peer = *lock(&self.shared.peer);
        if let (Some(peer), Some(peers)) = (peer, &self.peers) {
            peers.send(PeerCommand::Update { peer });
        }
        // Once for each time that it comes to be so, not for each native that joins later.
        if unseen_by_natives(new, self.id) && !unseen_by_natives(&old, self.id) {
            let notice = ToClient::Notice {
                code: "unseen_by_natives",
                message: "People in native apps do not see your picture unless their app is set to AV1: this browser \
                          sends AV1, most apps show H.264."
                    .to_owned(),
            };
            send_now(sink, &notice).await?;
        }
        let told = lock(&self.shared.egress).update(new, Instant::now());
        for message in told {
            send_now(sink, &message).await?;
        }
        tracing::trace!(member = %self.id, version = new.version, "followed");
        Ok(())
    }
}

/// Whether the member sends a codec that most native apps do not take, and such an app is there. An app takes the one
/// video codec that it is set to, H.264 by default.
fn unseen_by_natives(snapshot: &Snapshot, id: ParticipantId) -> bool {
    let natives = || snapshot.members.iter().any(|member| member.door == Door::Native);
    snapshot.member(id).is_some_and(|own| {
        let tracks = own.tracks.iter();
        tracks
            .map(|track| track.info.codec)
            .any(|codec| codec == Codec::Av1Main)
            && natives()
    })
}

/// The messages that turn one snapshot into another.
fn changes(old: &Snapshot, new: &Snapshot) -> Vec<ToClient> {
    let mut out = Vec::new();
    for member in &old.members {
        if new.member(member.id).is_none() {
            let reason = new
                .departed
                .iter()
                .rev()
                .find(|(id, _)| *id == member.id)
                .map_or(LeaveReason::Lost, |d| d.1);
            out.push(ToClient::MemberLeft { id: member.id, reason });
        }
    }
    for member in &new.members {
        match old.member(member.id) {
            None => out.push(ToClient::MemberJoined {
                member: Member::from(&**member),
            }),
            Some(before) if !Arc::ptr_eq(before, member) && differs(before, member) => {
                out.push(ToClient::MemberChanged {
                    member: Member::from(&**member),
                });
            }
            Some(_) => {}
        }
    }
    if let Some(uplink) = new.uplink.as_ref().filter(|_| old.uplink != new.uplink) {
        out.push(ToClient::from(&**uplink));
    }
    if old.speakers != new.speakers {
        out.push(ToClient::Speakers {
            ids: new.speakers.to_vec(),
        });
    }
    out
}

fn differs(a: &MemberView, b: &MemberView) -> bool {
    let tracks = |view: &MemberView| view.tracks.iter().map(|track| track.info).collect::<Vec<_>>();
    a.name != b.name || a.door != b.door || a.presence != b.presence || a.muted != b.muted || tracks(a) != tracks(b)
}

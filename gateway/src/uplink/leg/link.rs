//! A leg that is connected: media and signals, both ways.

use std::sync::Arc;
use std::time::Duration;

use quinn::Connection;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use wzp_proto::header::MediaType;
use wzp_proto::packet::MediaPacket;
use wzp_proto::signal::{HangupReason, Signal};

use super::{DialledName, Joined, Leg, Over, Watch, after};
use crate::config::uplink::Names;
use crate::media::frame::RoomTime;
use crate::native::client::Event;
use crate::native::egress::Egress;
use crate::native::transport::close;
use crate::native::view::View;
use crate::room::keyframes::Reason;
use crate::room::uplink::UplinkState;
use crate::uplink::backoff::STEADY;
use crate::uplink::legible::{Legibility, Verdict};
use crate::uplink::separate::{self, Separator};
use crate::uplink::trouble::Trouble;

/// How often what is slow is looked at.
const PULSE: Duration = Duration::from_millis(400);
/// A leg that is alone looks after this whether the others are in the room of the name's other form, µs …
const LOOK_FIRST: u64 = 1_500_000;
/// … and again so often, µs, …
const LOOK_AGAIN: u64 = 15_000_000;
/// … or so often, if it is only to be said.
const LOOK_SELDOM: u64 = 60_000_000;
/// What is said when all is well.
const WELL: &str = "in the relay's room";
/// Why the relay is dialled while the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Redial {
    /// The leg should have another name.
    Rename,
    /// Nothing comes.
    Stalled,
}

type Redialled = (Redial, DialledName, String, Result<Joined, Trouble>);

/// What belongs to one connection, and to those that take its place without anybody noticing.
struct Link {
    joined: Joined,
    dialled: Option<DialledName>,
    egress: Egress,
    streams: Streams,
    /// The last that the relay said before it ended it.
    word: Option<HangupReason>,
    redialling: JoinSet<Redialled>,
    redial_at: RoomTime,
    /// Waits before a relay that stalls is dialled once more.
    resting: JoinSet<()>,
    closing: JoinSet<()>,
    /// Looks whether somebody is in the room of the name's other form.
    looking: JoinSet<bool>,
    look_at: RoomTime,
    /// Somebody is there.
    others_elsewhere: bool,
    /// UDP datagrams received at the last pulse, and when there last was a new one.
    received: (u64, RoomTime),
    since: RoomTime,
}

/// What comes from a relay, by the streams that it consists of.
struct Streams {
    separator: Separator,
    /// Of the separator's streams.
    legibility: Legibility,
}

impl Streams {
    /// Of a connection over which nothing has come.
    fn new() -> Self {
        Self {
            separator: Separator::new(separate::Config::of_leg()),
            legibility: Legibility::default(),
        }
    }

    /// Whoever was heard before has begun anew as well, or is not in this room.
    fn begin_anew(&mut self) {
        *self = Self::new();
    }
}

impl Link {
    fn connection(&self) -> Connection {
        self.joined.client.connection().clone()
    }
}

impl Leg {
    /// Carries media until the connection is lost, or the leg is not wanted any more.
    pub(super) async fn converse(&mut self, joined: Joined, watch: &mut Watch) -> Result<Trouble, Over> {
        if let Some(trouble) = watch.echo(joined.list()) {
            joined.client.close(close::NORMAL, "normal close").await;
            return Ok(trouble);
        }
        let now = self.room.now();
        let waker = Arc::new(Notify::new());
        // High, and far from every app's own counters, which begin at 0.
        let first_seqs = rand::random::<[u32; 2]>().map(|seq| seq | 1 << 31);
        let view = View::of_local_members(self.target.rule.video_stream, first_seqs);
        let mut egress = Egress::new(view, waker.clone(), self.counters.media.clone(), now);
        egress.listen(self.room.listen_local(&waker));
        let mut link = Link {
            joined,
            dialled: self.dialled_name().ok(),
            egress,
            streams: Streams::new(),
            word: None,
            redialling: JoinSet::new(),
            redial_at: now,
            resting: JoinSet::new(),
            closing: JoinSet::new(),
            looking: JoinSet::new(),
            look_at: now.plus(LOOK_FIRST),
            others_elsewhere: false,
            received: (0, now),
            since: now,
        };
        self.roster.reconnected();
        self.let_in();
        self.say(UplinkState::Connected, WELL).await;
        let over = self.exchange(&mut link, &waker, watch).await;
        link.redialling.abort_all();
        if over.is_err() {
            link.joined.client.close(close::NORMAL, "normal close").await;
        }
        // Connections that were replaced have said goodbye; each waits a second at most.
        while link.closing.join_next().await.is_some() {}
        over
    }

    fn let_in(&mut self) {
        self.counters.legs.connected.one();
        if std::mem::replace(&mut self.was_in, true) {
            self.counters.legs.reconnected.one();
        }
    }

    async fn exchange(&mut self, link: &mut Link, waker: &Notify, watch: &mut Watch) -> Result<Trouble, Over> {
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.follow_room(link, watch);
        loop {
            let now = self.room.now();
            let wake = [self.sources.poll_timeout(), link.egress.poll_timeout(now)];
            let wake = wake.into_iter().flatten().min();
            let wake = wake.map(|due| Duration::from_micros(due.since(now)));
            let mut pump = true;
            tokio::select! {
                event = link.joined.next() => {
                    pump = false;
                    if let Some(trouble) = self.take(event, link, watch).await
                        && (trouble.lasting || !self.renewed(link, watch).await?)
                    {
                        if trouble.lasting {
                            link.connection().close(close::NORMAL, b"normal close");
                        }
                        return Ok(trouble);
                    }
                }
                () = waker.notified() => {}
                () = after(wake), if wake.is_some() => {}
                owner = self.sources.keyframe_wanted() => {
                    if let Some(stream_id) = self.roster.video_of(&owner) {
                        self.counters.media.pli_out.one();
                        link.joined.client.sender().signal(Signal::picture_loss(stream_id));
                    }
                }
                _ = pulse.tick() => self.pulse(link).await,
                Some(redialled) = link.redialling.join_next(), if !link.redialling.is_empty() => {
                    if let Ok(redialled) = redialled && self.redialled(redialled, link) {
                        self.follow_room(link, watch);
                    }
                }
                Some(rested) = link.resting.join_next(), if !link.resting.is_empty() => {
                    if rested.is_ok() {
                        self.redial(Redial::Stalled, link, now);
                    }
                }
                Some(somebody) = link.looking.join_next(), if !link.looking.is_empty() => {
                    link.others_elsewhere = somebody.unwrap_or(false) && self.is_alone();
                    if link.others_elsewhere && self.target.rule.names == Names::Auto {
                        self.hashed = !self.hashed;
                    }
                }
                over = watch.changed() => {
                    if let Some(over) = over {
                        return Err(over);
                    }
                    if let Some(trouble) = watch.echo(&[]) {
                        link.connection().close(close::NORMAL, b"normal close");
                        return Ok(trouble);
                    }
                    self.follow_room(link, watch);
                }
            }
            let now = self.room.now();
            self.sources.handle_timeout(now).await;
            if pump {
                self.pump(link, now);
            }
        }
    }

    fn follow_room(&mut self, link: &mut Link, watch: &Watch) {
        let snapshot = watch.snapshots.borrow().clone();
        link.egress.set_room(&snapshot);
        let called = self.called(watch);
        self.alias.want(called, self.room.now());
        if let (true, Some(room)) = (self.target.rule.presence, &link.dialled) {
            self.presence.follow(&self.target, room, &watch.members());
            self.roster.set_own_legs(self.presence.fingerprints());
        }
    }

    fn pump(&mut self, link: &mut Link, now: RoomTime) {
        link.egress.pump(link.joined.client.connection(), now);
        for request in link.egress.requests() {
            request.forward(&self.room, self.sources.memberships());
        }
    }

    /// Acts on what came; says what is wrong if it is over.
    async fn take(&mut self, event: Event, link: &mut Link, watch: &Watch) -> Option<Trouble> {
        let now = self.room.now();
        match event {
            Event::Packet(packet) => self.receive(packet, None, link, now).await,
            Event::Trunk(entries) => {
                for entry in entries {
                    match MediaPacket::decode(entry.packet) {
                        Ok(packet) => self.receive(packet, Some(entry.session_id), link, now).await,
                        Err(_) => self.counters.media.malformed_in.one(),
                    }
                }
            }
            Event::BadPacket(error) => {
                self.counters.media.malformed_in.one();
                link.streams.legibility.bad(&error);
            }
            Event::Signal(signal) => return self.hear(signal, link, watch, now).await,
            Event::BadSignal(error) => tracing::debug!(%error, "a signal of the relay was skipped"),
            Event::Closed(error) => return Some(Trouble::lost(&error, link.word.as_ref())),
        }
        None
    }

    /// Takes a packet; `session` is its sender's at the relay, if the relay says it.
    async fn receive(&mut self, packet: MediaPacket, session: Option<[u8; 2]>, link: &mut Link, now: RoomTime) {
        self.counters.media.datagrams_in.one();
        let header = &packet.header;
        let fits = match header.media_type {
            MediaType::Audio => !header.codec.is_video(),
            MediaType::Video => header.codec.is_video(),
            _ => false,
        };
        if !fits {
            return self.counters.legs.unplayable_in.one();
        }
        let at = Duration::from_micros(now.0);
        let placed = match session {
            Some(session) => link.streams.separator.push_from(session, &packet.header, at),
            None => link.streams.separator.push(&packet.header, at),
        };
        match placed.event {
            separate::Event::Duplicate => return self.counters.legs.duplicates_in.one(),
            separate::Event::Restarted => self.roster.restarted(placed.stream),
            separate::Event::Merged => self.counters.legs.merged_in.one(),
            separate::Event::Continued | separate::Event::New => {}
        }
        if !link.streams.legibility.packet(placed.stream, &packet) {
            return self.counters.legs.unplayable_in.one();
        }
        let mut changed = self.roster.seen(placed.stream, &packet.header, now);
        changed |= self.roster.blur(placed.stream, placed.event == separate::Event::Merged);
        if changed {
            link.streams.separator.expect_newcomers(self.roster.unheard());
            self.sources.follow(&self.roster, now).await;
        }
        let taken = match self.roster.owner(placed.stream) {
            Some(owner) => self.sources.packet(owner, packet, now).await,
            None => false,
        };
        if !taken {
            self.counters.legs.nobodys_in.one();
        }
    }

    async fn hear(&mut self, signal: Signal, link: &mut Link, watch: &Watch, now: RoomTime) -> Option<Trouble> {
        self.counters.media.signals_in.one();
        match signal {
            Signal::RoomUpdate { participants, .. } => {
                if let Some(trouble) = watch.echo(&participants) {
                    return Some(trouble);
                }
                let newcomer = self.roster.list(participants, self.alias.shown(), now);
                link.streams.separator.expect_newcomers(self.roster.unheard());
                self.sources.follow(&self.roster, now).await;
                if newcomer {
                    // The relay's cache cannot be relied on: whoever joins gets his picture from us.
                    self.want_keyframe(link, now, Reason::Join);
                }
            }
            Signal::PictureLossIndication { stream_id, .. } => {
                self.counters.media.pli_in.one();
                // Relays hand such requests to everybody; what names somebody else's picture is not for us.
                // Older relays leave stream ids as they are, so that others may send under ours.
                if stream_id == self.target.rule.video_stream || !self.roster.has_video(stream_id, now) {
                    let rtt = link.connection().rtt().as_micros() as u64;
                    let since = RoomTime(now.0.saturating_sub(rtt));
                    self.want_keyframe(link, since, Reason::Viewer);
                }
            }
            Signal::Nack { seqs, .. } => {
                self.counters.media.nacks_in.one();
                link.egress.answer(&seqs, link.joined.client.connection(), now);
            }
            Signal::Hangup { reason, .. } => link.word = Some(reason),
            _ => {}
        }
        None
    }

    /// Asks whose picture goes up for a keyframe; how often, its keyframe owner decides.
    fn want_keyframe(&self, link: &Link, since: RoomTime, reason: Reason) {
        if let Some(track) = link.egress.view().shown() {
            self.room.request_keyframe(track.id(), since, reason);
        }
    }

    /// Looks after what is slow.
    async fn pulse(&mut self, link: &mut Link) {
        let now = self.room.now();
        let vanished = link.streams.separator.expire(Duration::from_micros(now.0));
        if !vanished.is_empty() {
            self.roster.vanished(&vanished);
            link.streams.legibility.vanished(&vanished);
            link.streams.separator.expect_newcomers(self.roster.unheard());
            self.sources.follow(&self.roster, now).await;
        }
        let received = link.connection().stats().udp_rx.datagrams;
        if received != link.received.0 {
            link.received = (received, now);
        }
        let silent = now.since(link.received.1) >= self.shared.config.silence.as_micros() as u64;
        if silent {
            self.say(UplinkState::Stalled, "nothing comes from the relay any more")
                .await;
            self.redial(Redial::Stalled, link, now);
        } else {
            link.resting.abort_all();
            match link.streams.legibility.verdict() {
                Verdict::Legible if link.others_elsewhere && self.is_alone() => {
                    let form = if self.hashed {
                        "as it is written"
                    } else {
                        "in its hash form"
                    };
                    let message = format!(
                        "{WELL}, where nobody is; somebody is in the one whose name is dialled {form}: set names = \"auto\""
                    );
                    self.say(UplinkState::Connected, &message).await;
                }
                Verdict::Legible => self.say(UplinkState::Connected, WELL).await,
                Verdict::Sealed => {
                    let message = "the relay's members encrypt their media end to end, so it cannot be played here";
                    self.say(UplinkState::Unreadable, message).await;
                }
                Verdict::Version(version) => {
                    let message = format!("the relay forwards media of another wire version (first byte {version})");
                    self.say(UplinkState::Unreadable, &message).await;
                }
            }
            if now.since(link.since) >= STEADY.as_micros() as u64 {
                self.backoff.reset();
            }
        }
        if self.is_alone() && !silent {
            self.look(link, now);
        }
        let renamed = self.alias.due().is_some_and(|due| due <= now);
        let moved = self.dialled_name().ok() != link.dialled;
        if renamed || moved {
            self.redial(Redial::Rename, link, now);
        }
    }

    fn is_alone(&self) -> bool {
        self.roster.members().next().is_none()
    }

    fn look(&self, link: &mut Link, now: RoomTime) {
        let (Ok(here), Ok(there)) = (self.dialled_name(), self.name_in_form(!self.hashed)) else {
            return;
        };
        let auto = self.target.rule.names == Names::Auto;
        if here != there && now >= link.look_at && link.looking.is_empty() {
            link.look_at = now.plus(if auto { LOOK_AGAIN } else { LOOK_SELDOM });
            let called = self.alias.shown().to_owned();
            let own = self.roster.own().map(str::to_owned).collect();
            link.looking.spawn(self.target.clone().has_somebody(there, called, own));
        }
    }

    /// Begins to join anew while the connection stands.
    fn redial(&mut self, why: Redial, link: &mut Link, now: RoomTime) {
        if !link.redialling.is_empty() || !link.resting.is_empty() || now < link.redial_at {
            return;
        }
        let (Ok(name), called) = (self.dialled_name(), self.alias.wanted().to_owned()) else {
            return;
        };
        let target = self.target.clone();
        let attempt = self.attempts;
        self.attempts += 1;
        self.counters.legs.attempts.one();
        link.redialling.spawn(async move {
            let dialled = target.dial(name.clone(), called.clone(), attempt).await;
            (why, name, called, dialled)
        });
    }

    /// The connection has ended: whether the one that is to take its place does. A relay that lets one identity in once ends
    /// the old connection before we know that the new one stands.
    async fn renewed(&mut self, link: &mut Link, watch: &mut Watch) -> Result<bool, Over> {
        let renewed = match watch.unless_over(link.redialling.join_next()).await? {
            Some(Ok(redialled)) => self.redialled(redialled, link),
            _ => false,
        };
        // Who came or went meanwhile was seen by that wait alone.
        self.follow_room(link, watch);
        Ok(renewed)
    }

    /// Takes the new connection in place of the old one, if it stands.
    fn redialled(&mut self, (why, name, called, dialled): Redialled, link: &mut Link) -> bool {
        let now = self.room.now();
        let joined = match dialled {
            Ok(joined) => joined,
            Err(trouble) => {
                let wait = self.wait(&trouble);
                match why {
                    Redial::Rename => link.redial_at = now.plus(wait.as_micros() as u64),
                    Redial::Stalled => {
                        link.resting.spawn(self.rest(wait, &trouble));
                    }
                }
                tracing::debug!(room = %self.room.display(), ?why, trouble.message, ?wait, "an uplink was not renewed");
                return false;
            }
        };
        let before = std::mem::replace(&mut link.joined, joined);
        link.closing.spawn(before.client.close(close::NORMAL, "normal close"));
        self.let_in();
        link.received = (0, now);
        link.since = now;
        link.word = None;
        if why == Redial::Stalled || link.dialled.as_ref() != Some(&name) {
            self.roster.reconnected();
            link.streams.begin_anew();
        }
        link.dialled = Some(name);
        self.alias.joined(called, now);
        // To the relay we are somebody new, of whom it has no keyframe.
        self.want_keyframe(link, now, Reason::Join);
        true
    }
}

#[cfg(test)]
mod tests {
    use wzp_proto::codec::Codec;
    use wzp_proto::header::{Flags, MediaHeader};

    use super::*;

    fn sound(seq: u32, payload: Vec<u8>) -> MediaPacket {
        MediaPacket {
            header: MediaHeader {
                flags: Flags::empty(),
                media_type: MediaType::Audio,
                codec: Codec::Opus24k,
                stream_id: 1,
                fec_ratio: 0,
                seq,
                timestamp: seq * 20,
                fec_block: 0,
            },
            payload: payload.into(),
            quality: None,
        }
    }

    impl Streams {
        fn takes(&mut self, packet: &MediaPacket) -> bool {
            let at = Duration::from_millis(packet.header.timestamp.into());
            let placed = self.separator.push(&packet.header, at);
            self.legibility.packet(placed.stream, packet)
        }
    }

    #[test]
    fn nobody_is_judged_by_who_had_his_number_before_the_link_was_renewed() {
        let mut streams = Streams::new();
        for seq in 0..100 {
            streams.takes(&sound(seq, rand::random::<[u8; 32]>().repeat(3)));
        }
        assert_eq!(streams.legibility.verdict(), Verdict::Sealed);
        streams.begin_anew();
        assert!(streams.takes(&sound(5_000, vec![0x48, 0xff, 0xfe])));
        assert_eq!(streams.legibility.verdict(), Verdict::Legible);
    }
}

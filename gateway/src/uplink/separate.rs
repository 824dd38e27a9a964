//! Takes apart the media of several senders that a relay forwards on one connection.
//!
//! Such a relay says of a video packet by its stream id who sent it, and of an audio packet nothing at all (WZP wire v2,
//! section 4.7). Every sender counts its packets and its media time on its own, though, and both from 0 when it joins. So
//! each sender is a counter whose next packet can be foretold: by its number, by its timestamp, by the relation of the
//! two (one frame per packet, more after a pause), by its codec, and by when it should be here, since timestamps run like
//! the clock. A packet goes to the sender whose expectation it misses least, and begins a new one if it misses all. The
//! numbers of two senders that joined at the same instant are the same; what tells them apart then is only the delay of
//! their paths, and where that is not enough, it is said so.

mod counter;

use std::time::Duration;

use wzp_proto::header::{MediaHeader, MediaType};

use counter::{Counter, Miss};

/// A packet that misses a sender's expectation by more than this is not its own.
const FIT: f64 = 6.0;
/// Two senders whose misses differ by less than this cannot be told apart by this packet.
const MARGIN: f64 = 1.0;
/// A sender with fewer packets than this has to fit better, by `YOUTH`, than one with more: what strayed from an old
/// sender would otherwise live on as its double.
const YOUNG: u32 = 50;
/// See `YOUNG`.
const YOUTH: f64 = 1.5;
/// A sender that was heard but a few times is forgotten after this: a stray packet is no sender.
const STRAY_IDLE: Duration = Duration::from_secs(2);
/// Packets that make a sender of a stray.
const STRAY_PACKETS: u32 = 5;
/// A sender that is silent for so long may be the one behind a new counter. Shorter is loss or jitter.
const RESTART_AFTER: Duration = Duration::from_millis(120);
/// A sender that is silent for longer than this is gone, and the new counter somebody else's.
const RESTART_BEFORE: Duration = Duration::from_secs(10);
/// QUIC removes duplicates, so many of them are two senders with the same numbers. Each weighs this much…
const DOUBLE: u32 = 8;
/// …every other packet takes one away, and this much is another sender: six in a row of pairs.
const TWINS: u32 = 40;

/// Bounds of a [`Separator`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Most streams at once of each media type, at least one. What comes beyond is merged.
    pub streams: usize,
    /// A stream that is silent for this long has vanished.
    pub idle: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            streams: 32,
            // The relay itself drops members that are silent for 30 s.
            idle: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// As legs use it. Apps send without pause, also when muted: who is silent for this long is gone.
    pub fn of_leg() -> Self {
        Self {
            idle: Duration::from_secs(10),
            ..Self::default()
        }
    }
}

/// One sender's stream. Numbers are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// Where a packet belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The stream.
    pub stream: StreamId,
    /// What that means for it.
    pub event: Event,
}

/// What a packet is to its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// One more, in order or a little late.
    Continued,
    /// The first. It may be one stray packet, very late on a bad path: a stream of fewer than five packets vanishes after 2 s,
    /// so wait for the fifth before making a source of it.
    New,
    /// The first on a new count: numbers and timestamps are not those of before.
    Restarted,
    /// It could as well be another stream's; this is the nearest.
    Merged,
    /// It has come before.
    Duplicate,
}

/// Tells the senders behind one connection apart.
#[derive(Debug)]
pub struct Separator {
    config: Config,
    /// In the order of their ids.
    streams: Vec<Stream>,
    next_id: u32,
    newcomers: usize,
}

#[derive(Debug)]
struct Stream {
    id: StreamId,
    media_type: MediaType,
    stream_id: u8,
    session: Option<[u8; 2]>,
    counter: Counter,
    /// What was counted before the last restart, in case it was another sender that began.
    previous: Option<Counter>,
    packets: u32,
    doubles: u32,
    /// Its first packet has not been said to be new.
    unannounced: bool,
}

impl Stream {
    fn is_of(&self, packet: Packet) -> bool {
        let header = packet.header;
        (self.media_type, self.stream_id, self.session) == (header.media_type, header.stream_id, packet.session)
    }

    fn place(&mut self, event: Event) -> Placement {
        let event = if std::mem::take(&mut self.unannounced) {
            Event::New
        } else {
            event
        };
        Placement { stream: self.id, event }
    }
}

#[derive(Debug, Clone, Copy)]
struct Packet<'a> {
    header: &'a MediaHeader,
    at: Duration,
    session: Option<[u8; 2]>,
}

impl Packet<'_> {
    /// Whether it says who sends it: by a session, or by its stream id. Relays number the senders of video from 1, and hand on
    /// the 0 of natives only from other relays; those that keep senders apart number sound as well.
    fn is_numbered(&self) -> bool {
        self.session.is_some() || self.header.stream_id != 0
    }
}

impl Separator {
    /// Nothing heard yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            streams: Vec::new(),
            next_id: 0,
            newcomers: 0,
        }
    }

    /// Says where a packet belongs that came at `at`, on any clock that does not run back.
    pub fn push(&mut self, header: &MediaHeader, at: Duration) -> Placement {
        self.place(Packet {
            header,
            at,
            session: None,
        })
    }

    /// The same for a packet from a trunk frame, which says whose session at the relay it is of.
    pub fn push_from(&mut self, session: [u8; 2], header: &MediaHeader, at: Duration) -> Placement {
        self.place(Packet {
            header,
            at,
            session: Some(session),
        })
    }

    fn place(&mut self, packet: Packet) -> Placement {
        let Some((nearest, miss, lead)) = self.nearest(packet) else {
            return self.begin_or_merge(packet);
        };
        if miss.total <= FIT {
            let ambiguous = lead < MARGIN;
            if !packet.is_numbered() && miss.seen && self.are_twins(nearest) {
                return self.begin_or_merge(packet);
            }
            return self.take(nearest, packet, miss, ambiguous);
        }
        if packet.is_numbered() {
            return self.resume_or_restart(nearest, packet);
        }
        if let Some(resumed) = self.return_of_previous(packet) {
            return resumed;
        }
        if self.newcomers == 0
            && let Some(silent) = self.only_silent(packet)
        {
            return self.restart(silent, packet);
        }
        self.begin_or_merge(packet)
    }

    /// Says that so many members have joined whose media has not been heard yet. As long as there are any, a new counter is
    /// taken for a newcomer's and not for somebody's restarted one.
    pub fn expect_newcomers(&mut self, count: usize) {
        self.newcomers = count;
    }

    /// Forgets what has been silent for too long at `now`, and says which streams these are.
    pub fn expire(&mut self, now: Duration) -> Vec<StreamId> {
        let idle = self.config.idle;
        self.streams
            .extract_if(.., |stream| {
                let silent = now.saturating_sub(stream.counter.arrival);
                silent >= idle || (stream.packets < STRAY_PACKETS && silent >= STRAY_IDLE.min(idle))
            })
            .filter(|stream| !stream.unannounced)
            .map(|stream| stream.id)
            .collect()
    }

    /// How many streams there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there is no stream.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// The stream that the packet misses least, by how much, and how much nearer that is than the second.
    fn nearest(&self, packet: Packet) -> Option<(usize, Miss, f64)> {
        let mut nearest: Option<(f64, usize, Miss)> = None;
        let mut runner_up = f64::INFINITY;
        for (i, stream) in self.streams.iter().enumerate().filter(|(_, s)| s.is_of(packet)) {
            let miss = stream.counter.miss(packet.header, packet.at);
            let rank = miss.total + if stream.packets < YOUNG { YOUTH } else { 0.0 };
            match &nearest {
                Some((least, ..)) if *least <= rank => runner_up = runner_up.min(rank),
                _ => {
                    runner_up = nearest.map_or(runner_up, |(least, ..)| least);
                    nearest = Some((rank, i, miss));
                }
            }
        }
        nearest.map(|(rank, i, miss)| (i, miss, runner_up - rank))
    }

    fn take(&mut self, index: usize, packet: Packet, miss: Miss, ambiguous: bool) -> Placement {
        let stream = &mut self.streams[index];
        stream.packets = stream.packets.saturating_add(1);
        if miss.seen {
            stream.doubles += DOUBLE;
        } else {
            stream.doubles = stream.doubles.saturating_sub(1);
            stream.counter.take(packet.header, packet.at, !ambiguous);
        }
        stream.place(match ambiguous {
            _ if miss.seen => Event::Duplicate,
            true => Event::Merged,
            false => Event::Continued,
        })
    }

    fn are_twins(&mut self, index: usize) -> bool {
        let stream = &mut self.streams[index];
        let twins = stream.doubles + DOUBLE > TWINS;
        if twins {
            stream.doubles = 0;
        }
        twins
    }

    /// A numbered stream whose count goes elsewhere: what is replayed to a newcomer is old, what follows is not, and the
    /// two may come mixed.
    fn resume_or_restart(&mut self, index: usize, packet: Packet) -> Placement {
        let stream = &mut self.streams[index];
        let fitting = |previous: &&mut Counter| previous.miss(packet.header, packet.at).total <= FIT;
        let Some(previous) = stream.previous.as_mut().filter(fitting) else {
            return self.restart(index, packet);
        };
        // Whichever goes on is what the stream counts by: it lives as long as that does.
        std::mem::swap(&mut stream.counter, previous);
        let event = if stream.counter.miss(packet.header, packet.at).seen {
            Event::Duplicate
        } else {
            stream.counter.take(packet.header, packet.at, true);
            Event::Continued
        };
        stream.place(event)
    }

    /// If this is what a stream counted before it seemed to restart, then it never did: the new counter was another sender.
    fn return_of_previous(&mut self, packet: Packet) -> Option<Placement> {
        let idle = self.config.idle;
        let index = self.streams.iter().position(|stream| {
            let fits = |previous: &Counter| {
                packet.at.saturating_sub(previous.arrival) < idle
                    && previous.miss(packet.header, packet.at).total <= FIT
            };
            stream.is_of(packet) && stream.previous.as_ref().is_some_and(fits)
        })?;
        let previous = self.streams[index].previous.take()?;
        let miss = previous.miss(packet.header, packet.at);
        let other = std::mem::replace(&mut self.streams[index].counter, previous);
        if !self.is_full(packet.header.media_type) {
            self.begin(packet, other, true);
        }
        Some(self.take(index, packet, miss, false))
    }

    /// The one stream that has stopped lately, if it is one: nothing else can have restarted.
    fn only_silent(&self, packet: Packet) -> Option<usize> {
        let mut silent = self.streams.iter().enumerate().filter(|(_, stream)| {
            let silence = packet.at.saturating_sub(stream.counter.arrival);
            stream.is_of(packet)
                && stream.counter.codec == packet.header.codec
                && stream.packets >= STRAY_PACKETS
                && (RESTART_AFTER..=RESTART_BEFORE).contains(&silence)
        });
        let (index, _) = silent.next()?;
        silent.next().is_none().then_some(index)
    }

    fn restart(&mut self, index: usize, packet: Packet) -> Placement {
        let stream = &mut self.streams[index];
        let counter = Counter::new(packet.header, packet.at);
        stream.previous = Some(std::mem::replace(&mut stream.counter, counter));
        stream.packets = stream.packets.saturating_add(1);
        stream.place(Event::Restarted)
    }

    fn begin_or_merge(&mut self, packet: Packet) -> Placement {
        if self.is_full(packet.header.media_type) {
            let of_type = self
                .streams
                .iter_mut()
                .filter(|s| s.media_type == packet.header.media_type);
            let nearest = of_type.min_by(|a, b| {
                let miss = |stream: &Stream| stream.counter.miss(packet.header, packet.at).total;
                let lanes = a.is_of(packet).cmp(&b.is_of(packet)).reverse();
                lanes.then_with(|| miss(a).total_cmp(&miss(b)))
            });
            if let Some(stream) = nearest {
                return stream.place(Event::Merged);
            }
        }
        self.newcomers = self.newcomers.saturating_sub(1);
        Placement {
            stream: self.begin(packet, Counter::new(packet.header, packet.at), false),
            event: Event::New,
        }
    }

    fn begin(&mut self, packet: Packet, counter: Counter, unannounced: bool) -> StreamId {
        let id = StreamId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        self.streams.push(Stream {
            id,
            media_type: packet.header.media_type,
            stream_id: packet.header.stream_id,
            session: packet.session,
            counter,
            previous: None,
            packets: 1,
            doubles: 0,
            unannounced,
        });
        id
    }

    fn is_full(&self, media_type: MediaType) -> bool {
        let of_type = self.streams.iter().filter(|stream| stream.media_type == media_type);
        of_type.count() >= self.config.streams.max(1)
    }
}

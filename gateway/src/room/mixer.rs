//! The sound of a whole room, every 20 ms: who talks, and the mixes of those who do. Without IO; time is an argument.
//!
//! Every source is decoded once, whatever the number of listeners. One talker costs no encoder: listeners pass his packets
//! through. From two talkers on there is one mix for all who do not talk, and from three on one more for each talker
//! who listens (of two, each hears the other untouched).
//!
//! A listener's change between packets and mix is made so that nobody hears it: see `hearing` for when, `voice` for how.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

mod hearing;
mod output;
mod voice;

use crate::media::audio::mix::{TALKING_LEVEL, Talkers};
use crate::media::frame::{Frame, ParticipantId, RoomTime};
use crate::room::mixer::hearing::{Hears, Place};
use crate::room::mixer::output::{Forms, Needs, Output};
use crate::room::mixer::voice::{Lags, Parts, Voice};

/// The number under which a room's uplink listens; no member has it.
pub const LEG: ParticipantId = ParticipantId(0);

/// In which form a listener takes the mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// Opus packets, when two others or more talk; one talker's packets are passed through.
    Opus,
    /// The same of the members of this gateway alone: what goes up to somebody else's relay must have nothing in it that
    /// came from there.
    Local,
    /// 960 samples of 16 bits, little-endian, always.
    Pcm,
}

/// 20 ms of a room.
#[derive(Debug, Clone, Default)]
pub struct Tick {
    /// +1 per tick.
    pub index: u64,
    /// When it is, evenly spaced.
    pub time: RoomTime,
    /// Who talks, by id.
    pub talkers: Vec<ParticipantId>,
    heard: BTreeMap<ParticipantId, Heard>,
    shared: Forms,
    /// Who takes the packets of `shared`.
    sharing: BTreeSet<ParticipantId>,
    local: Forms,
    own: BTreeMap<ParticipantId, Forms>,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    level: u8,
    next_index: Option<u64>,
}

impl Tick {
    /// The mix for this listener as an Opus packet of 20 ms: everyone who talks but himself. `None` for one who takes the
    /// packets of the only other talker.
    pub fn opus(&self, listener: ParticipantId) -> Option<&Bytes> {
        match self.own.get(&listener) {
            Some(own) => own.opus.as_ref(),
            None if listener == LEG => self.local.opus.as_ref(),
            None if self.sharing.contains(&listener) => self.shared.opus.as_ref(),
            None => None,
        }
    }

    /// The mix for this listener as 960 samples, 16 bits, little-endian: everyone who talks but himself.
    pub fn pcm(&self, listener: ParticipantId) -> Option<&Bytes> {
        match self.own.get(&listener) {
            Some(own) => own.pcm.as_ref(),
            None if self.talkers.contains(&listener) => None,
            None => self.shared.pcm.as_ref(),
        }
    }

    /// How loud a source is, −dBov.
    pub fn level(&self, source: ParticipantId) -> u8 {
        self.heard.get(&source).map_or(127, |heard| heard.level)
    }

    /// Log index of the first frame of a source that is not yet in the mix.
    pub fn next_index(&self, source: ParticipantId) -> Option<u64> {
        self.heard.get(&source)?.next_index
    }
}

/// What a mix has cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// 20 ms blocks of sources decoded.
    pub decoded: u64,
    /// Opus packets encoded.
    pub encoded: u64,
    /// Packets that no decoder took.
    pub undecodable: u64,
    /// 20 ms blocks of sources of which a part is made up: the packet was lost, or late.
    pub concealed: u64,
}

/// The mix of one room.
#[derive(Debug, Default)]
pub struct RoomMix {
    sources: BTreeMap<ParticipantId, Voice>,
    talkers: Talkers,
    /// Sources that are members of somebody else's relay.
    remote: BTreeSet<ParticipantId>,
    /// What each listener who takes packets hears now.
    hears: BTreeMap<ParticipantId, Hears>,
    shared: Output,
    /// The same for those who have just come from a talker's packets, until he pauses.
    late: Output,
    local: Output,
    own: BTreeMap<ParticipantId, Output>,
    index: u64,
    work: Work,
}

impl RoomMix {
    /// Takes the complete list of sources. Those that were there before go on.
    pub fn set_sources(&mut self, sources: &[ParticipantId]) {
        self.sources.retain(|id, _| sources.contains(id));
        self.talkers.retain(|id| sources.contains(&id));
        for id in sources {
            self.sources.entry(*id).or_insert_with(|| Voice::new(*id));
        }
    }

    /// Takes the complete list of sources that are members of somebody else's relay.
    pub fn set_remote(&mut self, remote: &BTreeSet<ParticipantId>) {
        self.remote.clone_from(remote);
    }

    /// A source began anew: what waits of it belongs to its old track.
    pub fn restart(&mut self, id: ParticipantId) {
        self.sources.remove(&id);
    }

    /// Takes a frame of a source; frames of others are ignored.
    pub fn push(&mut self, frame: &Frame) {
        if let Some(voice) = self.sources.get_mut(&frame.track.source) {
            voice.push(frame);
        }
    }

    /// What it has cost so far.
    pub fn work(&self) -> Work {
        self.work
    }

    /// The next 20 ms, at `now`; packets that came later than that must not have been pushed yet.
    pub fn tick(&mut self, listeners: &BTreeMap<ParticipantId, Wants>, now: RoomTime) -> Tick {
        let mut tick = Tick {
            index: self.index,
            time: now,
            ..Tick::default()
        };
        self.index += 1;
        self.advance(&mut tick, now);
        self.expire(&tick);
        let coming = self.follow(&tick, listeners, now);
        self.join(&tick, listeners, &coming, now);
        self.place(&tick);
        self.make(&mut tick, listeners);
        tick
    }

    /// All sources move on by 20 ms.
    fn advance(&mut self, tick: &mut Tick, now: RoomTime) {
        for (id, voice) in &mut self.sources {
            let undecodable = voice.source().undecodable();
            let missed = voice.source().counters();
            if voice.advance(now) {
                self.work.decoded += 1;
                self.talkers.level(*id, voice.source().level(), now);
            }
            self.work.undecodable += voice.source().undecodable() - undecodable;
            let misses = voice.source().counters();
            self.work.concealed += u64::from((misses.late, misses.lost) != (missed.late, missed.lost));
            let heard = Heard {
                level: voice.source().level(),
                next_index: voice.source().next_index(),
            };
            tick.heard.insert(*id, heard);
        }
        tick.talkers = self.talkers.now(now);
    }

    /// Who pauses is in time again in every mix, and mixes that nobody took have nothing to go on from.
    fn expire(&mut self, tick: &Tick) {
        let talks = |id: ParticipantId| tick.level(id) <= TALKING_LEVEL;
        let outputs = [&mut self.shared, &mut self.late, &mut self.local];
        for output in outputs.into_iter().chain(self.own.values_mut()) {
            output.expire(tick.index, talks);
        }
        self.own.retain(|_, output| output.is_kept(tick.index));
    }

    /// What every listener hears from now on; those who go over from a talker's packets to a mix, and from whose.
    fn follow(
        &mut self,
        tick: &Tick,
        listeners: &BTreeMap<ParticipantId, Wants>,
        now: RoomTime,
    ) -> Vec<(ParticipantId, ParticipantId)> {
        self.hears.retain(|listener, _| listeners.contains_key(listener));
        let mut coming = Vec::new();
        for (listener, wants) in listeners.iter().filter(|(_, wants)| **wants != Wants::Pcm) {
            let is_heard = |id: &ParticipantId| id != listener && (*wants != Wants::Local || !self.remote.contains(id));
            let others = || tick.talkers.iter().copied().filter(is_heard);
            let before = self.hears.get(listener).copied().unwrap_or_default();
            let hears = before.next(others(), |id| tick.level(id), now);
            if let (Hears::Through(Some(source)), Hears::Mix { .. }) = (before, hears)
                && others().any(|id| id == source)
            {
                coming.push((*listener, source));
            }
            self.hears.insert(*listener, hears);
        }
        coming
    }

    /// Those who come from a talker's packets have heard him farther than the mixes have him. If nobody has heard a mix until
    /// now, he goes on in all of them from where they are; else in theirs alone, until he pauses.
    fn join(
        &mut self,
        tick: &Tick,
        listeners: &BTreeMap<ParticipantId, Wants>,
        coming: &[(ParticipantId, ParticipantId)],
        now: RoomTime,
    ) {
        let goes_on = |output: &Output| output.went_on(tick.index);
        let mixed = listeners.values().any(|wants| *wants == Wants::Pcm)
            || [&self.shared, &self.late, &self.local].into_iter().any(goes_on)
            || self.own.values().any(goes_on);
        let mut lags = BTreeMap::new();
        for (_, source) in coming {
            let Some(voice) = self.sources.get_mut(source) else {
                continue;
            };
            lags.entry(*source).or_insert_with(|| match mixed {
                true => voice.lag(now),
                false => {
                    voice.splice(now);
                    0
                }
            });
        }
        for (listener, source) in coming {
            let output = if *listener == LEG {
                &mut self.local
            } else if tick.talkers.contains(listener) {
                self.own.entry(*listener).or_default()
            } else if mixed && !self.late.went_on(tick.index) {
                if let Some(Hears::Mix { place, .. }) = self.hears.get_mut(listener) {
                    *place = Some(Place::Late);
                }
                &mut self.late
            } else {
                continue;
            };
            if let Some(lag) = lags.get(source).filter(|lag| **lag > 0) {
                output.lags.insert(*source, *lag);
            }
        }
    }

    /// From which mix every listener takes it.
    fn place(&mut self, tick: &Tick) {
        for (listener, hears) in &mut self.hears {
            let Hears::Mix { place, .. } = hears else { continue };
            let before = *place;
            let lags = match before {
                Some(Place::Late) => self.late.lags.clone(),
                Some(Place::Own) => (self.own.get(listener)).map_or_else(Lags::new, |own| own.lags.clone()),
                Some(Place::Shared) | None => Lags::new(),
            };
            let talks = tick.talkers.contains(listener);
            let next = match before {
                _ if *listener == LEG => Place::Shared,
                _ if talks => Place::Own,
                Some(before) if !lags.is_empty() => before,
                _ => Place::Shared,
            };
            *place = Some(next);
            match (before, next) {
                (Some(Place::Late), Place::Own) => self.own.entry(*listener).or_default().lags = lags,
                (Some(Place::Late | Place::Own) | None, Place::Shared) => self.shared.newcomer = true,
                _ => {}
            }
        }
    }

    /// Makes what is needed of every mix.
    fn make(&mut self, tick: &mut Tick, listeners: &BTreeMap<ParticipantId, Wants>) {
        let Self {
            sources,
            remote,
            hears,
            shared,
            late,
            local,
            own,
            work,
            ..
        } = self;
        let (index, talkers) = (tick.index, std::mem::take(&mut tick.talkers));
        let parts = |ids, but| Parts {
            voices: sources,
            ids,
            but,
        };
        let (packets, samples) = (Needs { opus: true, pcm: false }, Needs { opus: false, pcm: true });
        let (mut of_shared, mut late_ears) = (Needs::default(), Vec::new());
        for (listener, wants) in listeners {
            let place = hears.get(listener).and_then(|hears| hears.place());
            match (wants, place) {
                (Wants::Pcm, _) if !talkers.contains(listener) => of_shared.pcm = true,
                (Wants::Pcm, _) | (Wants::Opus, Some(Place::Own)) => {
                    let needs = if *wants == Wants::Pcm { samples } else { packets };
                    let output = own.entry(*listener).or_default();
                    let forms = output.forms(&parts(&talkers, Some(*listener)), needs, index, work);
                    tick.own.insert(*listener, forms);
                }
                (Wants::Opus, Some(Place::Shared)) => {
                    of_shared.opus = true;
                    tick.sharing.insert(*listener);
                }
                (Wants::Opus, Some(Place::Late)) => late_ears.push(*listener),
                (Wants::Local, Some(_)) => {
                    let ours: Vec<_> = talkers.iter().copied().filter(|id| !remote.contains(id)).collect();
                    let ours = Parts {
                        voices: sources,
                        ids: &ours,
                        but: None,
                    };
                    tick.local = local.forms(&ours, packets, index, work);
                }
                (_, None) => {}
            }
        }
        if of_shared.opus || of_shared.pcm {
            tick.shared = shared.forms(&parts(&talkers, None), of_shared, index, work);
        }
        if !late_ears.is_empty() {
            let forms = late.forms(&parts(&talkers, None), packets, index, work);
            tick.own.extend(late_ears.into_iter().map(|ear| (ear, forms.clone())));
        }
        tick.talkers = talkers;
    }
}

#[cfg(test)]
mod tests;

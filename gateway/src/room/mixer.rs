//! The sound of a whole room, every 20 ms: who talks, and the mixes of those who do. Without IO; time is an argument.
//!
//! Every source is decoded once, whatever the number of listeners. One talker costs no encoder: listeners pass his packets
//! through. From two talkers on there is one mix for all who do not talk, and from three on one more for each talker
//! who listens (of two, each hears the other untouched).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::media::audio::encode::MixEncoder;
use crate::media::audio::mix::{Limiter, TALKING_LEVEL, Talkers, add, to_i16, without};
use crate::media::audio::source::Source;
use crate::media::audio::{BLOCK, Block};
use crate::media::frame::{Frame, ParticipantId, RoomTime};

/// Blocks that a mix's encoder is primed with: 60 ms.
const PAST: usize = 3;
/// When all but one of a listener's talkers have fallen silent, the mix goes on until that one pauses, so that nobody hears
/// the change back to his packets; but not longer than this, µs.
const LINGER: u64 = 4_000_000;

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
    local: Forms,
    own: BTreeMap<ParticipantId, Forms>,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    level: u8,
    next_index: Option<u64>,
}

#[derive(Debug, Clone, Default)]
struct Forms {
    opus: Option<Bytes>,
    pcm: Option<Bytes>,
}

impl Tick {
    /// The mix for this listener as an Opus packet of 20 ms: everyone who talks but himself. `None` unless at least two others
    /// talk, or did until a moment ago.
    pub fn opus(&self, listener: ParticipantId) -> Option<&Bytes> {
        self.forms(listener).opus.as_ref()
    }

    /// The mix for this listener as 960 samples, 16 bits, little-endian: everyone who talks but himself.
    pub fn pcm(&self, listener: ParticipantId) -> Option<&Bytes> {
        self.forms(listener).pcm.as_ref()
    }

    /// How loud a source is, −dBov.
    pub fn level(&self, source: ParticipantId) -> u8 {
        self.heard.get(&source).map_or(127, |heard| heard.level)
    }

    /// Log index of the first frame of a source that is not yet in the mix.
    pub fn next_index(&self, source: ParticipantId) -> Option<u64> {
        self.heard.get(&source)?.next_index
    }

    fn forms(&self, listener: ParticipantId) -> &Forms {
        match self.own.get(&listener) {
            _ if listener == LEG => &self.local,
            Some(own) => own,
            None if self.talkers.contains(&listener) => const { &Forms { opus: None, pcm: None } },
            None => &self.shared,
        }
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
}

/// The mix of one room.
#[derive(Debug, Default)]
pub struct RoomMix {
    sources: BTreeMap<ParticipantId, Member>,
    talkers: Talkers,
    /// Sources that are members of somebody else's relay.
    remote: BTreeSet<ParticipantId>,
    shared: Output,
    local: Output,
    own: BTreeMap<ParticipantId, Output>,
    index: u64,
    /// Who talked alone in the last tick and was passed through.
    through: Option<ParticipantId>,
    work: Work,
}

#[derive(Debug)]
struct Member {
    source: Source,
    /// The last blocks, oldest first.
    past: [Block; PAST],
}

#[derive(Debug, Default)]
struct Output {
    limiter: Limiter,
    encoder: Option<MixEncoder>,
    /// The tick of the last packet.
    encoded_at: Option<u64>,
    /// Since when only one is left in it.
    alone_since: Option<RoomTime>,
}

impl RoomMix {
    /// Takes the complete list of sources. Those that were there before go on.
    pub fn set_sources(&mut self, sources: &[ParticipantId]) {
        let Self {
            sources: known,
            talkers,
            own,
            ..
        } = self;
        known.retain(|id, _| sources.contains(id));
        own.retain(|id, _| sources.contains(id));
        talkers.retain(|id| sources.contains(&id));
        for id in sources {
            known.entry(*id).or_insert_with(|| Member {
                source: Source::new(id.0),
                past: [[0.0; BLOCK]; PAST],
            });
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
        if let Some(member) = self.sources.get_mut(&frame.track.source) {
            let payload = frame.payload.clone();
            (member.source).push(frame.codec, payload, frame.ticks, frame.index, frame.arrived);
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
        for (id, member) in &mut self.sources {
            member.past.rotate_left(1);
            if let Some(last) = member.past.last_mut() {
                *last = *member.source.block();
            }
            let undecodable = member.source.undecodable();
            if member.source.advance(now) {
                self.work.decoded += 1;
                self.talkers.level(*id, member.source.level(), now);
            }
            self.work.undecodable += member.source.undecodable() - undecodable;
            let heard = Heard {
                level: member.source.level(),
                next_index: member.source.next_index(),
            };
            tick.heard.insert(*id, heard);
        }
        tick.talkers = self.talkers.now(now);
        // Whose packets went through until now has been heard farther than the mix has him: he goes on from there. Not if some
        // have heard the mix all along.
        let anew = listeners.values().all(|wants| *wants != Wants::Pcm);
        if anew
            && !self.shared.went_on(tick.index)
            && !self.local.went_on(tick.index)
            && let Some(id) = self
                .through
                .filter(|id| tick.talkers.len() >= 2 && tick.talkers.contains(id))
            && let Some(member) = self.sources.get_mut(&id)
        {
            let before = member.source.splice(now);
            if let Some(last) = member.past.last_mut() {
                *last = before;
            }
        }
        self.through = match tick.talkers[..] {
            [alone] => Some(alone),
            _ => None,
        };
        let mut sum = [0.0; BLOCK];
        for id in &tick.talkers {
            if let Some(member) = self.sources.get(id) {
                add(&mut sum, member.source.block());
            }
        }
        // One talker, or the only other one of two, is passed through.
        let levels = |but: Option<ParticipantId>| -> Vec<u8> {
            (tick.talkers.iter().filter(|id| Some(**id) != but))
                .map(|id| tick.level(*id))
                .collect()
        };
        let enough_for_all = self.shared.is_mix(&levels(None), tick.index, now);
        let mut shared = (false, false);
        let mut own = Vec::new();
        let mut local_forms = None;
        let local: Vec<_> = (tick.talkers.iter().copied())
            .filter(|id| !self.remote.contains(id))
            .collect();
        let local_levels: Vec<_> = local.iter().map(|id| tick.level(*id)).collect();
        for (listener, wants) in listeners {
            if *wants == Wants::Local {
                if self.local.is_mix(&local_levels, tick.index, now) {
                    let mut sum = [0.0; BLOCK];
                    for id in &local {
                        if let Some(member) = self.sources.get(id) {
                            add(&mut sum, member.source.block());
                        }
                    }
                    let past = || Self::past(&self.sources, &local, None);
                    local_forms = Some(self.local.forms(sum, (true, false), past, tick.index, &mut self.work));
                }
                continue;
            }
            let talks = tick.talkers.contains(listener);
            let needs = match wants {
                Wants::Opus if talks => {
                    let output = self.own.entry(*listener).or_default();
                    (output.is_mix(&levels(Some(*listener)), tick.index, now), false)
                }
                Wants::Opus | Wants::Local => (enough_for_all, false),
                Wants::Pcm => (false, true),
            };
            if !talks {
                shared = (shared.0 || needs.0, shared.1 || needs.1);
            } else if needs.0 || needs.1 {
                own.push((*listener, needs));
            }
        }
        tick.local = local_forms.unwrap_or_default();
        if shared.0 || shared.1 {
            let past = || Self::past(&self.sources, &tick.talkers, None);
            tick.shared = self.shared.forms(sum, shared, past, tick.index, &mut self.work);
        }
        for (listener, needs) in own {
            let Some(member) = self.sources.get(&listener) else {
                continue;
            };
            let rest = without(&sum, member.source.block());
            let past = || Self::past(&self.sources, &tick.talkers, Some(listener));
            let output = self.own.entry(listener).or_default();
            let forms = output.forms(rest, needs, past, tick.index, &mut self.work);
            tick.own.insert(listener, forms);
        }
        tick
    }

    /// What the mix would have been in the last 60 ms.
    fn past(
        sources: &BTreeMap<ParticipantId, Member>,
        talkers: &[ParticipantId],
        but: Option<ParticipantId>,
    ) -> [Block; PAST] {
        let mut past = [[0.0; BLOCK]; PAST];
        for id in talkers.iter().filter(|id| Some(**id) != but) {
            if let Some(member) = sources.get(id) {
                past.iter_mut()
                    .zip(&member.past)
                    .for_each(|(sum, block)| add(sum, block));
            }
        }
        past
    }
}

impl Output {
    /// Whether the tick before this one had a packet.
    fn went_on(&self, index: u64) -> bool {
        self.encoded_at.is_some_and(|at| at + 1 == index)
    }

    /// Whether this tick has a packet, when so many are to be heard and are so loud.
    fn is_mix(&mut self, levels: &[u8], index: u64, now: RoomTime) -> bool {
        let since = self.alone_since.take();
        match levels {
            [] => false,
            [level] if self.went_on(index) => {
                let since = *self.alone_since.insert(since.unwrap_or(now));
                *level <= TALKING_LEVEL && now.since(since) < LINGER
            }
            [_] => false,
            _ => true,
        }
    }

    /// `needs`: as Opus, as samples.
    fn forms(
        &mut self,
        mut mix: Block,
        needs: (bool, bool),
        past: impl Fn() -> [Block; PAST],
        index: u64,
        work: &mut Work,
    ) -> Forms {
        self.limiter.apply(&mut mix);
        let opus = needs.0.then(|| self.encode(&mix, past, index, work));
        let opus = opus.and_then(|encoded| {
            encoded
                .inspect_err(|error| tracing::error!(%error, "a mix was not encoded"))
                .ok()
        });
        let pcm = needs
            .1
            .then(|| to_i16(&mix).iter().flat_map(|sample| sample.to_le_bytes()).collect());
        Forms { opus, pcm }
    }

    fn encode(
        &mut self,
        mix: &Block,
        past: impl Fn() -> [Block; PAST],
        index: u64,
        work: &mut Work,
    ) -> Result<Bytes, opus::Error> {
        let goes_on = self.went_on(index);
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            none => none.insert(MixEncoder::new()?),
        };
        if !goes_on {
            let mut past = past();
            past.iter_mut().for_each(|block| Limiter::default().apply(block));
            encoder.prime(&past)?;
            work.encoded += PAST as u64;
        }
        self.encoded_at = Some(index);
        work.encoded += 1;
        encoder.encode(mix)
    }
}

#[cfg(test)]
mod tests;

//! Whose each stream is, as far as the list, the counts and the times tell.

use super::{MOST_NAME, Member, MemberKey, Owner, Roster, Stream, is_of};
use crate::media::frame::Kind;
use crate::uplink::alias;
use crate::uplink::separate::StreamId;

/// An app's media begins within this of its joining, ms.
const NEAR: i64 = 2_000;
/// Senders whose origins are closer than this cannot be put in order, ms.
const APART: i64 = 1_000;
/// Sound and picture of one sender have origins no farther apart than this, ms.
const PAIR: i64 = 700;

impl Roster {
    /// All names of those whose sound has no stream of its own, if there are several, and if this is the only stream without
    /// a name or may be any of them.
    pub(super) fn merged(&self, blurred: bool) -> Option<String> {
        let nameless = self.nameless(Kind::Audio).len();
        let unheard: Vec<_> = self.without(Kind::Audio).map(|member| member.name.as_str()).collect();
        let several = unheard.len() >= 2 && (nameless == 1 || blurred);
        several.then(|| unheard.join(" + ").chars().take(MOST_NAME).collect())
    }

    /// Sound that may be several people's: a gateway's. On a relay that has apps of its own, a gateway is one member.
    pub(super) fn may_be_mix(&self, stream: &Stream) -> bool {
        stream.high && !self.has_apps
    }

    /// Sound that may belong to one member, in the order of origins.
    fn nameless_voices(&self) -> Vec<StreamId> {
        let mut voices = self.nameless(Kind::Audio);
        voices.retain(|id| !self.streams[id].blurred);
        voices
    }

    pub(super) fn without(&self, kind: Kind) -> impl Iterator<Item = &Member> {
        (self.members.iter()).filter(move |member| {
            !(self.streams.values()).any(|stream| stream.kind == kind && is_of(stream, &member.key))
        })
    }

    /// Streams of a kind that are no member's by name, in the order of their origins.
    fn nameless(&self, kind: Kind) -> Vec<StreamId> {
        let mut nameless: Vec<_> = (self.streams.iter())
            .filter(|(_, stream)| stream.kind == kind && stream.is_somebody())
            .filter(|(_, stream)| !matches!(stream.owner, Some(Owner::Member(_))))
            .map(|(id, stream)| (stream.origin, *id))
            .collect();
        nameless.sort_unstable();
        nameless.into_iter().map(|(_, id)| id).collect()
    }

    pub(super) fn assign(&mut self) {
        if self.members.iter().any(|member| member.stream_id.is_some()) {
            return self.match_by_stream_id();
        }
        let present: Vec<_> = self.members.iter().map(|member| member.key.clone()).collect();
        let mixing = !self.has_apps && present.len() != 1;
        for stream in self.streams.values_mut() {
            if matches!(&stream.owner, Some(Owner::Member(key)) if !present.contains(key)) {
                stream.let_go();
            }
            // A gateway's sound was one member's as long as there was only one; now it may be a mix.
            if mixing && stream.high && stream.kind == Kind::Audio {
                stream.owner = None;
            }
        }
        if let [only] = &present[..] {
            self.give_all(only.clone());
        } else {
            self.match_by_time();
            self.match_legs();
            self.match_by_order();
            self.match_the_last();
            self.match_pictures();
        }
        self.number_the_rest();
    }

    /// The relay says whose each stream is; one that is nobody's is on its way still, or its sender is not listed yet.
    fn match_by_stream_id(&mut self) {
        let members = &self.members;
        for stream in self.streams.values_mut() {
            let sender = members.iter().find(|member| member.stream_id == Some(stream.stream_id));
            stream.owner = sender
                .filter(|_| stream.is_somebody())
                .map(|member| Owner::Member(member.key.clone()));
        }
    }

    /// There is only one: the sound and the picture that came last are its own, others what somebody left behind.
    fn give_all(&mut self, only: MemberKey) {
        for kind in [Kind::Audio, Kind::Video] {
            let newest = (self.streams.iter())
                .filter(|(_, stream)| stream.kind == kind && stream.is_somebody())
                .max_by_key(|(id, stream)| (stream.seen, **id))
                .map(|(id, _)| *id);
            for (id, stream) in self.streams.iter_mut().filter(|(_, stream)| stream.kind == kind) {
                let owner = Owner::Member(only.clone());
                if Some(*id) == newest {
                    stream.owner = Some(owner);
                } else if stream.owner.as_ref() == Some(&owner) {
                    stream.owner = None;
                }
            }
        }
    }

    /// A stream that began when exactly one member joined is that member's.
    fn match_by_time(&mut self) {
        let near = |stream: &Stream, member: &Member| {
            (member.since).is_some_and(|since| (stream.origin - since.as_millis() as i64).abs() <= NEAR)
        };
        let nameless = self.nameless_voices();
        let mut found = Vec::new();
        for member in self.without(Kind::Audio) {
            let streams: Vec<_> = (nameless.iter()).filter(|id| near(&self.streams[id], member)).collect();
            if let [id] = streams[..]
                && self
                    .without(Kind::Audio)
                    .filter(|other| near(&self.streams[id], other))
                    .count()
                    == 1
            {
                found.push((*id, member.key.clone()));
            }
        }
        self.give(found);
    }

    /// On a relay of apps, the one stream that is no app's is the one gateway's, which its name shows.
    fn match_legs(&mut self) {
        let legs: Vec<_> = self
            .nameless_voices()
            .into_iter()
            .filter(|id| self.streams[id].high)
            .collect();
        let is_leg = |member: &&Member| member.name.ends_with(alias::SUFFIX);
        let named: Vec<_> = self
            .without(Kind::Audio)
            .filter(is_leg)
            .map(|member| member.key.clone())
            .collect();
        if let ([id], [key], true) = (&legs[..], &named[..], self.has_apps) {
            let found = (*id, key.clone());
            self.give([found]);
        }
    }

    /// As many streams as members without one: they are in the same order, if that is clear.
    fn match_by_order(&mut self) {
        let nameless = self.nameless_voices();
        let without: Vec<_> = self.without(Kind::Audio).collect();
        let origins: Vec<_> = nameless.iter().map(|id| self.streams[id].origin).collect();
        let clear = origins.windows(2).all(|pair| pair[1] - pair[0] >= APART);
        let here = without.iter().all(|member| !member.elsewhere);
        let apps = nameless.iter().all(|id| !self.streams[id].high);
        if nameless.len() < 2 || nameless.len() != without.len() || !(clear && here && apps) {
            return;
        }
        let listed_at = self.listed_at.unwrap_or_default().as_millis() as i64;
        let possible = without.iter().zip(&origins).all(|(member, origin)| match member.since {
            Some(since) => (origin - since.as_millis() as i64).abs() <= NEAR + APART,
            None => *origin <= listed_at + NEAR,
        });
        if possible {
            let keys: Vec<_> = without.iter().map(|member| member.key.clone()).collect();
            self.give(nameless.into_iter().zip(keys));
        }
    }

    /// One stream and one member are left.
    fn match_the_last(&mut self) {
        let nameless = self.nameless(Kind::Audio);
        let without: Vec<_> = self.without(Kind::Audio).map(|member| member.key.clone()).collect();
        if let ([id], [key]) = (&nameless[..], &without[..])
            && !self.may_be_mix(&self.streams[id])
        {
            let found = (*id, key.clone());
            self.give([found]);
        }
    }

    /// A picture belongs to the one sound that has its origin.
    fn match_pictures(&mut self) {
        let mut found = Vec::new();
        for id in self.nameless(Kind::Video) {
            let picture = &self.streams[&id];
            let near = |stream: &&Stream| (stream.origin - picture.origin).abs() <= PAIR && stream.high == picture.high;
            let mut sounds = (self.streams.values())
                .filter(|stream| stream.kind == Kind::Audio)
                .filter(near);
            let pictures = (self.streams.values())
                .filter(|stream| stream.kind == Kind::Video)
                .filter(near);
            if let (Some(sound), None, 1) = (sounds.next(), sounds.next(), pictures.count())
                && let Some(Owner::Member(key)) = &sound.owner
                && !(self.streams.values()).any(|stream| stream.kind == Kind::Video && is_of(stream, key))
            {
                found.push((id, key.clone()));
            }
        }
        self.give(found);
    }

    fn give(&mut self, found: impl IntoIterator<Item = (StreamId, MemberKey)>) {
        for (id, key) in found {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.owner = Some(Owner::Member(key));
            }
        }
    }

    /// Whoever is left gets the lowest free number; nobody has two streams of one kind. A picture has the number of its
    /// sound, as far as that is clear.
    fn number_the_rest(&mut self) {
        for kind in [Kind::Audio, Kind::Video] {
            for id in self.nameless(kind) {
                if self.streams[&id].owner.is_some() {
                    continue;
                }
                let taken: Vec<_> = self.streams.values().filter_map(number_of).collect();
                let free = || (1..).find(|number| !taken.contains(number)).unwrap_or(u32::MAX);
                let number = self.number_beside(id).unwrap_or_else(free);
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.owner = Some(Owner::Unnamed(number));
                }
            }
        }
    }

    /// The number of the one unnamed sender whose other stream began with this one.
    fn number_beside(&self, id: StreamId) -> Option<u32> {
        let stream = &self.streams[&id];
        let near = |other: &Stream| (stream.origin - other.origin).abs() <= PAIR && stream.high == other.high;
        let alike = self
            .streams
            .values()
            .filter(|other| other.kind == stream.kind && near(other));
        let others: Vec<_> = (self.streams.values())
            .filter(|other| other.kind != stream.kind && other.is_somebody() && near(other))
            .collect();
        let [beside] = others[..] else { return None };
        let number = number_of(beside)?;
        let paired = (self.streams.values()).any(|other| other.kind == stream.kind && number_of(other) == Some(number));
        (alike.count() == 1 && !paired).then_some(number)
    }
}

fn number_of(stream: &Stream) -> Option<u32> {
    match stream.owner {
        Some(Owner::Unnamed(number)) => Some(number),
        _ => None,
    }
}

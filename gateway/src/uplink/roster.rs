//! Who on the relay sends which stream. Without IO; time is an argument.
//!
//! The relay's list has no stream ids and its packets no names, so this infers. Members are listed in the order in which
//! they joined, and an app's timestamps count from when it joined: the origin of a stream, its arrival less its
//! timestamp, says about when its sender came. A stream whose sender cannot be told is nobody's by name; it is shown as
//! "native 1", or, if it stands for several, by all their names.

use std::collections::BTreeMap;

use wzp_proto::header::{MediaHeader, MediaType};
use wzp_proto::signal::RoomParticipant;

use crate::media::frame::{Kind, RoomTime};
use crate::uplink::separate::StreamId;

mod matching;

/// Members of the relay that are shown; those beyond are heard without a name.
pub const MOST_MEMBERS: usize = 64;
/// Longest name, characters.
const MOST_NAME: usize = 64;
/// A stream has so many packets before it is somebody: a stray packet is nobody. Pictures are of two times besides: one
/// keyframe alone comes from the relay's memory, and its sender may be long gone.
const PACKETS: u32 = 3;
/// A stream whose sender has left has so many before it is somebody else's; fewer were still on their way.
const PACKETS_AFTER: u32 = 40;
/// Counters from here on are no app's, which begin at 0, but a gateway's: its sound may be a mix of several.
const HIGH: u32 = 1 << 31;
/// A picture that came within this is one that is being sent, µs.
const LIVE: u64 = 2_000_000;
/// How much one packet weighs in the share of those that could be of another stream as well, as a divisor.
const BLUR_OVER: f32 = 64.0;
/// From this share on a stream is several people's, …
const BLURRED: f32 = 0.3;
/// … and down to this one it stays so.
const CLEAR: f32 = 0.05;

/// Somebody of the relay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A member of its list.
    Member(MemberKey),
    /// Whoever sends a stream that is no member's by name.
    Unnamed(u32),
}

/// Names a member of the relay's list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberKey {
    /// As the relay says it; empty for members without.
    pub fingerprint: String,
    /// Tells those apart that have the same fingerprint, by place in the list.
    pub nth: u32,
}

#[derive(Debug, Clone)]
struct Member {
    key: MemberKey,
    name: String,
    /// The stream id of all that it sends, if the relay says it.
    stream_id: Option<u8>,
    /// It is on another relay, so its place in the list says nothing.
    elsewhere: bool,
    /// The newest list does not have it.
    unlisted: bool,
    /// When it joined, if that was after us.
    since: Option<RoomTime>,
}

#[derive(Debug)]
struct Stream {
    kind: Kind,
    stream_id: u8,
    origin: i64,
    packets: u32,
    /// How many of them it takes to be somebody.
    needs: u32,
    /// Timestamp of the first one, and whether there was another.
    first_timestamp: u32,
    moves: bool,
    /// The share of late that could be of another stream as well, and what that makes of it.
    blur: f32,
    blurred: bool,
    high: bool,
    seen: RoomTime,
    /// It began to count anew, so that whose it is has to be found again.
    again: bool,
    owner: Option<Owner>,
}

impl Stream {
    fn is_somebody(&self) -> bool {
        self.packets >= self.needs && (self.moves || self.kind == Kind::Audio)
    }

    /// Whoever sent it begins anew, or is gone; what still comes was on its way.
    fn let_go(&mut self) {
        self.packets = 0;
        self.needs = PACKETS_AFTER;
        self.owner = None;
    }
}

/// The relay's list and its streams.
#[derive(Debug, Default)]
pub struct Roster {
    /// Our own fingerprints on the relay: the identity's, and the account's if it shows that.
    own: Vec<String>,
    /// Those of our other legs, which show our members one by one.
    legs: Vec<String>,
    members: Vec<Member>,
    /// Everybody in the newest list in its order, we too.
    listed: Vec<MemberKey>,
    streams: BTreeMap<StreamId, Stream>,
    listed_at: Option<RoomTime>,
    /// An app was heard by its own count. A gateway that mixes sends nothing but its own counts.
    has_apps: bool,
}

impl Roster {
    /// Nobody yet; our own leg has this fingerprint.
    pub fn new(own: String) -> Self {
        Self {
            own: vec![own],
            ..Self::default()
        }
    }

    /// A new connection: streams begin anew, and who is in its first list may have been there for long.
    pub fn reconnected(&mut self) {
        self.streams.clear();
        self.listed.clear();
        self.listed_at = None;
        self.has_apps = false;
    }

    /// The complete list of the fingerprints of our other legs.
    pub fn set_own_legs(&mut self, fingerprints: Vec<String>) {
        self.legs = fingerprints;
    }

    /// All fingerprints that are ours.
    pub fn own(&self) -> impl Iterator<Item = &str> {
        self.own.iter().chain(&self.legs).map(String::as_str)
    }

    fn is_own(&self, fingerprint: &str) -> bool {
        self.own().any(|own| own == fingerprint)
    }

    /// Takes the relay's list; our leg is called `alias` there. Whether somebody may be new who will want a picture.
    pub fn list(&mut self, participants: Vec<RoomParticipant>, alias: &str, now: RoomTime) -> bool {
        // With accounts, the relay shows the account's fingerprint and not our key's: then the name tells, and the
        // newest of that name is we, since the list is in the order of joining.
        if !participants.iter().any(|who| self.is_own(&who.fingerprint))
            && let Some(own) = (participants.iter().rev())
                .find(|who| who.relay_label.is_none() && who.alias.as_deref() == Some(alias))
                .filter(|own| !own.fingerprint.is_empty())
        {
            self.own.push(own.fingerprint.clone());
        }
        let first = self.listed_at.is_none();
        let mut listed: Vec<(MemberKey, RoomParticipant)> = Vec::new();
        for who in participants {
            let same = listed.iter().filter(|(key, _)| key.fingerprint == who.fingerprint);
            let key = MemberKey {
                nth: same.count() as u32,
                fingerprint: who.fingerprint.clone(),
            };
            listed.push((key, who));
        }
        // A relay that says whose streams are whose numbers who joins again anew; its lists may repeat for other reasons.
        let numbered = listed.iter().any(|(_, who)| who.stream_id.is_some());
        let again = if first || numbered {
            Vec::new()
        } else {
            self.joined_again(&listed)
        };
        let shrinks = listed.len() < self.listed.len();
        self.listed = listed.iter().map(|(key, _)| key.clone()).collect();
        let mut newcomer = false;
        let mut members: Vec<Member> = Vec::new();
        for (key, who) in listed {
            if self.is_own(&key.fingerprint) || members.len() == MOST_MEMBERS {
                continue;
            }
            let known = self.members.iter().find(|member| member.key == key);
            newcomer |= known.is_none();
            let since = match known {
                Some(known) if !first && !again.contains(&key) => known.since,
                _ => (!first).then_some(now),
            };
            members.push(Member {
                name: shown_name(who.alias.as_deref(), &key.fingerprint),
                key,
                stream_id: who.stream_id.filter(|id| *id != 0),
                elsewhere: who.relay_label.is_some(),
                unlisted: false,
                since,
            });
        }
        // When somebody leaves, a relay leaves out those on other relays, though they are there as before.
        for member in std::mem::take(&mut self.members) {
            let stays = member.elsewhere && !members.iter().any(|listed| listed.key == member.key);
            if stays && members.len() < MOST_MEMBERS && self.is_heard_or_seen(&member.key) {
                members.push(Member {
                    unlisted: true,
                    ..member
                });
            }
        }
        self.members = members;
        for stream in self.streams.values_mut() {
            if matches!(&stream.owner, Some(Owner::Member(key)) if again.contains(key)) {
                stream.let_go();
            }
        }
        self.listed_at = self.listed_at.or(Some(now));
        self.assign();
        newcomer || first || !shrinks
    }

    /// Who has joined again under the same fingerprint: the relay puts such a member at the end of its list, in which it
    /// may have stood already.
    fn joined_again(&self, listed: &[(MemberKey, RoomParticipant)]) -> Vec<MemberKey> {
        let here = |who: &&(MemberKey, RoomParticipant)| who.1.relay_label.is_none();
        let repeated = listed.len() == self.listed.len() && listed.iter().zip(&self.listed).all(|(a, b)| a.0 == *b);
        let mut again: Vec<MemberKey> = Vec::new();
        if repeated && listed.iter().all(|who| here(&who)) {
            again.extend(listed.last().map(|(key, _)| key.clone()));
        }
        let mut newest = 0;
        for (key, _) in listed.iter().filter(here) {
            let Some(before) = self.listed.iter().position(|known| known == key) else {
                continue;
            };
            if before < newest {
                again.push(key.clone());
            }
            newest = newest.max(before);
        }
        again.retain(|key| !self.is_own(&key.fingerprint));
        again
    }

    fn is_heard_or_seen(&self, key: &MemberKey) -> bool {
        self.streams.values().any(|stream| is_of(stream, key))
    }

    /// A packet of a stream came. Whether anything changed about who sends what.
    pub fn seen(&mut self, id: StreamId, header: &MediaHeader, now: RoomTime) -> bool {
        let stream = self.streams.entry(id).or_insert_with(|| Stream {
            kind: match header.media_type {
                MediaType::Video => Kind::Video,
                _ => Kind::Audio,
            },
            stream_id: header.stream_id,
            origin: 0,
            packets: 0,
            needs: PACKETS,
            first_timestamp: header.timestamp,
            moves: false,
            blur: 0.0,
            blurred: false,
            high: header.seq >= HIGH,
            seen: now,
            again: false,
            owner: None,
        });
        let was_somebody = stream.is_somebody();
        stream.seen = now;
        stream.packets = stream.packets.saturating_add(1);
        // The timestamp wraps after 49 days; nothing here is that old.
        let origin = now.as_millis() as i64 - i64::from(header.timestamp);
        stream.origin = if stream.packets == 1 {
            origin
        } else {
            stream.origin.min(origin)
        };
        if stream.packets == 1 {
            (stream.first_timestamp, stream.moves) = (header.timestamp, false);
        } else {
            stream.moves |= header.timestamp != stream.first_timestamp;
        }
        if !was_somebody && stream.is_somebody() {
            self.has_apps |= stream.kind == Kind::Audio && !stream.high;
            // A relay gives newcomers its cached keyframe first, whose age says nothing about who sends.
            if std::mem::take(&mut stream.again) && stream.kind == Kind::Video {
                stream.owner = None;
            }
            self.assign();
            return true;
        }
        false
    }

    /// A stream's sender began to count anew.
    pub fn restarted(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.packets = 0;
            stream.needs = PACKETS;
            stream.origin = i64::MAX;
            stream.again = true;
        }
    }

    /// Whether the stream's last packet could be another one's as well. Whether that changes who sends what.
    pub fn blur(&mut self, id: StreamId, ambiguous: bool) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        stream.blur += (f32::from(u8::from(ambiguous)) - stream.blur) / BLUR_OVER;
        let blurred = stream.blur > if stream.blurred { CLEAR } else { BLURRED };
        if blurred == std::mem::replace(&mut stream.blurred, blurred) {
            return false;
        }
        if blurred && self.members.len() > 1 {
            stream.owner = None;
        }
        self.assign();
        true
    }

    /// These streams are no more.
    pub fn vanished(&mut self, ids: &[StreamId]) {
        self.streams.retain(|id, _| !ids.contains(id));
        let streams = &self.streams;
        (self.members).retain(|member| !member.unlisted || streams.values().any(|stream| is_of(stream, &member.key)));
        self.assign();
    }

    /// Whose stream this is; `None` while it may be a stray.
    pub fn owner(&self, id: StreamId) -> Option<&Owner> {
        self.streams.get(&id)?.owner.as_ref()
    }

    /// The members by key and name.
    pub fn members(&self) -> impl Iterator<Item = (&MemberKey, &str)> {
        self.members.iter().map(|member| (&member.key, member.name.as_str()))
    }

    /// Members whose sound has not been heard.
    pub fn unheard(&self) -> usize {
        let heard =
            |key: &MemberKey| (self.streams.values()).any(|stream| stream.kind == Kind::Audio && is_of(stream, key));
        self.members.iter().filter(|member| !heard(&member.key)).count()
    }

    /// Who sends streams without being known by name, the kinds of those streams, and what to call them.
    pub fn unnamed(&self) -> BTreeMap<u32, String> {
        let mut unnamed: BTreeMap<u32, String> = BTreeMap::new();
        for stream in self.streams.values() {
            if let Some(Owner::Unnamed(number)) = stream.owner {
                let several = (stream.kind == Kind::Audio && (stream.blurred || self.may_be_mix(stream)))
                    .then(|| self.merged(stream.blurred))
                    .flatten();
                let name = several.unwrap_or_else(|| format!("native {number}"));
                let entry = unnamed.entry(number).or_insert_with(|| name.clone());
                if stream.kind == Kind::Audio {
                    *entry = name;
                }
            }
        }
        unnamed
    }

    /// The kinds of stream that somebody sends.
    pub fn sends(&self, owner: &Owner, kind: Kind) -> bool {
        (self.streams.values()).any(|stream| stream.kind == kind && stream.owner.as_ref() == Some(owner))
    }

    /// Whether a picture of somebody else comes from the relay under this stream id now.
    pub fn has_video(&self, stream_id: u8, now: RoomTime) -> bool {
        (self.streams.values())
            .filter(|stream| stream.kind == Kind::Video && now.since(stream.seen) <= LIVE)
            .any(|stream| stream.stream_id == stream_id)
    }

    /// The stream id under which somebody's picture comes.
    pub fn video_of(&self, owner: &Owner) -> Option<u8> {
        (self.streams.values())
            .filter(|stream| stream.kind == Kind::Video && stream.owner.as_ref() == Some(owner))
            .max_by_key(|stream| stream.seen)
            .map(|stream| stream.stream_id)
    }
}

fn is_of(stream: &Stream, key: &MemberKey) -> bool {
    matches!(&stream.owner, Some(Owner::Member(owner)) if owner == key)
}

/// What a member is called here: its alias without what cannot be shown, else its fingerprint's beginning.
fn shown_name(alias: Option<&str>, fingerprint: &str) -> String {
    let clean = |text: &str, most| -> String {
        let shown: String = text.chars().filter(|c| !c.is_control()).take(most).collect();
        shown.trim().to_owned()
    };
    let names = [clean(alias.unwrap_or_default(), MOST_NAME), clean(fingerprint, 9)];
    names
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "native".to_owned())
}

#[cfg(test)]
mod tests;

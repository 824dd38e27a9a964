//! The relay's rooms: members, cached keyframes, owners of streams; the defects are the real one's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::Connection;
use wzp_gateway::native::quality::{Quality, Tier};
use wzp_proto::codec::Codec;
use wzp_proto::header::{Flags, MediaType};
use wzp_proto::packet::{MediaPacket, QualityReport};
use wzp_proto::seal::Sealing;
use wzp_proto::signal::{RoomParticipant, Signal};

use super::Vintage;

/// A keyframe of more payload bytes is cached as its tail.
const KEYFRAME_BYTES: usize = 200_000;
/// A second request for the same stream of the same owner is dropped within this.
const REQUEST_WINDOW: Duration = Duration::from_millis(200);

/// All rooms, by the server name as it came.
#[derive(Debug)]
pub struct Rooms {
    vintage: Vintage,
    last_id: u64,
    rooms: BTreeMap<String, Room>,
}

#[derive(Debug)]
struct Room {
    members: Vec<Member>,
    keyframes: Keyframes,
    /// Who last sent anything on a stream id.
    owners: BTreeMap<u8, u64>,
    requests: BTreeMap<(u64, u8), Instant>,
    tier: Tier,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            members: Vec::new(),
            keyframes: Keyframes::default(),
            owners: BTreeMap::new(),
            requests: BTreeMap::new(),
            tier: Tier::Good,
        }
    }
}

/// By sender and stream id as sent; audio and video share the ids.
#[derive(Debug, Default)]
struct Keyframes {
    arriving: BTreeMap<(u64, u8), Vec<MediaPacket>>,
    complete: BTreeMap<(u64, u8), Vec<MediaPacket>>,
}

#[derive(Debug)]
struct Member {
    id: u64,
    entry: Entry,
    layer: u8,
    quality: Quality,
    tier: Tier,
}

/// What a member brings along.
#[derive(Clone, Debug)]
pub struct Entry {
    pub connection: Connection,
    pub alias: Option<String>,
    pub fingerprint: String,
    /// Seals what goes to it.
    pub sealing: Option<Arc<Sealing>>,
}

/// What a join brings about.
#[derive(Debug)]
pub struct Joined {
    pub id: u64,
    pub evicted: Vec<u64>,
    /// Cached keyframes.
    pub replay: Vec<MediaPacket>,
}

/// What a packet brings about.
#[derive(Debug, Default)]
pub struct Forwarding {
    /// Who gets it, by id, and in which form.
    pub to: Vec<(u64, Entry)>,
    pub packet: Option<MediaPacket>,
    pub other_layer: u64,
    /// The room's tier changed: everybody is told.
    pub directive: Option<Signal>,
}

impl Rooms {
    pub fn new(vintage: Vintage) -> Self {
        Self {
            vintage,
            last_id: 0,
            rooms: BTreeMap::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.rooms.values().map(|room| room.members.len()).sum()
    }

    pub fn join(&mut self, name: &str, entry: Entry) -> Joined {
        self.last_id += 1;
        let id = self.last_id;
        let room = self.rooms.entry(name.to_owned()).or_default();
        let is_same = |member: &mut Member| member.entry.fingerprint == entry.fingerprint;
        let evicted: Vec<_> = room.members.extract_if(.., is_same).map(|member| member.id).collect();
        room.keyframes
            .arriving
            .retain(|(sender, _), _| !evicted.contains(sender));
        room.keyframes
            .complete
            .retain(|(sender, _), _| !evicted.contains(sender));
        room.owners.retain(|_, owner| !evicted.contains(owner));
        room.members.push(Member {
            id,
            entry,
            layer: 0,
            quality: Quality::default(),
            tier: Tier::Good,
        });
        // Of all senders and layers, even of those who have left.
        let replay =
            room.keyframes.complete.iter().flat_map(|((sender, _), packets)| {
                packets.iter().map(|packet| outbound(self.vintage, *sender, packet))
            });
        Joined {
            id,
            evicted,
            replay: replay.collect(),
        }
    }

    /// False if it was no member any more.
    pub fn leave(&mut self, name: &str, id: u64) -> bool {
        let Some(room) = self.rooms.get_mut(name) else {
            return false;
        };
        let before = room.members.len();
        room.members.retain(|member| member.id != id);
        let was_member = room.members.len() < before;
        if room.members.is_empty() {
            self.rooms.remove(name);
        }
        was_member
    }

    pub fn aliases(&self, name: &str) -> Vec<String> {
        let members = self.rooms.get(name).map(|room| &room.members).into_iter().flatten();
        members
            .map(|member| member.entry.alias.clone().unwrap_or_default())
            .collect()
    }

    pub fn connections(&self, name: &str) -> Vec<Connection> {
        let members = self.rooms.get(name).map(|room| &room.members).into_iter().flatten();
        members.map(|member| member.entry.connection.clone()).collect()
    }

    pub fn list(&self, name: &str) -> Signal {
        let members = self.rooms.get(name).map(|room| &room.members).into_iter().flatten();
        let participants = members.map(|member| RoomParticipant {
            fingerprint: member.entry.fingerprint.clone(),
            alias: member.entry.alias.clone(),
            relay_label: None,
        });
        Signal::room_update(participants.collect())
    }

    /// A packet of a member; none if it is a member no more.
    pub fn forward(&mut self, name: &str, id: u64, packet: &MediaPacket) -> Option<Forwarding> {
        let room = self.rooms.get_mut(name)?;
        room.members.iter().find(|member| member.id == id)?;
        room.keyframes.take(id, packet);
        let out = outbound(self.vintage, id, packet);
        if !packet.header.is_repair() {
            room.owners.insert(packet.header.stream_id, id);
            room.owners.insert(out.header.stream_id, id);
        }
        let directive = packet.quality.and_then(|report| room.judge(id, &report));
        let mut forwarding = Forwarding {
            directive,
            ..Forwarding::default()
        };
        for member in room.members.iter().filter(|member| member.id != id) {
            let layer = packet.header.stream_id;
            let newest = self.vintage == Vintage::Newest;
            let passes = packet.header.media_type != MediaType::Video
                || layer == member.layer
                || (newest && packet.header.codec == Codec::H264Baseline && layer <= 1);
            if passes {
                forwarding.to.push((member.id, member.entry.clone()));
            } else {
                forwarding.other_layer += 1;
            }
        }
        forwarding.packet = Some(out);
        Some(forwarding)
    }

    /// Whom a keyframe request goes to: to everybody else, whoever owns the stream. None if it is dropped.
    pub fn request(&mut self, name: &str, from: u64, stream_id: u8, now: Instant) -> Option<Vec<Connection>> {
        let room = self.rooms.get_mut(name)?;
        let owner = *room.owners.get(&stream_id)?;
        let last = room.requests.get(&(owner, stream_id));
        if last.is_some_and(|last| now.duration_since(*last) < REQUEST_WINDOW) {
            return None;
        }
        room.requests.insert((owner, stream_id), now);
        let others = room.members.iter().filter(|member| member.id != from);
        Some(others.map(|member| member.entry.connection.clone()).collect())
    }
}

impl Room {
    /// The weakest member's tier is the room's.
    fn judge(&mut self, id: u64, report: &QualityReport) -> Option<Signal> {
        let member = self.members.iter_mut().find(|member| member.id == id)?;
        // A byte of kbit/s against these numbers: always 0.
        let kbps = u32::from(report.bitrate_cap_kbps);
        member.layer = match kbps {
            _ if kbps > 3000 && report.loss_pct < 2 => 2,
            _ if kbps > 750 => 1,
            _ => 0,
        };
        member.tier = member.quality.report(report)?;
        let weakest = self.members.iter().map(|member| member.tier).min()?;
        let changed = std::mem::replace(&mut self.tier, weakest) != weakest;
        changed.then(|| Signal::quality_directive(weakest.profile(), Some(format!("weakest link: {weakest:?}"))))
    }
}

impl Keyframes {
    fn take(&mut self, sender: u64, packet: &MediaPacket) {
        let (header, key) = (&packet.header, (sender, packet.header.stream_id));
        if header.is_repair() {
            return;
        }
        if !header.is_keyframe() {
            // Also if it is audio.
            self.arriving.remove(&key);
            return;
        }
        let arriving = self.arriving.entry(key).or_default();
        let bytes: usize = arriving.iter().map(|packet| packet.payload.len()).sum();
        if bytes + packet.payload.len() > KEYFRAME_BYTES {
            arriving.clear();
        }
        arriving.push(packet.clone());
        if header.flags.contains(Flags::FRAME_END)
            && let Some(complete) = self.arriving.remove(&key)
        {
            self.complete.insert(key, complete);
        }
    }
}

/// A sender's packet as others get it: the newest relays put a number of the sender's in the place of video's stream id.
fn outbound(vintage: Vintage, sender: u64, packet: &MediaPacket) -> MediaPacket {
    let mut packet = packet.clone();
    if vintage == Vintage::Newest && packet.header.media_type == MediaType::Video {
        packet.header.stream_id = ((sender - 1) % 250) as u8 + 1;
    }
    packet
}

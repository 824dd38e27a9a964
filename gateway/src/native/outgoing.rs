//! All that goes out to one native member: the native view, or, for those who asked for it in their offer, every source
//! apart. Without IO but for [`Datagrams`]; time is an argument.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::media::frame::{ParticipantId, RoomTime};
use crate::native::counters::Counters;
use crate::native::egress::{Datagrams, Egress, Request};
use crate::native::view::{Playable, View};
use crate::room::snapshot::Snapshot;
use crate::room::track::Track;

/// What goes out to one member.
#[derive(Debug)]
pub struct Outgoing {
    /// By whose media it is; the native view stands under its receiver.
    legs: BTreeMap<ParticipantId, Egress>,
    apart: Option<Apart>,
}

/// What a new leg is made from.
#[derive(Debug)]
struct Apart {
    me: ParticipantId,
    playable: Playable,
    waker: Arc<Notify>,
    counters: Arc<Counters>,
}

impl Outgoing {
    /// One sound and one picture.
    pub fn view(egress: Egress) -> Self {
        Self {
            legs: BTreeMap::from([(egress.view().me(), egress)]),
            apart: None,
        }
    }

    /// Every source apart, under the stream id that the member list says (`Snapshot`'s `native_stream`): its packets as they
    /// are, numbered without holes from 0 on, sound and picture each. There is no mix and nothing is chosen. The sources
    /// come and go with the room, which bounds how many there are.
    pub fn apart(me: ParticipantId, playable: Playable, waker: Arc<Notify>, counters: Arc<Counters>) -> Self {
        Self {
            legs: BTreeMap::new(),
            apart: Some(Apart {
                me,
                playable,
                waker,
                counters,
            }),
        }
    }

    /// Whether every source goes out apart.
    pub fn is_apart(&self) -> bool {
        self.apart.is_some()
    }

    /// Takes note of a change in the room.
    pub fn set_room(&mut self, snapshot: &Snapshot, now: RoomTime) {
        if let Some(apart) = &self.apart {
            let is_there = |id: &ParticipantId| snapshot.members.iter().any(|member| member.id == *id);
            self.legs.retain(|id, _| is_there(id));
            for member in snapshot.members.iter().filter(|member| member.id != apart.me) {
                self.legs.entry(member.id).or_insert_with(|| {
                    let view = View::of_one(apart.me, member.id, apart.playable);
                    Egress::new(view, apart.waker.clone(), apart.counters.clone(), now)
                });
            }
        }
        for leg in self.legs.values_mut() {
            leg.set_room(snapshot);
        }
    }

    /// When [`Outgoing::pump`] wants to be called, woken or not.
    pub fn poll_timeout(&self, now: RoomTime) -> Option<RoomTime> {
        self.legs.values().filter_map(|leg| leg.poll_timeout(now)).min()
    }

    /// Sends whatever is there and fits.
    pub fn pump(&mut self, out: &impl Datagrams, now: RoomTime) {
        for leg in self.legs.values_mut() {
            leg.pump(out, now);
        }
    }

    /// What the room should be asked, since the last call.
    pub fn requests(&mut self) -> impl Iterator<Item = Request> + '_ {
        self.legs.values_mut().flat_map(Egress::requests)
    }

    /// The video track that the member means by a stream id.
    pub fn track_of(&self, stream_id: u8) -> Option<&Arc<Track>> {
        self.leg(stream_id)?.view().track_of(stream_id)
    }

    /// Sends video packets of a stream again, as far as they are still held and the path takes them.
    pub fn answer(&mut self, stream_id: u8, seqs: &[u32], out: &impl Datagrams, now: RoomTime) {
        let leg = match &self.apart {
            Some(_) => (self.legs.values_mut()).find(|leg| leg.view().stream_id() == Some(stream_id)),
            None => self.legs.values_mut().next(),
        };
        if let Some(leg) = leg {
            leg.answer(seqs, out, now);
        }
    }

    fn leg(&self, stream_id: u8) -> Option<&Egress> {
        match &self.apart {
            Some(_) => (self.legs.values()).find(|leg| leg.view().stream_id() == Some(stream_id)),
            None => self.legs.values().next(),
        }
    }
}

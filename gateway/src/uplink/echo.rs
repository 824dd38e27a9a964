//! Whether what goes up to a relay would come back down here. Without IO.

use std::collections::BTreeSet;

use wzp_proto::signal::RoomParticipant;

use super::trouble::Trouble;
use crate::room::snapshot::Snapshot;

/// So many of our people in the relay's list are enough: a relay that is a gateway shows only as many as have a place there.
const MIRRORED: usize = 8;

/// What speaks against the relay with this list, if our leg is called `own` there: it is this gateway, or one that joins our
/// room in turn.
pub(super) fn echo(snapshot: &Snapshot, own: &str, list: &[RoomParticipant]) -> Option<Trouble> {
    if snapshot.local().any(|member| member.fingerprint.to_string() == own) {
        return Some(Trouble::echo("the relay is this gateway itself; name another one"));
    }
    is_mirror(snapshot, list)
        .then(|| Trouble::echo("the relay is a gateway that has this one as its relay; only one may have the other"))
}

/// A gateway that joins our room has a leg here, and shows all of our people to its own room, but not its legs. One who is here and
/// there may be a person with two apps; and nobody may part the others from the relay by coming to both.
fn is_mirror(snapshot: &Snapshot, list: &[RoomParticipant]) -> bool {
    let there: BTreeSet<&str> = list.iter().map(|who| who.fingerprint.as_str()).collect();
    let (mut visited, mut people, mut mirrored) = (false, 0, 0);
    for member in snapshot.local() {
        let is_there = there.contains(member.fingerprint.to_string().as_str());
        if snapshot.apart.contains(&member.id) {
            visited |= !is_there;
        } else {
            people += 1;
            mirrored += usize::from(is_there);
        }
    }
    visited && people > 0 && mirrored >= people.min(MIRRORED)
}

#[cfg(test)]
mod tests {
    use wzp_proto::identity::Fingerprint;

    use super::*;
    use crate::media::frame::RoomTime;
    use crate::room::member::{Door, Join, ResumeToken};
    use crate::room::state::Room;

    const OWN: &str = "own";

    fn fingerprint(number: u8) -> Fingerprint {
        Fingerprint([number; 16])
    }

    /// A room with people, other gateways' legs, and members of the relay.
    fn room(people: &[(u8, &str)], legs: &[u8], remote: &[u8]) -> Snapshot {
        let mut room = Room::new(100);
        let mut join = |number, name: &str, door, apart| {
            let join = Join {
                name: name.to_owned(),
                fingerprint: fingerprint(number),
                door,
                resume: None,
                resumable: false,
            };
            let joined = room.join(join, ResumeToken(0), RoomTime(0)).unwrap();
            if apart {
                room.set_apart(joined.id, joined.epoch);
            }
        };
        people
            .iter()
            .for_each(|(number, name)| join(*number, name, Door::Native, false));
        legs.iter()
            .for_each(|number| join(*number, "Cy via web", Door::Native, true));
        remote
            .iter()
            .for_each(|number| join(*number, "Bo", Door::Uplink, false));
        room.snapshot()
    }

    fn list(fingerprints: &[u8]) -> Vec<RoomParticipant> {
        let who = |fingerprint: String| RoomParticipant {
            fingerprint,
            alias: None,
            relay_label: None,
            stream_id: None,
        };
        let all = fingerprints.iter().map(|number| fingerprint(*number).to_string());
        all.chain([OWN.to_owned()]).map(who).collect()
    }

    fn is_found(snapshot: &Snapshot, there: &[u8]) -> bool {
        echo(snapshot, OWN, &list(there)).is_some()
    }

    #[test]
    fn relay_that_joins_our_room_is_found_by_all_of_our_people() {
        assert!(is_found(&room(&[(1, "Ana")], &[50], &[1]), &[1]));
        assert!(is_found(&room(&[(1, "Ana"), (2, "Bea")], &[50], &[]), &[1, 2, 9]));
        // Those that stand for its members one by one are its own as well; a third gateway's leg is one of ours to it.
        assert!(is_found(&room(&[(1, "Ana")], &[50, 51, 60], &[]), &[1, 60]));
        // More than it has places for.
        let many: Vec<_> = (1..=40).map(|number| (number, "Ana")).collect();
        assert!(is_found(&room(&many, &[50], &[]), &(11..=35).collect::<Vec<_>>()));
    }

    #[test]
    fn one_who_comes_to_both_sides_parts_nobody_from_the_relay() {
        // Whatever he is called, and whatever else he joins as.
        assert!(!is_found(&room(&[(1, "Ana"), (7, "Eve via web")], &[], &[]), &[7]));
        assert!(!is_found(&room(&[(1, "Ana")], &[7], &[]), &[7]));
        assert!(!is_found(&room(&[(1, "Ana"), (7, "Eve via web")], &[8], &[]), &[7]));
        assert!(!is_found(&room(&[(1, "Ana"), (7, "Eve")], &[8, 9], &[]), &[7, 9]));
        // With two apps, and nobody's leg.
        assert!(!is_found(&room(&[(1, "Ana")], &[], &[]), &[1]));
    }

    #[test]
    fn other_gateways_legs_alone_are_no_echo() {
        assert!(!is_found(&room(&[(1, "Ana")], &[50], &[2]), &[2]));
        assert!(!is_found(&room(&[], &[50], &[2]), &[2]));
        assert!(!is_found(&room(&[(1, "Ana")], &[50], &[]), &[]));
    }
}

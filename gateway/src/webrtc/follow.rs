//! Whose tracks a peer receives, by what it follows and who is there.

use crate::media::frame::{Kind, ParticipantId};
use crate::room::peer::Follow;
use crate::room::snapshot::Snapshot;

/// Whose tracks a peer should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// No one's.
    Nobody,
    /// This member's.
    One(ParticipantId),
    /// All members'.
    Everyone,
}

/// Chooses for `viewer`. Who follows the speaker stays in silence with the one `watched` before; at first it gets whoever
/// sends most pictures.
pub fn choose(snapshot: &Snapshot, follow: Follow, viewer: ParticipantId, watched: Option<ParticipantId>) -> Chosen {
    match follow {
        Follow::Nobody => Chosen::Nobody,
        Follow::Everyone => Chosen::Everyone,
        Follow::Source(source) => Chosen::One(source),
        Follow::Speaker => {
            let sends = |id: &ParticipantId| {
                *id != viewer && snapshot.member(*id).is_some_and(|member| !member.tracks.is_empty())
            };
            let speaker = snapshot.speakers.iter().copied().find(sends);
            let anybody = || {
                let pictures = |id: &ParticipantId| {
                    let tracks = snapshot
                        .member(*id)
                        .map(|member| &member.tracks[..])
                        .unwrap_or_default();
                    tracks.iter().filter(|track| track.info.kind == Kind::Video).count()
                };
                let members = snapshot.members.iter().map(|member| member.id);
                members.filter(sends).max_by_key(pictures)
            };
            speaker
                .or_else(|| watched.filter(sends))
                .or_else(anybody)
                .map_or(Chosen::Nobody, Chosen::One)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wzp_proto::codec::Codec;
    use wzp_proto::identity::Fingerprint;

    use super::*;
    use crate::media::frame::TrackId;
    use crate::room::member::{Door, Muted, Origin, Presence, TrackInfo};
    use crate::room::snapshot::{MemberView, TrackView};
    use crate::room::track::{Bounds, Track};

    const VIEWER: ParticipantId = ParticipantId(9);

    /// Members 1, 2, … who send so many pictures and a sound each, and a viewer who sends nothing.
    fn room(pictures: &[u8], speakers: &[u32]) -> Snapshot {
        let member = |id: ParticipantId, tracks| {
            Arc::new(MemberView {
                id,
                name: id.to_string(),
                fingerprint: Fingerprint::of(b"x"),
                door: Door::Whip,
                presence: Presence::Connected,
                muted: Muted::default(),
                native_stream: 1,
                tracks,
            })
        };
        let track = |source, kind, slot| {
            let id = TrackId {
                source,
                kind,
                slot,
                layer: 0,
            };
            let info = TrackInfo {
                kind,
                slot,
                layer: 0,
                origin: Origin::Camera,
                codec: Codec::Opus24k,
                size: None,
            };
            let (track, _) = Track::create(id, Bounds::AUDIO, 0);
            TrackView { info, track }
        };
        let mut members: Vec<_> = (1..)
            .map(ParticipantId)
            .zip(pictures)
            .map(|(id, count)| {
                let videos = (0..*count).map(|slot| track(id, Kind::Video, slot));
                member(id, std::iter::once(track(id, Kind::Audio, 0)).chain(videos).collect())
            })
            .collect();
        members.push(member(VIEWER, Vec::new()));
        Snapshot {
            version: 1,
            members,
            speakers: speakers.iter().copied().map(ParticipantId).collect(),
            ..Snapshot::default()
        }
    }

    fn seen(snapshot: &Snapshot, watched: Option<u32>) -> Chosen {
        choose(snapshot, Follow::Speaker, VIEWER, watched.map(ParticipantId))
    }

    fn one(id: u32) -> Chosen {
        Chosen::One(ParticipantId(id))
    }

    #[test]
    fn a_viewer_stays_with_the_last_speaker_in_silence() {
        assert_eq!(seen(&room(&[2, 1], &[2]), None), one(2));
        assert_eq!(seen(&room(&[2, 1], &[]), Some(2)), one(2));
        assert_eq!(seen(&room(&[2, 1], &[1, 2]), Some(2)), one(1));
    }

    #[test]
    fn without_a_speaker_the_one_with_pictures_is_seen() {
        assert_eq!(seen(&room(&[0, 1, 0], &[]), None), one(2));
        assert_eq!(seen(&room(&[], &[]), None), Chosen::Nobody);
    }

    #[test]
    fn whoever_has_left_or_sends_nothing_is_not_chosen() {
        assert_eq!(seen(&room(&[1], &[7, VIEWER.0]), Some(8)), one(1));
    }

    #[test]
    fn a_named_source_is_kept_whoever_speaks() {
        let source = Follow::Source(ParticipantId(1));
        assert_eq!(choose(&room(&[0, 1], &[2]), source, VIEWER, None), one(1));
        assert_eq!(choose(&room(&[1], &[1]), Follow::Nobody, VIEWER, None), Chosen::Nobody);
    }
}

//! Which track goes on which m-line: kept as long as it can be, sound and picture of a source side by side.

use std::collections::BTreeMap;

use crate::media::frame::{Kind, TrackId};
use crate::webrtc::engine::{Codec, Mid};

/// An m-line that a peer receives on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its name.
    pub mid: Mid,
    /// Sound or picture.
    pub kind: Kind,
    /// Lines of the same number are one media stream, which the browser plays in sync.
    pub pair: usize,
    /// What it can carry.
    pub codecs: Vec<Codec>,
}

/// The result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Track by m-line.
    pub assigned: BTreeMap<Mid, TrackId>,
    /// Tracks that had a fitting codec and found no free m-line: sounds, pictures.
    pub short: (usize, usize),
}

/// Plans anew: `before` is what was assigned, `wanted` what the peer should have now, with the codec each needs.
pub fn plan(lines: &[Line], before: &BTreeMap<Mid, TrackId>, wanted: &[(TrackId, Codec)]) -> Plan {
    let mut plan = Plan::default();
    let fits = |line: &Line, track: &TrackId, codec: Codec| line.kind == track.kind && line.codecs.contains(&codec);
    let mut open: Vec<(TrackId, Codec)> = Vec::new();
    for (track, codec) in wanted {
        let kept = lines
            .iter()
            .find(|line| before.get(&line.mid) == Some(track) && fits(line, track, *codec));
        match kept {
            Some(line) => {
                plan.assigned.insert(line.mid, *track);
            }
            None => open.push((*track, *codec)),
        }
    }
    for (track, codec) in open {
        let free = || {
            lines
                .iter()
                .filter(|line| !plan.assigned.contains_key(&line.mid) && fits(line, &track, codec))
        };
        // The partner is the other kind of the same source and slot: microphone and camera.
        let holds_partner = |pair: usize| {
            lines.iter().filter(|line| line.pair == pair).any(|line| {
                plan.assigned.get(&line.mid).is_some_and(|other| {
                    other.source == track.source && other.slot == track.slot && other.kind != track.kind
                })
            })
        };
        let is_empty = |pair: usize| {
            lines
                .iter()
                .filter(|line| line.pair == pair)
                .all(|line| !plan.assigned.contains_key(&line.mid))
        };
        let best = free()
            .find(|line| holds_partner(line.pair))
            .or_else(|| free().find(|line| is_empty(line.pair)))
            .or_else(|| free().next())
            .map(|line| line.mid);
        match best {
            Some(mid) => {
                plan.assigned.insert(mid, track);
            }
            // Without any line of its kind the codec cannot be judged yet: the new lines will tell.
            None if lines
                .iter()
                .filter(|line| line.kind == track.kind)
                .all(|line| line.codecs.contains(&codec)) =>
            {
                match track.kind {
                    Kind::Audio => plan.short.0 += 1,
                    Kind::Video => plan.short.1 += 1,
                }
            }
            None => {}
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::frame::ParticipantId;

    fn mid(name: &str) -> Mid {
        Mid::new(name).unwrap()
    }

    fn lines(pairs: usize) -> Vec<Line> {
        (0..pairs)
            .flat_map(|pair| {
                [
                    Line {
                        mid: mid(&format!("a{pair}")),
                        kind: Kind::Audio,
                        pair,
                        codecs: vec![Codec::Opus],
                    },
                    Line {
                        mid: mid(&format!("v{pair}")),
                        kind: Kind::Video,
                        pair,
                        codecs: vec![Codec::H264],
                    },
                ]
            })
            .collect()
    }

    fn track(source: u32, kind: Kind, slot: u8) -> TrackId {
        TrackId {
            source: ParticipantId(source),
            kind,
            slot,
            layer: 0,
        }
    }

    #[test]
    fn sound_and_picture_of_a_source_share_a_stream() {
        let wanted = [
            (track(1, Kind::Audio, 0), Codec::Opus),
            (track(2, Kind::Video, 0), Codec::H264),
            (track(2, Kind::Audio, 0), Codec::Opus),
            (track(1, Kind::Video, 0), Codec::H264),
        ];
        let plan = plan(&lines(2), &BTreeMap::new(), &wanted);
        assert_eq!(plan.short, (0, 0));
        for pair in 0..2 {
            let sound = plan.assigned[&mid(&format!("a{pair}"))];
            let picture = plan.assigned[&mid(&format!("v{pair}"))];
            assert_eq!(sound.source, picture.source);
        }
    }

    #[test]
    fn what_is_assigned_stays_and_what_is_free_is_used_again() {
        let first = plan(
            &lines(2),
            &BTreeMap::new(),
            &[
                (track(1, Kind::Audio, 0), Codec::Opus),
                (track(2, Kind::Audio, 0), Codec::Opus),
            ],
        );
        let second = plan(
            &lines(2),
            &first.assigned,
            &[
                (track(2, Kind::Audio, 0), Codec::Opus),
                (track(3, Kind::Audio, 0), Codec::Opus),
            ],
        );
        let at = |plan: &Plan, source| {
            plan.assigned
                .iter()
                .find(|(_, track)| track.source == ParticipantId(source))
                .map(|(mid, _)| *mid)
        };
        assert_eq!(at(&second, 2), at(&first, 2));
        assert_eq!(at(&second, 3), at(&first, 1));
    }

    #[test]
    fn too_few_lines_are_counted_and_foreign_codecs_left_out() {
        let wanted = [
            (track(1, Kind::Video, 0), Codec::H264),
            (track(2, Kind::Video, 0), Codec::H264),
            (track(3, Kind::Video, 0), Codec::Av1),
        ];
        let plan = plan(&lines(1), &BTreeMap::new(), &wanted);
        assert_eq!(plan.assigned.len(), 1);
        assert_eq!(plan.short, (0, 1));
    }
}

//! What the gateway does, in the text format of Prometheus, for `GET /metrics` (docs/metrics.md).
//!
//! Doors and rooms keep their own books; this reads them at the moment they are asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::http::whip::table::Sessions;
use crate::native;
use crate::net::ConnectionLimit;
use crate::pcm;
use crate::room::member::Door;
use crate::room::registry::Registry;
use crate::room::uplink::UplinkState;
use crate::uplink;

/// What [`Metrics::text`] is.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

const DOORS: [Door; 6] = [
    Door::Native,
    Door::Websocket,
    Door::Webrtc,
    Door::Whip,
    Door::Rtmp,
    Door::Uplink,
];
const STATES: [UplinkState; 6] = [
    UplinkState::Connecting,
    UplinkState::Connected,
    UplinkState::Away,
    UplinkState::Refused,
    UplinkState::Stalled,
    UplinkState::Unreadable,
];

/// What the native door counts of letting in, which legs do not.
const OF_LETTING_IN: [&str; 13] = [
    "connections",
    "refused_total",
    "refused_per_ip",
    "refused_handshakes",
    "retried",
    "handshake_failed",
    "handshake_timeout",
    "joined",
    "left",
    "lost",
    "violations",
    "over_rate_in",
    "signals_unknown",
];

/// Whose books are read.
#[derive(Debug)]
pub struct Sources {
    /// The rooms.
    pub rooms: Registry,
    /// Rooms are named. Where no token is needed, knowing a room's name is what lets people in.
    pub room_names: bool,
    /// Connections of all doors.
    pub connections: ConnectionLimit,
    /// WHIP and WHEP sessions.
    pub whip: Sessions,
    /// The native door's.
    pub native: Arc<native::counters::Counters>,
    /// The PCM door's.
    pub pcm: Arc<pcm::Counters>,
    /// The uplinks'.
    pub uplinks: Arc<uplink::counters::Counters>,
}

/// Everything that is measured.
#[derive(Debug)]
pub struct Metrics {
    registry: prometheus_client::registry::Registry,
}

impl Metrics {
    /// Reads these books.
    pub fn new(sources: Sources) -> Self {
        let mut registry = prometheus_client::registry::Registry::with_prefix("wzp");
        registry.register_collector(Box::new(sources));
        Self { registry }
    }

    /// All values now.
    ///
    /// # Errors
    /// None that writing to memory could have; the encoder does not rule them out.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

type Labels = Vec<(&'static str, String)>;

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let out = &mut encoder;
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        gauges(out, "build", "The version that runs", [(version, 1)])?;
        gauges(
            out,
            "rooms",
            "Rooms with somebody in them",
            [(vec![], self.rooms.len() as i64)],
        )?;
        self.encode_rooms(out)?;
        let connections = self.connections.in_use() as i64;
        gauges(
            out,
            "connections",
            "Connections over HTTP, native QUIC and WebRTC over TCP",
            [(vec![], connections)],
        )?;
        let sessions = self.whip.len() as i64;
        gauges(out, "whip_sessions", "WHIP and WHEP sessions", [(vec![], sessions)])?;
        for ((name, count), (_, what)) in self
            .native
            .all()
            .into_iter()
            .zip(native::counters::Counters::described())
        {
            counters(out, &format!("native_{name}"), what, [(vec![], count)])?;
        }
        for (name, count) in self.pcm.all() {
            let what = format!("The PCM door: {}", name.replace('_', " "));
            counters(out, &format!("pcm_{name}"), &what, [(vec![], count)])?;
        }
        self.encode_uplinks(out)
    }
}

impl Sources {
    fn encode_rooms(&self, out: &mut DescriptorEncoder) -> fmt::Result {
        let relays: Vec<&str> = self.uplinks.relays().map(|(relay, _)| relay).collect();
        let mut members: BTreeMap<&str, i64> = DOORS.iter().map(|door| (door_name(*door), 0)).collect();
        let mut states: BTreeMap<(&str, &str), i64> = (relays.iter())
            .flat_map(|relay| STATES.map(|state| ((*relay, state.name()), 0)))
            .collect();
        let mut rooms = Vec::new();
        for room in self.rooms.rooms().into_values() {
            let snapshot = room.snapshot();
            for member in &snapshot.members {
                *members.entry(door_name(member.door)).or_default() += 1;
            }
            let Some(uplink) = snapshot.uplink.as_deref() else {
                continue;
            };
            if let Some(relay) = relays.iter().find(|relay| **relay == uplink.relay) {
                *states.entry((relay, uplink.state.name())).or_default() += 1;
            }
            if self.room_names {
                let labels = vec![
                    ("relay", uplink.relay.clone()),
                    ("room", room.display().to_string()),
                    ("state", uplink.state.name().to_owned()),
                ];
                rooms.push((labels, 1));
            }
        }
        let members = members
            .into_iter()
            .map(|(door, n)| (vec![("door", door.to_owned())], n));
        gauges(
            out,
            "members",
            "Members of all rooms by the door they came through",
            members,
        )?;
        let states = states.into_iter().map(|((relay, state), n)| {
            let labels = vec![("relay", relay.to_owned()), ("state", state.to_owned())];
            (labels, n)
        });
        gauges(out, "uplink_rooms", "Rooms by how they stand with their relay", states)?;
        gauges(out, "uplink_state", "1 for the state of each room's uplink", rooms)
    }

    fn encode_uplinks(&self, out: &mut DescriptorEncoder) -> fmt::Result {
        let relays: Vec<_> = self.uplinks.relays().collect();
        let described = |described: Vec<(&'static str, &'static str)>,
                         all: &dyn Fn(&uplink::counters::Relay) -> Vec<u64>| {
            let counts: Vec<_> = relays.iter().map(|(_, counters)| all(counters)).collect();
            (described.into_iter().enumerate())
                .map(|(i, (name, what))| (name, what, counts.iter().map(|counts| counts[i]).collect()))
                .collect::<Vec<(_, _, Vec<u64>)>>()
        };
        let values = |all: Vec<(&'static str, u64)>| all.into_iter().map(|(_, count)| count).collect();
        let legs = described(uplink::counters::Legs::described(), &|relay| values(relay.legs.all()));
        let media = described(native::counters::Counters::described(), &|relay| {
            values(relay.media.all())
        });
        let media = media.into_iter().filter(|(name, ..)| !OF_LETTING_IN.contains(name));
        for (name, what, counts) in legs.into_iter().chain(media) {
            let of_relays =
                (relays.iter().zip(counts)).map(|((relay, _), n)| (vec![("relay", (*relay).to_owned())], n));
            counters(out, &format!("uplink_{name}"), what, of_relays)?;
        }
        Ok(())
    }
}

fn door_name(door: Door) -> &'static str {
    match door {
        Door::Native => "native",
        Door::Websocket => "websocket",
        Door::Webrtc => "webrtc",
        Door::Whip => "whip",
        Door::Rtmp => "rtmp",
        Door::Uplink => "uplink",
    }
}

fn gauges(
    out: &mut DescriptorEncoder,
    name: &str,
    what: &str,
    values: impl IntoIterator<Item = (Labels, i64)>,
) -> fmt::Result {
    let values = values.into_iter().map(|(labels, n)| (labels, ConstGauge::new(n)));
    family(out, name, what, MetricType::Gauge, values)
}

fn counters(
    out: &mut DescriptorEncoder,
    name: &str,
    what: &str,
    values: impl IntoIterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let values = values.into_iter().map(|(labels, n)| (labels, ConstCounter::new(n)));
    // The encoder ends the name with it.
    let name = name.trim_end_matches("_total");
    family(out, name, what, MetricType::Counter, values)
}

fn family<M: EncodeMetric>(
    out: &mut DescriptorEncoder,
    name: &str,
    what: &str,
    kind: MetricType,
    values: impl IntoIterator<Item = (Labels, M)>,
) -> fmt::Result {
    // The encoder ends the sentence itself.
    let mut encoder = out.encode_descriptor(name, what.trim_end_matches('.'), None, kind)?;
    for (labels, value) in values {
        value.encode(encoder.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::uplink::UplinkRule;
    use crate::room::registry::RoomLimits;

    fn metrics(room_names: bool) -> Metrics {
        Metrics::new(Sources {
            rooms: Registry::new(RoomLimits { rooms: 1, members: 1 }),
            room_names,
            connections: ConnectionLimit::new(1, 1),
            whip: Sessions::new(1, &[]),
            native: Arc::default(),
            pcm: Arc::default(),
            uplinks: Arc::new(uplink::counters::Counters::new(&[UplinkRule::for_all(
                "relay:1".into(),
            )])),
        })
    }

    #[test]
    fn page_on_metrics_has_every_name() {
        let page = include_str!("../../docs/metrics.md");
        let text = metrics(true).text().unwrap();
        let exported: Vec<_> = (text.lines())
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        assert!(exported.len() > 100, "{text}");
        let different: std::collections::BTreeSet<_> = exported.iter().collect();
        assert_eq!(different.len(), exported.len(), "a name is exported twice");
        let missing: Vec<_> = (exported.iter())
            .filter(|name| !page.contains(&format!("`{name}`")))
            .collect();
        assert!(missing.is_empty(), "not in docs/metrics.md: {missing:#?}");
        let gone: Vec<_> = (page.split('`').skip(1).step_by(2))
            .filter(|name| name.starts_with("wzp_") && !exported.contains(name))
            .collect();
        assert!(gone.is_empty(), "in docs/metrics.md only: {gone:#?}");
    }

    #[test]
    fn counts_are_told_as_they_are() {
        let native = Arc::new(native::counters::Counters::default());
        native.pli_in.add(7);
        let uplinks = uplink::counters::Counters::new(&[UplinkRule::for_all("relay:1".into())]);
        uplinks.of("relay:1").legs.reconnected.add(3);
        let sources = Sources {
            rooms: Registry::new(RoomLimits { rooms: 1, members: 1 }),
            room_names: false,
            connections: ConnectionLimit::new(1, 1),
            whip: Sessions::new(1, &[]),
            native,
            pcm: Arc::default(),
            uplinks: Arc::new(uplinks),
        };
        let text = Metrics::new(sources).text().unwrap();
        for line in [
            "wzp_native_pli_in_total 7",
            r#"wzp_uplink_reconnected_total{relay="relay:1"} 3"#,
            r#"wzp_uplink_rooms{relay="relay:1",state="connected"} 0"#,
            r#"wzp_members{door="webrtc"} 0"#,
        ] {
            assert!(text.lines().any(|is| is == line), "{line} is not in\n{text}");
        }
    }
}

//! Which room is joined on which relay: the `[[uplink]]` tables of the file, and `--relay` for all other rooms.

use std::fmt;

use serde::{Deserialize, Serialize};
use wzp_proto::room_name::RoomName;

/// The port of a relay that is written without one.
const PORT: u16 = 4433;

/// One `[[uplink]]` table.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkRule {
    /// Rooms that this is for: a name, in which `*` stands for anything.
    #[serde(default = "all")]
    pub pattern: String,
    /// HOST or HOST:PORT.
    pub relay: String,
    /// Sent before the offer. Only for relays that ask for one: others take it for a broken handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// In which form the room's name is dialled.
    #[serde(default)]
    pub names: Names,
    /// Stream id of our picture, 0 or 1.
    #[serde(default)]
    pub video_stream: u8,
    /// Each of our members is in the relay's list, by a connection of its own that sends nothing.
    #[serde(default)]
    pub presence: bool,
}

/// In which form a room's name is dialled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Names {
    /// As apps do: as it is written, or its hash form if TLS cannot carry it.
    #[default]
    Raw,
    /// As the project's own web bridge does: always its hash form.
    Hashed,
    /// As it is written, unless only the room of the hash form has anybody in it.
    Auto,
}

fn all() -> String {
    "*".to_owned()
}

impl fmt::Debug for UplinkRule {
    /// Without the token, which must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UplinkRule")
            .field("pattern", &self.pattern)
            .field("relay", &self.relay)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("names", &self.names)
            .field("video_stream", &self.video_stream)
            .field("presence", &self.presence)
            .finish()
    }
}

impl UplinkRule {
    /// The rule of a relay for all rooms.
    pub fn for_all(relay: String) -> Self {
        Self {
            pattern: all(),
            relay,
            token: None,
            names: Names::default(),
            video_stream: 0,
            presence: false,
        }
    }

    /// The rule with its relay's port filled in.
    ///
    /// # Errors
    /// A sentence that says what does not fit.
    pub fn checked(mut self) -> Result<Self, String> {
        let (host, port) = match self.relay.rsplit_once(':') {
            // An IPv6 address has colons of its own, and brackets if a port follows.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (
                host,
                port.parse()
                    .map_err(|_| format!("relay {:?}: {port:?} is not a port", self.relay))?,
            ),
            _ => (self.relay.as_str(), PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || port == 0 {
            return Err(format!("relay {:?} must be HOST or HOST:PORT", self.relay));
        }
        self.relay = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        if self.video_stream > 1 {
            let given = self.video_stream;
            return Err(format!(
                "video_stream {given} is not 0 or 1, which are all that relays forward"
            ));
        }
        if self.presence && self.token.is_some() {
            return Err(format!(
                "presence does not go with a token: at {} all members would be one account, and put each other out",
                self.relay
            ));
        }
        if self.pattern.is_empty() {
            return Err(format!(
                "pattern of the uplink to {} is empty; write * for all rooms",
                self.relay
            ));
        }
        Ok(self)
    }

    /// Whether a room is meant. A room that is known by its hash form only is meant by its exact name, or by `*`.
    pub fn is_for(&self, room: &RoomName) -> bool {
        let exact = RoomName::parse(&self.pattern).is_ok_and(|meant| meant == *room);
        exact
            || wildmatch::WildMatchPattern::<'*', '\0'>::new_case_insensitive(&self.pattern).matches(&room.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, relay: &str) -> UplinkRule {
        UplinkRule {
            pattern: pattern.to_owned(),
            ..UplinkRule::for_all(relay.to_owned())
        }
    }

    fn room(name: &str) -> RoomName {
        RoomName::parse(name).unwrap()
    }

    #[test]
    fn relay_has_a_port_even_if_none_is_written() {
        for (written, meant) in [
            ("relay.example", "relay.example:4433"),
            ("relay.example:7", "relay.example:7"),
            ("192.0.2.1", "192.0.2.1:4433"),
            ("::1", "[::1]:4433"),
            ("[::1]", "[::1]:4433"),
            ("[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(rule("*", written).checked().unwrap().relay, meant);
        }
        for wrong in ["", ":4433", "relay:x", "relay:0", "relay:70000"] {
            assert!(rule("*", wrong).checked().is_err(), "{wrong}");
        }
    }

    #[test]
    fn pattern_means_rooms_whatever_the_case_and_an_exact_name_its_hash_form_too() {
        assert!(rule("*", "r").is_for(&room("a47b63f7d5b511ba5bc4089a74446906")));
        assert!(rule("General", "r").is_for(&room("general")));
        assert!(rule("general", "r").is_for(&room("a47b63f7d5b511ba5bc4089a74446906")));
        assert!(rule("team-*", "r").is_for(&room("Team-Blue")));
        assert!(!rule("team-*", "r").is_for(&room("general")));
        assert!(!rule("general", "r").is_for(&room("general2")));
    }

    #[test]
    fn members_are_not_shown_one_by_one_under_one_account() {
        let rule = UplinkRule {
            presence: true,
            ..rule("*", "r")
        };
        assert!(rule.clone().checked().is_ok());
        let token = Some("secret".to_owned());
        assert!(UplinkRule { token, ..rule }.checked().is_err());
    }

    #[test]
    fn token_is_not_written_to_logs() {
        let rule = UplinkRule {
            token: Some("secret".to_owned()),
            ..rule("*", "r")
        };
        assert!(!format!("{rule:?}").contains("secret"));
    }
}

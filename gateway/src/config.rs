//! Configuration: a TOML file, the environment and flags, in rising order; typed, with the defaults of the documentation.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::{Args, Command};
use serde::{Deserialize, Serialize};

pub mod ice;
pub mod uplink;

use ice::IceServer;
use uplink::{Names, UplinkRule};

use crate::room::track::Bounds;

/// Everything that can be set, as flag, environment variable and key of the file. What is not given has its default.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// HTTPS: page, WebSocket, WHIP/WHEP, API [default: [::]:8443]
    #[arg(long, env = "WZP_HTTP", value_name = "ADDRESS", value_parser = address)]
    pub http: Option<SocketAddr>,
    /// QUIC for native apps [default: [::]:4433]
    #[arg(long, env = "WZP_NATIVE", value_name = "ADDRESS", value_parser = address)]
    pub native: Option<SocketAddr>,
    /// WebRTC media, UDP and TCP [default: [::]:8444]
    #[arg(long, env = "WZP_WEBRTC", value_name = "ADDRESS", value_parser = address)]
    pub webrtc: Option<SocketAddr>,
    /// RTMP; not in this version yet: given, the gateway refuses to start
    #[arg(long, env = "WZP_RTMP", value_name = "ADDRESS", value_parser = address)]
    pub rtmp: Option<SocketAddr>,
    /// Folder for the certificate and the identity key [default: state]
    #[arg(long, env = "WZP_STATE_DIR", value_name = "FOLDER")]
    pub state_dir: Option<PathBuf>,
    /// Plain HTTP, for use behind a proxy that does TLS
    #[arg(long, env = "WZP_NO_TLS", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub no_tls: Option<bool>,
    /// Certificate chain (PEM) in place of the self-signed one; needs --tls-key
    #[arg(long, env = "WZP_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) of --tls-cert
    #[arg(long, env = "WZP_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Address that WebRTC peers are told, for 1:1 NAT; may be repeated
    #[arg(long, env = "WZP_PUBLIC_IP", value_name = "IP", value_delimiter = ',')]
    pub public_ip: Option<Vec<std::net::IpAddr>>,
    /// Answer WebRTC offers as an ICE-lite agent
    #[arg(long, env = "WZP_ICE_LITE", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub ice_lite: Option<bool>,
    /// STUN or TURN server that WebRTC clients are told of: URL, for TURN "URL USERNAME CREDENTIAL"; may be repeated
    #[arg(long, env = "WZP_ICE_SERVER", value_name = "SERVER", value_delimiter = ',')]
    pub ice_server: Option<Vec<String>>,
    /// Existing WZP relay that is joined for every room that no [[uplink]] of the file is for
    #[arg(long, env = "WZP_RELAY", value_name = "HOST:PORT")]
    pub relay: Option<String>,
    /// Token for --relay, if it asks for one
    #[arg(long, env = "WZP_RELAY_TOKEN", value_name = "TOKEN")]
    pub relay_token: Option<String>,
    /// In which form rooms are dialled at --relay [default: raw]
    #[arg(long, env = "WZP_RELAY_NAMES", value_name = "FORM")]
    pub relay_names: Option<Names>,
    /// Stream id of our picture at --relay, 0 or 1 [default: 0]
    #[arg(long, env = "WZP_RELAY_VIDEO_STREAM", value_name = "N")]
    pub relay_video_stream: Option<u8>,
    /// Relays for some rooms only; in the file alone
    #[arg(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplink: Option<Vec<UplinkRule>>,
    /// Serve the page from this folder in place of the built-in one
    #[arg(long, env = "WZP_STATIC_DIR", value_name = "FOLDER")]
    pub static_dir: Option<PathBuf>,
    /// Tokens that let people in; none: everybody may enter. May be repeated
    #[arg(long, env = "WZP_TOKEN", value_name = "TOKEN", value_delimiter = ',')]
    pub token: Option<Vec<String>>,
    /// Pages of these origins may connect, besides our own; may be repeated
    #[arg(long, env = "WZP_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub allow_origin: Option<Vec<String>>,
    /// What is logged, e.g. info or wzp_gateway=debug [default: info]
    #[arg(long, env = "WZP_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Log lines as JSON
    #[arg(long, env = "WZP_LOG_JSON", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub log_json: Option<bool>,
    /// Rooms at once [default: 1000]
    #[arg(long, env = "WZP_MAX_ROOMS", value_name = "N")]
    pub max_rooms: Option<usize>,
    /// Members of one room [default: 100]
    #[arg(long, env = "WZP_MAX_MEMBERS", value_name = "N")]
    pub max_members: Option<usize>,
    /// Connections at once, over all doors [default: 4000]
    #[arg(long, env = "WZP_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,
    /// Connections at once from one IPv4 address or IPv6 /64 network, over all doors [default: 200]
    #[arg(long, env = "WZP_MAX_CONNECTIONS_PER_IP", value_name = "N")]
    pub max_connections_per_ip: Option<usize>,
    /// Newcomers get everything since the last keyframe at once if that is at most so old, ms [default: 2500]
    #[arg(long, env = "WZP_REPLAY_SOFT_MS", value_name = "MS")]
    pub replay_soft_ms: Option<u32>,
    /// The same in bytes [default: 1048576]
    #[arg(long, env = "WZP_REPLAY_SOFT_BYTES", value_name = "BYTES")]
    pub replay_soft_bytes: Option<u32>,
    /// What is older since the last keyframe is not kept for newcomers, ms; 0: no replay at all [default: 12000]
    #[arg(long, env = "WZP_REPLAY_HARD_MS", value_name = "MS")]
    pub replay_hard_ms: Option<u32>,
    /// The same in bytes per track; 0: no replay at all [default: 6291456]
    #[arg(long, env = "WZP_REPLAY_HARD_BYTES", value_name = "BYTES")]
    pub replay_hard_bytes: Option<u32>,
    /// Bit rate that publishers are held to, per video track, bit/s [default: 1200000]
    #[arg(long, env = "WZP_MAX_VIDEO_BITRATE", value_name = "BITS")]
    pub max_video_bitrate: Option<u32>,
}

/// The settings in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// See [`Settings::http`].
    pub http: SocketAddr,
    /// See [`Settings::native`].
    pub native: SocketAddr,
    /// See [`Settings::webrtc`].
    pub webrtc: SocketAddr,
    /// See [`Settings::rtmp`].
    pub rtmp: Option<SocketAddr>,
    /// See [`Settings::state_dir`].
    pub state_dir: PathBuf,
    /// See [`Settings::no_tls`] and [`Settings::tls_cert`].
    pub tls: Tls,
    /// See [`Settings::public_ip`].
    pub public_ip: Vec<std::net::IpAddr>,
    /// See [`Settings::ice_lite`].
    pub ice_lite: bool,
    /// See [`Settings::ice_server`].
    pub ice_servers: Vec<IceServer>,
    /// See [`Settings::uplink`] and [`Settings::relay`], which comes last.
    pub uplinks: Vec<UplinkRule>,
    /// See [`Settings::static_dir`].
    pub static_dir: Option<PathBuf>,
    /// See [`Settings::token`].
    pub tokens: Vec<String>,
    /// See [`Settings::allow_origin`].
    pub allowed_origins: Vec<String>,
    /// See [`Settings::log`].
    pub log: String,
    /// See [`Settings::log_json`].
    pub log_json: bool,
    /// See [`Settings::max_rooms`].
    pub max_rooms: usize,
    /// See [`Settings::max_members`].
    pub max_members: usize,
    /// See [`Settings::max_connections`].
    pub max_connections: usize,
    /// See [`Settings::max_connections_per_ip`].
    pub max_connections_per_ip: usize,
    /// See [`Settings::max_video_bitrate`].
    pub max_video_bitrate: u32,
    /// See [`Settings::replay_soft_ms`] and the three after it.
    pub replay: Bounds,
}

/// How HTTP is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// Plain HTTP.
    Off,
    /// With a certificate of our own, kept in the state folder.
    SelfSigned,
    /// With these files.
    Files {
        /// PEM certificate chain.
        cert: PathBuf,
        /// PEM private key.
        key: PathBuf,
    },
}

/// Why the configuration was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// A key that does not exist.
    #[error("{path}: unknown key `{key}`{hint}")]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The nearest one that exists.
        hint: String,
    },
    /// A value that does not fit.
    #[error("{path}: {error}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: String,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Contradiction(&'static str),
    /// An uplink that cannot be.
    #[error("{0}")]
    Uplink(String),
    /// An ICE server that cannot be.
    #[error("{0}")]
    IceServer(String),
    /// Something that browsers send as no page's origin.
    #[error(
        "allow_origin: {0:?} is no origin: write scheme, host and port alone, for instance https://example.org or http://localhost:5173"
    )]
    Origin(String),
}

/// An address to listen at.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| match text.trim_start_matches(':').parse::<u16>() {
            Ok(port) => {
                format!("write [::]:{port} for all addresses of this machine, 127.0.0.1:{port} for itself alone")
            }
            Err(_) => "write ADDRESS:PORT, for instance [::]:8443 or 127.0.0.1:8443".to_owned(),
        })
}

/// As browsers write it: nothing behind host and port.
fn origin(text: String) -> Result<String, ConfigError> {
    let host = text.split_once("://").map(|(_, host)| host);
    match host {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']) => Ok(text),
        _ => Err(ConfigError::Origin(text)),
    }
}

/// All keys of the file, for messages and for tests of the documentation.
pub const KEYS: [&str; 30] = [
    "allow_origin",
    "http",
    "ice_lite",
    "ice_server",
    "log",
    "log_json",
    "max_connections",
    "max_connections_per_ip",
    "max_members",
    "max_rooms",
    "max_video_bitrate",
    "native",
    "no_tls",
    "public_ip",
    "relay",
    "relay_names",
    "relay_token",
    "relay_video_stream",
    "replay_hard_bytes",
    "replay_hard_ms",
    "replay_soft_bytes",
    "replay_soft_ms",
    "rtmp",
    "state_dir",
    "static_dir",
    "tls_cert",
    "tls_key",
    "token",
    "uplink",
    "webrtc",
];

/// The command with every environment variable left out that is there and empty: `WZP_TOKEN=` sets nothing.
#[must_use]
pub fn without_empty_variables(command: Command) -> Command {
    without(command, &|name| {
        std::env::var_os(name).is_some_and(|value| value.is_empty())
    })
}

fn without(command: Command, is_empty: &dyn Fn(&OsStr) -> bool) -> Command {
    let commands: Vec<String> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    let command = command.mut_args(|arg| match arg.get_env() {
        Some(name) if is_empty(name) => arg.env(Resettable::Reset),
        _ => arg,
    });
    commands.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |one| without(one, is_empty))
    })
}

impl Settings {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, does not parse, or has a key that does not exist.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
            path: path.to_owned(),
            error,
        })?;
        Self::from_toml(&text, path)
    }

    fn from_toml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let parse = |error: toml::de::Error| ConfigError::Parse {
            path: path.to_owned(),
            error: error.to_string(),
        };
        let table: toml::Table = text.parse().map_err(parse)?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let nearest = KEYS
                .iter()
                .max_by(|a, b| strsim::jaro_winkler(key, a).total_cmp(&strsim::jaro_winkler(key, b)));
            let hint = nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"));
            return Err(ConfigError::UnknownKey {
                path: path.to_owned(),
                key: key.clone(),
                hint,
            });
        }
        toml::from_str(text).map_err(parse)
    }

    /// These settings, and those of `below` where these say nothing.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            http: self.http.or(below.http),
            native: self.native.or(below.native),
            webrtc: self.webrtc.or(below.webrtc),
            rtmp: self.rtmp.or(below.rtmp),
            state_dir: self.state_dir.or(below.state_dir),
            no_tls: self.no_tls.or(below.no_tls),
            tls_cert: self.tls_cert.or(below.tls_cert),
            tls_key: self.tls_key.or(below.tls_key),
            public_ip: self.public_ip.or(below.public_ip),
            ice_lite: self.ice_lite.or(below.ice_lite),
            ice_server: self.ice_server.or(below.ice_server),
            relay: self.relay.or(below.relay),
            relay_token: self.relay_token.or(below.relay_token),
            relay_names: self.relay_names.or(below.relay_names),
            relay_video_stream: self.relay_video_stream.or(below.relay_video_stream),
            uplink: self.uplink.or(below.uplink),
            static_dir: self.static_dir.or(below.static_dir),
            token: self.token.or(below.token),
            allow_origin: self.allow_origin.or(below.allow_origin),
            log: self.log.or(below.log),
            log_json: self.log_json.or(below.log_json),
            max_rooms: self.max_rooms.or(below.max_rooms),
            max_members: self.max_members.or(below.max_members),
            max_connections: self.max_connections.or(below.max_connections),
            max_connections_per_ip: self.max_connections_per_ip.or(below.max_connections_per_ip),
            max_video_bitrate: self.max_video_bitrate.or(below.max_video_bitrate),
            replay_soft_ms: self.replay_soft_ms.or(below.replay_soft_ms),
            replay_soft_bytes: self.replay_soft_bytes.or(below.replay_soft_bytes),
            replay_hard_ms: self.replay_hard_ms.or(below.replay_hard_ms),
            replay_hard_bytes: self.replay_hard_bytes.or(below.replay_hard_bytes),
        }
    }

    /// The settings in force, defaults filled in.
    ///
    /// # Errors
    /// Settings that do not go together.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let any = |port| SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
        let tls = match (self.no_tls.unwrap_or(false), self.tls_cert, self.tls_key) {
            (true, None, None) => Tls::Off,
            (false, None, None) => Tls::SelfSigned,
            (false, Some(cert), Some(key)) => Tls::Files { cert, key },
            (true, ..) => {
                return Err(ConfigError::Contradiction(
                    "no_tls and tls_cert/tls_key exclude each other",
                ));
            }
            _ => return Err(ConfigError::Contradiction("tls_cert and tls_key are needed together")),
        };
        let at_least_one = |value: usize, what| {
            if value == 0 {
                Err(ConfigError::Contradiction(what))
            } else {
                Ok(value)
            }
        };
        let replay = replay(
            (self.replay_soft_ms, self.replay_soft_bytes),
            (self.replay_hard_ms, self.replay_hard_bytes),
        )?;
        let tokens = self.token.unwrap_or_default();
        if tokens.iter().any(String::is_empty) {
            return Err(ConfigError::Contradiction(
                "token: an empty token lets nobody in; leave it out if everybody may enter",
            ));
        }
        let of_relay = self.relay.map(|relay| UplinkRule {
            token: self.relay_token,
            names: self.relay_names.unwrap_or_default(),
            video_stream: self.relay_video_stream.unwrap_or(0),
            ..UplinkRule::for_all(relay)
        });
        let uplinks = (self.uplink.into_iter().flatten().chain(of_relay))
            .map(UplinkRule::checked)
            .collect::<Result<_, _>>()
            .map_err(ConfigError::Uplink)?;
        let allowed_origins = (self.allow_origin.into_iter().flatten())
            .map(origin)
            .collect::<Result<_, _>>()?;
        let ice_servers = (self.ice_server.iter().flatten())
            .map(|text| IceServer::parse(text))
            .collect::<Result<_, _>>()
            .map_err(ConfigError::IceServer)?;
        Ok(Config {
            replay,
            http: self.http.unwrap_or(any(8443)),
            native: self.native.unwrap_or(any(4433)),
            webrtc: self.webrtc.unwrap_or(any(8444)),
            rtmp: self.rtmp,
            state_dir: self.state_dir.unwrap_or_else(|| PathBuf::from("state")),
            tls,
            public_ip: self.public_ip.unwrap_or_default(),
            ice_lite: self.ice_lite.unwrap_or(false),
            ice_servers,
            uplinks,
            static_dir: self.static_dir,
            tokens,
            allowed_origins,
            log: self.log.unwrap_or_else(|| "info".to_owned()),
            log_json: self.log_json.unwrap_or(false),
            max_rooms: at_least_one(self.max_rooms.unwrap_or(1000), "max_rooms must be at least 1")?,
            max_members: at_least_one(self.max_members.unwrap_or(100), "max_members must be at least 1")?,
            max_connections: at_least_one(
                self.max_connections.unwrap_or(4000),
                "max_connections must be at least 1",
            )?,
            max_connections_per_ip: at_least_one(
                self.max_connections_per_ip.unwrap_or(200),
                "max_connections_per_ip must be at least 1",
            )?,
            max_video_bitrate: self.max_video_bitrate.unwrap_or(1_200_000),
        })
    }
}

/// Bounds from ms and bytes, soft and hard. A hard bound below the default soft one takes that down with it.
fn replay(soft: (Option<u32>, Option<u32>), hard: (Option<u32>, Option<u32>)) -> Result<Bounds, ConfigError> {
    let hard_age = hard.0.map_or(Bounds::VIDEO.hard_age, |ms| u64::from(ms) * 1000);
    let hard_bytes = hard.1.map_or(Bounds::VIDEO.hard_bytes, |bytes| bytes as usize);
    let bounds = Bounds {
        soft_age: soft
            .0
            .map_or(Bounds::VIDEO.soft_age.min(hard_age), |ms| u64::from(ms) * 1000),
        soft_bytes: soft
            .1
            .map_or(Bounds::VIDEO.soft_bytes.min(hard_bytes), |bytes| bytes as usize),
        hard_age,
        hard_bytes,
        ..Bounds::VIDEO
    };
    let off = hard_age == 0 || hard_bytes == 0;
    if !off && (bounds.soft_age > hard_age || bounds.soft_bytes > hard_bytes) {
        return Err(ConfigError::Contradiction(
            "replay_soft_ms and replay_soft_bytes must not be larger than replay_hard_ms and replay_hard_bytes",
        ));
    }
    Ok(bounds)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn flags(args: &[&str]) -> Settings {
        Line::parse_from(std::iter::once("x").chain(args.iter().copied())).settings
    }

    fn file(text: &str) -> Result<Settings, ConfigError> {
        Settings::from_toml(text, Path::new("gateway.toml"))
    }

    #[test]
    fn what_is_no_origin_or_no_address_is_refused_with_what_to_write() {
        for (text, fits) in [
            ("https://a.example", true),
            ("http://localhost:5173", true),
            ("http://localhost:5173/", false),
            ("a.example", false),
            ("https://", false),
            ("https://a.example/x", false),
        ] {
            let resolved = flags(&["--allow-origin", text]).resolve();
            assert_eq!(resolved.is_ok(), fits, "{text}");
            if let Err(error) = resolved {
                assert!(error.to_string().contains("scheme, host and port alone"), "{error}");
            }
        }
        for (text, told) in [
            ("8443", "[::]:8443"),
            (":8443", "[::]:8443"),
            ("localhost", "ADDRESS:PORT"),
        ] {
            let error = Line::try_parse_from(["x", "--http", text])
                .err()
                .expect("it is refused");
            assert!(error.to_string().contains(told), "{error}");
        }
    }

    #[test]
    fn every_key_exists_and_is_listed() {
        let all = r#"
            allow_origin = ["https://a.example"]
            http = "127.0.0.1:1"
            ice_lite = false
            ice_server = ["stun:stun.example"]
            log = "debug"
            log_json = true
            max_connections = 1
            max_connections_per_ip = 1
            max_members = 1
            max_rooms = 1
            max_video_bitrate = 1
            native = "127.0.0.1:2"
            no_tls = true
            public_ip = ["192.0.2.1"]
            relay = "relay.example:4433"
            relay_names = "hashed"
            relay_token = "t"
            relay_video_stream = 1
            replay_hard_bytes = 1
            replay_hard_ms = 1
            replay_soft_bytes = 1
            replay_soft_ms = 1
            rtmp = "127.0.0.1:3"
            state_dir = "s"
            static_dir = "p"
            tls_cert = "c"
            tls_key = "k"
            token = ["t"]
            webrtc = "127.0.0.1:4"
            [[uplink]]
            pattern = "team-*"
            relay = "team.example"
        "#;
        let settings = file(all).unwrap();
        let table = toml::Table::try_from(&settings).unwrap();
        assert_eq!(table.keys().map(String::as_str).collect::<Vec<_>>(), KEYS);
    }

    #[test]
    fn documentation_names_every_key_with_its_variable() {
        let page = include_str!("../../docs/configuration.md");
        // A table has neither a variable nor a flag.
        assert!(page.contains("`[[uplink]]`"));
        for key in KEYS.into_iter().filter(|key| *key != "uplink") {
            let row = format!("| `{key}` | `WZP_{}` |", key.to_uppercase());
            assert!(page.contains(&row), "docs/configuration.md lacks {row}");
        }
    }

    #[test]
    fn unknown_key_names_the_nearest_one() {
        let error = file("max_member = 3").unwrap_err().to_string();
        assert_eq!(
            error,
            "gateway.toml: unknown key `max_member`; did you mean `max_members`?"
        );
    }

    #[test]
    fn flag_beats_file_and_says_nothing_about_the_rest() {
        let below = file("http = \"127.0.0.1:1\"\nmax_rooms = 7\nno_tls = true").unwrap();
        let config = flags(&["--http", "127.0.0.1:9"]).over(below).resolve().unwrap();
        assert_eq!(config.http.port(), 9);
        assert_eq!(config.max_rooms, 7);
        assert_eq!(config.tls, Tls::Off);
        assert_eq!(config.native.port(), 4433);
    }

    #[test]
    fn uplinks_of_the_file_come_before_the_relay_for_all() {
        let text =
            "relay = \"all.example\"\n[[uplink]]\npattern = \"team-*\"\nrelay = \"team.example:7\"\nnames = \"hashed\"";
        let config = flags(&["--relay", "flag.example"])
            .over(file(text).unwrap())
            .resolve()
            .unwrap();
        let relays: Vec<_> = config
            .uplinks
            .iter()
            .map(|rule| (rule.pattern.as_str(), rule.relay.as_str()))
            .collect();
        assert_eq!(relays, [("team-*", "team.example:7"), ("*", "flag.example:4433")]);
        assert_eq!(config.uplinks[0].names, Names::Hashed);
        assert!(file("[[uplink]]\nrelay = \"a\"\npatern = \"b\"").is_err());
        assert!(flags(&["--relay", "a:b"]).resolve().is_err());
        assert!(flags(&["--relay", "a", "--relay-video-stream", "2"]).resolve().is_err());
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(
            flags(&["--no-tls", "--tls-cert", "a", "--tls-key", "b"])
                .resolve()
                .is_err()
        );
        assert!(flags(&["--tls-cert", "a"]).resolve().is_err());
        assert!(flags(&["--max-rooms", "0"]).resolve().is_err());
        assert!(flags(&["--ice-server", "turn:turn.example"]).resolve().is_err());
        assert!(flags(&["--ice-server", "stun:a,turn:b u c"]).resolve().is_ok());
        assert!(
            flags(&["--replay-soft-ms", "2000", "--replay-hard-ms", "1999"])
                .resolve()
                .is_err()
        );
        assert!(flags(&["--replay-soft-bytes", "7000000"]).resolve().is_err());
    }

    #[test]
    fn empty_token_does_not_shut_the_door() {
        for settings in [
            flags(&["--token", ""]),
            flags(&["--token", "a,"]),
            file("token = [\"\"]").unwrap(),
        ] {
            let error = settings.resolve().unwrap_err().to_string();
            assert!(error.contains("empty token"), "{error}");
        }
        assert_eq!(flags(&["--token", "a,b"]).resolve().unwrap().tokens, ["a", "b"]);
    }

    #[test]
    fn empty_variables_set_nothing_in_subcommands_either() {
        let variables = |command: &Command| -> Vec<String> {
            let names = command.get_arguments().filter_map(clap::Arg::get_env);
            names.map(|name| name.to_string_lossy().into_owned()).collect()
        };
        let command = Line::command().subcommand(Line::command().name("serve"));
        let command = without(command, &|name| name == "WZP_TOKEN");
        let serve = command.find_subcommand("serve").unwrap();
        for command in [&command, serve] {
            assert!(!variables(command).contains(&"WZP_TOKEN".to_owned()));
            assert!(variables(command).contains(&"WZP_HTTP".to_owned()));
        }
    }

    #[test]
    fn certificate_log_and_page_are_what_is_set() {
        let config = flags(&["--tls-cert", "c", "--tls-key", "k", "--static-dir", "p", "--log-json"])
            .over(file("log_json = false\nlog = \"debug\"").unwrap())
            .resolve()
            .unwrap();
        let (cert, key) = (PathBuf::from("c"), PathBuf::from("k"));
        assert_eq!(config.tls, Tls::Files { cert, key });
        assert_eq!(config.static_dir, Some(PathBuf::from("p")));
        assert_eq!((config.log.as_str(), config.log_json), ("debug", true));
    }

    #[test]
    fn bounds_of_the_replay_are_what_is_set() {
        let bounds = |args: &[&str]| flags(args).resolve().unwrap().replay;
        assert_eq!(bounds(&[]), Bounds::VIDEO);
        let set = bounds(&[
            "--replay-soft-ms",
            "100",
            "--replay-soft-bytes",
            "2000",
            "--replay-hard-ms",
            "3000",
            "--replay-hard-bytes",
            "40000",
        ]);
        let expected = Bounds {
            soft_age: 100_000,
            soft_bytes: 2_000,
            hard_age: 3_000_000,
            hard_bytes: 40_000,
            ..Bounds::VIDEO
        };
        assert_eq!(set, expected);
        assert_eq!(bounds(&["--replay-hard-ms", "0"]).hard_age, 0);
        assert_eq!(bounds(&["--replay-hard-ms", "1000"]).soft_age, 1_000_000);
    }
}

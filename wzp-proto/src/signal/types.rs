//! The parts of signals (WZP wire v2, sections 3.2 and 3.3).

use serde::{Deserialize, Deserializer, Serialize};

use super::signal_version;
use crate::codec::{Codec, QualityProfile};
use crate::handshake::PROTOCOL_VERSION;
use crate::identity::Fingerprint;

fn supported_versions() -> Vec<u8> {
    vec![PROTOCOL_VERSION]
}

/// Present means a number; an explicit null is malformed, as it is for natives.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    u8::deserialize(deserializer).map(Some)
}

/// First message of a caller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallOffer {
    /// Format of the message, 1 when absent.
    #[serde(default = "signal_version")]
    pub version: u8,
    /// The caller's Ed25519 public key.
    pub identity_pub: [u8; 32],
    /// Its X25519 public key for this session.
    pub ephemeral_pub: [u8; 32],
    /// Ed25519 over `ephemeral_pub` and `call-offer`.
    pub signature: Vec<u8>,
    /// Profiles it can do, best first. Relays do not look at them.
    pub supported_profiles: Vec<QualityProfile>,
    /// Name to show.
    pub alias: Option<String>,
    /// Protocol version as it stood in the message; see [`protocol_version`](Self::protocol_version).
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<u8>,
    /// All versions it could speak. Relays do not look at them.
    #[serde(default = "supported_versions")]
    pub supported_versions: Vec<u8>,
    /// Video codecs it can send. Natives name exactly one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub video_codecs: Vec<Codec>,
    /// What the caller would like from a gateway. Relays skip unknown fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wzp_gateway: Option<GatewayExtension>,
}

impl CallOffer {
    /// The protocol version the caller speaks. The protocol reads an absent one as 2.
    pub fn protocol_version(&self) -> u8 {
        self.protocol_version.unwrap_or(PROTOCOL_VERSION)
    }

    /// Whether the caller named no version, which only v1 clients do.
    pub fn is_version_absent(&self) -> bool {
        self.protocol_version.is_none()
    }
}

/// Wishes of a caller that knows gateways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayExtension {
    /// Send every source as a stream of its own instead of one mix and one picture.
    #[serde(default)]
    pub per_source: bool,
    /// Show this member's picture whenever it has one, whoever talks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Fingerprint>,
}

/// Reply to a [`CallOffer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallAnswer {
    /// Format of the message, 1 when absent.
    #[serde(default = "signal_version")]
    pub version: u8,
    /// The answerer's Ed25519 public key.
    pub identity_pub: [u8; 32],
    /// Its X25519 public key for this session.
    pub ephemeral_pub: [u8; 32],
    /// Ed25519 over `ephemeral_pub` and `call-answer`.
    pub signature: Vec<u8>,
    /// The profile to use; natives do not look at it.
    pub chosen_profile: QualityProfile,
    /// The codec in which the caller may send video; without one it sends none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_codec: Option<Codec>,
}

/// Calls one person through a `_signal` connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirectCallOffer {
    /// Format of the message, 1 when absent.
    #[serde(default = "signal_version")]
    pub version: u8,
    /// Fingerprint of the caller.
    pub caller_fingerprint: String,
    /// Its name.
    pub caller_alias: Option<String>,
    /// Fingerprint of the callee.
    pub target_fingerprint: String,
    /// Identifies the call.
    pub call_id: String,
    /// The caller's Ed25519 public key.
    pub identity_pub: [u8; 32],
    /// Its X25519 public key for this call.
    pub ephemeral_pub: [u8; 32],
    /// Signature of the caller.
    pub signature: Vec<u8>,
    /// Profiles it can do.
    pub supported_profiles: Vec<QualityProfile>,
    /// Its address as a relay sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller_reflexive_addr: Option<String>,
    /// Its local addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caller_local_addrs: Vec<String>,
    /// Its address by port mapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller_mapped_addr: Option<String>,
    /// Its build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller_build_version: Option<String>,
}

/// Answers a [`DirectCallOffer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirectCallAnswer {
    /// Format of the message, 1 when absent.
    #[serde(default = "signal_version")]
    pub version: u8,
    /// The call.
    pub call_id: String,
    /// Whether and how it is accepted.
    pub accept_mode: AcceptMode,
    /// The callee's Ed25519 public key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_pub: Option<[u8; 32]>,
    /// Its X25519 public key for this call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_pub: Option<[u8; 32]>,
    /// Its signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<Vec<u8>>,
    /// The profile to use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen_profile: Option<QualityProfile>,
    /// Its address as a relay sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callee_reflexive_addr: Option<String>,
    /// Its local addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callee_local_addrs: Vec<String>,
    /// Its address by port mapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callee_mapped_addr: Option<String>,
    /// Its build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callee_build_version: Option<String>,
}

/// How a direct call is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AcceptMode {
    /// Not at all.
    Reject,
    /// With all of the callee's addresses.
    AcceptTrusted,
    /// Through the relay only.
    AcceptGeneric,
}

/// Why a call ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HangupReason {
    /// Somebody hung up.
    Normal,
    /// The callee talks to somebody else.
    Busy,
    /// The callee does not want to.
    Declined,
    /// Nobody answered.
    Timeout,
    /// Something broke.
    Error,
    /// The offer's protocol version is not served.
    ProtocolVersionMismatch {
        /// What is served.
        server_supported: Vec<u8>,
    },
    /// The sender broke a rule of the relay.
    PolicyViolation {
        /// Which rule.
        code: ViolationCode,
        /// In words.
        reason: String,
    },
}

/// Rules a relay may enforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ViolationCode {
    /// Too many bits per second.
    Bitrate,
    /// Too many packets per second.
    PacketRate,
    /// Timestamps run too fast or too slow.
    TimestampDrift,
    /// Packets of unlikely size.
    PayloadSize,
    /// A cap was exceeded.
    RateCap,
    /// Payload that does not look coded.
    Entropy,
}

/// A member of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomParticipant {
    /// Fingerprint of its identity; a string since relays with federation may put other things here.
    pub fingerprint: String,
    /// Name to show.
    pub alias: Option<String>,
    /// The relay it is on; `None` is this one.
    pub relay_label: Option<String>,
    /// The stream id that its packets come under, for those who asked for every source apart
    /// ([`GatewayExtension::per_source`]). Not sent to anybody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<u8>,
}

/// Somebody registered at a relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceUser {
    /// Fingerprint of its identity.
    pub fingerprint: String,
    /// Name to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
}

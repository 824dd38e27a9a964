//! Signalling messages (WZP wire v2, section 3): JSON, one message per QUIC stream.
//!
//! Every variant is here with its exact JSON, also those that a room never sends, because a relay that cannot read a
//! signal closes the connection, and ours must be able to read all that natives may send.

use serde::{Deserialize, Serialize};

use crate::codec::{PriorityMode, QualityProfile};
use crate::packet::QualityReport;

mod framing;
mod types;

pub use framing::{FrameLengthError, MAX_SIGNAL_LEN, SignalError, decode_frame_len, decode_signal, encode_signal};
pub use types::{
    AcceptMode, CallAnswer, CallOffer, DirectCallAnswer, DirectCallOffer, GatewayExtension, HangupReason, PresenceUser,
    RoomParticipant, ViolationCode,
};

/// The `version` field of every message: the format of messages, not the protocol version.
pub const SIGNAL_VERSION: u8 = 1;

fn signal_version() -> u8 {
    SIGNAL_VERSION
}

macro_rules! signals {
    ($(
        $(#[$variant_meta:meta])*
        $variant:ident $(($boxed:ty))? $({ $( $(#[$field_meta:meta])* $field:ident : $type:ty ),* $(,)? })?
    ),+ $(,)?) => {
        /// A signalling message.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, strum::IntoStaticStr, strum::VariantNames)]
        pub enum Signal {
            $(
                $(#[$variant_meta])*
                $variant $(($boxed))? $({
                    /// Format of the message, 1 when absent.
                    #[serde(default = "signal_version")]
                    version: u8,
                    $( $(#[$field_meta])* $field: $type, )*
                })?,
            )+
        }
    };
}

signals! {
    /// First message of a caller: who it is and what it can do.
    CallOffer(Box<CallOffer>),
    /// Reply to an offer.
    CallAnswer(Box<CallAnswer>),
    /// An ICE candidate.
    IceCandidate {
        /// The candidate line.
        candidate: String,
    },
    /// A new session key. No call path uses it.
    Rekey {
        /// New X25519 public key.
        new_ephemeral_pub: [u8; 32],
        /// Signature over it.
        signature: Vec<u8>,
    },
    /// A participant's view of its network and the profile it would like.
    QualityUpdate {
        /// The numbers.
        report: QualityReport,
        /// The wish.
        recommended_profile: QualityProfile,
    },
    /// Counters of loss concealment.
    LossRecoveryUpdate {
        /// Frames rebuilt from Opus deep redundancy.
        #[serde(default)]
        dred_reconstructions: u64,
        /// Frames concealed without redundancy.
        #[serde(default)]
        classical_plc_invocations: u64,
        /// Frames decoded.
        #[serde(default)]
        frames_decoded: u64,
    },
    /// Asks for a [`Signal::Pong`] with the same time.
    Ping {
        /// Sender's clock in ms.
        timestamp_ms: u64,
    },
    /// Answers a [`Signal::Ping`].
    Pong {
        /// The ping's time.
        timestamp_ms: u64,
    },
    /// The call is over, or never came to be.
    Hangup {
        /// Why.
        reason: HangupReason,
        /// Which direct call.
        #[serde(skip_serializing_if = "Option::is_none")]
        call_id: Option<String>,
    },
    /// The first message where a token is demanded.
    AuthToken {
        /// The token.
        token: String,
    },
    /// Call held.
    Hold {},
    /// Call resumed.
    Unhold {},
    /// Microphone off.
    Mute {},
    /// Microphone on.
    Unmute {},
    /// Hand the call to somebody else.
    Transfer {
        /// Fingerprint of that person.
        target_fingerprint: String,
        /// Where to find it.
        relay_addr: Option<String>,
    },
    /// Transfer accepted.
    TransferAck {},
    /// Fingerprints present at a relay.
    PresenceUpdate {
        /// The fingerprints.
        fingerprints: Vec<String>,
        /// The relay's address.
        relay_addr: String,
    },
    /// Where is this fingerprint?
    RouteQuery {
        /// The fingerprint.
        fingerprint: String,
        /// Hops left.
        ttl: u8,
    },
    /// Answer to a route query.
    RouteResponse {
        /// The fingerprint.
        fingerprint: String,
        /// Whether it is known.
        found: bool,
        /// Relays on the way.
        relay_chain: Vec<String>,
    },
    /// Forward a session to another relay.
    SessionForward {
        /// The session.
        session_id: String,
        /// For whom.
        target_fingerprint: String,
        /// From which relay.
        source_relay: String,
    },
    /// Session forwarded.
    SessionForwardAck {
        /// The session.
        session_id: String,
        /// Room it landed in.
        room_name: String,
    },
    /// The members of the room, sent to everyone on every join and leave.
    RoomUpdate {
        /// How many there are.
        count: u32,
        /// Who they are.
        participants: Vec<RoomParticipant>,
    },
    /// First message between federated relays.
    FederationHello {
        /// SHA-256 of the sender's certificate, hex with colons.
        tls_fingerprint: String,
    },
    /// A shared room has members at the sending relay.
    GlobalRoomActive {
        /// Room name.
        room: String,
        /// Its members there.
        #[serde(default)]
        participants: Vec<RoomParticipant>,
    },
    /// A shared room has no members at the sending relay any more.
    GlobalRoomInactive {
        /// Room name.
        room: String,
    },
    /// First message on a `_signal` connection.
    RegisterPresence {
        /// Ed25519 public key.
        identity_pub: [u8; 32],
        /// Not checked by relays.
        signature: Vec<u8>,
        /// Name to show.
        alias: Option<String>,
    },
    /// Answer to [`Signal::RegisterPresence`].
    RegisterPresenceAck {
        /// Whether it worked.
        success: bool,
        /// Why not.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// Build of the relay.
        #[serde(skip_serializing_if = "Option::is_none")]
        relay_build: Option<String>,
        /// Region of the relay.
        #[serde(skip_serializing_if = "Option::is_none")]
        relay_region: Option<String>,
        /// Other relays as `name|address`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        available_relays: Vec<String>,
    },
    /// Calls one person.
    DirectCallOffer(Box<DirectCallOffer>),
    /// Answers such a call.
    DirectCallAnswer(Box<DirectCallAnswer>),
    /// Where the media of a direct call goes.
    CallSetup {
        /// The call.
        call_id: String,
        /// Room on the relay.
        room: String,
        /// The relay.
        relay_addr: String,
        /// The peer's reflexive address.
        #[serde(skip_serializing_if = "Option::is_none")]
        peer_direct_addr: Option<String>,
        /// The peer's local addresses.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        peer_local_addrs: Vec<String>,
        /// The peer's mapped address.
        #[serde(skip_serializing_if = "Option::is_none")]
        peer_mapped_addr: Option<String>,
    },
    /// The callee's device rings.
    CallRinging {
        /// The call.
        call_id: String,
    },
    /// Asks for one's own address as the relay sees it; a bare string on the wire.
    Reflect,
    /// Answer to [`Signal::Reflect`].
    ReflectResponse {
        /// `ip:port` or `[v6]:port`.
        observed_addr: String,
    },
    /// Whether the direct path of a call works.
    MediaPathReport {
        /// The call.
        call_id: String,
        /// Whether it does.
        direct_ok: bool,
        /// Which path came first.
        #[serde(default)]
        race_winner: String,
    },
    /// New addresses in a running call.
    CandidateUpdate {
        /// The call.
        call_id: String,
        /// Reflexive address.
        #[serde(skip_serializing_if = "Option::is_none")]
        reflexive_addr: Option<String>,
        /// Local addresses.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        local_addrs: Vec<String>,
        /// Mapped address.
        #[serde(skip_serializing_if = "Option::is_none")]
        mapped_addr: Option<String>,
        /// Counts updates.
        generation: u32,
    },
    /// How the sender's NAT allocates ports.
    HardNatProbe {
        /// The call.
        call_id: String,
        /// Ports seen.
        port_sequence: Vec<u16>,
        /// The pattern in them.
        allocation: String,
        /// When, in ms.
        probe_time_ms: u64,
        /// Address outside the NAT.
        external_ip: String,
    },
    /// Starts the search for a common port.
    HardNatBirthdayStart {
        /// The call.
        call_id: String,
        /// How many ports are open.
        acceptor_port_count: u16,
        /// Which.
        acceptor_ports: Vec<u16>,
        /// Address outside the NAT.
        external_ip: String,
    },
    /// A signal handed on between relays.
    FederatedSignalForward {
        /// The signal.
        inner: Box<Signal>,
        /// Fingerprint of the relay it comes from.
        origin_relay_fp: String,
    },
    /// The relay asks a sender to use another profile.
    QualityDirective {
        /// The profile.
        recommended_profile: QualityProfile,
        /// Why.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Who is registered at the relay.
    PresenceList {
        /// The users.
        users: Vec<PresenceUser>,
    },
    /// Proposes a better profile for a call.
    UpgradeProposal {
        /// The call.
        call_id: String,
        /// The proposal.
        proposal_id: String,
        /// The profile.
        proposed_profile: QualityProfile,
        /// Proposer's packet loss in percent.
        #[serde(skip_serializing_if = "Option::is_none")]
        local_loss_pct: Option<f32>,
        /// Proposer's round-trip time in ms.
        #[serde(skip_serializing_if = "Option::is_none")]
        local_rtt_ms: Option<u32>,
    },
    /// Answers a proposal.
    UpgradeResponse {
        /// The call.
        call_id: String,
        /// The proposal.
        proposal_id: String,
        /// Whether it is accepted.
        accepted: bool,
        /// Why not.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The upgrade takes effect.
    UpgradeConfirm {
        /// The call.
        call_id: String,
        /// The proposal.
        proposal_id: String,
        /// The profile.
        confirmed_profile: QualityProfile,
    },
    /// The best profile the sender can do.
    QualityCapability {
        /// The call.
        call_id: String,
        /// The profile.
        max_profile: QualityProfile,
        /// Packet loss in percent.
        #[serde(skip_serializing_if = "Option::is_none")]
        loss_pct: Option<f32>,
        /// Round-trip time in ms.
        #[serde(skip_serializing_if = "Option::is_none")]
        rtt_ms: Option<u32>,
    },
    /// A receiver's account of a stream's packets.
    TransportFeedback {
        /// The stream.
        stream_id: u8,
        /// Received.
        acked_seqs: Vec<u32>,
        /// Missing.
        nacked_seqs: Vec<u32>,
        /// Estimated bandwidth in bit/s.
        remb_bps: u32,
        /// Receiver's clock in µs.
        recv_time_us: u64,
    },
    /// Asks for packets again.
    Nack {
        /// The stream.
        stream_id: u8,
        /// Sequence numbers of the missing packets.
        seqs: Vec<u32>,
    },
    /// What the sender wants protected first.
    SetPriorityMode {
        /// The mode.
        mode: PriorityMode,
    },
    /// Asks for a keyframe.
    PictureLossIndication {
        /// The stream, as seen by the one who asks.
        stream_id: u8,
    },
}

impl Signal {
    /// The variant's name on the wire.
    pub fn name(&self) -> &'static str {
        self.into()
    }

    /// A ping with the sender's clock in ms.
    pub fn ping(timestamp_ms: u64) -> Self {
        Self::Ping {
            version: SIGNAL_VERSION,
            timestamp_ms,
        }
    }

    /// The answer to a ping.
    pub fn pong(timestamp_ms: u64) -> Self {
        Self::Pong {
            version: SIGNAL_VERSION,
            timestamp_ms,
        }
    }

    /// A hangup outside direct calls.
    pub fn hangup(reason: HangupReason) -> Self {
        Self::Hangup {
            version: SIGNAL_VERSION,
            reason,
            call_id: None,
        }
    }

    /// The token for a relay that demands one.
    pub fn auth_token(token: impl Into<String>) -> Self {
        Self::AuthToken {
            version: SIGNAL_VERSION,
            token: token.into(),
        }
    }

    /// The room's member list.
    pub fn room_update(participants: Vec<RoomParticipant>) -> Self {
        let count = u32::try_from(participants.len()).unwrap_or(u32::MAX);
        Self::RoomUpdate {
            version: SIGNAL_VERSION,
            count,
            participants,
        }
    }

    /// A request for a keyframe on this stream.
    pub fn picture_loss(stream_id: u8) -> Self {
        Self::PictureLossIndication {
            version: SIGNAL_VERSION,
            stream_id,
        }
    }

    /// A request for missing packets of this stream.
    pub fn nack(stream_id: u8, seqs: Vec<u32>) -> Self {
        Self::Nack {
            version: SIGNAL_VERSION,
            stream_id,
            seqs,
        }
    }

    /// Asks a sender to use another profile.
    pub fn quality_directive(recommended_profile: QualityProfile, reason: Option<String>) -> Self {
        Self::QualityDirective {
            version: SIGNAL_VERSION,
            recommended_profile,
            reason,
        }
    }
}

//! Offer and answer as state machines without IO (WZP wire v2, sections 4.1 to 4.5).
//!
//! Both sides end with the peer's identity and a [`Session`]. Its key is not used for media on relay paths today.

use std::fmt;

use sha2::{Digest, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::codec::{Codec, QualityProfile};
use crate::identity::{Fingerprint, Identity, hkdf_sha256, verify};
use crate::signal::{CallAnswer, CallOffer, GatewayExtension, HangupReason, SIGNAL_VERSION, Signal};

/// The protocol version that this crate speaks and serves.
pub const PROTOCOL_VERSION: u8 = 2;

const OFFER_LABEL: &[u8; 10] = b"call-offer";
const ANSWER_LABEL: &[u8; 11] = b"call-answer";

/// What a finished handshake agreed on, the same on both sides.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    key: [u8; 32],
    id: [u8; 4],
    sas: u16,
}

impl Session {
    /// Agrees on a session by X25519; `None` if the peer's key is one that makes every secret the same.
    fn agree(secret: StaticSecret, peer: &[u8; 32]) -> Option<Self> {
        let shared = secret.diffie_hellman(&PublicKey::from(*peer));
        shared
            .was_contributory()
            .then(|| Self::from_shared_secret(shared.as_bytes()))
    }

    fn from_shared_secret(shared: &[u8; 32]) -> Self {
        let key = hkdf_sha256(None, shared, b"warzone-session-key");
        let [a, b, c, d, ..] = hkdf_sha256(None, shared, b"warzone-sas-code");
        let sas = (u32::from_be_bytes([a, b, c, d]) % 10_000) as u16;
        Self {
            key,
            id: session_id(&key),
            sas,
        }
    }

    /// The session key.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// The first four bytes of SHA-256 over the key.
    pub fn id(&self) -> [u8; 4] {
        self.id
    }

    /// The short authentication string, four digits to compare by voice.
    pub fn sas(&self) -> String {
        format!("{:04}", self.sas)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}

pub(crate) fn session_id(key: &[u8; 32]) -> [u8; 4] {
    let hash = Sha256::digest(key);
    [hash[0], hash[1], hash[2], hash[3]]
}

/// What a dialer says about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OfferOptions {
    /// Name to show to others.
    pub alias: Option<String>,
    /// Profiles, best first; natives send [`QualityProfile::OFFERED`].
    pub profiles: Vec<QualityProfile>,
    /// Codecs in which it would send video; a relay agrees to the first one.
    pub video_codecs: Vec<Codec>,
    /// Wishes that only gateways understand.
    pub extension: Option<GatewayExtension>,
}

/// The side that connects and sends the offer.
pub struct Dialer {
    /// Taken when the answer comes.
    secret: Option<StaticSecret>,
}

/// The dialer's result.
#[derive(Clone, Debug, PartialEq)]
pub struct Established {
    /// The answerer's Ed25519 public key. Any key is accepted; whether to trust it is the caller's decision.
    pub peer_identity: [u8; 32],
    /// Fingerprint of that key.
    pub fingerprint: Fingerprint,
    /// The answer's profile; natives do not look at it.
    pub profile: QualityProfile,
    /// The codec in which the dialer may send video.
    pub video_codec: Option<Codec>,
    /// Keys of the session.
    pub session: Session,
}

impl Dialer {
    /// Makes the offer to send. `ephemeral_secret` must be random and used once.
    pub fn new(identity: &Identity, ephemeral_secret: [u8; 32], offer: OfferOptions) -> (Self, Signal) {
        let secret = StaticSecret::from(ephemeral_secret);
        let ephemeral_pub = PublicKey::from(&secret).to_bytes();
        let offer = CallOffer {
            version: SIGNAL_VERSION,
            identity_pub: identity.public_key(),
            ephemeral_pub,
            signature: identity.sign(&signed_bytes(&ephemeral_pub, OFFER_LABEL)).to_vec(),
            supported_profiles: offer.profiles,
            alias: offer.alias,
            protocol_version: Some(PROTOCOL_VERSION),
            supported_versions: vec![PROTOCOL_VERSION],
            video_codecs: offer.video_codecs,
            wzp_gateway: offer.extension,
        };
        (Self { secret: Some(secret) }, Signal::CallOffer(Box::new(offer)))
    }

    /// Takes the reply to the offer. Whatever comes out, the handshake is over.
    pub fn on_signal(&mut self, signal: Signal) -> Result<Established, HandshakeError> {
        let secret = self.secret.take().ok_or(HandshakeError::Finished)?;
        let answer = match signal {
            Signal::CallAnswer(answer) => answer,
            Signal::Hangup {
                reason: HangupReason::ProtocolVersionMismatch { server_supported },
                ..
            } => {
                return Err(HandshakeError::PeerSpeaks {
                    supported: server_supported,
                });
            }
            Signal::Hangup { reason, .. } => return Err(HandshakeError::HungUp(reason)),
            other => {
                return Err(HandshakeError::UnexpectedSignal {
                    expected: "CallAnswer",
                    got: other.name(),
                });
            }
        };
        if !verify(
            &answer.identity_pub,
            &signed_bytes(&answer.ephemeral_pub, ANSWER_LABEL),
            &answer.signature,
        ) {
            return Err(HandshakeError::Signature);
        }
        let session = Session::agree(secret, &answer.ephemeral_pub).ok_or(HandshakeError::EphemeralKey)?;
        Ok(Established {
            peer_identity: answer.identity_pub,
            fingerprint: Fingerprint::of(&answer.identity_pub),
            profile: answer.chosen_profile,
            video_codec: answer.video_codec,
            session,
        })
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer")
            .field("finished", &self.secret.is_none())
            .finish()
    }
}

/// The side that is connected to and answers the offer.
#[derive(Clone, Copy, Debug)]
pub struct Answerer;

/// The answerer's result.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The answer to send.
    pub answer: Signal,
    /// The caller's Ed25519 public key, proven by its signature.
    pub peer_identity: [u8; 32],
    /// Fingerprint of that key.
    pub fingerprint: Fingerprint,
    /// Name to show, as sent: neither shortened nor cleaned.
    pub alias: Option<String>,
    /// The codec in which the caller may send video, as the answer says it.
    pub video_codec: Option<Codec>,
    /// All codecs the caller named.
    pub video_codecs: Vec<Codec>,
    /// The caller's wishes, if it knows gateways.
    pub extension: Option<GatewayExtension>,
    /// Keys of the session.
    pub session: Session,
}

/// The answerer says no.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Refused {
    /// Why.
    #[source]
    pub error: HandshakeError,
    /// What to send before closing, if the caller would understand it.
    pub hangup: Option<Signal>,
}

impl Answerer {
    /// Checks an offer and makes the answer. `ephemeral_secret` must be random and used once.
    ///
    /// An offer without protocol version is refused like one with a wrong version: only v1 clients send it, and their
    /// media could not be read.
    pub fn accept(identity: &Identity, ephemeral_secret: [u8; 32], signal: Signal) -> Result<Accepted, Box<Refused>> {
        let refused = |error, hangup| Box::new(Refused { error, hangup });
        let offer = match signal {
            Signal::CallOffer(offer) => offer,
            other => {
                let error = HandshakeError::UnexpectedSignal {
                    expected: "CallOffer",
                    got: other.name(),
                };
                return Err(refused(error, None));
            }
        };
        if offer.protocol_version != Some(PROTOCOL_VERSION) {
            let reason = HangupReason::ProtocolVersionMismatch {
                server_supported: vec![PROTOCOL_VERSION],
            };
            let error = HandshakeError::Version {
                offered: offer.protocol_version,
            };
            return Err(refused(error, Some(Signal::hangup(reason))));
        }
        if !verify(
            &offer.identity_pub,
            &signed_bytes(&offer.ephemeral_pub, OFFER_LABEL),
            &offer.signature,
        ) {
            return Err(refused(
                HandshakeError::Signature,
                Some(Signal::hangup(HangupReason::Error)),
            ));
        }
        let secret = StaticSecret::from(ephemeral_secret);
        let ephemeral_pub = PublicKey::from(&secret).to_bytes();
        let Some(session) = Session::agree(secret, &offer.ephemeral_pub) else {
            return Err(refused(
                HandshakeError::EphemeralKey,
                Some(Signal::hangup(HangupReason::Error)),
            ));
        };
        let video_codec = offer.video_codecs.iter().copied().find(|codec| codec.is_video());
        let answer = CallAnswer {
            version: SIGNAL_VERSION,
            identity_pub: identity.public_key(),
            ephemeral_pub,
            signature: identity.sign(&signed_bytes(&ephemeral_pub, ANSWER_LABEL)).to_vec(),
            chosen_profile: QualityProfile::GOOD,
            video_codec,
        };
        Ok(Accepted {
            answer: Signal::CallAnswer(Box::new(answer)),
            peer_identity: offer.identity_pub,
            fingerprint: Fingerprint::of(&offer.identity_pub),
            alias: offer.alias,
            video_codec,
            video_codecs: offer.video_codecs,
            extension: offer.wzp_gateway,
            session,
        })
    }
}

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The offer's version is not ours; `None` is a v1 client, which names none.
    #[error("the caller speaks protocol version {}, here it is 2; update the app", offered.map_or("1".to_owned(), |v| v.to_string()))]
    Version {
        /// What stood in the offer.
        offered: Option<u8>,
    },
    /// The answerer does not serve our version.
    #[error("the server speaks protocol versions {supported:?}, not 2; connect to a newer one")]
    PeerSpeaks {
        /// What it serves.
        supported: Vec<u8>,
    },
    /// The answerer hung up instead of answering.
    #[error("the server hung up during the handshake: {0:?}")]
    HungUp(HangupReason),
    /// Another message than the handshake's.
    #[error("expected {expected}, but {got} came")]
    UnexpectedSignal {
        /// What should have come.
        expected: &'static str,
        /// What came.
        got: &'static str,
    },
    /// The signature does not belong to identity and key.
    #[error("the peer's signature does not match its identity key")]
    Signature,
    /// A degenerate X25519 key.
    #[error("the peer's ephemeral key is degenerate; no secret can be agreed with it")]
    EphemeralKey,
    /// A second reply to one offer.
    #[error("the handshake is over already")]
    Finished,
}

fn signed_bytes(ephemeral_pub: &[u8; 32], label: &[u8]) -> Vec<u8> {
    [ephemeral_pub.as_slice(), label].concat()
}

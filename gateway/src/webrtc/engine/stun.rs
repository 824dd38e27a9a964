//! The little of STUN (RFC 8489) that the demultiplexer needs: whom a message is for, and whether it is genuine.

use std::net::SocketAddr;

use rtc::crypto::RTCCrypto;
use rtc::stun::attributes::{ATTR_ICE_CONTROLLED, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{
    BINDING_REQUEST, BINDING_SUCCESS, CLASS_ERROR_RESPONSE, CLASS_SUCCESS_RESPONSE, Message, Setter as _,
    TransactionId, is_stun_message,
};
use rtc::stun::textattrs::TextAttribute;
use rtc::stun::xoraddr::XorMappedAddress;

/// What kind of message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Request,
    Response,
    Other,
}

/// A parsed message.
pub(super) struct Parsed {
    message: Message,
    pub class: Class,
    pub transaction: TransactionId,
    pub use_candidate: bool,
}

impl Parsed {
    /// Parses a whole datagram; `None` if it is not a well-formed STUN message.
    pub fn read(datagram: &[u8]) -> Option<Self> {
        if !is_stun_message(datagram) {
            return None;
        }
        let mut message = Message {
            raw: datagram.to_vec(),
            ..Message::default()
        };
        message.decode().ok()?;
        let class = if message.typ == BINDING_REQUEST {
            Class::Request
        } else if message.typ.class == CLASS_SUCCESS_RESPONSE || message.typ.class == CLASS_ERROR_RESPONSE {
            Class::Response
        } else {
            Class::Other
        };
        let transaction = message.transaction_id;
        let use_candidate = message.contains(ATTR_USE_CANDIDATE);
        Some(Self {
            message,
            class,
            transaction,
            use_candidate,
        })
    }

    /// The receiver's half of the USERNAME (RFC 8445, section 7.2.2).
    pub fn local_ufrag(&self) -> Option<String> {
        let username = self.message.get(ATTR_USERNAME).ok()?;
        let username = String::from_utf8(username).ok()?;
        Some(username.split_once(':')?.0.to_owned())
    }

    /// Whether MESSAGE-INTEGRITY was made with `password`.
    pub fn is_genuine(&mut self, password: &str, crypto: &dyn RTCCrypto) -> bool {
        MessageIntegrity::check(&mut self.message, password.as_bytes(), crypto).is_ok()
    }

    /// The success response to this request.
    pub fn success(&self, from: SocketAddr, password: &str, crypto: &dyn RTCCrypto) -> Option<Vec<u8>> {
        let mut response = Message::new();
        let integrity = MessageIntegrity::new_short_term_integrity_with_provider(password.to_owned(), crypto);
        response
            .build(&[
                Box::new(self.transaction),
                Box::new(BINDING_SUCCESS),
                Box::new(XorMappedAddress {
                    ip: from.ip(),
                    port: from.port(),
                }),
                Box::new(integrity),
                Box::new(FINGERPRINT),
            ])
            .ok()?;
        Some(response.raw)
    }
}

/// A binding request to a controlling peer (RFC 8445, section 7.2.4) with its transaction; `username` is theirs, then ours.
pub(super) fn consent_check(
    username: String,
    password: &str,
    tie_breaker: u64,
    crypto: &dyn RTCCrypto,
) -> Option<([u8; 12], Vec<u8>)> {
    // That of a peer-reflexive candidate, as which the peer may take us.
    const PRIORITY: u32 = 110 << 24 | 65_535 << 8 | 255;
    let mut request = Message::new();
    let transaction = TransactionId::new();
    request
        .build(&[
            Box::new(BINDING_REQUEST),
            Box::new(transaction),
            Box::new(TextAttribute::new(ATTR_USERNAME, username)),
        ])
        .ok()?;
    request.add(ATTR_ICE_CONTROLLED, &tie_breaker.to_be_bytes());
    request.add(ATTR_PRIORITY, &PRIORITY.to_be_bytes());
    MessageIntegrity::new_short_term_integrity_with_provider(password.to_owned(), crypto)
        .add_to(&mut request)
        .ok()?;
    FINGERPRINT.add_to(&mut request).ok()?;
    Some((transaction.0, request.raw))
}

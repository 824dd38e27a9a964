//! The little of STUN (RFC 8489) that the demultiplexer needs: whom a message is for, and whether it is genuine.

use std::net::SocketAddr;

use rtc::crypto::RTCCrypto;
use rtc::stun::attributes::{ATTR_USE_CANDIDATE, ATTR_USERNAME};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{
    BINDING_REQUEST, BINDING_SUCCESS, CLASS_ERROR_RESPONSE, CLASS_SUCCESS_RESPONSE, Message, TransactionId,
    is_stun_message,
};
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

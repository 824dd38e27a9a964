//! What went wrong with a relay, for people.

use quinn::{ConnectionError, ReadError as StreamError, ReadExactError, WriteError};
use wzp_proto::handshake::HandshakeError;
use wzp_proto::signal::HangupReason;

use crate::native::client::ConnectError;
use crate::native::signals::{ReadError, SendError};
use crate::room::uplink::UplinkState;

/// Why there is no media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) state: UplinkState,
    pub(super) message: String,
    /// Nothing came back at all, so that the first sign of life is news.
    pub(super) silent: bool,
    /// It will be the same for long.
    pub(super) lasting: bool,
}

impl Trouble {
    pub(super) fn new(state: UplinkState, message: impl Into<String>) -> Self {
        Self {
            state,
            message: message.into(),
            silent: false,
            lasting: false,
        }
    }

    fn silent(message: impl Into<String>) -> Self {
        Self {
            silent: true,
            ..Self::away(message)
        }
    }

    /// What came from the relay would go back to it.
    pub(super) fn echo(message: impl Into<String>) -> Self {
        Self {
            lasting: true,
            ..Self::refused(message)
        }
    }

    /// The relay's host has no address, or no room can be dialled.
    pub(super) fn away(message: impl Into<String>) -> Self {
        Self::new(UplinkState::Away, message)
    }

    fn refused(message: impl Into<String>) -> Self {
        Self::new(UplinkState::Refused, message)
    }

    /// No connection came about.
    pub(super) fn connecting(error: &ConnectError, has_token: bool) -> Self {
        match error {
            ConnectError::Handshake(HandshakeError::HungUp(reason)) => {
                Self::refused(format!("the relay refuses: {}", said(reason)))
            }
            ConnectError::Handshake(error) => Self::refused(error.to_string()),
            ConnectError::Deadline(_) => Self::silent("the relay does not answer"),
            ConnectError::Closed(error)
            | ConnectError::Send(SendError::Connection(error) | SendError::Write(WriteError::ConnectionLost(error)))
            | ConnectError::Read(ReadError::Stream(ReadExactError::ReadError(StreamError::ConnectionLost(error)))) => {
                Self::closed_before_answer(error, has_token)
            }
            other => Self::away(other.to_string()),
        }
    }

    /// Relays close without a word, or the word is lost to the close that follows it.
    fn closed_before_answer(error: &ConnectionError, has_token: bool) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) if !close.reason.is_empty() => {
                Self::refused(format!("the relay refuses: {}", String::from_utf8_lossy(&close.reason)))
            }
            ConnectionError::ApplicationClosed(_) if has_token => Self::refused(
                "the relay closed the connection before it answered: it refuses the token or wants none, is full, or speaks \
                 another version",
            ),
            ConnectionError::ApplicationClosed(_) => Self::refused(
                "the relay closed the connection before it answered: it wants a token, is full, or speaks another version",
            ),
            ConnectionError::ConnectionClosed(close) => Self::refused(format!("this is not a WZP relay: {close}")),
            ConnectionError::TimedOut => Self::silent(error.to_string()),
            other => Self::away(other.to_string()),
        }
    }

    /// The relay answered, and closed the connection before it showed us its room.
    pub(super) fn not_let_in(error: &ConnectionError, word: Option<&HangupReason>) -> Self {
        match (error, word) {
            (ConnectionError::ApplicationClosed(_), Some(reason)) => {
                Self::refused(format!("the relay refuses: {}", said(reason)))
            }
            (ConnectionError::ApplicationClosed(close), None) if !close.reason.is_empty() => {
                Self::refused(format!("the relay refuses: {}", String::from_utf8_lossy(&close.reason)))
            }
            (ConnectionError::ApplicationClosed(_), None) => {
                Self::refused("the relay answered and did not let us in: it is full, or refuses this room")
            }
            (other, _) => Self::lost(other, word),
        }
    }

    /// The connection ended; `word` is what the relay said before.
    pub(super) fn lost(error: &ConnectionError, word: Option<&HangupReason>) -> Self {
        match (error, word) {
            (_, Some(reason)) => Self::away(format!("the relay hung up: {}", said(reason))),
            (ConnectionError::ApplicationClosed(close), _) if !close.reason.is_empty() => Self::away(format!(
                "the relay ended the connection: {}",
                String::from_utf8_lossy(&close.reason)
            )),
            (ConnectionError::ApplicationClosed(_), _) => Self::away("the relay ended the connection"),
            (other, _) => Self {
                silent: matches!(other, ConnectionError::TimedOut),
                ..Self::away(format!("the connection to the relay is lost: {other}"))
            },
        }
    }
}

fn said(reason: &HangupReason) -> String {
    match reason {
        HangupReason::ProtocolVersionMismatch { server_supported } => {
            format!("it speaks protocol versions {server_supported:?}, not 2")
        }
        HangupReason::PolicyViolation { reason, .. } => reason.clone(),
        HangupReason::Busy => "it is full".to_owned(),
        HangupReason::Declined => "it does not let us in; look at the token".to_owned(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quinn::{ApplicationClose, VarInt};

    use super::*;

    fn closed(reason: &'static str) -> ConnectionError {
        ConnectionError::ApplicationClosed(ApplicationClose {
            error_code: VarInt::from_u32(0),
            reason: reason.into(),
        })
    }

    #[test]
    fn bare_close_in_the_handshake_is_a_refusal_that_names_what_it_may_be() {
        let trouble = Trouble::connecting(&ConnectError::Closed(closed("")), false);
        assert_eq!(trouble.state, UplinkState::Refused);
        assert!(trouble.message.contains("wants a token"), "{}", trouble.message);
        let trouble = Trouble::connecting(&ConnectError::Closed(closed("")), true);
        assert!(trouble.message.contains("refuses the token"), "{}", trouble.message);
        let trouble = Trouble::connecting(&ConnectError::Closed(closed("go away")), true);
        assert_eq!(trouble.message, "the relay refuses: go away");
    }

    #[test]
    fn close_that_meets_us_while_we_write_is_a_refusal_too() {
        let write = quinn::WriteError::ConnectionLost(closed(""));
        let trouble = Trouble::connecting(&ConnectError::Send(SendError::Write(write)), true);
        assert_eq!(trouble.state, UplinkState::Refused);
    }

    #[test]
    fn silence_is_not_a_refusal() {
        let trouble = Trouble::connecting(&ConnectError::Deadline(Duration::from_secs(2)), false);
        assert_eq!(trouble.state, UplinkState::Away);
        assert!(trouble.silent);
        assert_eq!(Trouble::lost(&ConnectionError::TimedOut, None).state, UplinkState::Away);
    }

    #[test]
    fn version_mismatch_is_said_in_words() {
        let reason = HangupReason::ProtocolVersionMismatch {
            server_supported: vec![3],
        };
        let error = ConnectError::Handshake(HandshakeError::HungUp(reason.clone()));
        assert_eq!(
            Trouble::connecting(&error, false).message,
            "the relay refuses: it speaks protocol versions [3], not 2"
        );
        assert!(Trouble::lost(&closed(""), Some(&reason)).message.contains("[3]"));
    }
}

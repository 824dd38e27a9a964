//! The hook for tokens (WZP wire v2, section 4.4). Without one, nobody is asked for a token.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use wzp_proto::identity::Fingerprint;
use wzp_proto::room_name::RoomName;

/// Who a token belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authenticated {
    /// The account's fingerprint, shown instead of the identity key's.
    pub fingerprint: Option<Fingerprint>,
}

/// The token was refused; the text is for the person who sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthError(pub String);

/// The answer of an [`Authenticate`].
pub type AuthFuture<'a> = Pin<Box<dyn Future<Output = Result<Authenticated, AuthError>> + Send + 'a>>;

/// Checks the token that a native sends before its offer.
pub trait Authenticate: fmt::Debug + Send + Sync {
    /// Whose token it is. The handshake's deadline bounds the wait.
    fn authenticate<'a>(&'a self, token: &'a str, room: &'a RoomName) -> AuthFuture<'a>;
}

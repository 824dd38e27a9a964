//! Who may enter: shared tokens from the configuration.

use std::sync::Arc;

use sha2::{Digest, Sha256};

/// The tokens that let somebody in. Without any, everybody may enter.
#[derive(Debug, Clone, Default)]
pub struct Auth {
    /// SHA-256 of each token: comparing hashes tells nothing about a token by its timing.
    tokens: Arc<[[u8; 32]]>,
}

impl Auth {
    /// Lets in whoever has one of `tokens`; everybody, if there are none.
    pub fn new<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            tokens: tokens.into_iter().map(hash).collect(),
        }
    }

    /// A token is needed.
    pub fn is_required(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Whether this token lets somebody in.
    pub fn accepts(&self, token: &str) -> bool {
        let hash = hash(token);
        !self.is_required() || self.tokens.contains(&hash)
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tokens_everybody_may_enter() {
        let auth = Auth::new([]);
        assert!(!auth.is_required());
        assert!(auth.accepts("anything"));
    }

    #[test]
    fn with_tokens_only_they_let_in() {
        let auth = Auth::new(["open sesame", "friend"]);
        assert!(auth.is_required());
        assert!(auth.accepts("friend"));
        assert!(!auth.accepts("Friend"));
        assert!(!auth.accepts(""));
    }
}

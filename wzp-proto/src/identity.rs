//! Identities and fingerprints (WZP wire v2, section 4.4).

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// A long-lived Ed25519 identity, derived from a 32-byte seed.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
    tls_secret: [u8; 32],
}

impl Identity {
    /// The identity of a seed: HKDF-SHA256 without salt, info `warzone-ed25519`.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self {
            key: SigningKey::from_bytes(&hkdf_sha256(None, seed, b"warzone-ed25519")),
            tls_secret: hkdf_sha256(None, seed, b"wzp-tls-ed25519"),
        }
    }

    /// The Ed25519 public key, sent as `identity_pub`.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// The fingerprint of the public key: how members are named in a `RoomUpdate`.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.public_key())
    }

    /// A plain Ed25519 signature over `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// The Ed25519 secret of the deterministic TLS certificate that belongs to this seed (info `wzp-tls-ed25519`,
    /// section 1.1), so that a restarted server keeps its TLS fingerprint.
    pub fn tls_secret(&self) -> [u8; 32] {
        self.tls_secret
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.fingerprint()).finish()
    }
}

/// Checks an Ed25519 signature over `message` by `identity_pub`; weak keys and signatures of another length fail.
pub fn verify(identity_pub: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(identity_pub) else {
        return false;
    };
    let Ok(signature) = Signature::from_slice(signature) else {
        return false;
    };
    key.verify_strict(message, &signature).is_ok()
}

/// The first 16 bytes of SHA-256 over an identity's public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// The fingerprint of a public key.
    pub fn of(public_key: &[u8]) -> Self {
        Self(sha256_16(&[public_key]))
    }
}

impl fmt::Display for Fingerprint {
    /// Eight groups of four lower-case hex digits with colons between them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, pair) in self.0.chunks_exact(2).enumerate() {
            let colon = if i == 0 { "" } else { ":" };
            write!(f, "{colon}{:02x}{:02x}", pair[0], pair[1])?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 16];
        let mut groups = text.split(':');
        for pair in bytes.chunks_exact_mut(2) {
            let group = groups
                .next()
                .filter(|g| g.len() == 4 && g.bytes().all(|b| b.is_ascii_hexdigit()));
            let value = group
                .and_then(|g| u16::from_str_radix(g, 16).ok())
                .ok_or(FingerprintError)?;
            pair.copy_from_slice(&value.to_be_bytes());
        }
        if groups.next().is_some() {
            Err(FingerprintError)
        } else {
            Ok(Self(bytes))
        }
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The text is not a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is eight groups of four hex digits with colons between them")]
pub struct FingerprintError;

/// HKDF-SHA256, 32 bytes of output.
pub(crate) fn hkdf_sha256(salt: Option<&[u8]>, ikm: &[u8], info: &[u8]) -> [u8; 32] {
    let mut output = [0; 32];
    Hkdf::<Sha256>::new(salt, ikm)
        .expand(info, &mut output)
        .expect("32 bytes is within HKDF-SHA256's limit of 8160");
    output
}

/// The first 16 bytes of SHA-256 over the concatenated parts.
pub(crate) fn sha256_16(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let mut first = [0; 16];
    first.copy_from_slice(&hash.finalize()[..16]);
    first
}

//! Sealing of payloads (WZP wire v2, section 5).
//!
//! Present so that a relay which seals media can be understood; no relay path does today. The scheme has a known flaw
//! that cannot be mended from one side: audio and video number their packets from 0 under one key, and both sides use
//! direction 0, so nonces repeat. It must not be relied on for secrecy.

use std::collections::BTreeMap;

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::handshake::Session;
use crate::header::{Flags, MediaHeader, MediaType};
use crate::identity::hkdf_sha256;
use crate::packet::MediaPacket;

/// Bytes that sealing adds to a payload.
pub const TAG_LEN: usize = 16;

/// Packets after which the key changes.
pub const REKEY_INTERVAL: u32 = 65_536;

/// The key after `old_key`: HKDF-SHA256 with the old key as salt over a new X25519 secret. `None` if the peer's key is
/// degenerate.
pub fn rekey(old_key: &[u8; 32], own_secret: [u8; 32], peer_public: &[u8; 32]) -> Option<[u8; 32]> {
    let shared = StaticSecret::from(own_secret).diffie_hellman(&PublicKey::from(*peer_public));
    shared
        .was_contributory()
        .then(|| hkdf_sha256(Some(old_key), shared.as_bytes(), b"warzone-rekey"))
}

/// Seals and opens the payloads of one session.
pub struct Sealing {
    cipher: ChaCha20Poly1305,
    session_id: [u8; 4],
    windows: BTreeMap<(MediaType, u8), ReplayWindow>,
}

impl Sealing {
    /// Sealing with a session's key.
    pub fn new(session: &Session) -> Self {
        Self::with_key(session.key(), session.id())
    }

    /// Sealing with this key and session id.
    pub fn with_key(key: &[u8; 32], session_id: [u8; 4]) -> Self {
        Self {
            cipher: ChaCha20Poly1305::new(key.into()),
            session_id,
            windows: BTreeMap::new(),
        }
    }

    /// The packet with its payload sealed; header and quality report stay in clear.
    pub fn seal(&self, packet: &MediaPacket) -> Result<MediaPacket, SealError> {
        let aad = authenticated(packet);
        let payload = Payload {
            msg: &packet.payload,
            aad: &aad,
        };
        let sealed = self
            .cipher
            .encrypt(&self.nonce(packet.header.seq), payload)
            .map_err(|_| SealError::TooLong)?;
        Ok(MediaPacket {
            payload: sealed.into(),
            ..packet.clone()
        })
    }

    /// The packet with its payload opened. A packet that was opened before, or is older than the window of its stream,
    /// is refused; what cannot be opened does not move the window.
    pub fn open(&mut self, packet: &MediaPacket) -> Result<MediaPacket, SealError> {
        let header = &packet.header;
        let stream = (header.media_type, header.stream_id);
        let replayed = SealError::Replay { seq: header.seq };
        if self
            .windows
            .get(&stream)
            .is_some_and(|window| !window.is_new(header.seq))
        {
            return Err(replayed);
        }
        let aad = authenticated(packet);
        let payload = Payload {
            msg: &packet.payload,
            aad: &aad,
        };
        let opened = self
            .cipher
            .decrypt(&self.nonce(header.seq), payload)
            .map_err(|_| SealError::NotAuthentic)?;
        let window = self
            .windows
            .entry(stream)
            .or_insert_with(|| ReplayWindow::new(header.media_type, header.seq));
        window.mark(header.seq);
        Ok(MediaPacket {
            payload: Bytes::from(opened),
            ..packet.clone()
        })
    }

    fn nonce(&self, seq: u32) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.session_id);
        nonce[4..8].copy_from_slice(&seq.to_be_bytes());
        // Direction, always 0, and three unused bytes.
        Nonce::from(nonce)
    }
}

impl std::fmt::Debug for Sealing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealing")
            .field("session_id", &self.session_id)
            .finish_non_exhaustive()
    }
}

/// The header as it goes on the wire.
fn authenticated(packet: &MediaPacket) -> [u8; MediaHeader::LEN] {
    let mut header = packet.header;
    header.flags.set(Flags::QUALITY, packet.quality.is_some());
    header.encode()
}

/// Which of the latest numbers have been seen.
#[derive(Clone, Debug)]
struct ReplayWindow {
    highest: u32,
    /// By the number modulo the length, which is a power of two so that wrapping numbers stay in place.
    seen: Box<[bool]>,
}

impl ReplayWindow {
    fn new(media_type: MediaType, first: u32) -> Self {
        let len = match media_type {
            MediaType::Audio => 64,
            MediaType::Video => 1024,
            MediaType::Data => 256,
            MediaType::Control => 32,
        };
        Self {
            highest: first,
            seen: vec![false; len].into(),
        }
    }

    fn len(&self) -> u32 {
        self.seen.len() as u32
    }

    fn is_new(&self, seq: u32) -> bool {
        self.is_ahead(seq) || (self.highest.wrapping_sub(seq) < self.len() && !self.seen[self.position(seq)])
    }

    fn mark(&mut self, seq: u32) {
        if self.is_ahead(seq) {
            let skipped = seq.wrapping_sub(self.highest).min(self.len());
            for n in 0..skipped {
                let position = self.position(seq.wrapping_sub(n));
                self.seen[position] = false;
            }
            self.highest = seq;
        }
        let position = self.position(seq);
        self.seen[position] = true;
    }

    fn is_ahead(&self, seq: u32) -> bool {
        (1..1 << 31).contains(&seq.wrapping_sub(self.highest))
    }

    fn position(&self, seq: u32) -> usize {
        (seq % self.len()) as usize
    }
}

/// Why a payload was not sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Beyond the cipher's limit of 256 GiB.
    #[error("the payload is too long to be sealed")]
    TooLong,
    /// Another key, or damaged on the way.
    #[error("the payload is not sealed with this session's key, or it was changed")]
    NotAuthentic,
    /// Seen before, or too old to tell.
    #[error("packet {seq} was opened before or is too old")]
    Replay {
        /// Its number.
        seq: u32,
    },
}

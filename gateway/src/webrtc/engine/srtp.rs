//! What a peer sends, decrypted, with bounded state.
//!
//! The protocol crate keeps a roll-over counter and a replay window for every SSRC that it is shown, before it knows
//! whether the packet is genuine, and never forgets one. Whoever can send from a peer's address would fill the memory
//! with invented SSRCs, so one that is new is first tried in a context which is thrown away.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::BytesMut;
use rtc::crypto::RTCCryptoProvider;
use rtc::shared::error::Error;
use rtc::srtp::config::SessionKeys;
use rtc::srtp::context::Context;
use rtc::srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use rtc::srtp::protection_profile::ProtectionProfile;

/// Windows in which a late packet is still accepted, in packets.
const SRTP_WINDOW: usize = 1024;
const SRTCP_WINDOW: usize = 256;
/// SSRCs that one session may use over its life, RTX included. A browser takes two for each camera that it turns on.
const MAX_SSRCS: usize = 512;
/// Unknown SSRCs that one throw-away context is shown. Making one costs about as much as decrypting a packet.
const TRIALS: usize = 64;

/// The keys that a peer encrypts with.
pub(super) struct Keys {
    pub profile: ProtectionProfile,
    pub session: SessionKeys,
}

/// See the [module's text](self).
pub(super) struct Decryption {
    crypto: Arc<dyn RTCCryptoProvider>,
    keys: Keys,
    context: Context,
    /// SSRCs of genuine packets, which `context` has state for.
    rtp: HashSet<u32>,
    rtcp: HashSet<u32>,
    trial: Context,
    tried: usize,
}

impl Decryption {
    pub fn new(crypto: Arc<dyn RTCCryptoProvider>, keys: Keys) -> Result<Self, Error> {
        let context = Context::new(
            &keys.session.remote_master_key,
            &keys.session.remote_master_salt,
            keys.profile,
            Some(srtp_replay_protection(SRTP_WINDOW)),
            Some(srtcp_replay_protection(SRTCP_WINDOW)),
            crypto.crypto(),
        )?;
        Ok(Self {
            context,
            trial: trial(&crypto, &keys)?,
            rtp: HashSet::new(),
            rtcp: HashSet::new(),
            tried: 0,
            crypto,
            keys,
        })
    }

    /// The plain RTP packet, if it is genuine and new.
    pub fn rtp(&mut self, packet: &[u8]) -> Option<BytesMut> {
        let ssrc = u32::from_be_bytes(*packet.get(8..)?.first_chunk()?);
        if !self.rtp.contains(&ssrc) {
            if self.rtp.len() >= MAX_SSRCS {
                return None;
            }
            self.trial()?.decrypt_rtp(packet).ok()?;
            self.rtp.insert(ssrc);
        }
        self.context.decrypt_rtp(packet).ok()
    }

    /// The plain compound RTCP packet, if it is genuine and new.
    pub fn rtcp(&mut self, packet: &[u8]) -> Option<BytesMut> {
        let ssrc = u32::from_be_bytes(*packet.get(4..)?.first_chunk()?);
        if !self.rtcp.contains(&ssrc) {
            if self.rtcp.len() >= MAX_SSRCS {
                return None;
            }
            self.trial()?.decrypt_rtcp(packet).ok()?;
            self.rtcp.insert(ssrc);
        }
        self.context.decrypt_rtcp(packet).ok()
    }

    fn trial(&mut self) -> Option<&mut Context> {
        if self.tried >= TRIALS {
            self.trial = trial(&self.crypto, &self.keys).ok()?;
            self.tried = 0;
        }
        self.tried += 1;
        Some(&mut self.trial)
    }
}

/// A context without replay windows, for the first packet of an SSRC.
fn trial(crypto: &Arc<dyn RTCCryptoProvider>, keys: &Keys) -> Result<Context, Error> {
    let (key, salt) = (&keys.session.remote_master_key, &keys.session.remote_master_salt);
    Context::new(key, salt, keys.profile, None, None, crypto.crypto())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let session = SessionKeys {
            remote_master_key: vec![7; 16],
            remote_master_salt: vec![9; 14],
            ..SessionKeys::default()
        };
        Keys {
            profile: ProtectionProfile::Aes128CmHmacSha1_80,
            session,
        }
    }

    fn both() -> (Decryption, Context) {
        let crypto = rtc::crypto::default_provider().unwrap();
        let peer = trial(&crypto, &keys()).unwrap();
        (Decryption::new(crypto, keys()).unwrap(), peer)
    }

    fn rtp(ssrc: u32, seq: u16) -> Vec<u8> {
        let mut packet = vec![0x80, 96];
        packet.extend_from_slice(&seq.to_be_bytes());
        packet.extend_from_slice(&[0; 4]);
        packet.extend_from_slice(&ssrc.to_be_bytes());
        packet.extend_from_slice(b"payload");
        packet
    }

    /// An empty receiver report.
    fn rtcp(ssrc: u32) -> Vec<u8> {
        let mut packet = vec![0x80, 201, 0, 1];
        packet.extend_from_slice(&ssrc.to_be_bytes());
        packet
    }

    #[test]
    fn forged_ssrcs_leave_no_state_behind() {
        let (mut decryption, mut peer) = both();
        for ssrc in 0..5_000 {
            let mut forged = peer.encrypt_rtp(&rtp(ssrc, 1)).unwrap();
            *forged.last_mut().unwrap() ^= 1;
            assert!(decryption.rtp(&forged).is_none());
            let mut forged = peer.encrypt_rtcp(&rtcp(ssrc)).unwrap();
            *forged.last_mut().unwrap() ^= 1;
            assert!(decryption.rtcp(&forged).is_none());
        }
        // The crate's own table cannot be looked into: it has an entry exactly for what is known here.
        assert!(decryption.rtp.is_empty() && decryption.rtcp.is_empty());
        assert!(decryption.tried <= TRIALS);
        let genuine = peer.encrypt_rtp(&rtp(1, 2)).unwrap();
        assert_eq!(decryption.rtp(&genuine).unwrap(), rtp(1, 2));
        let genuine = peer.encrypt_rtcp(&rtcp(1)).unwrap();
        assert_eq!(decryption.rtcp(&genuine).unwrap(), rtcp(1));
    }

    #[test]
    fn a_packet_passes_once_from_its_first_one_on() {
        let (mut decryption, mut peer) = both();
        for seq in [40_000, 40_001] {
            let packet = peer.encrypt_rtp(&rtp(5, seq)).unwrap();
            assert_eq!(decryption.rtp(&packet).unwrap(), rtp(5, seq));
            assert!(decryption.rtp(&packet).is_none(), "{seq} passed twice");
        }
        let packet = peer.encrypt_rtcp(&rtcp(5)).unwrap();
        assert!(decryption.rtcp(&packet).is_some());
        assert!(decryption.rtcp(&packet).is_none());
    }

    #[test]
    fn a_peer_has_a_bounded_number_of_ssrcs() {
        let (mut decryption, mut peer) = both();
        for ssrc in 0..MAX_SSRCS as u32 + 10 {
            let packet = peer.encrypt_rtp(&rtp(ssrc, 1)).unwrap();
            assert_eq!(decryption.rtp(&packet).is_some(), (ssrc as usize) < MAX_SSRCS);
            let packet = peer.encrypt_rtcp(&rtcp(ssrc)).unwrap();
            assert_eq!(decryption.rtcp(&packet).is_some(), (ssrc as usize) < MAX_SSRCS);
        }
        let packet = peer.encrypt_rtp(&rtp(0, 2)).unwrap();
        assert!(decryption.rtp(&packet).is_some(), "those it has go on");
    }

    #[test]
    fn garbage_is_refused() {
        let (mut decryption, _) = both();
        for length in 0..40 {
            assert!(decryption.rtp(&vec![0x80; length]).is_none());
            assert!(decryption.rtcp(&vec![0x80; length]).is_none());
        }
    }
}

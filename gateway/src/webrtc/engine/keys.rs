//! The cryptographic half of a session: our certificate, the DTLS configuration, and SRTP keys out of the handshake.

use std::sync::Arc;

use rtc::crypto::RTCCryptoProvider;
use rtc::dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc::dtls::crypto::Certificate;
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::dtls::state::State;
use rtc::shared::error::Error;
use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::offer::Fingerprint;
use super::srtp::{Decryption, Keys};

/// Who we are: the same for all sessions of an engine.
pub(super) struct Identity {
    pub crypto: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    /// As in `a=fingerprint`.
    pub fingerprint: String,
}

impl Identity {
    pub fn generate() -> Result<Self, Error> {
        let crypto = rtc::crypto::default_provider().map_err(|error| Error::Crypto(error.to_string()))?;
        let certificate = Certificate::generate_self_signed(vec!["wzp-gateway".to_owned()], crypto.crypto())?;
        let der = certificate.certificate.first().ok_or(Error::ErrNonCertificate)?;
        let digest: Vec<String> = Sha256::digest(der).iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(Self {
            crypto,
            fingerprint: format!("sha-256 {}", digest.join(":")),
            certificate,
        })
    }
}

/// What we ask of the handshake: a certificate with one of the fingerprints, and SRTP keys.
pub(super) fn handshake_config(
    identity: &Identity,
    fingerprints: Vec<Fingerprint>,
    client: bool,
) -> Result<Arc<HandshakeConfig>, Error> {
    let verify = move |chain: &[Vec<u8>], _: &[_]| -> Result<(), Error> {
        let der = chain.first().ok_or(Error::ErrNonCertificate)?;
        let matches = |fingerprint: &Fingerprint| match fingerprint.algorithm.as_str() {
            "sha-256" => Sha256::digest(der).as_slice() == fingerprint.digest,
            "sha-384" => Sha384::digest(der).as_slice() == fingerprint.digest,
            "sha-512" => Sha512::digest(der).as_slice() == fingerprint.digest,
            _ => false,
        };
        if fingerprints.iter().any(matches) {
            Ok(())
        } else {
            Err(Error::ErrNoMatchingCertificateFingerprint)
        }
    };
    let config = ConfigBuilder::default()
        .with_crypto_provider(identity.crypto.clone())
        .with_certificates(vec![identity.certificate.clone()])
        .with_srtp_protection_profiles(vec![
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        ])
        .with_client_auth(ClientAuthType::RequireAnyClientCert)
        // Certificates are self-signed; what counts is the fingerprint, which the callback checks (RFC 8122).
        .with_insecure_skip_verify(true)
        .with_verify_peer_certificate(Some(Arc::new(verify)))
        .with_extended_master_secret(ExtendedMasterSecretType::Require)
        .build(client, None)?;
    Ok(Arc::new(config))
}

/// SRTP keys out of the DTLS handshake (RFC 5764, section 4.2): ours, then the peer's.
pub(super) fn srtp_contexts(state: &State, identity: &Identity) -> Result<(Context, Decryption), Error> {
    let profile = match state.srtp_protection_profile() {
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        _ => return Err(Error::ErrNoSuchSrtpProfile),
    };
    let mut config = rtc::srtp::config::Config {
        profile,
        ..Default::default()
    };
    let label = rtc::srtp::config::LABEL_EXTRACTOR_DTLS_SRTP;
    let keying = state.export_keying_material(label, &[], config.keying_material_len())?;
    config.set_session_keys_from_keying_material(keying.as_ref(), state.is_client())?;
    let crypto = identity.crypto.crypto();
    let keys = &config.keys;
    let outgoing = Context::new(
        &keys.local_master_key,
        &keys.local_master_salt,
        profile,
        None,
        None,
        crypto,
    )?;
    let session = config.keys;
    let incoming = Decryption::new(identity.crypto.clone(), Keys { profile, session })?;
    Ok((outgoing, incoming))
}

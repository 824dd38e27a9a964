//! QUIC as WZP uses it: transport parameters, certificate, close codes (WZP wire v2, section 1.1).

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use rustls::DigitallySignedStruct;
use rustls::SignatureScheme;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use wzp_proto::identity::Identity;

/// The one ALPN protocol.
pub const ALPN: &[u8] = b"wzp";
/// A connection that is silent for this long is lost, unless configured otherwise. Natives say 30 s; the lower of both
/// sides counts.
pub const IDLE: Duration = Duration::from_secs(15);
/// Largest distance of keep-alive packets; a third of the idle time if that is less.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Most datagram bytes that wait in QUIC's queue. The egress keeps it to tens of milliseconds; this is only the bound.
pub const DATAGRAM_SEND_BUFFER: usize = 256 << 10;
/// Most datagram bytes that wait for their session, of one connection: beyond it QUIC drops the oldest without a word.
/// Apps have 64 KiB, one large keyframe; a session that waits for its turn on a busy machine needs more.
const DATAGRAM_RECEIVE_BUFFER: usize = 512 << 10;
/// Largest UDP payload that path discovery tries; full-size packets of natives need at least 1,222.
const MTU_UPPER: u16 = 1452;

/// Application close codes. The reason text beside them is for people.
pub mod close {
    use quinn::VarInt;

    /// Goodbye.
    pub const NORMAL: VarInt = VarInt::from_u32(0);
    /// The handshake failed or took too long.
    pub const HANDSHAKE: VarInt = VarInt::from_u32(1);
    /// Protocol versions do not match.
    pub const VERSION: VarInt = VarInt::from_u32(2);
    /// The token was refused, or none came.
    pub const AUTH: VarInt = VarInt::from_u32(3);
    /// The server name is not a room.
    pub const NAME: VarInt = VarInt::from_u32(4);
    /// The room or the server is full.
    pub const FULL: VarInt = VarInt::from_u32(5);
    /// The same identity joined again.
    pub const REPLACED: VarInt = VarInt::from_u32(6);
    /// Put out of the room.
    pub const REMOVED: VarInt = VarInt::from_u32(7);
    /// A rule was broken.
    pub const POLICY: VarInt = VarInt::from_u32(8);
    /// The server stops.
    pub const STOPPING: VarInt = VarInt::from_u32(9);
    /// The peer cannot take datagrams.
    pub const NO_DATAGRAMS: VarInt = VarInt::from_u32(10);
}

/// Why QUIC could not be set up. These are our own faults, never a peer's.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The certificate could not be made.
    #[error("the certificate for native apps could not be made from the identity key: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS refused its settings.
    #[error("TLS for native apps could not be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The cipher suite that QUIC begins with is missing.
    #[error("TLS for native apps could not be set up: {0}")]
    InitialCipher(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// Transport parameters of both sides. A connection that is silent for `idle` is lost.
pub fn transport_config(idle: Duration) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_UPPER)
        .interval(Duration::from_secs(300))
        .black_hole_cooldown(Duration::from_secs(30));
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(IdleTimeout::try_from(idle).ok())
        .keep_alive_interval(Some(KEEP_ALIVE.min(idle / 3)))
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_SEND_BUFFER)
        .receive_window(VarInt::from_u32(262_144))
        .send_window(131_072)
        .stream_receive_window(VarInt::from_u32(65_536))
        .initial_rtt(Duration::from_millis(300))
        .initial_mtu(1200)
        .mtu_discovery_config(Some(mtu));
    transport
}

/// A self-signed certificate and its key, the same whenever made from the same identity.
///
/// # Errors
/// The key is not one that a certificate can be made from.
pub fn certificate(identity: &Identity) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), TransportError> {
    // PKCS #8 version 1 of an Ed25519 key is a fixed prefix and the 32 bytes (RFC 8410, section 7).
    const PKCS8_ED25519: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    ];
    let pkcs8 = PrivatePkcs8KeyDer::from([PKCS8_ED25519.as_slice(), &identity.tls_secret()].concat());
    let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519)?;
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()])?.self_signed(&key)?;
    Ok((certificate.der().clone(), PrivateKeyDer::Pkcs8(pkcs8)))
}

/// Settings of the listening side: one certificate whatever server name is asked for, or none.
///
/// # Errors
/// See [`TransportError`].
pub fn server_config(identity: &Identity, idle: Duration) -> Result<quinn::ServerConfig, TransportError> {
    let (certificate, key) = certificate(identity)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport_config(idle)));
    Ok(config)
}

/// Settings of the dialling side. Like native apps it takes any certificate: relays are self-signed, and who is who is
/// settled by the handshake's identity keys. Keep-alive packets go out every 5 s, or as often as `keep_alive` says.
///
/// # Errors
/// See [`TransportError`].
pub fn client_config(keep_alive: Option<Duration>) -> Result<quinn::ClientConfig, TransportError> {
    let provider = provider();
    let mut tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let mut transport = transport_config(IDLE);
    if let Some(keep_alive) = keep_alive {
        transport.keep_alive_interval(Some(keep_alive));
    }
    config.transport_config(Arc::new(transport));
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Takes any certificate.
#[derive(Debug)]
pub struct AnyCertificate(
    /// Checks nothing but names what it could.
    pub Arc<CryptoProvider>,
);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_is_the_same_for_the_same_seed() {
        let first = certificate(&Identity::from_seed(&[7; 32])).unwrap().0;
        let again = certificate(&Identity::from_seed(&[7; 32])).unwrap().0;
        let other = certificate(&Identity::from_seed(&[8; 32])).unwrap().0;
        assert_eq!(first, again);
        assert_ne!(first, other);
    }
}

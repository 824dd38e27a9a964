//! `wzp-gateway doctor`: asks the gateway that the same settings would start whether it is well.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::{Config, Tls};
use crate::native::transport::AnyCertificate;

/// The gateway answers within this.
const DEADLINE: Duration = Duration::from_secs(4);
/// Most bytes of an answer that are looked at.
const MAX_ANSWER: u64 = 4096;

/// Asks for `/health`; the address that answered, for people.
///
/// # Errors
/// Nothing listens there, or what listens is not a gateway that is well.
pub async fn run(config: &Config) -> anyhow::Result<String> {
    ensure!(
        config.http.port() != 0,
        "http: port 0 is a different one each time; name the port to ask"
    );
    let address = reachable(config.http);
    let scheme = if config.tls == Tls::Off { "http" } else { "https" };
    let url = format!("{scheme}://{address}/health");
    let asked = timeout(DEADLINE, ask(address, config.tls == Tls::Off)).await;
    asked
        .unwrap_or_else(|_| bail!("no answer within {DEADLINE:?}"))
        .with_context(|| format!("{url} does not answer as a gateway does"))?;
    Ok(url)
}

/// Where one's own machine reaches what listens at `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        // Takes IPv4, too, and is 0.0.0.0 on machines without IPv6.
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) | IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn ask(address: SocketAddr, plain: bool) -> anyhow::Result<()> {
    let connecting = TcpStream::connect(address).await;
    let stream = connecting.context("nothing listens there; give doctor the settings of the gateway")?;
    if plain {
        return talk(stream, address).await;
    }
    // It is this machine that answers, whatever name its certificate is for.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let name = ServerName::IpAddress(address.ip().into());
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = connecting.await.map_err(|error| {
        let tls = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::InvalidMessage(_)) => anyhow!("this port speaks plain HTTP: add --no-tls"),
            _ => error.into(),
        }
    })?;
    talk(stream, address).await
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, address: SocketAddr) -> anyhow::Result<()> {
    let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // A TLS connection that is just dropped is an error; what came before counts.
    let read = stream.take(MAX_ANSWER).read_to_end(&mut answer).await;
    if answer.is_empty() {
        read?;
    }
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    // The first byte of a TLS alert, for a request that is none.
    ensure!(
        !status.starts_with('\u{15}'),
        "this port speaks TLS: leave out --no-tls"
    );
    ensure!(
        status.starts_with("HTTP/1.1 200") && answer.contains("\r\n\r\n"),
        "the answer begins with {status:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::serve::Gateway;

    fn settings(no_tls: bool) -> (Settings, tempfile::TempDir) {
        let state = tempfile::tempdir().unwrap();
        let any = Some(([127, 0, 0, 1], 0).into());
        let settings = Settings {
            http: any,
            native: any,
            webrtc: any,
            no_tls: Some(no_tls),
            state_dir: Some(state.path().to_owned()),
            ..Settings::default()
        };
        (settings, state)
    }

    #[tokio::test]
    async fn gateway_that_runs_is_well_with_tls_and_without() {
        for no_tls in [true, false] {
            let (settings, _state) = settings(no_tls);
            let mut config = settings.resolve().unwrap();
            let gateway = Gateway::start(&config).await.unwrap();
            config.http = gateway.addresses().http;
            let url = run(&config).await.unwrap();
            assert_eq!(url.starts_with("https"), !no_tls, "{url}");
            // The other way round nobody would hear anything.
            config.tls = if no_tls { Tls::SelfSigned } else { Tls::Off };
            let error = format!("{:#}", run(&config).await.unwrap_err());
            assert!(error.contains("does not answer as a gateway"), "{error}");
            assert!(error.contains("--no-tls"), "{error}");
            gateway.shutdown().await;
        }
    }

    #[tokio::test]
    async fn gateway_that_is_not_there_is_told_with_its_address() {
        let (settings, _state) = settings(true);
        let mut config = settings.resolve().unwrap();
        assert!(run(&config).await.unwrap_err().to_string().contains("port 0"));
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        config.http = taken.local_addr().unwrap();
        drop(taken);
        let error = format!("{:#}", run(&config).await.unwrap_err());
        assert!(error.contains(&config.http.to_string()), "{error}");
    }

    #[test]
    fn address_for_everybody_is_asked_at_home() {
        for (listens, asked) in [
            ("[::]:8443", "127.0.0.1:8443"),
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("192.0.2.1:2", "192.0.2.1:2"),
            ("[::1]:3", "[::1]:3"),
        ] {
            let asked: SocketAddr = asked.parse().unwrap();
            assert_eq!(reachable(listens.parse().unwrap()), asked);
        }
    }
}

//! What a person is told when the gateway listens: where to go.

use std::net::{IpAddr, SocketAddr};

use crate::config::Tls;
use crate::serve::Addresses;

/// The lines, without an end. `local` are this machine's addresses in its networks.
pub fn lines(tls: &Tls, addresses: &Addresses, local: &[IpAddr]) -> Vec<String> {
    let scheme = if *tls == Tls::Off { "http" } else { "https" };
    let port = addresses.http.port();
    let mut urls = Vec::new();
    match addresses.http.ip() {
        ip if ip.is_unspecified() => {
            urls.push(format!("{scheme}://localhost:{port}/"));
            // Browsers want a secure context for microphone and camera, so that plain HTTP is of use at home only.
            if *tls != Tls::Off {
                let reached = reached(addresses.http, local);
                urls.extend(reached.map(|address| format!("{scheme}://{address}/   (this network)")));
            }
        }
        ip if ip == IpAddr::from([127, 0, 0, 1]) || ip == IpAddr::from(std::net::Ipv6Addr::LOCALHOST) => {
            urls.push(format!("{scheme}://localhost:{port}/"));
        }
        ip if *tls == Tls::Off && !ip.is_loopback() => urls.push(format!(
            "{scheme}://{}/   (for a proxy: browsers give microphone and camera to HTTPS and localhost only)",
            addresses.http
        )),
        _ => urls.push(format!("{scheme}://{}/", addresses.http)),
    }
    let mut lines = listed("Open", urls);
    if *tls == Tls::SelfSigned {
        lines.push("       The certificate is self-signed: the browser asks once whether you trust it.".to_owned());
    }
    if let Some(native) = addresses.native {
        lines.extend(listed("Native", relays(native, local)));
    }
    if let Some(webrtc) = addresses.webrtc {
        lines.push(format!("WebRTC {} (UDP and TCP)", port_or_address(webrtc)));
    }
    lines
}

/// What to enter in a native app. An address, since apps may take the first one that a name has.
fn relays(native: SocketAddr, local: &[IpAddr]) -> Vec<String> {
    if !native.ip().is_unspecified() {
        return vec![format!("{native}   (QUIC, UDP)")];
    }
    let home = SocketAddr::from(([127, 0, 0, 1], native.port()));
    let mut relays = vec![format!("{home}   (QUIC, UDP)")];
    relays.extend(reached(native, local).map(|address| format!("{address}   (this network)")));
    relays
}

/// Where others reach what listens at an unspecified address.
fn reached(listens: SocketAddr, local: &[IpAddr]) -> impl Iterator<Item = SocketAddr> {
    let fits = move |ip: &&IpAddr| listens.is_ipv6() || ip.is_ipv4();
    local
        .iter()
        .filter(fits)
        .map(move |ip| SocketAddr::new(*ip, listens.port()))
}

fn listed(what: &str, entries: Vec<String>) -> Vec<String> {
    let titles = std::iter::once(what).chain(std::iter::repeat(""));
    titles
        .zip(entries)
        .map(|(title, entry)| format!("{title:<6} {entry}"))
        .collect()
}

fn port_or_address(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("port {}", address.port())
    } else {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tls: &Tls, http: &str, native: &str, local: &[&str]) -> String {
        let addresses = Addresses {
            http: http.parse().unwrap(),
            native: Some(native.parse().unwrap()),
            webrtc: Some("[::]:8444".parse().unwrap()),
            rtmp: None,
        };
        let local: Vec<IpAddr> = local.iter().map(|ip| ip.parse().unwrap()).collect();
        lines(tls, &addresses, &local).join("\n")
    }

    #[test]
    fn gateway_for_everybody_names_every_address() {
        let lines = told(
            &Tls::SelfSigned,
            "[::]:8443",
            "[::]:4433",
            &["192.0.2.7", "10.1.1.1", "2001:db8::7"],
        );
        let expected = "\
Open   https://localhost:8443/
       https://192.0.2.7:8443/   (this network)
       https://10.1.1.1:8443/   (this network)
       https://[2001:db8::7]:8443/   (this network)
       The certificate is self-signed: the browser asks once whether you trust it.
Native 127.0.0.1:4433   (QUIC, UDP)
       192.0.2.7:4433   (this network)
       10.1.1.1:4433   (this network)
       [2001:db8::7]:4433   (this network)
WebRTC port 8444 (UDP and TCP)";
        assert_eq!(lines, expected);
    }

    #[test]
    fn gateway_at_one_address_names_that_one_alone() {
        let lines = told(
            &Tls::SelfSigned,
            "192.0.2.7:443",
            "192.0.2.7:4433",
            &["192.0.2.7", "10.1.1.1"],
        );
        assert!(lines.starts_with("Open   https://192.0.2.7:443/\n"), "{lines}");
        assert!(lines.contains("Native 192.0.2.7:4433   (QUIC, UDP)\nWebRTC"), "{lines}");
        assert!(!lines.contains("localhost") && !lines.contains("10.1.1.1"), "{lines}");
    }

    #[test]
    fn plain_http_is_for_this_machine_and_proxies() {
        let lines = told(&Tls::Off, "0.0.0.0:80", "0.0.0.0:4433", &["192.0.2.7", "2001:db8::7"]);
        assert!(
            lines.starts_with("Open   http://localhost:80/\nNative 127.0.0.1:4433"),
            "{lines}"
        );
        assert!(lines.contains("       192.0.2.7:4433"), "{lines}");
        assert!(!lines.contains("self-signed") && !lines.contains("2001"), "{lines}");
        let lines = told(&Tls::Off, "192.0.2.7:80", "[::1]:4433", &[]);
        assert!(
            lines.starts_with("Open   http://192.0.2.7:80/   (for a proxy:"),
            "{lines}"
        );
        assert!(lines.contains("Native [::1]:4433"), "{lines}");
        let lines = told(&Tls::Off, "127.0.0.1:80", "127.0.0.1:4433", &[]);
        assert!(lines.starts_with("Open   http://localhost:80/\n"), "{lines}");
    }
}

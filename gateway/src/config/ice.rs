//! STUN and TURN servers that WebRTC clients are told of.

use std::net::Ipv6Addr;

use serde::Serialize;

/// A server, as `RTCPeerConnection` takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IceServer {
    /// `stun:`, `stuns:`, `turn:` or `turns:` address (RFC 7064, RFC 7065).
    urls: String,
    /// Username and password of a TURN server.
    #[serde(flatten)]
    login: Option<Login>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Login {
    username: String,
    credential: String,
}

impl IceServer {
    /// Reads `URL`, for TURN `URL USERNAME CREDENTIAL`.
    ///
    /// # Errors
    /// A sentence that says what does not fit.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let url = *words.first().ok_or("an ICE server is empty")?;
        let wrong = |what: &str| format!("ice_server {url:?}: {what}");
        let (scheme, rest) = url
            .split_once(':')
            .ok_or_else(|| wrong("it begins with stun:, stuns:, turn: or turns:"))?;
        let is_turn = match scheme {
            "turn" | "turns" => true,
            "stun" | "stuns" => false,
            _ => return Err(wrong("it begins with stun:, stuns:, turn: or turns:")),
        };
        let (host, query) = rest
            .split_once('?')
            .map_or((rest, None), |(host, query)| (host, Some(query)));
        if !is_host(host) {
            return Err(wrong("after the scheme come a host and, if need be, a port"));
        }
        match query {
            None => {}
            Some("transport=udp" | "transport=tcp") if is_turn => {}
            Some(_) if is_turn => return Err(wrong("only ?transport=udp or ?transport=tcp may follow")),
            Some(_) => return Err(wrong("nothing may follow the address of a STUN server")),
        }
        let login = match (is_turn, &words[1..]) {
            (true, [username, credential]) => {
                // They go into HTTP headers as quoted strings.
                let fits = |word: &str| word.bytes().all(|byte| byte.is_ascii_graphic());
                if !fits(username) || !fits(credential) {
                    return Err(wrong("username and credential must be printable ASCII"));
                }
                Some(Login {
                    username: (*username).to_owned(),
                    credential: (*credential).to_owned(),
                })
            }
            (true, _) => return Err(wrong("a TURN server is URL USERNAME CREDENTIAL, with spaces between")),
            (false, []) => None,
            (false, _) => return Err(wrong("a STUN server takes no username and credential")),
        };
        Ok(Self {
            urls: url.to_owned(),
            login,
        })
    }

    /// The value of a `Link` header (RFC 9725, section 4.6).
    pub fn link(&self) -> String {
        let mut link = format!("<{}>; rel=\"ice-server\"", self.urls);
        if let Some(Login { username, credential }) = &self.login {
            let (username, credential) = (quoted(username), quoted(credential));
            link += &format!("; username={username}; credential={credential}; credential-type=\"password\"");
        }
        link
    }
}

/// A quoted string (RFC 9110, section 5.6.4).
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

/// A name or address, with or without a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((ip, port)) = rest.split_once(']') else {
                return false;
            };
            if ip.parse::<Ipv6Addr>().is_err() {
                return false;
            }
            if port.is_empty() {
                return true;
            }
            ("ip", port.strip_prefix(':').unwrap_or_default())
        }
        None => text.split_once(':').unwrap_or((text, "1")),
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !host.is_empty()
        && host.bytes().all(fits)
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_told_as_link_and_as_json() {
        let stun = IceServer::parse("stun:stun.example.net").unwrap();
        assert_eq!(stun.link(), "<stun:stun.example.net>; rel=\"ice-server\"");
        assert_eq!(
            serde_json::to_string(&stun).unwrap(),
            r#"{"urls":"stun:stun.example.net"}"#
        );
        let turn = IceServer::parse(r#"turns:[2001:db8::1]:5349?transport=tcp  user pa"ss\"#).unwrap();
        assert_eq!(
            turn.link(),
            r#"<turns:[2001:db8::1]:5349?transport=tcp>; rel="ice-server"; username="user"; credential="pa\"ss\\"; credential-type="password""#
        );
        let expected = r#"{"urls":"turns:[2001:db8::1]:5349?transport=tcp","username":"user","credential":"pa\"ss\\"}"#;
        assert_eq!(serde_json::to_string(&turn).unwrap(), expected);
    }

    #[test]
    fn what_browsers_would_choke_on_is_refused() {
        let wrong = [
            "",
            "stun.example.net",
            "http://stun.example.net",
            "stun:",
            "stun:host:0",
            "stun:host:70000",
            "stun:host:+1",
            "stun:host:",
            "stun:ho<st",
            "stun://host",
            "stun:host?transport=udp",
            "stun:host user secret",
            "turn:host",
            "turn:host user",
            "turn:host user secret more",
            "turn:host?transport=sctp user secret",
            "turn:[2001:db8::zz] user secret",
            "turn:[2001:db8::1 user secret",
            "turn:[2001:db8::1]5 user secret",
            "turn:host user sécret",
        ];
        for text in wrong {
            assert!(IceServer::parse(text).is_err(), "{text:?} was taken");
        }
    }
}

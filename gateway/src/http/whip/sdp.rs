//! What WHIP and WHEP read in session descriptions and in trickle-ICE fragments (RFC 8840). The offer itself is judged by
//! the engine; here is only what HTTP must know.

use crate::media::frame::Kind;

/// Candidates that one fragment may carry.
pub const MAX_CANDIDATES: usize = 64;
/// Longest `candidate:` line, bytes.
const MAX_CANDIDATE: usize = 512;

/// One m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Sound or picture; `None`: neither.
    pub kind: Option<Kind>,
    /// Port 0 without `bundle-only`: rejected or stopped.
    pub stopped: bool,
    /// Whoever wrote it sends.
    pub sends: bool,
    /// Whoever wrote it receives.
    pub receives: bool,
    /// The codec that it names first is AV1.
    pub av1_first: bool,
}

/// ICE credentials (RFC 8839).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// 4 to 256 characters.
    pub ufrag: String,
    /// 22 to 256 characters.
    pub password: String,
}

/// A trickle-ICE fragment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Whose candidates they are; new ones restart ICE.
    pub credentials: Option<Credentials>,
    /// `candidate:` lines.
    pub candidates: Vec<String>,
}

/// Why a fragment was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// Not lines of the form `x=…`.
    #[error("line {0} is not of the form `x=…`")]
    Line(usize),
    /// One without the other, or of a length that ICE does not allow.
    #[error("ice-ufrag (4 to 256 characters) and ice-pwd (22 to 256) are needed together")]
    Credentials,
    /// Not a candidate.
    #[error("line {0} is not an ICE candidate")]
    Candidate(usize),
    /// More than [`MAX_CANDIDATES`].
    #[error("more than {MAX_CANDIDATES} candidates in one fragment")]
    TooMany,
    /// Nothing in it.
    #[error("the fragment has neither candidates nor credentials nor an end of candidates")]
    Empty,
}

/// Whether this looks like a session description at all.
pub fn is_sdp(text: &str) -> bool {
    text.starts_with("v=0") && text.lines().any(|line| line.starts_with("m="))
}

/// The m-lines in order.
pub fn sections(sdp: &str) -> Vec<Section> {
    let mut found: Vec<Section> = Vec::new();
    let mut first_format = "";
    for line in sdp.lines().map(str::trim_end) {
        if let Some(media) = line.strip_prefix("m=") {
            let mut words = media.split(' ');
            let kind = match words.next() {
                Some("audio") => Some(Kind::Audio),
                Some("video") => Some(Kind::Video),
                _ => None,
            };
            let stopped = words.next() == Some("0");
            first_format = words.nth(1).unwrap_or_default();
            found.push(Section {
                kind,
                stopped,
                sends: true,
                receives: true,
                av1_first: false,
            });
            continue;
        }
        let Some(section) = found.last_mut() else { continue };
        match line {
            "a=sendonly" => section.receives = false,
            "a=recvonly" => section.sends = false,
            "a=inactive" => (section.sends, section.receives) = (false, false),
            "a=bundle-only" => section.stopped = false,
            _ => {
                let name = line
                    .strip_prefix("a=rtpmap:")
                    .and_then(|rest| rest.strip_prefix(first_format));
                section.av1_first |= name.is_some_and(|name| name.trim().to_ascii_lowercase().starts_with("av1/"));
            }
        }
    }
    found
}

/// All credentials that a description names: one pair, with BUNDLE.
pub fn credentials(sdp: &str) -> Vec<Credentials> {
    let values = |name: &'static str| sdp.lines().filter_map(move |line| line.trim_end().strip_prefix(name));
    let mut found: Vec<Credentials> = Vec::new();
    for (ufrag, password) in values("a=ice-ufrag:").zip(values("a=ice-pwd:")) {
        let pair = Credentials {
            ufrag: ufrag.to_owned(),
            password: password.to_owned(),
        };
        if !found.contains(&pair) {
            found.push(pair);
        }
    }
    found
}

/// The same description under new credentials and without candidates: an offer that restarts ICE.
pub fn restarted(sdp: &str, new: &Credentials) -> String {
    let mut out = String::with_capacity(sdp.len() + 64);
    for line in sdp.lines().map(str::trim_end) {
        if line.starts_with("a=ice-ufrag:") {
            out.push_str("a=ice-ufrag:");
            out.push_str(&new.ufrag);
        } else if line.starts_with("a=ice-pwd:") {
            out.push_str("a=ice-pwd:");
            out.push_str(&new.password);
        } else if line.starts_with("a=candidate:") || line == "a=end-of-candidates" {
            continue;
        } else {
            out.push_str(line);
        }
        out.push_str("\r\n");
    }
    out
}

/// The transport part of an answer, as a fragment: ICE options, credentials, candidates.
pub fn fragment_of(answer: &str) -> String {
    let mut out = String::new();
    let mut wanted = Vec::new();
    let mut in_media = 0;
    for line in answer.lines().map(str::trim_end) {
        let is_media = line.starts_with("m=");
        in_media += u32::from(is_media);
        // With BUNDLE one transport serves all m-lines: that of the first.
        if in_media > 1 {
            break;
        }
        let ice = ["a=ice-lite", "a=ice-options:", "a=ice-ufrag:", "a=ice-pwd:"];
        if ice.iter().any(|name| line.starts_with(name)) {
            out.push_str(line);
            out.push_str("\r\n");
        } else if is_media
            || line.starts_with("a=mid:")
            || line.starts_with("a=candidate:")
            || line == "a=end-of-candidates"
        {
            wanted.push(line);
        }
    }
    for line in wanted {
        out.push_str(line);
        out.push_str("\r\n");
    }
    out
}

/// Reads a fragment.
///
/// # Errors
/// [`FragmentError`], in words for the peer.
pub fn parse_fragment(text: &str) -> Result<Fragment, FragmentError> {
    let mut fragment = Fragment::default();
    let (mut ufrag, mut password) = (None, None);
    let mut ended = false;
    for (at, line) in text.lines().map(str::trim_end).enumerate() {
        if line.is_empty() {
            continue;
        }
        let bytes = line.as_bytes();
        if bytes.len() < 3 || !bytes[0].is_ascii_lowercase() || bytes[1] != b'=' {
            return Err(FragmentError::Line(at + 1));
        }
        if let Some(value) = line.strip_prefix("a=ice-ufrag:") {
            ufrag.get_or_insert(value);
        } else if let Some(value) = line.strip_prefix("a=ice-pwd:") {
            password.get_or_insert(value);
        } else if let Some(candidate) = line.strip_prefix("a=").filter(|rest| rest.starts_with("candidate:")) {
            // foundation component transport priority address port "typ" type: RFC 8839, section 5.1
            let mut words = candidate.split(' ').filter(|word| !word.is_empty());
            if candidate.len() > MAX_CANDIDATE || words.clone().count() < 8 || words.nth(6) != Some("typ") {
                return Err(FragmentError::Candidate(at + 1));
            }
            if fragment.candidates.len() == MAX_CANDIDATES {
                return Err(FragmentError::TooMany);
            }
            fragment.candidates.push(candidate.to_owned());
        } else if line == "a=end-of-candidates" {
            ended = true;
        }
    }
    fragment.credentials = match (ufrag, password) {
        (None, None) => None,
        (Some(ufrag), Some(password)) if is_token(ufrag, 4) && is_token(password, 22) => Some(Credentials {
            ufrag: ufrag.to_owned(),
            password: password.to_owned(),
        }),
        _ => return Err(FragmentError::Credentials),
    };
    if fragment.candidates.is_empty() && fragment.credentials.is_none() && !ended {
        return Err(FragmentError::Empty);
    }
    Ok(fragment)
}

/// `ice-char`s, at least so many: RFC 8839, section 5.4. Some agents add `-`, `_` and `=`, which harm nobody.
fn is_token(text: &str, least: usize) -> bool {
    (least..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=sendonly\r\na=ice-ufrag:abcd\r\n\
        a=ice-pwd:0123456789012345678901\r\na=rtpmap:111 opus/48000/2\r\n\
        a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n\
        m=video 0 UDP/TLS/RTP/SAVPF 45 96\r\na=mid:1\r\na=bundle-only\r\na=recvonly\r\na=ice-ufrag:abcd\r\n\
        a=ice-pwd:0123456789012345678901\r\na=rtpmap:45 AV1/90000\r\na=rtpmap:96 H264/90000\r\n";

    fn pair(ufrag: &str, password: &str) -> Credentials {
        Credentials {
            ufrag: ufrag.to_owned(),
            password: password.to_owned(),
        }
    }

    #[test]
    fn m_lines_are_read() {
        assert!(is_sdp(OFFER));
        let [audio, video] = sections(OFFER)[..] else {
            panic!("two m-lines")
        };
        assert_eq!(
            (audio.kind, audio.sends, audio.receives),
            (Some(Kind::Audio), true, false)
        );
        assert_eq!(
            (video.kind, video.sends, video.receives),
            (Some(Kind::Video), false, true)
        );
        assert!(!video.stopped && video.av1_first && !audio.av1_first);
    }

    #[test]
    fn an_offer_under_new_credentials_is_otherwise_the_same() {
        let new = pair("wxyz", "abcdefghijabcdefghijab");
        let again = restarted(OFFER, &new);
        assert_eq!(credentials(&again), std::slice::from_ref(&new));
        assert_eq!(credentials(OFFER).len(), 1);
        assert!(!again.contains("a=candidate"));
        assert_eq!(sections(&again), sections(OFFER));
        let fragment = fragment_of(&again);
        assert!(fragment.starts_with("a=ice-ufrag:wxyz\r\na=ice-pwd:abcdefghijabcdefghijab\r\nm=audio "));
        assert_eq!(parse_fragment(&fragment).unwrap().credentials, Some(new));
    }

    #[test]
    fn fragments_are_bounded_and_checked() {
        let candidate = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
        assert_eq!(parse_fragment(candidate).unwrap().candidates.len(), 1);
        assert!(parse_fragment(&candidate.repeat(MAX_CANDIDATES)).is_ok());
        assert_eq!(
            parse_fragment(&candidate.repeat(MAX_CANDIDATES + 1)),
            Err(FragmentError::TooMany)
        );
        let long = format!(
            "a=candidate:1 1 udp 1 192.0.2.1 9 typ host {}\r\n",
            "x".repeat(MAX_CANDIDATE)
        );
        assert_eq!(parse_fragment(&long), Err(FragmentError::Candidate(1)));
        assert_eq!(parse_fragment("a=candidate:1 1\n"), Err(FragmentError::Candidate(1)));
        assert_eq!(parse_fragment("hello"), Err(FragmentError::Line(1)));
        assert_eq!(parse_fragment("a=mid:0\n"), Err(FragmentError::Empty));
        assert_eq!(parse_fragment("a=ice-ufrag:abcd\n"), Err(FragmentError::Credentials));
        let short = "a=ice-ufrag:abc\na=ice-pwd:0123456789012345678901\n";
        assert_eq!(parse_fragment(short), Err(FragmentError::Credentials));
        assert!(parse_fragment("m=audio 9 UDP/TLS/RTP/SAVPF 0\na=mid:0\na=end-of-candidates\n").is_ok());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "(a=|m=|v=|ice-ufrag:|ice-pwd:|candidate:|[ -~]|\r?\n){0,60}") {
            let _ = parse_fragment(&text);
            let _ = (sections(&text), credentials(&text), fragment_of(&text), is_sdp(&text));
        }

        #[test]
        fn a_fragment_of_candidates_is_read_whole(count in 1usize..=MAX_CANDIDATES, port in 1u16..) {
            let line = format!("a=candidate:1 1 udp 1 192.0.2.1 {port} typ host\r\n");
            prop_assert_eq!(parse_fragment(&line.repeat(count)).unwrap().candidates.len(), count);
        }
    }
}

//! Reads an SDP offer (RFC 8866, RFC 8829) into what the engine needs of it. Everything a peer can write here is
//! bounded and checked once; later stages handle only the types below.

use std::collections::BTreeMap;
use std::io::Cursor;

use rtc::sdp::description::media::MediaDescription;
use rtc::sdp::description::session::SessionDescription;

use super::types::{Codec, Kind, Label, Mid, Rid};

/// Largest offer, in bytes. A Chromium offer with 60 m-lines is about 150 kB when all codecs are listed.
pub const MAX_OFFER: usize = 512 * 1024;
/// Most m-lines in an offer.
pub const MAX_LINES: usize = 128;
/// Most SSRCs and candidates that are remembered of one m-line.
const MAX_PER_LINE: usize = 32;

/// Longest `a=fmtp` of a codec of ours, in bytes: parameter sets may be among them.
const MAX_PARAMETERS: usize = 2_048;
/// Most formats of one m-line: there are no more payload types.
const MAX_FORMATS: usize = 128;
/// Most `a=rtcp-fb` of one payload type; browsers write about six.
const MAX_FEEDBACK: usize = 32;

/// Why an offer was refused. All of these are the peer's doing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Over [`MAX_OFFER`].
    #[error("the offer is {0} bytes long, more than {MAX_OFFER} allowed: offer fewer m-lines")]
    TooLong(usize),
    /// Over [`MAX_LINES`].
    #[error("the offer has {0} m-lines, more than {MAX_LINES} allowed")]
    TooManyLines(usize),
    /// Not SDP.
    #[error("the offer is not SDP: {0}")]
    Malformed(String),
    /// A required attribute is missing or unusable.
    #[error("the offer lacks a usable {0}")]
    Missing(&'static str),
    /// A renegotiation dropped or reordered m-lines.
    #[error("the offer has {offered} m-lines but {known} were negotiated before: m-lines are never removed (RFC 8829)")]
    LinesRemoved {
        /// M-lines in this offer.
        offered: usize,
        /// M-lines negotiated before.
        known: usize,
    },
    /// Two m-lines share a mid.
    #[error("the offer uses the mid {0:?} twice")]
    DuplicateMid(Mid),
    /// An m-line lists more than any sound one does.
    #[error("the m-line {mid:?} has more than {limit} {what}")]
    TooMuch {
        /// The m-line.
        mid: Mid,
        /// Of what.
        what: &'static str,
        /// How much would be accepted.
        limit: usize,
    },
    /// The peer's certificate changed.
    #[error("the offer changes the DTLS fingerprint of a running session: start a new session instead")]
    FingerprintChanged,
    /// Nothing that both sides can use.
    #[error("no codec in common: the gateway speaks {0}")]
    NoCommonCodec(String),
    /// No room for another session.
    #[error("the gateway has reached its limit of {0} WebRTC sessions: try again later")]
    TooManySessions(usize),
    /// The engine could not set up the session.
    #[error("the WebRTC engine could not start the session: {0}")]
    Engine(String),
}

/// ICE credentials (RFC 8839).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    pub ufrag: String,
    pub password: String,
}

/// Which side opens the DTLS handshake (RFC 8842).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setup {
    Active,
    Passive,
    ActPass,
}

/// A hash over the peer's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub algorithm: String,
    pub digest: Vec<u8>,
}

/// One payload type that matches a codec of ours.
#[derive(Clone, Debug)]
pub(super) struct OfferedCodec {
    pub codec: Codec,
    pub payload_type: u8,
    pub rtx: Option<u8>,
    pub parameters: String,
    pub feedback: Vec<String>,
    /// Lower is better, among the variants of one codec.
    pub rank: u8,
}

/// One m-line of an offer.
#[derive(Clone, Debug)]
pub(super) struct OfferedLine {
    pub mid: Mid,
    /// `None` for a data channel or an unknown kind of media, which is always rejected.
    pub kind: Option<Kind>,
    pub media: String,
    pub protocol: String,
    /// The first of its formats, which a rejected m-line repeats.
    pub format: String,
    /// The port is 0 without `bundle-only`: stopped.
    pub stopped: bool,
    /// The peer sends.
    pub sends: bool,
    /// The peer receives.
    pub receives: bool,
    pub codecs: Vec<OfferedCodec>,
    /// URI to id.
    pub extensions: BTreeMap<String, u8>,
    /// Media SSRCs with the RTX SSRC of each.
    pub ssrcs: Vec<(u32, Option<u32>)>,
    pub rids: Vec<Rid>,
    pub stream: Option<String>,
}

/// An offer.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub credentials: Credentials,
    pub fingerprints: Vec<Fingerprint>,
    pub setup: Setup,
    pub peer_is_lite: bool,
    pub extmap_allow_mixed: bool,
    pub lines: Vec<OfferedLine>,
    pub candidates: Vec<String>,
}

/// Parses an offer.
pub(super) fn parse(sdp: &str) -> Result<Offer, OfferError> {
    if sdp.len() > MAX_OFFER {
        return Err(OfferError::TooLong(sdp.len()));
    }
    let session = SessionDescription::unmarshal(&mut Cursor::new(sdp.as_bytes()))
        .map_err(|error| OfferError::Malformed(error.to_string()))?;
    if session.media_descriptions.is_empty() {
        return Err(OfferError::Missing("m-line"));
    }
    if session.media_descriptions.len() > MAX_LINES {
        return Err(OfferError::TooManyLines(session.media_descriptions.len()));
    }

    let mut lines = Vec::with_capacity(session.media_descriptions.len());
    let mut candidates = Vec::new();
    for media in &session.media_descriptions {
        let line = parse_line(media)?;
        if lines.iter().any(|known: &OfferedLine| known.mid == line.mid) {
            return Err(OfferError::DuplicateMid(line.mid));
        }
        candidates.extend(values(media, "candidate").take(MAX_PER_LINE).map(str::to_owned));
        lines.push(line);
    }
    candidates.truncate(MAX_PER_LINE);

    // With BUNDLE all m-lines share one transport, that of the first one that is not stopped.
    let transport = lines.iter().position(|line| !line.stopped).unwrap_or(0);
    let transport = &session.media_descriptions[transport];
    let find = |key: &str| value(transport, key).or_else(|| session.attribute(key).map(String::as_str));
    let ufrag = find("ice-ufrag")
        .filter(|v| (4..=256).contains(&v.len()))
        .ok_or(OfferError::Missing("ice-ufrag"))?;
    let password = find("ice-pwd")
        .filter(|v| (22..=256).contains(&v.len()))
        .ok_or(OfferError::Missing("ice-pwd"))?;
    let setup = match find("setup") {
        Some("actpass") | None => Setup::ActPass,
        Some("active") => Setup::Active,
        Some("passive") => Setup::Passive,
        Some(_) => return Err(OfferError::Missing("a=setup")),
    };
    let mut fingerprints: Vec<Fingerprint> = values(transport, "fingerprint").filter_map(parse_fingerprint).collect();
    if fingerprints.is_empty() {
        let of_session = session.attributes.iter().filter(|a| a.key == "fingerprint");
        fingerprints = of_session
            .filter_map(|a| parse_fingerprint(a.value.as_deref()?))
            .collect();
    }
    if fingerprints.is_empty() {
        return Err(OfferError::Missing("a=fingerprint (sha-256, sha-384 or sha-512)"));
    }
    Ok(Offer {
        credentials: Credentials {
            ufrag: ufrag.to_owned(),
            password: password.to_owned(),
        },
        fingerprints,
        setup,
        peer_is_lite: session.has_attribute("ice-lite"),
        extmap_allow_mixed: session.has_attribute("extmap-allow-mixed"),
        lines,
        candidates,
    })
}

fn value<'a>(media: &'a MediaDescription, key: &str) -> Option<&'a str> {
    media
        .attributes
        .iter()
        .find(|a| a.key == key)
        .and_then(|a| a.value.as_deref())
}

fn values<'a>(media: &'a MediaDescription, key: &'a str) -> impl Iterator<Item = &'a str> {
    media
        .attributes
        .iter()
        .filter(move |a| a.key == key)
        .filter_map(|a| a.value.as_deref())
}

fn parse_fingerprint(text: &str) -> Option<Fingerprint> {
    let (algorithm, digest) = text.trim().split_once(' ')?;
    let algorithm = algorithm.to_ascii_lowercase();
    let length = match algorithm.as_str() {
        "sha-256" => 32,
        "sha-384" => 48,
        "sha-512" => 64,
        _ => return None,
    };
    let digest = hex::decode(digest.trim().replace(':', "")).ok()?;
    (digest.len() == length).then_some(Fingerprint { algorithm, digest })
}

fn parse_line(media: &MediaDescription) -> Result<OfferedLine, OfferError> {
    let mid = value(media, "mid")
        .and_then(Label::new)
        .ok_or(OfferError::Missing("a=mid of at most 16 characters"))?;
    let kind = match media.media_name.media.as_str() {
        "audio" => Some(Kind::Audio),
        "video" => Some(Kind::Video),
        _ => None,
    };
    let has = |key: &str| media.attributes.iter().any(|a| a.key == key);
    let (sends, receives) = if has("inactive") {
        (false, false)
    } else if has("sendonly") {
        (true, false)
    } else if has("recvonly") {
        (false, true)
    } else {
        (true, true)
    };
    let stopped = media.media_name.port.value == 0 && !has("bundle-only");
    let muxed = has("rtcp-mux");
    let extensions = values(media, "extmap")
        .take(MAX_PER_LINE)
        .filter_map(parse_extension)
        .collect();
    let codecs = match kind {
        Some(kind) => parse_codecs(media, kind).map_err(|(what, limit)| OfferError::TooMuch { mid, what, limit })?,
        None => Vec::new(),
    };
    Ok(OfferedLine {
        mid,
        kind: kind.filter(|_| muxed || stopped),
        media: media.media_name.media.clone(),
        protocol: media.media_name.protos.join("/"),
        format: media.media_name.formats.first().cloned().unwrap_or_default(),
        stopped,
        sends,
        receives,
        codecs,
        extensions,
        ssrcs: parse_ssrcs(media),
        rids: parse_rids(media),
        stream: parse_stream(media),
    })
}

/// `<id>[/<direction>] <uri> [...]` (RFC 8285, section 5).
fn parse_extension(text: &str) -> Option<(String, u8)> {
    let mut words = text.split_whitespace();
    let id = words.next()?.split('/').next()?.parse::<u8>().ok()?;
    let uri = words.next()?;
    (1..=14).contains(&id).then(|| (uri.to_owned(), id))
}

/// Media SSRCs and their RTX partners, from `a=ssrc` and `a=ssrc-group:FID` (RFC 5576).
fn parse_ssrcs(media: &MediaDescription) -> Vec<(u32, Option<u32>)> {
    let mut pairs: Vec<(u32, Option<u32>)> = Vec::new();
    for group in values(media, "ssrc-group").take(MAX_PER_LINE) {
        let mut words = group.split_whitespace();
        if words.next() != Some("FID") {
            continue;
        }
        let ids: Vec<u32> = words.filter_map(|word| word.parse().ok()).collect();
        if let [primary, rtx] = ids[..] {
            pairs.push((primary, Some(rtx)));
        }
    }
    for line in values(media, "ssrc") {
        let Some(ssrc) = line.split_whitespace().next().and_then(|word| word.parse::<u32>().ok()) else {
            continue;
        };
        let known = pairs.iter().any(|&(primary, rtx)| primary == ssrc || rtx == Some(ssrc));
        if !known && pairs.len() < MAX_PER_LINE {
            pairs.push((ssrc, None));
        }
    }
    pairs
}

/// `a=rid:<name> send` of each layer (RFC 8851).
fn parse_rids(media: &MediaDescription) -> Vec<Rid> {
    let sent = values(media, "rid").filter_map(|line| {
        let mut words = line.split_whitespace();
        let rid = words.next().and_then(Label::new)?;
        (words.next() == Some("send")).then_some(rid)
    });
    sent.take(8).collect()
}

fn parse_stream(media: &MediaDescription) -> Option<String> {
    let id = value(media, "msid")?.split_whitespace().next()?;
    (id != "-" && id.len() <= 128).then(|| id.to_owned())
}

/// The formats that are codecs of ours, each payload type once; or what there is too much of, and how much may be.
fn parse_codecs(media: &MediaDescription, kind: Kind) -> Result<Vec<OfferedCodec>, (&'static str, usize)> {
    if media.media_name.formats.len() > MAX_FORMATS {
        return Err(("formats", MAX_FORMATS));
    }
    let mut names: BTreeMap<u8, String> = BTreeMap::new();
    let mut parameters: BTreeMap<u8, String> = BTreeMap::new();
    let mut feedback: BTreeMap<u8, Vec<String>> = BTreeMap::new();
    let mut everywhere: Vec<String> = Vec::new();
    for attribute in &media.attributes {
        let Some((head, tail)) = attribute.value.as_deref().and_then(|value| value.split_once(' ')) else {
            continue;
        };
        let tail = tail.trim();
        match (attribute.key.as_str(), head.parse::<u8>()) {
            ("rtpmap", Ok(pt)) => drop(names.insert(pt, tail.to_ascii_lowercase())),
            ("fmtp", Ok(pt)) => drop(parameters.insert(pt, tail.to_owned())),
            ("rtcp-fb", Ok(pt)) => feedback.entry(pt).or_default().push(tail.to_ascii_lowercase()),
            ("rtcp-fb", Err(_)) if head == "*" => everywhere.push(tail.to_ascii_lowercase()),
            _ => {}
        }
    }
    let most = feedback.values().map(Vec::len).max().unwrap_or_default();
    if most.max(everywhere.len()) > MAX_FEEDBACK {
        return Err(("rtcp-fb attributes for one format", MAX_FEEDBACK));
    }
    let rtx_of = |media_pt: u8| {
        names.iter().find_map(|(&pt, name)| {
            let apt = parameter(parameters.get(&pt)?, "apt")?.parse::<u8>().ok()?;
            (name.starts_with("rtx/") && apt == media_pt).then_some(pt)
        })
    };
    let mut codecs: Vec<OfferedCodec> = Vec::new();
    for format in &media.media_name.formats {
        let Ok(payload_type) = format.parse::<u8>() else {
            continue;
        };
        let Some(name) = names.get(&payload_type) else { continue };
        let fmtp = parameters.get(&payload_type).map(String::as_str).unwrap_or_default();
        let Some((codec, rank)) = match_codec(name, fmtp) else {
            continue;
        };
        let known = codecs.iter().any(|codec| codec.payload_type == payload_type);
        if codec.kind() != kind || payload_type > 127 || known {
            continue;
        }
        if fmtp.len() > MAX_PARAMETERS {
            return Err(("bytes of fmtp for one format", MAX_PARAMETERS));
        }
        codecs.push(OfferedCodec {
            codec,
            payload_type,
            rtx: rtx_of(payload_type),
            parameters: fmtp.to_owned(),
            feedback: feedback
                .get(&payload_type)
                .into_iter()
                .flatten()
                .chain(&everywhere)
                .cloned()
                .collect(),
            rank,
        });
    }
    Ok(codecs)
}

/// The value of one `name=value` in an `a=fmtp` line.
pub(super) fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|item| {
        let (key, value) = item.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Our codec for an `a=rtpmap` name, and how much we like this variant of it (lower is better).
fn match_codec(name: &str, fmtp: &str) -> Option<(Codec, u8)> {
    match name {
        "opus/48000/2" => Some((Codec::Opus, 0)),
        "h264/90000" => {
            // Only mode 1 allows FU-A, without which no keyframe fits. Profiles from most to least widely decodable;
            // a receiver of constrained baseline decodes what we send in all browsers (they ignore the profile).
            if parameter(fmtp, "packetization-mode") != Some("1") {
                return None;
            }
            let profile = parameter(fmtp, "profile-level-id")
                .unwrap_or("42e01f")
                .to_ascii_lowercase();
            let rank = match profile.get(..4)? {
                "42e0" | "42c0" => 0,
                "4200" => 1,
                other if other.starts_with("42") => 2,
                other if other.starts_with("4d") => 3,
                other if other.starts_with("64") => 4,
                _ => return None,
            };
            Some((Codec::H264, rank))
        }
        "av1/90000" => match parameter(fmtp, "profile") {
            None | Some("0") => Some((Codec::Av1, 0)),
            Some(_) => None,
        },
        "h265/90000" => match parameter(fmtp, "profile-id") {
            None | Some("1") => Some((Codec::H265, 0)),
            Some(_) => None,
        },
        _ => None,
    }
}

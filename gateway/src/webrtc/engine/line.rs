//! One m-line after negotiation: what was agreed, and the answer's text for it (RFC 8829, section 5.3).

use std::fmt::Write as _;

use super::offer::{OfferedCodec, OfferedLine};
use super::types::{AgreedCodec, Codec, Direction, Kind, MediaLine, Mid, OfferPolicy, Rid};

const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
const REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
pub(super) const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// Ids of the header extensions agreed on one m-line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ExtensionIds {
    pub mid: Option<u8>,
    pub rid: Option<u8>,
    pub repaired_rid: Option<u8>,
    pub audio_level: Option<u8>,
    pub abs_send_time: Option<u8>,
    pub transport_cc: Option<u8>,
}

/// A codec agreed on one m-line.
#[derive(Clone, Debug)]
pub(super) struct LineCodec {
    pub codec: Codec,
    pub payload_type: u8,
    pub rtx: Option<u8>,
    pub parameters: String,
    pub feedback: Vec<&'static str>,
}

/// The SSRCs we send with on one m-line. They stay for the life of the m-line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LocalSsrcs {
    pub media: u32,
    pub rtx: u32,
}

/// One m-line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub mid: Mid,
    pub kind: Option<Kind>,
    pub direction: Direction,
    pub codecs: Vec<LineCodec>,
    pub extensions: ExtensionIds,
    pub local: LocalSsrcs,
    pub remote: Vec<(u32, Option<u32>)>,
    pub rids: Vec<Rid>,
    stream: Option<String>,
    media: String,
    protocol: String,
    format: String,
    extmap: Vec<(u8, &'static str)>,
}

/// What all m-lines of an answer have in common.
pub(super) struct AnswerContext<'a> {
    pub ufrag: &'a str,
    pub password: &'a str,
    pub fingerprint: &'a str,
    pub setup: &'a str,
    pub lite: bool,
    pub extmap_allow_mixed: bool,
    pub candidates: &'a [String],
    pub cname: &'a str,
    pub session_id: u64,
    pub version: u64,
    pub policy: &'a OfferPolicy,
}

impl Line {
    /// Agrees on what `offered` and `policy` have in common.
    pub fn negotiate(offered: &OfferedLine, policy: &OfferPolicy, local: LocalSsrcs) -> Self {
        let codecs = if offered.stopped {
            Vec::new()
        } else {
            agree_codecs(&offered.codecs, policy, offered.sends && policy.receive)
        };
        let accepted = !codecs.is_empty() && offered.kind.is_some();
        let direction = Direction {
            send: accepted && offered.receives && policy.send,
            recv: accepted && offered.sends && policy.receive,
        };
        let (extensions, extmap) = match offered.kind {
            Some(kind) if accepted => agree_extensions(offered, kind, policy.layers),
            _ => Default::default(),
        };
        Self {
            mid: offered.mid,
            kind: offered.kind,
            direction,
            codecs,
            extensions,
            local,
            remote: if direction.recv {
                offered.ssrcs.clone()
            } else {
                Vec::new()
            },
            rids: if direction.recv && policy.layers {
                offered.rids.clone()
            } else {
                Vec::new()
            },
            stream: offered.stream.clone(),
            media: offered.media.clone(),
            protocol: offered.protocol.clone(),
            format: offered.format.clone(),
            extmap,
        }
    }

    /// Not rejected.
    pub fn accepted(&self) -> bool {
        !self.codecs.is_empty() && self.kind.is_some()
    }

    pub fn codec(&self, codec: Codec) -> Option<&LineCodec> {
        self.codecs.iter().find(|known| known.codec == codec)
    }

    /// The codec of a payload type, and whether that type is its RTX.
    pub fn by_payload_type(&self, payload_type: u8) -> Option<(&LineCodec, bool)> {
        self.codecs.iter().find_map(|known| {
            if known.payload_type == payload_type {
                Some((known, false))
            } else if known.rtx == Some(payload_type) {
                Some((known, true))
            } else {
                None
            }
        })
    }

    /// The peer reports its estimate by REMB on this m-line, given send times.
    pub fn uses_remb(&self) -> bool {
        self.extensions.abs_send_time.is_some() && self.codecs.iter().any(|c| c.feedback.contains(&"goog-remb"))
    }

    pub fn describe(&self) -> MediaLine {
        MediaLine {
            mid: self.mid,
            kind: self.kind.unwrap_or(Kind::Video),
            direction: self.direction,
            codecs: self
                .codecs
                .iter()
                .map(|known| AgreedCodec {
                    codec: known.codec,
                    payload_type: known.payload_type,
                    rtx: known.rtx.is_some(),
                    parameters: known.parameters.clone(),
                })
                .collect(),
            rids: self.rids.clone(),
            stream: self.stream.clone(),
        }
    }

    fn write(&self, sdp: &mut String, context: &AnswerContext<'_>, first: bool) {
        let accepted = self.accepted();
        let mut formats: Vec<String> = Vec::new();
        for codec in &self.codecs {
            formats.push(codec.payload_type.to_string());
            formats.extend(codec.rtx.map(|pt| pt.to_string()));
        }
        if !accepted {
            formats = vec![self.format.clone()];
        }
        let port = if accepted { 9 } else { 0 };
        let _ = write!(
            sdp,
            "m={} {port} {} {}\r\nc=IN IP4 0.0.0.0\r\n",
            self.media,
            self.protocol,
            formats.join(" ")
        );
        if accepted
            && self.kind == Some(Kind::Video)
            && self.direction.recv
            && let Some(bps) = context.policy.max_video_bps
        {
            let _ = write!(sdp, "b=AS:{}\r\nb=TIAS:{bps}\r\n", bps.div_ceil(1000));
        }
        let _ = write!(sdp, "a=mid:{}\r\n", self.mid);
        if !accepted {
            sdp.push_str("a=inactive\r\n");
            return;
        }
        let _ = write!(
            sdp,
            "a=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\n",
            context.ufrag, context.password
        );
        let _ = write!(
            sdp,
            "a=ice-options:trickle\r\na=fingerprint:{}\r\na=setup:{}\r\n",
            context.fingerprint, context.setup
        );
        if first {
            for candidate in context.candidates {
                let _ = write!(sdp, "a={candidate}\r\n");
            }
            sdp.push_str("a=end-of-candidates\r\n");
        }
        for (id, uri) in &self.extmap {
            let _ = write!(sdp, "a=extmap:{id} {uri}\r\n");
        }
        sdp.push_str(match (self.direction.send, self.direction.recv) {
            (true, true) => "a=sendrecv\r\n",
            (true, false) => "a=sendonly\r\n",
            (false, true) => "a=recvonly\r\n",
            (false, false) => "a=inactive\r\n",
        });
        sdp.push_str("a=rtcp-mux\r\na=rtcp-rsize\r\n");
        // Under a cap, Chromium would start small and stay small for seconds: a hint from where to start helps it.
        let start_kbps = match (self.kind, self.direction.recv, context.policy.max_video_bps) {
            (Some(Kind::Video), true, Some(bps)) => Some(bps / 1_500),
            _ => None,
        };
        for codec in &self.codecs {
            write_codec(sdp, codec, start_kbps);
        }
        if !self.rids.is_empty() {
            for rid in &self.rids {
                let _ = write!(sdp, "a=rid:{rid} recv\r\n");
            }
            let names: Vec<&str> = self.rids.iter().map(Rid::as_str).collect();
            let _ = write!(sdp, "a=simulcast:recv {}\r\n", names.join(";"));
        }
        if self.direction.send {
            let stream = match context.policy.streams.iter().find(|(mid, _)| *mid == self.mid) {
                Some((_, stream)) => stream.clone(),
                None => format!("wzp-{}", self.mid),
            };
            let LocalSsrcs { media, rtx } = self.local;
            let _ = write!(sdp, "a=msid:{stream} {}-{}\r\n", self.media, self.mid);
            let with_rtx = self.codecs.iter().any(|codec| codec.rtx.is_some());
            if with_rtx {
                let _ = write!(sdp, "a=ssrc-group:FID {media} {rtx}\r\n");
            }
            for ssrc in [media, rtx].into_iter().take(1 + usize::from(with_rtx)) {
                let _ = write!(sdp, "a=ssrc:{ssrc} cname:{}\r\n", context.cname);
                let _ = write!(sdp, "a=ssrc:{ssrc} msid:{stream} {}-{}\r\n", self.media, self.mid);
            }
        }
    }
}

/// The text of an answer.
pub(super) fn write_answer(lines: &[Line], context: &AnswerContext<'_>) -> String {
    let mut sdp = String::with_capacity(1024 * lines.len() + 512);
    let _ = write!(
        sdp,
        "v=0\r\no=- {} {} IN IP4 127.0.0.1\r\n",
        context.session_id, context.version
    );
    sdp.push_str("s=-\r\nt=0 0\r\n");
    let bundled: Vec<&str> = lines
        .iter()
        .filter(|line| line.accepted())
        .map(|line| line.mid.as_str())
        .collect();
    if !bundled.is_empty() {
        let _ = write!(sdp, "a=group:BUNDLE {}\r\n", bundled.join(" "));
    }
    if context.lite {
        sdp.push_str("a=ice-lite\r\n");
    }
    if context.extmap_allow_mixed {
        sdp.push_str("a=extmap-allow-mixed\r\n");
    }
    sdp.push_str("a=msid-semantic:WMS *\r\n");
    let mut first = true;
    for line in lines {
        line.write(&mut sdp, context, first && line.accepted());
        first &= !line.accepted();
    }
    sdp
}

fn write_codec(sdp: &mut String, codec: &LineCodec, start_kbps: Option<u64>) {
    let pt = codec.payload_type;
    let name = match codec.codec {
        Codec::Opus => "opus/48000/2",
        Codec::H264 => "H264/90000",
        Codec::Av1 => "AV1/90000",
        Codec::H265 => "H265/90000",
    };
    let _ = write!(sdp, "a=rtpmap:{pt} {name}\r\n");
    for feedback in &codec.feedback {
        let _ = write!(sdp, "a=rtcp-fb:{pt} {feedback}\r\n");
    }
    let start = start_kbps.map(|kbps| format!("x-google-start-bitrate={kbps}"));
    let parameters = [Some(codec.parameters.clone()).filter(|own| !own.is_empty()), start];
    let parameters: Vec<String> = parameters.into_iter().flatten().collect();
    if !parameters.is_empty() {
        let _ = write!(sdp, "a=fmtp:{pt} {}\r\n", parameters.join(";"));
    }
    if codec.codec == Codec::Opus {
        // Apps have space for 40 ms of sound (WZP wire v2, section 6.5).
        sdp.push_str("a=maxptime:40\r\n");
    }
    if let Some(rtx) = codec.rtx {
        let _ = write!(sdp, "a=rtpmap:{rtx} rtx/90000\r\na=fmtp:{rtx} apt={pt}\r\n");
    }
}

/// The best variant of each codec of the policy that was offered, in the policy's order. `receives`: the peer may send.
fn agree_codecs(offered: &[OfferedCodec], policy: &OfferPolicy, receives: bool) -> Vec<LineCodec> {
    let mut agreed: Vec<LineCodec> = Vec::new();
    for &codec in &policy.codecs {
        let best = offered
            .iter()
            .filter(|candidate| candidate.codec == codec)
            .min_by_key(|candidate| candidate.rank);
        let Some(best) = best else { continue };
        if agreed.iter().any(|known| known.codec == codec) {
            continue;
        }
        let wanted: &[&'static str] = match codec.kind() {
            Kind::Audio => &["transport-cc"],
            Kind::Video => &["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"],
        };
        // Our repairs go by RTX only: a viewer without it does better to ask for a keyframe at once. A publisher may repeat
        // its packets as they were.
        let repairs = best.rtx.is_some() || receives;
        agreed.push(LineCodec {
            codec,
            payload_type: best.payload_type,
            rtx: best.rtx,
            parameters: best.parameters.clone(),
            feedback: wanted
                .iter()
                .copied()
                .filter(|fb| best.feedback.iter().any(|o| o == fb) && (repairs || *fb != "nack"))
                .collect(),
        });
    }
    agreed
}

fn agree_extensions(offered: &OfferedLine, kind: Kind, layers: bool) -> (ExtensionIds, Vec<(u8, &'static str)>) {
    let mut extmap = Vec::new();
    let mut take = |uri: &'static str| {
        let id = offered.extensions.get(uri).copied();
        extmap.extend(id.map(|id| (id, uri)));
        id
    };
    let mut ids = ExtensionIds {
        mid: take(MID),
        transport_cc: take(TRANSPORT_CC),
        abs_send_time: take(ABS_SEND_TIME),
        ..ExtensionIds::default()
    };
    match kind {
        Kind::Audio => ids.audio_level = take(AUDIO_LEVEL),
        // Not the orientation of the picture (3GPP TS 26.114): a browser that may not tell it turns the picture itself,
        // and so everybody sees it upright, at whatever door.
        Kind::Video if layers => {
            ids.rid = take(RID);
            ids.repaired_rid = take(REPAIRED_RID);
        }
        Kind::Video => {}
    }
    (ids, extmap)
}

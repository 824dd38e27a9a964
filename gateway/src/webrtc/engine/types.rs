//! The words the engine speaks: names, packets, events, reasons. No type of the protocol crate appears here.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

/// One WebRTC session (one browser's peer connection). Chosen by the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Longest `mid` or `rid` that is accepted, in bytes. The header extension that carries it in its one-byte form has
/// room for 16 (RFC 8285, section 4.2).
pub const MAX_LABEL: usize = 16;

/// A short name out of an SDP, held inline so that it can be copied and compared without touching the heap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    len: u8,
    bytes: [u8; MAX_LABEL],
}

/// The identification tag of an m-line (RFC 5888, RFC 8843).
pub type Mid = Label;

/// The name of a simulcast layer (RFC 8851).
pub type Rid = Label;

impl Label {
    /// Accepts 1 to [`MAX_LABEL`] bytes of printable ASCII without spaces; anything else is `None`.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        Self::from_bytes(text.as_bytes())
    }

    /// As [`Label::new`], from the bytes of a header extension.
    #[must_use]
    pub fn from_bytes(text: &[u8]) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_LABEL || !text.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        let mut bytes = [0; MAX_LABEL];
        bytes[..text.len()].copy_from_slice(text);
        Some(Self {
            len: text.len() as u8,
            bytes,
        })
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// What an m-line carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Sound.
    Audio,
    /// Picture.
    Video,
}

/// A codec the gateway speaks over RTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// Opus, 48 kHz (RFC 7587).
    Opus,
    /// H.264, packetization mode 1 (RFC 6184).
    H264,
    /// AV1, profile 0 (AV1 RTP payload format 1.0).
    Av1,
    /// H.265 (RFC 7798).
    H265,
}

impl Codec {
    /// Audio or video.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Codec::Opus => Kind::Audio,
            Codec::H264 | Codec::Av1 | Codec::H265 => Kind::Video,
        }
    }

    /// RTP clock rate in Hz.
    #[must_use]
    pub fn clock_rate(self) -> u32 {
        match self {
            Codec::Opus => 48_000,
            Codec::H264 | Codec::Av1 | Codec::H265 => 90_000,
        }
    }

    pub(super) fn mime(self) -> &'static str {
        match self {
            Codec::Opus => "audio/opus",
            Codec::H264 => "video/H264",
            Codec::Av1 => "video/AV1",
            Codec::H265 => "video/H265",
        }
    }
}

/// Which way media may flow on an m-line, seen from us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direction {
    /// We send to the peer.
    pub send: bool,
    /// The peer sends to us.
    pub recv: bool,
}

/// What the application allows in an answer.
#[derive(Clone, Debug)]
pub struct OfferPolicy {
    /// Codecs that may be answered, best first. The order is that of the answer's m-lines.
    pub codecs: Vec<Codec>,
    /// The peer may send media.
    pub receive: bool,
    /// We may send media.
    pub send: bool,
    /// The peer may send several layers of a picture (simulcast, RFC 8853). Otherwise the answer does not know of layers,
    /// and the peer sends one stream.
    pub layers: bool,
    /// Cap on the peer's video, in bits per second (`b=AS`, `b=TIAS`).
    pub max_video_bps: Option<u64>,
    /// The media stream (`a=msid`) of m-lines we send on. A browser keeps sound and picture in sync only within one
    /// stream, so the two m-lines of one source need the same. An m-line without an entry is a stream of its own.
    pub streams: Vec<(Mid, String)>,
}

impl Default for OfferPolicy {
    fn default() -> Self {
        let codecs = vec![Codec::Opus, Codec::H264, Codec::Av1, Codec::H265];
        Self {
            codecs,
            receive: true,
            send: true,
            layers: false,
            max_video_bps: None,
            streams: Vec::new(),
        }
    }
}

/// Fixed settings of an engine.
#[derive(Clone, Debug)]
pub struct Config {
    /// Public addresses at which peers reach the UDP socket, best first. The IPs may differ from those bound (1:1 NAT).
    pub udp_candidates: Vec<SocketAddr>,
    /// Public addresses of the ICE-TCP listener (offered as `tcptype passive`), best first.
    pub tcp_candidates: Vec<SocketAddr>,
    /// Answer as ICE-lite. Off by default: a full agent brings a Chromium viewer up about 50 ms sooner.
    pub ice_lite: bool,
    /// Longest time from an answer to a working ICE path.
    pub ice_deadline: Duration,
    /// Longest time from a working ICE path to a finished DTLS handshake.
    pub dtls_deadline: Duration,
    /// A connected peer that proves its consent (RFC 7675) for no longer than this is gone.
    pub consent_deadline: Duration,
    /// Sessions at one time.
    pub max_sessions: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            udp_candidates: Vec::new(),
            tcp_candidates: Vec::new(),
            ice_lite: false,
            ice_deadline: Duration::from_secs(15),
            dtls_deadline: Duration::from_secs(10),
            consent_deadline: Duration::from_secs(10),
            max_sessions: 2_000,
        }
    }
}

/// UDP, or TCP with RFC 4571 framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// One datagram per packet.
    Udp,
    /// One frame per packet on a connection the peer opened.
    Tcp,
}

/// Where a packet came in: what the answer to it must leave by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// The socket family.
    pub protocol: Protocol,
    /// The address of ours that the packet was sent to, where the system tells; replies leave from it.
    pub ip: Option<IpAddr>,
}

impl Local {
    /// A UDP packet, destination unknown.
    pub const UDP: Local = Local {
        protocol: Protocol::Udp,
        ip: None,
    };
    /// A packet from a TCP connection.
    pub const TCP: Local = Local {
        protocol: Protocol::Tcp,
        ip: None,
    };
}

/// One or several packets to the same destination, ready for `UDP_SEGMENT` or one write to a TCP connection.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// The socket, and the source address to use.
    pub local: Local,
    /// Destination.
    pub to: SocketAddr,
    /// The packets, end to end.
    pub contents: Bytes,
    /// Size of every packet in `contents` except the last, which may be shorter; `None` for a single packet.
    pub segment_size: Option<usize>,
}

/// What is known of a received RTP packet besides its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpMeta {
    /// Payload type on the publisher's leg (that of the media, also for a packet repaired by RTX).
    pub payload_type: u8,
    /// What the payload is.
    pub codec: Codec,
    /// Sequence number without wrap-around: counts on from the first packet's 16-bit number plus 65,536, so that a
    /// packet older than the first one is still positive.
    pub seq: u64,
    /// RTP timestamp in units of [`Codec::clock_rate`].
    pub timestamp: u32,
    /// Stream id (that of the media, also for RTX).
    pub ssrc: u32,
    /// Marker bit: last packet of a video frame; first packet after silence.
    pub marker: bool,
    /// Loudness in -dBov, 0 (loudest) to 127 (silence) (RFC 6464).
    pub audio_level: Option<u8>,
    /// The packet came as a retransmission.
    pub repaired: bool,
    /// When it arrived.
    pub arrived: Instant,
}

/// A packet to send on an m-line. The engine fills in SSRC, payload type and header extensions.
#[derive(Clone, Debug)]
pub struct OutgoingRtp {
    /// Must be one of the codecs in the m-line's last [`MediaLine`].
    pub codec: Codec,
    /// Sequence number on this viewer's leg. Must start low (below 32,768): the receiver's roll-over counter starts at 0.
    pub seq: u16,
    /// RTP timestamp on this viewer's leg.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
    /// Payload of at most [`MAX_PAYLOAD`] bytes.
    pub payload: Bytes,
}

/// Largest RTP payload that [`crate::webrtc::engine::Engine::write_rtp`] takes, in bytes. With the largest header, the
/// RTX prefix and the SRTP tag it stays below the 1,280 bytes every IPv6 path carries, less 48 for IPv6 and UDP.
pub const MAX_PAYLOAD: usize = 1_200;

/// The times of a sender report: the same instant on the room's wall clock and on the stream's media clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportTime {
    /// NTP time, 32.32 fixed point.
    pub ntp: u64,
    /// RTP timestamp at that time.
    pub rtp: u32,
}

/// One codec agreed for an m-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgreedCodec {
    /// The codec.
    pub codec: Codec,
    /// Its payload type on this leg.
    pub payload_type: u8,
    /// RTX was agreed for it.
    pub rtx: bool,
    /// The peer's format parameters (`a=fmtp`), verbatim.
    pub parameters: String,
}

/// An m-line after negotiation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaLine {
    /// Its name.
    pub mid: Mid,
    /// Audio or video.
    pub kind: Kind,
    /// Which way media may flow now; neither way once the m-line is stopped or rejected.
    pub direction: Direction,
    /// Codecs agreed, in the order of the policy. Empty when rejected.
    pub codecs: Vec<AgreedCodec>,
    /// Simulcast layers the peer announced, in its order.
    pub rids: Vec<Rid>,
    /// The stream id (first part of `a=msid`) the peer gave, if any.
    pub stream: Option<String>,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No ICE path in time.
    #[error("no network path within the ICE deadline: check that UDP or TCP to the WebRTC port is open")]
    IceTimeout,
    /// The DTLS handshake did not finish in time.
    #[error("the DTLS handshake did not finish in time")]
    DtlsTimeout,
    /// The DTLS handshake failed, for example because the certificate is not the one in the SDP.
    #[error("the DTLS handshake failed: the peer's certificate or parameters do not match its offer")]
    DtlsFailed,
    /// The peer stopped answering.
    #[error("the peer stopped answering")]
    ConsentLost,
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    PeerClosed,
    /// The application closed it.
    #[error("closed by the gateway")]
    Local,
    /// The engine broke on this session.
    #[error("internal error in the WebRTC engine")]
    Internal,
}

/// Something a session tells the application.
#[derive(Clone, Debug)]
pub enum Event {
    /// DTLS is up; media may be written.
    Connected {
        /// The session.
        session: SessionId,
        /// The path in use.
        protocol: Protocol,
    },
    /// Nothing was heard of the peer for half of the consent deadline. [`Event::Connected`] follows if it comes back,
    /// else [`Event::Closed`].
    Disconnected {
        /// The session.
        session: SessionId,
    },
    /// The session has ended and is gone. No event follows for it.
    Closed {
        /// The session.
        session: SessionId,
        /// Why.
        reason: Reason,
    },
    /// The result of an offer: all m-lines, in SDP order.
    Negotiated {
        /// The session.
        session: SessionId,
        /// Every m-line, also stopped ones.
        lines: Vec<MediaLine>,
    },
    /// A media packet, first time seen; RTX is undone. Not reordered.
    Rtp {
        /// The session.
        session: SessionId,
        /// The m-line.
        mid: Mid,
        /// The simulcast layer.
        rid: Option<Rid>,
        /// Header fields.
        meta: RtpMeta,
        /// The payload without padding. Empty when the packet was nothing but padding, which takes up a number only.
        payload: Bytes,
    },
    /// PLI or FIR: the peer wants a keyframe on the stream we send.
    KeyframeRequest {
        /// The session.
        session: SessionId,
        /// The m-line we send on.
        mid: Mid,
    },
    /// The peer misses packets of the stream we send.
    Nack {
        /// The session.
        session: SessionId,
        /// The m-line we send on.
        mid: Mid,
        /// 16-bit sequence numbers on the primary SSRC.
        seqs: Vec<u16>,
    },
    /// The peer's report about the stream we send.
    ReceiverReport {
        /// The session.
        session: SessionId,
        /// The m-line we send on.
        mid: Mid,
        /// Lost since the last report, in 1/256.
        fraction_lost: u8,
        /// Lost altogether.
        total_lost: u32,
        /// The highest sequence number that has arrived.
        highest: u16,
        /// Interarrival jitter in units of the clock rate.
        jitter: u32,
        /// Round trip, where it can be told from our last sender report.
        rtt: Option<Duration>,
    },
    /// The publisher's clocks for one of its streams.
    SenderReport {
        /// The session.
        session: SessionId,
        /// The m-line.
        mid: Mid,
        /// The simulcast layer.
        rid: Option<Rid>,
        /// Its clocks.
        time: ReportTime,
    },
    /// How much the path to this peer carries.
    Estimate {
        /// The session.
        session: SessionId,
        /// Bits per second.
        bps: u64,
    },
}

/// Counters of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// RTP packets received and decrypted, RTX and padding included.
    pub packets_in: u64,
    /// Of those, dropped as duplicates.
    pub duplicates: u64,
    /// Media packets recovered through RTX.
    pub repaired: u64,
    /// Packets that could not be decrypted, parsed or assigned to an m-line.
    pub rejected: u64,
    /// RTP packets sent, RTX included.
    pub packets_out: u64,
    /// Of those, RTX.
    pub rtx_out: u64,
    /// RTP payload bytes sent, RTX included.
    pub bytes_out: u64,
    /// Last measured round trip of a STUN check.
    pub rtt: Option<Duration>,
}

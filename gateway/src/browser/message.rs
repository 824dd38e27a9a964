//! Control messages of `wzp.v2` (docs/browser-protocol.md, section 2).

use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};
use wzp_proto::codec::Codec;
use wzp_proto::header::{HeaderError, MediaHeader, MediaType};
use wzp_proto::video::FrameSize;

use crate::config::ice::IceServer;
use crate::media::frame::{Kind, MESSAGE_HEADER, MESSAGE_MEDIA, ParticipantId, TrackId};
use crate::room::member::{Door, LeaveReason, LimitReason, Muted, Origin, Presence, TrackInfo};
use crate::room::snapshot::MemberView;
use crate::room::uplink::{UplinkState, UplinkStatus};

/// Protocol version of this page.
pub const VERSION: u32 = 2;
/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "wzp.v2";
/// Largest text message but an offer, bytes.
pub const MAX_TEXT: usize = 65_536;
/// Largest `offer`, bytes. Each source takes an m-line for sound and one for pictures, 3 to 4 kB together in Chromium, and
/// our own client has at most 64 receiving ones.
pub const MAX_OFFER_TEXT: usize = 262_144;
/// Largest binary message, bytes.
pub const MAX_BINARY: usize = 16_384;
/// Longest name, characters.
pub const MAX_NAME: usize = 64;
/// Longest description of a client program, characters.
pub const MAX_CLIENT: usize = 64;
/// Longest token, characters.
pub const MAX_TOKEN: usize = 4_096;
/// Most tracks that a client's `pause` or `view` names; what is beyond is ignored.
pub const MAX_NAMED: usize = 1024;
/// Most tracks that one client publishes.
pub const MAX_TRACKS: usize = 16;

/// From client to server.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromClient {
    /// Versions that the client speaks.
    Hello {
        /// The list.
        versions: Vec<u32>,
        /// Program and version, for logs.
        #[serde(default)]
        client: String,
    },
    /// A token.
    Auth {
        /// The token.
        token: String,
    },
    /// Enter the room.
    Join(JoinMessage),
    /// The complete list of what is sent.
    Publish {
        /// The list.
        tracks: Vec<PublishedTrack>,
    },
    /// What others should show as switched off.
    Mute(Muted),
    /// The complete list of what is not wanted now.
    Pause {
        /// The list.
        tracks: Vec<TrackRef>,
    },
    /// The complete list of video tracks that are shown small.
    View {
        /// The list.
        tracks: Vec<ShownTrack>,
    },
    /// A keyframe is needed.
    Keyframe {
        /// Whose.
        source: ParticipantId,
        /// Which of its video tracks.
        #[serde(default)]
        slot: u8,
    },
    /// Binary messages received so far.
    Ack {
        /// The count.
        media: u64,
        /// Received video that waits for decoding, ms.
        #[serde(default)]
        backlog_ms: u32,
    },
    /// WebRTC offer.
    Offer {
        /// The session description.
        sdp: String,
        /// What the sending m-lines carry.
        #[serde(default)]
        send: Vec<SendMid>,
    },
    /// WebRTC candidate.
    Candidate {
        /// The `candidate:` line.
        candidate: String,
    },
    /// How the client wants to receive media from now on.
    Transport {
        /// The road.
        media: MediaTransport,
    },
    /// Answer with a pong.
    Ping {
        /// Returned as it is.
        t: f64,
    },
    /// Answer to a ping.
    Pong {
        /// From the ping.
        #[serde(default)]
        t: f64,
    },
    /// Leaves the room.
    Bye {
        /// Why, for logs.
        #[serde(default)]
        reason: Option<String>,
    },
    /// Something newer than this server.
    #[serde(other)]
    Unknown,
}

/// See [`FromClient::Join`].
#[derive(Debug, Clone, Deserialize)]
pub struct JoinMessage {
    /// Name to show.
    pub name: String,
    /// The browser's own random secret.
    pub id: String,
    /// Continues a session that was cut.
    #[serde(default)]
    pub resume: Option<String>,
    /// What the client can decode.
    #[serde(default)]
    pub decode: Option<Vec<String>>,
    /// How it wants its media at first.
    #[serde(default)]
    pub transport: MediaTransport,
    /// It takes several media messages in one.
    #[serde(default)]
    pub bundles: bool,
}

/// How media reaches a browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaTransport {
    /// Binary messages on the control channel.
    #[default]
    Websocket,
    /// RTP.
    Webrtc,
}

/// A track that a client sends.
#[derive(Debug, Clone, Deserialize)]
pub struct PublishedTrack {
    /// 0–15.
    pub slot: u8,
    /// Sound or picture.
    pub kind: Kind,
    /// Microphone, camera or screen.
    pub source: Origin,
    /// Codec name.
    pub codec: String,
    /// Pixels.
    #[serde(default)]
    pub width: Option<u16>,
    /// Pixels.
    #[serde(default)]
    pub height: Option<u16>,
}

/// Names a track of somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct TrackRef {
    /// Whose.
    pub source: ParticipantId,
    /// Sound or picture.
    pub kind: Kind,
    /// Which.
    #[serde(default)]
    pub slot: u8,
}

impl TrackRef {
    /// Whether the track is meant.
    pub fn names(&self, id: TrackId) -> bool {
        self.source == id.source && self.kind == id.kind && self.slot == id.slot
    }
}

/// A video track of somebody else, and how large it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct ShownTrack {
    /// Whose.
    pub source: ParticipantId,
    /// Which.
    #[serde(default)]
    pub slot: u8,
    /// No more than this is needed of the shorter side, px.
    pub side: NonZeroU16,
}

/// What a sending m-line carries.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SendMid {
    /// The m-line.
    pub mid: String,
    /// Sound or picture.
    pub kind: Kind,
    /// Which.
    #[serde(default)]
    pub slot: u8,
}

/// From server to client.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToClient {
    /// Greets.
    Hello {
        /// Version from here on.
        version: u32,
        /// Program and version.
        server: &'static str,
        /// An `auth` message is needed.
        auth_required: bool,
    },
    /// The token was accepted.
    AuthOk,
    /// The client is in the room.
    Joined(Box<JoinedMessage>),
    /// Somebody came.
    MemberJoined {
        /// Who.
        member: Member,
    },
    /// Something about a member changed.
    MemberChanged {
        /// The whole of it.
        member: Member,
    },
    /// Somebody went.
    MemberLeft {
        /// Who.
        id: ParticipantId,
        /// Why.
        reason: LeaveReason,
    },
    /// Make the next frame a keyframe.
    Keyframe {
        /// Of this video slot.
        slot: u8,
    },
    /// Send no more than this.
    Limit {
        /// On this video slot.
        slot: u8,
        /// Bits per second.
        max_bitrate: u32,
        /// Of the picture's shorter side, px.
        #[serde(skip_serializing_if = "Option::is_none")]
        max_side: Option<u16>,
        /// Why.
        reason: LimitReason,
    },
    /// A track is not sent for now.
    VideoPaused {
        /// Whose.
        source: ParticipantId,
        /// Which.
        slot: u8,
        /// Why.
        reason: PauseReason,
    },
    /// It is sent again.
    VideoResumed {
        /// Whose.
        source: ParticipantId,
        /// Which.
        slot: u8,
        /// Why it was paused.
        reason: PauseReason,
    },
    /// Who talks, loudest first.
    Speakers {
        /// The list.
        ids: Vec<ParticipantId>,
    },
    /// How the room stands with somebody else's relay that it joins.
    Uplink {
        /// The relay.
        relay: String,
        /// Where things stand.
        state: UplinkState,
        /// The same for people.
        message: String,
    },
    /// WebRTC answer.
    Answer {
        /// The session description.
        sdp: String,
    },
    /// What the receiving m-lines carry.
    Mids {
        /// The complete list.
        mids: Vec<ReceiveMid>,
    },
    /// More receiving m-lines are needed.
    NeedMids {
        /// For sound.
        audio: usize,
        /// For pictures.
        video: usize,
    },
    /// Binary messages received so far.
    Ack {
        /// The count.
        media: u64,
    },
    /// Answer with a pong.
    Ping {
        /// To be returned.
        t: f64,
    },
    /// Answer to a ping.
    Pong {
        /// From the ping.
        t: f64,
    },
    /// Something that a person may want to know.
    Notice {
        /// For programs.
        code: &'static str,
        /// For people.
        message: String,
    },
    /// Something went wrong.
    Error {
        /// For programs.
        code: &'static str,
        /// For people.
        message: String,
        /// The connection is closed after this.
        fatal: bool,
    },
    /// The server ends the session.
    Bye {
        /// Why.
        reason: &'static str,
    },
}

/// Why a track is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PauseReason {
    /// The client's network is too slow for it.
    Bandwidth,
    /// The client cannot decode it.
    Codec,
}

/// See [`ToClient::Joined`].
#[derive(Debug, Clone, Serialize)]
pub struct JoinedMessage {
    /// The client's number.
    pub participant: ParticipantId,
    /// Name to show.
    pub room: String,
    /// The client's identity as others see it.
    pub fingerprint: String,
    /// Proves a later resumption.
    pub resume: String,
    /// It goes on as the participant that it was.
    pub resumed: bool,
    /// The room's clock.
    pub time_ms: u64,
    /// Everybody.
    pub members: Vec<Member>,
    /// What the client may do.
    pub limits: Limits,
    /// This server offers WebRTC media.
    pub webrtc: bool,
    /// STUN and TURN servers for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ice_servers: Vec<IceServer>,
}

/// What a client may do.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Limits {
    /// Bits per second of one video track.
    pub max_video_bitrate: u32,
    /// Bytes of one video frame.
    pub max_frame_bytes: usize,
    /// Acknowledge at least this often, ms.
    pub ack_ms: u64,
    /// A cut session may be continued for this long, ms.
    pub resume_ms: u64,
}

/// A member as clients see it.
#[derive(Debug, Clone, Serialize)]
pub struct Member {
    id: ParticipantId,
    name: String,
    fingerprint: String,
    door: Door,
    state: Presence,
    muted: Muted,
    tracks: Vec<TrackMessage>,
}

#[derive(Debug, Clone, Serialize)]
struct TrackMessage {
    kind: Kind,
    source: Origin,
    slot: u8,
    codec: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u16>,
}

impl From<&UplinkStatus> for ToClient {
    fn from(status: &UplinkStatus) -> Self {
        Self::Uplink {
            relay: status.relay.clone(),
            state: status.state,
            message: status.message.clone(),
        }
    }
}

impl From<&MemberView> for Member {
    fn from(view: &MemberView) -> Self {
        Self {
            id: view.id,
            name: view.name.clone(),
            fingerprint: view.fingerprint.to_string(),
            door: view.door,
            state: view.presence,
            muted: view.muted,
            tracks: view
                .tracks
                .iter()
                .map(|track| TrackMessage::from(&track.info))
                .collect(),
        }
    }
}

impl From<&TrackInfo> for TrackMessage {
    fn from(info: &TrackInfo) -> Self {
        Self {
            kind: info.kind,
            source: info.origin,
            slot: info.slot,
            codec: codec_name(info.codec),
            width: info.size.map(|size| size.width),
            height: info.size.map(|size| size.height),
        }
    }
}

/// What a receiving m-line carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReceiveMid {
    /// The m-line.
    pub mid: String,
    /// Whose track; `None`: idle.
    pub source: Option<ParticipantId>,
    /// Sound or picture.
    pub kind: Kind,
    /// Which.
    pub slot: u8,
}

/// The name of a codec in messages.
pub fn codec_name(codec: Codec) -> &'static str {
    match codec {
        Codec::H264Baseline => "h264",
        Codec::H265Main => "h265",
        Codec::Av1Main => "av1",
        Codec::Codec2_3200 => "codec2_3200",
        Codec::Codec2_1200 => "codec2_1200",
        _ => "opus",
    }
}

/// The codec that a publisher means by a name.
pub fn published_codec(name: &str) -> Option<Codec> {
    match name {
        "opus" => Some(Codec::Opus24k),
        "h264" => Some(Codec::H264Baseline),
        "h265" => Some(Codec::H265Main),
        "av1" => Some(Codec::Av1Main),
        _ => None,
    }
}

impl PublishedTrack {
    /// The track as the room knows it.
    ///
    /// # Errors
    /// A sentence that says what does not fit.
    pub fn info(&self) -> Result<TrackInfo, String> {
        let codec = published_codec(&self.codec)
            .ok_or_else(|| format!("publish: codec {:?} is not one of opus, h264, h265, av1", self.codec))?;
        if Kind::of(codec) != Some(self.kind) {
            return Err(format!("publish: {} is not a codec for {:?}", self.codec, self.kind));
        }
        if self.slot > 15 {
            return Err(format!("publish: slot {} is not within 0–15", self.slot));
        }
        let size = self
            .width
            .zip(self.height)
            .map(|(width, height)| FrameSize { width, height });
        Ok(TrackInfo {
            kind: self.kind,
            slot: self.slot,
            layer: 0,
            origin: self.source,
            codec,
            size,
        })
    }
}

/// A media message taken apart.
#[derive(Debug, Clone, Copy)]
pub struct MediaMessage<'a> {
    /// The WZP header.
    pub header: MediaHeader,
    /// Sound or picture.
    pub kind: Kind,
    /// The payload, or a piece of it.
    pub payload: &'a [u8],
}

/// Why a binary message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaMessageError {
    /// Shorter than its header.
    #[error("a media message of {0} bytes is shorter than its header of {MESSAGE_HEADER}")]
    Short(usize),
    /// The WZP header does not parse.
    #[error("the media header is wrong: {0}")]
    Header(#[from] HeaderError),
    /// Neither sound nor picture.
    #[error("media type {0:?} with codec {1:?} is neither sound nor picture")]
    Type(MediaType, Codec),
    /// A fragment index that its count does not allow.
    #[error("fragment {index} of {count} does not exist")]
    Fragment {
        /// The index.
        index: u8,
        /// The count.
        count: u8,
    },
    /// Nothing in it.
    #[error("a media message without payload")]
    Empty,
}

/// Takes a binary message apart; `None` for a kind that this version does not know.
///
/// # Errors
/// It says it is media, and is not.
pub fn parse_media(bytes: &[u8]) -> Result<Option<MediaMessage<'_>>, MediaMessageError> {
    if bytes.first().is_some_and(|kind| *kind != MESSAGE_MEDIA) {
        return Ok(None);
    }
    let (Some(header), Some(payload)) = (bytes.get(5..MESSAGE_HEADER), bytes.get(MESSAGE_HEADER..)) else {
        return Err(MediaMessageError::Short(bytes.len()));
    };
    let header = MediaHeader::decode(header)?;
    let kind = match (header.media_type, Kind::of(header.codec)) {
        (MediaType::Audio, Some(Kind::Audio)) => Kind::Audio,
        (MediaType::Video, Some(Kind::Video)) => Kind::Video,
        (media_type, _) => return Err(MediaMessageError::Type(media_type, header.codec)),
    };
    if payload.is_empty() {
        return Err(MediaMessageError::Empty);
    }
    if kind == Kind::Video && header.fragment_index() >= header.fragment_count() {
        let (index, count) = (header.fragment_index(), header.fragment_count());
        return Err(MediaMessageError::Fragment { index, count });
    }
    Ok(Some(MediaMessage { header, kind, payload }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unknown_types_and_fields_are_ignored() {
        assert!(matches!(
            serde_json::from_str(r#"{"type":"dance","x":1}"#),
            Ok(FromClient::Unknown)
        ));
        let ack = serde_json::from_str(r#"{"type":"ack","media":7,"mood":"good"}"#);
        assert!(matches!(
            ack,
            Ok(FromClient::Ack {
                media: 7,
                backlog_ms: 0
            })
        ));
    }

    #[test]
    fn a_view_names_tracks_and_how_large_they_are_shown() {
        let view = |tracks: &str| serde_json::from_str(&format!(r#"{{"type":"view","tracks":{tracks}}}"#));
        let one = ShownTrack {
            source: ParticipantId(3),
            slot: 0,
            side: NonZeroU16::new(360).unwrap(),
        };
        let read = view(r#"[{"source":3,"side":360}]"#);
        assert!(matches!(read, Ok(FromClient::View { tracks }) if tracks == [one]));
        assert!(matches!(view("[]"), Ok(FromClient::View { tracks }) if tracks.is_empty()));
        for side in ["0", "65536", "-1", "1.5", "\"360\"", "null"] {
            let tracks = format!(r#"[{{"source":3,"slot":0,"side":{side}}}]"#);
            assert!(view(&tracks).is_err(), "{side}");
        }
        assert!(view(r#"[{"source":3,"slot":0}]"#).is_err());
    }

    #[test]
    fn server_messages_have_the_documented_shape() {
        let left = ToClient::MemberLeft {
            id: ParticipantId(7),
            reason: LeaveReason::Replaced,
        };
        assert_eq!(
            serde_json::to_string(&left).unwrap(),
            r#"{"type":"member_left","id":7,"reason":"replaced"}"#
        );
        let limit = ToClient::Limit {
            slot: 0,
            max_bitrate: 300_000,
            max_side: None,
            reason: LimitReason::FrameTooLarge,
        };
        let expected = r#"{"type":"limit","slot":0,"max_bitrate":300000,"reason":"frame_too_large"}"#;
        assert_eq!(serde_json::to_string(&limit).unwrap(), expected);
        let limit = ToClient::Limit {
            slot: 0,
            max_bitrate: 2_500_000,
            max_side: Some(360),
            reason: LimitReason::Viewers,
        };
        let expected = r#"{"type":"limit","slot":0,"max_bitrate":2500000,"max_side":360,"reason":"viewers"}"#;
        assert_eq!(serde_json::to_string(&limit).unwrap(), expected);
        let uplink = ToClient::from(&UplinkStatus {
            relay: "relay.example:4433".to_owned(),
            state: UplinkState::Away,
            message: "the relay does not answer".to_owned(),
        });
        let expected =
            r#"{"type":"uplink","relay":"relay.example:4433","state":"away","message":"the relay does not answer"}"#;
        assert_eq!(serde_json::to_string(&uplink).unwrap(), expected);
    }

    #[test]
    fn wrong_media_messages_say_what_is_wrong() {
        let mut message = vec![1, 0, 0, 0, 0, 2, 0x30, 1, 9, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0xaa];
        assert!(parse_media(&message).is_ok_and(|message| message.is_some()));
        message[20] = 0;
        assert_eq!(
            parse_media(&message).err(),
            Some(MediaMessageError::Fragment { index: 0, count: 0 })
        );
        message[7] = 0;
        assert!(matches!(
            parse_media(&message),
            Err(MediaMessageError::Type(MediaType::Audio, Codec::H264Baseline))
        ));
        assert_eq!(parse_media(&message[..9]).err(), Some(MediaMessageError::Short(9)));
        message[0] = 200;
        assert!(parse_media(&message).is_ok_and(|message| message.is_none()));
    }

    proptest! {
        #[test]
        fn any_bytes_and_any_text_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64), text in ".{0,64}") {
            parse_media(&bytes).ok();
            serde_json::from_str::<FromClient>(&text).ok();
        }
    }
}

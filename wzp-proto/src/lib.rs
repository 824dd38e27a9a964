//! The WZP (WarzonePhone) native protocol, wire format v2, byte for byte.
//!
//! Datagrams go in and come out as [`MediaPacket`]s, the JSON of signalling streams as [`Signal`]s. Handshake,
//! reassembly and loss repair are state machines: the caller brings bytes, time and randomness. This crate opens no
//! socket and reads no clock. Sections named in the documentation are those of the description of WZP wire v2.
//!
//! ```
//! use wzp_proto::{Answerer, Codec, Dialer, Identity, OfferOptions};
//!
//! // Seeds and ephemeral secrets are random in earnest.
//! let (client, server) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
//! let options = OfferOptions { video_codecs: vec![Codec::H264Baseline], ..OfferOptions::default() };
//! let (mut dialer, offer) = Dialer::new(&client, [3; 32], options);
//! let accepted = Answerer::accept(&server, [4; 32], offer)?;
//! let established = dialer.on_signal(accepted.answer)?;
//! assert_eq!(accepted.fingerprint, client.fingerprint());
//! assert_eq!(established.session, accepted.session);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod codec;
pub mod compact;
pub mod datagram;
pub mod fec;
pub mod handshake;
pub mod header;
pub mod identity;
pub mod nack;
pub mod packet;
pub mod room_name;
pub mod seal;
pub mod signal;
pub mod trunk;
pub mod video;

pub use codec::{Codec, PriorityMode, QualityProfile};
pub use datagram::DatagramForm;
pub use handshake::{
    Accepted, Answerer, Dialer, Established, HandshakeError, OfferOptions, PROTOCOL_VERSION, Refused, Session,
};
pub use header::{Flags, HeaderError, MediaHeader, MediaType};
pub use identity::{Fingerprint, Identity};
pub use nack::{LossRepair, Repair, SentPackets};
pub use packet::{MediaPacket, PacketError, QualityReport, encode_datagram};
pub use room_name::{RoomKey, RoomName, RoomNameError, reserved::Sni};
pub use signal::{
    CallAnswer, CallOffer, GatewayExtension, HangupReason, MAX_SIGNAL_LEN, RoomParticipant, Signal, SignalError,
    decode_frame_len, decode_signal, encode_signal,
};
pub use video::{
    AssembledFrame, FRAGMENT_PAYLOAD, FragmentError, FrameSize, MAX_FRAGMENTS, Reassembler, ReassemblyError, fragments,
};

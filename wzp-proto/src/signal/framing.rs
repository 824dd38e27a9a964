//! Signals as bytes: a big-endian length and JSON (WZP wire v2, section 1.5).

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use strum::VariantNames;

use super::Signal;

/// Longest JSON text of a signal, in bytes; longer ones are refused before they are read.
pub const MAX_SIGNAL_LEN: usize = 1 << 20;

/// How much of an unknown signal's name goes into messages.
const MAX_NAME_CHARS: usize = 64;

/// A signal as its stream carries it: u32 length, JSON.
pub fn encode_signal(signal: &Signal) -> Bytes {
    let mut frame = BytesMut::with_capacity(256);
    frame.put_u32(0);
    let mut writer = frame.writer();
    serde_json::to_writer(&mut writer, signal).expect("signals have string keys, and memory takes every byte");
    let mut frame = writer.into_inner();
    let len = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&len.to_be_bytes());
    frame.freeze()
}

/// Reads the length in front of a signal.
pub fn decode_frame_len(prefix: [u8; 4]) -> Result<usize, FrameLengthError> {
    let len = u32::from_be_bytes(prefix);
    match usize::try_from(len) {
        Ok(len) if len <= MAX_SIGNAL_LEN => Ok(len),
        _ => Err(FrameLengthError { len }),
    }
}

/// Reads the JSON text of a signal, without the length.
pub fn decode_signal(json: &[u8]) -> Result<Signal, SignalError> {
    if json.len() > MAX_SIGNAL_LEN {
        return Err(SignalError::TooLong { len: json.len() });
    }
    serde_json::from_slice(json).map_err(|error| match variant_name(json) {
        Some(name) if !Signal::VARIANTS.contains(&name.as_str()) => SignalError::UnknownVariant { name },
        _ => SignalError::Malformed(error),
    })
}

/// The length in front of a signal is over the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a signal of {len} bytes was announced; at most 1048576 are read")]
pub struct FrameLengthError {
    /// What was announced.
    pub len: u32,
}

/// Why a text is not a signal.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// Well-formed, but none of the variants of wire v2: a newer peer. It can be skipped.
    #[error("signal {name:?} is unknown to wire version 2")]
    UnknownVariant {
        /// Its name, cut at 64 characters.
        name: String,
    },
    /// Longer than [`MAX_SIGNAL_LEN`].
    #[error("a signal of {len} bytes is too long; at most 1048576 are read")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not JSON, or not the JSON of its variant.
    #[error("malformed signal: {0}")]
    Malformed(#[source] serde_json::Error),
}

/// The variant a well-formed text names: the only key of an object, or a bare string.
fn variant_name(json: &[u8]) -> Option<String> {
    struct Name;

    impl<'de> Visitor<'de> for Name {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object with one key, or a string")
        }

        fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
            Ok(Some(name.chars().take(MAX_NAME_CHARS).collect()))
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let name = map
                .next_key::<String>()?
                .map(|name| name.chars().take(MAX_NAME_CHARS).collect());
            if name.is_none() {
                return Ok(None);
            }
            map.next_value::<IgnoredAny>()?;
            let another = map.next_key::<IgnoredAny>()?.is_some();
            while another
                && map
                    .next_entry::<IgnoredAny, IgnoredAny>()
                    .is_ok_and(|entry| entry.is_some())
            {}
            Ok(name.filter(|_| !another))
        }
    }

    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let name = deserializer.deserialize_any(Name).ok()??;
    deserializer.end().ok()?;
    Some(name)
}

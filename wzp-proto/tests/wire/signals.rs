//! Signals against the recordings, and any text as a signal.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;
use strum::VariantNames;
use wzp_proto::{
    CallOffer, MAX_SIGNAL_LEN, QualityProfile, Signal, SignalError, decode_frame_len, decode_signal, encode_signal,
};

use crate::golden::{bytes, list, load, number, text};

#[test]
fn every_variant_is_read_and_written_byte_for_byte() {
    let golden = load("signal_messages.json");
    let mut seen = BTreeSet::new();
    for message in list(&golden, "messages") {
        let (json, frame) = (text(message, "json_text"), bytes(message, "frame_hex"));
        let signal = decode_signal(json.as_bytes()).unwrap_or_else(|error| panic!("{error}: {json}"));
        assert_eq!(encode_signal(&signal), frame, "{json}");
        assert_eq!(
            decode_frame_len(frame[..4].try_into().unwrap()).unwrap(),
            number::<usize>(message, "json_len")
        );
        assert_eq!(Some(signal.name()), text(message, "name").split('/').next());
        seen.insert(signal.name());
    }
    assert_eq!(seen, Signal::VARIANTS.iter().copied().collect());
    assert_eq!(seen.len(), number::<usize>(&golden, "variant_count"));
}

#[test]
fn profiles_have_their_exact_json() {
    let golden = load("signal_messages.json");
    let named = [
        ("GOOD", QualityProfile::GOOD),
        ("DEGRADED", QualityProfile::DEGRADED),
        ("CATASTROPHIC", QualityProfile::CATASTROPHIC),
        ("STUDIO_32K", QualityProfile::STUDIO_32K),
        ("STUDIO_48K", QualityProfile::STUDIO_48K),
        ("STUDIO_64K", QualityProfile::STUDIO_64K),
    ];
    for ((name, profile), golden) in named.into_iter().zip(list(&golden, "quality_profiles")) {
        assert_eq!(name, text(golden, "name"));
        assert_eq!(serde_json::to_string(&profile).unwrap(), text(golden, "json_text"));
    }
}

#[test]
fn texts_are_accepted_and_refused_as_by_natives() {
    let golden = load("signal_parse_acceptance.json");
    let cases = golden.as_array().unwrap();
    assert_eq!(cases.len(), 20);
    for case in cases {
        let read = decode_signal(text(case, "json_text").as_bytes());
        assert_eq!(read.is_ok(), case["accepted"], "{case}: {read:?}");
        let Ok(mut signal) = read else { continue };
        // Natives lose the difference between an absent protocol version and 2; here it is kept, and so is the text.
        if let Signal::CallOffer(offer) = &mut signal {
            offer.protocol_version = Some(offer.protocol_version());
        }
        assert_eq!(
            &encode_signal(&signal)[4..],
            text(case, "reserialized").as_bytes(),
            "{case}"
        );
    }
}

#[test]
fn unknown_variants_are_told_from_malformed_text() {
    let unknown = |json: &str| match decode_signal(json.as_bytes()) {
        Err(SignalError::UnknownVariant { name }) => Some(name),
        Err(SignalError::Malformed(_)) => None,
        other => panic!("{json}: {other:?}"),
    };
    assert_eq!(unknown(r#"{"Frobnicate":{"a":1}}"#).as_deref(), Some("Frobnicate"));
    assert_eq!(unknown(r#" { "Frobnicate" : null } "#).as_deref(), Some("Frobnicate"));
    assert_eq!(unknown(r#""Frobnicate""#).as_deref(), Some("Frobnicate"));
    assert_eq!(
        unknown(&format!("\"{}\"", "ä".repeat(1000))).unwrap().chars().count(),
        64
    );
    for malformed in [
        "",
        "{",
        "{}",
        "null",
        "7",
        "[]",
        r#""Hold""#,
        r#"{"Frobnicate":1,"Ping":2}"#,
        r#"{"Frobnicate":1} x"#,
        r#"{"Frobnicate":{"#,
        r#"{"Ping":{}}"#,
        r#"{"Hangup":{"reason":"Bored"}}"#,
        r#"{"FederatedSignalForward":{"inner":{"Frobnicate":{}},"origin_relay_fp":"x"}}"#,
    ] {
        assert_eq!(unknown(malformed), None, "{malformed}");
    }
}

#[test]
fn deep_nesting_is_refused() {
    let depth = 100_000;
    let inner = r#"{"FederatedSignalForward":{"origin_relay_fp":"","inner":"#;
    let text = format!("{}\"Reflect\"{}", inner.repeat(depth / 10), "}}".repeat(depth / 10));
    assert!(matches!(decode_signal(text.as_bytes()), Err(SignalError::Malformed(_))));
    let text = format!("{{\"Ping\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(matches!(decode_signal(text.as_bytes()), Err(SignalError::Malformed(_))));
}

#[test]
fn signals_over_one_mebibyte_are_refused_before_they_are_read() {
    let len = u32::try_from(MAX_SIGNAL_LEN).unwrap();
    assert_eq!(decode_frame_len(len.to_be_bytes()), Ok(MAX_SIGNAL_LEN));
    assert_eq!(decode_frame_len((len + 1).to_be_bytes()).unwrap_err().len, len + 1);
    assert!(decode_frame_len([0xff; 4]).is_err());
    let mut json = br#"{"Ping":{"timestamp_ms":5}}"#.to_vec();
    json.resize(MAX_SIGNAL_LEN, b' ');
    assert!(decode_signal(&json).is_ok());
    json.push(b' ');
    assert!(matches!(decode_signal(&json), Err(SignalError::TooLong { len }) if len == MAX_SIGNAL_LEN + 1));
}

fn offer(json: &str) -> CallOffer {
    match decode_signal(json.as_bytes()).unwrap() {
        Signal::CallOffer(offer) => *offer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_absent_protocol_version_reads_as_two_and_is_reported() {
    let golden = load("signal_parse_acceptance.json");
    let case = golden
        .as_array()
        .unwrap()
        .iter()
        .find(|case| case["name"] == "v1_call_offer_without_protocol_version");
    let json = text(case.unwrap(), "json_text");
    let absent = offer(json);
    assert!(absent.is_version_absent());
    assert_eq!(absent.protocol_version(), 2);
    // It stays absent when it is handed on.
    let again = encode_signal(&Signal::CallOffer(Box::new(absent)));
    assert!(offer(std::str::from_utf8(&again[4..]).unwrap()).is_version_absent());

    let mut value: Value = serde_json::from_str(json).unwrap();
    value["CallOffer"]["protocol_version"] = 3.into();
    let three = offer(&value.to_string());
    assert!(!three.is_version_absent());
    assert_eq!(three.protocol_version(), 3);
    value["CallOffer"]["protocol_version"] = Value::Null;
    assert!(decode_signal(value.to_string().as_bytes()).is_err());
}

#[test]
fn the_gateway_extension_is_the_last_field_and_absent_by_default() {
    let golden = load("signal_messages.json");
    let json = text(&list(&golden, "messages")[0], "json_text");
    assert!(!json.contains("wzp_gateway"));
    let mut extended = offer(json);
    assert_eq!(extended.wzp_gateway, None);
    extended.wzp_gateway = Some(wzp_proto::GatewayExtension {
        per_source: true,
        pin: None,
    });
    let frame = encode_signal(&Signal::CallOffer(Box::new(extended.clone())));
    let text = std::str::from_utf8(&frame[4..]).unwrap();
    assert!(text.ends_with(r#","wzp_gateway":{"per_source":true}}}"#), "{text}");
    assert_eq!(offer(text), extended);
}

/// JSON that resembles signals: known names, odd values.
fn json_like_a_signal() -> impl Strategy<Value = String> {
    let golden = load("signal_messages.json");
    let messages: Vec<String> = list(&golden, "messages")
        .iter()
        .map(|message| text(message, "json_text").to_owned())
        .collect();
    (
        proptest::sample::select(messages),
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        ".{0,6}",
    )
        .prop_map(|(mut json, from, len, insert)| {
            let from = from.index(json.len());
            let to = (from + len.index(8)).min(json.len());
            json.replace_range(from..to, &insert);
            json
        })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(json: Vec<u8>) {
        let _ = decode_signal(&json);
    }

    #[test]
    fn damaged_signals_are_refused_or_survive_a_round_trip(json in json_like_a_signal()) {
        if let Ok(signal) = decode_signal(json.as_bytes()) {
            let frame = encode_signal(&signal);
            prop_assert_eq!(decode_frame_len(frame[..4].try_into().unwrap()), Ok(frame.len() - 4));
            if let Ok(again) = decode_signal(&frame[4..]) {
                prop_assert_eq!(encode_signal(&again), frame);
            } else {
                // Only a number beyond f32 turns into something that JSON cannot say.
                prop_assert!(frame.windows(4).any(|window| window == b"null"));
            }
        }
    }
}

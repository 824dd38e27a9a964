//! Room names and server names.

use proptest::prelude::*;
use wzp_proto::{RoomKey, RoomName, RoomNameError, Sni};

use crate::golden::{list, load, text};

#[test]
fn hash_forms_are_those_of_natives() {
    for room in list(&load("handshake_crypto.json"), "rooms") {
        assert_eq!(
            RoomKey::hash_of(text(room, "room")).to_string(),
            text(room, "hash_room_name")
        );
    }
    let key = |name| RoomName::parse(name).unwrap().key().to_string();
    assert_eq!(key("general"), "a47b63f7d5b511ba5bc4089a74446906");
    assert_eq!(key("android"), "3f8466a8c694c38ccbe4ff7479015ae0");
    assert_eq!(key("my-group"), "46de10172c0bd3222eea8f521ac04d59");
    assert_eq!(key("ops-channel"), "edd06f5c32cd837f096a96fb2c00c563");
}

#[test]
fn raw_name_and_hash_form_are_one_room() {
    let raw = RoomName::parse("general").unwrap();
    let hashed = RoomName::parse("a47b63f7d5b511ba5bc4089a74446906").unwrap();
    let shouted = RoomName::parse("  GENERAL ").unwrap();
    let hashed_shouted = RoomName::parse("A47B63F7D5B511BA5BC4089A74446906").unwrap();
    assert!(raw == hashed && raw == shouted && raw == hashed_shouted);
    assert_eq!(raw.key(), hashed.key());
    assert_eq!(raw.display(), Some("general"));
    assert_eq!(shouted.display(), Some("GENERAL"));
    assert_eq!(hashed.display(), None);
    assert_eq!(hashed_shouted.to_string(), "a47b63f7d5b511ba5bc4089a74446906");
}

#[test]
fn hexlike_names_of_other_lengths_are_names() {
    for name in [
        "abc",
        &"a".repeat(31),
        &"a".repeat(33),
        &format!("{}g", "a".repeat(31)),
        &format!("+{}", "a".repeat(31)),
    ] {
        assert_eq!(RoomName::parse(name).unwrap().display(), Some(name));
    }
}

#[test]
fn names_with_another_meaning_are_refused() {
    for name in [
        "ping",
        "version",
        "_signal",
        "_",
        "_anything",
        "call-00c0ffee",
        "call-",
        "ws",
        "whip",
        "whep",
        "api",
        "assets",
        "metrics",
        "health",
        "healthz",
        "PING",
        " Api ",
        "Call-X",
    ] {
        let error = RoomName::parse(name).unwrap_err();
        assert!(matches!(error, RoomNameError::Reserved(_)), "{name}: {error:?}");
        assert!(error.to_string().contains("choose another name"));
    }
    for name in [
        "pings", "caller", "call", "wsx", "a_b", "api-test", "über", "my room", "1234",
    ] {
        assert!(RoomName::parse(name).is_ok(), "{name}");
    }
}

#[test]
fn unusable_names_are_refused() {
    assert_eq!(RoomName::parse("").unwrap_err(), RoomNameError::Empty);
    assert_eq!(RoomName::parse(" \t ").unwrap_err(), RoomNameError::Empty);
    assert!(RoomName::parse(&"ä".repeat(64)).is_ok());
    assert_eq!(RoomName::parse(&"a".repeat(65)).unwrap_err(), RoomNameError::TooLong);
    for (name, bad) in [
        ("a/b", '/'),
        ("a?b", '?'),
        ("a#b", '#'),
        ("a\nb", '\n'),
        ("a\u{0}b", '\u{0}'),
        ("a\u{85}b", '\u{85}'),
    ] {
        assert_eq!(RoomName::parse(name).unwrap_err(), RoomNameError::Character(bad));
    }
}

#[test]
fn server_names_are_sorted() {
    let room = |name| Sni::Room(RoomName::parse(name).unwrap());
    assert_eq!(Sni::classify(None), room("default"));
    assert_eq!(Sni::classify(Some("general")), room("general"));
    assert_eq!(Sni::classify(Some("a47b63f7d5b511ba5bc4089a74446906")), room("general"));
    assert_eq!(Sni::classify(Some("ping")), Sni::Ping);
    assert_eq!(Sni::classify(Some("version")), Sni::Version);
    for name in [
        "_signal",
        "_federation",
        "_probe",
        "_relay",
        "call-1",
        "metrics",
        "",
        "a/b",
    ] {
        match Sni::classify(Some(name)) {
            Sni::Refused { name: refused, reason } => {
                assert_eq!(refused, name);
                assert!(!reason.to_string().is_empty());
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_a_room_or_refused(name in ".{0,80}") {
        if let Ok(room) = RoomName::parse(&name) {
            // The hash form leads to the same room, and folding is stable.
            prop_assert_eq!(&RoomName::parse(&room.key().to_string()).unwrap(), &room);
            prop_assert_eq!(RoomName::parse(&room.to_string()).unwrap().key(), room.key());
            prop_assert_eq!(Sni::classify(Some(&name)), Sni::Room(room));
        }
    }
}

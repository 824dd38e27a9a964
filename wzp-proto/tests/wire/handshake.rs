//! Identities and the handshake against the recordings.

use std::str::FromStr;

use proptest::prelude::*;
use wzp_proto::signal::CallAnswer;
use wzp_proto::{
    Answerer, Codec, Dialer, Fingerprint, GatewayExtension, HandshakeError, HangupReason, Identity, OfferOptions,
    QualityProfile, Signal, decode_signal, encode_signal,
};

use crate::golden::{array, bytes, list, load, text};

fn parties() -> (Identity, Identity) {
    let golden = load("handshake_crypto.json");
    let identity = |who: &str| Identity::from_seed(&array(&golden[who], "seed_hex"));
    (identity("client"), identity("relay"))
}

fn native_options() -> OfferOptions {
    OfferOptions {
        alias: None,
        profiles: QualityProfile::OFFERED.to_vec(),
        video_codecs: vec![Codec::H264Baseline],
        extension: None,
    }
}

#[test]
fn identities_are_derived_as_by_natives() {
    let golden = load("handshake_crypto.json");
    let (client, relay) = parties();
    for (identity, golden) in [(client, &golden["client"]), (relay, &golden["relay"])] {
        assert_eq!(identity.public_key(), array(golden, "ed25519_public_hex"));
        assert_eq!(identity.fingerprint().to_string(), text(golden, "fingerprint"));
        assert_eq!(identity.fingerprint().0, array(golden, "fingerprint_hex"));
        assert_eq!(
            identity.tls_secret(),
            array::<32>(golden, "tls_ed25519_secret_hkdf_hex")
        );
        assert!(!format!("{identity:?}").contains(&text(golden, "tls_ed25519_secret_hkdf_hex")[..8]));
    }
}

#[test]
fn offer_answer_and_session_are_the_recorded_ones() {
    let golden = load("handshake_crypto.json");
    let (client, relay) = parties();
    let recorded = decode_signal(text(&golden["call_offer"]["message"], "json_text").as_bytes()).unwrap();
    let Signal::CallOffer(recorded_offer) = &recorded else {
        panic!("{recorded:?}")
    };
    let options = OfferOptions {
        alias: recorded_offer.alias.clone(),
        ..native_options()
    };

    let (mut dialer, offer) = Dialer::new(&client, array(&golden["client_ephemeral"], "secret_hex"), options);
    assert_eq!(
        encode_signal(&offer),
        bytes(&golden["call_offer"]["message"], "frame_hex")
    );

    let accepted = Answerer::accept(&relay, array(&golden["relay_ephemeral"], "secret_hex"), offer).unwrap();
    assert_eq!(
        encode_signal(&accepted.answer),
        bytes(&golden["call_answer"]["message"], "frame_hex")
    );
    assert_eq!(accepted.fingerprint, client.fingerprint());
    assert_eq!(accepted.peer_identity, client.public_key());
    assert_eq!(accepted.video_codec, Some(Codec::H264Baseline));

    let established = dialer.on_signal(accepted.answer).unwrap();
    assert_eq!(established.fingerprint, relay.fingerprint());
    assert_eq!(established.video_codec, Some(Codec::H264Baseline));
    assert_eq!(established.profile, QualityProfile::GOOD);
    assert_eq!(established.session, accepted.session);
    assert_eq!(established.session.key(), &array(&golden, "session_key_hex"));
    assert_eq!(established.session.id(), array(&golden, "session_id_hex"));
    assert_eq!(established.session.sas(), "0419");
}

#[test]
fn the_example_of_the_protocol_text_comes_out_the_same() {
    let (client, relay) = (Identity::from_seed(&[0x42; 32]), Identity::from_seed(&[0x24; 32]));
    assert_eq!(
        client.fingerprint().to_string(),
        "518e:b935:62fa:9e34:e59c:28b6:7fc2:d384"
    );
    let options = OfferOptions {
        alias: Some("gw".to_owned()),
        profiles: vec![QualityProfile::GOOD],
        video_codecs: vec![Codec::H264Baseline],
        extension: None,
    };
    let (mut dialer, offer) = Dialer::new(&client, [0x11; 32], options);
    assert_eq!(encode_signal(&offer)[..4], [0, 0, 0x03, 0x32]);
    let accepted = Answerer::accept(&relay, [0x22; 32], offer).unwrap();
    assert_eq!(encode_signal(&accepted.answer)[..4], [0, 0, 0x02, 0xed]);
    let session = dialer.on_signal(accepted.answer).unwrap().session;
    assert_eq!(
        hex::encode(session.key()),
        "b2fa5213ed350d8e9847b7e25dd3a79107a4ab6aa753832e3d00bb6660fcf666"
    );
    assert_eq!(
        (session.id(), session.sas().as_str()),
        ([0x20, 0xdd, 0xa3, 0x2a], "4812")
    );
}

#[test]
fn v1_and_unknown_versions_get_a_typed_hangup() {
    let (client, relay) = parties();
    for version in [None, Some(1), Some(3)] {
        let (mut dialer, offer) = Dialer::new(&client, [7; 32], native_options());
        let Signal::CallOffer(mut offer) = offer else { panic!() };
        offer.protocol_version = version;
        let refused = Answerer::accept(&relay, [8; 32], Signal::CallOffer(offer)).unwrap_err();
        assert_eq!(refused.error, HandshakeError::Version { offered: version });
        let hangup = refused.hangup.unwrap();
        assert_eq!(
            &encode_signal(&hangup)[4..],
            br#"{"Hangup":{"version":1,"reason":{"ProtocolVersionMismatch":{"server_supported":[2]}}}}"#
        );
        let error = dialer.on_signal(hangup).unwrap_err();
        assert_eq!(error, HandshakeError::PeerSpeaks { supported: vec![2] });
    }
}

#[test]
fn forged_offers_and_answers_are_refused() {
    let (client, relay) = parties();
    let (mut dialer, offer) = Dialer::new(&client, [7; 32], native_options());
    let Signal::CallOffer(genuine) = offer else { panic!() };

    let mut forged = genuine.clone();
    forged.signature[0] ^= 1;
    let refused = Answerer::accept(&relay, [8; 32], Signal::CallOffer(forged)).unwrap_err();
    assert_eq!(refused.error, HandshakeError::Signature);

    let mut stolen = genuine.clone();
    stolen.identity_pub = relay.public_key();
    let refused = Answerer::accept(&relay, [8; 32], Signal::CallOffer(stolen)).unwrap_err();
    assert_eq!(refused.error, HandshakeError::Signature);

    let mut unsigned = genuine.clone();
    unsigned.signature.clear();
    let refused = Answerer::accept(&relay, [8; 32], Signal::CallOffer(unsigned)).unwrap_err();
    assert_eq!(refused.error, HandshakeError::Signature);

    // The signature of an offer is not one of an answer.
    let answer = CallAnswer {
        version: 1,
        identity_pub: genuine.identity_pub,
        ephemeral_pub: genuine.ephemeral_pub,
        signature: genuine.signature.clone(),
        chosen_profile: QualityProfile::GOOD,
        video_codec: None,
    };
    let error = dialer.on_signal(Signal::CallAnswer(Box::new(answer))).unwrap_err();
    assert_eq!(error, HandshakeError::Signature);
}

#[test]
fn a_degenerate_key_is_refused() {
    let (client, relay) = parties();
    let (_, offer) = Dialer::new(&client, [7; 32], native_options());
    let Signal::CallOffer(mut offer) = offer else { panic!() };
    offer.ephemeral_pub = [0; 32];
    offer.signature = client.sign(&[[0; 32].as_slice(), b"call-offer"].concat()).to_vec();
    let refused = Answerer::accept(&relay, [8; 32], Signal::CallOffer(offer)).unwrap_err();
    assert_eq!(refused.error, HandshakeError::EphemeralKey);
}

#[test]
fn the_dialer_takes_one_reply() {
    let (client, relay) = parties();
    let dial = || Dialer::new(&client, [7; 32], native_options());

    let (mut dialer, offer) = dial();
    let answer = Answerer::accept(&relay, [8; 32], offer).unwrap().answer;
    assert!(dialer.on_signal(answer.clone()).is_ok());
    assert_eq!(dialer.on_signal(answer).unwrap_err(), HandshakeError::Finished);

    let (mut dialer, _) = dial();
    let error = dialer.on_signal(Signal::ping(1)).unwrap_err();
    assert_eq!(
        error,
        HandshakeError::UnexpectedSignal {
            expected: "CallAnswer",
            got: "Ping"
        }
    );

    let (mut dialer, _) = dial();
    let error = dialer.on_signal(Signal::hangup(HangupReason::Busy)).unwrap_err();
    assert_eq!(error, HandshakeError::HungUp(HangupReason::Busy));

    let refused = Answerer::accept(&relay, [8; 32], Signal::Reflect).unwrap_err();
    assert_eq!(
        refused.error,
        HandshakeError::UnexpectedSignal {
            expected: "CallOffer",
            got: "Reflect"
        }
    );
    assert_eq!(refused.hangup, None);
}

#[test]
fn the_answer_names_the_callers_first_video_codec() {
    let (client, relay) = parties();
    let answered = |video_codecs: Vec<Codec>| {
        let extension = Some(GatewayExtension {
            per_source: true,
            pin: None,
        });
        let options = OfferOptions {
            video_codecs: video_codecs.clone(),
            extension,
            ..native_options()
        };
        let (mut dialer, offer) = Dialer::new(&client, [7; 32], options);
        let accepted = Answerer::accept(&relay, [8; 32], offer).unwrap();
        assert_eq!(accepted.video_codecs, video_codecs);
        assert_eq!(accepted.extension, extension);
        let established = dialer.on_signal(accepted.answer).unwrap();
        assert_eq!(established.video_codec, accepted.video_codec);
        established.video_codec
    };
    assert_eq!(answered(vec![]), None);
    assert_eq!(answered(vec![Codec::Opus24k]), None);
    assert_eq!(
        answered(vec![Codec::Opus24k, Codec::Av1Main, Codec::H264Baseline]),
        Some(Codec::Av1Main)
    );
}

#[test]
fn fingerprints_are_text_and_back() {
    let text = "518e:b935:62fa:9e34:e59c:28b6:7fc2:d384";
    let fingerprint = Fingerprint::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&fingerprint).unwrap(), format!("\"{text}\""));
    assert_eq!(
        serde_json::from_str::<Fingerprint>(&format!("\"{text}\"")).unwrap(),
        fingerprint
    );
    for wrong in [
        "",
        "518e",
        &text[..34],
        &text[1..],
        &format!("{text}:0000"),
        &text.replace('5', "+"),
        &text.replace(':', ""),
    ] {
        assert!(Fingerprint::from_str(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn every_recorded_offer_is_accepted_and_every_answer_verified() {
    let (_, relay) = parties();
    let mut offers = 0;
    for file in [
        "session_timeline.json",
        "video_room_timeline.json",
        "direct_call_timeline.json",
        "behaviours.json",
    ] {
        let golden = load(file);
        for event in crate::golden::objects(&golden) {
            let Some(json) = event["json"].as_str() else { continue };
            if let Ok(signal @ Signal::CallOffer(_)) = decode_signal(json.as_bytes()) {
                Answerer::accept(&relay, [9; 32], signal).unwrap();
                offers += 1;
            }
        }
    }
    assert!(offers > 10);
    assert_eq!(list(&load("handshake_crypto.json")["aead"], "examples").len(), 4);
}

proptest! {
    #[test]
    fn both_sides_agree(client: [u8; 32], relay: [u8; 32], dialing: [u8; 32], answering: [u8; 32]) {
        let (client, relay) = (Identity::from_seed(&client), Identity::from_seed(&relay));
        let (mut dialer, offer) = Dialer::new(&client, dialing, OfferOptions::default());
        let accepted = Answerer::accept(&relay, answering, offer).unwrap();
        let established = dialer.on_signal(accepted.answer).unwrap();
        prop_assert_eq!(established.session, accepted.session);
        prop_assert_eq!(accepted.fingerprint, client.fingerprint());
    }

    #[test]
    fn any_fingerprint_survives_a_round_trip(bytes: [u8; 16], text in ".{0,48}") {
        let fingerprint = Fingerprint(bytes);
        prop_assert_eq!(fingerprint.to_string().parse::<Fingerprint>().unwrap(), fingerprint);
        if let Ok(read) = text.parse::<Fingerprint>() {
            prop_assert_eq!(read.to_string(), text.to_lowercase());
        }
    }
}

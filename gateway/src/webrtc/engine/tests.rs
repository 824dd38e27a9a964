//! What can only be shown from inside.

use super::*;

pub(in crate::webrtc) const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=ice-ufrag:abcd\r\n\
    a=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=fingerprint:sha-256 \
    00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
    a=setup:actpass\r\na=rtcp-mux\r\na=sendrecv\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:0 PCMU/8000\r\n\
    a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=extmap:5 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 102 103 108 109 45 46 47\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=rtcp-mux\r\na=recvonly\r\n\
    a=extmap:13 urn:3gpp:video-orientation\r\n\
    a=rtpmap:102 H264/90000\r\na=fmtp:102 packetization-mode=1;profile-level-id=42001f\r\n\
    a=rtpmap:103 rtx/90000\r\na=fmtp:103 apt=102\r\n\
    a=rtpmap:108 H264/90000\r\na=fmtp:108 packetization-mode=1;profile-level-id=42e01f\r\na=rtcp-fb:108 nack pli\r\n\
    a=rtpmap:109 rtx/90000\r\na=fmtp:109 apt=108\r\n\
    a=rtpmap:45 AV1/90000\r\na=fmtp:45 profile=0\r\na=rtpmap:46 rtx/90000\r\na=fmtp:46 apt=45\r\n\
    a=rtpmap:47 AV1/90000\r\na=fmtp:47 profile=1\r\n";

fn engine(now: Instant) -> Engine {
    let udp_candidates = vec!["192.0.2.1:8444".parse().unwrap(), "[2001:db8::1]:8444".parse().unwrap()];
    let tcp_candidates = vec!["192.0.2.1:8444".parse().unwrap()];
    Engine::new(
        now,
        Config {
            udp_candidates,
            tcp_candidates,
            ..Config::default()
        },
    )
    .unwrap()
}

#[test]
fn a_panic_ends_its_session_and_no_other() {
    let now = Instant::now();
    let mut engine = engine(now);
    for id in [1, 2] {
        engine
            .accept_offer(now, SessionId(id), OFFER, &OfferPolicy::default())
            .unwrap();
    }
    while engine.poll_event().is_some() {}
    let result: Option<()> = engine.with_session(now, SessionId(1), |_, _| panic!("as a bug in the crate would"));
    assert_eq!(result, None);
    let event = engine.poll_event();
    assert!(
        matches!(
            event,
            Some(Event::Closed {
                session: SessionId(1),
                reason: Reason::Internal
            })
        ),
        "{event:?}"
    );
    assert!(engine.poll_event().is_none());
    assert!(!engine.contains(SessionId(1)) && engine.contains(SessionId(2)));
    assert_eq!(engine.ufrags.len(), 1);
}

#[test]
fn the_answer_names_what_was_agreed_and_nothing_else() {
    let now = Instant::now();
    let answer = engine(now)
        .accept_offer(now, SessionId(1), OFFER, &OfferPolicy::default())
        .unwrap();
    for line in [
        "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
        // Constrained baseline before baseline, and profile 0 only.
        "m=video 9 UDP/TLS/RTP/SAVPF 108 109 45 46\r\n",
        "a=group:BUNDLE 0 1\r\n",
        "a=setup:passive\r\n",
        "a=extmap:5 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n",
        "a=rtcp-fb:108 nack pli\r\n",
        "a=sendrecv\r\n",
        "a=sendonly\r\n",
        "a=ssrc-group:FID ",
        "1 udp 2130706431 192.0.2.1 8444 typ host\r\n",
        "2001:db8::1 8444 typ host\r\n",
        "192.0.2.1 8444 typ host tcptype passive\r\n",
    ] {
        assert!(answer.contains(line), "no {line:?} in {answer}");
    }
    // Who may not tell how its camera is held turns the picture itself.
    for line in [
        "video-orientation",
        "PCMU",
        "a=ice-lite",
        "H264/90000\r\na=rtcp-fb:102",
        " 47",
    ] {
        assert!(!answer.contains(line), "{line:?} in {answer}");
    }
}

#[test]
fn the_policy_decides_codecs_directions_and_streams() {
    let now = Instant::now();
    let mut engine = engine(now);
    let policy = OfferPolicy {
        codecs: vec![Codec::Av1, Codec::H264],
        receive: false,
        send: true,
        layers: false,
        max_video_bps: None,
        streams: vec![(Mid::new("1").unwrap(), "alice".to_owned())],
    };
    let answer = engine.accept_offer(now, SessionId(1), OFFER, &policy).unwrap();
    assert!(answer.contains("m=audio 0 "), "no codec is left for audio: {answer}");
    assert!(answer.contains("m=video 9 UDP/TLS/RTP/SAVPF 45 46 108 109\r\n"));
    assert!(answer.contains("a=msid:alice video-1\r\n"));
    assert!(answer.contains("a=group:BUNDLE 1\r\n"));
    let Some(Event::Negotiated { lines, .. }) = engine.poll_event() else {
        panic!("no event")
    };
    assert_eq!(
        lines.iter().map(|line| line.direction.recv).collect::<Vec<_>>(),
        [false, false]
    );
    assert_eq!(
        lines[1].codecs.iter().map(|known| known.codec).collect::<Vec<_>>(),
        [Codec::Av1, Codec::H264]
    );
}

#[test]
fn ended_sessions_leave_nothing_behind() {
    let now = Instant::now();
    let mut engine = engine(now);
    for id in 0..50 {
        engine
            .accept_offer(now, SessionId(id), OFFER, &OfferPolicy::default())
            .unwrap();
        engine.close(now, SessionId(id));
    }
    engine.handle_timeout(now + Duration::from_secs(60));
    assert!(engine.sessions.is_empty() && engine.ufrags.is_empty() && engine.addresses.is_empty());
    assert!(engine.timers.is_empty(), "{} timers", engine.timers.len());
}

#[test]
fn an_engine_without_candidates_is_refused() {
    assert!(matches!(
        Engine::new(Instant::now(), Config::default()),
        Err(SetupError::NoCandidates)
    ));
}

fn answer(change: impl Fn(String) -> String, policy: &OfferPolicy) -> Result<String, OfferError> {
    let now = Instant::now();
    engine(now).accept_offer(now, SessionId(1), &change(OFFER.to_owned()), policy)
}

#[test]
fn a_payload_type_that_is_listed_again_counts_once() {
    let offer = OFFER.replace(" 102 103", &format!(" {}102 103", "102 ".repeat(50)));
    let parsed = offer::parse(&offer).unwrap();
    let types: Vec<u8> = parsed.lines[1].codecs.iter().map(|codec| codec.payload_type).collect();
    assert_eq!(types, [102, 108, 45]);
}

#[test]
fn an_m_line_that_lists_more_than_makes_sense_is_refused() {
    let policy = OfferPolicy::default();
    let refused = |what: &str, result: Result<String, OfferError>| match result {
        Err(error @ OfferError::TooMuch { .. }) => assert!(error.to_string().contains(what), "{error}"),
        other => panic!("{what}: {other:?}"),
    };
    let formats = |sdp: String| sdp.replace(" 102 103", &" 102".repeat(1_000));
    refused("more than 128 formats", answer(formats, &policy));
    let long = |sdp: String| sdp.replace("profile=0", &format!("profile=0;x={}", "y".repeat(5_000)));
    refused("bytes of fmtp", answer(long, &policy));
    for target in ["108", "*"] {
        let line = format!("a=rtcp-fb:{target} nack\r\n");
        let feedback = |sdp: String| sdp.replace("a=rtpmap:45", &format!("{}a=rtpmap:45", line.repeat(100)));
        refused("rtcp-fb", answer(feedback, &policy));
    }
    // What browsers write is far below.
    let usual = |sdp: String| sdp.replace("profile=0", &format!("profile=0;x={}", "y".repeat(500)));
    assert!(answer(usual, &policy).is_ok());
}

#[test]
fn repairs_are_promised_only_to_viewers_that_take_them() {
    let nack = |sdp: String| {
        sdp.replace(
            "a=rtcp-fb:108 nack pli\r\n",
            "a=rtcp-fb:108 nack\r\na=rtcp-fb:108 nack pli\r\n",
        )
    };
    let bare = |sdp: String| nack(sdp).replace("a=rtpmap:109 rtx/90000\r\na=fmtp:109 apt=108\r\n", "");
    let publisher = |sdp: String| bare(sdp).replace("a=recvonly", "a=sendonly");
    let policy = OfferPolicy::default();
    let viewer = answer(nack, &policy).unwrap();
    assert!(viewer.contains("a=rtcp-fb:108 nack\r\n") && viewer.contains(" 108 109 "));
    let viewer = answer(bare, &policy).unwrap();
    assert!(!viewer.contains("a=rtcp-fb:108 nack\r\n") && viewer.contains("a=rtcp-fb:108 nack pli\r\n"));
    let publisher = answer(publisher, &policy).unwrap();
    assert!(publisher.contains("a=rtcp-fb:108 nack\r\n") && !publisher.contains(" 109 "));
}

/// A publisher's offer of three layers.
pub(in crate::webrtc) fn simulcast_offer() -> String {
    OFFER
        .replace(
            "a=mid:1\r\na=rtcp-mux\r\na=recvonly",
            "a=mid:1\r\na=rtcp-mux\r\na=sendonly",
        )
        .replace(
            "a=extmap:13",
            "a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send q;h;f\r\n\
             a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
             a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\na=extmap:13",
        )
}

#[test]
fn layers_are_answered_only_where_they_are_wanted() {
    let layers = OfferPolicy {
        layers: true,
        ..OfferPolicy::default()
    };
    let with = answer(|_| simulcast_offer(), &layers).unwrap();
    assert!(with.contains("a=simulcast:recv q;h;f\r\n") && with.contains("rtp-stream-id"));
    let without = answer(|_| simulcast_offer(), &OfferPolicy::default()).unwrap();
    assert!(without.contains("m=video 9 ") && without.contains("a=recvonly"));
    for word in ["simulcast", "a=rid", "rtp-stream-id"] {
        assert!(!without.contains(word), "{word} in {without}");
    }
}

#[test]
fn one_session_does_not_fill_the_table_of_addresses() {
    let now = Instant::now();
    let mut engine = engine(now);
    for id in [1, 2] {
        engine
            .accept_offer(now, SessionId(id), OFFER, &OfferPolicy::default())
            .unwrap();
    }
    let claim = |engine: &mut Engine, id: u64, port: u16| {
        let credentials = engine.sessions[&SessionId(id)].credentials().clone();
        let request = binding_request(&credentials.ufrag, &credentials.password);
        let from = SocketAddr::from(([198, 51, 100, 1], port));
        engine.handle_datagram(now, Local::UDP, from, &request)
    };
    for port in 1_000..1_200 {
        assert!(claim(&mut engine, 1, port));
    }
    assert_eq!(engine.addresses.len(), addresses::MAX_PER_SESSION);
    assert!(claim(&mut engine, 2, 5_000), "others still find room");
    assert_eq!(engine.addresses.len(), addresses::MAX_PER_SESSION + 1);
}

fn binding_request(ufrag: &str, password: &str) -> Vec<u8> {
    use rtc::stun::message::{BINDING_REQUEST, Message, Setter as _, TransactionId};
    use rtc::stun::textattrs::TextAttribute;

    let mut message = Message::new();
    let username = TextAttribute::new(rtc::stun::attributes::ATTR_USERNAME, format!("{ufrag}:abcd"));
    message
        .build(&[
            Box::new(BINDING_REQUEST),
            Box::new(TransactionId::new()),
            Box::new(username),
        ])
        .unwrap();
    let provider = rtc::crypto::default_provider().unwrap();
    let password = password.to_owned();
    rtc::stun::integrity::MessageIntegrity::new_short_term_integrity_with_provider(password, provider.crypto())
        .add_to(&mut message)
        .unwrap();
    message.raw
}

//! What can only be shown from inside.

use super::*;

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
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

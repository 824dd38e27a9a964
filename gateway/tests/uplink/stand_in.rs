//! The stand-in itself: whatever else it is used for, it has the habits of the relay it stands for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{ConnectionError, VarInt};
use tokio::time::{interval, timeout};
use wzp_gateway::native::client::{self, ConnectError, Event as Heard};
use wzp_gateway::native::transport::close;
use wzp_gateway::uplink::separate::{Config, Separator, StreamId};
use wzp_proto::codec::{Codec, QualityProfile};
use wzp_proto::datagram::DatagramForm;
use wzp_proto::handshake::HandshakeError;
use wzp_proto::header::{Flags, MediaType};
use wzp_proto::packet::{MediaPacket, QualityReport};
use wzp_proto::seal::Sealing;
use wzp_proto::signal::{Signal, encode_signal};
use wzp_proto::trunk::decode_trunk;

use crate::member::{DEADLINE, Member, access_unit, join_deaf, next_raw, offer, send_raw, sound_header};
use crate::relay::{Event, Form, Link, Options, Refusal, Speaks, StandIn, Vintage};

fn start(change: impl FnOnce(&mut Options)) -> StandIn {
    let mut options = Options::default();
    change(&mut options);
    StandIn::start(options)
}

async fn join(relay: &StandIn, alias: &str) -> Member {
    Member::join(relay.addr, "general", alias, rand::random(), None)
        .await
        .unwrap()
}

/// Two members who know of each other.
async fn two(relay: &StandIn) -> (Member, Member) {
    let mut ana = join(relay, "ana").await;
    let mut bo = join(relay, "bo").await;
    for member in [&mut ana, &mut bo] {
        member.wait_list(&["ana", "bo"]).await;
    }
    (ana, bo)
}

fn directed(event: Heard) -> Option<Codec> {
    match event {
        Heard::Signal(Signal::QualityDirective {
            recommended_profile, ..
        }) => Some(recommended_profile.codec),
        Heard::Closed(error) => panic!("closed: {error}"),
        _ => None,
    }
}

fn asked(event: Heard) -> Option<u8> {
    match event {
        Heard::Signal(Signal::PictureLossIndication { stream_id, .. }) => Some(stream_id),
        Heard::Closed(error) => panic!("closed: {error}"),
        _ => None,
    }
}

/// What each side of a picture looks like to somebody who joins now: stream id and number of every packet before the list.
async fn replayed_to(relay: &StandIn, alias: &str) -> Vec<(u8, u32)> {
    let before = relay.counters().replayed;
    let mut newcomer = join(relay, alias).await;
    let mut packets = Vec::new();
    newcomer
        .wait("the list", |event| match event {
            Heard::Signal(Signal::RoomUpdate { .. }) => Some(()),
            Heard::Packet(packet) => {
                packets.push((packet.header.stream_id, packet.header.seq));
                None
            }
            other => panic!("{other:?}"),
        })
        .await;
    // Datagrams and streams do not wait for each other.
    while (packets.len() as u64) < relay.counters().replayed - before {
        let packet = newcomer.wait_packet(MediaType::Video).await;
        packets.push((packet.header.stream_id, packet.header.seq));
    }
    packets
}

#[tokio::test]
async fn sound_passes_untouched_and_says_nothing_of_its_sender() {
    let relay = start(|_| {});
    let (ana, mut bo) = two(&relay).await;
    let mut cy = join(&relay, "cy").await;
    bo.wait_list(&["ana", "bo", "cy"]).await;
    assert_eq!(relay.members("general"), ["ana", "bo", "cy"]);
    ana.send_sound(5, b"from ana");
    for listener in [&mut bo, &mut cy] {
        let heard = listener.wait_packet(MediaType::Audio).await;
        assert_eq!((heard.header, &heard.payload[..]), (sound_header(5), &b"from ana"[..]));
    }
    let id = relay.wait("ana's join", |event| match event {
        Event::Joined {
            id,
            alias,
            room,
            fingerprint,
        } if alias.as_deref() == Some("ana") => {
            assert_eq!((room.as_str(), fingerprint.len()), ("general", 39));
            Some(*id)
        }
        _ => None,
    });
    let id = id.await;
    ana.client.close(close::NORMAL, "normal close").await;
    bo.wait_list(&["bo", "cy"]).await;
    let code = relay.wait("ana's leave", |event| match event {
        Event::Left { id: left, code } if *left == id => Some(*code),
        _ => None,
    });
    assert_eq!(code.await, Some(0));
    assert_eq!(relay.counters().packets_in, 1);
    assert_eq!(relay.counters().datagrams_out, 2);
    // Natives end their half of every stream that the relay opens.
    relay
        .wait_until("the end of all streams", |relay| {
            let counters = relay.counters();
            (counters.streams_opened == counters.streams_finished).then_some(())
        })
        .await;
}

#[tokio::test]
async fn video_gets_its_senders_number_and_other_layers_are_not_forwarded() {
    for (vintage, forwarded) in [(Vintage::Newest, vec![(1, 0), (1, 1)]), (Vintage::Older, vec![(0, 0)])] {
        let relay = start(|options| options.vintage = vintage);
        let (ana, mut bo) = two(&relay).await;
        for (seq, (stream_id, codec)) in (0..).zip([
            (0, Codec::H264Baseline),
            (1, Codec::H264Baseline),
            (2, Codec::H264Baseline),
            (1, Codec::Av1Main),
        ]) {
            let mut header = sound_header(seq);
            (header.media_type, header.codec, header.stream_id) = (MediaType::Video, codec, stream_id);
            assert!(ana.client.sender().try_packet(&header, b"picture"));
        }
        ana.send_sound(0, b"the end");
        let mut seen = Vec::new();
        bo.wait("the end", |event| match event {
            Heard::Packet(packet) if packet.header.media_type == MediaType::Audio => Some(()),
            Heard::Packet(packet) => {
                seen.push((packet.header.stream_id, packet.header.seq));
                None
            }
            _ => None,
        })
        .await;
        assert_eq!(seen, forwarded, "{vintage:?}");
        assert_eq!(relay.counters().other_layer, 4 - forwarded.len() as u64);
    }
}

#[tokio::test]
async fn keyframe_request_goes_to_everybody_once_in_200_ms_if_the_stream_is_anybodys() {
    let relay = start(|_| {});
    let (mut ana, mut bo) = two(&relay).await;
    let mut cy = join(&relay, "cy").await;
    ana.send_picture_on(0, 0, 0, &access_unit(true, 100), true);
    let seen = cy.wait_packet(MediaType::Video).await.header.stream_id;
    assert_eq!(seen, 1);
    let request = |stream_id| assert!(cy.client.sender().signal(Signal::picture_loss(stream_id)));
    request(77);
    request(seen);
    for member in [&mut ana, &mut bo] {
        assert_eq!(member.wait("the request", asked).await, seen);
    }
    // The id as sent means ana, too, but is another stream.
    request(0);
    for member in [&mut ana, &mut bo] {
        assert_eq!(member.wait("the request", asked).await, 0);
    }
    let (begin, before) = (Instant::now(), relay.counters());
    assert_eq!((before.requests_passed, before.requests_dropped), (2, 1));
    for n in 1..=20 {
        request(0);
        relay
            .wait_until("the request", |relay| {
                let now = relay.counters();
                (now.requests_passed + now.requests_dropped == 3 + n).then_some(())
            })
            .await;
    }
    let windows = begin.elapsed().as_millis() as u64 / 200 + 1;
    let passed = relay.counters().requests_passed - 2;
    assert!(passed <= windows, "{passed} in {windows} windows");
}

#[tokio::test]
async fn cached_keyframe_is_replayed_even_of_those_who_left_and_spoilt_by_sound() {
    let relay = start(|_| {});
    let (ana, mut bo) = two(&relay).await;
    let unit = access_unit(true, 3_000);
    let parts = ana.send_picture_on(0, 0, 0, &unit, true);
    assert_eq!(parts, 3);
    for _ in 0..parts {
        bo.wait_packet(MediaType::Video).await;
    }
    assert_eq!(replayed_to(&relay, "early").await, [(1, 0), (1, 1), (1, 2)]);

    // Sound has stream id 0 like bo's picture: what was before it is lost from the cache.
    let header = |seq: u32, flags| {
        let mut header = sound_header(seq);
        (header.media_type, header.codec, header.flags) = (MediaType::Video, Codec::H264Baseline, flags);
        header
    };
    let sender = bo.client.sender();
    assert!(sender.try_packet(&header(50, Flags::KEYFRAME), b"first part"));
    assert!(sender.try_packet(&sound_header(0), b"sound"));
    assert!(sender.try_packet(&header(51, Flags::KEYFRAME | Flags::FRAME_END), b"last part"));
    relay
        .wait_until("bo's packets", |relay| (relay.counters().packets_in == 6).then_some(()))
        .await;
    ana.client.close(close::NORMAL, "").await;
    relay
        .wait("ana's leave", |event| {
            matches!(event, Event::Left { id: 1, .. }).then_some(())
        })
        .await;
    assert_eq!(replayed_to(&relay, "late").await, [(1, 0), (1, 1), (1, 2), (2, 51)]);

    // Of a keyframe over 200,000 bytes the tail is cached.
    for seq in 0..=200 {
        let end = if seq == 200 { Flags::FRAME_END } else { Flags::empty() };
        let header = header(1_000 + seq, Flags::KEYFRAME | end);
        assert!(sender.packet(&header, &[0; 1_100]).await);
        // Sent at once, some of it would not fit what the relay's QUIC keeps for it.
        if seq % 20 == 0 {
            let all = u64::from(6 + seq + 1);
            relay
                .wait_until("bo's keyframe", |relay| {
                    (relay.counters().packets_in == all).then_some(())
                })
                .await;
        }
    }
    let replayed = replayed_to(&relay, "latest").await;
    let tail: Vec<_> = (1_181..=1_200).map(|seq| (2, seq)).collect();
    assert_eq!(replayed[3..], tail);
}

#[tokio::test]
async fn signals_are_ignored_and_one_that_cannot_be_read_ends_the_connection() {
    let relay = start(|_| {});
    let (ana, mut bo) = two(&relay).await;
    let ignored = [Signal::ping(7), Signal::nack(0, vec![1]), Signal::Mute { version: 1 }];
    for signal in &ignored {
        send_raw(ana.client.connection(), &encode_signal(signal)).await;
    }
    for signal in &ignored {
        relay
            .wait("an ignored signal", |event| match event {
                Event::Signal { id: 1, signal: seen } => (seen == signal).then_some(()),
                _ => None,
            })
            .await;
    }
    ana.send_sound(0, b"still here");
    bo.wait("the sound, and no answer to anything", |event| match event {
        Heard::Packet(_) => Some(()),
        Heard::Signal(signal) => panic!("{signal:?}"),
        _ => None,
    })
    .await;
    let mut ana = ana;
    for text in [r#"{"Pirouette":{}}"#, "no json"] {
        let frame = [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
        send_raw(ana.client.connection(), &frame).await;
        assert_eq!(ana.wait_closed().await, (0, String::new()));
        bo.wait_list(&["bo"]).await;
        ana = join(&relay, "ana").await;
        bo.wait_list(&["bo", "ana"]).await;
    }
    let bad = |event: &Event| match event {
        Event::BadSignal { id } => Some(*id),
        _ => None,
    };
    assert_eq!(relay.events().iter().filter_map(bad).collect::<Vec<_>>(), [1, 3]);
}

#[tokio::test]
async fn member_that_ends_no_streams_stalls_all_signals() {
    let relay = start(|_| {});
    let (_endpoint, deaf) = join_deaf(relay.addr, "general", "deaf").await;
    let mut ana = join(&relay, "ana").await;
    ana.wait_list(&["deaf", "ana"]).await;
    let directives = async {
        for _ in 0..150 {
            relay.direct("general", QualityProfile::GOOD).await;
        }
    };
    tokio::pin!(directives);
    let stalled = timeout(Duration::from_secs(2), &mut directives).await;
    assert!(stalled.is_err(), "100 streams are all the deaf one takes");
    let counters = relay.counters();
    assert!(counters.streams_opened - counters.streams_finished <= 101);
    let listens = async {
        loop {
            next_raw(&deaf).await;
        }
    };
    tokio::select! {
        _ = timeout(DEADLINE, listens) => panic!("never goes on"),
        () = directives => {}
    }
}

#[tokio::test]
async fn same_fingerprint_puts_the_earlier_one_out_at_its_next_packet() {
    let relay = start(|_| {});
    let again = || Member::join(relay.addr, "general", "ana", [9; 32], None);
    let mut first = again().await.unwrap();
    first.wait_list(&["ana"]).await;
    let mut second = again().await.unwrap();
    second.wait_list(&["ana"]).await;
    relay
        .wait("the eviction", |event| {
            matches!(event, Event::Evicted { id: 1 }).then_some(())
        })
        .await;
    assert_eq!(first.client.connection().close_reason(), None);
    first.send_sound(0, b"anybody?");
    assert_eq!(first.wait_closed().await.0, 0);
    assert_eq!(relay.members("general"), ["ana"]);
}

#[tokio::test]
async fn token_is_demanded_or_unwanted() {
    let accounts = BTreeMap::from([("secret".to_owned(), "0000:1111".to_owned())]);
    let relay = start(|options| options.accounts = Some(accounts));
    let join = |token| Member::join(relay.addr, "general", "ana", rand::random(), token);
    for token in [None, Some("wrong")] {
        let refused = join(token).await.err();
        assert!(is_closed(&refused, 0), "{refused:?}");
    }
    let mut ana = join(Some("secret")).await.unwrap();
    assert_eq!(ana.wait_list(&["ana"]).await[0].fingerprint, "0000:1111");

    let open = start(|_| {});
    let refused = Member::join(open.addr, "general", "ana", rand::random(), Some("secret"))
        .await
        .err();
    assert!(is_closed(&refused, 0), "{refused:?}");
    for (relay, refusal, count) in [(&relay, Refusal::Token, 2), (&open, Refusal::Offer, 1)] {
        relay
            .wait_until("the refusals", |relay| {
                let is = |event: &&Event| matches!(event, Event::Refused(why) if *why == refusal);
                (relay.events().iter().filter(is).count() == count).then_some(())
            })
            .await;
    }
}

fn is_closed(result: &Option<ConnectError>, with: u32) -> bool {
    let closed = match result {
        Some(ConnectError::Closed(closed)) => closed,
        Some(ConnectError::Send(wzp_gateway::native::signals::SendError::Connection(closed))) => closed,
        _ => return false,
    };
    matches!(closed, ConnectionError::ApplicationClosed(close) if close.error_code == VarInt::from_u32(with))
}

#[tokio::test]
async fn other_version_is_said_or_lost_to_the_close() {
    let relay = start(|options| options.speaks = Speaks::One);
    let refused = Member::join(relay.addr, "general", "ana", rand::random(), None)
        .await
        .err();
    let mismatch = HandshakeError::PeerSpeaks { supported: vec![1] };
    assert!(
        matches!(&refused, Some(ConnectError::Handshake(error)) if *error == mismatch),
        "{refused:?}"
    );
    let relay = start(|options| options.speaks = Speaks::OneUnsaid);
    let refused = Member::join(relay.addr, "general", "ana", rand::random(), None)
        .await
        .err();
    assert!(is_closed(&refused, 0), "{refused:?}");
    let version = |event: &Event| matches!(event, Event::Refused(Refusal::Version)).then_some(());
    relay.wait("the refusal", version).await;
}

#[tokio::test]
async fn full_relay_closes_without_a_word_and_server_names_without_room_too() {
    let relay = start(|options| options.sessions = 1);
    let _ana = join(&relay, "ana").await;
    // The answer may come before the close, or be overtaken by it.
    match Member::join(relay.addr, "other", "bo", rand::random(), None).await {
        Ok(mut late) => assert_eq!(late.wait_closed().await, (0, String::new())),
        refused => assert!(is_closed(&refused.err(), 0)),
    }
    let full = |event: &Event| matches!(event, Event::Refused(Refusal::Full)).then_some(());
    relay.wait("the refusal", full).await;

    let (_endpoint, ping) = client::dial(relay.addr, "ping").await.unwrap();
    timeout(DEADLINE, ping.closed()).await.unwrap();
    let (_endpoint, version) = client::dial(relay.addr, "version").await.unwrap();
    let mut stream = timeout(DEADLINE, version.accept_uni()).await.unwrap().unwrap();
    assert_eq!(stream.read_to_end(100).await.unwrap().len(), 16);
}

#[tokio::test]
async fn sealed_media_opens_with_the_receivers_session_only() {
    let relay = start(|options| options.form = Form::Sealed);
    let (ana, mut bo) = two(&relay).await;
    ana.send_sound(3, b"hello");
    let sealed = bo.wait_packet(MediaType::Audio).await;
    assert_eq!(sealed.payload.len(), 5 + 16);
    let open = |member: &Member| Sealing::new(&member.client.established().session).open(&sealed);
    assert_eq!(open(&bo).unwrap().payload[..], b"hello"[..]);
    assert!(open(&ana).is_err());
}

#[tokio::test]
async fn trunk_frames_carry_the_packets_and_the_senders_session() {
    let relay = start(|options| options.form = Form::Trunks);
    let (ana, bo) = two(&relay).await;
    for seq in 0..25 {
        ana.send_sound(seq, b"hello");
    }
    let mut seqs = Vec::new();
    while seqs.len() < 25 {
        let datagram = timeout(DEADLINE, bo.client.connection().read_datagram())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(DatagramForm::classify(&datagram), DatagramForm::Trunk);
        let entries = decode_trunk(datagram).unwrap();
        assert!((1..=10).contains(&entries.len()));
        for entry in entries {
            assert_eq!(entry.session_id, [1, 0]);
            seqs.push(MediaPacket::decode(entry.packet).unwrap().header.seq);
        }
    }
    assert_eq!(seqs, (0..25).collect::<Vec<_>>());
}

#[tokio::test]
async fn killed_it_says_nothing_stopped_it_does_and_comes_back_on_the_same_port() {
    let mut relay = start(|_| {});
    let (ana, mut bo) = two(&relay).await;
    relay.kill().await;
    relay.restart().await;
    assert!(relay.members("general").is_empty());
    let mut cy = join(&relay, "cy").await;
    cy.wait_list(&["cy"]).await;
    for old in [&ana, &bo] {
        assert_eq!(old.client.connection().close_reason(), None, "nobody has told it");
    }
    relay.stop().await;
    assert_eq!(cy.wait_closed().await, (0, String::new()));
    relay.restart().await;
    join(&relay, "dee").await;
    bo.client.connection().close(close::NORMAL, b"");
    bo.wait("its own close", |event| matches!(event, Heard::Closed(_)).then_some(()))
        .await;
}

#[tokio::test]
async fn blackhole_swallows_what_is_sent_meanwhile_and_no_more() {
    let relay = start(|_| {});
    let (ana, mut bo) = two(&relay).await;
    let sent_so_far = || {
        let members = [&ana, &bo].map(|member| member.client.connection().stats());
        members.map(|stats| stats.udp_tx.datagrams).iter().sum::<u64>()
    };
    let before = sent_so_far();
    relay.set_blackhole(true);
    for seq in 0..10 {
        ana.send_sound(seq, b"lost");
    }
    let swallowed = async {
        while ana.client.connection().stats().frame_tx.datagram < 10 || relay.swallowed() < sent_so_far() - before {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, swallowed).await.unwrap();
    relay.set_blackhole(false);
    ana.send_sound(10, b"heard");
    assert_eq!(bo.wait_packet(MediaType::Audio).await.header.seq, 10);
}

#[tokio::test]
async fn weakest_path_lowers_everybodys_profile() {
    let relay = start(|_| {});
    let (mut ana, mut bo) = two(&relay).await;
    for seq in 0..3 {
        let packet = MediaPacket {
            header: sound_header(seq),
            payload: Bytes::from_static(b"sound"),
            quality: Some(QualityReport::measured(10.0, Duration::ZERO, Duration::ZERO, 200)),
        };
        assert!(ana.client.sender().datagram(packet.encode()));
    }
    for member in [&mut ana, &mut bo] {
        assert_eq!(member.wait("the directive", directed).await, Codec::Opus6k);
    }
    let refused = ana.client.sender().datagram(Bytes::from_static(b"no packet"));
    assert!(refused);
    relay
        .wait_until("the bad datagram", |relay| {
            (relay.counters().malformed == 1).then_some(())
        })
        .await;
    assert_eq!(offer("ana").alias.as_deref(), Some("ana"));
}

/// Talks for as long as it is polled: 50 packets a second, media time from 0.
async fn talk(member: &Member, name: u8) {
    let mut ticks = interval(Duration::from_millis(20));
    for seq in 0.. {
        ticks.tick().await;
        member.send_sound(seq, &[name; 40]);
    }
}

#[tokio::test]
async fn two_talkers_come_apart_behind_a_lossy_link() {
    let relay = start(|options| {
        options.link = Link {
            loss: 0.03,
            reordering: 0.03,
            seed: 7,
        };
    });
    let (ana, bo) = two(&relay).await;
    let mut leg = join(&relay, "leg").await;
    leg.wait_list(&["ana", "bo", "leg"]).await;
    let begin = Instant::now();
    let mut separator = Separator::new(Config::default());
    let mut counts: BTreeMap<(u8, StreamId), u64> = BTreeMap::new();
    let listens = async {
        while begin.elapsed() < Duration::from_secs(11) {
            let packet = leg.wait_packet(MediaType::Audio).await;
            let placement = separator.push(&packet.header, begin.elapsed());
            *counts.entry((packet.payload[0], placement.stream)).or_default() += 1;
        }
    };
    // Media time begins with the first word here, so this is who joined when.
    let talks_later = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        talk(&bo, b'b').await;
    };
    tokio::select! {
        () = listens => {}
        () = talk(&ana, b'a') => {}
        () = talks_later => {}
    }
    let all: u64 = counts.values().sum();
    let main = |name: u8| {
        let own = counts.iter().filter(|((who, _), _)| *who == name);
        own.max_by_key(|(_, count)| **count)
            .map(|((_, stream), count)| (*stream, *count))
            .unwrap()
    };
    let ((first, from_ana), (second, from_bo)) = (main(b'a'), main(b'b'));
    println!("{} of {all} packets misassigned: {counts:?}", all - from_ana - from_bo);
    assert_ne!(first, second);
    assert!((all - from_ana - from_bo) * 100 < all, "{counts:?}");
    let counters = relay.counters();
    assert!(counters.lost > 0 && counters.held_back > 0 && counters.too_large == 0);
}

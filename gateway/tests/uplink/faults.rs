//! What goes wrong on a relay of the existing kind, and what the leg makes of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wzp_gateway::config::uplink::UplinkRule;
use wzp_gateway::media::frame::Kind;
use wzp_gateway::native::transport::close;
use wzp_gateway::room::uplink::UplinkState;
use wzp_gateway::uplink::counters;
use wzp_proto::signal::{Signal, encode_signal};

use crate::relay::{Event, Options, StandIn};
use crate::support::{BACK, BUSY, Gateway, Heard, Member, Together, names, rules, until};

fn plenty(heard: &Heard) -> bool {
    heard.sound.len() >= 100
}

fn plenty_and_seen(heard: &Heard) -> bool {
    plenty(heard) && heard.pictures.len() >= 20
}

/// A gateway behind the relay, and what its legs count.
fn counted(
    rules: Vec<UplinkRule>,
    change: impl FnOnce(&mut wzp_gateway::uplink::Config),
) -> (Gateway, Arc<counters::Relay>) {
    let mut counted = None;
    let relay = rules[0].relay.clone();
    let home = Gateway::open().with_uplink(rules, |config| {
        change(config);
        counted = Some(config.counters.of(&relay));
    });
    (home, counted.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_relay_is_not_taken_for_one_that_lets_us_in() {
    let relay = StandIn::start(Options {
        sessions: 1,
        answer_arrives: true,
        ..Options::default()
    });
    let (home, counts) = counted(rules(relay.addr), |_| {});
    let bo = Member::join(relay.addr, "elsewhere", "Bo").await;
    let _ana = home.join("general", "Ana").await;
    let message = home.wait_state("general", UplinkState::Refused).await;
    assert!(message.contains("did not let us in: it is full"), "{message}");
    assert_eq!(counts.legs.connected.get(), 0);
    bo.client.close(close::NORMAL, "").await;
    home.wait_state("general", UplinkState::Connected).await;
    assert_eq!((counts.legs.connected.get(), counts.legs.reconnected.get()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_joins_again_under_his_fingerprint_sees_and_is_seen() {
    let relay = StandIn::start(Options::default());
    let home = Gateway::behind(relay.addr);
    let mut ana = home.join("general", "Ana").await;
    let mut bo = Member::join_as(relay.addr, "general", "Bo", [7; 32], None).await;
    ana.wait_list(&["Ana", "Bo"]).await;
    let all = Together::of(2);
    tokio::join!(
        ana.live(&all, 440.0, true, "Bo at Ana", plenty_and_seen),
        bo.live(&all, 880.0, true, "Ana at Bo", plenty_and_seen),
    );
    let mut again = Member::join_as(relay.addr, "general", "Bo", [7; 32], None).await;
    let evicted = |event: &Event| matches!(event, Event::Evicted { .. }).then_some(());
    relay.wait("the eviction", evicted).await;
    let all = Together::of(2);
    let (at_ana, _) = tokio::join!(
        ana.live(&all, 440.0, true, "Bo at Ana again", |heard: &Heard| {
            plenty_and_seen(heard) && heard.asked > 0
        }),
        again.live(&all, 660.0, true, "Ana at Bo again", plenty_and_seen),
    );
    assert!(at_ana.tone(660.0) > 0.1, "what Ana hears: {}", at_ana.tone(660.0));
    let room = home.wait_room("general", "with Bo and his media", |room| {
        let bo = room.members.iter().find(|member| member.name == "Bo");
        bo.is_some_and(|bo| {
            [Kind::Audio, Kind::Video].map(|kind| bo.tracks.iter().any(|t| t.info.kind == kind)) == [true; 2]
        })
    });
    let room = room.await;
    assert_eq!(names(&room), ["Ana", "Bo"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leg_that_is_put_out_by_its_own_identity_comes_back() {
    let relay = StandIn::start(Options {
        accounts: Some(BTreeMap::from([("sesame".to_owned(), "0123:4567".to_owned())])),
        ..Options::default()
    });
    let rule = UplinkRule {
        token: Some("sesame".to_owned()),
        ..rules(relay.addr).remove(0)
    };
    let (home, counts) = counted(vec![rule], |_| {});
    let mut ana = home.join("general", "Ana").await;
    home.wait_state("general", UplinkState::Connected).await;
    let _rival = Member::join_with_token(relay.addr, "general", "Ana", Some("sesame")).await;
    let all = Together::of(1);
    // The relay notices at the leg's next packet.
    tokio::join!(ana.live(&all, 440.0, false, "", |_: &Heard| false), async {
        until("the loss", || counts.legs.lost.get() == 1).await;
        until("the return", || counts.legs.reconnected.get() == 1).await;
        home.wait_state("general", UplinkState::Connected).await;
        all.one_is_content();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signal_that_never_ends_holds_up_no_more_than_itself() {
    let relay = StandIn::start(Options::default());
    let (home, counts) = counted(rules(relay.addr), |_| {});
    let mut ana = home.join("general", "Ana").await;
    home.wait_state("general", UplinkState::Connected).await;
    relay.write("general", &[0, 0], false).await;
    let begun = Instant::now();
    let _bo = Member::join(relay.addr, "general", "Bo").await;
    ana.wait_list(&["Ana", "Bo"]).await;
    assert!(
        begun.elapsed() < Duration::from_secs(5) + BUSY * 2,
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(counts.legs.attempts.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_signal_is_skipped() {
    let relay = StandIn::start(Options::default());
    let (home, counts) = counted(rules(relay.addr), |_| {});
    let mut ana = home.join("general", "Ana").await;
    home.wait_state("general", UplinkState::Connected).await;
    let json = br#"{"Novelty":{"version":1}}"#;
    for bytes in [&json[..], b"no json"] {
        let framed = [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
        relay.write("general", &framed, true).await;
    }
    let _bo = Member::join(relay.addr, "general", "Bo").await;
    ana.wait_list(&["Ana", "Bo"]).await;
    assert_eq!(counts.legs.attempts.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_that_are_asked_for_are_answered_for() {
    let relay = StandIn::start(Options::default());
    let (home, counts) = counted(rules(relay.addr), |_| {});
    let mut ana = home.join("general", "Ana").await;
    let mut bo = Member::join(relay.addr, "general", "Bo").await;
    bo.wait_list(&["Ana via web", "Bo"]).await;
    let all = Together::of(2);
    let (_, at_bo) = tokio::join!(
        ana.live(&all, 440.0, true, "Bo at Ana", plenty),
        bo.live(&all, 880.0, true, "Ana at Bo", plenty_and_seen),
    );
    let newest = at_bo.pictures.last().unwrap().header.seq;
    // Relays hand on no such request; one that is a gateway may make its own.
    relay
        .write("general", &encode_signal(&Signal::nack(0, vec![newest])), true)
        .await;
    let media = &counts.media;
    // After half a second it is not held any more, which a busy machine takes now and then.
    until("an answer", || media.resent_out.get() + media.not_resent.get() == 1).await;
    assert_eq!((media.nacks_in.get(), media.nacks_out.get()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_of_the_older_version_is_said() {
    let relay = StandIn::start(Options::default());
    let home = Gateway::behind(relay.addr);
    let _ana = home.join("general", "Ana").await;
    home.wait_state("general", UplinkState::Connected).await;
    for n in 0..60 {
        relay.throw(
            "general",
            &Bytes::from(vec![1, n, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        );
    }
    let message = home.wait_state("general", UplinkState::Unreadable).await;
    assert!(message.contains("version"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_was_away_for_long_has_media_again_as_soon_as_it_is_back() {
    let mut relay = StandIn::start(Options::default());
    let (home, counts) = counted(rules(relay.addr), |config| {
        // So that the waits get long soon.
        config.patience.dial = Duration::from_millis(300);
    });
    let mut ana = home.join("general", "Ana").await;
    home.wait_state("general", UplinkState::Connected).await;
    relay.stop().await;
    // The next one would come 8 s later.
    until("a fourth attempt in vain", || counts.legs.attempts.get() >= 5).await;
    relay.restart().await;
    let back = Instant::now();
    let mut bo = Member::join(relay.addr, "general", "Bo").await;
    let all = Together::of(2);
    let heard = tokio::join!(
        ana.live(&all, 440.0, false, "Bo at Ana", plenty),
        bo.live(&all, 880.0, false, "Ana at Bo", plenty),
    );
    for (at, heard) in [("Ana", &heard.0), ("Bo", &heard.1)] {
        let after = heard.first.unwrap() - back;
        assert!(after <= BACK + BUSY, "sound at {at} {after:?} after the relay was back");
    }
}

//! Legs through a second gateway, which is the relay.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wzp_gateway::config::uplink::UplinkRule;
use wzp_gateway::native::auth::{AuthError, AuthFuture, Authenticate, Authenticated};
use wzp_gateway::native::client::{self, Client};
use wzp_gateway::room::member::Door;
use wzp_gateway::room::snapshot::Snapshot;
use wzp_gateway::room::uplink::UplinkState;
use wzp_gateway::uplink::alias::Renaming;
use wzp_proto::identity::Identity;
use wzp_proto::room_name::RoomName;
use wzp_proto::signal::GatewayExtension;

use crate::support::{BACK, BUSY, Gateway, Heard, Member, Mortal, Together, names, rules, until};

/// Enough of everything to judge by.
fn plenty(heard: &Heard) -> bool {
    heard.sound.len() >= 100
}

fn plenty_and_seen(heard: &Heard) -> bool {
    plenty(heard) && heard.pictures.len() >= 20
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_on_both_sides_hear_and_see_each_other() {
    let relay = Gateway::open();
    let home = Gateway::behind(relay.address);
    let mut bo = relay.join("general", "Bo").await;
    let mut ana = home.join("general", "Ana").await;
    bo.wait_list(&["Bo", "Ana via web"]).await;
    ana.wait_list(&["Ana", "Bo"]).await;
    let all = Together::of(2);
    let (at_ana, at_bo) = tokio::join!(
        ana.live(&all, 440.0, true, "Bo at Ana", plenty_and_seen),
        bo.live(&all, 880.0, true, "Ana at Bo", plenty_and_seen),
    );
    assert!(
        at_ana.tone(880.0) > 0.1 && at_ana.tone(440.0) < 0.02,
        "Ana hears Bo and not herself"
    );
    assert!(
        at_bo.tone(440.0) > 0.1 && at_bo.tone(880.0) < 0.02,
        "Bo hears Ana and not himself"
    );
    assert!(at_bo.pictures.iter().all(|packet| packet.payload.len() <= 1100));
    let snapshot = home.wait_room("general", "with Bo's media", |room| {
        room.members
            .iter()
            .any(|member| member.name == "Bo" && member.tracks.len() == 2)
    });
    let snapshot = snapshot.await;
    let bo = snapshot.members.iter().find(|member| member.name == "Bo").unwrap();
    assert_eq!(bo.door, Door::Uplink);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leg_is_one_member_with_a_mix_of_its_own() {
    let relay = Gateway::open();
    let home = Gateway::behind(relay.address);
    let mut ana = home.join("general", "Ana").await;
    let mut bea = home.join("general", "Bea").await;
    let mut bo = relay.join("general", "Bo").await;
    ana.wait_list(&["Ana", "Bea", "Bo"]).await;
    // 2 s of talk before what counts.
    let warm = |heard: &Heard| heard.sound.len() >= 200;
    let all = Together::of(3);
    let (_, _, mut at_bo) = tokio::join!(
        ana.live(&all, 440.0, false, "sound at Ana", warm),
        bea.live(&all, 660.0, false, "sound at Bea", warm),
        bo.live(&all, 880.0, false, "sound at Bo", warm),
    );
    at_bo.sound.drain(..100);
    for (hz, least) in [(440.0, 0.1), (660.0, 0.1)] {
        assert!(at_bo.tone(hz) > least, "{hz} Hz at Bo: {}", at_bo.tone(hz));
    }
    assert!(
        at_bo.tone(880.0) < 0.02,
        "what came from the relay does not go back: {}",
        at_bo.tone(880.0)
    );
    for pair in at_bo.sound.windows(2) {
        assert_eq!(
            pair[1].header.seq,
            pair[0].header.seq.wrapping_add(1),
            "one contiguous stream"
        );
        assert!(pair[1].header.timestamp > pair[0].header.timestamp);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_on_one_relay_do_not_echo() {
    let relay = Gateway::open();
    let homes = [Gateway::behind(relay.address), Gateway::behind(relay.address)];
    let mut ana = homes[0].join("general", "Ana").await;
    let mut cy = homes[1].join("general", "Cy").await;
    ana.wait_list(&["Ana", "Cy via web"]).await;
    cy.wait_list(&["Ana via web", "Cy"]).await;
    let all = Together::of(2);
    let (at_ana, at_cy) = tokio::join!(
        ana.live(&all, 440.0, true, "Cy at Ana", plenty_and_seen),
        cy.live(&all, 880.0, true, "Ana at Cy", plenty_and_seen),
    );
    assert!(at_ana.tone(880.0) > 0.1 && at_cy.tone(440.0) > 0.1);
    assert!(
        at_ana.tone(440.0) < 0.02,
        "Ana's own voice comes back: {}",
        at_ana.tone(440.0)
    );
    assert!(
        at_cy.tone(880.0) < 0.02,
        "Cy's own voice comes back: {}",
        at_cy.tone(880.0)
    );
    // On the relay there are the two legs and nobody else.
    let room = relay
        .wait_room("general", "two legs", |room| room.members.len() == 2)
        .await;
    assert!(room.members.iter().all(|member| member.tracks.len() == 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leg_comes_with_the_first_member_and_leaves_with_the_last() {
    let relay = Gateway::open();
    let home = Gateway::behind(relay.address);
    let mut bo = relay.join("general", "Bo").await;
    bo.wait_list(&["Bo"]).await;
    for _ in 0..2 {
        let ana = home.join("general", "Ana").await;
        bo.wait_list(&["Ana via web", "Bo"]).await;
        home.wait_state("general", UplinkState::Connected).await;
        let left_before = relay.counters.left.get();
        ana.client
            .close(wzp_gateway::native::transport::close::NORMAL, "")
            .await;
        bo.wait_list(&["Bo"]).await;
        assert_eq!(relay.counters.left.get(), left_before + 1, "it says goodbye");
        // Members of the relay keep no room open.
        let key = RoomName::parse("general").unwrap().key();
        let ended = Instant::now() + crate::support::DEADLINE;
        while home.registry.get(key).is_some() {
            assert!(Instant::now() < ended, "the room goes on without members");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_of_the_leg_follows_the_members() {
    let relay = Gateway::open();
    let home = Gateway::open().with_uplink(rules(relay.address), |config| {
        config.renaming = Renaming {
            quiet: 300_000,
            apart: 300_000,
        };
    });
    let mut bo = relay.join("general", "Bo").await;
    let mut ana = home.join("general", "Ana").await;
    bo.wait_list(&["Ana via web", "Bo"]).await;
    let bea = home.join("general", "Bea").await;
    bo.wait_list(&["Ana, Bea via web", "Bo"]).await;
    bea.client
        .close(wzp_gateway::native::transport::close::NORMAL, "")
        .await;
    bo.wait_list(&["Ana via web", "Bo"]).await;
    // The sound goes on.
    let all = Together::of(2);
    let (at_ana, at_bo) = tokio::join!(
        ana.live(&all, 440.0, false, "Bo at Ana", plenty),
        bo.live(&all, 880.0, false, "Ana at Bo", plenty),
    );
    assert!(at_ana.tone(880.0) > 0.1 && at_bo.tone(440.0) > 0.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_is_away_at_first_is_joined_when_it_comes() {
    let address = Gateway::open().address;
    // Nobody listens there now.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let home = Gateway::behind(address);
    let mut ana = home.join("general", "Ana").await;
    let mut bea = home.join("general", "Bea").await;
    home.wait_state("general", UplinkState::Away).await;
    let all = Together::of(2);
    let (at_ana, _) = tokio::join!(
        ana.live(&all, 440.0, false, "Bea at Ana", plenty),
        bea.live(&all, 660.0, false, "Ana at Bea", plenty),
    );
    assert!(at_ana.tone(660.0) > 0.1, "the room works without the relay");
    let relay = Gateway::open_at(address, |_| {});
    home.wait_state("general", UplinkState::Connected).await;
    relay
        .wait_room("general", "with the leg", |room| room.members.len() == 1)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_dies_in_the_call_is_joined_again_and_nobody_here_leaves() {
    let mortal = Mortal::open_at(([127, 0, 0, 1], 0).into()).await;
    let relay = &mortal.gateway;
    let address = relay.address;
    let home = Gateway::behind(address);
    let mut ana = home.join("general", "Ana").await;
    let mut bo = relay.join("general", "Bo").await;
    ana.wait_list(&["Ana", "Bo"]).await;
    let all = Together::of(2);
    tokio::join!(
        ana.live(&all, 440.0, true, "Bo at Ana", plenty_and_seen),
        bo.live(&all, 880.0, true, "Ana at Bo", plenty_and_seen),
    );
    let id = home
        .wait_room("general", "with Ana", |room| !room.members.is_empty())
        .await;
    let id = id.local().next().unwrap().id;
    mortal.crash();
    drop(bo);
    let away = |snapshot: &wzp_gateway::room::snapshot::Snapshot| {
        let state = snapshot.uplink.as_ref().map(|uplink| uplink.state);
        matches!(state, Some(UplinkState::Stalled | UplinkState::Away))
    };
    home.wait_room("general", "without the relay", away).await;
    let mortal = Mortal::open_at(address).await;
    let back = Instant::now();
    let mut bo = mortal.gateway.join("general", "Bo").await;
    let all = Together::of(2);
    let (at_ana, at_bo) = tokio::join!(
        ana.live(&all, 440.0, true, "Bo at Ana again", plenty_and_seen),
        bo.live(&all, 880.0, true, "Ana at Bo again", plenty_and_seen),
    );
    for (at, heard) in [("Ana", &at_ana), ("Bo", &at_bo)] {
        let after = heard.first.unwrap() - back;
        assert!(after <= BACK + BUSY, "sound at {at} {after:?} after the relay was back");
    }
    assert!(at_ana.tone(880.0) > 0.1 && at_bo.tone(440.0) > 0.1);
    let room = home
        .wait_room("general", "with both", |room| room.members.len() == 2)
        .await;
    assert_eq!(room.local().next().unwrap().id, id, "Ana has been there all the while");
    mortal.crash();
}

#[derive(Debug)]
struct Secret;

impl Authenticate for Secret {
    fn authenticate<'a>(&'a self, token: &'a str, _room: &'a RoomName) -> AuthFuture<'a> {
        let known = token == "sesame";
        Box::pin(async move {
            known
                .then(Authenticated::default)
                .ok_or(AuthError("the token is not valid".to_owned()))
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusal_is_said_and_the_right_token_lets_in() {
    let relay = Gateway::open_at(([127, 0, 0, 1], 0).into(), |config| {
        config.auth = Some(Arc::new(Secret))
    });
    let rule = |token: &str, pattern: &str| UplinkRule {
        pattern: pattern.to_owned(),
        token: Some(token.to_owned()),
        ..rules(relay.address).remove(0)
    };
    let home = Gateway::open().with_uplink(vec![rule("sesame", "open"), rule("wrong", "*")], |_| {});
    let _ana = home.join("open", "Ana").await;
    let _bea = home.join("shut", "Bea").await;
    home.wait_state("open", UplinkState::Connected).await;
    let message = home.wait_state("shut", UplinkState::Refused).await;
    assert!(message.contains("refuses") || message.contains("token"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_go_to_their_relays_and_others_to_none() {
    let relays = [Gateway::open(), Gateway::open()];
    let rule = |relay: &Gateway, pattern: &str| UplinkRule {
        pattern: pattern.to_owned(),
        ..rules(relay.address).remove(0)
    };
    let home = Gateway::open().with_uplink(vec![rule(&relays[0], "team-*"), rule(&relays[1], "general")], |_| {});
    let _members = [
        home.join("team-blue", "Ana").await,
        home.join("general", "Bea").await,
        home.join("private", "Cleo").await,
    ];
    relays[0]
        .wait_room("team-blue", "with the leg", |room| names(room) == ["Ana via web"])
        .await;
    relays[1]
        .wait_room("general", "with the leg", |room| names(room) == ["Bea via web"])
        .await;
    assert_eq!((relays[0].registry.len(), relays[1].registry.len()), (1, 1));
    let private = home
        .wait_room("private", "with Cleo", |room| names(room) == ["Cleo"])
        .await;
    assert_eq!(private.uplink, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_that_is_its_own_relay_is_recognised() {
    let home = Gateway::open();
    let rules = rules(home.address);
    let home = home.with_uplink(rules, |_| {});
    let mut ana = home.join("general", "Ana").await;
    let message = home.wait_state("general", UplinkState::Refused).await;
    assert!(message.contains("itself"), "{message}");
    ana.wait_list(&["Ana"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newcomer_on_the_relay_gets_a_keyframe_from_the_publisher() {
    let relay = Gateway::open();
    let home = Gateway::behind(relay.address);
    let mut ana = home.join("general", "Ana").await;
    let mut bo = relay.join("general", "Bo").await;
    ana.wait_list(&["Ana", "Bo"]).await;
    let all = Together::of(2);
    tokio::join!(
        ana.live(&all, 440.0, true, "Bo at Ana", plenty),
        bo.live(&all, 880.0, false, "Ana at Bo", plenty_and_seen),
    );
    let talking = tokio::spawn(async move {
        let heard = ana
            .live(&Together::of(1), 440.0, true, "a request", |heard: &Heard| {
                heard.asked > 0
            })
            .await;
        (ana, heard)
    });
    let mut cy: Member = relay.join("general", "Cy").await;
    let (_ana, heard) = talking.await.unwrap();
    assert_eq!(heard.asked, 1);
    cy.wait_list(&["Ana via web", "Bo", "Cy"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_relay_that_is_a_gateway_come_apart_under_their_names() {
    let relay = Gateway::open();
    let home = Gateway::behind(relay.address);
    let mut ana = home.join("general", "Ana").await;
    let mut bo = relay.join("general", "Bo").await;
    let mut cy = relay.join("general", "Cy").await;
    ana.wait_list(&["Ana", "Bo", "Cy"]).await;
    let all = Together::of(4);
    let each_sends = async {
        let sends_both = |room: &wzp_gateway::room::snapshot::Snapshot, name| {
            let member = room.members.iter().find(|member| member.name == name);
            member.is_some_and(|member| member.tracks.len() == 2)
        };
        let room = home.wait_room("general", "with sound and picture of Bo and of Cy", |room| {
            sends_both(room, "Bo") && sends_both(room, "Cy")
        });
        let room = room.await;
        all.one_is_content();
        room
    };
    let (at_ana, _, _, room) = tokio::join!(
        ana.live(&all, 440.0, false, "Bo and Cy at Ana", |heard: &Heard| heard
            .sound
            .len()
            >= 200),
        bo.live(&all, 880.0, true, "sound at Bo", plenty),
        cy.live(&all, 660.0, true, "sound at Cy", plenty),
        each_sends,
    );
    assert_eq!(names(&room), ["Ana", "Bo", "Cy"]);
    assert!(at_ana.tone(440.0) < 0.02);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_are_each_others_relay_do_not_echo_for_ever() {
    let (first, second) = (Gateway::open(), Gateway::open());
    let addresses = [first.address, second.address];
    let first = first.with_uplink(rules(addresses[1]), |_| {});
    let second = second.with_uplink(rules(addresses[0]), |_| {});
    let ana = first.join("general", "Ana").await;
    let key = RoomName::parse("general").unwrap().key();
    let refuses = |gateway: &Gateway| {
        let uplink = gateway
            .registry
            .get(key)
            .and_then(|room| room.snapshot().uplink.clone());
        uplink.is_some_and(|uplink| uplink.message.contains("has this one as its relay"))
    };
    until("a refusal", || refuses(&first) || refuses(&second)).await;
    for gateway in [&first, &second] {
        let members = gateway
            .registry
            .get(key)
            .map_or(0, |room| room.snapshot().members.len());
        assert!(members <= 4, "{members} members of one");
    }
    // Legs keep no room open for each other.
    drop(ana);
    until("empty rooms", || {
        first.registry.is_empty() && second.registry.is_empty()
    })
    .await;
}

/// Its members are in the relay's list one by one.
fn one_by_one(relay: &Gateway) -> Vec<UplinkRule> {
    let rule = rules(relay.address).remove(0);
    vec![UplinkRule { presence: true, ..rule }]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_legs_are_nobody_in_the_room_of_the_names_other_form() {
    // To this relay, both forms mean one room.
    let relay = Gateway::open();
    let home = Gateway::open().with_uplink(one_by_one(&relay), |_| {});
    let _ana = home.join("general", "Ana").await;
    let shown = |room: &Snapshot| names(room).contains(&"Ana") && names(room).contains(&"Ana via web");
    relay.wait_room("general", "with Ana and the leg", shown).await;
    until("the look at the other form", || relay.counters.left.get() > 0).await;
    let hint = home.wait_room("general", "with a hint", |room| {
        (room.uplink.as_ref()).is_some_and(|uplink| uplink.message.contains("\"auto\""))
    });
    // What was seen is said within 400 ms.
    tokio::select! {
        _ = hint => panic!("we are somebody elsewhere to ourselves"),
        () = tokio::time::sleep(Duration::from_millis(1_200)) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_not_shown_one_by_one_where_the_leg_is_refused() {
    let relay = Gateway::open();
    let home = Gateway::open().with_uplink(one_by_one(&relay), |_| {});
    let _ana = Member::join_as(home.address, "general", "Ana", [7; 32], None).await;
    relay
        .wait_room("general", "with Ana and the leg", |room| room.members.len() == 2)
        .await;
    // As if the relay joined our room: a leg here, and everybody there.
    let mut offer = crate::member::offer("Ana via web via web");
    offer.extension = Some(GatewayExtension {
        per_source: true,
        pin: None,
    });
    let options = client::Options {
        relay: home.address,
        server_name: "general".to_owned(),
        token: None,
        offer,
    };
    let _leg = Client::connect(options, &Identity::from_seed(&rand::random()))
        .await
        .unwrap();
    let _mirrored = Member::join_as(relay.address, "general", "Ana", [7; 32], None).await;
    let message = home.wait_state("general", UplinkState::Refused).await;
    assert!(message.contains("has this one as its relay"), "{message}");
    relay
        .wait_room("general", "with one Ana", |room| names(room) == ["Ana"])
        .await;
}

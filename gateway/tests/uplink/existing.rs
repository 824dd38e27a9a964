//! Legs on a relay that behaves like the existing one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wzp_gateway::config::uplink::{Names, UplinkRule};
use wzp_gateway::media::frame::Kind;
use wzp_gateway::room::snapshot::Snapshot;
use wzp_gateway::room::uplink::UplinkState;
use wzp_gateway::uplink::alias::Renaming;
use wzp_proto::signal::Signal;

use crate::relay::{Event, Form, Options, Speaks, StandIn, Vintage};
use crate::support::{BACK, BUSY, Gateway, Heard, Member, Together, names, rules};

fn start(change: impl FnOnce(&mut Options)) -> StandIn {
    let mut options = Options::default();
    change(&mut options);
    StandIn::start(options)
}

fn plenty(heard: &Heard) -> bool {
    heard.sound.len() >= 100
}

fn plenty_and_seen(heard: &Heard) -> bool {
    plenty(heard) && heard.pictures.len() >= 20
}

fn sends(room: &Snapshot, name: &str, kind: Kind) -> bool {
    let member = room.members.iter().find(|member| member.name == name);
    member.is_some_and(|member| member.tracks.iter().any(|track| track.info.kind == kind))
}

/// The number at the relay of the leg that has this name.
async fn number_of(relay: &StandIn, name: &str) -> u64 {
    let joined = |event: &Event| match event {
        Event::Joined { id, alias, .. } if alias.as_deref() == Some(name) => Some(*id),
        _ => None,
    };
    relay.wait("the leg", joined).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leg_is_heard_and_seen_and_does_nothing_that_an_app_would_not() {
    let relay = start(|_| {});
    let home = Gateway::behind(relay.addr);
    let mut ana = home.join("general", "Ana").await;
    let mut bo = Member::join(relay.addr, "general", "Bo").await;
    bo.wait_list(&["Ana via web", "Bo"]).await;
    let leg = number_of(&relay, "Ana via web").await;
    let all = Together::of(2);
    let (at_ana, at_bo) = tokio::join!(
        ana.live(&all, 440.0, true, "Bo at Ana", plenty_and_seen),
        bo.live(&all, 880.0, true, "Ana at Bo", plenty_and_seen),
    );
    assert!(at_ana.tone(880.0) > 0.1 && at_ana.tone(440.0) < 0.02);
    assert!(at_bo.tone(440.0) > 0.1 && at_bo.tone(880.0) < 0.02);
    for pair in at_bo.sound.windows(2) {
        assert_eq!(pair[1].header.seq, pair[0].header.seq.wrapping_add(1));
    }
    assert!(at_bo.sound[0].header.seq >= 1 << 31 && at_bo.pictures[0].header.seq >= 1 << 31);
    assert!(at_bo.pictures.iter().all(|packet| packet.payload.len() <= 1100));
    home.wait_room("general", "with Bo's media under his name", |room| {
        sends(room, "Bo", Kind::Audio) && sends(room, "Bo", Kind::Video) && room.members.len() == 2
    })
    .await;
    ana.client
        .close(wzp_gateway::native::transport::close::NORMAL, "")
        .await;
    let code = relay.wait("the leave", |event| match event {
        Event::Left { id, code } if *id == leg => Some(*code),
        _ => None,
    });
    assert_eq!(code.await, Some(0));
    for event in relay.events() {
        match event {
            Event::Signal { id, signal } if id == leg => {
                assert!(matches!(signal, Signal::PictureLossIndication { .. }), "{signal:?}");
            }
            Event::BadSignal { .. } => panic!("a signal that the relay cannot read"),
            _ => {}
        }
    }
    bo.wait_list(&["Bo"]).await;
    let finished = |relay: &StandIn| {
        let counters = relay.counters();
        (counters.streams_finished == counters.streams_opened).then_some(())
    };
    relay.wait_until("all streams finished", finished).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_natives_who_talk_at_once_are_two_people_here() {
    let relay = start(|_| {});
    let home = Gateway::behind(relay.addr);
    let mut bo = Member::join(relay.addr, "general", "Bo").await;
    bo.wait_list(&["Bo"]).await;
    let all = Together::of(3);
    let late = async {
        // His clock begins 2 s after Bo's.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut cy = Member::join(relay.addr, "general", "Cy").await;
        let mut ana = home.join("general", "Ana").await;
        // While they talk: who is silent for long sends nothing.
        let each_sends = home.wait_room("general", "with Bo and Cy and the media of each", |room| {
            let sends_both = |name| sends(room, name, Kind::Audio) && sends(room, name, Kind::Video);
            room.members.len() == 3 && sends_both("Bo") && sends_both("Cy")
        });
        let (at_ana, _, _) = tokio::join!(
            ana.live(&all, 440.0, false, "Bo and Cy at Ana", |heard: &Heard| heard
                .sound
                .len()
                >= 300),
            cy.live(&all, 660.0, true, "Ana at Cy", plenty),
            each_sends,
        );
        (at_ana, ana, cy)
    };
    let (_, (mut at_ana, _ana, _cy)) = tokio::join!(bo.live(&all, 880.0, true, "Ana at Bo", plenty), late);
    at_ana.sound.drain(..150);
    for (hz, of) in [(880.0, "Bo"), (660.0, "Cy")] {
        assert!(at_ana.tone(hz) > 0.1, "{of} at Ana: {}", at_ana.tone(hz));
    }
    assert!(at_ana.tone(440.0) < 0.02);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_for_somebody_elses_picture_does_not_reach_our_publisher() {
    let relay = start(|_| {});
    let home = Gateway::behind(relay.addr);
    let mut ana = home.join("general", "Ana").await;
    let mut bo = Member::join(relay.addr, "general", "Bo").await;
    let mut cy = Member::join(relay.addr, "general", "Cy").await;
    ana.wait_list(&["Ana", "Bo", "Cy"]).await;
    let number = |who: &str| {
        let who = who.to_owned();
        let relay = &relay;
        async move { number_of(relay, &who).await as u8 }
    };
    let (of_bo, of_leg) = (number("Bo").await, number("Ana via web").await);
    let all = Together::of(3);
    tokio::join!(
        ana.live(&all, 440.0, true, "everybody at Ana", plenty_and_seen),
        bo.live(&all, 880.0, true, "Ana at Bo", plenty_and_seen),
        cy.live(&all, 660.0, false, "Ana at Cy", plenty_and_seen),
    );
    let all = Together::of(3);
    let asker = cy.client.sender();
    let passed = relay.counters().requests_passed;
    assert!(asker.signal(Signal::picture_loss(of_bo)));
    let reached = |heard: &Heard| heard.asked > 0 && relay.counters().requests_passed > passed;
    let (at_ana, ..) = tokio::join!(
        ana.live(&all, 440.0, true, "everybody at Ana", plenty_and_seen),
        bo.live(&all, 880.0, true, "the request at Bo", reached),
        cy.live(&all, 660.0, false, "Ana at Cy", plenty),
    );
    assert_eq!(at_ana.asked, 0, "it was Bo's picture");
    let all = Together::of(3);
    // Ana begins with a keyframe, which would answer a request that is older.
    let mut asked = false;
    let asks = |heard: &Heard| {
        let from_ana = heard.pictures.iter().filter(|packet| packet.header.stream_id == of_leg);
        if !asked && from_ana.count() >= 10 {
            asked = asker.signal(Signal::picture_loss(of_leg));
        }
        asked && plenty(heard)
    };
    tokio::join!(
        ana.live(&all, 440.0, true, "the request at Ana", |heard: &Heard| heard.asked > 0),
        bo.live(&all, 880.0, true, "Ana at Bo", plenty),
        cy.live(&all, 660.0, false, "Ana at Cy", asks),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_with_trunking_is_understood() {
    let relay = start(|options| options.form = Form::Trunks);
    let home = Gateway::behind(relay.addr);
    let mut ana = home.join("general", "Ana").await;
    let mut bo = Member::join(relay.addr, "general", "Bo").await;
    ana.wait_list(&["Ana", "Bo"]).await;
    let all = Together::of(1);
    let (at_ana, _) = tokio::join!(
        ana.live(&all, 440.0, false, "Bo at Ana", plenty_and_seen),
        bo.live(&all, 880.0, true, "", |_: &Heard| false),
    );
    assert!(at_ana.tone(880.0) > 0.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_media_is_said_and_not_heard() {
    let relay = start(|options| options.form = Form::Sealed);
    let home = Gateway::behind(relay.addr);
    let mut ana = home.join("general", "Ana").await;
    let mut bo = Member::join(relay.addr, "general", "Bo").await;
    ana.wait_list(&["Ana", "Bo"]).await;
    let all = Together::of(1);
    let message = tokio::join!(
        async {
            let message = home.wait_state("general", UplinkState::Unreadable).await;
            all.one_is_content();
            message
        },
        bo.live(&all, 880.0, false, "", |_: &Heard| false),
    );
    assert!(message.0.contains("encrypt"), "{}", message.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_of_another_version_is_said_even_if_its_word_is_lost() {
    for (speaks, word) in [(Speaks::One, "version"), (Speaks::OneUnsaid, "version")] {
        let relay = start(|options| options.speaks = speaks);
        let home = Gateway::behind(relay.addr);
        let _ana = home.join("general", "Ana").await;
        let message = home.wait_state("general", UplinkState::Refused).await;
        assert!(message.contains(word), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn account_lets_the_leg_in_and_is_not_taken_for_somebody_else() {
    let account = "0123:4567:89ab:cdef:0123:4567:89ab:cdef";
    let relay = start(|options| {
        let accounts = [("sesame", account), ("bo", "ffff:4567:89ab:cdef:0123:4567:89ab:cdef")];
        options.accounts = Some(BTreeMap::from(
            accounts.map(|(token, who)| (token.to_owned(), who.to_owned())),
        ));
    });
    let rule = |token: Option<&str>, pattern: &str| UplinkRule {
        pattern: pattern.to_owned(),
        token: token.map(str::to_owned),
        ..rules(relay.addr).remove(0)
    };
    let all = vec![
        rule(Some("sesame"), "general"),
        rule(Some("wrong"), "shut"),
        rule(None, "*"),
    ];
    let home = Gateway::open().with_uplink(all, |_| {});
    let _ana = home.join("general", "Ana").await;
    let mut bo = Member::join_with_token(relay.addr, "general", "Bo", Some("bo")).await;
    bo.wait_list(&["Ana via web", "Bo"]).await;
    let room = home
        .wait_room("general", "with Bo", |room| room.members.len() >= 2)
        .await;
    assert_eq!(names(&room), ["Ana", "Bo"]);
    let _others = [home.join("shut", "Bea").await, home.join("closed", "Cleo").await];
    for room in ["shut", "closed"] {
        let message = home.wait_state(room, UplinkState::Refused).await;
        assert!(message.contains("token"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_swallows_everything_is_left_for_a_new_connection() {
    let relay = start(|_| {});
    let home = Gateway::behind(relay.addr);
    let mut ana = home.join("general", "Ana").await;
    home.wait_state("general", UplinkState::Connected).await;
    relay.set_blackhole(true);
    home.wait_state("general", UplinkState::Stalled).await;
    relay.set_blackhole(false);
    home.wait_state("general", UplinkState::Connected).await;
    let mut bo = Member::join(relay.addr, "general", "Bo").await;
    ana.wait_list(&["Ana", "Bo"]).await;
    let all = Together::of(2);
    let (at_ana, at_bo) = tokio::join!(
        ana.live(&all, 440.0, false, "Bo at Ana", plenty),
        bo.live(&all, 880.0, false, "Ana at Bo", plenty),
    );
    assert!(at_ana.tone(880.0) > 0.1 && at_bo.tone(440.0) > 0.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_relay_has_our_media_again_when_it_is_back() {
    let mut relay = start(|_| {});
    let home = Gateway::behind(relay.addr);
    let mut ana = home.join("general", "Ana").await;
    let bo = Member::join(relay.addr, "general", "Bo").await;
    ana.wait_list(&["Ana", "Bo"]).await;
    for orderly in [false, true] {
        if orderly {
            relay.stop().await;
        } else {
            relay.kill().await;
        }
        home.wait_room("general", "without the relay", |room| {
            room.uplink
                .as_ref()
                .is_none_or(|uplink| uplink.state != UplinkState::Connected)
        })
        .await;
        relay.restart().await;
        let back = Instant::now();
        let mut again = Member::join(relay.addr, "general", "Bo again").await;
        let all = Together::of(2);
        let (at_ana, at_bo) = tokio::join!(
            ana.live(&all, 440.0, true, "Bo at Ana", plenty_and_seen),
            again.live(&all, 880.0, true, "Ana at Bo", plenty_and_seen),
        );
        for (at, heard) in [("Ana", &at_ana), ("Bo", &at_bo)] {
            let after = heard.first.unwrap() - back;
            assert!(after <= BACK + BUSY, "sound at {at} {after:?} after the relay was back");
        }
        assert!(at_ana.tone(880.0) > 0.1 && at_bo.tone(440.0) > 0.1);
        let room = home.wait_room("general", "connected", |room| {
            room.uplink
                .as_ref()
                .is_some_and(|uplink| uplink.state == UplinkState::Connected)
        });
        assert_eq!(room.await.local().count(), 1);
        again
            .client
            .close(wzp_gateway::native::transport::close::NORMAL, "")
            .await;
    }
    drop(bo);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cameras_that_share_a_stream_id_are_two_pictures_here() {
    let relay = start(|options| options.vintage = Vintage::Older);
    let home = Gateway::behind(relay.addr);
    let mut ana = home.join("general", "Ana").await;
    let mut bo = Member::join(relay.addr, "general", "Bo").await;
    let all = Together::of(3);
    let late = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut cy = Member::join(relay.addr, "general", "Cy").await;
        cy.live(&all, 660.0, true, "pictures at Cy", |heard: &Heard| {
            heard.pictures.len() >= 60
        })
        .await;
        cy
    };
    let (_, _, mut cy, _) = tokio::join!(
        ana.live(&all, 440.0, true, "everybody at Ana", plenty_and_seen),
        bo.live(&all, 880.0, true, "Ana at Bo", plenty_and_seen),
        late,
        home.wait_room("general", "with two pictures of the relay", |room| {
            let pictures = room.members.iter().filter(|member| member.is_remote());
            pictures.filter(|member| sends(room, &member.name, Kind::Video)).count() == 2
        }),
    );
    // They share it with ours, so a request may well be for ours.
    let all = Together::of(3);
    let asker = cy.client.sender();
    // Ana and Bo begin with a keyframe, as above.
    let mut asked = false;
    let asks = |heard: &Heard| {
        if !asked && heard.pictures.len() >= 30 {
            asked = asker.signal(Signal::picture_loss(0));
        }
        asked && plenty(heard)
    };
    tokio::join!(
        ana.live(&all, 440.0, true, "the request at Ana", |heard: &Heard| heard.asked > 0),
        bo.live(&all, 880.0, true, "the request at Bo", |heard: &Heard| heard.asked > 0),
        cy.live(&all, 660.0, true, "Ana at Cy", asks),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn picture_goes_up_on_stream_one_where_the_rule_says_so() {
    for (vintage, passes) in [(Vintage::Newest, true), (Vintage::Older, false)] {
        let relay = start(|options| options.vintage = vintage);
        let rule = UplinkRule {
            video_stream: 1,
            ..rules(relay.addr).remove(0)
        };
        let home = Gateway::open().with_uplink(vec![rule], |_| {});
        let mut ana = home.join("general", "Ana").await;
        let mut bo = Member::join(relay.addr, "general", "Bo").await;
        bo.wait_list(&["Ana via web", "Bo"]).await;
        let all = Together::of(1);
        let (_, at_bo) = tokio::join!(
            ana.live(&all, 440.0, true, "", |_: &Heard| false),
            // Older relays forward stream 0 only, and count the others.
            bo.live(&all, 880.0, false, "Ana at Bo", |heard: &Heard| {
                plenty(heard)
                    && (heard.pictures.len() >= 20) == passes
                    && (relay.counters().other_layer >= 20) != passes
            }),
        );
        assert_eq!(at_bo.pictures.is_empty(), !passes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_gateway_on_a_relay_of_apps_is_one_member() {
    let relay = start(|_| {});
    let homes = [Gateway::behind(relay.addr), Gateway::behind(relay.addr)];
    let mut ana = homes[0].join("general", "Ana").await;
    let mut cy = homes[1].join("general", "Cy").await;
    let mut bo = Member::join(relay.addr, "general", "Bo").await;
    ana.wait_list(&["Ana", "Bo", "Cy via web"]).await;
    let all = Together::of(4);
    let each = async {
        let room = homes[0].wait_room("general", "with sound of Bo and of Cy", |room| {
            let heard = |name| sends(room, name, Kind::Audio);
            room.members.len() == 3 && heard("Bo") && heard("Cy via web")
        });
        room.await;
        all.one_is_content();
    };
    tokio::join!(
        ana.live(&all, 440.0, false, "sound at Ana", plenty),
        cy.live(&all, 660.0, false, "sound at Cy", plenty),
        bo.live(&all, 880.0, false, "sound at Bo", plenty),
        each,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_under_the_other_form_of_the_name_are_said_to_be_there() {
    let relay = start(|_| {});
    let home = Gateway::behind(relay.addr);
    let _bo = Member::join(relay.addr, "a47b63f7d5b511ba5bc4089a74446906", "Bo").await;
    let _ana = home.join("general", "Ana").await;
    let said = |room: &Snapshot| {
        room.uplink
            .as_ref()
            .is_some_and(|uplink| uplink.message.contains("\"auto\""))
    };
    home.wait_room("general", "with a hint", said).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_that_is_alive_under_the_other_form_of_its_name_is_found() {
    let relay = start(|_| {});
    let rule = UplinkRule {
        names: Names::Auto,
        ..rules(relay.addr).remove(0)
    };
    let home = Gateway::open().with_uplink(vec![rule], |_| {});
    let mut ana = home.join("general", "Ana").await;
    let mut bo = Member::join(relay.addr, "a47b63f7d5b511ba5bc4089a74446906", "Bo").await;
    ana.wait_list(&["Ana", "Bo"]).await;
    let all = Together::of(2);
    let (at_ana, at_bo) = tokio::join!(
        ana.live(&all, 440.0, false, "Bo at Ana", plenty),
        bo.live(&all, 880.0, false, "Ana at Bo", plenty),
    );
    assert!(at_ana.tone(880.0) > 0.1 && at_bo.tone(440.0) > 0.1);
    let raw = |relay: &StandIn| relay.members("general").is_empty().then_some(());
    relay.wait_until("the room of the other form empty", raw).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renaming_the_leg_is_hardly_heard() {
    let relay = start(|_| {});
    let home = Gateway::open().with_uplink(rules(relay.addr), |config| {
        config.renaming = Renaming {
            quiet: 300_000,
            apart: 300_000,
        };
    });
    let mut ana = home.join("general", "Ana").await;
    let mut bo = Member::join(relay.addr, "general", "Bo").await;
    bo.wait_list(&["Ana via web", "Bo"]).await;
    let mut bea = None;
    let all = Together::of(2);
    let mut renamed_at = None;
    let (_, at_bo, _) = tokio::join!(
        ana.live(&all, 440.0, false, "Bo at Ana", plenty),
        bo.live(&all, 880.0, false, "the new name at Bo", |heard: &Heard| {
            if renamed_at.is_none() && heard.list.iter().any(|name| name == "Ana, Bea via web") {
                renamed_at = Some(heard.sound.len());
            }
            renamed_at.is_some_and(|at| heard.sound.len() > at + 100)
        }),
        async { bea = Some(home.join("general", "Bea").await) },
    );
    // One stream from beginning to end; a new connection from nothing would have begun at another number.
    let missing: u32 = (at_bo.sound.windows(2))
        .map(|pair| pair[1].header.seq.wrapping_sub(pair[0].header.seq).wrapping_sub(1))
        .sum();
    assert!(missing < 50, "{missing} packets were lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hashed_names_are_dialled_where_the_rule_says_so() {
    let relay = start(|_| {});
    let rule = UplinkRule {
        names: Names::Hashed,
        ..rules(relay.addr).remove(0)
    };
    let home = Gateway::open().with_uplink(vec![rule], |_| {});
    let _ana = home.join("general", "Ana").await;
    home.wait_state("general", UplinkState::Connected).await;
    let joined = |event: &Event| match event {
        Event::Joined { room, .. } => Some(room.clone()),
        _ => None,
    };
    assert_eq!(relay.wait("the leg", joined).await, "a47b63f7d5b511ba5bc4089a74446906");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_shown_one_by_one_where_the_rule_says_so() {
    let relay = start(|_| {});
    let rule = UplinkRule {
        presence: true,
        ..rules(relay.addr).remove(0)
    };
    let home = Gateway::open().with_uplink(vec![rule], |config| {
        config.renaming = Renaming {
            quiet: 300_000,
            apart: 300_000,
        };
    });
    let mut bo = Member::join(relay.addr, "general", "Bo").await;
    let mut ana = home.join("general", "Ana").await;
    bo.wait_list(&["Ana", "Ana via web", "Bo"]).await;
    let bea = home.join("general", "Bea").await;
    bo.wait_list(&["Ana", "Ana, Bea via web", "Bea", "Bo"]).await;
    let room = home.wait_room("general", "with Bo", |room| room.members.len() >= 3);
    let room = room.await;
    assert_eq!(names(&room), ["Ana", "Bo", "Bea"], "nobody is here twice");
    bea.client
        .close(wzp_gateway::native::transport::close::NORMAL, "")
        .await;
    bo.wait_list(&["Ana", "Ana via web", "Bo"]).await;
    let all = Together::of(2);
    let (at_ana, at_bo) = tokio::join!(
        ana.live(&all, 440.0, false, "Bo at Ana", plenty),
        bo.live(&all, 880.0, false, "Ana at Bo", plenty),
    );
    assert!(at_ana.tone(880.0) > 0.1 && at_ana.tone(440.0) < 0.02);
    assert!(at_bo.tone(440.0) > 0.1 && at_bo.tone(880.0) < 0.02);
    ana.client
        .close(wzp_gateway::native::transport::close::NORMAL, "")
        .await;
    bo.wait_list(&["Bo"]).await;
}

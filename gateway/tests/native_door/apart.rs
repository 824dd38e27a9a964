//! A member that asks for every source apart gets them so; nobody else sees anything of it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;
use wzp_gateway::native::client::{self, Client, Event};
use wzp_proto::header::MediaType;
use wzp_proto::identity::Identity;
use wzp_proto::packet::MediaPacket;
use wzp_proto::signal::{GatewayExtension, Signal};

use crate::support::{DEADLINE, Door, Member, access_unit, offer};

async fn join_apart(door: &Door, room: &str, alias: &str) -> Member {
    let mut offer = offer(alias);
    offer.extension = Some(GatewayExtension {
        per_source: true,
        pin: None,
    });
    let options = client::Options {
        relay: door.address,
        server_name: room.to_owned(),
        token: None,
        offer,
    };
    let client = Client::connect(options, &Identity::from_seed(&rand::random())).await;
    Member {
        client: client.unwrap(),
    }
}

#[tokio::test]
async fn sources_come_apart_with_stream_ids_that_the_list_explains() {
    let door = Door::open();
    let mut ana = door.join("apart", "Ana").await;
    let mut bo = door.join("apart", "Bo").await;
    let mut di = join_apart(&door, "apart", "Di").await;
    let listed = di.wait_list(&["Ana", "Bo", "Di"]).await;
    let streams: BTreeMap<_, _> = (listed.iter())
        .filter_map(|who| Some((who.alias.as_deref()?, who.stream_id?)))
        .collect();
    assert_eq!(streams.len(), 2, "everybody but the receiver has a stream id");
    assert_ne!(streams["Ana"], streams["Bo"]);
    let seen_by_ana = ana.wait_list(&["Ana", "Bo", "Di"]).await;
    assert!(
        seen_by_ana.iter().all(|who| who.stream_id.is_none()),
        "apps see nothing of it"
    );

    // Both talk and show themselves at the same time: no mix, nothing chosen.
    let unit = access_unit(true, 3_000);
    let mut sound: BTreeMap<u8, Vec<MediaPacket>> = BTreeMap::new();
    let mut pictures: BTreeMap<u8, Vec<MediaPacket>> = BTreeMap::new();
    let complete = |kind: &BTreeMap<u8, Vec<MediaPacket>>| kind.len() == 2 && kind.values().all(|all| all.len() >= 9);
    for turn in 0..500 {
        for (name, member, first) in [("Ana", &ana, 0), ("Bo", &bo, 5_000)] {
            member.send_sound(
                first + turn,
                format!("{name} says {turn:03}, loudly and clearly").as_bytes(),
            );
            member.send_picture(7_000 + first + 3 * turn, 100 + 20 * turn, &unit, true);
        }
        di.ping_and(|packet| {
            let by_stream = match packet.header.media_type {
                MediaType::Audio => &mut sound,
                _ => &mut pictures,
            };
            by_stream.entry(packet.header.stream_id).or_default().push(packet);
        })
        .await;
        if complete(&sound) && complete(&pictures) {
            break;
        }
    }
    for name in ["Ana", "Bo"] {
        let heard = &sound[&streams[name]];
        for (i, pair) in heard.windows(2).enumerate() {
            assert_eq!(pair[0].header.seq as usize, i, "numbered by source, without holes");
            assert!(pair[0].payload < pair[1].payload, "in their order");
        }
        let own = format!("{name} says ");
        assert!(heard.iter().all(|packet| packet.payload.starts_with(own.as_bytes())));
        let seen = &pictures[&streams[name]];
        assert!(seen.iter().enumerate().all(|(i, packet)| packet.header.seq == i as u32));
    }

    // A keyframe request means the one whose stream id it names. Said anew, since it counts for nothing while the last
    // keyframe may still be on its way.
    let asked = async {
        loop {
            assert!(di.client.sender().signal(Signal::picture_loss(streams["Bo"])));
            let request = bo.wait("the keyframe request", |event| {
                matches!(event, Event::Signal(Signal::PictureLossIndication { .. })).then_some(())
            });
            if timeout(Duration::from_millis(200), request).await.is_ok() {
                return;
            }
        }
    };
    timeout(DEADLINE, asked).await.expect("a keyframe request at Bo");
}

#[tokio::test]
async fn source_that_comes_back_is_a_new_stream() {
    let door = Door::open();
    let ana = door.join("apart-again", "Ana").await;
    let mut di = join_apart(&door, "apart-again", "Di").await;
    let first = di.wait_list(&["Ana", "Di"]).await[0].stream_id;
    drop(ana);
    di.wait_list(&["Di"]).await;
    let ana = door.join("apart-again", "Ana").await;
    let second = di.wait_list(&["Di", "Ana"]).await[1].stream_id.expect("a stream id");
    assert_ne!(first, Some(second));
    let mut heard = None;
    for seq in 0..500 {
        ana.send_sound(9 + seq, b"here I am again, hear me");
        di.ping_and(|packet| heard = heard.or(Some((packet.header.stream_id, packet.header.seq))))
            .await;
        if heard.is_some() {
            break;
        }
    }
    assert_eq!(heard, Some((second, 0)));
}

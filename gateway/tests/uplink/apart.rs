//! Whose sound is whose behind a bad path, counted where members of our room hear it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};
use wzp_gateway::media::frame::{Kind, ParticipantId};
use wzp_gateway::room::subscription::{Cursor, Lag, Next};
use wzp_proto::room_name::RoomName;

use crate::relay::{Link, Options, StandIn};
use crate::support::{Gateway, Member};

const LAG: Lag = Lag {
    most: 2_000_000,
    resync_age: 0,
};

/// Sends packets that are marked, as an app counts them.
async fn talk(member: &Member, mark: u8) {
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for seq in 0.. {
        ticks.tick().await;
        let header = crate::support::sound_header(seq, seq * 20);
        // Opus of 20 ms by its first byte; nobody decodes the rest.
        member
            .client
            .sender()
            .try_packet(&header, &[[0x48, mark].as_slice(), &[0; 30]].concat());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_natives_behind_a_lossy_path_are_heard_apart_in_our_room() {
    let lasts = Duration::from_secs(if std::env::var_os("WZP_SOAK").is_some() { 300 } else { 8 });
    let relay = StandIn::start(Options {
        link: Link {
            loss: 0.03,
            reordering: 0.03,
            seed: 11,
        },
        ..Options::default()
    });
    let home = Gateway::behind(relay.addr);
    let mut ana = home.join("general", "Ana").await;
    let bo = Member::join(relay.addr, "general", "Bo").await;
    ana.wait_list(&["Ana", "Bo"]).await;
    let room = home.registry.get(RoomName::parse("general").unwrap().key()).unwrap();
    let waker = Arc::new(Notify::new());
    let mut counts: BTreeMap<(u8, ParticipantId), u64> = BTreeMap::new();
    let listens = async {
        let begun = Instant::now();
        let mut cursors: Vec<Cursor> = Vec::new();
        let mut looks = interval(Duration::from_millis(20));
        while begun.elapsed() < lasts {
            looks.tick().await;
            for member in &room.snapshot().members {
                for view in member.tracks.iter().filter(|view| view.info.kind == Kind::Audio) {
                    if !cursors.iter().any(|cursor| Arc::ptr_eq(cursor.track(), &view.track)) {
                        cursors.push(Cursor::new(&view.track, &waker));
                    }
                }
            }
            for cursor in &mut cursors {
                while let Next::Frame(frame) = cursor.next(&LAG) {
                    *counts.entry((frame.payload[1], frame.track.source)).or_default() += 1;
                }
            }
        }
    };
    let later = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let cy = Member::join(relay.addr, "general", "Cy").await;
        talk(&cy, b'c').await;
    };
    tokio::select! {
        () = listens => {}
        () = talk(&bo, b'b') => {}
        () = later => {}
    }
    let all: u64 = counts.values().sum();
    let snapshot = room.snapshot();
    let is = |id: &ParticipantId, name: &str| snapshot.member(*id).is_some_and(|member| member.name == name);
    let right: u64 = (counts.iter())
        .filter(|((mark, member), _)| is(member, if *mark == b'b' { "Bo" } else { "Cy" }))
        .map(|(_, count)| count)
        .sum();
    println!("{} of {all} packets went to somebody else: {counts:?}", all - right);
    assert!(all > lasts.as_secs() * 60, "{all} packets in {lasts:?}");
    assert!((all - right) * 100 < all, "{counts:?}");
    let counters = relay.counters();
    assert!(counters.lost > 0 && counters.held_back > 0, "the path was good");
}

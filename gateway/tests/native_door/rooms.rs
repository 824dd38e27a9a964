//! Who is in the room, and how one gets in and out.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::timeout;
use wzp_gateway::native::auth::{AuthError, AuthFuture, Authenticate, Authenticated};
use wzp_gateway::native::client::{self, Client, ConnectError, Event};
use wzp_gateway::native::transport::close;
use wzp_proto::handshake::{Dialer, HandshakeError};
use wzp_proto::identity::Identity;
use wzp_proto::room_name::RoomName;
use wzp_proto::signal::{HangupReason, Signal, encode_signal};

use crate::support::{DEADLINE, Door, next_raw, offer, send_raw};

fn framed(json: &serde_json::Value) -> Vec<u8> {
    let text = json.to_string();
    [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

#[tokio::test]
async fn everyone_has_the_same_list_after_every_join_and_leave() {
    let door = Door::open();
    let mut anna = door.join("general", "anna").await;
    anna.wait_list(&["anna"]).await;
    let mut bert = door.join("GENERAL", "bert").await;
    let mut cleo = door.join("a47b63f7d5b511ba5bc4089a74446906", "cleo").await;
    let mut lists = Vec::new();
    for member in [&mut anna, &mut bert, &mut cleo] {
        lists.push(member.wait_list(&["anna", "bert", "cleo"]).await);
    }
    assert!(lists.iter().all(|list| *list == lists[0]));
    assert!(
        lists[0]
            .iter()
            .all(|who| who.relay_label.is_none() && who.fingerprint.len() == 39)
    );
    let left = Instant::now();
    bert.client.close(close::NORMAL, "normal close").await;
    anna.wait_list(&["anna", "cleo"]).await;
    cleo.wait_list(&["anna", "cleo"]).await;
    assert!(left.elapsed() < Duration::from_secs(1));
    cleo.client.sender().signal(Signal::hangup(HangupReason::Normal));
    anna.wait_list(&["anna"]).await;
    assert_eq!(cleo.wait_closed().await.0, 0);
    assert_eq!(door.counters.left.get(), 2);
}

#[tokio::test]
async fn rooms_are_apart_and_a_missing_name_is_the_default_room() {
    let door = Door::open();
    let mut anna = door.join("default", "anna").await;
    // An IP address is not sent as a server name.
    let mut bert = door.join("127.0.0.1", "bert").await;
    let mut cleo = door.join("elsewhere", "cleo").await;
    anna.wait_list(&["anna", "bert"]).await;
    bert.wait_list(&["anna", "bert"]).await;
    cleo.wait_list(&["cleo"]).await;
}

#[tokio::test]
async fn same_identity_replaces_its_older_self() {
    let door = Door::open();
    let mut watcher = door.join("general", "watcher").await;
    let mut old = door.try_join("general", "old", [7; 32], None).await.unwrap();
    watcher.wait_list(&["watcher", "old"]).await;
    let mut new = door.try_join("general", "new", [7; 32], None).await.unwrap();
    watcher.wait_list(&["watcher", "new"]).await;
    new.wait_list(&["watcher", "new"]).await;
    assert_eq!(old.wait_closed().await.0, close::REPLACED.into_inner());
    watcher.ping().await;
    let room = door.registry.get(RoomName::parse("general").unwrap().key()).unwrap();
    assert_eq!(room.snapshot().members.len(), 2);
}

#[tokio::test]
async fn unknown_and_malformed_signals_are_skipped() {
    let door = Door::open();
    let mut anna = door.join("general", "anna").await;
    let connection = anna.client.connection().clone();
    send_raw(
        &connection,
        &framed(&json!({"TeleportRequest": {"version": 9, "to": "mars"}})),
    )
    .await;
    send_raw(&connection, &framed(&json!({"Ping": {"timestamp_ms": "noon"}}))).await;
    send_raw(&connection, b"\0\0\0\x09{\"Ping\"").await;
    send_raw(&connection, &[0, 0, 0, 0]).await;
    send_raw(&connection, &u32::MAX.to_be_bytes()).await;
    send_raw(&connection, &100_000u32.to_be_bytes()).await;
    // Variants that a room has no use for.
    send_raw(&connection, b"\0\0\0\x09\"Reflect\"").await;
    send_raw(&connection, &framed(&json!({"Mute": {"version": 1}}))).await;
    anna.ping().await;
    let counted = async {
        while door.counters.signals_bad.get() < 5 || door.counters.signals_unknown.get() < 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, counted).await.unwrap();
    anna.ping().await;
}

#[tokio::test]
async fn streams_that_stay_silent_block_no_others() {
    let door = Door::open();
    let mut anna = door.join("general", "anna").await;
    let connection = anna.client.connection().clone();
    let mut silent = Vec::new();
    for _ in 0..40 {
        let mut stream = connection.open_bi().await.unwrap();
        stream.0.write_all(&[0, 0]).await.unwrap();
        silent.push(stream);
    }
    let asked = Instant::now();
    anna.ping().await;
    assert!(asked.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn member_that_takes_no_streams_delays_nobody() {
    let door = Door::open();
    let (_endpoint, deaf) = door.join_deaf("general", "deaf").await;
    let mut anna = door.join("general", "anna").await;
    anna.wait_list(&["deaf", "anna"]).await;
    // More changes than the deaf one has streams, each seen by the other in time.
    for _ in 0..70 {
        let guest = door.join("general", "guest").await;
        let changed = Instant::now();
        anna.wait_list(&["deaf", "anna", "guest"]).await;
        guest.client.connection().close(close::NORMAL, b"");
        anna.wait_list(&["deaf", "anna"]).await;
        assert!(changed.elapsed() < Duration::from_secs(1));
    }
    assert!(deaf.close_reason().is_none());
    // When it listens again, it learns the newest state.
    let mut last = 0;
    while last != 2 {
        if let Signal::RoomUpdate { count, .. } = next_raw(&deaf).await {
            last = count;
        }
    }
}

#[tokio::test]
async fn wrong_version_is_told_before_the_close() {
    let door = Door::open();
    for version in [json!(1), json!(3), json!(null)] {
        let (_endpoint, connection) = client::dial(door.address, "general").await.unwrap();
        let identity = Identity::from_seed(&[9; 32]);
        let (_, signal) = Dialer::new(&identity, [1; 32], offer("old app"));
        let mut signal = serde_json::to_value(&signal).unwrap();
        let fields = signal["CallOffer"].as_object_mut().unwrap();
        match version {
            // A v1 app has no such field at all.
            serde_json::Value::Null => fields.remove("protocol_version"),
            number => fields.insert("protocol_version".to_owned(), number),
        };
        send_raw(&connection, &framed(&signal)).await;
        let Signal::Hangup { reason, .. } = next_raw(&connection).await else {
            panic!("not a hangup")
        };
        let server_supported = vec![2];
        assert_eq!(reason, HangupReason::ProtocolVersionMismatch { server_supported });
        let closed = timeout(DEADLINE, connection.closed()).await.unwrap();
        let quinn::ConnectionError::ApplicationClosed(closed) = closed else {
            panic!("closed otherwise: {closed}")
        };
        assert_eq!(closed.error_code, close::VERSION);
    }
    assert!(door.registry.is_empty());
}

#[tokio::test]
async fn forged_offer_is_refused() {
    let door = Door::open();
    let (_endpoint, connection) = client::dial(door.address, "general").await.unwrap();
    let (_, signal) = Dialer::new(&Identity::from_seed(&[9; 32]), [1; 32], offer("mallory"));
    let Signal::CallOffer(mut forged) = signal else {
        unreachable!()
    };
    forged.identity_pub = Identity::from_seed(&[8; 32]).public_key();
    send_raw(&connection, &encode_signal(&Signal::CallOffer(forged))).await;
    assert!(matches!(next_raw(&connection).await, Signal::Hangup { .. }));
    timeout(DEADLINE, connection.closed()).await.unwrap();
    assert!(door.registry.is_empty());
}

#[tokio::test]
async fn reserved_names_do_what_they_say_or_are_refused_with_a_sentence() {
    let door = Door::open_with(|config| config.version = "1.2.3-abc".to_owned());
    let closed = async |connection: &quinn::Connection| match timeout(DEADLINE, connection.closed()).await.unwrap() {
        quinn::ConnectionError::ApplicationClosed(close) => {
            (close.error_code, String::from_utf8_lossy(&close.reason).into_owned())
        }
        other => panic!("closed otherwise: {other}"),
    };
    let (_endpoint, ping) = client::dial(door.address, "ping").await.unwrap();
    assert_eq!(closed(&ping).await.0, close::NORMAL);
    let (_endpoint, version) = client::dial(door.address, "version").await.unwrap();
    let mut stream = timeout(DEADLINE, version.accept_uni()).await.unwrap().unwrap();
    assert_eq!(stream.read_to_end(100).await.unwrap(), b"1.2.3-abc");
    assert_eq!(closed(&version).await.0, close::NORMAL);
    for name in ["_signal", "_federation", "_probe", "call-17", "api"] {
        let (_endpoint, connection) = client::dial(door.address, name).await.unwrap();
        let (code, text) = closed(&connection).await;
        assert_eq!(code, close::NAME);
        assert!(text.contains(name) && text.contains("choose another"), "{text}");
    }
    assert!(door.registry.is_empty());
}

#[derive(Debug)]
struct OneToken;

impl Authenticate for OneToken {
    fn authenticate<'a>(&'a self, token: &'a str, _room: &'a RoomName) -> AuthFuture<'a> {
        Box::pin(async move {
            match token {
                "open sesame" => Ok(Authenticated {
                    fingerprint: Some("0123:4567:89ab:cdef:0123:4567:89ab:cdef".parse().unwrap()),
                }),
                _ => Err(AuthError("the token is not valid here".to_owned())),
            }
        })
    }
}

#[tokio::test]
async fn token_is_asked_for_where_it_is_wanted() {
    let door = Door::open_with(|config| config.auth = Some(std::sync::Arc::new(OneToken)));
    for token in [None, Some("wrong")] {
        let refused = door.try_join("general", "anna", [1; 32], token).await;
        let declined = HangupReason::Declined;
        match refused.err() {
            Some(ConnectError::Handshake(HandshakeError::HungUp(reason))) => assert_eq!(reason, declined),
            other => panic!("{other:?}"),
        }
    }
    let mut anna = door
        .try_join("general", "anna", [1; 32], Some("open sesame"))
        .await
        .unwrap();
    let list = anna.wait_list(&["anna"]).await;
    assert_eq!(list[0].fingerprint, "0123:4567:89ab:cdef:0123:4567:89ab:cdef");
    // Where none is wanted, one does no harm.
    let door = Door::open();
    door.try_join("general", "anna", [1; 32], Some("whatever"))
        .await
        .unwrap();
}

#[tokio::test]
async fn stopping_server_says_goodbye() {
    let door = Door::open();
    let mut anna = door.join("general", "anna").await;
    anna.wait_list(&["anna"]).await;
    door.stop.send_replace(true);
    anna.wait("the hangup", |event| {
        matches!(event, Event::Signal(Signal::Hangup { .. })).then_some(())
    })
    .await;
    assert_eq!(anna.wait_closed().await.0, close::STOPPING.into_inner());
    timeout(DEADLINE, door.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn member_that_went_away_leaves_no_room_behind() {
    let door = Door::open();
    for _ in 0..20 {
        let member = door.join("general", "anna").await;
        member.client.close(close::NORMAL, "").await;
    }
    let emptied = async {
        while !door.registry.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, emptied).await.unwrap();
    let _: &Client = &door.join("general", "again").await.client;
}

#[test]
fn member_that_falls_silent_is_lost_after_the_idle_time() {
    let ours = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let theirs = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let door = ours.block_on(async { Door::open_with(|config| config.limits.idle = Duration::from_secs(1)) });
    let mut anna = ours.block_on(door.join("general", "anna"));
    let silent = theirs.block_on(door.join("general", "silent"));
    ours.block_on(anna.wait_list(&["anna", "silent"]));
    // As if its process had been killed: nothing is sent any more, no goodbye either.
    theirs.shutdown_background();
    let silenced = Instant::now();
    ours.block_on(anna.wait_list(&["anna"]));
    assert!(silenced.elapsed() < Duration::from_secs(3));
    assert_eq!(door.counters.lost.get(), 1);
    ours.block_on(anna.ping());
    drop(silent);
}

//! Every limit, gone over.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use wzp_gateway::native::client::{self, ConnectError, Event};
use wzp_gateway::native::rate::Rates;
use wzp_gateway::native::transport::close;
use wzp_gateway::net::ConnectionLimit;
use wzp_proto::handshake::HandshakeError;
use wzp_proto::signal::{HangupReason, Signal, ViolationCode, encode_signal};

use crate::support::{DEADLINE, Door, send_raw, sound_header};

#[tokio::test]
async fn full_room_says_so_in_the_handshake() {
    let door = Door::open();
    let mut members = Vec::new();
    for i in 0..4 {
        members.push(door.join("general", &format!("member {i}")).await);
    }
    let refused = door.try_join("general", "one too many", [1; 32], None).await.err();
    let busy = HandshakeError::HungUp(HangupReason::Busy);
    assert!(
        matches!(&refused, Some(ConnectError::Handshake(error)) if *error == busy),
        "{refused:?}"
    );
    // Somebody leaves, and there is a place.
    members.pop().unwrap().client.close(close::NORMAL, "").await;
    members[0].wait_list(&["member 0", "member 1", "member 2"]).await;
    door.join("general", "next").await;
}

#[tokio::test]
async fn connections_over_the_limits_are_refused() {
    let door = Door::open_with(|config| config.connections = ConnectionLimit::new(100, 2));
    let _one = door.join("a", "one").await;
    let two = door.join("b", "two").await;
    assert!(door.try_join("c", "three", [1; 32], None).await.is_err());
    assert_eq!(door.counters.refused_per_ip.get(), 1);
    two.client.close(close::NORMAL, "").await;
    let again = async { while door.try_join("c", "three", [1; 32], None).await.is_err() {} };
    timeout(DEADLINE, again).await.unwrap();

    let door = Door::open_with(|config| config.connections = ConnectionLimit::new(1, 100));
    let _one = door.join("a", "one").await;
    assert!(door.try_join("b", "two", [1; 32], None).await.is_err());
    assert_eq!(door.counters.refused_total.get(), 1);
}

#[tokio::test]
async fn handshakes_in_flight_are_bounded_and_have_a_deadline() {
    let door = Door::open_with(|config| {
        config.limits.handshakes = 2;
        config.limits.handshake_deadline = Duration::from_millis(500);
    });
    let (_first, first) = client::dial(door.address, "general").await.unwrap();
    let (_second, second) = client::dial(door.address, "general").await.unwrap();
    assert!(client::dial(door.address, "general").await.is_err());
    assert_eq!(door.counters.refused_handshakes.get(), 1);
    for connection in [first, second] {
        let closed = timeout(DEADLINE, connection.closed()).await.unwrap();
        let quinn::ConnectionError::ApplicationClosed(closed) = closed else {
            panic!("closed otherwise: {closed}")
        };
        assert_eq!(closed.error_code, close::HANDSHAKE);
    }
    assert_eq!(door.counters.handshake_timeout.get(), 2);
    door.join("general", "in time").await;
}

#[tokio::test]
async fn flood_of_datagrams_ends_with_a_typed_hangup() {
    let door = Door::open_with(|config| {
        config.limits.rates = Rates {
            datagrams: 200,
            bytes: 1_000_000,
            ..Rates::default()
        };
    });
    let mut flooder = door.join("general", "flooder").await;
    let sender = flooder.client.sender();
    let flood = tokio::spawn(async move {
        for seq in 0..100_000 {
            if !sender.packet(&sound_header(seq), &[0xf8, 0xff]).await {
                return;
            }
        }
    });
    let reason = flooder
        .wait("the hangup", |event| match event {
            Event::Signal(Signal::Hangup { reason, .. }) => Some(reason),
            _ => None,
        })
        .await;
    let HangupReason::PolicyViolation { code, .. } = reason else {
        panic!("{reason:?}")
    };
    assert_eq!(code, ViolationCode::PacketRate);
    assert_eq!(flooder.wait_closed().await.0, close::POLICY.into_inner());
    flood.await.unwrap();
    assert!(door.counters.over_rate_in.get() > 0);
}

#[tokio::test]
async fn signals_over_the_rate_are_left_unread_and_counted() {
    let door = Door::open_with(|config| config.limits.rates.signals = 5);
    let mut flooder = door.join("general", "flooder").await;
    let begun = Instant::now();
    for _ in 0..100 {
        send_raw(flooder.client.connection(), &encode_signal(&Signal::picture_loss(0))).await;
    }
    let counts = || (door.counters.pli_in.get(), door.counters.signals_over_rate.get());
    let all = async {
        while counts().0 + counts().1 < 100 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, all).await.unwrap();
    // What came at once, and what was allowed since.
    let allowed = 5 + (begun.elapsed().as_secs_f64() * 5.0).ceil() as u64;
    let (heard, unread) = counts();
    assert!((5..=allowed).contains(&heard), "{heard} heard, {unread} unread");
    // It is still a member, and heard again soon.
    let again = async {
        loop {
            flooder.client.sender().signal(Signal::ping(7));
            if timeout(Duration::from_millis(300), flooder.wait_pong()).await.is_ok() {
                return;
            }
        }
    };
    timeout(DEADLINE, again).await.unwrap();
}

#[tokio::test]
async fn doors_with_one_limit_count_together() {
    let limit = ConnectionLimit::new(100, 2);
    let shared = limit.clone();
    let door = Door::open_with(|config| config.connections = shared);
    let _elsewhere = limit.acquire([127, 0, 0, 1].into()).unwrap();
    let _one = door.join("a", "one").await;
    assert_eq!(limit.in_use(), 2);
    assert!(door.try_join("b", "two", [1; 32], None).await.is_err());
}

#[tokio::test]
async fn datagrams_that_are_no_packets_are_counted_and_skipped() {
    let door = Door::open();
    let mut anna = door.join("general", "anna").await;
    let sender = anna.client.sender();
    for bytes in [
        &[][..],
        &[2; 3],
        &[1; 40],
        &[0; 20],
        &[2, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        assert!(sender.datagram(bytes.to_vec().into()));
    }
    let counted = async {
        while door.counters.malformed_in.get() < 5 {
            anna.ping().await;
        }
    };
    timeout(DEADLINE, counted).await.unwrap();
    assert_eq!(anna.client.connection().close_reason(), None);
}

//! The sockets: one port number for UDP and TCP, and the limits of ICE-TCP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use wzp_gateway::net::ConnectionLimit;
use wzp_gateway::webrtc::engine::{Local, Protocol, Transmit};
use wzp_gateway::webrtc::net::{Config, Sockets};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SECOND: Duration = Duration::from_secs(1);

fn config() -> Config {
    Config {
        addresses: vec![LOCALHOST],
        port: 0,
        connections: ConnectionLimit::new(10, 3),
    }
}

/// What came in until nothing came for 300 ms, or `count` came.
async fn receive(sockets: &mut Sockets, count: usize, genuine: bool) -> Vec<(Protocol, SocketAddr, Vec<u8>)> {
    let mut received = Vec::new();
    while received.len() < count {
        let step = sockets.receive(|local, from, datagram| {
            received.push((local.protocol, from, datagram.to_vec()));
            genuine
        });
        match timeout(Duration::from_millis(300), step).await {
            Ok(result) => result.unwrap(),
            Err(_) => break,
        }
    }
    received
}

/// Drives the sockets until `done` has happened.
async fn drive<T>(sockets: &mut Sockets, done: impl Future<Output = T>) -> T {
    let mut done = std::pin::pin!(done);
    loop {
        tokio::select! {
            result = sockets.receive(|_, _, _| false) => result.unwrap(),
            value = &mut done => return value,
        }
    }
}

async fn is_closed(stream: &mut TcpStream, within: Duration) -> bool {
    matches!(timeout(within, stream.read(&mut [0; 1])).await, Ok(Ok(0) | Err(_)))
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(bytes);
    framed
}

#[tokio::test]
async fn udp_and_tcp_share_a_port_number_on_both_families() {
    let addresses = vec![LOCALHOST, IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let mut sockets = Sockets::bind(Config {
        addresses: addresses.clone(),
        ..config()
    })
    .unwrap();
    for ip in addresses {
        let to = SocketAddr::new(ip, sockets.port());
        let udp = UdpSocket::bind(SocketAddr::new(ip, 0)).await.unwrap();
        udp.send_to(b"by udp", to).await.unwrap();
        let received = receive(&mut sockets, 1, false).await;
        assert_eq!(
            received,
            [(Protocol::Udp, udp.local_addr().unwrap(), b"by udp".to_vec())]
        );
        let mut tcp = TcpStream::connect(to).await.unwrap();
        tcp.write_all(&frame(b"by tcp")).await.unwrap();
        let received = receive(&mut sockets, 1, false).await;
        assert_eq!(
            received,
            [(Protocol::Tcp, tcp.local_addr().unwrap(), b"by tcp".to_vec())]
        );
    }
}

#[tokio::test]
async fn a_run_of_packets_arrives_as_single_ones() {
    let mut sockets = Sockets::bind(config()).unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let contents: Vec<u8> = (0..=40u8)
        .flat_map(|packet| vec![packet; if packet < 40 { 1_000 } else { 77 }])
        .collect();
    sockets.send(Transmit {
        local: Local {
            protocol: Protocol::Udp,
            ip: Some(LOCALHOST),
        },
        to: peer.local_addr().unwrap(),
        contents: contents.into(),
        segment_size: Some(1_000),
    });
    let mut buffer = [0; 2_000];
    for packet in 0..=40u8 {
        let next = timeout(SECOND, peer.recv_from(&mut buffer));
        let (size, from) = drive(&mut sockets, next).await.unwrap().unwrap();
        assert_eq!((size, buffer[0]), (if packet < 40 { 1_000 } else { 77 }, packet));
        assert_eq!(from.port(), sockets.port());
    }
    assert_eq!(sockets.stats().udp_dropped, 0);
}

#[tokio::test]
async fn frames_go_out_framed() {
    let mut sockets = Sockets::bind(config()).unwrap();
    let mut tcp = TcpStream::connect((LOCALHOST, sockets.port())).await.unwrap();
    tcp.write_all(&frame(b"hello")).await.unwrap();
    receive(&mut sockets, 1, true).await;
    for packet in [&b"one"[..], b"three"] {
        let contents = Bytes::copy_from_slice(packet);
        sockets.send(Transmit {
            local: Local::TCP,
            to: tcp.local_addr().unwrap(),
            contents,
            segment_size: None,
        });
    }
    let mut seen = [0; 12];
    drive(&mut sockets, timeout(SECOND, tcp.read_exact(&mut seen)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&seen[..], [frame(b"one"), frame(b"three")].concat());
}

#[tokio::test]
async fn a_connection_without_a_genuine_request_is_closed_after_5_s() {
    let mut sockets = Sockets::bind(config()).unwrap();
    let start = Instant::now();
    let mut idle = TcpStream::connect((LOCALHOST, sockets.port())).await.unwrap();
    let mut busy = TcpStream::connect((LOCALHOST, sockets.port())).await.unwrap();
    let mut good = TcpStream::connect((LOCALHOST, sockets.port())).await.unwrap();
    good.write_all(&frame(b"the request")).await.unwrap();
    assert_eq!(receive(&mut sockets, 1, true).await.len(), 1);
    let closed = async {
        loop {
            // Bytes alone are no proof.
            let _ = busy.write_all(&frame(b"chatter")).await;
            if is_closed(&mut busy, Duration::from_millis(200)).await {
                break is_closed(&mut idle, SECOND).await;
            }
        }
    };
    assert!(drive(&mut sockets, timeout(8 * SECOND, closed)).await.unwrap());
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(4_900) && took < 7 * SECOND, "{took:?}");
    assert!(
        !drive(&mut sockets, is_closed(&mut good, Duration::from_millis(500))).await,
        "the good one was closed"
    );
    assert_eq!(sockets.tcp_connections(), 1);
}

#[tokio::test]
async fn connections_are_limited_per_ip_and_altogether() {
    let mut sockets = Sockets::bind(Config {
        connections: ConnectionLimit::new(5, 3),
        ..config()
    })
    .unwrap();
    let mut open = Vec::new();
    let mut refused = 0;
    for last in [1u8, 1, 1, 1, 2, 2, 2] {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
        let mut stream = socket.connect((LOCALHOST, sockets.port()).into()).await.unwrap();
        let closed = drive(&mut sockets, is_closed(&mut stream, Duration::from_millis(200))).await;
        refused += u64::from(closed);
        if !closed {
            open.push(stream);
        }
    }
    assert_eq!((open.len(), refused, sockets.stats().tcp_refused), (5, 2, 2));
    // One that leaves makes room.
    drop(open);
    let left = async { tokio::time::sleep(Duration::from_millis(200)).await };
    drive(&mut sockets, left).await;
    assert_eq!(sockets.tcp_connections(), 0);
    let mut stream = TcpStream::connect((LOCALHOST, sockets.port())).await.unwrap();
    assert!(!drive(&mut sockets, is_closed(&mut stream, Duration::from_millis(200))).await);
}

#[tokio::test]
async fn an_oversized_frame_ends_the_connection() {
    let mut sockets = Sockets::bind(config()).unwrap();
    let mut tcp = TcpStream::connect((LOCALHOST, sockets.port())).await.unwrap();
    tcp.write_all(&frame(&[7; 4_000])).await.unwrap();
    assert!(drive(&mut sockets, is_closed(&mut tcp, 2 * SECOND)).await);
    drive(&mut sockets, tokio::time::sleep(Duration::from_millis(50))).await;
    assert_eq!(sockets.tcp_connections(), 0);
}

#[tokio::test]
async fn a_peer_that_takes_nothing_loses_packets_and_holds_up_nobody() {
    const BURST: u64 = 1_000;
    let mut sockets = Sockets::bind(config()).unwrap();
    let mut connect = async || {
        let mut tcp = TcpStream::connect((LOCALHOST, sockets.port())).await.unwrap();
        tcp.write_all(&frame(b"hello")).await.unwrap();
        assert_eq!(receive(&mut sockets, 1, true).await.len(), 1);
        tcp
    };
    let stuck = connect().await;
    let mut good = connect().await;
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let contents = Bytes::from(vec![0; 1_200]);
    let transmit = |local, to, contents: &Bytes| Transmit {
        local,
        to,
        contents: contents.clone(),
        segment_size: None,
    };

    // Until the system's buffers are full too and not a single packet finds room any more.
    let to_stuck = stuck.local_addr().unwrap();
    let deadline = Instant::now() + 30 * SECOND;
    loop {
        let lost_before = sockets.stats().tcp_dropped;
        for _ in 0..BURST {
            sockets.send(transmit(Local::TCP, to_stuck, &contents));
        }
        let lost = sockets.stats().tcp_dropped - lost_before;
        // The others get theirs meanwhile.
        let number = Bytes::copy_from_slice(&lost_before.to_be_bytes());
        sockets.send(transmit(Local::TCP, good.local_addr().unwrap(), &number));
        sockets.send(transmit(Local::UDP, udp.local_addr().unwrap(), &number));
        let both = async {
            let (mut by_tcp, mut by_udp) = ([0; 10], [0; 8]);
            good.read_exact(&mut by_tcp).await.unwrap();
            udp.recv(&mut by_udp).await.unwrap();
            (by_tcp, by_udp)
        };
        let (by_tcp, by_udp) = drive(&mut sockets, timeout(5 * SECOND, both)).await.unwrap();
        assert_eq!((&by_tcp[2..], &by_udp[..]), (&number[..], &number[..]));
        if lost == BURST {
            break;
        }
        assert!(Instant::now() < deadline, "it takes everything");
    }
    assert_eq!(sockets.tcp_connections(), 2, "it has its time to recover");
}

#[tokio::test]
async fn a_port_in_use_is_named_in_the_error() {
    let sockets = Sockets::bind(config()).unwrap();
    let error = Sockets::bind(Config {
        port: sockets.port(),
        ..config()
    })
    .err()
    .unwrap()
    .to_string();
    assert!(error.contains(&sockets.port().to_string()), "{error}");
}

//! The sockets of the WebRTC door: UDP with segmentation offload in both directions, and ICE-TCP (RFC 6544, framed by
//! RFC 4571) on a listener of the same port number.
//!
//! One task owns [`Sockets`] together with an engine: it waits in [`Sockets::receive`], hands what came to the engine,
//! and gives the engine's output to [`Sockets::send`]. TCP connections have a task each; their queues are bounded and a
//! full one loses packets, as a network does.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter, Interest};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::engine::{Local, Protocol, Transmit};
use crate::net::{ConnectionLimit, Permit};

/// Socket buffers: a keyframe burst to a few hundred viewers in one turn.
const SOCKET_BUFFER: usize = 4 << 20;
/// Datagrams that wait for the UDP socket, in bytes. Beyond it they are lost.
const UDP_BACKLOG: usize = 4 << 20;
/// Larger than any datagram on a path with 1,500-byte frames.
const MAX_DATAGRAM: usize = 2_048;
/// Frames that wait for one TCP connection.
const TCP_QUEUE: usize = 512;
/// Frames from all TCP connections that wait for the engine.
const TCP_INCOMING: usize = 1_024;
/// A connection must show a genuine ICE request by then.
const TCP_PROOF: Duration = Duration::from_secs(5);
/// A connection that is silent, or takes no data, for this long is closed. Browsers check their path every 2.5 s.
const TCP_IDLE: Duration = Duration::from_secs(30);
/// A listener or socket that fails is left alone for this long: trying again at once would be all the thread did.
const REST: Duration = Duration::from_millis(20);
/// A UDP socket that fails this often in a row, with a [`REST`] after each, is taken to be gone.
const MAX_FAILURES: u32 = 250;
/// How often a free port is looked for when none was asked for.
const PORT_ATTEMPTS: usize = 32;

/// Where and how much to listen.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to bind. IPv6 sockets take IPv6 only.
    pub addresses: Vec<IpAddr>,
    /// Port of UDP and TCP; 0 for any that is free in both.
    pub port: u16,
    /// TCP connections at one time; with the other doors if they have a clone of it.
    pub connections: ConnectionLimit,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addresses: vec![IpAddr::from([0, 0, 0, 0]), IpAddr::from([0u16; 8])],
            port: 8_444,
            connections: ConnectionLimit::new(1_000, 50),
        }
    }
}

/// The port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system said no.
    #[error("cannot listen for WebRTC on {protocol} {address} (is another program using the port?)")]
    Socket {
        /// "UDP" or "TCP".
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// None of the addresses exists on this machine.
    #[error("cannot listen for WebRTC: none of the addresses to bind is usable")]
    NoAddress,
}

struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
    /// The address it is bound to; unspecified for all.
    ip: IpAddr,
    backlog: VecDeque<Transmit>,
    backlog_bytes: usize,
    /// Receiving failed so often since it last worked, and is tried again at that time.
    failures: u32,
    rests_until: Option<Instant>,
}

struct Connection {
    outgoing: mpsc::Sender<Bytes>,
    genuine: Arc<AtomicBool>,
    _permit: Permit,
}

enum TcpEvent {
    Frame(SocketAddr, Bytes),
    Closed(SocketAddr),
}

/// Counts of what the sockets lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetStats {
    /// Datagrams lost because the UDP backlog was full or the system refused them.
    pub udp_dropped: u64,
    /// Frames lost because a TCP connection was full or gone.
    pub tcp_dropped: u64,
    /// TCP connections refused for a limit.
    pub tcp_refused: u64,
    /// Times that the system could not hand over a TCP connection, which keeps waiting: it is out of descriptors.
    pub accepts_failed: u64,
    /// Times that receiving from a UDP socket failed in a way that is no peer's doing.
    pub udp_failed: u64,
}

/// See the [module's text](self).
pub struct Sockets {
    udp: Vec<Udp>,
    listeners: Vec<TcpListener>,
    /// No connection is accepted before.
    accepts_from: Option<Instant>,
    connections: HashMap<SocketAddr, Connection>,
    tasks: JoinSet<()>,
    tcp_events: mpsc::Receiver<TcpEvent>,
    tcp_sender: mpsc::Sender<TcpEvent>,
    config: Config,
    port: u16,
    buffers: Vec<u8>,
    buffer_size: usize,
    stats: NetStats,
}

impl Sockets {
    /// Binds all addresses. Must be called within a tokio runtime with IO and time.
    ///
    /// An IPv6 address is left out when the machine has no IPv6.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(config: Config) -> Result<Self, BindError> {
        let mut attempt = 0;
        let (udp, listeners, port) = loop {
            attempt += 1;
            match bind_all(&config.addresses, config.port) {
                Ok(bound) => break bound,
                // Another program had the UDP port's number on TCP: look for another one.
                Err(BindError::Socket { source, .. })
                    if config.port == 0 && source.kind() == io::ErrorKind::AddrInUse && attempt < PORT_ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        };
        let buffer_size = udp.iter().map(|udp| udp.state.gro_segments()).max().unwrap_or(1) * MAX_DATAGRAM;
        let (tcp_sender, tcp_events) = mpsc::channel(TCP_INCOMING);
        Ok(Self {
            udp,
            listeners,
            accepts_from: None,
            connections: HashMap::new(),
            tasks: JoinSet::new(),
            tcp_events,
            tcp_sender,
            config,
            port,
            buffers: vec![0; buffer_size * BATCH_SIZE],
            buffer_size,
            stats: NetStats::default(),
        })
    }

    /// The port number in use, the same for UDP and TCP.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What was lost.
    #[must_use]
    pub fn stats(&self) -> NetStats {
        self.stats
    }

    /// TCP connections at present.
    #[must_use]
    pub fn tcp_connections(&self) -> usize {
        self.connections.len()
    }

    /// Waits until something comes and hands all of it to `take`: where it came in, from whom, the bytes. `take` says
    /// whether it was a genuine ICE request ([`super::engine::Engine::handle_datagram`] does), which a TCP connection
    /// needs to be kept.
    ///
    /// Cancel-safe: nothing is lost when the future is dropped. What waits to be sent goes out meanwhile.
    ///
    /// # Errors
    /// None that passes: errors of single peers are not told, nor is what the system cannot do for a while, so an error
    /// means that a socket is gone.
    pub async fn receive(&mut self, mut take: impl FnMut(Local, SocketAddr, &[u8]) -> bool) -> io::Result<()> {
        enum Ready {
            Udp(usize, Interest),
            Accepted(TcpStream, SocketAddr),
            AcceptFailed,
            Tcp(TcpEvent),
        }
        let ready = {
            let mut waits: Vec<_> = Vec::with_capacity(self.udp.len());
            for (index, udp) in self.udp.iter().enumerate() {
                waits.push(Box::pin(async move {
                    if let Some(at) = udp.rests_until {
                        sleep_until(at).await;
                    }
                    let interest = if udp.backlog.is_empty() {
                        Interest::READABLE
                    } else {
                        Interest::READABLE | Interest::WRITABLE
                    };
                    let ready = udp.socket.ready(interest).await?;
                    let interest = if ready.is_writable() && !udp.backlog.is_empty() {
                        Interest::READABLE | Interest::WRITABLE
                    } else {
                        Interest::READABLE
                    };
                    io::Result::Ok((index, interest))
                }));
            }
            let accept = async {
                if let Some(at) = self.accepts_from {
                    sleep_until(at).await;
                }
                if self.listeners.is_empty() {
                    return std::future::pending().await;
                }
                let accepts = self.listeners.iter().map(|listener| Box::pin(listener.accept()));
                futures_util::future::select_all(accepts).await.0
            };
            tokio::select! {
                (result, _, _) = futures_util::future::select_all(waits) => {
                    let (index, interest) = result?;
                    Ready::Udp(index, interest)
                }
                event = self.tcp_events.recv() => match event {
                    Some(event) => Ready::Tcp(event),
                    None => return Ok(()),
                },
                accepted = accept => match accepted {
                    Ok((stream, from)) => Ready::Accepted(stream, from),
                    Err(_) => Ready::AcceptFailed,
                },
            }
        };
        match ready {
            Ready::Udp(index, interest) => {
                if interest.is_writable() {
                    self.flush_backlog(index);
                }
                self.receive_udp(index, &mut take)?;
            }
            Ready::Accepted(stream, from) => self.accept(stream, from),
            Ready::AcceptFailed => self.accept_failed(),
            Ready::Tcp(event) => {
                self.take_tcp(event, &mut take);
                for _ in 0..64 {
                    let Ok(event) = self.tcp_events.try_recv() else { break };
                    self.take_tcp(event, &mut take);
                }
            }
        }
        Ok(())
    }

    fn receive_udp(&mut self, index: usize, take: &mut impl FnMut(Local, SocketAddr, &[u8]) -> bool) -> io::Result<()> {
        let udp = &self.udp[index];
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let received = {
            let mut slices = self.buffers.chunks_mut(self.buffer_size).map(IoSliceMut::new);
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| slices.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
            udp.socket.try_io(Interest::READABLE, || {
                udp.state.recv((&udp.socket).into(), &mut slices, &mut metas)
            })
        };
        let received = match received {
            Ok(received) => received,
            // ICMP errors about earlier sends show up here, too.
            Err(error) if is_passing(&error) => return Ok(()),
            Err(error) => {
                self.stats.udp_failed += 1;
                return self.udp[index].rest_after(error);
            }
        };
        let udp = &mut self.udp[index];
        (udp.failures, udp.rests_until) = (0, None);
        for (meta, buffer) in metas.iter().zip(self.buffers.chunks(self.buffer_size)).take(received) {
            let local = Local {
                protocol: Protocol::Udp,
                ip: meta.dst_ip,
            };
            for datagram in buffer[..meta.len.min(buffer.len())].chunks(meta.stride.max(1)) {
                take(local, meta.addr, datagram);
            }
        }
        Ok(())
    }

    fn take_tcp(&mut self, event: TcpEvent, take: &mut impl FnMut(Local, SocketAddr, &[u8]) -> bool) {
        match event {
            TcpEvent::Frame(from, frame) => {
                if take(Local::TCP, from, &frame)
                    && let Some(connection) = self.connections.get(&from)
                {
                    connection.genuine.store(true, Ordering::Relaxed);
                }
            }
            TcpEvent::Closed(from) => {
                self.connections.remove(&from);
                while self.tasks.try_join_next().is_some() {}
            }
        }
    }

    /// Out of descriptors, or the peer was gone at once. Neither may spin, or hold up the media.
    fn accept_failed(&mut self) {
        self.accepts_from = Some(Instant::now() + REST);
        self.stats.accepts_failed += 1;
    }

    fn accept(&mut self, stream: TcpStream, from: SocketAddr) {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let permit = match self.config.connections.acquire(from.ip()) {
            Ok(permit) if !self.connections.contains_key(&from) => permit,
            _ => {
                self.stats.tcp_refused += 1;
                return;
            }
        };
        let _ = stream.set_nodelay(true);
        let (outgoing, queue) = mpsc::channel(TCP_QUEUE);
        let genuine = Arc::new(AtomicBool::new(false));
        self.connections.insert(
            from,
            Connection {
                outgoing,
                genuine: genuine.clone(),
                _permit: permit,
            },
        );
        let events = self.tcp_sender.clone();
        self.tasks.spawn(async move {
            let (reader, writer) = stream.into_split();
            tokio::select! {
                () = read_frames(reader, from, &events, &genuine) => {}
                () = write_frames(writer, queue) => {}
            }
            // The engine's loop is the owner of the other end; if it is gone, so is the table.
            let _ = events.send(TcpEvent::Closed(from)).await;
        });
    }

    /// Sends, or queues what does not fit now.
    pub fn send(&mut self, transmit: Transmit) {
        match transmit.local.protocol {
            Protocol::Udp => {
                let family = |udp: &Udp| udp.ip.is_ipv4() == transmit.to.is_ipv4();
                let bound = self
                    .udp
                    .iter()
                    .position(|udp| family(udp) && Some(udp.ip) == transmit.local.ip);
                match bound.or_else(|| self.udp.iter().position(family)) {
                    Some(index) => self.send_udp(index, transmit),
                    None => self.stats.udp_dropped += 1,
                }
            }
            Protocol::Tcp => {
                let sent = match self.connections.get(&transmit.to) {
                    Some(connection) => connection.outgoing.try_send(transmit.contents).is_ok(),
                    None => false,
                };
                self.stats.tcp_dropped += u64::from(!sent);
            }
        }
    }

    fn send_udp(&mut self, index: usize, transmit: Transmit) {
        let udp = &mut self.udp[index];
        if udp.backlog.is_empty() {
            match try_send(udp, &transmit) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    self.stats.udp_dropped += 1;
                    return;
                }
            }
        }
        if udp.backlog_bytes + transmit.contents.len() > UDP_BACKLOG {
            self.stats.udp_dropped += 1;
            return;
        }
        udp.backlog_bytes += transmit.contents.len();
        udp.backlog.push_back(transmit);
    }

    fn flush_backlog(&mut self, index: usize) {
        let udp = &mut self.udp[index];
        while let Some(transmit) = udp.backlog.pop_front() {
            match try_send(udp, &transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    udp.backlog.push_front(transmit);
                    return;
                }
                result => {
                    udp.backlog_bytes -= transmit.contents.len();
                    self.stats.udp_dropped += u64::from(result.is_err());
                }
            }
        }
    }
}

impl Udp {
    /// Receiving failed: the system may be short of memory for a while. The error comes back when it does not end.
    fn rest_after(&mut self, error: io::Error) -> io::Result<()> {
        self.failures += 1;
        if self.failures == 1 {
            tracing::warn!(%error, ip = %self.ip, "receiving WebRTC datagrams failed");
        }
        self.rests_until = Some(Instant::now() + REST);
        if self.failures > MAX_FAILURES {
            Err(error)
        } else {
            Ok(())
        }
    }
}

/// Sends a run, in pieces if the system takes fewer segments at once.
fn try_send(udp: &Udp, transmit: &Transmit) -> io::Result<()> {
    let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
    let most = segment * udp.state.max_gso_segments().max(1);
    for part in transmit.contents.chunks(most) {
        let message = quinn_udp::Transmit {
            destination: transmit.to,
            ecn: None,
            contents: part,
            segment_size: (part.len() > segment).then_some(segment),
            src_ip: transmit.local.ip,
        };
        udp.socket.try_io(Interest::WRITABLE, || {
            udp.state.try_send((&udp.socket).into(), &message)
        })?;
    }
    Ok(())
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable, WouldBlock,
    };
    matches!(
        error.kind(),
        WouldBlock | Interrupted | ConnectionReset | ConnectionRefused | HostUnreachable | NetworkUnreachable
    )
}

async fn read_frames(stream: OwnedReadHalf, from: SocketAddr, events: &mpsc::Sender<TcpEvent>, genuine: &AtomicBool) {
    let mut stream = BufReader::with_capacity(16 * 1024, stream);
    let proof_by = Instant::now() + TCP_PROOF;
    loop {
        let mut frame = std::pin::pin!(read_frame(&mut stream));
        let proven = || genuine.load(Ordering::Relaxed);
        let mut read = match proven() {
            true => timeout(TCP_IDLE, &mut frame).await,
            false => timeout_at(proof_by, &mut frame).await,
        };
        if read.is_err() && proven() && Instant::now() < proof_by + TCP_IDLE {
            // The proof came with an earlier frame, while we already waited for this one.
            read = timeout_at(proof_by + TCP_IDLE, &mut frame).await;
        }
        let Ok(Ok(frame)) = read else { return };
        if events.send(TcpEvent::Frame(from, frame)).await.is_err() {
            return;
        }
    }
}

async fn read_frame(stream: &mut BufReader<OwnedReadHalf>) -> io::Result<Bytes> {
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_DATAGRAM {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = BytesMut::zeroed(length);
    stream.read_exact(&mut frame).await?;
    Ok(frame.freeze())
}

async fn write_frames(stream: OwnedWriteHalf, mut queue: mpsc::Receiver<Bytes>) {
    let mut stream = BufWriter::with_capacity(16 * 1024, stream);
    while let Some(mut packet) = queue.recv().await {
        let written = timeout(TCP_IDLE, async {
            // Packets are below 64 kB by construction: the UDP path could not carry them either.
            while let Ok(length) = u16::try_from(packet.len()) {
                stream.write_u16(length).await?;
                stream.write_all(&packet).await?;
                match queue.try_recv() {
                    Ok(next) => packet = next,
                    Err(_) => break,
                }
            }
            stream.flush().await
        });
        if !matches!(written.await, Ok(Ok(()))) {
            return;
        }
    }
}

type Bound = (Vec<Udp>, Vec<TcpListener>, u16);

fn bind_all(addresses: &[IpAddr], mut port: u16) -> Result<Bound, BindError> {
    let (mut udp, mut listeners) = (Vec::new(), Vec::new());
    for &ip in addresses {
        let address = SocketAddr::new(ip, port);
        let socket = match bind_udp(address) {
            Ok(socket) => socket,
            Err(error) if ip.is_ipv6() && has_no_ipv6(&error) => continue,
            Err(source) => {
                return Err(BindError::Socket {
                    protocol: "UDP",
                    address,
                    source,
                });
            }
        };
        let bound = |protocol| {
            move |source| BindError::Socket {
                protocol,
                address,
                source,
            }
        };
        if port == 0 {
            port = socket.socket.local_addr().map_err(bound("UDP"))?.port();
        }
        listeners.push(bind_tcp(SocketAddr::new(ip, port)).map_err(bound("TCP"))?);
        udp.push(socket);
    }
    if udp.is_empty() {
        Err(BindError::NoAddress)
    } else {
        Ok((udp, listeners, port))
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    // EAFNOSUPPORT has no ErrorKind of its own that is stable.
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(97)
}

fn bind_udp(address: SocketAddr) -> io::Result<Udp> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(SocketProtocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // The system may grant less; that is not worth refusing to start.
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    socket.bind(&address.into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    let state = UdpSocketState::new((&socket).into())?;
    Ok(Udp {
        socket,
        state,
        ip: address.ip(),
        backlog: VecDeque::new(),
        backlog_bytes: 0,
        failures: 0,
        rests_until: None,
    })
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(SocketProtocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(256)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets() -> Sockets {
        Sockets::bind(Config {
            addresses: vec![IpAddr::from([127, 0, 0, 1])],
            port: 0,
            connections: ConnectionLimit::new(5, 5),
        })
        .unwrap()
    }

    #[tokio::test]
    async fn datagrams_go_on_while_no_connection_can_be_accepted() {
        let mut sockets = sockets();
        let to = SocketAddr::from(([127, 0, 0, 1], sockets.port()));
        sockets.accept_failed();
        assert!(sockets.accepts_from.is_some());
        // So long that nobody is accepted by chance.
        sockets.accepts_from = Some(Instant::now() + Duration::from_secs(3600));
        let _waiting = TcpStream::connect(to).await.unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut seen = 0;
        for count in 1..=20 {
            udp.send_to(b"media", to).await.unwrap();
            while seen < count {
                let received = sockets.receive(|_, _, _| {
                    seen += 1;
                    false
                });
                timeout(Duration::from_secs(5), received).await.unwrap().unwrap();
            }
        }
        assert_eq!(sockets.tcp_connections(), 0);
        sockets.accepts_from = Some(Instant::now());
        while sockets.tcp_connections() == 0 {
            let received = sockets.receive(|_, _, _| false);
            timeout(Duration::from_secs(5), received).await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_socket_that_fails_for_a_while_is_kept_and_one_that_fails_for_good_is_told() {
        let error = || io::Error::from(io::ErrorKind::OutOfMemory);
        let mut sockets = sockets();
        let to = SocketAddr::from(([127, 0, 0, 1], sockets.port()));
        for _ in 0..MAX_FAILURES {
            sockets.udp[0].rest_after(error()).unwrap();
        }
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        udp.send_to(b"media", to).await.unwrap();
        let mut seen = false;
        while !seen {
            let received = sockets.receive(|_, _, _| {
                seen = true;
                false
            });
            timeout(Duration::from_secs(5), received).await.unwrap().unwrap();
        }
        assert_eq!((sockets.udp[0].failures, sockets.udp[0].rests_until), (0, None));
        for _ in 0..MAX_FAILURES {
            sockets.udp[0].rest_after(error()).unwrap();
        }
        assert!(sockets.udp[0].rest_after(error()).is_err());
    }
}

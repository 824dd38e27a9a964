//! The dialling side: joins a room on a WZP relay, be it ours or another one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, Endpoint, EndpointConfig, VarInt};
use rustls::pki_types::DnsName;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use wzp_proto::handshake::{Dialer, Established, HandshakeError, OfferOptions};
use wzp_proto::header::MediaHeader;
use wzp_proto::identity::Identity;
use wzp_proto::packet::{MediaPacket, PacketError, encode_datagram};
use wzp_proto::room_name::{RoomName, RoomNameError};
use wzp_proto::signal::{MAX_SIGNAL_LEN, Signal, SignalError};
use wzp_proto::trunk::{TrunkEntry, decode_trunk};

use crate::native::counters::Counters;
use crate::native::signals::{self, Outbox, ReadError};
use crate::native::transport::{self, TransportError, close};
use crate::net;

/// From dialling to the answer.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// An address of a relay is tried so long before the next one.
const HEAD_START: Duration = Duration::from_millis(250);
/// A relay's signal must be complete this long after its stream began.
const SIGNAL_DEADLINE: Duration = Duration::from_secs(5);
/// Signals that may wait for the reader of [`Client::next`].
const SIGNALS: usize = 256;
/// A goodbye gets this long to go out.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// How to join.
#[derive(Debug)]
pub struct Options {
    /// The relay.
    pub relay: SocketAddr,
    /// TLS server name that says the room; see [`server_name`].
    pub server_name: String,
    /// Sent before the offer, if the relay wants one.
    pub token: Option<String>,
    /// What is offered.
    pub offer: OfferOptions,
}

/// How patient the dialling side is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the first packet to a QUIC connection.
    pub dial: Duration,
    /// From there to the answer.
    pub answer: Duration,
    /// Distance of keep-alive packets, if not the usual one.
    pub keep_alive: Option<Duration>,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            dial: CONNECT_DEADLINE,
            answer: CONNECT_DEADLINE,
            keep_alive: None,
        }
    }
}

/// A member of a room.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    endpoint: Endpoint,
    established: Established,
    signals: mpsc::Receiver<Result<Signal, ReadError>>,
    outbox: Arc<Outbox>,
    _tasks: JoinSet<()>,
}

/// What comes from the relay.
#[derive(Debug)]
pub enum Event {
    /// A datagram that is a media packet.
    Packet(MediaPacket),
    /// A datagram with several packets, as relays with trunking send them.
    Trunk(Vec<TrunkEntry>),
    /// A datagram that is neither.
    BadPacket(PacketError),
    /// A signal.
    Signal(Signal),
    /// A signal that could not be read, or is unknown.
    BadSignal(ReadError),
    /// It is over.
    Closed(ConnectionError),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No local socket.
    #[error("no UDP socket: {0}")]
    Socket(#[from] io::Error),
    /// TLS could not be set up.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// QUIC would not even begin.
    #[error("cannot dial the relay: {0}")]
    Dial(#[from] quinn::ConnectError),
    /// The relay closed the connection, or it broke.
    #[error("the relay closed the connection: {0}")]
    Closed(#[from] ConnectionError),
    /// A signal of the handshake was not sent.
    #[error(transparent)]
    Send(#[from] signals::SendError),
    /// A signal of the handshake was not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// Nothing came.
    #[error("no answer within {0:?}; is the address right, and UDP open?")]
    Deadline(Duration),
    /// Connected, and then nothing came.
    #[error("the relay took the connection, but did not answer the offer within {0:?}")]
    NoAnswer(Duration),
}

/// How a room's name is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialName {
    /// The TLS server name.
    pub server_name: String,
    /// It is the hash form.
    pub hashed: bool,
}

/// Why a room cannot be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialNameError {
    /// No room has this name.
    #[error(transparent)]
    Name(#[from] RoomNameError),
    /// Not even the hash form can be a server name.
    #[error("the room {0:?} cannot be dialled, its hash is not a server name either; choose another name")]
    Impossible(String),
}

/// The server name for a room: its folded name, or its hash form if that is wanted or the name cannot be a TLS server name.
///
/// # Errors
/// See [`DialNameError`].
pub fn server_name(room: &str, hashed: bool) -> Result<DialName, DialNameError> {
    let room = RoomName::parse(room)?;
    // A name that reads as an IP address would be sent as no name at all.
    let can_be_dialled = |name: &str| DnsName::try_from(name).is_ok() && name.parse::<IpAddr>().is_err();
    let hash = room.key().to_string();
    match room.display().map(str::to_lowercase) {
        Some(name) if !hashed && can_be_dialled(&name) => Ok(DialName {
            server_name: name,
            hashed: false,
        }),
        _ if can_be_dialled(&hash) => Ok(DialName {
            server_name: hash,
            hashed: true,
        }),
        _ => Err(DialNameError::Impossible(room.to_string())),
    }
}

impl Client {
    /// Connects, shakes hands, and is in the room.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(options: Options, identity: &Identity) -> Result<Self, ConnectError> {
        let connecting = Self::connect_within(options, identity, Patience::default());
        timeout(CONNECT_DEADLINE, connecting)
            .await
            .unwrap_or(Err(ConnectError::Deadline(CONNECT_DEADLINE)))
    }

    /// As [`Client::connect`], to a relay whose name has several addresses: the one that answers first is joined.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect_any(
        relays: &[SocketAddr],
        options: Options,
        identity: &Identity,
    ) -> Result<Self, ConnectError> {
        let connecting = async {
            let (endpoint, connection) = dial_any(relays, &options.server_name).await?;
            Self::join(endpoint, connection, options, identity).await
        };
        timeout(CONNECT_DEADLINE, connecting)
            .await
            .unwrap_or(Err(ConnectError::Deadline(CONNECT_DEADLINE)))
    }

    /// As [`Client::connect`], with deadlines of its own.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect_within(
        options: Options,
        identity: &Identity,
        patience: Patience,
    ) -> Result<Self, ConnectError> {
        let config = transport::client_config(patience.keep_alive)?;
        let dialling = dial_with(options.relay, &options.server_name, config);
        let (endpoint, connection) = timeout(patience.dial, dialling)
            .await
            .unwrap_or(Err(ConnectError::Deadline(patience.dial)))?;
        timeout(patience.answer, Self::join(endpoint, connection, options, identity))
            .await
            .unwrap_or(Err(ConnectError::NoAnswer(patience.answer)))
    }

    async fn join(
        endpoint: Endpoint,
        connection: Connection,
        options: Options,
        identity: &Identity,
    ) -> Result<Self, ConnectError> {
        if let Some(token) = options.token {
            signals::send(&connection, &Signal::auth_token(token), CONNECT_DEADLINE).await?;
        }
        let (mut dialer, offer) = Dialer::new(identity, rand::random(), options.offer);
        signals::send(&connection, &offer, CONNECT_DEADLINE).await?;
        let answer = loop {
            let (_, mut stream) = connection.accept_bi().await?;
            match signals::read(&mut stream, MAX_SIGNAL_LEN, SIGNAL_DEADLINE).await {
                Err(ReadError::Signal(SignalError::UnknownVariant { .. })) => {}
                other => break other?,
            }
        };
        let established = match dialer.on_signal(answer) {
            Ok(established) => established,
            Err(error) => {
                connection.close(close::HANDSHAKE, error.to_string().as_bytes());
                return Err(error.into());
            }
        };
        let mut tasks = JoinSet::new();
        let outbox = Arc::new(Outbox::default());
        tasks.spawn(outbox.clone().run(connection.clone(), Arc::<Counters>::default()));
        let (sender, signals) = mpsc::channel(SIGNALS);
        tasks.spawn(read_signals(connection.clone(), sender));
        Ok(Self {
            connection,
            endpoint,
            established,
            signals,
            outbox,
            _tasks: tasks,
        })
    }

    /// What the handshake agreed on.
    pub fn established(&self) -> &Established {
        &self.established
    }

    /// The QUIC connection, for statistics.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// A handle for sending.
    pub fn sender(&self) -> Sender {
        Sender {
            connection: self.connection.clone(),
            outbox: self.outbox.clone(),
        }
    }

    /// What comes next. May be dropped and called again without losing anything.
    pub async fn next(&mut self) -> Event {
        tokio::select! {
            datagram = self.connection.read_datagram() => match datagram {
                Ok(datagram) => parse(datagram),
                Err(error) => Event::Closed(error),
            },
            Some(signal) = self.signals.recv() => signal.map_or_else(Event::BadSignal, Event::Signal),
        }
    }

    /// Leaves: closes with `code` and waits until the relay knows, for a second at most.
    pub async fn close(self, code: VarInt, reason: &str) {
        self.connection.close(code, reason.as_bytes());
        timeout(CLOSE_DEADLINE, self.endpoint.wait_idle()).await.ok();
    }
}

/// There is no tag that tells the forms apart: a packet begins with its version, 2, a trunk frame with the high byte of its
/// count (WZP wire v2, section 2.8).
fn parse(datagram: Bytes) -> Event {
    match MediaPacket::decode(datagram.clone()) {
        Ok(packet) => Event::Packet(packet),
        Err(error) => match decode_trunk(datagram) {
            Ok(entries) if !entries.is_empty() => Event::Trunk(entries),
            _ => Event::BadPacket(error),
        },
    }
}

/// Sends media and signals.
#[derive(Debug, Clone)]
pub struct Sender {
    connection: Connection,
    outbox: Arc<Outbox>,
}

impl Sender {
    /// Sends a packet if QUIC's queue has space; false if it has not, or the path does not take its size.
    pub fn try_packet(&self, header: &MediaHeader, payload: &[u8]) -> bool {
        let datagram = encode_datagram(header, payload);
        self.connection.datagram_send_buffer_space() >= datagram.len() && self.datagram(datagram)
    }

    /// Sends a packet as soon as QUIC's queue has space; false if the connection or the path does not take it.
    pub async fn packet(&self, header: &MediaHeader, payload: &[u8]) -> bool {
        self.datagram_wait(encode_datagram(header, payload)).await
    }

    /// Sends bytes as they are as soon as QUIC's queue has space; false if the connection or the path does not take them.
    pub async fn datagram_wait(&self, datagram: Bytes) -> bool {
        self.connection.send_datagram_wait(datagram).await.is_ok()
    }

    /// Sends bytes as they are.
    pub fn datagram(&self, datagram: Bytes) -> bool {
        self.connection.send_datagram(datagram).is_ok()
    }

    /// Puts a signal into the queue; false if too many wait.
    pub fn signal(&self, signal: Signal) -> bool {
        self.outbox.push(signal)
    }
}

/// Dials a relay with this server name, without a handshake of WZP's own.
///
/// # Errors
/// See [`ConnectError`].
pub async fn dial(relay: SocketAddr, server_name: &str) -> Result<(Endpoint, Connection), ConnectError> {
    dial_with(relay, server_name, transport::client_config(None)?).await
}

/// The first connection that comes about. Each address is dialled a moment after the one before it (RFC 8305, section 5);
/// none is joined yet, so that nobody comes into the room twice.
async fn dial_any(relays: &[SocketAddr], server_name: &str) -> Result<(Endpoint, Connection), ConnectError> {
    let config = transport::client_config(None)?;
    let mut dialling = JoinSet::new();
    for (i, relay) in (0u32..).zip(relays.iter().copied()) {
        let (config, server_name) = (config.clone(), server_name.to_owned());
        dialling.spawn(async move {
            sleep(HEAD_START * i).await;
            dial_with(relay, &server_name, config).await
        });
    }
    let mut failed = None;
    while let Some(dialled) = dialling.join_next().await {
        match dialled {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => failed = Some(error),
            Err(_) => {}
        }
    }
    Err(failed.unwrap_or(ConnectError::Deadline(CONNECT_DEADLINE)))
}

async fn dial_with(
    relay: SocketAddr,
    server_name: &str,
    config: quinn::ClientConfig,
) -> Result<(Endpoint, Connection), ConnectError> {
    let any: IpAddr = match relay {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("no tokio runtime to dial in"))?;
    let socket = net::udp_socket(SocketAddr::new(any, 0))?;
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, runtime)?;
    let connecting = endpoint.connect_with(config, relay, server_name)?;
    Ok((endpoint, connecting.await?))
}

/// Reads the relay's signals in the order of their streams, which is the order in which member lists are valid.
async fn read_signals(connection: Connection, sender: mpsc::Sender<Result<Signal, ReadError>>) {
    while let Ok((_, mut stream)) = connection.accept_bi().await {
        let signal = signals::read(&mut stream, MAX_SIGNAL_LEN, SIGNAL_DEADLINE).await;
        if sender.send(signal).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::native::{Config, Server};
    use crate::room::registry::{Registry, RoomLimits};

    #[tokio::test]
    async fn address_that_answers_is_found_among_those_that_do_not() {
        let identity = Arc::new(Identity::from_seed(&[1; 32]));
        let rooms = Registry::new(RoomLimits { rooms: 1, members: 1 });
        let server = Server::bind(Config::new(([127, 0, 0, 1], 0).into()), rooms, identity).unwrap();
        let open = server.local_addr().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let _running = AbortOnDropHandle::new(tokio::spawn(server.run(stopped)));
        // Somebody has this port, and says nothing.
        let silent = net::udp_socket(([127, 0, 0, 1], 0).into()).unwrap();
        let relays = [silent.local_addr().unwrap(), open];
        let (_endpoint, connection) = timeout(CONNECT_DEADLINE / 2, dial_any(&relays, "general"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(connection.remote_address(), open);
    }

    #[test]
    fn names_that_tls_cannot_carry_are_dialled_hashed() {
        let plain = server_name("General", false).unwrap();
        assert_eq!((plain.server_name.as_str(), plain.hashed), ("general", false));
        for name in ["my room", "1234", "127.0.0.1", "größe", "-x"] {
            let dialled = server_name(name, false).unwrap();
            assert!(dialled.hashed, "{name} as {dialled:?}");
        }
        let hashed = server_name("android", true).unwrap();
        assert_eq!(hashed.server_name, "3f8466a8c694c38ccbe4ff7479015ae0");
        assert!(server_name("_signal", false).is_err());
    }
}

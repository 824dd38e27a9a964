//! Accepts TCP connections for HTTP: limits, TLS with a deadline, and sockets that queue little.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::net::{ConnectionLimit, Permit};

/// A TLS handshake takes at most this long.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Connections that are ready and wait to be served.
const READY: usize = 64;
/// Bytes that the kernel takes before they can be sent: what waits beyond that waits with us, where it can be left out.
const NOTSENT_LOWAT: u32 = 16 * 1024;

/// A connection, TLS or plain, that holds its place in the limits.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    _permit: Permit,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Client(pub SocketAddr);

impl Connected<IncomingStream<'_, Listener>> for Client {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// The accepting side.
#[derive(Debug)]
pub struct Listener {
    ready: mpsc::Receiver<(Connection, SocketAddr)>,
    address: SocketAddr,
}

impl Listener {
    /// Accepts on `listener`. TLS handshakes run beside each other, so that a slow one delays nobody.
    ///
    /// # Errors
    /// The socket is not usable.
    pub fn new(
        listener: std::net::TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        limit: ConnectionLimit,
    ) -> io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(READY);
        // Owned by the channel: it ends when the receiver is dropped.
        tokio::spawn(accept(listener, tls.map(TlsAcceptor::from), limit, sender));
        Ok(Self { ready, address })
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    limit: ConnectionLimit,
    sender: mpsc::Sender<(Connection, SocketAddr)>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: others may free some.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let permit = match limit.acquire(peer.ip()) {
            Ok(permit) => permit,
            Err(error) => {
                tracing::debug!(%peer, %error, "connection refused");
                continue;
            }
        };
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%peer, %error, "socket options");
        }
        let sender = sender.clone();
        match tls.clone() {
            None => {
                let connection = Connection {
                    stream: Stream::Plain(stream),
                    _permit: permit,
                };
                tokio::spawn(async move { sender.send((connection, peer)).await });
            }
            Some(tls) => {
                tokio::spawn(async move {
                    match timeout(HANDSHAKE_DEADLINE, tls.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            let connection = Connection {
                                stream: Stream::Tls(Box::new(stream)),
                                _permit: permit,
                            };
                            sender.send((connection, peer)).await.ok();
                        }
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake"),
                        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                    }
                });
            }
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    // A peer that vanished without a word is noticed even if nobody writes to it.
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(Duration::from_secs(30)))
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.ready.recv().await {
            Some(ready) => ready,
            // The accepting task only ends with the runtime.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

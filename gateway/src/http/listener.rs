//! Accepts TCP connections for HTTP: limits, TLS with a deadline, and sockets that queue little.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::net::{ConnectionLimit, Permit};

/// Connections that are ready and wait to be served.
const READY: usize = 64;
/// Bytes that the kernel takes before they can be sent: what waits beyond that waits with us, where it can be left out.
const NOTSENT_LOWAT: u32 = 16 * 1024;
/// What HTTP/2 clients say first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a client may leave undone what it has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// From there until a request begins; and from then, or from the answer before, until its head is complete.
    pub head: Duration,
    /// For an HTTP/2 connection without a request, and without an answer that the client still takes.
    pub idle: Duration,
    /// For taking anything at all of what is sent to it.
    pub write: Duration,
}

impl Default for Deadlines {
    /// A bad mobile network has an answer within 10 s; whoever is slower may ask again.
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            write: Duration::from_secs(30),
        }
    }
}

/// A connection, TLS or plain, that holds its place in the limits.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// Read to find out what the client speaks, and to be read again.
    read_ahead: Bytes,
    /// A write has to end within this …
    write_deadline: Duration,
    /// … which runs while one waits.
    stalled: Option<Pin<Box<Sleep>>>,
    written: Arc<AtomicU64>,
    _permit: Permit,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    fn new(stream: Stream, permit: Permit, deadlines: Deadlines) -> Self {
        Self {
            stream,
            read_ahead: Bytes::new(),
            write_deadline: deadlines.write,
            stalled: None,
            written: Arc::default(),
            _permit: permit,
        }
    }

    /// Whether the client begins as HTTP/2 does; returns once that is clear. Proxies do, over plain TCP: with TLS, HTTP/1.1
    /// is agreed upon, since WebSockets want a connection of their own, but who agrees on nothing may begin as it likes.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn speaks_http2(&mut self) -> io::Result<bool> {
        let mut seen = Vec::with_capacity(PREFACE.len());
        while seen.len() < PREFACE.len() && PREFACE.starts_with(&seen) {
            let mut chunk = [0; PREFACE.len()];
            let read = self.read(&mut chunk[seen.len()..]).await?;
            if read == 0 {
                break;
            }
            seen.extend_from_slice(&chunk[seen.len()..][..read]);
        }
        let http2 = seen == PREFACE;
        self.read_ahead = seen.into();
        Ok(http2)
    }

    /// Bytes that the client was sent so far, which whoever has this sees grow.
    pub fn written(&self) -> Arc<AtomicU64> {
        self.written.clone()
    }

    fn poll_stream_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_stream_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_stream_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// Ends what waits for a client that takes nothing.
    fn within_deadline<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        let deadline = self.write_deadline;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(deadline)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Client(pub SocketAddr);

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
        deadlines: Deadlines,
    ) -> io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(READY);
        // Owned by the channel: it ends when the receiver is dropped.
        tokio::spawn(accept(listener, tls.map(TlsAcceptor::from), limit, deadlines, sender));
        Ok(Self { ready, address })
    }

    /// The next connection that is ready to be served.
    pub async fn accept(&mut self) -> (Connection, Client) {
        match self.ready.recv().await {
            Some((connection, peer)) => (connection, Client(peer)),
            // The accepting task only ends with the runtime.
            None => std::future::pending().await,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    limit: ConnectionLimit,
    deadlines: Deadlines,
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
                let connection = Connection::new(Stream::Plain(stream), permit, deadlines);
                tokio::spawn(async move { sender.send((connection, peer)).await });
            }
            Some(tls) => {
                tokio::spawn(async move {
                    match timeout(deadlines.handshake, tls.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            let connection = Connection::new(Stream::Tls(Box::new(stream)), permit, deadlines);
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

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.read_ahead.is_empty() {
            let len = self.read_ahead.len().min(buf.remaining());
            buf.put_slice(&self.read_ahead[..len]);
            self.read_ahead.advance(len);
            return Poll::Ready(Ok(()));
        }
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = self.poll_stream_write(cx, buf);
        if let Poll::Ready(Ok(written)) = &poll {
            self.written.fetch_add(*written as u64, Ordering::Relaxed);
        }
        self.within_deadline(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = self.poll_stream_flush(cx);
        self.within_deadline(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS says goodbye behind all that waits.
        let poll = self.poll_stream_shutdown(cx);
        self.within_deadline(cx, poll)
    }
}

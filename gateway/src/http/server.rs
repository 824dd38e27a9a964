//! Serves HTTP on the connections that the listener accepted, with a deadline for whatever a client may leave undone.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::listener::{Client, Connection, Deadlines, Listener};

/// HTTP/2 connections are asked whether they are still there this often …
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// … and answer within this.
const PING_DEADLINE: Duration = Duration::from_secs(10);
/// Pings and the like of an idle connection are fewer bytes than this. A client that is sent more takes an answer slowly.
const IDLE_BYTES: u64 = 1024;

/// Serves until `stop` is true or its sender is gone, then lets the requests that have begun end. Connections that were
/// upgraded are somebody else's from then on.
pub async fn run(mut listener: Listener, router: Router, deadlines: Deadlines, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (connection, client) = listener.accept() => {
                while connections.try_join_next().is_some() {}
                connections.spawn(serve(connection, client, router.clone(), deadlines, stop.clone()));
            }
            () = stopping(&mut stop) => break,
        }
    }
    // Nobody new is let in from here on.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn stopping(stop: &mut watch::Receiver<bool>) {
    stop.wait_for(|stop| *stop).await.ok();
}

/// Serves one connection to its end.
async fn serve(
    mut connection: Connection,
    client: Client,
    router: Router,
    deadlines: Deadlines,
    mut stop: watch::Receiver<bool>,
) {
    let Client(peer) = client;
    let first = tokio::select! {
        first = timeout(deadlines.head, connection.speaks_http2()) => first,
        () = stopping(&mut stop) => return,
    };
    let http2 = match first {
        Ok(Ok(http2)) => http2,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "HTTP"),
        Err(_) => return tracing::debug!(%peer, "a connection without a request"),
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(deadlines.head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_DEADLINE);
    let builder = if http2 {
        builder.http2_only()
    } else {
        builder.http1_only()
    };
    let (open, mut requests) = watch::channel(0);
    let door = Door {
        router: TowerToHyperService::new(router),
        client,
        open,
    };
    let written = connection.written();
    let mut written_before = 0;
    let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(connection), door));
    let mut closing = false;
    loop {
        // HTTP/1.1 has the deadline of the next request's head.
        let idle = http2 && *requests.borrow_and_update() == 0;
        tokio::select! {
            done = serving.as_mut() => {
                if let Err(error) = done {
                    tracing::debug!(%peer, %error, "HTTP");
                }
                return;
            }
            () = stopping(&mut stop), if !closing => {
                serving.as_mut().graceful_shutdown();
                closing = true;
            }
            () = sleep(deadlines.idle), if idle => {
                let written = written.load(Ordering::Relaxed);
                let taken = written - std::mem::replace(&mut written_before, written);
                if taken > IDLE_BYTES {
                    continue;
                }
                if closing {
                    return;
                }
                serving.as_mut().graceful_shutdown();
                closing = true;
            }
            Ok(()) = requests.changed() => {}
        }
    }
}

/// The router, told who asks, and counting requests that have no answer yet.
struct Door {
    router: TowerToHyperService<Router>,
    client: Client,
    open: watch::Sender<usize>,
}

impl Service<Request<Incoming>> for Door {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(ConnectInfo(self.client));
        let open = Open::new(self.open.clone());
        let answer = self.router.call(request);
        async move {
            let answer = answer.await;
            drop(open);
            answer
        }
        .boxed()
    }
}

/// A request that has no answer yet.
struct Open(watch::Sender<usize>);

impl Open {
    fn new(open: watch::Sender<usize>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use axum::body::{Body, Bytes};
    use axum::routing::get;
    use rustls::pki_types::{CertificateDer, ServerName};
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    use super::*;
    use crate::net::ConnectionLimit;

    const PATIENCE: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(600);
    /// Nothing ends by itself but what a test makes short.
    const NONE: Deadlines = Deadlines {
        handshake: LONG,
        head: LONG,
        idle: LONG,
        write: LONG,
    };

    struct Server {
        address: SocketAddr,
        limit: ConnectionLimit,
        stop: watch::Sender<bool>,
        task: JoinHandle<()>,
        tls: Option<Arc<rustls::ServerConfig>>,
        certificate: Option<CertificateDer<'static>>,
    }

    impl Server {
        fn start(deadlines: Deadlines, tls: bool) -> Self {
            let (tls, certificate) = if tls {
                let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
                let config = rustls::ServerConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_no_client_auth()
                    .with_single_cert(vec![key.cert.der().clone()], private)
                    .unwrap();
                (Some(Arc::new(config)), Some(key.cert.der().clone()))
            } else {
                (None, None)
            };
            let socket = crate::net::tcp_listener(([127, 0, 0, 1], 0).into()).unwrap();
            let limit = ConnectionLimit::new(100, 100);
            let listener = Listener::new(socket, tls.clone(), limit.clone(), deadlines).unwrap();
            let address = listener.address();
            let chunks = || futures_util::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[7; 65_536])));
            let slow = || {
                futures_util::stream::unfold(0, |count| async move {
                    sleep(SHORT / 4).await;
                    let chunk = if count < 20 { vec![7; 2_048] } else { b"done\n".to_vec() };
                    (count <= 20).then(|| (Ok::<_, Infallible>(chunk), count + 1))
                })
            };
            let router = Router::new()
                .route("/health", get(|| async { "ok\n" }))
                .route("/slow", get(move || async move { Body::from_stream(slow()) }))
                .route("/endless", get(move || async move { Body::from_stream(chunks()) }));
            let (stop, stopped) = watch::channel(false);
            let task = tokio::spawn(run(listener, router, deadlines, stopped));
            Self {
                address,
                limit,
                stop,
                task,
                tls,
                certificate,
            }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        /// Over TLS, without agreeing on a protocol to speak in it.
        async fn connect_tls(&self) -> TlsStream<TcpStream> {
            self.connect_tls_to(self.address).await
        }

        /// To another listener with the same certificate.
        async fn connect_tls_to(&self, address: SocketAddr) -> TlsStream<TcpStream> {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.certificate.clone().unwrap()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let name = ServerName::try_from("localhost").unwrap();
            let connector = TlsConnector::from(Arc::new(config));
            let stream = TcpStream::connect(address).await.unwrap();
            connector.connect(name, stream).await.unwrap()
        }

        /// All places are free again.
        async fn emptied(&self) {
            let empty = async {
                while self.limit.in_use() > 0 {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(PATIENCE, empty).await.expect("a connection kept its place");
        }
    }

    /// Reads until the text is there.
    async fn read_until(stream: &mut (impl AsyncRead + Unpin), wanted: &[u8]) {
        let mut seen = Vec::new();
        let reading = async {
            while !seen.windows(wanted.len()).any(|part| part == wanted) {
                assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "closed");
            }
        };
        timeout(PATIENCE, reading).await.unwrap();
    }

    /// Waits for the end of the connection, however it comes.
    async fn ended(stream: &mut (impl AsyncRead + Unpin)) {
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .expect("still open")
            .ok();
    }

    async fn loses_its_place(server: &Server, mut stream: impl AsyncRead + AsyncWrite + Unpin, said: &str) {
        stream.write_all(said.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        ended(&mut stream).await;
        server.emptied().await;
    }

    #[tokio::test]
    async fn clients_that_do_not_get_to_a_request_lose_their_place() {
        let deadlines = Deadlines { head: SHORT, ..NONE };
        let (plain, tls) = (Server::start(deadlines, false), Server::start(deadlines, true));
        for said in ["", "P", "PRI * HT", "GET /health HTTP/1.1\r\nHost: a\r\nX-Slow: "] {
            loses_its_place(&plain, plain.connect().await, said).await;
            loses_its_place(&tls, tls.connect_tls().await, said).await;
        }
    }

    #[tokio::test]
    async fn connection_that_is_kept_open_for_nothing_is_closed() {
        let server = Server::start(Deadlines { head: SHORT, ..NONE }, false);
        let mut stream = server.connect().await;
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        read_until(&mut stream, b"ok\n").await;
        ended(&mut stream).await;
        server.emptied().await;
    }

    #[tokio::test]
    async fn client_that_does_not_shake_hands_loses_its_place() {
        let server = Server::start(
            Deadlines {
                handshake: SHORT,
                ..NONE
            },
            true,
        );
        let mut stream = server.connect().await;
        ended(&mut stream).await;
        server.emptied().await;
    }

    #[tokio::test]
    async fn client_that_takes_nothing_loses_its_place() {
        let server = Server::start(Deadlines { write: SHORT, ..NONE }, false);
        let mut stream = server.connect().await;
        stream
            .write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        read_until(&mut stream, b"200 OK").await;
        server.emptied().await;
    }

    /// Asks for a page as HTTP/2 does.
    async fn ask_by_http2(stream: &mut (impl AsyncWrite + Unpin), path: &str) {
        // Preface and empty SETTINGS, acknowledgement of the server's; HEADERS of the GET in literal HPACK.
        let mut said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        said.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]);
        let mut block = vec![0x82, 0x86, 0x04, path.len() as u8];
        block.extend_from_slice(path.as_bytes());
        block.extend_from_slice(&[0x01, 1, b'a']);
        said.extend_from_slice(&[0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1]);
        said.extend_from_slice(&block);
        stream.write_all(&said).await.unwrap();
        stream.flush().await.unwrap();
    }

    #[tokio::test]
    async fn client_that_takes_no_goodbye_loses_its_place() {
        let server = Server::start(NONE, true);
        let socket = crate::net::tcp_listener(([127, 0, 0, 1], 0).into()).unwrap();
        let deadlines = Deadlines { write: SHORT, ..NONE };
        let mut listener = Listener::new(socket, server.tls.clone(), server.limit.clone(), deadlines).unwrap();
        let (_silent, (mut connection, _)) = tokio::join!(server.connect_tls_to(listener.address()), listener.accept());
        // As much as the network takes, and a little that stays with us.
        while connection.write_all(&[7; 65_536]).await.is_ok() {}
        let goodbye = timeout(PATIENCE, connection.shutdown()).await;
        let error = goodbye.expect("waits for ever").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn client_may_speak_http_2_and_is_let_go_when_idle() {
        let deadlines = Deadlines { idle: SHORT, ..NONE };
        let (plain, tls) = (Server::start(deadlines, false), Server::start(deadlines, true));
        let mut stream = plain.connect().await;
        ask_by_http2(&mut stream, "/health").await;
        read_until(&mut stream, b"ok\n").await;
        plain.emptied().await;
        let mut stream = tls.connect_tls().await;
        ask_by_http2(&mut stream, "/health").await;
        read_until(&mut stream, b"ok\n").await;
        tls.emptied().await;
    }

    #[tokio::test]
    async fn answer_that_takes_long_over_http_2_is_not_cut() {
        let server = Server::start(Deadlines { idle: SHORT, ..NONE }, false);
        let mut stream = server.connect().await;
        ask_by_http2(&mut stream, "/slow").await;
        read_until(&mut stream, b"done\n").await;
        server.emptied().await;
    }

    #[tokio::test]
    async fn answer_that_is_not_taken_over_http_2_is_cut() {
        // The client never says that it has room for more than the first 65,535 bytes.
        let server = Server::start(Deadlines { idle: SHORT, ..NONE }, false);
        let mut stream = server.connect().await;
        ask_by_http2(&mut stream, "/endless").await;
        ended(&mut stream).await;
        server.emptied().await;
    }

    #[tokio::test]
    async fn stopping_server_ends_idle_connections_and_itself() {
        let server = Server::start(NONE, false);
        let mut silent = server.connect().await;
        let mut idle = server.connect().await;
        idle.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        read_until(&mut idle, b"ok\n").await;
        server.stop.send_replace(true);
        ended(&mut silent).await;
        ended(&mut idle).await;
        timeout(PATIENCE, server.task).await.unwrap().unwrap();
    }
}

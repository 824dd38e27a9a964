//! The ways to members: a socket that can swallow everything, and media that is lost or late on purpose.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Faults of the paths from the relay to members, the same ones for the same seed and the same order of packets.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Share of datagrams that are lost, 0.0–1.0.
    pub loss: f64,
    /// Share of datagrams that come 20 to 100 ms late.
    pub reordering: f64,
    /// Of the random numbers.
    pub seed: u64,
}

/// What becomes of a datagram.
pub enum Fate {
    Sent,
    Lost,
    HeldBack(Duration),
}

/// The dice of a [`Link`].
pub struct Dice {
    link: Link,
    rng: StdRng,
}

impl Dice {
    /// `sender` makes a sequence of its own.
    pub fn new(link: &Link, sender: u64) -> Self {
        Self {
            link: link.clone(),
            rng: StdRng::seed_from_u64(link.seed ^ sender.rotate_left(32)),
        }
    }

    pub fn throw(&mut self) -> Fate {
        let chance = self.rng.random::<f64>();
        if chance < self.link.loss {
            Fate::Lost
        } else if chance < self.link.loss + self.link.reordering {
            Fate::HeldBack(Duration::from_millis(self.rng.random_range(20..100)))
        } else {
            Fate::Sent
        }
    }
}

/// Where everything goes that comes or leaves while it is open.
#[derive(Debug, Default)]
pub struct Blackhole {
    pub open: AtomicBool,
    /// UDP datagrams that came and were not taken.
    pub swallowed: AtomicU64,
}

/// A UDP socket with a [`Blackhole`] in it.
#[derive(Debug)]
pub struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    blackhole: Arc<Blackhole>,
}

impl Socket {
    pub fn new(socket: std::net::UdpSocket, blackhole: Arc<Blackhole>) -> io::Result<Arc<Self>> {
        socket.set_nonblocking(true)?;
        let inner = TokioRuntime.wrap_udp_socket(socket)?;
        Ok(Arc::new(Self { inner, blackhole }))
    }

    fn swallows(&self) -> bool {
        self.blackhole.open.load(Ordering::SeqCst)
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        if self.swallows() {
            Ok(())
        } else {
            self.inner.try_send(transmit)
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let received = ready!(self.inner.poll_recv(cx, bufs, meta))?;
            if !self.swallows() {
                return Poll::Ready(Ok(received));
            }
            let datagrams = meta[..received]
                .iter()
                .map(|meta| meta.len.div_ceil(meta.stride.max(1)));
            let swallowed = datagrams.sum::<usize>() as u64;
            self.blackhole.swallowed.fetch_add(swallowed, Ordering::SeqCst);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

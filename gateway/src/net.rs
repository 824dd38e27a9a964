//! Sockets as all doors want them, and how many connections they may have.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Wanted for each direction of a UDP socket, bytes: 0.3 s at 100 Mbit/s.
const UDP_BUFFER: usize = 4 << 20;

/// A listening TCP socket, dual-stack for `[::]`; on a machine without IPv6, `[::]` means `0.0.0.0`.
///
/// # Errors
/// The address is taken or not ours.
pub fn tcp_listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = bind(address, Type::STREAM, Protocol::TCP)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A bound UDP socket, dual-stack like [`tcp_listener`].
///
/// # Errors
/// The address is taken or not ours.
pub fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    Ok(bind(address, Type::DGRAM, Protocol::UDP)?.into())
}

/// Room for bursts while the reader waits for its turn. The system's own limit decides; less than asked is no error.
fn widen(socket: &Socket) {
    for result in [
        socket.set_recv_buffer_size(UDP_BUFFER),
        socket.set_send_buffer_size(UDP_BUFFER),
    ] {
        if let Err(error) = result {
            tracing::debug!(%error, "the UDP socket keeps its buffers");
        }
    }
}

fn bind(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let open = |address: SocketAddr| -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
        if address.is_ipv6() && address.ip().is_unspecified() {
            socket.set_only_v6(false)?;
        }
        if kind == Type::STREAM {
            socket.set_reuse_address(true)?;
        }
        if kind == Type::DGRAM {
            widen(&socket);
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    match open(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != io::ErrorKind::AddrInUse => {
            open((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        other => other,
    }
}

/// Most addresses of this machine that others are told; container hosts have a bridge for each network.
const MAX_LOCAL: usize = 16;

/// The addresses under which others in the local network may reach this machine, the one of the default route first. No
/// packet is sent to find out.
pub fn local_addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "the addresses of the network interfaces cannot be read");
        Vec::new()
    });
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in default_routes()
        .into_iter()
        .chain(interfaces.iter().map(if_addrs::Interface::ip))
    {
        if is_reachable(ip) && !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    addresses.truncate(MAX_LOCAL);
    addresses
}

/// Whether others can write this address into a browser: those of one link only need a zone, which URLs do not have.
fn is_reachable(ip: IpAddr) -> bool {
    let of_link = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !ip.is_loopback() && !ip.is_unspecified() && !of_link
}

/// The addresses from which this machine speaks to the world.
fn default_routes() -> Vec<IpAddr> {
    let probe = |from: SocketAddr, to: SocketAddr| -> io::Result<IpAddr> {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        Ok(socket.local_addr()?.ip())
    };
    // Documentation addresses (RFC 5737, RFC 3849): connecting a UDP socket only asks the routing table.
    let v4 = probe(
        (Ipv4Addr::UNSPECIFIED, 0).into(),
        (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
    );
    let v6 = probe(
        (Ipv6Addr::UNSPECIFIED, 0).into(),
        (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(),
    );
    [v4, v6].into_iter().flatten().collect()
}

/// Counts connections, in total and per address. Clones count together: all doors have the same one.
#[derive(Debug, Clone)]
pub struct ConnectionLimit {
    inner: Arc<Mutex<Counts>>,
    total: usize,
    per_ip: usize,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    /// By [`subscriber`].
    by_ip: HashMap<IpAddr, usize>,
}

/// One connection's place; dropping it frees the place.
#[derive(Debug)]
pub struct Permit {
    limit: ConnectionLimit,
    ip: IpAddr,
}

/// Which limit a connection met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitReached {
    /// The gateway's.
    #[error("the gateway has as many connections as it may")]
    Total,
    /// The address's.
    #[error("this address has as many connections as it may")]
    PerIp,
}

impl ConnectionLimit {
    /// At most `total` at once, and `per_ip` from one IPv4 address or IPv6 /64 network.
    pub fn new(total: usize, per_ip: usize) -> Self {
        Self {
            inner: Arc::default(),
            total,
            per_ip,
        }
    }

    /// A place for a connection from `ip`.
    ///
    /// # Errors
    /// A limit is reached.
    pub fn acquire(&self, ip: IpAddr) -> Result<Permit, LimitReached> {
        let ip = subscriber(ip);
        let mut counts = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.total >= self.total {
            return Err(LimitReached::Total);
        }
        let of_ip = counts.by_ip.entry(ip).or_default();
        if *of_ip >= self.per_ip {
            return Err(LimitReached::PerIp);
        }
        *of_ip += 1;
        counts.total += 1;
        Ok(Permit {
            limit: self.clone(),
            ip,
        })
    }

    /// Connections now.
    pub fn in_use(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

/// One subscriber has one IPv4 address or one IPv6 /64 network.
fn subscriber(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let prefix = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
        v4 => v4,
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.limit.inner.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total -= 1;
        if let Some(of_ip) = counts.by_ip.get_mut(&self.ip) {
            *of_ip -= 1;
            if *of_ip == 0 {
                counts.by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_per_address_and_in_total_and_places_come_back() {
        let limit = ConnectionLimit::new(3, 2);
        let (a, b) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let first = limit.acquire(a).unwrap();
        let _second = limit.acquire("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(limit.acquire(a).err(), Some(LimitReached::PerIp));
        let _third = limit.acquire(b).unwrap();
        assert_eq!(limit.acquire(b).err(), Some(LimitReached::Total));
        drop(first);
        assert!(limit.acquire(a).is_ok());
        assert_eq!(limit.in_use(), 2);
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let limit = ConnectionLimit::new(10, 2);
        let _first = limit.acquire("2001:db8::1".parse().unwrap()).unwrap();
        let _second = limit.acquire("2001:db8::ffff:2".parse().unwrap()).unwrap();
        assert_eq!(
            limit.acquire("2001:db8::3".parse().unwrap()).err(),
            Some(LimitReached::PerIp)
        );
        assert!(limit.acquire("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }

    #[test]
    fn addresses_for_others_are_of_this_machine_and_of_no_use_to_it_alone() {
        let addresses = local_addresses();
        assert!(addresses.iter().all(|ip| is_reachable(*ip)), "{addresses:?}");
        for ip in &addresses {
            UdpSocket::bind((*ip, 0)).unwrap_or_else(|error| panic!("{ip} is not ours: {error}"));
        }
        let ours = if_addrs::get_if_addrs().unwrap();
        let wanted = ours.iter().map(if_addrs::Interface::ip).filter(|ip| is_reachable(*ip));
        assert!(
            wanted
                .take(MAX_LOCAL)
                .all(|ip| addresses.contains(&ip) || addresses.len() == MAX_LOCAL),
            "{addresses:?} of {ours:?}"
        );
        for text in ["127.0.0.1", "169.254.7.7", "::1", "fe80::1", "::", "0.0.0.0"] {
            assert!(!is_reachable(text.parse().unwrap()), "{text}");
        }
    }
}

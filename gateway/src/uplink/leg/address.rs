//! Which of a relay's addresses is dialled: a host with several may be reachable by one of them only.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::ConnectionError;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::native::client::{self, ConnectError};

/// The address that worked last, for all connections to one relay.
#[derive(Debug, Clone, Default)]
pub(super) struct Address(Arc<Mutex<Option<SocketAddr>>>);

impl Address {
    /// The one of these that worked last, else one after the other.
    pub(super) fn choose(&self, addresses: &[SocketAddr], attempt: usize) -> Option<SocketAddr> {
        let worked = self.known().filter(|known| addresses.contains(known));
        worked.or_else(|| addresses.get(attempt % addresses.len().max(1)).copied())
    }

    /// This one works.
    pub(super) fn works(&self, address: SocketAddr) {
        *self.known() = Some(address);
    }

    /// This one does not work, or not any more.
    pub(super) fn fails(&self, address: SocketAddr) {
        self.known().take_if(|known| *known == address);
    }

    fn known(&self) -> MutexGuard<'_, Option<SocketAddr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first of these at which there is a relay, as apps find out, too: by a connection to no room. One that is closed by the other
/// side is an answer as well.
pub(super) async fn answering(addresses: &[SocketAddr], deadline: Duration) -> Option<SocketAddr> {
    let mut looking = JoinSet::new();
    for address in addresses.iter().copied() {
        looking.spawn(async move {
            let answers = match client::dial(address, "ping").await {
                Ok(_) => true,
                Err(ConnectError::Closed(error)) => matches!(
                    error,
                    ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_)
                ),
                Err(_) => false,
            };
            answers.then_some(address)
        });
    }
    let first = async {
        while let Some(looked) = looking.join_next().await {
            if let Ok(Some(address)) = looked {
                return Some(address);
            }
        }
        None
    };
    timeout(deadline, first).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use quinn::Endpoint;
    use tokio::sync::watch;
    use tokio_util::task::AbortOnDropHandle;
    use wzp_proto::identity::Identity;

    use super::*;
    use crate::native::{Config, Server, transport};
    use crate::room::registry::{Registry, RoomLimits};

    /// Long enough for a loaded machine.
    const DEADLINE: Duration = Duration::from_secs(10);

    /// Somebody has this port, and says nothing.
    fn silent() -> (UdpSocket, SocketAddr) {
        // IPv6, as lists of addresses often begin, if there is any.
        let socket = UdpSocket::bind("[::1]:0")
            .or_else(|_| UdpSocket::bind("127.0.0.1:0"))
            .unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn relay() -> Server {
        let rooms = Registry::new(RoomLimits { rooms: 1, members: 1 });
        let identity = Arc::new(Identity::from_seed(&[1; 32]));
        Server::bind(Config::new(([127, 0, 0, 1], 0).into()), rooms, identity).unwrap()
    }

    #[tokio::test]
    async fn relay_answers_at_any_of_its_addresses() {
        let server = relay();
        let open = server.local_addr().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let _running = AbortOnDropHandle::new(tokio::spawn(server.run(stopped)));
        let (_socket, dead) = silent();
        assert_eq!(answering(&[dead, open], DEADLINE).await, Some(open));
        assert_eq!(answering(&[dead], Duration::from_millis(300)).await, None);
        assert_eq!(answering(&[], DEADLINE).await, None);
    }

    #[tokio::test]
    async fn relay_that_closes_at_once_answers_beside_an_address_that_is_silent() {
        let server = transport::server_config(&Identity::from_seed(&[2; 32]), transport::IDLE).unwrap();
        let endpoint = Endpoint::server(server, ([127, 0, 0, 1], 0).into()).unwrap();
        let closes = endpoint.local_addr().unwrap();
        let _closing = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                incoming.refuse();
            }
        }));
        let (_socket, dead) = silent();
        assert_eq!(answering(&[dead, closes], DEADLINE).await, Some(closes));
    }

    #[test]
    fn address_that_worked_is_dialled_until_it_fails() {
        let [one, two] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let address = Address::default();
        let tried: Vec<_> = (0..4).map(|attempt| address.choose(&[one, two], attempt)).collect();
        assert_eq!(tried, [Some(one), Some(two), Some(one), Some(two)]);
        address.works(two);
        assert!((0..4).all(|attempt| address.choose(&[one, two], attempt) == Some(two)));
        assert_eq!(address.choose(&[one], 1), Some(one), "the host has another address now");
        address.fails(one);
        assert_eq!(address.choose(&[one, two], 0), Some(two));
        address.fails(two);
        assert_eq!(address.choose(&[one, two], 0), Some(one));
        assert_eq!(address.choose(&[], 3), None);
    }
}

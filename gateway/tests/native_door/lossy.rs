//! A path that loses packets: UDP in both directions, seeded.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// Largest UDP payload.
const MTU: usize = 2048;

/// Which packets are lost, per thousand; can be changed while packets flow.
#[derive(Debug, Default)]
pub struct Loss {
    pub up: AtomicU32,
    pub down: AtomicU32,
    pub lost: AtomicU64,
    random: AtomicU64,
}

impl Loss {
    fn hits(&self, permille: &AtomicU32) -> bool {
        // SplitMix64: every call takes the next number of one sequence.
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let hit = (z ^ (z >> 31)) % 1000 < permille.load(Ordering::Relaxed).into();
        self.lost.fetch_add(hit.into(), Ordering::Relaxed);
        hit
    }
}

/// A way to `server` that loses packets; runs until dropped.
pub struct LossyPath {
    pub address: SocketAddr,
    pub loss: Arc<Loss>,
    _task: JoinSet<()>,
}

impl LossyPath {
    pub async fn to(server: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let (address, loss) = (front.local_addr().unwrap(), Arc::<Loss>::default());
        let mut task = JoinSet::new();
        task.spawn(forward(front, server, loss.clone()));
        Self {
            address,
            loss,
            _task: task,
        }
    }
}

async fn forward(front: Arc<UdpSocket>, server: SocketAddr, loss: Arc<Loss>) {
    let mut backs: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut answers = JoinSet::new();
    let mut packet = [0; MTU];
    while let Ok((len, client)) = front.recv_from(&mut packet).await {
        let back = match backs.entry(client) {
            Entry::Occupied(back) => back.into_mut(),
            Entry::Vacant(place) => {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                back.connect(server).await.unwrap();
                answers.spawn(answer(back.clone(), front.clone(), client, loss.clone()));
                place.insert(back)
            }
        };
        if !loss.hits(&loss.up) {
            back.send(&packet[..len]).await.ok();
        }
    }
}

async fn answer(back: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr, loss: Arc<Loss>) {
    let mut packet = [0; MTU];
    while let Ok(len) = back.recv(&mut packet).await {
        if !loss.hits(&loss.down) {
            front.send_to(&packet[..len], client).await.ok();
        }
    }
}

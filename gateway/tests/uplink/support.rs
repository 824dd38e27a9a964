//! Relays to dial, gateways that dial them, and members who talk.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{self, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use wzp_gateway::config::uplink::UplinkRule;
use wzp_gateway::native::client::{Client, Event};
use wzp_gateway::native::counters::Counters;
use wzp_gateway::native::{self, Server};
use wzp_gateway::room::registry::{Registry, RoomLimits};
use wzp_gateway::room::snapshot::Snapshot;
use wzp_gateway::room::uplink::UplinkState;
use wzp_gateway::uplink;
use wzp_proto::codec::Codec;
use wzp_proto::header::{Flags, MediaHeader, MediaType};
use wzp_proto::identity::Identity;
use wzp_proto::packet::MediaPacket;
use wzp_proto::room_name::RoomName;
use wzp_proto::signal::{RoomParticipant, Signal};
use wzp_proto::video::{FrameSize, fragment_header, fragments};

use crate::member::access_unit;
use crate::tone::{Tone, amplitude};

/// Long enough for a loaded machine, short enough to fail.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// A relay that comes back in the middle of a call has media again within this, …
pub const BACK: Duration = Duration::from_secs(3);
/// … and a machine that is busy with other tests takes this much longer.
pub const BUSY: Duration = Duration::from_millis(1_500);

/// A gateway's native door and its rooms; with rules, also its uplinks. Ends when dropped.
pub struct Gateway {
    pub address: SocketAddr,
    pub registry: Registry,
    pub counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Gateway {
    pub fn open() -> Self {
        Self::open_at(([127, 0, 0, 1], 0).into(), |_| {})
    }

    pub fn open_at(address: SocketAddr, change: impl FnOnce(&mut native::Config)) -> Self {
        let registry = Registry::new(RoomLimits {
            rooms: 100,
            members: 50,
        });
        let mut config = native::Config::new(address);
        change(&mut config);
        let server = Server::bind(config, registry.clone(), Arc::new(Identity::from_seed(&rand::random()))).unwrap();
        let (stop, stopped) = watch::channel(false);
        Self {
            address: server.local_addr().unwrap(),
            registry,
            counters: server.counters(),
            stop,
            tasks: vec![tokio::spawn(server.run(stopped))],
        }
    }

    /// A gateway whose rooms are joined on this relay.
    pub fn behind(relay: SocketAddr) -> Self {
        Self::open().with_uplink(rules(relay), |_| {})
    }

    pub fn with_uplink(mut self, rules: Vec<UplinkRule>, change: impl FnOnce(&mut uplink::Config)) -> Self {
        let mut config = uplink::Config::new(rules);
        change(&mut config);
        let running = uplink::run(config, self.registry.clone(), self.stop.subscribe());
        self.tasks.push(tokio::spawn(running));
        self
    }

    pub async fn join(&self, room: &str, alias: &str) -> Member {
        Member::join(self.address, room, alias).await
    }

    /// Waits until the room is as `is` wants it.
    pub async fn wait_room(&self, room: &str, what: &str, is: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let key = RoomName::parse(room).unwrap().key();
        let mut last = None;
        let waiting = async {
            loop {
                if let Some(room) = self.registry.get(key) {
                    let snapshot = room.snapshot();
                    if is(&snapshot) {
                        return snapshot;
                    }
                    last = Some(snapshot);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match timeout(DEADLINE, waiting).await {
            Ok(snapshot) => snapshot,
            Err(_) => panic!(
                "the room did not become: {what}; last: {:?}",
                last.as_deref().map(names),
            ),
        }
    }

    /// Waits until the room's uplink stands so.
    pub async fn wait_state(&self, room: &str, state: UplinkState) -> String {
        let is = |snapshot: &Snapshot| snapshot.uplink.as_ref().is_some_and(|uplink| uplink.state == state);
        let snapshot = self.wait_room(room, state.name(), is).await;
        snapshot.uplink.as_ref().unwrap().message.clone()
    }
}

/// A gateway that can end as a crash does: nobody is told.
pub struct Mortal {
    pub gateway: Gateway,
    runtime: Runtime,
}

impl Mortal {
    /// At this address, as soon as it is free.
    pub async fn open_at(address: SocketAddr) -> Self {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let free = async {
            while std::net::UdpSocket::bind(address).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, free).await.expect("the address is in use");
        let gateway = {
            let _inside = runtime.enter();
            Gateway::open_at(address, |_| {})
        };
        Self { gateway, runtime }
    }

    pub fn crash(self) {
        self.runtime.shutdown_background();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Waits for what nothing tells of.
pub async fn until(what: &str, is: impl Fn() -> bool) {
    let waiting = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, waiting)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come to be"));
}

pub fn rules(relay: SocketAddr) -> Vec<UplinkRule> {
    vec![UplinkRule::for_all(relay.to_string()).checked().unwrap()]
}

pub fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.members.iter().map(|member| member.name.as_str()).collect()
}

/// Some who talk to one another, until it is enough for all of them.
pub struct Together(AtomicUsize);

impl Together {
    pub fn of(members: usize) -> Self {
        Self(AtomicUsize::new(members))
    }

    pub fn one_is_content(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// What a member saw and heard for a while.
#[derive(Debug, Default)]
pub struct Heard {
    /// When the first sound came.
    pub first: Option<Instant>,
    pub sound: Vec<MediaPacket>,
    pub pictures: Vec<MediaPacket>,
    pub asked: usize,
    /// Aliases of the newest list.
    pub list: Vec<String>,
}

impl Heard {
    /// How much of a tone is in what was heard, decoded as apps do.
    pub fn tone(&self, hz: f64) -> f64 {
        let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).unwrap();
        let mut parts = Vec::new();
        for packet in &self.sound {
            let mut pcm = [0.0; 1_920];
            let samples = decoder.decode_float(&packet.payload, &mut pcm, false).unwrap();
            parts.push(amplitude(&pcm[..samples], hz));
        }
        parts.sort_by(f64::total_cmp);
        parts.get(parts.len() / 2).copied().unwrap_or(0.0)
    }
}

pub struct Member {
    pub client: Client,
    tone: Tone,
    sound_seq: u32,
    video_seq: u32,
    timestamp: u32,
}

impl Member {
    pub async fn join(relay: SocketAddr, room: &str, alias: &str) -> Self {
        Self::join_with_token(relay, room, alias, None).await
    }

    pub async fn join_with_token(relay: SocketAddr, room: &str, alias: &str, token: Option<&str>) -> Self {
        Self::join_as(relay, room, alias, rand::random(), token).await
    }

    /// With an identity that may have joined before.
    pub async fn join_as(relay: SocketAddr, room: &str, alias: &str, seed: [u8; 32], token: Option<&str>) -> Self {
        let joining = crate::member::Member::join(relay, room, alias, seed, token);
        Self {
            client: joining.await.unwrap().client,
            tone: Tone::new(0.0),
            sound_seq: 0,
            video_seq: 0,
            timestamp: 0,
        }
    }

    pub async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let waiting = async {
            loop {
                match self.client.next().await {
                    Event::Closed(error) => panic!("closed: {error}"),
                    event => {
                        if let Some(picked) = pick(event) {
                            return picked;
                        }
                    }
                }
            }
        };
        timeout(DEADLINE, waiting)
            .await
            .unwrap_or_else(|_| panic!("{what} did not come"))
    }

    /// Waits for a member list of these names, in any order.
    pub async fn wait_list(&mut self, names: &[&str]) -> Vec<RoomParticipant> {
        let mut wanted = names.to_vec();
        wanted.sort_unstable();
        self.wait(&format!("the list {names:?}"), |event| match event {
            Event::Signal(Signal::RoomUpdate { participants, .. }) => {
                let mut aliases: Vec<_> = participants.iter().filter_map(|who| who.alias.as_deref()).collect();
                aliases.sort_unstable();
                (aliases == wanted).then_some(participants)
            }
            _ => None,
        })
        .await
    }

    /// Talks in this tone, shows a picture 10 times a second if `shows`, and takes what comes, until it is `enough` for
    /// all who are together.
    pub async fn live(
        &mut self,
        together: &Together,
        hz: f64,
        shows: bool,
        what: &str,
        mut enough: impl FnMut(&Heard) -> bool,
    ) -> Heard {
        let mut ticks = interval(Duration::from_millis(20));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut heard = Heard::default();
        let mut keyframe = true;
        let living = async {
            let mut content = false;
            while !together.is_over() {
                if !content && enough(&heard) {
                    content = true;
                    together.one_is_content();
                }
                tokio::select! {
                    _ = ticks.tick() => {
                        self.talk(hz);
                        if shows && self.sound_seq.is_multiple_of(5) {
                            self.show(std::mem::take(&mut keyframe) || self.sound_seq.is_multiple_of(500));
                        }
                    }
                    event = self.client.next() => match event {
                        Event::Packet(packet) if packet.header.media_type == MediaType::Audio => {
                            heard.first.get_or_insert_with(Instant::now);
                            heard.sound.push(packet);
                        }
                        Event::Packet(packet) => heard.pictures.push(packet),
                        Event::Signal(Signal::PictureLossIndication { .. }) => {
                            heard.asked += 1;
                            keyframe = true;
                        }
                        Event::Signal(Signal::RoomUpdate { participants, .. }) => {
                            heard.list = participants.into_iter().filter_map(|who| who.alias).collect();
                        }
                        Event::Closed(error) => panic!("closed: {error}"),
                        _ => {}
                    },
                }
            }
        };
        if timeout(DEADLINE, living).await.is_err() {
            let (sound, pictures) = (heard.sound.len(), heard.pictures.len());
            panic!("{what} did not come to be; {sound} packets of sound, {pictures} of pictures");
        }
        heard
    }

    pub fn talk(&mut self, hz: f64) {
        self.tone.hz = hz;
        let payload = self.tone.packet();
        let header = header(MediaType::Audio, self.sound_seq, self.timestamp);
        self.client.sender().try_packet(&header, &payload);
        self.sound_seq += 1;
        self.timestamp += 20;
    }

    fn show(&mut self, keyframe: bool) {
        let size = FrameSize {
            width: 640,
            height: 360,
        };
        let unit = access_unit(keyframe, if keyframe { 4_000 } else { 700 });
        let parts = fragments(&unit, Some(size), 1100).unwrap();
        let mut header = header(MediaType::Video, self.video_seq, self.timestamp);
        header.flags.set(Flags::KEYFRAME, keyframe);
        for (i, part) in parts.iter().enumerate() {
            let header = fragment_header(&header, i as u8, parts.len() as u8);
            self.client.sender().try_packet(&header, part);
        }
        self.video_seq += parts.len() as u32;
    }
}

pub fn sound_header(seq: u32, timestamp: u32) -> MediaHeader {
    header(MediaType::Audio, seq, timestamp)
}

fn header(media_type: MediaType, seq: u32, timestamp: u32) -> MediaHeader {
    MediaHeader {
        flags: Flags::empty(),
        media_type,
        codec: match media_type {
            MediaType::Video => Codec::H264Baseline,
            _ => Codec::Opus24k,
        },
        stream_id: 0,
        fec_ratio: 0,
        seq,
        timestamp,
        fec_block: 0,
    }
}

//! One connection at the relay, from its first message to its last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError, Endpoint, Incoming, SendDatagramError};
use tokio::time::{MissedTickBehavior, interval, sleep};
use wzp_gateway::native::signals;
use wzp_proto::handshake::{Answerer, HandshakeError};
use wzp_proto::packet::MediaPacket;
use wzp_proto::seal::Sealing;
use wzp_proto::signal::{HangupReason, MAX_SIGNAL_LEN, Signal, encode_signal};
use wzp_proto::trunk::{TrunkEntry, encode_trunk};

use super::net::{Dice, Fate};
use super::room::{Entry, Forwarding};
use super::{Event, Form, Journal, Refusal, Relay, Speaks};

/// The relay waits for messages without limit.
const FOR_EVER: Duration = Duration::from_secs(86_400);
/// Trunk frames go out this often, …
const TRUNK_FLUSH: Duration = Duration::from_millis(5);
/// … or when they have this many packets, …
const TRUNK_PACKETS: usize = 10;
/// … or would get longer than this.
const TRUNK_BYTES: usize = 1200;

pub async fn accept(endpoint: Endpoint, relay: Arc<Relay>) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(serve(incoming, relay.clone()));
    }
}

async fn serve(incoming: Incoming, relay: Arc<Relay>) {
    let Ok(connection) = incoming.await else { return };
    let data = connection.handshake_data().and_then(|data| data.downcast().ok());
    let server_name = data.and_then(|data: Box<HandshakeData>| data.server_name);
    match server_name.as_deref().unwrap_or("default") {
        "ping" | "_federation" | "_signal" | "_probe" => {}
        "version" => {
            tell_version(&connection).await;
        }
        room => {
            if let Err(refusal) = member(&connection, room, &relay).await {
                relay.journal.note(Event::Refused(refusal));
            }
        }
    }
    // The real one drops its handle, which is the same.
    connection.close(0u32.into(), b"");
}

async fn tell_version(connection: &Connection) -> Option<()> {
    let mut stream = connection.open_uni().await.ok()?;
    stream.write_all(b"0123456789abcdef").await.ok()?;
    stream.finish().ok()?;
    sleep(Duration::from_millis(100)).await;
    Some(())
}

async fn member(connection: &Connection, room: &str, relay: &Arc<Relay>) -> Result<(), Refusal> {
    let journal = &relay.journal;
    let mut first = next(connection).await.ok_or(Refusal::Offer)?;
    let mut account = None;
    if let Some(accounts) = &relay.options.accounts {
        let Signal::AuthToken { token, .. } = first else {
            return Err(Refusal::Token);
        };
        account = Some(accounts.get(&token).ok_or(Refusal::Token)?.clone());
        first = next(connection).await.ok_or(Refusal::Offer)?;
    }
    if relay.options.speaks != Speaks::Two {
        if relay.options.speaks == Speaks::One {
            let reason = HangupReason::ProtocolVersionMismatch {
                server_supported: vec![1],
            };
            let patience = Duration::from_secs(2);
            signals::deliver(connection, &Signal::hangup(reason), patience).await;
        }
        return Err(Refusal::Version);
    }
    if let Signal::CallOffer(offer) = &mut first {
        offer.protocol_version.get_or_insert(2);
    }
    let accepted = match Answerer::accept(&relay.identity, rand::random(), first) {
        Ok(accepted) => accepted,
        Err(refused) => {
            return Err(match refused.error {
                HandshakeError::Version { .. } => Refusal::Version,
                _ => Refusal::Offer,
            });
        }
    };
    if relay.options.answer_arrives {
        signals::deliver(connection, &accepted.answer, Duration::from_secs(2)).await;
    } else {
        send(journal, connection, &accepted.answer).await;
    }
    let sealed = relay.options.form == Form::Sealed;
    let entry = Entry {
        connection: connection.clone(),
        alias: accepted.alias,
        fingerprint: account.unwrap_or_else(|| accepted.fingerprint.to_string()),
        sealing: sealed.then(|| Arc::new(Sealing::new(&accepted.session))),
    };
    let joined = {
        let mut rooms = relay.rooms();
        if rooms.len() >= relay.options.sessions {
            return Err(Refusal::Full);
        }
        rooms.join(room, entry.clone())
    };
    for id in joined.evicted {
        journal.note(Event::Evicted { id });
    }
    journal.note(Event::Joined {
        id: joined.id,
        room: room.to_owned(),
        alias: entry.alias.clone(),
        fingerprint: entry.fingerprint.clone(),
    });
    // The member gets live packets already.
    for packet in &joined.replay {
        journal.count(|counters| counters.replayed += 1);
        send_datagram(journal, connection, in_form(packet, &entry));
    }
    announce(relay, room).await;
    let code = tokio::select! {
        code = media(connection, room, joined.id, relay) => code,
        code = take_signals(connection, room, joined.id, relay) => code,
    };
    let was_member = relay.rooms().leave(room, joined.id);
    journal.note(Event::Left { id: joined.id, code });
    if was_member {
        announce(relay, room).await;
    }
    Ok(())
}

/// Sends the list to everybody in it, one after the other: who takes no streams keeps the others waiting.
async fn announce(relay: &Relay, room: &str) {
    let (connections, list) = {
        let rooms = relay.rooms();
        (rooms.connections(room), rooms.list(room))
    };
    broadcast(&relay.journal, &connections, &list).await;
}

pub async fn broadcast(journal: &Arc<Journal>, connections: &[Connection], signal: &Signal) {
    for connection in connections {
        send(journal, connection, signal).await;
    }
}

/// Opens a stream, however long that takes, and writes the signal to it.
async fn send(journal: &Arc<Journal>, connection: &Connection, signal: &Signal) {
    let Ok((mut stream, mut other_half)) = connection.open_bi().await else {
        return;
    };
    journal.count(|counters| counters.streams_opened += 1);
    let finished = journal.clone();
    tokio::spawn(async move {
        // The member has to end its half, by finishing or by a reset.
        let ended = matches!(
            other_half.read(&mut [0; 64]).await,
            Ok(None) | Err(quinn::ReadError::Reset(_))
        );
        finished.count(|counters| counters.streams_finished += u64::from(ended));
    });
    if stream.write_all(&encode_signal(signal)).await.is_ok() {
        stream.finish().ok();
    }
}

/// The next signal of a handshake.
async fn next(connection: &Connection) -> Option<Signal> {
    let (_, mut stream) = connection.accept_bi().await.ok()?;
    signals::read(&mut stream, MAX_SIGNAL_LEN, FOR_EVER).await.ok()
}

/// Takes signals until one cannot be read, which is the end of the member.
async fn take_signals(connection: &Connection, room: &str, id: u64, relay: &Relay) -> Option<u64> {
    loop {
        let mut stream = match connection.accept_bi().await {
            Ok((_, stream)) => stream,
            Err(error) => return close_code(&error),
        };
        let Ok(signal) = signals::read(&mut stream, MAX_SIGNAL_LEN, FOR_EVER).await else {
            if let Some(error) = connection.close_reason() {
                return close_code(&error);
            }
            relay.journal.note(Event::BadSignal { id });
            return None;
        };
        relay.journal.note(Event::Signal {
            id,
            signal: signal.clone(),
        });
        // All others are ignored, pings too.
        if let Signal::PictureLossIndication { stream_id, .. } = signal {
            let others = relay.rooms().request(room, id, stream_id, Instant::now());
            relay.journal.count(|counters| match others {
                Some(_) => counters.requests_passed += 1,
                None => counters.requests_dropped += 1,
            });
            let others = others.unwrap_or_default();
            broadcast(&relay.journal, &others, &Signal::picture_loss(stream_id)).await;
        }
    }
}

/// Hands on what a member sends, until it is gone or evicted.
async fn media(connection: &Connection, room: &str, id: u64, relay: &Arc<Relay>) -> Option<u64> {
    let journal = &relay.journal;
    let mut dice = Dice::new(&relay.options.link, id);
    let mut trunks = (relay.options.form == Form::Trunks).then(|| Trunks::new(id));
    let mut flush = interval(TRUNK_FLUSH);
    flush.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let datagram = tokio::select! {
            datagram = connection.read_datagram() => datagram,
            _ = flush.tick(), if trunks.is_some() => {
                trunks.iter_mut().for_each(|trunks| trunks.flush(journal));
                continue;
            }
        };
        let datagram = match datagram {
            Ok(datagram) => datagram,
            Err(error) => return close_code(&error),
        };
        let Ok(packet) = MediaPacket::decode(datagram) else {
            journal.count(|counters| counters.malformed += 1);
            continue;
        };
        journal.count(|counters| counters.packets_in += 1);
        let Forwarding {
            to,
            packet: Some(packet),
            other_layer,
            directive,
        } = relay.rooms().forward(room, id, &packet)?
        else {
            continue;
        };
        journal.count(|counters| counters.other_layer += other_layer);
        if let Some(directive) = directive {
            let everybody = relay.rooms().connections(room);
            broadcast(journal, &everybody, &directive).await;
        }
        for (receiver, entry) in to {
            let datagram = in_form(&packet, &entry);
            match (dice.throw(), &mut trunks) {
                (Fate::Lost, _) => journal.count(|counters| counters.lost += 1),
                (Fate::HeldBack(delay), _) => {
                    journal.count(|counters| counters.held_back += 1);
                    let journal = journal.clone();
                    tokio::spawn(async move {
                        sleep(delay).await;
                        send_datagram(&journal, &entry.connection, datagram);
                    });
                }
                (Fate::Sent, Some(trunks)) => trunks.add(receiver, &entry.connection, datagram, journal),
                (Fate::Sent, None) => send_datagram(journal, &entry.connection, datagram),
            }
        }
    }
}

fn close_code(error: &ConnectionError) -> Option<u64> {
    match error {
        ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    }
}

fn in_form(packet: &MediaPacket, entry: &Entry) -> Bytes {
    let sealed = entry.sealing.as_ref().and_then(|sealing| sealing.seal(packet).ok());
    sealed.as_ref().unwrap_or(packet).encode()
}

fn send_datagram(journal: &Journal, connection: &Connection, datagram: Bytes) {
    let sent = connection.send_datagram(datagram);
    journal.count(|counters| match sent {
        Ok(()) => counters.datagrams_out += 1,
        Err(SendDatagramError::TooLarge) => counters.too_large += 1,
        Err(_) => {}
    });
}

/// Packets of one sender that wait to go out together, by receiver.
struct Trunks {
    session_id: [u8; 2],
    waiting: BTreeMap<u64, (Connection, Vec<TrunkEntry>)>,
}

impl Trunks {
    fn new(sender: u64) -> Self {
        let [first, second, ..] = sender.to_le_bytes();
        Self {
            session_id: [first, second],
            waiting: BTreeMap::new(),
        }
    }

    fn add(&mut self, receiver: u64, connection: &Connection, packet: Bytes, journal: &Journal) {
        let bound = connection.max_datagram_size().unwrap_or(TRUNK_BYTES);
        let is_full = |entries: &[TrunkEntry]| {
            let len = 2 + entries.iter().map(|entry| 4 + entry.packet.len()).sum::<usize>();
            len + 4 + packet.len() > bound || entries.len() >= TRUNK_PACKETS
        };
        if self.waiting.get(&receiver).is_some_and(|(_, entries)| is_full(entries)) {
            self.flush(journal);
        }
        let (_, entries) = self
            .waiting
            .entry(receiver)
            .or_insert_with(|| (connection.clone(), Vec::new()));
        entries.push(TrunkEntry {
            session_id: self.session_id,
            packet,
        });
    }

    fn flush(&mut self, journal: &Journal) {
        for (connection, entries) in std::mem::take(&mut self.waiting).into_values() {
            if let Ok(frame) = encode_trunk(&entries) {
                send_datagram(journal, &connection, frame);
            }
        }
    }
}

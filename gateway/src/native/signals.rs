//! Signals over QUIC: one bidirectional stream for each (WZP wire v2, section 1.5).

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use wzp_proto::signal::{FrameLengthError, Signal, SignalError, decode_frame_len, decode_signal, encode_signal};

use crate::native::counters::Counters;

/// A peer takes a signal within this, or it is counted as stalled and tried again with whatever is newest by then.
const SEND_DEADLINE: Duration = Duration::from_secs(10);
/// Signals without a place of their own that may wait.
const QUEUE: usize = 32;

/// Why no signal came from a stream.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It announces more than is read here.
    #[error("a signal of {len} bytes was announced; at most {max} are read here")]
    TooLong {
        /// Announced.
        len: usize,
        /// Bound.
        max: usize,
    },
    /// It announces more than the protocol allows.
    #[error(transparent)]
    Length(#[from] FrameLengthError),
    /// The stream ended early or broke.
    #[error("the signal's stream broke: {0}")]
    Stream(#[from] quinn::ReadExactError),
    /// The text is no signal.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// It did not come in time.
    #[error("the signal did not come within {0:?}")]
    Deadline(Duration),
}

/// Reads the one signal of a stream, of at most `max` bytes, within `deadline`.
///
/// # Errors
/// See [`ReadError`].
pub async fn read(stream: &mut RecvStream, max: usize, deadline: Duration) -> Result<Signal, ReadError> {
    let reading = async {
        let mut prefix = [0; 4];
        stream.read_exact(&mut prefix).await?;
        let len = decode_frame_len(prefix)?;
        if len > max {
            return Err(ReadError::TooLong { len, max });
        }
        // Grows with what really comes: an announcement alone costs nothing.
        let mut json = Vec::new();
        let mut chunk = [0; 4096];
        while json.len() < len {
            let part = &mut chunk[..(len - json.len()).min(4096)];
            stream.read_exact(part).await?;
            json.extend_from_slice(part);
        }
        Ok(decode_signal(&json)?)
    };
    timeout(deadline, reading)
        .await
        .unwrap_or(Err(ReadError::Deadline(deadline)))
}

/// Why a signal was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The connection is gone.
    #[error("the connection is gone: {0}")]
    Connection(#[from] quinn::ConnectionError),
    /// The peer refuses the stream.
    #[error("the peer does not take the signal: {0}")]
    Write(#[from] quinn::WriteError),
    /// It did not take it in time.
    #[error("the peer did not take the signal within {0:?}")]
    Deadline(Duration),
}

/// Sends a signal on a stream of its own; done when the stream has it.
///
/// # Errors
/// See [`SendError`].
pub async fn send(connection: &Connection, signal: &Signal, deadline: Duration) -> Result<SendStream, SendError> {
    let sending = async {
        // The receiving half is dropped at once, which tells the peer that no reply is read here.
        let (mut stream, _) = connection.open_bi().await?;
        stream.write_all(&encode_signal(signal)).await?;
        stream.finish().ok();
        Ok(stream)
    };
    timeout(deadline, sending)
        .await
        .unwrap_or(Err(SendError::Deadline(deadline)))
}

/// Sends a signal and waits until the peer has acknowledged all of it, `deadline` at most, so that a close after it does
/// not overtake it.
pub async fn deliver(connection: &Connection, signal: &Signal, deadline: Duration) {
    let delivering = async {
        if let Ok(stream) = send(connection, signal, deadline).await {
            stream.stopped().await.ok();
        }
    };
    timeout(deadline, delivering).await.ok();
}

/// What waits to be sent to one peer. A member list replaces the one before it and a keyframe request the same one, so
/// that a peer that takes nothing costs next to nothing.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    room_update: Option<Signal>,
    picture_loss: BTreeSet<u8>,
    others: VecDeque<Signal>,
}

impl Outbox {
    /// Puts a signal in its place. False if it was given up because too many wait.
    pub fn push(&self, signal: Signal) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match signal {
            update @ Signal::RoomUpdate { .. } => waiting.room_update = Some(update),
            Signal::PictureLossIndication { stream_id, .. } => {
                waiting.picture_loss.insert(stream_id);
            }
            _ if waiting.others.len() >= QUEUE => return false,
            other => waiting.others.push_back(other),
        }
        drop(waiting);
        self.changed.notify_one();
        true
    }

    fn take(&self) -> Option<Signal> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream_id) = waiting.picture_loss.pop_first() {
            return Some(Signal::picture_loss(stream_id));
        }
        waiting.others.pop_front().or_else(|| waiting.room_update.take())
    }

    /// Puts back what could not be sent, unless something newer stands there.
    fn put_back(&self, signal: Signal) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(signal, Signal::RoomUpdate { .. }) && waiting.room_update.is_none() {
            waiting.room_update = Some(signal);
        }
    }

    /// Sends what is put in, one after the other, until the connection is gone.
    pub async fn run(self: Arc<Self>, connection: Connection, counters: Arc<Counters>) {
        loop {
            while let Some(signal) = self.take() {
                match send(&connection, &signal, SEND_DEADLINE).await {
                    Ok(_) => counters.signals_out.one(),
                    Err(SendError::Deadline(_)) => {
                        counters.signals_stalled.one();
                        self.put_back(signal);
                    }
                    Err(SendError::Write(_)) => counters.signals_dropped.one(),
                    Err(SendError::Connection(_)) => return,
                }
            }
            tokio::select! {
                () = self.changed.notified() => {}
                _ = connection.closed() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outbox_keeps_the_newest_list_and_each_request_once() {
        let outbox = Outbox::default();
        for _ in 0..1000 {
            assert!(outbox.push(Signal::room_update(Vec::new())));
            assert!(outbox.push(Signal::picture_loss(3)));
        }
        assert_eq!(outbox.take(), Some(Signal::picture_loss(3)));
        assert_eq!(outbox.take(), Some(Signal::room_update(Vec::new())));
        assert_eq!(outbox.take(), None);
    }

    #[test]
    fn outbox_is_bounded() {
        let outbox = Outbox::default();
        let taken = (0..1000).filter(|i| outbox.push(Signal::pong(*i))).count();
        assert_eq!(taken, QUEUE);
    }
}

//! What a peer tells its session: nothing is lost when the session is slow to take it.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::room::peer::PeerEvent;

/// See the module's text.
#[derive(Debug)]
pub struct Teller {
    events: mpsc::Sender<PeerEvent>,
    /// Room for the last event: it must arrive even if nothing else does.
    last: Option<mpsc::OwnedPermit<PeerEvent>>,
    /// Events that found no room, the newest of each subject.
    waiting: VecDeque<PeerEvent>,
}

impl Teller {
    /// On this way to the session.
    pub fn new(events: mpsc::Sender<PeerEvent>) -> Self {
        Self {
            last: events.clone().try_reserve_owned().ok(),
            events,
            waiting: VecDeque::new(),
        }
    }

    /// Tells it now, or with a later [`Teller::retry`]. A newer event takes the place of one about the same that waits.
    pub fn tell(&mut self, event: PeerEvent) {
        self.waiting.retain(|waiting| !is_replaced(waiting, &event));
        self.waiting.push_back(event);
        self.retry();
    }

    /// Tells what waits, in its order.
    pub fn retry(&mut self) {
        while let Some(event) = self.waiting.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => {
                    tracing::debug!("a session is slow to take its WebRTC events");
                    self.waiting.push_front(event);
                    return;
                }
                // The session has gone, and nobody wants to know any more.
                Err(mpsc::error::TrySendError::Closed(_)) => self.waiting.clear(),
            }
        }
    }

    /// Tells that the peer has ended.
    pub fn close(mut self, reason: String) {
        self.retry();
        match self.last {
            Some(permit) => {
                permit.send(PeerEvent::Closed(reason));
            }
            None => {
                if self.events.try_send(PeerEvent::Closed(reason)).is_err() {
                    tracing::warn!("a session was not told that its WebRTC peer has ended");
                }
            }
        }
    }
}

/// Whether `newer` says all that `older` did.
fn is_replaced(older: &PeerEvent, newer: &PeerEvent) -> bool {
    match (older, newer) {
        (PeerEvent::Mids(_), PeerEvent::Mids(_))
        | (PeerEvent::Carried(_), PeerEvent::Carried(_))
        | (PeerEvent::Waiting(_), PeerEvent::Waiting(_))
        | (PeerEvent::Need { .. }, PeerEvent::Need { .. }) => true,
        (PeerEvent::Bandwidth { track: a, .. }, PeerEvent::Bandwidth { track: b, .. }) => a == b,
        (PeerEvent::Described { kind: a, slot: x, .. }, PeerEvent::Described { kind: b, slot: y, .. }) => {
            (a, x) == (b, y)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(audio: usize) -> PeerEvent {
        PeerEvent::Need { audio, video: 0 }
    }

    #[test]
    fn what_found_no_room_is_told_later_and_only_the_newest_of_it() {
        let (events, mut told) = mpsc::channel(3);
        let mut teller = Teller::new(events);
        teller.tell(need(1));
        teller.tell(PeerEvent::Connected { tcp: false });
        for audio in 2..100 {
            teller.tell(need(audio));
            teller.tell(PeerEvent::Carried(Vec::new()));
        }
        assert_eq!(told.try_recv(), Ok(need(1)));
        assert_eq!(told.try_recv(), Ok(PeerEvent::Connected { tcp: false }));
        assert!(told.try_recv().is_err());
        teller.retry();
        assert_eq!(told.try_recv(), Ok(need(99)));
        assert_eq!(told.try_recv(), Ok(PeerEvent::Carried(Vec::new())));
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn the_end_is_told_to_a_session_that_takes_nothing_else() {
        let (events, mut told) = mpsc::channel(2);
        let mut teller = Teller::new(events.clone());
        teller.tell(need(1));
        teller.tell(PeerEvent::Carried(Vec::new()));
        assert!(events.try_send(need(2)).is_err());
        teller.close("gone".to_owned());
        assert_eq!(told.try_recv(), Ok(need(1)));
        assert_eq!(told.try_recv(), Ok(PeerEvent::Closed("gone".to_owned())));
    }
}

//! What a peer receives over RTP: one leg per m-line, fed by a cursor.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::media::frame::{Frame, Kind, RoomTime, RtpPayload, TrackId};
use crate::media::rtp::h265;
use crate::media::rtp::history::{self, History};
use crate::media::rtp::packetize;
use crate::media::rtp::rewrite::Rewriter;
use crate::room::keyframes::{Need, Reason, Want};
use crate::room::replay::Replay;
use crate::room::subscription::{Cursor, Lag, Next, Start};
use crate::room::track::Track;
use crate::room::upstream::Upstream;
use crate::webrtc::arrival::Arrival;
use crate::webrtc::assign::Line;
use crate::webrtc::engine::{Codec, MAX_PAYLOAD, Mid, OutgoingRtp, ReportTime};
use crate::webrtc::incoming::rtp_codec;
use crate::webrtc::pace::Paced;
use crate::webrtc::punctual::{Age, Punctual};

/// Pictures that waited longer than this are left out.
const VIDEO_LAG: Lag = Lag {
    most: 500_000,
    resync_age: 1_000_000,
};
/// Sound that waited longer than this is left out.
const AUDIO_LAG: Lag = Lag {
    most: 200_000,
    resync_age: 0,
};
/// Over a path that loses this much, in 1/256, a repair is sent twice: one that is lost too costs the viewer another round
/// trip, which its picture does not wait for. A path that loses more is full, and twice as much would fill it further.
const LOSSY: RangeInclusive<u8> = 3..=38;
/// The second copy follows after this, so that one burst does not take both.
const SECOND_COPY: Duration = Duration::from_millis(5);
/// Second copies that may wait.
const MAX_COPIES: usize = 128;
/// Seconds from the NTP era to a moment before any room began; only differences matter to a receiver.
const NTP_OFFSET: u64 = 3_900_000_000;

/// One leg.
pub struct Outgoing {
    line: Line,
    feed: Option<Feed>,
    rewriter: Rewriter,
    history: History<OutgoingRtp>,
    /// What the viewer lost lately, in 1/256.
    loss: u8,
    /// By its last report, and the lesser of its last two.
    reported: u8,
    lost: u8,
    arrival: Arrival,
    copies: VecDeque<(Instant, OutgoingRtp)>,
    run: u64,
    paced: Paced,
    last: Option<(u64, RoomTime)>,
    times: Punctual,
    /// Frames left out for this viewer by cursors that are gone.
    dropped: u64,
}

struct Feed {
    cursor: Cursor,
    waker: Arc<Notify>,
    replay: Option<Replay>,
    codec: Option<Codec>,
    want: Want,
    /// Frames before this one were there when the viewer came.
    live_from: u64,
    /// Not sent for now: the path is too slow.
    paused: bool,
    /// For the source's next keyframe, which has this index or a higher one: the viewer sees the track by another transport,
    /// and should not have to decode a long replay a second time.
    waits: Option<u64>,
}

/// What feeding a leg came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fed {
    /// All that there was went out.
    All,
    /// More waits for its turn.
    Paced,
}

impl Outgoing {
    /// An idle leg; `first_timestamp` is random.
    pub fn new(line: Line, first_timestamp: u32) -> Self {
        Self {
            rewriter: Rewriter::new(line.kind.clock_rate(), first_timestamp),
            history: History::new(history::Limits::default()),
            line,
            loss: 0,
            reported: 0,
            lost: 0,
            arrival: Arrival::default(),
            copies: VecDeque::new(),
            feed: None,
            run: 0,
            paced: Paced::default(),
            last: None,
            times: Punctual::default(),
            dropped: 0,
        }
    }

    /// Its m-line.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// Follows a renegotiation.
    pub fn set_line(&mut self, line: Line) {
        self.line = line;
    }

    /// The track that it carries.
    pub fn track(&self) -> Option<&Arc<Track>> {
        self.feed.as_ref().map(|feed| feed.cursor.track())
    }

    /// Payload bytes held for repairs.
    pub fn held_bytes(&self) -> usize {
        self.history.bytes()
    }

    /// Carries `track` from its last keyframe on, or nothing.
    pub fn assign(&mut self, track: Option<&Arc<Track>>, waker: &Arc<Notify>, room: &impl Upstream) {
        self.put(track, waker, room, false);
    }

    /// Like [`Outgoing::assign`], but a track whose last keyframe is past the soft bounds is carried from the next one on, or
    /// from [`Outgoing::begin`].
    pub fn assign_or_wait(&mut self, track: Option<&Arc<Track>>, waker: &Arc<Notify>, room: &impl Upstream) {
        self.put(track, waker, room, true);
    }

    fn put(&mut self, track: Option<&Arc<Track>>, waker: &Arc<Notify>, room: &impl Upstream, may_wait: bool) {
        let before = self.feed.take();
        self.dropped += before.as_ref().map_or(0, |feed| feed.cursor.dropped());
        self.times = Punctual::default();
        let Some(track) = track else {
            // Nobody waits for the end of what is gone, and the leg may stay idle for long.
            self.history.clear();
            self.copies.clear();
            return;
        };
        self.run += 1;
        self.history.hold_bytes(track.bounds().hard_bytes);
        let mut feed = Feed {
            cursor: Cursor::new(track, waker),
            waker: waker.clone(),
            replay: None,
            codec: None,
            want: Want::default(),
            live_from: 0,
            paused: false,
            waits: None,
        };
        if may_wait && before.is_none() && feed.cursor.is_near_live() == Some(false) {
            feed.wait(room);
        } else {
            feed.start(room, before.is_some());
        }
        self.feed = Some(feed);
        waker.notify_one();
    }

    /// Stops or resumes a track for the sake of bandwidth.
    pub fn set_paused(&mut self, paused: bool, room: &impl Upstream) {
        let Some(feed) = &mut self.feed else { return };
        if feed.paused && !paused {
            self.run += 1;
            self.dropped += feed.cursor.dropped();
            // A cursor never goes back; a viewer that resumes wants the last keyframe again.
            feed.cursor = Cursor::new(&feed.cursor.track().clone(), &feed.waker);
            feed.start(room, true);
            self.times = Punctual::default();
        }
        feed.paused = paused;
    }

    /// Sends nothing before the next keyframe.
    pub fn is_waiting(&self) -> bool {
        self.feed.as_ref().is_some_and(|feed| feed.waits.is_some())
    }

    /// Waits no longer, unless there is nothing to begin with: whatever the viewer has otherwise is more than that.
    pub fn begin(&mut self, room: &impl Upstream) {
        let Some(feed) = &mut self.feed else { return };
        if feed.waits.is_none() {
            return;
        }
        if feed.cursor.is_near_live().is_none() {
            return feed.wait(room);
        }
        feed.waits = None;
        feed.start(room, false);
        feed.waker.notify_one();
    }

    /// Stopped for the sake of bandwidth.
    pub fn is_paused(&self) -> bool {
        self.feed.as_ref().is_some_and(|feed| feed.paused)
    }

    /// What the viewer lost lately, in 1/256.
    pub fn loss(&self) -> u8 {
        self.loss
    }

    /// What the viewer lost by each of its last two reports at least, in 1/256: one burst is in one, whenever that comes.
    pub fn lost(&self) -> u8 {
        self.lost
    }

    /// How much of what is sent arrives.
    pub fn arrival(&self) -> &Arrival {
        &self.arrival
    }

    /// Hands every packet that is due to `write`. `replays` is the budget of all that the viewer has replayed at this time.
    pub fn feed(
        &mut self,
        room: &impl Upstream,
        replays: &mut Paced,
        (now, room_now): (Instant, RoomTime),
        mut write: impl FnMut(Mid, &OutgoingRtp),
    ) -> Fed {
        let lag = if self.line.kind == Kind::Video {
            &VIDEO_LAG
        } else {
            &AUDIO_LAG
        };
        loop {
            let Some(feed) = &mut self.feed else { return Fed::All };
            if feed.paused {
                return Fed::All;
            }
            if let Some(from) = feed.waits {
                if !feed.cursor.track().has_keyframe_from(from) {
                    return Fed::All;
                }
                feed.waits = None;
                feed.start(room, false);
            }
            let replaying = self.line.kind == Kind::Video && feed.is_replaying();
            if self.line.kind == Kind::Video && !self.paced.may_send(replaying, now) {
                return Fed::Paced;
            }
            if replaying && !replays.may_send(false, now) {
                feed.cursor.catch_up_from_here();
                return Fed::Paced;
            }
            match feed.next(lag, room_now) {
                Next::Frame(frame) => {
                    feed.want.satisfied();
                    feed.codec = rtp_codec(frame.codec);
                    let age = feed.age(&frame);
                    if let Some(codec) = feed.codec.filter(|codec| self.line.codecs.contains(codec)) {
                        let sent = self.send(&frame, codec, age, (now, room_now), &mut write);
                        if replaying {
                            replays.sent(sent);
                        }
                    }
                }
                Next::NeedsKeyframe => {
                    match feed.want.loss(room_now) {
                        Need::Ask => room.request_keyframe(feed.cursor.track().id(), room_now, Reason::Loss),
                        Need::Withhold => room.withhold_keyframe(Reason::Loss),
                        Need::Asked => {}
                    }
                    return match feed.is_holding() {
                        true => Fed::Paced,
                        false => Fed::All,
                    };
                }
                Next::Empty if feed.is_holding() => return Fed::Paced,
                Next::Empty | Next::Ended => return Fed::All,
            }
        }
    }

    /// The packets among `seqs` that can be repeated.
    pub fn repeat(&mut self, seqs: &[u16], now: Instant) -> Vec<OutgoingRtp> {
        let refused_before = self.history.refused();
        let repeated: Vec<OutgoingRtp> = seqs
            .iter()
            .filter_map(|seq| self.history.repeat(now, *seq).ok().cloned())
            .collect();
        if self.line.kind == Kind::Video {
            for packet in &repeated {
                self.paced.sent(packet.payload.len());
            }
            if self.feed.as_ref().is_some_and(Feed::is_replaying) {
                self.paced.slow_down(now);
            }
        }
        if LOSSY.contains(&self.loss) {
            let room = MAX_COPIES.saturating_sub(self.copies.len());
            let history = &mut self.history;
            let copies = repeated.iter().take(room);
            let copies = copies.filter(|packet| history.repeat_again(packet.payload.len()));
            self.copies
                .extend(copies.map(|packet| (now + SECOND_COPY, packet.clone())));
        }
        let refused = self.history.refused();
        if refused > refused_before {
            tracing::debug!(mid = %self.line.mid, refused, "a viewer asks for more repeats than its stream has");
        }
        repeated
    }

    /// A second copy of a repair that is due now.
    pub fn second_copy(&mut self, now: Instant) -> Option<OutgoingRtp> {
        self.copies.front().filter(|(due, _)| *due <= now)?;
        let (_, packet) = self.copies.pop_front()?;
        self.paced.sent(packet.payload.len());
        Some(packet)
    }

    /// Second copies wait for their time.
    pub fn holds_copies(&self) -> bool {
        !self.copies.is_empty()
    }

    /// What the path to the viewer carries, bit/s, as far as that is known.
    pub fn set_estimate(&mut self, bits_per_second: u64) {
        self.paced.set_estimate(bits_per_second);
    }

    /// The viewer reports the highest number that has arrived, and how many are missing.
    pub fn note_arrival(&mut self, highest: u16, lost: u32, now: Instant) {
        self.arrival.note(self.rewriter.last_sequence(), highest, lost, now);
    }

    /// What the viewer lost since its last report, in 1/256.
    pub fn set_loss(&mut self, loss: u8) {
        self.lost = loss.min(std::mem::replace(&mut self.reported, loss));
        // A report of a second without loss says little: it fades over a few.
        self.loss = loss.max(self.loss / 2);
    }

    /// The times of a sender report about now.
    pub fn report(&self, room_now: RoomTime) -> Option<ReportTime> {
        let (ticks, time) = self.last?;
        // Both sides name one moment, however long there has been no frame.
        let elapsed = room_now.since(time);
        let ticks = ticks.wrapping_add(elapsed * u64::from(self.line.kind.clock_rate()) / 1_000_000);
        let rtp = self.rewriter.translate(ticks as u32)?;
        let moment = time.plus(elapsed).0;
        let ntp = ((moment / 1_000_000 + NTP_OFFSET) << 32) | (((moment % 1_000_000) << 32) / 1_000_000);
        Some(ReportTime { ntp, rtp })
    }

    fn send(
        &mut self,
        frame: &Frame,
        codec: Codec,
        age: Age,
        (now, room_now): (Instant, RoomTime),
        write: &mut impl FnMut(Mid, &OutgoingRtp),
    ) -> usize {
        let shift = self.times.shift(age, frame.time, room_now) * u64::from(self.line.kind.clock_rate()) / 1_000_000;
        // Modulo 2^32, as timestamps are.
        let ticks = frame.ticks.wrapping_add(shift) as u32;
        let timestamp = self.rewriter.timestamp(now, self.run, ticks);
        self.last = Some((frame.ticks, frame.time));
        let payloads = frame.rtp_payloads(|frame| packetize(frame, codec));
        let mut sent = 0;
        for payload in payloads.iter() {
            let packet = OutgoingRtp {
                codec,
                seq: self.rewriter.sequence(),
                timestamp,
                marker: payload.marker,
                payload: payload.bytes.clone(),
            };
            let size = packet.payload.len();
            sent += size;
            self.paced.sent(size);
            write(self.line.mid, &packet);
            if self.line.kind == Kind::Video {
                self.history.push(now, packet.seq, size, packet);
            }
        }
        sent
    }
}

impl Feed {
    fn next(&mut self, lag: &Lag, now: RoomTime) -> Next {
        match &mut self.replay {
            Some(replay) => {
                let unanswering = self.cursor.track().is_unanswering();
                replay.next(&mut self.cursor, lag, unanswering, now)
            }
            None => self.cursor.next(lag),
        }
    }

    /// Deltas wait for a fresh keyframe.
    fn is_holding(&self) -> bool {
        self.replay
            .as_ref()
            .is_some_and(|replay| replay.poll_timeout().is_some())
    }

    /// What goes out now is old.
    fn is_replaying(&self) -> bool {
        self.cursor.is_catching_up() || self.is_holding()
    }

    /// Of the frame that was read last.
    fn age(&self, frame: &Frame) -> Age {
        if self.is_holding() {
            Age::Still
        } else if frame.index < self.live_from || self.cursor.is_catching_up() {
            Age::Replayed
        } else {
            Age::Live
        }
    }

    fn wait(&mut self, room: &impl Upstream) {
        let track = self.cursor.track();
        self.waits = self.waits.or(Some(track.end()));
        room.request_keyframe(track.id(), room.now(), Reason::Join);
    }

    /// `switches`: the viewer has a picture on this line, of another source or of a moment ago.
    fn start(&mut self, room: &impl Upstream, switches: bool) {
        let now = room.now();
        let start = self.cursor.start();
        self.live_from = self.cursor.track().end();
        if start == Start::Live {
            return;
        }
        let (replay, reason) = match switches {
            true => (Replay::switching(start, now), Reason::Switch),
            false => (Replay::new(start, now), Reason::Join),
        };
        let wants_keyframe = replay.wants_keyframe();
        self.replay = Some(replay);
        if wants_keyframe {
            self.want.started(now);
            room.request_keyframe(self.cursor.track().id(), now, reason);
        }
    }
}

/// The RTP payloads of a frame; none if it is not what its codec says.
fn packetize(frame: &Frame, codec: Codec) -> Arc<[RtpPayload]> {
    let made = match codec {
        Codec::H264 => packetize::h264(&frame.payload, MAX_PAYLOAD),
        Codec::Av1 => packetize::av1(&frame.payload, MAX_PAYLOAD),
        Codec::Opus => packetize::opus(&frame.payload, MAX_PAYLOAD).map(|payload| vec![payload]),
        Codec::H265 => h265::packetize(&frame.payload, MAX_PAYLOAD),
    };
    match made {
        Ok(payloads) => payloads.into(),
        Err(error) => {
            tracing::debug!(track = ?frame.track, %error, "a frame cannot go over RTP");
            Arc::default()
        }
    }
}

/// The track that a leg carries, for lists.
pub fn carried(leg: &Outgoing) -> Option<TrackId> {
    assigned(leg).filter(|_| !leg.is_waiting())
}

/// The track that a leg carries, or will.
pub fn assigned(leg: &Outgoing) -> Option<TrackId> {
    leg.track().map(|track| track.id())
}

#[cfg(test)]
mod tests;

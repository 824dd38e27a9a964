//! The keyframe owner: the only one who may ask a source for a keyframe.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::media::frame::RoomTime;

/// First distance between two requests, µs.
pub const WINDOW: u64 = 500_000;
/// Largest distance, reached by doubling while the source does not answer, µs.
pub const WINDOW_MAX: u64 = 2_000_000;
/// A source that has left this many requests in a row without an answer is reported as silent.
pub const SILENT_AFTER: u32 = 3;
/// The second request is answered, like the first one within a window, by a keyframe that follows the first within this, µs:
/// an encoder at the far end of a long path takes longer than a window each time.
pub const SLOW_ANSWER: u64 = 1_500_000;
/// A receiver that loses its place again and again asks for keyframes on this account at most this often, µs: everybody else
/// would pay for its slow path.
pub const LOSS_INTERVAL: u64 = 2_000_000;

/// An unanswered request is repeated this often; after that only a new one is asked.
const REPEATS: u32 = 8;

/// Why a keyframe is wanted. There is no other reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A newcomer found no usable replay.
    Join,
    /// A receiver switches to this track and found no usable replay.
    Switch,
    /// Frames were lost on the way in, or a receiver fell too far behind.
    Loss,
    /// A receiver's decoder asked for it.
    Viewer,
}

/// Why a request did not go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suppressed {
    /// One went out less than a window ago; this one waits for the window's end.
    Window,
    /// A keyframe came after whatever the requester had lost.
    Answered,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Ask the source now.
    Ask,
    /// Not now.
    Suppress(Suppressed),
}

/// A count for each trigger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ByReason {
    /// See [`Reason::Join`].
    pub join: u64,
    /// See [`Reason::Switch`].
    pub switch: u64,
    /// See [`Reason::Loss`].
    pub loss: u64,
    /// See [`Reason::Viewer`].
    pub viewer: u64,
}

impl ByReason {
    /// All triggers together.
    pub fn total(&self) -> u64 {
        self.join + self.switch + self.loss + self.viewer
    }

    pub(super) fn count(&mut self, reason: Reason) {
        *match reason {
            Reason::Join => &mut self.join,
            Reason::Switch => &mut self.switch,
            Reason::Loss => &mut self.loss,
            Reason::Viewer => &mut self.viewer,
        } += 1;
    }
}

/// The same, counted by any number of receivers at once.
#[derive(Debug, Default)]
pub struct SharedByReason {
    join: AtomicU64,
    switch: AtomicU64,
    loss: AtomicU64,
    viewer: AtomicU64,
}

impl SharedByReason {
    /// One more.
    pub fn count(&self, reason: Reason) {
        let counter = match reason {
            Reason::Join => &self.join,
            Reason::Switch => &self.switch,
            Reason::Loss => &self.loss,
            Reason::Viewer => &self.viewer,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// As they are now.
    pub fn now(&self) -> ByReason {
        ByReason {
            join: self.join.load(Ordering::Relaxed),
            switch: self.switch.load(Ordering::Relaxed),
            loss: self.loss.load(Ordering::Relaxed),
            viewer: self.viewer.load(Ordering::Relaxed),
        }
    }
}

/// What became of all requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Requests that went to the source at once, by what triggered them.
    pub asked: ByReason,
    /// Requests that went to the source because the one before it was not answered, or because some had waited.
    pub repeated: u64,
    /// Suppressed because one went out less than a window ago.
    pub suppressed_window: ByReason,
    /// Suppressed because a keyframe had come already.
    pub suppressed_answered: ByReason,
    /// Suppressed by the receiver itself, which had asked a moment ago; see [`LOSS_INTERVAL`].
    pub suppressed_receiver: ByReason,
    /// Suppressed because there is no such track (any more).
    pub suppressed_unknown: ByReason,
    /// Suppressed because the room had more to do than its queue holds.
    pub suppressed_overflow: ByReason,
}

impl Counters {
    /// Requests that went to the source.
    pub fn sent(&self) -> u64 {
        self.asked.total() + self.repeated
    }

    /// Takes note of what became of a request.
    pub fn count(&mut self, verdict: Verdict, reason: Reason) {
        match verdict {
            Verdict::Ask => self.asked.count(reason),
            Verdict::Suppress(Suppressed::Window) => self.suppressed_window.count(reason),
            Verdict::Suppress(Suppressed::Answered) => self.suppressed_answered.count(reason),
        }
    }
}

/// What one receiver of one track does about a keyframe that it needs: it asks once, and again if none comes for long.
///
/// ```
/// # use wzp_gateway::media::frame::RoomTime;
/// # use wzp_gateway::room::keyframes::{Need, Want};
/// let at = RoomTime::from_millis;
/// let mut want = Want::default();
/// assert_eq!(want.loss(at(0)), Need::Ask);
/// assert_eq!(want.loss(at(10)), Need::Asked);
/// want.satisfied();
/// assert_eq!(want.loss(at(500)), Need::Withhold);
/// assert_eq!(want.loss(at(510)), Need::Asked);
/// assert_eq!(want.loss(at(2000)), Need::Ask);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Want {
    /// It has been asked for, or withheld.
    dealt_with: bool,
    /// When this receiver last asked, for whatever it needs now.
    asked_at: Option<RoomTime>,
    lost_at: Option<RoomTime>,
}

/// What a receiver that needs a keyframe does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Ask the keyframe owner.
    Ask,
    /// Do not, and count that.
    Withhold,
    /// That has been done.
    Asked,
}

impl Want {
    /// A keyframe was asked for at the start, by a newcomer or one that switches.
    pub fn started(&mut self, now: RoomTime) {
        *self = Self {
            dealt_with: true,
            asked_at: Some(now),
            ..self.clone()
        };
    }

    /// The receiver can read nothing before a keyframe comes; said at every look. The first time it asks at once, whatever was
    /// asked for at its start.
    pub fn loss(&mut self, now: RoomTime) -> Need {
        let over = |at: Option<RoomTime>| at.is_none_or(|at| now.since(at) >= LOSS_INTERVAL);
        if self.dealt_with && !over(self.asked_at) {
            return Need::Asked;
        }
        if !over(self.lost_at) {
            self.dealt_with = true;
            // Once the interval is over it asks after all.
            self.asked_at = self.lost_at;
            return Need::Withhold;
        }
        self.dealt_with = true;
        (self.asked_at, self.lost_at) = (Some(now), Some(now));
        Need::Ask
    }

    /// It reads frames.
    pub fn satisfied(&mut self) {
        self.dealt_with = false;
    }
}

/// The policy for one track: the first request at once, then one per window, none once a keyframe has come.
#[derive(Debug, Clone, Default)]
pub struct KeyframeOwner {
    asked_at: Option<RoomTime>,
    /// The first request since the last keyframe.
    first_at: Option<RoomTime>,
    window: u64,
    /// Somebody waits for a keyframe that is newer than this: for the answer to the last request, or, because the window was
    /// closed, for the next request.
    wanted: Option<RoomTime>,
    /// Requests since the last keyframe.
    unanswered: u32,
    /// Requests in a row that no keyframe followed in time. A source that answers nobody sends a keyframe now and
    /// then all the same, which tells nothing.
    ignored: u32,
}

impl KeyframeOwner {
    /// Someone who last saw the track at `since` wants a keyframe; the newest one came at `keyframe_at`.
    pub fn request(&mut self, since: RoomTime, keyframe_at: Option<RoomTime>, now: RoomTime) -> Verdict {
        self.settle(keyframe_at);
        if keyframe_at.is_some_and(|at| at > since) {
            return Verdict::Suppress(Suppressed::Answered);
        }
        if self.asked_at.is_some_and(|asked| now.since(asked) < self.window) {
            self.wanted = self.wanted.max(Some(since));
            return Verdict::Suppress(Suppressed::Window);
        }
        self.wanted = self.wanted.max(Some(since));
        self.ask(now);
        Verdict::Ask
    }

    /// When [`KeyframeOwner::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<RoomTime> {
        self.wanted?;
        Some(self.asked_at.unwrap_or_default().plus(self.window))
    }

    /// True if the source must be asked again: the window is over, and no keyframe has come since the last request.
    pub fn handle_timeout(&mut self, keyframe_at: Option<RoomTime>, now: RoomTime) -> bool {
        self.settle(keyframe_at);
        let due = self.poll_timeout().is_some_and(|at| at <= now);
        if due {
            self.ask(now);
        }
        due
    }

    /// The source has not answered several requests in a row. Ends when a keyframe follows a first request within a window,
    /// or a second one soon after.
    pub fn is_silent(&self) -> bool {
        self.ignored >= SILENT_AFTER
    }

    /// It left the last request without an answer for a window, so that whoever asks now waits in vain, or for long.
    pub fn is_unanswering(&self) -> bool {
        self.ignored > 0
    }

    fn ask(&mut self, now: RoomTime) {
        if self.unanswered > 0 {
            self.ignored = self.ignored.saturating_add(1);
        }
        self.window = match self.unanswered {
            _ if self.is_silent() => WINDOW_MAX,
            n => (WINDOW << n.min(8)).min(WINDOW_MAX),
        };
        // An unanswered request is repeated for whoever still waits, but not for ever.
        if self.unanswered >= REPEATS {
            self.wanted = None;
        }
        self.asked_at = Some(now);
        if self.unanswered == 0 {
            self.first_at = Some(now);
        }
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// A keyframe that came after the last request answers it. Whoever has lost something since waits on.
    fn settle(&mut self, keyframe_at: Option<RoomTime>) {
        let Some(came) = keyframe_at else { return };
        self.wanted = self.wanted.filter(|since| came <= *since);
        if let Some(asked) = self.asked_at
            && came >= asked
            && self.unanswered > 0
        {
            let answered = match self.unanswered {
                1 => came.since(asked) <= WINDOW,
                2 => self.first_at.is_some_and(|first| came.since(first) <= SLOW_ANSWER),
                _ => false,
            };
            if answered {
                self.ignored = 0;
            }
            self.unanswered = 0;
            self.window = WINDOW;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> RoomTime {
        RoomTime::from_millis(ms)
    }

    #[test]
    fn first_request_goes_at_once_and_the_rest_wait_for_the_window() {
        let mut owner = KeyframeOwner::default();
        assert_eq!(owner.request(ms(0), None, ms(10)), Verdict::Ask);
        for i in 0..100 {
            assert_eq!(
                owner.request(ms(11 + i), None, ms(11 + i)),
                Verdict::Suppress(Suppressed::Window)
            );
        }
        assert!(!owner.handle_timeout(None, ms(509)));
        assert!(owner.handle_timeout(None, ms(510)));
    }

    #[test]
    fn keyframe_cancels_what_waits() {
        let mut owner = KeyframeOwner::default();
        owner.request(ms(0), None, ms(10));
        owner.request(ms(20), None, ms(20));
        assert!(!owner.handle_timeout(Some(ms(60)), ms(600)));
        assert_eq!(owner.poll_timeout(), None);
        assert_eq!(
            owner.request(ms(50), Some(ms(60)), ms(610)),
            Verdict::Suppress(Suppressed::Answered)
        );
        assert_eq!(owner.request(ms(61), Some(ms(60)), ms(620)), Verdict::Ask);
    }

    #[test]
    fn what_is_lost_after_the_answer_and_within_the_window_is_asked_for_at_its_end() {
        let mut owner = KeyframeOwner::default();
        assert_eq!(owner.request(ms(0), None, ms(0)), Verdict::Ask);
        // The answer came at 40 ms; a viewer loses something after that.
        let lost = owner.request(ms(100), Some(ms(40)), ms(100));
        assert_eq!(lost, Verdict::Suppress(Suppressed::Window));
        assert!(!owner.handle_timeout(Some(ms(40)), ms(499)));
        assert_eq!(owner.poll_timeout(), Some(ms(500)));
        assert!(owner.handle_timeout(Some(ms(40)), ms(500)));
        assert!(!owner.handle_timeout(Some(ms(540)), ms(1000)));
        assert_eq!(owner.poll_timeout(), None);
    }

    #[test]
    fn silent_source_is_asked_ever_less_often_and_reported() {
        let mut owner = KeyframeOwner::default();
        owner.request(ms(0), None, ms(0));
        let mut asked = vec![0];
        let mut now = 0;
        while now < 10_000 {
            now += 10;
            if owner.handle_timeout(None, ms(now)) {
                asked.push(now);
            }
        }
        assert_eq!(asked, [0, 500, 1500, 3500, 5500, 7500, 9500]);
        assert!(owner.is_silent());
        assert!(!owner.handle_timeout(Some(ms(10_010)), ms(11_600)));
        assert_eq!(owner.poll_timeout(), None, "the keyframe ends the repeats");
    }

    #[test]
    fn keyframe_that_came_by_itself_is_no_answer() {
        let mut owner = KeyframeOwner::default();
        owner.request(ms(0), None, ms(0));
        for now in 0..4000 {
            owner.handle_timeout(None, ms(now));
        }
        assert!(owner.is_silent());
        // The end of the source's group of pictures.
        owner.handle_timeout(Some(ms(4100)), ms(5500));
        assert!(owner.is_silent() && owner.is_unanswering());
        assert_eq!(owner.request(ms(6000), Some(ms(4100)), ms(6000)), Verdict::Ask);
        assert_eq!(
            owner.poll_timeout(),
            Some(ms(8000)),
            "a silent source is asked at the longest distance"
        );
        owner.handle_timeout(Some(ms(6050)), ms(8000));
        assert!(
            !owner.is_silent() && !owner.is_unanswering(),
            "it has answered the first request in time"
        );
    }

    #[test]
    fn lost_request_is_repeated_and_its_answer_keeps_the_source_from_being_silent() {
        let mut owner = KeyframeOwner::default();
        for at in (0..100_000).step_by(10_000) {
            // Every other request is lost on the way.
            owner.request(ms(at), None, ms(at));
            assert!(owner.handle_timeout(None, ms(at + 500)));
            owner.handle_timeout(Some(ms(at + 540)), ms(at + 1500));
            owner.request(ms(at + 5000), None, ms(at + 5000));
            owner.handle_timeout(Some(ms(at + 5040)), ms(at + 6000));
            assert!(!owner.is_silent());
        }
    }

    #[test]
    fn source_that_takes_longer_than_a_window_each_time_is_not_silent() {
        let mut owner = KeyframeOwner::default();
        for at in (0..100_000).step_by(10_000) {
            owner.request(ms(at), None, ms(at));
            assert!(!owner.is_unanswering());
            assert!(owner.handle_timeout(None, ms(at + 500)));
            assert!(owner.is_unanswering(), "nobody waits for the second answer");
            owner.handle_timeout(Some(ms(at + 600)), ms(at + 1500));
            assert!(!owner.is_silent() && !owner.is_unanswering(), "at {at} ms");
        }
    }

    #[test]
    fn first_loss_is_asked_for_at_once_whatever_the_start_asked_for() {
        let mut want = Want::default();
        want.started(ms(0));
        assert_eq!(want.loss(ms(5)), Need::Asked, "the same need");
        want.satisfied();
        assert_eq!(want.loss(ms(100)), Need::Ask);
        assert_eq!(want.loss(ms(1000)), Need::Asked);
        assert_eq!(want.loss(ms(2100)), Need::Ask, "nothing has come of it");
    }

    #[test]
    fn receiver_that_loses_its_place_again_and_again_asks_every_two_seconds() {
        let mut want = Want::default();
        let mut asked = Vec::new();
        let mut withheld = 0;
        for now in 0..10_000 {
            match want.loss(ms(now)) {
                Need::Ask => asked.push(now),
                Need::Withhold => withheld += 1,
                Need::Asked => {}
            }
            // It reads a little every half second.
            if now % 500 == 499 {
                want.satisfied();
            }
        }
        assert_eq!(asked, [0, 2000, 4000, 6000, 8000]);
        assert_eq!(withheld, 15);
    }

    #[test]
    fn repeats_end_when_nobody_asks_anew() {
        let mut owner = KeyframeOwner::default();
        owner.request(ms(0), None, ms(0));
        let asked = (0..60_000).filter(|now| owner.handle_timeout(None, ms(*now))).count();
        assert_eq!(asked, REPEATS as usize);
        assert_eq!(owner.poll_timeout(), None);
        assert_eq!(owner.request(ms(60_000), None, ms(60_000)), Verdict::Ask);
    }

    #[test]
    fn request_by_someone_who_has_the_keyframe_on_its_way_is_answered_already() {
        let mut owner = KeyframeOwner::default();
        assert_eq!(
            owner.request(ms(100), Some(ms(150)), ms(200)),
            Verdict::Suppress(Suppressed::Answered)
        );
        // At the very same instant it may be the keyframe itself that was lost.
        assert_eq!(owner.request(ms(150), Some(ms(150)), ms(200)), Verdict::Ask);
    }

    #[test]
    fn hundred_viewers_within_a_second_cost_at_most_three_requests() {
        let mut owner = KeyframeOwner::default();
        let mut keyframe_at = None;
        let mut asked = 0;
        for now in 0..1000 {
            asked += u32::from(owner.handle_timeout(keyframe_at, ms(now)));
            if now % 10 == 0 && owner.request(ms(now), keyframe_at, ms(now)) == Verdict::Ask {
                asked += 1;
            }
            // The source answers 40 ms after it was asked.
            if now % 500 == 40 {
                keyframe_at = Some(ms(now));
            }
        }
        assert!(asked <= 3, "{asked} requests");
    }
}

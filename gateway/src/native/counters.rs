//! What the native door did and did not do, over all its sessions.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn one(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A struct of [`Counter`]s that can be listed; the first line of each one's description goes with it.
macro_rules! counters {
    ($(#[$meta:meta])* $counters:ident { $( #[doc = $doc:literal] $name:ident ),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub struct $counters {
            $( #[doc = $doc] pub $name: $crate::native::counters::Counter, )+
        }

        impl $counters {
            /// All counters by name.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$( (stringify!($name), self.$name.get()) ),+]
            }

            /// What each counter counts, by name.
            pub fn described() -> Vec<(&'static str, &'static str)> {
                vec![$( (stringify!($name), $doc.trim_ascii()) ),+]
            }
        }
    };
}
pub(crate) use counters;

counters! {
    /// Counters of the native door. Every drop has its reason in its name.
    Counters {
    /// Connections let in.
    connections,
    /// Refused: too many connections altogether.
    refused_total,
    /// Refused: too many connections of one address.
    refused_per_ip,
    /// Refused: too many handshakes at once.
    refused_handshakes,
    /// Sent back to prove their address.
    retried,
    /// Handshakes that failed, whatever the reason.
    handshake_failed,
    /// Handshakes that took too long.
    handshake_timeout,
    /// Members that joined.
    joined,
    /// Members that left by closing.
    left,
    /// Members whose connection was lost.
    lost,
    /// Members put out for breaking a limit.
    violations,
    /// Datagrams received.
    datagrams_in,
    /// Datagrams that are no media packets.
    malformed_in,
    /// Datagrams over the member's rate.
    over_rate_in,
    /// Sound packets appended.
    audio_in,
    /// Sound packets that never came, repair packets among them.
    audio_lost_in,
    /// Sound packets that never came and were computed from the sender's repair packets.
    audio_recovered_in,
    /// Repair packets of sound that cannot be right.
    audio_repair_refused_in,
    /// Sound packets that came twice or too late.
    audio_late_in,
    /// Repair packets and empty packets.
    audio_skipped_in,
    /// Sound packets made anew as Opus of 20 ms: of codecs that browsers cannot decode, and of other lengths.
    audio_transcoded_in,
    /// Sound packets that are not what their codec says.
    audio_malformed_in,
    /// Quality reports received.
    quality_reports_in,
    /// Members asked to use another profile, because their own path is bad or good again.
    quality_directives_out,
    /// Video frames appended.
    video_in,
    /// Video packets that never came.
    video_lost_in,
    /// Of the video packets that were missing, those that came because they were asked for.
    video_repaired_in,
    /// Video fragments that do not belong to any frame.
    video_refused_in,
    /// Video frames left out because what they refer to was lost.
    video_undecodable_in,
    /// Video frames whose payload is not what their codec says.
    video_malformed_in,
    /// Signals received.
    signals_in,
    /// Signals unknown to this version, skipped.
    signals_unknown,
    /// Signals that are no JSON, too long, or did not come in time, skipped.
    signals_bad,
    /// Signals over the member's rate, left unread.
    signals_over_rate,
    /// Signals sent.
    signals_out,
    /// Signals that a member did not take within the deadline.
    signals_stalled,
    /// Signals given up because too many waited.
    signals_dropped,
    /// Keyframe requests received.
    pli_in,
    /// Keyframe requests sent.
    pli_out,
    /// Requests for missing packets sent.
    nacks_out,
    /// Requests for missing packets received.
    nacks_in,
    /// Video packets sent again.
    resent_out,
    /// Video packets not sent again: too old, unknown, or sent again often enough.
    not_resent,
    /// Video packets not sent again: no space in the queue.
    resent_dropped_space,
    /// Limits of bit rate or size that a native cannot be told.
    limits_ignored,
    /// Sound packets sent.
    audio_out,
    /// Sound packets sent that are a mix of several talkers.
    audio_mixed_out,
    /// Silent sound packets left out, because what an app has to play had become too long.
    audio_silence_skipped,
    /// Sound packets not sent: no packets of their codec.
    audio_undecodable_out,
    /// Sound packets not sent: no space in the queue.
    audio_dropped_space,
    /// Sound packets not sent: larger than a datagram.
    audio_dropped_size,
    /// Video frames sent.
    video_out,
    /// Video fragments sent.
    fragments_out,
    /// Video frames not sent: no space in the queue within the deadline.
    video_dropped_space,
    /// Video frames not sent: more than 255 fragments, or a fragment larger than a datagram.
    video_dropped_size,
    /// Video frames not sent: the member fell behind.
    video_dropped_lag,
}
}

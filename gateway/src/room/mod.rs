//! Rooms: who is in them, which tracks they have, who may ask for a keyframe.
//!
//! In: joins, leaves and what members publish, as calls on a [`registry::Membership`]; frames, appended by an ingress to a
//! [`track::TrackWriter`] and read by every receiver through a [`subscription::Cursor`]. Out: a coalesced
//! [`snapshot::Snapshot`] of the room after every change, and [`member::Control`] messages to single members.
//!
//! [`mixing`] makes one sound of many for members that can play only one.
//!
//! [`state::Room`] is the state machine without IO; [`registry`] runs one task for each.

pub mod keyframes;
pub mod limits;
pub mod member;
pub mod mixer;
pub mod mixing;
pub mod peer;
pub mod registry;
pub mod replay;
pub mod shown;
pub mod snapshot;
pub mod state;
pub mod subscription;
pub mod track;
pub mod uplink;
pub mod upstream;

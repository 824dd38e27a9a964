//! The room core, driven from outside with time as an argument: the log and its cursors, the replay, the state machine, and
//! the registry with its tasks.

mod cursor;
mod keyframes;
mod log;
mod property;
mod registry;
mod replay;
mod state;
mod support;

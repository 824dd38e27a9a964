//! What the end-to-end tests share.

#[path = "../../gateway/tests/uplink/relay/mod.rs"]
pub mod relay;

mod member {
    use std::time::Duration;

    /// Long enough for a loaded machine, short enough to fail.
    pub const DEADLINE: Duration = Duration::from_secs(10);
}

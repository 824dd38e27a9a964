//! The WZP native protocol.

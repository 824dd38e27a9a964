//! The `wzp-gateway` program.

fn main() {}

//! The `delegate` binary.
fn main() {}

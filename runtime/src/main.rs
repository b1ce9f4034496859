//! Evoke.
fn main() {}

//! Evoke.

pub mod manifest;
pub mod pattern;

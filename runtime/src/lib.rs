//! Evoke.

pub mod pattern;

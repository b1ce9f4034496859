//! Evoke.

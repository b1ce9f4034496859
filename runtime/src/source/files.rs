//! x
use super::Context;

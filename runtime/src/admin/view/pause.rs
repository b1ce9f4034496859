//! The JSON form of pauses.

use serde::{Deserialize, Serialize};

/// A function or an app to pause or resume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseTarget {
    /// `app/function`, or `app` for all of its functions.
    pub name: String,
}

/// The result of a pause or a resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// False if the request changed nothing, because the target was already paused or, for a resume, was not paused.
    pub changed: bool,
}

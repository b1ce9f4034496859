//! The mark of a timer, which records its ticks in the store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::schedule::{Tick, Times};
use super::ticked::Ticked;
use evoke_model::clock::UnixMs;

/// The maximum number of skipped instants in the mark.
pub(super) const SKIPPED_MAX: usize = 8;

/// The content of the mark `last`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastMark {
    pub(super) v: u32,
    pub(super) at: UnixMs,
    pub(super) schedule: String,
    #[serde(default)]
    pub(super) ticked: Ticked,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) skipped: Vec<(UnixMs, Skip)>,
}

/// Why an instant had no tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Skip {
    /// Deliveries of the tick before were pending.
    Overlap,
    /// The tick could not be stored within the `start_deadline`.
    Late,
}

/// Reads the mark of a timer.
pub(super) fn last_mark(marks: &BTreeMap<String, Vec<u8>>) -> Option<LastMark> {
    marks.get("last").and_then(|value| serde_json::from_slice::<LastMark>(value).ok()).filter(|last| last.v == 1)
}

/// Returns the instants of a list that had their ticks according to the mark of an earlier list: instants that are in
/// both lists.
pub(super) fn ticked_of_earlier(times: &Times, earlier: &LastMark) -> Ticked {
    let mut ticked = Ticked::default();
    let (Times::At { at }, Some(list)) = (times, earlier.schedule.strip_prefix("at ")) else { return ticked };
    for instant in list.split(' ').filter_map(|text| text.parse().ok()) {
        if at.contains(&instant) && earlier.ticked.contains(instant) {
            ticked.add(times, &[Tick { scheduled: instant, missed: false }]);
        }
    }
    ticked
}

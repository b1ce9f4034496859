//! The mark of a timer: the record of its ticks in the store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::schedule::{Tick, Times};
use super::ticked::Ticked;
use evoke_model::clock::UnixMs;

/// Maximum number of skipped instants in the mark; older ones are dropped.
pub(super) const SKIPPED_MAX: usize = 8;

/// The content of the mark `last`. The documentation of the module `timer` explains the fields.
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
    /// Deliveries of the previous tick were pending, and the timer has `overlap: skip`.
    Overlap,
    /// The tick was not stored within the `start_deadline`.
    Late,
}

/// Returns the mark of a timer; `None` if there is none, or if it has another format.
pub(super) fn last_mark(marks: &BTreeMap<String, Vec<u8>>) -> Option<LastMark> {
    marks.get("last").and_then(|value| serde_json::from_slice::<LastMark>(value).ok()).filter(|last| last.v == 1)
}

/// Returns the instants of the list `times` that are also in an earlier list of this timer and had their ticks,
/// according to the mark `earlier`.
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

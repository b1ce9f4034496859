//! The check `load`: the load average.

use evoke_manifest::Place;
use evoke_manifest::parser::{Node, Reader, Table};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::quantity::Unit;
use super::super::resources::SharedFiles;
use super::{Finding, Found, Measure, choice};

/// Reads the load average: the average number of processes that run, or wait for a processor or a disk.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "LoadReading")]
pub(in super::super) struct Load {
    /// The time over which the average is computed.
    #[serde(default)]
    over: Over,
    /// Whether the load is divided by the number of processors.
    #[serde(default)]
    per_cpu: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "LoadOver")]
enum Over {
    /// One minute.
    #[default]
    #[serde(rename = "1m")]
    One,
    /// Five minutes.
    #[serde(rename = "5m")]
    Five,
    /// Fifteen minutes.
    #[serde(rename = "15m")]
    Fifteen,
}

pub(super) const MEASURE: Measure = Measure::above(&[Unit::Count]);

pub(super) fn parse(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<Load> {
    let mut table = Table::read(reader, node, place.key_span, "LoadReading", "`load`", "`load: { over: 5m }`")?;
    let over = table.optional(reader, "over");
    let over = choice(reader, over, "`over`", &[("1m", Over::One), ("5m", Over::Five), ("15m", Over::Fifteen)]);
    let per_cpu = table.optional(reader, "per_cpu").and_then(|node| reader.boolean(node, "`per_cpu`"));
    table.reject_unknown_keys(reader, |key| (key == "of").then_some("did you mean `over`?"));
    Some(Load { over, per_cpu: per_cpu.unwrap_or_default() })
}

impl Load {
    pub(super) fn read(&self, files: &SharedFiles) -> Vec<Finding> {
        let found = files.read("/proc/loadavg").and_then(|file| {
            let load = self.parse(&file.text).ok_or("cannot parse /proc/loadavg")?;
            let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            Ok(Found::value(if self.per_cpu { load / cpus as f64 } else { load }))
        });
        vec![Finding::new("load", found)]
    }

    fn parse(&self, text: &str) -> Option<f64> {
        text.split_ascii_whitespace().nth(self.over as usize)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_is_that_of_the_chosen_time() {
        let load = |over| Load { over, per_cpu: false }.parse("0.50 1.25 2.00 1/100 4242\n");
        assert_eq!([Over::One, Over::Five, Over::Fifteen].map(load), [Some(0.5), Some(1.25), Some(2.0)]);
    }
}

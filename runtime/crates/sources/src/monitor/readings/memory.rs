//! The checks `memory` and `swap`, with the numbers of /proc/meminfo.

use evoke_manifest::Place;
use evoke_manifest::parser::{Node, Reader, Table};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::quantity::Unit;
use super::super::resources::SharedFiles;
use super::{Finding, Found, Measure, choice};

/// Reads the memory of this machine.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "MemoryReading")]
pub(in super::super) struct Memory {
    /// Which memory is read, as a size or in percent.
    #[serde(default)]
    of: MemoryOf,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum MemoryOf {
    /// Memory that programs cannot get without swapping.
    #[default]
    Used,
    /// Memory that programs can get without swapping; low values are bad.
    Available,
}

/// Reads the swap space of this machine.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "SwapReading")]
pub(in super::super) struct Swap {
    /// Which space is read, as a size or in percent.
    #[serde(default)]
    of: SwapOf,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum SwapOf {
    /// The used swap space.
    #[default]
    Used,
    /// The free swap space; low values are bad.
    Free,
}

const UNITS: &[Unit] = &[Unit::Percent, Unit::Bytes];

pub(super) fn parse_memory(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<Memory> {
    let mut table = Table::read(reader, node, place.key_span, "MemoryReading", "`memory`", "`memory: {}`")?;
    let of = table.optional(reader, "of");
    let of = choice(reader, of, "`of`", &[("used", MemoryOf::Used), ("available", MemoryOf::Available)]);
    table.reject_unknown_keys(reader, |_| None);
    Some(Memory { of })
}

pub(super) fn parse_swap(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<Swap> {
    let mut table = Table::read(reader, node, place.key_span, "SwapReading", "`swap`", "`swap: {}`")?;
    let of = table.optional(reader, "of");
    let of = choice(reader, of, "`of`", &[("used", SwapOf::Used), ("free", SwapOf::Free)]);
    table.reject_unknown_keys(reader, |_| None);
    Some(Swap { of })
}

impl Memory {
    pub(super) fn measure(&self) -> Measure {
        match self.of {
            MemoryOf::Used => Measure::above(UNITS),
            MemoryOf::Available => Measure::below(UNITS),
        }
    }

    pub(super) fn read(&self, files: &SharedFiles, unit: Unit) -> Vec<Finding> {
        let is_free = self.of == MemoryOf::Available;
        vec![Finding::new("memory", read(files, unit, "MemTotal:", "MemAvailable:", is_free))]
    }
}

impl Swap {
    pub(super) fn measure(&self) -> Measure {
        match self.of {
            SwapOf::Used => Measure::above(UNITS),
            SwapOf::Free => Measure::below(UNITS),
        }
    }

    pub(super) fn read(&self, files: &SharedFiles, unit: Unit) -> Vec<Finding> {
        vec![Finding::new("swap", read(files, unit, "SwapTotal:", "SwapFree:", self.of == SwapOf::Free))]
    }
}

fn read(files: &SharedFiles, unit: Unit, total: &str, free: &str, is_free: bool) -> Result<Found, String> {
    let file = files.read("/proc/meminfo")?;
    let (total, free) = (field(&file.text, total)?, field(&file.text, free)?);
    let part = if is_free { free } else { (total - free).max(0.0) };
    Ok(Found::value(match unit {
        // A machine without swap has 0 % used and 100 % free swap space.
        Unit::Percent if total == 0.0 => {
            if is_free {
                100.0
            } else {
                0.0
            }
        }
        Unit::Percent => part * 100.0 / total,
        _ => part,
    }))
}

/// Returns a field of /proc/meminfo in bytes. The file has the number in KiB.
fn field(text: &str, name: &str) -> Result<f64, String> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<f64>().ok());
    number.map(|kib| kib * 1024.0).ok_or_else(|| format!("/proc/meminfo has no {}", name.trim_end_matches(':')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_in_bytes() {
        let text = "MemTotal:       1000 kB\nMemAvailable:    250 kB\n";
        assert_eq!(field(text, "MemAvailable:"), Ok(256_000.0));
        assert!(field(text, "SwapTotal:").is_err());
    }
}

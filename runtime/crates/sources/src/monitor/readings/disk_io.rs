//! The check `disk_io`: the traffic of block devices.

use std::collections::BTreeMap;

use evoke_manifest::Place;
use evoke_manifest::parser::{Node, Reader, Table};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::quantity::Unit;
use super::super::resources::SharedFiles;
use super::globs::Glob;
use super::{Finding, Found, Measure, Outcome, choice};

/// Reads the traffic of block devices.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "DiskIoReading")]
pub(in super::super) struct DiskIo {
    /// Name of the device, such as `sda`. With wildcards, each device that matches is watched separately.
    #[schemars(with = "String", length(min = 1))]
    device: Glob,
    /// The measured quantity.
    #[serde(default)]
    of: Of,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "DiskIoOf")]
enum Of {
    /// The time in which the device works, in percent.
    #[default]
    Busy,
    /// Bytes read. A threshold is a rate, such as `100MiB/s`.
    Read,
    /// Bytes written. A threshold is a rate, such as `100MiB/s`.
    Written,
    /// Reads and writes. A threshold is a rate, such as `500/s`.
    Operations,
}

/// The time of the previous reading, and the busy milliseconds of each device at that time.
pub(super) type Seen = Option<(i64, BTreeMap<String, f64>)>;

pub(super) fn parse(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<DiskIo> {
    let mut table =
        Table::read(reader, node, place.key_span, "DiskIoReading", "`disk_io`", "`disk_io: { device: sda }`")?;
    let device = table.required(reader, "device", &["disk", "path", "name"], "`device: sda`, the name of a device");
    // Names of devices may have slashes, as in `cciss/c0d0`.
    let parse_device = |text: &str| Glob::of_text(text.strip_prefix("/dev/").unwrap_or(text));
    let device = device.and_then(|node| reader.parse_text(node, "`device`", parse_device));
    let of = table.optional(reader, "of");
    let words = [("busy", Of::Busy), ("read", Of::Read), ("written", Of::Written), ("operations", Of::Operations)];
    let of = choice(reader, of, "`of`", &words);
    table.reject_unknown_keys(reader, |_| None);
    Some(DiskIo { device: device?, of })
}

impl DiskIo {
    pub(super) fn measure(&self) -> Measure {
        match self.of {
            Of::Busy => Measure::above(&[Unit::Percent]),
            Of::Read | Of::Written => Measure::above(&[Unit::Bytes]).counter(),
            Of::Operations => Measure::above(&[Unit::Count]).counter(),
        }
    }

    pub(super) fn covers(&self, subject: &str) -> bool {
        self.device.matches(subject)
    }

    pub(super) fn read(&self, files: &SharedFiles, seen: &mut Seen) -> Vec<Finding> {
        let file = match files.read("/proc/diskstats") {
            Ok(file) => file,
            Err(reason) => return vec![Finding::new(self.device.as_str(), Err(reason))],
        };
        let devices: BTreeMap<String, f64> = self.counters(&file.text).collect();
        if devices.is_empty() && self.device.is_plain() {
            let device = self.device.as_str();
            return vec![Finding::new(device, Err(format!("there is no block device `{device}`")))];
        }
        if self.of != Of::Busy {
            return devices.into_iter().map(|(name, count)| Finding::new(name, Ok(Found::value(count)))).collect();
        }
        let before = seen.replace((file.at_ms, devices.clone()));
        let share = |name: &str, busy: f64| {
            let (at_ms, before) = before.as_ref()?;
            let passed = (file.at_ms - at_ms) as f64;
            let worked = busy - before.get(name)?;
            (passed > 0.0 && worked >= 0.0).then(|| (worked * 100.0 / passed).min(100.0))
        };
        let outcome = |(name, busy): (String, f64)| {
            let outcome = share(&name, busy).map_or(Outcome::Pending, |share| Outcome::Read(Found::value(share)));
            Finding { subject: name, outcome }
        };
        devices.into_iter().map(outcome).collect()
    }

    /// Returns the counter of each device that matches. The fields in proc_diskstats(5) are: major, minor and name;
    /// four fields for reads (the number, the merged ones, the sectors of 512 bytes, the milliseconds); the same four
    /// for writes; the number of I/O in progress; the milliseconds of I/O.
    fn counters<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (String, f64)> + 'a {
        text.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let name = *fields.get(2)?;
            let field = |index: usize| fields.get(index)?.parse::<f64>().ok();
            if !self.covers(name) {
                return None;
            }
            let value = match self.of {
                Of::Busy => field(12)?,
                Of::Read => field(5)? * 512.0,
                Of::Written => field(9)? * 512.0,
                Of::Operations => field(3)? + field(7)?,
            };
            Some((name.to_owned(), value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_those_of_the_devices_that_match() {
        let text = "   8       0 sda 10 1 200 5 20 2 400 6 0 70 11\n   8       1 sda1 1 1 2 5 2 2 4 6 0 7 11\n";
        let read =
            |device: &str, of| DiskIo { device: Glob::of_name(device).unwrap(), of }.counters(text).collect::<Vec<_>>();
        assert_eq!(read("sda", Of::Read), [("sda".to_owned(), 102_400.0)]);
        assert_eq!(read("sda", Of::Written), [("sda".to_owned(), 204_800.0)]);
        assert_eq!(read("sda*", Of::Operations), [("sda".to_owned(), 30.0), ("sda1".to_owned(), 3.0)]);
        assert_eq!(read("sda", Of::Busy), [("sda".to_owned(), 70.0)]);
    }
}

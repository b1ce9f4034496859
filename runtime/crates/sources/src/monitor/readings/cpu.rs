//! The check `cpu`: the use of all processors together since the previous reading.

use evoke_manifest::Place;
use evoke_manifest::parser::{Node, Reader, Table};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::quantity::Unit;
use super::super::resources::SharedFiles;
use super::{Finding, Found, Measure, Outcome, choice};

/// Reads the use of all processors of this machine together, in percent.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "CpuReading")]
pub(in super::super) struct Cpu {
    /// Which processor time is read.
    #[serde(default)]
    of: Of,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "CpuOf")]
enum Of {
    /// The time in which the processors work: all time except idle time and waiting for disks.
    #[default]
    Usage,
    /// The time in which the processors only wait for disks.
    Iowait,
    /// The time in which other virtual machines use the processors.
    Steal,
}

pub(super) const MEASURE: Measure = Measure::above(&[Unit::Percent]);

/// The times of the previous reading.
pub(super) type Seen = Option<Times>;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Times {
    total: u64,
    idle: u64,
    iowait: u64,
    steal: u64,
}

pub(super) fn parse(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<Cpu> {
    let mut table = Table::read(reader, node, place.key_span, "CpuReading", "`cpu`", "`cpu: {}`")?;
    let of = table.optional(reader, "of");
    let of = choice(reader, of, "`of`", &[("usage", Of::Usage), ("iowait", Of::Iowait), ("steal", Of::Steal)]);
    table.reject_unknown_keys(reader, |_| None);
    Some(Cpu { of })
}

impl Cpu {
    pub(super) fn read(&self, files: &SharedFiles, seen: &mut Seen) -> Vec<Finding> {
        let times = files
            .read("/proc/stat")
            .and_then(|file| times(&file.text).ok_or_else(|| "/proc/stat has no line `cpu`".to_owned()));
        let times = match times {
            Ok(times) => times,
            Err(reason) => return vec![Finding::new("cpu", Err(reason))],
        };
        let outcome = match seen.replace(times) {
            Some(before) if times.total > before.total => Outcome::Read(Found::value(self.share(before, times))),
            _ => Outcome::Pending,
        };
        vec![Finding { subject: "cpu".to_owned(), outcome }]
    }

    fn share(&self, before: Times, now: Times) -> f64 {
        let passed = |of: fn(Times) -> u64| of(now).saturating_sub(of(before)) as f64;
        let total = passed(|times| times.total);
        let part = match self.of {
            Of::Usage => total - passed(|times| times.idle) - passed(|times| times.iowait),
            Of::Iowait => passed(|times| times.iowait),
            Of::Steal => passed(|times| times.steal),
        };
        (part * 100.0 / total).clamp(0.0, 100.0)
    }
}

/// Parses the first line of /proc/stat (proc_stat(5)): user, nice, system, idle, iowait, irq, softirq, steal. The guest
/// times that follow are ignored, because they are part of user and nice.
fn times(stat: &str) -> Option<Times> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line.split_ascii_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    let at = |index: usize| fields.get(index).copied().unwrap_or_default();
    (fields.len() >= 4).then(|| Times { total: fields.iter().sum(), idle: at(3), iowait: at(4), steal: at(7) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_the_time_between_two_readings() {
        let before = times("cpu  100 0 100 700 50 0 0 50 0 0\ncpu0 1 1 1 1\n").unwrap();
        let now = times("cpu  140 0 110 730 60 0 0 60 0 0\n").unwrap();
        let share = |of| Cpu { of }.share(before, now);
        assert_eq!([Of::Usage, Of::Iowait, Of::Steal].map(share), [60.0, 10.0, 10.0]);
        assert_eq!(times("intr 1"), None);
    }
}

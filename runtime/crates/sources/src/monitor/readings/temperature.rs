//! The check `temperature`: the sensors of the kernel's hardware monitoring.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use evoke_manifest::Place;
use evoke_manifest::parser::{Node, Reader, Table};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::quantity::Unit;
use super::globs::Glob;
use super::{Finding, Found, Measure, globs};

/// Reads temperature sensors of this machine.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "TemperatureReading")]
pub(in super::super) struct Temperature {
    /// Name of the sensor: the name of the chip and the label, such as `coretemp/Core 0`. With wildcards, each sensor
    /// that matches is watched separately; `*` also matches the slash. Several sensors can have the same name, as
    /// sensors of disks do. Then the name of the device follows: `nvme/Composite (nvme0)`. The name without the device
    /// matches all of them.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    sensor: Glob,
}

pub(super) const MEASURE: Measure = Measure::above(&[Unit::Celsius]);

pub(super) fn parse(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<Temperature> {
    let example = "`temperature: { sensor: \"coretemp/*\" }`";
    let mut table = Table::read(reader, node, place.key_span, "TemperatureReading", "`temperature`", example)?;
    let sensor = match table.optional(reader, "sensor") {
        Some(node) => reader.parse_text(node, "`sensor`", Glob::of_text)?,
        None => Glob::default(),
    };
    table.reject_unknown_keys(reader, |_| None);
    Some(Temperature { sensor })
}

impl Temperature {
    pub(super) fn covers(&self, subject: &str) -> bool {
        let name = subject.rsplit_once(DEVICE).map_or(subject, |(name, _)| name);
        self.sensor.matches(subject) || self.sensor.matches(name)
    }

    /// Reads the sensors that match. `sys` is /sys. The kernel document hwmon/sysfs-interface describes the files:
    /// `temp1_input` is in thousandths of a degree, `temp1_label` is a text.
    pub(super) fn read(&self, sys: &Path) -> Vec<Finding> {
        let inputs = globs::expand(&sys.join("class/hwmon/hwmon*/temp*_input"));
        let sensors: Vec<(String, PathBuf)> =
            inputs.into_iter().filter_map(|input| Some((name(&input)?, input))).collect();
        let mut with_name: HashMap<&str, usize> = HashMap::new();
        sensors.iter().for_each(|(name, _)| *with_name.entry(name).or_default() += 1);
        let read = |(name, input): &(String, PathBuf)| {
            let is_only = with_name.get(name.as_str()) == Some(&1);
            let subject = if is_only { name.clone() } else { format!("{name}{DEVICE}{})", device(input)) };
            self.covers(&subject).then(|| {
                let value = text(input).and_then(|text| text.parse::<f64>().ok());
                let found = value.map(|millis| Found::value(millis / 1_000.0));
                Finding::new(subject, found.ok_or_else(|| "the sensor returned no number".to_owned()))
            })
        };
        sensors.iter().filter_map(read).collect()
    }
}

/// The text between the name of a sensor and its device.
const DEVICE: &str = " (";

/// Returns the name of a sensor: the name of its chip and its label.
fn name(input: &Path) -> Option<String> {
    let file = input.file_name()?.to_str()?;
    let chip = text(&input.with_file_name("name"))?;
    let label = text(&input.with_file_name(file.replace("_input", "_label")));
    let label = label.unwrap_or_else(|| file.trim_end_matches("_input").to_owned());
    Some(globs::shown(Path::new(&format!("{chip}/{label}"))))
}

/// Returns the name of a sensor's device, such as `nvme0`. If the sensor has no device, returns the name of its chip.
fn device(input: &Path) -> String {
    let chip = input.parent().unwrap_or(input);
    let device = chip.join("device").canonicalize().unwrap_or_else(|_| chip.to_owned());
    globs::shown(Path::new(device.file_name().unwrap_or_default()))
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sensors_have_the_name_of_their_chip_and_their_label() {
        let sys = tempfile::tempdir().unwrap();
        let chip = sys.path().join("class/hwmon/hwmon0");
        std::fs::create_dir_all(&chip).unwrap();
        for (file, text) in
            [("name", "coretemp\n"), ("temp1_input", "45500\n"), ("temp1_label", "Core 0\n"), ("temp2_input", "x\n")]
        {
            std::fs::write(chip.join(file), text).unwrap();
        }
        let read = |sensor: &str| Temperature { sensor: Glob::of_text(sensor).unwrap() }.read(sys.path());
        assert_eq!(read("coretemp/Core*"), [Finding::new("coretemp/Core 0", Ok(Found::value(45.5)))]);
        assert_eq!(read("*").len(), 2);
        assert_eq!(read("nvme*"), []);
    }

    #[test]
    fn sensors_with_one_name_have_that_of_their_device() {
        let sys = tempfile::tempdir().unwrap();
        for (at, device, millis) in [(0, "nvme0", "40000"), (1, "nvme1", "90000"), (2, "", "50000")] {
            let chip = sys.path().join(format!("class/hwmon/hwmon{at}"));
            std::fs::create_dir_all(&chip).unwrap();
            for (file, text) in [("name", "nvme"), ("temp1_input", millis), ("temp1_label", "Composite")] {
                std::fs::write(chip.join(file), text).unwrap();
            }
            if !device.is_empty() {
                let device = sys.path().join("devices").join(device);
                std::fs::create_dir_all(&device).unwrap();
                std::os::unix::fs::symlink(device, chip.join("device")).unwrap();
            }
        }
        let sensor = |sensor: &str| Temperature { sensor: Glob::of_text(sensor).unwrap() };
        let read =
            |text: &str| sensor(text).read(sys.path()).into_iter().map(|found| found.subject).collect::<Vec<_>>();
        let all = ["nvme/Composite (nvme0)", "nvme/Composite (nvme1)", "nvme/Composite (hwmon2)"];
        for every in ["*", "nvme/Composite", "nvme/*"] {
            assert_eq!(read(every), all, "{every}");
            assert!(all.iter().all(|subject| sensor(every).covers(subject)), "{every}");
        }
        assert_eq!(read("nvme/Composite (nvme1)"), all[1..2]);
        assert_eq!(read("nvme"), [""; 0]);
    }
}

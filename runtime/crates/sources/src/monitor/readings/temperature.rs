//! `temperature`: the sensors of the kernel's hardware monitoring.

use std::path::Path;

use evoke_manifest::Place;
use evoke_manifest::parser::{Node, Reader, Table};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::quantity::Unit;
use super::globs::Glob;
use super::{Finding, Found, Measure, globs};

/// The temperature sensors of this machine.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "TemperatureReading")]
pub(in super::super) struct Temperature {
    /// Name of the sensor: that of the chip and its label, such as `coretemp/Core 0`. With wildcards, each one that matches
    /// is a subject; `*` also matches the slash.
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
        self.sensor.matches(subject)
    }

    /// `sys` is /sys. Files by the kernel's hwmon/sysfs-interface: `temp1_input` in thousandths of a degree, `temp1_label`.
    pub(super) fn read(&self, sys: &Path) -> Vec<Finding> {
        let inputs = globs::expand(&sys.join("class/hwmon/hwmon*/temp*_input"));
        let text = |path: &Path| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let sensors = inputs.iter().filter_map(|input| {
            let file = input.file_name()?.to_str()?;
            let chip = text(&input.with_file_name("name"))?;
            let label = text(&input.with_file_name(file.replace("_input", "_label")));
            let label = label.unwrap_or_else(|| file.trim_end_matches("_input").to_owned());
            let name = format!("{chip}/{label}");
            self.covers(&name).then(|| {
                let value = text(input).and_then(|text| text.parse::<f64>().ok());
                let found = value.map(|millis| Found::value(millis / 1_000.0));
                Finding::new(name, found.ok_or_else(|| "the sensor has no value".to_owned()))
            })
        });
        sensors.collect()
    }
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
}

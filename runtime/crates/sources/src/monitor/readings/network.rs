//! The check `network`: the traffic and the link of network interfaces.

use std::path::Path;

use evoke_manifest::Place;
use evoke_manifest::parser::{Node, Reader, Table};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::quantity::Unit;
use super::super::resources::SharedFiles;
use super::globs::Glob;
use super::{Finding, Found, Measure, choice};

/// Reads the traffic or the link of network interfaces.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "NetworkReading")]
pub(in super::super) struct Network {
    /// Name of the interface, such as `eth0`. With wildcards, each interface that matches is watched separately.
    #[schemars(with = "String", length(min = 1))]
    interface: Glob,
    /// The measured quantity.
    #[serde(default)]
    of: Of,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "NetworkOf")]
enum Of {
    /// Whether the link is up. The state is critical while it is down.
    #[default]
    Link,
    /// Received bytes. A threshold is a rate, such as `100MiB/s`.
    Received,
    /// Sent bytes. A threshold is a rate, such as `100MiB/s`.
    Sent,
    /// Errors in both directions. A threshold is a rate, such as `1/m`.
    Errors,
    /// Dropped packets in both directions. A threshold is a rate, such as `10/s`.
    Dropped,
}

pub(super) fn parse(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<Network> {
    let example = "`network: { interface: eth0, of: received }`";
    let mut table = Table::read(reader, node, place.key_span, "NetworkReading", "`network`", example)?;
    let interface = table.required(reader, "interface", &["device", "name", "link"], "`interface: eth0`");
    let interface = interface.and_then(|node| reader.parse_text(node, "`interface`", Glob::of_text));
    let of = table.optional(reader, "of");
    let words = [
        ("link", Of::Link),
        ("received", Of::Received),
        ("sent", Of::Sent),
        ("errors", Of::Errors),
        ("dropped", Of::Dropped),
    ];
    let of = choice(reader, of, "`of`", &words);
    table.reject_unknown_keys(reader, |_| None);
    Some(Network { interface: interface?, of })
}

impl Network {
    pub(super) fn measure(&self) -> Measure {
        match self.of {
            Of::Link => Measure::below(&[Unit::Count]).with_own_levels(),
            Of::Received | Of::Sent => Measure::above(&[Unit::Bytes]).counter(),
            Of::Errors | Of::Dropped => Measure::above(&[Unit::Count]).counter(),
        }
    }

    pub(super) fn covers(&self, subject: &str) -> bool {
        self.interface.matches(subject)
    }

    /// Reads the interfaces that match. `links` is the folder of the interfaces, /sys/class/net.
    pub(super) fn read(&self, files: &SharedFiles, links: &Path) -> Vec<Finding> {
        let file = match files.read("/proc/net/dev") {
            Ok(file) => file,
            Err(reason) => return vec![Finding::new(self.interface.as_str(), Err(reason))],
        };
        let found: Vec<Finding> = self
            .counters(&file.text)
            .map(|(name, count)| {
                let found = match self.of {
                    Of::Link => link(&links.join(&name)),
                    _ => Found::value(count),
                };
                Finding::new(name, Ok(found))
            })
            .collect();
        if found.is_empty() && self.interface.is_plain() {
            let interface = self.interface.as_str();
            return vec![Finding::new(interface, Err(format!("there is no network interface `{interface}`")))];
        }
        found
    }

    /// Returns the counter of each interface that matches. The fields in proc_net_dev(5) are: received bytes, packets,
    /// errors, drops and four others, then the same eight for sent data.
    fn counters<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (String, f64)> + 'a {
        text.lines().filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let name = name.trim();
            if !self.covers(name) {
                return None;
            }
            let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
            let field = |index: usize| fields.get(index)?.parse::<f64>().ok();
            let value = match self.of {
                Of::Link => 0.0,
                Of::Received => field(0)?,
                Of::Sent => field(8)?,
                Of::Errors => field(2)? + field(10)?,
                Of::Dropped => field(3)? + field(11)?,
            };
            Some((name.to_owned(), value))
        })
    }
}

/// Reads the state of a link. For virtual interfaces without a link, the kernel returns `unknown`; they count as up.
fn link(folder: &Path) -> Found {
    match std::fs::read_to_string(folder.join("operstate")).unwrap_or_default().trim() {
        "up" | "unknown" => Found::value(1.0),
        state => Found { value: Some(0.0), ..Found::critical(format!("the link is {state}")) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evoke_threshold::Level;

    #[test]
    fn counters_and_links_are_those_of_the_interfaces_that_match() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0\n  eth0: 100 2 3 4 0 0 0 0 200 2 5 6 0 0 0 0\n";
        let read = |of| Network { interface: Glob::of_name("eth*").unwrap(), of }.counters(text).collect::<Vec<_>>();
        assert_eq!(read(Of::Received), [("eth0".to_owned(), 100.0)]);
        assert_eq!(read(Of::Sent), [("eth0".to_owned(), 200.0)]);
        assert_eq!(read(Of::Errors), [("eth0".to_owned(), 8.0)]);
        assert_eq!(read(Of::Dropped), [("eth0".to_owned(), 10.0)]);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("operstate"), "down\n").unwrap();
        assert_eq!(link(folder.path()).at_least, Level::Critical);
        std::fs::write(folder.path().join("operstate"), "up\n").unwrap();
        assert_eq!(link(folder.path()).at_least, Level::Ok);
    }
}

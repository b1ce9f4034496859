//! The check `process`: running programs, found by name, command line or pid file.

use std::path::PathBuf;

use evoke_manifest::Place;
use evoke_manifest::parser::{Node, Reader, Table};
use evoke_threshold::Level;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::processes::{Processes, Running};
use super::super::quantity::Unit;
use super::globs::{self, Glob};
use super::{Finding, Found, Measure, choice};

/// Reads properties of running programs. The state is critical if no such program runs.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "ProcessReading", extend("oneOf" = [{ "required": ["name"] }, { "required": ["command"] }, { "required": ["pid_file"] }]))]
pub(in super::super) struct Process {
    /// Name of the program, such as `nginx`: the name of the process, or of the file that it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Command line with wildcards, such as `*/python3 *worker.py*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    command: Option<Glob>,
    /// A file that contains the process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pid_file: Option<PathBuf>,
    /// The property to read.
    #[serde(default)]
    of: Of,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ProcessOf")]
enum Of {
    /// The number of processes.
    #[default]
    Count,
    /// The resident memory of all processes together.
    Memory,
    /// How often the oldest process was started again. A threshold is a rate, such as `3/h`.
    Restarts,
}

/// The start time of the oldest process, and how often this time changed.
#[derive(Debug, Default)]
pub(super) struct Seen {
    started: Option<u64>,
    restarts: u32,
}

pub(super) fn parse(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<Process> {
    let example = "`process: { name: nginx }`";
    let mut table = Table::read(reader, node, place.key_span, "ProcessReading", "`process`", example)?;
    let name = table.optional(reader, "name").and_then(|node| reader.text(node, "`name`")).map(str::to_owned);
    let command = table.optional(reader, "command");
    let command = command.and_then(|node| reader.parse_text(node, "`command`", Glob::of_text));
    let pid_file = table.optional(reader, "pid_file").and_then(|node| reader.text(node, "`pid_file`"));
    let pid_file = pid_file.map(|text| place.folder.join(text));
    let of = table.optional(reader, "of");
    let of = choice(reader, of, "`of`", &[("count", Of::Count), ("memory", Of::Memory), ("restarts", Of::Restarts)]);
    let given: Vec<&str> = ["name", "command", "pid_file"].into_iter().filter(|key| table.has(key)).collect();
    match given[..] {
        [] => {
            let message = "`process` needs one of `name`, `command` and `pid_file`";
            reader.error(table.span(), message, "add `name: nginx`, `command` or `pid_file`");
        }
        [_] => {}
        [_, second, ..] => {
            let message = "`process` can have only one of `name`, `command` and `pid_file`";
            reader.error(table.key_span(second), message, "remove all but one of them");
        }
    }
    table.reject_unknown_keys(reader, |key| match key {
        "pid" | "pidfile" => Some("did you mean `pid_file`?"),
        "cmdline" | "args" => Some("did you mean `command`?"),
        _ => None,
    });
    (given.len() == 1 && (name.is_some() || command.is_some() || pid_file.is_some())).then_some(Process {
        name,
        command,
        pid_file,
        of,
    })
}

impl Process {
    pub(super) fn measure(&self) -> Measure {
        let measure = match self.of {
            Of::Count => Measure::below(&[Unit::Count]),
            Of::Memory => Measure::above(&[Unit::Bytes]),
            Of::Restarts => Measure::above(&[Unit::Count]).counter(),
        };
        measure.with_own_levels()
    }

    pub(super) fn subject(&self) -> String {
        let path = self.pid_file.as_deref().map(globs::shown);
        let command = self.command.as_ref().map(|command| command.as_str().to_owned());
        self.name.clone().or(command).or(path).unwrap_or_default()
    }

    pub(super) fn read(&self, processes: &Processes, seen: &mut Seen) -> Vec<Finding> {
        let found = self.find(processes).map(|running| self.found(&running, seen));
        vec![Finding::new(self.subject(), found)]
    }

    fn find(&self, processes: &Processes) -> Result<Vec<Running>, String> {
        if let Some(path) = &self.pid_file {
            let text = match evoke_fs::read_text(path, 64) {
                Ok(text) => text,
                Err(_) if !path.exists() => return Ok(Vec::new()),
                Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
            };
            let pid = text
                .trim()
                .parse::<u32>()
                .map_err(|_| format!("the pid file {} does not contain a process id", path.display()))?;
            return processes.find(|running| running.pid == pid);
        }
        processes.find(|running| match (&self.name, &self.command) {
            (Some(name), _) => *running.name == **name || running.program() == name,
            (None, Some(command)) => command.matches(&running.command),
            (None, None) => false,
        })
    }

    fn found(&self, running: &[Running], seen: &mut Seen) -> Found {
        let oldest = running.iter().map(|one| one.started).min();
        if let (Some(before), Some(now)) = (seen.started, oldest)
            && now > before
        {
            seen.restarts += 1;
        }
        seen.started = oldest.or(seen.started);
        let value = match self.of {
            Of::Count => running.len() as f64,
            Of::Memory => running.iter().map(|one| one.memory_bytes as f64).sum(),
            Of::Restarts => f64::from(seen.restarts),
        };
        // If no process runs, there is no value for the memory. The other properties still have a value.
        let is_absent = running.is_empty();
        let value = (self.of != Of::Memory || !is_absent).then_some(value);
        let absent = || Found { value, ..Found::critical("no such process runs") };
        if is_absent { absent() } else { Found { value, at_least: Level::Ok, detail: None } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(started: u64) -> Running {
        Running { pid: 1, name: "sshd".into(), command: "/usr/sbin/sshd -D".into(), started, memory_bytes: 1_000 }
    }

    fn process(of: Of) -> Process {
        Process { name: Some("sshd".into()), command: None, pid_file: None, of }
    }

    #[test]
    fn a_process_that_started_again_counts_as_a_restart() {
        let mut seen = Seen::default();
        let mut read = |all: &[Running]| process(Of::Restarts).found(all, &mut seen).value;
        assert_eq!(read(&[running(10)]), Some(0.0));
        assert_eq!(read(&[running(10), running(20)]), Some(0.0), "a second process is not a restart");
        assert_eq!(read(&[]), Some(0.0));
        assert_eq!(read(&[running(30)]), Some(1.0));
    }

    #[test]
    fn an_absent_process_is_critical() {
        let mut seen = Seen::default();
        assert_eq!(process(Of::Count).found(&[], &mut seen).at_least, Level::Critical);
        assert_eq!(process(Of::Memory).found(&[running(1), running(2)], &mut seen), Found::value(2_000.0));
    }
}

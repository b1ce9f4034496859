//! The check `command`: runs a program with the interface of monitoring plugins, such as those of Nagios.
//!
//! A plugin prints a text, then `|` and performance data. Its exit code is the state: 0 ok, 1 warning, 2 critical, 3
//! unknown (Monitoring Plugins Development Guidelines, sections "Plugin Return Codes" and "Performance data").

mod performance;
mod run;

use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evoke_manifest::Place;
use evoke_manifest::parser::{Node, Reader, Table};
use evoke_manifest::units::DurationText;
use evoke_threshold::Level;
use schemars::JsonSchema;
use serde::Serialize;

use self::run::Ended;
use super::super::quantity::Unit;
use super::super::resources::Resources;
use super::{Finding, Found, Measure, globs};

/// Maximum number of entries of `run`: the program and its arguments.
const ARGUMENTS_MAX: usize = 256;
const TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(600);
/// The longest wait for the start of a program while programs of other monitors run.
const START_MAX: Duration = Duration::from_secs(60);

/// Runs a program with the interface of monitoring plugins: its exit code is the state, and a number in its performance
/// data is the value. The operator must allow commands with `evoke up --allow-commands`.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "CommandReading")]
pub(in super::super) struct Command {
    /// The program and its arguments. No shell is used. A relative path starts at the manifest's folder.
    #[schemars(length(min = 1))]
    run: Vec<String>,
    /// The label of the value in the performance data. Without this key, the first value is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    /// Maximum run time of the program. After this time, the program and its children are killed.
    #[serde(default = "timeout_default", with = "DurationText")]
    timeout: Duration,
}

fn timeout_default() -> Duration {
    Duration::from_secs(10)
}

pub(super) const MEASURE: Measure = Measure::above(Unit::ALL).with_own_levels();

pub(super) fn parse(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<Command> {
    let example = "`command: { run: [/usr/lib/nagios/plugins/check_load, -w, \"5\", -c, \"10\"] }`";
    let mut table = Table::read(reader, node, place.key_span, "CommandReading", "`command`", example)?;
    let run = table.required(reader, "run", &["command", "exec", "cmd", "plugin"], "`run: [PROGRAM, ARGUMENT]`");
    let run = run.map(|node| {
        let items =
            reader.nonempty_list(node, "`run`", "there is nothing to run", "write the program and its arguments");
        if items.len() > ARGUMENTS_MAX {
            let message = format!("`run` has {} entries, more than the maximum of {ARGUMENTS_MAX}", items.len());
            reader.error(node.span, message, "put this command into a script, and write the path of the script here");
        }
        items.iter().filter_map(|item| reader.text(item, "an argument")).map(str::to_owned).collect::<Vec<String>>()
    });
    let label = table.optional(reader, "label").and_then(|node| reader.text(node, "`label`")).map(str::to_owned);
    let timeout = table.optional(reader, "timeout");
    let timeout = timeout.and_then(|node| reader.duration(node, "`timeout`", TIMEOUT_RANGE));
    table.reject_unknown_keys(reader, |key| match key {
        "args" | "arguments" => Some("write the arguments after the program: `run: [PROGRAM, ARGUMENT]`"),
        "env" => {
            Some("remove it: the environment is fixed; to set a variable, write `run: [env, NAME=VALUE, PROGRAM]`")
        }
        _ => None,
    });
    let mut run = run.filter(|run| !run.is_empty())?;
    // A name without a slash stays as it is: the program is searched in the folders of `PATH`.
    if let Some(program) = run.first_mut().filter(|program| program.contains('/')) {
        let path = std::path::absolute(place.folder.join(&*program)).unwrap_or_else(|_| place.folder.join(&*program));
        *program = path.to_string_lossy().into_owned();
    }
    Some(Command { run, label, timeout: timeout.unwrap_or_else(timeout_default) })
}

impl Command {
    /// Returns the subject: the file name of the program.
    pub(super) fn subject(&self) -> String {
        let program = self.run.first().map(Path::new).and_then(Path::file_name).and_then(OsStr::to_str);
        globs::shown(Path::new(program.unwrap_or_default()))
    }

    /// Returns the longest time of a reading, with the wait for the start of the program.
    pub(super) fn reading_max(&self) -> Duration {
        START_MAX + self.timeout
    }

    pub(super) async fn read(&self, resources: &Arc<Resources>, unit: Unit) -> Vec<Finding> {
        vec![Finding::new(self.subject(), self.check(resources, unit).await)]
    }

    async fn check(&self, resources: &Resources, unit: Unit) -> Result<Found, String> {
        if !resources.allow_commands {
            return Err("commands are not allowed: start Evoke with `evoke up --allow-commands`".to_owned());
        }
        // This cannot return an error, because the semaphore is never closed.
        let _permit = resources.commands.acquire().await.map_err(|error| error.to_string())?;
        let ended = run::run(&self.run, self.timeout).await?;
        self.found(&ended, unit)
    }

    /// Converts the exit code and the output of a program to a reading. A warning or critical exit code counts even if
    /// the performance data has no value, because a plugin that could not measure prints no value.
    fn found(&self, Ended { code, output }: &Ended, unit: Unit) -> Result<Found, String> {
        let (text, data) = performance::split(output);
        let at_least = match code {
            Some(0) => Level::Ok,
            Some(1) => Level::Warning,
            Some(2) => Level::Critical,
            Some(3) => return Err(text),
            Some(code) => return Err(format!("the program exited with {code}, but must exit with 0 to 3: {text}")),
            None => return Err(format!("the program was killed by a signal: {text}")),
        };
        let value = match performance::find(&data, self.label.as_deref(), unit) {
            Err(_) if at_least > Level::Ok => None,
            value => value?,
        };
        Ok(Found { value, at_least, detail: (!text.is_empty()).then_some(text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_counts_without_the_performance_data() {
        let label = Some("load1".to_owned());
        let check = Command { run: vec!["check_load".to_owned()], label, timeout: timeout_default() };
        let found =
            |code, output: &str| check.found(&Ended { code: Some(code), output: output.to_owned() }, Unit::Count);
        let with_value = found(1, "LOAD WARNING|load1=5").unwrap();
        assert_eq!((with_value.value, with_value.at_least), (Some(5.0), Level::Warning));
        for output in ["CRITICAL: timed out", "CRITICAL|load5=1"] {
            let without = found(2, output).unwrap();
            assert_eq!((without.value, without.at_least), (None, Level::Critical), "{output}");
        }
        assert!(found(0, "OK").is_err() && found(3, "UNKNOWN").is_err() && found(4, "?").is_err());
    }
}

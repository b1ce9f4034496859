//! The check `unit`: the states of systemd units.

use std::collections::HashSet;

use evoke_manifest::Place;
use evoke_manifest::parser::{Node, Reader, Table, Value, ValueError, excerpt};
use evoke_threshold::Level;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use super::super::quantity::Unit;
use super::super::resources::Resources;
use super::super::systemd::{Bus, Query, UnitState};
use super::globs::{self, Glob};
use super::{Finding, Found, Measure, Outcome, choice};

/// Reads the states of systemd units. By default, the state is ok while a unit is active, a warning while it starts,
/// stops or reloads, and critical otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "UnitReading")]
pub(in super::super) struct SystemdUnit {
    /// The name of a unit with its suffix, such as `nginx.service`, or a list of names. With wildcards, as in
    /// `postgresql@*.service`, each loaded unit that matches is watched separately.
    #[schemars(schema_with = "names_schema")]
    name: Vec<Glob>,
    /// The expected state of the unit. If a name has wildcards, the default is `not-failed`.
    #[serde(default)]
    expect: Expect,
    /// The property to read.
    #[serde(default)]
    of: Of,
    /// The message bus on which systemd is queried.
    #[serde(default)]
    bus: Bus,
}

fn names_schema(_: &mut SchemaGenerator) -> Schema {
    let one = serde_json::json!({ "type": "string", "minLength": 1 });
    json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1, "maxItems": NAMES_MAX }] })
}

/// Maximum number of names in one monitor.
const NAMES_MAX: usize = 64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "UnitExpect")]
enum Expect {
    /// The unit is active. A unit that starts, stops or reloads is a warning. Any other state is critical, also if the
    /// unit does not exist.
    #[default]
    Active,
    /// The unit is inactive, or does not exist. A unit that starts or stops is a warning. Any other state is critical.
    Inactive,
    /// The unit has not failed. A failed unit is critical; a service that systemd restarts after a failure is a
    /// warning.
    NotFailed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "UnitOf")]
enum Of {
    /// Whether the unit is in the state that `expect` requires.
    #[default]
    State,
    /// How often systemd restarted the service by itself. A threshold is a rate, such as `> 3/h`.
    Restarts,
}

/// The suffixes of unit names, which are the types of units: systemd.unit(5).
const SUFFIXES: [&str; 11] =
    ["service", "socket", "target", "device", "mount", "automount", "swap", "timer", "path", "slice", "scope"];
/// Maximum length of the name of a unit: systemd.unit(5).
const NAME_BYTES_MAX: usize = 255;

pub(super) fn parse(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<SystemdUnit> {
    let example = "`unit: { name: nginx.service }`";
    let mut table = Table::read(reader, node, place.key_span, "UnitReading", "`unit`", example)?;
    let aliases = ["unit", "units", "names", "service"];
    let name = table.required(reader, "name", &aliases, "`name: nginx.service`");
    let name = name.and_then(|node| names(reader, node));
    let expect = table.optional(reader, "expect");
    let has_wildcards = name.iter().flatten().any(|name| !name.is_plain());
    let expect = match expect {
        None if has_wildcards => Expect::NotFailed,
        node => choice(reader, node, "`expect`", &EXPECTATIONS),
    };
    let of = table.optional(reader, "of");
    let of = choice(reader, of, "`of`", &[("state", Of::State), ("restarts", Of::Restarts)]);
    let bus = table.optional(reader, "bus");
    let bus = choice(reader, bus, "`bus`", &[("system", Bus::System), ("user", Bus::User)]);
    if of == Of::Restarts
        && let Some(other) = name.iter().flatten().find(|name| !name.as_str().ends_with(".service"))
    {
        let message = format!("`{}` is not a service: only services have restarts", excerpt(other.as_str()));
        reader.error(table.key_span("name"), message, "write only services, such as `nginx.service`");
    }
    table.reject_unknown_keys(reader, |key| match key {
        "unit" | "units" | "names" => Some("did you mean `name`?"),
        "service" => Some("write `name: NAME.service`"),
        "state" | "states" | "expected" => Some("did you mean `expect`?"),
        "warning" | "critical" | "for" => Some("write the key next to `unit`, not inside `unit`"),
        _ => None,
    });
    Some(SystemdUnit { name: name?, expect, of, bus })
}

const EXPECTATIONS: [(&str, Expect); 3] =
    [("active", Expect::Active), ("inactive", Expect::Inactive), ("not-failed", Expect::NotFailed)];

/// Reads one name or a list of names.
fn names(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<Glob>> {
    let Value::List(items) = &node.value else {
        return reader.parse_text(node, "`name`", unit_name).map(|name| vec![name]);
    };
    if items.is_empty() || items.len() > NAMES_MAX {
        let message = format!("`name` must have 1 to {NAMES_MAX} names, found {}", items.len());
        reader.error(node.span, message, "write names such as `nginx.service`, or one with `*`");
        return None;
    }
    let names: Vec<Glob> = items.iter().filter_map(|item| reader.parse_text(item, "a name", unit_name)).collect();
    (names.len() == items.len()).then_some(names)
}

/// Parses the name of a unit, which may have wildcards.
fn unit_name(text: &str) -> Result<Glob, ValueError> {
    let wrong = |problem: &str, help: String| ValueError::new(format!("`{}` {problem}", excerpt(text)), help);
    let example = "write the name as `systemctl list-units` prints it, such as `nginx.service`";
    let is_valid = |c: char| is_name_char(c) || globs::is_glob(text) && "*?[]!".contains(c);
    if text.len() > NAME_BYTES_MAX || !text.chars().all(is_valid) {
        return Err(wrong("is not the name of a unit", example.to_owned()));
    }
    let has_suffix =
        |(name, suffix): (&str, &str)| !name.is_empty() && (SUFFIXES.contains(&suffix) || globs::is_glob(suffix));
    if !text.rsplit_once('.').is_some_and(has_suffix) && !text.ends_with('*') {
        return Err(wrong("has no suffix of a unit", format!("write the suffix, as in `{}.service`", excerpt(text))));
    }
    if let Some((template, suffix)) = text.split_once("@.") {
        let help = format!("write an instance: `{template}@NAME.{suffix}`, or all instances: `{template}@*.{suffix}`");
        return Err(wrong("is a template, and only its instances have a state", help));
    }
    Glob::of_unit(text)
}

/// Returns true if the name of a unit may contain the character.
fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || ":-_.\\@".contains(c)
}

impl SystemdUnit {
    pub(super) fn measure(&self) -> Measure {
        match self.of {
            // A state has no value, so there is no unit for thresholds.
            Of::State => Measure::below(&[]).with_own_levels(),
            Of::Restarts => Measure::above(&[Unit::Count]).counter().with_own_levels(),
        }
    }

    /// Returns the names without wildcards.
    pub(super) fn fixed(&self) -> Vec<String> {
        self.name.iter().filter(|name| name.is_plain()).map(|name| name.as_str().to_owned()).collect()
    }

    pub(super) fn covers(&self, subject: &str) -> bool {
        self.name.iter().any(|name| name.matches(subject))
    }

    /// Returns the outcome for a unit that matched a pattern before and is now missing in the reply of systemd. Systemd
    /// has unloaded this unit, as it does with inactive units that nothing needs.
    pub(super) fn gone(&self) -> Outcome {
        let word = |word: &str| word.to_owned();
        let [load, active, sub] = [word("not-found"), word("inactive"), word("dead")];
        match self.of {
            Of::State => Outcome::Read(self.found(&UnitState { load, active, sub, ..UnitState::default() })),
            Of::Restarts => Outcome::Unknown("it is not loaded any more".to_owned()),
        }
    }

    /// Reads the states of all units. An error is the reason why no unit could be read.
    pub(super) async fn read(&self, resources: &Resources) -> Result<Vec<Finding>, String> {
        let (plain, patterns): (Vec<&Glob>, Vec<&Glob>) = self.name.iter().partition(|name| name.is_plain());
        let query = Query {
            names: plain.iter().map(|name| name.as_str()).collect(),
            patterns: patterns.iter().map(|pattern| pattern.as_str()).collect(),
            with_restarts: self.of == Of::Restarts,
        };
        let units = resources.systemd.read(self.bus, &query).await?;
        let mut seen = HashSet::new();
        let matches = |(position, unit): &(usize, UnitState)| {
            // systemd has applied the patterns already. They are checked again, because its reply is not trusted.
            let is_valid = || unit.name.chars().all(is_name_char) && unit.name.len() <= NAME_BYTES_MAX;
            *position < query.names.len() || is_valid() && patterns.iter().any(|pattern| pattern.matches(&unit.name))
        };
        let units = units.into_iter().enumerate().filter(matches).map(|(_, unit)| unit);
        let units = units.filter(|unit| seen.insert(unit.name.clone()));
        Ok(units.map(|unit| Finding::new(unit.name.clone(), Ok(self.found(&unit)))).collect())
    }

    fn found(&self, unit: &UnitState) -> Found {
        let value = unit.restarts.filter(|_| self.of == Of::Restarts).map(f64::from);
        let level = self.level(unit);
        let detail = (level != Level::Ok).then(|| {
            let UnitState { active, sub, load, .. } = unit;
            match (load.as_str(), active.as_str()) {
                ("not-found", "inactive") => "there is no such unit".to_owned(),
                ("masked", "inactive") => "the unit is masked".to_owned(),
                _ => format!("the unit is {active} ({sub})"),
            }
        });
        Found { value, at_least: level, detail }
    }

    /// Returns the level for the state of a unit. org.freedesktop.systemd1(5) describes the states under "ActiveState".
    /// States of later versions of systemd, such as `maintenance` and `refreshing`, are transitions to another state.
    fn level(&self, unit: &UnitState) -> Level {
        // The service has failed, and systemd will start it again soon.
        let is_restarting = unit.sub.starts_with("auto-restart");
        match (self.expect, unit.active.as_str()) {
            (_, "failed") => Level::Critical,
            (_, "activating") if is_restarting => Level::Warning,
            (Expect::NotFailed, _) | (Expect::Active, "active") | (Expect::Inactive, "inactive") => Level::Ok,
            (Expect::Active, "inactive") | (Expect::Inactive, "active" | "reloading" | "refreshing") => Level::Critical,
            _ => Level::Warning,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str, expect: Expect) -> SystemdUnit {
        SystemdUnit { name: vec![unit_name(name).unwrap()], expect, of: Of::State, bus: Bus::System }
    }

    fn state(load: &str, active: &str, sub: &str) -> UnitState {
        UnitState { load: load.into(), active: active.into(), sub: sub.into(), ..UnitState::default() }
    }

    #[test]
    fn each_state_of_a_unit_has_a_level_for_what_is_expected() {
        use Level::{Critical, Ok, Warning};
        for (active, sub, levels) in [
            ("active", "running", [Ok, Critical, Ok]),
            ("reloading", "reload", [Warning, Critical, Ok]),
            ("activating", "start", [Warning, Warning, Ok]),
            ("activating", "auto-restart", [Warning, Warning, Warning]),
            ("deactivating", "stop", [Warning, Warning, Ok]),
            ("inactive", "dead", [Critical, Ok, Ok]),
            ("failed", "failed", [Critical, Critical, Critical]),
            ("some-later-state", "x", [Warning, Warning, Ok]),
        ] {
            let level = |expect| unit("a.service", expect).found(&state("loaded", active, sub)).at_least;
            let found = [Expect::Active, Expect::Inactive, Expect::NotFailed].map(level);
            assert_eq!(found, levels, "{active} {sub}");
        }
    }

    #[test]
    fn a_problem_is_named() {
        let detail = |load, active, sub| unit("a.service", Expect::Active).found(&state(load, active, sub)).detail;
        assert_eq!(detail("loaded", "active", "running"), None);
        assert_eq!(detail("loaded", "failed", "failed").as_deref(), Some("the unit is failed (failed)"));
        assert_eq!(detail("not-found", "inactive", "dead").as_deref(), Some("there is no such unit"));
        assert_eq!(detail("masked", "inactive", "dead").as_deref(), Some("the unit is masked"));
    }

    #[test]
    fn a_unit_that_is_unloaded_is_inactive() {
        let level = |expect| match unit("a*.service", expect).gone() {
            Outcome::Read(found) => found.at_least,
            other => panic!("{other:?}"),
        };
        assert_eq!(level(Expect::NotFailed), Level::Ok);
        assert_eq!(level(Expect::Active), Level::Critical);
    }

    #[test]
    fn names_need_their_suffix_and_may_have_wildcards() {
        for name in
            ["nginx.service", "getty@tty1.service", "dev-disk-by\\x2duuid-1.swap", "a-[12]?.timer", "*", "nginx*"]
        {
            assert!(unit_name(name).is_ok(), "{name}: {:?}", unit_name(name));
        }
        for name in [
            "nginx",
            "../x.service",
            "a b.service",
            "{a,b}.service",
            "getty@.service",
            "a.exe",
            "",
            ".service",
            "a!.service",
            "a.service\n",
        ] {
            assert!(unit_name(name).is_err(), "{name}");
        }
        let slashes = unit_name("dev-*\\x2d?.swap").unwrap();
        assert!(slashes.matches("dev-disk\\x2d1.swap") && !slashes.matches("dev-diskx2d1.swap"));
    }
}

//! Turns periodic observations of functions, sources and the disk into one report for each change of a condition.
//!
//! An observation lists every subject, such as a function, and whether the subject has a problem. If the observation
//! differs from the condition that was reported last, there is a change. A change is reported with an event, and with a
//! mark (a small stored value) that records the reported condition. Both are stored in one commit, so each change is
//! reported once, even if the process restarts. A reported problem that persists is not reported again after a restart.
//! A problem that ended while the process was down is reported as recovered after the next start.
//!
//! No queue is needed: a change that cannot be stored now is found again by the next observation, if the condition
//! still holds. A problem that clears between two observations is not reported.
//!
//! # Marks
//! Scope: [`SOURCE`]. Key: the subject, as in `function shop/charge`. Value: a JSON object with `v`, the version of
//! this format (1), and `since`, the time when the problem began, in milliseconds since the Unix epoch. A mark exists
//! as long as the reported problem.

use std::collections::BTreeMap;

use foldhash::{HashMap, HashMapExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{RECOVERY_DELAY, SOURCE, new_event, truncated};
use evoke_model::clock::{UnixMs, rfc3339};
use evoke_model::event::Event;
use evoke_model::{Mark, MarkNames, TakeOver};

/// The kind of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A function; its condition is `failing`.
    Function,
    /// The circuit of a function that sends its deliveries to an endpoint; its condition is `opened`. The subject has
    /// the name of the function.
    Circuit,
    /// A source; its condition is `degraded`.
    Source,
    /// A listener with TLS; its condition is `degraded`.
    Listener,
    /// The disk of the data folder; its condition is `low`.
    Storage,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Function, Self::Circuit, Self::Source, Self::Listener, Self::Storage];

    fn name(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Circuit => "circuit",
            Self::Source => "source",
            Self::Listener => "listener",
            Self::Storage => "storage",
        }
    }

    fn condition(self) -> &'static str {
        match self {
            Self::Function => "failing",
            Self::Circuit => "opened",
            Self::Source | Self::Listener => "degraded",
            Self::Storage => "low",
        }
    }

    /// Returns the name of the change that ends the condition.
    fn recovery(self) -> &'static str {
        match self {
            Self::Circuit => "closed",
            Self::Function | Self::Source | Self::Listener | Self::Storage => "recovered",
        }
    }
}

/// A function, a circuit, a source, a listener or the disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// The kind of the subject.
    pub kind: Kind,
    /// The name without a leading `/`, such as `shop/charge`. It is the attribute `subject` of the event.
    pub name: String,
}

impl Subject {
    /// Returns the subject with the new name of its function; `None` if the subject does not belong to the renamed
    /// function.
    fn renamed(&self, take_over: &TakeOver) -> Option<Self> {
        let has_name = matches!(self.kind, Kind::Function | Kind::Circuit | Kind::Source);
        let no_prefix = MarkNames { scope: SOURCE, prefix: "" };
        let name = take_over.renamed_key(&no_prefix, &self.name).filter(|_| has_name)?;
        Some(Self { kind: self.kind, name })
    }
}

/// The kinds of marks whose keys contain the name of a function or of one of its sources.
pub const NAMED_MARKS: [MarkNames; 3] = [
    MarkNames { scope: SOURCE, prefix: "function " },
    MarkNames { scope: SOURCE, prefix: "circuit " },
    MarkNames { scope: SOURCE, prefix: "source " },
];

/// The observed condition of one subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// True if the subject has a problem.
    pub trouble: bool,
    /// The time when the problem began, if known.
    pub since_ms: Option<UnixMs>,
    /// A JSON object with further fields for the event's data.
    pub data: Value,
}

/// A change of a subject's condition that is not reported yet.
#[derive(Debug, Clone)]
pub struct Change {
    subject: Subject,
    transition: Transition,
}

#[derive(Debug, Clone)]
enum Transition {
    Trouble {
        since_ms: UnixMs,
        data: Value,
    },
    Recovered {
        since_ms: UnixMs,
        data: Value,
    },
    /// The subject was removed. Its mark is deleted without an event.
    Removed,
}

#[derive(Serialize, Deserialize)]
struct MarkValue {
    v: u32,
    since: UnixMs,
}

/// The conditions that were reported last.
#[derive(Debug, Default)]
pub struct Conditions {
    /// The subjects whose problem was reported, and when the problem began.
    troubled: BTreeMap<Subject, UnixMs>,
    /// The subjects of `troubled` that currently have no problem, and since when. Their recovery is not reported yet.
    recovering: HashMap<Subject, Instant>,
}

impl Conditions {
    /// Restores the reported conditions from the stored marks. Marks in an unknown format are ignored.
    pub fn new(marks: &BTreeMap<String, Vec<u8>>) -> Self {
        let troubled = marks.iter().filter_map(|(key, value)| {
            let (kind_name, name) = key.split_once(' ')?;
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == kind_name)?;
            let mark: MarkValue = serde_json::from_slice(value).ok().filter(|mark: &MarkValue| mark.v == 1)?;
            Some((Subject { kind, name: name.to_owned() }, mark.since))
        });
        Self { troubled: troubled.collect(), recovering: HashMap::new() }
    }

    /// Returns true if a problem of the subject is reported.
    pub fn has_trouble(&self, subject: &Subject) -> bool {
        self.troubled.contains_key(subject)
    }

    /// Returns the full names of the functions that are reported as failing, and since when.
    pub fn failing_functions(&self) -> HashMap<String, UnixMs> {
        self.troubled_of(Kind::Function)
    }

    /// Returns the full names of the functions whose circuits are reported as open, and since when.
    pub fn open_circuits(&self) -> HashMap<String, UnixMs> {
        self.troubled_of(Kind::Circuit)
    }

    fn troubled_of(&self, kind: Kind) -> HashMap<String, UnixMs> {
        let of_kind = self.troubled.iter().filter(|(subject, _)| subject.kind == kind);
        of_kind.map(|(subject, since_ms)| (subject.name.clone(), *since_ms)).collect()
    }

    /// Compares an observation with the reported conditions, and returns the changes. Subjects without trouble can be
    /// left out of `observed`, unless their trouble was reported: a reported subject that is missing counts as removed.
    /// Later calls return the same change again, until [`Conditions::mark_reported`] is called for the change.
    pub fn observe(&mut self, observed: BTreeMap<Subject, Observation>, now: Instant, now_ms: UnixMs) -> Vec<Change> {
        let removed = self.troubled.keys().filter(|subject| !observed.contains_key(*subject));
        let mut changes: Vec<_> =
            removed.map(|subject| Change { subject: subject.clone(), transition: Transition::Removed }).collect();
        for (subject, Observation { trouble, since_ms, data }) in observed {
            match (self.troubled.get(&subject).copied(), trouble) {
                (None, false) => {}
                (Some(_), true) => drop(self.recovering.remove(&subject)),
                (None, true) => {
                    let transition = Transition::Trouble { since_ms: since_ms.unwrap_or(now_ms), data };
                    changes.push(Change { subject, transition });
                }
                (Some(since_ms), false) => {
                    let recovered_since = *self.recovering.entry(subject.clone()).or_insert(now);
                    // Only a source must be without a problem for some time before its recovery is reported. For
                    // functions and the disk, the observation itself is delayed: until an attempt succeeds, or until a
                    // quarter more space than the limit is free.
                    if subject.kind != Kind::Source || now - recovered_since >= RECOVERY_DELAY {
                        changes.push(Change { subject, transition: Transition::Recovered { since_ms, data } });
                    }
                }
            }
        }
        changes
    }

    /// Renames a function, its circuit and its sources, after the store has renamed their marks ([`NAMED_MARKS`]). If a
    /// condition is already reported under the new name, that report is kept.
    pub fn rename(&mut self, take_over: &TakeOver) {
        let named: Vec<_> =
            self.troubled.keys().filter_map(|old| Some((old.clone(), old.renamed(take_over)?))).collect();
        for (old, new) in named {
            if self.troubled.contains_key(&new) {
                continue;
            }
            if let Some(since_ms) = self.troubled.remove(&old) {
                self.troubled.insert(new.clone(), since_ms);
            }
            if let Some(since) = self.recovering.remove(&old) {
                self.recovering.insert(new, since);
            }
        }
    }

    /// Records that a change was reported: its event and mark are stored.
    pub fn mark_reported(&mut self, change: Change) {
        let Change { subject, transition } = change;
        self.recovering.remove(&subject);
        match transition {
            Transition::Trouble { since_ms, .. } => drop(self.troubled.insert(subject, since_ms)),
            Transition::Recovered { .. } | Transition::Removed => drop(self.troubled.remove(&subject)),
        }
    }
}

impl Change {
    /// Returns the event that reports the change, and the mark to store with the event. Returns no event if the subject
    /// was removed: then only the mark is stored. `instance` is the unique name of the store.
    pub fn to_event_and_mark(&self, instance: &str, now_ms: UnixMs) -> (Option<Event>, Mark) {
        let Self { subject: Subject { kind, name }, transition } = self;
        let key = format!("{} {name}", kind.name());
        let mark = |value| Mark { scope: SOURCE.to_owned(), key, value };
        let event = |change: &str, since_ms: UnixMs, data: &Value| {
            let mut all = Map::new();
            all.insert("since".into(), rfc3339(since_ms).into());
            for (name, value) in data.as_object().into_iter().flatten() {
                let value = value.as_str().map_or_else(|| value.clone(), |text| truncated(text).into());
                all.insert(name.clone(), value);
            }
            // The id contains the time when the problem began, so a repeated report of the same change is a duplicate.
            let id = format!("{instance}-{change}-{}-{name}-{since_ms}", kind.name());
            new_event(id, &format!("evoke.{}.{change}", kind.name()), name, &all.into(), now_ms)
        };
        match transition {
            Transition::Trouble { since_ms, data } => {
                let value = serde_json::to_vec(&MarkValue { v: 1, since: *since_ms }).unwrap_or_default();
                (Some(event(kind.condition(), *since_ms, data)), mark(Some(value)))
            }
            Transition::Recovered { since_ms, data } => (Some(event(kind.recovery(), *since_ms, data)), mark(None)),
            Transition::Removed => (None, mark(None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::TYPES;
    use super::*;

    /// Observes conditions, and reports every change immediately.
    struct Fixture {
        conditions: Conditions,
        marks: BTreeMap<String, Vec<u8>>,
        now: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            Self { conditions: Conditions::default(), marks: BTreeMap::new(), now: Instant::now() }
        }

        fn restart(&mut self) {
            self.conditions = Conditions::new(&self.marks);
        }

        /// Observes after `after_s` seconds. Returns the type and subject of each reported event.
        fn observe(&mut self, after_s: u64, observed: &[(Kind, &str, bool)]) -> Vec<String> {
            self.now += Duration::from_secs(after_s);
            let observed = observed.iter().map(|(kind, name, trouble)| {
                let observed = Observation { trouble: *trouble, since_ms: None, data: json!({ "name": name }) };
                (Subject { kind: *kind, name: (*name).to_owned() }, observed)
            });
            let mut reported = Vec::new();
            for change in self.conditions.observe(observed.collect(), self.now, 1_000) {
                let (event, mark) = change.to_event_and_mark("s1", 2_000);
                self.conditions.mark_reported(change);
                match mark.value {
                    Some(value) => drop(self.marks.insert(mark.key, value)),
                    None => assert!(self.marks.remove(&mark.key).is_some()),
                }
                if let Some(event) = event {
                    event.check().unwrap();
                    assert!(TYPES.contains(&event.type_.as_str()), "{event:?}");
                    reported.push(format!("{} {}", event.type_, event.subject.unwrap()));
                }
            }
            reported
        }
    }

    #[test]
    fn each_change_is_reported_once() {
        use Kind::Function;
        let mut fixture = Fixture::new();
        assert!(fixture.observe(0, &[(Function, "shop/a", false), (Function, "shop/b", false)]).is_empty());
        let failing = [(Function, "shop/a", true), (Function, "shop/b", false)];
        assert_eq!(fixture.observe(1, &failing), ["evoke.function.failing shop/a"]);
        assert!(fixture.observe(1, &failing).is_empty());
        assert_eq!(fixture.observe(1, &[(Function, "shop/a", false)]), ["evoke.function.recovered shop/a"]);
        assert!(fixture.observe(1, &[(Function, "shop/a", false)]).is_empty());
        assert!(fixture.marks.is_empty());
    }

    #[test]
    fn the_circuit_of_a_function_opens_and_closes_beside_its_health() {
        use Kind::{Circuit, Function};
        let mut fixture = Fixture::new();
        let both = |trouble| [(Function, "shop/a", trouble), (Circuit, "shop/a", trouble)];
        let opened = fixture.observe(0, &both(true));
        assert_eq!(opened, ["evoke.function.failing shop/a", "evoke.circuit.opened shop/a"]);
        fixture.restart();
        assert_eq!(fixture.conditions.open_circuits().get("shop/a"), Some(&1_000));
        let closed = fixture.observe(0, &both(false));
        assert_eq!(closed, ["evoke.function.recovered shop/a", "evoke.circuit.closed shop/a"]);
    }

    #[test]
    fn a_restart_repeats_no_report_and_loses_no_recovery() {
        use Kind::Storage;
        let mut fixture = Fixture::new();
        assert_eq!(fixture.observe(0, &[(Storage, "storage", true)]), ["evoke.storage.low storage"]);
        fixture.restart();
        assert!(fixture.observe(0, &[(Storage, "storage", true)]).is_empty());
        fixture.restart();
        assert_eq!(fixture.observe(0, &[(Storage, "storage", false)]), ["evoke.storage.recovered storage"]);
    }

    #[test]
    fn a_listener_degrades_and_recovers() {
        use Kind::Listener;
        let mut fixture = Fixture::new();
        assert_eq!(fixture.observe(0, &[(Listener, "public", true)]), ["evoke.listener.degraded public"]);
        fixture.restart();
        assert!(fixture.observe(0, &[(Listener, "public", true)]).is_empty());
        assert_eq!(fixture.observe(0, &[(Listener, "public", false)]), ["evoke.listener.recovered public"]);
    }

    #[test]
    fn a_source_recovers_after_a_delay_without_problems() {
        let (bad, good) = ([(Kind::Source, "shop/in", true)], [(Kind::Source, "shop/in", false)]);
        let mut fixture = Fixture::new();
        assert_eq!(fixture.observe(0, &bad), ["evoke.source.degraded shop/in"]);
        for _ in 0..10 {
            assert!(fixture.observe(1, &good).is_empty());
            assert!(fixture.observe(4, &good).is_empty());
            assert!(fixture.observe(1, &bad).is_empty());
        }
        assert!(fixture.observe(1, &good).is_empty());
        assert_eq!(fixture.observe(5, &good), ["evoke.source.recovered shop/in"]);
    }

    #[test]
    fn a_renamed_function_keeps_its_reported_conditions_and_those_of_its_sources() {
        use Kind::{Circuit, Function, Source};
        let mut fixture = Fixture::new();
        let before = [(Function, "shop/a", true), (Circuit, "shop/a", true), (Source, "shop/a/files-1", true)];
        assert_eq!(fixture.observe(0, &before).len(), 3);
        let take_over = TakeOver { from: "shop/a".into(), to: "shop/b".into() };
        fixture.conditions.rename(&take_over);
        let marks = std::mem::take(&mut fixture.marks);
        let renamed = marks.into_iter().map(|(key, value)| {
            let new = NAMED_MARKS.iter().filter_map(|names| take_over.renamed_key(names, &key)).next();
            (new.unwrap(), value)
        });
        fixture.marks = renamed.collect();
        let still = [(Function, "shop/b", true), (Circuit, "shop/b", true), (Source, "shop/b/files-1", true)];
        assert!(fixture.observe(1, &still).is_empty());
        fixture.restart();
        let over = fixture.observe(1, &[(Function, "shop/b", false), (Circuit, "shop/b", true), (still[2])]);
        assert_eq!(over, ["evoke.function.recovered shop/b"]);
    }

    #[test]
    fn a_subject_that_is_removed_while_in_trouble_is_forgotten() {
        let mut fixture = Fixture::new();
        fixture.observe(0, &[(Kind::Source, "shop/in", true)]);
        assert!(fixture.observe(1, &[]).is_empty());
        assert!(fixture.marks.is_empty());
        assert_eq!(fixture.observe(1, &[(Kind::Source, "shop/in", true)]), ["evoke.source.degraded shop/in"]);
    }

    #[test]
    fn a_change_that_was_not_reported_is_returned_again_while_the_condition_holds() {
        let subject = Subject { kind: Kind::Function, name: "shop/a".into() };
        let observed =
            |trouble| BTreeMap::from([(subject.clone(), Observation { trouble, since_ms: Some(7), data: json!({}) })]);
        let (mut conditions, now) = (Conditions::default(), Instant::now());
        assert_eq!(conditions.observe(observed(true), now, 9).len(), 1);
        let again = conditions.observe(observed(true), now, 10);
        assert_eq!(again.len(), 1);
        let id = |change: &Change| change.to_event_and_mark("s1", 11).0.unwrap().id;
        assert_eq!(id(&again[0]), "s1-failing-function-shop/a-7");
        assert!(conditions.observe(observed(false), now, 12).is_empty());
    }
}

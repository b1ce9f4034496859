//! What is in trouble and what is not: from looks at how things are, each change once.
//!
//! A look says of everything that there is whether it is in trouble. What differs from what was told last is a change,
//! which is told with an event and a mark in one commit. So a change is told once, over restarts too: what was in
//! trouble before and is still is nothing new, and what recovered meanwhile is told then. What cannot be told now is
//! told at a later look, or never when it is over by then: nothing has to wait in a queue.
//!
//! # Marks
//! Scope: [`SOURCE`]. Key: the subject, as in `function shop/charge`; value: a JSON object of `v` (1) and `since`, in
//! milliseconds since the Unix epoch. It is there as long as the trouble.

use std::collections::BTreeMap;

use foldhash::{HashMap, HashMapExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{QUIET, SOURCE, clipped, event_of};
use crate::clock::{UnixMs, rfc3339};
use crate::event::Event;
use crate::store::Mark;

/// What kind of thing is in trouble or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A function: failing, recovered.
    Function,
    /// A source: degraded, recovered.
    Source,
    /// The disk: low, recovered.
    Storage,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Function, Self::Source, Self::Storage];

    fn word(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Source => "source",
            Self::Storage => "storage",
        }
    }

    fn trouble(self) -> &'static str {
        match self {
            Self::Function => "failing",
            Self::Source => "degraded",
            Self::Storage => "low",
        }
    }
}

/// A thing that can be in trouble.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// What it is.
    pub kind: Kind,
    /// Its name, without a `/` in front.
    pub name: String,
}

/// How a thing is doing, as one look finds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Whether it is in trouble.
    pub trouble: bool,
    /// Since when, where that is known.
    pub since_ms: Option<UnixMs>,
    /// What is known of it, for the event's data.
    pub data: Value,
}

/// A change to be told.
#[derive(Debug, Clone)]
pub struct Change {
    subject: Subject,
    to: To,
}

#[derive(Debug, Clone)]
enum To {
    Trouble {
        since_ms: UnixMs,
        data: Value,
    },
    Well {
        since_ms: UnixMs,
        data: Value,
    },
    /// It is not there any more: nothing is to be said of it.
    Gone,
}

#[derive(Serialize, Deserialize)]
struct Told {
    v: u32,
    since: UnixMs,
}

/// What was told last.
#[derive(Debug, Default)]
pub struct Levels {
    /// What is in trouble, and since when.
    troubled: BTreeMap<Subject, UnixMs>,
    /// Of these, what is well again since when, and not for long enough.
    well: HashMap<Subject, Instant>,
}

impl Levels {
    /// As the marks say.
    pub fn new(marks: &BTreeMap<String, Vec<u8>>) -> Self {
        let troubled = marks.iter().filter_map(|(key, value)| {
            let (word, name) = key.split_once(' ')?;
            let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word)?;
            let told: Told = serde_json::from_slice(value).ok().filter(|told: &Told| told.v == 1)?;
            Some((Subject { kind, name: name.to_owned() }, told.since))
        });
        Self { troubled: troubled.collect(), well: HashMap::new() }
    }

    /// Whether a thing is in trouble, as was told last.
    pub fn is_troubled(&self, subject: &Subject) -> bool {
        self.troubled.contains_key(subject)
    }

    /// The functions that are failing, as was told last, and since when.
    pub fn failing_functions(&self) -> HashMap<String, UnixMs> {
        let functions = self.troubled.iter().filter(|(subject, _)| subject.kind == Kind::Function);
        functions.map(|(subject, since_ms)| (subject.name.clone(), *since_ms)).collect()
    }

    /// What a look at everything finds changed.
    pub fn look(&mut self, found: BTreeMap<Subject, Found>, now: Instant, now_ms: UnixMs) -> Vec<Change> {
        let gone = self.troubled.keys().filter(|subject| !found.contains_key(*subject));
        let mut changes: Vec<_> = gone.map(|subject| Change { subject: subject.clone(), to: To::Gone }).collect();
        for (subject, Found { trouble, since_ms, data }) in found {
            match (self.troubled.get(&subject).copied(), trouble) {
                (None, false) => {}
                (Some(_), true) => drop(self.well.remove(&subject)),
                (None, true) => {
                    let to = To::Trouble { since_ms: since_ms.unwrap_or(now_ms), data };
                    changes.push(Change { subject, to });
                }
                (Some(since_ms), false) => {
                    let well_since = *self.well.entry(subject.clone()).or_insert(now);
                    // Functions and the disk have a rule of their own.
                    if subject.kind != Kind::Source || now - well_since >= QUIET {
                        changes.push(Change { subject, to: To::Well { since_ms, data } });
                    }
                }
            }
        }
        changes
    }

    /// A change was told.
    pub fn told(&mut self, change: Change) {
        let Change { subject, to } = change;
        self.well.remove(&subject);
        match to {
            To::Trouble { since_ms, .. } => drop(self.troubled.insert(subject, since_ms)),
            To::Well { .. } | To::Gone => drop(self.troubled.remove(&subject)),
        }
    }
}

impl Change {
    /// What is said of it, if anything, and the mark that goes with it. `instance` is the store's own name.
    pub fn tell(&self, instance: &str, now_ms: UnixMs) -> (Option<Event>, Mark) {
        let Self { subject: Subject { kind, name }, to } = self;
        let key = format!("{} {name}", kind.word());
        let mark = |value| Mark { scope: SOURCE.to_owned(), key, value };
        let event = |word: &str, since_ms: UnixMs, data: &Value| {
            let mut all = Map::new();
            all.insert("since".into(), rfc3339(since_ms).into());
            for (name, value) in data.as_object().into_iter().flatten() {
                let value = value.as_str().map_or_else(|| value.clone(), |text| clipped(text).into());
                all.insert(name.clone(), value);
            }
            // By when the trouble began: the same change, told again, is known.
            let id = format!("{instance}-{word}-{}-{name}-{since_ms}", kind.word());
            event_of(id, &format!("evoke.{}.{word}", kind.word()), name, &all.into(), now_ms)
        };
        match to {
            To::Trouble { since_ms, data } => {
                let told = serde_json::to_vec(&Told { v: 1, since: *since_ms }).unwrap_or_default();
                (Some(event(kind.trouble(), *since_ms, data)), mark(Some(told)))
            }
            To::Well { since_ms, data } => (Some(event("recovered", *since_ms, data)), mark(None)),
            To::Gone => (None, mark(None)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::TYPES;
    use super::*;

    /// Looks, and tells.
    struct House {
        levels: Levels,
        marks: BTreeMap<String, Vec<u8>>,
        now: Instant,
    }

    impl House {
        fn new() -> Self {
            Self { levels: Levels::default(), marks: BTreeMap::new(), now: Instant::now() }
        }

        fn restart(&mut self) {
            self.levels = Levels::new(&self.marks);
        }

        /// A look after so many seconds; answers the types and subjects that were told.
        fn look(&mut self, after_s: u64, found: &[(Kind, &str, bool)]) -> Vec<String> {
            self.now += Duration::from_secs(after_s);
            let found = found.iter().map(|(kind, name, trouble)| {
                let found = Found { trouble: *trouble, since_ms: None, data: json!({ "name": name }) };
                (Subject { kind: *kind, name: (*name).to_owned() }, found)
            });
            let mut told = Vec::new();
            for change in self.levels.look(found.collect(), self.now, 1_000) {
                let (event, mark) = change.tell("s1", 2_000);
                self.levels.told(change);
                match mark.value {
                    Some(value) => drop(self.marks.insert(mark.key, value)),
                    None => assert!(self.marks.remove(&mark.key).is_some()),
                }
                if let Some(event) = event {
                    event.check().unwrap();
                    assert!(TYPES.contains(&event.type_.as_str()), "{event:?}");
                    told.push(format!("{} {}", event.type_, event.subject.unwrap()));
                }
            }
            told
        }
    }

    #[test]
    fn each_change_is_told_once() {
        use Kind::Function;
        let mut house = House::new();
        assert!(house.look(0, &[(Function, "shop/a", false), (Function, "shop/b", false)]).is_empty());
        let failing = [(Function, "shop/a", true), (Function, "shop/b", false)];
        assert_eq!(house.look(1, &failing), ["evoke.function.failing shop/a"]);
        assert!(house.look(1, &failing).is_empty());
        assert_eq!(house.look(1, &[(Function, "shop/a", false)]), ["evoke.function.recovered shop/a"]);
        assert!(house.look(1, &[(Function, "shop/a", false)]).is_empty());
        assert!(house.marks.is_empty());
    }

    #[test]
    fn a_restart_tells_nothing_again_and_loses_no_recovery() {
        use Kind::Storage;
        let mut house = House::new();
        assert_eq!(house.look(0, &[(Storage, "storage", true)]), ["evoke.storage.low storage"]);
        house.restart();
        assert!(house.look(0, &[(Storage, "storage", true)]).is_empty());
        house.restart();
        assert_eq!(house.look(0, &[(Storage, "storage", false)]), ["evoke.storage.recovered storage"]);
    }

    #[test]
    fn a_source_has_to_be_well_for_a_while() {
        let (bad, good) = ([(Kind::Source, "shop/in", true)], [(Kind::Source, "shop/in", false)]);
        let mut house = House::new();
        assert_eq!(house.look(0, &bad), ["evoke.source.degraded shop/in"]);
        for _ in 0..10 {
            assert!(house.look(1, &good).is_empty());
            assert!(house.look(4, &good).is_empty());
            assert!(house.look(1, &bad).is_empty());
        }
        assert!(house.look(1, &good).is_empty());
        assert_eq!(house.look(5, &good), ["evoke.source.recovered shop/in"]);
    }

    #[test]
    fn what_is_taken_away_in_trouble_is_forgotten() {
        let mut house = House::new();
        house.look(0, &[(Kind::Source, "shop/in", true)]);
        assert!(house.look(1, &[]).is_empty());
        assert!(house.marks.is_empty());
        assert_eq!(house.look(1, &[(Kind::Source, "shop/in", true)]), ["evoke.source.degraded shop/in"]);
    }

    #[test]
    fn what_could_not_be_told_is_told_later_or_is_over() {
        let subject = Subject { kind: Kind::Function, name: "shop/a".into() };
        let found =
            |trouble| BTreeMap::from([(subject.clone(), Found { trouble, since_ms: Some(7), data: json!({}) })]);
        let (mut levels, now) = (Levels::default(), Instant::now());
        assert_eq!(levels.look(found(true), now, 9).len(), 1);
        let again = levels.look(found(true), now, 10);
        assert_eq!(again.len(), 1);
        let id = |change: &Change| change.tell("s1", 11).0.unwrap().id;
        assert_eq!(id(&again[0]), "s1-failing-function-shop/a-7");
        assert!(levels.look(found(false), now, 12).is_empty());
    }
}

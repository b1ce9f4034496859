//! The workload of the fault tests: items that pass through three functions, in order for each key.
//!
//! All data of an item derive from its number, so that every stored event can be compared with the expected data.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::random::Random;
use crate::support::{Evoke, Response, post};

/// The event types of an item. Producers send the first; each function publishes the next.
pub(crate) const TYPES: [&str; 4] = ["item", "item.one", "item.two", "item.three"];

/// A manifest with three functions. Each is triggered by one of [`TYPES`] and publishes the next.
pub(crate) fn manifest() -> String {
    let mut text =
        "evoke: 1\napp: line\nsources:\n  items:\n    http: { path: /items, max_body: 8MiB, type: item }\nfunctions:\n"
            .to_owned();
    for (name, step) in ["first", "second", "third"].iter().zip(TYPES.windows(2)) {
        let [from, to] = step else { continue };
        text += &format!(
            "  {name}:\n    component: $FUNCTIONS/relay.wasm\n    on:\n      - events: {{ type: [{from}] }}\n    \
             order_by: data.key\n    retry: {{ backoff: 5ms }}\n    \
             allow: {{ publish: [{to}], config: {{ NEXT: {to} }} }}\n"
        );
    }
    text
}

/// The parameters from which all items derive.
#[derive(Clone)]
pub(crate) struct Items {
    pub(crate) seed: u64,
    /// The number of distinct order keys.
    pub(crate) keys: usize,
    /// The minimum number of padding bytes of an item.
    pub(crate) pad_min: usize,
    /// The maximum number of padding bytes of an item.
    pub(crate) pad_max: usize,
    /// The percentage of items that fail once or twice in one of the functions.
    pub(crate) retries: u32,
    /// The items that one function rejects, each with the event type that is therefore never published.
    pub(crate) poison: BTreeMap<usize, &'static str>,
}

impl Items {
    /// Items that every function handles at the first attempt.
    pub(crate) fn plain(seed: u64, keys: usize, pad_max: usize) -> Self {
        Self { seed, keys, pad_min: 0, pad_max, retries: 0, poison: BTreeMap::new() }
    }

    pub(crate) fn id(number: usize) -> String {
        format!("item-{number:07}")
    }

    /// The number in an id.
    pub(crate) fn number(id: &str) -> Option<usize> {
        id.strip_prefix("item-")?.parse().ok()
    }

    pub(crate) fn key(&self, number: usize) -> String {
        format!("key-{}", Random::new(self.seed ^ number as u64).below(self.keys))
    }

    /// The data of an item, which all of its events carry.
    pub(crate) fn data(&self, number: usize) -> Value {
        let mut random = Random::new(self.seed ^ number as u64);
        random.next();
        let length = self.pad_min + random.below(self.pad_max - self.pad_min + 1);
        let mut pad = format!("{:016x}", random.next()).repeat(length / 16 + 1);
        pad.truncate(length);
        let mut data = json!({ "n": number, "key": self.key(number), "pad": pad });
        if random.percent(self.retries) {
            data["retries"] = json!({ TYPES[1 + random.below(3)]: 1 + random.below(2) });
        }
        if let Some(type_) = self.poison.get(&number) {
            data["reject"] = json!(type_);
        }
        data
    }

    fn event(&self, number: usize) -> Value {
        json!({
            "specversion": "1.0", "id": Self::id(number), "source": "/line/items", "type": TYPES[0], "data": self.data(number),
        })
    }

    /// Sends items in one request. After an error it is unknown whether they were stored.
    pub(crate) fn send(&self, address: &str, numbers: &[usize]) -> Result<Response, ureq::Error> {
        let events: Vec<Value> = numbers.iter().map(|&number| self.event(number)).collect();
        let body = serde_json::to_string(&events).unwrap();
        post(address, "/items", &[("content-type", "application/cloudevents-batch+json")], &body)
    }

    /// Compares the stored events with the expected ones. `events` are pairs of type and data in accept order. Asserts
    /// that every acknowledged item is stored, no item is stored twice, each function handled the items of a key in
    /// accept order, and every event has the data of its item. Returns the numbers of the stored items by type.
    pub(crate) fn verify<'a, Data: Borrow<Value>>(
        &self,
        acknowledged: &BTreeSet<usize>,
        events: impl Iterator<Item = (&'a str, Data)>,
    ) -> BTreeMap<&'static str, BTreeSet<usize>> {
        let mut by_type: BTreeMap<&str, Vec<usize>> = TYPES.iter().map(|type_| (*type_, Vec::new())).collect();
        // Skip runtime events.
        for (type_, data) in events.filter(|(type_, _)| !type_.starts_with("evoke.")) {
            let value = data.borrow();
            let number = usize::try_from(value["n"].as_u64().unwrap()).unwrap();
            assert_eq!(*value, self.data(number), "{type_}");
            by_type.get_mut(type_).unwrap_or_else(|| panic!("no function publishes {type_}")).push(number);
        }
        let sets = TYPES.map(|type_| (type_, by_type[type_].iter().copied().collect::<BTreeSet<usize>>()));
        for (type_, set) in &sets {
            assert_eq!(set.len(), by_type[type_].len(), "some {type_} are stored twice");
        }
        let lost: Vec<_> = acknowledged.difference(&sets[0].1).collect();
        assert!(lost.is_empty(), "{} of {} acknowledged are lost: {lost:?}", lost.len(), acknowledged.len());
        for step in sets.windows(2) {
            assert!(step[1].1.is_subset(&step[0].1), "some {} have no event that caused them", step[1].0);
            self.assert_same_order(&by_type[step[0].0], &by_type[step[1].0], step[1].0, &step[1].1);
        }
        sets.into_iter().collect()
    }

    /// Asserts that the output of a function has the order of its input, for each key. `handled` are the items in the
    /// output; other items in the input are ignored.
    fn assert_same_order(&self, input: &[usize], output: &[usize], type_: &str, handled: &BTreeSet<usize>) {
        let by_key = |numbers: &mut dyn Iterator<Item = usize>| {
            let mut keys: BTreeMap<String, Vec<usize>> = BTreeMap::new();
            numbers.for_each(|number| keys.entry(self.key(number)).or_default().push(number));
            keys
        };
        let expected = by_key(&mut input.iter().copied().filter(|number| handled.contains(number)));
        assert_eq!(by_key(&mut output.iter().copied()), expected, "{type_} is out of order");
    }
}

impl Evoke {
    /// Calls [`Items::verify`] with all stored events.
    pub(crate) fn verify(
        &self,
        items: &Items,
        acknowledged: &BTreeSet<usize>,
    ) -> BTreeMap<&'static str, BTreeSet<usize>> {
        let events = self.json_lines(&["events", "--after", "0"]);
        items.verify(acknowledged, events.iter().map(|event| (event["type"].as_str().unwrap(), &event["data"])))
    }
}

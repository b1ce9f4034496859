//! The load of the fault tests: items that go through three functions, each in order of their key.
//!
//! An item is made from its number, so that whatever comes back can be compared with what went in.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::random::Random;
use crate::support::{Answer, Evoke, post};

/// The types of the events that an item becomes on its way; the first comes from outside.
pub(crate) const TYPES: [&str; 4] = ["item", "item.one", "item.two", "item.three"];

/// Three functions, from one type to the next.
pub(crate) fn manifest() -> String {
    let mut text =
        "evoke: 1\napp: line\nsources:\n  items:\n    http: { path: /items, max_body: 8MiB }\nfunctions:\n".to_owned();
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

/// Which items there are.
#[derive(Clone)]
pub(crate) struct Items {
    pub(crate) seed: u64,
    /// How many keys they share.
    pub(crate) keys: usize,
    /// The bytes that pad one out, at least and at most.
    pub(crate) pad_min: usize,
    pub(crate) pad_max: usize,
    /// How many of a hundred fail once or twice in some function.
    pub(crate) retries: u32,
    /// The items that a function rejects, with the type as which they are never handed on.
    pub(crate) poison: BTreeMap<usize, &'static str>,
}

impl Items {
    /// Items that all get through at once.
    pub(crate) fn plain(seed: u64, keys: usize, pad_max: usize) -> Self {
        Self { seed, keys, pad_min: 0, pad_max, retries: 0, poison: BTreeMap::new() }
    }

    pub(crate) fn id(number: usize) -> String {
        format!("item-{number:07}")
    }

    /// The number behind an id.
    pub(crate) fn number(id: &str) -> Option<usize> {
        id.strip_prefix("item-")?.parse().ok()
    }

    pub(crate) fn key(&self, number: usize) -> String {
        format!("key-{}", Random::new(self.seed ^ number as u64).below(self.keys))
    }

    /// Its data, which every event of the item has.
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
            "specversion": "1.0", "id": Self::id(number), "source": "/items", "type": TYPES[0], "data": self.data(number),
        })
    }

    /// Sends some in one request. `Err`: nobody knows what became of them.
    pub(crate) fn send(&self, address: &str, numbers: &[usize]) -> Result<Answer, ureq::Error> {
        let events: Vec<Value> = numbers.iter().map(|&number| self.event(number)).collect();
        let body = serde_json::to_string(&events).unwrap();
        post(address, "/items", &[("content-type", "application/cloudevents-batch+json")], &body)
    }

    /// Compares what came out with what went in: `events` in accept order, each with its type and data. Everything in
    /// `acknowledged` is there, nothing is there twice, no function saw items of a key in another order than they
    /// were accepted in, and every event has its item's data. Answers what is there, by type.
    pub(crate) fn verify<'a, Data: Borrow<Value>>(
        &self,
        acknowledged: &BTreeSet<usize>,
        events: impl Iterator<Item = (&'a str, Data)>,
    ) -> BTreeMap<&'static str, BTreeSet<usize>> {
        let mut by_type: BTreeMap<&str, Vec<usize>> = TYPES.iter().map(|type_| (*type_, Vec::new())).collect();
        // What Evoke says of itself is no item.
        for (type_, data) in events.filter(|(type_, _)| !type_.starts_with("evoke.")) {
            let value = data.borrow();
            let number = usize::try_from(value["n"].as_u64().unwrap()).unwrap();
            assert_eq!(*value, self.data(number), "{type_}");
            by_type.get_mut(type_).unwrap_or_else(|| panic!("nobody made a {type_}")).push(number);
        }
        let sets = TYPES.map(|type_| (type_, by_type[type_].iter().copied().collect::<BTreeSet<usize>>()));
        for (type_, set) in &sets {
            assert_eq!(set.len(), by_type[type_].len(), "some {type_} are there twice");
        }
        let lost: Vec<_> = acknowledged.difference(&sets[0].1).collect();
        assert!(lost.is_empty(), "{} of {} acknowledged are lost: {lost:?}", lost.len(), acknowledged.len());
        for step in sets.windows(2) {
            assert!(step[1].1.is_subset(&step[0].1), "{} came out of nothing", step[1].0);
            self.same_order(&by_type[step[0].0], &by_type[step[1].0], step[1].0, &step[1].1);
        }
        sets.into_iter().collect()
    }

    /// What went out did so in the order in which it came in, key by key.
    fn same_order(&self, came: &[usize], went: &[usize], type_: &str, handled: &BTreeSet<usize>) {
        let by_key = |numbers: &mut dyn Iterator<Item = usize>| {
            let mut keys: BTreeMap<String, Vec<usize>> = BTreeMap::new();
            numbers.for_each(|number| keys.entry(self.key(number)).or_default().push(number));
            keys
        };
        let came = by_key(&mut came.iter().copied().filter(|number| handled.contains(number)));
        assert_eq!(by_key(&mut went.iter().copied()), came, "{type_} is out of order");
    }
}

impl Evoke {
    /// [`Items::verify`] over everything that it has.
    pub(crate) fn verify(
        &self,
        items: &Items,
        acknowledged: &BTreeSet<usize>,
    ) -> BTreeMap<&'static str, BTreeSet<usize>> {
        let events = self.json_lines(&["events", "--after", "0"]);
        items.verify(acknowledged, events.iter().map(|event| (event["type"].as_str().unwrap(), &event["data"])))
    }
}

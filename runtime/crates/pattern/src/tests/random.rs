//! Compares the matcher with a simple evaluator that has no index, over random patterns and events.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::{DataView, EventView, Matcher, Pattern};

/// A random number generator (xorshift64*) with a fixed seed, so every run is the same.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "data"];
const TEXTS: [&str; 9] = ["", "a", "ab", "AB", "abab", "xaby", "10.0.0.1", "10.1.0.1", "Ä"];
const NUMBERS: [&str; 6] = ["0", "1", "-1.5", "2e0", "100", "0.5"];

fn scalar(random: &mut Random) -> Value {
    match random.below(8) {
        0 => Value::Null,
        1 => Value::Bool(random.below(2) == 0),
        2..=4 => serde_json::from_str(random.pick(&NUMBERS)).unwrap(),
        _ => json!(random.pick(&TEXTS)),
    }
}

fn value(random: &mut Random, depth: u32) -> Value {
    match random.below(if depth == 0 { 5 } else { 10 }) {
        0..=4 => scalar(random),
        5..=7 => object(random, depth - 1),
        _ => (0..random.below(4)).map(|_| value(random, depth - 1)).collect(),
    }
}

fn object(random: &mut Random, depth: u32) -> Value {
    let members = (0..random.below(4)).map(|_| (random.pick(&NAMES).to_owned(), value(random, depth)));
    Value::Object(members.collect())
}

fn text(random: &mut Random) -> Value {
    json!(random.pick(&TEXTS[1..]))
}

fn entry(random: &mut Random) -> Value {
    match random.below(16) {
        0..=3 => scalar(random),
        4 => json!({ "prefix": text(random) }),
        5 => json!({ "suffix": text(random) }),
        6 => json!({ "equals-ignore-case": text(random) }),
        7 => json!({ "prefix": { "equals-ignore-case": text(random) } }),
        8 => json!({ "suffix": { "equals-ignore-case": text(random) } }),
        9 => json!({ "wildcard": random.pick(&["*", "a*", "*b", "a*b", "*a*b*", "x*b*", "*10.0*", "ab"]) }),
        10 => json!({ "anything-but": [text(random), text(random)] }),
        11 => json!({ "anything-but": { "prefix": [text(random)] } }),
        12 => json!({ "numeric": random.pick(&[(">", 0), ("<=", 1), ("=", 2), ("<", 100)]) }),
        13 => json!({ "numeric": [">=", random.below(2), "<", 2 + random.below(99)] }),
        14 => json!({ "cidr": random.pick(&["10.0.0.0/8", "10.0.0.0/16", "::/0"]) }),
        _ => json!({ "exists": random.below(2) == 0 }),
    }
}

fn fields(random: &mut Random, depth: u32) -> Value {
    let mut fields = Map::new();
    for _ in 0..=random.below(2) {
        if depth > 0 && random.below(6) == 0 {
            let alternatives: Vec<Value> = (0..2 + random.below(2)).map(|_| self::fields(random, depth - 1)).collect();
            fields.insert("$or".to_owned(), json!(alternatives));
        } else if depth > 0 && random.below(2) == 0 {
            fields.insert(random.pick(&NAMES).to_owned(), self::fields(random, depth - 1));
        } else {
            let list: Vec<Value> = (0..=random.below(2)).map(|_| entry(random)).collect();
            fields.insert(random.pick(&NAMES).to_owned(), json!(list));
        }
    }
    Value::Object(fields)
}

/// For each array, by number, the index of the element that contains a value.
type Elements = BTreeMap<u32, usize>;

#[derive(Debug)]
struct Occurrence<'a> {
    path: Vec<&'a str>,
    elements: Elements,
    value: &'a Value,
}

/// Appends every scalar of an event with its path and the array elements that contain it.
fn flatten<'a>(
    value: &'a Value,
    path: &[&'a str],
    elements: &Elements,
    arrays: &mut u32,
    out: &mut Vec<Occurrence<'a>>,
) {
    match value {
        Value::Object(members) => {
            for (name, inner) in members {
                flatten(inner, &[path, &[name.as_str()]].concat(), elements, arrays, out);
            }
        }
        Value::Array(list) => {
            let array = *arrays;
            *arrays += 1;
            for (index, inner) in list.iter().enumerate() {
                let mut within = elements.clone();
                if inner.is_object() || inner.is_array() {
                    within.insert(array, index);
                }
                flatten(inner, path, &within, arrays, out);
            }
        }
        _ => out.push(Occurrence { path: path.to_vec(), elements: elements.clone(), value }),
    }
}

type Alternative<'a> = Vec<(Vec<&'a str>, &'a [Value])>;

/// Expands a pattern into its alternatives, each a list of fields with their lists of conditions.
fn alternatives<'a>(pattern: &'a Value, path: &[&'a str]) -> Vec<Alternative<'a>> {
    let mut all: Vec<Alternative<'a>> = vec![Vec::new()];
    for (name, value) in pattern.as_object().unwrap() {
        let more: Vec<Alternative<'a>> = match value {
            Value::Array(list) if name == "$or" => list.iter().flat_map(|inner| alternatives(inner, path)).collect(),
            Value::Array(list) => vec![vec![([path, &[name.as_str()]].concat(), list.as_slice())]],
            inner => alternatives(inner, &[path, &[name.as_str()]].concat()),
        };
        all = all.iter().flat_map(|left| more.iter().map(|right| [left.as_slice(), right].concat())).collect();
    }
    all
}

fn wildcard_matches(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|skip| wildcard_matches(rest, &text[skip..])),
        Some((first, rest)) => text.split_first().is_some_and(|(it, text)| it == first && wildcard_matches(rest, text)),
    }
}

fn text_meets(operator: &str, operand: &Value, text: &str) -> bool {
    let lower = |text: &str| text.to_lowercase();
    match (operator, operand) {
        ("prefix", Value::Object(inner)) => {
            lower(text).starts_with(&lower(inner["equals-ignore-case"].as_str().unwrap()))
        }
        ("suffix", Value::Object(inner)) => {
            lower(text).ends_with(&lower(inner["equals-ignore-case"].as_str().unwrap()))
        }
        ("prefix", _) => text.starts_with(operand.as_str().unwrap()),
        ("suffix", _) => text.ends_with(operand.as_str().unwrap()),
        ("equals-ignore-case", _) => lower(text) == lower(operand.as_str().unwrap()),
        ("wildcard", _) => {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            wildcard_matches(&chars(operand.as_str().unwrap()), &chars(text))
        }
        ("cidr", _) => match operand.as_str().unwrap() {
            "10.0.0.0/8" => text.starts_with("10."),
            "10.0.0.0/16" => text.starts_with("10.0."),
            _ => false,
        },
        other => panic!("{other:?}"),
    }
}

fn meets(entry: &Value, value: &Value) -> bool {
    let same = |a: &Value, b: &Value| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    };
    let Some((operator, operand)) = entry.as_object().and_then(|operators| operators.iter().next()) else {
        return same(entry, value);
    };
    match (operator.as_str(), operand) {
        ("exists", wanted) => *wanted == json!(true),
        ("numeric", Value::Array(list)) => value.as_f64().is_some_and(|number| {
            list.chunks(2).all(|pair| {
                let bound = pair[1].as_f64().unwrap();
                match pair[0].as_str().unwrap() {
                    "=" => number == bound,
                    "<" => number < bound,
                    "<=" => number <= bound,
                    ">" => number > bound,
                    _ => number >= bound,
                }
            })
        }),
        ("anything-but", Value::Array(list)) => !list.iter().any(|it| same(it, value)),
        ("anything-but", Value::Object(inner)) => {
            let list = inner["prefix"].as_array().unwrap();
            !value.as_str().is_some_and(|text| list.iter().any(|it| text_meets("prefix", it, text)))
        }
        _ => value.as_str().is_some_and(|text| text_meets(operator, operand, text)),
    }
}

/// Returns whether two values may match together: no array contains them in two different elements.
fn are_compatible(a: &Elements, b: &Elements) -> bool {
    a.iter().all(|(array, index)| b.get(array).is_none_or(|other| other == index))
}

/// Tries every assignment of values to fields. `taken` has the array elements of the values assigned so far, `absent`
/// the fields that were left without a value.
fn satisfiable(
    fields: &[(Vec<&str>, &[Value])],
    event: &[Occurrence<'_>],
    taken: &Elements,
    absent: &[&[&str]],
) -> bool {
    let Some(((path, list), rest)) = fields.split_first() else {
        return !event.iter().any(|it| absent.contains(&it.path.as_slice()) && are_compatible(&it.elements, taken));
    };
    let by_value = event.iter().filter(|it| it.path == *path && are_compatible(&it.elements, taken)).any(|it| {
        let mut more = taken.clone();
        more.extend(&it.elements);
        list.iter().any(|entry| meets(entry, it.value)) && satisfiable(rest, event, &more, absent)
    });
    let may_be_absent = list.contains(&json!({ "exists": false }));
    by_value || (may_be_absent && satisfiable(rest, event, taken, &[absent, &[path.as_slice()]].concat()))
}

fn simple_matches(pattern: &Value, event: &[Occurrence<'_>]) -> bool {
    alternatives(pattern, &[]).iter().any(|fields| satisfiable(fields, event, &Elements::new(), &[]))
}

/// Returns whether an event matches a pattern, without the matcher.
pub(super) fn is_match(pattern: &Value, event: &Value) -> bool {
    let mut occurrences = Vec::new();
    flatten(event, &[], &Elements::new(), &mut 0, &mut occurrences);
    simple_matches(pattern, &occurrences)
}

#[test]
fn the_matcher_agrees_with_a_simple_evaluator() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let (mut matched, mut compared) = (0, 0);
    for round in 0..60 {
        let mut matcher = Matcher::default();
        let mut sources = Vec::new();
        // Rounds with few and with many patterns, which make the index deep. Some patterns are removed again.
        for _ in 0..[5, 50, 300][round % 3] {
            let source = fields(&mut random, 3);
            matcher.insert(
                sources.len(),
                &Pattern::parse(&source).unwrap_or_else(|errors| panic!("{source}: {errors:?}")),
            );
            sources.push(Some(source));
        }
        for key in 0..sources.len() / (1 + round % 4) {
            if random.below(3) == 0 || round % 4 == 0 {
                matcher.remove(key);
                sources[key] = None;
            }
        }
        for _ in 0..40 {
            let event = object(&mut random, 4);
            let mut occurrences = Vec::new();
            flatten(&event, &[], &Elements::new(), &mut 0, &mut occurrences);
            let live = sources.iter().enumerate().filter_map(|(key, source)| Some((key, source.as_ref()?)));
            let wanted: Vec<usize> =
                live.filter(|(_, source)| simple_matches(source, &occurrences)).map(|(key, _)| key).collect();
            let found = matcher.matches_json(event.to_string().as_bytes()).unwrap();
            if let Some(key) = (0..sources.len()).find(|key| wanted.contains(key) != found.contains(key)) {
                panic!(
                    "{} on {event}: the simple evaluator returns {}",
                    sources[key].as_ref().unwrap(),
                    wanted.contains(&key)
                );
            }
            assert_eq!(found, wanted);
            let data = event.to_string();
            matcher.matches(&EventView::new([("a", "ab")], DataView::Json(data.as_bytes()))).unwrap();
            (matched, compared) = (matched + found.len(), compared + sources.len());
        }
    }
    assert!(matched * 50 > compared, "only {matched} of {compared} match: the cases test too little");
}

#[test]
fn random_bytes_and_broken_events_never_panic() {
    let mut random = Random(99);
    let mut matcher = Matcher::default();
    for key in 0..200 {
        matcher.insert(key, &Pattern::parse(&fields(&mut random, 3)).unwrap());
    }
    for _ in 0..20_000 {
        let mut bytes = object(&mut random, 4).to_string().into_bytes();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(3) {
                0 => bytes[at] = random.below(256) as u8,
                1 => bytes.insert(at, random.pick(b"{}[]\",:\\u0123e-.\xff")),
                _ => bytes.truncate(at + 1),
            }
        }
        let accepted = matcher.matches_json(&bytes).is_ok();
        let parsed = serde_json::from_slice::<Map<String, Value>>(&bytes);
        // serde_json also rejects numbers outside the range of doubles and lone surrogates.
        let only_serde_rejects = parsed.as_ref().is_err_and(|error| {
            let message = error.to_string();
            message.contains("out of range") || message.contains("surrogate") || message.contains("hex escape")
        });
        assert!(
            accepted == parsed.is_ok() || only_serde_rejects,
            "{:?}: {accepted} {parsed:?}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

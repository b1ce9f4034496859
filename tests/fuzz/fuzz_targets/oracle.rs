//! A simple evaluator of patterns without an index. The fuzz target compares the results of the matcher with its
//! results.
//!
//! The evaluator compares numbers as doubles. [`exact_as_doubles`] returns whether that is exact for the numbers of a
//! text.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

/// The largest number of partial assignments that are tried for one event.
const STEPS_MAX: u32 = 20_000;

/// Returns whether comparing the numbers of a JSON text as doubles is exact: every number has at most 15 digits and an
/// exponent in the range of doubles.
pub fn exact_as_doubles(json: &str) -> bool {
    json.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '+' | '-')).all(|word| {
        let (digits, exponent) = word.split_once(['e', 'E']).unwrap_or((word, "0"));
        !word.starts_with(|c: char| c.is_ascii_digit() || c == '-')
            || digits.len() <= 15 && exponent.parse::<i32>().is_ok_and(|exponent| exponent.abs() < 200)
    })
}

/// For each array, by number, the index of the element that contains a value.
type Elements = BTreeMap<u32, usize>;

struct Occurrence<'a> {
    path: Vec<&'a str>,
    elements: Elements,
    value: &'a Value,
}

type Fields<'a> = Vec<(Vec<&'a str>, &'a [Value])>;

/// Returns whether a pattern matches an event, or `None` when that takes more than `STEPS_MAX` steps.
pub fn matches(pattern: &Value, event: &Value) -> Option<bool> {
    let mut occurrences = Vec::new();
    flatten(event, &[], &Elements::new(), &mut 0, &mut occurrences);
    let mut steps = STEPS_MAX;
    for fields in alternatives(pattern, &[]) {
        if satisfiable(&fields, &occurrences, &Elements::new(), &[], &mut steps)? {
            return Some(true);
        }
    }
    Some(false)
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

/// Expands a pattern into its alternatives, each a list of fields with their lists of conditions.
fn alternatives<'a>(pattern: &'a Value, path: &[&'a str]) -> Vec<Fields<'a>> {
    let mut all: Vec<Fields<'a>> = vec![Vec::new()];
    for (name, value) in pattern.as_object().into_iter().flatten() {
        let below = || [path, &[name.as_str()]].concat();
        let more: Vec<Fields<'a>> = match value {
            Value::Array(list) if name == "$or" => list.iter().flat_map(|inner| alternatives(inner, path)).collect(),
            Value::Array(list) => vec![vec![(below(), list.as_slice())]],
            inner => alternatives(inner, &below()),
        };
        all = all.iter().flat_map(|left| more.iter().map(|right| [left.as_slice(), right].concat())).collect();
    }
    all
}

/// Tries every assignment of values to fields. `taken` has the array elements of the values assigned so far, `absent`
/// the fields that have no value assigned. Returns `None` when no steps are left.
fn satisfiable(
    fields: &[(Vec<&str>, &[Value])],
    event: &[Occurrence<'_>],
    taken: &Elements,
    absent: &[&[&str]],
    steps: &mut u32,
) -> Option<bool> {
    *steps = steps.checked_sub(1)?;
    let Some(((path, list), rest)) = fields.split_first() else {
        return Some(
            !event.iter().any(|it| absent.contains(&it.path.as_slice()) && are_compatible(&it.elements, taken)),
        );
    };
    for it in event.iter().filter(|it| it.path == *path && are_compatible(&it.elements, taken)) {
        let mut more = taken.clone();
        more.extend(&it.elements);
        if list.iter().any(|entry| meets(entry, it.value)) && satisfiable(rest, event, &more, absent, steps)? {
            return Some(true);
        }
    }
    match list.contains(&json!({ "exists": false })) {
        true => satisfiable(rest, event, taken, &[absent, &[path.as_slice()]].concat(), steps),
        false => Some(false),
    }
}

/// Returns whether two values may match together: they are not in different elements of the same array.
fn are_compatible(a: &Elements, b: &Elements) -> bool {
    a.iter().all(|(array, index)| b.get(array).is_none_or(|other| other == index))
}

fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Returns whether a value meets one entry of a list.
fn meets(entry: &Value, value: &Value) -> bool {
    let Some((operator, operand)) = entry.as_object().and_then(only_member) else { return same(entry, value) };
    match (operator, operand) {
        ("exists", wanted) => *wanted == json!(true),
        ("numeric", Value::Array(list)) => {
            value.as_f64().is_some_and(|number| list.chunks(2).all(|pair| in_range(number, pair)))
        }
        ("anything-but", Value::Object(inner)) => {
            let Some((operator, operand)) = only_member(inner) else { return false };
            let list = operand.as_array().map_or(std::slice::from_ref(operand), Vec::as_slice);
            !value.as_str().is_some_and(|text| list.iter().any(|it| text_meets(operator, it, text)))
        }
        ("anything-but", Value::Array(list)) => !list.iter().any(|it| same(it, value)),
        ("anything-but", one) => !same(one, value),
        _ => value.as_str().is_some_and(|text| text_meets(operator, operand, text)),
    }
}

fn only_member(map: &Map<String, Value>) -> Option<(&str, &Value)> {
    map.iter().next().map(|(name, value)| (name.as_str(), value))
}

fn in_range(number: f64, pair: &[Value]) -> bool {
    let [Value::String(sign), bound] = pair else { return false };
    let Some(bound) = bound.as_f64() else { return false };
    match sign.as_str() {
        "=" => number == bound,
        "<" => number < bound,
        "<=" => number <= bound,
        ">" => number > bound,
        _ => number >= bound,
    }
}

fn text_meets(operator: &str, operand: &Value, text: &str) -> bool {
    let (folded, operand) = match operand.get("equals-ignore-case") {
        Some(inner) => (true, inner),
        None => (operator == "equals-ignore-case", operand),
    };
    let chars = |text: &str| text.chars().map(|c| if folded { fold(c) } else { c }).collect::<Vec<_>>();
    let Some(operand) = operand.as_str() else { return false };
    let (wanted, found) = (chars(operand), chars(text));
    match operator {
        "prefix" => found.starts_with(&wanted),
        "suffix" => found.ends_with(&wanted),
        "equals-ignore-case" => found == wanted,
        "wildcard" => wildcard_matches(&wanted, &found),
        "cidr" => in_cidr_block(operand, text).unwrap_or(false),
        _ => false,
    }
}

/// Converts to upper case, then to lower case, and skips a conversion that gives more than one character.
fn fold(char: char) -> char {
    let single = |mapped: Vec<char>, before: char| if let [one] = mapped[..] { one } else { before };
    let upper = single(char.to_uppercase().collect(), char);
    single(upper.to_lowercase().collect(), upper)
}

/// Matches a wildcard by dynamic programming: `reached[n]` is true when the part of the wildcard read so far matches
/// the first `n` characters.
fn wildcard_matches(wildcard: &[char], text: &[char]) -> bool {
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut chars = wildcard.iter();
    while let Some(&char) = chars.next() {
        if char == '*' {
            let from = reached.iter().position(|&it| it).unwrap_or(reached.len());
            reached[from..].fill(true);
            continue;
        }
        let literal = if char == '\\' { chars.next().copied().unwrap_or(char) } else { char };
        for n in (0..text.len()).rev() {
            reached[n + 1] = reached[n] && text[n] == literal;
        }
        reached[0] = false;
    }
    reached[text.len()]
}

fn in_cidr_block(block: &str, address: &str) -> Option<bool> {
    let (start, length) = block.split_once('/')?;
    let length: usize = length.parse().ok()?;
    let bits = |text: &str| {
        Some(match text.parse::<IpAddr>().ok()? {
            IpAddr::V4(address) => format!("{:032b}", address.to_bits()),
            IpAddr::V6(address) => format!("{:0128b}", address.to_bits()),
        })
    };
    let (start, address) = (bits(start)?, bits(address)?);
    Some(start.len() == address.len() && start.get(..length)? == address.get(..length)?)
}

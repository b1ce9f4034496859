//! Patterns as their rules say, step by step, without an index: what the matcher is held against.
//!
//! Numbers are compared as doubles here. [`fits`] says of which texts that is exact.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

/// The most work for one event, in choices that are tried.
const STEPS_MAX: u32 = 20_000;

/// Whether two numbers of such a text are equal as doubles only when they are: 15 digits or fewer, in the range of
/// doubles.
pub fn fits(json: &str) -> bool {
    json.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '+' | '-')).all(|word| {
        let (digits, exponent) = word.split_once(['e', 'E']).unwrap_or((word, "0"));
        !word.starts_with(|c: char| c.is_ascii_digit() || c == '-')
            || digits.len() <= 15 && exponent.parse::<i32>().is_ok_and(|exponent| exponent.abs() < 200)
    })
}

/// Which element of which array.
type Elements = BTreeMap<u32, usize>;

struct Occurrence<'a> {
    path: Vec<&'a str>,
    elements: Elements,
    value: &'a Value,
}

type Fields<'a> = Vec<(Vec<&'a str>, &'a [Value])>;

/// Whether a pattern matches an event; `None` when that takes too long to find out.
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

/// Every scalar with its path and the elements it stands in.
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

/// A pattern as a list of alternatives, each a list of fields with their lists.
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

/// Tries every choice of values; `absent` are the fields that take none.
fn satisfiable(
    fields: &[(Vec<&str>, &[Value])],
    event: &[Occurrence<'_>],
    taken: &Elements,
    absent: &[&[&str]],
    steps: &mut u32,
) -> Option<bool> {
    *steps = steps.checked_sub(1)?;
    let Some(((path, list), rest)) = fields.split_first() else {
        return Some(!event.iter().any(|it| absent.contains(&it.path.as_slice()) && together(&it.elements, taken)));
    };
    for it in event.iter().filter(|it| it.path == *path && together(&it.elements, taken)) {
        let mut more = taken.clone();
        more.extend(&it.elements);
        if list.iter().any(|entry| holds(entry, it.value)) && satisfiable(rest, event, &more, absent, steps)? {
            return Some(true);
        }
    }
    match list.contains(&json!({ "exists": false })) {
        true => satisfiable(rest, event, taken, &[absent, &[path.as_slice()]].concat(), steps),
        false => Some(false),
    }
}

fn together(a: &Elements, b: &Elements) -> bool {
    a.iter().all(|(array, index)| b.get(array).is_none_or(|other| other == index))
}

fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Whether a value meets one entry of a list.
fn holds(entry: &Value, value: &Value) -> bool {
    let Some((operator, operand)) = entry.as_object().and_then(only) else { return same(entry, value) };
    match (operator, operand) {
        ("exists", wanted) => *wanted == json!(true),
        ("numeric", Value::Array(list)) => {
            value.as_f64().is_some_and(|number| list.chunks(2).all(|pair| in_range(number, pair)))
        }
        ("anything-but", Value::Object(inner)) => {
            let Some((operator, operand)) = only(inner) else { return false };
            let list = operand.as_array().map_or(std::slice::from_ref(operand), Vec::as_slice);
            !value.as_str().is_some_and(|text| list.iter().any(|it| text_holds(operator, it, text)))
        }
        ("anything-but", Value::Array(list)) => !list.iter().any(|it| same(it, value)),
        ("anything-but", one) => !same(one, value),
        _ => value.as_str().is_some_and(|text| text_holds(operator, operand, text)),
    }
}

fn only(map: &Map<String, Value>) -> Option<(&str, &Value)> {
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

fn text_holds(operator: &str, operand: &Value, text: &str) -> bool {
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
        "wildcard" => wild(&wanted, &found),
        "cidr" => in_block(operand, text).unwrap_or(false),
        _ => false,
    }
}

/// To upper case, then to lower case, each only where that is one character.
fn fold(char: char) -> char {
    let single = |mapped: Vec<char>, before: char| if let [one] = mapped[..] { one } else { before };
    let upper = single(char.to_uppercase().collect(), char);
    single(upper.to_lowercase().collect(), upper)
}

/// `reached[n]`: what was read of the wildcard takes the first `n` characters.
fn wild(wildcard: &[char], text: &[char]) -> bool {
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

fn in_block(block: &str, address: &str) -> Option<bool> {
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

//! A simple evaluator of patterns without an index, written from the documentation of the crate. It is slow, and
//! supports only the values that the random tests make.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Value, json};

/// For each array, by number, the index of the element that contains a value.
type Elements = BTreeMap<u32, usize>;

#[derive(Debug)]
pub(super) struct Occurrence<'a> {
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

/// The characters of one entry are equal if case is ignored. A character that is in no entry equals only itself.
const CASES: [&str; 11] = ["aA", "bB", "kK\u{212a}", "sS\u{17f}", "iI\u{131}", "xX", "yY", "äÄ", "ßẞ", "σςΣ", "θϑΘϴ"];

/// The literals and stars of a wildcard.
fn wildcard_parts(text: &str) -> Vec<Option<char>> {
    let (mut parts, mut chars) = (Vec::new(), text.chars());
    while let Some(char) = chars.next() {
        parts.push(match char {
            '*' => None,
            '\\' => chars.next(),
            char => Some(char),
        });
    }
    parts
}

fn wildcard_matches(parts: &[Option<char>], text: &[char]) -> bool {
    match parts.split_first() {
        None => text.is_empty(),
        Some((None, rest)) => (0..=text.len()).any(|skip| wildcard_matches(rest, &text[skip..])),
        Some((Some(first), rest)) => {
            text.split_first().is_some_and(|(it, text)| it == first && wildcard_matches(rest, text))
        }
    }
}

/// Replaces each character by the first character of its entry in [`CASES`].
fn lower(text: &str) -> String {
    let first =
        |char| CASES.iter().find(|line| line.contains(char)).and_then(|line| line.chars().next()).unwrap_or(char);
    text.chars().map(first).collect()
}

/// Returns the bits of an address as text, and true for an IPv6 address.
fn address(text: &str) -> Option<(String, bool)> {
    let bits = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:08b}")).collect::<String>();
    match text.parse::<std::net::IpAddr>().ok()? {
        std::net::IpAddr::V4(address) => Some((bits(&address.octets()), false)),
        std::net::IpAddr::V6(address) => Some((bits(&address.octets()), true)),
    }
}

fn is_in_block(block: &str, text: &str) -> bool {
    let (start, length) = block.split_once('/').unwrap();
    let (start, length) = (address(start).unwrap(), length.parse::<usize>().unwrap());
    address(text).is_some_and(|found| found.1 == start.1 && found.0[..length] == start.0[..length])
}

fn text_meets(operator: &str, operand: &Value, text: &str) -> bool {
    let wanted = operand.as_str().unwrap_or_default();
    let folded = || lower(operand["equals-ignore-case"].as_str().unwrap());
    match (operator, operand) {
        ("prefix", Value::Object(_)) => lower(text).starts_with(&folded()),
        ("suffix", Value::Object(_)) => lower(text).ends_with(&folded()),
        ("prefix", _) => text.starts_with(wanted),
        ("suffix", _) => text.ends_with(wanted),
        ("equals-ignore-case", _) => lower(text) == lower(wanted),
        ("wildcard", _) => wildcard_matches(&wildcard_parts(wanted), &text.chars().collect::<Vec<_>>()),
        ("cidr", _) => is_in_block(wanted, text),
        other => panic!("{other:?}"),
    }
}

/// Returns a number in units of 10^-1000: its sign, and its digits as a whole number.
fn units(number: &str) -> (Ordering, String) {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) =
        mantissa.trim_start_matches('-').split_once('.').unwrap_or((mantissa.trim_start_matches('-'), ""));
    let zeros = 1_000 + exponent.parse::<i64>().unwrap() - fraction.len() as i64;
    let digits = format!("{whole}{fraction}{}", "0".repeat(usize::try_from(zeros).unwrap()));
    let digits = digits.trim_start_matches('0').to_owned();
    let sign = if digits.is_empty() {
        Ordering::Equal
    } else if number.starts_with('-') {
        Ordering::Less
    } else {
        Ordering::Greater
    };
    (sign, digits)
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    let (Value::Number(a), Value::Number(b)) = (a, b) else { return None };
    let ((a_sign, a), (b_sign, b)) = (units(&a.to_string()), units(&b.to_string()));
    let size = || a.len().cmp(&b.len()).then_with(|| a.cmp(&b));
    Some(a_sign.cmp(&b_sign).then_with(|| if a_sign == Ordering::Less { size().reverse() } else { size() }))
}

fn is_same(a: &Value, b: &Value) -> bool {
    compare(a, b).map_or_else(|| a == b, |order| order == Ordering::Equal)
}

fn is_in_range(list: &[Value], value: &Value) -> bool {
    list.chunks(2).all(|pair| {
        compare(value, &pair[1]).is_some_and(|order| match pair[0].as_str().unwrap() {
            "=" => order == Ordering::Equal,
            "<" => order == Ordering::Less,
            "<=" => order != Ordering::Greater,
            ">" => order == Ordering::Greater,
            _ => order != Ordering::Less,
        })
    })
}

fn meets(entry: &Value, value: &Value) -> bool {
    let Some((operator, operand)) = entry.as_object().and_then(|operators| operators.iter().next()) else {
        return is_same(entry, value);
    };
    match (operator.as_str(), operand) {
        ("exists", wanted) => *wanted == json!(true),
        ("numeric", Value::Array(list)) => is_in_range(list, value),
        ("anything-but", Value::Object(inner)) => {
            let (operator, operand) = inner.iter().next().unwrap();
            let list = operand.as_array().cloned().unwrap_or_else(|| vec![operand.clone()]);
            !value.as_str().is_some_and(|text| list.iter().any(|it| text_meets(operator, it, text)))
        }
        ("anything-but", Value::Array(list)) => !list.iter().any(|it| is_same(it, value)),
        ("anything-but", single) => !is_same(single, value),
        _ => value.as_str().is_some_and(|text| text_meets(operator, operand, text)),
    }
}

/// Returns true if two values can match together: no array contains them in two different elements.
fn are_compatible(a: &Elements, b: &Elements) -> bool {
    a.iter().all(|(array, index)| b.get(array).is_none_or(|other| other == index))
}

/// Tries every assignment of values to fields. `taken` has the array elements of the values that are assigned so far.
/// `absent` has the fields that are left without a value.
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

pub(super) fn simple_matches(pattern: &Value, event: &[Occurrence<'_>]) -> bool {
    alternatives(pattern, &[]).iter().any(|fields| satisfiable(fields, event, &Elements::new(), &[]))
}

/// The scalars of an event.
pub(super) fn occurrences(event: &Value) -> Vec<Occurrence<'_>> {
    let mut occurrences = Vec::new();
    flatten(event, &[], &Elements::new(), &mut 0, &mut occurrences);
    occurrences
}

/// Returns true if the event matches the pattern. Does not use the matcher.
pub(super) fn is_match(pattern: &Value, event: &Value) -> bool {
    simple_matches(pattern, &occurrences(event))
}

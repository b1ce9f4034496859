//! One entry of a field's list: a value, or an object with an operator.

use serde_json::{Map, Value as Json};

use super::Segment;
use super::cidr::Cidr;
use super::condition::{Condition, Exact, Range};
use super::number::Decimal;
use super::parse::{Parser, kind, shorten};
use super::text::{self, TextTest, Wildcard, WildcardError};

pub(super) const OPERATORS: [&str; 8] =
    ["anything-but", "cidr", "equals-ignore-case", "exists", "numeric", "prefix", "suffix", "wildcard"];

/// Reads an entry; `None` when it has a mistake, which is then reported.
pub(super) fn condition(parser: &mut Parser, entry: &Json) -> Option<Condition> {
    match entry {
        Json::Object(map) => {
            let (operator, operand) = single(parser, map, &OPERATORS)?;
            parser.within_key(operator, |parser| read(parser, operator, operand))
        }
        Json::Array(_) => {
            let help = "write its values into the field's list itself".to_owned();
            parser.error("a list within a list matches nothing".to_owned(), Some(help));
            None
        }
        value => exact(value).map(Condition::Exact),
    }
}

fn exact(value: &Json) -> Option<Exact> {
    match value {
        Json::Null => Some(Exact::Null),
        Json::Bool(bool) => Some(Exact::Bool(*bool)),
        Json::Number(number) => Some(Exact::Number(Decimal::of(number))),
        Json::String(text) => Some(Exact::Text(text.as_str().into())),
        Json::Array(_) | Json::Object(_) => None,
    }
}

/// The one operator of an object, and what it is given.
fn single<'a>(parser: &mut Parser, map: &'a Map<String, Json>, known: &[&str]) -> Option<(&'a str, &'a Json)> {
    let names = known.join("`, `");
    let mut entries = map.iter();
    let Some((name, operand)) = entries.next() else {
        parser.error("an object here names an operator".to_owned(), Some(format!("one of `{names}`")));
        return None;
    };
    if entries.next().is_some() {
        let apart: Vec<String> =
            map.iter().map(|(name, value)| format!("{{\"{name}\": {}}}", shorten(value))).collect();
        let help = format!("for any of them write {}", apart.join(", "));
        parser.error("an entry has one operator".to_owned(), Some(help));
        return None;
    }
    if !known.contains(&name.as_str()) {
        let near = known.iter().map(|it| (text::distance(name, it), it)).min().filter(|(far, _)| *far <= 3);
        let help = match (near, OPERATORS.contains(&name.as_str())) {
            (_, true) => format!("here stands one of `{names}`"),
            (Some((_, it)), _) => format!("did you mean `{it}`?"),
            (None, _) => format!("one of `{names}`"),
        };
        let what = if OPERATORS.contains(&name.as_str()) { "no place for the operator" } else { "unknown operator" };
        parser.within_key(name, |parser| parser.error(format!("{what} `{name}`"), Some(help)));
        return None;
    }
    Some((name, operand))
}

fn read(parser: &mut Parser, operator: &str, operand: &Json) -> Option<Condition> {
    match operator {
        "prefix" => affix(parser, operator, operand, TextTest::Prefix, TextTest::FoldedPrefix),
        "suffix" => affix(parser, operator, operand, TextTest::Suffix, TextTest::FoldedSuffix),
        "equals-ignore-case" | "wildcard" => text_test(parser, operator, operand).map(Condition::Text),
        "anything-but" => anything_but(parser, operand),
        "numeric" => numeric(parser, operand),
        "cidr" => cidr(parser, operand),
        "exists" => match operand {
            Json::Bool(true) => Some(Condition::Present),
            Json::Bool(false) => Some(Condition::Absent),
            other => wrong(parser, operator, "true or false", other),
        },
        _ => None,
    }
}

/// Reports an operand of the wrong type.
fn wrong<T>(parser: &mut Parser, operator: &str, right: &str, operand: &Json) -> Option<T> {
    let message = format!("`{operator}` takes {right}, not {}", kind(operand));
    let help = match (operand, right) {
        (Json::Array(list), "a string") if list.len() > 1 && list.iter().all(Json::is_string) => {
            let apart: Vec<String> = list.iter().map(|value| format!("{{\"{operator}\": {value}}}")).collect();
            Some(format!("for any of them write {}", apart.join(", ")))
        }
        (Json::Array(list), "a string") if list.len() == 1 => list.first().map(|only| format!("write {only}")),
        (Json::Number(_) | Json::Bool(_), "a string") => Some(format!("write \"{operand}\"")),
        _ => None,
    };
    parser.error(message, help);
    None
}

/// `prefix` or `suffix`, of a string or ignoring case.
fn affix(
    parser: &mut Parser,
    operator: &str,
    operand: &Json,
    plain: fn(Box<str>) -> TextTest,
    folded: fn(Box<str>) -> TextTest,
) -> Option<Condition> {
    match operand {
        Json::String(text) => Some(Condition::Text(plain(text.as_str().into()))),
        Json::Object(map) => {
            let (inner, operand) = single(parser, map, &["equals-ignore-case"])?;
            parser.within_key(inner, |parser| match operand {
                Json::String(it) => Some(Condition::Text(folded(text::fold(it)))),
                other => wrong(parser, inner, "a string", other),
            })
        }
        other => wrong(parser, operator, "a string", other),
    }
}

/// An operator over one string.
fn text_test(parser: &mut Parser, operator: &str, operand: &Json) -> Option<TextTest> {
    let Json::String(value) = operand else { return wrong(parser, operator, "a string", operand) };
    Some(match operator {
        "prefix" => TextTest::Prefix(value.as_str().into()),
        "suffix" => TextTest::Suffix(value.as_str().into()),
        "equals-ignore-case" => TextTest::Folded(text::fold(value)),
        _ => {
            parser.wildcards += 1;
            let (message, help) = match Wildcard::parse(value) {
                Ok(wildcard) => return Some(TextTest::Wildcard(wildcard)),
                Err(WildcardError::ConsecutiveStars) => {
                    ("two `*` stand next to each other", "one `*` stands for any number of characters")
                }
                Err(WildcardError::BadEscape) => (
                    "a backslash stands before neither `*` nor `\\`",
                    "in JSON a literal backslash here is \"\\\\\\\\\"",
                ),
            };
            parser.error(message.to_owned(), Some(help.to_owned()));
            return None;
        }
    })
}

fn anything_but(parser: &mut Parser, operand: &Json) -> Option<Condition> {
    const RIGHT: &str = "a string, a number, a list of one of both, or an operator";
    match operand {
        Json::String(_) | Json::Number(_) => exact(operand).map(|value| Condition::except(vec![value])),
        Json::Array(list) => {
            if list.is_empty() {
                let help = "for any value write {\"exists\": true}".to_owned();
                parser.error("`anything-but` has an empty list".to_owned(), Some(help));
                return None;
            }
            for (index, value) in list.iter().enumerate() {
                if !value.is_string() && !value.is_number() {
                    let message = format!("`anything-but` takes strings or numbers, not {}", kind(value));
                    parser.within(Segment::Index(index), |parser| parser.error(message, None));
                    return None;
                }
            }
            if list.iter().any(Json::is_string) && list.iter().any(Json::is_number) {
                let help = "EventBridge takes a list of only strings or only numbers".to_owned();
                parser.error("`anything-but` mixes strings and numbers".to_owned(), Some(help));
                return None;
            }
            Some(Condition::except(list.iter().filter_map(exact).collect()))
        }
        Json::Object(map) => {
            let (inner, operand) = single(parser, map, &["prefix", "suffix", "equals-ignore-case", "wildcard"])?;
            parser.within_key(inner, |parser| except_text(parser, inner, operand))
        }
        other => wrong(parser, "anything-but", RIGHT, other),
    }
}

fn except_text(parser: &mut Parser, operator: &str, operand: &Json) -> Option<Condition> {
    let list = match operand {
        Json::Array(list) => list.as_slice(),
        single => std::slice::from_ref(single),
    };
    if list.is_empty() {
        parser.error(format!("`{operator}` has an empty list"), None);
    }
    let mut tests = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let each = |parser: &mut Parser| {
            if !value.is_string() {
                return wrong(parser, operator, "a string or a list of strings", value);
            }
            let test = text_test(parser, operator, value)?;
            let anything = match &test {
                TextTest::Prefix(text) | TextTest::Suffix(text) => text.is_empty(),
                TextTest::Wildcard(wildcard) => wildcard.is_anything(),
                _ => false,
            };
            if anything {
                let message = format!("every string matches `{operator}` {value}, so what is not one can never match");
                parser.error(message, None);
            }
            Some(test)
        };
        let test = if operand.is_array() { parser.within(Segment::Index(index), each) } else { each(parser) };
        tests.extend(test);
    }
    (tests.len() == list.len()).then(|| Condition::ExceptText(tests.into()))
}

fn numeric(parser: &mut Parser, operand: &Json) -> Option<Condition> {
    const SHAPE: &str = "write [\">\", 0], [\"=\", 5] or [\">=\", 0, \"<\", 10]";
    let Json::Array(list) = operand else {
        wrong::<()>(parser, "numeric", "a list", operand);
        return None;
    };
    let mut bounds = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let right = match (index % 2, value) {
            (0, Json::String(sign)) if ["=", "<", "<=", ">", ">="].contains(&sign.as_str()) => true,
            (1, Json::Number(number)) => {
                if let Some(Json::String(sign)) = list.get(index - 1) {
                    bounds.push((sign.as_str(), Decimal::of(number)));
                }
                true
            }
            _ => false,
        };
        if !right {
            let message = match index % 2 {
                0 => format!("{value} is no comparison; there are =, <, <=, >, >="),
                _ => format!("{value} is no number to compare with"),
            };
            parser.within(Segment::Index(index), |parser| parser.error(message, Some(SHAPE.to_owned())));
            return None;
        }
    }
    // The published order is lower bound first; the other one means the same.
    if let [("<" | "<=", _), (">" | ">=", _)] = &*bounds {
        bounds.reverse();
    }
    let range = match (&*bounds, list.len()) {
        ([("=", number)], 2) => return Some(Condition::Exact(Exact::Number(*number))),
        ([(sign @ (">" | ">="), low)], 2) => Range { low: Some((*low, *sign == ">=")), high: None },
        ([(sign @ ("<" | "<="), high)], 2) => Range { low: None, high: Some((*high, *sign == "<=")) },
        ([(above @ (">" | ">="), low), (below @ ("<" | "<="), high)], 4) => {
            let closed = *above == ">=" && *below == "<=";
            if low > high || (low == high && !closed) {
                let help = "the lower bound must be below the upper one".to_owned();
                parser.error(format!("no number is in the range {operand}: it can never match"), Some(help));
                return None;
            }
            Range { low: Some((*low, *above == ">=")), high: Some((*high, *below == "<=")) }
        }
        _ => {
            parser.error(format!("{operand} is no comparison and no range"), Some(SHAPE.to_owned()));
            return None;
        }
    };
    Some(Condition::Range(Box::new(range)))
}

fn cidr(parser: &mut Parser, operand: &Json) -> Option<Condition> {
    let Json::String(text) = operand else { return wrong(parser, "cidr", "a string", operand) };
    let cidr = Cidr::parse(text);
    if cidr.is_none() {
        let help = match text.parse::<std::net::IpAddr>() {
            Ok(address) if address.is_ipv4() => format!("for this one address write \"{address}/32\""),
            Ok(address) => format!("for this one address write \"{address}/128\""),
            Err(_) => "write \"10.0.0.0/24\" (length at most 32) or \"2001:db8::/32\" (at most 128)".to_owned(),
        };
        parser.error(format!("\"{text}\" is no block of IP addresses"), Some(help));
    }
    cidr.map(Condition::Cidr)
}

//! Parses one entry of a field's list: a value, or an object with an operator.

use serde_json::{Map, Value as Json};

use super::Segment;
use super::cidr::Cidr;
use super::condition::{Condition, Exact, Range};
use super::number::Number;
use super::parser::{Parser, shortened_json, type_name};
use super::text::{self, TextTest, Wildcard, WildcardError};

/// The operators that an entry of a field's list may use.
pub(super) const OPERATORS: [&str; 8] =
    ["anything-but", "cidr", "equals-ignore-case", "exists", "numeric", "prefix", "suffix", "wildcard"];

/// Parses an entry. Returns `None` after a mistake, which is reported to the parser.
pub(super) fn parse_condition(parser: &mut Parser, entry: &Json) -> Option<Condition> {
    match entry {
        Json::Object(map) => {
            let (operator, operand) = single_operator(parser, map, &OPERATORS)?;
            parser.within_key(operator, |parser| parse_operator(parser, operator, operand))
        }
        Json::Array(_) => {
            let help = "write the values directly in the field's list".to_owned();
            parser.error("a list inside a list never matches".to_owned(), Some(help));
            None
        }
        value => parse_exact(value).map(Condition::Exact),
    }
}

fn parse_exact(value: &Json) -> Option<Exact> {
    match value {
        Json::Null => Some(Exact::Null),
        Json::Bool(bool) => Some(Exact::Bool(*bool)),
        Json::Number(number) => Some(Exact::Number(Number::from_json(number))),
        Json::String(text) => Some(Exact::Text(text.as_str().into())),
        Json::Array(_) | Json::Object(_) => None,
    }
}

/// Returns the only member of an object: the operator, which must be one of `known`, and its operand.
fn single_operator<'a>(parser: &mut Parser, map: &'a Map<String, Json>, known: &[&str]) -> Option<(&'a str, &'a Json)> {
    let names = known.join("`, `");
    let mut entries = map.iter();
    let Some((name, operand)) = entries.next() else {
        parser.error("an object in this place must have an operator".to_owned(), Some(format!("use one of `{names}`")));
        return None;
    };
    if entries.next().is_some() {
        let apart: Vec<String> =
            map.iter().map(|(name, value)| format!("{{\"{name}\": {}}}", shortened_json(value))).collect();
        let help = format!("to match any of them write {}", apart.join(", "));
        parser.error("an entry must have exactly one operator".to_owned(), Some(help));
        return None;
    }
    if !known.contains(&name.as_str()) {
        let similar = known
            .iter()
            .map(|known| (text::edit_distance(name, known), known))
            .min()
            .filter(|(distance, _)| *distance <= 3);
        let help = match (similar, OPERATORS.contains(&name.as_str())) {
            (_, true) => format!("use one of `{names}`"),
            (Some((_, known)), _) => format!("did you mean `{known}`?"),
            (None, _) => format!("use one of `{names}`"),
        };
        let message = if OPERATORS.contains(&name.as_str()) {
            format!("the operator `{name}` is not allowed here")
        } else {
            format!("unknown operator `{name}`")
        };
        parser.within_key(name, |parser| parser.error(message, Some(help)));
        return None;
    }
    Some((name, operand))
}

fn parse_operator(parser: &mut Parser, operator: &str, operand: &Json) -> Option<Condition> {
    match operator {
        "prefix" => parse_affix(parser, operator, operand, TextTest::Prefix, TextTest::FoldedPrefix),
        "suffix" => parse_affix(parser, operator, operand, TextTest::Suffix, TextTest::FoldedSuffix),
        "equals-ignore-case" | "wildcard" => parse_text_test(parser, operator, operand).map(Condition::Text),
        "anything-but" => parse_anything_but(parser, operand),
        "numeric" => parse_numeric(parser, operand),
        "cidr" => parse_cidr(parser, operand),
        "exists" => match operand {
            Json::Bool(true) => Some(Condition::Present),
            Json::Bool(false) => Some(Condition::Absent),
            other => report_wrong_type(parser, operator, "true or false", other),
        },
        _ => None,
    }
}

/// Reports an operand of the wrong type; `right` names the right type.
fn report_wrong_type<T>(parser: &mut Parser, operator: &str, right: &str, operand: &Json) -> Option<T> {
    let message = format!("`{operator}` takes {right}, not {}", type_name(operand));
    let help = match (operand, right) {
        (Json::Array(list), "a string") if list.len() > 1 && list.iter().all(Json::is_string) => {
            let apart: Vec<String> = list.iter().map(|value| format!("{{\"{operator}\": {value}}}")).collect();
            Some(format!("to match any of them write {}", apart.join(", ")))
        }
        (Json::Array(list), "a string") if list.len() == 1 => list.first().map(|only| format!("write {only}")),
        (Json::Number(_) | Json::Bool(_), "a string") => Some(format!("write \"{operand}\"")),
        _ => None,
    };
    parser.error(message, help);
    None
}

/// Parses the operand of `prefix` or `suffix`: a string, or an object with `equals-ignore-case`.
fn parse_affix(
    parser: &mut Parser,
    operator: &str,
    operand: &Json,
    plain: fn(Box<str>) -> TextTest,
    folded: fn(Box<str>) -> TextTest,
) -> Option<Condition> {
    match operand {
        Json::String(text) => Some(Condition::Text(plain(text.as_str().into()))),
        Json::Object(map) => {
            let (inner, operand) = single_operator(parser, map, &["equals-ignore-case"])?;
            parser.within_key(inner, |parser| match operand {
                Json::String(text) => Some(Condition::Text(folded(text::fold(text)))),
                other => report_wrong_type(parser, inner, "a string", other),
            })
        }
        other => report_wrong_type(parser, operator, "a string", other),
    }
}

/// Parses the operand of an operator that takes one string.
fn parse_text_test(parser: &mut Parser, operator: &str, operand: &Json) -> Option<TextTest> {
    let Json::String(value) = operand else { return report_wrong_type(parser, operator, "a string", operand) };
    Some(match operator {
        "prefix" => TextTest::Prefix(value.as_str().into()),
        "suffix" => TextTest::Suffix(value.as_str().into()),
        "equals-ignore-case" => TextTest::Folded(text::fold(value)),
        _ => {
            parser.wildcards += 1;
            let (message, help) = match Wildcard::parse(value) {
                Ok(wildcard) => {
                    parser.wildcard_bytes += wildcard.literal_bytes();
                    return Some(TextTest::Wildcard(wildcard));
                }
                Err(WildcardError::ConsecutiveStars) => {
                    ("two `*` are next to each other", "one `*` matches any number of characters")
                }
                Err(WildcardError::BadEscape) => {
                    ("a backslash must be followed by `*` or `\\`", "to match a backslash write \"\\\\\\\\\" in JSON")
                }
            };
            parser.error(message.to_owned(), Some(help.to_owned()));
            return None;
        }
    })
}

fn parse_anything_but(parser: &mut Parser, operand: &Json) -> Option<Condition> {
    const RIGHT: &str = "a string, a number, a list of strings, a list of numbers, or an object with an operator";
    match operand {
        Json::String(_) | Json::Number(_) => parse_exact(operand).map(|value| Condition::anything_but(vec![value])),
        Json::Array(list) => {
            if list.is_empty() {
                let help = "to match any value write {\"exists\": true}".to_owned();
                parser.error("the list of `anything-but` is empty".to_owned(), Some(help));
                return None;
            }
            for (index, value) in list.iter().enumerate() {
                if !value.is_string() && !value.is_number() {
                    let message = format!("`anything-but` takes strings or numbers, not {}", type_name(value));
                    parser.within(Segment::Index(index), |parser| parser.error(message, None));
                    return None;
                }
            }
            if list.iter().any(Json::is_string) && list.iter().any(Json::is_number) {
                let help = "use a list of only strings or only numbers, as in EventBridge".to_owned();
                parser.error("`anything-but` mixes strings and numbers".to_owned(), Some(help));
                return None;
            }
            Some(Condition::anything_but(list.iter().filter_map(parse_exact).collect()))
        }
        Json::Object(map) => {
            let (inner, operand) =
                single_operator(parser, map, &["prefix", "suffix", "equals-ignore-case", "wildcard"])?;
            parser.within_key(inner, |parser| parse_anything_but_text(parser, inner, operand))
        }
        other => report_wrong_type(parser, "anything-but", RIGHT, other),
    }
}

fn parse_anything_but_text(parser: &mut Parser, operator: &str, operand: &Json) -> Option<Condition> {
    let list = match operand {
        Json::Array(list) => list.as_slice(),
        single => std::slice::from_ref(single),
    };
    if list.is_empty() {
        parser.error(format!("the list of `{operator}` is empty"), None);
    }
    let mut tests = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let each = |parser: &mut Parser| {
            if !value.is_string() {
                return report_wrong_type(parser, operator, "a string or a list of strings", value);
            }
            parse_text_test(parser, operator, value)
        };
        let test = if operand.is_array() { parser.within(Segment::Index(index), each) } else { each(parser) };
        tests.extend(test);
    }
    (tests.len() == list.len()).then(|| Condition::AnythingButText(tests.into()))
}

fn parse_numeric(parser: &mut Parser, operand: &Json) -> Option<Condition> {
    const SHAPE: &str = "write [\">\", 0], [\"=\", 5] or [\">=\", 0, \"<\", 10]";
    let Json::Array(list) = operand else {
        report_wrong_type::<()>(parser, "numeric", "a list", operand);
        return None;
    };
    let mut bounds = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let is_valid = match (index % 2, value) {
            (0, Json::String(sign)) if ["=", "<", "<=", ">", ">="].contains(&sign.as_str()) => true,
            (1, Json::Number(number)) => {
                if let Some(Json::String(sign)) = list.get(index - 1) {
                    bounds.push((sign.as_str(), Number::from_json(number)));
                }
                true
            }
            _ => false,
        };
        if !is_valid {
            let message = match index % 2 {
                0 => format!("{value} is not a comparison; use =, <, <=, > or >="),
                _ => format!("{value} is not a number"),
            };
            parser.within(Segment::Index(index), |parser| parser.error(message, Some(SHAPE.to_owned())));
            return None;
        }
    }
    // In EventBridge, the lower bound comes first. Here, the reverse order has the same meaning.
    if let [("<" | "<=", _), (">" | ">=", _)] = &*bounds {
        bounds.reverse();
    }
    let range = match (&*bounds, list.len()) {
        ([("=", number)], 2) => return Some(Condition::Exact(Exact::Number(number.clone()))),
        ([(sign @ (">" | ">="), low)], 2) => Range { low: Some((low.clone(), *sign == ">=")), high: None },
        ([(sign @ ("<" | "<="), high)], 2) => Range { low: None, high: Some((high.clone(), *sign == "<=")) },
        ([(above @ (">" | ">="), low), (below @ ("<" | "<="), high)], 4) => {
            let closed = *above == ">=" && *below == "<=";
            if low > high || (low == high && !closed) {
                let help = "the lower bound must be less than the upper bound".to_owned();
                parser.error(format!("the range {operand} contains no number, so it never matches"), Some(help));
                return None;
            }
            Range { low: Some((low.clone(), *above == ">=")), high: Some((high.clone(), *below == "<=")) }
        }
        _ => {
            parser.error(format!("{operand} is neither a comparison nor a range"), Some(SHAPE.to_owned()));
            return None;
        }
    };
    Some(Condition::Range(Box::new(range)))
}

fn parse_cidr(parser: &mut Parser, operand: &Json) -> Option<Condition> {
    let Json::String(text) = operand else { return report_wrong_type(parser, "cidr", "a string", operand) };
    let cidr = Cidr::parse(text);
    if cidr.is_none() {
        let help = match text.parse::<std::net::IpAddr>() {
            Ok(address) if address.is_ipv4() => format!("to match this one address write \"{address}/32\""),
            Ok(address) => format!("to match this one address write \"{address}/128\""),
            Err(_) => "write \"10.0.0.0/24\" (at most /32) or, for IPv6, \"2001:db8::/32\" (at most /128)".to_owned(),
        };
        parser.error(format!("\"{text}\" is not a block of IP addresses"), Some(help));
    }
    cidr.map(Condition::Cidr)
}

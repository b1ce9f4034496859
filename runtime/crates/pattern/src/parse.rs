//! Parses the JSON form of a pattern: its structure, fields and `$or`. The module `operator` parses the entries of a
//! field's list.

use std::io;

use serde_json::{Map, Value as Json};

use super::condition::ConditionList;
use super::operator::{OPERATORS, parse_condition};
use super::parser::{Parser, shortened_json, type_name};
use super::{Compiled, PatternError, Segment};

/// The largest size of a pattern, in bytes of its JSON text without white space.
const SIZE_MAX: usize = 64 * 1024;
/// The largest number of steps from the top of a pattern to a field, through fields and `$or`.
const DEPTH_MAX: usize = 64;
/// The largest number of combinations of `$or` alternatives in a pattern. EventBridge has the same limit.
const ALTERNATIVES_MAX: usize = 1000;
/// The largest total number of fields in all combinations, which bounds the memory of a compiled pattern.
const ALTERNATIVE_FIELDS_MAX: usize = 64 * 1024;
/// The largest number of wildcards in a pattern. Wildcards are limited because each of them reads the whole value. Any
/// other condition reads no more of the value than the length of its operand.
const WILDCARDS_MAX: usize = 64;
/// The largest total length of the wildcards in a pattern, without their stars, in bytes. Each byte of a value costs
/// one operation for every 64 bytes of wildcards. EventBridge limits a whole pattern to this size.
const WILDCARD_BYTES_MAX: usize = 2048;

/// How to write a pattern with fewer combinations of `$or` alternatives.
const COMBINATIONS_HELP: &str =
    "several `$or` multiply their numbers of alternatives; split the pattern into several patterns";

/// Parses and checks a pattern. The error has all mistakes of the pattern.
pub(super) fn parse(json: &Json) -> Result<Compiled, Vec<PatternError>> {
    let mut parser = Parser::default();
    let size = size_of(json);
    if size > SIZE_MAX {
        let help = "split it into several patterns".to_owned();
        parser.error(format!("the pattern has {size} bytes, more than the limit of {SIZE_MAX}"), Some(help));
        return Err(parser.errors);
    }
    let alternatives = match json {
        Json::Object(map) => parser.object(map, false),
        _ => {
            let help = "write an object such as {\"type\": [\"order.placed\"]}".to_owned();
            parser.error(format!("a pattern must be an object of fields, not {}", type_name(json)), Some(help));
            Vec::new()
        }
    };
    if parser.wildcards > WILDCARDS_MAX {
        let message = format!("the pattern has {} wildcards, more than the limit of {WILDCARDS_MAX}", parser.wildcards);
        parser.error(
            message,
            Some("use `prefix` and `suffix` where possible; they are faster and not limited".to_owned()),
        );
    }
    if parser.wildcard_bytes > WILDCARD_BYTES_MAX {
        let message = format!(
            "the wildcards of the pattern have {} bytes together, more than the limit of {WILDCARD_BYTES_MAX}",
            parser.wildcard_bytes
        );
        let help = "use `prefix` and `suffix` where possible, or split the pattern into several patterns".to_owned();
        parser.error(message, Some(help));
    }
    if parser.errors_omitted > 0 {
        let message = format!("the pattern has {} more mistakes, which are not listed", parser.errors_omitted);
        parser.errors.push(PatternError { path: Vec::new(), message, help: None });
    }
    if parser.errors.is_empty() {
        let cost_of = |field: &u32| parser.fields.get(*field as usize).map_or(0, |test| test.list.cost);
        let cost: usize = alternatives.iter().flatten().map(cost_of).sum();
        let cost_log2 = cost.next_power_of_two().trailing_zeros() as u8;
        Ok(Compiled { source: json.clone(), fields: parser.fields, alternatives, cost_log2 })
    } else {
        Err(parser.errors)
    }
}

/// Returns the length of the JSON text without white space. The text is not stored, because it can be longer than the
/// value: each control character has six bytes.
fn size_of(json: &Json) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Never fails: the writer returns no errors, and the keys of a JSON value are strings.
    let _ = serde_json::to_writer(&mut count, json);
    count.0
}

/// The alternatives of a pattern or of a part of it. An alternative is one combination of `$or` entries: a list of
/// indexes into `Parser::fields`.
type Alternatives = Vec<Vec<u32>>;

impl Parser {
    /// Parses an object of fields. Below `$or`, a field must not have the name of an operator.
    fn object(&mut self, map: &Map<String, Json>, below_or: bool) -> Alternatives {
        if map.is_empty() {
            let help = "name a field; to match every event write {\"source\": [{\"prefix\": \"\"}]}";
            self.error("an empty object never matches".to_owned(), Some(help.to_owned()));
        }
        if self.pattern_path.len() >= DEPTH_MAX {
            self.error(format!("the pattern is nested deeper than {DEPTH_MAX} levels"), None);
            return vec![Vec::new()];
        }
        let mut all: Alternatives = vec![Vec::new()];
        for (name, value) in map {
            let more = self.within_key(name, |parser| {
                if name == "$or" { parser.or(value) } else { parser.field(name, value, below_or) }
            });
            all = self.combine(all, &more);
        }
        all
    }

    /// Parses a member that names a field.
    fn field(&mut self, name: &str, value: &Json, below_or: bool) -> Alternatives {
        if below_or && OPERATORS.contains(&name) {
            let help = format!("name the field: {{\"FIELD\": [{{\"{name}\": …}}]}}");
            self.error(format!("`{name}` is an operator, but an object of `$or` must name fields"), Some(help));
            return vec![Vec::new()];
        }
        match value {
            Json::Object(map) => {
                if let Some(operator) = misplaced_operator(map) {
                    let help = format!("write [{}]", shortened_json(value));
                    self.error(format!("the operator `{operator}` of `{name}` must be inside a list"), Some(help));
                    return vec![Vec::new()];
                }
                self.event_path.push(name.into());
                let alternatives = self.object(map, below_or);
                self.event_path.pop();
                alternatives
            }
            Json::Array(entries) => vec![vec![self.list(name, entries)]],
            _ => {
                let message =
                    format!("`{name}` is {}, but a field takes a list of values and operators", type_name(value));
                self.error(message, Some(format!("write [{}]", shortened_json(value))));
                vec![Vec::new()]
            }
        }
    }

    /// Parses a field's list; returns the index of the new [`FieldTest`] in `fields`.
    fn list(&mut self, name: &str, entries: &[Json]) -> u32 {
        if entries.is_empty() {
            let help =
                "name at least one value; to match events without the field write [{\"exists\": false}]".to_owned();
            self.error(format!("the list of `{name}` is empty, so it never matches"), Some(help));
        }
        let each = entries.iter().enumerate();
        let conditions = each
            .filter_map(|(index, entry)| self.within(Segment::Index(index), |parser| parse_condition(parser, entry)));
        let list = ConditionList::new(conditions.collect());
        self.add_field(name, list)
    }

    /// Parses the list of `$or`; returns its alternatives.
    fn or(&mut self, value: &Json) -> Alternatives {
        let Json::Array(entries) = value else {
            let help = "write a list of alternatives: [{…}, {…}]".to_owned();
            self.error(format!("`$or` takes a list of objects, not {}", type_name(value)), Some(help));
            return vec![Vec::new()];
        };
        if entries.len() < 2 {
            let help = "add another alternative, or write the fields without `$or`".to_owned();
            self.error("`$or` needs at least two alternatives".to_owned(), Some(help));
        }
        let mut any = Alternatives::new();
        for (index, entry) in entries.iter().enumerate() {
            any.extend(self.within(Segment::Index(index), |parser| match entry {
                Json::Object(map) => parser.object(map, true),
                other => {
                    let help = "write {\"FIELD\": [\"value\"]}".to_owned();
                    parser.error(
                        format!("an alternative of `$or` must be an object, not {}", type_name(other)),
                        Some(help),
                    );
                    Vec::new()
                }
            }));
        }
        if any.len() > ALTERNATIVES_MAX {
            self.report_too_many_combinations();
            any.truncate(1);
        }
        any
    }

    /// Returns the alternatives of two parts that must both match: each alternative of `all` combined with each of
    /// `more`.
    fn combine(&mut self, mut all: Alternatives, more: &Alternatives) -> Alternatives {
        if all.len() * more.len() > ALTERNATIVES_MAX {
            self.report_too_many_combinations();
            return all;
        }
        // Checked before the combinations are built: their number of fields can grow with the square of the size of the
        // pattern.
        if total_fields(&all) * more.len() + total_fields(more) * all.len() > ALTERNATIVE_FIELDS_MAX {
            self.report_combinations(format!(
                "the combinations of `$or` alternatives have more than {ALTERNATIVE_FIELDS_MAX} fields together"
            ));
            return all;
        }
        if let [one] = &**more {
            all.iter_mut().for_each(|left| left.extend(one));
            return all;
        }
        all.iter().flat_map(|left| more.iter().map(|right| left.iter().chain(right).copied().collect())).collect()
    }

    fn report_too_many_combinations(&mut self) {
        self.report_combinations(format!(
            "the pattern has more than {ALTERNATIVES_MAX} combinations of `$or` alternatives"
        ));
    }

    /// Adds a mistake about the combinations, once.
    fn report_combinations(&mut self, message: String) {
        if self.errors.iter().all(|error| error.message != message) {
            self.error(message, Some(COMBINATIONS_HELP.to_owned()));
        }
    }
}

/// Returns the number of fields of all alternatives together.
fn total_fields(alternatives: &Alternatives) -> usize {
    alternatives.iter().map(Vec::len).sum()
}

/// Detects a common mistake: an operator that is not inside a list, such as `"total": {"numeric": [">", 0]}`. Returns
/// the operator if the object cannot mean anything else.
fn misplaced_operator(map: &Map<String, Json>) -> Option<&str> {
    let (name, value) = map.iter().next().filter(|_| map.len() == 1)?;
    let is_operator = match (name.as_str(), value) {
        ("anything-but" | "equals-ignore-case", _) => true,
        ("numeric", Json::Array(list)) => {
            matches!(list.first(), Some(Json::String(sign)) if ["=", "<", "<=", ">", ">="].contains(&&**sign))
        }
        ("exists", Json::Bool(_)) | ("prefix" | "suffix" | "wildcard" | "cidr", Json::String(_)) => true,
        ("prefix" | "suffix", Json::Object(inner)) => inner.contains_key("equals-ignore-case"),
        _ => false,
    };
    is_operator.then_some(name)
}

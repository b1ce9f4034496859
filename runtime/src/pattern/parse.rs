//! From JSON to a compiled pattern: the shape, fields and `$or`. The entries of a field's list are read by `operator`.

use serde_json::{Map, Value as Json};

use super::condition::Leaf;
use super::operator::{OPERATORS, condition};
use super::{Compiled, FieldTest, PatternError, Segment};

/// The longest pattern, in bytes of its JSON text without white space.
const SIZE_MAX: usize = 64 * 1024;
/// How deeply fields and `$or` may be nested.
const DEPTH_MAX: usize = 64;
/// The most combinations that the `$or` of a pattern may come to; EventBridge has the same limit.
const ALTERNATIVES_MAX: usize = 1000;
/// The most fields that all combinations may have together, so that no pattern grows by more than its size.
const NEEDS_MAX: usize = 64 * 1024;
/// A wildcard looks at the whole value, every other condition only at as much as it names.
const WILDCARDS_MAX: usize = 64;

pub(super) fn parse(json: &Json) -> Result<Compiled, Vec<PatternError>> {
    let mut parser = Parser::default();
    let size = json.to_string().len();
    if size > SIZE_MAX {
        let help = format!("the most is {SIZE_MAX}; split it into several triggers");
        parser.error(format!("the pattern has {size} bytes"), Some(help));
        return Err(parser.errors);
    }
    let alternatives = match json {
        Json::Object(map) => parser.object(map, false),
        _ => {
            let help = "write an object such as {\"type\": [\"order.placed\"]}".to_owned();
            parser.error(format!("a pattern is an object of fields, not {}", kind(json)), Some(help));
            Vec::new()
        }
    };
    if parser.wildcards > WILDCARDS_MAX {
        let message = format!("the pattern has {} wildcards, the most is {WILDCARDS_MAX}", parser.wildcards);
        parser.error(message, Some("prefix and suffix cost less and are not limited".to_owned()));
    }
    if parser.errors.is_empty() && alternatives.iter().map(Vec::len).sum::<usize>() > NEEDS_MAX {
        parser.too_many();
    }
    if parser.errors.is_empty() {
        Ok(Compiled { source: json.clone(), fields: parser.fields, alternatives })
    } else {
        Err(parser.errors)
    }
}

/// What a JSON value is, in words.
pub(super) fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

/// Combinations of fields, each a list of indexes into `Parser::fields`.
type Alternatives = Vec<Vec<u32>>;

#[derive(Default)]
pub(super) struct Parser {
    /// Where in the pattern we are.
    at: Vec<Segment>,
    /// The fields above.
    path: Vec<Box<str>>,
    fields: Vec<FieldTest>,
    errors: Vec<PatternError>,
    pub(super) wildcards: usize,
}

impl Parser {
    pub(super) fn error(&mut self, message: String, help: Option<String>) {
        self.errors.push(PatternError { path: self.at.clone(), message, help });
    }

    /// Does something one step further in.
    pub(super) fn within<T>(&mut self, segment: Segment, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.at.push(segment);
        let result = inside(self);
        self.at.pop();
        result
    }

    pub(super) fn within_key<T>(&mut self, key: &str, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.within(Segment::Key(key.to_owned()), inside)
    }

    /// An object of fields; what stands below `$or` must not look like an operator.
    fn object(&mut self, map: &Map<String, Json>, below_or: bool) -> Alternatives {
        if map.is_empty() {
            let help = "name a field, such as {\"source\": [{\"prefix\": \"\"}]}, which every event matches";
            self.error("an empty object matches nothing".to_owned(), Some(help.to_owned()));
        }
        if self.at.len() >= DEPTH_MAX {
            self.error(format!("the pattern is nested deeper than {DEPTH_MAX} levels"), None);
            return vec![Vec::new()];
        }
        let mut all: Alternatives = vec![Vec::new()];
        for (name, value) in map {
            let more =
                self.within_key(name, |it| if name == "$or" { it.or(value) } else { it.field(name, value, below_or) });
            all = self.both(all, &more);
        }
        all
    }

    fn field(&mut self, name: &str, value: &Json, below_or: bool) -> Alternatives {
        if below_or && OPERATORS.contains(&name) {
            let help = format!("name the field: {{\"FIELD\": [{{\"{name}\": …}}]}}");
            self.error(format!("`{name}` is an operator, but an alternative of `$or` names fields"), Some(help));
            return vec![Vec::new()];
        }
        match value {
            Json::Object(map) => {
                if let Some(operator) = lost_operator(map) {
                    let help = format!("write [{}]", shorten(value));
                    self.error(format!("the operator `{operator}` of `{name}` does not stand in a list"), Some(help));
                    return vec![Vec::new()];
                }
                self.path.push(name.into());
                let alternatives = self.object(map, below_or);
                self.path.pop();
                alternatives
            }
            Json::Array(entries) => vec![vec![self.list(name, entries)]],
            _ => {
                let message = format!("`{name}` is {}, but a field takes a list of what it may be", kind(value));
                self.error(message, Some(format!("write [{}]", shorten(value))));
                vec![Vec::new()]
            }
        }
    }

    /// A field's list; returns the field's index.
    fn list(&mut self, name: &str, entries: &[Json]) -> u32 {
        if entries.is_empty() {
            let help = "name at least one value; {\"exists\": false} stands for no value".to_owned();
            self.error(format!("the list of `{name}` is empty, so it can never match"), Some(help));
        }
        let each = entries.iter().enumerate();
        let conditions =
            each.filter_map(|(index, entry)| self.within(Segment::Index(index), |it| condition(it, entry)));
        let leaf = Leaf::new(conditions.collect());
        let path = self.path.iter().cloned().chain([name.into()]).collect();
        self.fields.push(FieldTest { path, at: self.at.clone(), leaf });
        self.fields.len() as u32 - 1
    }

    fn or(&mut self, value: &Json) -> Alternatives {
        let Json::Array(entries) = value else {
            let help = "write [{…}, {…}] with the alternatives".to_owned();
            self.error(format!("`$or` takes a list of objects, not {}", kind(value)), Some(help));
            return vec![Vec::new()];
        };
        if entries.len() < 2 {
            let help = "add another, or write the fields without `$or`".to_owned();
            self.error("`$or` needs at least two alternatives".to_owned(), Some(help));
        }
        let mut any = Alternatives::new();
        for (index, entry) in entries.iter().enumerate() {
            any.extend(self.within(Segment::Index(index), |it| match entry {
                Json::Object(map) => it.object(map, true),
                other => {
                    let help = "write {\"FIELD\": [\"value\"]}".to_owned();
                    it.error(format!("an alternative of `$or` is an object, not {}", kind(other)), Some(help));
                    Vec::new()
                }
            }));
        }
        if any.len() > ALTERNATIVES_MAX {
            self.too_many();
            any.truncate(1);
        }
        any
    }

    /// What holds when both hold: each combined with each.
    fn both(&mut self, all: Alternatives, more: &Alternatives) -> Alternatives {
        if let ([only], [one]) = (&*all, &**more) {
            return vec![only.iter().chain(one).copied().collect()];
        }
        if all.len() * more.len() > ALTERNATIVES_MAX {
            self.too_many();
            return all;
        }
        all.iter().flat_map(|left| more.iter().map(|right| left.iter().chain(right).copied().collect())).collect()
    }

    fn too_many(&mut self) {
        let message = format!("`$or` comes to more than {ALTERNATIVES_MAX} combinations, or to too large ones");
        let help = "several `$or` beside each other multiply; split the pattern into several triggers".to_owned();
        if self.errors.iter().all(|error| error.message != message) {
            self.error(message, Some(help));
        }
    }
}

/// The classic mistake `"total": {"numeric": [">", 0]}`: an object that can only be meant as an operator.
fn lost_operator(map: &Map<String, Json>) -> Option<&str> {
    let (name, value) = map.iter().next().filter(|_| map.len() == 1)?;
    let meant = match (name.as_str(), value) {
        ("anything-but" | "equals-ignore-case", _) => true,
        ("numeric", Json::Array(list)) => {
            matches!(list.first(), Some(Json::String(sign)) if ["=", "<", "<=", ">", ">="].contains(&&**sign))
        }
        ("exists", Json::Bool(_)) | ("prefix" | "suffix" | "wildcard" | "cidr", Json::String(_)) => true,
        ("prefix" | "suffix", Json::Object(inner)) => inner.contains_key("equals-ignore-case"),
        _ => false,
    };
    meant.then_some(name)
}

/// A value as JSON, for a message.
pub(super) fn shorten(value: &Json) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

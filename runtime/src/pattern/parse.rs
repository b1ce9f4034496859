//! A pattern's JSON to its compiled form, with every mistake named.

mod operator;

use serde_json::{Map, Value};

use super::{Field, Group, PATTERN_DEPTH_MAX, PATTERN_SIZE_MAX, PatternError, Segment, Test};

/// The root group, and how many fields there are.
pub(super) fn parse(value: &Value) -> Result<(Group, u32), Vec<PatternError>> {
    let mut parser = Parser::default();
    let root = parser.root(value);
    match root {
        Some(root) if parser.errors.is_empty() => Ok((root, parser.field_count)),
        _ => Err(parser.errors),
    }
}

#[derive(Default)]
struct Parser {
    path: Vec<Segment>,
    errors: Vec<PatternError>,
    field_count: u32,
}

impl Parser {
    fn error(&mut self, message: impl Into<String>, help: impl Into<String>) {
        let (path, message, help) = (self.path.clone(), message.into(), Some(help.into()));
        self.errors.push(PatternError { path, message, help });
    }

    /// Reads what is one step deeper.
    fn within<T>(&mut self, segment: Segment, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(segment);
        let result = read(self);
        self.path.pop();
        result
    }

    fn key<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.within(Segment::Key(key.to_owned()), read)
    }

    fn root(&mut self, value: &Value) -> Option<Group> {
        let Value::Object(members) = value else {
            let message = format!("a pattern is an object of fields, this is {}", kind(value));
            self.error(message, "write {\"type\": [\"order.placed\"]}");
            return None;
        };
        let size = size_of(value);
        if size > PATTERN_SIZE_MAX {
            let message = format!("the pattern has {size} bytes; the most is {PATTERN_SIZE_MAX}");
            self.error(message, "use several patterns, or `prefix`, `suffix` or `wildcard` in place of long lists");
            return None;
        }
        Some(self.group(members, 1))
    }

    fn group(&mut self, members: &Map<String, Value>, depth: usize) -> Group {
        let mut group = Group::default();
        if members.is_empty() {
            let help = match self.path.is_empty() {
                true => {
                    "name a field, such as {\"type\": [\"order.placed\"]}; every event has {\"id\": [{\"exists\": true}]}"
                }
                false => "name a field inside, or ask whether there is a value with [{\"exists\": true}]",
            };
            self.error("an empty object asks for nothing", help);
        }
        if depth > PATTERN_DEPTH_MAX {
            let message = format!("objects in a pattern nest at most {PATTERN_DEPTH_MAX} deep");
            self.error(message, "ask for fields that are less deep");
            return group;
        }
        for (name, value) in members {
            self.key(name, |parser| match name.as_str() {
                "$or" => group.ors.extend(parser.any_of(value, depth)),
                _ => group.fields.extend(parser.field(name, value, depth)),
            });
        }
        group
    }

    fn field(&mut self, name: &str, value: &Value, depth: usize) -> Option<Field> {
        let ordinal = self.field_count;
        self.field_count += 1;
        let test = match value {
            Value::Object(members) => {
                if let Some((operator, operand)) = only_operator(members) {
                    let text = written(&Value::Object(Map::from_iter([(operator.to_owned(), operand.clone())])));
                    let message = format!("`{operator}` is an operator, and stands in a field's list");
                    self.error(message, format!("write [{text}]"));
                    return None;
                }
                Test::Group(self.group(members, depth + 1))
            }
            Value::Array(values) if values.is_empty() => {
                self.error("an empty list matches nothing", "list the values that match, or leave the field out");
                return None;
            }
            Value::Array(values) => {
                let read = values.iter().enumerate();
                let read =
                    read.map(|(index, value)| self.within(Segment::Index(index), |parser| parser.condition(value)));
                Test::Value(read.collect::<Vec<_>>().into_iter().flatten().collect())
            }
            scalar => {
                let message = format!("a field takes a list of what matches, this is {}", kind(scalar));
                self.error(message, format!("write [{}]", written(scalar)));
                return None;
            }
        };
        Some(Field { name: name.to_owned(), ordinal, test })
    }

    fn any_of(&mut self, value: &Value, depth: usize) -> Option<Vec<Group>> {
        const HELP: &str = "write {\"$or\": [{\"type\": [\"a\"]}, {\"subject\": [\"b\"]}]}";
        let Value::Array(alternatives) = value else {
            self.error(format!("`$or` takes a list of objects, this is {}", kind(value)), HELP);
            return None;
        };
        if alternatives.len() < 2 {
            self.error(format!("`$or` takes two objects or more, this list has {}", alternatives.len()), HELP);
        }
        let groups = alternatives.iter().enumerate().filter_map(|(index, alternative)| {
            self.within(Segment::Index(index), |parser| match alternative {
                Value::Object(members) => Some(parser.alternative(members, depth)),
                other => {
                    parser.error(format!("`$or` lists objects of fields, this is {}", kind(other)), HELP);
                    None
                }
            })
        });
        Some(groups.collect())
    }

    fn alternative(&mut self, members: &Map<String, Value>, depth: usize) -> Group {
        for name in members.keys().filter(|name| operator::NAMES.contains(&name.as_str())) {
            self.key(name, |parser| {
                let message = format!("`{name}` is an operator; `$or` lists objects of fields");
                parser.error(message, format!("name the field: {{\"field\": [{{\"{name}\": …}}]}}"));
            });
        }
        // An `$or` in an `$or` is a level too: it is one for those who walk the pattern.
        self.group(members, depth + 1)
    }
}

/// An operator in place of a field's list: `{"prefix": "a"}`, where a field called `prefix` would have a list.
fn only_operator(members: &Map<String, Value>) -> Option<(&str, &Value)> {
    let mut entries = members.iter();
    let (name, value) = entries.next()?;
    let is_operator = entries.next().is_none() && operator::NAMES.contains(&name.as_str());
    let is_operand = match name.as_str() {
        "numeric" => value.get(0).and_then(Value::as_str).is_some_and(|sign| operator::SIGNS.contains(&sign)),
        _ => !value.is_array() && (!value.is_object() || matches!(name.as_str(), "anything-but" | "prefix" | "suffix")),
    };
    (is_operator && is_operand).then_some((name, value))
}

/// What a value is, in words.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value's JSON text, cut when it is long.
fn written(value: &Value) -> String {
    const LONG: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(LONG) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// The length of a value's shortest JSON text, without making it.
fn size_of(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}

//! Stand-in with the interface of the pattern module, which replaces it.

/// A pattern.
#[derive(Clone, Debug)]
pub struct Pattern(serde_json::Value);

/// A step of a path inside a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Into a field.
    Key(String),
    /// Into an entry of a list.
    Index(usize),
}

/// A mistake in a pattern.
#[derive(Clone, Debug)]
pub struct PatternError {
    /// Where.
    pub path: Vec<Segment>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

impl Pattern {
    /// Takes a pattern, or says every mistake in it.
    pub fn parse(value: &serde_json::Value) -> Result<Self, Vec<PatternError>> {
        let mut errors = Vec::new();
        walk(value, &mut Vec::new(), &mut errors);
        if errors.is_empty() {
            Ok(Self(value.clone()))
        } else {
            Err(errors)
        }
    }

    /// The values of a field, when the pattern takes only exact ones.
    pub fn exact_values(&self, field: &str) -> Option<Vec<String>> {
        self.0
            .get(field)?
            .as_array()?
            .iter()
            .map(|value| value.as_str().map(str::to_owned))
            .collect()
    }
}

fn walk(value: &serde_json::Value, path: &mut Vec<Segment>, errors: &mut Vec<PatternError>) {
    match value {
        serde_json::Value::Object(fields) if !fields.is_empty() => {
            for (key, inner) in fields {
                path.push(Segment::Key(key.clone()));
                walk(inner, path, errors);
                path.pop();
            }
        }
        serde_json::Value::Array(values) if !values.is_empty() => {}
        _ => errors.push(PatternError {
            path: path.clone(),
            message: "a field takes a list of values".to_owned(),
            help: Some("write `[value]`".to_owned()),
        }),
    }
}

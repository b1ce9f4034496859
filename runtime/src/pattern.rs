//! Stand-in with the interface of the pattern module, which replaces it.

#[derive(Clone, Debug)]
pub struct Pattern(serde_json::Value);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    Key(String),
    Index(usize),
}

#[derive(Clone, Debug)]
pub struct PatternError {
    pub path: Vec<Segment>,
    pub message: String,
    pub help: Option<String>,
}

impl Pattern {
    pub fn parse(value: &serde_json::Value) -> Result<Self, Vec<PatternError>> {
        let mut errors = Vec::new();
        walk(value, &mut Vec::new(), &mut errors);
        if errors.is_empty() {
            Ok(Self(value.clone()))
        } else {
            Err(errors)
        }
    }

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

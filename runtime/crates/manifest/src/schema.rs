//! The JSON schema of manifests, for editors, derived from the model.

use super::model::Manifest;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::Value;

/// Returns the schema as an indented JSON document (draft 2020-12) that ends with a line break.
pub fn render() -> String {
    let settings = SchemaSettings::draft2020_12().with_transform(AdaptToYaml);
    let schema = settings.into_generator().into_root_schema_for::<Manifest>();
    format!("{:#}\n", schema.as_value())
}

/// Adapts the schema of the Rust types to YAML: removes null, because an optional key is omitted instead, and
/// removes the line breaks of doc comments from descriptions.
#[derive(Clone)]
struct AdaptToYaml;

impl Transform for AdaptToYaml {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(Value::String(text)) = schema.get_mut("description") {
            *text = text.replace('\n', " ");
        }
        if let Some(Value::Array(types)) = schema.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                schema.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(join_with_or)) = schema.get_mut("anyOf") {
            join_with_or.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
            if let [Value::Object(only)] = join_with_or.as_slice() {
                let only = only.clone();
                schema.remove("anyOf");
                only.into_iter().for_each(|(key, value)| {
                    schema.insert(key, value);
                });
            }
        }
        transform_subschemas(self, schema);
    }
}

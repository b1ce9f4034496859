//! The JSON schema of manifests, for editors, derived from the model.

use super::model::Manifest;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::Value;

/// The schema as a JSON document (draft 2020-12), ready to be written to a file.
pub fn render() -> String {
    let settings = SchemaSettings::draft2020_12().with_transform(AsWritten);
    let schema = settings.into_generator().into_root_schema_for::<Manifest>();
    format!("{:#}\n", schema.as_value())
}

/// Makes of a Rust type's schema the schema of what people write: an optional key is left out, never null; a
/// description does not break its lines where the source code does.
#[derive(Clone)]
struct AsWritten;

impl Transform for AsWritten {
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
        if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
            choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
            if let [Value::Object(only)] = choices.as_slice() {
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

//! The JSON schema of manifests, for editors, derived from the model.

use super::model::{Manifest, Trigger};
use super::source::{Registry, Source};
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

/// Returns the schema of manifests with these kinds of sources, as an indented JSON document (draft 2020-12) that ends
/// with a line break.
pub fn render(kinds: &Registry) -> String {
    let mut generator = SchemaSettings::draft2020_12().with_transform(AdaptToYaml).into_generator();
    add_kinds(&mut generator, kinds);
    let schema = generator.into_root_schema_for::<Manifest>();
    format!("{:#}\n", schema.as_value())
}

/// Adds the keys of the kinds to the definitions of sources and triggers.
fn add_kinds(generator: &mut SchemaGenerator, kinds: &Registry) {
    for kind in kinds.iter() {
        let settings = kind.schema(generator);
        let in_source = json!({
            "type": "object",
            "description": kind.description(),
            "properties": { kind.key(): settings },
            "required": [kind.key()],
            "additionalProperties": false
        });
        if let Some(choices) = definition::<Source>(generator, "/oneOf").and_then(Value::as_array_mut) {
            choices.push(in_source);
        }
        let mut in_trigger = settings;
        in_trigger.insert("description".to_owned(), kind.private_description().into());
        if let Some(keys) = definition::<Trigger>(generator, "/properties").and_then(Value::as_object_mut) {
            keys.insert(kind.key().to_owned(), in_trigger.into());
        }
    }
}

/// Returns a part of the definition of `T`. The definition is generated at the first use.
fn definition<'g, T: JsonSchema>(generator: &'g mut SchemaGenerator, pointer: &str) -> Option<&'g mut Value> {
    generator.subschema_for::<T>();
    generator.definitions_mut().get_mut(&*T::schema_name())?.pointer_mut(pointer)
}

/// Adapts the schema of the Rust types to YAML. Removes null: in YAML an optional key is omitted instead. Removes the
/// line breaks of doc comments from descriptions.
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

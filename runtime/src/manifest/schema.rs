//! The JSON schema of manifests, for editors, derived from the model.

use super::model::Manifest;
use schemars::generate::SchemaSettings;

/// The schema as a JSON document (draft 2020-12), ready to be written to a file.
pub fn render() -> String {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let schema = generator.into_root_schema_for::<Manifest>();
    format!("{schema:#}\n", schema = schema.as_value())
}

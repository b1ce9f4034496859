//! Locations of secrets. A manifest has the location of a secret, never its value.

use super::diagnostics::{ValueError, excerpt};
use super::parser::{Node, Reader, Table, Value};
use super::paths::check_path;
use super::source_text::Span;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Location of a secret: exactly one of these keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecretRef {
    /// Environment variable of the Evoke process.
    Env(String),
    /// Path of a file; relative paths start in the manifest's folder. One line break at the end of the file is ignored.
    File(PathBuf),
    /// Name of a systemd credential, a file in the folder `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

/// Location of a secret in a list of secrets, with an optional name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamedSecret {
    /// Name of the secret, which becomes a part of the principal of the events, as in `github:NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Location of the value.
    #[serde(flatten)]
    pub location: SecretRef,
}

/// One secret, or several secrets during a rotation. A manifest can have one secret without a list, or a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SecretList(Vec<NamedSecret>);

/// Largest number of secrets in a list. Each secret costs a computation for each request: a source checks the secret or
/// signature of the request against each secret, even for an unknown sender, and `deliver` signs with each secret.
pub const SECRETS_MAX: usize = 8;
/// The maximum length of the name of a secret in bytes.
const NAME_BYTES_MAX: usize = 64;

const EXAMPLE: &str = "`{ env: VARIABLE }`, `{ file: PATH }` or `{ credential: NAME }`";

impl SecretRef {
    /// Parses the location of a secret. `what` names the secret in messages, and relative paths start in `folder`.
    pub fn parse(reader: &mut Reader<'_>, node: &Node, span: Span, what: String, folder: &Path) -> Option<Self> {
        let mut table = read_table(reader, node, span, "SecretRef", what)?;
        let location = location(reader, &mut table, folder);
        table.reject_unknown_keys(reader, hint);
        location
    }
}

impl NamedSecret {
    fn parse(reader: &mut Reader<'_>, node: &Node, span: Span, what: &str, folder: &Path) -> Option<Self> {
        let mut table = read_table(reader, node, span, "NamedSecret", what.to_owned())?;
        let name = table.optional(reader, "name").map(|node| reader.parse_text(node, "`name`", secret_name));
        let location = location(reader, &mut table, folder);
        table.reject_unknown_keys(reader, hint);
        match name {
            Some(None) => None,
            name => Some(Self { name: name.flatten(), location: location? }),
        }
    }
}

impl SecretList {
    /// Makes a list of one secret without a name.
    pub fn one(location: SecretRef) -> Self {
        Self(vec![NamedSecret { name: None, location }])
    }

    /// Parses one secret, or a list of 1 to [`SECRETS_MAX`] secrets. `what` names the value in messages. Relative paths
    /// start in `folder`.
    pub fn parse(reader: &mut Reader<'_>, node: &Node, span: Span, what: &str, folder: &Path) -> Option<Self> {
        let Value::List(items) = &node.value else {
            return NamedSecret::parse(reader, node, span, what, folder).map(|one| Self(vec![one]));
        };
        if items.is_empty() {
            reader.error(node.span, format!("{what} is an empty list"), format!("write {EXAMPLE}"));
            return None;
        }
        if items.len() > SECRETS_MAX {
            let message = format!("{what} has {} entries; at most {SECRETS_MAX} are possible", items.len());
            reader.error(node.span, message, "remove the secrets that are no longer used");
            return None;
        }
        let mut secrets: Vec<NamedSecret> = Vec::new();
        for item in items {
            let Some(secret) = NamedSecret::parse(reader, item, item.span, what, folder) else { continue };
            if let Some(name) = &secret.name
                && secrets.iter().any(|other| other.name == secret.name)
            {
                let message = format!("two secrets have the name `{}`", excerpt(name));
                reader.error(item.span, message, "give each secret its own name");
            }
            secrets.push(secret);
        }
        // If a secret cannot be parsed, the error is already reported.
        (secrets.len() == items.len()).then_some(Self(secrets))
    }

    /// Iterates over the secrets in the order of the manifest.
    pub fn iter(&self) -> impl Iterator<Item = &NamedSecret> {
        self.0.iter()
    }
}

fn read_table<'t>(
    reader: &mut Reader<'_>,
    node: &'t Node,
    span: Span,
    schema_name: &'static str,
    what: String,
) -> Option<Table<'t>> {
    if let Value::Scalar(_) = node.value {
        reader.error(
            span,
            "a manifest must not contain the value of a secret",
            format!("write its location: {EXAMPLE}"),
        );
        return None;
    }
    Table::read(reader, node, span, schema_name, what, "`{ env: VARIABLE }`")
}

fn location(reader: &mut Reader<'_>, table: &mut Table<'_>, folder: &Path) -> Option<SecretRef> {
    let env = table.optional(reader, "env").and_then(|node| reader.parse_text(node, "`env`", env_var_name));
    let file = table.optional(reader, "file").and_then(|node| {
        let path = reader.text(node, "`file`")?;
        reader.ok_or_report(node.span, check_path(folder, path)).map(|()| path)
    });
    let credential = table.optional(reader, "credential");
    let credential = credential.and_then(|node| reader.parse_text(node, "`credential`", credential_name));
    let mut keys = ["env", "file", "credential"].into_iter().filter(|key| table.has(key));
    match (keys.next(), keys.next()) {
        (Some(first), Some(second)) => {
            let message = format!("{} has two locations", table.what());
            let help = format!("keep either `{first}` or `{second}`");
            let (span, other) = (table.key_span(second), table.key_span(first));
            reader.error_with_related(span, message, help, (other, "the other location"));
        }
        (None, _) => {
            let message = format!("{} has no location", table.what());
            reader.error(table.span(), message, format!("write {EXAMPLE}"));
        }
        (Some(_), None) => {}
    }
    env.map(SecretRef::Env)
        .or_else(|| file.map(|path| SecretRef::File(folder.join(path))))
        .or_else(|| credential.map(SecretRef::Credential))
}

fn hint(key: &str) -> Option<&'static str> {
    match key {
        "value" => Some("write the location of the secret, `env`, `file` or `credential`, not its value"),
        "path" => Some("did you mean `file`?"),
        _ => None,
    }
}

/// Parses the name of an environment variable (POSIX.1, section 8.1).
pub(crate) fn env_var_name(text: &str) -> Result<String, ValueError> {
    let bare = text.trim_start_matches('$').trim_start_matches('{').trim_end_matches('}');
    let is_valid = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|char: char| char.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if is_valid(text) {
        return Ok(text.to_owned());
    }
    let help = if is_valid(bare) {
        format!("write only the name: `{bare}`")
    } else {
        "use only letters, digits and underscores; do not start with a digit".to_owned()
    };
    Err(ValueError::new(format!("`{}` is not a valid name of an environment variable", excerpt(text)), help))
}

/// Parses the name of a systemd credential: the name of a file, without a path.
fn credential_name(text: &str) -> Result<String, ValueError> {
    let is_name = |text: &str| {
        (1..=255).contains(&text.len())
            && !matches!(text, "." | "..")
            && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
    };
    if is_name(text) {
        return Ok(text.to_owned());
    }
    let help = match text.rsplit('/').next() {
        Some(last) if last != text && is_name(last) => {
            format!("write only the name that the systemd unit has in `LoadCredential=`: `{}`", excerpt(last))
        }
        _ => "write the name that the systemd unit has in `LoadCredential=`".to_owned(),
    };
    Err(ValueError::new(format!("`{}` is not the name of a credential", excerpt(text)), help))
}

fn secret_name(text: &str) -> Result<String, ValueError> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.len() <= NAME_BYTES_MAX && text.bytes().all(is_allowed) {
        return Ok(text.to_owned());
    }
    let help = format!("use at most {NAME_BYTES_MAX} letters, digits, `.`, `_` and `-`");
    Err(ValueError::new(format!("`{}` is not a valid name of a secret", excerpt(text)), help))
}

impl JsonSchema for NamedSecret {
    fn schema_name() -> Cow<'static, str> {
        "NamedSecret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one_of: Vec<_> = ["env", "file", "credential"].map(|key| json_schema!({ "required": [key] })).into();
        json_schema!({
            "description": "Location of a secret, with an optional name: exactly one of `env`, `file` and `credential`.",
            "type": "object",
            "properties": {
                "name": {
                    "description": "Name of the secret. It becomes a part of the principal of the events, as in `github:NAME`.",
                    "type": "string",
                    "pattern": "^[A-Za-z0-9._-]{1,64}$"
                },
                "env": { "description": "Environment variable of the Evoke process.", "type": "string" },
                "file": {
                    "description": "Path of a file; relative paths start in the manifest's folder. One line break at the end of the file is ignored.",
                    "type": "string"
                },
                "credential": {
                    "description": "Name of a systemd credential, a file in the folder `$CREDENTIALS_DIRECTORY`.",
                    "type": "string"
                }
            },
            "oneOf": one_of,
            "additionalProperties": false
        })
    }
}

impl JsonSchema for SecretList {
    fn schema_name() -> Cow<'static, str> {
        "SecretList".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<NamedSecret>();
        json_schema!({
            "description": "One secret, or a list of secrets during a rotation.",
            "anyOf": [one, { "type": "array", "items": one, "minItems": 1, "maxItems": SECRETS_MAX }]
        })
    }
}

//! The model of a checked manifest: plain data with all names resolved and all defaults filled in.
//!
//! The JSON schema of manifests is derived from these types. Editors therefore show the doc comment of a field as the
//! help for the key. If a key is written differently in YAML than in the Rust type, an attribute `with` or
//! `schema_with` describes the YAML form.

use super::component::ComponentRef;
use super::deliver::Deliver;
use super::grants::{StateLimits, TypeGlob};
use super::header_template::HeaderTemplate;
use super::names::{Name, OrderBy};
use super::record::{Record, record_schema};
use super::secret::SecretRef;
use super::source::Source;
use super::source_text::Span;
use super::trust::Trust;
use super::units::{ByteSize, DurationText};
use evoke_model::GrantKey;
use evoke_model::destination::Destination;
use evoke_pattern::Pattern;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One app: the sources of its events, and the functions that run on events.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(title = "Evoke manifest", deny_unknown_fields)]
pub struct Manifest {
    /// Version of the manifest language.
    #[schemars(extend("const" = 1))]
    pub evoke: u32,
    /// Name of the app. The `source` of each of its events starts with `/<app>/`.
    pub app: Name,
    /// Shared sources by name. Their events have the source `/<app>/<name>`.
    #[schemars(with = "BTreeMap<Name, Source>", default = "BTreeMap::<(), ()>::new")]
    pub sources: Vec<Source>,
    /// Functions by name. The events they publish have the source `/<app>/<name>`.
    #[schemars(with = "BTreeMap<Name, Function>", default = "BTreeMap::<(), ()>::new")]
    pub functions: Vec<Function>,
    /// Limits of the app.
    #[serde(default, skip_serializing_if = "Limits::is_default")]
    pub limits: Limits,
    /// Folder of the manifest. Relative paths in the manifest start here.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Path of the manifest, as the caller gave it.
    #[serde(skip)]
    pub path: PathBuf,
}

/// Limits of an app. The options of `evoke up` are the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Limits {
    /// Largest number of events that functions publish, directly or through other functions, because of one event from
    /// a source of this app. A delivery that exceeds this limit becomes a dead letter. The default is
    /// `--descendants-max` of `evoke up`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub descendants: Option<u32>,
    /// Largest total size of the events that `descendants` limits, attributes and data together. The default is
    /// `--descendants-bytes-max` of `evoke up`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descendants_bytes: Option<ByteSize>,
}

/// A function: its triggers, limits and grants, and its component. `deliver` can take the place of the component.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, extend("oneOf" = [{ "required": ["component"] }, { "required": ["deliver"] }]))]
pub struct Function {
    /// Name in the manifest. The events it publishes have the source `/<app>/<name>`.
    #[schemars(skip)]
    pub name: Name,
    /// Earlier names of the function in this app. When the manifest is loaded, the function takes over the data stored
    /// under these names: pending deliveries, dead letters, state, a pause, the record of its grants, and the progress
    /// of its own sources. The names can stay here for ever.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Name>")]
    pub was: Vec<EarlierName>,
    /// Path of the component: a `.wasm` or `.wat` file, optionally pinned to a digest as in `charge.wasm@sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(min = 1))]
    pub component: Option<ComponentRef>,
    /// Delivery without code, in place of a component: each event is sent to an endpoint. The function then has no
    /// `build`, no `memory` and no `record`, and its only grants are secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver: Option<Deliver>,
    /// Shell command that builds the component, run in the manifest's folder. The command gets the environment
    /// variables that build tools commonly need. `{ run: COMMAND, env: [NAME] }` gives it more variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "build_schema")]
    pub build: Option<Build>,
    /// Triggers. The function runs on each event that matches at least one of them.
    #[serde(rename = "on")]
    #[schemars(length(min = 1))]
    pub triggers: Vec<Trigger>,
    /// Event field whose value is the order key: a CloudEvents attribute (`subject`) or a field of the data
    /// (`data.customer`). Events with the same key are handled one after another, in order. Equal numbers have the same
    /// key, and so do a number and its text: 1, 1.0 and "1". Events without the field, or with null, are not ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub order_by: Option<OrderBy>,
    /// Largest number of deliveries that run at the same time.
    #[serde(default = "Function::default_concurrency")]
    #[schemars(range(min = 1, max = 1024))]
    pub concurrency: u32,
    /// Largest duration of one attempt.
    #[serde(default = "Function::default_timeout", with = "DurationText")]
    pub timeout: Duration,
    /// Largest linear memory of one instance.
    #[serde(default = "Function::default_memory")]
    pub memory: ByteSize,
    /// Retries of a failed delivery.
    #[serde(default)]
    pub retry: Retry,
    /// Grants of the function. Everything that is not granted here is forbidden.
    #[serde(default)]
    pub allow: Allow,
    /// Recordings of attempts, from which `evoke test --from` makes tests. `true` switches them on with default limits;
    /// a map sets the limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "record_schema", extend("default" = false))]
    pub record: Option<Record>,
    /// Spans of the function's parts, for diagnostics.
    #[serde(skip)]
    pub spans: FunctionSpans,
    /// Spans of the function's grants, for diagnostics.
    #[serde(skip)]
    pub grant_spans: GrantSpans,
}

/// An earlier name of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct EarlierName {
    /// The name as written in the manifest, without the app.
    pub name: Name,
    /// Span of the entry.
    #[serde(skip)]
    pub span: Span,
}

/// A command that builds a component.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Build {
    /// Shell command, run in the manifest's folder.
    #[schemars(length(min = 1))]
    pub run: String,
    /// More environment variables of the Evoke process that the command gets. The command always gets the variables
    /// that build tools commonly need: `PATH`, `HOME`, and those for the locale, toolchain folders, proxies and
    /// certificates.
    #[serde(default)]
    pub env: Vec<String>,
}

/// Spans of the parts of a function, for checks that run after the manifest is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct FunctionSpans {
    /// Span of the function's name.
    pub name: Span,
    /// Span of the value of `component`, or else of the key `deliver`, or else of the function's name.
    pub component: Span,
    /// Span of the key `allow`, or else of the function's name.
    pub allow: Span,
}

/// Spans of the entries of `allow:`, and of the secrets of `deliver`.
pub type GrantSpans = BTreeMap<GrantKey, Span>;

/// One entry of a function's `on:`. An event matches the trigger if it comes from `source` and matches `events`.
#[derive(Clone, Debug, Serialize)]
pub struct Trigger {
    /// Index in `on:`, from 0.
    pub index: usize,
    /// Source that the event must come from.
    #[serde(rename = "origin")]
    pub source: TriggerSource,
    /// Pattern that the event must match. `None` means all events of the source. A trigger with `TriggerSource::Any`
    /// always has a pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<EventPattern>,
    /// Span of the entry.
    #[serde(skip)]
    pub span: Span,
}

/// Source that the events of a trigger come from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TriggerSource {
    /// Any source except private ones.
    Any,
    /// The shared source with this name.
    Shared(Name),
    /// A private source, declared in the trigger. Only this function receives its events.
    Private(Source),
}

/// An event pattern, as JSON and compiled.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct EventPattern {
    /// The pattern of the manifest, converted to JSON.
    pub json: serde_json::Value,
    /// The same pattern, compiled.
    #[serde(skip)]
    pub pattern: Pattern,
    /// Span of the first occurrence of each string in the pattern.
    #[serde(skip)]
    pub(super) text_spans: HashMap<String, Span>,
}

/// Retries of a failed delivery. The wait before a retry is random, up to a limit (full jitter). The limit is `backoff`
/// for the first retry and doubles for each further one, up to `max_backoff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Retry {
    /// Largest number of attempts, including the first one.
    #[schemars(range(min = 1, max = 100))]
    pub attempts: u32,
    /// Longest wait before the second attempt.
    #[serde(with = "DurationText")]
    pub backoff: Duration,
    /// Longest wait before any attempt.
    #[serde(with = "DurationText")]
    pub max_backoff: Duration,
    /// A delivery is not retried if it would be older than this at the retry. The age counts from the creation of the
    /// delivery, or from its last redrive.
    #[serde(with = "DurationText")]
    pub max_age: Duration,
}

/// Largest number of entries of `allow.http`. A limit is needed because each entry has metrics of its own.
pub const HTTP_GRANTS_MAX: usize = 64;

/// Grants of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Allow {
    /// Types of events that the function may publish; `*` matches any number of characters.
    #[schemars(with = "Vec<String>", inner(length(min = 1)))]
    pub publish: Vec<TypeGlob>,
    /// State: values that the function stores by key. `true` allows state with default limits; a map sets the limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "state_schema", extend("default" = false))]
    pub state: Option<StateLimits>,
    /// Origins that the function may send HTTP requests to, such as `https://api.example.com`.
    #[schemars(schema_with = "http_schema")]
    pub http: Vec<HttpGrant>,
    /// Settings that the function reads by name.
    #[schemars(schema_with = "config_schema")]
    pub config: BTreeMap<String, String>,
    /// Secrets that the function reads by name. The manifest has the location of a secret, never its value.
    pub secrets: BTreeMap<String, SecretRef>,
}

/// An origin that a function may send requests to, and the headers that Evoke adds to these requests. If only the
/// origin is needed, the entry can be a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HttpGrant {
    /// Scheme, host and port, such as `https://api.example.com:8443`. A host that begins with `*.` matches every host
    /// that has one or more labels in place of the `*`.
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "String", regex(pattern = "^https?://[^/?#@]+$"))]
    pub url: Destination,
    /// Headers that are added to each request; the function cannot see or replace them. `{secret.NAME}` is replaced by
    /// the secret NAME that `secrets` of this entry declares. If this entry does not declare NAME, `allow.secrets` of
    /// the function is used. If neither declares NAME, the environment variable NAME is used.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub headers: BTreeMap<String, HeaderTemplate>,
    /// Secrets for the headers. The function itself cannot read them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretRef>,
    /// Addresses and certificate authorities that are accepted in addition to public addresses and the certificate
    /// authorities of the machine.
    #[serde(flatten)]
    pub trust: Trust,
}

impl Function {
    pub(super) fn default_concurrency() -> u32 {
        16
    }

    pub(super) fn default_timeout() -> Duration {
        Duration::from_secs(30)
    }

    pub(super) fn default_memory() -> ByteSize {
        ByteSize(64 << 20)
    }

    /// Returns the path of the component; `None` for a function with `deliver`.
    pub fn component_path(&self) -> Option<&Path> {
        self.component.as_ref().map(|component| component.path.as_path())
    }
}

impl Limits {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 8,
            backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(5 * 60),
            max_age: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl Trigger {
    /// Returns the span of a string in the pattern. If the pattern does not contain the string, returns the span of the
    /// trigger.
    pub fn span_of_text(&self, text: &str) -> Span {
        self.events.as_ref().and_then(|events| events.text_spans.get(text)).copied().unwrap_or(self.span)
    }
}

impl Manifest {
    /// Returns the shared source with this name.
    pub fn source(&self, name: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.name.as_str() == name)
    }

    /// Returns the function with this name.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name.as_str() == name)
    }

    /// Iterates over all sources: shared ones, then private ones, each private one with its function.
    pub fn all_sources(&self) -> impl Iterator<Item = (&Source, Option<&Function>)> {
        let shared = self.sources.iter().map(|source| (source, None));
        let private = self.functions.iter().flat_map(|function| {
            function.triggers.iter().filter_map(move |trigger| match &trigger.source {
                TriggerSource::Private(source) => Some((source, Some(function))),
                TriggerSource::Any | TriggerSource::Shared(_) => None,
            })
        });
        shared.chain(private)
    }
}

/// An object with exactly one key, the kind of the source. `schema::render` adds the kinds.
impl JsonSchema for Source {
    fn schema_name() -> Cow<'static, str> {
        "Source".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "Kind of a source: exactly one of these keys.", "oneOf": [] })
    }
}

/// `schema::render` adds the kinds of sources, for private sources.
impl JsonSchema for Trigger {
    fn schema_name() -> Cow<'static, str> {
        "Trigger".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut events = generator.subschema_for::<EventPattern>();
        let description =
            "Event pattern (the EventBridge language), matched against the event in CloudEvents JSON form.";
        events.insert("description".to_owned(), description.into());
        let mut source = generator.subschema_for::<Name>();
        let description = "Name of a source declared under `sources`. The trigger matches all events of this source, \
            or only those that match `events`.";
        source.insert("description".to_owned(), description.into());
        json_schema!({
            "description": "One trigger: an event pattern, a source, or a source with a pattern that its events must match.",
            "type": "object",
            "properties": { "events": events, "source": source },
            "additionalProperties": false,
            "minProperties": 1
        })
    }
}

impl JsonSchema for EventPattern {
    fn schema_name() -> Cow<'static, str> {
        "Pattern".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let inner = generator.subschema_for::<Self>();
        json_schema!({
            "type": "object",
            "description": "Fields of the event. Each has a list of accepted values and operators such as \
                `{ prefix: order. }`, or a pattern for the fields inside it.",
            "minProperties": 1,
            "additionalProperties": { "anyOf": [{ "type": "array", "minItems": 1 }, inner] }
        })
    }
}

/// A command, or a map with the command.
fn build_schema(generator: &mut SchemaGenerator) -> Schema {
    let command = generator.subschema_for::<Build>();
    json_schema!({ "anyOf": [{ "type": "string", "minLength": 1 }, command] })
}

/// `true` or `false`, or the limits of the state.
fn state_schema(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [{ "type": "boolean" }, generator.subschema_for::<StateLimits>()] })
}

/// Origins. Each is a text, or a map with the keys of [`HttpGrant`].
fn http_schema(generator: &mut SchemaGenerator) -> Schema {
    let grant = generator.subschema_for::<HttpGrant>();
    let origin = json_schema!({ "type": "string", "pattern": "^https?://[^/?#@]+$" });
    json_schema!({ "type": "array", "maxItems": HTTP_GRANTS_MAX, "items": { "anyOf": [origin, grant] } })
}

fn as_text<S: serde::Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// A map from names to scalars. The function reads each scalar as a string.
fn config_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } })
}

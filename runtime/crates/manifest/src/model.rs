//! The model of a checked manifest: plain data with all names resolved and all defaults filled in.
//!
//! The JSON schema is derived from these types, so editors show the doc comment of a field as the help for its key.
//! Where the YAML form of a key differs from the field, `with` names the type from `schema_types.rs` that describes it.

use super::component::ComponentRef;
use super::grants::{HttpOrigin, StateLimits, TypeGlob};
use super::names::{Name, OrderBy};
use super::schema_types::{self, SourceMap, StateSchema, TimerSchema, TriggerSchema};
use super::source_text::Span;
use super::units::{ByteSize, DurationText};
use evoke_pattern::Pattern;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
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
    #[schemars(with = "SourceMap", default = "schema_types::empty_map")]
    pub sources: Vec<Source>,
    /// Functions by name. The events they publish have the source `/<app>/<name>`.
    #[schemars(with = "BTreeMap<Name, Function>", default = "schema_types::empty_map")]
    pub functions: Vec<Function>,
    /// Folder of the manifest. Relative paths in the manifest start here.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Path of the manifest, as the caller gave it.
    #[serde(skip)]
    pub path: PathBuf,
}

/// A source of events, with the value of their CloudEvents attribute `source`.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    /// Name in the manifest. A private source gets its kind and a number as its name, as in `timer-1`.
    pub name: Name,
    /// `/<app>/<name>`, or `/<app>/<function>/<kind>-<n>` for a private source.
    pub uri: String,
    /// Kind of the source, with its settings.
    #[serde(flatten)]
    pub kind: SourceKind,
    /// Span of its name; for a private source, the span of its trigger.
    #[serde(skip)]
    pub span: Span,
}

/// Kind of a source: exactly one of these keys.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Source")]
pub enum SourceKind {
    /// HTTP requests become events.
    Http(HttpSource),
    /// Changes of files in a folder become events.
    Files(FilesSource),
    /// Each time of a schedule becomes an event.
    Timer(#[schemars(with = "TimerSchema")] TimerSource),
}

/// HTTP requests become events. A request holds CloudEvents in any of the three modes, or a raw body.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HttpSource {
    /// URL path, such as `/checkout`. The path of a request must be exactly equal.
    #[schemars(regex(pattern = r"^/[^?#\s]*$"))]
    pub path: String,
    /// Accepted HTTP methods.
    #[serde(default = "HttpSource::default_methods")]
    #[schemars(length(min = 1))]
    pub methods: Vec<Method>,
    /// Type of the events made from raw bodies. Without it, only CloudEvents are accepted.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub type_: Option<String>,
    /// Largest accepted request body.
    #[serde(default = "event_size")]
    pub max_body: ByteSize,
}

/// An HTTP method that a source can accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "defined by RFC 9110")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

/// Files that are created, changed or removed in a folder and its subfolders become events.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FilesSource {
    /// Folder to watch, with all its subfolders.
    #[schemars(length(min = 1))]
    pub path: PathBuf,
    /// Globs of the files to watch, relative to the folder.
    #[serde(default = "FilesSource::default_include")]
    #[schemars(length(min = 1))]
    pub include: Vec<String>,
    /// Globs of files to ignore, even if they match `include`.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// A changed file becomes an event after it has not changed for this long.
    #[serde(default = "FilesSource::default_settle", with = "DurationText")]
    pub settle: Duration,
    /// Whether the event contains the content of the file.
    #[serde(default)]
    pub content: bool,
    /// Largest file content in an event.
    #[serde(default = "event_size")]
    pub max_content: ByteSize,
    /// Whether files that exist at the first start become events too.
    #[serde(default = "FilesSource::default_existing")]
    pub existing: bool,
}

/// A timer: creates an event at each time of its schedule.
#[derive(Clone, Debug, Serialize)]
pub struct TimerSource {
    /// Times of the ticks.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// Which ticks to run later if their time passed while Evoke was not running.
    pub missed: Missed,
}

/// Times at which a timer ticks.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Schedule {
    /// At the times of a cron expression, in the local time of a time zone.
    Cron {
        /// Five fields, or six with seconds first, or a nickname such as `@daily`. The croner crate accepts it, and it
        /// has a next time.
        #[serde(rename = "cron")]
        expr: String,
        /// IANA name from the time zone database of the jiff crate.
        timezone: String,
    },
    /// At fixed intervals.
    Every {
        /// Time between two ticks, at least 100 ms.
        #[serde(with = "DurationText")]
        every: Duration,
    },
}

/// Which ticks to run later if their time passed while Evoke was not running (missed ticks).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// Skip them all.
    None,
    /// Run only the last one.
    #[default]
    Last,
    /// Run at most this many of the last ones, in order. `all` without a number means 1,000.
    All(u32),
}

/// A WebAssembly function: its component, triggers, limits and grants.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Function {
    /// Name in the manifest. The events it publishes have the source `/<app>/<name>`.
    #[schemars(skip)]
    pub name: Name,
    /// Path of the component: a `.wasm` or `.wat` file, optionally pinned to a digest as in `charge.wasm@sha256:…`.
    #[schemars(with = "String", length(min = 1))]
    pub component: ComponentRef,
    /// Shell command that builds the component, run in the manifest's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub build: Option<String>,
    /// Triggers. The function runs on each event that matches at least one of them.
    #[serde(rename = "on")]
    #[schemars(with = "Vec<TriggerSchema>", length(min = 1))]
    pub triggers: Vec<Trigger>,
    /// Event field whose value is the order key: a CloudEvents attribute (`subject`) or a field of the data
    /// (`data.customer`). Events with the same key are handled one after another, in order.
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
    /// Spans of its parts, for diagnostics.
    #[serde(skip)]
    pub spans: FunctionSpans,
}

/// Spans of the parts of a function, for checks that run after the manifest is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct FunctionSpans {
    /// Span of the function's name.
    pub name: Span,
    /// Span of the value of `component`, or of the name if there is none.
    pub component: Span,
    /// Span of the key `allow`, or of the name if there is none.
    pub allow: Span,
}

/// One entry of a function's `on:`. A trigger matches an event that comes from `source` and matches `events`.
#[derive(Clone, Debug, Serialize)]
pub struct Trigger {
    /// Index in `on:`, from 0.
    pub index: usize,
    /// Source that the event must come from.
    #[serde(rename = "origin")]
    pub source: TriggerSource,
    /// Pattern that the event must match; none for all events of the source. Always present for `TriggerSource::Any`.
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
    /// A private source: declared in the trigger, and only this function receives its events.
    Private(Source),
}

/// An event pattern, as JSON and compiled.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct EventPattern {
    /// The pattern as written, converted to JSON.
    pub json: serde_json::Value,
    /// The same pattern, compiled.
    #[serde(skip)]
    pub pattern: Pattern,
    /// Span of the first occurrence of each string in the pattern.
    #[serde(skip)]
    pub(super) text_spans: HashMap<String, Span>,
}

/// Retries of a failed delivery. The wait limit doubles from `backoff` to `max_backoff`; each wait is random below it
/// (full jitter).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Retry {
    /// Largest number of attempts, including the first one.
    #[schemars(range(min = 1, max = 100))]
    pub attempts: u32,
    /// Largest wait before the second attempt.
    #[serde(with = "DurationText")]
    pub backoff: Duration,
    /// Largest wait before any attempt.
    #[serde(with = "DurationText")]
    pub max_backoff: Duration,
    /// A delivery that is older than this is not retried.
    #[serde(with = "DurationText")]
    pub max_age: Duration,
}

/// Grants of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Allow {
    /// Types of events that the function may publish; `*` matches any number of characters.
    #[schemars(with = "Vec<String>", inner(length(min = 1)))]
    pub publish: Vec<TypeGlob>,
    /// State: values that the function stores by key. `true` allows it with default limits; a map sets the limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StateSchema", extend("default" = false))]
    pub state: Option<StateLimits>,
    /// Origins that the function may send HTTP requests to, such as `https://api.example.com:443`.
    #[schemars(with = "Vec<String>", inner(regex(pattern = "^https?://[^/?#@]+$")))]
    pub http: Vec<HttpOrigin>,
    /// Settings that the function reads by name.
    #[schemars(with = "BTreeMap<String, super::schema_types::ConfigValueSchema>")]
    pub config: BTreeMap<String, String>,
    /// Secrets that the function reads by name. The manifest has the location of a secret, never its value.
    pub secrets: BTreeMap<String, SecretRef>,
}

/// Location of a secret: exactly one of these keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecretRef {
    /// Environment variable of the Evoke process.
    Env(String),
    /// Path of a file; relative paths start in the manifest's folder.
    File(PathBuf),
}

/// Default of `max_body` and `max_content`: the size of the largest event.
pub(super) fn event_size() -> ByteSize {
    ByteSize(evoke_model::event::EVENT_SIZE_MAX as u64)
}

impl Method {
    /// Every method that a source can accept.
    pub const ALL: [Self; 7] = [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Options];

    /// Returns the method as written in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}

impl HttpSource {
    pub(super) fn default_methods() -> Vec<Method> {
        vec![Method::Post]
    }
}

impl FilesSource {
    pub(super) fn default_include() -> Vec<String> {
        vec!["**/*".to_owned()]
    }

    pub(super) fn default_settle() -> Duration {
        Duration::from_millis(200)
    }

    pub(super) fn default_existing() -> bool {
        true
    }
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
    /// Returns the span of a string in its pattern, or of the trigger if the pattern does not contain the string.
    pub fn span_of_text(&self, text: &str) -> Span {
        self.events.as_ref().and_then(|events| events.text_spans.get(text)).copied().unwrap_or(self.span)
    }
}

impl SourceKind {
    /// Returns the key of this kind in a manifest: `http`, `files` or `timer`.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Files(_) => "files",
            Self::Timer(_) => "timer",
        }
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

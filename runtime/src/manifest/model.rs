//! The checked form of a manifest: plain data, every name resolved, every default filled in.
//!
//! The JSON schema is derived from these types, so the doc comment of a field is what an editor shows for
//! its key. Where the written form of a key has another shape, `with` names the type that reads it.

use super::component::ComponentRef;
use super::forms::{self, SourceMap, StateForm, TimerForm, TriggerForm};
use super::grants::{HttpOrigin, State, TypeGlob};
use super::names::{Name, OrderBy};
use super::source_text::Span;
use super::units::{ByteSize, DurationText};
use crate::pattern::Pattern;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

/// What one app is: where its events come from, and the functions that run when they do.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(title = "Evoke manifest", deny_unknown_fields)]
pub struct Manifest {
    /// Version of the manifest's language.
    #[schemars(extend("const" = 1))]
    pub evoke: u32,
    /// Name of the app; the sources of its events start with `/<app>/`.
    pub app: Name,
    /// Shared sources by name. Each event of one has the source `/<app>/<name>`.
    #[schemars(with = "SourceMap", default = "forms::none_by_name")]
    pub sources: Vec<Source>,
    /// Functions by name. Events they publish have the source `/<app>/<name>`.
    #[schemars(with = "BTreeMap<Name, Function>", default = "forms::none_by_name")]
    pub functions: Vec<Function>,
    /// Folder of the manifest; relative paths in the manifest start here.
    #[serde(skip)]
    pub folder: PathBuf,
    /// The manifest's own path, as it was given.
    #[serde(skip)]
    pub path: PathBuf,
}

/// A place where events enter, with what CloudEvents calls their `source`.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    /// Name in the manifest; for a source of one function alone its kind and number, as in `timer-1`.
    pub name: Name,
    /// `/<app>/<name>`, or `/<app>/<function>/<kind>-<n>` for a source of one function alone.
    pub uri: String,
    /// What it is, with its settings.
    #[serde(flatten)]
    pub kind: SourceKind,
    /// Where its name (or, in a trigger, its kind) is written.
    #[serde(skip)]
    pub span: Span,
}

/// What a source is.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Source")]
pub enum SourceKind {
    /// Events come in over HTTP.
    Http(HttpSource),
    /// Events are changes of files in a folder.
    Files(FilesSource),
    /// Events are ticks of a schedule.
    Timer(#[schemars(with = "TimerForm")] TimerSource),
}

/// Events come in over HTTP, as CloudEvents in any of the three modes or as raw bodies.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HttpSource {
    /// Path of the listener, such as `/checkout`. A request's path must be exactly this.
    #[schemars(regex(pattern = r"^/[^?#\s]*$"))]
    pub path: String,
    /// Methods taken.
    #[serde(default = "HttpSource::default_methods")]
    #[schemars(length(min = 1))]
    pub methods: Vec<Method>,
    /// Type of the event that a raw body becomes. Without it only CloudEvents are taken.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub type_: Option<String>,
    /// Largest body taken.
    #[serde(default = "event_size")]
    pub max_body: ByteSize,
}

/// HTTP methods that a source can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "RFC 9110 has said it")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

/// Events are files that appear, change or go in a folder and all folders below it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FilesSource {
    /// The folder.
    #[schemars(length(min = 1))]
    pub path: PathBuf,
    /// Globs of the files that count, relative to the folder.
    #[serde(default = "FilesSource::default_include")]
    #[schemars(length(min = 1))]
    pub include: Vec<String>,
    /// Globs of files that do not count, though `include` has them.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// A file is handed over when it has not changed for this long.
    #[serde(default = "FilesSource::default_settle", with = "DurationText")]
    pub settle: Duration,
    /// Whether the event carries the file's content.
    #[serde(default)]
    pub content: bool,
    /// Largest content an event carries.
    #[serde(default = "event_size")]
    pub max_content: ByteSize,
    /// Whether files that are there at the first start are events too.
    #[serde(default = "FilesSource::default_existing")]
    pub existing: bool,
}

/// Events are ticks of a schedule.
#[derive(Clone, Debug, Serialize)]
pub struct TimerSource {
    /// When it ticks.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// What becomes of ticks whose time passed while Evoke was not running.
    pub missed: Missed,
}

/// When a timer ticks.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Schedule {
    /// At the times of a cron expression, on the wall clock of a time zone.
    Cron {
        /// Five fields, or six with seconds first. Checked: croner takes it and it has a next time.
        #[serde(rename = "cron")]
        expr: String,
        /// IANA name; jiff knows it.
        timezone: String,
    },
    /// At fixed intervals.
    Every {
        /// The interval, at least 100 ms.
        #[serde(with = "DurationText")]
        every: Duration,
    },
}

/// What becomes of ticks whose time passed while Evoke was not running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// They are left out.
    None,
    /// Only the last of them is made up for.
    #[default]
    Last,
    /// The last so many of them are made up for, in order. Written `all` it is 1,000.
    All(u32),
}

/// A WebAssembly function: when it runs, within which limits, and what it may touch.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Function {
    /// Name in the manifest; events it publishes have the source `/<app>/<name>`.
    #[schemars(skip)]
    pub name: Name,
    /// The component: a `.wasm` or `.wat` file, optionally pinned as in `charge.wasm@sha256:…`.
    #[schemars(with = "String", length(min = 1))]
    pub component: ComponentRef,
    /// Shell command that builds the component, run in the manifest's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub build: Option<String>,
    /// What the function runs on: an event that meets any of these triggers.
    #[serde(rename = "on")]
    #[schemars(with = "Vec<TriggerForm>", length(min = 1))]
    pub triggers: Vec<Trigger>,
    /// Events with the same value here are handled one after another, in order: a CloudEvents attribute
    /// (`subject`) or a field of the data (`data.customer`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub order_by: Option<OrderBy>,
    /// How many deliveries run at once.
    #[serde(default = "Function::default_concurrency")]
    #[schemars(range(min = 1, max = 1024))]
    pub concurrency: u32,
    /// How long one attempt may take.
    #[serde(default = "Function::default_timeout", with = "DurationText")]
    pub timeout: Duration,
    /// How much linear memory one instance may have.
    #[serde(default = "Function::default_memory")]
    pub memory: ByteSize,
    /// How a failed delivery is tried again.
    #[serde(default)]
    pub retry: Retry,
    /// What the function may touch. Nothing that is not granted here.
    #[serde(default)]
    pub allow: Allow,
    /// Where its parts are written.
    #[serde(skip)]
    pub spans: FunctionSpans,
}

/// Where the parts of a function are written, for checks that come after the manifest's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct FunctionSpans {
    /// The name.
    pub name: Span,
    /// The value of `component`.
    pub component: Span,
    /// The key `allow`, or the name where there is none.
    pub allow: Span,
}

/// One entry of a function's `on:`. An event meets it when it comes from `origin` and matches `events`.
#[derive(Clone, Debug, Serialize)]
pub struct Trigger {
    /// Position in `on:`, from 0.
    pub index: usize,
    /// Where the event must come from.
    pub origin: Origin,
    /// What the event must be; all events of the origin where there is none. Always there for `Origin::Any`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Events>,
    /// Where the entry is written.
    #[serde(skip)]
    pub span: Span,
}

/// Where the events of a trigger come from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Anywhere, except from sources that belong to one function alone.
    Any,
    /// A source that the manifest declares under this name.
    Shared(Name),
    /// A source of this function alone.
    Private(Source),
}

/// An event pattern, as it was written and compiled.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Events {
    /// As it was written, in JSON.
    pub json: serde_json::Value,
    /// Compiled.
    #[serde(skip)]
    pub pattern: Pattern,
    /// Where each text in it first stands.
    #[serde(skip)]
    pub(super) places: HashMap<String, Span>,
}

/// How a failed delivery is tried again. Waits double from `backoff` to `max_backoff`, with full jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Retry {
    /// How many attempts there are, the first one included.
    #[schemars(range(min = 1, max = 100))]
    pub attempts: u32,
    /// Upper bound of the wait before the second attempt.
    #[serde(with = "DurationText")]
    pub backoff: Duration,
    /// Upper bound of every wait.
    #[serde(with = "DurationText")]
    pub max_backoff: Duration,
    /// A delivery older than this is not tried again.
    #[serde(with = "DurationText")]
    pub max_age: Duration,
}

/// What a function may touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Allow {
    /// Types of events it may publish; `*` stands for any run of characters.
    #[schemars(with = "Vec<String>", inner(length(min = 1)))]
    pub publish: Vec<TypeGlob>,
    /// Whether it has state, kept by key from one event to the next, and how much.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StateForm", extend("default" = false))]
    pub state: Option<State>,
    /// Where it may send HTTP requests: origins, such as `https://api.example.com:443`.
    #[schemars(with = "Vec<String>", inner(regex(pattern = "^https?://[^/?#@]+$")))]
    pub http: Vec<HttpOrigin>,
    /// Settings it reads by name.
    #[schemars(with = "BTreeMap<String, super::forms::ConfigScalar>")]
    pub config: BTreeMap<String, String>,
    /// Secrets it reads by name. The manifest says where a secret is, never what it is.
    pub secrets: BTreeMap<String, SecretRef>,
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecretRef {
    /// In this environment variable of the Evoke process.
    Env(String),
    /// In this file.
    File(PathBuf),
}

/// Largest event, and so the default of `max_body` and `max_content`.
pub const EVENT_SIZE_BYTES: u64 = 1 << 20;

pub(super) fn event_size() -> ByteSize {
    ByteSize(EVENT_SIZE_BYTES)
}

impl Method {
    /// Every method that a source can take.
    pub const ALL: [Self; 7] = [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Options];

    /// As it stands in a request.
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
    /// Where a text of its pattern is written, or the trigger where there is no such text.
    pub fn place_of(&self, text: &str) -> Span {
        self.events.as_ref().and_then(|events| events.places.get(text)).copied().unwrap_or(self.span)
    }
}

impl SourceKind {
    /// The key it has in a manifest: `http`, `files` or `timer`.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Files(_) => "files",
            Self::Timer(_) => "timer",
        }
    }
}

impl Manifest {
    /// The shared source of this name.
    pub fn source(&self, name: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.name.as_str() == name)
    }

    /// The function of this name.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name.as_str() == name)
    }

    /// Every source: the shared ones, and those of one function alone with that function.
    pub fn all_sources(&self) -> impl Iterator<Item = (&Source, Option<&Function>)> {
        let shared = self.sources.iter().map(|source| (source, None));
        let private = self.functions.iter().flat_map(|function| {
            function.triggers.iter().filter_map(move |trigger| match &trigger.origin {
                Origin::Private(source) => Some((source, Some(function))),
                Origin::Any | Origin::Shared(_) => None,
            })
        });
        shared.chain(private)
    }
}

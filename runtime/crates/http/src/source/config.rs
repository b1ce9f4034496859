//! The kind `http` in a manifest: its settings and their parser.

use std::collections::{BTreeMap, HashMap};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::accept::Accept;
use super::auth::Auth;
use super::cors::Cors;
use super::handshake::Handshake;
use super::path::{self, PathPattern};
use super::placeholders::{self, RequestTemplate, RequestValue};
use super::reply::{self, ReplyEvent};
use evoke_manifest::parser::{Node, Reader, Span, Table, ValueError, excerpt, one_of};
use evoke_manifest::source::{CONTENT_SIZE_RANGE, content_size_default};
use evoke_manifest::template::Placeholder;
use evoke_manifest::{ByteSize, Place, Settings, Source, SourceKind, Template, TypeGlob};
use evoke_model::claim::RUNTIME_NAME;

/// The kind `http`. Its sources run as endpoints of one listener, see [`Endpoint`](super::Endpoint).
#[derive(Debug)]
pub struct HttpKind;

/// HTTP requests become events. A request contains CloudEvents in any of the three modes, or a raw body.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HttpSource {
    /// URL path, such as `/checkout`. `{NAME}` matches one segment, as in `/hooks/{team}`; `{NAME...}` or `*` at the
    /// end matches the rest. Of several paths that match a request, the most specific one counts.
    #[schemars(regex(pattern = r"^/[^?#\s]*$"))]
    pub path: String,
    /// Accepted HTTP methods. Default for a component that handles the requests itself: all methods.
    #[serde(default = "default_methods")]
    #[schemars(length(min = 1))]
    pub methods: Vec<Method>,
    /// True if the manifest does not name the methods.
    #[serde(skip)]
    #[schemars(skip)]
    pub has_default_methods: bool,
    /// Type of the events, as in `order.placed` or `github.{header.x-github-event}`. Without it, only CloudEvents that
    /// match `accept` are accepted. Placeholders: `{header.NAME}`, `{query.NAME}`, `{path.NAME}`, `{data.FIELD}`; with
    /// a default: `{query.kind|none}`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(min = 1))]
    pub type_: Option<RequestTemplate>,
    /// Subject of the events. It can contain the same kinds of placeholders as `type`. CloudEvents have their own
    /// subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(min = 1))]
    pub subject: Option<RequestTemplate>,
    /// Id of the events. It can contain the same kinds of placeholders as `type`. A request whose id was accepted
    /// before is a duplicate. Without this key, the id is the header `Idempotency-Key`, or a new id. CloudEvents have
    /// their own id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(min = 1))]
    pub id: Option<RequestTemplate>,
    /// Extension attributes of the events. Their values can contain the same kinds of placeholders as `type`. The
    /// attributes replace those of the same names in CloudEvents of producers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub attributes: BTreeMap<String, RequestTemplate>,
    /// Types and sources that producers may claim in CloudEvents. Without `accept`, a CloudEvent must have the fixed
    /// `type` of this source and the source `/APP/NAME`. If `type` has placeholders and `accept` lists types, the type
    /// of each event must match one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept: Option<Accept>,
    /// How the sender of each request is verified. Without it, everybody who can reach the listener can send events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Largest accepted request body, also after it is decompressed.
    #[serde(default = "content_size_default")]
    pub max_body: ByteSize,
    /// Response to a request: `accepted` as soon as its event is stored, or an event that a function publishes because
    /// of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "reply::schema", extend("default" = "accepted"))]
    pub reply: Option<ReplyEvent>,
    /// The pages of other origins that can send requests from a browser, as in `{ origins: ["https://shop.example"] }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// The CloudEvents senders that get permission to send events when they ask for it with `WebHook-Request-Origin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake: Option<Handshake>,
}

/// An HTTP method that a source can accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
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

fn default_methods() -> Vec<Method> {
    vec![Method::Post]
}

impl Method {
    /// Every method that a source can accept.
    pub const ALL: [Self; 7] = [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Options];

    /// Returns the method as a type of the http library.
    pub fn to_http(self) -> http::Method {
        http::Method::from_bytes(self.as_str().as_bytes()).unwrap_or_default()
    }

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

impl SourceKind for HttpKind {
    fn key(&self) -> &'static str {
        "http"
    }

    fn description(&self) -> &'static str {
        "HTTP requests become events."
    }

    fn private_description(&self) -> &'static str {
        "Private http source: only this function receives its events."
    }

    fn example(&self) -> &'static str {
        "`http: { path: /checkout }`"
    }

    fn hint(&self, key: &str) -> Option<&'static str> {
        match key {
            "path" => Some("put the path under the kind of the source, as in `http: { path: /checkout }`"),
            _ => None,
        }
    }

    fn parse(&self, reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<Settings> {
        parse(reader, node, place).map(Settings::new)
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<HttpSource>()
    }

    /// Reports sources with the same path and method, because one listener serves all sources. Also reports sources
    /// that accept no event, and sources whose `accept` has globs for this app or the runtime.
    fn check_together(&self, reader: &mut Reader<'_>, sources: &[&Source]) {
        let mut routes: HashMap<(String, Method), Span> = HashMap::new();
        for source in sources {
            let Some(http) = source.settings.get::<HttpSource>() else {
                continue;
            };
            check_claims(reader, source);
            check_templates(reader, source.span, http, source.is_private());
            let shape = PathPattern::new(&http.path).shape();
            for method in &http.methods {
                if let Some(first) = routes.get(&(shape.clone(), *method)) {
                    let message =
                        format!("another source already handles `{} {}`", method.as_str(), excerpt(&http.path));
                    let help = "use another path or method; several functions can share one source";
                    reader.error_with_related(source.span, message, help, (*first, "the other source"));
                    break;
                }
                routes.insert((shape.clone(), *method), source.span);
            }
        }
    }

    fn event_types<'s>(&self, settings: &'s Settings) -> Vec<&'s str> {
        let Some(http) = settings.get::<HttpSource>() else { return Vec::new() };
        let accepted = http.accept.iter().flat_map(|accept| &accept.types).map(TypeGlob::as_str);
        http.type_.as_ref().map(Template::glob).into_iter().chain(accepted).collect()
    }

    fn accepts_source(&self, settings: &Settings, claimed: &str) -> bool {
        let accept = settings.get::<HttpSource>().and_then(|http| http.accept.as_ref());
        accept.is_some_and(|accept| accept.sources.iter().any(|glob| glob.matches(claimed)))
    }
}

fn parse(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<HttpSource> {
    let mut table = Table::read(reader, node, place.key_span, "HttpSource", "an http source", "`{ path: /checkout }`")?;
    let path = table.required(reader, "path", &[], "`path: /NAME`, the URL path of the requests");
    let path = path.and_then(|node| {
        let path = reader.parse_text(node, "`path`", path::check)?;
        let without_slash = path.trim_end_matches('/');
        if !without_slash.is_empty() && without_slash.len() < path.len() {
            let message =
                format!("requests to `{}` are not accepted: paths are compared exactly", excerpt(without_slash));
            let help = format!("write `{}`, unless all clients send the `/` at the end", excerpt(without_slash));
            reader.warning(node.span, message, help);
        }
        Some(path)
    });
    let has_default_methods = !table.has("methods");
    let methods = match table.optional(reader, "methods") {
        Some(node) => methods(reader, node),
        None => default_methods(),
    };
    let pattern = path.as_deref().map(PathPattern::new);
    let pattern = pattern.as_ref();
    let type_ = table.optional(reader, "type").map(|node| placeholders::parse_type(reader, node, pattern));
    let subject = table.optional(reader, "subject").and_then(|node| placeholders::parse_subject(reader, node, pattern));
    let id = table.optional(reader, "id").and_then(|node| placeholders::parse_id(reader, node, pattern));
    let attributes = table.optional(reader, "attributes");
    let attributes = attributes.map(|node| placeholders::parse_attributes(reader, node, pattern)).unwrap_or_default();
    let accept_span = table.key_span("accept");
    let accept = table.optional(reader, "accept").map(|node| Accept::parse(reader, node, accept_span));
    let auth_span = table.key_span("auth");
    let auth = table.optional(reader, "auth").map(|node| Auth::parse(reader, node, auth_span, place.folder));
    let has_auth = table.has("auth");
    let max_body =
        table.optional(reader, "max_body").and_then(|node| reader.size(node, "`max_body`", CONTENT_SIZE_RANGE));
    let max_body = max_body.unwrap_or_else(content_size_default);
    let reply = table.optional(reader, "reply").and_then(|node| reply::parse(reader, node));
    let cors_span = table.key_span("cors");
    let cors = table.optional(reader, "cors").and_then(|node| Cors::parse(reader, node, cors_span));
    let handshake_span = table.key_span("handshake");
    let handshake = table.optional(reader, "handshake").and_then(|node| Handshake::parse(reader, node, handshake_span));
    if handshake.is_some() && !methods.contains(&Method::Post) {
        let message = "`handshake` has no effect: CloudEvents senders use POST, which this source does not accept";
        reader.error(handshake_span, message, "add `POST` to `methods`, or remove `handshake`");
    }
    table.reject_unknown_keys(reader, |key| match key {
        "webhook" | "validation" => Some("did you mean `handshake`?"),
        "extensions" => Some("did you mean `attributes`?"),
        "origins" => Some("put it under `cors`, or under `handshake`"),
        "method" => Some("write the methods as a list: `methods: [POST]`"),
        "types" | "sources" => Some("put it under `accept`, as in `accept: { types: [TYPE], sources: [SOURCE] }`"),
        "secret" | "signature" | "verify" | "token" | "github" | "stripe" | "slack" | "hmac" | "bearer" | "basic" => {
            Some("write how senders are verified, as in `auth: { github: { secret: { env: VARIABLE } } }`")
        }
        "port" | "host" | "listen" => Some("set the listen address with `evoke up --http ADDRESS`"),
        _ => None,
    });
    // The error of an invalid value was already reported; other checks would report the value as missing.
    if matches!(type_, Some(None)) || matches!(accept, Some(None)) {
        return None;
    }
    let auth = auth.flatten();
    // A mistake in `auth`, which was already reported, must not make the source open to everybody.
    if has_auth && auth.is_none() {
        return None;
    }
    let (path, type_, accept) = (path?, type_.flatten(), accept.flatten());
    Some(HttpSource {
        path,
        methods,
        has_default_methods,
        type_,
        subject,
        id,
        attributes,
        accept,
        auth,
        max_body,
        reply,
        cors,
        handshake,
    })
}

/// Reports a shared source that accepts no event, and globs for sources of this app or of the runtime.
fn check_claims(reader: &mut Reader<'_>, source: &Source) {
    let Some(http) = source.settings.get::<HttpSource>() else { return };
    // A private source that accepts no event is not reported here: its function may handle the requests itself, which
    // depends on the component.
    if !source.is_private() && http.accepts_nothing() {
        let message = format!("source `{}` accepts no event: it has neither `type` nor `accept.types`", source.name);
        reader.error(source.span, message, HttpSource::ACCEPT_HELP);
    }
    let app = source.uri.split('/').nth(1).unwrap_or_default();
    for (glob, name) in http.claimed_apps() {
        if name == app || name == RUNTIME_NAME {
            let (message, help) = claimed_app_error(glob, &name);
            reader.error(source.span, message, help);
        }
    }
}

/// Returns the error for a glob whose sources all belong to an app or to the runtime.
pub fn claimed_app_error(glob: &str, name: &str) -> (String, &'static str) {
    let owner = if name == RUNTIME_NAME { "the runtime".to_owned() } else { format!("the app `{name}`") };
    let message = format!("`accept` cannot include `{}`: these sources belong to {owner}", excerpt(glob));
    (
        message,
        "remove it: a raw body needs no `source`, and a CloudEvent can have the `source` `/APP/NAME` of this http source",
    )
}

impl HttpSource {
    /// The help text for a source that accepts no event.
    pub const ACCEPT_HELP: &str = "add `type: order.placed`, or `accept: { types: [\"order.*\"], sources: [\"https://partner.example/*\"] }` for the CloudEvents of producers";

    /// Makes a source with a valid path and the default settings.
    pub fn at(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            methods: default_methods(),
            has_default_methods: true,
            type_: None,
            subject: None,
            id: None,
            attributes: BTreeMap::new(),
            accept: None,
            auth: None,
            max_body: content_size_default(),
            reply: None,
            cors: None,
            handshake: None,
        }
    }

    /// Returns the first of the keys `type`, `subject`, `id`, `attributes` and `reply` that this source has. These keys
    /// only apply to events.
    pub fn event_key(&self) -> Option<&'static str> {
        let keys = [
            ("type", self.type_.is_some()),
            ("subject", self.subject.is_some()),
            ("id", self.id.is_some()),
            ("attributes", !self.attributes.is_empty()),
            ("reply", self.reply.is_some()),
        ];
        keys.into_iter().find(|(_, is_set)| *is_set).map(|(key, _)| key)
    }

    /// Returns true if no event can have an accepted type.
    pub fn accepts_nothing(&self) -> bool {
        self.type_.is_none() && self.accept.as_ref().is_none_or(|accept| accept.types.is_empty())
    }

    /// Returns the globs of `accept.sources` that only match sources of one app, each with the name of the app.
    pub fn claimed_apps(&self) -> impl Iterator<Item = (&str, String)> {
        let globs = self.accept.iter().flat_map(|accept| &accept.sources);
        globs.filter_map(|glob| Some((glob.as_str(), glob.app()?)))
    }
}

/// Reports placeholders that can never have a value, and types that any client can choose.
fn check_templates(reader: &mut Reader<'_>, span: Span, http: &HttpSource, is_private: bool) {
    let templates = http.type_.iter().chain(&http.subject).chain(&http.id).chain(http.attributes.values());
    let needs_data =
        |one: &&Placeholder<RequestValue>| matches!(one.name, RequestValue::Data(_)) && one.default.is_none();
    if let Some(placeholder) = templates.flat_map(Template::placeholders).find(needs_data)
        && http.methods.iter().all(|method| matches!(method.as_str(), "HEAD" | "DELETE" | "OPTIONS"))
    {
        let message = format!(
            "`{{{}}}` never has a value: requests with the `methods` of this source have no JSON body",
            excerpt(&placeholder.written)
        );
        let help = "use a value of the header, the query or the path, or add the method `POST`";
        reader.error(span, message, help);
    }
    let any_type = http.type_.as_ref().is_some_and(|type_| type_.glob().starts_with('*'));
    if any_type && !is_private && http.accept.as_ref().is_none_or(|accept| accept.types.is_empty()) {
        let message = "clients of this source can choose any type for their events, even a type of another source";
        let help =
            "begin the type with a fixed text, such as `github.`, or list the types in `accept: { types: [TYPE] }`";
        reader.warning(span, message, help);
    }
}

fn methods(reader: &mut Reader<'_>, node: &Node) -> Vec<Method> {
    let help = "write `[POST]`, or remove the key";
    let items = reader.nonempty_list(node, "`methods`", "the source would accept no requests", help);
    let mut methods = Vec::new();
    for item in items {
        let Some(method) = reader.parse_text(item, "a method", method) else {
            continue;
        };
        if methods.contains(&method) {
            reader.error(item.span, format!("duplicate method `{}`", method.as_str()), "remove one of them");
        } else {
            methods.push(method);
        }
    }
    methods
}

fn method(text: &str) -> Result<Method, ValueError> {
    one_of(text, "a supported HTTP method", Method::ALL.map(|method| (method.as_str(), method)))
}

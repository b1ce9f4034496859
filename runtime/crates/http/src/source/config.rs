//! The kind `http` in a manifest: its settings and their parser.

use std::collections::HashMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::accept::Accept;
use super::reply::{self, ReplyEvent};
use evoke_manifest::parser::{Node, Reader, Span, Table, ValueError, excerpt, nearest};
use evoke_manifest::source::{CONTENT_SIZE_RANGE, content_size_default};
use evoke_manifest::{ByteSize, Place, Settings, Source, SourceKind, TypeGlob};
use evoke_model::claim::{RUNTIME_NAME, is_runtime_type};
use evoke_model::event::is_excluded_char;

/// The kind `http`. Its sources run as endpoints of one listener, see [`Endpoint`](super::Endpoint).
#[derive(Debug)]
pub struct HttpKind;

/// HTTP requests become events. A request holds CloudEvents in any of the three modes, or a raw body.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HttpSource {
    /// URL path, such as `/checkout`. The path of a request must be exactly equal.
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
    /// Type of the events. Without it, only CloudEvents that match `accept` are accepted.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub type_: Option<String>,
    /// Types and sources that producers may claim in CloudEvents. Without it, a CloudEvent needs the `type` above and the
    /// source `/APP/NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept: Option<Accept>,
    /// Largest accepted request body.
    #[serde(default = "content_size_default")]
    pub max_body: ByteSize,
    /// Response to a request: `accepted` as soon as its event is stored, or an event that follows from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "reply::schema", extend("default" = "accepted"))]
    pub reply: Option<ReplyEvent>,
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

    /// Reports sources with the same path and method, because one listener serves all of them, and sources that accept
    /// no event or a source of this app.
    fn check_together(&self, reader: &mut Reader<'_>, sources: &[&Source]) {
        sources.iter().for_each(|source| check_claims(reader, source));
        let mut routes: HashMap<(&str, Method), Span> = HashMap::new();
        for source in sources {
            let Some(http) = source.settings.get::<HttpSource>() else {
                continue;
            };
            for method in &http.methods {
                if let Some(first) = routes.get(&(http.path.as_str(), *method)) {
                    let message =
                        format!("another source already handles `{} {}`", method.as_str(), excerpt(&http.path));
                    let help = "use another path or method; several functions can share one source";
                    reader.error_with_related(source.span, message, help, (*first, "the other source"));
                    break;
                }
                routes.insert((&http.path, *method), source.span);
            }
        }
    }

    fn event_types<'s>(&self, settings: &'s Settings) -> Vec<&'s str> {
        let Some(http) = settings.get::<HttpSource>() else { return Vec::new() };
        let accepted = http.accept.iter().flat_map(|accept| &accept.types).map(TypeGlob::as_str);
        http.type_.as_deref().into_iter().chain(accepted).collect()
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
        let path = reader.parse_text(node, "`path`", http_path)?;
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
    let type_ = table.optional(reader, "type").map(|node| reader.parse_text(node, "`type`", event_type));
    let accept_span = table.key_span("accept");
    let accept = table.optional(reader, "accept").map(|node| Accept::parse(reader, node, accept_span));
    let max_body =
        table.optional(reader, "max_body").and_then(|node| reader.size(node, "`max_body`", CONTENT_SIZE_RANGE));
    let max_body = max_body.unwrap_or_else(content_size_default);
    let reply = table.optional(reader, "reply").and_then(|node| reply::parse(reader, node));
    table.reject_unknown_keys(reader, |key| match key {
        "method" => Some("write the methods as a list: `methods: [POST]`"),
        "types" | "sources" => Some("write what producers may claim as `accept: { types: [TYPE], sources: [SOURCE] }`"),
        "port" | "host" | "listen" => Some("set the listen address with `evoke up --http ADDRESS`"),
        _ => None,
    });
    // An invalid value has its error; other checks would report it as a missing one.
    if matches!(type_, Some(None)) || matches!(accept, Some(None)) {
        return None;
    }
    let (path, type_, accept) = (path?, type_.flatten(), accept.flatten());
    Some(HttpSource { path, methods, has_default_methods, type_, accept, max_body, reply })
}

/// Reports a shared source that accepts no event, and globs of sources that belong to this app or to the runtime.
fn check_claims(reader: &mut Reader<'_>, source: &Source) {
    let Some(http) = source.settings.get::<HttpSource>() else { return };
    // The function of a private source may handle the requests themselves: its component decides.
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
    (message, "remove it; producers send events of an http source without a `source`, or with the source `/APP/NAME`")
}

impl HttpSource {
    /// The help text for a source that accepts no event.
    pub const ACCEPT_HELP: &str = "add `type: order.placed`, or `accept: { types: [\"order.*\"], sources: [\"https://partner.example/*\"] }` for the CloudEvents of producers";

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

fn http_path(text: &str) -> Result<String, ValueError> {
    let message = || format!("`{}` is not a valid request path", excerpt(text));
    if text.contains("://") {
        return Err(ValueError::new(
            message(),
            "write only the path, as in `/checkout`; set the host with `evoke up --http`",
        ));
    }
    if let Some(at) = text.find(['?', '#']) {
        let path = text.get(..at).unwrap_or("");
        return Err(ValueError::new(message(), format!("remove everything after the path: `{}`", excerpt(path))));
    }
    if !text.starts_with('/') {
        return Err(ValueError::new(message(), format!("start it with a slash: `/{}`", excerpt(text))));
    }
    let placeholder = |part: &&str| {
        let is_in_braces = part.starts_with(['{', '<']) && part.ends_with(['}', '>']);
        part.starts_with(':') || *part == "*" || *part == "**" || part.contains("${") || is_in_braces
    };
    if let Some(placeholder) = text.split('/').find(placeholder) {
        let message = format!("{}: the placeholder `{}` is not supported", message(), excerpt(placeholder));
        return Err(ValueError::new(
            message,
            "write a fixed path, because paths are compared exactly; put variable parts in the body",
        ));
    }
    // RFC 3986, section 5.2.4: clients remove these parts before they send a request.
    if text.split('/').any(|part| matches!(part, "." | "..")) {
        let mut parts: Vec<&str> = Vec::new();
        for part in text.split('/').skip(1) {
            match part {
                "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let message = format!("{}: clients remove `.` and `..` from the path of a request", message());
        return Err(ValueError::new(message, format!("write `/{}`", excerpt(&parts.join("/")))));
    }
    let is_escape = |rest: &str| rest.get(..2).is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if text.split('%').skip(1).any(|rest| !is_escape(rest)) {
        let message = format!("{}: `%` begins an escape of two hexadecimal digits", message());
        return Err(ValueError::new(message, "write `%25` for the character `%`"));
    }
    // RFC 3986, section 3.3: the characters that a path can have unescaped. A request never contains others.
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte);
    if let Some(char) = text.chars().find(|char| !u8::try_from(*char).is_ok_and(is_allowed)) {
        let message = format!("{}: `{}` must be escaped", message(), excerpt(&char.to_string()));
        let mut bytes = [0; 4];
        let escaped: String = char.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect();
        return Err(ValueError::new(message, format!("write `{escaped}` instead")));
    }
    Ok(text.to_owned())
}

fn event_type(text: &str) -> Result<String, ValueError> {
    if is_runtime_type(text) {
        let message = format!("the event type `{}` belongs to the runtime", excerpt(text));
        return Err(ValueError::new(message, "write a type that does not begin with `evoke.`, such as `order.placed`"));
    }
    if text.chars().any(|char| char.is_whitespace() || is_excluded_char(char)) {
        let message = format!("the event type `{}` contains white space", excerpt(text));
        let joined: String = text.split_whitespace().collect::<Vec<_>>().join(".");
        return Err(ValueError::new(message, format!("write `{}`", excerpt(&joined))));
    }
    Ok(text.to_owned())
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
    let names = Method::ALL.map(Method::as_str);
    if let Some(method) = Method::ALL.into_iter().find(|method| method.as_str() == text) {
        return Ok(method);
    }
    let help = match nearest(text, names) {
        Some(similar) => format!("write `{similar}`"),
        None => format!("write one of {}", names.join(", ")),
    };
    Err(ValueError::new(format!("`{}` is not a supported HTTP method", excerpt(text)), help))
}

//! Reads `deliver`, which takes the place of a component.

use super::Context;
use super::secrets::secrets;
use crate::deliver::{
    BodyTemplate, Deliver, EndpointUrl, Field, Hmac, JsonTemplate, Method, Mode, Rate, Sign, StandardWebhooks,
};
use crate::diagnostics::{ValueError, excerpt};
use crate::hmac::HmacFormat;
use crate::model::Allow;
use crate::names::header_name;
use crate::parser::{Node, Reader, Resolved, Table, Value};
use crate::secret::{SecretList, SecretRef};
use crate::source_text::Span;
use crate::template::Template;
use crate::trust::Trust;
use evoke_model::media_type::is_json as is_json_type;
use http::HeaderName;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Largest number of headers in `headers`; headers that the runtime adds do not count.
const HEADERS_MAX: usize = 32;

/// The maximum number of texts in a body that is written as a map or list. Each text can have placeholders.
const BODY_TEXTS_MAX: usize = 256;

/// Headers that a manifest cannot set, because the runtime sets them: headers about the connection, and headers that
/// identify the delivery.
const OWN_HEADERS: [&str; 14] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "proxy-connection",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

const SIGN_EXAMPLE: &str = "`{ standard-webhooks: { secret: { env: VARIABLE } } }`";

pub(super) fn deliver(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node, span: Span) -> Option<Deliver> {
    let mut table =
        Table::read(reader, node, span, "Deliver", "`deliver`", "`{ url: \"https://api.example.com/hooks\" }`")?;
    let url = table.required(reader, "url", &["endpoint", "uri", "to", "target"], "`url: https://HOST/PATH`");
    let url_span = url.map_or(span, |node| node.span);
    let url = url.and_then(|node| reader.parse_text(node, "`url`", EndpointUrl::parse));
    let method = table.optional(reader, "method");
    let method = method.and_then(|node| reader.parse_text(node, "`method`", Method::parse));
    let mode_node = table.optional(reader, "mode");
    let mode = mode_node.and_then(|node| reader.parse_text(node, "`mode`", Mode::parse));
    let body_node = table.optional(reader, "body");
    let body = body_node.and_then(|node| body(reader, node));
    if let (Some(_), Some(_)) = (mode_node, body_node) {
        let message = "`body` replaces the event, so `mode` has no effect";
        let other = (table.key_span("body"), "the body");
        reader.error_with_related(table.key_span("mode"), message, "keep either `mode` or `body`", other);
    }
    let sign_span = table.key_span("sign");
    let sign = table.optional(reader, "sign").and_then(|node| sign(reader, context, node, sign_span));
    let headers = table.optional(reader, "headers");
    let headers = headers.map(|node| headers_of(reader, node, body_node.is_some(), sign.as_ref())).unwrap_or_default();
    if let (Some(BodyTemplate::Text(_)), Some(type_)) = (&body, headers.get("content-type"))
        && type_.fixed().is_some_and(is_json_type)
    {
        let span = body_node.map_or(span, |node| node.span);
        reader.error(span, "the body is a text, but its `content-type` is JSON", "write the body as a map or list");
    }
    let secrets = table.optional(reader, "secrets").map(|node| secrets(reader, context, node)).unwrap_or_default();
    let trust = Trust::read(reader, &mut table, context.folder);
    let rate = table.optional(reader, "rate").and_then(|node| reader.parse_text(node, "`rate`", Rate::parse));
    if let Some(address) = url.as_ref().and_then(|url| url.target().address())
        && let Some(reason) = trust.refuses(address)
    {
        let message = format!("every request would be refused: the address of the URL is {reason}");
        reader.error(url_span, message, format!("to allow it, write `addresses: [\"{address}\"]` under `deliver`"));
    }
    table.reject_unknown_keys(reader, |key| match key {
        "endpoint" | "uri" | "to" | "target" => Some("did you mean `url`?"),
        "auth" | "token" | "authorization" => Some(
            "write `headers: { authorization: \"Bearer {secret.TOKEN}\" }` and `secrets: { TOKEN: { env: VARIABLE } }`",
        ),
        "secret" | "signature" | "hmac" | "standard-webhooks" => Some("put it under `sign`"),
        "template" | "payload" | "json" | "data" => Some("did you mean `body`?"),
        "timeout" | "retry" | "concurrency" | "order_by" | "on" => {
            Some("write the key next to `deliver`, not inside `deliver`")
        }
        "limit" | "throttle" => Some("did you mean `rate`?"),
        key => Trust::hint(key),
    });
    Some(Deliver { url: url?, method: method.unwrap_or_default(), headers, mode, body, sign, secrets, trust, rate })
}

/// Reports each secret of a placeholder that is declared under neither `deliver.secrets` nor `allow.secrets`, and a
/// secret that is declared under both.
pub(super) fn check_secrets(reader: &mut Reader<'_>, deliver: &Deliver, allow: &Allow, span: Span) {
    let mut missing: Vec<&str> = Vec::new();
    for placeholder in deliver.templates().flat_map(Template::placeholders) {
        if let Field::Secret(name) = &placeholder.name
            && !deliver.secrets.contains_key(name)
            && !allow.secrets.contains_key(name)
            && !missing.contains(&name.as_str())
        {
            missing.push(name);
        }
    }
    for name in missing {
        let message = format!("the secret `{}` is not declared", excerpt(name));
        let help = format!("add `secrets: {{ {}: {{ env: VARIABLE }} }}` under `deliver`", excerpt(name));
        reader.error(span, message, help);
    }
    if let Some(name) = deliver.secrets.keys().find(|name| allow.secrets.contains_key(*name)) {
        let message = format!("the secret `{}` is declared under both `deliver` and `allow`", excerpt(name));
        reader.error(span, message, "keep one of the two declarations");
    }
}

fn template(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<Template<Field>> {
    reader.parse_text(node, what, |text| Template::parse(text, Field::parse))
}

/// Reads a text, or a map or list that becomes JSON.
fn body(reader: &mut Reader<'_>, node: &Node) -> Option<BodyTemplate> {
    let body = match &node.value {
        Value::Scalar(_) => {
            let text = template(reader, node, "`body`")?;
            if is_json(&text) {
                let message = "a JSON body cannot be written as a text: an inserted value with a quote would break it";
                reader.error(node.span, message, "write the body as a map or list: `body: { text: \"{data.text}\" }`");
                return None;
            }
            BodyTemplate::Text(text)
        }
        Value::List(_) | Value::Map(_) => BodyTemplate::Json(json(reader, node)?),
    };
    let mut texts = Vec::new();
    if let BodyTemplate::Json(json) = &body {
        json.collect_texts(&mut texts);
    }
    if texts.len() > BODY_TEXTS_MAX {
        let message = format!("`body` has {} texts; at most {BODY_TEXTS_MAX} are possible", texts.len());
        reader.error(node.span, message, "write fewer texts, or use a component in place of `deliver`");
        return None;
    }
    Some(body)
}

/// Returns true if a text is a JSON object or list when each of its placeholders is replaced by `0`.
fn is_json(text: &Template<Field>) -> bool {
    let harmless = |_: &Field| Ok::<_, std::convert::Infallible>(Some("0".into()));
    let rendered = text.render(usize::MAX, harmless).unwrap_or_default();
    rendered.trim_start().starts_with(['{', '[']) && serde_json::from_str::<&RawValue>(&rendered).is_ok()
}

/// Converts YAML to JSON with placeholders. The recursion is safe, because the loader limits the depth of the tree.
fn json(reader: &mut Reader<'_>, node: &Node) -> Option<JsonTemplate> {
    match &node.value {
        Value::List(items) => {
            let items: Vec<_> = items.iter().map(|item| json(reader, item)).collect();
            Some(JsonTemplate::List(items.into_iter().collect::<Option<_>>()?))
        }
        Value::Map(entries) => {
            let members: Vec<_> =
                entries.iter().map(|entry| json(reader, &entry.node).map(|value| (entry.key.clone(), value))).collect();
            Some(JsonTemplate::Object(members.into_iter().collect::<Option<_>>()?))
        }
        Value::Scalar(scalar) => match scalar.resolve() {
            Resolved::Null => Some(JsonTemplate::Value(serde_json::Value::Null)),
            Resolved::Bool(value) => Some(JsonTemplate::Value(value.into())),
            Resolved::Number(number) => Some(JsonTemplate::Value(serde_json::Value::Number(number))),
            Resolved::NotFinite => {
                reader.error(
                    node.span,
                    "JSON has no infinity and no NaN",
                    "write a finite number; if the value is a text, put it in quotes",
                );
                None
            }
            Resolved::Text(text) => {
                let parsed = Template::parse(text, Field::parse);
                reader.ok_or_report(node.span, parsed).map(JsonTemplate::Text)
            }
        },
    }
}

fn headers_of(
    reader: &mut Reader<'_>,
    node: &Node,
    has_body: bool,
    sign: Option<&Sign>,
) -> BTreeMap<String, Template<Field>> {
    let mut headers = BTreeMap::new();
    let entries = reader.entries(node, "`headers`", "`{ authorization: \"Bearer {secret.TOKEN}\" }`");
    if entries.len() > HEADERS_MAX {
        let message = format!("`headers` has {} entries; at most {HEADERS_MAX} are possible", entries.len());
        reader.error(node.span, message, "remove some of them");
        return headers;
    }
    for entry in entries {
        let Some(name) = reader.ok_or_report(entry.key_span, header_name(&entry.key)) else { continue };
        let name = name.as_str();
        if let Some((message, help)) = reserved(name, has_body, sign) {
            reader.error(entry.key_span, message, help);
            continue;
        }
        let Some(value) = template(reader, &entry.node, &format!("the header `{name}`")) else { continue };
        let is_wrong = |char: char| char.is_control() && char != '\t';
        if value.texts().any(|text| text.contains(is_wrong)) {
            let message = format!("the header `{name}` contains a line break or another control character");
            reader.error(entry.node.span, message, "write the value in one line, without control characters");
        } else if headers.insert(name.to_owned(), value).is_some() {
            let message = format!("the header `{name}` is written twice");
            reader.error(entry.key_span, message, "remove one of them: names of headers are not case-sensitive");
        }
    }
    headers
}

/// Returns the error and the help for a header that the runtime sets.
fn reserved(name: &str, has_body: bool, sign: Option<&Sign>) -> Option<(String, &'static str)> {
    let by_signature = match sign {
        Some(Sign::StandardWebhooks(_)) => matches!(name, "webhook-id" | "webhook-timestamp" | "webhook-signature"),
        Some(Sign::Hmac(hmac)) => hmac.format.header == name,
        None => false,
    };
    if by_signature {
        return Some((format!("the header `{name}` is set by `sign`"), "remove it"));
    }
    if OWN_HEADERS.contains(&name) {
        return Some((format!("the header `{name}` is set by Evoke"), "remove it"));
    }
    if !has_body && (name == "content-type" || name.starts_with("ce-")) {
        let help = "remove it, or write a `body` of your own";
        return Some((format!("the header `{name}` is set from the event"), help));
    }
    None
}

fn sign(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node, span: Span) -> Option<Sign> {
    let mut table = Table::read(reader, node, span, "Sign", "`sign`", SIGN_EXAMPLE)?;
    let standard_span = table.key_span("standard-webhooks");
    let standard = table.optional(reader, "standard-webhooks");
    let hmac_span = table.key_span("hmac");
    let hmac_node = table.optional(reader, "hmac");
    let sign = match (standard, hmac_node) {
        (Some(_), Some(_)) => {
            let other = (standard_span, "the other signature");
            reader.error_with_related(hmac_span, "`sign` has two signatures", "keep one of them", other);
            None
        }
        (Some(node), None) => standard_webhooks(reader, context, node, standard_span),
        (None, Some(node)) => hmac(reader, context, node, hmac_span),
        (None, None) => {
            if table.is_empty() {
                reader.error(span, "`sign` does not name a kind of signature", format!("write {SIGN_EXAMPLE}"));
            }
            None
        }
    };
    table.reject_unknown_keys(reader, |key| match key {
        "standard_webhooks" | "standardwebhooks" | "svix" => Some("did you mean `standard-webhooks`?"),
        "github" => Some("write `hmac: { header: x-hub-signature-256, prefix: \"sha256=\", secret: … }`"),
        "secret" => Some("put it under `standard-webhooks` or `hmac`"),
        _ => None,
    });
    sign
}

fn standard_webhooks(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node, span: Span) -> Option<Sign> {
    let example = "`{ secret: { env: VARIABLE } }`";
    let mut table = Table::read(reader, node, span, "StandardWebhooksSignature", "`standard-webhooks`", example)?;
    let secret_node = table.required(reader, "secret", &["key", "secrets"], "`secret: { env: VARIABLE }`");
    let secret_span = table.key_span("secret");
    table.reject_unknown_keys(reader, |key| match key {
        "key" | "secrets" => Some("did you mean `secret`?"),
        _ => None,
    });
    let secret = SecretList::parse(reader, secret_node?, secret_span, "`secret`", context.folder)?;
    if secret.iter().any(|secret| secret.name.is_some()) {
        reader.error(
            secret_span,
            "a secret of `sign` cannot have a `name`",
            "remove `name`; the receiver does not see it",
        );
        return None;
    }
    Some(Sign::StandardWebhooks(StandardWebhooks { secret }))
}

fn hmac(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node, span: Span) -> Option<Sign> {
    let example = "`{ header: x-signature, secret: { env: VARIABLE } }`";
    let mut table = Table::read(reader, node, span, "HmacSignature", "`hmac`", example)?;
    let format = HmacFormat::read(reader, &mut table, check_signature_header);
    let secret = signing_secret(reader, context, &mut table);
    table.reject_unknown_keys(reader, |key| match key {
        "key" | "secrets" => Some("did you mean `secret`?"),
        key => HmacFormat::hint(key),
    });
    Some(Sign::Hmac(Hmac { format: format?, secret: secret? }))
}

fn signing_secret(reader: &mut Reader<'_>, context: &Context<'_>, table: &mut Table<'_>) -> Option<SecretRef> {
    let node = table.required(reader, "secret", &["key", "secrets"], "`secret: { env: VARIABLE }`")?;
    SecretRef::parse(reader, node, table.key_span("secret"), "`secret`".to_owned(), context.folder)
}

fn check_signature_header(name: &HeaderName) -> Result<(), ValueError> {
    if OWN_HEADERS.contains(&name.as_str()) || name == "content-type" {
        let message = format!("the header `{name}` cannot carry a signature");
        return Err(ValueError::new(message, "use another header for the signature, such as `x-signature`"));
    }
    Ok(())
}

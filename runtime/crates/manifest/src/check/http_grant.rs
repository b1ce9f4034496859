//! Reads `allow.http`: the origins that a function may send requests to.

use crate::diagnostics::{ValueError, excerpt};
use crate::header_template::HeaderTemplate;
use crate::model::{HTTP_GRANTS_MAX, HttpGrant};
use crate::names::header_name;
use crate::parser::{Node, Reader, Table, Value};
use crate::secret::SecretRef;
use crate::source_text::Span;
use crate::trust::Trust;
use evoke_model::destination::Destination;
use std::collections::BTreeMap;
use std::path::Path;

/// A Rust function that reads a map of secrets, for the key `secrets` of a grant.
pub(super) type ReadSecrets<'a> = &'a dyn Fn(&mut Reader<'_>, &Node) -> BTreeMap<String, SecretRef>;

/// Headers that a grant cannot set, because Evoke's HTTP client sets them.
const OF_THE_SENDER: [&str; 11] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn grants(reader: &mut Reader<'_>, folder: &Path, node: &Node, secrets: ReadSecrets<'_>) -> Vec<HttpGrant> {
    let items = reader.list(node, "`http`");
    if items.len() > HTTP_GRANTS_MAX {
        let message = format!("`http` has {} entries; at most {HTTP_GRANTS_MAX} are possible", items.len());
        reader.error(node.span, message, "combine hosts of one domain, as in `https://*.example.com`");
        return Vec::new();
    }
    let mut grants: Vec<(HttpGrant, Span)> = Vec::new();
    for item in items {
        let Some(grant) = grant(reader, folder, item, secrets) else { continue };
        if let Some((_, first)) = grants.iter().find(|(other, _)| other.url == grant.url) {
            let message = format!("`{}` is granted twice", grant.url);
            reader.error_with_related(item.span, message, "remove one of the entries", (*first, "the other entry"));
        }
        warn(reader, item.span, &grant);
        grants.push((grant, item.span));
    }
    grants.into_iter().map(|(grant, _)| grant).collect()
}

fn grant(reader: &mut Reader<'_>, folder: &Path, node: &Node, secrets: ReadSecrets<'_>) -> Option<HttpGrant> {
    let Value::Map(_) = node.value else {
        let url = reader.parse_text(node, "an origin", destination)?;
        return Some(HttpGrant { url, headers: BTreeMap::new(), secrets: BTreeMap::new(), trust: Trust::default() });
    };
    let example = "`{ url: \"https://HOST\", headers: { authorization: \"Bearer {secret.KEY}\" } }`";
    let mut table = Table::read(reader, node, node.span, "HttpGrant", "the entry of `http`", example)?;
    let url = table.required(reader, "url", &["origin", "host", "uri", "address"], "`url: \"https://HOST\"`");
    let url = url.and_then(|node| reader.parse_text(node, "`url`", destination));
    let headers = table.optional(reader, "headers").map(|node| headers(reader, node)).unwrap_or_default();
    let secrets = table.optional(reader, "secrets").map(|node| secrets(reader, node)).unwrap_or_default();
    let trust = Trust::read(reader, &mut table, folder);
    if let Some(unused) = secrets.keys().find(|name| !headers.values().any(|value| value.secrets().any(|n| n == *name)))
    {
        let message = format!("the secret `{}` is not used in any header", excerpt(unused));
        let help = format!(
            "write `{{secret.{}}}` in a header; a secret that the function reads belongs under `allow.secrets`",
            excerpt(unused)
        );
        reader.warning(table.key_span("secrets"), message, help);
    }
    table.reject_unknown_keys(reader, |key| match key {
        "header" => Some("did you mean `headers`?"),
        "auth" | "authorization" | "token" | "bearer" => {
            Some("write `headers: { authorization: \"Bearer {secret.NAME}\" }`")
        }
        "methods" | "path" | "paths" => Some("remove it: a grant is for all methods and paths of its origin"),
        "timeout" | "timeouts" => Some("remove it: the function sets time-outs, within the limits of Evoke"),
        key => Trust::hint(key),
    });
    Some(HttpGrant { url: url?, headers, secrets, trust })
}

fn headers(reader: &mut Reader<'_>, node: &Node) -> BTreeMap<String, HeaderTemplate> {
    let mut headers = BTreeMap::new();
    for entry in reader.entries(node, "`headers`", "`{ authorization: \"Bearer {secret.KEY}\" }`") {
        let name = reader.ok_or_report(entry.key_span, own_header(&entry.key));
        let value = reader.parse_text(&entry.node, "the value of a header", HeaderTemplate::parse);
        let (Some(name), Some(value)) = (name, value) else { continue };
        if headers.insert(name, value).is_some() {
            let message = format!("the header `{}` is written twice", excerpt(&entry.key));
            reader.error(entry.key_span, message, "remove one of them: names of headers are not case-sensitive");
        }
    }
    headers
}

fn own_header(text: &str) -> Result<String, ValueError> {
    let name = header_name(text)?;
    if OF_THE_SENDER.contains(&name.as_str()) {
        let message = format!("the header `{name}` cannot be set");
        return Err(ValueError::new(message, "remove it: Evoke sets this header if it is needed"));
    }
    Ok(name.as_str().to_owned())
}

/// Warns of a grant whose requests would all be refused, and of a grant that sends a secret without encryption.
fn warn(reader: &mut Reader<'_>, span: Span, grant: &HttpGrant) {
    let address = grant.url.exact().and_then(|target| target.address());
    let is_localhost = grant.url.exact().is_some_and(|target| is_localhost(&target.host));
    if let Some(address) = address
        && let Some(reason) = grant.trust.refuses(address)
    {
        let message = format!("each request to `{}` is refused: the address is {reason}", grant.url);
        let help = format!("to allow it, write `{{ url: \"{}\", addresses: [\"{address}\"] }}`", grant.url);
        reader.warning(span, message, help);
    } else if is_localhost && grant.trust.addresses.is_empty() {
        let message = format!("each request to `{}` is refused: the address is this machine (loopback)", grant.url);
        let help = format!("to allow it, write `{{ url: \"{}\", addresses: [\"127.0.0.1\", \"::1\"] }}`", grant.url);
        reader.warning(span, message, help);
    }
    let stays_here = is_localhost || address.is_some_and(|address| address.is_loopback());
    let has_secrets = grant.headers.values().any(|value| value.secrets().next().is_some());
    if has_secrets && !grant.url.is_https() && !stays_here {
        let message = format!("the secrets in the headers for `{}` are sent without encryption", grant.url);
        reader.warning(span, message, "use an https origin");
    }
}

fn is_localhost(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

fn destination(text: &str) -> Result<Destination, ValueError> {
    Destination::parse(text).map_err(|error| ValueError::new(error.message, error.help))
}

//! `auth:` in a manifest.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use http::HeaderName;
use schemars::JsonSchema;
use serde::Serialize;

use super::headers::TOLERANCE_S;
use evoke_manifest::hmac::HmacFormat;
use evoke_manifest::names::{header_name, header_text};
use evoke_manifest::parser::{Node, Reader, Span, Table, ValueError, excerpt};
use evoke_manifest::units::DurationText;
use evoke_manifest::{SecretList, SecretRef};

/// How the sender of each request is verified: write exactly one of these keys. Requests of other senders are refused
/// with 401.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// Signatures of Standard Webhooks. A secret is `whsec_…`, or a public key `whpk_…`.
    StandardWebhooks(SecretAuth),
    /// Signatures of GitHub, in `X-Hub-Signature-256`.
    Github(SecretAuth),
    /// Signatures of Stripe, in `Stripe-Signature`.
    Stripe(SecretAuth),
    /// Signatures of Slack, in `X-Slack-Signature`.
    Slack(SecretAuth),
    /// Any other HMAC of the body.
    Hmac(Hmac),
    /// A token in `Authorization: Bearer TOKEN`.
    Bearer(SecretAuth),
    /// User names and passwords.
    Basic(Basic),
}

/// The secrets that a sender can use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SecretAuth {
    /// The secret, or a list while it is rotated.
    pub secret: SecretList,
}

/// An HMAC of the body in a header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Hmac {
    /// The secret, or a list while it is rotated.
    pub secret: SecretList,
    /// Form of the signature.
    #[serde(flatten)]
    pub format: HmacFormat,
    /// Time that is a part of the signed text. Without it, a recorded request can be sent again at any time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<HmacTimestamp>,
}

/// A time that is a part of the signed text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HmacTimestamp {
    /// Header with the time, in seconds or milliseconds since 1970.
    #[serde(serialize_with = "header_text")]
    #[schemars(with = "String", length(min = 1))]
    pub header: HeaderName,
    /// The signed text: `{timestamp}` and `{body}` are replaced.
    #[serde(default)]
    #[schemars(with = "String")]
    pub signed: SignedTemplate,
    /// Largest difference between the time and the clock of this machine.
    #[serde(default = "default_tolerance", with = "DurationText")]
    pub tolerance: Duration,
}

/// Users with their passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Basic {
    /// Password of each user, by name.
    pub users: BTreeMap<String, SecretList>,
}

/// The signed text of a request, in which `{timestamp}` is replaced by the time and `{body}` by the body. The body
/// occurs once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SignedTemplate(String);

const TIME: &str = "{timestamp}";
const BODY: &str = "{body}";
const TOLERANCE_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
/// The most users of a source. Each costs one comparison for every request.
const USERS_MAX: usize = 32;
/// The longest template of a signed text, in bytes.
const TEXT_BYTES_MAX: usize = 256;

const EXAMPLE: &str = "`{ github: { secret: { env: VARIABLE } } }`";
const SECRET_EXAMPLE: &str = "`secret: { env: VARIABLE }`";
const KEYS: [&str; 7] = ["standard-webhooks", "github", "stripe", "slack", "hmac", "bearer", "basic"];

fn default_tolerance() -> Duration {
    Duration::from_secs(TOLERANCE_S.into())
}

impl Auth {
    /// Returns how long the same signed request is accepted: from its time minus the tolerance to its time plus the
    /// tolerance. `None` if there is no limit, because no time is signed.
    pub fn signature_lifetime(&self) -> Option<Duration> {
        let tolerance = match self {
            Self::StandardWebhooks(_) | Self::Stripe(_) | Self::Slack(_) => default_tolerance(),
            Self::Hmac(hmac) => hmac.timestamp.as_ref()?.tolerance,
            Self::Github(_) | Self::Bearer(_) | Self::Basic(_) => return None,
        };
        Some(2 * tolerance)
    }
}

impl Default for SignedTemplate {
    fn default() -> Self {
        Self(format!("{TIME}.{BODY}"))
    }
}

impl SignedTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// The text is too long, does not have `{body}` exactly once, does not have `{timestamp}`, or has another
    /// placeholder.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let wrong =
            |what: String| Err(ValueError::new(what, format!("write the signed text, such as `{TIME}.{BODY}`")));
        if text.len() > TEXT_BYTES_MAX {
            return wrong(format!("the signed text has {} bytes; at most {TEXT_BYTES_MAX} are allowed", text.len()));
        }
        for (name, is_right) in [(BODY, text.matches(BODY).count() == 1), (TIME, text.contains(TIME))] {
            if !is_right {
                let times = if name == BODY { "exactly once" } else { "at least once" };
                return wrong(format!("the signed text `{}` must have `{name}` {times}", excerpt(text)));
            }
        }
        let rest = text.replace(BODY, "").replace(TIME, "");
        if rest.contains(['{', '}']) {
            return wrong(format!("the signed text `{}` has braces outside `{TIME}` and `{BODY}`", excerpt(text)));
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the parts before and after the body. `None` stands for the time.
    pub(super) fn parts(&self) -> (Vec<Option<String>>, Vec<Option<String>>) {
        let (before, after) = self.0.split_once(BODY).unwrap_or((&self.0, ""));
        let parts = |text: &str| {
            let mut parts = Vec::new();
            for (index, part) in text.split(TIME).enumerate() {
                if index > 0 {
                    parts.push(None);
                }
                parts.push(Some(part.to_owned()));
            }
            parts
        };
        (parts(before), parts(after))
    }
}

impl Auth {
    /// Parses the value of `auth`. Relative paths start in `folder`.
    pub(in crate::source) fn parse(reader: &mut Reader<'_>, node: &Node, span: Span, folder: &Path) -> Option<Self> {
        let mut table = Table::read(reader, node, span, "Auth", "`auth`", EXAMPLE)?;
        let mut found: Vec<(&'static str, Option<Self>)> = Vec::new();
        for key in KEYS {
            let Some(node) = table.optional(reader, key) else { continue };
            let span = table.key_span(key);
            found.push((key, parse_preset(reader, node, span, key, folder)));
        }
        let keys: Vec<&str> = KEYS.into_iter().filter(|key| table.has(key)).collect();
        match keys.as_slice() {
            [first, second, ..] => {
                let message = format!("`auth` has two ways to verify a sender, `{first}` and `{second}`");
                let (span, other) = (table.key_span(second), table.key_span(first));
                let help = "keep one of them, and add a source for the senders that use the other";
                reader.error_with_related(span, message, help, (other, "the other one"));
            }
            [] if table.is_empty() => reader.error(table.span(), "`auth` is empty", format!("write {EXAMPLE}")),
            _ => {}
        }
        table.reject_unknown_keys(reader, |key| match key {
            "svix" => Some("write `standard-webhooks`"),
            "token" | "api_key" | "apikey" | "jwt" => Some("write `bearer: { secret: { env: VARIABLE } }`"),
            "secret" | "env" | "file" => {
                Some("write how the sender signs, as in `github: { secret: { env: VARIABLE } }`")
            }
            "signature" | "sha256" | "header" => Some("write `hmac: { secret: { env: VARIABLE }, header: NAME }`"),
            _ => None,
        });
        match keys.as_slice() {
            [_] => found.pop()?.1,
            _ => None,
        }
    }

    /// Returns the locations of all secrets.
    pub fn secrets(&self) -> Vec<&SecretRef> {
        let lists: Vec<&SecretList> = match self {
            Self::StandardWebhooks(auth)
            | Self::Github(auth)
            | Self::Stripe(auth)
            | Self::Slack(auth)
            | Self::Bearer(auth) => vec![&auth.secret],
            Self::Hmac(hmac) => vec![&hmac.secret],
            Self::Basic(basic) => basic.users.values().collect(),
        };
        lists.into_iter().flat_map(SecretList::iter).map(|secret| &secret.location).collect()
    }

    /// Returns the key in the manifest, which is the principal of a sender whose secret has no name.
    pub fn key(&self) -> &'static str {
        match self {
            Self::StandardWebhooks(_) => "standard-webhooks",
            Self::Github(_) => "github",
            Self::Stripe(_) => "stripe",
            Self::Slack(_) => "slack",
            Self::Hmac(_) => "hmac",
            Self::Bearer(_) => "bearer",
            Self::Basic(_) => "basic",
        }
    }
}

fn parse_preset(reader: &mut Reader<'_>, node: &Node, span: Span, key: &'static str, folder: &Path) -> Option<Auth> {
    match key {
        "hmac" => parse_hmac(reader, node, span, folder).map(Auth::Hmac),
        "basic" => parse_basic(reader, node, span, folder).map(Auth::Basic),
        _ => {
            let example = format!("`{{ {} }}`", SECRET_EXAMPLE.trim_matches('`'));
            let mut table = Table::read(reader, node, span, "SecretAuth", format!("`{key}`"), &example)?;
            let secret = parse_secret(reader, &mut table, folder);
            table.reject_unknown_keys(reader, secret_hint);
            let auth = SecretAuth { secret: secret? };
            Some(match key {
                "standard-webhooks" => Auth::StandardWebhooks(auth),
                "github" => Auth::Github(auth),
                "stripe" => Auth::Stripe(auth),
                "slack" => Auth::Slack(auth),
                _ => Auth::Bearer(auth),
            })
        }
    }
}

fn parse_secret(reader: &mut Reader<'_>, table: &mut Table<'_>, folder: &Path) -> Option<SecretList> {
    let node =
        table.required(reader, "secret", &["secrets", "env", "file", "credential", "token", "key"], SECRET_EXAMPLE)?;
    SecretList::parse(reader, node, table.key_span("secret"), "`secret`", folder)
}

fn secret_hint(key: &str) -> Option<&'static str> {
    match key {
        "env" => Some("write `secret: { env: VARIABLE }`"),
        "file" => Some("write `secret: { file: PATH }`"),
        "credential" => Some("write `secret: { credential: NAME }`"),
        "secrets" => Some("write a list under `secret`"),
        "tolerance" => Some("remove it: with this kind of `auth`, the tolerance is always five minutes"),
        _ => None,
    }
}

fn parse_hmac(reader: &mut Reader<'_>, node: &Node, span: Span, folder: &Path) -> Option<Hmac> {
    let example = "`{ secret: { env: VARIABLE }, header: X-Signature }`";
    let mut table = Table::read(reader, node, span, "Hmac", "`hmac`", example)?;
    let secret = parse_secret(reader, &mut table, folder);
    let format = HmacFormat::read(reader, &mut table, |_| Ok(()));
    let timestamp_span = table.key_span("timestamp");
    let timestamp = table.optional(reader, "timestamp").and_then(|node| parse_timestamp(reader, node, timestamp_span));
    table.reject_unknown_keys(reader, |key| match key {
        "tolerance" | "signed" | "template" => {
            Some("write `timestamp: { header: NAME, signed: \"{timestamp}.{body}\", tolerance: 5m }`")
        }
        key => HmacFormat::hint(key).or_else(|| secret_hint(key)),
    });
    Some(Hmac { secret: secret?, format: format?, timestamp })
}

fn parse_timestamp(reader: &mut Reader<'_>, node: &Node, span: Span) -> Option<HmacTimestamp> {
    let mut table = Table::read(reader, node, span, "HmacTimestamp", "`timestamp`", "`{ header: X-Timestamp }`")?;
    let header = table.required(reader, "header", &[], "`header: X-Timestamp`, the header with the time");
    let header = header.and_then(|node| reader.parse_text(node, "`header`", header_name));
    let signed =
        table.optional(reader, "signed").and_then(|node| reader.parse_text(node, "`signed`", SignedTemplate::parse));
    let tolerance = table.optional(reader, "tolerance");
    let tolerance = tolerance.and_then(|node| reader.duration(node, "`tolerance`", TOLERANCE_RANGE));
    table.reject_unknown_keys(reader, |key| match key {
        "template" | "text" => Some("did you mean `signed`?"),
        _ => None,
    });
    let (signed, tolerance) = (signed.unwrap_or_default(), tolerance.unwrap_or_else(default_tolerance));
    Some(HmacTimestamp { header: header?, signed, tolerance })
}

fn parse_basic(reader: &mut Reader<'_>, node: &Node, span: Span, folder: &Path) -> Option<Basic> {
    let example = "`users: { ada: { env: VARIABLE } }`";
    let mut table =
        Table::read(reader, node, span, "Basic", "`basic`", &format!("`{{ {} }}`", example.trim_matches('`')))?;
    let users_node = table.required(reader, "users", &["user", "username", "password", "secret"], example);
    table.reject_unknown_keys(reader, |key| match key {
        "user" | "username" | "password" | "secret" => Some("write `users: { NAME: { env: VARIABLE } }`"),
        _ => None,
    });
    let node = users_node?;
    let entries = reader.entries(node, "`users`", "`{ ada: { env: VARIABLE } }`");
    if entries.is_empty() || entries.len() > USERS_MAX {
        let message = format!("`users` has {} entries; it must have 1 to {USERS_MAX}", entries.len());
        reader.error(node.span, message, "write `{ ada: { env: VARIABLE } }`");
        return None;
    }
    let mut users = BTreeMap::new();
    for entry in entries {
        let name = &entry.key;
        if !(1..=64).contains(&name.len()) || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
            let message = format!("`{}` is not a valid user name", excerpt(name));
            reader.error(entry.key_span, message, "use up to 64 visible ASCII characters, without `:`");
            continue;
        }
        let what = format!("the password of `{}`", excerpt(name));
        let Some(secret) = SecretList::parse(reader, &entry.node, entry.key_span, &what, folder) else { continue };
        if secret.iter().any(|secret| secret.name.is_some()) {
            reader.error(
                entry.key_span,
                "a password cannot have a `name`",
                "remove `name`; the principal has the user's name",
            );
        }
        users.insert(name.clone(), secret);
    }
    (users.len() == entries.len()).then_some(Basic { users })
}

//! The events that producers may send to an http source. Without `accept`, the `type` and `source` of an event must be
//! those of the http source itself; with `accept`, they may also match its globs. A glob never accepts a `source` that
//! belongs to an app or to the runtime, in any spelling, and never a `type` of the runtime.

use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use crate::problem::Problem;
use evoke_core::bus::Claims;
use evoke_core::router::Router;
use evoke_manifest::TypeGlob;
use evoke_manifest::parser::{Node, Reader, Span, Table, ValueError, excerpt};
use evoke_model::claim;
use evoke_model::event::Event;
use evoke_model::uri::{is_uri_char, is_uri_reference};

/// The types and sources that producers may claim in CloudEvents, beside those of the http source itself. `*` matches
/// any number of characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Accept {
    /// Types, such as `order.*`. Types that begin with `evoke.` are never accepted.
    #[schemars(with = "Vec<String>", inner(length(min = 1)))]
    pub types: Vec<TypeGlob>,
    /// Values of `source`, such as `https://partner.example/*`. Sources of apps (`/APP/…`) are never accepted.
    #[schemars(with = "Vec<String>", inner(length(min = 1)))]
    pub sources: Vec<SourceGlob>,
}

/// Glob of event sources: `*` matches any number of characters, including none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SourceGlob(TypeGlob);

impl SourceGlob {
    /// Parses a glob.
    ///
    /// # Errors
    /// A character that the source of an event cannot have, or an error of [`TypeGlob::parse`].
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        if let Some(char) = text.chars().find(|char| *char != '*' && !is_uri_char(*char)) {
            let message = format!("`{}` cannot be the source of an event", excerpt(text));
            let help = format!("a source is a URI reference, so percent-encode `{}`", excerpt(&char.to_string()));
            return Err(ValueError::new(message, help));
        }
        Ok(Self(TypeGlob::parse(text)?))
    }

    /// Returns the glob as written in the manifest.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns true if the glob matches `source`.
    pub fn matches(&self, source: &str) -> bool {
        self.0.matches(source)
    }

    /// Returns the part before the first `*`.
    fn literal(&self) -> &str {
        self.as_str().split('*').next().unwrap_or_default()
    }

    /// Returns the first segment (the name of an app) if all sources that the glob matches are paths of this runtime
    /// and begin with the same segment.
    pub fn app(&self) -> Option<String> {
        let literal = self.literal();
        let name = claim::source_names(literal).local?;
        let is_whole = literal.len() == self.as_str().len();
        // The first segment is complete if a further character does not change it.
        let longer = claim::source_names(&format!("{literal}x")).local;
        (is_whole || longer.as_ref() == Some(&name)).then_some(name)
    }

    /// Returns the authority that all matching sources have, in lower case; `None` if the glob has no complete
    /// authority before its first `*`.
    fn authority(&self) -> Option<String> {
        let (_, after) = self.literal().split_once("//")?;
        after.split_once('/').map(|(authority, _)| authority.to_ascii_lowercase())
    }
}

impl Accept {
    /// Parses the value of `accept`.
    pub(super) fn parse(reader: &mut Reader<'_>, node: &Node, key_span: Span) -> Option<Self> {
        let example = "`{ types: [\"order.*\"], sources: [\"https://partner.example/*\"] }`";
        let mut table = Table::read(reader, node, key_span, "Accept", "`accept`", example)?;
        let types = table.optional(reader, "types").map(|node| {
            let items = reader.nonempty_list(node, "`types`", "no type would match", "remove the key");
            items.iter().filter_map(|item| reader.parse_text(item, "an event type", TypeGlob::parse)).collect()
        });
        let sources = table.optional(reader, "sources").map(|node| {
            let items = reader.nonempty_list(node, "`sources`", "no source would match", "remove the key");
            items.iter().filter_map(|item| reader.parse_text(item, "an event source", SourceGlob::parse)).collect()
        });
        if table.is_empty() {
            reader.error(table.span(), "`accept` has no globs", format!("write {example}, or remove the key"));
        }
        table.reject_unknown_keys(reader, |key| match key {
            "type" => Some("write a list of globs: `types: [\"order.*\"]`"),
            "source" => Some("write a list of globs: `sources: [\"https://partner.example/*\"]`"),
            _ => None,
        });
        Some(Self { types: types.unwrap_or_default(), sources: sources.unwrap_or_default() })
    }
}

/// Decides which claims of producers an http source accepts.
#[derive(Clone, Debug)]
pub(super) struct ClaimPolicy {
    uri: Arc<str>,
    type_: Option<String>,
    accept: Accept,
    /// The authorities of the globs in `accept.sources`; see [`SourceGlob::authority`].
    authorities: Arc<[String]>,
}

impl ClaimPolicy {
    /// Makes the policy of the source `uri` with events of the type `type_`.
    pub(super) fn new(uri: Arc<str>, type_: Option<String>, accept: Accept) -> Self {
        let authorities = accept.sources.iter().filter_map(SourceGlob::authority).collect();
        Self { uri, type_, accept, authorities }
    }

    /// Returns the part of the policy that the bus needs to check events against the active apps.
    pub(super) fn claims(&self) -> Claims {
        Claims { uri: self.uri.clone(), authorities: self.authorities.clone() }
    }

    /// Checks a type that the source made from values of a request. A type of the runtime is refused. If the manifest
    /// lists accepted types, the type must be one of them.
    pub(super) fn check_made_type(&self, type_: &str) -> Result<(), Problem> {
        let checked = if self.accept.types.is_empty() { not_of_runtime(type_) } else { self.check_type(type_) };
        checked.map_err(|Refused { status, attribute, detail }| {
            Problem::new(status, detail).with_member("attribute", attribute)
        })
    }

    /// Checks the `type` and `source` that a producer claims; `index` is the position of the event in a batch.
    pub(super) fn check(&self, router: &Router, event: &Event, index: Option<usize>) -> Result<(), Problem> {
        let checked = self.check_type(&event.type_).and_then(|()| self.check_source(router, &event.source));
        checked.map_err(|Refused { status, attribute, detail }| match index {
            None => Problem::new(status, detail).with_member("attribute", attribute),
            Some(index) => Problem::new(status, format!("event {index}: {detail}"))
                .with_member("attribute", attribute)
                .with_member("event", index),
        })
    }

    fn check_type(&self, claimed: &str) -> Result<(), Refused> {
        if self.type_.as_deref() == Some(claimed) {
            return Ok(());
        }
        not_of_runtime(claimed)?;
        // A type with characters outside visible ASCII could look like another type. So `*` does not match it: only a
        // glob with exactly the same text accepts it.
        let is_plain = claimed.bytes().all(|byte| byte.is_ascii_graphic());
        let accepts = |glob: &TypeGlob| if is_plain { glob.matches(claimed) } else { glob.as_str() == claimed };
        if self.accept.types.iter().any(accepts) {
            return Ok(());
        }
        let globs = self.accept.types.iter().map(TypeGlob::as_str);
        Err(Refused::not_accepted("type", "types", claimed, self.type_.as_deref().into_iter().chain(globs)))
    }

    fn check_source(&self, router: &Router, claimed: &str) -> Result<(), Refused> {
        if *self.uri == *claimed {
            return Ok(());
        }
        if claimed.is_empty() || !is_uri_reference(claimed) {
            let detail = format!(
                "`source` is not a URI reference (RFC 3986): `{}`; write one, and percent-encode the characters that a URI cannot contain",
                excerpt(claimed)
            );
            return Err(Refused { status: StatusCode::BAD_REQUEST, attribute: "source", detail });
        }
        let trusted = |authority: &str| self.authorities.iter().any(|accepted| accepted == authority);
        if let Some(name) = router.owner_of(claimed, trusted) {
            let owner =
                if name == claim::RUNTIME_NAME { "the runtime".to_owned() } else { format!("the app `{name}`") };
            return Err(Refused::forbidden(
                "source",
                format!(
                    "the event's `source` is `{}`, which belongs to {owner}; no producer can claim it. Set `source` to `{}`, the URI of this http source",
                    excerpt(claimed),
                    self.uri
                ),
            ));
        }
        if self.accept.sources.iter().any(|glob| glob.matches(claimed)) {
            return Ok(());
        }
        let globs = self.accept.sources.iter().map(SourceGlob::as_str);
        Err(Refused::not_accepted("source", "sources", claimed, [&*self.uri].into_iter().chain(globs)))
    }
}

fn not_of_runtime(type_: &str) -> Result<(), Refused> {
    if claim::is_runtime_type(type_) {
        let detail = format!(
            "the event's `type` is `{}`, which belongs to the runtime; send a type that does not begin with `evoke.`",
            excerpt(type_)
        );
        return Err(Refused::forbidden("type", detail));
    }
    Ok(())
}

/// Why a claim was refused.
struct Refused {
    status: StatusCode,
    attribute: &'static str,
    detail: String,
}

/// The largest number of accepted values that a message lists.
const LISTED_MAX: usize = 10;

impl Refused {
    fn forbidden(attribute: &'static str, detail: String) -> Self {
        Self { status: StatusCode::FORBIDDEN, attribute, detail }
    }

    fn not_accepted<'a>(
        attribute: &'static str,
        key: &str,
        claimed: &str,
        accepted: impl Iterator<Item = &'a str>,
    ) -> Self {
        let claimed = excerpt(claimed);
        let accepted: Vec<String> = accepted.take(LISTED_MAX).map(|value| format!("`{value}`")).collect();
        let accepted = if accepted.is_empty() { "none".to_owned() } else { accepted.join(", ") };
        let written = serde_json::Value::from(claimed.as_str());
        Self::forbidden(
            attribute,
            format!(
                "this source does not accept the {attribute} `{claimed}`; it accepts {accepted}. To accept this \
             {attribute}, write in the manifest, under the `http` of this source: `accept: {{ {key}: [{written}] }}`"
            ),
        )
    }
}

#[cfg(test)]
mod tests;

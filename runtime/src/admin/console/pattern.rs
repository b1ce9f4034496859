//! Checks a pattern as the loader of manifests does, and finds the stored events that match it or nearly match it.

use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::events::LIMIT_MAX;
use super::row::Row;
use crate::admin::access::Exchange;
use crate::admin::request::json_body;
use crate::admin::search::{Conditions, Pages};
use crate::admin::{Admin, ApiResult};
use crate::control::registry;
use evoke_http::problem::Problem;
use evoke_manifest::{Diagnostic, Severity, load_str};
use evoke_model::clock::UnixMs;
use evoke_model::{ReadEvent, Seq};
use evoke_pattern::{Explanation, Matcher, Pattern, explain};

/// Maximum size of a pattern in bytes. A manifest has the same limit.
const PATTERN_BYTES_MAX: usize = 64 * 1024;
const LIMIT_DEFAULT: usize = 50;
/// Maximum number of near misses of a response.
const NEAR_MAX: usize = 20;
/// Maximum number of events that are compared field by field, for near misses.
const EXPLAINED_MAX: usize = 1_000;

/// To check a pattern, a manifest is made of this text and the lines of the pattern, each indented by [`INDENT`].
const BEFORE: &str = "evoke: 1\napp: console\nfunctions:\n  pattern:\n    deliver: { url: \"https://endpoint.example/\" }\n    \
                      on:\n      - events:\n";
const INDENT: &str = "          ";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Request {
    /// The pattern, as YAML or JSON.
    pattern: String,
    before: Option<Seq>,
    since_ms: Option<UnixMs>,
    until_ms: Option<UnixMs>,
    limit: Option<usize>,
}

/// The result of the check of a pattern, and the stored events that match it.
#[derive(Debug, Default, Serialize)]
pub(in crate::admin) struct Found {
    /// Errors and warnings. With an error, nothing is searched.
    diagnostics: Vec<Mistake>,
    /// Number of searched positions of events. Retention may have removed the events of some positions.
    scanned: u64,
    /// Number of searched events that match.
    matched: u64,
    /// The newest events that match.
    rows: Vec<Row>,
    /// Near misses: events that fail the pattern in only one field.
    near: Vec<Near>,
    /// The member `before` for the next search; absent if all events were searched.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Seq>,
}

/// A mistake in a pattern.
#[derive(Debug, Serialize)]
struct Mistake {
    severity: Severity,
    /// Line in the pattern, from 1.
    line: usize,
    /// Column in the line, from 1.
    column: usize,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

/// An event that nearly matches.
#[derive(Debug, Serialize)]
struct Near {
    row: Row,
    /// The result of the pattern for each field.
    pattern: Explanation,
}

pub(in crate::admin) async fn find(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Json<Found>> {
    let request: Request = serde_json::from_slice(&json_body(&headers, body)?)
        .map_err(|error| Problem::malformed(format!(r#"{error}; send {{"pattern": "type: [order.placed]"}}"#)))?;
    let bytes = request.pattern.len();
    if bytes > PATTERN_BYTES_MAX {
        let detail = format!("the pattern has {bytes} bytes; at most {PATTERN_BYTES_MAX} are allowed");
        return Err(Problem::malformed(detail).into());
    }
    let (pattern, diagnostics) = check(&request.pattern);
    let mut found = Found { diagnostics, ..Found::default() };
    if let Some(pattern) = pattern {
        let _scan = exchange.permits().scan().await;
        search(&admin, &request, &pattern, &mut found).await?;
    }
    Ok(Json(found))
}

/// Checks a pattern. Returns `None` if it has an error.
fn check(text: &str) -> (Option<Pattern>, Vec<Mistake>) {
    let indented: String = text.lines().map(|line| format!("{INDENT}{line}\n")).collect();
    let loaded = load_str(&format!("{BEFORE}{indented}"), Path::new("pattern.yaml"), &registry());
    let first_line = BEFORE.lines().count();
    let mistakes = |diagnostics: &evoke_manifest::Diagnostics| {
        let in_pattern = |diagnostic: &&Diagnostic| {
            diagnostic.severity == Severity::Error || diagnostic.position().is_some_and(|at| at.line > first_line)
        };
        diagnostics.iter().filter(in_pattern).map(|diagnostic| mistake(diagnostic, first_line)).collect::<Vec<_>>()
    };
    match loaded {
        Err(errors) => (None, mistakes(&errors)),
        Ok(checked) => {
            let function = checked.manifest.functions.first();
            let events = function.and_then(|function| function.triggers.first()?.events.as_ref());
            (events.map(|events| events.pattern.clone()), mistakes(&checked.warnings))
        }
    }
}

fn mistake(diagnostic: &Diagnostic, first_line: usize) -> Mistake {
    let at = diagnostic.position();
    let line = at.map_or(1, |at| at.line.saturating_sub(first_line).max(1));
    let column = at.map_or(1, |at| at.column.saturating_sub(INDENT.len()).max(1));
    let Diagnostic { severity, message, help, .. } = diagnostic;
    Mistake { severity: *severity, line, column, message: message.clone(), help: help.clone() }
}

async fn search(admin: &Admin, request: &Request, pattern: &Pattern, found: &mut Found) -> ApiResult<()> {
    let (before, since_ms, until_ms) = (request.before, request.since_ms, request.until_ms);
    let range = Conditions { before, since_ms, until_ms, ..Conditions::default() };
    let limit = request.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX);
    let mut matcher = Matcher::default();
    matcher.insert((), pattern);
    let mut pages = Pages::new(admin.store.clone(), range).await?;
    let mut explained = 0;
    while let Some(page) = pages.next().await? {
        for read in page {
            let Ok(stored) = &read else { continue };
            let view = (&*stored.event).into();
            // If the data of the event cannot be parsed, `matches` returns an error, and the event does not match.
            if matcher.matches(&view).is_ok_and(|matched| !matched.is_empty()) {
                found.matched += 1;
                if found.rows.len() < limit {
                    found.rows.push(Row::new(&read, None));
                }
            } else if explained < EXPLAINED_MAX && found.near.len() < NEAR_MAX {
                explained += 1;
                found.near.extend(explain(pattern, &view).ok().and_then(|explanation| near(&read, explanation)));
            }
        }
    }
    (found.scanned, found.next) = (pages.searched, pages.rest());
    Ok(())
}

/// Returns the event as a near miss if the pattern has several fields and at most one of them does not match.
fn near(read: &ReadEvent, pattern: Explanation) -> Option<Near> {
    let failing = pattern.fields.iter().filter(|field| !field.matched).count();
    (pattern.fields.len() > 1 && failing <= 1).then(|| Near { row: Row::new(read, None), pattern })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_checked_with_the_messages_and_positions_of_a_manifest() {
        for text in [
            "type: [order.placed]",
            "{\"type\": [\"order.placed\"]}",
            "type: [order.placed]\ndata:\n  total: [{ numeric: ['>', 0] }]\n",
        ] {
            let (pattern, mistakes) = check(text);
            assert!(pattern.is_some() && mistakes.is_empty(), "{text}: {mistakes:?}");
        }
        let (pattern, mistakes) = check("type: [order.placed]\ndata: { total: [{ numerc: ['>', 0] }] }");
        assert!(pattern.is_none());
        assert_eq!((mistakes[0].line, mistakes[0].severity), (2, Severity::Error), "{mistakes:?}");
        assert!(mistakes[0].message.contains("numerc"), "{mistakes:?}");
        for text in
            ["", "type", "type: [", "\t", "- a", "---\n---\n", "]\nfunctions: {}", "&a [*a]", "type: order.placed"]
        {
            let (pattern, mistakes) = check(text);
            assert!(pattern.is_none() && !mistakes.is_empty(), "{text}");
            assert!(mistakes.iter().all(|mistake| mistake.line >= 1 && mistake.column >= 1), "{text}");
        }
    }
}

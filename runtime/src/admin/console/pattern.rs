//! Checks a pattern with the messages of the loader of manifests, and finds the stored events that match it or nearly
//! match it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::events::{LIMIT_MAX, ROWS_BYTES_MAX};
use super::row::Row;
use crate::admin::access::Exchange;
use crate::admin::permits::Scan;
use crate::admin::request::parse_large_body;
use crate::admin::search::{Conditions, Pages};
use crate::admin::{Admin, ApiResult};
use evoke_http::problem::Problem;
use evoke_manifest::{Diagnostic, Diagnostics, Severity, pattern_str};
use evoke_model::clock::UnixMs;
use evoke_model::{ReadEvent, Seq};
use evoke_pattern::{Explanation, Matcher, Pattern, explain};

/// Maximum size of a pattern in bytes. A pattern in a manifest has the same limit.
const PATTERN_BYTES_MAX: usize = 64 * 1024;
const LIMIT_DEFAULT: usize = 50;
/// Maximum number of near misses of a response.
const NEAR_MAX: usize = 20;
/// Maximum number of events that are compared field by field, for near misses.
const EXPLAINED_MAX: usize = 1_000;
/// The time for which a search compares events field by field. A comparison with a long pattern takes milliseconds, and
/// other viewers wait for the search.
const EXPLAINING_MAX: Duration = Duration::from_millis(100);
/// Maximum total size of the near misses of a response, as JSON, in bytes. Near misses beyond this size are left out.
/// A near miss has the result for each field of the pattern, so a long pattern makes each near miss large.
const NEAR_BYTES_MAX: usize = 256 * 1024;

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
    let expected = r#"send {"pattern": "type: [order.placed]"}"#;
    let request: Request = parse_large_body(&exchange, &headers, body, expected).await?;
    let bytes = request.pattern.len();
    if bytes > PATTERN_BYTES_MAX {
        let detail = format!("the pattern has {bytes} bytes; at most {PATTERN_BYTES_MAX} are allowed");
        return Err(Problem::malformed(detail).into());
    }
    let (text, scan) = (request.pattern, exchange.scan().await);
    // Long patterns take long to check and to match, so both run on a thread for blocking work.
    let (pattern, diagnostics) = scan.run(move || check(&text)).await?;
    let mut found = Found { diagnostics, ..Found::default() };
    if let Some(pattern) = pattern {
        let limit = request.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX);
        let Request { before, since_ms, until_ms, .. } = request;
        let range = Conditions { before, since_ms, until_ms, ..Conditions::default() };
        found = search(&admin, range, Finder::new(pattern, limit, found), scan).await?;
    }
    Ok(Json(found))
}

/// Checks a pattern. Returns `None` if it has an error. Parses the text as a pattern only, and not as a part of a
/// manifest: a manifest can name sources, and the checks of sources open files, which a viewer must not cause.
fn check(text: &str) -> (Option<Pattern>, Vec<Mistake>) {
    let mistakes = |diagnostics: &Diagnostics| diagnostics.iter().map(mistake).collect();
    match pattern_str(text, Path::new("pattern.yaml")) {
        Err(errors) => (None, mistakes(&errors)),
        Ok((pattern, warnings)) => (Some(pattern), mistakes(&warnings)),
    }
}

fn mistake(diagnostic: &Diagnostic) -> Mistake {
    let (line, column) = diagnostic.position().map_or((1, 1), |at| (at.line, at.column));
    let Diagnostic { severity, message, help, .. } = diagnostic;
    Mistake { severity: *severity, line, column, message: message.clone(), help: help.clone() }
}

/// Searches the range within the time limit of [`Pages`].
async fn search(admin: &Admin, range: Conditions, mut finder: Finder, scan: Scan) -> ApiResult<Found> {
    let mut pages = Pages::new(admin.store.clone(), range, scan.clone()).await?;
    while let Some(page) = pages.next().await? {
        let add = move || {
            page.iter().for_each(|read| finder.add(read));
            finder
        };
        finder = scan.run(add).await?;
    }
    Ok(Found { scanned: pages.searched, next: pages.rest(), ..finder.found })
}

/// Collects the events that match or nearly match.
struct Finder {
    pattern: Pattern,
    matcher: Matcher<()>,
    /// Maximum number of rows.
    limit: usize,
    found: Found,
    /// Number of bytes of the texts of the rows.
    row_bytes: usize,
    /// Number of events that were compared field by field, and the time that this took.
    explained: usize,
    explaining: Duration,
    near_bytes: usize,
}

impl Finder {
    fn new(pattern: Pattern, limit: usize, found: Found) -> Self {
        let (matcher, explaining) = (pattern.matcher(), Duration::ZERO);
        Self { matcher, pattern, limit, found, row_bytes: 0, explained: 0, explaining, near_bytes: 0 }
    }

    fn add(&mut self, read: &ReadEvent) {
        let Ok(stored) = read else { return };
        let (found, view) = (&mut self.found, (&*stored.event).into());
        // If the data of the event cannot be parsed, `matches_any` returns an error, and the event does not match.
        if self.matcher.matches_any(&view).unwrap_or_default() {
            found.matched += 1;
            if found.rows.len() < self.limit && self.row_bytes < ROWS_BYTES_MAX {
                let row = Row::new(read, None);
                self.row_bytes += row.size();
                found.rows.push(row);
            }
        } else if self.explained < EXPLAINED_MAX
            && self.explaining < EXPLAINING_MAX
            && found.near.len() < NEAR_MAX
            && self.near_bytes < NEAR_BYTES_MAX
        {
            let started = Instant::now();
            self.explained += 1;
            if let Some(near) = explain(&self.pattern, &view).ok().and_then(|pattern| near(read, pattern)) {
                // Never fails: strings and numbers always serialise. A near miss that is left out counts, too: those
                // that follow are as large.
                self.near_bytes += serde_json::to_string(&near).unwrap_or_default().len();
                if self.near_bytes <= NEAR_BYTES_MAX {
                    found.near.push(near);
                }
            }
            self.explaining += started.elapsed();
        }
    }
}

/// Returns the event as a near miss if the pattern has several fields and at most one of them does not match.
fn near(read: &ReadEvent, pattern: Explanation) -> Option<Near> {
    let failing = pattern.fields.iter().filter(|field| !field.matched).count();
    (pattern.fields.len() > 1 && failing <= 1).then(|| Near { row: Row::new(read, None), pattern })
}

#[cfg(test)]
mod tests {
    use super::*;
    use evoke_model::event::Event;
    use evoke_model::{Lineage, StoredEvent};

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

    #[test]
    fn a_pattern_is_never_read_as_another_part_of_a_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        // YAML also breaks lines at a carriage return. Earlier versions of YAML also break them at the others.
        for line_break in ["\n", "\r", "\r\n", "\u{85}", "\u{2028}", "\u{2029}"] {
            for name in ["file", "fil?", "missing"] {
                let path = folder.path().join(name);
                let source = format!("{{ monitor: {{ every: 5s, file: {{ path: {path:?} }} }} }}");
                let (pattern, mistakes) = check(&format!("type: [a]{line_break}sources:{line_break}  a: {source}"));
                let text = format!("{mistakes:?}");
                assert!(pattern.is_none() && !mistakes.is_empty(), "{line_break:?}");
                assert!(!["monitor", "no such file", "matches"].iter().any(|word| text.contains(word)), "{text}");
            }
        }
    }

    #[test]
    fn near_misses_of_a_long_pattern_are_bounded_in_bytes() {
        let values: Vec<_> = (0..4_000).map(|n| format!("value-{n}")).collect();
        let (pattern, _) = check(&format!("type: [order.placed]\nsubject: [{}]", values.join(", ")));
        let mut finder = Finder::new(pattern.unwrap(), 10, Found::default());
        let event = Event { id: "1".into(), source: "/t".into(), type_: "order.placed".into(), ..Event::default() };
        let stored = StoredEvent { seq: Seq(1), accepted_ms: 0, event: event.into(), lineage: Lineage::default() };
        (0..NEAR_MAX).for_each(|_| finder.add(&Ok(stored.clone())));
        let near = finder.found.near.len();
        assert!((1..NEAR_MAX).contains(&near), "{near} near misses");
        assert!(serde_json::to_string(&finder.found).unwrap().len() < NEAR_BYTES_MAX + 1_000);
        // The search then explains no further events.
        let explained = finder.explained;
        (0..NEAR_MAX).for_each(|_| finder.add(&Ok(stored.clone())));
        assert_eq!(finder.explained, explained);
    }

    #[test]
    fn near_misses_end_when_they_take_long() {
        let fields: Vec<_> = (0..900).map(|n| format!("f{n}: [{{ exists: false }}]")).collect();
        let (pattern, mistakes) = check(&format!("type: [other]\ndata: {{ {} }}", fields.join(", ")));
        let mut finder = Finder::new(pattern.unwrap_or_else(|| panic!("{mistakes:?}")), 10, Found::default());
        let event = Event { id: "1".into(), source: "/t".into(), type_: "order.placed".into(), ..Event::default() };
        let stored = StoredEvent { seq: Seq(1), accepted_ms: 0, event: event.into(), lineage: Lineage::default() };
        finder.add(&Ok(stored.clone()));
        assert!(finder.explained == 1 && finder.explaining > Duration::ZERO);
        finder.explaining = EXPLAINING_MAX;
        finder.add(&Ok(stored));
        assert_eq!(finder.explained, 1);
    }
}

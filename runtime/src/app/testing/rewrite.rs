//! Writes new expectations into the text of a test file. All other text stays as it is.

use std::ops::Range;

use anyhow::{Context as _, bail};

use super::expectation::Parts;
use crate::yaml;
use evoke_manifest::TestFile;
use evoke_manifest::test_file::Test;

/// The changed text, and the file that results from parsing this text.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) text: String,
    pub(super) file: TestFile,
}

/// Returns the file with a new expectation for each of these tests.
///
/// # Errors
/// A test is written in a form that cannot be changed, such as an alias, or the changed text cannot be parsed.
pub(super) fn with_expectations(file: &TestFile, new: &[(&Test, Parts)]) -> anyhow::Result<Written> {
    let mut text = file.source.text.clone();
    let mut edits = Vec::new();
    for (test, parts) in new {
        let edit = edit(&file.source.text, test, parts).with_context(|| {
            format!(
                "the test `{}` is written in a form that cannot be changed; write the test in full, without aliases",
                test.name.value
            )
        })?;
        edits.push(edit);
    }
    edits.sort_by_key(|(range, _)| range.start);
    for (range, with) in edits.into_iter().rev() {
        if text.get(range.clone()).is_none() {
            bail!("a test is written in a form that cannot be changed");
        }
        text.replace_range(range, &with);
    }
    let written = TestFile::parse(&text, &file.source.path).map_err(|errors| {
        anyhow::anyhow!("the tests are written in a form that cannot be changed:\n{}", errors.plain())
    })?;
    let has_expectation = |(test, _): &(&Test, Parts)| {
        let mut named = written.tests.iter().filter(|written| written.name.value == test.name.value);
        named.any(|written| written.expect_spans.is_some())
    };
    if written.tests.len() != file.tests.len() || !new.iter().all(has_expectation) {
        bail!("the tests are written in a form that cannot be changed");
    }
    Ok(Written { text, file: written })
}

/// Returns the range of the text to replace, and the new text. Returns `None` if the test's name is not followed by
/// the test itself, but for example by an alias.
fn edit(text: &str, test: &Test, parts: &Parts) -> Option<(Range<usize>, String)> {
    let name = test.name.span;
    if test.span == name {
        return edit_block(text, test, parts);
    }
    let between = text.get(name.end..test.span.start)?;
    if between.trim() != ":" || !text.get(test.span.start..)?.starts_with('{') {
        return None;
    }
    let entries: Vec<String> = parts.iter().map(|(key, value)| format!("{key}: {}", yaml::flow(value))).collect();
    let expect = format!("expect: {{ {} }}", entries.join(", "));
    match test.expect_spans {
        Some((key, value)) => (value.end <= test.span.end).then_some((key.start..value.end, expect)),
        None => {
            let end = test.span.end.checked_sub(1)?;
            let inside = text.get(test.span.start + 1..end)?.trim_end();
            let separator = if inside.is_empty() || inside.ends_with(',') { " " } else { ", " };
            Some((test.span.start + 1 + inside.len()..end, format!("{separator}{expect} ")))
        }
    }
}

/// Does the work of [`edit`] for a test in block style.
fn edit_block(text: &str, test: &Test, parts: &Parts) -> Option<(Range<usize>, String)> {
    let expect = |indent: usize| {
        let lines = yaml::block(parts.iter().map(|(key, value)| (*key, value)), indent + 2);
        format!("expect:\n{}", lines.join("\n"))
    };
    match test.expect_spans {
        Some((key, value)) => {
            let end = match text.get(value.start..)?.starts_with('{') {
                true => value.end,
                false => block_end(text, key.start),
            };
            (key.start > test.name.span.end && end > key.start)
                .then(|| (key.start..end, expect(column(text, key.start))))
        }
        None => {
            let end = block_end(text, test.name.span.start);
            let first = text.get(test.name.span.end..end)?.lines().skip(1).find(|line| is_content(line))?;
            let indent = indentation(first);
            Some((end..end, format!("\n{}{}", " ".repeat(indent), expect(indent))))
        }
    }
}

/// Returns the end of the last line that belongs to the key at `start`. Lines with more indentation than the key belong
/// to it.
fn block_end(text: &str, start: usize) -> usize {
    let column = column(text, start);
    let rest = text.get(start..).unwrap_or_default();
    let mut end = start;
    let mut at = start;
    for (index, line) in rest.split_inclusive('\n').enumerate() {
        let content = line.trim_end();
        if index > 0 && is_content(line) && indentation(line) <= column {
            break;
        }
        if index == 0 || (!content.is_empty() && indentation(line) > column) {
            end = at + content.len();
        }
        at += line.len();
    }
    end
}

/// Returns the number of bytes between the start of a line and `at`.
fn column(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or_default();
    before.len() - before.rfind('\n').map_or(0, |newline| newline + 1)
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Returns true if a line is neither empty nor a comment.
fn is_content(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn written(text: &str) -> Result<String, String> {
        let file = TestFile::parse(text, Path::new("a.test.yaml")).unwrap();
        let parts = || vec![("outcome", json!("reject")), ("published", json!([{ "type": "b" }]))];
        let new: Vec<_> = file.tests.iter().map(|test| (test, parts())).collect();
        let written = with_expectations(&file, &new).map_err(|error| format!("{error:#}"))?;
        for test in &written.file.tests {
            assert_eq!(test.expect.outcome.as_deref(), Some("reject"), "{}", written.text);
            assert_eq!(test.expect.published.as_ref().unwrap()[0]["type"], "b", "{}", written.text);
        }
        Ok(written.text)
    }

    #[test]
    fn an_expectation_is_replaced_or_added_and_nothing_else_changes() {
        let text = "# tests
tests:
  # the first
  first:   # comment
    event: { type: a }
    expect:
      outcome: done   # lost
      published:
      - type: a

      # lost, too

  # the second
  second:
      event:
        type: a
  third: { event: { type: a } }
  fourth: { expect: { outcome: done }, event: { type: a }, }
  fifth: {}
  sixth:
    expect: { outcome: done } # kept
    event: { type: a }
";
        let expected = "# tests
tests:
  # the first
  first:   # comment
    event: { type: a }
    expect:
      outcome: reject
      published: [{ type: b }]

  # the second
  second:
      event:
        type: a
      expect:
        outcome: reject
        published: [{ type: b }]
  third: { event: { type: a }, expect: { outcome: reject, published: [{ type: b }] } }
  fourth: { expect: { outcome: reject, published: [{ type: b }] }, event: { type: a }, }
  fifth: { expect: { outcome: reject, published: [{ type: b }] } }
  sixth:
    expect:
      outcome: reject
      published: [{ type: b }] # kept
    event: { type: a }
";
        assert_eq!(written(text).unwrap(), expected);
        let expected = expected.replace(" # kept", "");
        assert_eq!(written(&expected).unwrap(), expected);
    }

    #[test]
    fn the_last_line_may_lack_its_line_break_and_lines_may_end_with_a_carriage_return() {
        assert_eq!(
            written("tests:\n  a:\n    attempt: 1").unwrap(),
            "tests:\n  a:\n    attempt: 1\n    expect:\n      outcome: reject\n      published: [{ type: b }]"
        );
        let text = written("tests:\r\n  a:\r\n    attempt: 1\r\n  b:\r\n    attempt: 2\r\n").unwrap();
        assert!(text.starts_with("tests:\r\n  a:\r\n    attempt: 1\n    expect:\n"), "{text:?}");
        written("tests: { a: { attempt: 1, # one\n }, b: {} }\n").unwrap_err();
    }

    #[test]
    fn an_alias_is_not_changed() {
        let error = written("tests:\n  a: &a { attempt: 1 }\n  b: *a\n").unwrap_err();
        assert!(error.contains("cannot be changed"), "{error}");
    }
}

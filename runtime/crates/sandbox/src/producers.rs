//! Reads the tools that made a component from the `producers` custom sections of the component and its modules (tool
//! conventions, `ProducersSection.md`). The sections are untrusted input, so the result is bounded.

use std::collections::{BTreeMap, BTreeSet};

use super::binary::{leb128, parts, sections};

/// Limit on the number of entries, over all sections; a component of the usual toolchains has about ten.
const PRODUCERS_MAX: usize = 64;
/// Length limit of a name or version, in bytes; longer texts are cut.
const TEXT_BYTES_MAX: usize = 128;

/// Returns the names and versions of the tools, by field (`language`, `processed-by`, `sdk`). Entries such as `Rust`
/// and `C11` have no version.
pub(super) fn producers(component: &[u8]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let all = parts(component).into_iter().flat_map(|part| sections(part).filter(|section| section.id == 0));
    for (field, producer) in all.filter_map(|section| entries_of(section.body)).flatten().take(PRODUCERS_MAX) {
        found.entry(field).or_default().insert(producer);
    }
    found
}

/// Returns the entries of the custom section `producers`, up to the first malformed one; `None` for another custom
/// section.
fn entries_of(body: &[u8]) -> Option<Vec<(String, String)>> {
    let (name, body) = text(body)?;
    if name != "producers" {
        return None;
    }
    let mut entries = Vec::new();
    let _ = fields(body, &mut entries);
    Some(entries)
}

fn fields(body: &[u8], entries: &mut Vec<(String, String)>) -> Option<()> {
    let (count, mut rest) = leb128(body)?;
    for _ in 0..count {
        let (field, after) = text(rest)?;
        let (count, after) = leb128(after)?;
        rest = after;
        for _ in 0..count {
            let (name, after) = text(rest)?;
            let (version, after) = text(after)?;
            rest = after;
            if entries.len() == PRODUCERS_MAX {
                return None;
            }
            let producer = if version.is_empty() { name.to_owned() } else { format!("{name} {version}") };
            entries.push((truncate(field), truncate(&producer)));
        }
    }
    Some(())
}

fn truncate(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    text.get(..end).unwrap_or_default().to_owned()
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = leb128(bytes)?;
    let (text, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<u8> {
        [&[text.len() as u8], text.as_bytes()].concat()
    }

    fn section(body: &[u8]) -> Vec<u8> {
        let body = [&named("producers")[..], body].concat();
        [&b"\0asm\x01\0\0\0\0"[..], &[body.len() as u8], &body].concat()
    }

    #[test]
    fn producers_are_read_by_field() {
        let entry = |name: &str, version: &str| [named(name), named(version)].concat();
        let body = [
            &[2][..],
            &named("language"),
            &[2],
            &entry("Rust", ""),
            &entry("C11", ""),
            &named("processed-by"),
            &[1],
            &entry("rustc", "1.95.0"),
        ]
        .concat();
        let found = producers(&section(&body));
        assert_eq!(found["language"], BTreeSet::from(["C11".to_owned(), "Rust".to_owned()]));
        assert_eq!(found["processed-by"], BTreeSet::from(["rustc 1.95.0".to_owned()]));
        // Truncated input is read up to its end.
        for end in 0..body.len() {
            producers(&section(&body[..end]));
        }
        assert!(producers(&section(b"\xff\xff\xff\xff\x0f")).is_empty());
    }
}

//! What made a component, as its `producers` sections say: custom sections of its modules and of itself (tool
//! conventions, `ProducersSection.md`). Anybody may write anything there: what is kept is bounded.

use std::collections::{BTreeMap, BTreeSet};

use super::census::{leb128, parts, sections};

/// Names and versions that are kept, all together; a component of the usual toolchains has some ten.
const PRODUCERS_MAX: usize = 64;
/// The longest name or version that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 128;

/// By field (`language`, `processed-by`, `sdk`), the names with their versions: `Rust` and `C11` without one.
pub(super) fn producers(component: &[u8]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let all = parts(component).into_iter().flat_map(|part| sections(part).filter(|section| section.id == 0));
    for (field, producer) in all.filter_map(|section| list(section.body)).flatten().take(PRODUCERS_MAX) {
        found.entry(field).or_default().insert(producer);
    }
    found
}

/// The entries of a custom section, if it is this one; up to the first that is malformed.
fn list(body: &[u8]) -> Option<Vec<(String, String)>> {
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
            entries.push((kept(field), kept(&producer)));
        }
    }
    Some(())
}

fn kept(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    text.get(..end).unwrap_or_default().to_owned()
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = leb128(bytes)?;
    let (text, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
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
        // What is torn is read as far as it goes.
        for end in 0..body.len() {
            producers(&section(&body[..end]));
        }
        assert!(producers(&section(b"\xff\xff\xff\xff\x0f")).is_empty());
    }
}

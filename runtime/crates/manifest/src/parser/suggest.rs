//! Finds a name in a fixed set, or the valid name that is most similar to a wrong one.

use crate::diagnostics::{ValueError, excerpt};

/// The maximum number of candidates that are compared, to limit the time for one suggestion. Further candidates are
/// ignored.
const CANDIDATES_MAX: usize = 1000;

/// Returns the candidate with the smallest edit distance to `name`. Returns `None` if more than a third of the
/// characters differ.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 64 {
        return None; // no key or name is that long, and the time of a comparison grows with the square of the length
    }
    let normalized = normalize(name);
    let allowed = (normalized.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .take(CANDIDATES_MAX)
        .map(|candidate| (distance(&normalized, &normalize(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}

/// Returns the value of the choice that has the name `text`.
///
/// # Errors
/// `text` is not the name of a choice. The message ends with `what`, as in "`text` is not a mode". The help suggests
/// the most similar name, or else lists all names.
pub fn one_of<T: Copy, const N: usize>(text: &str, what: &str, choices: [(&str, T); N]) -> Result<T, ValueError> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*value);
    }
    let names = choices.map(|(name, _)| name);
    let help = match nearest(text, names) {
        Some(similar) => format!("write `{similar}`"),
        None => format!("write {}", join_with_or(names)),
    };
    Err(ValueError::new(format!("`{}` is not {what}", excerpt(text)), help))
}

/// Joins names as in `` `a`, `b` or `c` ``.
pub fn join_with_or<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    join(names, "or")
}

/// Joins names as in `` `a`, `b` and `c` ``.
pub fn join_with_and<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    join(names, "and")
}

fn join<'a>(names: impl IntoIterator<Item = &'a str>, word: &str) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} {word} {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// Removes the differences between spellings such as `maxBackoff`, `max-backoff` and `max_backoff`.
fn normalize(name: &str) -> String {
    name.chars().filter(|char| !matches!(char, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// Edit distance: insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX - 1);
            let mut best =
                (at(&previous, j) + usize::from(from != to)).min(at(&previous, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut previous, row);
    }
    previous.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_suggested_and_unrelated_ones_are_not() {
        let keys = ["component", "concurrency", "timeout", "max_backoff", "on", "order_by"];
        for (misspelt, expected) in [
            ("componet", "component"),
            ("concurency", "concurrency"),
            ("tiemout", "timeout"),
            ("maxBackoff", "max_backoff"),
            ("order-by", "order_by"),
            ("orderby", "order_by"),
        ] {
            assert_eq!(nearest(misspelt, keys), Some(expected));
        }
        for unrelated in ["image", "x", "replicas", ""] {
            assert_eq!(nearest(unrelated, keys), None, "{unrelated}");
        }
        assert_eq!(join_with_or(["a", "b", "c"]), "`a`, `b` or `c`");
    }
}

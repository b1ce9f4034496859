//! Finds what was meant by a name that is not there.

/// More are not compared: the help is not worth the time.
const CANDIDATES_MAX: usize = 1000;

/// The candidate that differs least from a name, if it differs little enough to have been meant.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 64 {
        return None; // no key or name is, and the comparison is quadratic
    }
    let plain = folded(name);
    let allowed = (plain.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .take(CANDIDATES_MAX)
        .map(|candidate| (distance(&plain, &folded(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}

/// ` or `-joined list of choices in backticks.
pub(super) fn choices<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// `maxBackoff`, `max-backoff` and `max_backoff` are the same name in different dress.
fn folded(name: &str) -> String {
    name.chars().filter(|char| !matches!(char, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
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
    fn a_slip_of_the_keyboard_is_understood_and_a_stranger_is_not() {
        let keys = ["component", "concurrency", "timeout", "max_backoff", "on", "order_by"];
        for (written, meant) in [
            ("componet", "component"),
            ("concurency", "concurrency"),
            ("tiemout", "timeout"),
            ("maxBackoff", "max_backoff"),
            ("order-by", "order_by"),
            ("orderby", "order_by"),
        ] {
            assert_eq!(nearest(written, keys), Some(meant));
        }
        for stranger in ["image", "x", "replicas", ""] {
            assert_eq!(nearest(stranger, keys), None, "{stranger}");
        }
        assert_eq!(choices(["a", "b", "c"]), "`a`, `b` or `c`");
    }
}

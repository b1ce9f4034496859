//! Tests of string values: prefix, suffix, equality ignoring case, wildcard.

use memchr::memmem;

/// A test of a string value.
#[derive(Clone, Debug)]
pub(super) enum TextTest {
    Prefix(Box<str>),
    Suffix(Box<str>),
    /// Prefix ignoring case. The text of this variant and of the next two is case-folded.
    FoldedPrefix(Box<str>),
    /// Suffix ignoring case.
    FoldedSuffix(Box<str>),
    /// Equality ignoring case.
    Folded(Box<str>),
    Wildcard(Wildcard),
}

impl TextTest {
    pub(super) fn matches(&self, value: &str) -> bool {
        match self {
            Self::Prefix(prefix) => starts_with(value.as_bytes(), prefix.as_bytes()),
            Self::Suffix(suffix) => ends_with(value.as_bytes(), suffix.as_bytes()),
            Self::FoldedPrefix(prefix) => {
                let mut chars = value.chars().map(fold_char);
                prefix.chars().all(|wanted| chars.next() == Some(wanted))
            }
            Self::FoldedSuffix(suffix) => {
                let mut chars = value.chars().rev().map(fold_char);
                suffix.chars().rev().all(|wanted| chars.next() == Some(wanted))
            }
            Self::Folded(whole) => value.chars().map(fold_char).eq(whole.chars()),
            Self::Wildcard(wildcard) => wildcard.matches(value),
        }
    }
}

impl TextTest {
    /// Returns true if every string passes the test.
    pub(super) fn matches_every_string(&self) -> bool {
        match self {
            Self::Prefix(text) | Self::Suffix(text) | Self::FoldedPrefix(text) | Self::FoldedSuffix(text) => {
                text.is_empty()
            }
            Self::Folded(_) => false,
            Self::Wildcard(wildcard) => wildcard.matches_everything(),
        }
    }
}

/// Folds the case of a character: converts it to upper case, then to lower case. A conversion that gives more than one
/// character is skipped. So `Σ`, `σ` and `ς` are equal, and `ß` equals `ẞ` but not `ss`. The result does not depend on
/// a locale.
pub(super) fn fold_char(char: char) -> char {
    if char.is_ascii() {
        return char.to_ascii_lowercase();
    }
    let upper = only_char(char.to_uppercase()).unwrap_or(char);
    only_char(upper.to_lowercase()).unwrap_or(upper)
}

/// The only character of an iterator; `None` unless there is exactly one.
fn only_char(mut chars: impl Iterator<Item = char>) -> Option<char> {
    let first = chars.next()?;
    chars.next().is_none().then_some(first)
}

/// Folds the case of a text.
pub(super) fn fold(text: &str) -> Box<str> {
    text.chars().map(fold_char).collect::<String>().into()
}

/// Folds the case of a text into a buffer, which is cleared first; callers reuse the buffer to avoid allocations.
pub(super) fn fold_into(buffer: &mut String, text: &str) {
    buffer.clear();
    buffer.extend(text.chars().map(fold_char));
}

/// A text in which `*` matches any number of characters, including none. `\*` is a literal star and `\\` a literal
/// backslash.
#[derive(Clone, Debug)]
pub(super) struct Wildcard {
    /// The literal texts between the stars. The first is a prefix and the last a suffix; both can be empty. A text
    /// without a star is one piece.
    pieces: Box<[Box<str>]>,
    /// The sum of the lengths of the pieces; a shorter text does not match.
    bytes_min: usize,
}

/// The reason why a text is not a valid wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WildcardError {
    /// Two `*` in a row.
    ConsecutiveStars,
    /// A backslash before a character other than `*` and `\`, or at the end.
    BadEscape,
}

impl Wildcard {
    pub(super) fn parse(text: &str) -> Result<Self, WildcardError> {
        let mut pieces = Vec::new();
        let mut piece = String::new();
        let mut after_star = false;
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            let star = char == '*';
            match char {
                '*' if after_star => return Err(WildcardError::ConsecutiveStars),
                '*' => pieces.push(std::mem::take(&mut piece).into_boxed_str()),
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '\\')) => piece.push(escaped),
                    _ => return Err(WildcardError::BadEscape),
                },
                _ => piece.push(char),
            }
            after_star = star;
        }
        pieces.push(piece.into_boxed_str());
        let bytes_min = pieces.iter().map(|piece| piece.len()).sum();
        Ok(Self { pieces: pieces.into(), bytes_min })
    }

    /// The literal texts between the stars; one piece for a wildcard without a star.
    pub(super) fn pieces(&self) -> &[Box<str>] {
        &self.pieces
    }

    /// The total length of the literals.
    pub(super) fn literal_bytes(&self) -> usize {
        self.bytes_min
    }

    /// Returns true if the wildcard is `*` alone, which matches every string.
    fn matches_everything(&self) -> bool {
        self.pieces.len() > 1 && self.pieces.iter().all(|piece| piece.is_empty())
    }

    /// The literal before the first star, the literal after the last star, and the longest (in bytes) of the literals
    /// between two stars. A wildcard without a star has only the first of the three.
    pub(super) fn literals(&self) -> (&str, &str, &str) {
        match &*self.pieces {
            [] => ("", "", ""),
            [only] => (only, "", ""),
            [head, middle @ .., tail] => {
                let longest = middle.iter().max_by_key(|piece| piece.len()).map_or("", |piece| piece);
                (head, tail, longest)
            }
        }
    }

    /// Takes the first occurrence of each piece after the previous piece. If the remaining pieces match after a later
    /// occurrence, they also match after the first one. So no other occurrence is tried (no backtracking), and the time
    /// is linear in the length of value and pattern.
    pub(super) fn matches(&self, value: &str) -> bool {
        let (head, middle, tail) = match &*self.pieces {
            [] => return value.is_empty(),
            [only] => return value == &**only,
            [head, middle @ .., tail] => (head, middle, tail),
        };
        if value.len() < self.bytes_min {
            return false;
        }
        let value = value.as_bytes();
        if !starts_with(value, head.as_bytes()) || !ends_with(value, tail.as_bytes()) {
            return false;
        }
        // The value has at least `bytes_min` bytes, so head and tail do not overlap.
        let mut rest = value.get(head.len()..value.len() - tail.len()).unwrap_or_default();
        for piece in middle {
            let Some(found) = memmem::find(rest, piece.as_bytes()) else { return false };
            rest = rest.get(found + piece.len()..).unwrap_or_default();
        }
        true
    }
}

/// Compares byte strings. If one is empty, does not access memory: on some processors, comparing zero bytes at the
/// address of an empty allocation is very slow.
pub(super) fn compare_bytes(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    if a.is_empty() || b.is_empty() { a.len().cmp(&b.len()) } else { a.cmp(b) }
}

fn starts_with(text: &[u8], start: &[u8]) -> bool {
    start.is_empty() || text.starts_with(start)
}

fn ends_with(text: &[u8], end: &[u8]) -> bool {
    end.is_empty() || text.ends_with(end)
}

/// The Levenshtein distance: the number of single-character edits between two words. Used for "did you mean".
pub(super) fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (line, from) in a.chars().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(&b) {
            let above = *cell;
            left = (diagonal + usize::from(from != *to)).min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

//! Tests of a string: prefix, suffix, wildcard, and each ignoring case.

/// One way to look at a string value.
#[derive(Clone, Debug)]
pub(super) enum TextTest {
    Prefix(Box<str>),
    Suffix(Box<str>),
    /// The operands of the next three are folded already.
    FoldedPrefix(Box<str>),
    FoldedSuffix(Box<str>),
    Folded(Box<str>),
    Wildcard(Wildcard),
}

impl TextTest {
    pub(super) fn matches(&self, value: &str) -> bool {
        match self {
            Self::Prefix(prefix) => value.as_bytes().starts_with(prefix.as_bytes()),
            Self::Suffix(suffix) => value.as_bytes().ends_with(suffix.as_bytes()),
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

/// Case is ignored character by character: to upper case, then to lower case, each only where that is one character.
/// So `Σ`, `σ` and `ς` are the same, `ß` is only itself, and no locale plays a part.
pub(super) fn fold_char(char: char) -> char {
    if char.is_ascii() {
        return char.to_ascii_lowercase();
    }
    let upper = single(char.to_uppercase()).unwrap_or(char);
    single(upper.to_lowercase()).unwrap_or(upper)
}

fn single(mut chars: impl Iterator<Item = char>) -> Option<char> {
    let first = chars.next()?;
    chars.next().is_none().then_some(first)
}

/// A text with its case folded.
pub(super) fn fold(text: &str) -> Box<str> {
    text.chars().map(fold_char).collect::<String>().into()
}

/// Folds a text into a buffer that is kept between events.
pub(super) fn fold_into(buffer: &mut String, text: &str) {
    buffer.clear();
    buffer.extend(text.chars().map(fold_char));
}

/// A text with `*` for any run of characters, also of none. `\*` is a star and `\\` a backslash.
#[derive(Clone, Debug)]
pub(super) struct Wildcard {
    /// The literal pieces between the stars: the first is a prefix, the last a suffix; both may be empty.
    pieces: Box<[Box<str>]>,
}

/// Why a text is no wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WildcardError {
    ConsecutiveStars,
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
        Ok(Self { pieces: pieces.into() })
    }

    /// Whether nothing but `*` stands in it.
    pub(super) fn is_anything(&self) -> bool {
        self.pieces.len() > 1 && self.pieces.iter().all(|piece| piece.is_empty())
    }

    /// The literal start, the literal end and the longest literal in between. A text without a star has only a start.
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

    /// Takes each piece at the first place where it is found behind the last one. A later place could never do better,
    /// so nothing is tried twice: time is linear in value and pattern.
    pub(super) fn matches(&self, value: &str) -> bool {
        let (head, middle, tail) = match &*self.pieces {
            [] => return value.is_empty(),
            [only] => return value == &**only,
            [head, middle @ .., tail] => (head, middle, tail),
        };
        let Some(rest) = value.strip_prefix(&**head) else { return false };
        let Some(mut rest) = rest.strip_suffix(&**tail) else { return false };
        for piece in middle {
            let Some(found) = rest.find(&**piece) else { return false };
            rest = rest.get(found + piece.len()..).unwrap_or_default();
        }
        true
    }
}

/// How many single-character edits lie between two words; for "did you mean".
pub(super) fn distance(a: &str, b: &str) -> usize {
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

//! Tests one text against many wildcards together, in one pass over the text.
//!
//! All wildcards together are one automaton. Each byte of a wildcard's literals is a state, stored as one bit. After
//! each byte of the text, the bit of a state is set if the wildcard up to this state matches the text so far. For every
//! byte of the text, all bits are updated with a few operations for each word of 64 states, whatever the text and the
//! wildcards are.

use super::{bit, set_bit};
use crate::text::Wildcard;

/// Wildcards with at least one literal, each with the bit that it sets in a row.
pub(super) struct Wildcards {
    /// The length of a set of states in words.
    words: usize,
    /// For each byte, its class: the index of its set in `states_of`. Class 0, for bytes in no wildcard, has an empty
    /// set.
    class_of: Box<[u8; 256]>,
    /// The states of each class of bytes.
    states_of: Vec<u64>,
    /// `anywhere` has the first states of the wildcards that can begin anywhere in the text; `first` has the first
    /// states of all wildcards.
    anywhere: Vec<u64>,
    first: Vec<u64>,
    /// The states that a star follows; they stay set.
    stay: Vec<u64>,
    /// For each wildcard its last state and its bit in a row.
    last: Vec<(u32, u32)>,
}

impl Wildcards {
    /// Each wildcard must have at least two pieces, and at least one byte in them.
    pub(super) fn new(wildcards: &[(u32, Wildcard)]) -> Self {
        // The state before each wildcard is unused. Without it, the last state of a wildcard could set the first state
        // of the next one.
        let length = |wildcard: &Wildcard| 1 + wildcard.pieces().iter().map(|piece| piece.len()).sum::<usize>();
        let words = wildcards.iter().map(|(_, wildcard)| length(wildcard)).sum::<usize>().div_ceil(64);
        let mut class_of = Box::new([0; 256]);
        let mut states_of = vec![0; words];
        let empty = || vec![0; words];
        let (mut anywhere, mut first, mut stay, mut last) = (empty(), empty(), empty(), Vec::new());
        let mut state = 0;
        let mut classes = 0;
        for (row_bit, wildcard) in wildcards {
            let begin = state + 1;
            for (piece, at) in wildcard.pieces().iter().zip(0..) {
                // A star precedes every piece except the first.
                if at > 0 && state >= begin {
                    set_bit(&mut stay, state, true);
                }
                for byte in piece.bytes() {
                    state += 1;
                    let Some(class) = class_of.get_mut(usize::from(byte)) else { continue };
                    if *class == 0 {
                        // UTF-8 uses fewer than 255 different bytes, so the number of a class fits into a byte.
                        classes += 1;
                        *class = classes;
                        states_of.resize(states_of.len() + words, 0);
                    }
                    let from = usize::from(*class) * words;
                    set_bit(states_of.get_mut(from..).unwrap_or_default(), state, true);
                }
            }
            set_bit(&mut first, begin, true);
            set_bit(&mut anywhere, begin, wildcard.pieces().first().is_some_and(|head| head.is_empty()));
            last.push((state, *row_bit));
            state += 1;
        }
        Self { words, class_of, states_of, anywhere, first, stay, last }
    }

    /// Sets the bits of the wildcards that match a text. Returns the number of steps.
    pub(super) fn collect(&self, text: &str, row: &mut [u64], states: &mut Vec<u64>) -> u64 {
        if self.words == 0 {
            return 1;
        }
        // The states before and after a byte. Each set has an extra word of zeros in front, from which the first word
        // gets its carry.
        let length = self.words + 1;
        states.clear();
        states.resize(2 * length, 0);
        let (mut before, mut after) = states.split_at_mut(length);
        let mut begin = &self.first;
        for byte in text.bytes() {
            let class = self.class_of.get(usize::from(byte)).map_or(0, |class| usize::from(*class));
            let of_byte = self.states_of.get(class * self.words..(class + 1) * self.words).unwrap_or_default();
            let next = after.iter_mut().skip(1).zip(before.windows(2)).zip(of_byte);
            for (((after, words), of_byte), (begin, stay)) in next.zip(begin.iter().zip(&self.stay)) {
                let [lower, word] = words else { continue };
                *after = ((word << 1 | lower >> 63 | begin) & of_byte) | (word & stay);
            }
            std::mem::swap(&mut before, &mut after);
            begin = &self.anywhere;
        }
        for (state, row_bit) in &self.last {
            if bit(before.get(1..).unwrap_or_default(), *state) {
                set_bit(row, *row_bit, true);
            }
        }
        (text.len() * self.words + self.last.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_wildcards_at_once_give_the_same_results_as_one_by_one() {
        let long = format!("*{}*b*{}", "ab".repeat(50), "a".repeat(63));
        let sources = [
            "*a*", "a*b", "*a*b*", "*ab*ab*", "a*b*a", "*b*a*b", "*ba*b", "*ä*", "b*b*b", "*aa*", "a*a", "*a*a", &long,
        ];
        let wildcards: Vec<(u32, Wildcard)> =
            sources.iter().zip(0..).map(|(source, at)| (at, Wildcard::parse(source).unwrap())).collect();
        let all = Wildcards::new(&wildcards);
        let mut texts: Vec<String> = vec!["ä".to_owned(), "aäb".to_owned(), "ab".repeat(80), "b".repeat(70)];
        texts.push(format!("{}ab{}", "ab".repeat(50), "a".repeat(63)));
        texts.push(format!("{}b{}", "ab".repeat(50), "a".repeat(63)));
        texts.push(format!("{}b{}", "ab".repeat(50), "a".repeat(62)));
        for length in 0..10 {
            texts.extend((0..1 << length).map(|bits: u32| {
                (0..length).map(|at| if bits >> at & 1 == 1 { 'b' } else { 'a' }).collect::<String>()
            }));
        }
        let mut states = Vec::new();
        let mut matched = 0;
        for text in &texts {
            let mut row = [0];
            all.collect(text, &mut row, &mut states);
            for ((at, wildcard), source) in wildcards.iter().zip(sources) {
                assert_eq!(bit(&row, *at), wildcard.matches(text), "{source} on {text}");
                matched += u32::from(bit(&row, *at));
            }
        }
        assert!(matched > 100);
    }
}

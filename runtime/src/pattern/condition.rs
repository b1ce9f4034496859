//! One condition on one value.

use std::ops::Bound;

use super::number::Number;
use super::text::{Cidr, Literal, Wildcard};

/// A scalar of an event, or an exact value of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Number(Number),
    String(&'a str),
}

/// One of the alternatives in a field's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Null,
    Bool(bool),
    Number(Number),
    /// Exact, or `equals-ignore-case`.
    Equals(Literal),
    Prefix(Literal),
    Suffix(Literal),
    Wildcard(Wildcard),
    Range(Box<(Bound<Number>, Bound<Number>)>),
    Cidr(Cidr),
    /// The field has a scalar, `null` included, or an array with one.
    Exists,
    /// The field has none, wherever in the event its path leads.
    Absent,
    /// A scalar that none of these hold for.
    AnythingBut(Box<[Condition]>),
}

impl Condition {
    /// Whether a value that is there meets the condition.
    pub(super) fn holds(&self, value: Scalar<'_>) -> bool {
        match (self, value) {
            (Self::Exists, _) | (Self::Null, Scalar::Null) => true,
            (Self::AnythingBut(these), _) => !these.iter().any(|this| this.holds(value)),
            (Self::Bool(wanted), Scalar::Bool(seen)) => *wanted == seen,
            (Self::Number(wanted), Scalar::Number(seen)) => *wanted == seen,
            (Self::Range(range), Scalar::Number(seen)) => is_in(seen, &range.0, &range.1),
            (Self::Equals(literal), Scalar::String(text)) => literal.equals(text),
            (Self::Prefix(literal), Scalar::String(text)) => literal.is_prefix_of(text),
            (Self::Suffix(literal), Scalar::String(text)) => literal.is_suffix_of(text),
            (Self::Wildcard(wildcard), Scalar::String(text)) => wildcard.matches(text),
            (Self::Cidr(block), Scalar::String(text)) => block.contains(text),
            _ => false,
        }
    }
}

fn is_in(number: Number, low: &Bound<Number>, high: &Bound<Number>) -> bool {
    let above = match low {
        Bound::Unbounded => true,
        Bound::Included(low) => number >= *low,
        Bound::Excluded(low) => number > *low,
    };
    above
        && match high {
            Bound::Unbounded => true,
            Bound::Included(high) => number <= *high,
            Bound::Excluded(high) => number < *high,
        }
}

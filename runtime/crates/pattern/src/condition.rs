//! Compiled conditions on one value.

use std::cmp::Ordering;

use super::cidr::{Address, Cidr};
use super::number::{Number, NumberRef};
use super::text::TextTest;

/// A scalar value of an event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Number(NumberRef<'a>),
    Text(&'a str),
}

/// A scalar value of a pattern, which matches exactly that value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Exact {
    Null,
    Bool(bool),
    Number(Number),
    Text(Box<str>),
}

impl Exact {
    /// Borrows the value as a [`Value`], to compare it with a value of an event.
    pub(super) fn view(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Number(number) => Value::Number(number.view()),
            Self::Text(text) => Value::Text(text),
        }
    }
}

/// A total order over scalars of all types, so that long lists can be sorted and searched.
fn compare(a: Value<'_>, b: Value<'_>) -> Ordering {
    let rank = |value| match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::Text(_) => 3,
    };
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(&b),
        (Value::Number(a), Value::Number(b)) => a.cmp(&b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)),
    }
}

/// Returns true if `sorted` contains `value`.
fn contains(sorted: &[Exact], value: Value<'_>) -> bool {
    sorted.binary_search_by(|exact| compare(exact.view(), value)).is_ok()
}

/// A range of numbers. A side without a bound is unlimited. The flag of a bound is true if the range includes the bound
/// itself.
#[derive(Clone, Debug)]
pub(super) struct Range {
    pub(super) low: Option<(Number, bool)>,
    pub(super) high: Option<(Number, bool)>,
}

impl Range {
    fn contains(&self, number: NumberRef<'_>) -> bool {
        let is_within = |bound: &Option<(Number, bool)>, inside: Ordering| match bound {
            None => true,
            Some((bound, closed)) => {
                let order = number.cmp(&bound.view());
                order == inside || (*closed && order == Ordering::Equal)
            }
        };
        is_within(&self.low, Ordering::Greater) && is_within(&self.high, Ordering::Less)
    }
}

/// One entry of a field's list.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    Exact(Exact),
    Text(TextTest),
    Range(Box<Range>),
    Cidr(Cidr),
    /// `exists: true`: matches every value.
    Present,
    /// `exists: false`: matches when the field has no value. A value never meets this condition.
    Absent,
    /// `anything-but` with values, sorted: matches every other value.
    AnythingBut(Box<[Exact]>),
    /// `anything-but` with tests of strings: matches strings that pass none of the tests, and every value of another
    /// type.
    AnythingButText(Box<[TextTest]>),
}

impl Condition {
    /// The condition `anything-but` with values.
    pub(super) fn anything_but(mut values: Vec<Exact>) -> Self {
        values.sort_by(|a, b| compare(a.view(), b.view()));
        Self::AnythingBut(values.into())
    }

    /// An estimate of the work to test one short value.
    fn cost(&self) -> usize {
        let of_test = |test: &TextTest| match test {
            TextTest::Wildcard(wildcard) => 4 * wildcard.pieces().len(),
            _ => 2,
        };
        match self {
            Self::Text(test) => of_test(test),
            Self::Range(_) | Self::Cidr(_) => 4,
            // The list is searched by binary search, which costs less than a test of each of its values.
            Self::AnythingBut(values) => 4 + values.len() / 8,
            Self::AnythingButText(tests) => tests.iter().map(of_test).sum(),
            Self::Exact(_) | Self::Present | Self::Absent => 1,
        }
    }

    /// Returns true if the value meets the condition.
    pub(super) fn matches(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::Exact(Exact::Text(exact)), Value::Text(text)) => **exact == *text,
            (Self::Exact(exact), _) => compare(exact.view(), value) == Ordering::Equal,
            (Self::Text(test), Value::Text(text)) => test.matches(text),
            (Self::Range(range), Value::Number(number)) => range.contains(number),
            (Self::Cidr(cidr), Value::Text(text)) => Address::parse(text).is_some_and(|it| cidr.contains(it)),
            (Self::Present, _) => true,
            (Self::AnythingBut(values), _) => !contains(values, value),
            (Self::AnythingButText(tests), Value::Text(text)) => !tests.iter().any(|test| test.matches(text)),
            (Self::AnythingButText(_), _) => true,
            (Self::Absent | Self::Text(_) | Self::Range(_) | Self::Cidr(_), _) => false,
        }
    }
}

/// The list of conditions that a pattern sets for one field. The list matches if at least one of its conditions
/// matches.
#[derive(Clone, Debug, Default)]
pub(super) struct ConditionList {
    /// All entries of the list, in the order of the pattern.
    pub(super) conditions: Box<[Condition]>,
    /// True if the list has `exists: false`, so that it also matches if the field has no value.
    pub(super) may_be_absent: bool,
    /// An estimate of the work to test one short value.
    pub(super) cost: usize,
    /// The exact values of a long list, sorted; empty for a short list.
    sorted_exact: Box<[Exact]>,
    /// The entries of a long list that are not exact values; empty for a short list.
    others: Box<[Condition]>,
}

/// Lists with at least this many entries find exact values by binary search; shorter lists test every entry.
const BINARY_SEARCH_MIN: usize = 12;

impl ConditionList {
    pub(super) fn new(conditions: Vec<Condition>) -> Self {
        let may_be_absent = conditions.iter().any(|condition| matches!(condition, Condition::Absent));
        let (mut exact, mut others) = (Vec::new(), Vec::new());
        if conditions.len() >= BINARY_SEARCH_MIN {
            for condition in &conditions {
                match condition {
                    Condition::Exact(value) => exact.push(value.clone()),
                    other => others.push(other.clone()),
                }
            }
            exact.sort_by(|a, b| compare(a.view(), b.view()));
        }
        let cost = conditions.iter().map(Condition::cost).sum();
        Self { conditions: conditions.into(), may_be_absent, cost, sorted_exact: exact.into(), others: others.into() }
    }

    /// Returns one list for each entry of this list.
    pub(super) fn split(&self) -> impl Iterator<Item = Self> {
        self.conditions.iter().map(|condition| Self::new(vec![condition.clone()]))
    }

    /// Returns true if the value meets at least one condition.
    pub(super) fn matches(&self, value: Value<'_>) -> bool {
        if self.sorted_exact.is_empty() {
            return self.conditions.iter().any(|condition| condition.matches(value));
        }
        contains(&self.sorted_exact, value) || self.others.iter().any(|condition| condition.matches(value))
    }
}

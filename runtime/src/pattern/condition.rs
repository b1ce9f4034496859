//! What a pattern asks of one value, compiled.

use std::cmp::Ordering;

use super::cidr::{Address, Cidr};
use super::number::Decimal;
use super::text::TextTest;

/// A scalar of an event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Number(Decimal),
    Text(&'a str),
}

/// A scalar of a pattern.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Exact {
    Null,
    Bool(bool),
    Number(Decimal),
    Text(Box<str>),
}

impl Exact {
    pub(super) fn view(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Number(number) => Value::Number(*number),
            Self::Text(text) => Value::Text(text),
        }
    }
}

/// A total order over scalars of all kinds, so that long lists can be searched.
fn order(a: Value<'_>, b: Value<'_>) -> Ordering {
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

fn contains(sorted: &[Exact], value: Value<'_>) -> bool {
    sorted.binary_search_by(|exact| order(exact.view(), value)).is_ok()
}

/// A range of numbers; a missing bound is open. The flag says whether the bound itself is in.
#[derive(Clone, Debug)]
pub(super) struct Range {
    pub(super) low: Option<(Decimal, bool)>,
    pub(super) high: Option<(Decimal, bool)>,
}

impl Range {
    fn contains(&self, number: Decimal) -> bool {
        let above = self.low.is_none_or(|(low, closed)| number > low || (closed && number == low));
        above && self.high.is_none_or(|(high, closed)| number < high || (closed && number == high))
    }
}

/// One entry of a field's list.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    Exact(Exact),
    Text(TextTest),
    Range(Box<Range>),
    Cidr(Cidr),
    /// `exists: true`: any scalar.
    Present,
    /// `exists: false`: holds where the field has no scalar, so never for a value.
    Absent,
    /// `anything-but` over values, sorted.
    Except(Box<[Exact]>),
    /// `anything-but` over tests of a text; whatever is no text passes.
    ExceptText(Box<[TextTest]>),
}

impl Condition {
    pub(super) fn except(mut values: Vec<Exact>) -> Self {
        values.sort_by(|a, b| order(a.view(), b.view()));
        Self::Except(values.into())
    }

    pub(super) fn matches(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::Exact(Exact::Text(exact)), Value::Text(text)) => **exact == *text,
            (Self::Exact(exact), _) => order(exact.view(), value) == Ordering::Equal,
            (Self::Text(test), Value::Text(text)) => test.matches(text),
            (Self::Range(range), Value::Number(number)) => range.contains(number),
            (Self::Cidr(cidr), Value::Text(text)) => Address::parse(text).is_some_and(|it| cidr.contains(it)),
            (Self::Present, _) => true,
            (Self::Except(values), _) => !contains(values, value),
            (Self::ExceptText(tests), Value::Text(text)) => !tests.iter().any(|test| test.matches(text)),
            (Self::ExceptText(_), _) => true,
            (Self::Absent | Self::Text(_) | Self::Range(_) | Self::Cidr(_), _) => false,
        }
    }
}

/// Everything a pattern asks of one field: any of its conditions is enough.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaf {
    /// All of them, as written.
    pub(super) conditions: Box<[Condition]>,
    /// `exists: false` is among them.
    pub(super) absent: bool,
    /// Of a long list: its exact values, sorted, and what else is in it. Else empty.
    exact: Box<[Exact]>,
    others: Box<[Condition]>,
}

/// From here on a list is searched rather than tried one by one.
const LONG: usize = 12;

impl Leaf {
    pub(super) fn new(conditions: Vec<Condition>) -> Self {
        let absent = conditions.iter().any(|condition| matches!(condition, Condition::Absent));
        let (mut exact, mut others) = (Vec::new(), Vec::new());
        if conditions.len() >= LONG {
            for condition in &conditions {
                match condition {
                    Condition::Exact(value) => exact.push(value.clone()),
                    other => others.push(other.clone()),
                }
            }
            exact.sort_by(|a, b| order(a.view(), b.view()));
        }
        Self { conditions: conditions.into(), absent, exact: exact.into(), others: others.into() }
    }

    pub(super) fn matches(&self, value: Value<'_>) -> bool {
        if self.exact.is_empty() {
            return self.conditions.iter().any(|condition| condition.matches(value));
        }
        contains(&self.exact, value) || self.others.iter().any(|condition| condition.matches(value))
    }
}

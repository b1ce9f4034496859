//! Selects dead letters, newest first: for lists, for groups, and for requests that change many dead letters.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::request::parse_time;
use super::view::DeadGroup;
use super::{Admin, ApiResult, names};
use evoke_model::clock::{UnixMs, rfc3339};
use evoke_model::{DamagedDelivery, DeadFilter, DeadSummary, DeliveryId};
use evoke_store::{InspectionStore, StoreError};

/// Maximum number of dead letters that one read of the store returns, without their attempts. A read takes some
/// milliseconds.
const PAGE: usize = 1_000;
/// Maximum number of groups. Without a limit, there could be one group for each dead letter. Dead letters with further
/// causes are counted in one group per function.
const GROUPS_MAX: usize = 1_000;
/// Maximum number of characters of a group's cause.
const CAUSE_MAX: usize = 200;

/// The conditions of a selection, as the texts of the request.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    pub(super) function: Option<String>,
    pub(super) cause: Option<String>,
    pub(super) type_: Option<String>,
    pub(super) since: Option<String>,
    pub(super) until: Option<String>,
}

/// Selects dead letters.
pub(super) struct Selection {
    pub(super) which: DeadFilter,
    /// Only dead letters whose cause contains this text.
    cause: Option<String>,
    /// Only dead letters of events of this type; a trailing `*` matches any ending.
    type_: Option<String>,
    since_ms: Option<UnixMs>,
    until_ms: Option<UnixMs>,
}

type ReadSummary = Result<DeadSummary, DamagedDelivery>;

impl From<DeadFilter> for Selection {
    fn from(which: DeadFilter) -> Self {
        Self { which, cause: None, type_: None, since_ms: None, until_ms: None }
    }
}

impl Selection {
    /// Finds the full name of the function, and parses the times. Returns an error if one of them is not valid.
    pub(super) async fn new(admin: &Admin, conditions: Conditions) -> ApiResult<Self> {
        let Conditions { function, cause, type_, since, until } = conditions;
        let function = names::optional_function(admin, function.as_deref()).await?;
        let which = function.map_or(DeadFilter::All, DeadFilter::Function);
        let (since_ms, until_ms) = (parse_time("since", since.as_deref())?, parse_time("until", until.as_deref())?);
        Ok(Self { which, cause, type_, since_ms, until_ms })
    }

    /// Returns true if `which`, the filter for the store, is the only condition.
    pub(super) fn is_plain(&self) -> bool {
        self.cause.is_none() && self.type_.is_none() && self.since_ms.is_none() && self.until_ms.is_none()
    }

    /// Reads a page of dead letters with numbers below `before`, newest first. Returns the selected ones of this page,
    /// and the `before` of the next page, which is `None` if no dead letters are left.
    pub(super) async fn page(
        &self,
        store: &dyn InspectionStore,
        before: DeliveryId,
        limit: usize,
    ) -> Result<(Vec<ReadSummary>, Option<DeliveryId>), StoreError> {
        let page = if self.is_plain() { limit.min(PAGE) } else { PAGE };
        let found = store.newest_dead(self.which.clone(), before, page).await?;
        let next = found.last().filter(|_| found.len() >= page).map(id_of);
        if self.is_plain() {
            return Ok((found, next));
        }
        let mut selected = Vec::new();
        for read in found {
            // It is unknown whether a damaged delivery meets the conditions, so it is not selected.
            if let Ok(summary) = &read
                && self.selects(store, summary).await?
            {
                selected.push(read);
            }
        }
        Ok((selected, next))
    }

    async fn selects(&self, store: &dyn InspectionStore, summary: &DeadSummary) -> Result<bool, StoreError> {
        if self.cause.as_ref().is_some_and(|cause| !summary.cause.contains(cause.as_str())) {
            return Ok(false);
        }
        let needs_time = self.since_ms.is_some() || self.until_ms.is_some();
        let has_time = summary.ended_ms.is_some();
        let mut at_ms = summary.ended_ms;
        if self.type_.is_some() || (needs_time && !has_time) {
            let Some(Ok(stored)) = store.event(summary.event).await? else { return Ok(false) };
            at_ms = at_ms.or(Some(stored.accepted_ms));
            let is_meant = |type_: &String| match type_.strip_suffix('*') {
                Some(prefix) => stored.event.type_.starts_with(prefix),
                None => stored.event.type_ == *type_,
            };
            if !self.type_.as_ref().is_none_or(is_meant) {
                return Ok(false);
            }
        }
        let at_ms = at_ms.unwrap_or_default();
        Ok(self.since_ms.is_none_or(|since_ms| at_ms >= since_ms)
            && self.until_ms.is_none_or(|until_ms| at_ms < until_ms))
    }

    /// Returns the number of selected dead letters. For all dead letters and for those of one function, the store has
    /// this number. For any other selection, this reads the dead letters and counts them.
    pub(super) async fn count(&self, store: &dyn InspectionStore) -> Result<u64, StoreError> {
        if self.is_plain() && matches!(self.which, DeadFilter::All | DeadFilter::Function(_)) {
            let totals = store.totals().await?;
            let of_meant = totals.functions.iter().filter(|(name, _)| match &self.which {
                DeadFilter::Function(function) => *name == function,
                _ => true,
            });
            return Ok(of_meant.map(|(_, counts)| counts.dead).sum());
        }
        let (mut count, mut next) = (0, Some(DeliveryId(i64::MAX)));
        while let Some(before) = next {
            let (found, after) = self.page(store, before, usize::MAX).await?;
            count += found.len() as u64;
            next = after;
        }
        Ok(count)
    }

    /// Calls `change` with filters that together cover all selected dead letters, and returns the sum of the results.
    /// If there are conditions, each filter covers at most [`PAGE`] dead letters.
    pub(super) async fn change<F>(
        &self,
        store: &dyn InspectionStore,
        change: impl Fn(DeadFilter) -> F,
    ) -> Result<u64, StoreError>
    where
        F: Future<Output = Result<u64, StoreError>>,
    {
        if self.is_plain() {
            return change(self.which.clone()).await;
        }
        let (mut count, mut next) = (0, Some(DeliveryId(i64::MAX)));
        while let Some(before) = next {
            let (found, after) = self.page(store, before, usize::MAX).await?;
            let ids: Arc<[DeliveryId]> = found.iter().rev().map(id_of).collect();
            if !ids.is_empty() {
                count += change(DeadFilter::Deliveries(ids)).await?;
            }
            next = after;
        }
        Ok(count)
    }
}

/// Counts dead letters by function and cause.
#[derive(Default)]
pub(super) struct Groups(BTreeMap<(String, String), Group>);

impl Groups {
    pub(super) fn add(&mut self, read: ReadSummary) {
        let groups = &mut self.0;
        let (function, cause, ended_ms, id) = match read {
            Ok(DeadSummary { id, function, cause, ended_ms, .. }) => (function, general(&cause), ended_ms, id),
            Err(damaged) => (String::new(), "damaged on disk".to_owned(), None, damaged.id),
        };
        let is_full = groups.len() >= GROUPS_MAX && !groups.contains_key(&(function.clone(), cause.clone()));
        let cause = if is_full { "other causes".to_owned() } else { cause };
        let group = groups.entry((function, cause)).or_insert_with(|| Group { newest: id, ..Group::default() });
        group.count += 1;
        group.first_ms = group.first_ms.into_iter().chain(ended_ms).min();
        group.last_ms = group.last_ms.into_iter().chain(ended_ms).max();
    }

    /// Returns the groups; the largest one is first.
    pub(super) fn into_sorted(self) -> Vec<DeadGroup> {
        let mut groups: Vec<DeadGroup> = self.0.into_iter().map(DeadGroup::from).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        groups
    }
}

#[derive(Default)]
struct Group {
    count: u64,
    first_ms: Option<UnixMs>,
    last_ms: Option<UnixMs>,
    newest: DeliveryId,
}

impl From<((String, String), Group)> for DeadGroup {
    fn from(((function, cause), group): ((String, String), Group)) -> Self {
        let Group { count, first_ms, last_ms, newest } = group;
        Self { function, cause, count, first: first_ms.map(rfc3339), last: last_ms.map(rfc3339), newest }
    }
}

/// Returns the number of a dead letter.
pub(super) fn id_of(read: &ReadSummary) -> DeliveryId {
    read.as_ref().map_or_else(|damaged| damaged.id, |summary| summary.id)
}

/// Returns a cause with `#` in place of each number, so that causes that differ only in numbers form one group.
fn general(cause: &str) -> String {
    let (mut text, mut in_number, mut chars) = (String::new(), false, 0);
    for char in cause.chars() {
        let is_digit = char.is_ascii_digit();
        if is_digit && in_number {
            continue;
        }
        in_number = is_digit;
        if chars == CAUSE_MAX {
            text.push('…');
            break;
        }
        text.push(if is_digit { '#' } else { char });
        chars += 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_that_differ_in_numbers_only_are_one_group() {
        assert_eq!(general("reject: order 4711 has no total"), "reject: order # has no total");
        assert_eq!(general("reject: order 9 has no total"), "reject: order # has no total");
        assert_eq!(general(&"é".repeat(300)), format!("{}…", "é".repeat(CAUSE_MAX)));
    }
}

//! The record of one function: for each of its grants, the uses and the times of the last uses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::declared::{Declared, DeclaredGrant};
use evoke_model::clock::UnixMs;
use evoke_model::{GRANT_VALUES_MAX, GrantKey, GrantKind, Json};
use evoke_sandbox::Uses;

const VERSION: u32 = 1;
/// The stored time of a use is updated only if it is at least this old. So a grant in constant use changes its record
/// only once an hour.
const STEP_MS: i64 = 3_600_000;
/// Maximum number of refused uses in a record.
const REFUSED_MAX: usize = 32;

/// The use of the grants of a function since its recording began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    v: u32,
    /// The time since which the use of grants is recorded.
    pub since_ms: UnixMs,
    /// The number of attempts and handled HTTP requests that started since then.
    pub attempts: u64,
    /// The time of the last start after an end of the process without a clean stop, such as a crash. Uses in the last
    /// seconds before that end may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unclean_ms: Option<UnixMs>,
    /// The grants, including grants that were removed from the manifest.
    pub grants: Vec<GrantRecord>,
    /// The uses that were refused, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedRecord>,
    /// The imports of the component that refuse every call, because the grant that they need is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusing_imports: Vec<String>,
    /// The grants as the manifest has them, without values of secrets; `None` if they are too long to be stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Json>,
    /// The time at which Evoke found that no manifest has the function any more; `None` if a manifest has the function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_ms: Option<UnixMs>,
}

/// A grant and its use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GrantRecord {
    /// The entry of the manifest.
    #[serde(flatten)]
    pub key: GrantKey,
    /// The time since which the function has the grant.
    pub since_ms: UnixMs,
    /// The number of attempts before the function had the grant.
    pub attempts_before: u64,
    /// The values for which the grant was used, such as event types or hosts. Each has the time of the last use, with a
    /// precision of one hour.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub seen: BTreeMap<String, UnixMs>,
    /// True if the grant was used for more values than `seen` has room for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// The headers that are added to requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// The addresses that requests may reach although they are not global, such as those of a private network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The time at which Evoke found that the manifest no longer has the grant; `None` if the manifest has the grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_ms: Option<UnixMs>,
}

/// A use that was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefusedRecord {
    /// The grant that would allow the use.
    #[serde(flatten)]
    pub key: GrantKey,
    /// The time of the last refused try, with a precision of one hour.
    pub last_ms: UnixMs,
}

impl GrantRecord {
    fn new(grant: &DeclaredGrant, since_ms: UnixMs, attempts_before: u64) -> Self {
        let DeclaredGrant { key, headers, addresses } = grant.clone();
        let (seen, more, gone_ms) = Default::default();
        Self { key, since_ms, attempts_before, seen, more, headers, addresses, gone_ms }
    }

    /// Returns when the grant was last used.
    pub fn last_ms(&self) -> Option<UnixMs> {
        self.seen.values().max().copied()
    }

    /// Returns true if the grant was used.
    pub fn is_used(&self) -> bool {
        self.more || !self.seen.is_empty()
    }

    fn note(&mut self, value: String, now_ms: UnixMs) -> bool {
        let count = self.seen.len();
        match self.seen.get_mut(&value) {
            Some(last_ms) => step(last_ms, now_ms),
            None if count < GRANT_VALUES_MAX => self.seen.insert(value, now_ms).is_none(),
            None => !std::mem::replace(&mut self.more, true),
        }
    }
}

/// Sets `last_ms` to `now_ms` if `last_ms` is at least [`STEP_MS`] old, or if the clock was set back. Returns true if
/// `last_ms` was set.
fn step(last_ms: &mut UnixMs, now_ms: UnixMs) -> bool {
    let is_due = now_ms < *last_ms || now_ms - *last_ms >= STEP_MS;
    if is_due {
        *last_ms = now_ms;
    }
    is_due
}

impl Record {
    pub(super) fn new(since_ms: UnixMs) -> Self {
        let (attempts, unclean_ms, grants, refused, refusing_imports, allow, gone_ms) = Default::default();
        Self { v: VERSION, since_ms, attempts, unclean_ms, grants, refused, refusing_imports, allow, gone_ms }
    }

    pub(super) fn from_mark(value: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(value).ok().filter(|record| record.v == VERSION)
    }

    pub(super) fn to_mark(&self) -> Vec<u8> {
        // Never fails: strings and numbers always serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Returns the grants that the manifest has.
    pub fn current(&self) -> impl Iterator<Item = &GrantRecord> {
        self.grants.iter().filter(|grant| grant.gone_ms.is_none())
    }

    /// Returns the number of attempts since the function received the grant.
    pub fn attempts_of(&self, grant: &GrantRecord) -> u64 {
        self.attempts.saturating_sub(grant.attempts_before)
    }

    /// Returns true if there were attempts since the function received the grant, and none of them used the grant.
    pub fn is_unused(&self, grant: &GrantRecord) -> bool {
        !grant.is_used() && self.attempts_of(grant) > 0
    }

    /// Sets the grants of the manifest. The recorded uses of a grant that the manifest still has stay unchanged.
    /// Returns true if anything changed.
    pub(super) fn declare(&mut self, function: &Declared, now_ms: UnixMs) -> bool {
        let before = self.clone();
        self.gone_ms = None;
        self.allow = function.allow.clone().map(Json);
        self.refusing_imports = function.refusing_imports.iter().map(|import| (*import).to_owned()).collect();
        for grant in &mut self.grants {
            if grant.gone_ms.is_none() && !function.grants.iter().any(|declared| declared.key == grant.key) {
                grant.gone_ms = Some(now_ms);
            }
        }
        for declared in &function.grants {
            let new = GrantRecord::new(declared, now_ms, self.attempts);
            match self.grants.iter_mut().find(|grant| grant.key == declared.key) {
                // A grant that was removed and added again gets a new record.
                Some(grant) if grant.gone_ms.is_some() => *grant = new,
                Some(grant) => (grant.headers, grant.addresses) = (new.headers, new.addresses),
                None => self.grants.push(new),
            }
        }
        self.grants.sort_by(|a, b| a.key.cmp(&b.key));
        self.refused.retain(|refused| !(function.covers)(&refused.key));
        *self != before
    }

    /// Adds uses. `inserted` has the secrets that are inserted into headers, by origin. Returns true if anything
    /// besides the number of attempts changed.
    pub(super) fn add(&mut self, uses: Uses, inserted: &BTreeMap<String, Vec<String>>, now_ms: UnixMs) -> bool {
        let Uses { attempts, used, refused } = uses;
        self.attempts = self.attempts.saturating_add(attempts);
        let mut is_changed = false;
        for used in used {
            let secrets = inserted.get(&used.key.name).filter(|_| used.key.kind == GrantKind::Http);
            for secret in secrets.into_iter().flatten() {
                is_changed |= self.note(&GrantKind::Secret.key(secret.as_str()), ["header".to_owned()], now_ms);
            }
            is_changed |= self.note(&used.key, used.values, now_ms);
            if used.more
                && let Some(grant) = self.grants.iter_mut().find(|grant| grant.key == used.key)
            {
                is_changed |= !std::mem::replace(&mut grant.more, true);
            }
        }
        for key in refused {
            match self.refused.iter_mut().find(|refused| refused.key == key) {
                Some(refused) => is_changed |= step(&mut refused.last_ms, now_ms),
                None => {
                    if self.refused.len() >= REFUSED_MAX {
                        self.refused.remove(0);
                    }
                    self.refused.push(RefusedRecord { key, last_ms: now_ms });
                    is_changed = true;
                }
            }
        }
        is_changed
    }

    fn note(&mut self, key: &GrantKey, values: impl IntoIterator<Item = String>, now_ms: UnixMs) -> bool {
        let Some(grant) = self.grants.iter_mut().find(|grant| grant.key == *key) else { return false };
        let mut is_changed = false;
        for value in values {
            is_changed |= grant.note(value, now_ms);
        }
        is_changed
    }

    /// Removes the grants that the manifest has not had for `keep_ms`, and the refused uses that were not tried again
    /// for `keep_ms`. Returns true if any were removed.
    pub(super) fn expire(&mut self, now_ms: UnixMs, keep_ms: i64) -> bool {
        let before = (self.grants.len(), self.refused.len());
        self.grants.retain(|grant| !grant.gone_ms.is_some_and(|gone_ms| is_over(gone_ms, now_ms, keep_ms)));
        self.refused.retain(|refused| !is_over(refused.last_ms, now_ms, keep_ms));
        before != (self.grants.len(), self.refused.len())
    }

    /// Returns true if no manifest has had the function for `keep_ms`.
    pub(super) fn is_expired(&self, now_ms: UnixMs, keep_ms: i64) -> bool {
        self.gone_ms.is_some_and(|gone_ms| is_over(gone_ms, now_ms, keep_ms))
    }
}

fn is_over(since_ms: UnixMs, now_ms: UnixMs, keep_ms: i64) -> bool {
    now_ms.saturating_sub(since_ms) >= keep_ms
}

//! The JSON form of grants and of their use.

use serde::{Deserialize, Serialize};

use crate::control::grants::{GrantRecord, Record, line, propose};
use evoke_model::clock::rfc3339;
use evoke_model::{GrantKey, Json};

/// The grants of a function and their use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FunctionGrants {
    /// `app/function`.
    pub function: String,
    /// False if no active manifest declares the function any more.
    pub active: bool,
    /// The time since which the use of grants is recorded.
    pub since: String,
    /// Number of attempts and handled HTTP requests since then.
    pub attempts: u64,
    /// When Evoke last started after an unclean exit, such as a crash. Uses in the last seconds before that exit may be
    /// missing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unclean_end: Option<String>,
    /// The grants in the manifest.
    pub grants: Vec<Grant>,
    /// The uses that were refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedUse>,
    /// The imports of the component that refuse every call, because the grant for the import is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusing_imports: Vec<String>,
    /// The smallest `allow:` that covers all uses; absent if the present `allow:` is already the smallest, or if the
    /// function has not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposal: Option<Json>,
}

/// A grant with its use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Grant {
    /// Kind and name of the entry in `allow:`.
    #[serde(flatten)]
    pub key: GrantKey,
    /// The time since which the function has the grant.
    pub since: String,
    /// Number of attempts since then.
    pub attempts: u64,
    /// False if the function has not used the grant so far.
    pub used: bool,
    /// When the grant was last used, with a precision of one hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// The uses of the grant: published event types, hosts of requests, or operations on state (`open`, `read`,
    /// `write`). The uses of a setting or a secret are `read` if the function read it alone, `get-all` or `environment`
    /// if the function read all of them together, and `header` if the value was added to a request as a header.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<String>,
    /// True if there were more uses than `seen` has room for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// The headers that are added to requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// The addresses that requests may reach although they are not global, such as those of a private network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// A use that was refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RefusedUse {
    /// Kind and name of the missing grant.
    #[serde(flatten)]
    pub key: GrantKey,
    /// When the use was last tried, with a precision of one hour.
    pub last: String,
    /// The addition to `allow:` that would allow the use.
    pub allow: Json,
}

impl FunctionGrants {
    /// Returns the JSON form of a record.
    pub fn new(function: String, record: &Record) -> Self {
        let refused = record.refused.iter().map(|refused| RefusedUse {
            key: refused.key.clone(),
            last: rfc3339(refused.last_ms),
            allow: Json(line(&refused.key)),
        });
        Self {
            function,
            active: record.gone_ms.is_none(),
            since: rfc3339(record.since_ms),
            attempts: record.attempts,
            unclean_end: record.unclean_ms.map(rfc3339),
            grants: record.current().map(|grant| Grant::new(record, grant)).collect(),
            refused: refused.collect(),
            refusing_imports: record.refusing_imports.clone(),
            proposal: propose(record).map(Json),
        }
    }
}

impl Grant {
    fn new(record: &Record, grant: &GrantRecord) -> Self {
        Self {
            key: grant.key.clone(),
            since: rfc3339(grant.since_ms),
            attempts: record.attempts_of(grant),
            used: grant.is_used(),
            last: grant.last_ms().map(rfc3339),
            seen: grant.seen.keys().cloned().collect(),
            more: grant.more,
            headers: grant.headers.clone(),
            addresses: grant.addresses.clone(),
        }
    }

    /// Returns true if the function has had attempts with this grant, and none of them used the grant.
    pub fn is_unused(&self) -> bool {
        !self.used && self.attempts > 0
    }
}

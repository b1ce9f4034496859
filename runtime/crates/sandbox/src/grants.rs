//! The grants of a function.

use std::collections::BTreeMap;

use super::grant_use::GrantUse;
use super::keyvalue::StateGrant;
use super::secrets::Secrets;
use evoke_egress::Grant;

/// The capabilities of a function: the `allow:` section of its manifest, with secrets resolved.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    /// Patterns of the event types that the function may publish; `*` matches any run of characters.
    pub publish: Vec<String>,
    /// Grant for stored state; `None` if the function has no state.
    pub state: Option<StateGrant>,
    /// Destinations that the function may send HTTP requests to.
    pub http: Vec<Grant>,
    /// Configuration values by name.
    pub config: BTreeMap<String, String>,
    /// Secrets by name. `wasi:config` returns them together with the configuration.
    pub secrets: Secrets,
}

impl Grants {
    /// Starts to record which of these grants are used.
    pub(super) fn grant_use(&self) -> GrantUse {
        let config = self.config.keys().map(String::as_str);
        GrantUse::new(&self.publish, &self.http, config, &self.secrets)
    }
}

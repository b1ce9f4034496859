//! The grants of a function.

use std::collections::BTreeMap;
use std::fmt;

use super::keyvalue::StateGrant;

/// The capabilities of a function: the `allow:` section of its manifest, with secrets resolved.
#[derive(Clone, Default)]
pub struct Grants {
    /// Patterns of the event types that the function may publish; `*` matches any run of characters.
    pub publish: Vec<String>,
    /// Grant for stored state; `None` if the function has no state.
    pub state: Option<StateGrant>,
    /// Origins that the function may send HTTP requests to.
    pub http: Vec<String>,
    /// Configuration values by name.
    pub config: BTreeMap<String, String>,
    /// Secrets by name. `wasi:config` returns them together with the configuration.
    pub secrets: BTreeMap<String, String>,
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { publish, state, http, config, secrets } = self;
        f.debug_struct("Grants")
            .field("publish", publish)
            .field("state", state)
            .field("http", http)
            .field("config", config)
            .field("secrets", &secrets.keys().collect::<Vec<_>>())
            .finish()
    }
}

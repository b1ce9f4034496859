//! Configuration and secrets, as `wasi:config` and as environment variables. A secret hides a configuration value of
//! the same name.

use std::collections::BTreeMap;

use wasmtime::component::HasData;

mod bindings {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    wasmtime::component::bindgen!({
        path: "../../../sdk/wit",
        inline: "package evoke:config-host; world guest { import wasi:config/store@0.2.0-rc.1; }",
    });
}
pub(super) use bindings::wasi::config::store::add_to_linker;
use bindings::wasi::config::store::{Error, Host};

/// The values that a function may read.
pub(super) struct Config<'a> {
    pub(super) config: &'a BTreeMap<String, String>,
    pub(super) secrets: &'a BTreeMap<String, String>,
}

impl<'a> Config<'a> {
    fn value(&self, name: &str) -> Option<&'a String> {
        self.secrets.get(name).or_else(|| self.config.get(name))
    }

    /// Returns all names with their values.
    pub(super) fn values(&self) -> impl Iterator<Item = (&'a String, &'a String)> {
        let Self { config, secrets } = *self;
        config.iter().filter(|(name, _)| !secrets.contains_key(*name)).chain(secrets)
    }
}

/// Tells the generated bindings that `wasi:config` works on [`Config`].
pub(super) struct ConfigHost;

impl HasData for ConfigHost {
    type Data<'a> = Config<'a>;
}

impl Host for Config<'_> {
    fn get(&mut self, key: String) -> Result<Option<String>, Error> {
        Ok(self.value(&key).cloned())
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, Error> {
        Ok(self.values().map(|(name, value)| (name.clone(), value.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_hides_the_configuration_value_of_the_same_name() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let (config, secrets) = (map(&[("A", "1"), ("KEY", "public")]), map(&[("KEY", "secret")]));
        let mut config = Config { config: &config, secrets: &secrets };
        assert_eq!(config.get("KEY".into()).unwrap().as_deref(), Some("secret"));
        assert_eq!(config.get("B".into()).unwrap(), None);
        assert_eq!(config.get_all().unwrap(), [("A".into(), "1".into()), ("KEY".into(), "secret".into())]);
    }
}

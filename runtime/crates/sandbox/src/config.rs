//! Configuration and secrets, as `wasi:config` and as environment variables. If a secret and a configuration value have
//! the same name, the function reads the secret.

use std::collections::BTreeMap;

use super::grant_use::{GrantUse, Whole};
use super::secrets::Secrets;
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
    pub(super) secrets: &'a Secrets,
    pub(super) grant_use: &'a GrantUse,
}

impl<'a> Config<'a> {
    fn value(&self, name: &str) -> Option<&'a str> {
        self.secrets.get(name).or_else(|| self.config.get(name).map(String::as_str))
    }

    /// Returns all names with their values, for the environment of a program.
    pub(super) fn environment(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.grant_use.given_whole(Whole::Environment);
        self.values()
    }

    fn values(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let Self { config, secrets, .. } = *self;
        let config = config.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        config.filter(|(name, _)| secrets.get(name).is_none()).chain(secrets.iter())
    }
}

/// Connects the generated bindings of `wasi:config` to [`Config`].
pub(super) struct ConfigHost;

impl HasData for ConfigHost {
    type Data<'a> = Config<'a>;
}

impl Host for Config<'_> {
    fn get(&mut self, key: String) -> Result<Option<String>, Error> {
        self.grant_use.read(&key);
        Ok(self.value(&key).map(str::to_owned))
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, Error> {
        self.grant_use.given_whole(Whole::GetAll);
        Ok(self.values().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_hides_the_configuration_value_of_the_same_name() {
        let config = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("KEY".to_owned(), "public".to_owned())]);
        let secrets = Secrets::new([("KEY".to_owned(), "secret".to_owned().into())].into()).unwrap();
        let mut config = Config { config: &config, secrets: &secrets, grant_use: &GrantUse::default() };
        assert_eq!(config.get("KEY".into()).unwrap().as_deref(), Some("secret"));
        assert_eq!(config.get("B".into()).unwrap(), None);
        assert_eq!(config.get_all().unwrap(), [("A".into(), "1".into()), ("KEY".into(), "secret".into())]);
    }
}

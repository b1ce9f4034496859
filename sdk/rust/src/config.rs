//! Configuration values and secrets that the manifest grants under `allow: config` and `allow: secrets`.

use crate::bindings::wasi::config::store;
use std::fmt::Display;
use std::str::FromStr;

use crate::Failure;

/// Returns the value of `key`, or `None` if the manifest does not grant it.
///
/// ```no_run
/// # extern crate evoke_sdk as evoke;
/// let currency = evoke::config::get("CURRENCY").unwrap_or_else(|| "EUR".into());
/// ```
#[must_use]
pub fn get(key: &str) -> Option<String> {
    // The interface `wasi:config/store` allows errors. Evoke returns no error, because it has all values in memory.
    store::get(key).ok().flatten()
}

/// Returns the value of `key` parsed as a `T`, or `None` if the manifest does not grant it.
///
/// ```no_run
/// # extern crate evoke_sdk as evoke;
/// # fn handle() -> Result<(), evoke::Failure> {
/// let attempts: u32 = evoke::config::parse("ATTEMPTS")?.unwrap_or(3);
/// # Ok(()) }
/// ```
///
/// # Errors
/// A reject that names the key, if the value does not parse as a `T`.
pub fn parse<T>(key: &str) -> Result<Option<T>, Failure>
where
    T: FromStr,
    T::Err: Display,
{
    let parsed = get(key).map(|value| value.parse());
    parsed.transpose().map_err(|error| Failure::reject(format!("the config key {key} has an invalid value: {error}")))
}

/// Returns all keys and values, including secrets.
#[must_use]
pub fn all() -> Vec<(String, String)> {
    store::get_all().unwrap_or_default()
}

/// Returns the secret `key`, like [`get`]: a function reads secrets and configuration values in the same way. Call this
/// function instead of `get` to show readers of your code that the value is a secret. Do not write a secret to logs or
/// events.
#[must_use]
pub fn secret(key: &str) -> Option<String> {
    get(key)
}

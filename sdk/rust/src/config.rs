//! Configuration and secrets: what the manifest grants under `allow: config` and `allow: secrets`.

use crate::bindings::wasi::config::store;
use std::fmt::Display;
use std::str::FromStr;

use crate::Failure;

/// The value of `key`, or none where the manifest grants none.
///
/// ```no_run
/// # extern crate evoke_sdk as evoke;
/// let currency = evoke::config::get("CURRENCY").unwrap_or_else(|| "EUR".into());
/// ```
#[must_use]
pub fn get(key: &str) -> Option<String> {
    // The draft lets a store fail; Evoke's is in memory and cannot.
    store::get(key).ok().flatten()
}

/// The value of `key`, read as a `T`; none where the manifest grants none.
///
/// ```no_run
/// # extern crate evoke_sdk as evoke;
/// # fn handle() -> Result<(), evoke::Failure> {
/// let attempts: u32 = evoke::config::parse("ATTEMPTS")?.unwrap_or(3);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The value is not a `T`: a reject that names the key.
pub fn parse<T>(key: &str) -> Result<Option<T>, Failure>
where
    T: FromStr,
    T::Err: Display,
{
    let parsed = get(key).map(|value| value.parse());
    parsed.transpose().map_err(|error| Failure::reject(format!("the config key {key}: {error}")))
}

/// Every key and its value, secrets included.
#[must_use]
pub fn all() -> Vec<(String, String)> {
    store::get_all().unwrap_or_default()
}

/// The secret granted as `key`. Secrets and configuration are one store for a function; this name says which
/// of the two is meant. Keep it out of logs and events.
#[must_use]
pub fn secret(key: &str) -> Option<String> {
    get(key)
}

//! State of a function, as JSON values by key. An attempt reads its own writes; they are kept when it is done
//! and dropped when it fails. The manifest grants it by `allow: { state: true }`.
//!
//! ```no_run
//! # extern crate evoke_sdk as evoke;
//! # fn handle() -> Result<(), evoke::Failure> {
//! let seen = evoke::state::increment("seen", 1)?;
//! evoke::state::set("last", &format!("event {seen}"))?;
//! let last: Option<String> = evoke::state::get("last")?;
//! # Ok(()) }
//! ```

use crate::Failure;
use crate::bindings::wasi::keyvalue::{atomics, store};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;

/// What can go wrong. With `?` denied access and JSON are rejects, the rest is a retry.
#[derive(Debug)]
pub enum Error {
    /// The manifest does not grant state.
    Denied,
    /// The value is not of the wanted type.
    Json(String, serde_json::Error),
    /// The store failed.
    Store(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("state is not granted (allow: { state: true })"),
            Self::Json(key, error) => write!(f, "the state at {key}: {error}"),
            Self::Store(message) => write!(f, "state: {message}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::AccessDenied => Self::Denied,
            store::Error::NoSuchStore => Self::Store("no such store".into()),
            store::Error::Other(message) => Self::Store(message),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(_) => Self::retry(error.to_string()),
            Error::Denied | Error::Json(..) => Self::reject(error.to_string()),
        }
    }
}

/// The function's own bucket.
fn bucket() -> Result<store::Bucket, Error> {
    Ok(store::open("")?)
}

/// The value at `key`, or none.
///
/// # Errors
/// See [`Error`].
pub fn get<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    let Some(bytes) = bucket()?.get(key)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::Json(key.to_owned(), error))
}

/// Creates or replaces the value at `key`.
///
/// # Errors
/// See [`Error`].
pub fn set<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).map_err(|error| Error::Json(key.to_owned(), error))?;
    Ok(bucket()?.set(key, &bytes)?)
}

/// Removes `key`; a key that is not there is no error.
///
/// # Errors
/// See [`Error`].
pub fn delete(key: &str) -> Result<(), Error> {
    Ok(bucket()?.delete(key)?)
}

/// Adds `delta` to the number at `key`, 0 where there is none, and returns the sum.
///
/// # Errors
/// See [`Error`]; the value being no number is [`Error::Store`].
pub fn increment(key: &str, delta: u64) -> Result<u64, Error> {
    Ok(atomics::increment(&bucket()?, key, delta)?)
}

/// Every key, page by page until the last.
///
/// # Errors
/// See [`Error`].
pub fn keys() -> Result<Vec<String>, Error> {
    let (bucket, mut keys, mut cursor) = (bucket()?, Vec::new(), None);
    loop {
        let page = bucket.list_keys(cursor)?;
        keys.extend(page.keys);
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(keys);
        }
    }
}

//! State of a function, as JSON values by key. The manifest grants it with `allow: { state: true }`.
//!
//! An attempt is a transaction: it reads its own writes. The writes are committed if the attempt succeeds, and
//! discarded if it fails. If another attempt changed a value that this attempt read, this attempt runs again. So a
//! counter needs no lock:
//!
//! ```no_run
//! # extern crate evoke_sdk as evoke;
//! # fn handle() -> Result<(), evoke::Failure> {
//! let seen = evoke::state::increment("seen", 1)?;
//! evoke::state::set("last", &format!("event {seen}"))?;
//! let last: Option<String> = evoke::state::get("last")?;
//! # Ok(()) }
//! ```
//!
//! The functions of an app can share a bucket. Each of them needs the grant `allow: { state: { shared: true } }`:
//!
//! ```no_run
//! # extern crate evoke_sdk as evoke;
//! # fn handle() -> Result<(), evoke::Failure> {
//! let stock = evoke::state::shared()?;
//! let left: u32 = stock.update("book", |left| left.unwrap_or(10_u32).saturating_sub(1))?;
//! # Ok(()) }
//! ```

use crate::Failure;
use crate::bindings::wasi::keyvalue::{atomics, store};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;

/// An error of a state operation. `?` converts `Denied` and `Json` to a reject, and `Store` to a retry.
#[derive(Debug)]
pub enum Error {
    /// The manifest does not grant this bucket.
    Denied,
    /// The value at this key does not have the requested type.
    Json(String, serde_json::Error),
    /// The operation was refused, for example because of a quota, or the store failed. The message contains the reason.
    Store(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str(
                "this state is not granted (allow: { state: true }, or { state: { shared: true } } for the shared bucket)",
            ),
            Self::Json(key, error) => write!(f, "the value of the state key `{key}` is not valid: {error}"),
            Self::Store(message) => write!(f, "state: {message}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::AccessDenied | store::Error::NoSuchStore => Self::Denied,
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

/// A bucket of values by key.
#[derive(Debug)]
pub struct Bucket(store::Bucket);

/// Opens the function's own bucket. [`get`], [`set`] and the other functions of this module use this bucket.
///
/// # Errors
/// See [`Error`].
pub fn own() -> Result<Bucket, Error> {
    Ok(Bucket(store::open("")?))
}

/// Opens the bucket shared by the functions of the app.
///
/// # Errors
/// [`Error::Denied`] if the manifest does not grant it.
pub fn shared() -> Result<Bucket, Error> {
    Ok(Bucket(store::open("app")?))
}

impl Bucket {
    /// Returns the value at `key`, or `None`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        let Some(bytes) = self.bytes(key)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::Json(key.to_owned(), error))
    }

    /// Creates or replaces the value at `key`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), Error> {
        let bytes = serde_json::to_vec(value).map_err(|error| Error::Json(key.to_owned(), error))?;
        self.set_bytes(key, &bytes)
    }

    /// Replaces the value at `key` by the result of `change`, which receives `None` if there is no value. Returns the
    /// new value.
    ///
    /// ```no_run
    /// # extern crate evoke_sdk as evoke;
    /// # fn handle() -> Result<(), evoke::Failure> {
    /// let names: Vec<String> = evoke::state::own()?.update("names", |names: Option<Vec<String>>| {
    ///     let mut names = names.unwrap_or_default();
    ///     names.push("ada".into());
    ///     names
    /// })?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`Error`].
    pub fn update<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        change: impl FnOnce(Option<T>) -> T,
    ) -> Result<T, Error> {
        let value = change(self.get(key)?);
        self.set(key, &value)?;
        Ok(value)
    }

    /// Removes `key`. A missing key is not an error.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        Ok(self.0.delete(key)?)
    }

    /// Returns true if `key` exists.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn exists(&self, key: &str) -> Result<bool, Error> {
        Ok(self.0.exists(key)?)
    }

    /// Adds `delta` to the number at `key` (0 if there is none), and returns the sum.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Store`] also if the value is not a whole number, or if the sum is too large.
    pub fn increment(&self, key: &str, delta: u64) -> Result<u64, Error> {
        Ok(atomics::increment(&self.0, key, delta)?)
    }

    /// Returns all keys in byte order. If another attempt adds or removes any key of the bucket meanwhile, this attempt
    /// runs again. So call this only for a bucket with few keys, to which keys are rarely added.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn keys(&self) -> Result<Vec<String>, Error> {
        let (mut keys, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.0.list_keys(cursor)?;
            keys.extend(page.keys);
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(keys);
            }
        }
    }

    /// Returns the bytes at `key`, which need not be JSON.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn bytes(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.get(key)?)
    }

    /// Stores bytes that need not be JSON.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_bytes(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        Ok(self.0.set(key, value)?)
    }
}

/// Returns the value at `key`, or `None`.
///
/// # Errors
/// See [`Error`].
pub fn get<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    own()?.get(key)
}

/// Creates or replaces the value at `key`.
///
/// # Errors
/// See [`Error`].
pub fn set<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<(), Error> {
    own()?.set(key, value)
}

/// Replaces the value at `key` and returns the new value: see [`Bucket::update`].
///
/// # Errors
/// See [`Error`].
pub fn update<T: Serialize + DeserializeOwned>(key: &str, change: impl FnOnce(Option<T>) -> T) -> Result<T, Error> {
    own()?.update(key, change)
}

/// Removes `key`. A missing key is not an error.
///
/// # Errors
/// See [`Error`].
pub fn delete(key: &str) -> Result<(), Error> {
    own()?.delete(key)
}

/// Returns true if `key` exists.
///
/// # Errors
/// See [`Error`].
pub fn exists(key: &str) -> Result<bool, Error> {
    own()?.exists(key)
}

/// Adds `delta` to the number at `key` (0 if there is none), and returns the sum.
///
/// # Errors
/// See [`Error`]; [`Error::Store`] also if the value is not a whole number, or if the sum is too large.
pub fn increment(key: &str, delta: u64) -> Result<u64, Error> {
    own()?.increment(key, delta)
}

/// Returns all keys: see [`Bucket::keys`].
///
/// # Errors
/// See [`Error`].
pub fn keys() -> Result<Vec<String>, Error> {
    own()?.keys()
}

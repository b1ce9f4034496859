//! The secrets of a function, and their replacement in text that the function gives to the host.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

mod forms;
mod redactor;
#[cfg(test)]
mod tests;

pub(super) use redactor::Redactor;
use redactor::test_value;

/// Length of the shortest value that is redacted, in bytes. White space at both ends does not count. Shorter values
/// occur in other words too often.
pub const REDACTED_BYTES_MIN: usize = 4;

/// The value of a secret. `Debug` hides it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Returns the value. Callers must pass it to the function only, never into a message or a log line.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the value `test-NAME`, which a secret has in tests. A test can set another value.
    pub fn for_tests(name: &str) -> Self {
        Self(test_value(name))
    }

    /// Returns true if the value is long enough to be redacted.
    pub fn is_redacted(&self) -> bool {
        self.0.trim().len() >= REDACTED_BYTES_MIN
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Why the values of secrets cannot be redacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the secrets of the function are too large: the values and their encodings, which Evoke replaces in all output \
     of the function, have more than {} MiB in total; use fewer or shorter secrets",
    forms::TOTAL_BYTES_MAX >> 20
)]
pub struct SecretsTooLarge;

/// The secrets of a function by name. Cheap to clone.
#[derive(Clone, Default)]
pub struct Secrets {
    values: Arc<BTreeMap<String, Secret>>,
    redactor: Arc<Redactor>,
}

impl Secrets {
    /// Prepares the search for the values: once for each function, in time linear in the size of the values.
    ///
    /// # Errors
    /// The values are too large to be searched for.
    pub fn new(values: BTreeMap<String, Secret>) -> Result<Self, SecretsTooLarge> {
        Self::with_hidden(values, &BTreeMap::new())
    }

    /// Prepares the search also for `hidden` values, which the function cannot read.
    ///
    /// # Errors
    /// The values are too large to be searched for.
    pub fn with_hidden(
        values: BTreeMap<String, Secret>,
        hidden: &BTreeMap<String, Secret>,
    ) -> Result<Self, SecretsTooLarge> {
        let mut all = values.clone();
        for (name, secret) in hidden {
            // If the function has a secret of its own with the same name, the hidden secret gets another name.
            let free = std::iter::successors(Some(name.clone()), |name| Some(format!("{name}'")));
            let name = free.into_iter().find(|name| all.get(name).is_none_or(|other| other == secret));
            all.extend(name.map(|name| (name, secret.clone())));
        }
        let redactor = Redactor::new(&all)?;
        Ok(Self { values: Arc::new(values), redactor: Arc::new(redactor) })
    }

    /// Replaces the values in a text with the names of their secrets.
    pub fn redact(&self, text: &str) -> String {
        self.redactor.redact_text(text).into_owned()
    }

    /// Same as [`Secrets::redact`], but `text` is only the start of a longer text. Leaves out the last bytes of `text`,
    /// because a value could begin there and continue in the missing rest.
    pub fn redact_unfinished(&self, text: &str) -> String {
        self.redactor.redact_unfinished(text).into_owned()
    }

    /// Replaces the values of secrets in bytes with the values that these secrets have in tests
    /// ([`Secret::for_tests`]). In a test that is made from a recording, the secrets have these values. So after the
    /// replacement, recorded data that contains the value of a secret as it is (not encoded) equals the data in the
    /// test.
    pub fn replace_for_tests<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        self.redactor.with_test_values(bytes)
    }

    /// Returns the names of the secrets that the function can read.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(Secret::expose)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, secret)| (name.as_str(), secret.expose()))
    }

    pub(super) fn redactor(&self) -> &Redactor {
        &self.redactor
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

//! Constructors of failures, and the conversions that `?` uses.

use crate::{Failure, Retry};
use std::fmt::Display;
use std::time::Duration;

/// `?` converts errors by this rule: an error caused by the event itself is a [`Failure::Reject`], because the next
/// attempt would fail too (JSON, UTF-8 and number parsing, a refused publish, state that is not granted). An error with
/// an external cause is a [`Failure::Retry`] (I/O, a failed state operation, and plain text). For errors of HTTP
/// requests, see [`crate::http::Error`]. [`OrFail`] converts any other error to a retry or to a reject, as you choose.
impl Failure {
    /// Creates a failure that may not happen on a later attempt. Evoke retries the delivery as the function's retry
    /// policy says.
    pub fn retry(message: impl Into<String>) -> Self {
        Self::Retry(Retry { message: message.into(), after_ms: None })
    }

    /// Sets the minimum delay before the next attempt. Does not change a reject.
    ///
    /// ```no_run
    /// # extern crate evoke_sdk as evoke;
    /// # use evoke::Failure; use std::time::Duration;
    /// # fn handle() -> Result<(), Failure> {
    /// Err(Failure::retry("the gateway asks to wait").retry_after(Duration::from_secs(30)))
    /// # }
    /// ```
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        if let Self::Retry(retry) = &mut self {
            retry.after_ms = Some(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        }
        self
    }

    /// Creates a failure that would happen on every attempt. The delivery becomes a dead letter, with this message as
    /// its cause.
    pub fn reject(message: impl Into<String>) -> Self {
        Self::Reject(message.into())
    }

    /// Returns the failure's message.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Retry(retry) => &retry.message,
            Self::Reject(message) => message,
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Reject(format!("JSON: {error}"))
    }
}

impl From<std::str::Utf8Error> for Failure {
    fn from(error: std::str::Utf8Error) -> Self {
        Self::Reject(format!("not UTF-8 text: {error}"))
    }
}

impl From<std::string::FromUtf8Error> for Failure {
    fn from(error: std::string::FromUtf8Error) -> Self {
        error.utf8_error().into()
    }
}

impl From<std::num::ParseIntError> for Failure {
    fn from(error: std::num::ParseIntError) -> Self {
        Self::Reject(error.to_string())
    }
}

impl From<std::num::ParseFloatError> for Failure {
    fn from(error: std::num::ParseFloatError) -> Self {
        Self::Reject(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::retry(error.to_string())
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::retry(message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self::retry(message)
    }
}

/// Converts an error to a failure. You choose between a retry and a reject, and name the step that failed.
///
/// ```no_run
/// # extern crate evoke_sdk as evoke;
/// use evoke::OrFail;
/// # fn handle(event: evoke::Event) -> Result<(), evoke::Failure> {
/// let port: u16 = event.text()?.trim().parse().or_reject("the port")?;
/// let rate = evoke::config::get("RATE").or_retry("RATE is not configured")?;
/// # Ok(()) }
/// ```
pub trait OrFail<T> {
    /// Converts an error to a retry with the message `WHAT: ERROR`, and `None` to a retry with the message `WHAT`.
    ///
    /// # Errors
    /// A [`Failure::Retry`] if `self` is an error or `None`.
    fn or_retry(self, what: &str) -> Result<T, Failure>;

    /// Converts an error to a reject with the message `WHAT: ERROR`, and `None` to a reject with the message `WHAT`.
    ///
    /// # Errors
    /// A [`Failure::Reject`] if `self` is an error or `None`.
    fn or_reject(self, what: &str) -> Result<T, Failure>;
}

impl<T, E: Display> OrFail<T> for Result<T, E> {
    fn or_retry(self, what: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::retry(format!("{what}: {error}")))
    }

    fn or_reject(self, what: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::reject(format!("{what}: {error}")))
    }
}

impl<T> OrFail<T> for Option<T> {
    fn or_retry(self, what: &str) -> Result<T, Failure> {
        self.ok_or_else(|| Failure::retry(what))
    }

    fn or_reject(self, what: &str) -> Result<T, Failure> {
        self.ok_or_else(|| Failure::reject(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_the_data_are_rejects_and_others_are_retries() {
        let json = serde_json::from_str::<u8>("x").unwrap_err();
        assert!(matches!(Failure::from(json), Failure::Reject(_)));
        assert!(matches!(Failure::from("down"), Failure::Retry(_)));
        assert!(matches!(Failure::from(std::io::Error::other("down")), Failure::Retry(_)));
        assert_eq!(None::<u8>.or_reject("no key"), Err(Failure::reject("no key")));
        assert_eq!("x".parse::<u8>().or_retry("port").unwrap_err().message(), "port: invalid digit found in string");
    }

    #[test]
    fn a_delay_belongs_to_a_retry_only() {
        let retry = Failure::retry("wait").retry_after(Duration::from_secs(2));
        assert_eq!(retry, Failure::Retry(Retry { message: "wait".into(), after_ms: Some(2_000) }));
        assert_eq!(Failure::reject("no").retry_after(Duration::from_secs(2)), Failure::reject("no"));
    }
}

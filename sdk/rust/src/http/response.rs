//! A response with its whole body.

use super::{Error, from_json};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Maximum length of the start of the body that [`Error::Status`] contains, in bytes.
const EXCERPT_BYTES_MAX: usize = 512;

/// A response with its whole body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

impl Response {
    /// Returns the status, such as 200.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the first header with this name, if it is UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// Returns all headers, with names in lower case.
    #[must_use]
    pub fn headers(&self) -> &[(String, Vec<u8>)] {
        &self.headers
    }

    /// Returns the body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns the body as text.
    ///
    /// # Errors
    /// The body is not UTF-8.
    pub fn text(self) -> Result<String, std::string::FromUtf8Error> {
        String::from_utf8(self.body)
    }

    /// Parses the body as JSON.
    ///
    /// # Errors
    /// The body is not JSON, or not a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        from_json(&self.body)
    }

    /// Returns the response if its status is 2xx.
    ///
    /// # Errors
    /// [`Error::Status`] for every other status, including redirects.
    pub fn ok(self) -> Result<Self, Error> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        let retry_after = self.header("retry-after").and_then(|value| value.trim().parse().ok());
        let start = self.body.get(..EXCERPT_BYTES_MAX).unwrap_or(&self.body);
        let body = String::from_utf8_lossy(start).into_owned();
        Err(Error::Status { status: self.status, retry_after: retry_after.map(Duration::from_secs), body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_success_is_ok() {
        let response =
            |status| Response { status, headers: vec![("retry-after".into(), b"7".to_vec())], body: b"later".to_vec() };
        assert_eq!(response(204).ok().unwrap().status(), 204);
        let retry_after = Some(Duration::from_secs(7));
        assert_eq!(response(503).ok(), Err(Error::Status { status: 503, retry_after, body: "later".into() }));
        assert!(response(302).ok().is_err());
        assert_eq!(response(200).header("Retry-After"), Some("7"));
    }
}

//! Methods of received events, and drafts of events to publish.

use crate::{Draft, Event};
use serde::{Serialize, de::DeserializeOwned};

impl Event {
    /// Parses the payload as JSON. In a function, `?` makes the error a reject, because the data will not change.
    ///
    /// ```no_run
    /// # extern crate evoke_sdk as evoke;
    /// # fn handle(event: evoke::Event) -> Result<(), evoke::Failure> {
    /// let order: std::collections::BTreeMap<String, f64> = event.json()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The data is not JSON, or does not parse as a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.data)
    }

    /// Returns the payload as text.
    ///
    /// # Errors
    /// The data is not UTF-8. `?` makes the error a reject.
    pub fn text(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(&self.data)
    }

    /// Returns the payload's bytes; empty if the event has no data.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Returns an extension attribute, such as `traceparent`.
    #[must_use]
    pub fn extension(&self, name: &str) -> Option<&str> {
        self.extensions.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Draft {
    /// Creates an event of this type, without data.
    ///
    /// ```no_run
    /// # extern crate evoke_sdk as evoke;
    /// # fn handle() -> Result<(), evoke::Failure> {
    /// use evoke::Draft;
    /// let taken = Draft::new("payment.taken").subject("ada").json(&serde_json::json!({ "total": 12.5 }))?;
    /// evoke::publish(taken)?;
    /// # Ok(()) }
    /// ```
    pub fn new(event_type: impl Into<String>) -> Self {
        Self {
            type_: event_type.into(),
            subject: None,
            datacontenttype: None,
            dataschema: None,
            extensions: Vec::new(),
            data: Vec::new(),
            id: None,
        }
    }

    /// Sets the subject: the thing that the event is about.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Sets your own id. The bus drops a second event with the same source and id, so set one if several deliveries may
    /// announce the same thing. Without this, Evoke generates the id.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Adds an extension attribute. Its name may have only lower-case letters and digits.
    #[must_use]
    pub fn extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.push((name.into(), value.into()));
        self
    }

    /// Sets the URI of the schema of the data.
    #[must_use]
    pub fn schema(mut self, uri: impl Into<String>) -> Self {
        self.dataschema = Some(uri.into());
        self
    }

    /// Sets JSON data.
    ///
    /// # Errors
    /// The value has no JSON form, for example a map whose keys are not strings.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self, serde_json::Error> {
        Ok(self.data("application/json", serde_json::to_vec(value)?))
    }

    /// Sets plain text as data.
    #[must_use]
    pub fn text(self, text: impl Into<String>) -> Self {
        self.data("text/plain; charset=utf-8", text.into())
    }

    /// Sets data of any media type.
    #[must_use]
    pub fn data(mut self, media_type: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        self.datacontenttype = Some(media_type.into());
        self.data = data.into();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_carries_its_json_and_its_attributes() {
        let draft = Draft::new("a.b").subject("s").extension("shop", "north").json(&[1, 2]).unwrap();
        assert_eq!(draft.type_, "a.b");
        assert_eq!(draft.subject.as_deref(), Some("s"));
        assert_eq!(draft.datacontenttype.as_deref(), Some("application/json"));
        assert_eq!(draft.data, b"[1,2]");
        assert_eq!(draft.extensions, [("shop".to_owned(), "north".to_owned())]);
        assert_eq!(draft.id, None);
    }
}

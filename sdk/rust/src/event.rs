//! Events as they come in, and drafts of those that go out.

use crate::{Draft, Event};
use serde::{Serialize, de::DeserializeOwned};

impl Event {
    /// The payload as JSON. Inside a function `?` makes an error a reject: the data will not change.
    ///
    /// ```no_run
    /// # extern crate evoke_sdk as evoke;
    /// # fn handle(event: evoke::Event) -> Result<(), evoke::Failure> {
    /// let order: std::collections::BTreeMap<String, f64> = event.json()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The data is not JSON, or not of `T`'s shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.data)
    }

    /// The payload as text.
    ///
    /// # Errors
    /// The data is not UTF-8; with `?` a reject.
    pub fn text(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(&self.data)
    }

    /// The payload's bytes; empty when the event has none.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// An extension attribute, `traceparent` for example.
    #[must_use]
    pub fn extension(&self, name: &str) -> Option<&str> {
        self.extensions.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Draft {
    /// An event of this type, without data.
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

    /// What the event is about.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// An id of your own. The bus drops a second event of the same source and id, so name one where several
    /// deliveries may announce the same thing; else leave it to Evoke.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// An extension attribute; its name has to be lower-case letters and digits.
    #[must_use]
    pub fn extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.push((name.into(), value.into()));
        self
    }

    /// The URI of the schema the data follows.
    #[must_use]
    pub fn schema(mut self, uri: impl Into<String>) -> Self {
        self.dataschema = Some(uri.into());
        self
    }

    /// JSON data.
    ///
    /// # Errors
    /// The value has no JSON form: a map whose keys are not strings, for example.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self, serde_json::Error> {
        Ok(self.data("application/json", serde_json::to_vec(value)?))
    }

    /// Plain text as data.
    #[must_use]
    pub fn text(self, text: impl Into<String>) -> Self {
        self.data("text/plain; charset=utf-8", text.into())
    }

    /// Data of any media type.
    #[must_use]
    pub fn data(mut self, media_type: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        self.datacontenttype = Some(media_type.into());
        self.data = data.into();
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
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

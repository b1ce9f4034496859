//! Methods of received events, and drafts of events to publish.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Draft, Event};
use serde::{Serialize, de::DeserializeOwned};

impl Event {
    /// Parses the payload as JSON. In a function, `?` converts the error to a reject, because a later attempt would get
    /// the same data.
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
    /// The data is not UTF-8. `?` converts this error to a reject.
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

    /// Sets the id of the event; without this call, Evoke generates one. Evoke drops an event whose source and id are
    /// those of an earlier event. So set an id if several deliveries may publish the same event.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Adds an extension attribute. Its name may contain only lower-case letters and digits.
    #[must_use]
    pub fn extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.push((name.into(), value.into()));
        self
    }

    /// Delays the delivery of the event until this time, by setting the attribute `notbefore`. The time may be at most
    /// 366 days ahead. A time in the past delays nothing.
    ///
    /// ```no_run
    /// # extern crate evoke_sdk as evoke;
    /// # fn handle() -> Result<(), evoke::Failure> {
    /// use std::time::{Duration, SystemTime};
    /// let due = SystemTime::now() + Duration::from_secs(3_600);
    /// evoke::publish(evoke::Draft::new("reminder.due").subject("ada").not_before(due))?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn not_before(self, time: SystemTime) -> Self {
        self.extension("notbefore", rfc3339(time))
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

/// Returns a time in RFC 3339, in UTC with milliseconds. Rounds up, so that no event is delivered early. A time before
/// 1970 is written as the start of 1970.
fn rfc3339(time: SystemTime) -> String {
    let ms = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().div_ceil(1_000_000);
    let (days, ms) = (ms / 86_400_000, ms % 86_400_000);
    // The Gregorian calendar repeats after an era of 400 years. Years start in March here, so that the leap day is the
    // last day of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u128::from(month <= 2);
    let (hour, minute, second, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_for_later_is_an_attribute() {
        for (ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (1_709_251_199_000, "2024-02-29T23:59:59.000Z"),
            (1_769_903_999_001, "2026-01-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            let draft = Draft::new("a").not_before(UNIX_EPOCH + Duration::from_millis(ms));
            assert_eq!(draft.extensions, [("notbefore".to_owned(), expected.to_owned())]);
        }
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_nanos(1)), "1970-01-01T00:00:00.001Z");
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
    }

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

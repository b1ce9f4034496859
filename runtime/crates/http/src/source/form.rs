//! Converts forms to JSON: `application/x-www-form-urlencoded` bodies, and the query string of a GET request.
//!
//! The JSON is an object with a member for each name. The value of a member is a string, or a list of strings if the
//! name is sent more than once.

use std::borrow::Cow;
use std::io::{self, Write};

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value};

use crate::problem::Problem;
use evoke_model::event::{Data, Event};
use evoke_model::media_type::{Charset, essence};

/// The media type of forms.
const FORM: &str = "application/x-www-form-urlencoded";
/// The most fields of one form.
const FIELDS_MAX: usize = 1_000;

/// Iterates over the decoded names and values of a form. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn fields(form: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(form.as_bytes())
}

/// If the data of an event is a form, replaces the data by JSON of at most `max` bytes, and returns the size of the
/// JSON. Returns `None` for other data.
pub(super) fn convert(event: &mut Event, max: usize) -> Result<Option<usize>, Problem> {
    let Some(media_type) = event.datacontenttype.as_deref().filter(|kind| essence(kind).eq_ignore_ascii_case(FORM))
    else {
        return Ok(None);
    };
    if Charset::of(media_type) != Charset::Utf8 {
        let detail = format!("`{media_type}`: a form is read as UTF-8; remove the charset");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let json = to_json(event.data.as_bytes(), "the form", max)?;
    let length = json.len();
    (event.data, event.datacontenttype) = (Data::Json(json), Some("application/json".to_owned()));
    Ok(Some(length))
}

/// Sets the query string of a GET request as the data of its event, if the event has no data from a body. Returns the
/// size of the added data.
pub(super) fn add_query(event: &mut Event, query: Option<&str>, max: usize) -> Result<usize, Problem> {
    if let Some(query) = query.filter(|query| !query.is_empty())
        && event.data == Data::None
    {
        event.data = Data::Json(to_json(query.as_bytes(), "the query string", max)?);
        event.datacontenttype = Some("application/json".to_owned());
        return Ok(event.data.as_bytes().len());
    }
    Ok(0)
}

/// Returns a form as JSON. `what` names the form in messages.
fn to_json(form: &[u8], what: &str, max: usize) -> Result<Bytes, Problem> {
    if percent_encoding::percent_decode(form).decode_utf8().is_err() {
        return Err(Problem::malformed(format!("{what} is not UTF-8 after percent-decoding")));
    }
    let mut members: Map<String, Value> = Map::new();
    for (index, (name, value)) in form_urlencoded::parse(form).enumerate() {
        if index == FIELDS_MAX {
            let detail = format!("{what} has more than {FIELDS_MAX} fields");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        let value = Value::String(value.into_owned());
        match members.get_mut(&*name) {
            None => drop(members.insert(name.into_owned(), value)),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    let mut json = Bounded { bytes: Vec::new(), max };
    match serde_json::to_writer(&mut json, &members) {
        Ok(()) => Ok(json.bytes.into()),
        Err(_) => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("{what} is larger than {max} bytes as JSON (`max_body`)"),
        )),
    }
}

/// A writer that fails if more than `max` bytes are written. The limit is needed because control characters take six
/// times their size in JSON.
struct Bounded {
    bytes: Vec<u8>,
    max: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.max - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(form: &str, max: usize) -> Result<String, (u16, String)> {
        let json = to_json(form.as_bytes(), "the form", max);
        json.map(|json| String::from_utf8(json.into()).unwrap())
            .map_err(|problem| (problem.status.as_u16(), problem.detail))
    }

    #[test]
    fn a_form_becomes_an_object_and_repeated_names_a_list() {
        for (form, expected) in [
            ("", "{}"),
            ("a=1", r#"{"a":"1"}"#),
            ("b=2&a=1&a=&a=3", r#"{"a":["1","","3"],"b":"2"}"#),
            ("a=x+y%2B%26%C3%A9", r#"{"a":"x y+&é"}"#),
            ("a&&=x", r#"{"":"x","a":""}"#),
            ("payload=%7B%22x%22%3A1%7D", r#"{"payload":"{\"x\":1}"}"#),
        ] {
            assert_eq!(json(form, 1_000).as_deref(), Ok(expected), "{form}");
        }
    }

    #[test]
    fn a_form_is_bounded_in_fields_and_in_the_size_of_its_json() {
        assert!(json(&"a=1&".repeat(FIELDS_MAX), 100_000).is_ok());
        let (status, detail) = json(&"a=1&".repeat(FIELDS_MAX + 1), 100_000).unwrap_err();
        assert!(status == 413 && detail.contains("1000 fields"), "{detail}");
        let control = format!("a={}", "\u{1}".repeat(100));
        assert_eq!(json(&control, 608).unwrap().len(), 608);
        assert_eq!(json(&control, 607).unwrap_err().0, 413);
    }

    #[test]
    fn a_form_that_is_not_utf_8_is_refused() {
        for form in ["a=%FF", "%C3=x", "a=%C3&b=%A9"] {
            assert_eq!(json(form, 100).unwrap_err().0, 400, "{form}");
        }
    }

    #[test]
    fn only_forms_are_converted() {
        let event = |media_type: &str, body: &str| Event {
            datacontenttype: Some(media_type.to_owned()),
            data: Data::Binary(Bytes::copy_from_slice(body.as_bytes())),
            ..Event::default()
        };
        let mut form = event("Application/X-WWW-Form-Urlencoded; charset=UTF-8", "a=1");
        assert_eq!(convert(&mut form, 100).unwrap(), Some(9));
        assert_eq!(
            (form.data.as_bytes(), form.datacontenttype.as_deref()),
            (&br#"{"a":"1"}"#[..], Some("application/json"))
        );
        let mut other = event("application/x-other", "a=1");
        assert_eq!(convert(&mut other, 100).unwrap(), None);
        assert_eq!(other.data.as_bytes(), b"a=1");
        let mut latin = event("application/x-www-form-urlencoded; charset=latin1", "a=1");
        assert_eq!(convert(&mut latin, 100).unwrap_err().status, 415);
    }
}

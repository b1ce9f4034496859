//! Recordings. A recording has everything that one attempt read from outside, and everything that the attempt did. A
//! test of the function can let another attempt read the same values.
//!
//! The store contains recordings in the JSON form of [`Recording`]. A key that is absent has its default value, so that
//! later versions can add keys.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::UnixMs;
use crate::{DeliveryId, FunctionId, hex, hex_bytes};

/// All that an attempt read from outside, except its event and its configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reads {
    /// Readings of the wall clock, in nanoseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wall_ns: Vec<u64>,
    /// Readings of the monotonic clock, in nanoseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub monotonic_ns: Vec<u64>,
    /// The times that the host set for published events without a time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub published_ms: Vec<UnixMs>,
    /// For each call of `poll` of WASI, or of `ready` for a single pollable: the indexes of the pollables that were
    /// ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub polls: Vec<Vec<u32>>,
    /// The seed of all random numbers; `None` if the attempt could not read any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random: Option<Seed>,
    /// Reads of the function's own bucket of state.
    #[serde(skip_serializing_if = "BucketReads::is_empty")]
    pub state: BucketReads,
    /// Reads of the bucket that the functions of the app share.
    #[serde(skip_serializing_if = "BucketReads::is_empty")]
    pub shared_state: BucketReads,
    /// The requests, in the order in which they were sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<Exchange>,
}

/// Stored state that an attempt read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BucketReads {
    /// The values by key; `None` if the key did not exist.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, Option<Content>>,
    /// The keys that the attempt got when it listed keys.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub keys: BTreeSet<String>,
    /// The number of keys and the number of bytes in the bucket. Quotas limit both numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<(u64, u64)>,
}

impl BucketReads {
    /// Returns true if nothing was read.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.keys.is_empty() && self.usage.is_none()
    }
}

/// A request of an attempt, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The method of the request.
    pub method: String,
    /// The whole URL.
    pub url: String,
    /// The part of the request body that was sent.
    #[serde(default, skip_serializing_if = "Content::is_empty")]
    pub body: Content,
    /// True if `body` is the whole request body.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_sent: bool,
    /// The response or the error; `None` if neither arrived before the attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<ExchangeAnswer>,
}

/// The result of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExchangeAnswer {
    /// A response.
    Response {
        /// The HTTP status.
        status: u16,
        /// The headers, in order. A name can occur several times.
        headers: Vec<(String, String)>,
        /// The part of the body that arrived.
        #[serde(default, skip_serializing_if = "Content::is_empty")]
        body: Content,
        /// The sizes in bytes of the parts in which the body arrived; empty for one part. They are recorded because a
        /// function can wait for each part.
        #[serde(default, skip_serializing_if = "is_whole")]
        parts: Vec<u32>,
        /// The error that ended the body early.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<RequestError>,
        /// True if the attempt waited for more of the body, which did not arrive.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_stalled: bool,
    },
    /// The request ended with an error, without a response.
    Error {
        /// The kind of the error.
        kind: RequestError,
        /// Why Evoke refused the request; `None` for other errors. If the attempt then fails, this text becomes the
        /// message of the outcome.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refusal: Option<String>,
    },
}

fn is_whole(parts: &[u32]) -> bool {
    parts.len() <= 1
}

/// The body of a response in a test of a function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GivenBody {
    /// All bytes that arrive.
    pub bytes: Bytes,
    /// The sizes of the parts in which the bytes arrive. The remaining bytes arrive as one part.
    pub parts: Vec<u32>,
    /// The end of the body.
    pub end: BodyEnd,
}

impl GivenBody {
    /// Returns the parts in which the bytes arrive, without empty parts, and the end of the body.
    pub fn into_parts(self) -> (Vec<Bytes>, BodyEnd) {
        let Self { mut bytes, parts, end } = self;
        let sizes = parts.into_iter().map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        let mut split: Vec<Bytes> = sizes.map(|size| bytes.split_to(size.min(bytes.len()))).collect();
        split.push(bytes);
        split.retain(|part| !part.is_empty());
        (split, end)
    }
}

/// How a body ends after its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BodyEnd {
    /// The body is complete.
    #[default]
    Complete,
    /// The body ends with an error.
    Error(RequestError),
    /// The body does not end before the attempt does.
    Never,
}

/// Why a request has no response, or why the body of a response ended early. Recordings and test files contain the name
/// of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // the names say it
pub enum RequestError {
    NotGranted,
    Invalid,
    AddressRefused,
    Dns,
    DnsTimeout,
    /// The host refused the connection.
    Refused,
    /// The host could not be reached.
    Connect,
    ConnectTimeout,
    /// The certificate of the host was not accepted.
    Certificate,
    Tls,
    /// The response did not begin in time.
    Timeout,
    /// The body of the response paused for too long.
    BetweenBytesTimeout,
    /// There were too many requests or connections at the same time.
    TooMany,
    /// The head of the response was too large.
    ResponseHead,
    RequestBytes,
    ResponseBytes,
    /// The connection ended before the response was complete.
    Closed,
    Protocol,
    Internal,
}

impl RequestError {
    /// All errors with their names.
    pub const ALL: [(&str, Self); 19] = [
        ("refused", Self::Refused),
        ("timeout", Self::Timeout),
        ("dns", Self::Dns),
        ("dns-timeout", Self::DnsTimeout),
        ("connect", Self::Connect),
        ("connect-timeout", Self::ConnectTimeout),
        ("certificate", Self::Certificate),
        ("tls", Self::Tls),
        ("between-bytes-timeout", Self::BetweenBytesTimeout),
        ("closed", Self::Closed),
        ("protocol", Self::Protocol),
        ("too-many", Self::TooMany),
        ("response-head", Self::ResponseHead),
        ("request-bytes", Self::RequestBytes),
        ("response-bytes", Self::ResponseBytes),
        ("address-refused", Self::AddressRefused),
        ("not-granted", Self::NotGranted),
        ("invalid", Self::Invalid),
        ("internal", Self::Internal),
    ];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, error)| *error == self).map_or("internal", |(name, _)| name)
    }
}

/// One attempt: its input, the values that it read, and its effects. A recording does not contain the values of
/// secrets, but replacements.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recording {
    /// The full name of the function, `app/function`.
    pub function: String,
    /// The id of the delivery, as the function received it.
    pub delivery_id: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// The trigger that matched.
    pub trigger: String,
    /// True if the event was replayed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replay: bool,
    /// Why the event, the reads and the effects are missing: the attempt exceeded a limit, or could not be recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_recorded: Option<String>,
    /// The event in CloudEvents JSON form.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub event: String,
    /// The settings of the function, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// The names of the secrets that the function could read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// The values that the attempt read.
    pub reads: Reads,
    /// The kind of the outcome, such as `done`.
    pub outcome: String,
    /// The message of the outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The published events in CloudEvents JSON form.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<String>,
    /// Changes of the function's state: the new value by key, `None` for a deleted key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub state: BTreeMap<String, Option<Content>>,
    /// Changes of the state that the functions of the app share.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub shared_state: BTreeMap<String, Option<Content>>,
    /// The log lines of the function: `LEVEL TEXT`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<String>,
}

/// A recording to store with the outcome of its attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecording {
    /// The JSON form of a [`Recording`].
    pub data: Bytes,
    /// The limits of the function's recordings.
    pub limits: RecordingLimits,
}

/// The limits of the recordings of a function. When a limit is exceeded, the oldest recordings are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordingLimits {
    /// The maximum number of recordings.
    pub count: u32,
    /// The maximum size of all recordings together, in bytes. The newest recording is kept even if it is larger.
    pub bytes: u64,
    /// The age at which a recording is removed.
    pub age: Duration,
}

/// The position of a recording among all recordings of its function, from 1. The numbers of a function can have gaps,
/// but no number is used twice.
pub type RecordingNumber = i64;

/// A stored recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecording {
    /// The function whose attempt was recorded.
    pub function: FunctionId,
    /// The position among the recordings of the function.
    pub number: RecordingNumber,
    /// The delivery of the attempt.
    pub delivery: DeliveryId,
    /// The number of the attempt.
    pub attempt: u32,
    /// The JSON form of a [`Recording`], or a description of the damage to it.
    pub data: Result<Bytes, String>,
}

/// The seed of a generator of random numbers. In JSON, 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

impl Seed {
    /// Parses 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        hex_bytes(text).map(Self)
    }
}

impl Serialize for Seed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("a seed has 64 hexadecimal digits"))
    }
}

/// Bytes that are usually text. In JSON, a string, or `{ "base64": … }` for bytes that are not UTF-8 text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content(pub Vec<u8>);

impl Content {
    /// Returns true if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum ContentForm<'a> {
    Text(std::borrow::Cow<'a, str>),
    Binary { base64: String },
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => ContentForm::Text(text.into()),
            Err(_) => ContentForm::Binary { base64: BASE64.encode(&self.0) },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match ContentForm::deserialize(deserializer)? {
            ContentForm::Text(text) => text.into_owned().into_bytes(),
            ContentForm::Binary { base64 } => BASE64.decode(base64).map_err(D::Error::custom)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_read_back_from_its_json_form() {
        let content = |bytes: &[u8]| Content(bytes.to_vec());
        let values = BTreeMap::from([
            ("a".to_owned(), Some(content(b"\xff\0"))),
            ("b".into(), None),
            ("".into(), Some(content(b"1"))),
        ]);
        let response = ExchangeAnswer::Response {
            status: 200,
            headers: vec![("set-cookie".into(), "a=b".into())],
            body: content(b"\"\n\xe4"),
            parts: vec![1, 2],
            error: Some(RequestError::Closed),
            is_stalled: true,
        };
        let error = ExchangeAnswer::Error { kind: RequestError::Dns, refusal: None };
        let (method, url) = ("GET".to_owned(), "http://a/".to_owned());
        let exchange =
            |answer| Exchange { method: method.clone(), url: url.clone(), body: content(b""), is_sent: true, answer };
        let reads = Reads {
            wall_ns: vec![u64::MAX, 0],
            polls: vec![vec![0, 2], Vec::new()],
            random: Some(Seed([0xa1; 32])),
            state: BucketReads { values, keys: BTreeSet::from(["k".into()]), usage: Some((1, 2)) },
            http: vec![exchange(Some(response)), exchange(Some(error)), exchange(None)],
            ..Reads::default()
        };
        let recording = Recording { function: "a/b".into(), attempt: 3, reads, ..Recording::default() };
        let json = serde_json::to_string(&recording).unwrap();
        assert_eq!(serde_json::from_str::<Recording>(&json).unwrap(), recording, "{json}");
        assert!(json.contains(r#""a":{"base64":"/wA="},"b":null"#), "{json}");
        assert_eq!(serde_json::from_str::<Recording>("{}").unwrap(), Recording::default());
    }

    #[test]
    fn an_error_has_the_same_name_in_json_and_in_test_files() {
        for (name, error) in RequestError::ALL {
            assert_eq!(serde_json::to_value(error).unwrap(), name);
            assert_eq!(error.name(), name);
        }
    }

    #[test]
    fn a_given_body_arrives_in_its_parts() {
        let parts = |sizes: &[u32]| {
            let body = GivenBody { bytes: "abcdef".into(), parts: sizes.to_vec(), end: BodyEnd::Never };
            let (parts, end) = body.into_parts();
            assert_eq!(end, BodyEnd::Never);
            parts.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect::<Vec<_>>().join(" ")
        };
        let of = [&[][..], &[1, 2, 3], &[0, 4], &[9], &[6, 1]];
        assert_eq!(of.map(parts), ["abcdef", "a bc def", "abcd ef", "abcdef", "abcdef"]);
        assert!(GivenBody::default().into_parts().0.is_empty());
    }

    #[test]
    fn a_seed_has_64_digits() {
        assert_eq!(Seed::parse(&"0f".repeat(32)), Some(Seed([15; 32])));
        for wrong in ["", "0f", &"0g".repeat(32), &"0".repeat(63), &"ä".repeat(32), &"+f".repeat(32)] {
            assert_eq!(Seed::parse(wrong), None, "{wrong}");
        }
    }
}

//! Tests of functions: `NAME.test.yaml` files beside a manifest.
//!
//! A test is one attempt: its input (event, clock, configuration, secrets, state, HTTP answers), and the expected
//! result. [`TestFile::load`] reports all mistakes in a file together; [`TestFile::resolve`] finds the functions of the
//! tests in a checked manifest.

mod read;
mod resolve;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{HeaderMap, Method, Uri};
use serde_json::{Map, Value};

use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::load::TEST_FILE;
use crate::source_text::{SourceText, Span};
use evoke_model::clock::UnixMs;
use evoke_model::event::Event;
use evoke_model::recording::{GivenBody, Reads, RequestError};

/// The largest number of tests in a file.
pub const TESTS_MAX: usize = 1_000;
/// The largest number of HTTP answers of a test.
pub const ANSWERS_MAX: usize = 1_000;

/// A file of tests without errors.
#[derive(Debug, Clone)]
pub struct TestFile {
    /// The path of the manifest that the test file names. A relative path is already joined to the folder of the test
    /// file. `None` means `NAME.yaml` or `NAME.yml` beside `NAME.test.yaml`, or else `evoke.yaml`.
    pub manifest: Option<Spanned<PathBuf>>,
    /// The tests, in the order of the file; at least one.
    pub tests: Vec<Test>,
    /// Text of the file, for diagnostics of later checks.
    pub source: Arc<SourceText>,
}

/// A value and its position in the file.
#[derive(Debug, Clone)]
pub struct Spanned<T> {
    /// The parsed value.
    pub value: T,
    /// Range of the value, or of its key.
    pub span: Span,
}

/// One attempt and its expected result.
#[derive(Debug, Clone)]
pub struct Test {
    /// The name of the test. The span is that of the key.
    pub name: Spanned<String>,
    /// Range of the test: the whole text of a test that is written in braces, otherwise the key of the test.
    pub span: Span,
    /// The name of the function; `None` means the only function of the manifest that has a component.
    pub function: Option<Spanned<String>>,
    /// The event. Its time is absent unless the test gives it.
    pub event: Event,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// The wall clock during the attempt; `None` means the clock of the machine.
    pub clock_ms: Option<UnixMs>,
    /// The parts that come from the recording of an attempt; empty in other tests.
    pub recorded: Recorded,
    /// Values of settings. A setting that is not named here has its value under `allow.config`.
    pub config: BTreeMap<String, Spanned<String>>,
    /// Values of secrets. A secret that is not named here has the value `test-NAME`.
    pub secrets: BTreeMap<String, Spanned<String>>,
    /// State of the function before the attempt.
    pub state: Option<Spanned<BTreeMap<String, Value>>>,
    /// State of the app before the attempt.
    pub shared_state: Option<Spanned<BTreeMap<String, Value>>>,
    /// Answers to the requests of the function. A request without an answer is refused.
    pub http: Vec<Answer>,
    /// Expected outcome, events, state, logs and requests.
    pub expect: Expect,
    /// Ranges of the key `expect` and of its value; `None` if the test has no `expect`.
    pub expect_spans: Option<(Span, Span)>,
}

/// The parts of a test that come from a recording of an attempt. Each part is optional.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// Id of the delivery, which the function receives.
    pub delivery: Option<String>,
    /// The trigger that matched.
    pub trigger: Option<String>,
    /// True if the event was replayed.
    pub replay: bool,
    /// Readings of clocks, the seed of random numbers, and state that is not JSON. The answers to requests are in
    /// [`Test::http`].
    pub reads: Reads,
}

/// The answer to a request with this method and URL. If a test has several answers for one method and URL, each request
/// gets the next answer, and the last answer is repeated.
#[derive(Debug, Clone)]
pub struct Answer {
    pub method: Method,
    /// The whole URL.
    pub url: Uri,
    pub reply: Reply,
}

/// How a request of a function ends in a test.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The request ends with a response.
    Response {
        /// The status, at least 200.
        status: u16,
        headers: HeaderMap,
        body: GivenBody,
    },
    /// The request ends with an error, without a response. The text is the reason why Evoke refused the request; `None`
    /// for other errors.
    Error(RequestError, Option<String>),
    /// The request does not end before the attempt ends.
    Never,
}

/// Expected result of an attempt. The outcome is always checked, the other parts only if the test has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Expect {
    /// The kind of the outcome, such as `reject`; `None` means `done`.
    pub outcome: Option<String>,
    /// A text that the outcome's message must contain.
    pub message: Option<String>,
    /// All published events, in order. Only the attributes that the test names are compared.
    pub published: Option<Vec<Map<String, Value>>>,
    /// Changes of the function's state: the new JSON value by key, null for a deleted key. The changes in `state` and
    /// `state_raw` together are all changes of this state.
    pub state: Option<BTreeMap<String, Value>>,
    /// Changes of the app's state, in the same form as `state`.
    pub shared_state: Option<BTreeMap<String, Value>>,
    /// New values of the function's state that are not JSON, by key.
    pub state_raw: Option<BTreeMap<String, Vec<u8>>>,
    /// New values of the app's state that are not JSON, by key.
    pub shared_state_raw: Option<BTreeMap<String, Vec<u8>>>,
    /// Log lines, each `LEVEL TEXT`, that must occur in this order. Other lines can occur between them.
    pub logs: Option<Vec<String>>,
    /// All requests, in order, each with `method`, `url` and `body`. Only the keys that the test names are compared.
    pub http: Option<Vec<Map<String, Value>>>,
}

impl TestFile {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// All mistakes in the file.
    pub fn load(path: &Path) -> Result<Self, Diagnostics> {
        Self::parse(&crate::read_text(path, &TEST_FILE)?, path)
    }

    /// Checks a file that is already in memory. Diagnostics show `path`. A relative path of the manifest starts in the
    /// folder of `path`.
    ///
    /// # Errors
    /// All mistakes in the file.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Diagnostics> {
        let ((manifest, tests), _, source) = crate::check_text(text, path, &TEST_FILE, read::file)?;
        Ok(Self { manifest, tests, source })
    }

    /// Builds an error for a check that runs after the file is loaded.
    pub fn error_at(&self, span: Span, message: impl Into<String>, help: impl Into<String>) -> Diagnostic {
        Diagnostic::error(&self.source, span, message).help(help)
    }
}

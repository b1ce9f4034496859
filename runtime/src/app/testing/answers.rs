//! Answers the requests of an attempt from its test, and records them.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::{Map, Value};

use evoke_manifest::test_file::{self, Reply, ReplyError};
use evoke_sandbox::{Answer, HttpAnswers};

/// The most requests that a test records.
const REQUESTS_MAX: usize = 1_000;
/// The most bytes of request bodies that a test records.
const BODIES_BYTES_MAX: usize = 8 << 20;

/// The host that the requests of an attempt reach.
#[derive(Default)]
pub(super) struct Peer {
    answers: Vec<test_file::Answer>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Indexes of the answers that were given.
    given: Vec<usize>,
    requests: Vec<Map<String, Value>>,
    bodies_bytes: usize,
}

impl Peer {
    pub(super) fn new(answers: Vec<test_file::Answer>) -> Arc<Self> {
        Arc::new(Self { answers, state: Mutex::default() })
    }

    /// Returns the function that answers requests.
    pub(super) fn answers(self: &Arc<Self>) -> HttpAnswers {
        let peer = self.clone();
        Arc::new(move |request| peer.answer(&request))
    }

    /// Returns the requests so far: method, URL, and the body if there is one.
    pub(super) fn requests(&self) -> Vec<Map<String, Value>> {
        std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).requests)
    }

    fn answer(&self, request: &Request<Bytes>) -> Answer {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bodies_bytes = state.bodies_bytes.saturating_add(request.body().len());
        if state.requests.len() >= REQUESTS_MAX || state.bodies_bytes > BODIES_BYTES_MAX {
            return Answer::Denied(format!(
                "a test records at most {REQUESTS_MAX} requests, with bodies of {} MiB together",
                BODIES_BYTES_MAX >> 20
            ));
        }
        state.requests.push(record(request));
        let matching = self.answers.iter().enumerate().filter(|(_, answer)| is_for(answer, request));
        let matching: Vec<(usize, &test_file::Answer)> = matching.collect();
        let unused = matching.iter().find(|(index, _)| !state.given.contains(index));
        match unused.or(matching.last()) {
            Some((index, answer)) => {
                state.given.push(*index);
                reply(&answer.reply)
            }
            None => Answer::Denied(format!(
                "the test has no answer to {} {}; add one under `http`",
                request.method(),
                request.uri()
            )),
        }
    }
}

fn is_for(answer: &test_file::Answer, request: &Request<Bytes>) -> bool {
    answer.method == *request.method() && answer.url == *request.uri()
}

fn reply(reply: &Reply) -> Answer {
    match reply {
        Reply::Response { status, headers, body } => {
            let mut response = Response::new(Bytes::from(body.clone()));
            *response.status_mut() = StatusCode::from_u16(*status).unwrap_or_default();
            *response.headers_mut() = headers.clone();
            Answer::Response(response)
        }
        Reply::Error(ReplyError::Refused) => Answer::ConnectionRefused,
        Reply::Error(ReplyError::Timeout) => Answer::Timeout,
        Reply::Error(ReplyError::Dns) => Answer::UnknownHost,
    }
}

fn record(request: &Request<Bytes>) -> Map<String, Value> {
    let mut record = Map::new();
    record.insert("method".into(), request.method().as_str().into());
    record.insert("url".into(), request.uri().to_string().into());
    if !request.body().is_empty() {
        record.insert("body".into(), json_or_text(request.body()));
    }
    record
}

/// Parses JSON; other bytes are text.
pub(super) fn json_or_text(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use evoke_manifest::TestFile;
    use std::path::Path;

    #[test]
    fn answers_to_one_request_are_given_in_order_and_the_last_one_is_repeated() {
        let text = "tests:\n  a:\n    http:\n      - { url: 'http://a/x', status: 503 }\n      - { url: 'http://a/y' }\n      \
                    - { url: 'http://a/x', body: [1] }\n";
        let file = TestFile::parse(text, Path::new("a.test.yaml")).unwrap();
        let peer = Peer::new(file.tests[0].http.clone());
        let get = |url: &str| match peer.answer(&Request::get(url).body(Bytes::from_static(b"{}")).unwrap()) {
            Answer::Response(response) => response.status().as_u16().to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!([get("http://a/x"), get("http://a/x"), get("http://a/x")], ["503", "200", "200"]);
        assert!(get("http://a/z").contains("no answer to GET http://a/z"));
        let requests = peer.requests();
        assert_eq!((requests.len(), &requests[0]["body"]), (4, &serde_json::json!({})));
    }

    #[test]
    fn the_number_of_recorded_requests_is_bounded() {
        let peer = Peer::new(Vec::new());
        let request = Request::get("http://a/").body(Bytes::new()).unwrap();
        (0..REQUESTS_MAX).for_each(|_| drop(peer.answer(&request)));
        assert!(format!("{:?}", peer.answer(&request)).contains("at most 1000 requests"));
        let peer = Peer::new(Vec::new());
        let large = Request::post("http://a/").body(Bytes::from(vec![b'x'; BODIES_BYTES_MAX + 1])).unwrap();
        assert!(format!("{:?}", peer.answer(&large)).contains("8 MiB"));
    }
}

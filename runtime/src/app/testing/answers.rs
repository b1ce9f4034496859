//! Answers the requests of an attempt with the responses in its test, and records the requests.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::{Map, Value};

use crate::recorded::json_or_text;
use evoke_manifest::test_file::{self, Reply};
use evoke_sandbox::{Answer, BodyAnswer, HttpAnswers, Secrets};

/// Maximum number of requests that a test records.
const REQUESTS_MAX: usize = 1_000;
/// Maximum total size of the request bodies that a test records, in bytes.
const BODIES_BYTES_MAX: usize = 8 << 20;

/// Answers the requests of an attempt in place of the real hosts.
#[derive(Default)]
pub(super) struct Peer {
    answers: Vec<test_file::Answer>,
    /// The secrets of the function, if the test is a recorded attempt. A recording has replacements in place of the
    /// values of secrets and their encoded forms. The requests get the same replacements before they are compared.
    secrets: Option<Secrets>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Indexes of the answers that were already given.
    given: Vec<usize>,
    requests: Vec<Map<String, Value>>,
    bodies_bytes: usize,
}

impl Peer {
    pub(super) fn new(answers: Vec<test_file::Answer>, secrets: Option<Secrets>) -> Arc<Self> {
        Arc::new(Self { answers, secrets, state: Mutex::default() })
    }

    /// Returns the callback with which the sandbox gets the answers to the requests.
    pub(super) fn answers(self: &Arc<Self>) -> HttpAnswers {
        let peer = self.clone();
        Arc::new(move |head| peer.clone().start(head))
    }

    /// Returns the requests so far, each with method, URL, and its body if it has one.
    pub(super) fn requests(&self) -> Vec<Map<String, Value>> {
        std::mem::take(&mut self.lock().requests)
    }

    /// Replaces the values and the encoded forms of secrets in the same way as a recording does.
    fn plain<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        self.secrets.as_ref().map_or(bytes.into(), |secrets| secrets.replace_for_tests(bytes))
    }

    /// Records a request, and selects its answer: the first matching answer that was not given yet; if all were given,
    /// the last matching answer.
    fn start(self: Arc<Self>, head: &Parts) -> BodyAnswer {
        let url = head.uri.to_string();
        let url = String::from_utf8_lossy(&self.plain(url.as_bytes())).into_owned();
        let mut state = self.lock();
        if state.requests.len() >= REQUESTS_MAX {
            return Box::new(|_| too_many());
        }
        let place = state.requests.len();
        state.requests.push(Map::from_iter([
            ("method".to_owned(), head.method.as_str().into()),
            ("url".to_owned(), url.as_str().into()),
        ]));
        let matching = self.answers.iter().enumerate();
        let matching = matching.filter(|(_, answer)| answer.method == head.method && answer.url == *url);
        let matching: Vec<(usize, &test_file::Answer)> = matching.collect();
        let unused = matching.iter().find(|(index, _)| !state.given.contains(index));
        let answer = match unused.or(matching.last()) {
            Some((index, answer)) => {
                state.given.push(*index);
                reply(&answer.reply)
            }
            None => {
                Answer::Missing(format!("the test has no answer to {} {}; add one under `http`", head.method, head.uri))
            }
        };
        drop(state);
        Box::new(move |body| self.end(place, &body, answer))
    }

    /// Records the body of a request.
    fn end(&self, place: usize, body: &[u8], answer: Answer) -> Answer {
        let mut state = self.lock();
        state.bodies_bytes = state.bodies_bytes.saturating_add(body.len());
        if state.bodies_bytes > BODIES_BYTES_MAX {
            return too_many();
        }
        if let Some(request) = state.requests.get_mut(place)
            && !body.is_empty()
        {
            request.insert("body".to_owned(), json_or_text(&self.plain(body)));
        }
        answer
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_many() -> Answer {
    Answer::Missing(format!(
        "the attempt exceeds a limit of tests: at most {REQUESTS_MAX} requests and {} MiB of request bodies",
        BODIES_BYTES_MAX >> 20
    ))
}

fn reply(reply: &Reply) -> Answer {
    match reply {
        Reply::Response { status, headers, body } => {
            let mut response = Response::new(body.clone());
            *response.status_mut() = StatusCode::from_u16(*status).unwrap_or_default();
            *response.headers_mut() = headers.clone();
            Answer::Response(response)
        }
        Reply::Error(error, refusal) => Answer::Error(*error, refusal.clone()),
        Reply::Never => Answer::Never,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use evoke_manifest::TestFile;
    use http::Request;
    use std::path::Path;

    fn head(url: &str) -> Parts {
        Request::get(url).body(()).unwrap().into_parts().0
    }

    #[test]
    fn answers_to_one_request_are_given_in_order_and_the_last_one_is_repeated() {
        let text = "tests:\n  a:\n    http:\n      - { url: 'http://a/x', status: 503 }\n      - { url: 'http://a/y' }\n      \
                    - { url: 'http://a/x', body: [1] }\n";
        let file = TestFile::parse(text, Path::new("a.test.yaml")).unwrap();
        let peer = Peer::new(file.tests[0].http.clone(), None);
        let get = |url: &str| match peer.clone().start(&head(url))(Bytes::from_static(b"{}")) {
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
        let peer = Peer::new(Vec::new(), None);
        let answer = |peer: &Arc<Peer>, body: Bytes| format!("{:?}", peer.clone().start(&head("http://a/"))(body));
        (0..REQUESTS_MAX).for_each(|_| drop(answer(&peer, Bytes::new())));
        assert!(answer(&peer, Bytes::new()).contains("at most 1000 requests"));
        let peer = Peer::new(Vec::new(), None);
        assert!(answer(&peer, Bytes::from(vec![b'x'; BODIES_BYTES_MAX + 1])).contains("8 MiB"));
    }
}

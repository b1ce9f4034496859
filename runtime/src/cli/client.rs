//! Finds a running Evoke and asks its admin API.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Response;

use super::{Common, Failure};

/// A running Evoke.
pub(super) struct Client {
    agent: ureq::Agent,
    base: String,
}

/// The largest answer that is not a list: a trace has 16 MiB of events, which JSON may write six times as long.
const ANSWER_BYTES_MAX: u64 = 128 * 1024 * 1024;
const PROBLEM_BYTES_MAX: u64 = 64 * 1024;

impl Client {
    /// Finds it by `--admin`, else by the `listen.json` of the data folder.
    pub(super) fn find(common: &Common) -> Result<Self, Failure> {
        let address = match common.reach.admin {
            Some(address) => address.to_string(),
            None => announced(common.folder())?,
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // It is near: a proxy is for what is far.
            .proxy(None)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        Ok(Self { agent, base: format!("http://{address}") })
    }

    /// Asks for a JSON value; answers its text.
    pub(super) fn get(&self, path: &str, query: &[(&str, String)]) -> Result<String, Failure> {
        self.text(self.checked(self.request(path, query).call())?)
    }

    /// Sends a JSON value; answers the text of another.
    pub(super) fn post(&self, path: &str, body: &impl Serialize) -> Result<String, Failure> {
        // What is sent are strings, numbers and JSON, which is kept as it was written.
        let body = serde_json::to_vec(body).unwrap_or_default();
        let request = self.agent.post(format!("{}{path}", self.base)).content_type("application/json");
        self.text(self.checked(request.send(&body[..]))?)
    }

    /// Puts a JSON value somewhere.
    pub(super) fn put(&self, path: &str, body: &impl Serialize) -> Result<(), Failure> {
        // What is sent are strings.
        let body = serde_json::to_vec(body).unwrap_or_default();
        let request = self.agent.put(format!("{}{path}", self.base)).content_type("application/json");
        self.checked(request.send(&body[..])).map(drop)
    }

    /// Removes what is there; answers the text of a JSON value.
    pub(super) fn delete(&self, path: &str) -> Result<String, Failure> {
        self.text(self.checked(self.agent.delete(format!("{}{path}", self.base)).call())?)
    }

    /// Asks for lines, and hands over each as it comes.
    pub(super) fn lines(
        &self,
        path: &str,
        query: &[(&str, String)],
        mut line: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let response = self.checked(self.request(path, query).call())?;
        for text in BufReader::new(response.into_body().into_reader()).lines() {
            line(&text.map_err(|e| Failure::Failed(format!("the answer of {} broke off: {e}", self.base)))?)?;
        }
        Ok(())
    }

    fn request(&self, path: &str, query: &[(&str, String)]) -> ureq::RequestBuilder<ureq::typestate::WithoutBody> {
        let request = self.agent.get(format!("{}{path}", self.base));
        query.iter().fold(request, |request, (name, value)| request.query(*name, value))
    }

    fn text(&self, response: Response<ureq::Body>) -> Result<String, Failure> {
        let mut body = response.into_body();
        let read = body.with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        read.map_err(|e| Failure::Failed(format!("the answer of {} broke off: {e}", self.base)))
    }

    fn checked(&self, result: Result<Response<ureq::Body>, ureq::Error>) -> Result<Response<ureq::Body>, Failure> {
        let response = result.map_err(|error| {
            Failure::NotRunning(format!("nothing answers at {} ({error}); start it with `evoke up`", self.base))
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let mut text = String::new();
        let _ = response.into_body().into_reader().take(PROBLEM_BYTES_MAX).read_to_string(&mut text);
        let problem: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        let detail = problem.and_then(|problem| Some(problem.get("detail")?.as_str()?.to_owned()));
        let detail = detail.unwrap_or_else(|| format!("{} answered {status}", self.base));
        Err(if status == 404 { Failure::NotFound(detail) } else { Failure::Failed(detail) })
    }
}

/// The admin address that `evoke up` noted in its data folder.
fn announced(data: &Path) -> Result<String, Failure> {
    let path = data.join("listen.json");
    let text = std::fs::read_to_string(&path).map_err(|_| {
        let folder = data.display();
        Failure::NotRunning(format!(
            "nothing is running with the data folder {folder}; start it with `evoke up`, or name another with --data or --admin"
        ))
    })?;
    let found: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let address = found.and_then(|found| Some(found.get("admin")?.as_str()?.to_owned()));
    address.ok_or_else(|| Failure::Failed(format!("{} is damaged; restart `evoke up`", path.display())))
}

/// Reads what the API answered.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|e| {
        Failure::Failed(format!("the answer is not understood: {e}; is it an Evoke of this version that answers?"))
    })
}

/// A path segment: everything but unreserved characters is encoded (RFC 3986, section 2.3).
pub(super) fn segment(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

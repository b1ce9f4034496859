//! HTTP client for the admin API of a running Evoke.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Response;

use super::{Common, Failure};

/// The admin API of a running Evoke.
pub(super) struct Client {
    agent: ureq::Agent,
    base_url: String,
}

/// Maximum size of a response that is not a list. A trace has at most 16 MiB of events; JSON escapes can make them six
/// times as long.
const RESPONSE_BYTES_MAX: u64 = 128 * 1024 * 1024;
const PROBLEM_BYTES_MAX: u64 = 64 * 1024;

impl Client {
    /// Uses the address of `--admin`, else the one in `listen.json` in the data folder. Does not connect yet.
    pub(super) fn find(common: &Common) -> Result<Self, Failure> {
        let address = match common.client_args.admin {
            Some(address) => address.to_string(),
            None => read_admin_address(common.data_folder())?,
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // The admin API is usually on this machine: never use a proxy.
            .proxy(None)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        Ok(Self { agent, base_url: format!("http://{address}") })
    }

    /// Sends a GET request. Returns the JSON text of the response.
    pub(super) fn get(&self, path: &str, query: &[(&str, String)]) -> Result<String, Failure> {
        self.read_body(self.check_status(self.request(path, query).call())?)
    }

    /// Sends a POST request with a JSON body. Returns the JSON text of the response.
    pub(super) fn post(&self, path: &str, body: &impl Serialize) -> Result<String, Failure> {
        // Strings, numbers and raw JSON always serialise.
        let body = serde_json::to_vec(body).unwrap_or_default();
        let request = self.agent.post(format!("{}{path}", self.base_url)).content_type("application/json");
        self.read_body(self.check_status(request.send(&body[..]))?)
    }

    /// Sends a PUT request with a JSON body.
    pub(super) fn put(&self, path: &str, body: &impl Serialize) -> Result<(), Failure> {
        // Strings always serialise.
        let body = serde_json::to_vec(body).unwrap_or_default();
        let request = self.agent.put(format!("{}{path}", self.base_url)).content_type("application/json");
        self.check_status(request.send(&body[..])).map(drop)
    }

    /// Sends a DELETE request. Returns the JSON text of the response.
    pub(super) fn delete(&self, path: &str) -> Result<String, Failure> {
        self.read_body(self.check_status(self.agent.delete(format!("{}{path}", self.base_url)).call())?)
    }

    /// Sends a GET request for a list and calls `line` with each line as soon as it arrives.
    pub(super) fn lines(
        &self,
        path: &str,
        query: &[(&str, String)],
        mut line: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let response = self.check_status(self.request(path, query).call())?;
        for text in BufReader::new(response.into_body().into_reader()).lines() {
            line(&text.map_err(|e| Failure::Failed(format!("the response of {} is incomplete: {e}", self.base_url)))?)?;
        }
        Ok(())
    }

    fn request(&self, path: &str, query: &[(&str, String)]) -> ureq::RequestBuilder<ureq::typestate::WithoutBody> {
        let request = self.agent.get(format!("{}{path}", self.base_url));
        query.iter().fold(request, |request, (name, value)| request.query(*name, value))
    }

    fn read_body(&self, response: Response<ureq::Body>) -> Result<String, Failure> {
        let mut body = response.into_body();
        let read = body.with_config().limit(RESPONSE_BYTES_MAX).read_to_string();
        read.map_err(|e| Failure::Failed(format!("the response of {} is incomplete: {e}", self.base_url)))
    }

    fn check_status(&self, result: Result<Response<ureq::Body>, ureq::Error>) -> Result<Response<ureq::Body>, Failure> {
        let response = result.map_err(|error| {
            Failure::NotRunning(format!("cannot reach Evoke at {} ({error}); start one with `evoke up`", self.base_url))
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let mut text = String::new();
        let _ = response.into_body().into_reader().take(PROBLEM_BYTES_MAX).read_to_string(&mut text);
        let problem: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        let detail = problem.and_then(|problem| Some(problem.get("detail")?.as_str()?.to_owned()));
        let detail = detail.unwrap_or_else(|| format!("{} responded with status {status}", self.base_url));
        Err(if status == 404 { Failure::NotFound(detail) } else { Failure::Failed(detail) })
    }
}

/// Reads the admin address from `listen.json`, which `evoke up` writes into its data folder.
fn read_admin_address(data: &Path) -> Result<String, Failure> {
    let path = data.join("listen.json");
    let text = evoke_fs::read_text(&path, PROBLEM_BYTES_MAX).map_err(|_| {
        let folder = data.display();
        Failure::NotRunning(format!(
            "no Evoke is running with the data folder {folder}; start one with `evoke up`, or choose another with --data or --admin"
        ))
    })?;
    let found: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let address = found.and_then(|found| Some(found.get("admin")?.as_str()?.to_owned()));
    address.ok_or_else(|| Failure::Failed(format!("{} is damaged; restart `evoke up`", path.display())))
}

/// Parses a JSON response of the API.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|e| {
        Failure::Failed(format!("cannot parse the response: {e}; check that the running Evoke has the same version"))
    })
}

/// Percent-encodes a path segment: every byte that is not an unreserved character (RFC 3986, section 2.3).
pub(super) fn encode_segment(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

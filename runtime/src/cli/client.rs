//! Finds a running Evoke and asks its admin API.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Common, Failure};

/// A running Evoke.
pub(super) struct Client {
    agent: ureq::Agent,
    base: String,
}

/// The most of an answer that is not a stream: 1,000 of the largest events would be more, ordinary ones are not.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

impl Client {
    /// Finds it by `--admin`, else by the `listen.json` of the data folder.
    pub(super) fn find(common: &Common) -> Result<Self, Failure> {
        let address = match common.reach.admin {
            Some(address) => address.to_string(),
            None => {
                let path = common.folder().join("listen.json");
                let text = std::fs::read_to_string(&path).map_err(|_| {
                    Failure::NotRunning(format!(
                        "nothing is running with the data folder {}; start it with `evoke up`, or name another with --data or --admin",
                        common.folder().display()
                    ))
                })?;
                let found: Option<serde_json::Value> = serde_json::from_str(&text).ok();
                let address = found.and_then(|found| Some(found.get("admin")?.as_str()?.to_owned()));
                address.ok_or_else(|| Failure::Failed(format!("{} is damaged; restart `evoke up`", path.display())))?
            }
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .build()
            .new_agent();
        Ok(Self { agent, base: format!("http://{address}") })
    }

    /// Asks for a JSON value.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, Failure> {
        self.answer(self.request(path, query).call())
    }

    /// Sends a JSON value.
    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.answer(self.agent.post(format!("{}{path}", self.base)).send_json(body))
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
            line(&text.map_err(|e| Failure::Failed(format!("the answer broke off: {e}")))?)?;
        }
        Ok(())
    }

    fn request(&self, path: &str, query: &[(&str, String)]) -> ureq::RequestBuilder<ureq::typestate::WithoutBody> {
        let request = self.agent.get(format!("{}{path}", self.base));
        query.iter().fold(request, |request, (name, value)| request.query(*name, value))
    }

    fn answer<T: DeserializeOwned>(
        &self,
        result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, Failure> {
        let mut body = self.checked(result)?.into_body();
        body.with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_json()
            .map_err(|e| Failure::Failed(format!("the answer of {} is not understood: {e}", self.base)))
    }

    fn checked(
        &self,
        result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<ureq::http::Response<ureq::Body>, Failure> {
        let response = result.map_err(|error| {
            Failure::NotRunning(format!("nothing answers at {} ({error}); start it with `evoke up`", self.base))
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let mut text = String::new();
        let _ = response.into_body().into_reader().take(64 * 1024).read_to_string(&mut text);
        let problem: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        let detail = problem.and_then(|problem| Some(problem.get("detail")?.as_str()?.to_owned())).unwrap_or(text);
        let detail = if detail.is_empty() { status.to_string() } else { detail };
        Err(if status == 404 { Failure::NotFound(detail) } else { Failure::Failed(detail) })
    }
}

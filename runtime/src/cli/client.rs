//! HTTP client for the admin API of a running Evoke.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector as _, TcpConnector};

use super::address::AdminAddress;
use super::listener;
use super::tls::TlsConnector;
use super::{Common, Failure};
use crate::admin::tokens;

/// The admin API of a running Evoke.
pub(super) struct Client {
    agent: ureq::Agent,
    base_url: String,
    /// The token, or why there is none.
    token: Result<String, String>,
}

/// Maximum size of a response that is not a list. A trace has at most 16 MiB of events; JSON escapes can make them six
/// times as long.
const RESPONSE_BYTES_MAX: u64 = 128 * 1024 * 1024;
const PROBLEM_BYTES_MAX: u64 = 64 * 1024;

impl Client {
    /// Uses the address of `--admin`, else the one in `listen.json` in the data folder; and the token of `--token-file`,
    /// else of `EVOKE_TOKEN`, else the owner's in the data folder. Does not connect yet.
    pub(super) fn find(common: &Common) -> Result<Self, Failure> {
        let listened = read_listened(common.data_folder());
        let Listened { address, certificates } = match &common.client_args.admin {
            None => listened?,
            Some(given) => match listened {
                Ok(listened) if given.is_of(&listened.address) => listened,
                _ => Listened { address: given.clone(), certificates: Vec::new() },
            },
        };
        let token = find_token(common, &address, !certificates.is_empty())?;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // The admin API is usually on this machine: never use a proxy.
            .proxy(None)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            // The admin API never redirects, and the token must not reach another server.
            .max_redirects(0)
            .build();
        let agent = if address.is_tls() {
            let authorities = common.client_args.admin_ca.as_deref();
            let tls = match certificates.is_empty() {
                true => TlsConnector::trusting(authorities),
                false => TlsConnector::pinned(certificates),
            };
            let connector = ().chain(TcpConnector::default()).chain(tls.map_err(Failure::Failed)?);
            ureq::Agent::with_parts(config, connector, DefaultResolver::default())
        } else {
            config.new_agent()
        };
        Ok(Self { agent, base_url: address.base_url(), token })
    }

    /// Returns the URL of the admin API, without a path.
    pub(super) fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Sends a GET request. Returns the JSON text of the response.
    pub(super) fn get(&self, path: &str, query: &[(&str, String)]) -> Result<String, Failure> {
        self.read_body(self.check_status(self.request(path, query).call())?)
    }

    /// Sends a POST request with a JSON body. Returns the JSON text of the response.
    pub(super) fn post(&self, path: &str, body: &impl Serialize) -> Result<String, Failure> {
        // Strings, numbers and raw JSON always serialise.
        let body = serde_json::to_vec(body).unwrap_or_default();
        let request = self.authorize(self.agent.post(format!("{}{path}", self.base_url)));
        let request = request.content_type("application/json");
        self.read_body(self.check_status(request.send(&body[..]))?)
    }

    /// Sends a PUT request with a JSON body.
    pub(super) fn put(&self, path: &str, body: &impl Serialize) -> Result<(), Failure> {
        // Strings always serialise.
        let body = serde_json::to_vec(body).unwrap_or_default();
        let request = self.authorize(self.agent.put(format!("{}{path}", self.base_url)));
        let request = request.content_type("application/json");
        self.check_status(request.send(&body[..])).map(drop)
    }

    /// Sends a DELETE request. Returns the JSON text of the response.
    pub(super) fn delete(&self, path: &str) -> Result<String, Failure> {
        let request = self.authorize(self.agent.delete(format!("{}{path}", self.base_url)));
        self.read_body(self.check_status(request.call())?)
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
        let request = self.authorize(self.agent.get(format!("{}{path}", self.base_url)));
        query.iter().fold(request, |request, (name, value)| request.query(*name, value))
    }

    fn authorize<T>(&self, request: ureq::RequestBuilder<T>) -> ureq::RequestBuilder<T> {
        match &self.token {
            Ok(token) => request.header("authorization", format!("Bearer {token}")),
            Err(_) => request,
        }
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
        Err(match (status.as_u16(), &self.token) {
            (404, _) => Failure::NotFound(detail),
            (401, Err(reason)) => Failure::Failed(format!("there is no token for {}: {reason}", self.base_url)),
            _ => Failure::Failed(detail),
        })
    }
}

/// What `listen.json` says about the admin API.
struct Listened {
    address: AdminAddress,
    /// The certificates of the listener, by SHA-256 in hexadecimal.
    certificates: Vec<String>,
}

/// Reads `listen.json`, which `evoke up` writes into its data folder.
fn read_listened(data: &Path) -> Result<Listened, Failure> {
    let path = data.join("listen.json");
    let text = evoke_fs::read_text(&path, PROBLEM_BYTES_MAX).map_err(|_| {
        let folder = data.display();
        Failure::NotRunning(format!(
            "no Evoke is running with the data folder {folder}; start one with `evoke up`, or choose another with --data or --admin"
        ))
    })?;
    let found: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let listened = found.and_then(|found| {
        let hashes = found.get("admin_certificates_sha256").and_then(|hashes| hashes.as_array());
        let hashes = hashes.into_iter().flatten().filter_map(|hash| hash.as_str().map(str::to_owned));
        Some(Listened { address: found.get("admin")?.as_str()?.parse().ok()?, certificates: hashes.collect() })
    });
    listened.ok_or_else(|| Failure::Failed(format!("{} is damaged; restart `evoke up`", path.display())))
}

/// Returns the token, or why there is none. A token that is named explicitly must be readable. With `is_recognised`, only
/// the Evoke of the data folder can be reached, wherever the address is.
fn find_token(common: &Common, address: &AdminAddress, is_recognised: bool) -> Result<Result<String, String>, Failure> {
    let advice = "give a token with --token-file or EVOKE_TOKEN, or the data folder of the running Evoke with --data";
    let checked = |from: &str, text: &str| {
        let token = text.trim();
        let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        is_token.then(|| token.to_owned()).ok_or_else(|| Failure::Failed(format!("{from} has no token")))
    };
    if let Some(path) = &common.client_args.token_file {
        let path_text = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|e| Failure::Failed(format!("cannot read {path_text}: {e}")))?;
        return Ok(Ok(checked(&path_text, &text)?));
    }
    // Not an option: other users see the arguments of a process.
    if let Some(text) = std::env::var_os("EVOKE_TOKEN").filter(|text| !text.is_empty()) {
        return Ok(Ok(checked("EVOKE_TOKEN", &text.to_string_lossy())?));
    }
    if !is_recognised && !address.is_loopback() {
        return Ok(Err(format!("the owner's token is sent to this machine only; {advice}")));
    }
    let data = common.data_folder();
    if !is_recognised && let Some(user) = listener::foreign_user(address.port(), &data.join("admin.token")) {
        let detail = format!("the listener at {address} belongs to the user with the id {user}, so it gets no token");
        return Err(Failure::NotRunning(format!("{detail}; start Evoke with `evoke up`")));
    }
    Ok(match tokens::read_owner(data) {
        Ok(Some(token)) => Ok(token),
        Ok(None) => Err(format!("there is no file {}; {advice}", data.join("admin.token").display())),
        Err(error) => Err(format!("{error:#}; {advice}")),
    })
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

//! Client of the admin API. Sends requests over HTTP to a running Evoke. With `--offline`, sends them to an API in this
//! process, which reads the store in a folder.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::Method;
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector as _, TcpConnector};

use super::address::AdminAddress;
use super::listener::Stranger;
use super::loopback::LoopbackConnector;
use super::tls::TlsConnector;
use super::{Common, Failure, token_file};
use crate::admin::tokens;
use crate::offline::Offline;
use evoke_model::Json;
use evoke_model::text::parser_message;

/// A client of the admin API.
pub(super) enum Client {
    /// Sends requests to a running Evoke.
    Running(Connection),
    /// Reads the store in a folder, in this process.
    Offline(Box<Offline>),
}

/// The address of a running Evoke, and the settings and the token for requests to it.
pub(super) struct Connection {
    agent: ureq::Agent,
    base_url: String,
    /// The token, or the reason why there is no token.
    token: Result<String, String>,
}

/// Maximum size of a response that is not a list. A trace has at most 16 MiB of events; JSON escapes can make them six
/// times as long.
const RESPONSE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Maximum size of `listen.json`, and of an error response. The rest of a longer error response is not read.
const PROBLEM_BYTES_MAX: u64 = 64 * 1024;

impl Client {
    /// With `--offline`, opens the store in that folder. Otherwise, reads the address and the token, and does not
    /// connect yet. The address is that of `--admin`, else of `listen.json` in the data folder. The token is that of
    /// `--token-file`, else of `EVOKE_TOKEN`, else the owner's token in the data folder.
    pub(super) fn find(common: &Common) -> Result<Self, Failure> {
        if let Some(folder) = &common.client_args.offline {
            let opened = Offline::open(folder).map_err(|error| Failure::Failed(format!("{error:#}")))?;
            return Ok(Self::Offline(Box::new(opened)));
        }
        let data = common.existing_data_folder().map_err(|error| error.to_string());
        let listened = data.as_deref().map_err(|error| Failure::Failed(error.clone())).and_then(read_listened);
        let Listened { address, certificates } = match &common.client_args.admin {
            None => listened?,
            Some(given) => match listened {
                Ok(listened) if given.is_of(&listened.address) => listened,
                _ => Listened { address: given.clone(), certificates: Vec::new() },
            },
        };
        if !address.is_tls() && !address.is_local() {
            return Err(Failure::Usage(address.without_tls()));
        }
        let data = data.as_deref();
        let token = find_token(common, &address, data, address.is_tls() && !certificates.is_empty())?;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // The admin API is usually on this machine, so the proxy that the environment names is not used.
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
            let connector = LoopbackConnector::new(data.ok());
            ureq::Agent::with_parts(config, connector, DefaultResolver::default())
        };
        Ok(Self::Running(Connection { agent, base_url: address.base_url(), token }))
    }

    /// Returns the URL of the admin API, without a path.
    pub(super) fn base_url(&self) -> Result<&str, Failure> {
        Ok(&self.running()?.base_url)
    }

    /// Sends a GET request. Returns the JSON text of the response.
    pub(super) fn get(&self, path: &str, query: &[(&str, String)]) -> Result<String, Failure> {
        self.read_body(self.open(path, query)?)
    }

    /// Sends a POST request with a JSON body. Returns the JSON text of the response.
    pub(super) fn post(&self, path: &str, body: &impl Serialize) -> Result<String, Failure> {
        self.read_body(self.open_post(path, body)?)
    }

    /// Sends a POST request with a JSON body. Passes each line of the response to `line`.
    pub(super) fn post_lines(
        &self,
        path: &str,
        body: &impl Serialize,
        line: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.each_line(self.open_post(path, body)?, line)
    }

    /// Sends a POST request with a JSON body, and returns the body of its response.
    fn open_post(&self, path: &str, body: &impl Serialize) -> Result<Box<dyn Read + '_>, Failure> {
        let connection = self.running()?;
        // Serialising strings, numbers and raw JSON cannot fail.
        let body = serde_json::to_vec(body).unwrap_or_default();
        let request = connection.authorize(connection.agent.post(connection.url(path)));
        connection.check_status(request.content_type("application/json").send(&body[..]))
    }

    /// Sends a POST request with JSON text. The error shows whether the caller should send the request again.
    pub(super) fn try_post(&self, path: &str, body: &[u8]) -> Result<String, PostError> {
        let connection = self.running().map_err(|failure| PostError::Failed(failure.to_string()))?;
        let request = connection.authorize(connection.agent.post(connection.url(path)));
        let response = match request.content_type("application/json").send(body) {
            Ok(response) => response,
            Err(error) => {
                return Err(PostError::Away(connection.describe_unreachable(&error, "")));
            }
        };
        let status = response.status();
        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let detail = match connection.check_status(Ok(response)) {
            Ok(body) => return self.read_body(body).map_err(|error| PostError::Away(error.to_string())),
            Err(failure) => failure.to_string(),
        };
        Err(match status.as_u16() {
            400 | 413 | 422 => PostError::Refused(detail),
            429 | 500.. => PostError::Later(detail, Duration::from_secs(retry_after.unwrap_or(1))),
            _ => PostError::Failed(detail),
        })
    }

    /// Sends a PUT request with a JSON body.
    pub(super) fn put(&self, path: &str, body: &impl Serialize) -> Result<(), Failure> {
        let connection = self.running()?;
        // Serialising strings cannot fail.
        let body = serde_json::to_vec(body).unwrap_or_default();
        let request = connection.authorize(connection.agent.put(connection.url(path)));
        let request = request.content_type("application/json");
        connection.check_status(request.send(&body[..])).map(drop)
    }

    /// Sends a DELETE request. Returns the JSON text of the response.
    pub(super) fn delete(&self, path: &str) -> Result<String, Failure> {
        let connection = self.running()?;
        let request = connection.authorize(connection.agent.delete(connection.url(path)));
        self.read_body(connection.check_status(request.call())?)
    }

    /// Sends a GET request for a list and calls `line` with each line as soon as it arrives.
    pub(super) fn lines(
        &self,
        path: &str,
        query: &[(&str, String)],
        line: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.each_line(self.open(path, query)?, line)
    }

    fn each_line(&self, body: impl Read, mut line: impl FnMut(&str) -> Result<(), Failure>) -> Result<(), Failure> {
        for text in BufReader::new(body).lines() {
            line(&text.map_err(|error| self.incomplete(&error))?)?;
        }
        Ok(())
    }

    /// Sends a GET request and returns the body of its response.
    fn open(&self, path: &str, query: &[(&str, String)]) -> Result<Box<dyn Read + '_>, Failure> {
        match self {
            Self::Running(connection) => {
                let request = connection.authorize(connection.agent.get(connection.url(path)));
                let request = query.iter().fold(request, |request, (name, value)| request.query(*name, value));
                connection.check_status(request.call())
            }
            Self::Offline(_) if query.iter().any(|(name, value)| *name == "follow" && value == "true") => {
                Err(Failure::Usage(
                    "--offline reads only stored data, so there is nothing to follow: leave out --follow".into(),
                ))
            }
            Self::Offline(offline) => {
                let pairs: Vec<_> =
                    query.iter().map(|(name, value)| format!("{name}={}", encode_segment(value))).collect();
                let response = offline
                    .send(Method::GET, &format!("{path}?{}", pairs.join("&")))
                    .map_err(|error| Failure::Failed(format!("{error:#}")))?;
                let status = response.status().as_u16();
                let body = OfflineBody { offline, body: response.into_body(), chunk: Bytes::new() };
                if status < 400 { Ok(Box::new(body)) } else { Err(refusal(status, body, "the request failed")) }
            }
        }
    }

    /// Returns the connection to a running Evoke. Returns an error with `--offline`, which allows no changes.
    fn running(&self) -> Result<&Connection, Failure> {
        match self {
            Self::Running(connection) => Ok(connection),
            Self::Offline(_) => Err(Failure::Usage(
                "--offline only reads; start Evoke with this data folder to change something".to_owned(),
            )),
        }
    }

    fn read_body(&self, body: impl Read) -> Result<String, Failure> {
        let mut text = String::new();
        let read = body.take(RESPONSE_BYTES_MAX + 1).read_to_string(&mut text);
        match read {
            Ok(length) if length as u64 > RESPONSE_BYTES_MAX => {
                let error = std::io::Error::other(format!("it has more than {RESPONSE_BYTES_MAX} bytes"));
                Err(self.incomplete(&error))
            }
            Ok(_) => {
                text.truncate(text.trim_end().len());
                Ok(text)
            }
            Err(error) => Err(self.incomplete(&error)),
        }
    }

    fn incomplete(&self, error: &std::io::Error) -> Failure {
        match self {
            Self::Running(Connection { base_url, .. }) => {
                Failure::Failed(format!("cannot read the whole response of {base_url}: {error}"))
            }
            Self::Offline(_) => Failure::Failed(format!("cannot read the whole response from the store: {error}")),
        }
    }
}

impl Connection {
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    fn authorize<T>(&self, request: ureq::RequestBuilder<T>) -> ureq::RequestBuilder<T> {
        match &self.token {
            Ok(token) => request.header("authorization", format!("Bearer {token}")),
            Err(_) => request,
        }
    }

    /// Describes why there is no response.
    fn describe_unreachable(&self, error: &ureq::Error, advice: &str) -> String {
        match error {
            // The message of this error has its own advice.
            ureq::Error::Other(error) if error.is::<Stranger>() => error.to_string(),
            error => format!("cannot reach Evoke at {} ({error}){advice}", self.base_url),
        }
    }

    fn check_status(
        &self,
        result: Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<Box<dyn Read + 'static>, Failure> {
        let response = result
            .map_err(|error| Failure::NotRunning(self.describe_unreachable(&error, "; start it with `evoke up`")))?;
        let status = response.status();
        let body = response.into_body().into_reader();
        match (status.as_u16(), &self.token) {
            _ if status.is_success() => Ok(Box::new(body)),
            (401, Err(reason)) => Err(Failure::Failed(format!("there is no token for {}: {reason}", self.base_url))),
            (status, _) => Err(refusal(status, body, &format!("{} responded with status {status}", self.base_url))),
        }
    }
}

/// Returns the error that the body of a response describes. The parameter `unknown` is the message if the body
/// describes none.
fn refusal(status: u16, body: impl Read, unknown: &str) -> Failure {
    let mut text = String::new();
    let _ = body.take(PROBLEM_BYTES_MAX).read_to_string(&mut text);
    let problem: Option<Json> = serde_json::from_str(&text).ok();
    let detail = problem.and_then(|problem| Some(problem.get("detail")?.as_str()?.to_owned()));
    let detail = detail.unwrap_or_else(|| unknown.to_owned());
    if status == 404 { Failure::NotFound(detail) } else { Failure::Failed(detail) }
}

/// The body of a response of the API in this process.
struct OfflineBody<'a> {
    offline: &'a Offline,
    body: Body,
    chunk: Bytes,
}

impl Read for OfflineBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.chunk.is_empty() {
            match self.offline.wait(self.body.frame()) {
                None => return Ok(0),
                Some(frame) => self.chunk = frame.map_err(std::io::Error::other)?.into_data().unwrap_or_default(),
            }
        }
        let part = self.chunk.split_to(buffer.len().min(self.chunk.len()));
        buffer.get_mut(..part.len()).unwrap_or_default().copy_from_slice(&part);
        Ok(part.len())
    }
}

/// Why a POST request failed. The variants differ in what the caller should do next.
#[derive(Debug)]
pub(super) enum PostError {
    /// There was no complete response, so it is unknown whether Evoke handled the request. Send it again.
    Away(String),
    /// Evoke does not accept the request now. Send it again after this time.
    Later(String, Duration),
    /// Evoke refuses the content of the request, and would refuse it again.
    Refused(String),
    /// The request is not permitted or not possible. Do not send it again.
    Failed(String),
}

/// The content of `listen.json` about the admin API.
struct Listened {
    address: AdminAddress,
    /// The SHA-256 of each certificate of the listener, in hexadecimal.
    certificates: Vec<String>,
}

/// Reads `listen.json`, which `evoke up` writes into its data folder.
fn read_listened(data: &Path) -> Result<Listened, Failure> {
    let path = data.join("listen.json");
    let text = evoke_fs::read_text(&path, PROBLEM_BYTES_MAX).map_err(|_| {
        let folder = data.display();
        Failure::NotRunning(format!(
            "no Evoke is running with the data folder {folder}; start it with `evoke up`, or name the data folder of a \
             running Evoke with --data, or its address with --admin"
        ))
    })?;
    let found: Option<Json> = serde_json::from_str(&text).ok();
    let listened = found.and_then(|found| {
        let hashes = found.get("admin_certificates_sha256").and_then(|hashes| hashes.as_array());
        let hashes = hashes.into_iter().flatten().filter_map(|hash| hash.as_str().map(str::to_owned));
        Some(Listened { address: found.get("admin")?.as_str()?.parse().ok()?, certificates: hashes.collect() })
    });
    listened.ok_or_else(|| Failure::Failed(format!("{} is damaged; restart `evoke up`", path.display())))
}

/// Returns the token, or the reason why there is none. Returns a failure if `--token-file` or `EVOKE_TOKEN` is given
/// but has no token. `data` is the data folder, or the reason why there is none. `is_recognised` means that TLS accepts
/// only the Evoke of the data folder, so the owner's token may be sent to any address.
fn find_token(
    common: &Common,
    address: &AdminAddress,
    data: Result<&Path, &String>,
    is_recognised: bool,
) -> Result<Result<String, String>, Failure> {
    let advice = "give a token with --token-file or EVOKE_TOKEN, or the data folder of the running Evoke with --data";
    if let Some(path) = &common.client_args.token_file {
        return Ok(Ok(token_file::read(path)?));
    }
    // There is no option for the token itself, because other users can see the arguments of a process.
    if let Some(text) = std::env::var_os("EVOKE_TOKEN").filter(|text| !text.is_empty()) {
        return Ok(Ok(token_file::check("EVOKE_TOKEN", &text.to_string_lossy())?));
    }
    if !is_recognised && !address.is_local() {
        return Ok(Err(format!("the owner's token is only sent to this machine; {advice}")));
    }
    Ok(match data.map(|data| (data, tokens::read_owner(data))) {
        Ok((_, Ok(Some(token)))) => Ok(token),
        Ok((data, Ok(None))) => Err(format!("there is no file {}; {advice}", data.join("admin.token").display())),
        Ok((_, Err(error))) => Err(format!("{error:#}; {advice}")),
        Err(reason) => Err(format!("{reason}; {advice}")),
    })
}

/// Parses a JSON response of the API.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str::<T>(text).map_err(|e| {
        let hint = "check that the running Evoke has the same version as this command";
        Failure::Failed(format!("cannot parse the response: {}; {hint}", parser_message(&e)))
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

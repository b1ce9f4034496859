//! Test harness: one Evoke process in a temporary folder, driven by its command line and over HTTP.

mod start;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// The longest wait for any condition. Only a failing test waits this long.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Polls every 10 ms until the condition is true. Panics with the message after [`TIMEOUT`].
#[macro_export]
macro_rules! assert_eventually {
    ($condition:expr, $($message:tt)+) => {{
        let deadline = std::time::Instant::now() + $crate::support::TIMEOUT;
        loop {
            if $condition {
                break;
            }
            assert!(std::time::Instant::now() < deadline, $($message)+);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }};
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// The number of open descriptors of a process.
pub(crate) fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Runs a script in a folder.
pub(crate) fn shell(folder: &Path, script: &str) {
    let status = Command::new("sh").args(["-ec", script]).current_dir(folder).status().unwrap();
    assert!(status.success(), "{script}");
}

/// The response to a GET request without headers.
pub(crate) fn get(address: &str, path: &str) -> Response {
    request("GET", address, path, &[], "").unwrap()
}

/// Calls a function when it is dropped, also when an assertion fails.
pub(crate) struct OnDrop<F: Fn()>(pub(crate) F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The root folder of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The folder of the compiled guest components. The first call builds them with `functions/build.sh`.
pub(crate) fn components() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let script = root().join("functions/build.sh");
        let status = Command::new("bash").arg(&script).stdin(Stdio::null()).status().unwrap();
        assert!(status.success(), "{} failed with {status}", script.display());
        root().join("functions/target/components").canonicalize().unwrap()
    })
}

/// A temporary folder with a manifest, and the Evoke process that runs it.
pub(crate) struct Evoke {
    folder: TempDir,
    environment: Vec<(&'static str, String)>,
    /// The program and its arguments that runs `evoke`; none by default.
    launcher: &'static [&'static str],
    running: Option<Running>,
}

struct Running {
    process: Child,
    /// Length of the log before this start.
    log_start: usize,
    http: String,
    admin: String,
}

/// An HTTP response with its body read to the end.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl Evoke {
    /// Creates a folder with this manifest and starts nothing. `$FUNCTIONS` in the manifest is replaced by the
    /// folder of the components.
    pub(crate) fn with(manifest: &str) -> Self {
        let evoke = Self { folder: TempDir::new().unwrap(), environment: Vec::new(), launcher: &[], running: None };
        evoke.write_manifest(manifest);
        evoke
    }

    /// Creates a folder with this manifest and starts Evoke in it.
    pub(crate) fn up_with(manifest: &str) -> Self {
        let mut evoke = Self::with(manifest);
        evoke.up();
        evoke
    }

    /// Sets the environment variables of every process that is started later.
    pub(crate) fn set_environment(&mut self, variables: &[(&'static str, &str)]) {
        self.environment = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    }

    /// Sets the program, and its arguments, that starts every later process.
    pub(crate) fn set_launcher(&mut self, launcher: &'static [&'static str]) {
        self.launcher = launcher;
    }

    /// Makes every process that is started later respect the permissions of files, also when the tests run as root.
    pub(crate) fn respect_permissions(&mut self) {
        if rustix::process::geteuid().is_root() {
            self.launcher = &["setpriv", "--bounding-set=-dac_override,-dac_read_search"];
        }
    }

    pub(crate) fn write_manifest(&self, manifest: &str) {
        let text = manifest.replace("$FUNCTIONS", &components().display().to_string());
        // Renamed into place, so that `--watch` never reads half a file.
        std::fs::write(self.path("new.tmp"), text).unwrap();
        std::fs::rename(self.path("new.tmp"), self.path("evoke.yaml")).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The `evoke` command with these arguments, to run in the folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let evoke = env!("CARGO_BIN_EXE_evoke");
        let mut command = match self.launcher {
            [] => Command::new(evoke),
            [launcher, options @ ..] => {
                let mut command = Command::new(launcher);
                command.args(options).arg(evoke);
                command
            }
        };
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_") || name.starts_with("EVOKE_")) {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command and waits until it exits.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must exit by itself. Kills it and panics after [`TIMEOUT`].
    pub(crate) fn run_within_timeout(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + TIMEOUT;
        while process.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                process.kill().unwrap();
                panic!("{arguments:?} does not end: {:?}", process.wait_with_output());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        process.wait_with_output().unwrap()
    }

    /// Runs a command that must succeed. Returns its standard output.
    pub(crate) fn stdout(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command with `--json` that must succeed and print one JSON value.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.stdout(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}"))
    }

    /// Runs a command with `--json` that must succeed and print a JSON value on each line.
    pub(crate) fn json_lines(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.stdout(&[arguments, &["--json"]].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    /// Returns true if the process exited by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.running.as_mut().expect("evoke is running").process.try_wait().unwrap().is_some()
    }

    /// Everything that `evoke up` printed, over all starts.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("up.log")).unwrap_or_default()
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("evoke is running")
    }

    /// Kills the process with SIGKILL: it flushes nothing.
    pub(crate) fn kill(&mut self) {
        let mut running = self.running.take().expect("evoke is running");
        running.process.kill().unwrap();
        running.process.wait().unwrap();
    }

    /// Sends SIGTERM and waits for the exit.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.wait()
    }

    /// Sends SIGTERM and does not wait.
    pub(crate) fn terminate(&self) {
        signal(self.pid(), Signal::TERM);
    }

    /// Waits until the process exits. Kills it and panics after [`TIMEOUT`].
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut running = self.running.take().expect("evoke is running");
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = running.process.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                running.process.kill().unwrap();
                panic!("evoke did not stop: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The address of the public listener.
    pub(crate) fn http(&self) -> &str {
        &self.running().http
    }

    /// The address of the admin listener.
    pub(crate) fn admin(&self) -> &str {
        &self.running().admin
    }

    /// The owner's token for the admin API.
    pub(crate) fn token(&self) -> String {
        std::fs::read_to_string(self.path(".evoke/admin.token")).unwrap().trim().to_owned()
    }

    /// Sends a GET request to the admin API with the owner's token.
    pub(crate) fn get_admin(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let authorization = format!("Bearer {}", self.token());
        let headers = [headers, &[("authorization", authorization.as_str())]].concat();
        request("GET", self.admin(), path, &headers, "").unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// POSTs a JSON body to a source.
    pub(crate) fn post(&self, path: &str, body: &str) -> Response {
        self.post_with(path, &[("content-type", "application/json")], body)
    }

    pub(crate) fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        post(self.http(), path, headers, body).unwrap_or_else(|e| panic!("POST {path}: {e}"))
    }

    /// POSTs an event that must be accepted. Returns its id.
    pub(crate) fn post_accepted(&self, path: &str, body: &str) -> String {
        let response = self.post(path, body);
        assert_eq!(response.status, 202, "{response:?}");
        response.json()["events"][0]["id"].as_str().unwrap().to_owned()
    }

    /// The number of deliveries with this status, over all functions, from `evoke check`.
    pub(crate) fn delivery_count(&self, state: &str) -> u64 {
        let totals = self.json(&["check"]);
        totals["functions"].as_object().unwrap().values().map(|counts| counts[state].as_u64().unwrap()).sum()
    }

    /// The status of a function in the running process; null if the process has no such function.
    pub(crate) fn function_status(&self, function: &str) -> Value {
        let status = self.get_admin("/api/v1/status", &[]).json();
        status["functions"].as_array().unwrap().iter().find(|f| f["name"] == function).cloned().unwrap_or_default()
    }

    /// The number of done deliveries of a function, from the status of the running process.
    pub(crate) fn done_count(&self, function: &str) -> u64 {
        self.function_status(function)["done"].as_u64().unwrap_or_default()
    }

    /// The id of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.running().process.id()
    }

    /// The resident memory of the process in KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.running().process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The CPU time that the process has used, in ticks.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.running().process.id())).unwrap();
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
        fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    /// Returns true if no delivery is pending, and false if the store cannot be read.
    pub(crate) fn is_settled(&self) -> bool {
        let output = self.run(&["check", "--json"]);
        let Ok(totals) = serde_json::from_slice::<Value>(&output.stdout) else { return false };
        let states = ["ready", "retrying", "blocked"];
        output.status.success()
            && totals["functions"].as_object().is_some_and(|f| f.values().all(|c| states.iter().all(|s| c[s] == 0)))
    }

    /// Copies a cache of compiled components into the folder, so that the start is short.
    pub(crate) fn copy_compiled_cache(&self, from: &Path) {
        let to = self.path(".evoke/compiled");
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }

    /// Waits until no delivery is pending.
    pub(crate) fn settle(&self) {
        let pending = || ["ready", "retrying", "blocked"].iter().map(|state| self.delivery_count(state)).sum::<u64>();
        assert_eventually!(pending() == 0, "still pending: {}\n{}", self.stdout(&["check"]), self.log());
    }

    /// Waits until no delivery of this function is pending; others may be.
    pub(crate) fn settle_function(&self, function: &str) {
        let pending = || self.json_lines(&["pending", "list", "--function", function]).len();
        assert_eventually!(pending() == 0, "still pending: {}\n{}", self.stdout(&["check"]), self.log());
    }

    /// All events of a type, in accept order.
    pub(crate) fn events(&self, type_: &str) -> Vec<Value> {
        self.json_lines(&["events", "--type", type_, "--after", "0"])
    }
}

impl Drop for Evoke {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.process.kill();
            let _ = running.process.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- output of `evoke up`\n{}", self.log());
        }
    }
}

/// POSTs to an address. Returns an error if there was no response.
pub(crate) fn post(address: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Response, ureq::Error> {
    request("POST", address, path, headers, body)
}

/// Sends a request. Returns an error if there was no response.
pub(crate) fn request(
    method: &str,
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Response, ureq::Error> {
    let agent = agent();
    let mut request = ureq::http::Request::builder().method(method).uri(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = agent.run(request.body(body.to_owned()).unwrap())?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut text = String::new();
    response.into_body().into_reader().read_to_string(&mut text).map_err(ureq::Error::Io)?;
    Ok(Response { status, headers, body: text })
}

/// Returns the agent of this thread, which keeps its connections open.
fn agent() -> ureq::Agent {
    thread_local! {
        static AGENT: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .allow_non_standard_methods(true)
            .build()
            .new_agent();
    }
    AGENT.with(Clone::clone)
}

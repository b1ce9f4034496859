//! Starts `evoke up`, and waits until it accepts events.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Evoke, Running, TIMEOUT};

impl Evoke {
    pub(crate) fn up(&mut self) {
        self.up_with_arguments(&[]);
    }

    /// Starts `evoke up` with more arguments and waits until it is ready.
    pub(crate) fn up_with_arguments(&mut self, arguments: &[&str]) {
        if let Err(status) = self.try_up(arguments, &[]) {
            panic!("not up ({status}): {}", self.log());
        }
    }

    /// Starts `evoke up` with this data folder and waits until it is ready. The commands still use the default folder.
    pub(crate) fn up_with_data(&mut self, data: &str) {
        let _ = std::fs::remove_file(self.path(data).join("listen.json"));
        self.spawn(&["--data", data], &[]);
        if let Err(status) = self.try_await_ready(data) {
            panic!("not up ({status}): {}", self.log());
        }
    }

    /// Starts `evoke up` with more arguments and environment variables, and waits until it is ready. Returns the exit
    /// status if the process exits before it is ready.
    pub(crate) fn try_up(&mut self, arguments: &[&str], environment: &[(&str, PathBuf)]) -> Result<(), ExitStatus> {
        self.spawn(arguments, environment);
        self.try_await_ready(".evoke")
    }

    /// Starts `evoke up` and does not wait. The addresses are known after [`Self::await_ready`].
    pub(crate) fn start(&mut self, arguments: &[&str]) {
        self.spawn(arguments, &[]);
    }

    /// Like [`Self::start`], with more environment variables.
    pub(crate) fn start_with(&mut self, arguments: &[&str], environment: &[(&str, PathBuf)]) {
        self.spawn(arguments, environment);
    }

    fn spawn(&mut self, more: &[&str], environment: &[(&str, PathBuf)]) {
        // A killed process leaves this file behind.
        let _ = std::fs::remove_file(self.path(".evoke/listen.json"));
        let log_start = self.log().len();
        let log = std::fs::File::options().create(true).append(true).open(self.path("up.log")).unwrap();
        let arguments = [&["up", "evoke.yaml", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"], more].concat();
        let mut command = self.command(&arguments);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let process = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.running = Some(Running { process, log_start, http: String::new(), admin: String::new() });
    }

    /// Waits until the process accepts events and has loaded all functions.
    pub(crate) fn await_ready(&mut self) {
        if let Err(status) = self.try_await_ready(".evoke") {
            panic!("not up ({status}): {}", self.log());
        }
    }

    fn try_await_ready(&mut self, data: &str) -> Result<(), ExitStatus> {
        self.try_await_listening(data)?;
        self.try_await(|evoke| {
            evoke.log().get(evoke.running().log_start..)?.contains("ready press Ctrl-C").then_some(())
        })
    }

    /// Waits until the process has written the addresses that it listens on. Components may still be compiled.
    pub(crate) fn await_listening(&mut self) {
        if let Err(status) = self.try_await_listening(".evoke") {
            panic!("not up ({status}): {}", self.log());
        }
    }

    fn try_await_listening(&mut self, data: &str) -> Result<(), ExitStatus> {
        let addresses: Value = self.try_await(|evoke| {
            let text = std::fs::read_to_string(evoke.path(data).join("listen.json")).unwrap_or_default();
            serde_json::from_str(&text).ok()
        })?;
        let running = self.running.as_mut().expect("evoke was started");
        let address = |name: &str| addresses[name].as_str().unwrap().to_owned();
        (running.http, running.admin) = (address("http"), address("admin"));
        Ok(())
    }

    /// Waits for a value. Returns the exit status if the process exits before.
    fn try_await<T>(&mut self, value: impl Fn(&Self) -> Option<T>) -> Result<T, ExitStatus> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(value) = value(self) {
                return Ok(value);
            }
            if let Some(status) = self.running.as_mut().expect("evoke was started").process.try_wait().unwrap() {
                self.running = None;
                return Err(status);
            }
            assert!(Instant::now() < deadline, "not up: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

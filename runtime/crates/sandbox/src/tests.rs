//! Tests of every way in which a guest can end. The guests are written by hand. Some contain code that no toolchain
//! would emit.

mod budget;
mod commands;
mod composed;
mod core_modules;
mod direct;
mod host_calls;
mod http_guests;
mod limits;
#[cfg(target_os = "linux")]
mod linked;
mod load;
mod outcomes;
mod scheduling;
mod warm;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use evoke_model::clock::Clock;
use evoke_model::event::Event;
use evoke_model::outcome::Outcome;

/// Body of a `handle` that returns `ok`.
const OK: &str = "(i32.const 1024)";

#[derive(Clone)]
struct Guest {
    pages: u32,
    imports: &'static str,
    realloc: &'static str,
    lift: &'static str,
    /// True if the guest imports functions that may wait, even if it never calls them; then its attempts are never
    /// direct.
    may_wait: bool,
    core: String,
}

/// Returns a guest whose `handle` has this body. The body must leave the address of its result on the stack.
fn guest(body: &str) -> Guest {
    Guest {
        pages: 2,
        imports: "",
        realloc: "",
        lift: "",
        may_wait: ["(call $block", "(call $exit", "(call $in"].iter().any(|call| body.contains(call)),
        core: format!(r#"(func $handle (export "handle") (param i32) (result i32) {body})"#),
    }
}

/// Returns a guest with further fields in its core module.
fn guest_with(fields: &str, body: &str) -> Guest {
    let mut guest = guest(body);
    guest.core.push_str(fields);
    guest
}

impl Guest {
    fn wat(&self) -> String {
        let template = include_str!("guest.wat").lines().filter(|line| self.may_wait || !line.ends_with(";; wasi"));
        let template: Vec<&str> = template.collect();
        template
            .join("\n")
            .replace("{PAGES}", &self.pages.to_string())
            .replace("{IMPORTS}", self.imports)
            .replace("{REALLOC}", self.realloc)
            .replace("{LIFT}", self.lift)
            .replace("{CORE}", &self.core)
    }
}

fn secrets(pairs: &[(&str, &str)]) -> Secrets {
    Secrets::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned().into())).collect()).unwrap()
}

struct Harness {
    dir: tempfile::TempDir,
    sandbox: Sandbox,
    lines: Arc<Mutex<Vec<LogLine>>>,
}

impl Harness {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            Settings { cache_dir: Some(dir.path().join("cache")), compiler: Compiler::in_process(), concurrency: 4 };
        let sandbox = Sandbox::new(settings).unwrap();
        Self { dir, sandbox, lines: Arc::default() }
    }

    fn spec(&self, component: impl AsRef<[u8]>) -> Spec {
        let path = self.dir.path().join("guest.wat");
        std::fs::write(&path, component).unwrap();
        Spec {
            name: "shop/charge".into(),
            uri: "/shop/charge".into(),
            component: path,
            digest: None,
            timeout: Duration::from_secs(5),
            memory: 4 * 64 * 1024,
            grants: Grants { publish: vec!["payment.*".into()], ..Grants::default() },
        }
    }

    fn call(&self) -> Call {
        let lines = self.lines.clone();
        Call {
            event: Arc::new(
                Event::from_json(br#"{"id":"1","source":"/a","type":"t","data":{"n":1}}"#, |_| {}).unwrap(),
            ),
            trace: None,
            delivery_id: "s-7".into(),
            attempt: 1,
            replay: false,
            hops: 0,
            trigger: "orders".into(),
            state: None,
            logs: Arc::new(move |line| lines.lock().unwrap().push(line)),
            clock: Clock::system(),
            outside: Outside::Live,
        }
    }

    async fn load(&self, guest: &Guest) -> Arc<Function> {
        self.sandbox.load(&self.spec(guest.wat())).await.unwrap()
    }

    /// Asserts that another function runs 20 times on the thread where `busy` runs.
    async fn assert_neighbour_runs_beside(&self, busy: &Arc<Function>) {
        let quick = self.load(&guest(OK)).await;
        let mut running = Box::pin(busy.run(self.call()));
        let neighbour = async {
            for _ in 0..20 {
                assert_eq!(quick.run(self.call()).await.outcome, Outcome::Done);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = &mut running => panic!("the busy guest ended before its neighbour had run 20 times"),
            () = neighbour => {}
        }
    }

    /// Runs a guest. If the guest can run directly, runs it as an async task too, and checks that both runs give the
    /// same result.
    async fn run(&self, guest: &Guest) -> Attempt {
        let attempt = self.load(guest).await.run(self.call()).await;
        if !guest.may_wait {
            let waiting = Guest { may_wait: true, ..guest.clone() };
            let other = self.load(&waiting).await.run(self.call()).await;
            assert_eq!((&attempt.outcome, attempt.memory_bytes), (&other.outcome, other.memory_bytes));
            assert_eq!(attempt.published.len(), other.published.len());
        }
        attempt
    }

    async fn refused(&self, component: impl AsRef<[u8]>) -> String {
        match self.sandbox.load(&self.spec(component)).await {
            Err(error) => error.to_string(),
            Ok(_) => panic!("the component was loaded, but must be refused"),
        }
    }
}

/// Returns a guest whose result is a `failure` at address 2048. `fields` are the bytes of the failure from its variant
/// tag on.
fn failure(fields: &str) -> Guest {
    guest_with(
        &format!(
            r#"(data (i32.const 2048) "\01\00\00\00\00\00\00\00{fields}") (data (i32.const 3000) "gateway down")"#
        ),
        "(i32.const 2048)",
    )
}

/// Data for a draft at address 2048, with its type at address 3000.
fn draft(type_: &str) -> String {
    let length = u8::try_from(type_.len()).unwrap();
    format!(r#"(data (i32.const 2048) "\b8\0b\00\00\{length:02x}\00\00\00") (data (i32.const 3000) "{type_}")"#)
}

const PUBLISH: &str = "(call $publish (i32.const 2048) (i32.const 4096))";

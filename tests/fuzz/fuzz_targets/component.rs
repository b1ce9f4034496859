//! Loads arbitrary components, and runs those that load, in the sandbox of the runtime. No input panics: not the parser,
//! the checks, the compiler, the linker or the host functions. Every rejection has a short message that a terminal can
//! show.
//!
//! An input that begins like WebAssembly, in binary or text form, is a file. wasm-smith makes a valid core module of any
//! other input: a program for WASI 0.1, or a module in a component.
#![no_main]

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use evoke_model::clock::Clock;
use evoke_model::event::Event;
use evoke_model::outcome::Outcome;
use evoke_sandbox::{Call, Compiler, Grants, Kind, LoadError, Outside, Sandbox, Settings, Spec};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use wasm_smith::{Config, Module};

/// Time limit of an attempt.
const TIMEOUT: Duration = Duration::from_millis(5);
/// The longest time that an attempt may take: on a busy machine, attempts end later than at their limit.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// A list of rejected imports has at most 30 names of 1 KiB.
const MESSAGE_MAX: usize = 48 * 1024;
/// A sandbox keeps all compiled components in memory, so it is replaced after this many.
const LOADS_MAX: u32 = 64;

struct Loader {
    runtime: Runtime,
    sandbox: Sandbox,
    loads: u32,
    folder: TempDir,
}

impl Loader {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        Self { runtime, sandbox: sandbox(), loads: 0, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn load_and_run(&mut self, file: &[u8]) {
        self.loads += 1;
        if self.loads.is_multiple_of(LOADS_MAX) {
            self.sandbox = sandbox();
        }
        let component = self.folder.path().join("fuzzed.wasm");
        std::fs::write(&component, file).expect("the file is written");
        let spec = Spec {
            name: "lab/fuzzed".into(),
            uri: "/lab/fuzzed".into(),
            component,
            digest: None,
            timeout: TIMEOUT,
            memory: 1 << 20,
            grants: Grants { publish: vec!["*".into()], ..Grants::default() },
        };
        let function = match self.runtime.block_on(self.sandbox.load(&spec)) {
            Ok(function) => function,
            Err(error) => return check_error(&error),
        };
        if function.kind() == Kind::Http {
            return;
        }
        let attempt = self.runtime.block_on(function.run(call()));
        assert!(attempt.duration < ATTEMPT_MAX, "{:?}", attempt.duration);
        assert!(!matches!(attempt.outcome, Outcome::Unavailable { .. }), "{:?}", attempt.outcome);
    }
}

fn sandbox() -> Sandbox {
    let settings = Settings { cache_dir: None, compiler: Compiler::in_process(), concurrency: 1 };
    Sandbox::new(settings).expect("a sandbox starts")
}

fn call() -> Call {
    static EVENT: LazyLock<Arc<Event>> = LazyLock::new(|| {
        let json = br#"{"id":"1","source":"/lab/in","type":"lab.in","data":{"n":1}}"#;
        Arc::new(Event::from_json(json, |_| {}).expect("an event"))
    });
    Call {
        event: EVENT.clone(),
        trace: None,
        delivery_id: "fuzz-1".into(),
        attempt: 1,
        replay: false,
        hops: 0,
        trigger: "in".into(),
        state: None,
        logs: Arc::new(|_| {}),
        clock: Clock::system(),
        outside: Outside::Live,
    }
}

fn check_error(error: &LoadError) {
    assert!(!matches!(error, LoadError::Machine { .. } | LoadError::Read { .. }), "{error}");
    let message = error.to_string();
    assert!(message.len() < MESSAGE_MAX, "{} bytes", message.len());
    assert!(!message.contains(|c: char| c.is_control() && c != '\n'), "{message:?}");
}

/// Makes a file from random choices.
fn generate(input: &[u8]) -> Result<Vec<u8>> {
    /// A program, and the functions of WASI 0.1 that it may import.
    static PROGRAM: LazyLock<Vec<u8>> = LazyLock::new(|| {
        wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start")))"#).expect("valid")
    });
    static WASI: LazyLock<Vec<u8>> = LazyLock::new(|| wat::parse_str(include_str!("wasi.wat")).expect("valid"));
    let mut random = Unstructured::new(input);
    let (is_program, is_plain) = (random.arbitrary()?, random.ratio(3, 4)?);
    let mut config: Config = random.arbitrary()?;
    if is_plain {
        config.gc_enabled = false;
        config.exceptions_enabled = false;
        config.tail_call_enabled = false;
        config.threads_enabled = false;
        config.memory64_enabled = false;
        config.relaxed_simd_enabled = false;
        (config.max_memories, config.max_tables) = (config.max_memories.min(4), config.max_tables.min(8));
    }
    if is_program {
        (config.exports, config.available_imports) = (Some(PROGRAM.clone()), Some(WASI.clone()));
    }
    let module = Module::new(config, &mut random)?.to_bytes();
    Ok(if is_program { module } else { component(&module) })
}

/// Returns a component that contains a core module.
fn component(module: &[u8]) -> Vec<u8> {
    let mut file = b"\0asm\x0d\0\x01\0\x01".to_vec();
    let mut length = module.len();
    while length > 0x7f {
        file.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    file.push(length as u8);
    file.extend(module);
    file
}

fn is_text(input: &[u8]) -> bool {
    input.trim_ascii_start().starts_with(b"(")
}

fuzz_target!(|input: &[u8]| {
    thread_local!(static LOADER: RefCell<Loader> = RefCell::new(Loader::new()));
    let is_file = input.starts_with(b"\0asm") || is_text(input);
    let generated = if is_file { None } else { generate(input).ok() };
    LOADER.with_borrow_mut(|loader| loader.load_and_run(generated.as_deref().unwrap_or(input)));
});

// Half of the mutations of a text first convert it to binary form, so that the seeds can be text.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let text = data.get(..size).filter(|text| seed.is_multiple_of(2) && is_text(text));
    let binary = text.and_then(|text| wat::parse_bytes(text).ok()).map(|binary| binary.into_owned());
    let size = match binary.filter(|binary| binary.len() <= max_size.min(data.len())) {
        Some(binary) => {
            data[..binary.len()].copy_from_slice(&binary);
            binary.len()
        }
        None => size,
    };
    fuzzer_mutate(data, size, max_size)
});

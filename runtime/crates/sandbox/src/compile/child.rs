//! The main function of the compiler process.

use std::fmt::Display;
use std::io::{self, Read as _};

use super::super::engine;
use super::confine::{self, Limits};
use super::output;
use super::translate::translate;

/// Arguments of the compiler process.
#[derive(Debug, Clone, Copy)]
pub struct ChildArguments {
    /// Limit on the memory that compiling takes, in bytes.
    pub memory: u64,
    /// Limit on the processor time, in seconds.
    pub cpu_seconds: u64,
    /// Limit on the output, in bytes.
    pub output_bytes: u64,
    /// Number of threads.
    pub threads: u32,
    /// Id of the process that waits for the output.
    pub parent: u32,
}

/// Compiles the component on standard input, and writes the compiled component and a report to standard output. Returns
/// an error if the process cannot be set up, or cannot read or write. A refused component is not an error: the report
/// contains the reason.
pub fn run_child(arguments: ChildArguments) -> Result<(), String> {
    // On a panic, print one line for the parent, and end the process. Otherwise, the other threads could continue for a
    // long time.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
    let ChildArguments { memory, cpu_seconds, output_bytes, threads, parent } = arguments;
    confine::end_with_parent(parent).map_err(|error| failed("watch its parent process", &error))?;
    confine::end_first_without_memory();
    let engine = engine::compiler().map_err(|error| failed("start the compiler", &error))?;
    // wasmtime compiles on the global thread pool of rayon. Its threads must start before `confine`, which forbids new
    // threads.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1) as usize);
    pool.build_global().map_err(|error| failed("start its threads", &error))?;
    let unfiltered = confine::confine(Limits { memory, cpu_seconds, output_bytes });
    if let Some(warning) = unfiltered.map_err(|error| failed("restrict itself", &error))? {
        eprintln!("{warning}");
    }
    let mut component = Vec::new();
    io::stdin().lock().read_to_end(&mut component).map_err(|error| failed("read the component", &error))?;
    let (artefact, report) = translate(&engine, component, memory);
    let mut output = io::stdout().lock();
    output::write(&mut output, &artefact, &report).map_err(|error| failed("write the compiled component", &error))
}

fn failed(what: &str, error: &dyn Display) -> String {
    format!("the compiler process cannot {what}: {error}")
}

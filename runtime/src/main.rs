//! The `evoke` program.

use std::process::ExitCode;

use clap::Parser;
use evoke::cli::{self, Arguments};

/// glibc's allocator grows its heaps with `mprotect`, which takes the same kernel lock as resetting a guest's memory.
/// Under full load, two threads spent a fifth of their time waiting for that lock, so Evoke uses another
/// allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::start_logging();
    cli::protect();
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            failure.exit_code()
        }
    }
}

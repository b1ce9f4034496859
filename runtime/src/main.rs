//! The `evoke` program.

use std::process::ExitCode;

use clap::Parser;
use evoke::cli::{self, Arguments};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::start_logging();
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

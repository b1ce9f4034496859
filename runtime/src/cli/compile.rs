//! Options that limit the compilation of components, and the hidden command that compiles one component.

use std::time::Duration;

use clap::Args;

use super::{Failure, parse_duration, parse_size};
use evoke_sandbox::{self as sandbox, ChildArguments, CompileLimits};

/// Options of every command that compiles components.
#[derive(Debug, Clone, Args)]
pub(super) struct CompileOptions {
    /// Maximum memory for compiling one component. A component that needs more is refused
    #[arg(long, env = "EVOKE_COMPILE_MEMORY", default_value = "2GiB", value_name = "SIZE", value_parser = parse_size)]
    compile_memory: u64,
    /// Maximum processor time for compiling one component, summed over all cores and rounded up to seconds. A component
    /// that needs more is refused
    #[arg(long, env = "EVOKE_COMPILE_TIME", default_value = "2m", value_name = "DURATION", value_parser = parse_duration)]
    compile_time: Duration,
}

impl CompileOptions {
    pub(super) fn limits(&self) -> CompileLimits {
        CompileLimits { memory: self.compile_memory, time: self.compile_time }
    }
}

/// Arguments of the hidden command `compile-component`. The sandbox starts it, with the component on standard input.
#[derive(Debug, Args)]
pub(super) struct CompileComponent {
    #[arg(long)]
    memory: u64,
    #[arg(long)]
    cpu_seconds: u64,
    #[arg(long)]
    output_bytes: u64,
    #[arg(long)]
    threads: u32,
    #[arg(long)]
    parent: u32,
}

impl CompileComponent {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { memory, cpu_seconds, output_bytes, threads, parent } = self;
        sandbox::run_child(ChildArguments { memory, cpu_seconds, output_bytes, threads, parent })
            .map_err(Failure::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: CompileOptions,
    }

    #[test]
    fn the_default_options_are_the_default_limits() {
        let parsed = Command::try_parse_from(["evoke"]).unwrap();
        assert_eq!(parsed.options.limits(), CompileLimits::DEFAULT);
        let parsed =
            Command::try_parse_from(["evoke", "--compile-memory", "64MiB", "--compile-time", "1500ms"]).unwrap();
        let expected = CompileLimits { memory: 64 << 20, time: Duration::from_millis(1500) };
        assert_eq!(parsed.options.limits(), expected);
    }
}

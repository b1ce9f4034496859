//! The command line: what can be asked for, and who does it.

mod apps;
mod check;
mod client;
mod dead;
mod emit;
mod events;
mod failure;
mod logs;
mod status;
mod table;
mod text;
mod trace;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

pub use failure::Failure;

/// Run WebAssembly functions when something happens.
#[derive(Debug, Parser)]
#[command(name = "evoke", version, after_help = "\
Exit codes: 0 done, 1 it could not be done or something is wrong, 2 usage, 3 nothing is running or what is asked for
is not there.

Example: evoke up manifests/quickstart.yaml")]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
struct Common {
    /// The data folder
    #[arg(long, global = true, env = "EVOKE_DATA", default_value = ".evoke", value_name = "DIR")]
    data: PathBuf,
    /// The admin address: where `up` serves it (default 127.0.0.1:8081, port 0 is a free one), and where other
    /// commands find a running Evoke that has another data folder
    #[arg(long, global = true, env = "EVOKE_ADMIN", value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Print for machines: one JSON value, or one a line where there are many
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build what is missing, and run until Ctrl-C or SIGTERM
    #[command(after_help = "Example: evoke up manifests/quickstart.yaml --watch")]
    Up(Up),
    /// Say what is wrong with manifests, all of it at once
    #[command(after_help = "Example: evoke validate manifests/quickstart.yaml")]
    Validate(Manifests),
    /// Run the `build:` of every function
    #[command(after_help = "Example: evoke build manifests/quickstart.yaml")]
    Build(Manifests),
    /// Put an event in by hand
    #[command(after_help = "Example: evoke emit --type order.placed --data '{\"customer\":\"ada\",\"total\":42,\"items\":[\"book\"]}'")]
    Emit(emit::Emit),
    /// List events, the newest last
    #[command(after_help = "Example: evoke events --follow --type 'order.*'")]
    Events(events::Events),
    /// Show an event and everything that came of it
    #[command(after_help = "Example: evoke trace 17")]
    Trace(trace::TraceEvent),
    /// Look at dead letters, and decide about them
    #[command(subcommand, after_help = "Example: evoke dead redrive --function shop/charge")]
    Dead(dead::Dead),
    /// Show what functions logged
    #[command(after_help = "Example: evoke logs --function shop/charge --follow")]
    Logs(logs::Logs),
    /// Show functions and sources with their numbers
    #[command(after_help = "Example: evoke status")]
    Status,
    /// Verify that nothing is missing from the store and that it is sound, running or not
    #[command(after_help = "Example: evoke check --data .evoke")]
    Check,
}

/// Which manifests.
#[derive(Debug, Args)]
struct Manifests {
    /// Manifests, and folders of manifests [default: evoke.yaml]
    #[arg(value_name = "MANIFEST|DIR")]
    manifests: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct Up {
    #[command(flatten)]
    manifests: Manifests,
    /// Where sources listen; port 0 is a free one
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    http: SocketAddr,
    /// Reload when a manifest, a component or one of its sources changes
    #[arg(long)]
    watch: bool,
    /// How long deliveries that run may take after the stop, such as 30s
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = duration)]
    drain: Duration,
    /// Deliveries at once over all functions
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096), value_name = "N")]
    concurrency: u32,
}

/// A duration as manifests write it.
fn duration(text: &str) -> Result<Duration, String> {
    crate::manifest::units::parse_duration(text).map_err(|wrong| format!("{}; {}", wrong.message, wrong.help))
}

/// Sends the program's own log to standard error: what `EVOKE_LOG` says, by default warnings.
pub fn start_logging(_arguments: &Arguments) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("EVOKE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
}

/// Does what was asked for.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { common, command } = arguments;
    match command {
        Command::Up(up) => apps::up(&common, up),
        Command::Validate(manifests) => apps::validate(&common, &manifests),
        Command::Build(manifests) => apps::build(&common, &manifests),
        Command::Emit(emit) => emit.run(&common),
        Command::Events(events) => events.run(&common),
        Command::Trace(trace) => trace.run(&common),
        Command::Dead(dead) => dead.run(&common),
        Command::Logs(logs) => logs.run(&common),
        Command::Status => status::run(&common),
        Command::Check => check::run(&common),
    }
}

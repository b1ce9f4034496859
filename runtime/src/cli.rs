//! The command line: what can be asked for, and who does it.

mod apps;
mod backup;
mod bounds;
mod check;
mod client;
mod dead;
mod emit;
mod events;
mod explain;
mod failure;
mod inspect;
mod invoke;
mod logs;
mod replay;
mod state;
mod status;
mod table;
mod text;
mod trace;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

pub use failure::Failure;

/// Run WebAssembly functions when something happens.
#[derive(Debug, Parser)]
#[command(
    name = "evoke",
    version,
    after_help = "\
Exit codes: 0 done, 1 it could not be done or something is wrong, 2 usage, 3 nothing is running, 4 not found.

Example: evoke up manifests/quickstart.yaml"
)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes, before its name or behind it. It is no global argument of clap's: `emit` has a `--data`
/// of its own, and takes the folder before its name only.
#[derive(Debug, Clone, Args)]
struct Common {
    /// The data folder [default: .evoke]
    #[arg(long, env = "EVOKE_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
}

/// How a running Evoke is reached, and for whom is printed.
#[derive(Debug, Clone, Args)]
struct Reach {
    /// The admin address: where `up` serves it [default: 127.0.0.1:8081; port 0 is a free one], and where other
    /// commands find an Evoke that runs with another data folder
    #[arg(long, env = "EVOKE_ADMIN", value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Print for machines: one JSON value, or one a line where there are many
    #[arg(long)]
    json: bool,
}

impl Common {
    /// What was said behind the command's name goes before what was said in front of it.
    fn over(self, front: &Self) -> Self {
        Self { data: self.data.or_else(|| front.data.clone()), reach: self.reach.over(&front.reach) }
    }

    fn folder(&self) -> &Path {
        self.data.as_deref().unwrap_or(Path::new(".evoke"))
    }
}

impl Reach {
    fn over(self, front: &Self) -> Self {
        Self { admin: self.admin.or(front.admin), json: self.json || front.json }
    }
}

/// A command's own arguments with what every command takes.
#[derive(Debug, Args)]
struct With<T: Args> {
    #[command(flatten)]
    command: T,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build what is missing, and run until Ctrl-C or SIGTERM
    #[command(after_help = "Example: evoke up manifests/quickstart.yaml --watch")]
    Up(With<Up>),
    /// Say what is wrong with manifests, all of it at once
    #[command(after_help = "Example: evoke validate manifests/quickstart.yaml")]
    Validate(With<Manifests>),
    /// Run the `build:` of every function
    #[command(after_help = "Example: evoke build manifests/quickstart.yaml")]
    Build(With<Manifests>),
    /// Try one function, here, without a server: outcome, published events, state changes, logs, time and memory
    #[command(after_help = "Example: evoke invoke charge --manifest manifests/quickstart.yaml \\\n  \
        --event '{\"data\":{\"customer\":\"ada\",\"total\":42,\"items\":[\"book\"]}}'")]
    Invoke(With<invoke::Invoke>),
    /// Say what a component is and what it would need granted, without running it
    #[command(after_help = "Exits 0 when Evoke can run it, 1 when not, 4 when there is no such file.\n\n\
        Example: evoke inspect target/charge.wasm")]
    Inspect(With<inspect::Inspect>),
    /// Put an event in by hand
    #[command(
        after_help = "Example: evoke emit --type order.placed --data '{\"customer\":\"ada\",\"total\":42,\"items\":[\"book\"]}'\n\n\
        The data folder of a running Evoke goes in front: evoke --data DIR emit …"
    )]
    Emit(emit::Emit),
    /// List events, the newest last
    #[command(after_help = "Example: evoke events --follow --type 'order.*'")]
    Events(With<events::Events>),
    /// Show an event and everything that came of it
    #[command(after_help = "Example: evoke trace 17")]
    Trace(With<trace::TraceEvent>),
    /// Say which field and operator of each trigger matched an event, or failed
    #[command(after_help = "Example: evoke explain 17 --function shop/charge")]
    Explain(With<explain::Explain>),
    /// Look at dead letters, and decide about them
    #[command(subcommand, after_help = "Example: evoke dead redrive --function shop/charge")]
    Dead(dead::Dead),
    /// Look at what functions keep, and change it
    #[command(subcommand, after_help = "Example: evoke state list shop/charge")]
    State(state::State),
    /// Offer stored events again to the functions that match them today, behind what happens now
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true,
        after_help = "Example: evoke replay --function shop/charge --since 2h --dry-run"
    )]
    Replay(replay::Replay),
    /// Show what functions logged
    #[command(after_help = "Example: evoke logs --function shop/charge --follow")]
    Logs(With<logs::Logs>),
    /// Print the JSON schema of manifests
    #[command(after_help = "Example: evoke schema > evoke.schema.json")]
    Schema,
    /// Print what completes the commands in a shell
    #[command(after_help = "Example: evoke completions bash > /etc/bash_completion.d/evoke")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Show functions and sources with their numbers
    #[command(after_help = "Example: evoke status")]
    Status(Common),
    /// Verify that nothing is missing from the store and that it is sound, running or not
    #[command(after_help = "Example: evoke check --data .evoke")]
    Check(Common),
    /// Copy the store, running or not, and verify the copy
    #[command(after_help = "Example: evoke backup backups/monday/\n\n\
        To go back to it, stop Evoke and start it with that folder: evoke up --data backups/monday")]
    Backup(With<backup::Backup>),
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
    #[command(flatten)]
    bounds: bounds::Bounds,
}

/// A duration as manifests write it.
fn duration(text: &str) -> Result<Duration, String> {
    crate::manifest::units::parse_duration(text).map_err(|wrong| format!("{}; {}", wrong.message, wrong.help))
}

/// A size as manifests write it, in bytes.
fn size(text: &str) -> Result<u64, String> {
    let size =
        crate::manifest::units::parse_size(text).map_err(|wrong| format!("{}; {}", wrong.message, wrong.help))?;
    Ok(size.0)
}

/// Sends the program's own log to standard error: what `EVOKE_LOG` says, by default warnings.
pub fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("EVOKE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
}

/// Does what was asked for.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { common: front, command } = arguments;
    match command {
        Command::Up(With { command, common }) => apps::up(&common.over(&front), command),
        Command::Validate(With { command, common }) => apps::validate(&common.over(&front), &command),
        Command::Build(With { command, common }) => apps::build(&common.over(&front), &command),
        Command::Invoke(With { command, common }) => command.run(&common.over(&front)),
        Command::Inspect(With { command, common }) => command.run(&common.over(&front)),
        Command::Emit(emit) => emit.run(&front),
        Command::Events(With { command, common }) => command.run(&common.over(&front)),
        Command::Trace(With { command, common }) => command.run(&common.over(&front)),
        Command::Explain(With { command, common }) => command.run(&common.over(&front)),
        Command::Dead(dead) => dead.run(&front),
        Command::Replay(replay) => replay.run(&front),
        Command::State(state) => state.run(&front),
        Command::Schema => text::print(crate::manifest::schema::render().trim_end()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "evoke", &mut script);
            text::print(String::from_utf8_lossy(&script).trim_end())
        }
        Command::Logs(With { command, common }) => command.run(&common.over(&front)),
        Command::Status(common) => status::run(&common.over(&front)),
        Command::Check(common) => check::run(&common.over(&front)),
        Command::Backup(With { command, common }) => command.run(&common.over(&front)),
    }
}

//! The command line: its arguments, and the function that runs each command.

mod address;
mod apps;
mod backup;
mod build;
mod check;
mod client;
mod compile;
mod console;
mod dead;
mod emit;
mod event;
mod events;
mod explain;
mod failure;
mod grants;
mod inspect;
mod invoke;
mod json_text;
mod limits;
mod listener;
mod log_format;
mod logs;
mod loopback;
mod monitors;
mod network;
mod new;
mod pause;
mod pending;
mod process;
mod progress;
mod replay;
mod select;
mod state;
mod status;
mod table;
mod terminal;
mod test;
mod text;
mod timers;
mod tls;
mod token;
mod token_file;
mod trace;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use address::AdminAddress;
use evoke_fs::PrivateFolder;
pub use failure::Failure;
pub use process::protect;

/// Run WebAssembly functions when something happens.
#[derive(Debug, Parser)]
#[command(
    name = "evoke",
    version,
    after_help = "\
Exit codes: 0 success, 1 failure or a problem was found, 2 wrong usage, 3 Evoke is not running, 4 not found.

Example: evoke up manifests/quickstart.yaml"
)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command, accepted before and after the command's name. They are not global arguments of clap,
/// because `emit` and `dead edit` have another option named `--data`. With these two commands, the data folder can be
/// given only before the command's name.
#[derive(Debug, Clone, Args)]
struct Common {
    /// The data folder [default: .evoke in the current folder; a command that needs an existing data folder also
    /// searches the folders above]
    #[arg(long, env = "EVOKE_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    client_args: ClientArgs,
}

/// Options for reaching a running Evoke and for the output format.
#[derive(Debug, Clone, Args)]
struct ClientArgs {
    /// Address of the admin API. `up` listens on this address [default: 127.0.0.1:8081; port 0 picks a free port].
    /// Other commands connect to it [default: the address that `up` wrote into the data folder]
    #[arg(long, env = "EVOKE_ADMIN", value_name = "ADDR")]
    admin: Option<AdminAddress>,
    /// PEM file with the certificates of the authorities to trust when a command connects over TLS to the admin API of
    /// another machine [default: the authorities that this machine trusts]
    #[arg(long, env = "EVOKE_ADMIN_CA", value_name = "FILE")]
    admin_ca: Option<PathBuf>,
    /// A file with a token for the admin API [default: the token in the variable EVOKE_TOKEN, else in the file
    /// admin.token in the data folder]
    #[arg(long, env = "EVOKE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Read the store in this folder instead of connecting to a running Evoke: the data folder of a stopped Evoke, or a
    /// backup. Only for commands that change nothing
    #[arg(long, value_name = "DIR")]
    offline: Option<PathBuf>,
    /// Print JSON: one value, or one value per line for lists
    #[arg(long)]
    json: bool,
}

impl Common {
    /// Fills in the options that were given before the command's name (`global`). Options after the name take
    /// precedence.
    fn with_defaults(self, global: &Self) -> Self {
        Self {
            data: self.data.or_else(|| global.data.clone()),
            client_args: self.client_args.with_defaults(&global.client_args),
        }
    }

    /// Returns the data folder for a command that does not need an existing one. Without `--data`, this is `.evoke` in
    /// the current folder.
    fn data_folder(&self) -> &Path {
        self.data.as_deref().unwrap_or(Path::new(DATA))
    }

    /// Returns the data folder for a command that needs an existing one. Without `--data`, this is `.evoke` in the
    /// current folder, else in the nearest folder above that has one. Other users must not be able to lead the command
    /// to their own Evoke, so a data folder that belongs to another user, or that other users may write to, is an error
    /// in the current folder, and is skipped in a folder above.
    fn existing_data_folder(&self) -> Result<PathBuf, Failure> {
        if let Some(data) = &self.data {
            return Ok(data.clone());
        }
        let default = PathBuf::from(DATA);
        if default.symlink_metadata().is_ok() {
            let opened = PrivateFolder::open(&default);
            return opened.map(|_| default).map_err(|error| Failure::Failed(error.to_string()));
        }
        let current = std::env::current_dir().unwrap_or_default();
        let above = current.ancestors().skip(1).map(|folder| folder.join(DATA)).find(|folder| {
            let is_data = ["listen.json", "evoke.db"].iter().any(|name| folder.join(name).exists());
            is_data && PrivateFolder::open(folder).is_ok()
        });
        Ok(above.unwrap_or(default))
    }
}

impl ClientArgs {
    fn with_defaults(self, global: &Self) -> Self {
        Self {
            admin: self.admin.or_else(|| global.admin.clone()),
            admin_ca: self.admin_ca.or_else(|| global.admin_ca.clone()),
            token_file: self.token_file.or_else(|| global.token_file.clone()),
            offline: self.offline.or_else(|| global.offline.clone()),
            json: self.json || global.json,
        }
    }
}

/// The name of the default data folder.
const DATA: &str = ".evoke";

/// A command's own arguments and the common options.
#[derive(Debug, Args)]
struct WithCommon<T: Args> {
    #[command(flatten)]
    command: T,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start Evoke: build missing or outdated components, and run functions until Ctrl-C or SIGTERM
    #[command(
        after_help = "Signals: after SIGTERM or Ctrl-C, Evoke accepts no more events, waits for the running deliveries and ends. A\n\
        second signal ends Evoke immediately; the deliveries that were running stay pending. SIGHUP reloads all\n\
        manifests and certificates. If the terminal is closed, which also sends SIGHUP, Evoke stops as after Ctrl-C.\n\
        SIGUSR1 and SIGUSR2 are ignored.\n\n\
        Example: evoke up manifests/quickstart.yaml --watch"
    )]
    Up(WithCommon<Up>),
    /// Create the folder of a new function: manifest, source and SDK
    #[command(after_help = "Example: evoke new greeter --lang js")]
    New(WithCommon<new::New>),
    /// Check manifests and report all their errors
    #[command(
        after_help = "With --strict, a grant that its function has never used is also an error. The record of the used grants is read\n\
        from the running Evoke, from the data folder of a stopped Evoke, or from --offline DIR.\n\n\
        Example: evoke validate manifests/quickstart.yaml --strict"
    )]
    Validate(WithCommon<Validate>),
    /// Run the `build:` command of every function in the manifests
    #[command(after_help = "Example: evoke build manifests/quickstart.yaml")]
    Build(WithCommon<Manifests>),
    /// Run one function locally, without a server: show outcome, published events, state changes, logs, time and memory
    #[command(after_help = "Example: evoke invoke charge --manifest manifests/quickstart.yaml \\\n  \
        --event '{\"data\":{\"customer\":\"ada\",\"total\":42,\"items\":[\"book\"]}}'")]
    Invoke(WithCommon<invoke::Invoke>),
    /// Run the tests of functions, from files NAME.test.yaml beside the manifests. Each test runs one attempt in the
    /// sandbox, without a server
    #[command(after_help = "Exit codes: 0 all tests passed, 1 a test failed or could not run.\n\n\
        Example: evoke test manifests/quickstart.yaml --junit report.xml\n\n\
        A recorded attempt as a test: evoke test --from 42 manifests/quickstart.yaml")]
    Test(WithCommon<test::Test>),
    /// Show the kind of a component and the grants it needs, without running it
    #[command(
        after_help = "Exit codes: 0 Evoke can run the component, 1 Evoke cannot run it, 4 the file does not exist.\n\n\
        Example: evoke inspect target/charge.wasm"
    )]
    Inspect(WithCommon<inspect::Inspect>),
    /// Send one event, or one event for each line of standard input, to a running Evoke
    #[command(
        after_help = "Example: evoke emit --type order.placed --data '{\"customer\":\"ada\",\"total\":42,\"items\":[\"book\"]}'\n\n\
        Send each line of standard input as the data of an event, and keep the events while Evoke does not run:\n  \
        sensor | evoke emit --type temperature --spool /var/spool/sensor -\n\n\
        Name the data folder of the running Evoke before the command: evoke --data DIR emit …"
    )]
    Emit(emit::Emit),
    /// List events, oldest first
    #[command(after_help = "Example: evoke events --follow --type 'order.*'")]
    Events(WithCommon<events::Events>),
    /// Show one event in full, with the functions that received it and the results, and with the functions that did not
    /// receive it and the reasons
    #[command(after_help = "Example: evoke event 17")]
    Event(WithCommon<event::Event>),
    /// Show an event with its deliveries, their attempts and the events they published
    #[command(after_help = "Example: evoke trace 17")]
    Trace(WithCommon<trace::Trace>),
    /// Show for each trigger whether it matches an event, and which fields and operators of the pattern match
    #[command(after_help = "Example: evoke explain 17 --function shop/charge")]
    Explain(WithCommon<explain::Explain>),
    /// List dead letters (deliveries that were given up), and redrive, edit or purge them
    #[command(subcommand, after_help = "Example: evoke dead redrive --function shop/charge")]
    Dead(dead::Dead),
    /// List deliveries that are not done yet, and retry, move or cancel them
    #[command(subcommand, after_help = "Example: evoke pending cancel --function shop/charge")]
    Pending(pending::Pending),
    /// Pause a function or an app: its deliveries stay pending until `evoke resume`, also after a restart of Evoke
    #[command(after_help = "Example: evoke pause shop/charge")]
    Pause(WithCommon<pause::Target>),
    /// Resume a paused function or app
    #[command(after_help = "Example: evoke resume shop/charge")]
    Resume(WithCommon<pause::Target>),
    /// Read and change the stored state of functions
    #[command(subcommand, after_help = "Example: evoke state list shop/charge")]
    State(state::State),
    /// Deliver stored events again to the functions whose triggers match them now, at lower priority than new events
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true,
        after_help = "Example: evoke replay --function shop/charge --since 2h --dry-run"
    )]
    Replay(replay::Replay),
    /// Make, list and revoke tokens of the admin API
    #[command(subcommand, after_help = "Example: evoke token create grafana --role viewer --expires 90d")]
    Token(token::Token),
    /// Show the log lines of functions
    #[command(after_help = "Example: evoke logs --function shop/charge --follow")]
    Logs(WithCommon<logs::Logs>),
    /// Show the grants of functions and their use, and propose the smallest `allow:` that covers all uses
    #[command(
        after_help = "A grant is used when the function makes a call that needs it, also in an attempt that fails. The time of the last\n\
        use is exact to the hour. If Evoke is killed, the uses of the 5 seconds before may be missing. The record of\n\
        a grant is deleted when the manifest has not had the grant for the time of `evoke up --retain`.\n\n\
        Example: evoke grants shop/charge"
    )]
    Grants(WithCommon<grants::Grants>),
    /// Print the JSON schema of manifests
    #[command(after_help = "Example: evoke schema > evoke.schema.json")]
    Schema,
    /// Print a shell completion script
    #[command(after_help = "Example: evoke completions bash > /etc/bash_completion.d/evoke")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one for each command, into a folder
    #[command(after_help = "Example: evoke man /usr/local/share/man/man1")]
    Man {
        /// The folder; created if it is missing
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// List timers, with the results of their last ticks and the times of their next ticks
    #[command(after_help = "Example: evoke timers /shop/nightly")]
    Timers(WithCommon<timers::Timers>),
    /// Show functions with their delivery counts, and sources with their health
    #[command(after_help = "Example: evoke status")]
    Status(Common),
    /// Print a link to the web console, and open the link if this machine has a desktop
    #[command(
        after_help = "The link is valid once, for two minutes. The session in the browser has the rights of the token that the command\n\
        uses, and lasts 12 hours.\n\n\
        Example: evoke console"
    )]
    Console(WithCommon<console::Console>),
    /// Show each thing that monitors watch, with its value, its state and a graph of the last hour
    #[command(
        after_help = "The last column is a graph of the last hour; each character stands for three minutes.\n\nExample: evoke monitors"
    )]
    Monitors(Common),
    /// Verify that the store is complete and undamaged; works while Evoke runs or is stopped
    #[command(after_help = "Example: evoke check --data .evoke")]
    Check(Common),
    /// Copy the store and verify the copy; works while Evoke runs or is stopped
    #[command(after_help = "Example: evoke backup backups/monday/\n\n\
        To restore the copy, stop Evoke and start it with the folder of the copy: evoke up --data backups/monday")]
    Backup(WithCommon<backup::Backup>),
    /// Compile the component on standard input; the other commands start this one
    #[command(hide = true)]
    CompileComponent(compile::CompileComponent),
}

#[derive(Debug, Args)]
struct Manifests {
    /// Manifest files, or folders of manifests [default: evoke.yaml]
    #[arg(value_name = "MANIFEST|DIR")]
    manifests: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct Validate {
    #[command(flatten)]
    manifests: Manifests,
    /// Also report an error for each grant that its function has never used
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    compile: compile::CompileOptions,
}

#[derive(Debug, Args)]
struct Up {
    #[command(flatten)]
    manifests: Manifests,
    /// Address on which http sources listen; port 0 picks a free port
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    http: SocketAddr,
    #[command(flatten)]
    network: network::Network,
    /// How long an idle connection to the http sources stays open for the next request. Behind a load balancer, choose
    /// a longer time than the idle timeout of the load balancer
    #[arg(long, env = "EVOKE_KEEP_ALIVE", default_value = "75s", value_name = "DURATION", value_parser = parse_duration)]
    keep_alive: Duration,
    /// Reload when a manifest, a component or a source file of a component changes
    #[arg(long)]
    watch: bool,
    /// Check the manifests, components, secrets, the store, the addresses and everything else that a start needs, and
    /// exit. Does not disturb an Evoke that runs with the same data folder
    #[arg(long)]
    check: bool,
    /// On a terminal, print no lines about accepted events and ended attempts, and no log lines of functions
    #[arg(long, short)]
    quiet: bool,
    /// Let monitors with `command` start programs, with the rights of this process
    #[arg(long, env = "EVOKE_ALLOW_COMMANDS")]
    allow_commands: bool,
    /// Maximum time that running deliveries may take after a stop signal
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = parse_duration)]
    drain: Duration,
    /// Maximum number of deliveries that run at the same time, over all functions; each of them takes one place. One
    /// place is reserved for each function that has no running delivery; at most an eighth of all places is reserved.
    /// HTTP requests have a separate limit of the same size
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096), value_name = "N")]
    concurrency: u32,
    #[command(flatten)]
    limits: limits::Limits,
    #[command(flatten)]
    compile: compile::CompileOptions,
}

/// Parses a duration in the format of manifests, such as `30s`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    evoke_manifest::units::parse_duration(text).map_err(|wrong| format!("{}; {}", wrong.message, wrong.help))
}

/// Parses a size in the format of manifests, such as `64KiB`. Returns bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let size = evoke_manifest::units::parse_size(text).map_err(|wrong| format!("{}; {}", wrong.message, wrong.help))?;
    Ok(size.0)
}

/// Writes the program's own log to standard error, filtered by `EVOKE_LOG`; the default level is `warn`. With
/// `EVOKE_LOG_FORMAT=json`, each entry is a JSON object.
pub fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("EVOKE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let is_coloured = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_coloured)
        .with_target(false)
        // If standard error cannot be written (a closed terminal, a full disk), the logger would report this on
        // standard error, and panic.
        .log_internal_errors(false);
    match log_format::is_json() {
        true => log.event_format(log_format::JsonFormat).init(),
        false => log.init(),
    }
}

/// Writes `evoke.1`, and a page for each command such as `evoke-dead-list.1`.
fn write_manual(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), folder))
        .map_err(|error| Failure::Failed(format!("cannot write manual pages into {}: {error}", folder.display())))
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { common: global, command } = arguments;
    match command {
        Command::Up(WithCommon { command, common }) => apps::up(&common.with_defaults(&global), command),
        Command::New(WithCommon { command, common }) => command.run(&common.with_defaults(&global)),
        Command::Validate(WithCommon { command, common }) => apps::validate(&common.with_defaults(&global), &command),
        Command::Build(WithCommon { command, common }) => apps::build(&common.with_defaults(&global), &command),
        Command::Invoke(WithCommon { command, common }) => command.run(&common.with_defaults(&global)),
        Command::Test(WithCommon { command, common }) => command.run(&common.with_defaults(&global)),
        Command::Inspect(WithCommon { command, common }) => command.run(&common.with_defaults(&global)),
        Command::Emit(emit) => emit.run(&global),
        Command::Events(WithCommon { command, common }) => command.run(&common.with_defaults(&global)),
        Command::Event(WithCommon { command, common }) => command.run(&common.with_defaults(&global)),
        Command::Trace(WithCommon { command, common }) => command.run(&common.with_defaults(&global)),
        Command::Explain(WithCommon { command, common }) => command.run(&common.with_defaults(&global)),
        Command::Dead(dead) => dead.run(&global),
        Command::Pending(pending) => pending.run(&global),
        Command::Pause(WithCommon { command, common }) => command.pause(&common.with_defaults(&global)),
        Command::Resume(WithCommon { command, common }) => command.resume(&common.with_defaults(&global)),
        Command::Replay(replay) => replay.run(&global),
        Command::State(state) => state.run(&global),
        Command::Schema => text::print(evoke_manifest::schema::render(&crate::control::registry()).trim_end()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "evoke", &mut script);
            text::print(String::from_utf8_lossy(&script).trim_end())
        }
        Command::Man { folder } => write_manual(&folder),
        Command::Token(token) => token.run(&global),
        Command::Logs(WithCommon { command, common }) => command.run(&common.with_defaults(&global)),
        Command::Grants(WithCommon { command, common }) => command.run(&common.with_defaults(&global)),
        Command::Timers(WithCommon { command, common }) => command.run(&common.with_defaults(&global)),
        Command::Status(common) => status::run(&common.with_defaults(&global)),
        Command::Console(WithCommon { command, common }) => command.run(&common.with_defaults(&global)),
        Command::Monitors(common) => monitors::run(&common.with_defaults(&global)),
        Command::Check(common) => check::run(&common.with_defaults(&global)),
        Command::Backup(WithCommon { command, common }) => command.run(&common.with_defaults(&global)),
        Command::CompileComponent(command) => command.run(),
    }
}

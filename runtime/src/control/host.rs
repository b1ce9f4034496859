//! The interface through which running apps show progress and run `build:` commands. The command line implements it.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{AppError, Changes, ListenUrl, Successor};
use crate::logs::Line;
use evoke_manifest::Diagnostics;
use evoke_model::clock::UnixMs;
use evoke_model::event::Event;
use evoke_model::{AttemptRecord, DeliveryId, Seq};

/// Shows progress to the user and runs `build:` commands.
pub trait Host: Send + Sync {
    /// Reports a step. Called in order, and must not block.
    fn report(&self, progress: Progress<'_>);

    /// Runs a `build:` command. An error is a message for the user.
    fn build(&self, build: Build) -> BoxFuture<'static, Result<(), String>>;
}

/// A `build:` command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Name of the function, without its app.
    pub function: String,
    /// The command line, for the shell.
    pub command: String,
    /// The environment variables that the manifest passes to the command, by name.
    pub env: Vec<String>,
    /// The folder of the manifest, in which the command runs.
    pub folder: PathBuf,
    /// The file that must exist after the command.
    pub component: PathBuf,
}

/// An accepted event, an ended attempt, or a line that a function logged.
#[derive(Debug)]
pub enum Activity<'a> {
    /// An event was accepted or published.
    Accepted {
        /// Number of the event in the store.
        seq: Seq,
        event: &'a Event,
    },
    /// An attempt ended.
    Ended {
        /// `app/function`.
        function: &'a str,
        /// The number of the delivery.
        delivery: DeliveryId,
        /// The record of the attempt.
        attempt: &'a AttemptRecord,
        /// True if the delivery became a dead letter.
        is_dead: bool,
    },
    /// A function logged a line.
    Line(&'a Line),
    /// This number of events, attempts and lines was left out, because too many occurred in a short time.
    LeftOut(u64),
}

/// A step of `up`.
#[derive(Debug)]
pub enum Progress<'a> {
    /// The manifests have warnings.
    Warnings(&'a Diagnostics),
    /// The manifests have mistakes, and the start waits until a manifest changes.
    Waiting(&'a Diagnostics),
    /// The admin API listens; functions are not loaded yet.
    Starting {
        /// URL of the admin API.
        admin: ListenUrl,
    },
    /// Components are being compiled and loaded.
    Loading {
        /// Names of the functions of all apps, `app/function`.
        functions: Vec<String>,
    },
    /// Manifests became active. At the start, the changes have only the routes; at a reload, all changes.
    Changed(&'a Changes),
    /// Functions are being renamed: the start or reload waits until their running attempts end.
    TakingOver {
        /// The number of attempts.
        running: u32,
    },
    /// Functions have taken over the data stored under their earlier names.
    TakenOver {
        /// Each function, and how many deliveries and keys of state it took over.
        functions: &'a [Successor],
    },
    /// Functions that no active manifest declares have pending deliveries.
    Stranded {
        /// Full names, with the number of pending deliveries.
        functions: Vec<(String, u64)>,
    },
    /// Events are accepted.
    Listening {
        /// URL of the http sources.
        http: ListenUrl,
        /// URL of the admin API.
        admin: ListenUrl,
    },
    /// Components are still being compiled while events are accepted.
    Compiling {
        /// Names of their functions, `app/function`.
        functions: Vec<String>,
    },
    /// One of the components of [`Progress::Compiling`] has been compiled, and its function runs now.
    Compiled {
        /// `app/function`.
        function: &'a str,
        /// How long the compilation took.
        took: Duration,
    },
    /// The start is complete: all functions run.
    Ready,
    /// The certificates of a listener were replaced.
    CertificatesReplaced {
        /// `public` or `admin`.
        listener: &'static str,
        /// The earliest time at which a certificate expires.
        expires_ms: Option<UnixMs>,
    },
    /// A reload starts.
    Reloading {
        /// The reason for the reload, such as `files have changed`.
        reason: &'a str,
    },
    /// The reload succeeded.
    Reloaded,
    /// The reload failed; the previous manifests stay active.
    Unchanged(&'a AppError),
    /// An event was accepted, an attempt ended, or a line was logged. Reported only if the options of `up` request it.
    Activity(Activity<'a>),
    /// No more events are accepted, and Evoke waits until the running deliveries end.
    Draining {
        /// How long running deliveries may take.
        limit: Duration,
    },
    /// A second signal ended the drain.
    Ended {
        /// Number of deliveries that had started but were not committed. They stay pending.
        deliveries: usize,
    },
    /// Deliveries were still running at the end of the drain. They run again at the next start.
    Interrupted {
        /// Number of these deliveries.
        deliveries: u32,
    },
}

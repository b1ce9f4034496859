//! The sandbox compiles functions, which are WebAssembly components, and runs them with wasmtime. One run of a function
//! for one event is an attempt. Each attempt gets a fresh instance, which can use only the capabilities that the
//! function's manifest grants.
//!
//! Every resource of an attempt is limited. The function's manifest limits memory and time. Constants next to the code
//! that uses them limit everything else: tables, instances, handles, log lines, published events and bytes per call.
//!
//! The sandbox knows nothing about manifests, stores, the bus and retries. The caller passes a [`Spec`] to
//! [`Sandbox::load`] and gets a [`Function`]. For each attempt, the caller passes a [`Call`] to [`Function::run`] and
//! gets an [`Attempt`]. The sandbox stores nothing: the caller commits the published events and the state writes of the
//! attempt together with its outcome.
//!
//! The modules form layers, and each uses only the layers above it in this list:
//!
//! 1. the machine: `engine`, `limits`, `budget`, `threads`, `fair_slots`, `turns`; a component on disk: `binary`,
//!    `producers`, `adapt`, `proposals`, then `compile`, `cache` and `component`, which use these
//! 2. `secrets`: the values of secrets, and their redaction in all text of a guest that users can read; `grant_use`
//!    records which grants are used; host capabilities, each with its grant, limits, errors and bindings: `log`,
//!    `publish`, `keyvalue`, `config`, `stdio`, `exit`, `http_types` with `pending_response`, `poll`; `refusal` records
//!    refused calls; `outside` provides the clocks, random numbers, state and responses that an attempt reads (with
//!    `answers`, the responses that a test defines, and `request_error`)
//! 3. `grants`: the capabilities of a function; `kind`: how Evoke calls a component; `imports`: the check that the
//!    grants cover the imports of a component
//! 4. `invocation`, `event_lines`, `outbound`, `response_handle` and `context`: the host's side of one attempt, which
//!    owns the capabilities; `linker` connects the imports of components to the capabilities
//! 5. `symbol`, `outcome`, `instance` and the kinds of functions: `handler`, `command`, `http_call`
//! 6. `attempt`, `warm_pool`, `direct`, `function`, `sandbox`: loading and running functions; `inspect` describes a
//!    component without running it

mod adapt;
mod answers;
mod attempt;
mod binary;
mod budget;
mod cache;
mod command;
mod compile;
mod component;
mod config;
mod context;
mod direct;
mod engine;
mod event_lines;
mod exit;
mod fair_slots;
mod function;
mod grant_use;
mod grants;
mod guest_task;
mod handler;
mod http_call;
mod http_types;
mod imports;
mod inspect;
mod instance;
mod invocation;
mod keyvalue;
mod kind;
mod limits;
mod linker;
mod log;
mod outbound;
mod outcome;
mod outgoing_request;
mod outside;
#[cfg(target_os = "linux")]
mod pagemap;
mod pending_response;
mod poll;
mod producers;
mod proposals;
mod publish;
mod refusal;
mod request_error;
mod response_handle;
mod sandbox;
mod secrets;
mod shared;
mod stdio;
#[cfg(target_os = "linux")]
mod swap;
mod symbol;
#[cfg(test)]
mod tests;
mod threads;
mod turns;
mod warm_pool;

pub use answers::{Answer, BodyAnswer, HttpAnswers};
pub use attempt::{Attempt, Call};
pub use compile::{
    COMPONENT_FUNCTIONS_MAX, COMPONENT_SIZE_MAX, COMPONENT_TEXT_SIZE_MAX, ChildArguments, CompileLimits, Compiler,
    Refusal, Start, run_child,
};
pub use component::{LoadError, expected_kind};
pub use function::Function;
pub use grant_use::{GrantUse, Used, Uses};
pub use grants::Grants;
pub use http_call::{BodyError, HttpAnswer, HttpCall, ResponseBody};
pub use inspect::{Availability, Import, Inspection, Interface, inspect};
pub use keyvalue::{StateGrant, StateSource};
pub use kind::{EXPECTED_EXPORTS, Kind};
pub use log::{Level, LogLine, LogSink};
pub use outside::{Given, Outside, Recorder};
pub use sandbox::{Sandbox, SandboxError, Settings, Spec};
pub use secrets::{REDACTED_BYTES_MIN, Secret, Secrets, SecretsTooLarge};

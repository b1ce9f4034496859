//! Compiles components in a child process, because a component is untrusted input for the parser and the compiler: a
//! component of 26 KB can make the compiler use gigabytes of memory.
//!
//! The child is another process of this program (`Compiler`), with the component on standard input and an empty file as
//! standard output. The child parses and compiles the component within limits on memory, processor time and output
//! (`confine`), and writes the compiled code and a short report (`output`). The parent reads the report, whose size is
//! bounded, and never parses the component itself.
//!
//! The limits protect the machine and the other functions. They do not protect against a fault that makes the compiler
//! emit wrong code: the parent runs the code that the child wrote.

mod bulk;
mod cancel;
mod child;
mod confine;
mod go_memory;
mod input;
mod instances;
mod limits;
mod link;
mod output;
mod process;
mod snapshot;
mod translate;

pub(super) use cancel::{Cancelled, cancellation};
pub use child::{ChildArguments, run_child};
pub(super) use input::{Input, memory_file, open_cached};
pub(super) use limits::output_bytes_max;
pub use limits::{COMPONENT_FUNCTIONS_MAX, COMPONENT_SIZE_MAX, COMPONENT_TEXT_SIZE_MAX, CompileLimits, Refusal};
pub use output::Start;
pub(super) use output::{Facts, Output};
pub(super) use process::CompileError;
pub use process::Compiler;

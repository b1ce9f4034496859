//! Evoke runs WebAssembly functions on events. `ARCHITECTURE.md` describes the modules and their invariants.
//!
//! Only [`cli`] prints and runs the shell; [`app`], [`control`] and [`admin`] return data, diagnostics and errors.

pub mod admin;
pub mod app;
pub mod cli;
mod console;
pub mod control;
mod disk;
pub mod logs;
pub mod offline;
pub mod otlp;
mod recorded;
mod yaml;

//! Disk fault injection: power cuts, I/O errors, a full disk and damaged bytes. The library `faults/shim.c` is
//! preloaded into the unmodified program and intercepts its file system calls.
//!
//! Each test has a short form, the default, and a long form with `EVOKE_CAMPAIGN=long`. All random choices derive from
//! `EVOKE_SEED`, which every failure prints.

mod bit_flips;
mod disk;
mod full_disk;
mod io_errors;
pub(crate) mod items;
pub(crate) mod neighbours;
mod power;
pub(crate) mod producers;
pub(crate) mod random;
mod renames;
mod sample_store;
pub(crate) mod shim;
mod torn_wal;
mod trace;

//! What the disk does to it: power cuts, I/O errors, a full disk, damage. `faults/shim.c` stands beneath the
//! unmodified program; nothing in the program knows of it.
//!
//! Each test has a short form, which is what runs by default, and a long one with `EVOKE_CAMPAIGN=long`. What is
//! random comes from `EVOKE_SEED`, which every failure names.

mod disk;
mod flips;
mod full_disk;
mod io_errors;
pub(crate) mod items;
mod power;
pub(crate) mod producers;
pub(crate) mod random;
mod shim;
mod specimen;
mod torn;
mod trace;

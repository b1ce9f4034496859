//! The list of the pages of this process (`/proc/self/pagemap`). With this list, wasmtime resets only the written pages
//! of an instance.

use std::fs::File;
use std::ops::Range;
use std::sync::OnceLock;

use super::swap;

/// Limit on the regions that [`written_regions`] returns.
pub(super) const READ_REGIONS_MAX: usize = 512;

/// A range of addresses.
pub(super) type Region = Range<usize>;

/// Opens the list of pages. Returns `None` if pages must not be reset in place. This is so if the system cannot list
/// written pages (Linux before 6.7), or if a page can be in swap space (`swap`). The decision is made once, so that all
/// pools of the process agree.
pub(super) fn open() -> Option<File> {
    static IS_ALLOWED: OnceLock<bool> = OnceLock::new();
    let pagemap = File::open("/proc/self/pagemap").ok()?;
    let is_allowed = IS_ALLOWED.get_or_init(|| written_regions(&pagemap, 0..4096).is_ok() && !swap::is_possible());
    is_allowed.then_some(pagemap)
}

/// Returns the regions of a slot (the address range of one memory) that wasmtime resets: those whose pages belong to
/// this process alone. Returns the first [`READ_REGIONS_MAX`] regions if there are more.
pub(super) fn written_regions(pagemap: &File, slot: Region) -> rustix::io::Result<Vec<Region>> {
    let mut found = vec![PageRegion::default(); READ_REGIONS_MAX];
    let mut scan = Scan {
        size: size_of::<Scan>() as u64,
        start: slot.start as u64,
        end: slot.end as u64,
        found: found.as_mut_ptr() as u64,
        found_max: READ_REGIONS_MAX as u64,
        categories_inverted: IS_FILE | IS_ZERO_PAGE,
        categories: IS_FILE | IS_ZERO_PAGE | IS_PRESENT,
        ..Scan::default()
    };
    pagemap_scan(pagemap, &mut scan)?;
    let found = found.iter().take_while(|region| region.end > 0);
    Ok(found.map(|region| region.start as usize..region.end as usize).collect())
}

/// The argument of the operation `PAGEMAP_SCAN`: `struct pm_scan_arg` in ioctl_pagemap_scan(2).
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    /// The address of an array of [`PageRegion`]s to fill. The next field has the length of the array.
    found: u64,
    found_max: u64,
    pages_max: u64,
    categories_inverted: u64,
    categories: u64,
    categories_any: u64,
    categories_returned: u64,
}

/// A region that the scan found: `struct page_region`.
#[repr(C)]
#[derive(Clone, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

const IS_FILE: u64 = 1 << 2;
const IS_PRESENT: u64 = 1 << 3;
const IS_ZERO_PAGE: u64 = 1 << 5;

#[allow(unsafe_code)]
fn pagemap_scan(pagemap: &File, scan: &mut Scan) -> rustix::io::Result<()> {
    use rustix::ioctl::{Updater, ioctl, opcode};
    // SAFETY: this operation expects a `Scan` that contains the address of an array of `PageRegion`s. The caller keeps
    // the array until the call returns. The kernel writes only to the `Scan` and to this array.
    unsafe { ioctl(pagemap, Updater::<{ opcode::read_write::<Scan>(b'f', 16) }, Scan>::new(scan)) }
}

/// Allocates the pages of a region.
#[allow(unsafe_code)]
pub(super) fn allocate(region: &Region) -> rustix::io::Result<()> {
    let start = std::ptr::with_exposed_provenance_mut(region.start);
    // SAFETY: the region is a part of a slot, and the slot stays mapped as long as its pool exists. The call does not
    // change the content of pages. If the memory in the slot has become smaller, the pages after its end are not
    // accessible, and the call fails.
    unsafe { rustix::mm::madvise(start, region.len(), rustix::mm::Advice::LinuxPopulateWrite) }
}

/// Returns the number of page faults of this thread since it started.
#[allow(unsafe_code)]
pub(super) fn page_faults() -> u64 {
    // SAFETY: all fields are integers, so zero is a valid value of each.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is valid for writes.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    u64::try_from(usage.ru_minflt).unwrap_or_default()
}

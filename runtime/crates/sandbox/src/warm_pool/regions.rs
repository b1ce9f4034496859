//! Keeps the pages of guests that write to many separate places of their memory.
//!
//! When an instance ends, wasmtime resets the pages that the instance wrote. The next instance then needs no page
//! faults for these pages. But wasmtime does this only for the first 32 regions of written pages, and returns the pages
//! of all other regions to the system. An attempt of a Python function writes about 220 pages in 155 regions. So most
//! of its pages would cause a page fault in every attempt. If several threads run guests, each fault of a page that was
//! read before also interrupts the other processors.
//!
//! Therefore [`Slots::join_regions`] also allocates the pages between neighbouring regions, until at most 28 regions
//! are left. From then on, wasmtime keeps the pages of all regions, so a slot needs this only once. The price: wasmtime
//! resets more pages after each attempt (about 1,000 instead of 220 for Python), which takes much less time than the
//! page faults.
//!
//! The content of a page does not change when it is allocated. So this is safe for slots in which other guests run.

use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::engine::{MEMORY_BYTES_MAX, WARM_RESIDENT_BYTES};
use crate::pagemap::{READ_REGIONS_MAX, Region, allocate, written_regions};

/// The slots are scanned only after an attempt with at least this number of page faults.
const FAULTS_MIN: u64 = 64;
/// The number of regions whose pages wasmtime keeps.
const RESET_REGIONS_MAX: usize = 32;
/// The number of regions of a slot after they were joined. It is lower than [`RESET_REGIONS_MAX`], because the next
/// attempts can also write to a few other places.
const JOINED_REGIONS: usize = 28;
/// Limit on the number of attempts that cause no scan although they have many page faults, between two scans.
const SKIPS_MAX: u32 = 1023;
/// Minimum time between two scans. A scan takes microseconds for each slot that is in use.
const SCAN_INTERVAL: Duration = Duration::from_millis(20);

/// The slots for memories in the warm pool.
pub(super) struct Slots {
    /// The first address of each slot.
    starts: Vec<usize>,
    /// `None` if wasmtime does not reset pages in place.
    pagemap: Option<File>,
    /// The number of following attempts that cause no scan although they have many page faults.
    skips_left: AtomicU32,
    last: Mutex<Last>,
}

/// The last scan.
#[derive(Default)]
struct Last {
    at: Option<Instant>,
    /// The value of `skips_left` after the scan. It doubles with each scan that finds nothing to join, because the page
    /// faults then have another cause.
    skips: u32,
}

impl Slots {
    /// Creates the list of slots from their first addresses. Each slot has [`MEMORY_BYTES_MAX`] bytes. `pagemap` is the
    /// result of [`crate::pagemap::open`].
    pub(super) fn new(starts: Vec<usize>, pagemap: Option<File>) -> Self {
        Self { starts, pagemap, skips_left: AtomicU32::new(0), last: Mutex::default() }
    }

    /// Resets the data about the last scan, because the pages of the slots were released.
    pub(super) fn released(&self) {
        if let Ok(mut last) = self.last.lock() {
            *last = Last::default();
            self.skips_left.store(0, Ordering::Relaxed);
        }
    }

    /// Joins the regions of each slot that has too many regions. Scans the slots only if the number of page faults of
    /// an attempt shows that there is such a slot. The instance of the attempt must still exist. All slots are scanned,
    /// because the slot of this instance is not known.
    pub(super) fn join_regions(&self, page_faults: u64) {
        let Some(pagemap) = self.pagemap.as_ref().filter(|_| page_faults >= FAULTS_MIN) else { return };
        if self.skips_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            return;
        }
        // If another attempt is scanning, it also scans the slot of this attempt.
        let Ok(mut last) = self.last.try_lock() else { return };
        if last.at.is_some_and(|at| at.elapsed() < SCAN_INTERVAL) {
            return;
        }
        let joined = self.starts.iter().filter(|&&start| join_in(pagemap, start..start + MEMORY_BYTES_MAX)).count();
        let skips = if joined > 0 { 0 } else { (last.skips * 2 + 1).min(SKIPS_MAX) };
        *last = Last { at: Some(Instant::now()), skips };
        self.skips_left.store(skips, Ordering::Relaxed);
    }
}

/// Joins the regions of one slot. Returns true if pages were allocated.
fn join_in(pagemap: &File, slot: Region) -> bool {
    let Ok(regions) = written_regions(pagemap, slot) else { return false };
    let gaps = gaps_to_fill(&regions);
    gaps.into_iter().filter(|gap| allocate(gap).is_ok()).count() > 0
}

/// Returns the gaps between the regions of one slot that must be filled: the smallest ones, and only as many as
/// necessary. Returns no gaps if wasmtime keeps all regions, or if the joined regions would exceed the memory that a
/// slot keeps.
fn gaps_to_fill(regions: &[Region]) -> Vec<Region> {
    if regions.len() <= RESET_REGIONS_MAX || regions.len() == READ_REGIONS_MAX {
        return Vec::new();
    }
    let mut gaps: Vec<Region> = regions.windows(2).map(|pair| pair[0].end..pair[1].start).collect();
    gaps.sort_by_key(Region::len);
    gaps.truncate(regions.len() - JOINED_REGIONS);
    let bytes: usize = regions.iter().chain(&gaps).map(Region::len).sum();
    if bytes <= WARM_RESIDENT_BYTES { gaps } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    fn regions(starts: impl IntoIterator<Item = usize>) -> Vec<Region> {
        starts.into_iter().map(|page| page * PAGE..(page + 1) * PAGE).collect()
    }

    #[test]
    fn the_smallest_gaps_are_filled_until_few_regions_are_left() {
        assert!(gaps_to_fill(&regions((0..RESET_REGIONS_MAX).map(|n| n * 3))).is_empty());
        // The gaps have 1 page, 2 pages, 3 pages and so on.
        let growing = (0..40).scan(0, |next, gap| {
            let page = *next;
            *next += 2 + gap;
            Some(page)
        });
        let growing = regions(growing);
        let gaps = gaps_to_fill(&growing);
        assert_eq!(gaps.len(), 40 - JOINED_REGIONS);
        let sizes: Vec<usize> = gaps.iter().map(|gap| gap.len() / PAGE).collect();
        assert_eq!(sizes, (1..=12).collect::<Vec<_>>());
        assert_eq!(gaps[0], PAGE..2 * PAGE);
    }

    #[test]
    fn nothing_is_filled_if_the_slot_would_not_keep_it() {
        let gap_pages = WARM_RESIDENT_BYTES / PAGE / 8;
        assert!(gaps_to_fill(&regions((0..40).map(|n| n * gap_pages))).is_empty());
        assert!(gaps_to_fill(&regions((0..READ_REGIONS_MAX).map(|n| n * 2))).is_empty());
    }
}

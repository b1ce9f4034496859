//! I/O errors: one file system call of each run fails. Acknowledged items survive, nothing is acknowledged after a
//! failed sync, and if Evoke cannot continue it names the file and exits.

use std::collections::BTreeSet;
use std::path::Path;

use super::items::{Items, manifest};
use super::power::WalTracker;
use super::random::{Random, is_long_form};
use super::shim::Shim;
use super::trace::{Record, Trace};
use crate::assert_eventually;
use crate::support::Evoke;

/// Runs Evoke with `count` items while one call fails, given as `CLASS:N:WHAT` (see `shim.c`). Returns true if the run
/// made that call.
fn run_with_fault(fault: &str, items: &Items, count: usize, compiled: &Path) -> bool {
    let mut evoke = Evoke::with(&manifest());
    evoke.copy_compiled_cache(compiled);
    let (trace, fired) = (evoke.path("trace"), evoke.path("fired"));
    let shim = Shim::for_data_of(&evoke).recording(trace.clone()).failing(fault, fired.clone());
    let status = match evoke.try_up(&[], shim.environment()) {
        Err(status) => status,
        Ok(()) => {
            (0..count).for_each(|number| send(items, &evoke, number));
            // Accepted items pass all functions, also if a commit found the disk full, unless the process exits.
            assert_eventually!(evoke.has_ended() || evoke.is_settled(), "{fault}: stuck\n{}", evoke.log());
            if evoke.has_ended() { evoke.wait() } else { evoke.stop() }
        }
    };
    let fired = std::fs::read_to_string(fired).unwrap_or_default();
    let trace = Trace::read(&trace);
    let acknowledged = assert_acknowledged_after_sync(&trace, fault);
    if !status.success() {
        assert!(!["EDQUOT", "EFBIG"].iter().any(|error| fault.ends_with(error)), "{fault}: {}", evoke.log());
        let file = fired.split_whitespace().nth(2).unwrap_or_else(|| panic!("{fault}: evoke exited without a fault"));
        let named =
            Path::new(if file == "." { ".evoke" } else { file }).file_stem().unwrap().to_str().unwrap().to_owned();
        let log = evoke.log();
        let error = log.lines().rfind(|line| line.contains("error")).unwrap_or_default();
        assert!(error.contains(&named), "{fault} hit {file}, and the message does not name it:\n{log}");
        assert_eq!(status.code(), Some(1), "{fault}: {log}");
    } else if !fired.is_empty() {
        assert_eq!(
            acknowledged.len(),
            count,
            "{fault}: evoke continued and did not accept every item:\n{}",
            evoke.log()
        );
    }
    // After a start without the fault all items are stored and handled.
    evoke.up();
    evoke.settle();
    let by_type = evoke.verify(items, &acknowledged);
    assert!(by_type.values().all(|numbers| *numbers == by_type["item"]), "{fault}: {by_type:?}");
    assert!(evoke.stop().success(), "{fault}: {}", evoke.log());
    evoke.stdout(&["check"]);
    !fired.is_empty()
}

/// Sends an item until it is accepted or fails, or until the server is gone. Repeats it while the disk is full.
fn send(items: &Items, evoke: &Evoke, number: usize) {
    while let Ok(response) = items.send(evoke.http(), &[number]) {
        match response.status {
            200 | 202 | 500 => return,
            503 => assert!(response.headers.contains_key("retry-after"), "{response:?}"),
            _ => panic!("{response:?}"),
        }
    }
}

/// Returns the acknowledged items. Asserts that the commit of each was synced to the WAL before, and that no sync
/// failed before. If a sync of the folder failed that had to make names durable, nothing may be acknowledged until the
/// names have changed again and are synced.
fn assert_acknowledged_after_sync(trace: &Trace, fault: &str) -> BTreeSet<usize> {
    let folders: Vec<_> = trace
        .records
        .iter()
        .filter_map(|record| match record {
            Record::Opened { file, name } if name.is_empty() || name == ".." => Some(*file),
            _ => None,
        })
        .collect();
    let mut wal = WalTracker::default();
    let (mut folder_failed, mut names_changed) = (false, false);
    let mut acknowledged = BTreeSet::new();
    for record in &trace.records {
        wal.apply(record, trace);
        match record {
            Record::Synced { file, ok, .. } if folders.contains(file) => {
                folder_failed = if names_changed { !ok } else { folder_failed };
                names_changed = false;
            }
            Record::Opened { name, .. } if !name.starts_with("listen") => names_changed = true,
            Record::Unlinked { name } if !name.starts_with("listen") => names_changed = true,
            Record::Sent { text } => {
                let ids: BTreeSet<_> = super::power::acknowledged_items(text).collect();
                let early: Vec<_> = ids.difference(&wal.synced).collect();
                assert!(early.is_empty(), "{fault}: {early:?} acknowledged before the sync");
                assert!(
                    ids.is_empty() || !folder_failed,
                    "{fault}: {ids:?} acknowledged after a failed sync of the folder"
                );
                acknowledged.extend(ids);
            }
            _ => {}
        }
    }
    acknowledged
}

fn small_items() -> Items {
    Items::plain(1, 2, 3_000)
}

/// Runs Evoke once for each call of a class, with that call failing: all calls in the long form, with growing gaps in
/// the short form.
fn fail_each_call(class: &str, error: &str) {
    let mut random = Random::new(Random::seed(&format!("{class} fails with {error}")));
    let compiled_by = Evoke::up_with(&manifest());
    let compiled = compiled_by.path(".evoke/compiled");
    let (mut n, mut runs) = (1, 0);
    while run_with_fault(&format!("{class}:{n}:{error}"), &small_items(), 3, &compiled) {
        runs += 1;
        n += if is_long_form() { 1 } else { 1 + random.below(1 + n) };
    }
    println!("{class} {error}: {runs} of {n} calls failed");
    assert!(runs > 3, "{class} hardly ever failed");
}

#[test]
fn an_error_at_any_sync_ends_the_process_and_nothing_is_acknowledged_after_it() {
    fail_each_call("fsync", "EIO");
}

#[test]
fn an_error_at_any_write_loses_nothing_acknowledged() {
    fail_each_call("write", "EIO");
}

#[test]
fn a_full_disk_at_any_write_loses_nothing_acknowledged() {
    fail_each_call("write", "ENOSPC");
}

/// The cause of a failed write is the error of that write, not the state of the disk a moment later.
#[test]
fn a_quota_that_has_room_again_after_one_write_is_no_storage_failure() {
    let compiled_by = Evoke::up_with(&manifest());
    for error in ["EDQUOT", "EFBIG"] {
        for n in [1, 2, 4, 7, 11] {
            let fault = format!("write@evoke.db-wal:{n}:{error}");
            assert!(run_with_fault(&fault, &small_items(), 3, &compiled_by.path(".evoke/compiled")), "{fault}");
        }
    }
}

#[test]
fn a_write_cut_short_by_a_full_disk_loses_nothing_acknowledged() {
    fail_each_call("write", "SHORT");
}

#[test]
fn an_error_at_any_open_or_read_loses_nothing_acknowledged() {
    fail_each_call("open", "EIO");
    fail_each_call("read", "EIO");
}

#[test]
fn an_error_at_any_truncate_rename_or_unlink_loses_nothing_acknowledged() {
    let compiled_by = Evoke::up_with(&manifest());
    for class in ["truncate", "rename", "unlink"] {
        let compiled = compiled_by.path(".evoke/compiled");
        let calls =
            (1..).take_while(|n| run_with_fault(&format!("{class}:{n}:EIO"), &small_items(), 3, &compiled)).count();
        println!("{class}: {calls} calls failed");
    }
}

#[test]
fn an_error_during_a_checkpoint_loses_nothing_acknowledged() {
    let compiled_by = Evoke::up_with(&manifest());
    // Large enough that SQLite checkpoints the WAL during the run.
    let large = Items { pad_min: 200_000, ..Items::plain(1, 2, 400_000) };
    for fault in ["fsync@evoke.db:2:EIO", "write@evoke.db:9:EIO", "write@evoke.db:9:ENOSPC", "truncate@evoke.db:1:EIO"]
    {
        assert!(run_with_fault(fault, &large, 30, &compiled_by.path(".evoke/compiled")), "{fault} was never reached");
    }
}

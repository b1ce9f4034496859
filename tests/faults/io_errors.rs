//! Every call to the disk fails once: what was acknowledged stays, nothing is acknowledged after a failed sync, and
//! when it cannot go on it says what failed and ends.

use std::collections::BTreeSet;
use std::path::Path;

use super::items::{Items, manifest};
use super::power::Committed;
use super::random::{Random, long};
use super::shim::Shim;
use super::trace::{Record, Trace};
use crate::assert_eventually;
use crate::support::Evoke;

/// Runs the program on so many items while a call fails as `CLASS:N:WHAT` says; answers whether there was such a call.
fn fail(fault: &str, items: &Items, count: usize, compiled: &Path) -> bool {
    let mut evoke = Evoke::with(&manifest());
    evoke.take_compiled(compiled);
    let (trace, fired) = (evoke.path("trace"), evoke.path("fired"));
    let shim = Shim::beneath(&evoke).recording(trace.clone()).failing(fault, fired.clone());
    let status = match evoke.try_up(&[], shim.environment()) {
        Err(status) => status,
        Ok(()) => {
            (0..count).for_each(|number| send(items, &evoke, number));
            // What was accepted goes all the way, also when a commit on the way found no room, unless it ends.
            assert_eventually!(evoke.has_ended() || evoke.is_settled(), "{fault}: stuck\n{}", evoke.log());
            if evoke.has_ended() { evoke.wait() } else { evoke.stop() }
        }
    };
    let fired = std::fs::read_to_string(fired).unwrap_or_default();
    let trace = Trace::read(&trace);
    let acknowledged = never_after_a_failed_sync(&trace, fault);
    if !status.success() {
        let file = fired.split_whitespace().nth(2).unwrap_or_else(|| panic!("{fault}: ended without a fault"));
        let named =
            Path::new(if file == "." { ".evoke" } else { file }).file_stem().unwrap().to_str().unwrap().to_owned();
        let log = evoke.log();
        let error = log.lines().rfind(|line| line.contains("error")).unwrap_or_default();
        assert!(error.contains(&named), "{fault} hit {file}, and the message does not say so:\n{log}");
        assert_eq!(status.code(), Some(1), "{fault}: {log}");
    } else if !fired.is_empty() {
        assert_eq!(acknowledged.len(), count, "{fault}: it went on, and did not accept everything:\n{}", evoke.log());
    }
    // And without the fault everything is there.
    evoke.up();
    evoke.settle();
    let by_type = evoke.verify(items, &acknowledged);
    assert!(by_type.values().all(|numbers| *numbers == by_type["item"]), "{fault}: {by_type:?}");
    assert!(evoke.stop().success(), "{fault}: {}", evoke.log());
    evoke.stdout(&["check"]);
    !fired.is_empty()
}

/// Sends an item until it is accepted, or nobody is there any more. A full disk is no end.
fn send(items: &Items, evoke: &Evoke, number: usize) {
    while let Ok(answer) = items.send(evoke.http(), &[number]) {
        match answer.status {
            200 | 202 | 500 => return,
            503 => assert!(answer.headers.contains_key("retry-after"), "{answer:?}"),
            _ => panic!("{answer:?}"),
        }
    }
}

/// What was acknowledged: only what a sync of the log that did not fail put on disk, and after a sync failed nothing
/// more gets there. After a sync of the folder that had to make names stay, nothing is acknowledged until its names
/// changed again and were synced.
fn never_after_a_failed_sync(trace: &Trace, fault: &str) -> BTreeSet<usize> {
    let folders: Vec<_> = trace
        .records
        .iter()
        .filter_map(|record| match record {
            Record::Opened { file, name } if name.is_empty() || name == ".." => Some(*file),
            _ => None,
        })
        .collect();
    let mut committed = Committed::default();
    let (mut folder_failed, mut names_changed) = (false, false);
    let mut acknowledged = BTreeSet::new();
    for record in &trace.records {
        committed.apply(record, trace);
        match record {
            Record::Synced { file, ok, .. } if folders.contains(file) => {
                folder_failed = if names_changed { !ok } else { folder_failed };
                names_changed = false;
            }
            Record::Opened { name, .. } if !name.starts_with("listen") => names_changed = true,
            Record::Unlinked { name } if !name.starts_with("listen") => names_changed = true,
            Record::Sent { text } => {
                let ids: BTreeSet<_> = super::power::acknowledged(text).collect();
                let early: Vec<_> = ids.difference(&committed.synced).collect();
                assert!(early.is_empty(), "{fault}: {early:?} acknowledged and not synced");
                assert!(ids.is_empty() || !folder_failed, "{fault}: {ids:?} acknowledged in a folder that may be gone");
                acknowledged.extend(ids);
            }
            _ => {}
        }
    }
    acknowledged
}

fn small() -> Items {
    Items::plain(1, 2, 3_000)
}

/// Calls 1, 2, 3, … of a class, until there are no more; in the short form with growing gaps.
fn fail_each(class: &str, what: &str) {
    let mut random = Random::new(Random::seed(&format!("{class} fails with {what}")));
    let warm = Evoke::up_with(&manifest());
    let compiled = warm.path(".evoke/compiled");
    let (mut n, mut runs) = (1, 0);
    while fail(&format!("{class}:{n}:{what}"), &small(), 3, &compiled) {
        runs += 1;
        n += if long() { 1 } else { 1 + random.below(1 + n) };
    }
    println!("{class} {what}: {runs} calls of {n} failed");
    assert!(runs > 3, "{class} hardly ever failed");
}

#[test]
fn an_error_at_any_sync_ends_it_and_nothing_is_acknowledged_after_it() {
    fail_each("fsync", "EIO");
}

#[test]
fn an_error_at_any_write_loses_nothing_acknowledged() {
    fail_each("write", "EIO");
}

#[test]
fn no_room_at_any_write_loses_nothing_acknowledged() {
    fail_each("write", "ENOSPC");
}

#[test]
fn a_write_cut_short_by_a_full_disk_loses_nothing_acknowledged() {
    fail_each("write", "SHORT");
}

#[test]
fn an_error_at_any_open_or_read_loses_nothing_acknowledged() {
    fail_each("open", "EIO");
    fail_each("read", "EIO");
}

#[test]
fn an_error_at_any_truncation_loses_nothing_acknowledged() {
    let warm = Evoke::up_with(&manifest());
    for class in ["truncate", "rename", "unlink"] {
        let compiled = warm.path(".evoke/compiled");
        let calls = (1..).take_while(|n| fail(&format!("{class}:{n}:EIO"), &small(), 3, &compiled)).count();
        println!("{class}: {calls} calls failed");
    }
}

#[test]
fn an_error_while_the_log_is_copied_into_the_database_loses_nothing_acknowledged() {
    let warm = Evoke::up_with(&manifest());
    // Large enough that the log is copied before the end.
    let large = Items { pad_min: 200_000, ..Items::plain(1, 2, 400_000) };
    for fault in ["fsync@evoke.db:2:EIO", "write@evoke.db:9:EIO", "write@evoke.db:9:ENOSPC", "truncate@evoke.db:1:EIO"]
    {
        assert!(fail(fault, &large, 30, &warm.path(".evoke/compiled")), "{fault} was never reached");
    }
}

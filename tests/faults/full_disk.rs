//! A full disk is not a storage failure, nor is a quota that is used up: Evoke refuses events with a retry time, and
//! accepts events again when there is free space.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use super::items::{Items, manifest};
use super::random::{Random, size};
use super::shim::{DiskLimit, Shim, Space};
use crate::assert_eventually;
use crate::support::{Evoke, Response, get};

/// A log file of an earlier version.
const LOG: &str = ".evoke/logs/evoke.jsonl";

/// Sends an item. Returns true if it was accepted. A refusal must be for lack of disk space.
fn send(evoke: &Evoke, items: &Items, number: usize, accepted: &mut BTreeSet<usize>) -> bool {
    let response = items.send(evoke.http(), &[number]).unwrap();
    if response.status == 202 {
        return accepted.insert(number);
    }
    assert_eq!(response.status, 503, "{response:?}");
    assert!(response.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0, "{response:?}");
    assert!(response.body.contains("room"), "{response:?}");
    false
}

/// Sends items from `first` on until one is refused. Returns the number after the refused one.
fn send_until_refused(evoke: &Evoke, items: &Items, first: usize, accepted: &mut BTreeSet<usize>) -> usize {
    let refused = (first..).find(|number| !send(evoke, items, *number, accepted));
    refused.unwrap() + 1
}

#[test]
fn a_full_disk_refuses_with_a_retry_time_and_accepts_again_when_there_is_space() {
    refuse_and_accept_again(Space::Disk);
}

#[test]
fn a_quota_that_is_used_up_refuses_with_a_retry_time_and_accepts_again_when_there_is_space() {
    refuse_and_accept_again(Space::Quota);
}

fn refuse_and_accept_again(space: Space) {
    let seed = Random::seed("full disk");
    let mut random = Random::new(seed);
    let mut evoke = Evoke::with(&manifest());
    let limit = DiskLimit::of(&evoke, space);
    let shim = Shim::for_data_of(&evoke).limited_by(&limit);
    evoke.try_up(&[], shim.environment()).unwrap();
    let items = Items::plain(seed, 20, 60_000);
    let mut accepted = BTreeSet::new();
    let mut next = 0;
    for round in 0..size(8, 100) {
        // From no space at all to enough for a part of a commit.
        limit.set(if round == 0 { 0 } else { random.below(2_000_000) });
        next = send_until_refused(&evoke, &items, next, &mut accepted);
        for _ in 0..10 {
            // A smaller item may still fit.
            send(&evoke, &items, next, &mut accepted);
            next += 1;
        }
        // Read-only commands work meanwhile.
        evoke.stdout(&["check"]);
        evoke.stdout(&["status"]);
        limit.remove();
        assert!(
            send(&evoke, &items, next, &mut accepted),
            "an item is refused although there is space; EVOKE_SEED={seed}"
        );
        next += 1;
    }
    evoke.settle();
    let by_type = evoke.verify(&items, &accepted);
    assert!(
        by_type.values().all(|numbers| *numbers == accepted),
        "refused items were stored, or accepted items did not pass all functions"
    );
    assert!(evoke.stop().success(), "{}", evoke.log());
    evoke.stdout(&["check"]);
    println!("{next} sent, {} accepted, 0 lost", accepted.len());
}

/// The response of `/readyz` of an admin listener.
fn ready(admin: &str) -> Response {
    get(admin, "/readyz")
}

#[test]
fn readiness_fails_while_the_disk_is_full_and_recovers() {
    readiness_follows(Space::Disk);
}

#[test]
fn readiness_fails_while_a_quota_is_used_up_and_recovers() {
    readiness_follows(Space::Quota);
}

fn readiness_follows(space: Space) {
    let mut evoke = Evoke::with(&manifest());
    let limit = DiskLimit::of(&evoke, space);
    let shim = Shim::for_data_of(&evoke).limited_by(&limit);
    evoke.try_up(&[], shim.environment()).unwrap();
    let items = Items::plain(1, 20, 100);
    let mut accepted = BTreeSet::new();
    let mut next = 0;
    assert_eq!(ready(evoke.admin()).status, 200);
    for _ in 0..3 {
        limit.set(0);
        // The file of the log may have room for a few small events.
        assert_eventually!(
            {
                next = send_until_refused(&evoke, &items, next, &mut accepted);
                ready(evoke.admin()).status == 503
            },
            "ready although nothing is accepted: {}",
            evoke.log()
        );
        let not_ready = ready(evoke.admin());
        assert_eq!(not_ready.status, 503, "{not_ready:?}");
        assert!(not_ready.body.contains("no room left"), "{not_ready:?}");
        assert_eq!(get(evoke.admin(), "/healthz").status, 200);
        limit.remove();
        // Without any other request: a load balancer sends none to a process that is not ready.
        assert_eq!(ready(evoke.admin()).status, 200);
    }
    evoke.settle();
    evoke.stdout(&["check"]);
}

#[test]
fn a_start_on_a_full_disk_succeeds_and_accepts_events_when_there_is_space() {
    start_without_space(Space::Disk);
}

#[test]
fn a_start_with_a_quota_that_is_used_up_succeeds_and_accepts_events_when_there_is_space() {
    start_without_space(Space::Quota);
}

fn start_without_space(space: Space) {
    for is_killed in [false, true] {
        let mut evoke = Evoke::with(&manifest());
        let limit = DiskLimit::of(&evoke, space);
        let items = Items::plain(2, 20, 60_000);
        evoke.up();
        let mut accepted: BTreeSet<usize> = (0..20).collect();
        accepted.iter().for_each(|number| assert_eq!(items.send(evoke.http(), &[*number]).unwrap().status, 202));
        if is_killed {
            evoke.kill();
            // The last line of a log is cut. The file is private: otherwise the start would rebuild SQLite's index, for
            // which the disk has no room.
            let mut log =
                File::options().write(true).create(true).truncate(true).mode(0o600).open(evoke.path(LOG)).unwrap();
            log.write_all(b"{\"at\":\"2026").unwrap();
        } else {
            evoke.settle();
            assert!(evoke.stop().success());
        }
        let shim = Shim::for_data_of(&evoke).limited_by(&limit);
        limit.set(0);
        evoke.start_with(&[], shim.environment());
        let log = || evoke.log();
        // After a clean end, SQLite has removed its index; the start has room for a new one only if it removed old files.
        let waits = || !is_killed && log().contains("the start waits until there is room");
        assert_eventually!(waits() || log().contains("listen.json is written when there is room"), "{}", log());
        if !is_killed && !waits() {
            let line = log().lines().rfind(|line| line.contains("listening")).unwrap().to_owned();
            let not_ready = ready(line.rsplit("http://").next().unwrap().split(' ').next().unwrap());
            assert_eq!(not_ready.status, 503, "{not_ready:?}");
        }
        assert!(!evoke.path(".evoke/listen.json").exists());
        limit.remove();
        evoke.await_ready();
        assert_eq!(ready(evoke.admin()).status, 200);
        assert!(send(&evoke, &items, 20, &mut accepted));
        evoke.settle();
        let by_type = evoke.verify(&items, &accepted);
        assert!(by_type.values().all(|numbers| *numbers == accepted), "{}", evoke.log());
        assert!(evoke.stop().success(), "{}", evoke.log());
        evoke.stdout(&["check"]);
    }
}

#[test]
fn a_start_that_has_no_room_for_the_store_says_what_to_do() {
    start_without_store(Space::Disk);
}

#[test]
fn a_start_whose_quota_has_no_room_for_the_store_says_what_to_do() {
    start_without_store(Space::Quota);
}

fn start_without_store(space: Space) {
    let mut evoke = Evoke::with(&manifest());
    let limit = DiskLimit::of(&evoke, space);
    let shim = Shim::for_data_of(&evoke).limited_by(&limit);
    limit.set(0);
    assert_eq!(evoke.try_up(&[], shim.environment()).unwrap_err().code(), Some(1));
    assert!(evoke.log().contains("the disk is full: free some space on it"), "{}", evoke.log());
    limit.remove();
    evoke.try_up(&[], shim.environment()).unwrap();
}

#[test]
fn a_log_that_a_reader_made_long_is_truncated_when_the_reader_has_left() {
    let evoke = Evoke::up_with(
        "evoke: 1\napp: lab\nsources:\n  in:\n    http: { path: /in, methods: [POST], max_body: 8MiB, type: item }\n",
    );
    let size = || std::fs::metadata(evoke.path(".evoke/evoke.db-wal")).unwrap().len();
    let reader = rusqlite::Connection::open(evoke.path(".evoke/evoke.db")).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let _: i64 = reader.query_row("SELECT COUNT(*) FROM events", [], |row| row.get(0)).unwrap();
    let body = format!("\"{}\"", "x".repeat(900_000));
    (0..75).for_each(|_| drop(evoke.post_accepted("/in", &body)));
    assert!(size() > 60 << 20, "{} bytes", size());
    reader.execute_batch("COMMIT").unwrap();
    // Nothing else is written.
    assert_eventually!(size() <= 32 << 20, "the log has {} bytes", size());
    assert_eq!(evoke.post("/in", "{}").status, 202);
    evoke.stdout(&["check"]);
}

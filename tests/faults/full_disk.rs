//! A full disk is not a storage failure: Evoke refuses events with a retry time, and accepts events again when there is
//! free space.

use std::collections::BTreeSet;

use super::items::{Items, manifest};
use super::random::{Random, size};
use super::shim::{DiskLimit, Shim};
use crate::support::Evoke;

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
    let seed = Random::seed("full disk");
    let mut random = Random::new(seed);
    let mut evoke = Evoke::with(&manifest());
    let limit = DiskLimit::of(&evoke);
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

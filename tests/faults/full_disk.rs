//! A full disk is no failure: it refuses with a time to come back, and works again when there is room.

use std::collections::BTreeSet;

use super::items::{Items, manifest};
use super::random::{Random, size};
use super::shim::{Room, Shim};
use crate::support::Evoke;

/// Sends an item; answers whether it was accepted. When it was not, it was for want of room.
fn send(evoke: &Evoke, items: &Items, number: usize, accepted: &mut BTreeSet<usize>) -> bool {
    let answer = items.send(evoke.http(), &[number]).unwrap();
    if answer.status == 202 {
        return accepted.insert(number);
    }
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0, "{answer:?}");
    assert!(answer.body.contains("room"), "{answer:?}");
    false
}

/// Sends items from this one on until one is refused; answers the number behind it.
fn fill(evoke: &Evoke, items: &Items, first: usize, accepted: &mut BTreeSet<usize>) -> usize {
    let refused = (first..).find(|number| !send(evoke, items, *number, accepted));
    refused.unwrap() + 1
}

#[test]
fn a_full_disk_refuses_with_a_time_to_come_back_and_works_again_when_there_is_room() {
    let seed = Random::seed("full disk");
    let mut random = Random::new(seed);
    let mut evoke = Evoke::with(&manifest());
    let room = Room::of(&evoke);
    let shim = Shim::beneath(&evoke).limited_by(&room);
    evoke.try_up(&[], shim.environment()).unwrap();
    let items = Items::plain(seed, 20, 60_000);
    let mut accepted = BTreeSet::new();
    let mut next = 0;
    for round in 0..size(8, 100) {
        // From none at all to some way into a commit of some item.
        room.limit(if round == 0 { 0 } else { random.below(2_000_000) });
        next = fill(&evoke, &items, next, &mut accepted);
        for _ in 0..10 {
            // A small one may find room where that one did not.
            send(&evoke, &items, next, &mut accepted);
            next += 1;
        }
        // It can be looked at meanwhile.
        evoke.stdout(&["check"]);
        evoke.stdout(&["status"]);
        room.free();
        assert!(send(&evoke, &items, next, &mut accepted), "there is room again; EVOKE_SEED={seed}");
        next += 1;
    }
    evoke.settle();
    let by_type = evoke.verify(&items, &accepted);
    assert!(
        by_type.values().all(|numbers| *numbers == accepted),
        "refused ones were stored, or not all went all the way"
    );
    assert!(evoke.stop().success(), "{}", evoke.log());
    evoke.stdout(&["check"]);
    println!("{next} sent, {} accepted, 0 lost", accepted.len());
}

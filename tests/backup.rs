//! A backup is the store at one moment: whole, verified, and of use.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use crate::faults::items::{Items, manifest};
use crate::faults::producers::Producers;
use crate::support::Evoke;

/// An Evoke that goes on from the copy in a folder of its own.
fn restored(copy: &str, from: &Evoke) -> Evoke {
    let mut evoke = Evoke::with(&manifest());
    evoke.take_compiled(&from.path(".evoke/compiled"));
    std::fs::copy(from.path(copy), evoke.path(".evoke/evoke.db")).unwrap();
    evoke.up();
    evoke
}

#[test]
fn a_backup_under_load_holds_everything_acknowledged_before_it_began() {
    let evoke = Evoke::up_with(&manifest());
    let items = Items { retries: 10, ..Items::plain(7, 50, 5_000) };
    let producers = Producers::new(&items, usize::MAX);
    producers.send_to(evoke.http());
    let mut copies: Vec<(String, BTreeSet<usize>)> = Vec::new();
    std::thread::scope(|scope| {
        for n in 0..3 {
            let producers = &producers;
            scope.spawn(move || producers.run(n));
        }
        for n in 0..3 {
            while producers.acknowledged_count() < 100 * (n + 1) {
                std::thread::yield_now();
            }
            let before = producers.acknowledged();
            let copied = evoke.json(&["backup", &format!("copies/{n}/")]);
            let there = copied["events"].as_u64().unwrap();
            assert!(there >= before.len() as u64, "{copied}");
            copies.push((copied["path"].as_str().unwrap().to_owned(), before));
        }
        producers.stop();
    });
    evoke.settle();
    for (path, acknowledged) in copies {
        let folder = path.strip_suffix("/evoke.db").unwrap();
        evoke.stdout(&["check", "--data", folder]);
        let restored = restored(&path, &evoke);
        restored.settle();
        let there = restored.verify(&items, &acknowledged);
        assert!(there.values().all(|numbers| *numbers == there["item"]), "it went on from where it was");
        restored.stdout(&["check"]);
    }
    // And nobody noticed.
    let there = evoke.verify(&items, &producers.acknowledged());
    assert!(there.values().all(|numbers| *numbers == there["item"]));
}

#[test]
fn a_backup_replaces_nothing_and_needs_nobody_running() {
    let mut evoke = Evoke::with(&manifest());
    let missing = evoke.run(&["backup", "copy.db"]);
    assert_eq!(missing.status.code(), Some(4), "{missing:?}");
    evoke.up();
    let items = Items::plain(1, 5, 100);
    assert_eq!(items.send(evoke.http(), &[0, 1, 2]).unwrap().status, 202);
    evoke.settle();
    assert!(evoke.stop().success());
    // Nobody gets to read the copy who may not read the store.
    std::fs::set_permissions(evoke.path(".evoke/evoke.db"), PermissionsExt::from_mode(0o600)).unwrap();
    assert!(evoke.stdout(&["backup", "copy.db"]).contains("12 events"));
    let copy = std::fs::metadata(evoke.path("copy.db")).unwrap();
    assert_eq!(copy.permissions().mode() & 0o777, 0o600);

    for to in ["copy.db", "."] {
        std::fs::write(evoke.path("evoke.db"), "mine").unwrap();
        let again = evoke.run(&["backup", to]);
        assert_eq!(again.status.code(), Some(1), "{again:?}");
        assert!(String::from_utf8_lossy(&again.stderr).contains("already exists"), "{again:?}");
    }
    assert_eq!(std::fs::read_to_string(evoke.path("evoke.db")).unwrap(), "mine");
    assert_eq!(std::fs::metadata(evoke.path("copy.db")).unwrap().len(), copy.len());
    let left: Vec<_> = std::fs::read_dir(evoke.path(".")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".new")), "{left:?}");
    let restored = restored("copy.db", &evoke);
    assert_eq!(restored.verify(&items, &BTreeSet::from([0, 1, 2]))["item.three"].len(), 3);
}

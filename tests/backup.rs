//! `evoke backup`: the copy is a complete, verified snapshot of the store, and Evoke starts from it.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use crate::faults::items::{Items, manifest};
use crate::faults::producers::Producers;
use crate::support::Evoke;

/// Starts another Evoke from the copy, in a new folder.
fn restored(copy: &str, from: &Evoke) -> Evoke {
    let mut evoke = Evoke::with(&manifest());
    evoke.copy_compiled_cache(&from.path(".evoke/compiled"));
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
            let copied_events = copied["events"].as_u64().unwrap();
            assert!(copied_events >= before.len() as u64, "{copied}");
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
        let stored = restored.verify(&items, &acknowledged);
        assert!(stored.values().all(|numbers| *numbers == stored["item"]), "the restored store handles the rest");
        restored.stdout(&["check"]);
    }
    // The backups did not disturb the original.
    let stored = evoke.verify(&items, &producers.acknowledged());
    assert!(stored.values().all(|numbers| *numbers == stored["item"]));
}

#[test]
fn a_backup_never_overwrites_a_file_and_works_without_a_server() {
    let mut evoke = Evoke::with(&manifest());
    let missing = evoke.run(&["backup", "copy.db"]);
    assert_eq!(missing.status.code(), Some(4), "{missing:?}");
    evoke.up();
    let items = Items::plain(1, 5, 100);
    assert_eq!(items.send(evoke.http(), &[0, 1, 2]).unwrap().status, 202);
    evoke.settle();
    assert!(evoke.stop().success());
    // The copy has the permissions of the store.
    std::fs::set_permissions(evoke.path(".evoke/evoke.db"), PermissionsExt::from_mode(0o600)).unwrap();
    assert!(evoke.stdout(&["backup", "copy.db"]).contains("12 events"));
    let copy_metadata = std::fs::metadata(evoke.path("copy.db")).unwrap();
    assert_eq!(copy_metadata.permissions().mode() & 0o777, 0o600);

    for to in ["copy.db", "."] {
        std::fs::write(evoke.path("evoke.db"), "mine").unwrap();
        let again = evoke.run(&["backup", to]);
        assert_eq!(again.status.code(), Some(1), "{again:?}");
        assert!(String::from_utf8_lossy(&again.stderr).contains("already exists"), "{again:?}");
    }
    assert_eq!(std::fs::read_to_string(evoke.path("evoke.db")).unwrap(), "mine");
    assert_eq!(std::fs::metadata(evoke.path("copy.db")).unwrap().len(), copy_metadata.len());
    let names: Vec<_> = std::fs::read_dir(evoke.path(".")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".new")), "{names:?}");
    let restored = restored("copy.db", &evoke);
    assert_eq!(restored.verify(&items, &BTreeSet::from([0, 1, 2]))["item.three"].len(), 3);
}

#[test]
fn a_backup_into_a_folder_in_which_others_can_replace_files_is_refused() {
    let mut evoke = Evoke::up_with(&manifest());
    assert!(evoke.stop().success());
    let shared = evoke.path("shared");
    std::fs::create_dir(&shared).unwrap();
    let backup = |mode| {
        std::fs::set_permissions(&shared, PermissionsExt::from_mode(mode)).unwrap();
        evoke.run(&["backup", "shared/copy.db"])
    };
    let refused = backup(0o777);
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && message.contains("`chmod go-w`"), "{refused:?}");
    assert!(std::fs::read_dir(&shared).unwrap().next().is_none());
    // With the sticky bit, others cannot replace the files of this user.
    assert!(backup(0o1777).status.success());
}

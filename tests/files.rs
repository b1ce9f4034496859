//! The files source: each version of a file is imported exactly once, however it was written into the folder.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::assert_eventually;
use crate::support::{Evoke, shell};

const IMPORT: &str = r#"
evoke: 1
app: files
sources:
  inbox:
    files: { path: ./inbox, include: ["**/*.csv"], content: true, settle: 100ms }
functions:
  import-csv:
    component: $FUNCTIONS/import-csv.wasm
    on:
      - source: inbox
    allow: { publish: ["csv.*"] }
"#;

/// Starts an Evoke that watches the empty folder `inbox`.
fn watching() -> Evoke {
    let mut evoke = Evoke::with(IMPORT);
    std::fs::create_dir(evoke.path("inbox")).unwrap();
    evoke.up();
    evoke
}

/// The imports so far, each as `PATH ROWS`.
fn imports(evoke: &Evoke) -> Vec<String> {
    let events = evoke.events("csv.imported");
    events.iter().map(|e| format!("{} {}", e["data"]["path"].as_str().unwrap(), e["data"]["rows"])).collect()
}

/// Waits for exactly these imports. A last file is added and must be imported too: each scan covers the whole folder,
/// so after it no other import can be outstanding.
fn assert_imports(evoke: &Evoke, expected: &[&str]) {
    assert_eventually!(imports(evoke).len() >= expected.len(), "{:?}\n{}", imports(evoke), evoke.log());
    std::fs::write(evoke.path("inbox/zz-last.csv"), "a\n1\n").unwrap();
    assert_eventually!(imports(evoke).iter().any(|i| i == "zz-last.csv 1"), "{:?}\n{}", imports(evoke), evoke.log());
    let mut found: Vec<_> = imports(evoke).into_iter().filter(|i| !i.starts_with("zz")).collect();
    found.sort();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn mv_cp_and_an_atomic_save_give_one_import_per_version() {
    let evoke = watching();
    let folder = evoke.path("");
    shell(&folder, r"printf 'a,b\n1,2\n' > moved.csv; mv moved.csv inbox/moved.csv");
    shell(&folder, r"printf 'a,b\n1,2\n3,4\n' > source.csv; cp source.csv inbox/copied.csv");
    shell(&folder, r"printf 'a\n1\n2\n3\n' > inbox/.saved.csv.swp; mv inbox/.saved.csv.swp inbox/saved.csv");
    assert_eventually!(imports(&evoke).len() >= 3, "{:?}\n{}", imports(&evoke), evoke.log());
    // The next version, saved as an editor does: a backup copy beside the file, then a temporary file renamed over it.
    shell(
        &folder,
        r"cp inbox/saved.csv inbox/saved.csv~; printf 'a\n1\n2\n3\n4\n' > inbox/4913; mv inbox/4913 inbox/saved.csv; rm inbox/saved.csv~",
    );
    assert_eventually!(imports(&evoke).len() >= 4, "{:?}\n{}", imports(&evoke), evoke.log());
    // `touch` changes the time but not the content: no new version.
    shell(&folder, "touch inbox/moved.csv");
    assert_imports(&evoke, &["moved.csv 1", "copied.csv 2", "saved.csv 3", "saved.csv 4"]);
}

#[test]
fn a_file_is_imported_only_when_it_is_complete() {
    let evoke = watching();
    let mut rows = std::fs::File::create(evoke.path("inbox/slow.csv")).unwrap();
    for n in 0..200 {
        use std::io::Write;
        writeln!(rows, "{n},{n}").unwrap();
        if n % 20 == 0 {
            rows.sync_all().unwrap();
            std::thread::yield_now();
        }
    }
    drop(rows);
    assert_imports(&evoke, &["slow.csv 199"]);
}

#[test]
fn changes_made_while_evoke_is_down_are_imported_once() {
    let mut evoke = watching();
    shell(&evoke.path("inbox"), r"mkdir -p deep/er; printf 'a\n1\n' > deep/er/old.csv; printf 'a\n1\n' > same.csv");
    assert_eventually!(imports(&evoke).len() >= 2, "{:?}\n{}", imports(&evoke), evoke.log());
    evoke.kill();
    shell(&evoke.path("inbox"), r"printf 'a\n1\n2\n' > deep/er/old.csv; printf 'a\n1\n2\n3\n' > new.csv");
    evoke.up();
    assert_imports(&evoke, &["deep/er/old.csv 1", "same.csv 1", "deep/er/old.csv 2", "new.csv 3"]);
}

#[test]
fn a_malformed_csv_file_becomes_a_dead_letter_that_names_the_line() {
    let evoke = watching();
    std::fs::write(evoke.path("inbox/bad.csv"), "a,b\n1,2\n3\n").unwrap();
    assert_eventually!(evoke.delivery_count("dead") == 1, "{}", evoke.log());
    let list = evoke.stdout(&["dead", "list"]);
    assert!(list.contains("bad.csv") && list.contains("line 3"), "{list}");
}

/// Why the source is degraded, as `evoke status` shows it; empty while it works.
fn trouble(evoke: &Evoke) -> String {
    let status = evoke.json(&["status"]);
    let source = status["sources"].as_array().unwrap().iter().find(|source| source["uri"] == "/files/inbox").unwrap();
    source["trouble"].as_str().unwrap_or_default().to_owned()
}

/// The reasons of the runtime events that report the degraded source.
fn reports(evoke: &Evoke) -> Vec<String> {
    let events = evoke.json_lines(&["events", "--source", "/evoke", "--type", "evoke.source.degraded", "--after", "0"]);
    events.iter().map(|event| event["data"]["reason"].as_str().unwrap().to_owned()).collect()
}

/// All file events so far, each as `TYPE PATH`.
fn file_events(evoke: &Evoke) -> Vec<String> {
    let events = evoke.json_lines(&["events", "--source", "/files/inbox", "--after", "0"]);
    events.iter().map(|e| format!("{} {}", e["type"].as_str().unwrap(), e["subject"].as_str().unwrap())).collect()
}

/// Reads every event whole, to search what reached the store.
fn everything(evoke: &Evoke) -> String {
    evoke.stdout(&["events", "--after", "0", "--json"])
}

const SECRET: &str = "a,b\nsecret,secret\n";

#[test]
fn another_folder_in_place_of_the_inbox_is_not_read_until_a_reload_accepts_it() {
    let mut evoke = Evoke::with(IMPORT);
    std::fs::create_dir(evoke.path("inbox")).unwrap();
    evoke.up_with_arguments(&["--watch"]);
    std::fs::write(evoke.path("inbox/first.csv"), "a\n1\n").unwrap();
    assert_eventually!(imports(&evoke).len() == 1, "{}", evoke.log());
    std::fs::create_dir(evoke.path("private")).unwrap();
    std::fs::write(evoke.path("private/secret.csv"), SECRET).unwrap();

    // A link, and then the private folder itself.
    std::fs::rename(evoke.path("inbox"), evoke.path("original")).unwrap();
    symlink("private", evoke.path("inbox")).unwrap();
    assert_eventually!(trouble(&evoke).contains("a link to another folder"), "{}", evoke.log());
    assert_eventually!(reports(&evoke).iter().any(|r| r.contains("a link to another folder")), "{}", evoke.log());
    std::fs::remove_file(evoke.path("inbox")).unwrap();
    std::fs::rename(evoke.path("private"), evoke.path("inbox")).unwrap();
    assert_eventually!(trouble(&evoke).contains("replaced by another folder"), "{}", evoke.log());
    assert!(evoke.stdout(&["status"]).contains("degraded: the folder"), "{}", evoke.stdout(&["status"]));

    // The original is back: nothing was lost or invented.
    std::fs::rename(evoke.path("inbox"), evoke.path("private")).unwrap();
    std::fs::write(evoke.path("original/second.csv"), "a\n1\n").unwrap();
    std::fs::rename(evoke.path("original"), evoke.path("inbox")).unwrap();
    assert_eventually!(trouble(&evoke).is_empty(), "{}", trouble(&evoke));
    assert_imports(&evoke, &["first.csv 1", "second.csv 1"]);
    assert!(!everything(&evoke).contains("secret"), "{}", everything(&evoke));

    // An operator replaces the folder, and accepts that with a reload.
    std::fs::rename(evoke.path("inbox"), evoke.path("old")).unwrap();
    std::fs::create_dir(evoke.path("inbox")).unwrap();
    std::fs::write(evoke.path("inbox/third.csv"), "a\n1\n").unwrap();
    assert_eventually!(trouble(&evoke).contains("reload or restart Evoke"), "{}", evoke.log());
    evoke.write_manifest(&format!("{IMPORT}# accepted\n"));
    assert_eventually!(imports(&evoke).contains(&"third.csv 1".to_owned()), "{}", evoke.log());
    let removed = "evoke.file.removed first.csv".to_owned();
    assert_eventually!(file_events(&evoke).contains(&removed), "{:?}", file_events(&evoke));
    assert_eventually!(trouble(&evoke).is_empty(), "{}", trouble(&evoke));
}

#[test]
fn the_content_of_a_hard_link_reaches_no_function_unless_the_manifest_allows_it() {
    let mut evoke = watching();
    std::fs::write(evoke.path("secret"), SECRET).unwrap();
    std::fs::hard_link(evoke.path("secret"), evoke.path("inbox/linked.csv")).unwrap();
    // The function rejects an event without content.
    assert_eventually!(evoke.delivery_count("dead") == 1, "{}", evoke.log());
    let dead = evoke.stdout(&["dead", "list"]);
    assert!(dead.contains("2 hard links"), "{dead}");
    let events = everything(&evoke);
    assert!(events.contains("linked.csv") && !events.contains("secret"), "{events}");
    assert_eq!(trouble(&evoke), "");
    assert_imports(&evoke, &[]);

    evoke.stop();
    evoke.write_manifest(&IMPORT.replace("content: true", "content: true, hard_links: true"));
    evoke.up();
    std::fs::hard_link(evoke.path("secret"), evoke.path("inbox/allowed.csv")).unwrap();
    assert_eventually!(imports(&evoke).contains(&"allowed.csv 1".to_owned()), "{}", evoke.log());
}

#[test]
fn pipes_and_sockets_are_not_opened_and_hide_nothing() {
    let evoke = watching();
    shell(&evoke.path("inbox"), "mkfifo pipe.csv; ln -s /dev/zero zero.csv; ln -s . loop; ln -s pipe.csv link.csv");
    let _socket = std::os::unix::net::UnixListener::bind(evoke.path("inbox/socket.csv")).unwrap();
    std::fs::write(evoke.path("inbox/a.csv"), "a\n1\n").unwrap();
    assert_imports(&evoke, &["a.csv 1"]);
    // Evoke has not opened the pipe for reading.
    let write = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    let opened = rustix::fs::open(evoke.path("inbox/pipe.csv"), write, rustix::fs::Mode::empty());
    assert_eq!(opened.unwrap_err(), rustix::io::Errno::NXIO);
    assert_eq!(trouble(&evoke), "");
}

#[test]
fn a_huge_file_is_reported_and_a_large_one_delays_no_other_and_no_stop() {
    let mut evoke = Evoke::with(&IMPORT.replace("settle: 100ms", "settle: 100ms, max_size: 1024GiB"));
    std::fs::create_dir(evoke.path("inbox")).unwrap();
    let sparse = |name: &str, bytes: u64| std::fs::File::create(evoke.path(name)).unwrap().set_len(bytes).unwrap();
    sparse("inbox/huge.csv", 2 << 40);
    sparse("inbox/large.csv", 1 << 40);
    std::fs::write(evoke.path("inbox/small.csv"), "a\n1\n").unwrap();
    evoke.up();
    assert_imports(&evoke, &["small.csv 1"]);
    assert_eventually!(trouble(&evoke).contains("`huge.csv` (its size of 2048GiB is larger"), "{}", trouble(&evoke));
    assert!(!trouble(&evoke).contains("large.csv"), "{}", trouble(&evoke));
    assert_eventually!(reports(&evoke).iter().any(|r| r.contains("`max_size` (1024GiB)")), "{:?}", reports(&evoke));
    assert!(evoke.stop().success(), "{}", evoke.log());
    evoke.up();
    assert_imports(&evoke, &["small.csv 1"]);
    std::fs::remove_file(evoke.path("inbox/huge.csv")).unwrap();
    assert_eventually!(trouble(&evoke).is_empty(), "{}", trouble(&evoke));
}

#[test]
fn an_entry_that_cannot_be_read_fails_alone_and_an_excluded_one_does_not_count() {
    let mut evoke = Evoke::with(&IMPORT.replace("content: true", "exclude: [private], content: true"));
    evoke.respect_permissions();
    for folder in ["inbox", "inbox/private", "inbox/locked"] {
        std::fs::create_dir(evoke.path(folder)).unwrap();
    }
    let folder = evoke.path("");
    let lock = |name: &str, mode: u32| {
        std::fs::set_permissions(folder.join(name), Permissions::from_mode(mode)).unwrap();
    };
    for name in ["inbox/locked/in.csv", "inbox/denied.csv", "inbox/notes.txt", "inbox/a.csv"] {
        std::fs::write(evoke.path(name), "a\n1\n").unwrap();
    }
    for name in ["inbox/private", "inbox/locked", "inbox/denied.csv", "inbox/notes.txt"] {
        lock(name, 0o000);
    }
    evoke.up();
    assert_imports(&evoke, &["a.csv 1"]);
    let expected = "cannot read `locked` (Permission denied (os error 13)); \
                    cannot submit the events of `denied.csv` (Permission denied (os error 13))";
    assert_eventually!(trouble(&evoke) == expected, "{}", trouble(&evoke));
    // Reported once, however often it is tried again.
    assert_eventually!(reports(&evoke).len() == 1, "{:?}", reports(&evoke));
    std::fs::write(evoke.path("inbox/b.csv"), "a\n1\n2\n").unwrap();
    assert_eventually!(imports(&evoke).contains(&"b.csv 2".to_owned()), "{}", evoke.log());

    lock("inbox/locked", 0o700);
    lock("inbox/denied.csv", 0o600);
    assert_eventually!(trouble(&evoke).is_empty(), "{}", trouble(&evoke));
    assert_eventually!(imports(&evoke).len() == 5, "{:?}", imports(&evoke));
    // A known folder that becomes unreadable does not look empty.
    lock("inbox/locked", 0o000);
    assert_eventually!(trouble(&evoke).contains("`locked`"), "{}", evoke.log());
    lock("inbox/locked", 0o700);
    assert_eventually!(trouble(&evoke).is_empty(), "{}", trouble(&evoke));
    assert!(!file_events(&evoke).iter().any(|event| event.contains("removed")), "{:?}", file_events(&evoke));
    lock("inbox/private", 0o700);
}

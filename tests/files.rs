//! The files source: each version of a file is imported exactly once, however it was written into the folder.

use std::path::Path;
use std::process::Command;

use crate::assert_eventually;
use crate::support::Evoke;

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

fn shell(folder: &Path, script: &str) {
    let status = Command::new("sh").args(["-ec", script]).current_dir(folder).status().unwrap();
    assert!(status.success(), "{script}");
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

//! The files of the running store: nothing in the process disturbs their locks, no other program deletes the log, and
//! Evoke notices when they are removed or replaced.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use evoke_model::clock::Clock;
use evoke_store::{DeliveryStore, Store};
use evoke_store_sqlite::{SqliteStore, check_folder};

use crate::assert_eventually;
use crate::support::{Evoke, post};

/// An http source, and a files source that watches `$PATH`.
const WATCHING: &str = r#"
evoke: 1
app: lab
sources:
  in:
    http: { path: /in, methods: [POST], type: order.placed }
  watched:
    files: { path: $PATH, settle: 20ms, content: true }
"#;

/// The path of a database for [`opens_and_closes_a_store_as_another_program`].
const FOREIGN: &str = "EVOKE_TEST_FOREIGN_STORE";

/// Not a test by itself: the test below runs it in a process of its own.
#[test]
#[ignore = "run by another test in a process of its own"]
fn opens_and_closes_a_store_as_another_program() {
    let path = std::env::var(FOREIGN).unwrap();
    read_as_another_program(Path::new(&path));
}

/// Reads a store through a connection of this process, and closes it: SQLite then deletes the log if it believes that
/// no other process uses the store.
fn read_as_another_program(database: &Path) {
    let connection = rusqlite::Connection::open(database).unwrap();
    let _: i64 = connection.query_row("SELECT COUNT(*) FROM events", [], |row| row.get(0)).unwrap();
    connection.close().unwrap();
}

/// The subjects of the file events so far.
fn files(evoke: &Evoke) -> Vec<String> {
    let all = evoke.json_lines(&["events", "--type", "evoke.file.*", "--after", "0"]);
    all.iter().map(|event| event["subject"].as_str().unwrap().to_owned()).collect()
}

/// The reason why the files source is degraded.
fn trouble(evoke: &Evoke) -> String {
    let status = evoke.json(&["status"]);
    let sources = status["sources"].as_array().unwrap();
    sources.iter().filter_map(|source| source["trouble"].as_str()).collect()
}

/// Posts events while another program reads the store, kills Evoke, and expects all of them after a restart.
fn assert_nothing_is_lost(evoke: &mut Evoke, data: &str, arguments: &[&str]) {
    let database = evoke.path(data).join("evoke.db");
    let log = evoke.path(data).join("evoke.db-wal");
    (0..3).for_each(|_| drop(evoke.post_accepted("/in", "{}")));
    let inode = fs::metadata(&log).unwrap().ino();
    read_as_another_program(&database);
    assert_eq!(fs::metadata(&log).map(|log| log.ino()).ok(), Some(inode), "the log was deleted: {}", evoke.log());
    (0..3).for_each(|_| drop(evoke.post_accepted("/in", "{}")));
    evoke.kill();
    let _ = fs::remove_file(evoke.path(data).join("listen.json"));
    evoke.up_with_arguments(arguments);
    assert_eq!(evoke.json_lines(&["events", "--type", "order.placed", "--after", "0"]).len(), 6, "{}", evoke.log());
    evoke.stdout(&["check"]);
}

#[test]
fn a_files_source_that_watches_the_data_folder_leaves_it_out_and_loses_nothing() {
    let mut evoke = Evoke::with(&WATCHING.replace("$PATH", "."));
    evoke.up();
    // Other names of the files and of the folder.
    for name in ["evoke.db", "evoke.db-wal", "evoke.db-shm"] {
        fs::hard_link(evoke.path(".evoke").join(name), evoke.path(&format!("other-{name}"))).unwrap();
    }
    symlink(".evoke", evoke.path("linked")).unwrap();
    fs::write(evoke.path("last.txt"), "last").unwrap();
    // Each scan covers the whole folder. The second file is new after the first one was found: the hard links, which
    // are as old, have been offered too.
    assert_eventually!(files(&evoke).contains(&"last.txt".to_owned()), "{}", evoke.log());
    fs::write(evoke.path("last2.txt"), "last").unwrap();
    assert_eventually!(files(&evoke).contains(&"last2.txt".to_owned()), "{}", evoke.log());
    let of_store: Vec<_> =
        files(&evoke).into_iter().filter(|file| file.contains("evoke.db") || file.contains(".evoke/")).collect();
    assert_eq!(of_store, [""; 0]);
    assert!(evoke.log().contains("ignores `.evoke`, which is part of Evoke's own store"), "{}", evoke.log());
    assert_nothing_is_lost(&mut evoke, ".evoke", &[]);
}

#[test]
fn a_source_whose_folder_is_the_data_folder_is_degraded_and_loses_nothing() {
    for (path, data) in [("./.evoke", ".evoke"), ("./linked", ".evoke"), ("./.evoke/../.evoke/logs/..", ".evoke")] {
        let mut evoke = Evoke::with(&WATCHING.replace("$PATH", path));
        fs::create_dir_all(evoke.path(".evoke/logs")).unwrap();
        symlink(".evoke", evoke.path("linked")).unwrap();
        evoke.up();
        assert_eventually!(trouble(&evoke).contains("data folder of this Evoke"), "{path}: {}", evoke.log());
        assert_nothing_is_lost(&mut evoke, data, &[]);
        assert_eq!(files(&evoke), [""; 0], "{path}");
    }
}

#[test]
fn a_secret_or_a_component_that_names_the_store_is_refused_and_loses_nothing() {
    let mut evoke = Evoke::with(&WATCHING.replace("$PATH", "./empty"));
    fs::create_dir(evoke.path("empty")).unwrap();
    evoke.up_with_arguments(&["--watch"]);
    fs::hard_link(evoke.path(".evoke/evoke.db"), evoke.path("store.wat")).unwrap();
    let function = "
functions:
  f:
    component: $COMPONENT
    on: [{ events: { type: [x] } }]
    allow: { secrets: { KEY: { file: $SECRET } } }
";
    let mut tries = 0;
    for (component, secret) in [("store.wat", "./evoke.yaml"), ("$FUNCTIONS/notify.wasm", "./.evoke/evoke.db-shm")] {
        let function = function.replace("$COMPONENT", component).replace("$SECRET", secret);
        evoke.write_manifest(&(WATCHING.replace("$PATH", "./empty") + &function));
        tries += 1;
        let refused = || evoke.log().matches("the previous manifests stay active").count();
        assert_eventually!(refused() >= tries, "{component}: {}", evoke.log());
    }
    assert!(evoke.log().contains("belongs to the store"), "{}", evoke.log());
    evoke.write_manifest(&WATCHING.replace("$PATH", "./empty"));
    assert_nothing_is_lost(&mut evoke, ".evoke", &[]);
}

#[test]
fn validate_warns_of_a_files_source_that_watches_the_data_folder() {
    let evoke = Evoke::with(&WATCHING.replace("$PATH", "."));
    let warning = |arguments: &[&str]| {
        let output = evoke.run(&[&["validate"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    // Before the folder exists, and with another one.
    assert!(
        warning(&[]).contains("the folder of the store, `.evoke`, is in a watched folder; no file in `.evoke` becomes"),
        "{}",
        warning(&[])
    );
    assert!(warning(&["--data", "my/data"]).contains("`my/data`"), "{}", warning(&["--data", "my/data"]));
    assert!(!warning(&["--data", "/elsewhere"]).contains("store"));
    evoke.write_manifest(&WATCHING.replace("path: $PATH", "path: ., exclude: [\".evoke\"]"));
    assert!(!warning(&[]).contains("store"), "{}", warning(&[]));
}

#[test]
fn another_program_cannot_delete_the_log_even_if_all_posix_locks_are_lost() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("evoke.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(folder.path(), Clock::system()).unwrap();
        store.register(vec!["lab/first".into()]).await.unwrap();
        // Closing any descriptor of a file drops all POSIX locks that this process has on it.
        for name in ["evoke.db", "evoke.db-shm"] {
            drop(fs::File::open(folder.path().join(name)).unwrap());
        }
        let log = folder.path().join("evoke.db-wal");
        let inode = fs::metadata(&log).unwrap().ino();
        let name = "store_files::opens_and_closes_a_store_as_another_program";
        let mut other = Command::new(std::env::current_exe().unwrap());
        let output = other.args(["--exact", name, "--ignored"]).env(FOREIGN, &database).output().unwrap();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
        assert_eq!(fs::metadata(&log).map(|log| log.ino()).ok(), Some(inode), "the log was deleted");
        let ids = store.register(vec!["lab/first".into(), "lab/second".into()]).await.unwrap();
        assert_eq!(ids.len(), 2);
        store.close().await.unwrap();
    });
    assert!(check_folder(folder.path()).unwrap().problems.is_empty());
    // The writer's thread closes its connection after `close` has returned.
    let is_log_deleted = || {
        let connection = rusqlite::Connection::open(&database).unwrap();
        let names: i64 = connection.query_row("SELECT COUNT(*) FROM functions", [], |row| row.get(0)).unwrap();
        assert_eq!(names, 2);
        drop(connection);
        !folder.path().join("evoke.db-wal").exists()
    };
    assert_eventually!(is_log_deleted(), "a closed store keeps its log from being deleted");
}

/// Empties a file, which keeps its name and inode.
fn cut(file: &Path) {
    fs::File::options().write(true).open(file).unwrap().set_len(0).unwrap();
}

/// A shell may cut the log between any two commits: events that are written after the cut must not be acknowledged.
#[test]
fn nothing_is_acknowledged_after_the_log_was_cut_under_load() {
    for events in [1, 7, 40] {
        let mut evoke = Evoke::up_with(&WATCHING.replace("$PATH", "./empty"));
        (0..events).for_each(|_| drop(evoke.post_accepted("/in", "{}")));
        cut(&evoke.path(".evoke/evoke.db-wal"));
        for _ in 0..2 {
            // The process may have ended already.
            let response = post(evoke.http(), "/in", &[("content-type", "application/json")], "{}");
            assert!(!response.is_ok_and(|response| response.status < 500), "{events}: {}", evoke.log());
        }
        assert_eq!(evoke.wait().code(), Some(1), "{}", evoke.log());
        let log = evoke.log();
        assert!(log.contains("truncated or overwrote") && log.contains("evoke.db-wal while Evoke"), "{log}");
    }
}

#[test]
fn another_program_may_copy_and_shorten_the_log() {
    let mut evoke = Evoke::up_with(&WATCHING.replace("$PATH", "./empty"));
    let other = rusqlite::Connection::open(evoke.path(".evoke/evoke.db")).unwrap();
    for how in ["PASSIVE", "TRUNCATE", "RESTART", "FULL", "TRUNCATE"] {
        (0..20).for_each(|_| drop(evoke.post_accepted("/in", "{}")));
        other.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(())).unwrap();
    }
    other.execute_batch("VACUUM").unwrap();
    (0..20).for_each(|_| drop(evoke.post_accepted("/in", "{}")));
    drop(other);
    evoke.kill();
    fs::remove_file(evoke.path(".evoke/listen.json")).unwrap();
    evoke.up();
    assert_eq!(evoke.json_lines(&["events", "--type", "order.placed", "--after", "0"]).len(), 120, "{}", evoke.log());
    evoke.stdout(&["check"]);
}

#[test]
fn nothing_is_acknowledged_after_the_files_of_the_store_were_removed_or_replaced() {
    type Replace = fn(&Evoke);
    let replace: [(&str, Replace); 9] = [
        ("the folder is removed", |evoke| fs::remove_dir_all(evoke.path(".evoke")).unwrap()),
        ("the folder is moved", |evoke| fs::rename(evoke.path(".evoke"), evoke.path("moved")).unwrap()),
        ("the folder is replaced", |evoke| {
            fs::rename(evoke.path(".evoke"), evoke.path("moved")).unwrap();
            fs::create_dir(evoke.path(".evoke")).unwrap();
            fs::copy(evoke.path("moved/evoke.db"), evoke.path(".evoke/evoke.db")).unwrap();
        }),
        ("the log is removed", |evoke| fs::remove_file(evoke.path(".evoke/evoke.db-wal")).unwrap()),
        ("the database is replaced", |evoke| {
            fs::copy(evoke.path(".evoke/evoke.db"), evoke.path("copy")).unwrap();
            fs::rename(evoke.path("copy"), evoke.path(".evoke/evoke.db")).unwrap();
        }),
        ("the lock is removed", |evoke| fs::remove_file(evoke.path(".evoke/lock")).unwrap()),
        ("the log is cut", |evoke| cut(&evoke.path(".evoke/evoke.db-wal"))),
        ("the database is cut", |evoke| cut(&evoke.path(".evoke/evoke.db"))),
        ("a backup is copied over the database", |evoke| {
            evoke.stdout(&["backup", "backup.db"]);
            fs::copy(evoke.path("backup.db"), evoke.path(".evoke/evoke.db")).unwrap();
        }),
    ];
    let manifest = WATCHING.replace("$PATH", "./empty");
    for (what, replace) in replace {
        for is_idle in [true, false] {
            let mut evoke = Evoke::up_with(&manifest);
            evoke.post_accepted("/in", "{}");
            replace(&evoke);
            if !is_idle {
                // The process may have noticed and ended already.
                let response = post(evoke.http(), "/in", &[("content-type", "application/json")], "{}");
                assert!(response.as_ref().is_ok_and(|r| r.status >= 500) || response.is_err(), "{what}: {response:?}");
            }
            let status = evoke.wait();
            assert_eq!(status.code(), Some(1), "{what}: {}", evoke.log());
            let log = evoke.log();
            assert!(log.contains("while Evoke was running") && log.contains(".evoke"), "{what}: {log}");
        }
    }
}

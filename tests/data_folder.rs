//! The data folder is private to its owner: no other user can read, change or block it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::orders::ORDERS;
use crate::support::Evoke;

const ORDER: &str = r#"{"customer":"ada","total":42,"items":["book"]}"#;
/// A user that owns nothing.
const STRANGER: u32 = 65_534;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Everything below a folder, the folder included.
fn below(folder: PathBuf) -> Vec<PathBuf> {
    let mut found = vec![folder];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        if path.is_dir() {
            found.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        next += 1;
    }
    found
}

/// Asserts that only the owner can use the entries of the data folder.
fn assert_private(folder: PathBuf) {
    let all = below(folder);
    assert!(all.len() > 6, "{all:?}");
    for path in all {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
}

/// Commands that use the data folder.
const COMMANDS: [&[&str]; 3] =
    [&["up", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"], &["check"], &["backup", "copy.db"]];

/// Asserts that every command refuses the data folder with these texts.
fn assert_refused(evoke: &Evoke, data: &str, expected: &[&str]) {
    for command in COMMANDS {
        let output = evoke.run(&[command, &["--data", data]].concat());
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {message}");
        for text in expected {
            assert!(message.contains(text), "{command:?}: no {text} in {message}");
        }
    }
}

#[test]
fn a_data_folder_and_a_backup_are_private_whatever_the_umask() {
    let evoke = Evoke::with(ORDERS);
    // The shell gives every user all permissions to new files.
    let mut command = Command::new("sh");
    command.args(["-c", "umask 000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_evoke")]).args(COMMANDS[0]);
    let log = fs::File::create(evoke.path("up.log")).unwrap();
    let mut process = command.current_dir(evoke.path(".")).stdin(Stdio::null()).stderr(log).spawn().unwrap();
    let listen = evoke.path(".evoke/listen.json");
    crate::assert_eventually!(listen.exists(), "{}", evoke.log());
    let addresses: serde_json::Value = serde_json::from_str(&fs::read_to_string(&listen).unwrap()).unwrap();
    let headers = [("content-type", "application/json")];
    let posted = crate::support::post(addresses["http"].as_str().unwrap(), "/checkout", &headers, ORDER).unwrap();
    assert_eq!(posted.status, 202, "{posted:?}");
    evoke.stdout(&["backup", "copies/"]);
    assert_private(evoke.path(".evoke"));
    assert_eq!((mode(&evoke.path("copies")), mode(&evoke.path("copies/evoke.db"))), (0o700, 0o600));
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn loose_permissions_of_an_existing_folder_are_removed_with_a_note() {
    let mut evoke = Evoke::up_with(ORDERS);
    evoke.post_accepted("/checkout", ORDER);
    evoke.kill();
    for path in below(evoke.path(".evoke")) {
        set_mode(&path, if path.is_dir() { 0o755 } else { 0o644 });
    }
    evoke.up();
    evoke.post_accepted("/checkout", ORDER);
    evoke.settle();
    assert_private(evoke.path(".evoke"));
    assert!(evoke.log().contains("0755") && evoke.log().contains("now only you can"), "{}", evoke.log());
    assert_eq!(evoke.events("order.placed").len(), 2);
}

#[test]
fn a_folder_that_others_may_write_to_is_refused_under_every_name() {
    let mut evoke = Evoke::up_with(ORDERS);
    assert!(evoke.stop().success());
    symlink(".evoke", evoke.path("link")).unwrap();
    for bits in [0o770, 0o707, 0o777, 0o1777, 0o720] {
        set_mode(&evoke.path(".evoke"), bits);
        for data in [".evoke", "link", "./x/../link/"] {
            fs::create_dir_all(evoke.path("x")).unwrap();
            assert_refused(&evoke, data, &["other users may write to", "chmod 700", "--data"]);
        }
        assert_eq!(mode(&evoke.path(".evoke")), bits, "a refused folder stays as it is");
    }
    assert!(!evoke.path("copy.db").exists());
    set_mode(&evoke.path(".evoke"), 0o700);
    evoke.stdout(&["check", "--data", "link"]);
}

#[test]
fn a_folder_of_another_user_is_refused() {
    let mut evoke = Evoke::up_with(ORDERS);
    assert!(evoke.stop().success());
    // Only root can give files away.
    if chown(evoke.path(".evoke"), Some(STRANGER), None).is_err() {
        eprintln!("not root: only the folder / is tried");
        return assert_up_refused(&evoke, "/", "belongs to the user with id 0");
    }
    assert_refused(&evoke, ".evoke", &["belongs to the user with id 65534", "chown", "--data"]);
    chown(evoke.path(".evoke"), Some(0), None).unwrap();
    chown(evoke.path(".evoke/evoke.db"), Some(STRANGER), None).unwrap();
    assert_refused(&evoke, ".evoke", &["evoke.db belongs to the user with id 65534", "chown"]);
}

fn assert_up_refused(evoke: &Evoke, data: &str, expected: &str) {
    let output = evoke.run(&[COMMANDS[0], &["--data", data]].concat());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && message.contains(expected), "{message}");
}

#[test]
fn a_parent_that_others_may_write_to_is_reported() {
    let mut evoke = Evoke::with(ORDERS);
    let parent = evoke.path("shared");
    fs::create_dir(&parent).unwrap();
    for (bits, is_reported) in [(0o777, true), (0o1777, false), (0o755, false)] {
        set_mode(&parent, bits);
        let before = evoke.log().matches("may write to its parent").count();
        evoke.up_with_data("shared/data");
        let reported = evoke.log().matches("may write to its parent").count() > before;
        assert_eq!(reported, is_reported, "{bits:o}: {}", evoke.log());
        evoke.kill();
    }
}

#[test]
fn a_link_or_a_pipe_in_place_of_a_file_of_the_store_is_refused_at_once() {
    for (name, kind) in [("lock", "a named pipe"), ("evoke.db", "a named pipe"), ("evoke.db", "a symbolic link")] {
        let evoke = Evoke::with(ORDERS);
        fs::create_dir(evoke.path(".evoke")).unwrap();
        set_mode(&evoke.path(".evoke"), 0o700);
        let path = evoke.path(".evoke").join(name);
        if kind == "a symbolic link" {
            fs::write(evoke.path("elsewhere"), "").unwrap();
            symlink("../elsewhere", path).unwrap();
        } else {
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }
        let output = evoke.run_within_timeout(&[COMMANDS[0], &["--data", ".evoke"]].concat());
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && message.contains(kind) && message.contains(name), "{message}");
    }
}

#[test]
fn a_lock_that_another_user_took_earlier_stops_neither_the_start_nor_a_write() {
    let mut evoke = Evoke::up_with(ORDERS);
    evoke.post_accepted("/checkout", ORDER);
    evoke.settle();
    evoke.kill();
    for path in below(evoke.path(".evoke")) {
        set_mode(&path, if path.is_dir() { 0o755 } else { 0o644 });
    }
    set_mode(&evoke.path("."), 0o755);
    let data = evoke.path(".evoke").canonicalize().unwrap();
    // A process of another user that reads the files and locks them: the whole lock file, and the bytes of the index
    // that SQLite locks for every write.
    let script = r#"use Fcntl qw(:flock :DEFAULT);
        open(my $lock, "<", "$ARGV[0]/lock") or die $!; flock($lock, LOCK_EX | LOCK_NB) or die $!;
        open(my $index, "<", "$ARGV[0]/evoke.db-shm") or die $!;
        my $bytes = pack("s s x4 q q i x4", F_RDLCK, 0, 120, 8, 0);
        fcntl($index, F_SETLK, $bytes) or die $!;
        $| = 1; print "locked\n"; <STDIN>;"#;
    let mut stranger = Command::new("perl");
    stranger.args(["-e", script]).arg(&data).stdin(Stdio::piped()).stdout(Stdio::piped()).uid(STRANGER).gid(STRANGER);
    let Ok(mut stranger) = stranger.spawn() else {
        return eprintln!("not root: no process of another user can be started");
    };
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stranger.stdout.take().unwrap()), &mut said).unwrap();
    assert_eq!(said, "locked\n");
    evoke.up();
    evoke.post_accepted("/checkout", ORDER);
    evoke.settle();
    assert!(evoke.log().contains("of the user with id 65534"), "{}", evoke.log());
    // The lock that replaced it works.
    let second = evoke.run(COMMANDS[0]);
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another Evoke"), "{second:?}");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(evoke.stop().success(), "{}", evoke.log());
    evoke.stdout(&["check"]);
}

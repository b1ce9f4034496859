use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_new_folder_and_its_new_parents_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let prepared = PrivateFolder::prepare(&path, &[]).unwrap();
    assert_eq!((mode(&path), mode(&dir.path().join("a"))), (0o700, 0o700));
    assert!(prepared.notes.is_empty() && !prepared.was_open, "{:?}", prepared.notes);
}

#[test]
fn read_permissions_of_others_are_removed_from_the_folder_and_its_own_files_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    fs::create_dir_all(path.join("logs")).unwrap();
    for name in ["evoke.db", "evoke.db-wal", "lock", "logs/evoke.jsonl", "run.sh"] {
        fs::write(path.join(name), "x").unwrap();
        set_mode(&path.join(name), 0o755);
    }
    set_mode(&path.join("logs"), 0o755);
    set_mode(&path, 0o755);
    let unchanged = PrivateFolder::open(&path).unwrap();
    assert_eq!(mode(unchanged.path()), 0o755, "`open` must not change permissions");
    let prepared = PrivateFolder::prepare(&path, &["evoke.db", "lock", "logs"]).unwrap();
    assert!(prepared.was_open && prepared.notes[0].contains("0755"), "{:?}", prepared.notes);
    for name in ["", "evoke.db", "evoke.db-wal", "lock", "logs", "logs/evoke.jsonl"] {
        assert_eq!(mode(&path.join(name)), 0o700, "{name}");
    }
    assert_eq!(mode(&path.join("run.sh")), 0o755, "a file that is not Evoke's must not change");
    let again = PrivateFolder::prepare(&path, &["evoke.db", "lock", "logs"]).unwrap();
    assert!(again.notes.is_empty() && !again.was_open, "{:?}", again.notes);
}

#[test]
fn a_folder_that_others_may_write_to_is_refused_also_behind_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("data"), dir.path().join("link"));
    fs::create_dir(&path).unwrap();
    symlink("data", &link).unwrap();
    for bits in [0o770, 0o707, 0o702, 0o720, 0o1777] {
        set_mode(&path, bits);
        for at in [&path, &link] {
            for result in [PrivateFolder::prepare(at, &[]).map(|p| p.folder), PrivateFolder::open(at)] {
                let message = result.unwrap_err().to_string();
                assert!(message.contains("chmod 700") && message.contains("--data"), "{bits:o}: {message}");
            }
        }
        assert_eq!(mode(&path), bits, "a refused folder must not change");
    }
    set_mode(&path, 0o700);
    PrivateFolder::prepare(&link, &[]).unwrap();
}

#[test]
fn a_folder_of_another_user_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // Only root can give a folder to another user. Without root, the test uses `/`, which belongs to root.
    let path = match std::os::unix::fs::chown(dir.path(), Some(65_534), None) {
        Ok(()) => dir.path(),
        Err(_) => Path::new("/"),
    };
    let message = PrivateFolder::prepare(path, &[]).unwrap_err().to_string();
    assert!(message.contains("chown") && message.contains("--data"), "{message}");
    PrivateFolder::open(path).unwrap_err();
}

#[test]
fn a_file_behind_a_link_or_a_pipe_is_never_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let folder = PrivateFolder::prepare(&path, &[]).unwrap().folder;
    fs::write(dir.path().join("outside"), "x").unwrap();
    symlink("../outside", path.join("linked")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, path.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    for (name, kind) in [("linked", "a symbolic link"), ("pipe", "a named pipe")] {
        let message = folder.open_file(name, File::options().read(true)).unwrap_err().to_string();
        assert!(message.contains(kind), "{message}");
    }
    folder.open_file("new", File::options().create(true).write(true)).unwrap();
    assert_eq!(mode(&path.join("new")), 0o600);
}

#[test]
fn a_folder_that_was_replaced_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let folder = PrivateFolder::prepare(&path, &[]).unwrap().folder;
    fs::write(path.join("file"), "x").unwrap();
    folder.confirm("file").unwrap();
    fs::rename(&path, dir.path().join("moved")).unwrap();
    fs::create_dir(&path).unwrap();
    fs::hard_link(dir.path().join("moved/file"), path.join("file")).unwrap();
    assert!(folder.confirm("file").is_err(), "the same file in another folder must be refused");
}

#[test]
fn files_that_vanish_while_the_folder_is_prepared_are_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // SQLite creates and removes its `-shm` and `-wal` files in the same way.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for name in ["evoke.db-shm", "evoke.db-wal"] {
                    let path = dir.path().join(name);
                    fs::write(&path, "").unwrap();
                    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
                    fs::remove_file(&path).unwrap();
                }
            }
        });
        let prepared = (0..500).try_for_each(|_| PrivateFolder::prepare(dir.path(), &["evoke"]).map(drop));
        stop.store(true, Ordering::Relaxed);
        prepared.unwrap();
    });
}

#[test]
fn a_folder_in_which_others_can_replace_files_is_not_protected() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("shared/inner");
    let link = dir.path().join("link");
    fs::create_dir_all(&inner).unwrap();
    symlink("shared/inner", &link).unwrap();
    assert_eq!(protected_folder(&link).unwrap(), inner.canonicalize().unwrap());
    for at in [inner.as_path(), inner.parent().unwrap()] {
        for (bits, is_protected) in [(0o777, false), (0o1777, true), (0o755, true)] {
            set_mode(at, bits);
            let found = protected_folder(&link).map_err(|error| error.to_string());
            assert_eq!(found.is_ok(), is_protected, "{bits:o}: {found:?}");
        }
    }
    let message = protected_folder(Path::new("missing")).unwrap_err();
    assert_eq!(message.kind(), io::ErrorKind::NotFound);
    // Only root can give a folder to another user.
    if std::os::unix::fs::chown(inner.parent().unwrap(), Some(65_534), None).is_ok() {
        let message = protected_folder(&inner).unwrap_err().to_string();
        assert!(message.contains("the user with id 65534 owns"), "{message}");
    }
}

#[test]
fn a_file_is_replaced_in_the_opened_folder_and_no_link_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let folder = PrivateFolder::prepare(&path, &[]).unwrap().folder;
    fs::write(dir.path().join("outside"), "x").unwrap();
    fs::hard_link(dir.path().join("outside"), path.join("f.new")).unwrap();
    folder.replace("f", b"1", true).unwrap();
    fs::remove_file(path.join("f")).unwrap();
    symlink("../outside", path.join("f")).unwrap();
    folder.replace("f", b"2", false).unwrap();
    assert_eq!((mode(&path.join("f")), folder.names().unwrap().contains(&"f".to_owned())), (0o600, true));
    fs::rename(&path, dir.path().join("moved")).unwrap();
    fs::create_dir(&path).unwrap();
    folder.replace("f", b"3", false).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("moved/f")).unwrap(), "3");
    folder.remove("f").unwrap();
    folder.remove("f").unwrap();
    assert!(fs::read_dir(&path).unwrap().next().is_none() && !dir.path().join("moved/f").exists());
    assert_eq!(fs::read_to_string(dir.path().join("outside")).unwrap(), "x");
}

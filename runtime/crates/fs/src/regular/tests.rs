use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use rustix::fs::{mknodat, stat};

use super::*;
use crate::{lock_shared, reserve, unlock};

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// Returns the kind of each lock on a file, from `/proc/locks`: `POSIX` or `OFDLCK` (open file description lock).
fn locks(path: &Path) -> Vec<String> {
    let inode = stat(path).unwrap().st_ino;
    let all = std::fs::read_to_string("/proc/locks").unwrap();
    let of_file = all.lines().filter(|line| line.contains(&format!(":{inode} ")));
    let mut kinds: Vec<_> = of_file.map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect();
    kinds.sort();
    kinds
}

#[test]
fn anything_but_a_regular_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fifo(&at("pipe"));
    symlink("pipe", at("link-to-pipe")).unwrap();
    let _listener = UnixListener::bind(at("socket")).unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    let cases = [
        (at("pipe"), "a named pipe"),
        (at("link-to-pipe"), "a named pipe"),
        (at("socket"), "a socket"),
        (at("folder"), "a folder"),
        ("/dev/zero".into(), "a device"),
        ("/dev/tty".into(), "a device"),
    ];
    for (path, kind) in cases {
        let message = open_regular(&path).unwrap_err().to_string();
        assert!(message.contains(kind), "{}: {message}", path.display());
    }
    assert_eq!(open_regular(&at("missing")).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_file_over_the_limit_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    std::fs::write(&path, "12345").unwrap();
    assert_eq!(read_text(&path, 5).unwrap(), "12345");
    let error = read_text(&path, 4).unwrap_err();
    assert!(error.kind() == io::ErrorKind::FileTooLarge && error.to_string().contains("4 bytes"), "{error}");
    std::fs::write(&path, b"\xff").unwrap();
    assert_eq!(read_text(&path, 5).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_reserved_file_is_refused_under_every_name_until_the_reservation_ends() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("store"), "rows").unwrap();
    std::fs::hard_link(at("store"), at("hard")).unwrap();
    symlink("store", at("soft")).unwrap();
    let id = FileId::of_path(&at("store")).unwrap();
    let (first, second) = (reserve(vec![id]), reserve(vec![id]));
    for name in ["store", "hard", "soft", "../x/../store"] {
        let path = if name.starts_with("..") { folder.path().join(".").join("store") } else { at(name) };
        let error = open_regular(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{name}: {error}");
    }
    drop(first);
    assert!(open_regular(&at("hard")).is_err());
    drop(second);
    assert_eq!(read_text(&at("hard"), 10).unwrap(), "rows");
}

/// Tests how Linux behaves, because the protection of the store's locks depends on it.
#[test]
fn a_refused_open_keeps_the_posix_locks_and_an_ordinary_one_drops_them_but_not_the_shared_lock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let file = File::options().create(true).truncate(false).read(true).write(true).open(&path).unwrap();
    // A POSIX lock on the whole file, as `fcntl(F_SETLK)` takes it.
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).unwrap();
    let guard = File::open(&path).unwrap();
    lock_shared(&guard, 10..20).unwrap();
    assert_eq!(locks(&path), ["OFDLCK", "POSIX"]);

    let reservation = reserve(vec![FileId::of_path(&path).unwrap()]);
    assert!(open_regular(&path).is_err());
    assert_eq!(locks(&path), ["OFDLCK", "POSIX"], "a refused open must not release the locks");
    drop(reservation);

    drop(open_regular(&path).unwrap());
    assert_eq!(locks(&path), ["OFDLCK"], "closing any other descriptor drops all POSIX locks of the process");
    unlock(&guard, 10..20).unwrap();
    assert_eq!(locks(&path), [""; 0]);
}

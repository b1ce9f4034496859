//! Finds the process that holds the lock of a file. Linux lists the locks in `/proc/locks`.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;

/// Returns a description of the process that holds a lock (`flock`) on the file, if that process certainly belongs to a
/// stranger: a user who is neither root nor the user of Evoke. Otherwise, and on systems without `/proc`, returns
/// `None`.
pub(super) fn stranger(file: &File) -> Option<String> {
    let inode = file.metadata().ok()?.ino();
    let table = std::fs::read_to_string("/proc/locks").ok()?;
    let own = rustix::process::geteuid().as_raw();
    let mut found = None;
    for pid in holders(&table, inode) {
        let owner = effective_user(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)?;
        if owner == own || owner == 0 {
            return None;
        }
        found = Some(format!("process {pid} of the user with id {owner}"));
    }
    found
}

/// Returns the effective user id from a process's status: `Uid:` with the real, the effective and two more ids. The
/// owner of the process's folder in `/proc` cannot be used: if the process is not dumpable, that owner is root.
fn effective_user(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// Returns the processes that hold locks of the kind `flock` on a file with this inode number. The device is not
/// compared, because with some file systems `/proc/locks` and the file's metadata give different devices. So the result
/// may contain holders of locks on other files, and a caller must not act unless all holders are strangers.
fn holders(table: &str, inode: u64) -> Vec<u32> {
    let holder = |line: &str| {
        // `1: FLOCK  ADVISORY  WRITE 1234 fd:00:5678 0 EOF`; a waiting process has `->` after the number.
        let mut words = line.split_whitespace().skip(1);
        let (kind, pid) = (words.next()?, words.nth(2)?.parse().ok()?);
        let of = words.next()?.rsplit(':').next()?.parse::<u64>().ok()?;
        (kind == "FLOCK" && of == inode).then_some(pid)
    };
    table.lines().filter_map(holder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_those_of_the_file_and_not_those_who_wait() {
        let table = "1: FLOCK  ADVISORY  WRITE 10 fd:00:7 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 11 fd:00:7 0 EOF\n\
                     2: POSIX  ADVISORY  READ 12 fd:00:7 1 2\n3: FLOCK  ADVISORY  READ 13 00:1b:77 0 EOF\n";
        assert_eq!(holders(table, 7), [10]);
        assert_eq!(holders(table, 77), [13]);
    }

    #[test]
    fn the_effective_user_is_the_second_id() {
        assert_eq!(effective_user("Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\n"), Some(2));
    }

    #[test]
    fn the_holder_of_the_same_user_is_no_stranger() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("lock")).unwrap();
        file.try_lock().unwrap();
        assert_eq!(stranger(&file), None);
    }
}

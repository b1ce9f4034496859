use super::*;

const SETTLE: Duration = Duration::from_millis(200);

fn stamp(size: u64, time: i64) -> Stamp {
    Stamp { size, mtime_ns: time, ctime_ns: time, inode: 1 }
}

fn version(size: u64, time: i64, sha256: &str) -> Version {
    Version { stamp: stamp(size, time), sha256: sha256.into() }
}

fn tracker(known: &[(&str, Version)]) -> Tracker {
    Tracker::new(SETTLE, known.iter().map(|(name, version)| ((*name).to_owned(), version.clone())).collect())
}

fn names(settled: &[(String, Option<Stamp>)]) -> Vec<&str> {
    settled.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_file_settles_when_it_is_unchanged_for_the_settle_time() {
    let mut tracker = tracker(&[]);
    let start = Instant::now();
    tracker.observe("a", Some(stamp(1, 1)), start);
    assert_eq!(tracker.next(), Some(start + SETTLE));
    tracker.observe("a", Some(stamp(2, 2)), start + SETTLE / 2);
    tracker.observe("a", Some(stamp(2, 2)), start + SETTLE);
    assert_eq!(names(&tracker.settled(start + SETTLE)), [""; 0]);
    assert_eq!(tracker.settled(start + SETTLE * 3 / 2), [("a".to_owned(), Some(stamp(2, 2)))]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_appears_and_disappears_before_it_settles_is_no_change() {
    let mut tracker = tracker(&[("kept", version(1, 1, "x"))]);
    let now = Instant::now();
    tracker.observe("temporary", Some(stamp(1, 1)), now);
    tracker.observe("temporary", None, now);
    tracker.observe("kept", None, now);
    tracker.observe("kept", Some(stamp(1, 1)), now);
    assert_eq!((tracker.pending(), tracker.next()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_version_is_defined_by_its_content() {
    let mut tracker = tracker(&[("a", version(1, 1, "x"))]);
    assert_eq!(tracker.change("a", Some(&version(1, 2, "x"))), Change::NoEvent);
    assert_eq!(tracker.change("a", Some(&version(1, 2, "y"))), Change::Modified);
    assert_eq!(tracker.change("a", None), Change::Removed(version(1, 1, "x")));
    assert_eq!(tracker.change("b", Some(&version(1, 2, "x"))), Change::Created);
    assert_eq!(tracker.change("b", None), Change::NoEvent);
    tracker.committed("a", Some(version(1, 2, "y")));
    assert_eq!(tracker.change("a", Some(&version(1, 3, "x"))), Change::Modified);
}

#[tokio::test(start_paused = true)]
async fn observing_a_folder_finds_new_changed_and_removed_files() {
    let known = version(1, 1, "x");
    let mut tracker = tracker(&[
        ("d/same", known.clone()),
        ("d/other", known.clone()),
        ("d/gone", known.clone()),
        ("d/locked/a", known.clone()),
        ("d2/outside", known),
    ]);
    let now = Instant::now();
    let seen = [("d/same", 1), ("d/other", 2), ("d/new", 3)].map(|(name, time)| (name.to_owned(), stamp(1, time)));
    tracker.observe_folder("d", &seen, &[("d/locked".to_owned(), "it is locked".to_owned())], now);
    let mut settled = tracker.settled(now + SETTLE);
    settled.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(
        settled,
        [
            ("d/gone".to_owned(), None),
            ("d/new".to_owned(), Some(stamp(1, 3))),
            ("d/other".to_owned(), Some(stamp(1, 2)))
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_held_open_waits_for_its_writer() {
    let mut tracker = tracker(&[]);
    let now = Instant::now();
    tracker.observe("a", Some(stamp(1, 1)), now);
    tracker.writing("a");
    assert_eq!(tracker.next(), Some(now + OPEN_WAIT));
    tracker.hints_lost();
    assert_eq!(tracker.next(), Some(now + MAYBE_OPEN_WAIT));
    tracker.writing("a");
    tracker.written("a");
    assert_eq!(tracker.next(), Some(now + SETTLE));
}

#[tokio::test(start_paused = true)]
async fn a_new_empty_file_waits_for_its_content() {
    let mut tracker = tracker(&[]);
    let now = Instant::now();
    tracker.observe("found", Some(stamp(0, 1)), now);
    assert_eq!(tracker.next(), Some(now + MAYBE_OPEN_WAIT));
    tracker.opened("found");
    assert_eq!(tracker.next(), Some(now + OPEN_WAIT));
    tracker.written("found");
    assert_eq!(tracker.next(), Some(now + SETTLE));
}

#[tokio::test(start_paused = true)]
async fn an_empty_file_that_no_program_opened_waits_for_nothing() {
    let mut tracker = tracker(&[]);
    let now = Instant::now();
    tracker.observe("linked", Some(stamp(0, 1)), now);
    tracker.created("linked");
    assert_eq!(tracker.next(), Some(now + SETTLE));
    // The lost notifications may include one that a program opened the file.
    tracker.hints_lost();
    assert_eq!(tracker.next(), Some(now + MAYBE_OPEN_WAIT));
    tracker.created("linked");
    tracker.opened("linked");
    assert_eq!(tracker.next(), Some(now + OPEN_WAIT));
    // A link to a file that is being written under another name does not end the wait for its writer.
    tracker.created("linked");
    assert_eq!(tracker.next(), Some(now + OPEN_WAIT));
}

#[tokio::test(start_paused = true)]
async fn an_empty_file_in_a_folder_that_was_moved_here_waits_for_nothing() {
    let mut tracker = tracker(&[]);
    let now = Instant::now();
    tracker.observe("d/empty", Some(stamp(0, 1)), now);
    tracker.observe("d/open", Some(stamp(0, 1)), now);
    tracker.writing("d/open");
    tracker.moved_here(["d/empty", "d/open", "d/unknown"].into_iter());
    assert_eq!(names(&tracker.settled(now + SETTLE)), ["d/empty"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_read_waits_longer_after_each_failure() {
    let mut tracker = tracker(&[]);
    let now = Instant::now();
    tracker.observe("a", Some(stamp(1, 1)), now);
    for millis in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_001, 60_001] {
        tracker.retry_later("a", "locked".into(), now);
        assert_eq!(tracker.next(), Some(now + Duration::from_millis(millis)));
        assert_eq!(tracker.not_submitted().1.collect::<Vec<_>>(), [("a", "locked")]);
        // A scan that finds the file unchanged does not end the wait.
        tracker.observe("a", Some(stamp(1, 1)), now);
        assert_eq!((tracker.pending(), tracker.expects_file("a")), (0, true));
    }
    assert_eq!(tracker.settled(now + Duration::from_secs(61)), [("a".to_owned(), Some(stamp(1, 1)))]);
    tracker.observe("a", Some(stamp(1, 2)), now);
    assert_eq!(tracker.next(), Some(now + SETTLE));
    assert_eq!(tracker.not_submitted().0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_left_out_waits_for_a_change() {
    let mut tracker = tracker(&[("known", version(1, 1, "x"))]);
    let now = Instant::now();
    for name in ["known", "new"] {
        tracker.observe(name, Some(stamp(9, 2)), now);
        tracker.leave_out(name, "too large".into());
        tracker.observe(name, Some(stamp(9, 2)), now);
    }
    assert_eq!((tracker.next(), tracker.not_submitted().0), (None, 2));
    // Both files disappear. `new` was never submitted, so this is not a change. `known` was submitted, so it is
    // removed.
    tracker.observe_folder("", &[], &[], now);
    assert_eq!(tracker.not_submitted().0, 0);
    assert_eq!(tracker.settled(now + SETTLE), [("known".to_owned(), None)]);
}

#[tokio::test(start_paused = true)]
async fn files_that_fail_take_no_room_from_others() {
    let mut tracker = tracker(&[]);
    let now = Instant::now();
    for n in 0..2 * PENDING_MAX {
        let name = format!("locked-{n}");
        tracker.observe(&name, Some(stamp(1, 1)), now);
        tracker.retry_later(&name, "locked".into(), now);
    }
    tracker.observe("other", Some(stamp(1, 1)), now);
    assert_eq!((tracker.pending(), tracker.not_submitted().0), (1, 2 * PENDING_MAX));
    let settled = tracker.settled(now + Duration::from_secs(3600));
    assert_eq!(settled.first().map(|(name, _)| name.as_str()), Some("other"), "new files must come first");
    assert!(settled.len() < 1_000, "{} files are tried again together", settled.len());
}

#[tokio::test(start_paused = true)]
async fn a_content_that_was_not_read_counts_as_the_same_until_its_metadata_changes() {
    let mut tracker = tracker(&[("a", version(1, 1, "x"))]);
    let unread = |size, mtime_ns, ctime_ns| Version {
        stamp: Stamp { size, mtime_ns, ctime_ns, inode: 1 },
        sha256: String::new(),
    };
    // A new link to a file changes its ctime.
    assert_eq!(tracker.change("a", Some(&unread(1, 1, 2))), Change::NoEvent);
    assert_eq!(tracker.with_known_hash("a", unread(1, 1, 2)).sha256, "x");
    assert_eq!(tracker.change("a", Some(&unread(1, 2, 2))), Change::Modified);
    assert_eq!(tracker.with_known_hash("a", unread(1, 2, 2)).sha256, "");
    tracker.committed("a", Some(unread(1, 2, 2)));
    assert_eq!(tracker.change("a", Some(&version(1, 2, "y"))), Change::NoEvent);
    assert_eq!(tracker.change("a", Some(&version(2, 2, "y"))), Change::Modified);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_changes_is_left_to_a_later_scan() {
    let mut tracker = tracker(&[]);
    let now = Instant::now();
    let files: Vec<_> = (0..20_000).map(|n| (format!("f{n}"), stamp(1, 1))).collect();
    tracker.observe_folder("", &files, &[], now);
    assert_eq!(tracker.pending(), PENDING_MAX);
    assert!(!tracker.take_overflow());
    for (name, _) in tracker.settled(now + SETTLE) {
        tracker.committed(&name, Some(version(1, 1, "x")));
    }
    assert!(tracker.take_overflow());
    assert!(!tracker.take_overflow());
    tracker.observe_folder("", &files, &[], now);
    assert_eq!(tracker.pending(), 20_000 - PENDING_MAX);
}

#[tokio::test(start_paused = true)]
async fn files_that_exist_at_the_first_start_cause_no_event_until_they_change() {
    let mut tracker = tracker(&[("known", version(1, 1, "x"))]);
    let now = Instant::now();
    let seen = ["known", "old", "vanishes"].map(|name| (name.to_owned(), stamp(2, 2)));
    tracker.observe_folder("", &seen, &[], now);
    tracker.set_existing(&seen);
    assert_eq!(tracker.change("old", Some(&version(2, 2, "y"))), Change::NoEvent);
    assert_eq!(tracker.change("old", Some(&version(3, 3, "z"))), Change::Created);
    assert_eq!(tracker.change("known", Some(&version(2, 2, "y"))), Change::Modified);
    tracker.observe("vanishes", None, now);
    assert!(!tracker.existing_recorded());
    tracker.committed("old", Some(version(2, 2, "y")));
    assert!(tracker.existing_recorded());
    assert_eq!(tracker.change("old", Some(&version(3, 3, "z"))), Change::Modified);
}

#[tokio::test(start_paused = true)]
async fn forgotten_files_wait_for_nothing_and_no_first_start_waits_for_them() {
    let mut tracker = tracker(&[("gone/known", version(1, 1, "x")), ("kept", version(1, 1, "x"))]);
    let now = Instant::now();
    let seen = ["gone/known", "gone/new", "gone/failing", "kept"].map(|name| (name.to_owned(), stamp(2, 2)));
    tracker.observe_folder("", &seen, &[], now);
    tracker.set_existing(&seen);
    tracker.retry_later("gone/failing", "locked".into(), now);
    assert!(!tracker.existing_recorded());
    assert_eq!(tracker.forget(|name| !name.starts_with("gone/")), ["gone/known"]);
    assert_eq!((tracker.pending(), tracker.not_submitted().0), (1, 0));
    assert_eq!(names(&tracker.settled(now + Duration::from_secs(3600))), ["kept"]);
    assert!(tracker.existing_recorded());
    assert_eq!(tracker.change("gone/known", None), Change::NoEvent);
}

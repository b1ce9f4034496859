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
    tracker.observe_folder("d", &seen, &["d/locked".to_owned()], now);
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
    tracker.created("found");
    assert_eq!(tracker.next(), Some(now + OPEN_WAIT));
    tracker.written("found");
    assert_eq!(tracker.next(), Some(now + SETTLE));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_read_waits_longer_after_each_failure() {
    let mut tracker = tracker(&[]);
    let now = Instant::now();
    tracker.observe("a", Some(stamp(1, 1)), now);
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        tracker.retry_later("a", now);
        assert_eq!(tracker.next(), Some(now + Duration::from_secs(seconds)));
        assert!(tracker.is_retrying("a"));
    }
    tracker.observe("a", Some(stamp(1, 2)), now);
    assert!(!tracker.is_retrying("a"));
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

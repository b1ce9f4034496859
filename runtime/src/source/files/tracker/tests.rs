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

fn names(at_rest: &[(String, Option<Stamp>)]) -> Vec<&str> {
    at_rest.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_file_comes_to_rest_when_it_was_the_same_for_long_enough() {
    let mut tracker = tracker(&[]);
    let start = Instant::now();
    tracker.observe("a", Some(stamp(1, 1)), start);
    assert_eq!(tracker.next(), Some(start + SETTLE));
    tracker.observe("a", Some(stamp(2, 2)), start + SETTLE / 2);
    tracker.observe("a", Some(stamp(2, 2)), start + SETTLE);
    assert_eq!(names(&tracker.at_rest(start + SETTLE)), [""; 0]);
    assert_eq!(tracker.at_rest(start + SETTLE * 3 / 2), [("a".to_owned(), Some(stamp(2, 2)))]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_and_goes_before_it_rests_is_nothing() {
    let mut tracker = tracker(&[("kept", version(1, 1, "x"))]);
    let now = Instant::now();
    tracker.observe("temporary", Some(stamp(1, 1)), now);
    tracker.observe("temporary", None, now);
    tracker.observe("kept", None, now);
    tracker.observe("kept", Some(stamp(1, 1)), now);
    assert_eq!((tracker.pending(), tracker.next()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_version_is_its_content() {
    let mut tracker = tracker(&[("a", version(1, 1, "x"))]);
    assert_eq!(tracker.change("a", Some(&version(1, 2, "x"))), Change::Quiet);
    assert_eq!(tracker.change("a", Some(&version(1, 2, "y"))), Change::Modified);
    assert_eq!(tracker.change("a", None), Change::Removed(version(1, 1, "x")));
    assert_eq!(tracker.change("b", Some(&version(1, 2, "x"))), Change::Created);
    assert_eq!(tracker.change("b", None), Change::Quiet);
    tracker.committed("a", Some(version(1, 2, "y")));
    assert_eq!(tracker.change("a", Some(&version(1, 3, "x"))), Change::Modified);
}

#[tokio::test(start_paused = true)]
async fn a_look_at_a_folder_finds_what_is_new_other_or_gone_in_it() {
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
    let mut at_rest = tracker.at_rest(now + SETTLE);
    at_rest.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(
        at_rest,
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
    assert_eq!(tracker.next(), Some(now + WRITER_PATIENCE));
    tracker.lost_word();
    assert_eq!(tracker.next(), Some(now + UNSURE_PATIENCE));
    tracker.writing("a");
    tracker.written("a");
    assert_eq!(tracker.next(), Some(now + SETTLE));
}

#[tokio::test(start_paused = true)]
async fn a_new_empty_file_waits_for_its_content() {
    let mut tracker = tracker(&[]);
    let now = Instant::now();
    tracker.observe("found", Some(stamp(0, 1)), now);
    assert_eq!(tracker.next(), Some(now + UNSURE_PATIENCE));
    tracker.created("found");
    assert_eq!(tracker.next(), Some(now + WRITER_PATIENCE));
    tracker.written("found");
    assert_eq!(tracker.next(), Some(now + SETTLE));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_read_is_put_off_longer_and_longer() {
    let mut tracker = tracker(&[]);
    let now = Instant::now();
    tracker.observe("a", Some(stamp(1, 1)), now);
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        tracker.later("a", now);
        assert_eq!(tracker.next(), Some(now + Duration::from_secs(seconds)));
        assert!(tracker.is_failing("a"));
    }
    tracker.observe("a", Some(stamp(1, 2)), now);
    assert!(!tracker.is_failing("a"));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_changes_is_left_to_another_scan() {
    let mut tracker = tracker(&[]);
    let now = Instant::now();
    let files: Vec<_> = (0..20_000).map(|n| (format!("f{n}"), stamp(1, 1))).collect();
    tracker.observe_folder("", &files, &[], now);
    assert_eq!(tracker.pending(), PENDING_MAX);
    assert!(!tracker.wants_scan());
    for (name, _) in tracker.at_rest(now + SETTLE) {
        tracker.committed(&name, Some(version(1, 1, "x")));
    }
    assert!(tracker.wants_scan());
    assert!(!tracker.wants_scan());
    tracker.observe_folder("", &files, &[], now);
    assert_eq!(tracker.pending(), 20_000 - PENDING_MAX);
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_for_granted_is_no_event_until_it_changes() {
    let mut tracker = tracker(&[("known", version(1, 1, "x"))]);
    let now = Instant::now();
    let seen = ["known", "old", "vanishes"].map(|name| (name.to_owned(), stamp(2, 2)));
    tracker.observe_folder("", &seen, &[], now);
    tracker.take_for_granted(&seen);
    assert_eq!(tracker.change("old", Some(&version(2, 2, "y"))), Change::Quiet);
    assert_eq!(tracker.change("old", Some(&version(3, 3, "z"))), Change::Created);
    assert_eq!(tracker.change("known", Some(&version(2, 2, "y"))), Change::Modified);
    tracker.observe("vanishes", None, now);
    assert!(!tracker.granted_all());
    tracker.committed("old", Some(version(2, 2, "y")));
    assert!(tracker.granted_all());
    assert_eq!(tracker.change("old", Some(&version(3, 3, "z"))), Change::Modified);
}

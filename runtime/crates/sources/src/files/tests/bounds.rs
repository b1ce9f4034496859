//! Tests with unusual names, very long paths, large folders and very many changes.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, mkdirat, openat};

use super::*;

/// Creates `depth` nested folders with the name `part`, and a file in the deepest one. Works with paths of any length.
fn put_deep(top: &Path, part: &str, depth: usize) {
    let open = |at: &OwnedFd| openat(at, part, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut folder: OwnedFd = fs::File::open(top).unwrap().into();
    for _ in 0..depth {
        mkdirat(&folder, part, Mode::from_raw_mode(0o700)).unwrap();
        folder = open(&folder);
    }
    openat(&folder, "file", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600)).unwrap();
}

#[tokio::test]
async fn names_in_any_bytes_become_events_with_printable_subjects() {
    let mut fixture = Fixture::new();
    let names: [&[u8]; 6] =
        [b"latin1-\xfc.csv", b"new\nline", b"escape-\x1b[31m", b"tab\t", "\u{fffd}41".as_bytes(), b"\xff\xfe/\xc3"];
    for name in names {
        put(&fixture.config.path.join(OsStr::from_bytes(name)), "1");
    }
    fixture.start();
    let expected = [
        "created latin1-\u{fffd}FC.csv",
        "created new\u{fffd}0Aline",
        "created escape-\u{fffd}1B[31m",
        "created tab\u{fffd}09",
        "created \u{fffd}EF\u{fffd}BF\u{fffd}BD41",
        "created \u{fffd}FF\u{fffd}FE/\u{fffd}C3",
    ];
    fixture.expect(&expected).await;
    // Notifications find these names too, and the source still knows them after a restart.
    fs::remove_file(fixture.config.path.join(OsStr::from_bytes(names[0]))).unwrap();
    put(&fixture.config.path.join(OsStr::from_bytes(names[1])), "2");
    let changes = ["removed latin1-\u{fffd}FC.csv", "modified new\u{fffd}0Aline"];
    fixture.expect(&[&expected[..], &changes].concat()).await;
    fixture.stop().await;
    fixture.start();
    fixture.expect(&[&expected[..], &changes].concat()).await;
    for event in fixture.events().await {
        event.check().unwrap();
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_path_that_is_too_long_or_too_deep_is_reported_and_hides_no_other() {
    let mut fixture = Fixture::new();
    fixture.start();
    fixture.expect(&[]).await;
    put_deep(&fixture.config.path, &"l".repeat(250), 20);
    put_deep(&fixture.config.path, "d", 130);
    put_deep(&fixture.config.path, "e", 128);
    let deepest = format!("created {}file", "e/".repeat(128));
    fixture.expect(&[&deepest]).await;
    for text in ["4095 bytes", "128 folders"] {
        fixture
            .eventually("a report", async |fixture| fixture.health.trouble().is_some_and(|t| t.contains(text)))
            .await;
    }
    // When these folders are gone, the source recovers.
    fs::remove_dir_all(fixture.inbox(&"l".repeat(250))).unwrap();
    fs::remove_dir_all(fixture.inbox("d")).unwrap();
    fixture.eventually("the recovery", async |fixture| fixture.health.trouble().is_none()).await;
    fixture.expect(&[&deepest]).await;
    fixture.stop().await;
}

#[tokio::test]
async fn loops_of_links_are_not_followed() {
    let mut fixture = Fixture::new();
    put(&fixture.inbox("sub/file"), "1");
    for (target, link) in [(".", "here"), ("..", "sub/up"), ("b", "a"), ("a", "b"), ("sub", "again")] {
        symlink(target, fixture.inbox(link)).unwrap();
    }
    fixture.start();
    fixture.expect(&["created sub/file"]).await;
    assert_eq!(fixture.health.trouble(), None);
    fixture.stop().await;
}

#[tokio::test]
async fn a_storm_of_renames_ends_with_the_last_names() {
    let mut fixture = Fixture::new();
    for n in 0..20 {
        put(&fixture.inbox(&format!("file-{n}")), &n.to_string());
    }
    fixture.start();
    fixture.eventually("all files", async |fixture| fixture.events().await.len() == 20).await;
    let inbox = fixture.config.path.clone();
    // Causes far more notifications than any queue can hold. The folders are renamed too.
    let storm = tokio::task::spawn_blocking(move || {
        fs::create_dir(inbox.join("x")).unwrap();
        for round in 0..1_000 {
            let (from, to) = if round % 2 == 0 { ("x", "y") } else { ("y", "x") };
            for n in 0..20 {
                fs::rename(inbox.join(format!("file-{n}")), inbox.join(format!("{from}/{round}-{n}"))).unwrap();
            }
            fs::rename(inbox.join(from), inbox.join(to)).unwrap();
            for n in 0..20 {
                fs::rename(inbox.join(format!("{to}/{round}-{n}")), inbox.join(format!("file-{n}"))).unwrap();
            }
        }
        for n in 0..20 {
            fs::rename(inbox.join(format!("file-{n}")), inbox.join(format!("x/end-{n}"))).unwrap();
        }
    });
    storm.await.unwrap();
    // Returns the files that exist according to the events so far.
    let there = async |fixture: &Fixture| {
        let mut there = BTreeSet::new();
        for line in fixture.lines().await {
            match line.split_once(' ').unwrap() {
                ("removed", name) => there.remove(name),
                (_, name) => there.insert(name.to_owned()),
            };
        }
        there
    };
    let expected: BTreeSet<String> = (0..20).map(|n| format!("x/end-{n}")).collect();
    fixture.eventually("the last names", async |fixture| there(fixture).await == expected).await;
    fixture.stop().await;
}

#[tokio::test]
async fn every_file_of_a_folder_with_more_entries_than_can_be_pending_is_found() {
    // With `EVOKE_CAMPAIGN=long`, this test takes minutes.
    let count = if std::env::var("EVOKE_CAMPAIGN").is_ok_and(|form| form == "long") { 1_000_000 } else { 40_000 };
    let included = 20_000;
    let mut fixture = Fixture::new();
    fixture.config.include = vec!["in-*".into()];
    fixture.config.content = false;
    for n in 0..count {
        let kind = if n < included { "in" } else { "out" };
        fs::write(fixture.inbox(&format!("{kind}-{n}")), "1").unwrap();
    }
    fixture.start();
    fixture.eventually("all files", async |fixture| fixture.events().await.len() >= included).await;
    let subjects: BTreeSet<_> = fixture.events().await.into_iter().map(|event| event.subject).collect();
    assert_eq!((subjects.len(), fixture.events().await.len()), (included, included));
    fixture.stop().await;
}

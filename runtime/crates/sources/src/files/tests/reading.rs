//! Tests which files are read, and in which order.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::files::access::Access;
use crate::files::confined::Found;
use crate::files::read::{Reading, Rules, read};

/// The size of a file that cannot be hashed within the time of a test, in bytes.
const ENDLESS: u64 = 4 << 40;

impl Fixture {
    fn sparse(&self, name: &str, size: u64) {
        let file = File::create(self.outside("sparse")).unwrap();
        file.set_len(size).unwrap();
        drop(file);
        fs::rename(self.outside("sparse"), self.inbox(name)).unwrap();
    }

    async fn await_trouble_with(&self, texts: &[&str]) {
        let is_reported = async |fixture: &Self| {
            fixture.health.trouble().is_some_and(|trouble| texts.iter().all(|text| trouble.contains(text)))
        };
        self.eventually(&format!("waiting for {texts:?}"), is_reported).await;
    }
}

#[tokio::test]
async fn a_hard_link_causes_an_event_without_its_content() {
    let mut fixture = Fixture::new();
    put(&fixture.outside("secret"), "do not tell");
    fs::hard_link(fixture.outside("secret"), fixture.inbox("linked")).unwrap();
    fixture.start();
    fixture.expect(&["created linked"]).await;
    let data = fixture.data("linked").await;
    assert_eq!((&data["size"], &data["content"], &data["sha256"]), (&11.into(), &().into(), &().into()));
    assert_eq!(data["content_omitted"], "not read: it has 2 hard links, and the source has no `hard_links: true`");
    // Change the file, then remove it.
    put(&fixture.inbox("linked"), "do not tell anybody");
    fixture.eventually("the change", async |fixture| fixture.lines().await.contains(&"modified linked".into())).await;
    assert_eq!(fixture.data("linked").await["content"], serde_json::Value::Null);
    fs::remove_file(fixture.inbox("linked")).unwrap();
    fixture.expect(&["created linked", "modified linked", "removed linked"]).await;
    assert!(!format!("{:?}", fixture.events().await).contains("do not tell"));
    assert_eq!(fixture.health.trouble(), None);
    fixture.stop().await;
}

#[tokio::test]
async fn hard_links_are_read_when_the_manifest_says_so_or_no_content_leaves() {
    for (hard_links, content) in [(true, true), (false, false)] {
        let mut fixture = Fixture::new();
        (fixture.config.hard_links, fixture.config.content) = (hard_links, content);
        put(&fixture.outside("a"), "1");
        fs::hard_link(fixture.outside("a"), fixture.inbox("a")).unwrap();
        fixture.start();
        fixture.expect(&["created a"]).await;
        let data = fixture.data("a").await;
        assert_eq!(data["sha256"].as_str().map(str::len), Some(64));
        assert_eq!(data["content"], if content { "1".into() } else { serde_json::Value::Null });
        fixture.stop().await;
    }
}

#[tokio::test]
async fn linking_a_known_file_elsewhere_causes_no_event() {
    let mut fixture = Fixture::new();
    put(&fixture.inbox("a"), "1");
    fixture.start();
    fixture.expect(&["created a"]).await;
    // A backup with `cp -al` creates hard links in the same way.
    fs::hard_link(fixture.inbox("a"), fixture.outside("backup")).unwrap();
    fixture.expect(&["created a"]).await;
    fs::remove_file(fixture.outside("backup")).unwrap();
    fixture.expect(&["created a"]).await;
    put(&fixture.inbox("a"), "2");
    fixture.expect(&["created a", "modified a"]).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_file_above_the_limit_is_reported_and_not_read() {
    let mut fixture = Fixture::new();
    fixture.sparse("huge", 2 << 40);
    put(&fixture.inbox("small"), "1");
    fixture.start();
    fixture.expect(&["created small"]).await;
    fixture.await_trouble_with(&["huge", "2048GiB", "`max_size` (1GiB)"]).await;
    // The problem is still reported after a restart. When the file is small enough, it becomes an event.
    fixture.stop().await;
    fixture.start();
    fixture.await_trouble_with(&["huge"]).await;
    File::options().write(true).open(fixture.inbox("huge")).unwrap().set_len(3).unwrap();
    fixture.expect(&["created small", "created huge"]).await;
    fixture.eventually("the recovery", async |fixture| fixture.health.trouble().is_none()).await;
    // If a submitted file grows above the limit, its version stays known: its removal is an event.
    File::options().write(true).open(fixture.inbox("huge")).unwrap().set_len(2 << 40).unwrap();
    fixture.await_trouble_with(&["huge"]).await;
    fs::remove_file(fixture.inbox("huge")).unwrap();
    fixture.expect(&["created small", "created huge", "removed huge"]).await;
    fixture.eventually("the recovery", async |fixture| fixture.health.trouble().is_none()).await;
    fixture.stop().await;
}

#[tokio::test]
async fn an_existing_file_above_the_limit_is_no_problem_when_existing_files_are_skipped() {
    let mut fixture = Fixture::new();
    fixture.config.existing = false;
    fixture.sparse("huge", 2 << 40);
    fixture.start();
    fixture
        .eventually("both marks", async |fixture| {
            let marks = fixture.store.marks("/shop/invoices".into()).await.unwrap();
            marks.contains_key(".") && marks.contains_key("huge")
        })
        .await;
    assert_eq!(fixture.health.trouble(), None);
    // A change of the file is a problem.
    File::options().write(true).open(fixture.inbox("huge")).unwrap().set_len(3 << 40).unwrap();
    fixture.await_trouble_with(&["huge", "3072GiB"]).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_large_file_delays_no_small_file_and_no_stop() {
    let mut fixture = Fixture::new();
    fixture.config.max_size = ByteSize(1 << 50);
    for n in 0..8 {
        fixture.sparse(&format!("endless-{n}"), ENDLESS);
    }
    fixture.sparse("large", 64 << 20);
    fixture.start();
    fixture.expect(&["created large"]).await;
    for n in 0..200 {
        put(&fixture.inbox(&format!("small-{n}")), "1");
    }
    fixture.eventually("all small files", async |fixture| fixture.events().await.len() >= 202).await;
    let (stop, worker) = fixture.worker.take().unwrap();
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), worker).await.expect("a source that hashes must stop").unwrap();
    assert!(!fixture.lines().await.iter().any(|line| line.contains("endless")));
}

#[tokio::test]
async fn a_file_that_grows_while_it_is_hashed_delays_no_other_and_is_submitted_whole() {
    let mut fixture = Fixture::new();
    let stop = Arc::new(AtomicBool::new(false));
    let (path, stopped) = (fixture.inbox("growing"), stop.clone());
    let writer = tokio::task::spawn_blocking(move || {
        let mut file = File::create(path).unwrap();
        file.set_len(32 << 20).unwrap();
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
        let mut written = 32 << 20;
        while !stopped.load(Ordering::Relaxed) {
            file.write_all(&[b'x'; 1000]).unwrap();
            written += 1000;
            std::thread::yield_now();
        }
        written
    });
    fixture.start();
    put(&fixture.inbox("small"), "1");
    fixture.expect(&["created small"]).await;
    stop.store(true, Ordering::Relaxed);
    let written: u64 = writer.await.unwrap();
    fixture.expect(&["created small", "created growing"]).await;
    assert_eq!(fixture.data("growing").await["size"], written);
    fixture.stop().await;
}

/// While a file is read by its name, another thread repeatedly gives this name to a pipe, a link or another file.
#[test]
fn a_name_that_is_swapped_while_it_is_read_leads_to_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_owned();
    let path = move |name: &str| folder.join(name);
    put(&path("secret/key"), "SECRET");
    put(&path("inbox/other"), "public");
    put(&path("kit/plain"), "public");
    let pipe_mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path("kit/pipe"), rustix::fs::FileType::Fifo, pipe_mode, 0).unwrap();
    fs::hard_link(path("kit/pipe"), path("pipe")).unwrap();
    symlink(path("secret/key"), path("kit/link")).unwrap();
    fs::hard_link(path("secret/key"), path("kit/hard")).unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let swaps = Arc::new(AtomicUsize::new(0));
    let (swap_path, swap_done, swap_count) = (path.clone(), done.clone(), swaps.clone());
    let swapper = std::thread::spawn(move || {
        while !swap_done.load(Ordering::Relaxed) {
            for kind in ["pipe", "plain", "link", "plain", "hard", "plain"] {
                let (kit, file) = (swap_path("kit").join(kind), swap_path("inbox/file"));
                fs::rename(&kit, &file).unwrap();
                std::thread::yield_now();
                fs::rename(&file, &kit).unwrap();
                swap_count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let is_pipe_opened = Arc::new(AtomicBool::new(false));
    let (pipe, opened) = (path("pipe"), is_pipe_opened.clone());
    let writer = std::thread::spawn(move || {
        // Waits until another thread opens the pipe for reading.
        drop(File::options().write(true).open(pipe).unwrap());
        opened.store(true, Ordering::Relaxed);
    });

    let rules = Rules { keep_max: Some(1000), size_max: 1000, hard_links: false };
    let (access, root) = (Access::default(), Root::open(&path("inbox")).unwrap());
    let (mut expected, mut public, mut reads) = (None, 0, 0);
    while reads < 20_000 || public < 10 || swaps.load(Ordering::Relaxed) < 1_000 {
        reads += 1;
        if let Ok(Found::File(info)) = root.stat(Path::new("file")) {
            expected = Some(info.stamp);
        }
        match read(&root, "file", expected, None, &rules, &access) {
            Reading::Whole(_, content) => {
                assert_eq!(content.as_deref(), Some(&b"public"[..]));
                public += 1;
            }
            Reading::Linked(version, _) => assert_eq!(version.sha256, ""),
            Reading::Changed(_) | Reading::Gone => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(!is_pipe_opened.load(Ordering::Relaxed), "the pipe was opened");
    done.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    let _reader = File::options().read(true).write(true).open(path("pipe")).unwrap();
    writer.join().unwrap();
}

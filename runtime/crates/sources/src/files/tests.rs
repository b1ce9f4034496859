//! Tests of the worker with real folders and a store in memory.

mod bounds;
mod reading;
mod root;
mod store;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use evoke_core::bus::{Amount, Bus, Limits, Target};
use evoke_core::router::Router;
use evoke_core::source::Health;
use evoke_manifest::ByteSize;
use evoke_model::clock::Clock;
use evoke_model::event::Event;
use evoke_model::{EventFilter, Seq};
use evoke_store::memory::MemoryStore;
use evoke_store::{EventStore, InspectionStore};

const SETTLE: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A folder, a bus, and a files source that submits events from the folder to the bus. A test can start and stop the
/// source.
struct Fixture {
    dir: TempDir,
    store: Arc<MemoryStore>,
    bus: Bus,
    config: FilesSource,
    health: Health,
    worker: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new(Clock::system()));
        let config = FilesSource {
            path: dir.path().join("inbox"),
            include: vec!["**/*".into()],
            exclude: Vec::new(),
            settle: SETTLE,
            content: true,
            max_content: ByteSize(1024),
            max_size: ByteSize(1 << 30),
            hard_links: false,
            existing: true,
        };
        fs::create_dir(&config.path).unwrap();
        let bus = Bus::new(store.clone(), Router::default(), Limits::default());
        Self { dir, store, bus, config, health: Health::default(), worker: None }
    }

    fn inbox(&self, name: &str) -> PathBuf {
        self.config.path.join(name)
    }

    fn outside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&mut self) {
        let stop = CancellationToken::new();
        let ctx = Context {
            bus: self.bus.clone(),
            uri: "/shop/invoices".into(),
            origin: evoke_model::Origin(1),
            target: Target::Matching,
            clock: Clock::system(),
            stop: stop.clone(),
            health: self.health.clone(),
        };
        self.worker = Some((stop, tokio::spawn(run(self.config.clone(), ctx))));
    }

    async fn stop(&mut self) {
        let (stop, worker) = self.worker.take().unwrap();
        stop.cancel();
        worker.await.unwrap();
    }

    async fn events(&self) -> Vec<Event> {
        let filter = EventFilter { after: Some(Seq(0)), limit: 100_000, ..EventFilter::default() };
        self.store.events(filter).await.unwrap().into_iter().flatten().map(|stored| (*stored.event).clone()).collect()
    }

    /// Returns all events so far as lines such as `created a.csv`.
    async fn lines(&self) -> Vec<String> {
        let line = |event: Event| {
            format!("{} {}", event.type_.trim_start_matches("evoke.file."), event.subject.unwrap_or_default())
        };
        self.events().await.into_iter().map(line).collect()
    }

    async fn eventually(&self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        let waited = tokio::time::timeout(WAIT_MAX, async {
            while !holds(self).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        if waited.await.is_err() {
            panic!("{what}: {:?}, {:?}", self.lines().await, self.health.trouble());
        }
    }

    /// Waits until these events have arrived, in any order, and checks that there are no other events. To give other
    /// events time to arrive, creates a marker file and waits for its event.
    async fn expect(&self, expected: &[&str]) {
        let marker = format!("marker-{}", self.events().await.len());
        let expected: BTreeSet<String> = expected.iter().map(|line| (*line).to_owned()).collect();
        let seen = async |fixture: &Self| {
            let lines = fixture.lines().await;
            lines.into_iter().filter(|line| !line.contains("marker-")).collect::<Vec<_>>()
        };
        self.eventually(&format!("waiting for {expected:?}"), async |fixture| {
            seen(fixture).await.into_iter().collect::<BTreeSet<_>>().is_superset(&expected)
        })
        .await;
        put(&self.outside(&marker), &marker);
        fs::rename(self.outside(&marker), self.inbox(&marker)).unwrap();
        self.eventually("waiting for the marker", async |fixture| {
            fixture.lines().await.contains(&format!("created {marker}"))
        })
        .await;
        let mut seen = seen(self).await;
        seen.sort();
        assert_eq!(seen, expected.into_iter().collect::<Vec<_>>());
    }

    async fn data(&self, name: &str) -> serde_json::Value {
        let events = self.events().await;
        let event = events.iter().rfind(|event| event.subject.as_deref() == Some(name)).unwrap();
        serde_json::from_slice(event.data.as_bytes()).unwrap()
    }
}

fn put(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[tokio::test]
async fn a_file_that_is_moved_in_causes_one_event_with_its_whole_content() {
    let mut fixture = Fixture::new();
    fixture.start();
    put(&fixture.outside("a.csv"), "a,b\n");
    fs::rename(fixture.outside("a.csv"), fixture.inbox("a.csv")).unwrap();
    fixture.expect(&["created a.csv"]).await;
    let event = fixture.events().await.remove(0);
    assert_eq!((event.source.as_str(), event.type_.as_str()), ("/shop/invoices", "evoke.file.created"));
    assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
    event.check().unwrap();
    let data = fixture.data("a.csv").await;
    assert_eq!(data["content"], "a,b\n");
    assert_eq!(data["size"], 4);
    assert_eq!(data["sha256"], "5be08c9684a1d25efcee09318204824278b08bbfb4aef973ffefd0b9d7478313");
    fixture.stop().await;
}

#[tokio::test]
async fn each_version_causes_one_event_however_it_is_written() {
    let mut fixture = Fixture::new();
    fixture.start();
    // A plain copy, then the same content again, then a changed mtime only.
    put(&fixture.inbox("copied"), "1");
    fixture.expect(&["created copied"]).await;
    put(&fixture.inbox("copied"), "1");
    fs::File::open(fixture.inbox("copied")).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    fixture.expect(&["created copied"]).await;
    // Write to a temporary file, then rename it over the first one.
    put(&fixture.inbox(".copied.tmp"), "2");
    fs::rename(fixture.inbox(".copied.tmp"), fixture.inbox("copied")).unwrap();
    fixture.expect(&["created copied", "modified copied"]).await;
    assert_eq!(fixture.data("copied").await["content"], "2");
    fixture.stop().await;
}

#[tokio::test]
async fn editors_and_uploads_cause_one_event() {
    let mut fixture = Fixture::new();
    put(&fixture.inbox("edited"), "1");
    fixture.start();
    fixture.expect(&["created edited"]).await;
    // Like vim: create and remove a probe, rename the old file, write the new one, remove the old one.
    put(&fixture.inbox("4913"), "");
    fs::remove_file(fixture.inbox("4913")).unwrap();
    fs::rename(fixture.inbox("edited"), fixture.inbox("edited~")).unwrap();
    put(&fixture.inbox("edited"), "2");
    fs::remove_file(fixture.inbox("edited~")).unwrap();
    // Like sftp-server: create the new name as a hard link, then remove the old name.
    put(&fixture.inbox("upload.part"), "3");
    fs::hard_link(fixture.inbox("upload.part"), fixture.inbox("upload")).unwrap();
    fs::remove_file(fixture.inbox("upload.part")).unwrap();
    fixture.expect(&["created edited", "modified edited", "created upload"]).await;
    fixture.stop().await;
}

#[tokio::test]
async fn returning_to_an_earlier_version_is_a_new_version() {
    let mut fixture = Fixture::new();
    fixture.start();
    put(&fixture.inbox("a"), "A");
    fixture.expect(&["created a"]).await;
    // Move the file out and in again; its mtime stays the same.
    fs::rename(fixture.inbox("a"), fixture.outside("a")).unwrap();
    fixture.expect(&["created a", "removed a"]).await;
    fs::rename(fixture.outside("a"), fixture.inbox("a")).unwrap();
    fixture
        .eventually("the third event", async |fixture| {
            fixture.lines().await.iter().filter(|line| *line == "created a").count() == 2
        })
        .await;
    let ids: BTreeSet<String> = fixture.events().await.into_iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), fixture.events().await.len());
    fixture.stop().await;
}

#[tokio::test]
async fn half_a_file_is_never_submitted() {
    use std::io::Write;
    let mut fixture = Fixture::new();
    fixture.start();
    fixture.expect(&[]).await;
    let mut writer = fs::File::create(fixture.inbox("slow")).unwrap();
    fixture.expect(&[]).await;
    writer.write_all(b"half, ").unwrap();
    // After this, more than the settle time has passed, because the marker file has settled.
    fixture.expect(&[]).await;
    writer.write_all(b"whole").unwrap();
    drop(writer);
    fixture.expect(&["created slow"]).await;
    assert_eq!(fixture.data("slow").await["content"], "half, whole");
    fixture.stop().await;
}

#[tokio::test]
async fn changes_made_while_evoke_was_down_are_found() {
    let mut fixture = Fixture::new();
    for name in ["same", "changes", "goes"] {
        put(&fixture.inbox(name), "1");
    }
    fixture.start();
    fixture.expect(&["created changes", "created goes", "created same"]).await;
    fixture.stop().await;
    put(&fixture.inbox("changes"), "2");
    fs::remove_file(fixture.inbox("goes")).unwrap();
    put(&fixture.inbox("new/folder/comes"), "1");
    fixture.start();
    let before = ["created changes", "created goes", "created same"];
    fixture.expect(&[&before[..], &["modified changes", "removed goes", "created new/folder/comes"]].concat()).await;
    fixture.stop().await;
}

#[tokio::test]
async fn existing_files_can_be_skipped_at_the_first_start() {
    let mut fixture = Fixture::new();
    fixture.config.existing = false;
    put(&fixture.inbox("old"), "1");
    fixture.start();
    fixture
        .eventually("both marks", async |fixture| {
            let marks = fixture.store.marks("/shop/invoices".into()).await.unwrap();
            marks.contains_key(".") && marks.contains_key("old")
        })
        .await;
    fixture.stop().await;
    put(&fixture.inbox("old"), "2");
    put(&fixture.inbox("new"), "2");
    fixture.start();
    fixture.expect(&["modified old", "created new"]).await;
    fixture.stop().await;
}

#[tokio::test]
async fn links_and_pipes_are_ignored() {
    let mut fixture = Fixture::new();
    put(&fixture.outside("secret/file"), "secret");
    symlink(fixture.outside("secret/file"), fixture.inbox("link")).unwrap();
    symlink(fixture.outside("secret"), fixture.inbox("folder")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        fixture.inbox("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    fixture.start();
    fixture.expect(&[]).await;
    // If a folder is replaced by a link, its files count as removed.
    put(&fixture.inbox("sub/file"), "mine");
    fixture.expect(&["created sub/file"]).await;
    fs::remove_dir_all(fixture.inbox("sub")).unwrap();
    symlink(fixture.outside("secret"), fixture.inbox("sub")).unwrap();
    fixture.expect(&["created sub/file", "removed sub/file"]).await;
    let root = Root::open(&fixture.config.path).unwrap();
    assert!(root.file(Path::new("folder/file")).is_err());
    assert!(root.file(Path::new("link")).is_err());
    assert!(root.file(Path::new("../secret/file")).is_err());
    assert!(root.file(Path::new("pipe")).is_err());
    fixture.stop().await;
}

#[tokio::test]
async fn globs_select_the_files() {
    let mut fixture = Fixture::new();
    fixture.config.include = vec!["**/*.csv".into(), "top.*".into()];
    fixture.config.exclude = vec!["**/.*".into(), "skip".into()];
    fixture.start();
    for name in ["a.csv", "deep/er/b.csv", "top.txt", "deep/top.txt", ".hidden.csv", "skip/c.csv", ".git/d.csv"] {
        put(&fixture.inbox(name), name);
    }
    fixture.eventually("three files", async |fixture| fixture.lines().await.len() >= 3).await;
    let mut lines = fixture.lines().await;
    lines.sort();
    assert_eq!(lines, ["created a.csv", "created deep/er/b.csv", "created top.txt"]);
    fixture.stop().await;
}

#[tokio::test]
async fn content_is_text_or_base64_or_omitted() {
    let mut fixture = Fixture::new();
    fixture.start();
    fs::write(fixture.inbox("binary"), [0xff, 0x00]).unwrap();
    fs::write(fixture.inbox("large"), vec![b'x'; 1025]).unwrap();
    fixture.expect(&["created binary", "created large"]).await;
    assert_eq!(fixture.data("binary").await["content_base64"], "/wA=");
    let large = fixture.data("large").await;
    assert_eq!((&large["content"], &large["size"]), (&serde_json::Value::Null, &1025.into()));
    assert_eq!(large["content_omitted"], "larger than 1KiB");
    fixture.stop().await;
}

#[tokio::test]
async fn content_that_does_not_fit_an_event_is_omitted() {
    let mut fixture = Fixture::new();
    fixture.config.max_content = ByteSize(1024 * 1024);
    fixture.start();
    // Each of these bytes needs six bytes in JSON.
    fs::write(fixture.inbox("controls"), vec![1; 900_000]).unwrap();
    fixture.expect(&["created controls"]).await;
    assert_eq!(fixture.data("controls").await["content_omitted"], "too large for an event");
    fixture.stop().await;
}

#[tokio::test]
async fn the_files_of_a_missing_folder_do_not_count_as_removed() {
    let mut fixture = Fixture::new();
    put(&fixture.inbox("a"), "1");
    fixture.start();
    fixture.expect(&["created a"]).await;
    fs::rename(&fixture.config.path, fixture.outside("elsewhere")).unwrap();
    fixture
        .eventually("a reported problem", async |fixture| {
            fixture.health.trouble().is_some_and(|trouble| trouble.contains("cannot open the folder"))
        })
        .await;
    put(&fixture.outside("elsewhere/b"), "2");
    fs::rename(fixture.outside("elsewhere"), &fixture.config.path).unwrap();
    fixture.eventually("the recovery", async |fixture| fixture.health.trouble().is_none()).await;
    fixture.expect(&["created a", "created b"]).await;
    put(&fixture.inbox("c"), "3");
    fixture.expect(&["created a", "created b", "created c"]).await;
    fixture.stop().await;
}

#[tokio::test]
async fn files_wait_while_the_bus_refuses_events() {
    let mut fixture = Fixture::new();
    fixture.bus = Bus::new(
        fixture.store.clone(),
        Router::default(),
        Limits { backlog_max: Amount { deliveries: 1, bytes: 1 }, ..Limits::default() },
    );
    fixture.store.set_pending(1);
    put(&fixture.inbox("a"), "1");
    fixture.start();
    fixture.eventually("a reported problem", async |fixture| fixture.health.trouble().is_some()).await;
    assert!(fixture.events().await.is_empty());
    fixture.store.set_pending(0);
    fixture.expect(&["created a"]).await;
    assert_eq!(fixture.health.trouble(), None);
    fixture.stop().await;
}

#[tokio::test]
async fn every_file_of_many_in_new_nested_folders_is_found() {
    let mut fixture = Fixture::new();
    fixture.start();
    let inbox = fixture.config.path.clone();
    let count = 3_000;
    tokio::task::spawn_blocking(move || {
        for n in 0..count {
            put(&inbox.join(format!("{}/{}/{}/{n}", n % 7, n % 11, n % 13)), &n.to_string());
        }
    })
    .await
    .unwrap();
    fixture.eventually("all files", async |fixture| fixture.events().await.len() >= count).await;
    let subjects: BTreeSet<_> = fixture.events().await.into_iter().map(|event| event.subject).collect();
    assert_eq!((subjects.len(), fixture.events().await.len()), (count, count));
    fixture.stop().await;
}

#[tokio::test]
async fn an_aborted_worker_misses_and_repeats_no_event() {
    let mut fixture = Fixture::new();
    let inbox = fixture.config.path.clone();
    let count = 1_000;
    let writer = tokio::task::spawn_blocking(move || {
        for n in 0..count {
            put(&inbox.join(format!("{}/{n}", n % 17)), &n.to_string());
        }
    });
    // Abort the source 20 times. In the run `n` (0 to 19), abort it after at least `n` new events.
    for run_number in 0..20 {
        fixture.start();
        let until = fixture.events().await.len() + run_number;
        fixture.eventually("some events", async |fixture| fixture.events().await.len() >= until.min(count)).await;
        fixture.worker.take().unwrap().1.abort();
    }
    writer.await.unwrap();
    fixture.start();
    fixture.eventually("all files", async |fixture| fixture.events().await.len() >= count).await;
    fixture.stop().await;
    let mut lines = fixture.lines().await;
    lines.sort();
    let mut expected: Vec<String> = (0..count).map(|n| format!("created {}/{n}", n % 17)).collect();
    expected.sort();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn files_that_settled_before_the_folder_was_lost_are_submitted_when_it_is_back() {
    let mut fixture = Fixture::new();
    fixture.config.settle = Duration::from_millis(500);
    fixture.start();
    fixture.expect(&[]).await;
    put(&fixture.inbox("a"), "1");
    fs::rename(&fixture.config.path, fixture.outside("elsewhere")).unwrap();
    fixture.eventually("a reported problem", async |fixture| fixture.health.trouble().is_some()).await;
    fs::rename(fixture.outside("elsewhere"), &fixture.config.path).unwrap();
    fixture.expect(&["created a"]).await;
    fixture.stop().await;
}

#[tokio::test]
async fn another_folder_under_the_same_source_is_a_first_start() {
    let mut fixture = Fixture::new();
    put(&fixture.inbox("a"), "1");
    fixture.start();
    fixture.expect(&["created a"]).await;
    fixture.stop().await;
    put(&fixture.outside("other/b"), "2");
    fixture.config.path = fixture.outside("other");
    fixture.start();
    fixture.expect(&["created a", "created b"]).await;
    fixture.stop().await;
}

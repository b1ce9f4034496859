//! The worker over real folders and a store in memory.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::bus::{Amount, Bus, Limits, Target};
use crate::clock::Clock;
use crate::event::Event;
use crate::manifest::ByteSize;
use crate::router::Router;
use crate::source::Health;
use crate::store::memory::MemoryStore;
use crate::store::{EventFilter, Store};

const SETTLE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder, a bus, and a worker between them that can be stopped and started.
struct Desk {
    dir: TempDir,
    store: Arc<MemoryStore>,
    bus: Bus,
    config: FilesSource,
    health: Health,
    worker: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Desk {
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
        let filter = EventFilter { after: Some(0), limit: 100_000, ..EventFilter::default() };
        self.store.events(filter).await.unwrap().into_iter().map(|stored| (*stored.event).clone()).collect()
    }

    /// All events so far as `kind name`.
    async fn lines(&self) -> Vec<String> {
        let line = |event: Event| {
            format!("{} {}", event.type_.trim_start_matches("evoke.file."), event.subject.unwrap_or_default())
        };
        self.events().await.into_iter().map(line).collect()
    }

    async fn eventually(&self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !holds(self).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        if waited.await.is_err() {
            panic!("{what}: {:?}, {:?}", self.lines().await, self.health.trouble());
        }
    }

    /// Waits until the events are these, in any order, and shows that no other follows: a file that is made
    /// afterwards is the next to come.
    async fn expect(&self, expected: &[&str]) {
        let marker = format!("marker-{}", self.events().await.len());
        let expected: BTreeSet<String> = expected.iter().map(|line| (*line).to_owned()).collect();
        let seen = async |desk: &Self| {
            let lines = desk.lines().await;
            lines.into_iter().filter(|line| !line.contains("marker-")).collect::<Vec<_>>()
        };
        self.eventually(&format!("waiting for {expected:?}"), async |desk| {
            seen(desk).await.into_iter().collect::<BTreeSet<_>>().is_superset(&expected)
        })
        .await;
        put(&self.outside(&marker), &marker);
        fs::rename(self.outside(&marker), self.inbox(&marker)).unwrap();
        self.eventually("waiting for the marker", async |desk| {
            desk.lines().await.contains(&format!("created {marker}"))
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
async fn a_file_that_is_moved_in_is_one_event_with_all_of_it() {
    let mut desk = Desk::new();
    desk.start();
    put(&desk.outside("a.csv"), "a,b\n");
    fs::rename(desk.outside("a.csv"), desk.inbox("a.csv")).unwrap();
    desk.expect(&["created a.csv"]).await;
    let event = desk.events().await.remove(0);
    assert_eq!((event.source.as_str(), event.type_.as_str()), ("/shop/invoices", "evoke.file.created"));
    assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
    event.check().unwrap();
    let data = desk.data("a.csv").await;
    assert_eq!(data["content"], "a,b\n");
    assert_eq!(data["size"], 4);
    assert_eq!(data["sha256"], "5be08c9684a1d25efcee09318204824278b08bbfb4aef973ffefd0b9d7478313");
    desk.stop().await;
}

#[tokio::test]
async fn each_version_is_one_event_however_it_is_written() {
    let mut desk = Desk::new();
    desk.start();
    // A plain copy, then the same content again, then times only.
    put(&desk.inbox("copied"), "1");
    desk.expect(&["created copied"]).await;
    put(&desk.inbox("copied"), "1");
    fs::File::open(desk.inbox("copied")).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    desk.expect(&["created copied"]).await;
    // Written beside and renamed over.
    put(&desk.inbox(".copied.tmp"), "2");
    fs::rename(desk.inbox(".copied.tmp"), desk.inbox("copied")).unwrap();
    desk.expect(&["created copied", "modified copied"]).await;
    assert_eq!(desk.data("copied").await["content"], "2");
    desk.stop().await;
}

#[tokio::test]
async fn editors_and_uploads_leave_one_event_behind() {
    let mut desk = Desk::new();
    put(&desk.inbox("edited"), "1");
    desk.start();
    desk.expect(&["created edited"]).await;
    // As vim does: a probe, the old one aside, a new one written, the old one removed.
    put(&desk.inbox("4913"), "");
    fs::remove_file(desk.inbox("4913")).unwrap();
    fs::rename(desk.inbox("edited"), desk.inbox("edited~")).unwrap();
    put(&desk.inbox("edited"), "2");
    fs::remove_file(desk.inbox("edited~")).unwrap();
    // As sftp-server does: the new name is a link, then the old one goes.
    put(&desk.inbox("upload.part"), "3");
    fs::hard_link(desk.inbox("upload.part"), desk.inbox("upload")).unwrap();
    fs::remove_file(desk.inbox("upload.part")).unwrap();
    desk.expect(&["created edited", "modified edited", "created upload"]).await;
    desk.stop().await;
}

#[tokio::test]
async fn back_to_an_earlier_version_is_a_version() {
    let mut desk = Desk::new();
    desk.start();
    put(&desk.inbox("a"), "A");
    desk.expect(&["created a"]).await;
    // Out and in again with all its times.
    fs::rename(desk.inbox("a"), desk.outside("a")).unwrap();
    desk.expect(&["created a", "removed a"]).await;
    fs::rename(desk.outside("a"), desk.inbox("a")).unwrap();
    desk.eventually("the third event", async |desk| {
        desk.lines().await.iter().filter(|line| *line == "created a").count() == 2
    })
    .await;
    let ids: BTreeSet<String> = desk.events().await.into_iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), desk.events().await.len());
    desk.stop().await;
}

#[tokio::test]
async fn half_a_file_is_never_handed_over() {
    use std::io::Write;
    let mut desk = Desk::new();
    desk.start();
    desk.expect(&[]).await;
    let mut writer = fs::File::create(desk.inbox("slow")).unwrap();
    desk.expect(&[]).await;
    writer.write_all(b"half, ").unwrap();
    // Longer than the settle time passes: the marker came and settled.
    desk.expect(&[]).await;
    writer.write_all(b"whole").unwrap();
    drop(writer);
    desk.expect(&["created slow"]).await;
    assert_eq!(desk.data("slow").await["content"], "half, whole");
    desk.stop().await;
}

#[tokio::test]
async fn what_happened_while_it_was_down_is_found() {
    let mut desk = Desk::new();
    for name in ["same", "changes", "goes"] {
        put(&desk.inbox(name), "1");
    }
    desk.start();
    desk.expect(&["created changes", "created goes", "created same"]).await;
    desk.stop().await;
    put(&desk.inbox("changes"), "2");
    fs::remove_file(desk.inbox("goes")).unwrap();
    put(&desk.inbox("new/folder/comes"), "1");
    desk.start();
    let before = ["created changes", "created goes", "created same"];
    desk.expect(&[&before[..], &["modified changes", "removed goes", "created new/folder/comes"]].concat()).await;
    desk.stop().await;
}

#[tokio::test]
async fn what_is_there_at_the_first_start_can_be_taken_for_granted() {
    let mut desk = Desk::new();
    desk.config.existing = false;
    put(&desk.inbox("old"), "1");
    desk.start();
    desk.eventually("noted", async |desk| {
        let marks = desk.store.marks("/shop/invoices".into()).await.unwrap();
        marks.contains_key(".") && marks.contains_key("old")
    })
    .await;
    desk.stop().await;
    put(&desk.inbox("old"), "2");
    put(&desk.inbox("new"), "2");
    desk.start();
    desk.expect(&["modified old", "created new"]).await;
    desk.stop().await;
}

#[tokio::test]
async fn links_and_pipes_are_left_alone() {
    let mut desk = Desk::new();
    put(&desk.outside("secret/file"), "secret");
    symlink(desk.outside("secret/file"), desk.inbox("link")).unwrap();
    symlink(desk.outside("secret"), desk.inbox("folder")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        desk.inbox("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    desk.start();
    desk.expect(&[]).await;
    // A known file that becomes a link is gone; a folder that becomes one takes its files with it.
    put(&desk.inbox("sub/file"), "mine");
    desk.expect(&["created sub/file"]).await;
    fs::remove_dir_all(desk.inbox("sub")).unwrap();
    symlink(desk.outside("secret"), desk.inbox("sub")).unwrap();
    desk.expect(&["created sub/file", "removed sub/file"]).await;
    let root = Root::open(&desk.config.path).unwrap();
    assert!(root.file(Path::new("folder/file")).is_err());
    assert!(root.file(Path::new("link")).is_err());
    assert!(root.file(Path::new("../secret/file")).is_err());
    assert!(root.file(Path::new("pipe")).is_err());
    desk.stop().await;
}

#[tokio::test]
async fn globs_say_which_files_count() {
    let mut desk = Desk::new();
    desk.config.include = vec!["**/*.csv".into(), "top.*".into()];
    desk.config.exclude = vec!["**/.*".into(), "skip".into()];
    desk.start();
    for name in ["a.csv", "deep/er/b.csv", "top.txt", "deep/top.txt", ".hidden.csv", "skip/c.csv", ".git/d.csv"] {
        put(&desk.inbox(name), name);
    }
    desk.eventually("three files", async |desk| desk.lines().await.len() >= 3).await;
    let mut lines = desk.lines().await;
    lines.sort();
    assert_eq!(lines, ["created a.csv", "created deep/er/b.csv", "created top.txt"]);
    desk.stop().await;
}

#[tokio::test]
async fn content_is_text_or_base64_or_left_out() {
    let mut desk = Desk::new();
    desk.start();
    fs::write(desk.inbox("binary"), [0xff, 0x00]).unwrap();
    fs::write(desk.inbox("large"), vec![b'x'; 1025]).unwrap();
    desk.expect(&["created binary", "created large"]).await;
    assert_eq!(desk.data("binary").await["content_base64"], "/wA=");
    let large = desk.data("large").await;
    assert_eq!((&large["content"], &large["size"]), (&serde_json::Value::Null, &1025.into()));
    assert_eq!(large["content_omitted"], "larger than 1KiB");
    desk.stop().await;
}

#[tokio::test]
async fn content_that_does_not_fit_an_event_is_left_out() {
    let mut desk = Desk::new();
    desk.config.max_content = ByteSize(1024 * 1024);
    desk.start();
    // Each byte is six in JSON.
    fs::write(desk.inbox("controls"), vec![1; 900_000]).unwrap();
    desk.expect(&["created controls"]).await;
    assert_eq!(desk.data("controls").await["content_omitted"], "larger than an event can be");
    desk.stop().await;
}

#[tokio::test]
async fn a_missing_folder_is_waited_for_and_its_files_are_not_taken_for_removed() {
    let mut desk = Desk::new();
    put(&desk.inbox("a"), "1");
    desk.start();
    desk.expect(&["created a"]).await;
    fs::rename(&desk.config.path, desk.outside("elsewhere")).unwrap();
    desk.eventually("trouble", async |desk| {
        desk.health.trouble().is_some_and(|trouble| trouble.contains("cannot open the folder"))
    })
    .await;
    put(&desk.outside("elsewhere/b"), "2");
    fs::rename(desk.outside("elsewhere"), &desk.config.path).unwrap();
    desk.eventually("recovery", async |desk| desk.health.trouble().is_none()).await;
    desk.expect(&["created a", "created b"]).await;
    put(&desk.inbox("c"), "3");
    desk.expect(&["created a", "created b", "created c"]).await;
    desk.stop().await;
}

#[tokio::test]
async fn files_wait_for_a_bus_that_takes_nothing() {
    let mut desk = Desk::new();
    desk.bus = Bus::new(
        desk.store.clone(),
        Router::default(),
        Limits { backlog_max: Amount { deliveries: 1, bytes: 1 }, ..Limits::default() },
    );
    desk.store.set_pending(1);
    put(&desk.inbox("a"), "1");
    desk.start();
    desk.eventually("trouble", async |desk| desk.health.trouble().is_some()).await;
    assert!(desk.events().await.is_empty());
    desk.store.set_pending(0);
    desk.expect(&["created a"]).await;
    assert_eq!(desk.health.trouble(), None);
    desk.stop().await;
}

#[tokio::test]
async fn every_file_of_many_in_new_nested_folders_is_found() {
    let mut desk = Desk::new();
    desk.start();
    let inbox = desk.config.path.clone();
    let count = 3_000;
    tokio::task::spawn_blocking(move || {
        for n in 0..count {
            put(&inbox.join(format!("{}/{}/{}/{n}", n % 7, n % 11, n % 13)), &n.to_string());
        }
    })
    .await
    .unwrap();
    desk.eventually("all files", async |desk| desk.events().await.len() >= count).await;
    let subjects: BTreeSet<_> = desk.events().await.into_iter().map(|event| event.subject).collect();
    assert_eq!((subjects.len(), desk.events().await.len()), (count, count));
    desk.stop().await;
}

#[tokio::test]
async fn a_worker_that_is_killed_misses_and_repeats_nothing() {
    let mut desk = Desk::new();
    let inbox = desk.config.path.clone();
    let count = 1_000;
    let writer = tokio::task::spawn_blocking(move || {
        for n in 0..count {
            put(&inbox.join(format!("{}/{n}", n % 17)), &n.to_string());
        }
    });
    // Each life is cut off at another point: after so many more events than the last.
    for life in 0..20 {
        desk.start();
        let until = desk.events().await.len() + life;
        desk.eventually("some events", async |desk| desk.events().await.len() >= until.min(count)).await;
        desk.worker.take().unwrap().1.abort();
    }
    writer.await.unwrap();
    desk.start();
    desk.eventually("all files", async |desk| desk.events().await.len() >= count).await;
    desk.stop().await;
    let mut lines = desk.lines().await;
    lines.sort();
    let mut expected: Vec<String> = (0..count).map(|n| format!("created {}/{n}", n % 17)).collect();
    expected.sort();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn what_was_at_rest_when_the_folder_went_is_handed_over_when_it_is_back() {
    let mut desk = Desk::new();
    desk.config.settle = Duration::from_millis(500);
    desk.start();
    desk.expect(&[]).await;
    put(&desk.inbox("a"), "1");
    fs::rename(&desk.config.path, desk.outside("elsewhere")).unwrap();
    desk.eventually("trouble", async |desk| desk.health.trouble().is_some()).await;
    fs::rename(desk.outside("elsewhere"), &desk.config.path).unwrap();
    desk.expect(&["created a"]).await;
    desk.stop().await;
}

#[tokio::test]
async fn another_folder_under_the_same_source_begins_anew() {
    let mut desk = Desk::new();
    put(&desk.inbox("a"), "1");
    desk.start();
    desk.expect(&["created a"]).await;
    desk.stop().await;
    put(&desk.outside("other/b"), "2");
    desk.config.path = desk.outside("other");
    desk.start();
    desk.expect(&["created a", "created b"]).await;
    desk.stop().await;
}

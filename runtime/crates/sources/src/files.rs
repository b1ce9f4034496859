//! Files: events for files that are created, changed or removed in a folder and all folders below it.
//!
//! # How it works
//! A scan of the folder finds the changes: it compares the files on disk with the versions that were submitted before.
//! So the source also finds changes made while Evoke was not running. File system notifications (inotify and similar)
//! only tell the source which names to check first. If notifications are lost, the source scans the whole folder.
//!
//! A file is submitted once it has settled: it was unchanged for `settle` (at least 20 ms), it was read as a whole, and
//! it was the same before and after reading. If notifications show that a program writes to the file, the source waits
//! until the program closes it, at most five minutes. For a new empty file, there are three cases. If a program created
//! the file by opening it, the source also waits until this program closes it. If the file was linked or moved into the
//! folder, alone or with its subfolder, it is complete, and the source waits only for `settle`. If a scan found the
//! file without a notification, the source waits five seconds for content. If a program truncates a file by its path,
//! without opening it, the source sees a write and no close, so it waits the full five minutes.
//!
//! Two versions of a file differ only if their contents differ. If a file is touched, gets other permissions, or is
//! replaced by a file with the same content, there is no event. A file that appears and disappears within `settle`
//! causes no event either. `mv a b` is the removal of `a` and the creation of `b`.
//!
//! Only regular files count. The source does not follow links, also not links to folders, and never opens a file
//! outside of the folder. It never opens pipes, sockets and devices. `include` and `exclude` are globs for the path
//! relative to the folder, in which `*` does not match a `/`. An excluded folder excludes everything in it. Nothing is
//! excluded by default. The globs are matched before the source accesses an entry. So problems with excluded entries,
//! or with folders that cannot contain an included file, do not affect the source.
//!
//! # The folder itself
//! When the source first finds the folder, it remembers the folder's device and inode. While the folder is missing, or
//! while another folder or a link to another folder has its path, the source reads nothing, does not count the files as
//! removed, and is degraded. When the original folder is back, the source continues. The source accepts another folder
//! only after a reload or a restart of Evoke. The marks (see below) stay, so files that are not in the new folder then
//! count as removed. The path in the manifest may lead through links.
//!
//! # What is not read
//! - The folder and the files of Evoke's own store are left out, under whatever name they appear, also as hard links.
//!   A source whose folder is the folder of the store is degraded.
//! - A file larger than `max_size` causes no event. While the folder contains such a file that is new or has changed,
//!   the source is degraded.
//! - A file with several hard links is not read if `content` is true: a user who may write to the folder could
//!   otherwise link a file that only Evoke may read, and get its content from the functions. The event has neither
//!   content nor `sha256`, and `content_omitted` has the reason. Such a file counts as changed when its size, time of
//!   modification or inode changes. With `hard_links: true`, these files are read like all others.
//! - The source reports a file or folder that it cannot read, and tries again: at first after a second, later once a
//!   minute. Other files are not affected. The files in a folder that cannot be read do not count as removed.
//! - A file or folder whose file system does not respond for ten seconds, such as a dead network mount, counts as
//!   unreadable until it responds.
//! - A path longer than 4,095 bytes or below more than 128 folders counts as unreadable, and so does a folder with more
//!   than 1,000 unreadable entries.
//!
//! Files are hashed in slices of 4 MiB. Between two slices of a large file, the source reads all small files that are
//! ready. So a large file does not delay other files.
//!
//! # Events
//! `evoke.file.created`, `evoke.file.modified`, `evoke.file.removed`. The subject is the path relative to the folder,
//! with `/`. Control characters in the path, and bytes that are not UTF-8, are written as U+FFFD and two hex digits.
//! ```json
//! { "path": "2026/a.csv", "size": 12, "modified": "2026-01-31T12:00:00Z", "sha256": "…", "content": "a,b\n1,2\n" }
//! ```
//! Only with `content: true`, the data has `content`, or `content_base64` if the content is not UTF-8, or
//! `content_omitted` with the reason. `sha256` is missing if the file was not read. The event of a removed file has the
//! values of its last submitted version, without `modified` and content. The id is derived from the path and the
//! version, so the same change always gets the same id.
//!
//! # Marks
//! A source stores the submitted versions as marks (values that are committed together with events). The scope
//! (namespace) of all marks is the source's uri. For each file, there is a mark with the path as its key. Its value is
//! a JSON object with `v` (1), `size`, `mtime_ns`, `ctime_ns`, `inode` and `sha256` (empty if the file was not read).
//! The mark is committed together with the event of that version. The mark with the key `.` has `v` and `root`, the
//! path of the folder. This mark is written after the first scan; with `existing: false`, only after all files that
//! existed at the first start have marks. If `root` is not the path in the manifest, the source deletes all marks and
//! starts as if for the first time.

mod access;
mod check;
mod config;
mod confined;
mod events;
mod globs;
pub(crate) mod name;
mod offer;
mod overlap;
mod problems;
mod queue;
mod read;
mod root;
mod scan;
mod tracker;
mod version;
mod watch;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use self::access::{Access, Stuck};
pub use self::config::{FilesKind, FilesSource};
use self::confined::Root;
pub use self::overlap::Overlap;
use self::problems::Problems;
use self::queue::ReadQueue;
use self::read::Rules;
use self::root::{PinnedRoot, RootError};
use self::scan::{Filter, ScanResult};
use self::tracker::Tracker;
use self::version::{from_mark, to_mark};
use self::watch::{Hint, HintQueue, Watch, watch_each};
use crate::{Services, TaskKind};
use evoke_core::bus::Offer;
use evoke_core::source::Context;
use evoke_core::source::submit::{marks, submit};
use evoke_manifest::Settings;
use evoke_model::Mark;

/// The time between two scans of the whole folder while notifications work. The scans are still needed, because some
/// file systems do not notify.
const RESCAN_INTERVAL: Duration = Duration::from_secs(60);
/// The time between two scans of the whole folder while the system cannot notify of changes in some subfolder.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// The time between two checks whether the path still leads to the same folder, or whether a missing folder is back.
const ROOT_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long to collect hints (names from notifications) before they are processed. Each write causes a hint, and
/// several hints with the same name then cause only one check.
const HINT_BATCH_WAIT: Duration = Duration::from_millis(10);
/// The first wait between two scans of the whole folder after lost hints. The wait doubles while scans find nothing
/// new. Otherwise, scans might never stop: a scan itself causes hints, and these can overflow a small queue in the
/// kernel, so that hints are lost again.
const RESCAN_WAIT_MIN: Duration = Duration::from_millis(100);
/// Scans of the whole folder take at most 1 / `SCAN_TIME_DIVISOR` of the time.
const SCAN_TIME_DIVISOR: u32 = 10;
/// The time between two checks whether disk work makes progress. Without progress, the source skips the file or folder
/// that the work waits for, until this file or folder responds.
const STALL_WAIT: Duration = Duration::from_secs(5);
/// How long a source that is stopped waits for its disk work. Reads of files end early. If a file system does not
/// respond, the source abandons the thread that waits for it.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// The key of the mark of the folder itself.
const ROOT_KEY: &str = ".";
/// Maximum number of warnings about files and folders of Evoke's store that are in the watched folder.
const WARNINGS_MAX: usize = 8;
/// Maximum number of marks that are deleted in one commit.
const DELETED_MARKS_MAX: usize = 1_000;

/// The source was stopped.
struct Stopped;

/// The content of the mark with the key [`ROOT_KEY`].
#[derive(Serialize, Deserialize)]
struct RootMark {
    root: PathBuf,
}

impl TaskKind for FilesKind {
    fn run(&self, settings: &Settings, ctx: Context, _: &Services) -> Option<BoxFuture<'static, ()>> {
        let config = settings.get::<FilesSource>()?.clone();
        Some(Box::pin(run(config, ctx)))
    }
}

/// Runs the source: submits the changes to the files of `config` until the source is stopped.
async fn run(mut config: FilesSource, ctx: Context) {
    // Use the absolute path: notifications contain absolute paths, and the path in the mark of the folder must not
    // depend on the working directory.
    if let Ok(absolute) = std::path::absolute(&config.path) {
        config.path = absolute;
    }
    let filter = match Filter::new(&config) {
        Ok(filter) => Arc::new(filter),
        Err(error) => {
            ctx.health.degraded(error.to_string());
            return ctx.stop.cancelled().await;
        }
    };
    // `start` and `step` return an error only if the source was stopped.
    if let Ok(mut worker) = Worker::start(config, filter, ctx).await {
        while worker.step().await.is_ok() {}
    }
}

struct Worker {
    config: FilesSource,
    rules: Rules,
    ctx: Context,
    root: Arc<PinnedRoot>,
    filter: Arc<Filter>,
    tracker: Tracker,
    queue: ReadQueue,
    /// While the queue has large files: the earliest time at which further settled files are added to it.
    refill_at: Instant,
    hint_queue: Arc<HintQueue>,
    watch: Arc<Mutex<Option<Watch>>>,
    /// The progress of the first start.
    first_start: FirstStart,
    /// True until a scan has succeeded.
    first_scan: bool,
    /// The time of the next full scan.
    scan_at: Instant,
    /// The time of the next check of the folder's path.
    root_check_at: Instant,
    /// The end and the duration of the last full scan.
    last_scan: (Instant, Duration),
    /// If hints are lost: the shortest time from the end of the last full scan to the start of the next one.
    rescan_wait: Duration,
    /// The files and folders whose file system does not respond.
    stuck: Stuck,
    problems: Problems,
}

#[derive(PartialEq, Eq)]
enum FirstStart {
    Unscanned,
    Scanned,
    Done,
}

impl Worker {
    async fn start(config: FilesSource, filter: Arc<Filter>, ctx: Context) -> Result<Self, Stopped> {
        let mut stored = marks(&ctx).await.ok_or(Stopped)?;
        let root = stored.remove(ROOT_KEY).and_then(|mark| from_mark::<RootMark>(&mark));
        let same_root = root.as_ref().is_none_or(|stored| stored.root == config.path);
        let known = stored.iter().filter_map(|(name, mark)| Some((name.clone(), from_mark(mark)?))).collect();
        let mut tracker = Tracker::new(config.settle, known);
        // Delete, without `removed` events, the marks of files that the filter no longer includes. If the path of the
        // folder changed, delete all marks.
        let forgotten = tracker.forget(|name| same_root && filter.includes(&name::path(name)));
        delete_marks(&ctx, forgotten.into_iter().chain((!same_root).then(|| ROOT_KEY.to_owned()))).await?;
        let first_start = if root.is_some() && same_root { FirstStart::Done } else { FirstStart::Unscanned };
        let now = Instant::now();
        Ok(Self {
            rules: Rules::of(&config),
            root: Arc::new(PinnedRoot::new(config.path.clone())),
            config,
            ctx,
            filter,
            tracker,
            queue: ReadQueue::default(),
            refill_at: now,
            hint_queue: Arc::default(),
            watch: Arc::default(),
            first_start,
            first_scan: true,
            scan_at: now,
            root_check_at: now,
            last_scan: (now, Duration::ZERO),
            rescan_wait: RESCAN_WAIT_MIN,
            stuck: Stuck::default(),
            problems: Problems::default(),
        })
    }

    /// Scans the folder or checks single names if needed, submits some settled files, and waits for the next hint or
    /// deadline.
    async fn step(&mut self) -> Result<(), Stopped> {
        let hints = self.hint_queue.take();
        let now = Instant::now();
        if hints.lost {
            self.tracker.hints_lost();
            let (end, took) = self.last_scan;
            self.scan_at = self.scan_at.min(end + self.rescan_wait.max(took * SCAN_TIME_DIVISOR));
        }
        if self.stuck.remove_finished() || hints.root || self.tracker.take_overflow() {
            self.scan_at = now;
        }
        if self.scan_at <= now {
            self.scan(hints.lost).await?;
        }
        // While the folder cannot be used, no file can be read: settled files wait until a scan finds the folder again.
        if self.problems.root.is_none() && self.root_check_at <= now {
            self.with_root(|_, _| Ok(())).await?;
        }
        if self.problems.root.is_none() {
            let retried = self.problems.unreadable.take_due(now).into_iter().map(|name| (name, Hint::Changed));
            let names: Vec<_> = retried.chain(hints.names).collect();
            if !names.is_empty() {
                self.check_hinted(names).await?;
            }
            if hints.lost {
                // `check_hinted` may have recorded that programs have files open. The lost hints may be newer, and may
                // have said that these files were closed.
                self.tracker.hints_lost();
            }
        }
        if self.problems.root.is_none() {
            self.submit_some().await?;
            self.finish_first_start().await?;
        }
        self.problems.report(&self.tracker, &self.ctx.health, Instant::now());
        self.wait().await
    }

    /// Waits for the next hint or deadline.
    async fn wait(&self) -> Result<(), Stopped> {
        if self.ctx.stop.is_cancelled() {
            return Err(Stopped);
        }
        let mut wake = self.scan_at;
        if self.problems.root.is_none() {
            if !self.queue.is_empty() {
                return Ok(());
            }
            let next = [Some(self.root_check_at), self.problems.unreadable.next(), self.tracker.next()];
            wake = next.into_iter().flatten().fold(wake, Instant::min);
        }
        tokio::select! {
            () = self.ctx.stop.cancelled() => return Err(Stopped),
            () = tokio::time::sleep_until(wake) => return Ok(()),
            () = self.hint_queue.arrived() => {}
        }
        tokio::select! {
            () = self.ctx.stop.cancelled() => Err(Stopped),
            () = tokio::time::sleep(HINT_BATCH_WAIT) => Ok(()),
        }
    }

    async fn scan(&mut self, lost: bool) -> Result<(), Stopped> {
        let start = Instant::now();
        let pending_before = self.tracker.pending();
        let (pinned, filter) = (self.root.clone(), self.filter.clone());
        let (watch, hint_queue) = (self.watch.clone(), self.hint_queue.clone());
        let scanned = self.with_root(move |root, access| {
            let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
            let mut unwatched = None;
            if watch.is_none() {
                match Watch::new(&pinned.stable_path(), hint_queue) {
                    Ok(new) => *watch = Some(new),
                    Err(reason) => unwatched = Some(reason),
                }
            }
            let seen = scan::scan(root, "", &filter, &mut watch_each(&mut watch), access)?;
            Ok(ScanResult { unwatched: unwatched.or(seen.unwatched.clone()), ..seen })
        });
        let scanned = scanned.await?;
        let end = Instant::now();
        self.last_scan = (end, end - start);
        let Some(seen) = scanned else { return Ok(()) };
        self.problems.root = None;
        self.set_watch_problem(seen.unwatched);
        self.forget_store(&seen.of_store).await?;
        self.tracker.observe_folder("", &seen.files, &seen.unread, end);
        if self.first_start == FirstStart::Unscanned {
            if !self.config.existing {
                self.tracker.set_existing(&seen.files);
            }
            self.first_start = FirstStart::Scanned;
        }
        self.problems.unreadable.replace("", seen.unread, end);
        let next = if self.problems.watch.is_some() { POLL_INTERVAL } else { RESCAN_INTERVAL };
        self.scan_at = end + next.max((end - start) * SCAN_TIME_DIVISOR);
        if self.tracker.pending() > pending_before {
            self.rescan_wait = RESCAN_WAIT_MIN;
        } else if lost {
            self.rescan_wait = (self.rescan_wait * 2).min(RESCAN_INTERVAL);
        }
        Ok(())
    }

    /// Deletes the marks of files that now belong to the store, without `removed` events. Warns about these files only
    /// once, after the first scan.
    async fn forget_store(&mut self, of_store: &[String]) -> Result<(), Stopped> {
        let not_excluded = |name: &&String| self.filter.includes_below(&name::path(name));
        for name in of_store.iter().filter(not_excluded).take(if self.first_scan { WARNINGS_MAX } else { 0 }) {
            let uri = &self.ctx.uri;
            tracing::warn!(
                "the files source {uri} ignores `{name}`, which is part of Evoke's own store (the data folder)"
            );
        }
        self.first_scan = false;
        if of_store.is_empty() {
            return Ok(());
        }
        let of_store: HashSet<&Path> = of_store.iter().map(Path::new).collect();
        let is_of_store = |name: &str| Path::new(name).ancestors().any(|part| of_store.contains(part));
        let forgotten = self.tracker.forget(|name| !is_of_store(name));
        delete_marks(&self.ctx, forgotten.into_iter()).await
    }

    /// Runs `work` with the open folder on a separate thread, because disk work blocks. Returns `None` if the folder
    /// cannot be used (then `problems` has the reason), or if the file system of a file or folder does not respond
    /// (then the next scan skips this file or folder).
    async fn with_root<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Root, &Access) -> io::Result<T> + Send + 'static,
    ) -> Result<Option<T>, Stopped> {
        let (pinned, stop) = (self.root.clone(), self.ctx.stop.clone());
        let access = Access::new(stop.clone(), &self.stuck);
        let shared = access.clone();
        let mut running = tokio::task::spawn_blocking(move || {
            let done = pinned.open().and_then(|root| work(&root, &shared).map_err(RootError::Unreadable));
            shared.finish();
            done
        });
        let stopped = async {
            stop.cancelled().await;
            tokio::time::sleep(STOP_WAIT).await;
        };
        tokio::pin!(stopped);
        let mut steps = None;
        let done = loop {
            tokio::select! {
                done = &mut running => break done,
                () = &mut stopped => return Err(Stopped),
                () = tokio::time::sleep(STALL_WAIT) => {}
            }
            if steps.replace(access.steps()) != Some(access.steps()) {
                continue;
            }
            if self.stuck.add(&access) {
                // The abandoned thread may still hold the lock of `self.watch`. Therefore `start_over` replaces
                // `self.watch`.
                self.start_over(Instant::now());
                return Ok(None);
            }
            let path = self.config.path.display();
            self.problems
                .report_now(&self.ctx.health, format!("the file system of the folder `{path}` does not respond"));
        };
        if self.ctx.stop.is_cancelled() {
            return Err(Stopped);
        }
        let now = Instant::now();
        self.root_check_at = now + ROOT_CHECK_INTERVAL;
        match done.unwrap_or_else(|error| Err(RootError::Unreadable(io::Error::other(error)))) {
            Ok(done) => Ok(Some(done)),
            Err(error) => {
                self.problems.root = Some(error.describe(self.root.path()));
                self.problems.needs_reload = error.needs_reload();
                self.start_over(now + ROOT_CHECK_INTERVAL);
                Ok(None)
            }
        }
    }

    /// Drops the watch and the queue; the next scan, at `scan_at`, rebuilds both. Notifications until then are lost.
    fn start_over(&mut self, scan_at: Instant) {
        self.watch = Arc::default();
        self.queue.clear();
        self.tracker.hints_lost();
        self.scan_at = scan_at;
    }

    fn set_watch_problem(&mut self, reason: Option<String>) {
        self.problems.watch = reason.map(|reason| {
            let seconds = POLL_INTERVAL.as_secs();
            format!("cannot watch every folder, so the source scans all folders every {seconds} seconds: {reason}")
        });
    }

    /// Commits the mark of the folder after the first scan; with `existing: false`, only once every file that existed
    /// at the first start has a mark.
    async fn finish_first_start(&mut self) -> Result<(), Stopped> {
        if self.first_start != FirstStart::Scanned || !self.tracker.existing_recorded() {
            return Ok(());
        }
        let value = Some(to_mark(&RootMark { root: self.config.path.clone() }));
        let mark = Mark { scope: self.ctx.uri.clone(), key: ROOT_KEY.to_owned(), value };
        let offer = Offer { marks: vec![mark], ..Offer::default() };
        submit(&self.ctx, &offer).await.map_err(|_| Stopped)?;
        self.first_start = FirstStart::Done;
        Ok(())
    }
}

/// Deletes the marks with these keys.
async fn delete_marks(ctx: &Context, keys: impl Iterator<Item = String>) -> Result<(), Stopped> {
    let marks: Vec<Mark> = keys.map(|key| Mark { scope: ctx.uri.clone(), key, value: None }).collect();
    for marks in marks.chunks(DELETED_MARKS_MAX) {
        let offer = Offer { marks: marks.to_vec(), ..Offer::default() };
        submit(ctx, &offer).await.map_err(|_| Stopped)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

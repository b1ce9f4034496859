//! Files: events for files that are created, changed or removed in a folder and all folders below it.
//!
//! # How it works
//! The scan decides: it compares the files on disk with the versions that were submitted before. File system
//! notifications (inotify and similar) only say which names to check first; when notifications are lost, the whole
//! folder is scanned. So changes made while Evoke was not running are found as well.
//!
//! A file is submitted once it has settled: unchanged for `settle` (at least 20 ms), read as a whole, and the same
//! before and after reading. A file that a writer holds open, according to notifications, waits until the writer closes
//! it, at most five minutes; a new empty file whose closing was not seen waits five seconds for content. A version is
//! defined by content: a touch, a rename over it with the same content, or changed permissions cause no event. A file
//! that appears and disappears within `settle` causes none either. `mv a b` is the removal of `a` and the creation of
//! `b`.
//!
//! Only regular files count. Links, also links to folders, are not followed, and no file outside of the folder is ever
//! opened (a hard link counts as an ordinary name). The folder and the files of Evoke's own store are left out, under
//! whatever name they appear. While the folder itself is missing, its files do not count as
//! removed. `include` and `exclude` are globs over the path relative to the folder, in which `*` does not match a `/`;
//! an excluded folder excludes everything in it; nothing is excluded by default.
//!
//! # Events
//! `evoke.file.created`, `evoke.file.modified`, `evoke.file.removed`. The subject is the path relative to the folder,
//! with `/`; bytes of it that are not UTF-8 and control characters are written as U+FFFD and two hex digits.
//! ```json
//! { "path": "2026/a.csv", "size": 12, "modified": "2026-01-31T12:00:00Z", "sha256": "…", "content": "a,b\n1,2\n" }
//! ```
//! `content` (or `content_base64` when the content is not UTF-8, or `content_omitted` with the reason) is present only
//! with `content: true`. The event of a removed file has the last known values, without `modified` and content. The id
//! is derived from the path and the version, so the same change has the same id whenever it is found.
//!
//! # Marks
//! Scope: the source's uri. Key: the path; value: a JSON object of `v` (1), `size`, `mtime_ns`, `ctime_ns`, `inode` and
//! `sha256`, committed with the event of that version. Key `.`: `v` and `root`, the folder; written once all files that
//! existed at the first start have marks. When `root` is another folder, all marks are dropped and it is a first start.

mod config;
mod confined;
mod events;
mod name;
mod offer;
mod overlap;
mod scan;
mod tracker;
mod version;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use self::config::{FilesKind, FilesSource};
use self::confined::{Found, Root};
pub use self::overlap::Overlap;
use self::scan::{Filter, ScanResult};
use self::tracker::Tracker;
use self::version::{from_mark, to_mark};
use self::watch::{Hint, HintQueue, Watch};
use crate::TaskKind;
use evoke_core::bus::Offer;
use evoke_core::source::Context;
use evoke_core::source::submit::{marks, submit};
use evoke_manifest::Settings;
use evoke_model::Mark;

/// The whole folder is scanned this often even when notifications work: some file systems send none.
const RESCAN_INTERVAL: Duration = Duration::from_secs(60);
/// The same, when not every folder can be watched.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// How often a missing folder is looked up.
const MISSING_RETRY: Duration = Duration::from_secs(1);
/// Hints are collected for this long before they are processed: a writer causes one with every write.
const HINT_BATCH_WAIT: Duration = Duration::from_millis(10);
/// The first wait between full scans that lost hints cause. A scan causes hints of its own, so the wait doubles while a
/// scan finds nothing new: otherwise a small kernel queue would keep the scanner busy forever.
const RESCAN_WAIT_MIN: Duration = Duration::from_millis(100);
/// Full scans take at most one `SCAN_TIME_DIVISOR`th of the time.
const SCAN_TIME_DIVISOR: u32 = 10;
/// The key of the mark of the folder itself.
const ROOT_KEY: &str = ".";
/// The most names of the store's folder and files that are reported.
const WARNINGS_MAX: usize = 8;
/// The most marks in one commit when many are deleted.
const DELETED_MARKS_MAX: usize = 1_000;

/// The source was stopped.
struct Stopped;

/// The content of the mark of the folder.
#[derive(Serialize, Deserialize)]
struct RootMark {
    root: PathBuf,
}

impl TaskKind for FilesKind {
    fn run(&self, settings: &Settings, ctx: Context) -> Option<BoxFuture<'static, ()>> {
        let config = settings.get::<FilesSource>()?.clone();
        Some(Box::pin(run(config, ctx)))
    }
}

/// Runs the source: submits the changes to the files of `config` until the source is stopped.
async fn run(mut config: FilesSource, ctx: Context) {
    // The system's hints contain absolute paths; and an absolute path in the root's mark does not depend on the working
    // directory.
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
    // A worker ends only when it is stopped.
    if let Ok(mut worker) = Worker::start(config, filter, ctx).await {
        while worker.step().await.is_ok() {}
    }
}

struct Worker {
    config: FilesSource,
    ctx: Context,
    filter: Arc<Filter>,
    tracker: Tracker,
    hint_queue: Arc<HintQueue>,
    watch: Arc<Mutex<Option<Watch>>>,
    /// The progress of the first start.
    first_start: FirstStart,
    /// Whether no scan has succeeded yet.
    first_scan: bool,
    /// The time of the next full scan.
    scan_at: Instant,
    /// The end and the duration of the last full scan.
    last_scan: (Instant, Duration),
    /// The wait before the next full scan when hints are lost.
    rescan_wait: Duration,
    problems: Problems,
}

#[derive(PartialEq, Eq)]
enum FirstStart {
    Unscanned,
    Scanned,
    Done,
}

/// The current problems, in order of precedence.
#[derive(Default)]
struct Problems {
    root: Option<String>,
    watch: Option<String>,
    scan: Option<String>,
    /// A file and the reason why it cannot be submitted.
    file: Option<(String, String)>,
    /// The problem that was reported last.
    reported: Option<String>,
}

impl Worker {
    async fn start(config: FilesSource, filter: Arc<Filter>, ctx: Context) -> Result<Self, Stopped> {
        let mut stored = marks(&ctx).await.ok_or(Stopped)?;
        let root = stored.remove(ROOT_KEY).and_then(|mark| from_mark::<RootMark>(&mark));
        let same_root = root.as_ref().is_none_or(|stored| stored.root == config.path);
        let known = stored.iter().filter_map(|(name, mark)| Some((name.clone(), from_mark(mark)?))).collect();
        let mut tracker = Tracker::new(config.settle, known);
        // Files that the filter no longer includes are forgotten without a `removed` event.
        let forgotten = tracker.forget(|name| same_root && filter.includes(&name::path(name)));
        delete_marks(&ctx, forgotten.into_iter().chain((!same_root).then(|| ROOT_KEY.to_owned()))).await?;
        let first_start = if root.is_some() && same_root { FirstStart::Done } else { FirstStart::Unscanned };
        let now = Instant::now();
        Ok(Self {
            config,
            ctx,
            filter,
            tracker,
            hint_queue: Arc::default(),
            watch: Arc::default(),
            first_start,
            first_scan: true,
            scan_at: now,
            last_scan: (now, Duration::ZERO),
            rescan_wait: RESCAN_WAIT_MIN,
            problems: Problems::default(),
        })
    }

    /// Scans and checks where needed, submits the settled files, and waits for the next hint or deadline.
    async fn step(&mut self) -> Result<(), Stopped> {
        let hints = self.hint_queue.take();
        let now = Instant::now();
        if hints.lost {
            self.tracker.hints_lost();
            let (end, took) = self.last_scan;
            self.scan_at = self.scan_at.min(end + self.rescan_wait.max(took * SCAN_TIME_DIVISOR));
        }
        if hints.root || self.tracker.take_overflow() {
            self.scan_at = now;
        }
        if self.scan_at <= now {
            self.scan(hints.lost).await?;
        }
        if !hints.names.is_empty() {
            self.check_hinted(hints.names.into_iter().collect()).await?;
        }
        // Without the folder no file can be read: settled files wait for the scan that finds the folder again.
        let mut wake = self.scan_at;
        if self.problems.root.is_none() {
            self.submit_settled().await?;
            self.finish_first_start().await?;
            wake = self.tracker.next().map_or(self.scan_at, |next| next.min(self.scan_at));
        }
        self.report();
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

    /// Scans the whole folder.
    async fn scan(&mut self, lost: bool) -> Result<(), Stopped> {
        let start = Instant::now();
        let pending_before = self.tracker.pending();
        let (path, filter, stop) = (self.config.path.clone(), self.filter.clone(), self.ctx.stop.clone());
        let (watch, hint_queue) = (self.watch.clone(), self.hint_queue.clone());
        let (seen, watch_problem) = blocking(move || {
            let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
            let root = Root::open(&path).inspect_err(|_| *watch = None)?;
            let mut watch_problem = None;
            if watch.is_none() {
                match Watch::new(&path, hint_queue) {
                    Ok(new) => *watch = Some(new),
                    Err(reason) => watch_problem = Some(reason),
                }
            }
            let seen = scan::scan(&root, "", &filter, &mut watch_or_record(&mut watch, &mut watch_problem), &stop)?;
            Ok((seen, watch_problem))
        })
        .await
        .map_or_else(|error| (Err(error), None), |(seen, watch_problem): (ScanResult, _)| (Ok(seen), watch_problem));
        if self.ctx.stop.is_cancelled() {
            return Err(Stopped);
        }
        let end = Instant::now();
        self.last_scan = (end, end - start);
        self.problems.watch = watch_problem;
        let next = match seen {
            Err(error) => {
                let path = self.config.path.display();
                self.problems.root = Some(format!("cannot open the folder `{path}`, the source keeps trying: {error}"));
                MISSING_RETRY
            }
            Ok(seen) => {
                self.problems.root = None;
                self.problems.scan.clone_from(&seen.problem);
                self.forget_store(&seen.of_store).await?;
                self.tracker.observe_folder("", &seen.files, &seen.unread, end);
                if self.first_start == FirstStart::Unscanned {
                    if !self.config.existing {
                        self.tracker.set_existing(&seen.files);
                    }
                    self.first_start = FirstStart::Scanned;
                }
                if self.problems.watch.is_some() { POLL_INTERVAL } else { RESCAN_INTERVAL }
            }
        };
        self.scan_at = end + next.max((end - start) * SCAN_TIME_DIVISOR);
        if self.tracker.pending() > pending_before {
            self.rescan_wait = RESCAN_WAIT_MIN;
        } else if lost {
            self.rescan_wait = (self.rescan_wait * 2).min(RESCAN_INTERVAL);
        }
        Ok(())
    }

    /// Forgets files of the store that an earlier version has submitted, without `removed` events.
    async fn forget_store(&mut self, of_store: &[String]) -> Result<(), Stopped> {
        let not_excluded = |name: &&String| self.filter.includes_below(&name::path(name));
        for name in of_store.iter().filter(not_excluded).take(if self.first_scan { WARNINGS_MAX } else { 0 }) {
            let uri = &self.ctx.uri;
            tracing::warn!("the files source {uri} watches `{name}`, which belongs to the store; it is left out");
        }
        self.first_scan = false;
        let is_within = |name: &str, top: &String| name == top || name.starts_with(&name::prefix(top));
        let forgotten = self.tracker.forget(|name| !of_store.iter().any(|top| is_within(name, top)));
        delete_marks(&self.ctx, forgotten.into_iter()).await
    }

    /// Checks the names in `hints`.
    async fn check_hinted(&mut self, hints: Vec<(String, Hint)>) -> Result<(), Stopped> {
        let (path, filter, stop) = (self.config.path.clone(), self.filter.clone(), self.ctx.stop.clone());
        let watch = self.watch.clone();
        let checked = blocking(move || {
            let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
            let root = Root::open(&path)?;
            let mut watch_problem = None;
            let mut checked = Vec::new();
            for (name, hint) in hints {
                let relative = name::path(&name);
                let found = root.stat(&relative)?;
                let seen = match found {
                    Found::Folder => {
                        scan::scan(&root, &name, &filter, &mut watch_or_record(&mut watch, &mut watch_problem), &stop)?
                    }
                    Found::File(stamp) if filter.includes(&relative) => {
                        ScanResult { files: vec![(name.clone(), stamp)], ..ScanResult::default() }
                    }
                    Found::File(_) | Found::Nothing => ScanResult::default(),
                };
                checked.push((name, hint, seen));
            }
            Ok((checked, watch_problem))
        })
        .await;
        if self.ctx.stop.is_cancelled() {
            return Err(Stopped);
        }
        let now = Instant::now();
        let Ok((checked, watch_problem)) = checked else {
            // The folder is gone, or an entry in it cannot be read: the next scan reports the cause.
            let (end, took) = self.last_scan;
            self.scan_at = self.scan_at.min(end + RESCAN_WAIT_MIN.max(took * SCAN_TIME_DIVISOR));
            return Ok(());
        };
        if watch_problem.is_some() {
            self.problems.watch = watch_problem;
            self.scan_at = self.scan_at.min(now + POLL_INTERVAL);
        }
        for (name, hint, seen) in checked {
            let is_file = seen.files.first().is_some_and(|(seen, _)| *seen == name);
            self.tracker.observe(&name, seen.files.first().filter(|_| is_file).map(|(_, stamp)| *stamp), now);
            if !is_file {
                self.tracker.observe_folder(&name, &seen.files, &seen.unread, now);
            }
            match hint {
                Hint::Changed => {}
                Hint::Created => self.tracker.created(&name),
                Hint::Writing => self.tracker.writing(&name),
                Hint::Written => self.tracker.written(&name),
            }
        }
        Ok(())
    }

    /// Commits the mark of the folder once every file that existed at the first start has a mark.
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

    /// Reports a change of the source's health.
    fn report(&mut self) {
        let problems = &mut self.problems;
        problems.file.take_if(|(name, _)| !self.tracker.is_retrying(name));
        let watch = problems.watch.as_ref().map(|reason| {
            format!(
                "cannot watch every folder, the source scans all of them every {} seconds: {reason}",
                POLL_INTERVAL.as_secs()
            )
        });
        let file =
            problems.file.as_ref().map(|(name, reason)| format!("cannot submit the event of `{name}`: {reason}"));
        let trouble = problems.root.clone().or(watch).or_else(|| problems.scan.clone()).or(file);
        if trouble != problems.reported {
            match &trouble {
                Some(trouble) => self.ctx.health.degraded(trouble.clone()),
                None => self.ctx.health.recovered(),
            }
            problems.reported = trouble;
        }
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

/// Returns a function that watches each folder passed to it. After the first failure it records the reason and skips
/// the rest.
fn watch_or_record<'a>(watch: &'a mut Option<Watch>, watch_problem: &'a mut Option<String>) -> impl FnMut(&Path) + 'a {
    move |folder| {
        if let (Some(watch), None) = (watch.as_mut(), watch_problem.as_ref()) {
            *watch_problem = watch.add(folder).err();
        }
    }
}

/// Runs blocking disk work on a thread of its own, outside of the async tasks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

#[cfg(test)]
mod tests;

//! Files: events for files that appear, change or go in a folder and all folders below it.
//!
//! # How
//! The scanner is the truth: what is there is compared with what was handed over before. Word from the system (inotify
//! and its like) only says where to look first; when it is lost, everything is looked at. So changes that were made
//! while Evoke was not running are found as well.
//!
//! A file is handed over once it came to rest: unchanged for `settle` (at least 20 ms), read as a whole, the same
//! before and after the reading. A file that a writer was seen to hold open waits for the closing, five minutes at
//! most; a new empty file that nobody was seen to close waits five seconds for its content. A version is its
//! content: what is touched, renamed over by the same content or gets other rights is no event. A file that comes and
//! goes within `settle` is none either. `mv a b` is the removal of `a` and the creation of `b`.
//!
//! Only regular files count. Links, also to folders, are not followed, and nothing outside of the folder is ever
//! opened (a hard link is as good a name as any other). When the folder itself is missing, its files are not taken for
//! removed until it is back. `include` and `exclude` are globs over the path relative to the folder, in which `*` does
//! not cross a `/`; an excluded folder excludes what is in it; nothing is excluded by default.
//!
//! # Events
//! `evoke.file.created`, `evoke.file.modified`, `evoke.file.removed`. The subject is the path relative to the folder,
//! with `/`; bytes of it that are no UTF-8 and control characters are written as U+FFFD and two hex digits.
//! ```json
//! { "path": "2026/a.csv", "size": 12, "modified": "2026-01-31T12:00:00Z", "sha256": "…", "content": "a,b\n1,2\n" }
//! ```
//! `content` (or `content_base64` for what is no UTF-8, or `content_omitted` with the reason) only with `content: true`;
//! of a removed file what was known last, without `modified` and content. The id is made of the path and the version,
//! so the same change has the same id whenever it is found.
//!
//! # Marks
//! Scope: the source's uri. Key: the path; value: a JSON object of `v` (1), `size`, `mtime_ns`, `ctime_ns`, `inode`
//! and `sha256`, committed with the event of that version. Key `.`: `v` and `root`, the folder, once all that was
//! there at the first start is noted. When `root` is another folder, nothing is known and it is a first start.

mod beneath;
mod events;
mod name;
mod offer;
mod scan;
mod tracker;
mod version;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use self::beneath::{Found, Root};
use self::scan::{Filter, Seen};
use self::tracker::Tracker;
use self::version::{from_mark, to_mark};
use self::watch::{Hint, Mailbox, Watch};
use super::Context;
use super::handover::{hand_over, marks};
use crate::bus::Offer;
use crate::manifest::FilesSource;
use crate::store::Mark;

/// Everything is looked at this often even when all seems to be well: some filesystems tell of nothing.
const PATROL: Duration = Duration::from_secs(60);
/// The same, when folders cannot be watched.
const POLL: Duration = Duration::from_secs(2);
/// How often a missing folder is looked for.
const MISSING: Duration = Duration::from_secs(1);
/// Hints are gathered for this long before they are looked into: a writer makes one with every write.
const GATHER: Duration = Duration::from_millis(10);
/// The first wait between looking at everything because hints were lost. Looking makes hints of its own, so it doubles
/// while nothing new is found: a small queue must not keep the scanner running in circles.
const LOST_MIN: Duration = Duration::from_millis(100);
/// Looking at everything takes at most one part in so many of the time.
const SHARE: u32 = 10;
/// The key of the mark about the folder itself.
const ROOT_KEY: &str = ".";
/// Marks in one commit when many are forgotten.
const FORGET_MAX: usize = 1_000;

/// The source is to stop.
struct Stopped;

/// What the mark about the folder holds.
#[derive(Serialize, Deserialize)]
struct RootMark {
    root: PathBuf,
}

/// Hands over the changes to the files of `config` until it is stopped.
pub async fn run(mut config: FilesSource, ctx: Context) {
    // The system's hints name files by absolute paths, and the root's mark says the same from wherever Evoke starts.
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
    // It only ends because it is stopped.
    if let Ok(mut worker) = Worker::start(config, filter, ctx).await {
        while worker.step().await.is_ok() {}
    }
}

struct Worker {
    config: FilesSource,
    ctx: Context,
    filter: Arc<Filter>,
    tracker: Tracker,
    mailbox: Arc<Mailbox>,
    watch: Arc<Mutex<Option<Watch>>>,
    /// Whether what was there at the first start is still to be noted.
    first_start: FirstStart,
    /// When everything is looked at next.
    scan_at: Instant,
    /// The end of the last look at everything, how long it took, and how long to wait when hints are lost.
    scanned: (Instant, Duration),
    lost_wait: Duration,
    troubles: Troubles,
}

#[derive(PartialEq, Eq)]
enum FirstStart {
    Unscanned,
    Scanned,
    Over,
}

/// What is not as it should be, the worst first.
#[derive(Default)]
struct Troubles {
    root: Option<String>,
    watch: Option<String>,
    scan: Option<String>,
    /// A file, and what is wrong with it.
    file: Option<(String, String)>,
    /// What was said of these last.
    said: Option<String>,
}

impl Worker {
    async fn start(config: FilesSource, filter: Arc<Filter>, ctx: Context) -> Result<Self, Stopped> {
        let mut noted = marks(&ctx).await.ok_or(Stopped)?;
        let root = noted.remove(ROOT_KEY).and_then(|mark| from_mark::<RootMark>(&mark));
        let same_root = root.as_ref().is_none_or(|noted| noted.root == config.path);
        let known = noted.iter().filter_map(|(name, mark)| Some((name.clone(), from_mark(mark)?))).collect();
        let mut tracker = Tracker::new(config.settle, known);
        // Files that do not count any more are not removed: they are nobody's business.
        let forgotten = tracker.forget(|name| same_root && filter.counts(&name::path(name)));
        let forgotten: Vec<Mark> = forgotten
            .into_iter()
            .chain((!same_root).then(|| ROOT_KEY.to_owned()))
            .map(|key| Mark { scope: ctx.uri.clone(), key, value: None })
            .collect();
        for marks in forgotten.chunks(FORGET_MAX) {
            let offer = Offer { marks: marks.to_vec(), ..Offer::default() };
            hand_over(&ctx, &offer).await.map_err(|_| Stopped)?;
        }
        let first_start = if root.is_some() && same_root { FirstStart::Over } else { FirstStart::Unscanned };
        let now = Instant::now();
        Ok(Self {
            config,
            ctx,
            filter,
            tracker,
            mailbox: Arc::default(),
            watch: Arc::default(),
            first_start,
            scan_at: now,
            scanned: (now, Duration::ZERO),
            lost_wait: LOST_MIN,
            troubles: Troubles::default(),
        })
    }

    /// Looks where there is something to look at, hands over what came to rest, and waits for more.
    async fn step(&mut self) -> Result<(), Stopped> {
        let hints = self.mailbox.take();
        let now = Instant::now();
        if hints.lost {
            self.tracker.lost_word();
            let (end, took) = self.scanned;
            self.scan_at = self.scan_at.min(end + self.lost_wait.max(took * SHARE));
        }
        if hints.root || self.tracker.wants_scan() {
            self.scan_at = now;
        }
        if self.scan_at <= now {
            self.scan(hints.lost).await?;
        }
        if !hints.names.is_empty() {
            self.look(hints.names.into_iter().collect()).await?;
        }
        // Without the folder nothing can be read: what is at rest waits for the scan that finds it again.
        let mut wake = self.scan_at;
        if self.troubles.root.is_none() {
            self.hand_over_at_rest().await?;
            self.end_first_start().await?;
            wake = self.tracker.next().map_or(self.scan_at, |next| next.min(self.scan_at));
        }
        self.report();
        tokio::select! {
            () = self.ctx.stop.cancelled() => return Err(Stopped),
            () = tokio::time::sleep_until(wake) => return Ok(()),
            () = self.mailbox.arrived() => {}
        }
        tokio::select! {
            () = self.ctx.stop.cancelled() => Err(Stopped),
            () = tokio::time::sleep(GATHER) => Ok(()),
        }
    }

    /// Looks at everything.
    async fn scan(&mut self, lost: bool) -> Result<(), Stopped> {
        let start = Instant::now();
        let pending_before = self.tracker.pending();
        let (path, filter, stop) = (self.config.path.clone(), self.filter.clone(), self.ctx.stop.clone());
        let (watch, mailbox) = (self.watch.clone(), self.mailbox.clone());
        let (seen, unwatched) = blocking(move || {
            let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
            let root = Root::open(&path).inspect_err(|_| *watch = None)?;
            let mut unwatched = None;
            if watch.is_none() {
                match Watch::new(&path, mailbox) {
                    Ok(new) => *watch = Some(new),
                    Err(reason) => unwatched = Some(reason),
                }
            }
            let seen = scan::scan(&root, "", &filter, &mut watcher(&mut watch, &mut unwatched), &stop)?;
            Ok((seen, unwatched))
        })
        .await
        .map_or_else(|error| (Err(error), None), |(seen, unwatched): (Seen, _)| (Ok(seen), unwatched));
        if self.ctx.stop.is_cancelled() {
            return Err(Stopped);
        }
        let end = Instant::now();
        self.scanned = (end, end - start);
        self.troubles.watch = unwatched;
        let next = match seen {
            Err(error) => {
                let path = self.config.path.display();
                self.troubles.root = Some(format!("cannot open the folder `{path}`, it keeps trying: {error}"));
                MISSING
            }
            Ok(seen) => {
                self.troubles.root = None;
                self.troubles.scan.clone_from(&seen.problem);
                self.tracker.observe_folder("", &seen.files, &seen.unread, end);
                if self.first_start == FirstStart::Unscanned {
                    if !self.config.existing {
                        self.tracker.take_for_granted(&seen.files);
                    }
                    self.first_start = FirstStart::Scanned;
                }
                if self.troubles.watch.is_some() { POLL } else { PATROL }
            }
        };
        self.scan_at = end + next.max((end - start) * SHARE);
        if self.tracker.pending() > pending_before {
            self.lost_wait = LOST_MIN;
        } else if lost {
            self.lost_wait = (self.lost_wait * 2).min(PATROL);
        }
        Ok(())
    }

    /// Looks at what hints named.
    async fn look(&mut self, hints: Vec<(String, Hint)>) -> Result<(), Stopped> {
        let (path, filter, stop) = (self.config.path.clone(), self.filter.clone(), self.ctx.stop.clone());
        let watch = self.watch.clone();
        let looked = blocking(move || {
            let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
            let root = Root::open(&path)?;
            let mut unwatched = None;
            let mut looked = Vec::new();
            for (name, hint) in hints {
                let relative = name::path(&name);
                let found = root.look(&relative)?;
                let seen = match found {
                    Found::Folder => {
                        scan::scan(&root, &name, &filter, &mut watcher(&mut watch, &mut unwatched), &stop)?
                    }
                    Found::File(stamp) if filter.counts(&relative) => {
                        Seen { files: vec![(name.clone(), stamp)], ..Seen::default() }
                    }
                    Found::File(_) | Found::Nothing => Seen::default(),
                };
                looked.push((name, hint, seen));
            }
            Ok((looked, unwatched))
        })
        .await;
        if self.ctx.stop.is_cancelled() {
            return Err(Stopped);
        }
        let now = Instant::now();
        let Ok((looked, unwatched)) = looked else {
            // The folder is gone, or something in it cannot be looked at: the scan will say what it is.
            let (end, took) = self.scanned;
            self.scan_at = self.scan_at.min(end + LOST_MIN.max(took * SHARE));
            return Ok(());
        };
        if unwatched.is_some() {
            self.troubles.watch = unwatched;
            self.scan_at = self.scan_at.min(now + POLL);
        }
        for (name, hint, seen) in looked {
            let is_file = seen.files.first().is_some_and(|(seen, _)| *seen == name);
            self.tracker.observe(&name, seen.files.first().filter(|_| is_file).map(|(_, stamp)| *stamp), now);
            if !is_file {
                self.tracker.observe_folder(&name, &seen.files, &seen.unread, now);
            }
            match hint {
                Hint::Look => {}
                Hint::Created => self.tracker.created(&name),
                Hint::Writing => self.tracker.writing(&name),
                Hint::Written => self.tracker.written(&name),
            }
        }
        Ok(())
    }

    /// Notes that all that was there at the first start is noted.
    async fn end_first_start(&mut self) -> Result<(), Stopped> {
        if self.first_start != FirstStart::Scanned || !self.tracker.granted_all() {
            return Ok(());
        }
        let value = Some(to_mark(&RootMark { root: self.config.path.clone() }));
        let mark = Mark { scope: self.ctx.uri.clone(), key: ROOT_KEY.to_owned(), value };
        let offer = Offer { marks: vec![mark], ..Offer::default() };
        hand_over(&self.ctx, &offer).await.map_err(|_| Stopped)?;
        self.first_start = FirstStart::Over;
        Ok(())
    }

    /// Says how it is doing, when that changed.
    fn report(&mut self) {
        let troubles = &mut self.troubles;
        troubles.file.take_if(|(name, _)| !self.tracker.is_failing(name));
        let watch = troubles.watch.as_ref().map(|reason| {
            format!("cannot watch every folder, it looks at all of them every {} seconds: {reason}", POLL.as_secs())
        });
        let file = troubles.file.as_ref().map(|(name, reason)| format!("cannot hand over `{name}`: {reason}"));
        let trouble = troubles.root.clone().or(watch).or_else(|| troubles.scan.clone()).or(file);
        if trouble != troubles.said {
            match &trouble {
                Some(trouble) => self.ctx.health.degraded(trouble.clone()),
                None => self.ctx.health.recovered(),
            }
            troubles.said = trouble;
        }
    }
}

/// Watches each folder it is given; after the first that cannot be, says why and leaves the rest.
fn watcher<'a>(watch: &'a mut Option<Watch>, unwatched: &'a mut Option<String>) -> impl FnMut(&Path) + 'a {
    move |folder| {
        if let (Some(watch), None) = (watch.as_mut(), unwatched.as_ref()) {
            *unwatched = watch.add(folder).err();
        }
    }
}

/// Runs what waits for a disk beside the tasks that must not wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

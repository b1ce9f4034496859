//! Submits settled files: reads them, compares them with the versions submitted before, and submits the events and the
//! marks. After the commit, records the new versions.

use bytes::Bytes;
use tokio::time::Instant;

use super::events::{Content, event};
use super::queue::Job;
use super::read::{Reading, read};
use super::tracker::Change;
use super::version::{Version, to_mark};
use super::{HINT_BATCH_WAIT, Stopped, Worker};
use evoke_core::bus::Offer;
use evoke_core::source::submit::{SubmitError, submit};
use evoke_manifest::ByteSize;
use evoke_model::Mark;
use evoke_model::clock::rfc3339;

/// One file to submit.
struct Item {
    name: String,
    /// The new version; `None` if the file is gone.
    version: Option<Version>,
    change: Change,
    content: Content,
}

impl Worker {
    /// Reads and submits the next settled files: as many as fit into one commit.
    pub(super) async fn submit_some(&mut self) -> Result<(), Stopped> {
        let now = Instant::now();
        // Finding the settled files takes time. Therefore it is not done after every slice of a large file.
        if self.queue.needs_more() && (self.queue.is_empty() || self.refill_at <= now) {
            self.queue.extend(self.tracker.settled(now), self.rules.size_max);
            self.refill_at = now + HINT_BATCH_WAIT;
        }
        let jobs = self.queue.next_batch(self.rules.keep_max);
        if jobs.is_empty() {
            return Ok(());
        }
        let rules = self.rules;
        let readings = self.with_root(move |root, access| {
            let read = |mut job: Job| {
                let progress = job.progress.take();
                let reading = read(root, &job.name, job.expected, progress, &rules, access);
                (job, reading)
            };
            Ok(jobs.into_iter().map(read).collect::<Vec<_>>())
        });
        // If the folder cannot be used, the files are read again later.
        let Some(readings) = readings.await? else { return Ok(()) };
        let mut items = Vec::new();
        for (job, reading) in readings {
            if let Reading::Partial(progress) = reading {
                self.queue.resume(job, progress);
            } else {
                self.queue.finished(&job.name);
                items.extend(self.item(job, reading));
            }
        }
        self.offer(items).await
    }

    /// Builds the item of a file from the result of reading it. Returns `None` if the file must wait again: it changed
    /// since it settled, or it cannot be submitted now.
    fn item(&mut self, job: Job, reading: Reading) -> Option<Item> {
        let (name, now) = (job.name, Instant::now());
        let (version, content) = match reading {
            Reading::Whole(version, kept) => {
                let content = match kept {
                    _ if !self.config.content => Content::NotRequested,
                    Some(kept) => Content::Whole(Bytes::from(kept)),
                    None => Content::Omitted(format!("larger than {}", self.config.max_content)),
                };
                (Some(version), content)
            }
            Reading::Linked(version, links) => {
                let reason = format!("not read: it has {links} hard links, and the source has no `hard_links: true`");
                (Some(self.tracker.with_known_hash(&name, version)), Content::Omitted(reason))
            }
            Reading::TooLarge(version) => {
                let (size, size_max) = (ByteSize(version.stamp.size), self.config.max_size);
                let version = self.tracker.with_known_hash(&name, version);
                if self.tracker.change(&name, Some(&version)) != Change::NoEvent {
                    self.tracker.leave_out(&name, format!("its size of {size} is larger than `max_size` ({size_max})"));
                    return None;
                }
                (Some(version), Content::NotRequested)
            }
            Reading::Gone if self.tracker.expects_file(&name) => {
                self.tracker.observe(&name, None, now);
                return None;
            }
            Reading::Gone => (None, Content::NotRequested),
            Reading::Changed(stamp) => {
                self.tracker.observe(&name, Some(stamp), now);
                return None;
            }
            Reading::Failed(error) => match job.expected.filter(|stamp| self.tracker.is_existing(&name, stamp)) {
                // The file existed at the first start, and causes no event until it changes. So its mark needs no hash.
                Some(stamp) => (Some(Version { stamp, sha256: String::new() }), Content::NotRequested),
                None => {
                    self.tracker.retry_later(&name, error.to_string(), now);
                    return None;
                }
            },
            // `submit_some` does not call this function for `Partial`.
            Reading::Partial(_) => return None,
        };
        let change = self.tracker.change(&name, version.as_ref());
        Some(Item { name, version, change, content })
    }

    /// Submits the events and marks of `items`, and retries until the bus has committed them.
    async fn offer(&mut self, mut items: Vec<Item>) -> Result<(), Stopped> {
        loop {
            let mut offer = Offer { target: self.ctx.target.clone(), ..Offer::default() };
            // For each event, the index of its item in `items`.
            let mut item_indexes = Vec::new();
            for (index, item) in items.iter().enumerate() {
                let time = rfc3339(self.ctx.clock.now_ms());
                let version = item.version.as_ref();
                if let Some(event) = event(&self.ctx.uri, &item.name, &item.change, version, &item.content, time) {
                    offer.events.push(event);
                    item_indexes.push(index);
                }
                let value = version.map(to_mark);
                offer.marks.push(Mark { scope: self.ctx.uri.clone(), key: item.name.clone(), value });
            }
            if items.is_empty() {
                return Ok(());
            }
            let (rejected, reason) = match submit(&self.ctx, &offer).await {
                Ok(()) => break,
                Err(SubmitError::Stopped) => return Err(Stopped),
                Err(SubmitError::TooLarge(event)) => (event, None),
                Err(SubmitError::Invalid(event, reason)) => (event, Some(reason)),
            };
            // `rejected` is the index of the rejected event. Find its item.
            let index = item_indexes.get(rejected).copied().unwrap_or_default().min(items.len() - 1);
            match (items.get_mut(index), reason) {
                // Content can be larger in JSON than on disk. Retry without the content.
                (Some(item), None) if matches!(item.content, Content::Whole(_)) => {
                    item.content = Content::Omitted("too large for an event".to_owned());
                }
                (_, reason) => {
                    let item = items.swap_remove(index);
                    let reason = reason.unwrap_or_else(|| "its event is larger than the bus accepts".into());
                    self.tracker.retry_later(&item.name, reason, Instant::now());
                }
            }
        }
        for item in items {
            self.tracker.committed(&item.name, item.version);
        }
        Ok(())
    }
}

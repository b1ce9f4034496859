//! Submits settled files: reads them, compares them with the known versions, submits the events and marks, and only
//! after the commit updates the known versions.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use super::confined::Root;
use super::events::{Content, event};
use super::scan::{Reading, read};
use super::tracker::Change;
use super::version::{Stamp, Version, to_mark};
use super::{Stopped, Worker, blocking};
use evoke_core::bus::Offer;
use evoke_core::source::submit::{SubmitError, submit};
use evoke_model::Mark;
use evoke_model::clock::rfc3339;
use evoke_model::event::EVENT_SIZE_MAX;

/// The most files in one commit.
const BATCH_MAX: usize = 64;
/// The content in one commit, in bytes, at which no further file is added.
const BATCH_CONTENT_MAX: usize = 1024 * 1024;

/// One file to submit.
struct Item {
    name: String,
    /// The new version; `None` when the file is gone.
    version: Option<Version>,
    change: Change,
    content: Content,
}

impl Worker {
    /// Submits every settled file.
    pub(super) async fn submit_settled(&mut self) -> Result<(), Stopped> {
        let mut settled = VecDeque::from(self.tracker.settled(Instant::now()));
        while !settled.is_empty() {
            let (rest, readings) = self.read_some(settled).await?;
            settled = rest;
            let items = readings.into_iter().filter_map(|(name, reading)| self.item(name, reading)).collect();
            self.offer(items).await?;
        }
        Ok(())
    }

    /// Reads the first files of `settled`, as many as fit into one commit. Returns the remaining ones and the results.
    async fn read_some(
        &mut self,
        mut settled: VecDeque<(String, Option<Stamp>)>,
    ) -> Result<(VecDeque<(String, Option<Stamp>)>, Vec<(String, Reading)>), Stopped> {
        let path = self.config.path.clone();
        let keep_max = self.config.content.then(|| self.config.max_content.0.min(EVENT_SIZE_MAX as u64));
        let stop = self.ctx.stop.clone();
        let read = blocking(move || {
            let root = Root::open(&path)?;
            let (mut readings, mut content) = (Vec::new(), 0);
            while readings.len() < BATCH_MAX && content < BATCH_CONTENT_MAX {
                let Some((name, expected)) = settled.pop_front() else { break };
                let reading = read(&root, &name, expected, keep_max, &stop);
                if let Reading::Whole(_, Some(kept)) = &reading {
                    content += kept.len();
                }
                readings.push((name, reading));
            }
            Ok((settled, readings))
        })
        .await;
        if self.ctx.stop.is_cancelled() {
            return Err(Stopped);
        }
        // Without the folder the state of its files is unknown: the scan decides, and the files stay settled.
        Ok(read.unwrap_or_else(|_| {
            self.scan_at = Instant::now();
            (VecDeque::new(), Vec::new())
        }))
    }

    /// Builds the item of a file; `None` when the file changed since it settled or could not be read, and must wait
    /// again.
    fn item(&mut self, name: String, reading: Reading) -> Option<Item> {
        let (version, content) = match reading {
            Reading::Whole(version, kept) => {
                let content = match kept {
                    _ if !self.config.content => Content::NotRequested,
                    Some(kept) => Content::Whole(Bytes::from(kept)),
                    None => Content::Omitted(format!("larger than {}", self.config.max_content)),
                };
                (Some(version), content)
            }
            Reading::Gone if self.tracker.expects_file(&name) => {
                self.tracker.observe(&name, None, Instant::now());
                return None;
            }
            Reading::Gone => (None, Content::NotRequested),
            Reading::Changed(stamp) => {
                self.tracker.observe(&name, Some(stamp), Instant::now());
                return None;
            }
            Reading::Failed(error) => {
                self.retry_later(name, error.to_string());
                return None;
            }
        };
        let change = self.tracker.change(&name, version.as_ref());
        Some(Item { name, version, change, content })
    }

    /// Submits the events and marks of `items`, and retries until the bus has committed them.
    async fn offer(&mut self, mut items: Vec<Item>) -> Result<(), Stopped> {
        loop {
            let mut offer = Offer { target: self.ctx.target.clone(), ..Offer::default() };
            // The index of each event's item.
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
            // The index is one of the submitted events, as the bus returns it.
            let index = item_indexes.get(rejected).copied().unwrap_or_default().min(items.len() - 1);
            match (items.get_mut(index), reason) {
                // The content is larger in JSON than on disk: retry without the content.
                (Some(item), None) if matches!(item.content, Content::Whole(_)) => {
                    item.content = Content::Omitted("larger than an event can be".to_owned());
                }
                (_, reason) => {
                    let item = items.swap_remove(index);
                    self.retry_later(
                        item.name,
                        reason.unwrap_or_else(|| "its event is larger than the bus accepts".into()),
                    );
                }
            }
        }
        for item in items {
            self.tracker.committed(&item.name, item.version);
        }
        Ok(())
    }

    fn retry_later(&mut self, name: String, reason: String) {
        self.tracker.retry_later(&name, Instant::now());
        self.problems.file = Some((name, reason));
    }
}

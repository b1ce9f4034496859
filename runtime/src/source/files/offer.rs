//! Handing over what came to rest: read, compare, offer, and only then know it.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use super::beneath::Root;
use super::events::{Content, event};
use super::scan::{Reading, read};
use super::tracker::Change;
use super::version::{Stamp, Version, to_mark};
use super::{Stopped, Worker, blocking};
use crate::bus::Offer;
use crate::clock::rfc3339;
use crate::event::EVENT_SIZE_MAX;
use crate::source::handover::{NotTaken, hand_over};
use crate::store::Mark;

/// Files in one commit.
const BATCH_MAX: usize = 64;
/// Content in one commit, in bytes, beyond what the last file adds.
const BATCH_CONTENT_MAX: usize = 1024 * 1024;

/// One file to be handed over.
struct Item {
    name: String,
    /// `None` when it is gone.
    version: Option<Version>,
    change: Change,
    content: Content,
}

impl Worker {
    /// Hands over every file that came to rest.
    pub(super) async fn hand_over_at_rest(&mut self) -> Result<(), Stopped> {
        let mut at_rest = VecDeque::from(self.tracker.at_rest(Instant::now()));
        while !at_rest.is_empty() {
            let (rest, readings) = self.read_some(at_rest).await?;
            at_rest = rest;
            let items = readings.into_iter().filter_map(|(name, reading)| self.item(name, reading)).collect();
            self.offer(items).await?;
        }
        Ok(())
    }

    /// Reads the first files of `at_rest`, as many as go into one commit.
    async fn read_some(
        &mut self,
        mut at_rest: VecDeque<(String, Option<Stamp>)>,
    ) -> Result<(VecDeque<(String, Option<Stamp>)>, Vec<(String, Reading)>), Stopped> {
        let path = self.config.path.clone();
        let keep_max = self.config.content.then(|| self.config.max_content.0.min(EVENT_SIZE_MAX as u64));
        let stop = self.ctx.stop.clone();
        let read = blocking(move || {
            let root = Root::open(&path)?;
            let (mut readings, mut content) = (Vec::new(), 0);
            while readings.len() < BATCH_MAX && content < BATCH_CONTENT_MAX {
                let Some((name, expected)) = at_rest.pop_front() else { break };
                let reading = read(&root, &name, expected, keep_max, &stop);
                if let Reading::Whole(_, Some(kept)) = &reading {
                    content += kept.len();
                }
                readings.push((name, reading));
            }
            Ok((at_rest, readings))
        })
        .await;
        if self.ctx.stop.is_cancelled() {
            return Err(Stopped);
        }
        // Without the folder nothing can be said of its files: the scan finds out, and they are at rest still.
        Ok(read.unwrap_or_else(|_| {
            self.scan_at = Instant::now();
            (VecDeque::new(), Vec::new())
        }))
    }

    /// What is to be handed over of a file, if it is what it was.
    fn item(&mut self, name: String, reading: Reading) -> Option<Item> {
        let (version, content) = match reading {
            Reading::Whole(version, kept) => {
                let content = match kept {
                    _ if !self.config.content => Content::Unasked,
                    Some(kept) => Content::Whole(Bytes::from(kept)),
                    None => Content::Omitted(format!("larger than {}", self.config.max_content)),
                };
                (Some(version), content)
            }
            Reading::Gone if self.tracker.expects(&name) => {
                self.tracker.observe(&name, None, Instant::now());
                return None;
            }
            Reading::Gone => (None, Content::Unasked),
            Reading::Changed(stamp) => {
                self.tracker.observe(&name, Some(stamp), Instant::now());
                return None;
            }
            Reading::Failed(error) => {
                self.put_off(name, error.to_string());
                return None;
            }
        };
        let change = self.tracker.change(&name, version.as_ref());
        Some(Item { name, version, change, content })
    }

    /// Offers the events and marks of `items` until the bus has them.
    async fn offer(&mut self, mut items: Vec<Item>) -> Result<(), Stopped> {
        loop {
            let mut offer = Offer { target: self.ctx.target.clone(), ..Offer::default() };
            // Which item an event is of.
            let mut owners = Vec::new();
            for (index, item) in items.iter().enumerate() {
                let time = rfc3339(self.ctx.clock.now_ms());
                let version = item.version.as_ref();
                if let Some(event) = event(&self.ctx.uri, &item.name, &item.change, version, &item.content, time) {
                    offer.events.push(event);
                    owners.push(index);
                }
                let value = version.map(to_mark);
                offer.marks.push(Mark { scope: self.ctx.uri.clone(), key: item.name.clone(), value });
            }
            if items.is_empty() {
                return Ok(());
            }
            let (refused, reason) = match hand_over(&self.ctx, &offer).await {
                Ok(()) => break,
                Err(NotTaken::Stopped) => return Err(Stopped),
                Err(NotTaken::TooLarge(event)) => (event, None),
                Err(NotTaken::Invalid(event, reason)) => (event, Some(reason)),
            };
            // The bus names one of the events that it was given.
            let index = owners.get(refused).copied().unwrap_or_default().min(items.len() - 1);
            match (items.get_mut(index), reason) {
                // Its content is larger as JSON than it is on the disk.
                (Some(item), None) if matches!(item.content, Content::Whole(_)) => {
                    item.content = Content::Omitted("larger than an event can be".to_owned());
                }
                (_, reason) => {
                    let item = items.swap_remove(index);
                    self.put_off(item.name, reason.unwrap_or_else(|| "its event is larger than the bus takes".into()));
                }
            }
        }
        for item in items {
            self.tracker.committed(&item.name, item.version);
        }
        Ok(())
    }

    fn put_off(&mut self, name: String, reason: String) {
        self.tracker.later(&name, Instant::now());
        self.troubles.file = Some((name, reason));
    }
}

//! Passes new lines to followers, the clients that read the log live. Each follower has its own queue, which gets only
//! the lines that the follower selects. So a flood of other lines does not fill this queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};

use super::line::{Filter, Line};

/// Maximum number of lines in the queue of a follower. Further lines are dropped for this follower. The queue has room
/// for all lines of one attempt, even if the attempt logs all of them at once.
const LAG_MAX: usize = 1024;

/// A message to a follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// A selected line.
    Line(Arc<Line>),
    /// This number of selected lines was dropped, because the follower lagged behind.
    Missed(u64),
}

/// Receives the selected lines.
pub struct Follower {
    received: mpsc::Receiver<Followed>,
    missed: Arc<AtomicU64>,
}

/// The writer's side of a follower.
pub(super) struct Sender {
    filter: Filter,
    lines: mpsc::Sender<Followed>,
    /// The number of lines that were dropped and are not reported yet.
    missed: Arc<AtomicU64>,
}

pub(super) fn channel(filter: Filter) -> (Sender, Follower) {
    let (lines, received) = mpsc::channel(LAG_MAX);
    let missed = Arc::<AtomicU64>::default();
    (Sender { filter, lines, missed: missed.clone() }, Follower { received, missed })
}

impl Sender {
    /// Sends a line if it is selected, without blocking. Returns false if the follower is gone.
    pub(super) fn send(&self, line: &Arc<Line>) -> bool {
        if !self.filter.matches(line) {
            return !self.is_closed();
        }
        let missed = self.missed.swap(0, Ordering::AcqRel);
        let reported = missed == 0 || self.lines.try_send(Followed::Missed(missed)).is_ok();
        let sent = match reported {
            true => self.lines.try_send(Followed::Line(line.clone())),
            false => Err(TrySendError::Full(Followed::Line(line.clone()))),
        };
        if sent.is_err() {
            self.missed.fetch_add(if reported { 1 } else { missed + 1 }, Ordering::AcqRel);
        }
        !self.is_closed()
    }

    /// Returns true if the follower is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.lines.is_closed()
    }
}

impl Follower {
    /// Waits for the next line. Returns `None` when the log is closed.
    pub async fn next(&mut self) -> Option<Followed> {
        match self.received.try_recv() {
            Ok(next) => return Some(next),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => {}
        }
        match self.missed.swap(0, Ordering::AcqRel) {
            0 => self.received.recv().await,
            missed => Some(Followed::Missed(missed)),
        }
    }

    /// Returns true if no line waits.
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }
}

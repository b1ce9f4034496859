//! Reports accepted events, ended attempts and the log lines of functions to the host, which shows them, for example on
//! a terminal.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::control::{Activity, Control, Host, Progress};
use crate::logs::{Filter, Followed, FunctionLogs};
use evoke_model::{Completion, DamagedEvent, EventFilter, Seq, Verdict};
use evoke_store::InspectionStore;

/// Maximum number of ended attempts that wait to be shown. Further attempts are not shown.
const WAITING_MAX: usize = 256;
/// Maximum number of lines that are shown in an [`INTERVAL`]: about the height of a terminal, and more than a user can
/// read in this time.
const SHOWN_MAX: u32 = 40;
const INTERVAL: Duration = Duration::from_secs(1);
/// Maximum total size of the events that one read of the store returns, in bytes. A larger event is read alone.
const READ_BYTES_MAX: usize = 256 * 1024;

/// Reports until the log is closed.
pub(super) async fn run(control: &Control, logs: &FunctionLogs, host: &dyn Host) {
    let (ended, mut attempts) = mpsc::channel::<Arc<Completion>>(WAITING_MAX);
    control
        .parts()
        .dispatcher
        .on_ended(Box::new(move |completion: &Arc<Completion>| drop(ended.try_send(completion.clone()))));
    let store = &control.parts().store;
    let Some(snapshot) = logs.snapshot(Filter::default()).await else { return };
    let (mut lines, mut newest) = (snapshot.new_lines, store.newest());
    let mut after = *newest.borrow_and_update();
    let mut shown = Shown { host, since: Instant::now(), count: 0, left_out: 0 };
    loop {
        tokio::select! {
            changed = newest.changed() => {
                if changed.is_err() {
                    return;
                }
                let newest_seq = *newest.borrow_and_update();
                after = accepted(&**store, after, newest_seq, &mut shown).await;
            }
            Some(completion) = attempts.recv() => {
                let function = name_of(control, &completion);
                shown.show(Activity::Ended {
                    function: &function,
                    delivery: completion.delivery,
                    attempt: &completion.record,
                    is_dead: matches!(completion.verdict, Verdict::Dead(_)),
                });
            }
            line = lines.next() => match line {
                Some(Followed::Line(line)) => shown.show(Activity::Line(&line)),
                Some(Followed::Missed(count)) => shown.left_out += count,
                None => return,
            },
        }
    }
}

/// Reports the events after `after` up to `newest`. Events beyond the limit of [`SHOWN_MAX`] lines are left out.
/// Returns `newest`.
async fn accepted(store: &dyn InspectionStore, after: Seq, newest: Seq, shown: &mut Shown<'_>) -> Seq {
    let mut left = u64::try_from(newest.0 - after.0).unwrap_or_default();
    let (mut next, bytes_max) = (Some(after), Some(READ_BYTES_MAX));
    while let Some(after) = next
        && let room @ 1.. = shown.room()
    {
        let (after, before) = (Some(after), Some(newest.next()));
        let filter = EventFilter { after, before, limit: room, bytes_max, ..EventFilter::default() };
        let found = store.events(filter).await.unwrap_or_default();
        left = left.saturating_sub(found.len() as u64);
        let is_cut = EventFilter::is_cut(&found, room, bytes_max);
        next = found.last().map(DamagedEvent::seq_of).filter(|_| is_cut);
        for stored in found.into_iter().flatten() {
            shown.show(Activity::Accepted { seq: stored.seq, event: &stored.event });
        }
    }
    shown.left_out += left;
    newest
}

fn name_of(control: &Control, completion: &Completion) -> String {
    let ids = control.function_ids();
    let name = ids.into_iter().find(|(_, id)| *id == completion.function).map(|(name, _)| name);
    name.unwrap_or_else(|| format!("function {}", completion.function))
}

/// Limits the rate of the lines on the terminal.
struct Shown<'a> {
    host: &'a dyn Host,
    since: Instant,
    count: u32,
    left_out: u64,
}

impl Shown<'_> {
    fn room(&mut self) -> usize {
        if self.since.elapsed() >= INTERVAL {
            (self.since, self.count) = (Instant::now(), 0);
            let left_out = std::mem::take(&mut self.left_out);
            if left_out > 0 {
                self.host.report(Progress::Activity(Activity::LeftOut(left_out)));
            }
        }
        SHOWN_MAX.saturating_sub(self.count) as usize
    }

    fn show(&mut self, activity: Activity<'_>) {
        if self.room() == 0 {
            self.left_out += 1;
            return;
        }
        self.count += 1;
        self.host.report(Progress::Activity(activity));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::future::BoxFuture;

    use super::*;
    use crate::control::Build;
    use evoke_model::clock::Clock;
    use evoke_model::event::Event;
    use evoke_model::{Lineage, NewEvent};
    use evoke_store::EventStore as _;
    use evoke_store::memory::MemoryStore;

    /// Keeps the numbers of the reported events, and the largest number of events that were in use at the same time.
    struct Reported {
        /// All events of the store, and the reference counts that they have while nobody reads them.
        events: Vec<(Arc<Event>, usize)>,
        seqs: Mutex<Vec<i64>>,
        in_use_max: Mutex<usize>,
    }

    impl Host for Reported {
        fn report(&self, progress: Progress<'_>) {
            if let Progress::Activity(Activity::Accepted { seq, .. }) = progress {
                self.seqs.lock().unwrap().push(seq.0);
                let in_use = self.events.iter().filter(|(event, unused)| Arc::strong_count(event) > *unused).count();
                let mut in_use_max = self.in_use_max.lock().unwrap();
                *in_use_max = in_use.max(*in_use_max);
            }
        }

        fn build(&self, _: Build) -> BoxFuture<'static, Result<(), String>> {
            unreachable!("no app has a build command")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn large_events_are_read_in_small_parts_and_those_beyond_the_limit_are_counted() {
        let store = MemoryStore::new(Clock::fixed(1_000));
        let mut events = Vec::new();
        for n in 1..=50 {
            let subject = Some("x".repeat(READ_BYTES_MAX / 2));
            let event =
                Event { id: n.to_string(), source: "/t".into(), type_: "t".into(), subject, ..Event::default() };
            let event = Arc::new(event);
            events.push(event.clone());
            let event = NewEvent { event, lineage: Lineage::default(), deliveries: Vec::new() };
            store.accept(vec![event], Vec::new()).await.unwrap();
        }
        let with_count = |event: Arc<Event>| {
            let unused = Arc::strong_count(&event);
            (event, unused)
        };
        let events = events.into_iter().map(with_count).collect();
        let host = Reported { events, seqs: Mutex::default(), in_use_max: Mutex::default() };
        let mut shown = Shown { host: &host, since: Instant::now(), count: 0, left_out: 0 };
        assert_eq!(accepted(&store, Seq(2), Seq(5), &mut shown).await, Seq(5));
        assert_eq!((&*host.seqs.lock().unwrap(), shown.left_out), (&vec![3, 4, 5], 0));
        assert_eq!(accepted(&store, Seq(5), Seq(50), &mut shown).await, Seq(50));
        assert_eq!(*host.seqs.lock().unwrap(), (3..3 + i64::from(SHOWN_MAX)).collect::<Vec<_>>());
        assert_eq!(shown.left_out, 48 - u64::from(SHOWN_MAX));
        assert_eq!(*host.in_use_max.lock().unwrap(), 2);
    }
}

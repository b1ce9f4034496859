//! Reports accepted events, ended attempts and the log lines of functions to the host, which shows them, for example on
//! a terminal.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::control::{Activity, Control, Host, Progress};
use crate::logs::{Filter, Followed, FunctionLogs};
use evoke_model::{Completion, EventFilter, Seq, Verdict};

/// Maximum number of ended attempts that wait to be shown. Further attempts are not shown.
const WAITING_MAX: usize = 256;
/// Maximum number of lines that are shown in an [`INTERVAL`]: about the height of a terminal, and more than a user can
/// read in this time.
const SHOWN_MAX: u32 = 40;
const INTERVAL: Duration = Duration::from_secs(1);

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
                after = accepted(control, after, newest_seq, &mut shown).await;
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

/// Reports the events after `after` up to `newest`. Events that exceed the limit on lines are left out. Returns
/// `newest`.
async fn accepted(control: &Control, after: Seq, newest: Seq, shown: &mut Shown<'_>) -> Seq {
    let room = shown.room();
    let count = u64::try_from(newest.0 - after.0).unwrap_or_default();
    let filter = EventFilter { after: Some(after), before: Some(newest.next()), limit: room, ..EventFilter::default() };
    let found = control.parts().store.events(filter).await.unwrap_or_default();
    shown.left_out += count.saturating_sub(found.len() as u64);
    for stored in found.into_iter().flatten() {
        shown.show(Activity::Accepted { seq: stored.seq, event: &stored.event });
    }
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

//! Sends the lines of standard input, directly or through the spool.
//!
//! One thread reads lines, makes an event with an id from each line, and passes the events on in groups, through a
//! queue or the spool. Another thread sends the events. So a slow network does not delay the producer while the queue
//! has room.

use std::io::{BufReader, StdinLock};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::super::text::{self, print, print_error, print_json};
use super::super::{Common, Failure};
use super::draft::Draft;
use super::lines::{Line, Lines};
use super::sender::{NotSent, Sender, Sent};
use super::spool::{Batch, Spool};

/// The maximum number of groups in the queue between the two threads. The lines of a group have at most
/// [`READ_BYTES`] bytes in total, plus the part of the first line that earlier reads returned.
const GROUPS_MAX: usize = 8;
/// Maximum number of bytes that one read of standard input returns.
const READ_BYTES: usize = 256 * 1024;
/// Limits the number of events in a request. A request with at least half of this number of events gets no further
/// group of lines. A group can have this number of lines, so a request can have almost one and a half times as many.
const BATCH_EVENTS_MAX: usize = 1_000;
/// No further group of lines is added to a request that has this many bytes.
const BATCH_BYTES: usize = 1024 * 1024;
/// The first and the longest wait before a retry while Evoke cannot be reached.
const AWAY_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The longest wait before a retry while Evoke runs but accepts no events.
const LATER_MAX: Duration = Duration::from_secs(5);

/// The settings of one `emit` command.
pub(super) struct Stream<'a> {
    pub(super) common: &'a Common,
    pub(super) draft: &'a Arc<Draft>,
    /// The folder of the spool, and its maximum size in bytes.
    pub(super) spool: Option<(&'a Path, u64)>,
    /// With a spool: how long to retry after the end of the input if Evoke cannot be reached or accepts no events.
    pub(super) wait: Duration,
}

/// The output with `--json`.
#[derive(Serialize)]
struct Summary {
    /// Events that were stored.
    stored: u64,
    /// Events that had been stored before.
    duplicates: u64,
    /// Events that Evoke refused; they are in `refused.jsonl` in the spool.
    refused: u64,
    /// True if events are left in the spool.
    left: bool,
}

/// The events of a group of lines, each with the number of its line. If a line is wrong, the group has only the events
/// of the lines before, and the error.
struct Group {
    events: Vec<(u64, String)>,
    wrong: Option<Failure>,
}

impl Group {
    fn new(draft: &Draft, lines: Vec<Line>) -> Self {
        let mut events = Vec::with_capacity(lines.len());
        for Line { number, text } in lines {
            match draft.line_to_json(&text) {
                Ok(event) => events.push((number, event)),
                Err(mistake) => return Self { events, wrong: Some(wrong_line(number, &mistake)) },
            }
        }
        Self { events, wrong: None }
    }
}

pub(super) fn wrong_line(number: u64, mistake: &str) -> Failure {
    Failure::Failed(format!(
        "line {number}: {mistake}; the lines before it were processed, this line and the lines after it were not"
    ))
}

pub(super) fn stdin_lines() -> Lines<BufReader<StdinLock<'static>>> {
    Lines::new(BufReader::with_capacity(READ_BYTES, std::io::stdin().lock()))
}

pub(super) fn cannot_read(error: &std::io::Error) -> Failure {
    Failure::Failed(format!("cannot read standard input: {error}"))
}

impl Stream<'_> {
    /// Sends an event for each line.
    pub(super) fn lines(&self) -> Result<(), Failure> {
        let draft = self.draft.clone();
        if self.spool.is_none() {
            return self.direct(draft);
        }
        self.spooled(move |spool| {
            let mut lines = stdin_lines();
            loop {
                let group = lines.next_group().map_err(|error| cannot_read(&error))?;
                if group.is_empty() {
                    return Ok(());
                }
                let Group { events, wrong } = Group::new(&draft, group);
                let events: Vec<_> = events.into_iter().map(|(_, event)| event).collect();
                if !events.is_empty() {
                    spool.append(&events)?;
                }
                if let Some(wrong) = wrong {
                    return Err(wrong);
                }
            }
        })
    }

    /// Sends one event, given as JSON, through the spool.
    pub(super) fn one(&self, json: &str) -> Result<(), Failure> {
        // Checks the event, and puts it on one line.
        let event = self.draft.line_to_event(json.as_bytes()).map_err(Failure::Failed)?;
        self.spooled(move |spool| spool.append(&[event]))
    }

    /// Sends the events that are in the spool.
    pub(super) fn none(&self) -> Result<(), Failure> {
        self.spooled(|_| Ok(()))
    }

    /// Reads lines and sends their events without a spool. If Evoke cannot be reached, the command fails, and events
    /// that were read but not sent are lost.
    fn direct(&self, draft: Arc<Draft>) -> Result<(), Failure> {
        let (groups, received) = mpsc::sync_channel(GROUPS_MAX);
        // The thread is not joined, because after an error it may still wait for input. It ends with the process.
        thread::spawn(move || {
            let mut lines = stdin_lines();
            loop {
                let group = match lines.next_group() {
                    Ok(group) if group.is_empty() => return,
                    Ok(group) => Group::new(&draft, group),
                    Err(error) => Group { events: Vec::new(), wrong: Some(cannot_read(&error)) },
                };
                let is_last = group.wrong.is_some();
                if groups.send(group).is_err() || is_last {
                    return;
                }
            }
        });
        let (mut sender, mut last) = (Sender::new(self.common), 0);
        while let Ok(Group { mut events, mut wrong }) = received.recv() {
            let mut size = events.iter().map(|(_, event)| event.len()).sum::<usize>();
            while wrong.is_none()
                && events.len() < BATCH_EVENTS_MAX / 2
                && size < BATCH_BYTES
                && let Ok(more) = received.try_recv()
            {
                size += more.events.iter().map(|(_, event)| event.len()).sum::<usize>();
                events.extend(more.events);
                wrong = more.wrong;
            }
            let bodies: Vec<_> = events.iter().map(|(_, event)| event.as_bytes()).collect();
            if !bodies.is_empty() {
                self.send_now(&mut sender, &bodies, |at| events.get(at).map_or(0, |(number, _)| *number), last)?;
            }
            last = events.last().map_or(last, |(number, _)| *number);
            if let Some(wrong) = wrong {
                self.report(sender.sent, 0, false)?;
                return Err(wrong);
            }
        }
        self.report(sender.sent, 0, false)
    }

    /// Sends a batch. While Evoke accepts no events, waits and retries. `number_of` returns the line number of an event
    /// by its index in the batch. `last` is the number of the last line that was sent before this batch.
    pub(super) fn send_now(
        &self,
        sender: &mut Sender<'_>,
        events: &[&[u8]],
        number_of: impl Fn(usize) -> u64,
        last: u64,
    ) -> Result<(), Failure> {
        let with_spool = "with --spool DIR, events are kept while Evoke cannot be reached";
        let mut noted = false;
        loop {
            match sender.send(events) {
                Ok(()) => return Ok(()),
                Err(NotSent::Later(detail, wait)) => {
                    note_once(&mut noted, &format!("Evoke accepts no events now, so the command retries: {detail}"));
                    thread::sleep(wait.min(LATER_MAX));
                }
                Err(NotSent::Away(failure)) => {
                    return Err(Failure::NotRunning(format!(
                        "{failure}; the events up to line {last} were stored, and it is not known whether the events \
                         after this line were; {with_spool}"
                    )));
                }
                Err(NotSent::Refused(at, detail)) => {
                    let line = at.map_or_else(String::new, |at| format!("line {}: ", number_of(at)));
                    let stored = format!("only the events up to line {last} were stored");
                    return Err(Failure::Failed(format!("{line}{detail}; {stored}")));
                }
                Err(NotSent::Failed(failure)) => return Err(failure),
            }
        }
    }

    /// Opens the spool and sends its events ([`Self::send_spooled`]).
    fn spooled(&self, feed: impl FnOnce(&Spool) -> Result<(), Failure> + Send + 'static) -> Result<(), Failure> {
        self.send_spooled(&self.open_spool()?, feed)
    }

    pub(super) fn open_spool(&self) -> Result<Arc<Spool>, Failure> {
        let Some((folder, bytes_max)) = self.spool else {
            return Err(Failure::Usage("the option --spool DIR is missing".into()));
        };
        Ok(Arc::new(Spool::open(folder, bytes_max)?))
    }

    /// Sends the events of a spool. Meanwhile, another thread runs `feed`, which appends events to the spool.
    pub(super) fn send_spooled(
        &self,
        spool: &Arc<Spool>,
        feed: impl FnOnce(&Spool) -> Result<(), Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        let fed = {
            let spool = spool.clone();
            thread::spawn(move || {
                let closing = Closing(spool);
                feed(&closing.0)
            })
        };
        let mut drain = Drain::new(self, spool);
        let mut left = false;
        while let Some(batch) = spool.next_batch()? {
            if !drain.send(&batch)? {
                left = true;
                break;
            }
        }
        let Drain { sender, refused, reason, .. } = drain;
        self.report(sender.sent, refused, left)?;
        // The input has ended, so the thread ends. If it panicked, the panic has already printed the reason.
        fed.join().unwrap_or(Err(Failure::Reported))?;
        match reason {
            Some(reason) => Err(Failure::Failed(reason)),
            None => Ok(()),
        }
    }

    pub(super) fn report(&self, sent: Sent, refused: u64, left: bool) -> Result<(), Failure> {
        let Sent { stored, duplicates } = sent;
        if left {
            let folder = self.spool.map(|(folder, _)| folder.display().to_string()).unwrap_or_default();
            print_error(&format!(
                "not all events were sent; the unsent events stay in the spool {folder}, and the next `evoke emit \
                 --spool {folder}` sends them\n"
            ));
        }
        if self.common.client_args.json {
            return print_json(&Summary { stored, duplicates, refused, left });
        }
        let note = match duplicates {
            0 => String::new(),
            _ => format!(", {} not stored again", text::count(duplicates, "duplicate")),
        };
        print(&format!("{} stored{note}", text::count(stored, "event")))
    }
}

fn note_once(noted: &mut bool, message: &str) {
    if !std::mem::replace(noted, true) {
        print_error(&format!("{}\n", text::escape(message)));
    }
}

/// Closes the spool when this guard is dropped, even if the thread panics.
struct Closing(Arc<Spool>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Sends the events of a spool until they are stored or refused.
struct Drain<'a> {
    sender: Sender<'a>,
    spool: Arc<Spool>,
    /// How long to retry after the end of the input, from `--wait`.
    wait: Duration,
    /// The number of refused events.
    refused: u64,
    /// The error message for the first refused event.
    reason: Option<String>,
    /// The time of the first failed attempt to send after the end of the input; `None` again after a success.
    away_since: Option<Instant>,
    /// True if the user was informed that attempts to send fail; false again after a success.
    noted: bool,
}

impl<'a> Drain<'a> {
    fn new(stream: &Stream<'a>, spool: &Arc<Spool>) -> Self {
        let (sender, spool, wait) = (Sender::new(stream.common), spool.clone(), stream.wait);
        Self { sender, spool, wait, refused: 0, reason: None, away_since: None, noted: false }
    }

    /// Sends a batch, and retries while Evoke cannot be reached or accepts no events. Returns false if the retries
    /// after the end of the input took longer than `--wait`. Then some events of the batch are still in the spool.
    fn send(&mut self, batch: &Batch) -> Result<bool, Failure> {
        let (mut done, mut end, mut backoff) = (0, batch.events.len(), AWAY_WAIT.0);
        while let Some(events) = batch.events.get(done..end).filter(|events| !events.is_empty()) {
            match self.sender.send(events) {
                Ok(()) => {
                    (done, end, backoff) = (end, batch.events.len(), AWAY_WAIT.0);
                    (self.away_since, self.noted) = (None, false);
                    self.spool.confirm(batch, done)?;
                }
                Err(NotSent::Refused(Some(0), detail)) => {
                    if let Some(event) = events.first() {
                        self.set_aside(event, &detail)?;
                    }
                    (done, end) = (done + 1, batch.events.len());
                    self.spool.confirm(batch, done)?;
                }
                // Next, sends only the events before the refused one. If it is not known which event was refused, sends
                // the first half of the events.
                Err(NotSent::Refused(Some(at), _)) => end = done + at,
                Err(NotSent::Refused(None, _)) => end = done + (end - done).div_ceil(2),
                Err(NotSent::Away(failure)) => {
                    let kept = "events are kept in the spool until Evoke can be reached";
                    note_once(&mut self.noted, &format!("{failure}; {kept}"));
                    if !self.may_wait(backoff) {
                        return Ok(false);
                    }
                    backoff = (backoff * 2).min(AWAY_WAIT.1);
                }
                Err(NotSent::Later(detail, wait)) => {
                    let note = format!("Evoke accepts no events now, so the command retries: {detail}");
                    note_once(&mut self.noted, &note);
                    if !self.may_wait(wait.min(LATER_MAX)) {
                        return Ok(false);
                    }
                }
                Err(NotSent::Failed(failure)) => return Err(failure),
            }
        }
        Ok(true)
    }

    /// Waits for `backoff` before a retry. After the end of the input, returns false once attempts to send have failed
    /// for the time of `--wait`.
    fn may_wait(&mut self, backoff: Duration) -> bool {
        if self.spool.is_closed() {
            let since = *self.away_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= self.wait {
                return false;
            }
            thread::sleep(backoff.min(self.wait));
        } else {
            self.spool.wait_for_close(backoff);
        }
        true
    }

    fn set_aside(&mut self, event: &[u8], detail: &str) -> Result<(), Failure> {
        let path = self.spool.set_aside(event, detail)?;
        self.refused += 1;
        let reason = format!("Evoke refused an event: {detail}; refused events are moved to {}", path.display());
        self.reason.get_or_insert(reason);
        Ok(())
    }
}

//! The run loop of a monitor.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use evoke_core::bus::Offer;
use evoke_core::source::Context;
use evoke_core::source::submit::{SubmitError, marks, submit};
use evoke_model::Mark;
use evoke_model::event::Event;
use evoke_threshold::{Moment, Rules, State};
use tokio::time::{Instant, sleep_until, timeout};

use super::minutes::Minutes;
use super::monitors::{Entry, Monitors, SubjectStatus, readings_mark, readings_scope};
use super::quantity::Quantity;
use super::readings::{Finding, Outcome, Reading, Remembered};
use super::removed::known_mark;
use super::settings::MonitorSource;
use super::watched::{StateMark, Watched, rounded};
use super::{event, settings};

/// The first readings after a start are spread over this time, or over the interval if that is shorter.
const SPREAD_MAX: Duration = Duration::from_secs(5);
/// The longest wait for a reading on a thread of its own.
const READING_MAX: Duration = Duration::from_secs(10);
/// The most subjects of a monitor.
const SUBJECTS_MAX: usize = 256;
/// How long a subject that nothing matches any more is kept.
const FORGET_AFTER: Duration = Duration::from_secs(86_400);

/// The source was stopped.
struct Stopped;

/// Runs the monitor until the source is stopped.
pub(super) async fn run(config: MonitorSource, ctx: Context, monitors: Monitors) {
    let Some(states) = marks(&ctx).await else { return };
    let readings = ctx.bus.marks(&readings_scope(&ctx.uri)).await.unwrap_or_else(|error| {
        tracing::warn!("the stored readings of {} cannot be read: {error}", ctx.uri);
        BTreeMap::new()
    });
    let mut monitor = Monitor::new(config, ctx, monitors);
    monitor.restore(&states, &readings);
    let _ = monitor.read_until_stopped().await;
    let Monitor { monitors, ctx, uri, .. } = monitor;
    monitors.stopped(&ctx.bus, &uri, ctx.clock.now_ms()).await;
}

struct Monitor {
    config: MonitorSource,
    rules: Rules,
    quantity: Quantity,
    ctx: Context,
    uri: Arc<str>,
    monitors: Monitors,
    remembered: Remembered,
    /// By subject.
    watched: BTreeMap<String, Watched>,
    /// Marks to write with the next reading: the removal of states and readings that no settings need any more, and with
    /// the first state ever, the mark that the monitor is known.
    unwritten: Vec<Mark>,
    /// The start of the monotonic clock of this monitor.
    start: Instant,
    trouble: Option<String>,
}

impl Monitor {
    fn new(config: MonitorSource, ctx: Context, monitors: Monitors) -> Self {
        Self {
            rules: config.rules(),
            quantity: config.quantity(),
            uri: ctx.uri.as_str().into(),
            remembered: Remembered::default(),
            watched: BTreeMap::new(),
            unwritten: Vec::new(),
            start: Instant::now(),
            trouble: None,
            config,
            ctx,
            monitors,
        }
    }

    fn now(&self) -> Moment {
        Moment { wall_ms: self.ctx.clock.now_ms(), mono_ms: settings::millis(self.start.elapsed()) }
    }

    /// Continues with the states and the readings in the store. Those of subjects that the settings no longer name are
    /// removed.
    fn restore(&mut self, states: &BTreeMap<String, Vec<u8>>, readings: &BTreeMap<String, Vec<u8>>) {
        let now = self.now();
        for (key, value) in states {
            let Some(subject) = key.strip_prefix("state/") else { continue };
            let saved = serde_json::from_slice::<StateMark>(value).ok().filter(|mark| mark.v == 1);
            match saved {
                Some(mark) if self.config.check.covers(subject) => {
                    self.watched.insert(subject.to_owned(), Watched::new(Some(&mark.saved), now));
                }
                _ => self.unwritten.push(Mark { scope: self.ctx.uri.clone(), key: key.clone(), value: None }),
            }
        }
        if self.watched.is_empty() {
            self.unwritten.push(known_mark(&self.uri, self.config.keep_hours()));
        }
        for subject in self.config.check.subjects() {
            self.watched.entry(subject).or_insert_with(|| Watched::new(None, now));
        }
        let mut minutes: BTreeMap<&str, Minutes> = BTreeMap::new();
        for (key, value) in readings {
            let Some((subject, hour)) = key.rsplit_once('@') else { continue };
            let Some(hour) = hour.parse::<i64>().ok() else { continue };
            let Some(watched) = self.watched.get_mut(subject) else {
                self.unwritten.push(readings_mark(&self.ctx.uri, subject, hour, None));
                continue;
            };
            let restored = minutes.entry(subject).or_default().restore(hour, value).unwrap_or_default();
            for (wall_ms, value) in restored {
                watched.machine.learn(&self.rules, now.mono_ms - (now.wall_ms - wall_ms), f64::from(value));
            }
        }
        let subjects: Vec<String> = self.watched.keys().cloned().collect();
        for subject in subjects {
            let minutes = minutes.remove(subject.as_str()).unwrap_or_default();
            self.show(&subject, now, minutes);
        }
    }

    async fn read_until_stopped(&mut self) -> Result<(), Stopped> {
        let mut due = self.start + first_reading(&self.uri, self.config.every);
        loop {
            let at = due + random_up_to(self.config.jitter);
            let stop = self.ctx.stop.clone();
            stop.run_until_cancelled(sleep_until(at)).await.ok_or(Stopped)?;
            self.monitors.metrics().lateness.observe(at.elapsed());
            let reading = stop.run_until_cancelled(self.read()).await.ok_or(Stopped)?;
            self.process(reading).await?;
            due += self.config.every;
            let late = due.elapsed();
            if !late.is_zero() {
                // Times that have passed are left out, and the others stay.
                let passed = late.as_nanos() / self.config.every.as_nanos().max(1) + 1;
                due += self.config.every.saturating_mul(u32::try_from(passed).unwrap_or(u32::MAX));
            }
        }
    }

    async fn read(&mut self) -> Reading {
        let world = self.monitors.world().clone();
        let mut findings = match self.config.check.blocking(self.quantity.unit) {
            Some(read) => {
                if self.remembered.unfinished.is_none() {
                    // A semaphore that is never closed.
                    let Ok(permit) = world.blocking.clone().acquire_owned().await else { return Ok(Vec::new()) };
                    let shared = world.clone();
                    self.remembered.unfinished = Some(tokio::task::spawn_blocking(move || {
                        let findings = read(&shared);
                        drop(permit);
                        findings
                    }));
                }
                let Some(unfinished) = &mut self.remembered.unfinished else { return Ok(Vec::new()) };
                match timeout(READING_MAX, unfinished).await {
                    Ok(read) => {
                        self.remembered.unfinished = None;
                        read.unwrap_or_default()
                    }
                    Err(_) => return Err(format!("the reading did not end within {READING_MAX:?}")),
                }
            }
            None => Vec::new(),
        };
        findings.append(&mut self.config.check.read(&world, &mut self.remembered, self.quantity.unit).await?);
        Ok(findings)
    }

    /// Returns the findings for all watched subjects, and reports a problem of the reading as a whole. Without a reading,
    /// all subjects are unknown.
    fn findings(&mut self, reading: Reading) -> Vec<Finding> {
        let mut findings = match reading {
            Ok(findings) => findings,
            Err(reason) => {
                let unknown = || Outcome::Unknown(reason.clone());
                let subjects = self.watched.keys().cloned();
                let findings = subjects.map(|subject| Finding { subject, outcome: unknown() }).collect();
                self.set_trouble(Some(reason));
                return findings;
            }
        };
        let found = findings.len();
        let trouble = if found > SUBJECTS_MAX {
            Some(format!("{found} things match, and a monitor watches at most {SUBJECTS_MAX}; the others are left out"))
        } else {
            findings.is_empty().then(|| "nothing matches what the monitor watches".to_owned())
        };
        self.set_trouble(trouble);
        findings.truncate(SUBJECTS_MAX);
        self.add_gone(&mut findings);
        findings
    }

    /// Processes one reading: one commit with all changes, if there are some.
    async fn process(&mut self, reading: Reading) -> Result<(), Stopped> {
        let now = self.now();
        let findings = self.findings(reading);
        let mut events = Vec::new();
        let mut changed = std::mem::take(&mut self.unwritten);
        for Finding { subject, outcome } in findings {
            self.monitors.metrics().readings.increment();
            let is_counter = self.config.check.measure().is_counter;
            let watched = self.watched.entry(subject.clone()).or_insert_with(|| Watched::new(None, now));
            let Some(sample) = watched.sample(outcome, now, self.quantity, is_counter) else { continue };
            let change = watched.observe(&self.rules, now, sample);
            if let Some(change) = &change {
                events.push(event::changed(&self.uri, &self.config, &subject, watched, change, now));
            }
            if change.is_some() || !watched.is_stored {
                watched.is_stored = true;
                let value = Some(watched.mark(now));
                changed.push(Mark { scope: self.ctx.uri.clone(), key: format!("state/{subject}"), value });
            }
            self.show(&subject, now, Minutes::default());
        }
        self.forget(now, &mut changed);
        if !changed.is_empty() {
            self.submit(events, changed).await?;
        }
        Ok(())
    }

    /// Adds a finding for each subject that nothing matches any more.
    fn add_gone(&mut self, findings: &mut Vec<Finding>) {
        self.watched.values_mut().for_each(|watched| watched.is_found = false);
        for finding in &*findings {
            if let Some(watched) = self.watched.get_mut(&finding.subject) {
                watched.is_found = true;
            }
        }
        let is_gone = |subject: &&String| !findings.iter().any(|finding| finding.subject == **subject);
        let gone: Vec<String> = self.watched.keys().filter(is_gone).cloned().collect();
        let outcome = |subject| Finding { subject, outcome: self.config.check.gone() };
        findings.extend(gone.into_iter().map(outcome));
    }

    /// Removes the subjects that nothing matches any more: at once if that is ok, otherwise after a day.
    fn forget(&mut self, now: Moment, changed: &mut Vec<Mark>) {
        let gone = match self.config.check.gone() {
            Outcome::Read(found) => State::from(found.at_least),
            Outcome::Unknown(_) | Outcome::Pending => State::Unknown,
        };
        let after = if gone == State::Ok { 0 } else { settings::millis(FORGET_AFTER) };
        let is_old = |watched: &Watched| {
            let lasts = now.mono_ms - watched.machine.since().mono_ms;
            !watched.is_found && watched.state() == gone && lasts >= after
        };
        if !self.watched.values().any(is_old) {
            return;
        }
        let fixed = self.config.check.subjects();
        let old = self.watched.iter().filter(|(subject, watched)| is_old(watched) && !fixed.contains(subject));
        let old: Vec<String> = old.map(|(subject, _)| subject.clone()).collect();
        for subject in old {
            self.watched.remove(&subject);
            changed.push(Mark { scope: self.ctx.uri.clone(), key: format!("state/{subject}"), value: None });
            let hours = self.monitors.remove(&self.uri, &subject).into_iter();
            changed.extend(hours.map(|hour| readings_mark(&self.uri, &subject, hour, None)));
        }
    }

    async fn submit(&mut self, events: Vec<Event>, marks: Vec<Mark>) -> Result<(), Stopped> {
        let offer = Offer { events, target: self.ctx.target.clone(), marks, ..Offer::default() };
        match submit(&self.ctx, &offer).await {
            Ok(()) => Ok(()),
            Err(SubmitError::Stopped) => Err(Stopped),
            Err(rejected) => {
                self.set_trouble(Some(format!("the bus rejects the monitor's events: {rejected:?}")));
                Ok(())
            }
        }
    }

    fn set_trouble(&mut self, trouble: Option<String>) {
        if self.trouble == trouble {
            return;
        }
        match &trouble {
            Some(reason) => self.ctx.health.degraded(reason.clone()),
            None => self.ctx.health.recovered(),
        }
        self.trouble = trouble;
    }

    /// Shows the subject to the user; `minutes` are those of a subject that was not shown before.
    fn show(&self, subject: &str, now: Moment, minutes: Minutes) {
        let Some(watched) = self.watched.get(subject) else { return };
        let config = &self.config;
        let value = watched.value.filter(|_| watched.is_read);
        let status = SubjectStatus {
            monitor: self.uri.clone(),
            kind: config.check.key(),
            subject: subject.to_owned(),
            state: watched.is_read.then(|| watched.state()),
            since_ms: watched.machine.since().wall_ms,
            value: value.map(rounded),
            unit: self.quantity.symbol(),
            shown: value.map(|value| Quantity { value, ..self.quantity }.to_string()),
            warning: config.warning.map(|threshold| threshold.to_string()),
            critical: config.critical.map(|threshold| threshold.to_string()),
            detail: watched.detail.clone(),
            flapping: watched.machine.is_flapping(),
            last_hour: Vec::new(),
        };
        let keep_hours = config.keep_hours();
        let new = || Entry { status: status.clone(), minutes, keep_hours };
        self.monitors.update(&self.uri, subject, new, |entry| {
            entry.status = status.clone();
            if let Some(value) = value {
                entry.minutes.add(now.wall_ms, value);
            }
        });
    }
}

/// Returns the time from the start to the first reading, so that monitors with one interval do not read all at once: the
/// same after each start.
fn first_reading(uri: &str, every: Duration) -> Duration {
    let hash = uri
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let spread = u64::try_from(every.min(SPREAD_MAX).as_micros()).unwrap_or(u64::MAX).max(1);
    // The high bits of FNV-1a are mixed best.
    Duration::from_micros((hash >> 20) % spread)
}

fn random_up_to(longest: Duration) -> Duration {
    let longest = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
    // Each RandomState has other keys.
    Duration::from_micros(RandomState::new().hash_one(0_u8).checked_rem(longest).unwrap_or_default())
}

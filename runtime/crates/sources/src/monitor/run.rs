//! The run loop of a monitor.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use evoke_core::bus::Offer;
use evoke_core::source::Context;
use evoke_core::source::submit::{SubmitError, marks, submit};
use evoke_model::Mark;
use evoke_model::event::Event;
use evoke_threshold::{Moment, Rules};
use tokio::time::{Instant, sleep_until, timeout};

use super::forget::{SUBJECTS_MAX, forget_excess, forget_gone};
use super::monitors::{MARKS_MAX, Monitors, Running, readings_mark, readings_scope};
use super::readings::{Finding, Outcome, Reading, Remembered};
use super::removed::known_mark;
use super::settings::MonitorSource;
use super::watched::{StateMark, Watched};
use super::{event, settings};

/// The first readings after a start are spread over this time, or over the interval of the monitor if that is shorter.
const SPREAD_MAX: Duration = Duration::from_secs(5);
/// Readings start at multiples of this time. So monitors that read at the same multiple wake a thread only once, and
/// read the files of /proc only once.
const TICK: Duration = Duration::from_millis(100);

/// The source was stopped.
struct Stopped;

/// Runs the monitor until the source is stopped.
pub(super) async fn run(config: Arc<MonitorSource>, ctx: Context, monitors: Monitors) {
    let Some(mut monitor) = Monitor::restored(config, ctx, monitors).await else { return };
    let _ = monitor.read_until_stopped().await;
    let Monitor { monitors, ctx, uri, .. } = monitor;
    monitors.stopped(&ctx.bus, &uri, ctx.clock.now_ms()).await;
}

struct Monitor {
    /// The settings and the watched things, which other parts of Evoke show to users.
    running: Arc<Running>,
    rules: Rules,
    ctx: Context,
    uri: Arc<str>,
    monitors: Monitors,
    remembered: Remembered,
    /// Marks to write with the next reading. They remove states and readings of subjects that the settings no longer
    /// cover. For a new monitor, the list also has the mark from `known_mark`.
    unwritten: Vec<Mark>,
    /// The time at which the monotonic clock of this monitor is 0.
    start: Instant,
    trouble: Option<String>,
}

impl Monitor {
    /// Returns a monitor that continues with the states and the readings in the store; `None` if the source is stopped
    /// before they are read.
    async fn restored(config: Arc<MonitorSource>, ctx: Context, monitors: Monitors) -> Option<Self> {
        let states = marks(&ctx).await?;
        let readings = ctx.bus.marks(&readings_scope(&ctx.uri)).await.unwrap_or_else(|error| {
            tracing::warn!("cannot read the stored readings of {}, the monitor starts without them: {error}", ctx.uri);
            BTreeMap::new()
        });
        let mut monitor = Self {
            rules: config.rules(),
            running: Arc::new(Running::new(config)),
            uri: ctx.uri.as_str().into(),
            remembered: Remembered::default(),
            unwritten: Vec::new(),
            start: Instant::now(),
            trouble: None,
            ctx,
            monitors,
        };
        monitor.restore(&states, &readings);
        // Earlier versions of Evoke stored any number of subjects, so there can be more marks than one commit may have.
        while monitor.unwritten.len() > MARKS_MAX {
            let removed = monitor.unwritten.split_off(monitor.unwritten.len() - MARKS_MAX);
            // Boxed, because the future is large and few starts need it.
            Box::pin(monitor.submit(Vec::new(), removed)).await.ok()?;
        }
        monitor.monitors.started(&monitor.uri, &monitor.running);
        Some(monitor)
    }

    fn now(&self) -> Moment {
        Moment { wall_ms: self.ctx.clock.now_ms(), mono_us: settings::micros(self.start.elapsed()) }
    }

    /// Continues with the states and the readings in the store. Removes the states and readings of subjects that the
    /// settings no longer cover.
    fn restore(&mut self, states: &BTreeMap<String, Vec<u8>>, readings: &BTreeMap<String, Vec<u8>>) {
        let now = self.now();
        let config = &self.running.config;
        let mut subjects = self.running.subjects();
        for (key, value) in states {
            let Some(subject) = key.strip_prefix("state/") else { continue };
            let saved = serde_json::from_slice::<StateMark>(value).ok().filter(|mark| mark.v == 1);
            match saved {
                Some(mark) if config.check.covers(subject) => {
                    subjects.insert(subject.to_owned(), Box::new(Watched::new(Some(&mark.saved), now)));
                }
                _ => self.unwritten.push(Mark { scope: self.ctx.uri.clone(), key: key.clone(), value: None }),
            }
        }
        if subjects.is_empty() {
            self.unwritten.push(known_mark(&self.uri, config.keep_hours()));
        }
        for subject in config.check.subjects() {
            subjects.entry(subject).or_insert_with(|| Box::new(Watched::new(None, now)));
        }
        for (key, value) in readings {
            let Some((subject, hour)) = key.rsplit_once('@') else { continue };
            let Some(hour) = hour.parse::<i64>().ok() else { continue };
            let Some(watched) = subjects.get_mut(subject) else {
                self.unwritten.push(readings_mark(&self.ctx.uri, subject, hour, None));
                continue;
            };
            let restored = watched.minutes.restore(hour, value).unwrap_or_default();
            for (wall_ms, value) in restored {
                watched.machine.learn(&self.rules, now.mono_ms() - (now.wall_ms - wall_ms), f64::from(value));
            }
        }
        self.unwritten.extend(forget_excess(&mut subjects, &self.uri, &config.check, |_| true));
    }

    async fn read_until_stopped(&mut self) -> Result<(), Stopped> {
        let (every, jitter) = (self.running.config.every, self.running.config.jitter);
        let mut due = first_reading(self.monitors.resources().start, self.start, &self.uri, every);
        loop {
            let at = due + random_up_to(jitter);
            let stop = self.ctx.stop.clone();
            stop.run_until_cancelled(sleep_until(at)).await.ok_or(Stopped)?;
            self.monitors.metrics().lateness.observe(at.elapsed());
            let reading = stop.run_until_cancelled(self.read()).await.ok_or(Stopped)?;
            let (events, marks) = self.process(reading);
            if !marks.is_empty() {
                // Boxed, because the future is large and few readings need it.
                Box::pin(self.submit(events, marks)).await?;
            }
            due += every;
            let late = due.elapsed();
            if !late.is_zero() {
                // Skip the times that have passed. The later times stay multiples of the interval.
                let passed = late.as_nanos() / every.as_nanos().max(1) + 1;
                due += every.saturating_mul(u32::try_from(passed).unwrap_or(u32::MAX));
            }
        }
    }

    /// Takes a reading. The limit on its time includes all waits. A reading that exceeds the limit counts as unknown,
    /// because a monitor must not keep its last state when it has no readings.
    async fn read(&mut self) -> Reading {
        let limit = self.running.config.check.reading_max();
        let reading = timeout(limit, self.read_without_limit()).await;
        reading.unwrap_or_else(|_| Err(format!("the reading did not end within {limit:?}")))
    }

    /// Takes a reading. If the future is dropped, a reading on a separate thread continues, and the next call waits for
    /// its end.
    async fn read_without_limit(&mut self) -> Reading {
        let resources = self.monitors.resources().clone();
        let (check, unit) = (&self.running.config.check, self.running.quantity.unit);
        if self.remembered.unfinished.is_none()
            && let Some(read) = check.blocking(&resources, unit).await
            && let Some(permit) = resources.blocking_permit().await
        {
            let resources = resources.clone();
            self.remembered.unfinished = Some(tokio::task::spawn_blocking(move || {
                let findings = read(&resources);
                drop(permit);
                findings
            }));
        }
        let mut findings = match &mut self.remembered.unfinished {
            Some(unfinished) => {
                let read = unfinished.await;
                self.remembered.unfinished = None;
                read.unwrap_or_default()
            }
            None => Vec::new(),
        };
        findings.append(&mut check.read(&resources, &mut self.remembered, unit).await?);
        Ok(findings)
    }

    /// Returns the findings for all watched subjects. If the whole reading failed, all subjects are unknown. Reports
    /// problems of the reading in the health of the source.
    fn findings(&mut self, reading: Reading) -> Vec<Finding> {
        let mut findings = match reading {
            Ok(findings) => findings,
            Err(reason) => {
                let unknown = |subject| Finding { subject, outcome: Outcome::Unknown(reason.clone()) };
                let findings = self.running.subjects().keys().cloned().map(unknown).collect();
                self.set_trouble(Some(reason));
                return findings;
            }
        };
        let found = findings.len();
        findings.truncate(SUBJECTS_MAX);
        // If two things had the same name, their findings would change the state of one subject back and forth.
        let twice = if findings.len() > 1 { keep_first_of_each(&mut findings) } else { None };
        let trouble = if found > SUBJECTS_MAX {
            Some(format!("{found} things match, but a monitor watches at most {SUBJECTS_MAX}: it ignores the others"))
        } else if let Some(subject) = twice {
            Some(format!("several things have the name `{subject}`: the monitor watches only the first one"))
        } else {
            findings.is_empty().then(|| "nothing matches the names or paths of the monitor".to_owned())
        };
        self.set_trouble(trouble);
        self.add_gone(&mut findings);
        findings
    }

    /// Processes one reading. Returns the events and the marks to commit together.
    fn process(&mut self, reading: Reading) -> (Vec<Event>, Vec<Mark>) {
        let now = self.now();
        let findings = self.findings(reading);
        let mut events = Vec::new();
        let mut changed = std::mem::take(&mut self.unwritten);
        let Running { config, quantity, .. } = &*self.running;
        let is_counter = config.check.measure().is_counter;
        let mut subjects = self.running.subjects();
        for Finding { subject, outcome } in findings {
            self.monitors.metrics().readings.increment();
            if !subjects.contains_key(&subject) {
                subjects.insert(subject.clone(), Box::new(Watched::new(None, now)));
            }
            let Some(watched) = subjects.get_mut(&subject) else { continue };
            let Some(sample) = watched.sample(outcome, now, *quantity, is_counter) else { continue };
            let change = watched.observe(&self.rules, now, sample);
            if let Some(change) = &change {
                events.push(event::changed(&self.uri, config, &subject, watched, change, now));
            }
            if change.is_some() || !watched.is_stored {
                watched.is_stored = true;
                let value = Some(watched.mark(now));
                changed.push(Mark { scope: self.ctx.uri.clone(), key: format!("state/{subject}"), value });
            }
        }
        changed.extend(forget_gone(&mut subjects, &self.uri, &config.check, now));
        (events, changed)
    }

    /// Adds a finding for each known subject that the reading did not find.
    fn add_gone(&self, findings: &mut Vec<Finding>) {
        let mut subjects = self.running.subjects();
        subjects.values_mut().for_each(|watched| watched.is_found = false);
        for finding in &*findings {
            if let Some(watched) = subjects.get_mut(&finding.subject) {
                watched.is_found = true;
            }
        }
        let gone = subjects.iter().filter(|(_, watched)| !watched.is_found);
        let outcome =
            |subject: &String| Finding { subject: subject.clone(), outcome: self.running.config.check.gone() };
        findings.extend(gone.map(|(subject, _)| outcome(subject)));
    }

    async fn submit(&mut self, events: Vec<Event>, marks: Vec<Mark>) -> Result<(), Stopped> {
        let offer = Offer { events, target: self.ctx.target.clone(), marks, ..Offer::default() };
        match submit(&self.ctx, &offer).await {
            Ok(()) => Ok(()),
            Err(SubmitError::Stopped) => Err(Stopped),
            Err(rejected) => {
                let why = match rejected {
                    SubmitError::Invalid(_, why) => why,
                    SubmitError::TooLarge(_) | SubmitError::Stopped => "the event is too large".to_owned(),
                };
                self.set_trouble(Some(format!("the bus rejects the events of this monitor: {why}")));
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
}

/// Keeps only the first finding of each subject. Returns the first subject that had several findings; `None` if there
/// is no such subject.
fn keep_first_of_each(findings: &mut Vec<Finding>) -> Option<String> {
    let (mut seen, mut twice) = (HashSet::with_capacity(findings.len()), None);
    findings.retain(|finding| {
        let is_first = seen.insert(finding.subject.clone());
        if !is_first && twice.is_none() {
            twice = Some(finding.subject.clone());
        }
        is_first
    });
    twice
}

/// Returns the time of the first reading: `epoch` plus a multiple of [`TICK`]. `epoch` is before `start`. A hash of the
/// uri spreads the first readings, so that monitors with the same interval do not all read at the same time.
fn first_reading(epoch: Instant, start: Instant, uri: &str, every: Duration) -> Instant {
    let hash = uri
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let spread = u64::try_from(every.min(SPREAD_MAX).as_micros()).unwrap_or(u64::MAX).max(1);
    // The high bits of FNV-1a are mixed best.
    let passed = start.saturating_duration_since(epoch) + Duration::from_micros((hash >> 20) % spread);
    let ticks = passed.as_nanos().div_ceil(TICK.as_nanos());
    epoch + TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX))
}

fn random_up_to(longest: Duration) -> Duration {
    let longest = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
    // Each `RandomState` has different keys, so its hashes are random.
    Duration::from_micros(RandomState::new().hash_one(0_u8).checked_rem(longest).unwrap_or_default())
}

#[cfg(test)]
mod tests;

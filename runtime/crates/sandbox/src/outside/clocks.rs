//! The clocks of a guest. Their readings are recorded, or come from a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

use super::Recorder;

/// The resolution that guests see. Equal to that of the system's clocks.
const RESOLUTION_NS: u64 = 1;

/// The wall clock of the system. Records each reading.
pub(super) struct RecordedWall(pub(super) Recorder);

impl HostWallClock for RecordedWall {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(RESOLUTION_NS)
    }

    fn now(&self) -> Duration {
        let now_ns = wall_ns();
        self.0.wall(now_ns);
        Duration::from_nanos(now_ns)
    }
}

/// A monotonic clock that starts at 0 when the WASI context is created. Records each reading.
pub(super) struct RecordedMonotonic {
    recorder: Recorder,
    start: Instant,
}

impl RecordedMonotonic {
    pub(super) fn new(recorder: Recorder) -> Self {
        Self { recorder, start: Instant::now() }
    }
}

impl HostMonotonicClock for RecordedMonotonic {
    fn resolution(&self) -> u64 {
        RESOLUTION_NS
    }

    fn now(&self) -> u64 {
        let now_ns = nanos(self.start.elapsed());
        self.recorder.monotonic(now_ns);
        now_ns
    }
}

/// A clock that returns the readings of a test, one after another. After the last one, the clock continues with the
/// time that passes on the machine, so that a function that waits for a time does not wait forever.
#[derive(Clone)]
pub(super) struct Readings(Arc<Inner>);

struct Inner {
    readings: Vec<u64>,
    next: AtomicUsize,
    /// When the last reading was returned.
    ended: std::sync::OnceLock<Instant>,
}

impl Readings {
    /// Returns `None` without readings.
    pub(super) fn new(readings: Vec<u64>) -> Option<Self> {
        let inner = Inner { readings, next: AtomicUsize::new(0), ended: std::sync::OnceLock::new() };
        (!inner.readings.is_empty()).then(|| Self(Arc::new(inner)))
    }

    fn next(&self) -> u64 {
        let Inner { readings, next, ended } = &*self.0;
        let at = next.fetch_add(1, Ordering::Relaxed);
        let last = readings.last().copied().unwrap_or_default();
        if at + 1 >= readings.len() {
            let since = ended.get_or_init(Instant::now).elapsed();
            return if at < readings.len() { last } else { last.saturating_add(nanos(since)) };
        }
        readings.get(at).copied().unwrap_or(last)
    }
}

impl HostWallClock for Readings {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(RESOLUTION_NS)
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.next())
    }
}

impl HostMonotonicClock for Readings {
    fn resolution(&self) -> u64 {
        RESOLUTION_NS
    }

    fn now(&self) -> u64 {
        self.next()
    }
}

fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_readings_come_one_after_another_and_then_the_clock_goes_on() {
        assert!(Readings::new(Vec::new()).is_none());
        let clock = Readings::new(vec![5, 7, 6]).unwrap();
        assert_eq!([clock.next(), clock.next(), clock.next()], [5, 7, 6]);
        let (first, second) = (clock.next(), clock.next());
        assert!(6 <= first && first <= second, "{first} {second}");
    }
}

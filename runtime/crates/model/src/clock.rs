//! Two measures of time.
//!
//! The *wall clock* is for schedules, and for timestamps that users see. An administrator or a time service can change
//! it at any moment, by hours or by years.
//!
//! *Store time* is for waits and ages that outlive the process: when a retry is due, how old an event or a delivery is.
//! Store time continues from one process to the next, and advances only with elapsed time, which includes the time
//! while the machine is suspended. Store time equals the wall clock until the wall clock jumps. [`Clock::to_wall`]
//! converts store time to the wall clock.
//!
//! Waits and durations within the process use neither: they use tokio's monotonic clock, which tests can pause.

mod line;

use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(feature = "test-util")]
use tokio::time::Instant;

use self::line::Line;
pub use self::line::{Offset, Record};

/// Milliseconds since the Unix epoch.
pub type UnixMs = i64;

/// A clock; cheap to clone. Clones share the store time.
#[derive(Debug, Clone)]
pub struct Clock {
    source: Source,
    line: Arc<Line>,
    /// Measures elapsed time in milliseconds; see [`Clock::resume`].
    measure: Arc<OnceLock<fn() -> i64>>,
}

#[derive(Debug, Clone)]
enum Source {
    System,
    #[cfg(feature = "test-util")]
    Tokio {
        start_ms: UnixMs,
        start: Instant,
    },
    Fixed(UnixMs),
    #[cfg(feature = "test-util")]
    Manual(Arc<std::sync::atomic::AtomicI64>),
    #[cfg(feature = "test-util")]
    Jumping {
        wall_ms: Arc<std::sync::atomic::AtomicI64>,
        elapsed_ms: Arc<std::sync::atomic::AtomicI64>,
    },
}

impl Clock {
    /// Returns the clock of the operating system.
    pub fn system() -> Self {
        Self::from_source(Source::System)
    }

    /// Returns a clock that starts at `start_ms` and advances with tokio's clock. A test that pauses tokio's clock also
    /// pauses this one.
    #[cfg(feature = "test-util")]
    pub fn following_tokio(start_ms: UnixMs) -> Self {
        Self::from_source(Source::Tokio { start_ms, start: Instant::now() })
    }

    /// Returns a clock that stands still, for tests of functions.
    pub fn fixed(now_ms: UnixMs) -> Self {
        Self::from_source(Source::Fixed(now_ms))
    }

    /// Returns a clock whose time is the value of `now_ms`, which the test changes. Each change counts as elapsed time.
    #[cfg(feature = "test-util")]
    pub fn manual(now_ms: &Arc<std::sync::atomic::AtomicI64>) -> Self {
        Self::from_source(Source::Manual(now_ms.clone()))
    }

    /// Returns a clock whose wall clock and elapsed time the test changes independently of each other.
    #[cfg(feature = "test-util")]
    pub fn jumping(
        wall_ms: &Arc<std::sync::atomic::AtomicI64>,
        elapsed_ms: &Arc<std::sync::atomic::AtomicI64>,
    ) -> Self {
        Self::from_source(Source::Jumping { wall_ms: wall_ms.clone(), elapsed_ms: elapsed_ms.clone() })
    }

    fn from_source(source: Source) -> Self {
        let clock = Self { source, line: Arc::new(Line::new()), measure: Arc::default() };
        clock.line.start(clock.now_ms(), clock.elapsed_ms());
        clock
    }

    /// Returns true if `self` and `other` are clones of the same clock.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.line, &other.line)
    }

    /// Returns the elapsed time in milliseconds. For [`Clock::system`], this is the time since the boot, or, before
    /// [`Clock::resume`], the time since the process made its first such clock. A change of the wall clock does not
    /// affect this time.
    fn elapsed_ms(&self) -> i64 {
        match &self.source {
            Source::System => self.measure.get().copied().unwrap_or(process_ms)(),
            #[cfg(feature = "test-util")]
            Source::Jumping { elapsed_ms, .. } => elapsed_ms.load(std::sync::atomic::Ordering::SeqCst),
            source => source.now_ms(),
        }
    }

    /// Returns the time of a clock that stands still; `None` for other clocks.
    pub fn fixed_ms(&self) -> Option<UnixMs> {
        if let Source::Fixed(now_ms) = self.source { Some(now_ms) } else { None }
    }

    /// Returns the wall clock in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> UnixMs {
        self.source.now_ms()
    }

    /// Returns the store time in milliseconds.
    pub fn store_ms(&self) -> UnixMs {
        self.line.at(self.elapsed_ms())
    }

    /// Returns the time that the wall clock showed at a store time.
    pub fn to_wall(&self, store_ms: UnixMs) -> UnixMs {
        self.line.to_wall(store_ms)
    }

    /// Returns the earliest store time at which the wall clock showed `wall_ms` or later.
    pub fn to_store(&self, wall_ms: UnixMs) -> UnixMs {
        self.line.to_store(wall_ms)
    }

    /// Continues the store time of an earlier process. `last` is the last [`Record`] of that process, `boot` identifies
    /// the present boot of the system (empty if unknown), `since_boot_ms` measures the milliseconds since this boot,
    /// and `newest_ms` is the newest store time in the store. Must be called before store time is used.
    ///
    /// If the system has not booted again since the record, the time that has passed since the record is known exactly.
    /// After another boot, the time that has passed by the wall clock is used if it is plausible: from 0 to
    /// [`DOWNTIME_MAX_MS`]. An implausible time counts as 0, so that a wrong clock makes no event or delivery too old.
    pub fn resume(&self, last: Option<Record>, boot: &str, since_boot_ms: fn() -> i64, newest_ms: UnixMs) {
        // If the clock was resumed before, the same measure is already set.
        let _ = self.measure.set(since_boot_ms);
        self.line.resume(last, boot, newest_ms, self.now_ms(), self.elapsed_ms());
    }

    /// Returns the milliseconds by which the wall clock has jumped since the last jump that this function returned;
    /// `None` if it has not jumped. After a jump, the caller must store [`Clock::record`], so that the jump is known
    /// after a restart.
    pub fn find_jump(&self) -> Option<i64> {
        self.line.find_jump(self.now_ms(), self.elapsed_ms())
    }

    /// Returns the record from which a later process continues the store time.
    pub fn record(&self, boot: &str) -> Record {
        self.line.record(boot, self.now_ms(), self.elapsed_ms())
    }
}

/// The longest plausible time between two processes if the system has booted between them: 60 days, in milliseconds. If
/// more time has passed by the wall clock, the clock is probably wrong.
pub const DOWNTIME_MAX_MS: i64 = 60 * 24 * 60 * 60 * 1000;

impl Source {
    fn now_ms(&self) -> UnixMs {
        match self {
            // A system clock before 1970 is certainly wrong; returns 0 for it.
            Self::System => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| as_ms(since.as_millis())),
            #[cfg(feature = "test-util")]
            Self::Tokio { start_ms, start } => start_ms.saturating_add(as_ms(start.elapsed().as_millis())),
            Self::Fixed(now_ms) => *now_ms,
            #[cfg(feature = "test-util")]
            Self::Manual(now_ms) => now_ms.load(std::sync::atomic::Ordering::SeqCst),
            #[cfg(feature = "test-util")]
            Self::Jumping { wall_ms, .. } => wall_ms.load(std::sync::atomic::Ordering::SeqCst),
        }
    }
}

/// Returns the milliseconds since the first call. Does not include the time while the machine is suspended.
fn process_ms() -> i64 {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    as_ms(START.get_or_init(std::time::Instant::now).elapsed().as_millis())
}

fn as_ms(millis: u128) -> UnixMs {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

/// Formats a point in time as RFC 3339 in UTC, with milliseconds. Returns an empty string if the time is out of range.
pub fn rfc3339(at_ms: UnixMs) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map(|t| format!("{t:.3}")).unwrap_or_default()
}

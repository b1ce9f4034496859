//! The record of store time in the database: the row `clock` of the table `meta`, as JSON (see [`Record`]).
//!
//! The record is written in two cases: by the first commit after a boot of the machine, and by the next commit after a
//! jump of the wall clock. A commit without other changes does not write the record, so that such a commit also
//! succeeds on a full disk.

use rusqlite::{Connection, OptionalExtension, params};
use rustix::time::{ClockId, clock_gettime};

use super::checksum;
use evoke_model::clock::{Clock, Record, UnixMs};

/// The store time for the writer, and a flag that is false if the record in the database is missing or outdated. Then
/// the next commit that changes rows writes the record.
pub(super) struct StoreTime {
    clock: Clock,
    boot: String,
    is_stored: bool,
}

impl StoreTime {
    /// Continues the store time from the record and the newest event in the database.
    pub(super) fn resume(connection: &Connection, clock: Clock) -> rusqlite::Result<Self> {
        let newest = "SELECT accepted_ms FROM events ORDER BY seq DESC LIMIT 1";
        let newest_ms = connection.query_row(newest, [], |r| r.get::<_, UnixMs>(0)).optional()?.unwrap_or_default();
        let last = load(connection)?;
        let boot = boot_id();
        let is_stored = last.as_ref().is_some_and(|last| last.boot == boot);
        clock.resume(last, &boot, since_boot_ms, newest_ms);
        Ok(Self { clock, boot, is_stored })
    }

    /// Detects and logs a jump of the wall clock. Returns the store time.
    pub(super) fn now_ms(&mut self) -> UnixMs {
        if let Some(jump_ms) = self.clock.find_jump() {
            let direction = if jump_ms > 0 { "forward" } else { "back" };
            tracing::warn!(
                "the wall clock jumped {direction} by {:?}: retries, ages, retention and the dedup window do not \
                 change, because they follow elapsed time",
                std::time::Duration::from_millis(jump_ms.unsigned_abs())
            );
            self.is_stored = false;
        }
        self.clock.store_ms()
    }

    pub(super) fn wall_ms(&self) -> UnixMs {
        self.clock.now_ms()
    }

    /// Returns true if the next commit has to write the record.
    pub(super) fn is_due(&self) -> bool {
        !self.is_stored
    }

    pub(super) fn write(&self, tx: &Connection) -> rusqlite::Result<()> {
        // This cannot fail: the record contains only numbers and strings.
        let record = serde_json::to_string(&self.clock.record(&self.boot)).unwrap_or_default();
        let sql = "INSERT OR REPLACE INTO meta (key, value, sum) VALUES ('clock', ?1, sum_of('clock', ?1))";
        tx.execute(sql, params![record]).map(drop)
    }

    /// Must be called after the record was committed.
    pub(super) fn stored(&mut self) {
        self.is_stored = true;
    }
}

/// Reads the record. A damaged record is not used; `evoke check` reports it.
fn load(connection: &Connection) -> rusqlite::Result<Option<Record>> {
    let read = connection.query_row("SELECT key, value, sum FROM meta WHERE key = 'clock'", [], |r| {
        checksum::verify(r, 0, 2, || "the record of the clock".into())?;
        r.get::<_, String>(1)
    });
    match read.optional() {
        Ok(record) => Ok(record.and_then(|record| serde_json::from_str::<Record>(&record).ok())),
        Err(error) => {
            let what = checksum::find_damage(&error).ok_or(error)?;
            tracing::error!("{} is damaged: {what}; the record is ignored", connection.path().unwrap_or_default());
            Ok(None)
        }
    }
}

/// Returns the kernel's id of this boot; empty if it is unknown.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Returns the milliseconds since the system booted. On Linux, this includes the time in which the system was
/// suspended.
fn since_boot_ms() -> i64 {
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let now = clock_gettime(CLOCK);
    now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000)
}

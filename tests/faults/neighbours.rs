//! Disturbances from outside while a campaign runs: another program opens and closes the store, another one holds its
//! lock for longer than a write waits, and the wall clock jumps by hours and years, also to 1970.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, OpenFlags};

use super::random::Random;
use super::shim::WallClock;

const HOUR: i64 = 3_600;
const YEAR: i64 = 365 * 24 * HOUR;

/// Disturbs Evoke from a thread, and counts the disturbances.
#[derive(Default)]
pub(crate) struct Neighbours {
    stopped: AtomicBool,
    opened: AtomicUsize,
    locked: AtomicUsize,
    jumps: AtomicUsize,
}

impl Neighbours {
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Disturbs Evoke until [`Self::stop`] is called, and then sets the clock right.
    pub(crate) fn run(&self, database: &Path, clock: &WallClock, seed: u64) {
        let mut random = Random::new(seed);
        // Even the shortest campaign contains a jump.
        self.jump(clock, &mut random);
        while !self.is_stopped() {
            match random.below(20) {
                0 => self.hold_lock(database, Duration::from_millis(random.below(3_500) as u64)),
                1..=4 => self.jump(clock, &mut random),
                _ => self.open_and_close(database),
            }
            std::thread::sleep(Duration::from_millis(random.below(60) as u64));
        }
        clock.set(0);
    }

    fn jump(&self, clock: &WallClock, random: &mut Random) {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let jumps = [0, 0, HOUR, -HOUR, 30 * 24 * HOUR, YEAR, -YEAR, 10 - since_1970.cast_signed()];
        clock.set(jumps[random.below(jumps.len())]);
        self.jumps.fetch_add(1, Ordering::Relaxed);
    }

    /// Opens the store as another program does. `None` if it does not exist yet, or if Evoke locks it at this moment.
    fn open(database: &Path) -> Option<Connection> {
        let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE).ok()?;
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        let read = connection.query_row("SELECT COUNT(*) FROM events", [], |row| row.get::<_, i64>(0));
        read.ok().map(|_| connection)
    }

    fn open_and_close(&self, database: &Path) {
        if let Some(connection) = Self::open(database) {
            connection.close().unwrap();
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens the store, and locks it for longer than a write waits, so that even a short campaign contains both.
    pub(crate) fn lock_once(&self, database: &Path) {
        self.open_and_close(database);
        self.hold_lock(database, Duration::from_millis(2_500));
    }

    fn hold_lock(&self, database: &Path, time: Duration) {
        let Some(connection) = Self::open(database) else { return };
        if connection.execute_batch("BEGIN IMMEDIATE").is_err() {
            return;
        }
        let locked = Instant::now();
        while locked.elapsed() < time && !self.is_stopped() {
            std::thread::sleep(Duration::from_millis(5));
        }
        connection.execute_batch("ROLLBACK").unwrap();
        self.locked.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of disturbances of each kind as text, and asserts that none is zero.
    pub(crate) fn summary(&self) -> String {
        let [opened, locked, jumps] = [&self.opened, &self.locked, &self.jumps].map(|n| n.load(Ordering::Relaxed));
        assert!(opened > 0 && locked > 0 && jumps > 0, "opened {opened}, locked {locked}, jumps {jumps}");
        format!(
            "the store was opened and closed by another program {opened} times and locked {locked} times, the clock jumped {jumps} times"
        )
    }
}

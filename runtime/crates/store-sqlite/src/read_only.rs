//! Opens the store of a stopped process, or a backup, for reading only. Nothing in the folder is changed.

use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};

use tokio::sync::watch;

use super::failure::store_error;
use super::folder::open_store_for_reading;
use super::queue::WriteQueue;
use super::readers::Readers;
use super::{SqliteStore, checksum, origins, schema, state, store_time, totals, wal};
use evoke_model::clock::Clock;
use evoke_store::{Backlog, Result, Scopes, StoreError};

impl SqliteStore {
    /// Opens the store in `folder` for reading only; another process may have it open, too. Every write fails with
    /// [`StoreError::Closed`]. The position that [`evoke_store::EventStore::newest`] returns does not change when
    /// another process accepts events.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the log of the store is damaged; [`StoreError::Failed`] if the store has another
    /// schema version.
    pub fn open_read_only(folder: &Path, clock: Clock) -> Result<Self> {
        let path = folder.join("evoke.db");
        if let Some(damage) = wal::find_damage(&path) {
            return Err(StoreError::Damaged(damage));
        }
        let to_store_error = |e: rusqlite::Error| store_error(&path, &e);
        let (private, connection) = open_store_for_reading(folder)?;
        schema::check_version(&connection).map_err(to_store_error)??;
        let instance = connection
            .query_row("SELECT key, value, sum FROM meta WHERE key = 'instance'", [], |r| {
                checksum::verify(r, 0, 2, || "the store's name".into())?;
                r.get::<_, String>(1)
            })
            .map_err(to_store_error)?;
        let mut counters = totals::Counters::load(&connection).map_err(to_store_error)?;
        // Sets the store time of `clock`, which then converts store times to times of the wall clock.
        store_time::StoreTime::resume(&connection, clock.clone()).map_err(to_store_error)?;
        let origins = origins::load(&connection).map_err(to_store_error)?;
        let state_cache = Arc::new(state::load(&connection).map_err(to_store_error)?);
        let backlog = Arc::<Backlog>::default();
        backlog.apply(counters.backlog_change());
        let schedule_backlog = Arc::<Backlog>::default();
        schedule_backlog.apply(counters.schedule_change());
        let dead_letters = Arc::<Backlog>::default();
        dead_letters.apply(counters.dead_change());
        // The queue has no receiver, so every write fails.
        let (writes, _) = WriteQueue::new();
        let (_, newest) = watch::channel(counters.last_seq());
        let (watching, _) = mpsc::channel();
        Ok(Self {
            writes,
            readers: Arc::new(Readers::of_folder(path, private)),
            pending_since: Arc::default(),
            state_cache,
            sink: Arc::default(),
            newest,
            failed: watch::Sender::new(None),
            backlog,
            schedule_backlog,
            dead_letters,
            alarm: Arc::default(),
            scopes: Scopes::default(),
            origins,
            descendants_limits: Arc::default(),
            refusal: Arc::new(Mutex::new(None)),
            instance,
            clock,
            _watch: watching,
        })
    }
}

//! Pools the connections of an owner.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use evoke_model::destination::Target;

use super::connection::{Connection, Http1, Http2};
use super::error::Error;
use super::limits::{CONNECT_MAX, CONNECTIONS_MAX};
use super::upload::Upload;

/// Largest number of unused connections with HTTP/1.1 in the pool of an owner. Also the largest number of connections
/// with HTTP/2 there, whether in use or not.
const IDLE_MAX: usize = 32;
/// Time after which an unused connection is closed. Many servers close unused connections after a minute.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// Time between two checks for connections that were unused for too long.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The key of a pooled connection. Only calls with the same grant and the same target share connections.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// The index of the grant among the grants of the owner.
    pub(crate) grant: usize,
    pub(crate) target: Target,
}

/// The connections of an owner.
pub(crate) struct Pool {
    io: Handle,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Unused connections with HTTP/1.1, the last used one at the end.
    idle: Vec<Entry<Http1>>,
    /// Connections with HTTP/2, which several calls can use at the same time.
    shared: Vec<Entry<Arc<Http2>>>,
    /// True while the task that closes unused connections is running.
    is_swept: bool,
}

struct Entry<T> {
    key: Key,
    connection: T,
    used: Instant,
}

impl Pool {
    pub(crate) fn new(io: Handle) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Arc::new(Self { io, permits, state: Mutex::default() })
    }

    /// Returns a pooled connection that is ready for a call; `None` if there is none.
    pub(crate) fn take(&self, key: &Key) -> Option<Connection> {
        let mut state = self.lock();
        state.shared.retain(|entry| !entry.connection.is_closed());
        if let Some(entry) = state.shared.iter_mut().find(|entry| entry.key == *key) {
            entry.used = Instant::now();
            return Some(Connection::Http2(entry.connection.clone()));
        }
        let has_key = |(_, entry): &(usize, &mut Entry<Http1>)| entry.key == *key;
        let mut end = state.idle.len();
        while let Some((at, entry)) = state.idle.iter_mut().enumerate().take(end).rfind(has_key) {
            let is_ready = entry.connection.is_ready();
            let is_closed = !is_ready && entry.connection.is_closed();
            if is_ready {
                return Some(Connection::Http1(state.idle.remove(at).connection));
            }
            // A connection that is not ready stays in the pool, because it may still be sending the rest of a request
            // whose response came early.
            if is_closed {
                state.idle.remove(at);
            }
            end = at;
        }
        None
    }

    /// Returns the permit for a new connection. If the owner has [`CONNECTIONS_MAX`] connections already, closes an
    /// unused one, and waits for a permit for at most [`CONNECT_MAX`].
    pub(crate) async fn permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        self.close_oldest();
        match timeout(CONNECT_MAX, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Error::TooManyConnections),
        }
    }

    /// Adds a new connection with HTTP/2 to the pool, so that further calls can use it. Does nothing if the pool has
    /// [`IDLE_MAX`] connections with HTTP/2 already, or has one for the key.
    pub(crate) fn share(self: &Arc<Self>, key: &Key, connection: &Connection) {
        let Connection::Http2(connection) = connection else { return };
        let mut state = self.lock();
        if state.shared.len() < IDLE_MAX && !state.shared.iter().any(|entry| entry.key == *key) {
            state.shared.push(Entry { key: key.clone(), connection: connection.clone(), used: Instant::now() });
            self.sweep_later(&mut state);
        }
    }

    fn put(self: &Arc<Self>, key: Key, connection: Http1) {
        let mut state = self.lock();
        if state.idle.len() >= IDLE_MAX {
            state.idle.remove(0);
        }
        state.idle.push(Entry { key, connection, used: Instant::now() });
        self.sweep_later(&mut state);
    }

    /// Removes a connection with HTTP/2 whose peer did not respond in time or did not take a request body, so that
    /// later calls make a new connection. The peer may be unreachable without the runtime knowing it: a network device
    /// can drop a connection silently. Calls that still use the connection continue.
    pub(crate) fn forget(&self, connection: &Connection) {
        if let Connection::Http2(silent) = connection {
            self.lock().shared.retain(|entry| !Arc::ptr_eq(&entry.connection, silent));
        }
    }

    fn close_oldest(&self) {
        let mut state = self.lock();
        if !state.idle.is_empty() {
            state.idle.remove(0);
        } else if let Some(at) = state.shared.iter().position(|entry| Arc::strong_count(&entry.connection) == 1) {
            state.shared.remove(at);
        }
    }

    /// Starts the task that closes unused connections, unless the task is already running.
    fn sweep_later(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.is_swept, true) {
            let pool = Arc::downgrade(self);
            self.io.spawn(async move {
                loop {
                    sleep(SWEEP_INTERVAL).await;
                    if pool.upgrade().is_none_or(|pool| pool.sweep()) {
                        return;
                    }
                }
            });
        }
    }

    /// Closes the connections that were unused for too long. Returns true if no connection is left.
    fn sweep(&self) -> bool {
        let mut state = self.lock();
        state.idle.retain_mut(|entry| entry.used.elapsed() < IDLE_TIME && !entry.connection.is_closed());
        state.shared.retain(|entry| {
            let is_used = Arc::strong_count(&entry.connection) > 1;
            !entry.connection.is_closed() && (is_used || entry.used.elapsed() < IDLE_TIME)
        });
        state.is_swept = !(state.idle.is_empty() && state.shared.is_empty());
        !state.is_swept
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in use by one call. Dropping this closes a connection with HTTP/1.1. With HTTP/2, dropping this only
/// closes the stream of the call.
pub(crate) struct Lease {
    pub(crate) pool: Weak<Pool>,
    pub(crate) key: Key,
    pub(crate) connection: Connection,
    pub(crate) rest: Rest,
}

impl Lease {
    /// Makes later calls use another connection, after the peer did not respond in time.
    pub(crate) fn forget(self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.forget(&self.connection);
        }
    }

    /// Returns the connection to the pool, after the request body was read and the response ended. If a part of the
    /// request body is still in memory, the connection returns to the pool when that part was sent. If this takes too
    /// long, the connection is closed.
    pub(crate) fn give_back(self) {
        let Self { pool: weak, key, connection, rest } = self;
        if let Connection::Http1(mut connection) = connection
            && !connection.is_closed()
            && let Some(pool) = weak.upgrade()
        {
            if rest.upload.is_over() {
                pool.put(key, connection);
                return;
            }
            let upload = rest.upload.clone();
            pool.io.spawn(async move {
                if upload.ends_in_time().await
                    && let Some(pool) = weak.upgrade()
                {
                    pool.put(key, connection);
                }
            });
        }
    }
}

/// The request body of a call on a connection. With HTTP/2, hyper keeps a request body that the peer does not take
/// until the connection ends, even if the response has ended. So if this is dropped while a part of the body is in
/// memory, the connection is removed from the pool. The connection is closed when the body is sent or the time for this
/// has passed, and no other call uses the connection. With HTTP/1.1, dropping this does nothing: see
/// [`Lease::give_back`].
pub(crate) struct Rest {
    pool: Weak<Pool>,
    connection: Option<Arc<Http2>>,
    pub(crate) upload: Upload,
}

impl Rest {
    pub(crate) fn new(pool: &Arc<Pool>, connection: &Connection, upload: &Upload) -> Self {
        let connection = match connection {
            Connection::Http2(connection) if !upload.is_over() => Some(connection.clone()),
            _ => None,
        };
        Self { pool: Arc::downgrade(pool), connection, upload: upload.clone() }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && !self.upload.is_over()
            && let Some(pool) = self.pool.upgrade()
        {
            let (connection, upload) = (Connection::Http2(connection), self.upload.clone());
            pool.forget(&connection);
            pool.io.spawn(async move {
                upload.ends_in_time().await;
                drop(connection);
            });
        }
    }
}

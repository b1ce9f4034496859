//! Scopes: work that only one owner may do at a time, such as running a timer, a files source, retention or a replay.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::StoreFuture;

/// Gives each scope to at most one owner at a time.
pub trait ScopeStore: Send + Sync + 'static {
    /// Takes the ownership of a scope. Returns `None` without waiting if another owner has the scope, in this process
    /// or in another process that shares the store. The caller then skips the work or tries again later.
    ///
    /// The next write of an owner that lost its scope to another owner fails with [`crate::StoreError::Fenced`].
    fn own(&self, scope: &str) -> StoreFuture<Option<Ownership>>;
}

/// The ownership of a scope; released when dropped.
#[must_use = "dropping it releases the scope"]
pub struct Ownership {
    _guard: Box<dyn Send + Sync>,
}

impl Ownership {
    /// Wraps a guard whose drop releases the scope.
    pub fn new(guard: impl Send + Sync + 'static) -> Self {
        Self { _guard: Box::new(guard) }
    }
}

impl std::fmt::Debug for Ownership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ownership").finish_non_exhaustive()
    }
}

/// The scopes that are owned within this process, for a store that only one process uses. Clones share the scopes.
#[derive(Clone, Default)]
pub struct Scopes(Arc<Mutex<HashSet<Arc<str>>>>);

impl Scopes {
    /// Takes the ownership of a scope, unless it is owned already.
    pub fn own(&self, scope: &str) -> Option<Ownership> {
        let name: Arc<str> = scope.into();
        let is_free = self.lock().insert(name.clone());
        is_free.then(|| Ownership::new(Owned { scopes: self.clone(), name }))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Owned {
    scopes: Scopes,
    name: Arc<str>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.scopes.lock().remove(&self.name);
    }
}

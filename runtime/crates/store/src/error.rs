//! Why store calls fail.

/// Why a call to the store failed. Callers handle each variant in a different way.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// An I/O or integrity error. The store rejects all further writes until it is reopened, because after a failed
    /// sync the content of the disk is unknown. Writes of the failed commit may be on disk: either all of them or none.
    /// The process stops.
    #[error("the store failed: {0}")]
    Failed(String),
    /// The store cannot be reached at the moment, and it is unknown whether a write was committed. The caller retries
    /// later. Repeating a write is safe: the store deduplicates accepted events, and a completion contains the number
    /// of its attempt, so neither is applied twice.
    #[error("the store cannot be reached: {0}")]
    Unreachable(String),
    /// Another owner took over the work of this owner, for example after this process was unreachable for too long. No
    /// part of the call was committed, and the store commits no later write of this process. The process stops.
    #[error("another process took over the store: {0}")]
    Fenced(String),
    /// Stored data is corrupt, and the store does not return it. If a write finds the damage, the store rejects all
    /// further writes, as after [`StoreError::Failed`]. If a read finds the damage, other data stays readable.
    #[error("{0}")]
    Damaged(String),
    /// The disk is full. No part of the call was committed; writes succeed again when there is space.
    #[error("the store has no room left on its disk; nothing was written")]
    Full,
    /// Another program holds a lock on the store for longer than the call waits. No part of the call was committed;
    /// calls succeed again when that program releases its lock.
    #[error("another program has locked the store's file evoke.db; nothing was written")]
    Busy,
    /// The store was closed before the call could be executed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Returns true if the cause can disappear without a restart, so that the same call may succeed later: a full disk,
    /// a lock of another program, or a store that cannot be reached.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Full | Self::Busy | Self::Unreachable(_))
    }
}

/// The result type of all store calls.
pub type Result<T> = std::result::Result<T, StoreError>;

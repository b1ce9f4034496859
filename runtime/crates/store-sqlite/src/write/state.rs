//! An operator's changes of functions' state.

use super::{GroupCommit, Write};
use evoke_model::state::Transaction;

/// Writes and deletes keys. Returns the number of these keys that existed before.
pub(crate) struct WriteState {
    pub(crate) changes: Transaction,
}

impl Write for WriteState {
    type Output = u64;

    fn size(&self) -> usize {
        self.changes.size()
    }

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<u64> {
        commit.state.write(&self.changes)
    }
}

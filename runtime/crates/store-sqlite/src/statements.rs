//! The prepared statements of a group commit.

use rusqlite::{CachedStatement, Connection};

/// Statements that nearly every write needs. Each is taken from the connection's cache when it is first used, and
/// returned to the cache with the group commit. To look it up for each write would copy its SQL, hash the SQL twice and
/// clear its parameters, which takes a considerable part of the time of a small write.
pub(super) struct Statements<'a> {
    tx: &'a Connection,
    held: Vec<(&'static str, CachedStatement<'a>)>,
}

impl<'a> Statements<'a> {
    pub(super) fn new(tx: &'a Connection) -> Self {
        Self { tx, held: Vec::new() }
    }

    /// Returns the statement with this SQL. Each place that calls this passes its own constant text, so comparing the
    /// addresses of the texts finds the statement. (If the compiler keeps two copies of a text, two statements are
    /// prepared.)
    pub(super) fn get(&mut self, sql: &'static str) -> rusqlite::Result<&mut CachedStatement<'a>> {
        let position = match self.held.iter().position(|(of, _)| std::ptr::eq(*of, sql)) {
            Some(position) => position,
            None => {
                self.held.push((sql, self.tx.prepare_cached(sql)?));
                self.held.len() - 1
            }
        };
        self.held.get_mut(position).map(|(_, statement)| statement).ok_or(rusqlite::Error::InvalidQuery)
    }
}

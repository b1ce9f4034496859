//! Assigns ids to functions and origins.

use super::{GroupCommit, Write};
use crate::origins;
use evoke_model::{FunctionId, Origin};

/// Returns the ids of functions, in the order of `names`. Unknown names get new ids.
pub(crate) struct Register {
    pub(crate) names: Vec<String>,
}

impl Write for Register {
    type Output = Vec<FunctionId>;

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<Self::Output> {
        let tx = commit.tx;
        let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO functions (name) VALUES (?1)")?;
        let mut sum = tx.prepare_cached("UPDATE functions SET sum = sum_of(id, name) WHERE name = ?1")?;
        let mut select = tx.prepare_cached("SELECT id FROM functions WHERE name = ?1")?;
        let ids = self.names.iter().map(|name| {
            if insert.execute([name])? > 0 {
                sum.execute([name])?;
            }
            select.query_row([name], |r| r.get(0).map(FunctionId))
        });
        ids.collect()
    }
}

/// Returns the ids of origins, in the order of `uris`. Unknown URIs get new ids.
pub(crate) struct RegisterOrigins {
    pub(crate) uris: Vec<String>,
}

impl Write for RegisterOrigins {
    type Output = Vec<Origin>;

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<Self::Output> {
        self.uris.iter().map(|uri| origins::register(commit.tx, uri)).collect()
    }
}

//! The schema and how a store comes to have it; `schema.sql` has the words.

use rusqlite::{Connection, ErrorCode, ffi};

use super::{failure, sums};
use crate::store::{Result, StoreError};

const SCHEMA: &str = include_str!("schema.sql");
/// What each version adds to the one before it, from version 2 on.
pub(super) const MIGRATIONS: [&str; 3] =
    [include_str!("migrate/2.sql"), include_str!("migrate/3.sql"), include_str!("migrate/4.sql")];
pub(super) const SCHEMA_VERSION: i64 = 1 + MIGRATIONS.len() as i64;

/// Sets what a connection that writes works by.
pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    sums::teach(connection)?;
    // Says something only before the first table is made.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    // To its end: whether the change was committed is said after the answer.
    let mut journal = connection.prepare("PRAGMA journal_mode = WAL")?;
    let modes = journal.query_map([], |r| r.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    if modes != ["wal"] {
        let message = format!("it has no write-ahead log: its journal mode is {modes:?}");
        return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), Some(message)));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    // The writer does it, and looks at how it went.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.set_prepared_statement_cache_capacity(64);
    // A plan does not depend on the values that are bound: SQLite would prepare again for each.
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Whether a store that is only read has the schema of this version; the outer error is SQLite's.
pub(super) fn is_of_this_version(connection: &Connection) -> rusqlite::Result<Result<()>> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |r| r.get(0))?;
    Ok(match version {
        SCHEMA_VERSION => Ok(()),
        1..SCHEMA_VERSION => Err(StoreError::Failed(format!(
            "{} has schema version {version} and this program reads {SCHEMA_VERSION}: `evoke up` brings it forward",
            connection.path().unwrap_or_default()
        ))),
        other => Err(unknown_version(connection, other)),
    })
}

fn unknown_version(connection: &Connection, version: i64) -> StoreError {
    let file = connection.path().unwrap_or_default();
    StoreError::Failed(format!(
        "{file} has schema version {version} and this program knows {SCHEMA_VERSION}: run the newer Evoke that wrote it. \
         Where there is none, the file is damaged: {}",
        failure::remedy(file)
    ))
}

/// Brings the schema to this version. The outer error is SQLite's, the inner says what a person can do.
pub(super) fn prepare(connection: &mut Connection) -> rusqlite::Result<Result<()>> {
    let transaction = connection.transaction()?;
    let version: i64 = transaction.query_row("PRAGMA user_version", [], |r| r.get(0))?;
    match version {
        0 => {
            transaction.execute_batch(SCHEMA)?;
            let instance = uuid::Uuid::now_v7().simple().to_string();
            // The random tail of a version 7 UUID: short, and no two stores share it.
            let short = instance.get(20..).unwrap_or(&instance);
            let sql = "INSERT INTO meta (key, value, sum) VALUES ('instance', ?1, sum_of('instance', ?1))";
            transaction.execute(sql, [short])?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            transaction.commit()?;
            Ok(Ok(()))
        }
        SCHEMA_VERSION => Ok(Ok(())),
        older @ 1..SCHEMA_VERSION => {
            tracing::warn!(
                "the store is brought forward from version {older} to {SCHEMA_VERSION}: a large one takes minutes, and as \
                 much room again meanwhile"
            );
            for migration in MIGRATIONS.iter().skip(usize::try_from(older - 1).unwrap_or_default()) {
                match transaction.execute_batch(migration) {
                    // It cannot be said in SQL: then it is not what it says to be.
                    Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => {
                        let file = transaction.path().unwrap_or_default();
                        let what = format!("it says that it has schema version {older}, and has not ({error})");
                        return Ok(Err(StoreError::Damaged(failure::damaged(file, what))));
                    }
                    other => other?,
                }
            }
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            transaction.commit()?;
            // All of it went through the log, which nobody else would copy before the first commit.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            Ok(Ok(()))
        }
        newer => Ok(Err(unknown_version(&transaction, newer))),
    }
}

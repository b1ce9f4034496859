//! Creates the schema that `schema.sql` describes, and migrates older stores to it.

use std::time::Duration;

use rusqlite::{Connection, ErrorCode, TransactionBehavior, ffi};

use super::{checksum, failure, origins};
use evoke_store::{Result, StoreError};

const SCHEMA: &str = include_str!("schema.sql");
/// The SQL of the migrations. The first one migrates a store from version 1 to version 2, and each further one to the
/// next version.
pub(super) const MIGRATIONS: [&str; 9] = [
    include_str!("migrate/2.sql"),
    include_str!("migrate/3.sql"),
    include_str!("migrate/4.sql"),
    include_str!("migrate/5.sql"),
    include_str!("migrate/6.sql"),
    include_str!("migrate/7.sql"),
    include_str!("migrate/8.sql"),
    include_str!("migrate/9.sql"),
    include_str!("migrate/10.sql"),
];
pub(super) const SCHEMA_VERSION: i64 = 1 + MIGRATIONS.len() as i64;

/// How long the first write waits for a lock of another program before writes are refused. Most programs hold a lock
/// for a shorter time, so that no write is refused.
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(2);

/// The size in bytes to which SQLite's log file is truncated: twice the length at which checkpoints start. After a
/// checkpoint has copied the whole log, the first commit that reuses the file truncates it.
const LOG_BYTES_MAX: i64 = 32 * 1024 * 1024;

/// Configures a connection for writing.
pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_WAIT)?;
    checksum::register_sql_function(connection)?;
    origins::register_sql_function(connection)?;
    // `auto_vacuum` has an effect only before the first table is created. On an existing file, the pragma would have no
    // effect but would still write, which needs a lock and space on the disk.
    if read_version(connection)? == 0 {
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    // Read all rows of the result: if SQLite cannot change the mode, it reports the error only after the first row.
    let mut journal = connection.prepare("PRAGMA journal_mode = WAL")?;
    let modes = journal.query_map([], |r| r.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    if modes != ["wal"] {
        let message = format!("SQLite cannot use WAL mode for this file: its journal mode stays {modes:?}");
        return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), Some(message)));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    // SQLite's automatic checkpoints would hide their errors, so the writer runs checkpoints itself.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Query plans must not depend on bound values. Otherwise, SQLite would prepare a statement again for each value.
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Checks the schema version of a store that was opened for reading. The outer error is an error of SQLite.
pub(super) fn check_version(connection: &Connection) -> rusqlite::Result<Result<()>> {
    let version = read_version(connection)?;
    Ok(match version {
        SCHEMA_VERSION => Ok(()),
        1..SCHEMA_VERSION => Err(StoreError::Failed(format!(
            "{} has schema version {version}, but this program reads version {SCHEMA_VERSION}: `evoke up` upgrades the \
             store",
            connection.path().unwrap_or_default()
        ))),
        other => Err(unknown_version(connection, other)),
    })
}

fn read_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |r| r.get(0))
}

fn unknown_version(connection: &Connection, version: i64) -> StoreError {
    let file = connection.path().unwrap_or_default();
    StoreError::Failed(format!(
        "{file} has schema version {version}, but this program supports versions up to {SCHEMA_VERSION}: run the \
         newer Evoke that wrote the file. If no newer Evoke wrote the file, the file is damaged: {}",
        failure::remedy(file)
    ))
}

/// Creates the schema, or migrates it to the current version. The outer error is an error of SQLite. The inner error
/// says what the user can do.
pub(super) fn prepare(connection: &mut Connection) -> rusqlite::Result<Result<()>> {
    // A start without a migration writes nothing, so a lock of another program does not delay it.
    if read_version(connection)? == SCHEMA_VERSION {
        return Ok(Ok(()));
    }
    // `Immediate` locks the store before the first read. SQLite does not wait for a lock that a transaction requests
    // only after a read.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = read_version(&transaction)?;
    match version {
        0 => {
            transaction.execute_batch(SCHEMA)?;
            let instance = uuid::Uuid::now_v7().simple().to_string();
            // The random tail of a version 7 UUID: short, and unique to the store.
            let short = instance.get(20..).unwrap_or(&instance);
            let sql = "INSERT INTO meta (key, value, sum) VALUES ('instance', ?1, sum_of('instance', ?1))";
            transaction.execute(sql, [short])?;
            origins::insert_built_in(&transaction)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            transaction.commit()?;
            Ok(Ok(()))
        }
        SCHEMA_VERSION => Ok(Ok(())),
        older @ 1..SCHEMA_VERSION => {
            tracing::warn!(
                "migrating the store from version {older} to {SCHEMA_VERSION}: for a large store, this takes minutes \
                 and needs free disk space of the size of the store"
            );
            for migration in MIGRATIONS.iter().skip(usize::try_from(older - 1).unwrap_or_default()) {
                match transaction.execute_batch(migration) {
                    // A migration fails with this code only if the schema of the file does not match the version number
                    // of the file.
                    Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => {
                        let file = transaction.path().unwrap_or_default();
                        let what = format!("its schema does not match its version number {older} ({error})");
                        return Ok(Err(StoreError::Damaged(failure::damage_message(file, what))));
                    }
                    other => other?,
                }
            }
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            transaction.commit()?;
            // The log contains the whole migration. Without this checkpoint, the log would keep this size until the
            // first commit.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            Ok(Ok(()))
        }
        newer => Ok(Err(unknown_version(&transaction, newer))),
    }
}

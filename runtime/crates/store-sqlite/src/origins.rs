//! The table `origins`: the sources through which chains of events enter.

use std::sync::{Arc, PoisonError, RwLock};

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OptionalExtension, params};

use super::checksum;
use evoke_model::Origin;
use evoke_store::origins::Origins;

/// The committed origins, shared by all threads.
pub(super) type OriginTable = Arc<RwLock<Origins>>;

/// New ids are assigned below this number. Stores before version 5 used hashes as ids, and few of these hashes are
/// below this number, so a new id rarely equals one of them.
const NEW_ID_END: u32 = 1 << 24;

/// Registers the SQL function `origin_of(uri)`, which migrations use.
pub(super) fn register_sql_function(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("origin_of", 1, flags, |context| {
        // For a damaged text, the SQL function returns NULL.
        Ok(context.get_raw(0).as_str().ok().map(|uri| Origin::of(uri).0))
    })
}

/// Adds the origins that every store has.
pub(super) fn insert_built_in(tx: &Connection) -> rusqlite::Result<()> {
    for (origin, uri) in Origin::BUILT_IN {
        insert(tx, origin, uri)?;
    }
    Ok(())
}

/// Reads all origins. A damaged row is left out: its origin has no URI, and `evoke check` reports the row.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<OriginTable> {
    let mut origins = Origins::default();
    let mut statement = connection.prepare("SELECT id, uri, sum FROM origins WHERE uri IS NOT NULL")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match checksum::verify(row, 0, 2, || "an origin".into()) {
            Ok(()) => drop(origins.add(Origin(row.get(0)?), row.get::<_, String>(1)?.into())),
            Err(error) => tracing::error!("{} is damaged: {error}", connection.path().unwrap_or_default()),
        }
    }
    Ok(Arc::new(RwLock::new(origins)))
}

/// Adds committed origins to the shared table.
pub(super) fn publish(table: &OriginTable, origins: &[Origin], uris: Vec<String>) {
    let mut table = table.write().unwrap_or_else(PoisonError::into_inner);
    for (origin, uri) in origins.iter().zip(uris) {
        table.add(*origin, uri.into());
    }
}

/// Changes the URIs of origins in the shared table, after the change was committed.
pub(super) fn rename(table: &OriginTable, origins: Vec<(Origin, String)>) {
    let mut table = table.write().unwrap_or_else(PoisonError::into_inner);
    for (origin, uri) in origins {
        table.rename(origin, uri.into());
    }
}

/// Returns the URI of a committed origin.
pub(super) fn uri(table: &OriginTable, origin: Origin) -> Option<Arc<str>> {
    table.read().unwrap_or_else(PoisonError::into_inner).uri(origin)
}

/// Returns the id of a URI. Assigns a new id to an unknown URI.
pub(super) fn register(tx: &Connection, uri: &str) -> rusqlite::Result<Origin> {
    let known = tx
        .prepare_cached("SELECT id, uri, sum FROM origins WHERE uri = ?1")?
        .query_row([uri], |r| {
            checksum::verify(r, 0, 2, || format!("the origin {uri}"))?;
            Ok(Origin(r.get(0)?))
        })
        .optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    // Before version 5, the id of an origin was the hash of its URI. Stored events may refer to this id although the
    // row of the id has no URI yet. In this case, the row gets the URI.
    let hash = Origin::of(uri);
    let named = tx
        .prepare_cached("UPDATE origins SET uri = ?2, sum = sum_of(id, ?2) WHERE id = ?1 AND uri IS NULL")?
        .execute(params![hash.0, uri])?;
    if named > 0 {
        return Ok(hash);
    }
    let mut id = tx
        .prepare_cached("SELECT ifnull(MAX(id), 0) + 1 FROM origins WHERE id < ?1")?
        .query_row([NEW_ID_END], |r| r.get(0))?;
    let mut is_used = tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM origins WHERE id = ?1)")?;
    while is_used.query_row([id], |r| r.get(0))? {
        id += 1;
    }
    insert(tx, Origin(id), uri)?;
    Ok(Origin(id))
}

fn insert(tx: &Connection, origin: Origin, uri: &str) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO origins (id, uri, sum) VALUES (?1, ?2, sum_of(?1, ?2))")?
        .execute(params![origin.0, uri])?;
    Ok(())
}

//! The size of the database file and its free part, as the snapshot of a connection sees them.

use rusqlite::Connection;

pub(super) struct Space {
    pub(super) pages: i64,
    pub(super) free: i64,
    /// In bytes.
    pub(super) page_size: i64,
}

pub(super) fn space(c: &Connection) -> rusqlite::Result<Space> {
    let pragma = |name: &str| c.query_row(&format!("PRAGMA {name}"), [], |r| r.get(0));
    Ok(Space { pages: pragma("page_count")?, free: pragma("freelist_count")?, page_size: pragma("page_size")? })
}

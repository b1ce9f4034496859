//! Checksums of rows, as `schema.sql` specifies them. The store returns a row's content only when its checksum matches.
//!
//! CRC-32 detects every single flipped bit and every burst of up to 32 bits; of other damage it misses one case in four
//! billion.

use rusqlite::functions::FunctionFlags;
use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, Error, ErrorCode, Row};

/// Small values are collected in a buffer of this size and hashed together, so that most rows need one call of the
/// hasher.
const BUFFER_BYTES: usize = 512;

/// Returns the checksum of values in the given order.
pub(super) fn of_values<'a>(values: impl IntoIterator<Item = ValueRef<'a>>) -> i64 {
    let mut sum = Checksum::new();
    values.into_iter().for_each(|value| sum.add(value));
    sum.finish()
}

/// Returns the checksum of `count` columns of a row, starting at column `from`.
pub(super) fn of_row(row: &Row<'_>, from: usize, count: usize) -> rusqlite::Result<i64> {
    let mut sum = Checksum::new();
    for column in from..from + count {
        sum.add(row.get_ref(column)?);
    }
    Ok(sum.finish())
}

/// Registers the SQL function `sum_of(…)`.
pub(super) fn register_sql_function(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("sum_of", -1, flags, |context| {
        Ok(of_values((0..context.len()).map(|index| context.get_raw(index))))
    })
}

struct Checksum {
    hasher: crc32fast::Hasher,
    buffer: [u8; BUFFER_BYTES],
    used: usize,
}

impl Checksum {
    fn new() -> Self {
        Self { hasher: crc32fast::Hasher::new(), buffer: [0; BUFFER_BYTES], used: 0 }
    }

    fn add(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Null => self.push(&[0]),
            ValueRef::Integer(number) => self.tagged(1, number.to_le_bytes()),
            ValueRef::Real(number) => self.tagged(2, number.to_le_bytes()),
            ValueRef::Text(bytes) => self.bytes(3, bytes),
            ValueRef::Blob(bytes) => self.bytes(4, bytes),
        }
    }

    fn bytes(&mut self, kind: u8, bytes: &[u8]) {
        self.tagged(kind, (bytes.len() as u64).to_le_bytes());
        self.push(bytes);
    }

    fn tagged(&mut self, kind: u8, number: [u8; 8]) {
        let [a, b, c, d, e, f, g, h] = number;
        self.push(&[kind, a, b, c, d, e, f, g, h]);
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.buffer.get_mut(self.used..self.used + bytes.len()) {
            room.copy_from_slice(bytes);
            self.used += bytes.len();
            return;
        }
        self.flush();
        if bytes.len() < BUFFER_BYTES {
            self.push(bytes);
        } else {
            self.hasher.update(bytes);
        }
    }

    fn flush(&mut self) {
        self.hasher.update(self.buffer.get(..self.used).unwrap_or_default());
        self.used = 0;
    }

    fn finish(mut self) -> i64 {
        self.flush();
        self.hasher.finalize().into()
    }
}

#[derive(Debug)]
struct Damage(String);

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Damage {}

/// Returns the error for corrupt data; `what` names the data.
pub(super) fn corrupt(what: impl std::fmt::Display) -> Error {
    Error::FromSqlConversionFailure(0, Type::Null, Box::new(Damage(format!("{what} is corrupt"))))
}

/// Returns a description of the damage if damaged data caused the error: a wrong checksum, an invalid value, or a
/// corruption that SQLite reports. Returns `None` for other errors.
pub(super) fn find_damage(error: &Error) -> Option<String> {
    match error {
        Error::FromSqlConversionFailure(.., cause) if cause.is::<Damage>() => Some(cause.to_string()),
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..) => Some(format!("a stored value is invalid: {error}")),
        _ => match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Some(error.to_string()),
            _ => None,
        },
    }
}

/// If damage caused the error, adds the name of the damaged data, unless the error already has one.
pub(super) fn name_damage<T>(result: rusqlite::Result<T>, what: impl FnOnce() -> String) -> rusqlite::Result<T> {
    result.map_err(|error| match &error {
        Error::FromSqlConversionFailure(.., cause) if cause.is::<Damage>() => error,
        _ if find_damage(&error).is_some() => corrupt(format!("{} ({error})", what())),
        _ => error,
    })
}

/// Returns an error unless column `from + count` holds the checksum of the `count` columns before it.
pub(super) fn verify(row: &Row<'_>, from: usize, count: usize, what: impl FnOnce() -> String) -> rusqlite::Result<()> {
    let sum = of_row(row, from, count)?;
    if row.get_ref(from + count)? == ValueRef::Integer(sum) { Ok(()) } else { Err(corrupt(what())) }
}

/// Like [`verify`] from the first column on. Also checks that the row begins with the `expected` key, because a search
/// in a damaged page can return an undamaged row with another key.
pub(super) fn verify_with_key(
    row: &Row<'_>,
    expected: &[ValueRef<'_>],
    count: usize,
    what: impl Fn() -> String,
) -> rusqlite::Result<()> {
    verify(row, 0, count, &what)?;
    for (column, expected) in expected.iter().enumerate() {
        if row.get_ref(column)? != *expected {
            return Err(corrupt(what()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_match_the_specification() {
        let long = vec![7_u8; 3 * BUFFER_BYTES];
        let values = [
            ValueRef::Null,
            ValueRef::Integer(-2),
            ValueRef::Real(1.5),
            ValueRef::Text(b"ab"),
            ValueRef::Blob(&long),
            ValueRef::Blob(b""),
        ];
        let mut bytes = vec![0, 1];
        bytes.extend((-2_i64).to_le_bytes());
        bytes.push(2);
        bytes.extend(1.5_f64.to_le_bytes());
        bytes.push(3);
        bytes.extend(2_u64.to_le_bytes());
        bytes.extend(b"ab");
        bytes.push(4);
        bytes.extend((long.len() as u64).to_le_bytes());
        bytes.extend(&long);
        bytes.extend([4, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(of_values(values), i64::from(crc32fast::hash(&bytes)));
        assert_eq!(i64::from(crc32fast::hash(b"123456789")), 0xCBF4_3926, "this is the check value of zlib's CRC-32");
    }

    #[test]
    fn sql_and_rust_compute_the_same_checksum() {
        let connection = Connection::open_in_memory().unwrap();
        register_sql_function(&connection).unwrap();
        let in_sql: i64 = connection.query_row("SELECT sum_of(NULL, 1, 'ab', x'00ff', 1.5)", [], |r| r.get(0)).unwrap();
        let here = [
            ValueRef::Null,
            ValueRef::Integer(1),
            ValueRef::Text(b"ab"),
            ValueRef::Blob(&[0, 255]),
            ValueRef::Real(1.5),
        ];
        assert_eq!(in_sql, of_values(here));
    }
}

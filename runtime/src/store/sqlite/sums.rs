//! Checksums of rows, as `schema.sql` describes them: what a row says is handed out only when it is what was written.
//!
//! CRC-32 finds every flipped bit and every burst of up to 32; of anything else, one in four billion gets through.

use rusqlite::functions::FunctionFlags;
use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, Error, ErrorCode, Row};

/// Small values are gathered, and summed together: most rows are one call.
const GATHERED_MAX: usize = 512;

/// The sum of values in their order.
pub(super) fn sum<'a>(values: impl IntoIterator<Item = ValueRef<'a>>) -> i64 {
    let mut sum = Sum::new();
    values.into_iter().for_each(|value| sum.add(value));
    sum.finish()
}

/// The sum of a row's columns from one on, so many.
pub(super) fn of_row(row: &Row<'_>, from: usize, count: usize) -> rusqlite::Result<i64> {
    let mut sum = Sum::new();
    for column in from..from + count {
        sum.add(row.get_ref(column)?);
    }
    Ok(sum.finish())
}

/// Has SQL know `sum_of(…)`.
pub(super) fn teach(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("sum_of", -1, flags, |context| {
        Ok(sum((0..context.len()).map(|index| context.get_raw(index))))
    })
}

struct Sum {
    hasher: crc32fast::Hasher,
    gathered: [u8; GATHERED_MAX],
    used: usize,
}

impl Sum {
    fn new() -> Self {
        Self { hasher: crc32fast::Hasher::new(), gathered: [0; GATHERED_MAX], used: 0 }
    }

    fn add(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Null => self.gather(&[0]),
            ValueRef::Integer(number) => self.head(1, number.to_le_bytes()),
            ValueRef::Real(number) => self.head(2, number.to_le_bytes()),
            ValueRef::Text(bytes) => self.bytes(3, bytes),
            ValueRef::Blob(bytes) => self.bytes(4, bytes),
        }
    }

    fn bytes(&mut self, kind: u8, bytes: &[u8]) {
        self.head(kind, (bytes.len() as u64).to_le_bytes());
        self.gather(bytes);
    }

    fn head(&mut self, kind: u8, number: [u8; 8]) {
        let [a, b, c, d, e, f, g, h] = number;
        self.gather(&[kind, a, b, c, d, e, f, g, h]);
    }

    fn gather(&mut self, bytes: &[u8]) {
        if let Some(room) = self.gathered.get_mut(self.used..self.used + bytes.len()) {
            room.copy_from_slice(bytes);
            self.used += bytes.len();
            return;
        }
        self.flush();
        if bytes.len() < GATHERED_MAX {
            self.gather(bytes);
        } else {
            self.hasher.update(bytes);
        }
    }

    fn flush(&mut self) {
        self.hasher.update(self.gathered.get(..self.used).unwrap_or_default());
        self.used = 0;
    }

    fn finish(mut self) -> i64 {
        self.flush();
        self.hasher.finalize().into()
    }
}

/// What is not as it was written.
#[derive(Debug)]
struct Damage(String);

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Damage {}

/// Something, named, is not as it was written.
pub(super) fn damage(what: impl std::fmt::Display) -> Error {
    Error::FromSqlConversionFailure(0, Type::Null, Box::new(Damage(format!("{what} is not what was written"))))
}

/// What of a row is damaged, in words, when this is what an error tells of: by its sum, by a value that nobody writes, or
/// as SQLite finds it.
pub(super) fn damaged(error: &Error) -> Option<String> {
    match error {
        Error::FromSqlConversionFailure(.., cause) if cause.is::<Damage>() => Some(cause.to_string()),
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..) => Some(format!("a value is not one that was written: {error}")),
        _ => match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Some(error.to_string()),
            _ => None,
        },
    }
}

/// Says what was damaged, where an error tells that something was.
pub(super) fn naming<T>(result: rusqlite::Result<T>, what: impl FnOnce() -> String) -> rusqlite::Result<T> {
    result.map_err(|error| match &error {
        Error::FromSqlConversionFailure(.., cause) if cause.is::<Damage>() => error,
        _ if damaged(&error).is_some() => damage(format!("{} ({error})", what())),
        _ => error,
    })
}

/// `Err` when so many columns, from one on, do not have the sum that follows them.
pub(super) fn verify(row: &Row<'_>, from: usize, count: usize, what: impl FnOnce() -> String) -> rusqlite::Result<()> {
    let sum = of_row(row, from, count)?;
    if row.get_ref(from + count)? == ValueRef::Integer(sum) { Ok(()) } else { Err(damage(what())) }
}

/// The same for a row from its first column on, which has to begin with what was asked for: a page that is damaged may
/// lead to another row, which is sound.
pub(super) fn verify_asked(
    row: &Row<'_>,
    asked: &[ValueRef<'_>],
    count: usize,
    what: impl Fn() -> String,
) -> rusqlite::Result<()> {
    verify(row, 0, count, &what)?;
    for (column, asked) in asked.iter().enumerate() {
        if row.get_ref(column)? != *asked {
            return Err(damage(what()));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_that_the_schema_describes() {
        let long = vec![7_u8; 3 * GATHERED_MAX];
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
        assert_eq!(sum(values), i64::from(crc32fast::hash(&bytes)));
        assert_eq!(i64::from(crc32fast::hash(b"123456789")), 0xCBF4_3926, "the check value of zlib's CRC-32");
    }

    #[test]
    fn sql_and_the_program_agree() {
        let connection = Connection::open_in_memory().unwrap();
        teach(&connection).unwrap();
        let in_sql: i64 = connection.query_row("SELECT sum_of(NULL, 1, 'ab', x'00ff', 1.5)", [], |r| r.get(0)).unwrap();
        let here = [
            ValueRef::Null,
            ValueRef::Integer(1),
            ValueRef::Text(b"ab"),
            ValueRef::Blob(&[0, 255]),
            ValueRef::Real(1.5),
        ];
        assert_eq!(in_sql, sum(here));
    }
}

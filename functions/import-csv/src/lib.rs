//! Imports a CSV file: reads every row, and publishes `csv.imported` with the number of rows, the names of the columns
//! and the file's digest. A malformed file is rejected with the line of the mistake.

use csv::{Error, ErrorKind};
use evoke::{Draft, Failure, FileEvent, FileKind};
use serde::Serialize;

#[derive(Serialize)]
struct Imported<'a> {
    path: &'a str,
    rows: u64,
    columns: Vec<String>,
    sha256: &'a str,
}

#[evoke::function]
fn handle(file: FileEvent) -> Result<(), Failure> {
    if file.kind == FileKind::Removed {
        evoke::log::info!("{} was removed; its imported rows remain", file.path);
        return Ok(());
    }
    let content = file.bytes()?;
    let (columns, rows) =
        read(&content).map_err(|error| Failure::reject(format!("{}: {}", file.path, explain(&error))))?;
    evoke::log::info!("{}: {rows} rows of {} columns", file.path, columns.len());
    let imported = Imported { path: &file.path, rows, columns, sha256: &file.sha256 };
    evoke::publish(Draft::new("csv.imported").subject(&file.path).json(&imported)?)?;
    Ok(())
}

/// Returns the names of the columns and the number of rows after them. Every row must have every column.
fn read(content: &[u8]) -> Result<(Vec<String>, u64), Error> {
    // Spreadsheets start a file with a byte order mark, which is not part of the first column's name.
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut reader = csv::Reader::from_reader(content);
    let columns = reader.headers()?.iter().map(str::to_owned).collect();
    let mut rows = 0;
    for row in reader.records() {
        row?;
        rows += 1;
    }
    Ok((columns, rows))
}

fn explain(error: &Error) -> String {
    let line = error.position().map_or_else(String::new, |at| format!("line {}: ", at.line()));
    match error.kind() {
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{line}{len} fields, but the file has {expected_len} columns")
        }
        ErrorKind::Utf8 { err, .. } => format!("{line}{err}"),
        _ => format!("{line}{error}"),
    }
}

//! Imports a CSV file: reads every row, and publishes `csv.imported` with how many there are, the names of the
//! columns and the version's digest. A file that is no proper CSV is rejected with the line of the mistake.

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
        evoke::log::info!("{} is gone; what was imported stays", file.path);
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

/// The names of the columns, and how many rows follow. Every row has to have every column.
fn read(content: &[u8]) -> Result<(Vec<String>, u64), Error> {
    // Spreadsheets put a byte order mark in front; it is no part of the first name.
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

//! Reads `record`: `true`, `false`, or a map with limits.

use crate::parser::{Node, Reader, Table, Value};
use crate::record::Record;
use crate::source_text::Span;
use crate::units::ByteSize;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Allowed values of `max_size`. The maximum is so low that even the largest recording fits into a test file. Such a
/// file has at most 1 MiB, and bytes that are not text grow because they are written in base64.
const SIZE_RANGE: RangeInclusive<ByteSize> = ByteSize(1 << 10)..=ByteSize(512 << 10);
const KEEP_RANGE: RangeInclusive<u32> = 1..=100_000;
const TOTAL_RANGE: RangeInclusive<ByteSize> = ByteSize(1 << 10)..=ByteSize(16 << 30);
const AGE_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(366 * 86_400);

pub(super) fn record(reader: &mut Reader<'_>, node: &Node, span: Span) -> Option<Record> {
    if let Value::Scalar(_) = node.value {
        return reader.boolean(node, "`record`")?.then(Record::default);
    }
    let mut table = Table::read(reader, node, span, "Record", "`record`", "`true` or `{ keep: 200 }`")?;
    let default = Record::default();
    let max_size = table.optional(reader, "max_size").and_then(|node| reader.size(node, "`max_size`", SIZE_RANGE));
    let keep = table.optional(reader, "keep").and_then(|node| reader.integer(node, "`keep`", KEEP_RANGE));
    let max_total = table.optional(reader, "max_total").and_then(|node| reader.size(node, "`max_total`", TOTAL_RANGE));
    let max_age = table.optional(reader, "max_age").and_then(|node| reader.duration(node, "`max_age`", AGE_RANGE));
    table.reject_unknown_keys(reader, |key| match key {
        "size" | "max_bytes" => Some("did you mean `max_size`?"),
        "count" | "max_count" | "number" | "last" => Some("did you mean `keep`?"),
        "total" | "max_total_size" => Some("did you mean `max_total`?"),
        "age" | "retain" | "retention" | "ttl" => Some("did you mean `max_age`?"),
        "enabled" => Some("remove it: `record: true` or a map of limits switches the recording on"),
        _ => None,
    });
    Some(Record {
        max_size: max_size.unwrap_or(default.max_size),
        keep: keep.unwrap_or(default.keep),
        max_total: max_total.unwrap_or(default.max_total),
        max_age: max_age.unwrap_or(default.max_age),
    })
}

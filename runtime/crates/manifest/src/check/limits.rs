//! Reads the limits of an app.

use crate::model::Limits;
use crate::parser::{Node, Reader, Table};
use crate::source_text::Span;
use crate::units::ByteSize;
use std::ops::RangeInclusive;

const DESCENDANTS_RANGE: RangeInclusive<u32> = 1..=1_000_000_000;
const DESCENDANTS_BYTES_RANGE: RangeInclusive<ByteSize> = ByteSize(1 << 10)..=ByteSize(1 << 40);

pub(super) fn limits(reader: &mut Reader<'_>, node: &Node, span: Span) -> Option<Limits> {
    let example = "`{ descendants: 20000, descendants_bytes: 128MiB }`";
    let mut table = Table::read(reader, node, span, "Limits", "`limits`", example)?;
    let descendants = table.optional(reader, "descendants");
    let descendants = descendants.and_then(|node| reader.integer(node, "`descendants`", DESCENDANTS_RANGE));
    let bytes = table.optional(reader, "descendants_bytes");
    let bytes = bytes.and_then(|node| reader.size(node, "`descendants_bytes`", DESCENDANTS_BYTES_RANGE));
    table.reject_unknown_keys(reader, |key| match key {
        "events" | "descendants_max" | "max_descendants" | "chain" => Some("did you mean `descendants`?"),
        "bytes" | "size" | "descendants_bytes_max" | "descendants_size" => Some("did you mean `descendants_bytes`?"),
        "memory" | "timeout" | "concurrency" => Some("put it under the function that it limits"),
        "pending" | "pending_max" | "backlog" => {
            Some("remove it: `evoke up --pending-max` limits the backlog of all apps")
        }
        _ => None,
    });
    Some(Limits { descendants, descendants_bytes: bytes })
}

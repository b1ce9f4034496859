//! Checks the segments of a linked module: creating its instance must not fail because of a segment, and wasmtime must be
//! able to map its memory.

use super::constant::Constant;
use super::{Result, Unlinkable};

const PAGE_BYTES: u64 = 64 * 1024;
/// wasmtime maps the data of a memory if they span at most this number of bytes, or less than twice their size
/// (wasmtime-environ, `module_environ.rs`: `try_static_init`). Otherwise it copies all data of the module in each
/// attempt.
const SPAN_MAX: u64 = 16 << 20;

/// The tables and memories of the linked module, all of which members define.
#[derive(Default)]
pub(super) struct Limits {
    /// The smallest size of each table, in elements.
    pub(super) tables: Vec<u64>,
    memories: Vec<Image>,
}

/// The data of a memory.
#[derive(Default)]
struct Image {
    /// The smallest size of the memory, in bytes.
    size: u64,
    /// The addresses of the first byte of data, and after the last one.
    span: Option<(u64, u64)>,
    /// The sum of the sizes of the data.
    bytes: u64,
}

impl Limits {
    /// Adds a memory of at least this number of pages.
    pub(super) fn add_memory(&mut self, pages: u64) {
        self.memories.push(Image { size: pages.saturating_mul(PAGE_BYTES), ..Image::default() });
    }

    /// Checks that an element segment fits.
    pub(super) fn check_table(&self, table: u32, offset: &Constant, count: u64) -> Result<()> {
        let size = usize::try_from(table).ok().and_then(|table| self.tables.get(table)).ok_or(Unlinkable)?;
        if address(offset)?.saturating_add(count) <= *size { Ok(()) } else { Err(Unlinkable) }
    }

    /// Checks that a data segment fits.
    pub(super) fn add_data(&mut self, memory: u32, offset: &Constant, bytes: u64) -> Result<()> {
        let image = usize::try_from(memory).ok().and_then(|memory| self.memories.get_mut(memory)).ok_or(Unlinkable)?;
        let start = address(offset)?;
        let end = start.saturating_add(bytes);
        if end > image.size {
            return Err(Unlinkable);
        }
        if bytes > 0 {
            let (first, last) = image.span.unwrap_or((start, end));
            image.span = Some((first.min(start), last.max(end)));
            image.bytes += bytes;
        }
        Ok(())
    }

    /// Checks that wasmtime maps the data of each memory.
    pub(super) fn check_images(&self) -> Result<()> {
        let is_mapped = |image: &Image| {
            let span = image.span.map_or(0, |(first, last)| last - first);
            span < SPAN_MAX || span < image.bytes.saturating_mul(2)
        };
        if self.memories.iter().all(is_mapped) { Ok(()) } else { Err(Unlinkable) }
    }
}

fn address(offset: &Constant) -> Result<u64> {
    match offset {
        Constant::I32(address) => Ok(u64::from(address.cast_unsigned())),
        Constant::I64(_) | Constant::Other(_) => Err(Unlinkable),
    }
}

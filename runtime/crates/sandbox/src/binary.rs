//! Parses the sections of a WebAssembly binary, to count its functions before anything is compiled: each function costs
//! the compiler about 4 KiB and 100 µs even if it is empty, so a component of a few MB could otherwise take gigabytes.
//!
//! The binary format is a list of sections, each with an id byte, a LEB128 size and a body (WebAssembly core 5.5.2;
//! component model, `Binary.md`). Parsing stops at malformed input without an error; the compiler reports it.

/// The ids of sections (WebAssembly core 5.5.2; component model, `Binary.md`).
pub(crate) mod section_id {
    // of core modules
    pub(crate) const CUSTOM: u8 = 0;
    pub(crate) const TYPES: u8 = 1;
    pub(crate) const IMPORTS: u8 = 2;
    pub(crate) const FUNCTIONS: u8 = 3;
    pub(crate) const MEMORIES: u8 = 5;
    pub(crate) const GLOBALS: u8 = 6;
    pub(crate) const EXPORTS: u8 = 7;
    pub(crate) const START: u8 = 8;
    pub(crate) const CODE: u8 = 10;
    pub(crate) const DATA: u8 = 11;
    pub(crate) const DATA_COUNT: u8 = 12;
    pub(crate) const TAGS: u8 = 13;
    // of components
    pub(crate) const CORE_MODULE: u8 = 1;
    pub(crate) const CORE_INSTANCES: u8 = 2;
    pub(crate) const COMPONENT: u8 = 4;
    pub(crate) const INSTANCES: u8 = 5;
    pub(crate) const ALIASES: u8 = 6;
    pub(crate) const COMPONENT_TYPES: u8 = 7;
    pub(crate) const CANONICAL_FUNCTIONS: u8 = 8;
    pub(crate) const COMPONENT_IMPORTS: u8 = 10;
    pub(crate) const COMPONENT_EXPORTS: u8 = 11;
}
use section_id::{CANONICAL_FUNCTIONS, COMPONENT, CORE_MODULE, DATA, FUNCTIONS};

/// Returns the number of functions of a binary module or component. For a component: the functions of all core modules
/// in it, and its conversions between core functions and component functions.
pub(super) fn function_count(component: &[u8]) -> u64 {
    let count_in = |part| {
        let id = if is_module(part) { FUNCTIONS } else { CANONICAL_FUNCTIONS };
        let lists = sections(part).filter(move |section| section.id == id);
        lists.map(|list| leb128(list.body).map_or(0, |(n, _)| n)).fold(0, u64::saturating_add)
    };
    parts(component).into_iter().map(count_in).fold(0, u64::saturating_add)
}

/// Returns the size of the data of all core modules in a binary module or component, in bytes.
pub(super) fn data_bytes(component: &[u8]) -> u64 {
    let modules = parts(component).into_iter().filter(|part| is_module(part));
    modules.flat_map(sections).filter(|section| section.id == DATA).map(|data| data.body.len() as u64).sum()
}

/// Returns true for a core module, false for a component.
pub(super) fn is_module(part: &[u8]) -> bool {
    part.get(6) != Some(&1)
}

/// Returns a module or component, followed by all modules and components nested in it at any depth.
pub(super) fn parts(component: &[u8]) -> Vec<&[u8]> {
    let mut parts = vec![component];
    let mut next = 0;
    while let Some(&part) = parts.get(next) {
        if !is_module(part) {
            let nested = |section: &Section<'_>| matches!(section.id, CORE_MODULE | COMPONENT);
            parts.extend(sections(part).filter(nested).map(|section| section.body));
        }
        next += 1;
    }
    parts
}

/// A section of a module or component.
pub(super) struct Section<'a> {
    pub(super) id: u8,
    pub(super) body: &'a [u8],
    /// Offset of the body in its module or component.
    pub(super) start: usize,
}

/// Iterates over the sections, up to the first malformed one.
pub(super) fn sections(bytes: &[u8]) -> impl Iterator<Item = Section<'_>> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (id, body, after) = section(rest)?;
        rest = after;
        Some(Section { id, body, start: bytes.len() - after.len() - body.len() })
    })
}

/// Returns the body of the first section with this id in a module or component.
pub(super) fn body(part: &[u8], id: u8) -> Option<&[u8]> {
    sections(part).find(|section| section.id == id).map(|section| section.body)
}

fn section(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (id, rest) = bytes.split_first()?;
    let (size, rest) = leb128(rest)?;
    let (body, after) = rest.split_at_checked(usize::try_from(size).ok()?)?;
    Some((*id, body, after))
}

pub(super) fn find_bytes(body: &[u8], bytes: &[u8]) -> Option<usize> {
    body.windows(bytes.len()).position(|window| window == bytes)
}

/// Parses an unsigned 32-bit number. Returns the number and the remaining bytes.
pub(super) fn leb128(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(at + 1..)?));
        }
    }
    None
}

/// Adds an entry at the end of a section that is a list.
pub(super) fn append(body: &[u8], entry: &[u8]) -> Option<Vec<u8>> {
    let (count, rest) = leb128(body)?;
    Some([&unsigned(count + 1), rest, entry].concat())
}

/// Encodes an unsigned number in LEB128.
pub(super) fn unsigned(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section_of(id: u8, body: &[u8]) -> Vec<u8> {
        let size = body.len() as u32;
        let leb = [size as u8 & 0x7f | 0x80, (size >> 7) as u8 & 0x7f | 0x80, (size >> 14) as u8 & 0x7f];
        [&[id], &leb[..], body].concat()
    }

    #[test]
    fn functions_of_nested_modules_and_conversions_are_counted() {
        let module = [&b"\0asm\x01\0\0\0"[..], &section_of(3, b"\xc0\x84\x3d\0\0")].concat();
        let inner = [&b"\0asm\x0d\0\x01\0"[..], &section_of(1, &module), &section_of(8, b"\x02")].concat();
        let outer = [&b"\0asm\x0d\0\x01\0"[..], &section_of(1, &module), &section_of(4, &inner)].concat();
        assert_eq!(function_count(&outer), 2_000_002);
    }

    #[test]
    fn data_of_nested_modules_is_added() {
        let module = [&b"\0asm\x01\0\0\0"[..], &section_of(11, &[0; 300])].concat();
        let inner = [&b"\0asm\x0d\0\x01\0"[..], &section_of(1, &module)].concat();
        let outer = [&b"\0asm\x0d\0\x01\0"[..], &section_of(1, &module), &section_of(4, &inner)].concat();
        assert_eq!((data_bytes(&module), data_bytes(&outer)), (300, 600));
    }

    #[test]
    fn counting_stops_at_malformed_input() {
        for bytes in [&b""[..], b"\0asm", b"\0asm\x0d\0\x01\0\x01\xff\xff\xff\xff\xff", b"\0asm\x0d\0\x01\0\x01\x09\0"]
        {
            assert_eq!(function_count(bytes), 0);
        }
    }
}

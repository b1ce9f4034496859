//! Reserves memory for the adapter in a program of Go.
//!
//! wasmtime's adapter implements the imports of WASI 0.1. The adapter needs two pages of the program's memory. It gets
//! them through `cabi_realloc` if the program exports this function, otherwise through `memory.grow`. Go's allocator
//! (`runtime/mem_wasm.go`) assumes that it owns all memory beyond the program's data, even pages that other code has
//! added, and would overwrite those pages. So the program gets a `cabi_realloc` that returns pages between its data and
//! the start of Go's heap. The heap starts at the address in the field `end` of `runtime.firstmoduledata`
//! (`runtime/symtab.go`). This address is raised by the size of the two pages.

use super::super::binary::section_id::{CODE, CUSTOM, DATA, EXPORTS, FUNCTIONS, GLOBALS, IMPORTS, MEMORIES, TYPES};
use super::super::binary::{Section, append, body, leb128, sections, unsigned};

const PAGE: u64 = 64 * 1024;
/// Limit on the pages of a memory with addresses of 32 bits.
const PAGES_MAX: u64 = 65_536;
/// The size of the pages for the adapter, in bytes: one for its state, and one for its stack.
const RESERVED: u64 = 2 * PAGE;
/// The memory that Go's linker declares is larger than `end` by this many bytes.
const SLACK: u64 = 1 << 20;
/// Go's data begins at this address or a higher one, because the linker keeps the addresses below free.
const DATA_MIN: u64 = 12_288;

/// The fields of `runtime.moduledata` from `noptrdata` to `end`, each an address of 8 bytes.
const FIELDS: usize = 11;
const FIELD_BYTES: usize = 8;

/// Returns true for a program that Go's own toolchain built. Go's linker adds the section `go:buildid`.
pub(crate) fn is_program(module: &[u8]) -> bool {
    sections(module).any(|section| section.id == CUSTOM && section.body.starts_with(b"\x0ago:buildid"))
}

/// Returns the memory section of a program or a library with `more` pages added to the declared size. Returns `None` if
/// its layout is not that of Go's linker, or if it limits its memory to a lower size.
pub(crate) fn memory_with_more_pages(module: &[u8], more: u64) -> Option<Vec<u8>> {
    if !is_program(module) {
        return None;
    }
    imported_functions(body(module, IMPORTS).unwrap_or(&[0]))?;
    let memory = body(module, MEMORIES)?;
    let pages = pages_min(memory)?;
    find_end(&sections(module).find(|section| section.id == DATA)?, pages)?;
    // The flag 1: the size is followed by its maximum.
    let max = if memory.get(1)? & 1 == 0 { PAGES_MAX } else { leb128(leb128(memory.get(2..)?)?.1)?.0 };
    if pages + more <= max { memories(memory, pages + more) } else { None }
}

/// Returns the program with memory for the adapter. The program must be valid. Returns `None` if its layout is not that
/// of Go's linker.
pub(super) fn with_reserved_memory(module: &[u8]) -> Option<Vec<u8>> {
    let pages = pages_min(body(module, MEMORIES)?)?;
    let data = sections(module).find(|section| section.id == DATA)?;
    let (at, end) = find_end(&data, pages)?;
    let reserved = end.next_multiple_of(PAGE);
    let (types, globals) = (count(body(module, TYPES)?)?, count(body(module, GLOBALS)?)?);
    let functions = imported_functions(body(module, IMPORTS)?)? + count(body(module, FUNCTIONS)?)?;

    let mut new = module.get(..8)?.to_vec();
    for Section { id, body, start } in sections(module) {
        let body = match id {
            TYPES => append(body, &[0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f])?,
            FUNCTIONS => append(body, &unsigned(types))?,
            MEMORIES => memories(body, pages + RESERVED / PAGE)?,
            // A mutable i32: the next free address.
            GLOBALS => append(body, &[&[0x7f, 1, 0x41], &*signed(reserved), &[0x0b]].concat())?,
            EXPORTS => append(body, &[b"\x0ccabi_realloc\x00", &*unsigned(functions)].concat())?,
            CODE => append(body, &realloc(globals, reserved + RESERVED))?,
            DATA => {
                let mut body = body.to_vec();
                let field = body.get_mut(at - start..)?.get_mut(..FIELD_BYTES)?;
                field.copy_from_slice(&(end + RESERVED).to_le_bytes());
                body
            }
            _ => body.to_vec(),
        };
        new.push(id);
        new.extend(unsigned(body.len() as u64));
        new.extend(body);
    }
    Some(new)
}

/// Returns the code of the function `cabi_realloc(old, old-size, align, size)`. The function returns the address of
/// `size` more bytes, or traps if they would end after `limit`. Nothing is freed: the adapter calls the function only a
/// few times, and only to allocate.
fn realloc(global: u64, limit: u64) -> Vec<u8> {
    let global = unsigned(global);
    let get = [&[0x23], &*global].concat();
    let set = [&[0x24], &*global].concat();
    let code = [
        // A local for the result.
        &[1, 1, 0x7f][..],
        &get,
        &[0x21, 4],
        // next = (next + size + 15) & -16
        &get,
        &[0x20, 3, 0x6a, 0x41, 15, 0x6a, 0x41, 0x70, 0x71],
        &set,
        // if size > RESERVED || next > limit { unreachable }
        &[0x20, 3, 0x41],
        &signed(RESERVED),
        &[0x4b],
        &get,
        &[0x41],
        &signed(limit),
        &[0x4b, 0x72, 0x04, 0x40, 0x00, 0x0b],
        &[0x20, 4, 0x0b],
    ]
    .concat();
    [unsigned(code.len() as u64), code].concat()
}

/// Returns the offset of the field `end` in the module, and its value.
fn find_end(data: &Section<'_>, pages: u64) -> Option<(usize, u64)> {
    let (segments, mut rest) = leb128(data.body)?;
    for _ in 0..segments {
        // An active segment of memory 0 with a constant address.
        let after = rest.strip_prefix(&[0x00, 0x41])?;
        let (address, after) = leb128(after)?;
        let (size, after) = leb128(after.strip_prefix(&[0x0b])?)?;
        let (bytes, after) = after.split_at_checked(usize::try_from(size).ok()?)?;
        let start = data.start + data.body.len() - after.len() - bytes.len();
        let aligned = usize::try_from(address.next_multiple_of(FIELD_BYTES as u64) - address).ok()?;
        let candidates = bytes.get(aligned..).unwrap_or_default();
        for (index, window) in candidates.windows(FIELDS * FIELD_BYTES).step_by(FIELD_BYTES).enumerate() {
            if let Some(end) = end_of(window, pages) {
                return Some((start + aligned + (index + FIELDS - 1) * FIELD_BYTES, end));
            }
        }
        rest = after;
    }
    None
}

/// Returns the field `end` if `fields` has the fields from `noptrdata` to `end`. The fields are recognized by these
/// signs: no address is lower than [`DATA_MIN`] or than the previous one, the field `enoptrbss` equals the field `end`,
/// and the declared memory has the size that the linker computes from `end`.
fn end_of(fields: &[u8], pages: u64) -> Option<u64> {
    let mut addresses = fields.chunks_exact(FIELD_BYTES).map(|bytes| bytes.try_into().map_or(0, u64::from_le_bytes));
    let addresses: [u64; FIELDS] = std::array::from_fn(|_| addresses.next().unwrap_or_default());
    let [first, .., last_data, _, _, end] = addresses;
    let is_rising = addresses.is_sorted() && first >= DATA_MIN && last_data == end;
    (is_rising && end.checked_add(SLACK)? / PAGE == pages).then_some(end)
}

fn count(body: &[u8]) -> Option<u64> {
    leb128(body).map(|(count, _)| count)
}

/// Returns the number of imports if all of them are functions.
pub(crate) fn imported_functions(body: &[u8]) -> Option<u64> {
    let (count, mut rest) = leb128(body)?;
    for _ in 0..count {
        for _ in 0..2 {
            let (length, after) = leb128(rest)?;
            rest = after.get(usize::try_from(length).ok()?..)?;
        }
        rest = leb128(rest.strip_prefix(&[0x00])?)?.1;
    }
    Some(count)
}

/// Returns the declared size of the only memory, in pages.
fn pages_min(body: &[u8]) -> Option<u64> {
    let (pages, _) = leb128(body.strip_prefix(&[1])?.get(1..)?)?;
    Some(pages)
}

/// Returns the memory section with the declared size changed to `pages`.
fn memories(body: &[u8], pages: u64) -> Option<Vec<u8>> {
    let (head, rest) = body.split_at_checked(2)?;
    Some([head, &unsigned(pages), leb128(rest)?.1].concat())
}

/// Encodes the operand of `i32.const`, which is signed: the sign bit of the last byte must be free.
fn signed(number: u64) -> Vec<u8> {
    let mut bytes = unsigned(number);
    if let Some(last) = bytes.last_mut().filter(|last| **last & 0x40 != 0) {
        *last |= 0x80;
        bytes.push(0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use wasmtime::{Config, Engine, Instance, Module, Store};

    use super::*;

    /// A module whose layout is that of Go's linker, and whose data ends at `end`.
    fn program(end: u64, pages: u64) -> Vec<u8> {
        program_with("go:buildid", end, &pages.to_string())
    }

    fn program_with(custom: &str, end: u64, pages: &str) -> Vec<u8> {
        let addresses = [0x5000, 0x6000, 0x6000, 0x7000, 0x7000, 0x8000, 0x8000, end, end, end, end];
        let fields: String = addresses
            .iter()
            .flat_map(|address: &u64| address.to_le_bytes())
            .map(|byte| format!("\\{byte:02x}"))
            .collect();
        let text = format!(
            r#"(module (@custom "{custom}" "x")
                (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
                (memory (export "memory") {pages}) (global $sp (mut i32) (i32.const 7))
                (func (export "_start") (drop (call $write (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))))
                (func (export "sp") (result i32) (global.get $sp))
                (data (i32.const 20482) "\01\02\03\04\05\06\07\08\09") (data (i32.const 24577) "\00\00\00\00\00\00\00{fields}"))"#
        );
        wat::parse_str(text).unwrap()
    }

    #[test]
    fn the_adapter_gets_the_pages_between_data_and_heap() {
        for (end, pages) in [(0x2_0000, 18), (0x12_b088, 34), (0x20_0001, 48)] {
            let module = program(end, pages);
            assert!(is_program(&module));
            let new = with_reserved_memory(&module).unwrap();
            let engine = Engine::new(Config::new().gc_support(false)).unwrap();
            let module = Module::new(&engine, &new).unwrap();
            let mut store = Store::new(&engine, ());
            let imports = module.imports().map(|import| {
                let ty = import.ty().unwrap_func().clone();
                wasmtime::Func::new(&mut store, ty, |_, _, _| Ok(())).into()
            });
            let imports: Vec<_> = imports.collect();
            let instance = Instance::new(&mut store, &module, &imports).unwrap();
            let memory = instance.get_memory(&mut store, "memory").unwrap();
            assert_eq!(memory.size(&store), pages + 2);
            let at = 24_577 + 7 + 80;
            let raised = u64::from_le_bytes(memory.data(&store)[at..at + 8].try_into().unwrap());
            assert_eq!(raised, end + RESERVED);
            let realloc = instance.get_typed_func::<(i32, i32, i32, i32), i32>(&mut store, "cabi_realloc").unwrap();
            let first = end.next_multiple_of(PAGE);
            for (size, expected) in [(65_536, first), (65_521, first + PAGE)] {
                let address = realloc.call(&mut store, (0, 0, 8, size)).unwrap();
                assert_eq!(address as u64, expected);
                assert!(expected >= end && expected + PAGE <= raised.next_multiple_of(PAGE));
            }
            realloc.call(&mut store, (0, 0, 8, 1)).unwrap_err();
            realloc.call(&mut store, (0, 0, 8, -1)).unwrap_err();
            let sp = instance.get_typed_func::<(), i32>(&mut store, "sp").unwrap();
            assert_eq!(sp.call(&mut store, ()).unwrap(), 7);
        }
    }

    #[test]
    fn another_layout_is_noticed() {
        assert!(with_reserved_memory(&program(0x2_0000, 19)).is_none());
        assert!(with_reserved_memory(&program(0x7000, 16)).is_none(), "addresses fall");
        let module = wat::parse_str(r#"(module (memory 1) (data (i32.const 0) "x"))"#).unwrap();
        assert!(!is_program(&module) && with_reserved_memory(&module).is_none());
        let whole = program(0x2_0000, 18);
        for end in 0..whole.len() {
            let _ = with_reserved_memory(&whole[..end]);
        }
    }

    #[test]
    fn pages_are_added_to_the_memory_of_a_program() {
        for (limits, expected) in [("18", "31"), ("18 31", "31 31"), ("18 65536", "31 65536")] {
            let expected = program_with("go:buildid", 0x2_0000, expected);
            let expected = sections(&expected).find(|section| section.id == MEMORIES).unwrap().body.to_vec();
            assert_eq!(memory_with_more_pages(&program_with("go:buildid", 0x2_0000, limits), 13), Some(expected));
        }
    }

    #[test]
    fn no_pages_are_added_to_other_modules_and_beyond_the_maximum() {
        for (custom, limits) in [("other", "18"), ("go:buildid", "19"), ("go:buildid", "18 30")] {
            assert!(memory_with_more_pages(&program_with(custom, 0x2_0000, limits), 13).is_none());
        }
        let whole = program(0x2_0000, 18);
        for end in 0..whole.len() {
            let _ = memory_with_more_pages(&whole[..end], 13);
        }
    }
}

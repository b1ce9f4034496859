//! Divides operations on large parts of memory into steps, so that the time limit of an attempt can end them.
//!
//! wasmtime runs each `memory.fill`, `memory.copy` and `memory.init` as one host call, which cannot be interrupted:
//! filling 4 GiB takes seconds. So each of these instructions is replaced by a call of a function that is added to the
//! same module. This function handles [`PART_BYTES`] at a time in a loop, and wasmtime checks the time in each
//! iteration. Everything else in the component stays as it is, byte for byte.
//!
//! Other operations are short enough: a `memory.init` of a data segment of at most [`PART_BYTES`], and operations on
//! tables, which handle at most 65,536 elements. Operations on arrays need a proposal that is off (`proposals.rs`).

use std::borrow::Cow;

use wasmparser::{BinaryReader, CodeSectionReader, DataSectionReader, ImportSectionReader, Operator, TypeRef};

use super::super::binary::section_id::{CODE, COMPONENT, CORE_MODULE, DATA, FUNCTIONS, IMPORTS, TYPES};
use super::super::binary::{Section, append, is_module, leb128, sections, unsigned};

/// Size of the part of memory that one step fills or copies, in bytes. A step takes less than a millisecond, even if
/// the operating system must first allocate all of its pages.
const PART_BYTES: u32 = 1 << 20;
/// Limit on the depth of nested components. wasmparser has the same limit.
pub(super) const DEPTH_MAX: usize = 100;

const CALL: u8 = 0x10;

/// An operation that is divided, with the indexes of the memories that it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bulk {
    Fill {
        memory: u32,
    },
    Copy {
        to: u32,
        from: u32,
    },
    /// Only for a data segment of more than [`PART_BYTES`]. A component has few such segments, because its file has a
    /// size limit. So few functions are added.
    Init {
        memory: u32,
        segment: u32,
        segment_bytes: usize,
    },
}

/// Returns the component with each `memory.fill`, `memory.copy` and long `memory.init` divided into steps. Returns
/// `None` if `component` is malformed.
pub(super) fn divided(component: &[u8]) -> Option<Cow<'_, [u8]>> {
    map_modules(component, &mut module)
}

/// Returns a component with each of its core modules, at any depth, replaced by the result of `change`. Returns `None`
/// if `part` is malformed or `change` returns `None`.
pub(super) fn map_modules<'a>(part: &'a [u8], change: &mut Change<'a, '_>) -> Option<Cow<'a, [u8]>> {
    map_to_depth(part, change, DEPTH_MAX)
}

type Change<'a, 'f> = dyn FnMut(&'a [u8]) -> Option<Cow<'a, [u8]>> + 'f;

fn map_to_depth<'a>(part: &'a [u8], change: &mut Change<'a, '_>, depth: usize) -> Option<Cow<'a, [u8]>> {
    if is_module(part) {
        return change(part);
    }
    let mut is_changed = false;
    let mut bodies = Vec::new();
    for section in all_sections(part)? {
        let body = match section.id {
            CORE_MODULE | COMPONENT => map_to_depth(section.body, change, depth.checked_sub(1)?)?,
            _ => Cow::Borrowed(section.body),
        };
        is_changed |= matches!(body, Cow::Owned(_));
        bodies.push((section.id, body));
    }
    if is_changed { joined(part, bodies).map(Cow::Owned) } else { Some(Cow::Borrowed(part)) }
}

fn module(module: &[u8]) -> Option<Cow<'_, [u8]>> {
    let all = all_sections(module)?;
    let body = |id| all.iter().find(|section| section.id == id).map(|section| section.body);
    let Some(code) = body(CODE) else { return Some(Cow::Borrowed(module)) };
    let mut added = Vec::new();
    let found = find(code, &segment_sizes(body(DATA))?, &mut added)?;
    if found.iter().all(|function| function.bulks.is_empty()) {
        return Some(Cow::Borrowed(module));
    }
    let first_type = leb128(body(TYPES)?)?.0;
    let first = imported_functions(body(IMPORTS))? + leb128(body(FUNCTIONS)?)?.0;
    let mut bodies = Vec::new();
    for section in &all {
        let body = match section.id {
            // (i32, i32, i32) -> ()
            TYPES => Cow::Owned(append(section.body, &[0x60, 3, 0x7f, 0x7f, 0x7f, 0])?),
            FUNCTIONS => {
                let add = |body: Vec<u8>, _: &Bulk| append(&body, &unsigned(first_type));
                Cow::Owned(added.iter().try_fold(section.body.to_vec(), add)?)
            }
            CODE => Cow::Owned(with_calls(section.body, &found, &added, first)?),
            _ => Cow::Borrowed(section.body),
        };
        bodies.push((section.id, body));
    }
    joined(module, bodies).map(Cow::Owned)
}

/// A function in a code section, with the positions of its code.
struct Found {
    start: usize,
    end: usize,
    /// For each operation to divide in the function: the position of its first byte, the position after its last byte,
    /// and the index in the list of added functions.
    bulks: Vec<(usize, usize, usize)>,
}

/// Returns the size of each data segment, in bytes.
fn segment_sizes(data: Option<&[u8]>) -> Option<Vec<usize>> {
    let Some(data) = data else { return Some(Vec::new()) };
    let segments = DataSectionReader::new(BinaryReader::new(data, 0)).ok()?;
    segments.into_iter().map(|segment| Some(segment.ok()?.data.len())).collect()
}

/// Finds each operation to divide in a code section. Adds each different operation to `added` once.
fn find(code: &[u8], segments: &[usize], added: &mut Vec<Bulk>) -> Option<Vec<Found>> {
    let mut found = Vec::new();
    for function in CodeSectionReader::new(BinaryReader::new(code, 0)).ok()? {
        let function = function.ok()?;
        let mut bulks = Vec::new();
        let mut operators = function.get_operators_reader().ok()?;
        while !operators.eof() {
            let (operator, start) = operators.read_with_offset().ok()?;
            let bulk = match operator {
                Operator::MemoryFill { mem } => Bulk::Fill { memory: mem },
                Operator::MemoryCopy { dst_mem, src_mem } => Bulk::Copy { to: dst_mem, from: src_mem },
                Operator::MemoryInit { data_index: segment, mem: memory } => {
                    let size = usize::try_from(segment).ok().and_then(|index| segments.get(index));
                    match size.filter(|size| **size > PART_BYTES as usize) {
                        Some(&segment_bytes) => Bulk::Init { memory, segment, segment_bytes },
                        None => continue,
                    }
                }
                _ => continue,
            };
            let at = added.iter().position(|other| *other == bulk).unwrap_or_else(|| {
                added.push(bulk);
                added.len() - 1
            });
            bulks.push((start, operators.original_position(), at));
        }
        let range = function.range();
        found.push(Found { start: range.start, end: range.end, bulks });
    }
    Some(found)
}

/// Returns a code section with calls in place of the operations. The called functions are added at the end of the
/// section; the first of them has the index `first` in the module.
fn with_calls(code: &[u8], found: &[Found], added: &[Bulk], first: u64) -> Option<Vec<u8>> {
    let mut new = unsigned((found.len() + added.len()) as u64);
    for Found { start, end, bulks } in found {
        let (mut body, mut at) = (Vec::with_capacity(end - start), *start);
        for (from, to, index) in bulks {
            body.extend(code.get(at..*from)?);
            body.push(CALL);
            body.extend(unsigned(first + *index as u64));
            at = *to;
        }
        body.extend(code.get(at..*end)?);
        new.extend(unsigned(body.len() as u64));
        new.extend(body);
    }
    for bulk in added {
        let module = wat::parse_str(bulk.text()).ok()?;
        let code = sections(&module).find(|section| section.id == CODE)?;
        // The section is a list: the number of functions, which is 1, and then that function.
        new.extend(code.body.strip_prefix(&[1])?);
    }
    Some(new)
}

impl Bulk {
    /// Returns a module with a function that handles [`PART_BYTES`] at a time. If the operation is out of bounds, it is
    /// not divided, so that it traps before it writes anything.
    fn text(self) -> String {
        let ends_after = |address: &str, bytes: &str| {
            format!(
                "(i64.gt_u (i64.add (i64.extend_i32_u (local.get {address})) (i64.extend_i32_u (local.get $count)))
                    {bytes})"
            )
        };
        let out_of_bounds = |address: &str, memory: u32| {
            ends_after(address, &format!("(i64.shl (i64.extend_i32_u (memory.size {memory})) (i64.const 16))"))
        };
        let add = |name: &str, sign: &str| {
            format!("(local.set {name} (i32.{sign} (local.get {name}) (i32.const {PART_BYTES})))")
        };
        let again = format!("(br_if $again (i32.gt_u (local.get $count) (i32.const {PART_BYTES})))");
        let small = format!("(br_if $rest (i32.le_u (local.get $count) (i32.const {PART_BYTES})))");
        let (memories, body) = match self {
            Self::Fill { memory } => {
                let (outside, next, less) = (out_of_bounds("$to", memory), add("$to", "add"), add("$count", "sub"));
                let body = format!(
                    "(func (param $to i32) (param $value i32) (param $count i32)
                        (block $rest {small} (br_if $rest {outside})
                            (loop $again
                                (memory.fill {memory} (local.get $to) (local.get $value) (i32.const {PART_BYTES}))
                                {next} {less} {again}))
                        (memory.fill {memory} (local.get $to) (local.get $value) (local.get $count)))"
                );
                (memory, body)
            }
            Self::Copy { to, from } => {
                let (outside_to, outside_from) = (out_of_bounds("$to", to), out_of_bounds("$from", from));
                let (next_to, next_from, less) = (add("$to", "add"), add("$from", "add"), add("$count", "sub"));
                // If the two parts of memory overlap, the direction of the loop ensures that each byte is copied before
                // it is overwritten.
                let body = format!(
                    "(func (param $to i32) (param $from i32) (param $count i32)
                        (block $rest {small} (br_if $rest {outside_to}) (br_if $rest {outside_from})
                            (if (i32.le_u (local.get $to) (local.get $from))
                                (then (loop $again
                                    (memory.copy {to} {from} (local.get $to) (local.get $from) (i32.const {PART_BYTES}))
                                    {next_to} {next_from} {less} {again}))
                                (else (loop $again
                                    {less}
                                    (memory.copy {to} {from}
                                        (i32.add (local.get $to) (local.get $count))
                                        (i32.add (local.get $from) (local.get $count))
                                        (i32.const {PART_BYTES}))
                                    {again}))))
                        (memory.copy {to} {from} (local.get $to) (local.get $from) (local.get $count)))"
                );
                (to.max(from), body)
            }
            // A segment that was dropped has no bytes. Then the first part traps before anything is written.
            Self::Init { memory, segment, segment_bytes } => {
                let outside_to = out_of_bounds("$to", memory);
                let outside_from = ends_after("$from", &format!("(i64.const {segment_bytes})"));
                let (next_to, next_from, less) = (add("$to", "add"), add("$from", "add"), add("$count", "sub"));
                let body = format!(
                    "(func (param $to i32) (param $from i32) (param $count i32)
                        (block $rest {small} (br_if $rest {outside_to}) (br_if $rest {outside_from})
                            (loop $again
                                (memory.init {memory} {segment}
                                    (local.get $to) (local.get $from) (i32.const {PART_BYTES}))
                                {next_to} {next_from} {less} {again}))
                        (memory.init {memory} {segment} (local.get $to) (local.get $from) (local.get $count)))"
                );
                (memory, body)
            }
        };
        format!("(module {} {body})", "(memory 0)".repeat(memories as usize + 1))
    }
}

fn imported_functions(imports: Option<&[u8]>) -> Option<u64> {
    let Some(imports) = imports else { return Some(0) };
    let mut count = 0;
    for import in ImportSectionReader::new(BinaryReader::new(imports, 0)).ok()?.into_imports() {
        count += u64::from(matches!(import.ok()?.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)));
    }
    Some(count)
}

/// Returns all sections of a module or component. Returns `None` if `part` has bytes that do not belong to a section.
pub(super) fn all_sections(part: &[u8]) -> Option<Vec<Section<'_>>> {
    let all: Vec<_> = sections(part).collect();
    let end = all.last().map_or(8, |last| last.start + last.body.len());
    (end == part.len()).then_some(all)
}

/// Returns the header of `part` (a module or component), followed by these sections.
pub(super) fn joined(part: &[u8], sections: Vec<(u8, Cow<'_, [u8]>)>) -> Option<Vec<u8>> {
    let mut new = part.get(..8)?.to_vec();
    for (id, body) in sections {
        new.push(id);
        new.extend(unsigned(body.len() as u64));
        new.extend_from_slice(&body);
    }
    Some(new)
}

#[cfg(test)]
mod tests {
    use wasmtime::{Config, Engine, Instance, Module, Store};

    use super::super::super::binary;
    use super::*;

    const PART: i32 = PART_BYTES as i32;
    const SIZE: i32 = 5 * PART;

    /// Runs the exported operation `name` of a module. Returns the content of the two memories, and a flag that is true
    /// if the operation trapped.
    fn run(module: &[u8], name: &str, arguments: (i32, i32, i32)) -> (bool, Vec<u8>) {
        let engine = Engine::new(Config::new().gc_support(false)).unwrap();
        let mut store = Store::new(&engine, ());
        let instance = Instance::new(&mut store, &Module::new(&engine, module).unwrap(), &[]).unwrap();
        for name in ["a", "b"] {
            let memory = instance.get_memory(&mut store, name).unwrap();
            let bytes = memory.data_mut(&mut store).iter_mut().enumerate();
            bytes.for_each(|(at, byte)| *byte = (at % 251) as u8 ^ (at >> 16) as u8);
        }
        let operation = instance.get_typed_func::<(i32, i32, i32), ()>(&mut store, name).unwrap();
        let has_trapped = operation.call(&mut store, arguments).is_err();
        let memories = ["a", "b"].map(|name| instance.get_memory(&mut store, name).unwrap().data(&store).to_vec());
        (has_trapped, memories.concat())
    }

    #[test]
    fn divided_operations_have_the_result_of_whole_ones() {
        let text = r#"(module
            (func $before (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3)))
            (memory (export "a") 80) (memory (export "b") 80)
            (func (export "fill") (param i32 i32 i32)
                (memory.fill (local.get 0) (local.get 1) (local.get 2)) (drop (call $before (i32.const 1))))
            (func (export "copy") (param i32 i32 i32) (memory.copy (local.get 0) (local.get 1) (local.get 2)))
            (func (export "across") (param i32 i32 i32)
                (memory.copy 1 0 (local.get 0) (local.get 1) (local.get 2))
                (memory.fill 1 (i32.const 7) (i32.const 9) (i32.const 2))))"#;
        let whole = wat::parse_str(text).unwrap();
        let divided = divided(&whole).unwrap();
        assert_ne!(*divided, *whole);
        for arguments in [
            (0, 300, 0),
            (5, 7, 1),
            (3, 100, PART),
            (3, 100, PART + 1),
            (100, 3, PART + 1),
            (0, 1, 4 * PART + 17),
            (1, 0, 4 * PART + 17),
            (PART / 2, 9, 3 * PART),
            (9, PART / 2, 3 * PART),
            (0, 0, SIZE),
            (SIZE, SIZE, 0),
            (SIZE, 0, 1),
            (0, 1, SIZE),
            (1, 0, SIZE),
            (SIZE - PART, 0, 2 * PART),
            (-1, 0, PART + 1),
            (0, -PART, 2 * PART),
            (-PART, 0, 2 * PART),
            (0, 0, -1),
            (-1, -1, -1),
        ] {
            for name in ["fill", "copy", "across"] {
                let (expected, found) = (run(&whole, name, arguments), run(&divided, name, arguments));
                assert_eq!(found.0, expected.0, "{name} {arguments:?}");
                assert!(found.1 == expected.1, "{name} {arguments:?}");
            }
        }
    }

    #[test]
    fn a_divided_copy_of_a_data_segment_has_the_result_of_a_whole_one() {
        let bytes: String = (0..3 * PART + 5).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
        let text = format!(
            r#"(module
                (memory (export "a") 80) (memory (export "b") 80)
                (data $small "abc") (data $large "{bytes}") (data $active (i32.const 9) "{bytes}")
                (func (export "small") (param i32 i32 i32)
                    (memory.init $small (local.get 0) (local.get 1) (local.get 2)))
                (func (export "large") (param i32 i32 i32)
                    (memory.init 1 $large (local.get 0) (local.get 1) (local.get 2)))
                (func (export "active") (param i32 i32 i32)
                    (memory.init $active (local.get 0) (local.get 1) (local.get 2)))
                (func (export "dropped") (param i32 i32 i32)
                    (data.drop $large) (memory.init $large (local.get 0) (local.get 1) (local.get 2))))"#
        );
        let whole = wat::parse_str(text).unwrap();
        let divided = divided(&whole).unwrap();
        // Three operations are divided: `large`, `active` and `dropped`. The first and the last use different memories.
        assert_eq!(binary::function_count(&divided), binary::function_count(&whole) + 3);
        for arguments in [
            (0, 0, 3),
            (7, 5, PART),
            (7, 5, PART + 1),
            (7, 5, 3 * PART),
            (7, 5, 3 * PART + 1),
            (SIZE - 3 * PART, 0, 3 * PART),
            (SIZE - 3 * PART + 1, 0, 3 * PART),
            (0, 3 * PART + 5, 0),
            (0, 3 * PART + 6, 0),
            (0, -1, 2 * PART),
            (-1, 0, 2 * PART),
            (0, 0, -1),
        ] {
            for name in ["small", "large", "active", "dropped"] {
                let (expected, found) = (run(&whole, name, arguments), run(&divided, name, arguments));
                assert_eq!(found.0, expected.0, "{name} {arguments:?}");
                assert!(found.1 == expected.1, "{name} {arguments:?}");
            }
        }
    }

    #[test]
    fn modules_at_any_depth_are_divided_and_others_stay_as_they_are() {
        let module = |body: &str| format!("(core module (memory 1) (func (param i32) {body}))");
        let fill = "(memory.fill (local.get 0) (i32.const 1) (i32.const 2))";
        for (text, is_changed) in [
            (format!("(component {})", module("")), false),
            (format!("(component {})", module(fill)), true),
            (format!("(component (component (component {}) {}))", module(fill), module("")), true),
            ("(component)".to_owned(), false),
            ("(component (core module))".to_owned(), false),
        ] {
            let component = wat::parse_str(&text).unwrap();
            let divided = divided(&component).unwrap();
            assert_eq!(matches!(divided, Cow::Owned(_)), is_changed, "{text}");
            assert_eq!(*divided != *component, is_changed, "{text}");
            wasmparser::Validator::new().validate_all(&divided).unwrap();
            for end in 0..component.len() {
                let _ = super::divided(&component[..end]);
            }
            // Bytes after the last section are rejected, because they could contain a module that this parser does not
            // find.
            assert!(super::divided(&[&component[..], b"\x01"].concat()).is_none(), "{text}");
        }
    }
}

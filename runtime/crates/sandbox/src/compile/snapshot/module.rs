//! Writes a module whose initial memory and globals are those after its start.

use wasm_encoder::reencode::{Reencode as _, RoundtripReencoder};
use wasm_encoder::{
    BlockType, ConstExpr, DataSection, Encode as _, ExportSection, Function, GlobalSection, GlobalType, MemorySection,
    MemoryType, RawSection, ValType,
};
use wasmi::Val;
use wasmparser::{
    BinaryReader, CodeSectionReader, ExportSectionReader, ExternalKind, FunctionSectionReader, GlobalSectionReader,
    MemorySectionReader, Operator,
};

use super::super::super::adapt::go::imported_functions;
use super::super::super::binary::section_id::{
    CODE, DATA, DATA_COUNT, EXPORTS, FUNCTIONS, GLOBALS, IMPORTS, MEMORIES, START,
};
use super::super::super::binary::{Section, append, body, unsigned};
use super::super::bulk::all_sections;
use super::start::Started;
use super::{AFTER, INITIALIZE, PAGE, REALLOC, RESERVED};

/// Two data segments have at least this many zeros between them, in bytes. This bounds their number; wasmtime fills
/// whole pages from them anyway.
const GAP: usize = 1024;

/// Returns the module with the memory and the globals of `started`. Returns `None` if its layout is not that of Go's
/// linker.
pub(super) fn with_start(module: &[u8], started: &Started) -> Option<Vec<u8>> {
    // Go's linker emits neither a start function nor passive data segments, nor instructions that change tables. Only the
    // memory and the globals are kept, so all else must be as it was before the start.
    let is_absent = |id| body(module, id).is_none();
    if !is_absent(START) || !is_absent(DATA_COUNT) || is_absent(DATA) || changes_tables(body(module, CODE)?)? {
        return None;
    }
    let functions = Functions::read(module)?;
    let memory = started.memory()?;
    let mut globals = globals(body(module, GLOBALS)?, started)?;
    let next = globals.len();
    let mutable = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
    globals.global(mutable, &ConstExpr::i32_const(started.reserved));
    let mut realloc = Vec::new();
    reserved_first(functions.realloc, next, started.reserved)?.encode(&mut realloc);
    let mut out = wasm_encoder::Module::new();
    for Section { id, body, .. } in all_sections(module)? {
        match id {
            FUNCTIONS => out.section(&RawSection { id, data: &append(body, &unsigned(functions.realloc_type))? }),
            MEMORIES => out.section(&memories(body, memory.len() / PAGE)?),
            GLOBALS => out.section(&globals),
            EXPORTS => out.section(&exports(body, &functions)?),
            CODE => out.section(&RawSection { id, data: &append(body, &realloc)? }),
            DATA => out.section(&data(memory)?),
            _ => out.section(&RawSection { id, data: body }),
        };
    }
    Some(out.finish())
}

fn changes_tables(code: &[u8]) -> Option<bool> {
    for function in CodeSectionReader::new(BinaryReader::new(code, 0)).ok()? {
        for operator in function.ok()?.get_operators_reader().ok()? {
            if matches!(
                operator.ok()?,
                Operator::TableSet { .. }
                    | Operator::TableGrow { .. }
                    | Operator::TableFill { .. }
                    | Operator::TableCopy { .. }
                    | Operator::TableInit { .. }
                    | Operator::ElemDrop { .. }
            ) {
                return Some(true);
            }
        }
    }
    Some(false)
}

/// The functions of a module that the snapshot replaces or calls, by index.
struct Functions {
    realloc: u32,
    realloc_type: u64,
    after: u32,
    /// The function that is added.
    added: u32,
}

impl Functions {
    /// Returns `None` if one of them is missing or imported, or if the module imports something other than functions.
    fn read(module: &[u8]) -> Option<Self> {
        let imported = usize::try_from(imported_functions(body(module, IMPORTS).unwrap_or(&[0]))?).ok()?;
        let types = FunctionSectionReader::new(BinaryReader::new(body(module, FUNCTIONS)?, 0)).ok()?;
        let types: Vec<u32> = types.into_iter().collect::<Result<_, _>>().ok()?;
        let exports = ExportSectionReader::new(BinaryReader::new(body(module, EXPORTS)?, 0)).ok()?;
        let exports: Vec<_> = exports.into_iter().collect::<Result<_, _>>().ok()?;
        let export = |name| {
            let export = exports.iter().find(|export| export.name == name && export.kind == ExternalKind::Func)?;
            Some(export.index)
        };
        let (realloc, after) = (export(REALLOC)?, export(AFTER)?);
        let defined = usize::try_from(realloc).ok()?.checked_sub(imported)?;
        let added = u32::try_from(imported + types.len()).ok()?;
        Some(Self { realloc, realloc_type: u64::from(*types.get(defined)?), after, added })
    }
}

/// Returns the code of a function that first returns the reserved pages, and then calls `realloc`. The global `next` has
/// the address of the next of these pages.
fn reserved_first(realloc: u32, next: u32, reserved: i32) -> Option<Function> {
    let (page, size) = (i32::try_from(PAGE).ok()?, i32::try_from(RESERVED).ok()?);
    let mut function = Function::new([]);
    let mut code = function.instructions();
    code.global_get(next).i32_const(reserved.checked_add(size)?).i32_lt_u();
    code.local_get(3).i32_const(page).i32_le_u().i32_and();
    code.if_(BlockType::Result(ValType::I32));
    code.global_get(next);
    code.global_get(next).i32_const(page).i32_add().global_set(next);
    code.else_();
    code.local_get(0).local_get(1).local_get(2).local_get(3).call(realloc);
    code.end().end();
    Some(function)
}

fn memories(body: &[u8], pages: usize) -> Option<MemorySection> {
    let memories = MemorySectionReader::new(BinaryReader::new(body, 0)).ok()?;
    let memories: Vec<_> = memories.into_iter().collect::<Result<_, _>>().ok()?;
    let [memory] = *memories else { return None };
    let mut section = MemorySection::new();
    section.memory(MemoryType { minimum: pages as u64, ..RoundtripReencoder.memory_type(memory).ok()? });
    Some(section)
}

/// Returns the globals with their values after the start.
fn globals(body: &[u8], started: &Started) -> Option<GlobalSection> {
    let mut section = GlobalSection::new();
    for (index, global) in (0_u32..).zip(GlobalSectionReader::new(BinaryReader::new(body, 0)).ok()?) {
        let global = global.ok()?;
        let value = match global.ty.mutable.then(|| started.global(index)) {
            None => RoundtripReencoder.const_expr(global.init_expr).ok()?,
            Some(Some(Val::I32(value))) => ConstExpr::i32_const(value),
            Some(Some(Val::I64(value))) => ConstExpr::i64_const(value),
            Some(Some(Val::F32(value))) => ConstExpr::f32_const(f32::from_bits(value.to_bits()).into()),
            Some(Some(Val::F64(value))) => ConstExpr::f64_const(f64::from_bits(value.to_bits()).into()),
            Some(_) => return None,
        };
        section.global(RoundtripReencoder.global_type(global.ty).ok()?, &value);
    }
    Some(section)
}

/// Returns the exports with other functions under two of their names.
fn exports(body: &[u8], functions: &Functions) -> Option<ExportSection> {
    let mut section = ExportSection::new();
    for export in ExportSectionReader::new(BinaryReader::new(body, 0)).ok()? {
        let export = export.ok()?;
        let index = match export.name {
            INITIALIZE => functions.after,
            REALLOC => functions.added,
            _ => export.index,
        };
        section.export(export.name, RoundtripReencoder.export_kind(export.kind).ok()?, index);
    }
    Some(section)
}

/// Returns data segments with everything in the memory that is not zero.
fn data(memory: &[u8]) -> Option<DataSection> {
    let mut section = DataSection::new();
    let mut rest = 0;
    while let Some(first) = memory.get(rest..)?.iter().position(|byte| *byte != 0) {
        let start = rest + first;
        let (mut end, mut at) = (start, start);
        while at < memory.len() && at - end <= GAP {
            if memory.get(at) != Some(&0) {
                end = at + 1;
            }
            at += 1;
        }
        let address = ConstExpr::i32_const(i32::try_from(start).ok()?);
        section.active(0, &address, memory.get(start..end)?.iter().copied());
        rest = at;
    }
    Some(section)
}

//! Starts a module in an interpreter, without a host.

use sha2::{Digest as _, Sha256};
use wasm_encoder::reencode::{Reencode as _, RoundtripReencoder};
use wasm_encoder::{ExportKind, ExportSection, RawSection};
use wasmi::errors::ErrorKind;
use wasmi::{
    Caller, Config, Engine, Error, Instance, Linker, Module, Store, StoreLimits, StoreLimitsBuilder, TrapCode, Val,
};
use wasmparser::{BinaryReader, ExportSectionReader, GlobalSectionReader};

use super::super::super::binary::section_id::{EXPORTS, GLOBALS};
use super::super::super::binary::{Section, body};
use super::super::bulk::all_sections;
use super::{AFTER, BEFORE, INITIALIZE, LAYOUT, MEMORY, REALLOC, RESERVED, Refused};

/// Limit on the steps of the start: a few seconds.
const FUEL: u64 = 500_000_000;
/// The steps that a call of the host counts as.
const FUEL_OF_CALL: u64 = 100;
/// Limit on the memory after the start, in bytes. wasmtime maps an initial memory of this size on demand; it could copy a
/// larger one in each attempt.
const MEMORY_MAX: usize = 16 << 20;
/// Limit on the elements of a table.
const TABLE_MAX: usize = 1_000_000;
/// Limit on the random bytes of the start: what Go's runtime takes.
const RANDOM_MAX: usize = 32;

/// The module of WASI 0.1.
const WASI: &str = "wasi_snapshot_preview1";
const SUCCESS: i32 = 0;
const BAD_DESCRIPTOR: i32 = 8;
const CLOCK_MONOTONIC: i32 = 1;
/// The size of the status of a descriptor (`fdstat`), in bytes.
const STATUS_BYTES: usize = 24;

/// A module after its start.
pub(super) struct Started {
    store: Store<Host>,
    instance: Instance,
    /// The address of the memory for the adapter.
    pub(super) reserved: i32,
}

impl Started {
    pub(super) fn memory(&self) -> Option<&[u8]> {
        Some(self.instance.get_memory(&self.store, MEMORY)?.data(&self.store))
    }

    /// Returns the value of a mutable global.
    pub(super) fn global(&self, index: u32) -> Option<Val> {
        Some(self.instance.get_global(&self.store, &global_name(index))?.get(&self.store))
    }
}

struct Host {
    limits: StoreLimits,
    /// The random bytes for Go's runtime, until it reads them.
    random: Option<[u8; RANDOM_MAX]>,
}

pub(super) fn start(module: &[u8]) -> Result<Started, Refused> {
    let engine = Engine::new(Config::default().consume_fuel(true).ignore_custom_sections(true));
    let parsed = Module::new(&engine, with_globals_exported(module).ok_or(LAYOUT)?)
        .map_err(|error| format!("cannot be interpreted: {error}"))?;
    let limits = StoreLimitsBuilder::new().memory_size(MEMORY_MAX).memories(1).table_elements(TABLE_MAX).tables(1);
    let host = Host {
        // If it fails to grow, the program does something else than in an attempt.
        limits: limits.trap_on_grow_failure(true).build(),
        random: Some(Sha256::digest(module).into()),
    };
    let mut store = Store::new(&engine, host);
    store.limiter(|host| &mut host.limits);
    store.set_fuel(FUEL).map_err(|_| LAYOUT)?;
    let mut linker = Linker::new(&engine);
    // A module can import the same function twice.
    linker.allow_shadowing(true);
    for import in parsed.imports() {
        let (module, name) = (import.module().to_owned(), import.name().to_owned());
        let call = move |mut caller: Caller<'_, Host>, arguments: &[Val], results: &mut [Val]| {
            caller.set_fuel(caller.get_fuel()?.saturating_sub(FUEL_OF_CALL))?;
            let code = if module == WASI { wasi(caller, &name, arguments) } else { None };
            match (code, results) {
                (Some(code), [result]) => *result = Val::I32(code),
                _ => return Err(Error::new(format!("calls `{name}` of `{module}` while it starts"))),
            }
            Ok(())
        };
        let ty = import.ty().func().ok_or(LAYOUT)?.clone();
        linker.func_new(import.module(), import.name(), ty, call).map_err(|_| LAYOUT)?;
    }
    let instance = linker.instantiate_and_start(&mut store, &parsed).map_err(|error| refused(&error))?;
    let function = |store: &Store<Host>, name| instance.get_typed_func::<(), ()>(store, name).map_err(|_| LAYOUT);
    // Other functions are called in their place, so they must have this type.
    function(&store, AFTER)?;
    instance.get_typed_func::<(i32, i32, i32, i32), i32>(&store, REALLOC).map_err(|_| LAYOUT)?;
    let before = instance.get_typed_func::<(), i32>(&store, BEFORE).map_err(|_| LAYOUT)?;
    function(&store, INITIALIZE)?.call(&mut store, ()).map_err(|error| refused(&error))?;
    let reserved = before.call(&mut store, ()).map_err(|error| refused(&error))?;
    if reserved == 0 {
        return Err("refuses the snapshot".into());
    }
    let started = Started { store, instance, reserved };
    let size = started.memory().ok_or(LAYOUT)?.len();
    let fits = usize::try_from(reserved).is_ok_and(|start| start.is_multiple_of(16) && start + RESERVED <= size);
    if fits { Ok(started) } else { Err(LAYOUT) }
}

fn refused(error: &Error) -> Refused {
    match error.kind() {
        ErrorKind::Message(message) => message.to_string().into(),
        ErrorKind::TrapCode(TrapCode::OutOfFuel) => "takes too long to start".into(),
        ErrorKind::TrapCode(TrapCode::GrowthOperationLimited) => {
            format!("takes more than {} MiB of memory while it starts", MEMORY_MAX >> 20).into()
        }
        _ => format!("fails while it starts: {error}").into(),
    }
}

/// Does a call of WASI 0.1 whose result is the same in each attempt. Returns `None` for any other call.
fn wasi(mut caller: Caller<'_, Host>, name: &str, arguments: &[Val]) -> Option<i32> {
    let argument = |index: usize| arguments.get(index).and_then(Val::i32);
    let address = |index: usize| argument(index).and_then(|address| usize::try_from(address).ok());
    let memory = caller.get_export(MEMORY)?.into_memory()?;
    let write = |caller: &mut Caller<'_, Host>, at: usize, bytes: &[u8]| memory.write(caller, at, bytes).ok();
    match name {
        // A library has no arguments, and reads its environment again after the snapshot.
        "args_sizes_get" | "environ_sizes_get" => {
            write(&mut caller, address(0)?, &0_u32.to_le_bytes())?;
            write(&mut caller, address(1)?, &0_u32.to_le_bytes())?;
        }
        // The clock of each attempt begins at about zero. Go does not accept zero.
        "clock_time_get" if argument(0) == Some(CLOCK_MONOTONIC) => {
            write(&mut caller, address(2)?, &1_u64.to_le_bytes())?;
        }
        // Only once: the next bytes are not for Go's runtime, and would not be seeded anew.
        "random_get" => {
            let bytes = caller.data_mut().random.take()?;
            write(&mut caller, address(0)?, bytes.get(..address(1)?)?)?;
        }
        "fd_fdstat_get" if (0..=2).contains(&argument(0)?) => {
            write(&mut caller, address(1)?, &[0; STATUS_BYTES])?;
        }
        // There are no files, and the standard streams have no flags.
        "fd_prestat_get" | "fd_fdstat_set_flags" => return Some(BAD_DESCRIPTOR),
        "sched_yield" => {}
        _ => return None,
    }
    Some(SUCCESS)
}

/// The name under which a global is exported to read its value.
fn global_name(index: u32) -> String {
    format!("evoke-global-{index}")
}

/// Returns the module with its mutable globals exported too.
fn with_globals_exported(module: &[u8]) -> Option<Vec<u8>> {
    let globals = GlobalSectionReader::new(BinaryReader::new(body(module, GLOBALS)?, 0)).ok()?;
    let globals: Vec<_> = globals.into_iter().collect::<Result<_, _>>().ok()?;
    let mutable = (0_u32..).zip(&globals).filter(|(_, global)| global.ty.mutable).map(|(index, _)| index);
    let mut exports = ExportSection::new();
    let old = ExportSectionReader::new(BinaryReader::new(body(module, EXPORTS)?, 0)).ok()?;
    RoundtripReencoder.parse_export_section(&mut exports, old).ok()?;
    for index in mutable {
        exports.export(&global_name(index), ExportKind::Global, index);
    }
    let mut out = wasm_encoder::Module::new();
    for Section { id, body, .. } in all_sections(module)? {
        match id {
            EXPORTS => out.section(&exports),
            _ => out.section(&RawSection { id, data: body }),
        };
    }
    Some(out.finish())
}

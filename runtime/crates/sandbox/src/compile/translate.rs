//! Parses and compiles a component: the work of the compiler process.

use std::borrow::Cow;

use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _};
use wasmtime::component::Component;
use wasmtime::{Engine, OutOfMemory};

use super::super::proposals::describe_invalid;
use super::super::{adapt, binary, producers};
use super::bulk;
use super::go_memory;
use super::instances::{INSTANCES_BYTES_MAX, instances_bytes};
use super::limits::{
    COMPONENT_FUNCTIONS_MAX, COMPONENT_TEXT_SIZE_MAX, NAME_BYTES_MAX, NAMES_MAX, Refusal, metadata_bytes_max,
    output_bytes_max,
};
use super::link;
use super::output::{Facts, REPORT_BYTES_MAX, Report, Start, bounded};
use super::snapshot;

/// The section of a compiled component that the parent decodes when it loads the component.
const METADATA_SECTION: &str = ".wasmtime.info";

/// Compiles a component in binary or text form, or a core module that can be converted to one. Returns the compiled
/// component (empty if the compilation failed) and the report. If memory runs out, the report gives `memory` as the
/// limit.
pub(super) fn translate(engine: &Engine, file: Vec<u8>, memory: u64) -> (Vec<u8>, Report) {
    match compiled(engine, file, memory) {
        Ok((artefact, facts)) => (artefact, Report::Compiled(facts)),
        Err(report) => (Vec::new(), report),
    }
}

fn compiled(engine: &Engine, file: Vec<u8>, memory: u64) -> Result<(Vec<u8>, Facts), Report> {
    let file_bytes = file.len() as u64;
    let bytes = check_binary(file)?;
    let mut facts = Facts {
        is_module: binary::is_module(&bytes),
        modules: binary::parts(&bytes).into_iter().filter(|part| binary::is_module(part)).count() as u64,
        functions: binary::function_count(&bytes),
        data_bytes: binary::data_bytes(&bytes),
        producers: producers::producers(&bytes),
        start: Start::Attempt,
    };
    let bytes = if facts.is_module { adapt::component(engine, bytes).map_err(|m| invalid(&m))? } else { bytes };
    let failed = |error: &wasmtime::Error| failed(error, &bytes, memory);
    check_instances(&bytes)?;
    let raised = go_memory::with_start_memory(&bytes).unwrap_or(Cow::Borrowed(&bytes));
    // A start in this process only saves time. If the result cannot be used, the component is compiled as it is.
    let started = snapshot::started(&raised).map(|started| {
        let component = bulk::divided(&started?).and_then(|divided| linked_and_compiled(engine, &divided).ok());
        let artefact = component.and_then(|component| serialized(engine, component, file_bytes, memory).ok());
        artefact.ok_or(Cow::Borrowed("cannot be compiled after its start"))
    });
    match started {
        Some(Ok(artefact)) => return Ok((artefact, Facts { start: Start::Compilation, ..facts })),
        Some(Err(reason)) => facts.start = Start::Refused(bounded(&reason)),
        None => {}
    }
    let Some(divided) = bulk::divided(&raised) else {
        Component::new(engine, &bytes).map_err(|error| failed(&error))?;
        return Err(invalid(
            "is a valid component, but Evoke cannot divide its operations on memory; this is a bug in Evoke",
        ));
    };
    let component = linked_and_compiled(engine, &divided);
    let component = component.map_err(|error| {
        // The original component is compiled too, to get its error, because the positions in the message must be those
        // in the original.
        let is_original = matches!((&raised, &divided), (Cow::Borrowed(_), Cow::Borrowed(_)));
        let is_original = is_original || is_out_of_memory(&error);
        let error = if is_original { error } else { Component::new(engine, &bytes).err().unwrap_or(error) };
        failed(&error)
    })?;
    drop(divided);
    drop(raised);
    drop(bytes);
    Ok((serialized(engine, component, file_bytes, memory)?, facts))
}

/// Returns the compiled form, after all checks that need a compiled component.
fn serialized(engine: &Engine, component: Component, file_bytes: u64, memory: u64) -> Result<Vec<u8>, Report> {
    check_names(engine, &component)?;
    let artefact = component.serialize().map_err(|error| failed(&error, &[], memory))?;
    drop(component);
    let limit = metadata_bytes_max(file_bytes);
    match metadata_bytes(&artefact) {
        Some(bytes) if bytes <= limit => {}
        Some(bytes) => {
            return Err(invalid(&format!(
                "expands to {bytes} bytes of metadata, more than the limit of {limit} for a component of its size; nest \
                 fewer components and instances"
            )));
        }
        None => return Err(invalid("was compiled, but Evoke cannot read the compiled form; this is a bug in Evoke")),
    }
    // Checked before the output is written, because the operating system ends a process that exceeds the limit on the
    // file size.
    let output_max = output_bytes_max(file_bytes);
    match artefact.len() as u64 + u64::from(REPORT_BYTES_MAX) > output_max {
        true => Err(Report::Refused(Refusal::Output(output_max))),
        false => Ok(artefact),
    }
}

fn failed(error: &wasmtime::Error, bytes: &[u8], memory: u64) -> Report {
    match is_out_of_memory(error) {
        true => Report::Refused(Refusal::Memory(memory)),
        false => invalid(&describe_invalid("component", bytes, error)),
    }
}

fn linked_and_compiled(engine: &Engine, component: &[u8]) -> wasmtime::Result<Component> {
    match link::linked(component) {
        // Linking only saves time. If wasmtime does not accept the result, the component is compiled as it is.
        Some(linked) => Component::new(engine, &linked).or_else(|error| match is_out_of_memory(&error) {
            true => Err(error),
            false => Component::new(engine, component),
        }),
        None => Component::new(engine, component),
    }
}

fn invalid(message: &str) -> Report {
    Report::Invalid(bounded(message))
}

/// Returns the file's component or core module in binary form, after all checks that need no compilation.
fn check_binary(mut bytes: Vec<u8>) -> Result<Vec<u8>, Report> {
    if !bytes.starts_with(b"\0asm") {
        bytes = parse_text(&bytes)?;
    }
    // After the magic number, a module has version 1 of layer 0; a component has any version of layer 1.
    if !matches!(bytes.get(4..8), Some([1, 0, 0, 0] | [_, _, 1, 0])) {
        return Err(invalid(
            "has an unknown WebAssembly version; Evoke runs components, and core modules of version 1",
        ));
    }
    match binary::function_count(&bytes) {
        0..=COMPONENT_FUNCTIONS_MAX => Ok(bytes),
        n => Err(invalid(&format!("has {n} functions; the limit is {COMPONENT_FUNCTIONS_MAX}"))),
    }
}

fn parse_text(bytes: &[u8]) -> Result<Vec<u8>, Report> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.trim_start().starts_with(['(', ';']));
    let text = text.ok_or_else(|| invalid("is not WebAssembly, neither in binary form nor in text form"))?;
    if text.len() > COMPONENT_TEXT_SIZE_MAX {
        return Err(Report::TooLarge(COMPONENT_TEXT_SIZE_MAX as u64));
    }
    wat::parse_str(text).map_err(|error| invalid(&format!("is not a valid component: {error}")))
}

/// Checks the number of imports and exports, and the length of their names. This bounds the work of the parent, which
/// links each import and lists the exports in messages.
fn check_names(engine: &Engine, component: &Component) -> Result<(), Report> {
    let ty = component.component_type();
    let imports: Vec<usize> = ty.imports(engine).map(|(name, _)| name.len()).collect();
    let exports: Vec<usize> = ty.exports(engine).map(|(name, _)| name.len()).collect();
    for (what, lengths) in [("imports", imports), ("exports", exports)] {
        if lengths.len() > NAMES_MAX {
            return Err(invalid(&format!("has {} {what}; the limit is {NAMES_MAX}", lengths.len())));
        }
        if let Some(bytes) = lengths.into_iter().find(|bytes| *bytes > NAME_BYTES_MAX) {
            let limit = format!("the limit is {NAME_BYTES_MAX}");
            return Err(invalid(&format!("has a name of {bytes} bytes among its {what}; {limit}")));
        }
    }
    Ok(())
}

/// Checks how much memory each attempt takes on the host in addition to the memory of the guest. Accepts malformed
/// input, which the compiler reports later.
fn check_instances(component: &[u8]) -> Result<(), Report> {
    match instances_bytes(component) {
        Ok(bytes) if bytes > INSTANCES_BYTES_MAX => Err(invalid(&format!(
            "takes {} KiB of host memory for its core instances, in addition to their linear memories; the limit is {} \
             KiB; instantiate fewer modules, or modules with fewer functions, globals and passive elements",
            bytes / 1024,
            INSTANCES_BYTES_MAX / 1024
        ))),
        _ => Ok(()),
    }
}

/// Returns the size of the metadata in a compiled component; `None` if the compiled component is malformed.
fn metadata_bytes(artefact: &[u8]) -> Option<u64> {
    let elf: ElfFile64<'_> = ElfFile64::parse(artefact).ok()?;
    Some(elf.section_by_name(METADATA_SECTION)?.size())
}

fn is_out_of_memory(error: &wasmtime::Error) -> bool {
    let errno = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref() == Some(&rustix::io::Errno::NOMEM)
            || cause.downcast_ref().and_then(std::io::Error::raw_os_error)
                == Some(rustix::io::Errno::NOMEM.raw_os_error())
    };
    error.is::<OutOfMemory>() || error.chain().any(errno)
}

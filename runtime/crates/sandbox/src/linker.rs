//! Links every interface that Evoke provides. When a function is loaded, `imports` checks which of these the function
//! may import.

use wasmtime::Engine;
use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::p2::bindings::io;

use super::config::{self, ConfigHost};
use super::context::HostContext;
use super::log::{self, LogHost};
use super::{exit, http_types, keyvalue, outbound, poll, publish};

pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<HostContext>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    outbound::add_to_linker(&mut linker, HostContext::http_types)?;
    http_types::add_to_linker(&mut linker, HostContext::http_types)?;
    // Replaces three interfaces that `add_to_linker_async` has linked. There they use `WasiView`, so even a write to a
    // stream would create a complete WASI context. The replacements need no WASI context.
    linker.allow_shadowing(true);
    io::error::add_to_linker::<HostContext, Handles>(&mut linker, HostContext::handles)?;
    poll::add_to_linker(&mut linker, HostContext::pollables)?;
    io::streams::add_to_linker::<HostContext, Handles>(&mut linker, HostContext::handles)?;
    linker.allow_shadowing(false);
    publish::add_to_linker(&mut linker, HostContext::bus)?;
    exit::add_to_linker(&mut linker)?;
    config::add_to_linker::<HostContext, ConfigHost>(&mut linker, HostContext::config)?;
    log::add_to_linker::<HostContext, LogHost>(&mut linker, HostContext::log)?;
    keyvalue::add_to_linker(&mut linker, HostContext::keyvalue)?;
    Ok(linker)
}

/// Connects the generated bindings of `wasi:io` to the handle table.
struct Handles;

impl HasData for Handles {
    type Data<'a> = &'a mut ResourceTable;
}

//! The host function that ends a program with an exit code. When a core module is converted to a component, `adapt.rs`
//! redirects the module's `proc_exit` to this function.

use wasmtime::component::{HasData, Linker};
use wasmtime_wasi::I32Exit;

mod bindings {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    wasmtime::component::bindgen!({
        inline: "
            package evoke:runtime;
            interface commands { exit-code: func(code: u32); }
            world guest { import commands; }
        ",
        imports: { default: trappable },
    });
}
use bindings::evoke::runtime::commands;

pub(super) fn add_to_linker<T: 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    commands::add_to_linker::<T, Exit>(linker, |_| Exit)
}

struct Exit;

impl HasData for Exit {
    type Data<'a> = Self;
}

impl commands::Host for Exit {
    fn exit_code(&mut self, code: u32) -> wasmtime::Result<()> {
        Err(I32Exit(code.cast_signed()).into())
    }
}

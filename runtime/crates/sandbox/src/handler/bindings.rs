//! Rust bindings for the export `handle` of `sdk/wit`.
#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "../../../sdk/wit",
    // Only the generator needs this import: without it, the generator declares the types inside the module of the
    // export. `publish.rs` links the import.
    inline: "
        package evoke:handler-host;

        world guest {
            import evoke:function/bus@0.1.0;
            export evoke:function/handler@0.1.0;
        }
    ",
    exports: { default: async },
    ownership: Borrowing { duplicate_if_necessary: true },
});

/// Bindings for the same `handle`, for synchronous calls.
pub(crate) mod direct {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    wasmtime::component::bindgen!({
        path: "../../../sdk/wit",
        inline: "package evoke:direct; world guest { export evoke:function/handler@0.1.0; }",
        with: { "evoke:function/types": crate::handler::bindings::evoke::function::types },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

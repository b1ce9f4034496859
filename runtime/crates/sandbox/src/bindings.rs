//! Rust bindings for `sdk/wit`: the contract's world `function` and the other interfaces that the host provides.
//! `adapt.rs` redirects the exit of a program to `commands`.
#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "../../../sdk/wit",
    inline: "
        package evoke:runtime;

        interface commands { exit-code: func(code: u32); }

        world guest {
            import commands;
            import evoke:function/bus@0.1.0;
            import wasi:keyvalue/store@0.2.0-draft;
            import wasi:keyvalue/atomics@0.2.0-draft;
            import wasi:keyvalue/batch@0.2.0-draft;
            import wasi:config/store@0.2.0-rc.1;
            import wasi:logging/logging@0.1.0-draft;
            export evoke:function/handler@0.1.0;
        }
    ",
    imports: {
        "evoke:runtime/commands.exit-code": trappable,
        // Functions that may have to read from the store.
        "wasi:keyvalue/store.[method]bucket.get": async,
        "wasi:keyvalue/store.[method]bucket.set": async,
        "wasi:keyvalue/store.[method]bucket.delete": async,
        "wasi:keyvalue/store.[method]bucket.exists": async,
        "wasi:keyvalue/store.[method]bucket.list-keys": async,
        "wasi:keyvalue/atomics": async,
        "wasi:keyvalue/batch": async,
    },
    with: { "wasi:keyvalue/store.bucket": crate::keyvalue::Bucket },
    exports: { default: async },
    ownership: Borrowing { duplicate_if_necessary: true },
});

/// Bindings for the same `handle`, for synchronous calls.
pub(super) mod direct {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    wasmtime::component::bindgen!({
        path: "../../../sdk/wit",
        inline: "package evoke:direct; world guest { export evoke:function/handler@0.1.0; }",
        with: { "evoke:function/types": crate::bindings::evoke::function::types },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

//! What `sdk/wit` says, as Rust. The host takes less than the contract's world `function`: state comes with the
//! store's transactions. `commands` is what `adapt.rs` leads a program's exit to.
#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "../sdk/wit",
    inline: "
        package evoke:runtime;

        interface commands { exit-code: func(code: u32); }

        world guest {
            import commands;
            import evoke:function/bus@0.1.0;
            import wasi:config/store@0.2.0-rc.1;
            import wasi:logging/logging@0.1.0-draft;
            export evoke:function/handler@0.1.0;
        }
    ",
    imports: { "evoke:runtime/commands.exit-code": trappable },
    exports: { default: async },
    ownership: Borrowing { duplicate_if_necessary: true },
});

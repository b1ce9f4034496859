//! Bindings generated from `sdk/wit`, the only copy of the contract.
#![allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, clippy::needless_pass_by_value)]

wit_bindgen::generate!({
    path: "../wit",
    world: "function",
    additional_derives: [PartialEq],
    // Guests export through this crate, so they need neither bindings nor wit-bindgen of their own.
    pub_export_macro: true,
    export_macro_name: "__export_function",
    default_bindings_module: "evoke::__rt::bindings",
    generate_all,
});

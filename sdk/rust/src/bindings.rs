//! Bindings to the WIT files in `sdk/wit`, which define the interface between functions and Evoke.
#![allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, clippy::needless_pass_by_value)]

wit_bindgen::generate!({
    path: "../wit",
    world: "function",
    additional_derives: [PartialEq],
    // Lets the crates of functions export `handle` with a macro of this crate. So they need neither their own bindings
    // nor a dependency on wit-bindgen.
    pub_export_macro: true,
    export_macro_name: "__export_function",
    default_bindings_module: "evoke::__rt::bindings",
    generate_all,
});

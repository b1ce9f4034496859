//! Adds WIT to a handler that has none. Such a handler is a core module that exports
//! `evoke:function/handler@0.1.0#handle`.
//!
//! The encoder needs the names of the imports and exports, which are in the module, and their types, which are added
//! here. So a function in Go or C is built with only the compiler of its language, without a tool that embeds types
//! into modules. The types are those of `sdk/wit`; the encoder adds only interfaces that the module imports.

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The handler's export in binary form: the length of the name, the name, and the kind (a function).
pub(super) const EXPORT: &[u8] = b"\x23evoke:function/handler@0.1.0#handle\x00";

/// Each package is listed before the packages that use it.
const PACKAGES: [(&str, &str); 8] = [
    ("wasi-io.wit", include_str!("../../../../../sdk/wit/deps/wasi-io/package.wit")),
    ("wasi-clocks.wit", include_str!("../../../../../sdk/wit/deps/wasi-clocks/package.wit")),
    ("wasi-random.wit", include_str!("../../../../../sdk/wit/deps/wasi-random/package.wit")),
    ("wasi-http.wit", include_str!("../../../../../sdk/wit/deps/wasi-http/package.wit")),
    ("wasi-config.wit", include_str!("../../../../../sdk/wit/deps/wasi-config/package.wit")),
    ("wasi-keyvalue.wit", include_str!("../../../../../sdk/wit/deps/wasi-keyvalue/package.wit")),
    ("wasi-logging.wit", include_str!("../../../../../sdk/wit/deps/wasi-logging/package.wit")),
    ("function.wit", include_str!("../../../../../sdk/wit/function.wit")),
];
/// Everything that a handler can import from these packages.
const WORLD: &str = "
    package evoke:core-module;
    world handler {
        import wasi:io/poll@0.2.0;
        import wasi:io/streams@0.2.0;
        import wasi:clocks/monotonic-clock@0.2.0;
        import wasi:random/random@0.2.0;
        import wasi:http/outgoing-handler@0.2.0;
        import wasi:keyvalue/batch@0.2.0-draft;
        include evoke:function/function@0.1.0;
    }
";

/// Adds the types of the imports and exports to the module.
pub(super) fn embed_wit(module: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut wit = Resolve::default();
    for (name, text) in PACKAGES {
        wit.push_source(name, text)?;
    }
    let package = wit.push_source("handler.wit", WORLD)?;
    let world = wit.select_world(&[package], None)?;
    embed_component_metadata(module, &wit, world, StringEncoding::UTF8)
}

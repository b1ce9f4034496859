//! How Evoke calls a component.

use wasmtime::Engine;
use wasmtime::component::Component;

/// How Evoke calls a component. The component's exports determine it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The component exports `evoke:function/handler`.
    Handler,
    /// The component exports `wasi:cli/run`, or is a core module with `_start`. Such a program reads the event as JSON
    /// from stdin and prints the events to publish.
    Command,
    /// The component exports `wasi:http/incoming-handler`: the function handles HTTP requests and receives no events.
    Http,
}

impl Kind {
    /// Returns the kind of a component. The error is the list of its exports, none of which Evoke can call.
    pub(super) fn of(engine: &Engine, component: &Component) -> Result<Self, Vec<String>> {
        let ty = component.component_type();
        let exports: Vec<String> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
        let kinds = [
            ("evoke:function/handler@", Self::Handler),
            ("wasi:http/incoming-handler@0.2.", Self::Http),
            ("wasi:cli/run@0.2.", Self::Command),
        ];
        let kind = kinds.into_iter().find(|(prefix, _)| exports.iter().any(|name| name.starts_with(prefix)));
        kind.map(|(_, kind)| kind).ok_or(exports)
    }
}

/// The exports that Evoke can call, for error messages.
pub const EXPECTED_EXPORTS: &str =
    "a function exports evoke:function/handler@0.1.0, wasi:http/incoming-handler@0.2 or wasi:cli/run@0.2";

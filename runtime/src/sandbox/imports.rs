//! What a component imports, against what it is granted: told at load, never found out at run time.

use wasmtime::Engine;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi::p2::bindings::io;

use super::bindings::evoke::function::{bus, types};
use super::bindings::evoke::runtime::commands;
use super::bindings::wasi::config::store as config;
use super::bindings::wasi::keyvalue::{atomics, batch, store as keyvalue};
use super::bindings::wasi::logging::logging;
use super::host::{Handles, Host, State};
use super::{Grants, Kind};

/// Links everything that is provided; what a function may use of it is decided when it is loaded.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    // Streams need handles alone. Through `WasiView`, whoever writes to one would have a whole WASI context made.
    linker.allow_shadowing(true);
    io::error::add_to_linker::<State, Handles>(&mut linker, State::handles)?;
    io::poll::add_to_linker::<State, Handles>(&mut linker, State::handles)?;
    io::streams::add_to_linker::<State, Handles>(&mut linker, State::handles)?;
    linker.allow_shadowing(false);
    types::add_to_linker::<State, Host>(&mut linker, |state| state)?;
    bus::add_to_linker::<State, Host>(&mut linker, |state| state)?;
    commands::add_to_linker::<State, Host>(&mut linker, |state| state)?;
    config::add_to_linker::<State, Host>(&mut linker, |state| state)?;
    logging::add_to_linker::<State, Host>(&mut linker, |state| state)?;
    keyvalue::add_to_linker::<State, Host>(&mut linker, |state| state)?;
    atomics::add_to_linker::<State, Host>(&mut linker, |state| state)?;
    batch::add_to_linker::<State, Host>(&mut linker, |state| state)?;
    Ok(linker)
}

/// The imports that the grants do not cover, each with what to do about it.
pub(super) fn not_covered(engine: &Engine, component: &Component, kind: Kind, grants: &Grants) -> Vec<String> {
    let ty = component.component_type();
    ty.imports(engine).filter_map(|(name, _)| Some(format!("`{name}`: {}", objection(name, kind, grants)?))).collect()
}

/// Whether the host answers everything that a component imports at once: what waits, also for the store, is elsewhere.
pub(super) fn never_wait(engine: &Engine, component: &Component) -> bool {
    let at_once = ["evoke:function/", "wasi:config/", "wasi:logging/"];
    let ty = component.component_type();
    ty.imports(engine).all(|(name, _)| at_once.iter().any(|package| name.starts_with(package)))
}

pub(super) fn objection(import: &str, kind: Kind, grants: &Grants) -> Option<&'static str> {
    let (interface, _version) = import.split_once('@').unwrap_or((import, ""));
    match interface.split_once('/').map_or(interface, |(package, _)| package) {
        // A filesystem without any folder in it, a command line without anything on it.
        "wasi:io" | "wasi:clocks" | "wasi:random" | "wasi:cli" | "wasi:filesystem" => None,
        "evoke:function" if kind == Kind::Http => {
            Some("a function that answers requests publishes no events in this version of Evoke")
        }
        "wasi:http" if interface == "wasi:http/types" => None,
        "wasi:config" | "wasi:logging" | "evoke:function" => None,
        // The library of a ready-made program imports sockets whether it uses them or not: it has them, and every
        // use is refused. Its exit is ours.
        "wasi:sockets" | "evoke:runtime" if kind == Kind::Command => None,
        "wasi:keyvalue" if kind == Kind::Http => {
            Some("a function that answers requests has no outcome that state could commit with, so it has no state")
        }
        "wasi:keyvalue" if grants.state.is_none() => Some("state must be granted with `allow: { state: true }`"),
        "wasi:keyvalue" if !["store", "atomics", "batch"].iter().any(|part| interface.ends_with(part)) => {
            Some("of wasi:keyvalue there are store, atomics and batch")
        }
        "wasi:keyvalue" => None,
        "wasi:http" if !grants.http.is_empty() => Some("outbound HTTP is not available in this version of Evoke"),
        "wasi:http" => Some(
            "outbound HTTP must be granted with `allow: { http: [\"https://HOST:443\"] }`, and is not available in \
             this version of Evoke",
        ),
        "wasi:sockets" => Some("raw sockets are never granted; build the function without networking"),
        _ => Some(
            "nothing provides it; a function may import evoke:function, wasi:keyvalue, wasi:config, wasi:logging and \
             WASI 0.2",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::StateGrant;
    use super::*;
    use crate::state::Quota;

    #[test]
    fn an_import_that_is_not_covered_says_what_to_write() {
        let none = Grants::default();
        let state = Some(StateGrant { shared: false, value_bytes_max: 1, quota: Quota::NONE });
        let all = Grants { state, http: vec!["https://a.example:443".into()], ..Grants::default() };
        let says = |import, grants, words| objection(import, Kind::Handler, grants).is_some_and(|o| o.contains(words));
        assert!(says("wasi:keyvalue/store@0.2.0-draft", &none, "state: true"));
        assert_eq!(objection("wasi:keyvalue/store@0.2.0-draft", Kind::Command, &all), None);
        assert!(says("wasi:keyvalue/watcher@0.2.0-draft", &all, "store, atomics and batch"));
        assert!(objection("wasi:keyvalue/store@0.2.0-draft", Kind::Http, &all).is_some());
        assert!(says("wasi:http/outgoing-handler@0.2.6", &none, "http:"));
        assert!(says("wasi:sockets/tcp@0.2.0", &all, "never"));
        assert!(says("acme:thing/api", &all, "nothing provides"));
        assert_eq!(objection("wasi:cli/stdout@0.2.6", Kind::Handler, &none), None);
        assert_eq!(objection("evoke:function/bus@0.1.0", Kind::Handler, &none), None);
        assert_eq!(objection("wasi:http/types@0.2.6", Kind::Http, &none), None);
        assert!(objection("evoke:function/bus@0.1.0", Kind::Http, &none).is_some());
        assert_eq!(objection("wasi:sockets/tcp@0.2.0", Kind::Command, &none), None);
    }
}

//! Checks the imports of a component against its grants at load, so that a missing grant is reported then, and not at
//! run time.

use wasmtime::Engine;
use wasmtime::component::Component;

use super::grants::Grants;
use super::kind::Kind;

/// The interface through which a function sends requests.
pub(super) const OUTGOING: &str = "wasi:http/outgoing-handler";

/// Returns true if the component imports the interface through which it could send requests.
pub(super) fn imports_outgoing_handler(engine: &Engine, component: &Component) -> bool {
    let ty = component.component_type();
    ty.imports(engine).any(|(name, _)| name.split('@').next() == Some(OUTGOING))
}

/// Returns the imported packages that are linked, but whose functions refuse every call. `no_http` is true if no grant
/// allows HTTP requests.
pub(super) fn refusing_imports(engine: &Engine, component: &Component, no_http: bool) -> Vec<&'static str> {
    let ty = component.component_type();
    let refuses = |package: &str| {
        ty.imports(engine).any(|(name, _)| name.strip_prefix(package).is_some_and(|rest| rest.starts_with(['/', '@'])))
    };
    let http = Some(OUTGOING).filter(|_| no_http);
    http.into_iter().chain(["wasi:filesystem", "wasi:sockets"]).filter(|package| refuses(package)).collect()
}

/// Returns the imports that the grants do not cover, each with the change that would help.
pub(super) fn uncovered_imports(engine: &Engine, component: &Component, kind: Kind, grants: &Grants) -> Vec<String> {
    let ty = component.component_type();
    ty.imports(engine)
        .filter_map(|(name, _)| Some(format!("`{name}`: {}", import_error(name, kind, grants)?)))
        .collect()
}

/// Returns true if every host function that the component imports returns without waiting. Host functions that can
/// wait, for example for the store, are in other packages than those in `at_once`.
pub(super) fn imports_never_wait(engine: &Engine, component: &Component) -> bool {
    let at_once = ["evoke:function/", "wasi:config/", "wasi:logging/"];
    let ty = component.component_type();
    ty.imports(engine).all(|(name, _)| at_once.iter().any(|package| name.starts_with(package)))
}

pub(super) fn import_error(import: &str, kind: Kind, grants: &Grants) -> Option<&'static str> {
    let (interface, _version) = import.split_once('@').unwrap_or((import, ""));
    match interface.split_once('/').map_or(interface, |(package, _)| package) {
        // These need no grant: the filesystem has no folders, and the command line has no arguments from outside.
        "wasi:io" | "wasi:clocks" | "wasi:random" | "wasi:cli" | "wasi:filesystem" => None,
        // Linked even without a grant, because toolchains add this import even if the program does not use it. Each
        // request is then refused.
        "wasi:http" if ["wasi:http/types", OUTGOING].contains(&interface) => None,
        "wasi:config" | "wasi:logging" | "evoke:function" => None,
        // The standard libraries of many languages import sockets even if the program does not use them. So sockets are
        // linked, but every operation on them is refused.
        "wasi:sockets" => None,
        // The exit import that the conversion of a core module adds.
        "evoke:runtime" if kind == Kind::Command => None,
        "wasi:keyvalue" if kind == Kind::Http => Some(
            "a function that responds to HTTP requests cannot use state, because state is stored only with the \
             outcome of a delivery",
        ),
        "wasi:keyvalue" if grants.state.is_none() => Some("state must be granted with `allow: { state: true }`"),
        "wasi:keyvalue" if !["store", "atomics", "batch"].iter().any(|part| interface.ends_with(part)) => {
            Some("of wasi:keyvalue, only store, atomics and batch are available")
        }
        "wasi:keyvalue" => None,
        _ => Some(
            "nothing provides it; a function may import evoke:function, wasi:keyvalue, wasi:config, wasi:logging and \
             WASI 0.2",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::keyvalue::StateGrant;
    use super::*;
    use evoke_model::state::Quota;

    #[test]
    fn an_import_without_a_grant_reports_the_grant_to_add() {
        let none = Grants::default();
        let state = Some(StateGrant { shared: false, value_bytes_max: 1, quota: Quota::NONE });
        let all = Grants { state, ..Grants::default() };
        let says =
            |import, grants, words| import_error(import, Kind::Handler, grants).is_some_and(|o| o.contains(words));
        assert!(says("wasi:keyvalue/store@0.2.0-draft", &none, "state: true"));
        assert_eq!(import_error("wasi:keyvalue/store@0.2.0-draft", Kind::Command, &all), None);
        assert!(says("wasi:keyvalue/watcher@0.2.0-draft", &all, "store, atomics and batch"));
        assert!(import_error("wasi:keyvalue/store@0.2.0-draft", Kind::Http, &all).is_some());
        assert_eq!(import_error("wasi:http/outgoing-handler@0.2.6", Kind::Handler, &none), None);
        assert!(says("wasi:http/incoming-handler@0.2.6", &none, "nothing provides"));
        assert_eq!(import_error("wasi:sockets/tcp@0.2.0", Kind::Handler, &none), None, "every call is refused");
        assert!(says("acme:thing/api", &all, "nothing provides"));
        assert_eq!(import_error("wasi:cli/stdout@0.2.6", Kind::Handler, &none), None);
        assert_eq!(import_error("evoke:function/bus@0.1.0", Kind::Handler, &none), None);
        assert_eq!(import_error("wasi:http/types@0.2.6", Kind::Http, &none), None);
        assert_eq!(import_error("evoke:function/bus@0.1.0", Kind::Http, &none), None);
        assert!(says("evoke:runtime/exit", &all, "nothing provides"));
        assert_eq!(import_error("evoke:runtime/exit", Kind::Command, &none), None);
    }
}

//! How Evoke calls a component.

use std::io::{self, Read, Seek};

use wasmtime::Engine;
use wasmtime::component::Component;

use super::binary::section_id::{COMPONENT_EXPORTS, CUSTOM, EXPORTS};
use super::binary::{find_bytes, is_module, leb128};

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

/// The exports that determine the kind: the start of each name, in the order of precedence.
const EXPORT_PREFIXES: [(&str, Kind); 3] = [
    ("evoke:function/handler@", Kind::Handler),
    ("wasi:http/incoming-handler@0.2.", Kind::Http),
    ("wasi:cli/run@0.2.", Kind::Command),
];

impl Kind {
    /// Returns the kind of a component. The error is the list of its exports, none of which Evoke can call.
    pub(super) fn of(engine: &Engine, component: &Component) -> Result<Self, Vec<String>> {
        let ty = component.component_type();
        let exports: Vec<String> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
        let kind = EXPORT_PREFIXES.into_iter().find(|(prefix, _)| exports.iter().any(|name| name.starts_with(prefix)));
        kind.map(|(_, kind)| kind).ok_or(exports)
    }

    /// Returns the kind that the exports in the file of a component or core module indicate. Reads only its sections of
    /// exports, up to [`EXPORTS_BYTES_MAX`], and the start of its custom sections. [`Kind::of`] determines the actual
    /// kind after the component is compiled. Returns `None` for the text form, for a core module that embeds its WIT,
    /// and for a file with larger exports or more than [`SECTIONS_MAX`] sections.
    pub(super) fn expected(mut file: impl Read + Seek) -> io::Result<Option<Self>> {
        let mut head = [0; 8];
        file.read_exact(&mut head)?;
        if !head.starts_with(b"\0asm") {
            return Ok(None);
        }
        let exports = if is_module(&head) { EXPORTS } else { COMPONENT_EXPORTS };
        let (mut found, mut embeds_wit) = (Vec::new(), false);
        for number in 0.. {
            // The id of a section, and its size in at most 5 bytes.
            let mut start = Vec::new();
            file.by_ref().take(6).read_to_end(&mut start)?;
            let Some((&id, rest)) = start.split_first() else { break };
            if number == SECTIONS_MAX {
                return Ok(None);
            }
            let Some((size, rest)) = leb128(rest) else { return Ok(None) };
            file.seek_relative(-i64::try_from(rest.len()).unwrap_or_default())?;
            let wanted = match id {
                _ if id == exports && found.len() as u64 + size > EXPORTS_BYTES_MAX => return Ok(None),
                _ if id == exports => size,
                CUSTOM => size.min(NAME_START_BYTES),
                _ => 0,
            };
            let mut body = Vec::new();
            file.by_ref().take(wanted).read_to_end(&mut body)?;
            file.seek_relative(i64::try_from(size - wanted).unwrap_or(i64::MAX))?;
            match id {
                CUSTOM => embeds_wit |= find_bytes(&body, b"component-type").is_some(),
                _ => found.extend(body),
            }
        }
        let has = |name: &[u8]| find_bytes(&found, name).is_some();
        if is_module(&head) {
            let kind = if has(b"\x06_start\x00") { Self::Command } else { Self::Handler };
            return Ok((!embeds_wit).then_some(kind));
        }
        let kind = EXPORT_PREFIXES.into_iter().find(|(prefix, _)| has(prefix.as_bytes()));
        Ok(kind.map(|(_, kind)| kind))
    }
}

/// Size limit of all exports that [`Kind::expected`] reads of a file, in bytes. A component can have many sections of
/// exports.
const EXPORTS_BYTES_MAX: u64 = 1024 * 1024;
/// Limit on the number of sections that [`Kind::expected`] reads, because a file can consist of millions of empty ones.
/// Python components have about 450.
const SECTIONS_MAX: u32 = 10_000;
/// Number of bytes that [`Kind::expected`] reads of a custom section. They contain the start of the section's name,
/// which shows whether the section contains WIT.
const NAME_START_BYTES: u64 = 20;

/// The exports that Evoke can call, for error messages.
pub const EXPECTED_EXPORTS: &str =
    "a function must export evoke:function/handler@0.1.0, wasi:http/incoming-handler@0.2 or wasi:cli/run@0.2";

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::binary::unsigned;
    use super::*;

    fn expected(file: &[u8]) -> Option<Kind> {
        Kind::expected(Cursor::new(file)).ok().flatten()
    }

    fn of(text: &str) -> Option<Kind> {
        expected(&wat::parse_str(text).unwrap())
    }

    #[test]
    fn the_expected_kind_of_a_component_follows_its_exports() {
        let component = |export: &str| of(&format!(r#"(component (instance $i) (export "{export}" (instance $i)))"#));
        assert_eq!(component("evoke:function/handler@0.1.0"), Some(Kind::Handler));
        assert_eq!(component("wasi:http/incoming-handler@0.2.6"), Some(Kind::Http));
        assert_eq!(component("wasi:cli/run@0.2.0"), Some(Kind::Command));
        assert_eq!(component("wasi:cli/run@0.3.0"), None);
        assert_eq!(of("(component)"), None);
    }

    #[test]
    fn the_expected_kind_of_a_core_module_is_not_known_if_it_embeds_its_wit() {
        assert_eq!(of(r#"(module (func (export "_start")))"#), Some(Kind::Command));
        assert_eq!(of(r#"(module (func (export "_started")))"#), Some(Kind::Handler));
        for name in ["component-type", "component-type:lab"] {
            assert_eq!(of(&format!(r#"(module (func (export "_start")) (@custom "{name}" "x"))"#)), None);
        }
        assert_eq!(expected(br#"(module (func (export "_start")))"#), None, "the text form");
    }

    #[test]
    fn a_torn_file_and_more_exports_than_are_read_have_no_expected_kind() {
        let whole =
            wat::parse_str(r#"(module (memory 1) (func (export "_start")) (data (i32.const 0) "abc"))"#).unwrap();
        for end in 0..whole.len() {
            let _ = expected(&whole[..end]);
        }
        assert_eq!(expected(&whole[..7]), None);
        let name = "x".repeat(1024 * 1024);
        assert_eq!(of(&format!(r#"(module (func (export "_start") (export "{name}")))"#)), None);
    }

    #[test]
    fn the_limits_on_exports_and_sections_apply_to_the_whole_file() {
        let export = |name: &str| {
            // The name in its two forms (component model, `Binary.md`), and a function as the exported item.
            let entry = [&[0][..], &unsigned(name.len() as u64), name.as_bytes(), &[1, 0, 0]].concat();
            let list = [&[1][..], &entry].concat();
            [&[COMPONENT_EXPORTS][..], &unsigned(list.len() as u64), &list].concat()
        };
        let of = |sections: &[u8], count: usize| {
            let first = export("wasi:cli/run@0.2.3");
            expected(&[&b"\0asm\x0d\0\x01\0"[..], &first, &sections.repeat(count)].concat())
        };
        let half = export(&"x".repeat(512 * 1024));
        assert_eq!((of(&half, 1), of(&half, 2)), (Some(Kind::Command), None));
        let (empty, count) = ([COMPONENT_EXPORTS, 0], SECTIONS_MAX as usize);
        assert_eq!((of(&empty, count - 1), of(&empty, count)), (Some(Kind::Command), None));
    }
}

//! Gives programs of Go the memory that they need in each attempt from the start.
//!
//! A small program of Go declares its data and 1 MiB more (`initialSize` in `cmd/link/internal/wasm/asm.go`), and then
//! asks for 13 pages in three steps while it starts. Each of these steps, and the reset after the attempt, is a system
//! call that changes the protection of memory, and that interrupts all other processors that run guests. So these pages
//! are declared too, and count as used from the start. Go's allocator uses all memory that is there when it starts
//! (`osinit` in `runtime/os_wasm.go`).

use std::borrow::Cow;

use super::super::adapt;
use super::super::binary::section_id::MEMORIES;
use super::bulk::{all_sections, joined, map_modules};

/// The pages that are added to the declared memory. Programs that need more of them ask for the rest.
const PAGES: u64 = 13;

/// Returns the component with more declared memory in its programs of Go. Returns `None` if it is malformed.
pub(super) fn with_start_memory(component: &[u8]) -> Option<Cow<'_, [u8]>> {
    map_modules(component, &|module| Some(raised(module).map_or(Cow::Borrowed(module), Cow::Owned)))
}

/// Returns `None` if the module does not change.
fn raised(module: &[u8]) -> Option<Vec<u8>> {
    if !adapt::has_layout_of_go(module) {
        return None;
    }
    let sections = all_sections(module)?.into_iter().map(|section| {
        let body = match section.id {
            MEMORIES => Cow::Owned(adapt::with_more_pages(section.body, PAGES)?),
            _ => Cow::Borrowed(section.body),
        };
        Some((section.id, body))
    });
    joined(module, sections.collect::<Option<_>>()?)
}

#[cfg(test)]
mod tests {
    use wasmtime::{Config, Engine, Module};

    use super::*;

    /// A module with the layout of Go's linker. Its data ends at 0x20000, so it declares 18 pages.
    fn program(custom: &str, limits: &str) -> Vec<u8> {
        let end: u64 = 0x2_0000;
        let addresses = [0x5000, 0x6000, 0x6000, 0x7000, 0x7000, 0x8000, 0x8000, end, end, end, end];
        let bytes = addresses.iter().flat_map(|address: &u64| address.to_le_bytes());
        let fields: String = bytes.map(|byte| format!("\\{byte:02x}")).collect();
        let text = format!(
            r#"(module (@custom "{custom}" "x") (memory (export "memory") {limits})
                (data (i32.const 20480) "{fields}"))"#
        );
        wat::parse_str(text).unwrap()
    }

    fn memory_of(module: &[u8]) -> (u64, Option<u64>) {
        let engine = Engine::new(Config::new().gc_support(false)).unwrap();
        let module = Module::new(&engine, module).unwrap();
        let memory = module.exports().next().unwrap().ty();
        let memory = memory.unwrap_memory();
        (memory.minimum(), memory.maximum())
    }

    #[test]
    fn a_program_of_go_declares_the_pages_that_it_asks_for_at_its_start() {
        for (limits, expected) in [("18", (31, None)), ("18 31", (31, Some(31))), ("18 65536", (31, Some(65_536)))] {
            assert_eq!(memory_of(&with_start_memory(&program("go:buildid", limits)).unwrap()), expected);
        }
    }

    #[test]
    fn other_modules_and_programs_with_a_lower_maximum_stay_as_they_are() {
        for (custom, limits) in [("other", "18"), ("go:buildid", "19"), ("go:buildid", "18 30")] {
            let module = program(custom, limits);
            assert_eq!(*with_start_memory(&module).unwrap(), *module);
        }
        let whole = program("go:buildid", "18");
        for end in 8..whole.len() {
            let _ = with_start_memory(&whole[..end]);
        }
    }
}

//! Gives programs of Go the memory that they need in each attempt from the start.
//!
//! A small program of Go declares its data and 1 MiB more (`initialSize` in `cmd/link/internal/wasm/asm.go`), and then
//! asks for 13 pages in three steps while it starts. Each of these steps, and the reset after the attempt, is a system
//! call that changes the protection of memory, and that interrupts all other processors that run guests. So these pages
//! are declared too, and count as used from the start. Go's allocator uses all memory that is there when it starts
//! (`osinit` in `runtime/os_wasm.go`).

use std::borrow::Cow;

use super::super::adapt::go;
use super::super::binary::section_id::MEMORIES;
use super::bulk::{all_sections, joined, map_modules};

/// The pages that are added to the declared memory. Programs that need more of them ask for the rest.
const PAGES: u64 = 13;

/// Returns the component with more declared memory in its programs of Go. Returns `None` if it is malformed.
pub(super) fn with_start_memory(component: &[u8]) -> Option<Cow<'_, [u8]>> {
    map_modules(component, &mut |module| {
        let Some(memory) = go::memory_with_more_pages(module, PAGES) else { return Some(Cow::Borrowed(module)) };
        let body = |id, body| if id == MEMORIES { Cow::Borrowed(&*memory) } else { Cow::Borrowed(body) };
        let sections = all_sections(module)?.into_iter().map(|section| (section.id, body(section.id, section.body)));
        joined(module, sections.collect()).map(Cow::Owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_is_not_of_go_stays_as_it_is_and_a_malformed_one_is_refused() {
        let module = wat::parse_str(r#"(module (memory 1) (data (i32.const 0) "x"))"#).unwrap();
        assert!(matches!(with_start_memory(&module), Some(Cow::Borrowed(same)) if same == module));
        let component = wat::parse_str("(component (core module (memory 1)))").unwrap();
        assert!(matches!(with_start_memory(&component), Some(Cow::Borrowed(same)) if same == component));
        assert!(with_start_memory(&component[..component.len() - 1]).is_none());
    }
}

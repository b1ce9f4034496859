//! Links the core modules of a component: makes one module of those whose instances depend on each other only.
//!
//! Toolchains for languages with an interpreter link dynamically: `componentize-py` and `componentize-qjs` emit a module
//! for each library, all of which share one memory and one table of functions. In each attempt, wasmtime would create
//! the instance of each module, resolve its hundreds of imports, and write each of its functions into the shared table:
//! wasmtime fills a table on demand only in the module that defines it. In Python, this took 40 % of the time of a short
//! attempt. After linking, each import that another of the modules exports is a direct reference, addresses that depend
//! on an imported constant are constants, and the table belongs to the module.
//!
//! A module is linked if it is instantiated once and has no start function, and if each of its imports is either an
//! export of a linked module or independent of the linked modules. A function of the host that uses their memory, for
//! example, depends on them. The linked module is created in place of the last of its modules; modules in between that
//! share neither memory nor tables with it are created before it. If a component has something that this file does not
//! know, it stays as it is.

mod component;
mod constant;
mod emit;
mod group;
mod limits;
mod module;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use wasmparser::Validator;

use self::component::Component;
use super::super::binary::section_id::COMPONENT;
use super::super::proposals;
use super::bulk::{DEPTH_MAX, all_sections, joined};

/// Why a component is not linked: it has something that is not known here, or it is malformed.
#[derive(Debug)]
struct Unlinkable;

type Result<T, E = Unlinkable> = std::result::Result<T, E>;

impl From<wasmparser::BinaryReaderError> for Unlinkable {
    fn from(_: wasmparser::BinaryReaderError) -> Self {
        Self
    }
}

impl From<wasm_encoder::reencode::Error<Unlinkable>> for Unlinkable {
    fn from(_: wasm_encoder::reencode::Error<Unlinkable>) -> Self {
        Self
    }
}

/// Returns the component with the core modules of each component in it linked. Returns `None` if there is nothing to
/// link, or if the component is not valid. All else here relies on a valid component: linking checks neither types nor
/// the lengths of lists, so an invalid component could become a valid one, or take all memory.
pub(super) fn linked(component: &[u8]) -> Option<Vec<u8>> {
    Validator::new_with_features(proposals::SUPPORTED).validate_all(component).ok()?;
    match link(component, DEPTH_MAX)? {
        Cow::Borrowed(_) => None,
        Cow::Owned(linked) => Some(linked),
    }
}

/// Links the modules of the nested components, and then those of the component itself.
fn link(part: &[u8], depth: usize) -> Option<Cow<'_, [u8]>> {
    let mut is_changed = false;
    let mut bodies = Vec::new();
    for section in all_sections(part)? {
        let body = match section.id {
            COMPONENT => link(section.body, depth.checked_sub(1)?)?,
            _ => Cow::Borrowed(section.body),
        };
        is_changed |= matches!(body, Cow::Owned(_));
        bodies.push((section.id, body));
    }
    let nested = if is_changed { Cow::Owned(joined(part, bodies)?) } else { Cow::Borrowed(part) };
    match link_modules(&nested) {
        Ok(Some(linked)) => Some(Cow::Owned(linked)),
        Ok(None) | Err(Unlinkable) => Some(nested),
    }
}

fn link_modules(bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let component = Component::parse(bytes)?;
    let group = group::choose(&component)?;
    if group.members.len() < 2 {
        return Ok(None);
    }
    emit::component(&component, &group).map(Some)
}

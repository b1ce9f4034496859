//! Computes the memory that the core instances of a component take on the host in every attempt, in addition to the
//! memories and tables of the guest.
//!
//! For each instance of a module, wasmtime keeps an entry for each of its imports, functions and globals, and the
//! elements of its passive segments. A component can instantiate one module many times, so a file of a megabyte could
//! take a gigabyte in each attempt.

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind, ComponentTypeRef, ElementItems,
    ElementKind, Encoding, Instance, Parser, Payload, Result,
};

use super::super::engine::INSTANCES_MAX;

/// Limit on the memory that the core instances of a component take on the host, in bytes. The largest known components
/// are those of Python, with about 30,000 functions.
pub(super) const INSTANCES_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Upper bounds of the size of one entry for an import, a function, a global and an element, in bytes
/// (wasmtime-environ, `vmoffsets.rs`).
const IMPORT_BYTES: u64 = 32;
const FUNCTION_BYTES: u64 = 32;
const GLOBAL_BYTES: u64 = 16;
const ELEMENT_BYTES: u64 = 16;

/// Returns an upper bound of the memory that all core instances of a component take, in bytes. An error means that the
/// component is malformed.
pub(super) fn instances_bytes(component: &[u8]) -> Result<u64> {
    let (mut scopes, mut largest, mut total): (Vec<Scope>, _, _) = (Vec::new(), 0, None);
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::Version { encoding, .. } => scopes.push(Scope::new(encoding)),
            Payload::End(_) => {
                let Some(ended) = scopes.pop() else { break };
                match scopes.last_mut() {
                    None => total = ended.bytes,
                    Some(outer) if ended.encoding == Encoding::Module => {
                        largest = largest.max(ended.bytes.unwrap_or_default());
                        outer.modules.push(ended.bytes);
                    }
                    Some(outer) => outer.components.push(ended.bytes),
                }
            }
            payload => {
                if let Some((scope, outer)) = scopes.split_last_mut() {
                    scope.add(payload, outer)?;
                }
            }
        }
    }
    // A component can have at most `INSTANCES_MAX` instances, and none of them takes more memory than an instance of
    // the largest module.
    let bound = u64::from(INSTANCES_MAX).saturating_mul(largest);
    Ok(total.map_or(bound, |total| total.min(bound)))
}

/// A module or a component while it is parsed. A size is `None` if it depends on a module or component that is
/// imported.
struct Scope {
    encoding: Encoding,
    /// The memory of one instance, in bytes.
    bytes: Option<u64>,
    /// For each module, by index: the memory of one instance, in bytes.
    modules: Vec<Option<u64>>,
    /// For each component, by index: the memory of one instance, in bytes.
    components: Vec<Option<u64>>,
}

impl Scope {
    fn new(encoding: Encoding) -> Self {
        Self { encoding, bytes: Some(0), modules: Vec::new(), components: Vec::new() }
    }

    fn grow(&mut self, bytes: Option<u64>) {
        self.bytes = self.bytes.zip(bytes).map(|(sum, bytes)| sum.saturating_add(bytes));
    }

    fn grow_by(&mut self, count: u32, bytes_each: u64) {
        self.grow(Some(u64::from(count) * bytes_each));
    }

    /// Adds the memory that a section takes in one instance, and the sizes of the modules and components that the
    /// section imports, exports or aliases. `outer` has the components around this one, the outermost first.
    fn add(&mut self, section: Payload<'_>, outer: &[Self]) -> Result<()> {
        match section {
            Payload::ImportSection(imports) => self.grow_by(imports.count(), IMPORT_BYTES),
            Payload::FunctionSection(functions) => self.grow_by(functions.count(), FUNCTION_BYTES),
            Payload::GlobalSection(globals) => self.grow_by(globals.count(), GLOBAL_BYTES),
            Payload::ElementSection(segments) => {
                for segment in segments {
                    let segment = segment?;
                    let count = match &segment.items {
                        ElementItems::Functions(items) => items.count(),
                        ElementItems::Expressions(_, items) => items.count(),
                    };
                    if matches!(segment.kind, ElementKind::Passive) {
                        self.grow_by(count, ELEMENT_BYTES);
                    }
                }
            }
            Payload::InstanceSection(instances) => {
                for instance in instances {
                    if let Instance::Instantiate { module_index, .. } = instance? {
                        self.grow(at(&self.modules, module_index));
                    }
                }
            }
            Payload::ComponentInstanceSection(instances) => {
                for instance in instances {
                    if let ComponentInstance::Instantiate { component_index, .. } = instance? {
                        self.grow(at(&self.components, component_index));
                    }
                }
            }
            Payload::ComponentAliasSection(aliases) => {
                for alias in aliases {
                    self.alias(&alias?, outer);
                }
            }
            Payload::ComponentImportSection(imports) => {
                for import in imports {
                    match import?.ty {
                        ComponentTypeRef::Module(_) => self.modules.push(None),
                        ComponentTypeRef::Component(_) => self.components.push(None),
                        _ => {}
                    }
                }
            }
            // Exporting a module or component gives it one more index.
            Payload::ComponentExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    match export.kind {
                        ComponentExternalKind::Module => self.modules.push(at(&self.modules, export.index)),
                        ComponentExternalKind::Component => self.components.push(at(&self.components, export.index)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn alias(&mut self, alias: &ComponentAlias<'_>, outer: &[Self]) {
        match *alias {
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. } => self.modules.push(None),
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => self.components.push(None),
            ComponentAlias::Outer { kind, count, index } => {
                let scope = usize::try_from(count).ok().and_then(|count| match count {
                    0 => Some(&*self),
                    _ => outer.get(outer.len().checked_sub(count)?),
                });
                match kind {
                    ComponentOuterAliasKind::CoreModule => {
                        let found = scope.and_then(|scope| at(&scope.modules, index));
                        self.modules.push(found);
                    }
                    ComponentOuterAliasKind::Component => {
                        let found = scope.and_then(|scope| at(&scope.components, index));
                        self.components.push(found);
                    }
                    ComponentOuterAliasKind::CoreType | ComponentOuterAliasKind::Type => {}
                }
            }
            _ => {}
        }
    }
}

fn at(sizes: &[Option<u64>], index: u32) -> Option<u64> {
    sizes.get(usize::try_from(index).ok()?).copied().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(wat: &str) -> u64 {
        instances_bytes(&wat::parse_str(wat).unwrap()).unwrap()
    }

    /// A module whose instance takes 2 × 32 + 3 × 16 + 4 × 16 bytes.
    const MODULE: &str = r#"
        (core module $m
            (func $f)
            (func (export "g"))
            (global i32 (i32.const 0)) (global i64 (i64.const 0)) (global f32 (f32.const 0))
            (table 9 funcref)
            (elem func $f $f $f $f)
            (elem declare func $f)
            (elem (i32.const 0) func $f $f $f $f $f $f))
    "#;
    const SIZE: u64 = 64 + 48 + 64;

    #[test]
    fn each_instance_of_a_module_counts() {
        let instance = "(core instance (instantiate $m))";
        for count in [0, 1, 3, 64] {
            assert_eq!(bytes_of(&format!("(component {MODULE} {})", instance.repeat(count))), SIZE * count as u64);
        }
        // A component can have only 64 instances.
        assert_eq!(bytes_of(&format!("(component {MODULE} {})", instance.repeat(1_000))), SIZE * 64);
        let imports = r#"
            (core instance $a (instantiate $m))
            (core module $n (import "a" "g" (func)) (import "a" "g" (func)))
            (core instance (instantiate $n (with "a" (instance $a))))
        "#;
        assert_eq!(bytes_of(&format!("(component {MODULE} {imports})")), SIZE + 64);
    }

    #[test]
    fn instances_of_nested_components_and_modules_of_outer_ones_count() {
        let nested = format!(
            "(component {MODULE}
               (component $c (core instance (instantiate $m)) (component $d (core instance (instantiate $m)))
                 (instance (instantiate $d)) (instance (instantiate $d)))
               (instance (instantiate $c)) (instance (instantiate $c)))"
        );
        assert_eq!(bytes_of(&nested), SIZE * 6);
        let exported =
            format!("(component {MODULE} (export $e \"e\" (core module $m)) (core instance (instantiate $e)))");
        assert_eq!(bytes_of(&exported), SIZE);
    }

    #[test]
    fn a_module_that_is_not_known_counts_as_64_of_the_largest() {
        let imported = format!(
            "(component {MODULE} (component (import \"m\" (core module $i)) (core instance (instantiate $i)))
               (component $c (import \"m\" (core module $i)) (core instance (instantiate $i)))
               (instance (instantiate $c (with \"m\" (core module $m)))))"
        );
        assert_eq!(bytes_of(&imported), SIZE * 64);
    }
}

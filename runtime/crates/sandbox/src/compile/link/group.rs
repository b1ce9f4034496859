//! Chooses the core modules to link, and finds what each of their imports refers to.

use std::collections::HashMap;

use wasmparser::{
    BinaryReader, CanonicalFunction, ComponentAlias, ImportSectionReader, Instance, InstantiationArg,
    MemorySectionReader, TypeRef,
};

use super::super::super::binary::section_id::{IMPORTS, MEMORIES, START, TAGS};
use super::super::super::binary::{body, sections};
use super::component::{Component, Item, Kind, at};
use super::{Result, Unlinkable};

/// The modules that become one module, in the order of their instances.
pub(super) struct Group<'a> {
    pub(super) members: Vec<Member<'a>>,
    /// For each core instance of the component: the position in `members` of its module.
    pub(super) of_instance: HashMap<u32, usize>,
}

pub(super) struct Member<'a> {
    /// The index of the module in the component.
    pub(super) module: u32,
    pub(super) bytes: &'a [u8],
    /// The imports, in their order.
    pub(super) imports: Vec<Import<'a>>,
}

#[derive(Clone, Copy)]
pub(super) struct Import<'a> {
    pub(super) kind: Kind,
    pub(super) ty: TypeRef,
    pub(super) source: Source<'a>,
}

/// The definition that an import refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source<'a> {
    /// An export of a core instance.
    Export { instance: u32, name: &'a str },
    /// A core function that the component itself defines: a function of the host, or one for a resource.
    Function(u32),
}

/// Chooses the modules in the order of their instances. Stops at the first instance that is not chosen but depends on a
/// chosen module. Creating this instance can change the memory or the tables of the group, so modules after it must be
/// created after it.
pub(super) fn choose<'a>(component: &Component<'a>) -> Result<Group<'a>> {
    let mut group = Group { members: Vec::new(), of_instance: HashMap::new() };
    let mut instantiations: HashMap<u32, u32> = HashMap::new();
    for item in &component.items {
        if let Item::Instance(Instance::Instantiate { module_index, .. }) = item {
            *instantiations.entry(*module_index).or_default() += 1;
        }
    }
    // For each item: whether it depends on a chosen module.
    let mut depends = vec![false; component.items.len()];
    let mut next_instance = 0;
    for (position, item) in component.items.iter().enumerate() {
        let named = component.named_by(item)?;
        let is_dependent = named.iter().any(|other| depends.get(*other) == Some(&true));
        match item {
            Item::Instance(instance) => {
                let index = next_instance;
                next_instance += 1;
                if let Instance::Instantiate { module_index, args } = instance {
                    let is_only = instantiations.get(module_index) == Some(&1);
                    match member(component, (*module_index, is_only), args, &group, &depends)? {
                        Some(member) => {
                            group.of_instance.insert(index, group.members.len());
                            group.members.push(member);
                            set(&mut depends, position, true)?;
                            continue;
                        }
                        None if is_dependent => break,
                        None => {}
                    }
                }
            }
            // `depends` does not track component functions, so the search ends here.
            Item::Canonical(CanonicalFunction::Lift { .. }) if is_dependent => break,
            _ => {}
        }
        set(&mut depends, position, is_dependent)?;
    }
    Ok(group)
}

fn set(depends: &mut [bool], position: usize, value: bool) -> Result<()> {
    *depends.get_mut(position).ok_or(Unlinkable)? = value;
    Ok(())
}

/// Returns a module as a member of the group, or `None` if it cannot be linked. `is_only` is true if the module is
/// instantiated once. Only one member defines a memory, because wasmtime's pool has one memory for each module.
fn member<'a>(
    component: &Component<'a>,
    (module, is_only): (u32, bool),
    arguments: &[InstantiationArg<'a>],
    group: &Group<'a>,
    depends: &[bool],
) -> Result<Option<Member<'a>>> {
    let bytes = component.module(module)?;
    if !is_only || sections(bytes).any(|section| matches!(section.id, START | TAGS)) {
        return Ok(None);
    }
    if defines_memory(bytes)? && group.members.iter().any(|member| defines_memory(member.bytes).unwrap_or(true)) {
        return Ok(None);
    }
    let arguments: HashMap<_, _> = arguments.iter().map(|argument| (argument.name, argument.index)).collect();
    let mut imports = Vec::new();
    for (name, field, ty) in module_imports(bytes)? {
        let Ok(kind) = kind_of(ty) else { return Ok(None) };
        let source = source(component, *arguments.get(name).ok_or(Unlinkable)?, field, kind)?;
        let (position, is_member) = match source {
            Source::Export { instance, .. } => {
                (at(&component.instances, instance)?, group.of_instance.contains_key(&instance))
            }
            Source::Function(index) => (component.core.get(Kind::Function, index)?, false),
        };
        // Another module could change or read the memory or table between the instances of two members.
        let is_shared = matches!(kind, Kind::Memory | Kind::Table);
        if !is_member && (is_shared || depends.get(position) != Some(&false)) {
            return Ok(None);
        }
        imports.push(Import { kind, ty, source });
    }
    Ok(Some(Member { module, bytes, imports }))
}

fn defines_memory(module: &[u8]) -> Result<bool> {
    let Some(memories) = body(module, MEMORIES) else { return Ok(false) };
    Ok(MemorySectionReader::new(BinaryReader::new(memories, 0))?.count() > 0)
}

/// Returns the imports of a core module: the two parts of the name, and the type.
pub(super) fn module_imports(module: &[u8]) -> Result<Vec<(&str, &str, TypeRef)>> {
    let Some(body) = body(module, IMPORTS) else { return Ok(Vec::new()) };
    let mut imports = Vec::new();
    for import in ImportSectionReader::new(BinaryReader::new(body, 0))?.into_imports() {
        let import = import?;
        imports.push((import.module, import.name, import.ty));
    }
    Ok(imports)
}

pub(super) fn kind_of(ty: TypeRef) -> Result<Kind> {
    match ty {
        TypeRef::Func(_) => Ok(Kind::Function),
        TypeRef::Table(_) => Ok(Kind::Table),
        TypeRef::Memory(_) => Ok(Kind::Memory),
        TypeRef::Global(_) => Ok(Kind::Global),
        TypeRef::FuncExact(_) | TypeRef::Tag(_) => Err(Unlinkable),
    }
}

/// Finds an export of a core instance. If the instance only gives names to other items, finds the item.
pub(super) fn source<'a>(
    component: &Component<'a>,
    mut instance: u32,
    mut name: &'a str,
    kind: Kind,
) -> Result<Source<'a>> {
    // An alias names an instance before it, so this ends.
    while let Instance::FromExports(_) = component.instance(instance)? {
        let (found, index) = *component.named.get(&(instance, name)).ok_or(Unlinkable)?;
        if found != kind {
            return Err(Unlinkable);
        }
        match component.item(component.core.get(kind, index)?)? {
            Item::Alias(ComponentAlias::CoreInstanceExport { instance_index, name: exported, .. }) => {
                (instance, name) = (*instance_index, exported);
            }
            Item::Canonical(_) => return Ok(Source::Function(index)),
            _ => return Err(Unlinkable),
        }
    }
    Ok(Source::Export { instance, name })
}

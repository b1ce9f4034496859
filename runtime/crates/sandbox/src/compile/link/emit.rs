//! Writes a component with the linked module in place of the members of the group.

use std::collections::{HashMap, HashSet};

use wasm_encoder::reencode::{Error, Reencode, ReencodeComponent};
use wasm_encoder::{Alias, CanonicalFunctionSection, ComponentAliasSection, InstanceSection, ModuleArg, RawSection};
use wasmparser::{CanonicalFunction, ComponentAlias, Instance};

use super::super::super::binary::section_id::CORE_MODULE;
use super::component::{Component, Item, Kind, at};
use super::group::{Group, Source, kind_of, module_imports};
use super::module::{Export, Linked, OUTSIDE, link};
use super::{Result, Unlinkable};

const EMPTY_MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";

/// Returns the component with its modules linked.
pub(super) fn component<'a>(component: &'a Component<'a>, group: &'a Group<'a>) -> Result<Vec<u8>> {
    let needed = needed(component, group)?;
    let exports = exports(component, group, &needed)?;
    let linked = link(group, &exports)?;
    let modules: HashSet<_> = group.members.iter().map(|member| member.module).collect();
    let last_module = *modules.iter().max().ok_or(Unlinkable)?;
    let last_instance = *group.of_instance.keys().max().ok_or(Unlinkable)?;
    let mut writer = Writer {
        component,
        group,
        exports: exports.iter().enumerate().map(|(number, export)| (*export, number.to_string())).collect(),
        linked_instance: None,
        out: wasm_encoder::Component::new(),
        new: Numbers::default(),
        instances: Vec::new(),
        instance_count: 0,
    };
    // The items that depend on the linked module, but come before it.
    let mut deferred = Vec::new();
    let mut depends = vec![false; component.items.len()];
    let (mut module, mut instance) = (0, 0);
    for (position, item) in component.items.iter().enumerate() {
        let is_dependent = component.named_by(item)?.iter().any(|other| depends.get(*other) == Some(&true));
        let is_needed = needed.get(position) == Some(&true);
        let is_waiting = is_dependent && writer.linked_instance.is_none();
        if is_dependent {
            *depends.get_mut(position).ok_or(Unlinkable)? = true;
        }
        match item {
            Item::Module(bytes) => {
                let bytes = match modules.contains(&module) {
                    true if module == last_module => &linked.bytes,
                    true => &EMPTY_MODULE[..],
                    false => bytes,
                };
                writer.out.section(&RawSection { id: CORE_MODULE, data: bytes });
                module += 1;
            }
            Item::Instance(_) if group.of_instance.contains_key(&instance) => {
                *depends.get_mut(position).ok_or(Unlinkable)? = true;
                writer.instances.push(None);
                if instance == last_instance {
                    writer.instantiate(&linked, last_module)?;
                    for (position, instance) in std::mem::take(&mut deferred) {
                        writer.item(position, instance)?;
                    }
                }
                instance += 1;
            }
            Item::Instance(_) => {
                writer.instances.push(None);
                match (is_needed, is_waiting) {
                    (true, true) => deferred.push((position, instance)),
                    (true, false) => writer.item(position, instance)?,
                    (false, _) => {}
                }
                instance += 1;
            }
            Item::Alias(ComponentAlias::CoreInstanceExport { .. }) if !is_needed => {}
            Item::Canonical(CanonicalFunction::Lift { .. }) if is_waiting => return Err(Unlinkable),
            _ if is_waiting => deferred.push((position, 0)),
            _ => writer.item(position, 0)?,
        }
    }
    Ok(writer.out.finish())
}

/// Returns for each item whether it is needed: instances and aliases that only pass items from member to member are not.
fn needed(component: &Component<'_>, group: &Group<'_>) -> Result<Vec<bool>> {
    let mut needed = vec![false; component.items.len()];
    let mut open = Vec::new();
    let mut instance = 0;
    for (position, item) in component.items.iter().enumerate() {
        let is_root = match item {
            Item::Instance(Instance::Instantiate { .. }) => !group.of_instance.contains_key(&instance),
            Item::Instance(_) | Item::Alias(ComponentAlias::CoreInstanceExport { .. }) => false,
            _ => true,
        };
        instance += u32::from(matches!(item, Item::Instance(_)));
        if is_root {
            open.push(position);
        }
    }
    while let Some(position) = open.pop() {
        let is_needed = needed.get_mut(position).ok_or(Unlinkable)?;
        if !std::mem::replace(is_needed, true) {
            open.extend(component.named_by(component.item(position)?)?);
        }
    }
    Ok(needed)
}

/// Returns the exports of members that needed items name.
fn exports<'a>(component: &Component<'a>, group: &Group<'a>, needed: &[bool]) -> Result<Vec<Export<'a>>> {
    let (mut exports, mut known) = (Vec::new(), HashSet::new());
    let mut add = |export| {
        if known.insert(export) {
            exports.push(export);
        }
    };
    for (item, _) in component.items.iter().zip(needed).filter(|(_, is_needed)| **is_needed) {
        match item {
            Item::Alias(ComponentAlias::CoreInstanceExport { instance_index, name, .. }) => {
                if let Some(member) = group.of_instance.get(instance_index) {
                    add((*member, *name));
                }
            }
            Item::Instance(Instance::Instantiate { module_index, args }) => {
                let members =
                    args.iter().filter_map(|argument| Some((*group.of_instance.get(&argument.index)?, argument.name)));
                let members: Vec<_> = members.collect();
                if members.is_empty() {
                    continue;
                }
                let imported = imported(component, *module_index)?;
                for (member, argument) in members {
                    imported.get(argument).into_iter().flatten().for_each(|(_, name)| add((member, *name)));
                }
            }
            _ => {}
        }
    }
    Ok(exports)
}

/// What a module imports, by the name of the argument.
type Imported<'a> = HashMap<&'a str, Vec<(Kind, &'a str)>>;

fn imported<'a>(component: &Component<'a>, module: u32) -> Result<Imported<'a>> {
    let mut imported = Imported::new();
    for (from, name, ty) in module_imports(component.module(module)?)? {
        imported.entry(from).or_default().push((kind_of(ty)?, name));
    }
    Ok(imported)
}

struct Writer<'a> {
    component: &'a Component<'a>,
    group: &'a Group<'a>,
    /// The names of the exports in the linked module.
    exports: HashMap<Export<'a>, String>,
    linked_instance: Option<u32>,
    out: wasm_encoder::Component,
    new: Numbers,
    /// The new index of each core instance that was written.
    instances: Vec<Option<u32>>,
    instance_count: u32,
}

impl<'a> Writer<'a> {
    /// Writes the item at a position. `instance` is its index, if it is a core instance.
    fn item(&mut self, position: usize, instance: u32) -> Result<()> {
        match self.component.item(position)? {
            Item::Module(_) => return Err(Unlinkable),
            Item::Other { id, body } => {
                self.out.section(&RawSection { id: *id, data: body });
            }
            Item::Canonical(function) => {
                let mut section = CanonicalFunctionSection::new();
                self.new.parse_component_canonical(&mut section, function.clone())?;
                self.out.section(&section);
                if !matches!(function, CanonicalFunction::Lift { .. }) {
                    let new = self.new.next(Kind::Function);
                    self.define(Kind::Function, position, new)?;
                }
            }
            Item::Alias(ComponentAlias::CoreInstanceExport { kind, instance_index, name }) => {
                let kind = Kind::of(*kind)?;
                let new = self.alias(kind, *instance_index, name)?;
                self.define(kind, position, new)?;
            }
            Item::Alias(alias) => {
                let mut section = ComponentAliasSection::new();
                section.alias(self.new.component_alias(alias.clone())?);
                self.out.section(&section);
            }
            Item::Instance(Instance::FromExports(exports)) => {
                let mut items = Vec::new();
                for export in exports {
                    let kind = Kind::of(export.kind)?;
                    items.push((export.name, kind.export(), self.new.get(kind, export.index)?));
                }
                let new = self.export_items(&items);
                self.set_instance(instance, new)?;
            }
            Item::Instance(Instance::Instantiate { module_index, args }) => {
                let imported = imported(self.component, *module_index)?;
                let mut arguments = Vec::new();
                for argument in args {
                    let names = imported.get(argument.name).map_or(&[][..], Vec::as_slice);
                    arguments.push((argument.name, ModuleArg::Instance(self.argument(argument.index, names)?)));
                }
                let mut section = InstanceSection::new();
                section.instantiate(*module_index, arguments);
                self.out.section(&section);
                let new = self.next_instance();
                self.set_instance(instance, new)?;
            }
        }
        Ok(())
    }

    /// Writes the instance of the linked module.
    fn instantiate(&mut self, linked: &Linked<'a>, module: u32) -> Result<()> {
        let mut items = Vec::new();
        for (number, (kind, source)) in linked.outside.iter().enumerate() {
            let index = match source {
                Source::Function(index) => self.new.get(*kind, *index)?,
                Source::Export { instance, name } => self.alias(*kind, *instance, name)?,
            };
            items.push((number.to_string(), kind.export(), index));
        }
        let outside = self.export_items(&items);
        let mut section = InstanceSection::new();
        section.instantiate(module, [(OUTSIDE, ModuleArg::Instance(outside))]);
        self.out.section(&section);
        self.linked_instance = Some(self.next_instance());
        Ok(())
    }

    /// Returns the new index of an instance that is an argument of a module, which imports `names` from it. A member has
    /// no instance any more, so its exports get their old names in an instance of their own.
    fn argument(&mut self, instance: u32, names: &[(Kind, &'a str)]) -> Result<u32> {
        if !self.group.of_instance.contains_key(&instance) {
            return at(&self.instances, instance)?.ok_or(Unlinkable);
        }
        let mut items = Vec::new();
        for (kind, name) in names {
            items.push((*name, kind.export(), self.alias(*kind, instance, name)?));
        }
        Ok(self.export_items(&items))
    }

    /// Writes an alias of an export of an instance, which has the old index `instance`. Returns the alias's new index.
    fn alias(&mut self, kind: Kind, instance: u32, name: &'a str) -> Result<u32> {
        let (instance, name) = match self.group.of_instance.get(&instance) {
            Some(member) => {
                let name = self.exports.get(&(*member, name)).ok_or(Unlinkable)?;
                (self.linked_instance.ok_or(Unlinkable)?, name.as_str())
            }
            None => (at(&self.instances, instance)?.ok_or(Unlinkable)?, name),
        };
        let mut section = ComponentAliasSection::new();
        section.alias(Alias::CoreInstanceExport { instance, kind: kind.export(), name });
        self.out.section(&section);
        Ok(self.new.next(kind))
    }

    fn export_items<S: AsRef<str>>(&mut self, items: &[(S, wasm_encoder::ExportKind, u32)]) -> u32 {
        let mut section = InstanceSection::new();
        section.export_items(items.iter().map(|(name, kind, index)| (name.as_ref(), *kind, *index)));
        self.out.section(&section);
        self.next_instance()
    }

    fn next_instance(&mut self) -> u32 {
        self.instance_count += 1;
        self.instance_count - 1
    }

    fn set_instance(&mut self, old: u32, new: u32) -> Result<()> {
        let old = usize::try_from(old).map_err(|_| Unlinkable)?;
        *self.instances.get_mut(old).ok_or(Unlinkable)? = Some(new);
        Ok(())
    }

    /// Gives the core item that is defined at a position its new index.
    fn define(&mut self, kind: Kind, position: usize, new: u32) -> Result<()> {
        self.new.new.insert((kind, self.component.core.index_of(kind, &position)?), new);
        Ok(())
    }
}

/// The new indexes of core items.
#[derive(Default)]
struct Numbers {
    /// For each old index: the new one.
    new: HashMap<(Kind, u32), u32>,
    counts: HashMap<Kind, u32>,
}

impl Numbers {
    fn get(&self, kind: Kind, old: u32) -> Result<u32> {
        self.new.get(&(kind, old)).copied().ok_or(Unlinkable)
    }

    /// Returns the new index of the next item of a kind.
    fn next(&mut self, kind: Kind) -> u32 {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        *count - 1
    }
}

impl Reencode for Numbers {
    type Error = Unlinkable;

    fn function_index(&mut self, index: u32) -> Result<u32, Error<Unlinkable>> {
        self.get(Kind::Function, index).map_err(Error::UserError)
    }

    fn table_index(&mut self, index: u32) -> Result<u32, Error<Unlinkable>> {
        self.get(Kind::Table, index).map_err(Error::UserError)
    }

    fn memory_index(&mut self, index: u32) -> Result<u32, Error<Unlinkable>> {
        self.get(Kind::Memory, index).map_err(Error::UserError)
    }
}

impl ReencodeComponent for Numbers {}

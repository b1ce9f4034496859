//! The parts of a component that linking reads and writes again.

use std::collections::HashMap;

use wasm_encoder::reencode::{Error, Reencode, ReencodeComponent};
use wasmparser::{
    BinaryReader, CanonicalFunction, ComponentAlias, ComponentAliasSectionReader, ComponentCanonicalSectionReader,
    ComponentExportSectionReader, ComponentExternalKind, ComponentImportSectionReader, ComponentInstance,
    ComponentInstanceSectionReader, ComponentOuterAliasKind, ComponentType, ComponentTypeRef,
    ComponentTypeSectionReader, ExternalKind, Instance, InstanceSectionReader, Parser, Payload,
};

use super::super::super::binary::{Section, section_id};
use super::super::bulk::all_sections;
use super::{Result, Unlinkable};

/// A kind of core items that a component can name, with an index space of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Function,
    Table,
    Memory,
    Global,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Function, Self::Table, Self::Memory, Self::Global];

    pub(super) fn of(kind: ExternalKind) -> Result<Self> {
        match kind {
            ExternalKind::Func => Ok(Self::Function),
            ExternalKind::Table => Ok(Self::Table),
            ExternalKind::Memory => Ok(Self::Memory),
            ExternalKind::Global => Ok(Self::Global),
            _ => Err(Unlinkable),
        }
    }

    pub(super) fn export(self) -> wasm_encoder::ExportKind {
        match self {
            Self::Function => wasm_encoder::ExportKind::Func,
            Self::Table => wasm_encoder::ExportKind::Table,
            Self::Memory => wasm_encoder::ExportKind::Memory,
            Self::Global => wasm_encoder::ExportKind::Global,
        }
    }
}

/// A value for each index of each [`Kind`].
#[derive(Debug, Clone)]
pub(super) struct Spaces<T>([Vec<T>; 4]);

impl<T> Default for Spaces<T> {
    fn default() -> Self {
        Self(Default::default())
    }
}

impl<T> Spaces<T> {
    pub(super) fn of(&mut self, kind: Kind) -> &mut Vec<T> {
        let [functions, tables, memories, globals] = &mut self.0;
        match kind {
            Kind::Function => functions,
            Kind::Table => tables,
            Kind::Memory => memories,
            Kind::Global => globals,
        }
    }

    pub(super) fn len(&self, kind: Kind) -> u32 {
        u32::try_from(self.all(kind).len()).unwrap_or(u32::MAX)
    }

    fn all(&self, kind: Kind) -> &[T] {
        let [functions, tables, memories, globals] = &self.0;
        match kind {
            Kind::Function => functions,
            Kind::Table => tables,
            Kind::Memory => memories,
            Kind::Global => globals,
        }
    }
}

impl<T: Ord> Spaces<T> {
    /// Returns the index of a value. The values must be in ascending order.
    pub(super) fn index_of(&self, kind: Kind, value: &T) -> Result<u32> {
        let index = self.all(kind).binary_search(value).map_err(|_| Unlinkable)?;
        u32::try_from(index).map_err(|_| Unlinkable)
    }
}

impl<T: Copy> Spaces<T> {
    pub(super) fn get(&self, kind: Kind, index: u32) -> Result<T> {
        at(self.all(kind), index)
    }
}

pub(super) fn at<T: Copy>(values: &[T], index: u32) -> Result<T> {
    usize::try_from(index).ok().and_then(|index| values.get(index)).copied().ok_or(Unlinkable)
}

/// One definition of a component, or a section whose definitions neither are nor name core items.
pub(super) enum Item<'a> {
    Module(&'a [u8]),
    Instance(Instance<'a>),
    Alias(ComponentAlias<'a>),
    Canonical(CanonicalFunction),
    Other { id: u8, body: &'a [u8] },
}

/// The items of a component in their order, without custom sections.
#[derive(Default)]
pub(super) struct Component<'a> {
    pub(super) items: Vec<Item<'a>>,
    /// The positions of the core modules in `items`.
    pub(super) modules: Vec<usize>,
    /// The positions of the core instances in `items`.
    pub(super) instances: Vec<usize>,
    /// The items to which core instances only give names: by the index of the instance and the name, the kind and the
    /// index of the item.
    pub(super) named: HashMap<(u32, &'a str), (Kind, u32)>,
    /// For each core function, table, memory and global: the position in `items` of its alias or definition.
    pub(super) core: Spaces<usize>,
}

impl<'a> Component<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut component = Self::default();
        for section in all_sections(bytes).ok_or(Unlinkable)? {
            component.section(&section)?;
        }
        Ok(component)
    }

    fn section(&mut self, section: &Section<'a>) -> Result<()> {
        let body = section.body;
        let reader = || BinaryReader::new(body, 0);
        match section.id {
            section_id::CUSTOM => return Ok(()),
            section_id::CORE_MODULE => {
                self.modules.push(self.items.len());
                self.items.push(Item::Module(body));
                return Ok(());
            }
            section_id::CORE_INSTANCES => {
                for instance in InstanceSectionReader::new(reader())? {
                    self.add_instance(instance?)?;
                }
                return Ok(());
            }
            section_id::ALIASES => {
                for alias in ComponentAliasSectionReader::new(reader())? {
                    self.alias(alias?)?;
                }
                return Ok(());
            }
            section_id::CANONICAL_FUNCTIONS => {
                for function in ComponentCanonicalSectionReader::new(reader())? {
                    let function = function?;
                    if !matches!(function, CanonicalFunction::Lift { .. }) {
                        self.core.of(Kind::Function).push(self.items.len());
                    }
                    self.items.push(Item::Canonical(function));
                }
                return Ok(());
            }
            section_id::COMPONENT_TYPES => {
                for ty in ComponentTypeSectionReader::new(reader())? {
                    // A destructor is a core function, which would need its new index.
                    reject(matches!(ty?, ComponentType::Resource { dtor: Some(_), .. }))?;
                }
            }
            section_id::COMPONENT => check_nested(body)?,
            section_id::INSTANCES => check_arguments(ComponentInstanceSectionReader::new(reader())?)?,
            section_id::COMPONENT_IMPORTS => {
                for import in ComponentImportSectionReader::new(reader())? {
                    reject(matches!(import?.ty, ComponentTypeRef::Module(_)))?;
                }
            }
            section_id::COMPONENT_EXPORTS => {
                for export in ComponentExportSectionReader::new(reader())? {
                    reject(export?.kind == ComponentExternalKind::Module)?;
                }
            }
            _ => {}
        }
        self.items.push(Item::Other { id: section.id, body });
        Ok(())
    }

    fn add_instance(&mut self, instance: Instance<'a>) -> Result<()> {
        let number = u32::try_from(self.instances.len()).map_err(|_| Unlinkable)?;
        if let Instance::FromExports(exports) = &instance {
            for export in exports {
                self.named.insert((number, export.name), (Kind::of(export.kind)?, export.index));
            }
        }
        self.instances.push(self.items.len());
        self.items.push(Item::Instance(instance));
        Ok(())
    }

    fn alias(&mut self, alias: ComponentAlias<'a>) -> Result<()> {
        match alias {
            ComponentAlias::CoreInstanceExport { kind, .. } => {
                self.core.of(Kind::of(kind)?).push(self.items.len());
            }
            ComponentAlias::InstanceExport { kind, .. } => reject(kind == ComponentExternalKind::Module)?,
            ComponentAlias::Outer { kind, .. } => reject(kind == ComponentOuterAliasKind::CoreModule)?,
        }
        self.items.push(Item::Alias(alias));
        Ok(())
    }

    /// Returns the item at a position.
    pub(super) fn item(&self, position: usize) -> Result<&Item<'a>> {
        self.items.get(position).ok_or(Unlinkable)
    }

    /// Returns the core instance with this index.
    pub(super) fn instance(&self, index: u32) -> Result<&Instance<'a>> {
        match self.item(at(&self.instances, index)?)? {
            Item::Instance(instance) => Ok(instance),
            _ => Err(Unlinkable),
        }
    }

    /// Returns the core module with this index.
    pub(super) fn module(&self, index: u32) -> Result<&'a [u8]> {
        match self.item(at(&self.modules, index)?)? {
            Item::Module(bytes) => Ok(bytes),
            _ => Err(Unlinkable),
        }
    }

    /// Returns the positions of the core items and core instances that an item names.
    pub(super) fn named_by(&self, item: &Item<'a>) -> Result<Vec<usize>> {
        match item {
            Item::Module(_) | Item::Other { .. } => Ok(Vec::new()),
            Item::Instance(Instance::Instantiate { args, .. }) => {
                args.iter().map(|argument| at(&self.instances, argument.index)).collect()
            }
            Item::Instance(Instance::FromExports(exports)) => {
                exports.iter().map(|export| self.core.get(Kind::of(export.kind)?, export.index)).collect()
            }
            Item::Alias(ComponentAlias::CoreInstanceExport { instance_index, .. }) => {
                Ok(vec![at(&self.instances, *instance_index)?])
            }
            Item::Alias(_) => Ok(Vec::new()),
            Item::Canonical(function) => {
                let mut named = Named { core: &self.core, positions: Vec::new() };
                named
                    .parse_component_canonical(&mut wasm_encoder::CanonicalFunctionSection::new(), function.clone())?;
                Ok(named.positions)
            }
        }
    }
}

fn reject(is_unknown: bool) -> Result<()> {
    if is_unknown { Err(Unlinkable) } else { Ok(()) }
}

/// Rejects a component in which a nested component aliases a core module of an outer one.
fn check_nested(component: &[u8]) -> Result<()> {
    for payload in Parser::new(0).parse_all(component) {
        if let Payload::ComponentAliasSection(aliases) = payload? {
            for alias in aliases {
                let alias = alias?;
                reject(matches!(alias, ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, .. }))?;
            }
        }
    }
    Ok(())
}

fn check_arguments(instances: ComponentInstanceSectionReader<'_>) -> Result<()> {
    for instance in instances {
        match instance? {
            ComponentInstance::Instantiate { args, .. } => {
                reject(args.iter().any(|argument| argument.kind == ComponentExternalKind::Module))?;
            }
            ComponentInstance::FromExports(exports) => {
                reject(exports.iter().any(|export| export.kind == ComponentExternalKind::Module))?;
            }
        }
    }
    Ok(())
}

/// Collects the core items that a canonical function names.
struct Named<'a> {
    core: &'a Spaces<usize>,
    positions: Vec<usize>,
}

impl Named<'_> {
    fn add(&mut self, kind: Kind, index: u32) -> Result<u32, Error<Unlinkable>> {
        self.positions.push(self.core.get(kind, index).map_err(Error::UserError)?);
        Ok(index)
    }
}

impl Reencode for Named<'_> {
    type Error = Unlinkable;

    fn function_index(&mut self, index: u32) -> Result<u32, Error<Unlinkable>> {
        self.add(Kind::Function, index)
    }

    fn table_index(&mut self, index: u32) -> Result<u32, Error<Unlinkable>> {
        self.add(Kind::Table, index)
    }

    fn memory_index(&mut self, index: u32) -> Result<u32, Error<Unlinkable>> {
        self.add(Kind::Memory, index)
    }
}

impl ReencodeComponent for Named<'_> {}

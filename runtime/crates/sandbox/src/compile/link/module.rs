//! Makes one core module of the members of a group.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{
    CodeSection, ConstExpr, DataCountSection, DataSection, ElementSection, Elements, EntityType, ExportSection,
    FunctionSection, GlobalSection, ImportSection, Instruction, MemorySection, Module, NameMap, NameSection,
    TableSection, TypeSection,
};
use wasmparser::{
    DataKind, ElementItems, ElementKind, FunctionBody, KnownCustom, Name, NameSectionReader, Operator, Parser, Payload,
    TypeRef,
};

use super::component::{Kind, Spaces};
use super::constant::{self, Constant};
use super::group::{Group, Import, Member, Source};
use super::limits::Limits;
use super::{Result, Unlinkable};

/// The name of the module in each import of the linked module.
pub(super) const OUTSIDE: &str = "";

/// The linked module.
pub(super) struct Linked<'a> {
    pub(super) bytes: Vec<u8>,
    /// The imports that no member defines. Each has its position in this list as its name in the linked module.
    pub(super) outside: Vec<(Kind, Source<'a>)>,
}

/// An export of a member: the position of the member in the group, and the name.
pub(super) type Export<'a> = (usize, &'a str);

/// Links the members. Each of `exports` has its position in this list as its name in the linked module.
pub(super) fn link<'a>(group: &Group<'a>, exports: &[Export<'a>]) -> Result<Linked<'a>> {
    let parsed: Vec<_> = group.members.iter().map(|member| Parsed::parse(member.bytes)).collect::<Result<_>>()?;
    let mut linker = Linker::default();
    linker.number(group, &parsed)?;
    let mut sections = Sections::default();
    linker.import(&mut sections)?;
    let mut limits = Limits::default();
    for (current, part) in parsed.iter().enumerate() {
        linker.current = current;
        linker.define(part, &mut sections, &mut limits)?;
    }
    for (current, part) in parsed.iter().enumerate() {
        linker.current = current;
        linker.fill(part, &mut sections, &mut limits)?;
    }
    limits.check_images()?;
    // In a member, an export declares that the function can be the operand of `ref.func`. Most exports are gone now.
    if !linker.referenced.is_empty() {
        let referenced: Vec<_> = linker.referenced.iter().copied().collect();
        sections.elements.declared(Elements::Functions(referenced.into()));
    }
    for (number, (member, name)) in exports.iter().enumerate() {
        let (kind, index) = linker.export(&parsed, *member, name)?;
        sections.exports.export(&number.to_string(), kind.export(), index);
    }
    let outside = linker.outside.iter().map(|outside| (outside.import.kind, outside.import.source)).collect();
    Ok(Linked { bytes: sections.module(), outside })
}

/// The sections of a core module.
#[derive(Default)]
struct Parsed<'a> {
    types: Option<wasmparser::TypeSectionReader<'a>>,
    type_count: u32,
    functions: Option<wasmparser::FunctionSectionReader<'a>>,
    tables: Option<wasmparser::TableSectionReader<'a>>,
    memories: Option<wasmparser::MemorySectionReader<'a>>,
    globals: Option<wasmparser::GlobalSectionReader<'a>>,
    exports: HashMap<&'a str, (Kind, u32)>,
    elements: Option<wasmparser::ElementSectionReader<'a>>,
    bodies: Vec<FunctionBody<'a>>,
    data: Option<wasmparser::DataSectionReader<'a>>,
    names: Option<NameSectionReader<'a>>,
}

impl<'a> Parsed<'a> {
    fn parse(module: &'a [u8]) -> Result<Self> {
        let mut parsed = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::TypeSection(types) => {
                    for group in types.clone() {
                        parsed.type_count += u32::try_from(group?.types().len()).map_err(|_| Unlinkable)?;
                    }
                    parsed.types = Some(types);
                }
                Payload::FunctionSection(functions) => parsed.functions = Some(functions),
                Payload::TableSection(tables) => parsed.tables = Some(tables),
                Payload::MemorySection(memories) => parsed.memories = Some(memories),
                Payload::GlobalSection(globals) => parsed.globals = Some(globals),
                Payload::ExportSection(exports) => {
                    for export in exports {
                        let export = export?;
                        parsed.exports.insert(export.name, (Kind::of(export.kind)?, export.index));
                    }
                }
                Payload::ElementSection(elements) => parsed.elements = Some(elements),
                Payload::CodeSectionEntry(body) => parsed.bodies.push(body),
                Payload::DataSection(data) => parsed.data = Some(data),
                Payload::CustomSection(custom) => {
                    if let KnownCustom::Name(names) = custom.as_known() {
                        parsed.names = Some(names);
                    }
                }
                Payload::Version { .. }
                | Payload::ImportSection(_)
                | Payload::DataCountSection { .. }
                | Payload::CodeSectionStart { .. }
                | Payload::End(_) => {}
                _ => return Err(Unlinkable),
            }
        }
        Ok(parsed)
    }

    /// Returns how many items of a kind the module defines.
    fn defined(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Function => self.functions.as_ref().map_or(0, wasmparser::SectionLimited::count),
            Kind::Table => self.tables.as_ref().map_or(0, wasmparser::SectionLimited::count),
            Kind::Memory => self.memories.as_ref().map_or(0, wasmparser::SectionLimited::count),
            Kind::Global => self.globals.as_ref().map_or(0, wasmparser::SectionLimited::count),
        }
    }
}

/// The new indexes of a member's items.
#[derive(Default)]
struct Maps {
    /// The new index of the member's first type.
    types: u32,
    /// The new index of its first element segment.
    elements: u32,
    /// The new index of its first data segment.
    data: u32,
    /// The new index of each function, table, memory and global, imported or defined.
    items: Spaces<u32>,
}

/// An import of the linked module.
struct Outside<'a> {
    import: Import<'a>,
    /// The member whose types the type of the import refers to.
    member: usize,
}

/// Translates the indexes of one member after the other.
#[derive(Default)]
pub(super) struct Linker<'a> {
    /// For each member.
    maps: Vec<Maps>,
    current: usize,
    /// The values of the immutable globals that members define, by new index.
    values: HashMap<u32, Constant>,
    outside: Vec<Outside<'a>>,
    /// The new index of each import in `outside`, and its type.
    outside_indexes: HashMap<(Kind, Source<'a>), (u32, TypeRef)>,
    outside_counts: HashMap<Kind, u32>,
    /// The new indexes of the functions that are operands of `ref.func`.
    referenced: BTreeSet<u32>,
}

impl<'a> Linker<'a> {
    /// Assigns the new indexes: for each kind first the imports of the linked module, then the definitions of each
    /// member.
    fn number(&mut self, group: &Group<'a>, parsed: &[Parsed<'_>]) -> Result<()> {
        self.find_outside(group)?;
        let mut next = self.outside_counts.clone();
        let (mut types, mut elements, mut data) = (0, 0, 0);
        for (member, part) in group.members.iter().zip(parsed) {
            let mut maps = Maps { types, elements, data, items: Spaces::default() };
            for import in &member.imports {
                let index = self.target(group, parsed, import)?;
                maps.items.of(import.kind).push(index);
            }
            for kind in Kind::ALL {
                let first = next.get(&kind).copied().unwrap_or_default();
                let end = first.checked_add(part.defined(kind)).ok_or(Unlinkable)?;
                maps.items.of(kind).extend(first..end);
                next.insert(kind, end);
            }
            types += part.type_count;
            elements += part.elements.as_ref().map_or(0, wasmparser::SectionLimited::count);
            data += part.data.as_ref().map_or(0, wasmparser::SectionLimited::count);
            self.maps.push(maps);
        }
        Ok(())
    }

    /// Lists the imports that no member defines, each once.
    fn find_outside(&mut self, group: &Group<'a>) -> Result<()> {
        for (member, Member { imports, .. }) in group.members.iter().enumerate() {
            for import in imports {
                if matches!(import.source, Source::Export { instance, .. } if group.of_instance.contains_key(&instance))
                {
                    continue;
                }
                let count = self.outside_counts.entry(import.kind).or_default();
                match self.outside_indexes.entry((import.kind, import.source)) {
                    Entry::Vacant(entry) => {
                        entry.insert((*count, import.ty));
                        *count += 1;
                        self.outside.push(Outside { import: *import, member });
                    }
                    // The types of functions are equal, because both are the type of the definition.
                    Entry::Occupied(entry) if import.kind == Kind::Function || entry.get().1 == import.ty => {}
                    Entry::Occupied(_) => return Err(Unlinkable),
                }
            }
        }
        Ok(())
    }

    fn outside_count(&self, kind: Kind) -> u32 {
        self.outside_counts.get(&kind).copied().unwrap_or_default()
    }

    /// Returns the new index of an import's definition. A member only imports from members before it.
    fn target(&self, group: &Group<'a>, parsed: &[Parsed<'_>], import: &Import<'a>) -> Result<u32> {
        if let Source::Export { instance, name } = import.source
            && let Some(member) = group.of_instance.get(&instance)
        {
            let (kind, index) = self.export(parsed, *member, name)?;
            return if kind == import.kind { Ok(index) } else { Err(Unlinkable) };
        }
        self.outside_indexes.get(&(import.kind, import.source)).map(|(index, _)| *index).ok_or(Unlinkable)
    }

    /// Returns the kind and the new index of a member's export.
    fn export(&self, parsed: &[Parsed<'_>], member: usize, name: &str) -> Result<(Kind, u32)> {
        let (kind, index) = *parsed.get(member).and_then(|part| part.exports.get(name)).ok_or(Unlinkable)?;
        Ok((kind, self.maps.get(member).ok_or(Unlinkable)?.items.get(kind, index)?))
    }

    /// Adds the imports of the linked module.
    fn import(&mut self, sections: &mut Sections) -> Result<()> {
        let imports: Vec<_> = self.outside.iter().map(|outside| (outside.import.ty, outside.member)).collect();
        for (number, (ty, member)) in imports.into_iter().enumerate() {
            self.current = member;
            let ty: EntityType = match ty {
                TypeRef::Func(index) => EntityType::Function(self.type_index(index)?),
                ty => self.entity_type(ty)?,
            };
            sections.imports.import(OUTSIDE, &number.to_string(), ty);
        }
        Ok(())
    }

    /// Adds the types and definitions of the current member.
    fn define(&mut self, part: &Parsed<'_>, to: &mut Sections, limits: &mut Limits) -> Result<()> {
        if let Some(types) = part.types.clone() {
            self.parse_type_section(&mut to.types, types)?;
        }
        if let Some(functions) = part.functions.clone() {
            self.parse_function_section(&mut to.functions, functions)?;
        }
        for table in part.tables.clone().into_iter().flatten() {
            let table = table?;
            limits.tables.push(table.ty.initial);
            self.parse_table(&mut to.tables, table)?;
        }
        for memory in part.memories.clone().into_iter().flatten() {
            let memory = memory?;
            limits.add_memory(memory.initial);
            to.memories.memory(self.memory_type(memory)?);
        }
        let imported = self.maps()?.items.len(Kind::Global) - part.defined(Kind::Global);
        for (number, global) in (imported..).zip(part.globals.clone().into_iter().flatten()) {
            let global = global?;
            let value = constant::compute(self, &global.init_expr)?;
            to.globals.global(self.global_type(global.ty)?, &value.expression());
            if !global.ty.mutable {
                let index = self.global_index(number)?;
                self.values.insert(index, value);
            }
        }
        Ok(())
    }

    /// Adds the segments, the code and the names of the current member. All globals are known.
    fn fill(&mut self, part: &Parsed<'_>, to: &mut Sections, limits: &mut Limits) -> Result<()> {
        for segment in part.elements.clone().into_iter().flatten() {
            let segment = segment?;
            if let ElementKind::Active { table_index, offset_expr } = &segment.kind {
                let table = self.table_index(table_index.unwrap_or(0))?;
                let count = match &segment.items {
                    ElementItems::Functions(items) => items.count(),
                    ElementItems::Expressions(_, items) => items.count(),
                };
                let offset = constant::compute(self, offset_expr)?;
                limits.check_table(table, &offset, u64::from(count))?;
            }
            self.parse_element(&mut to.elements, segment)?;
        }
        for body in &part.bodies {
            self.parse_function_body(&mut to.code, body.clone())?;
        }
        for segment in part.data.clone().into_iter().flatten() {
            let segment = segment?;
            to.data_count += 1;
            let bytes = segment.data.iter().copied();
            let DataKind::Active { memory_index, offset_expr } = segment.kind else {
                to.data.passive(bytes);
                continue;
            };
            let (memory, offset) = (self.memory_index(memory_index)?, constant::compute(self, &offset_expr)?);
            limits.add_data(memory, &offset, segment.data.len() as u64)?;
            to.data.active(memory, &offset.expression(), bytes);
        }
        self.name(part, &mut to.names)
    }

    /// Adds the names of the functions that the current member defines, up to the first malformed one of a list.
    fn name(&mut self, part: &Parsed<'_>, names: &mut NameMap) -> Result<()> {
        let imported = self.maps()?.items.len(Kind::Function) - part.defined(Kind::Function);
        let mut last = None;
        for list in part.names.clone().into_iter().flatten() {
            let Ok(Name::Function(functions)) = list else { continue };
            for naming in functions.into_iter().flatten() {
                // wasm-encoder expects the names in the order of the indexes.
                if naming.index >= imported && last < Some(naming.index) {
                    last = Some(naming.index);
                    if let Ok(index) = self.function_index(naming.index) {
                        names.append(index, naming.name);
                    }
                }
            }
        }
        Ok(())
    }

    fn maps(&self) -> Result<&Maps> {
        self.maps.get(self.current).ok_or(Unlinkable)
    }

    fn index(&self, kind: Kind, index: u32) -> Result<u32, Error<Unlinkable>> {
        self.maps().and_then(|maps| maps.items.get(kind, index)).map_err(Error::UserError)
    }

    fn after(&self, first: impl Fn(&Maps) -> u32, index: u32) -> Result<u32, Error<Unlinkable>> {
        let first = first(self.maps().map_err(Error::UserError)?);
        first.checked_add(index).ok_or(Error::UserError(Unlinkable))
    }

    /// Returns the value of a global of the current member in a constant expression.
    pub(super) fn global(&mut self, index: u32) -> Result<Constant> {
        let index = self.global_index(index)?;
        match self.values.get(&index) {
            Some(value) => Ok(value.clone()),
            None if index < self.outside_count(Kind::Global) => Ok(Constant::Other(ConstExpr::global_get(index))),
            None => Err(Unlinkable),
        }
    }
}

impl Reencode for Linker<'_> {
    type Error = Unlinkable;

    fn type_index(&mut self, index: u32) -> Result<u32, Error<Unlinkable>> {
        self.after(|maps| maps.types, index)
    }

    fn element_index(&mut self, index: u32) -> Result<u32, Error<Unlinkable>> {
        self.after(|maps| maps.elements, index)
    }

    fn data_index(&mut self, index: u32) -> Result<u32, Error<Unlinkable>> {
        self.after(|maps| maps.data, index)
    }

    fn function_index(&mut self, index: u32) -> Result<u32, Error<Unlinkable>> {
        self.index(Kind::Function, index)
    }

    fn table_index(&mut self, index: u32) -> Result<u32, Error<Unlinkable>> {
        self.index(Kind::Table, index)
    }

    fn memory_index(&mut self, index: u32) -> Result<u32, Error<Unlinkable>> {
        self.index(Kind::Memory, index)
    }

    fn global_index(&mut self, index: u32) -> Result<u32, Error<Unlinkable>> {
        self.index(Kind::Global, index)
    }

    fn instruction<'b>(&mut self, operator: Operator<'b>) -> Result<Instruction<'b>, Error<Unlinkable>> {
        if let Operator::RefFunc { function_index } = operator {
            let function = self.function_index(function_index)?;
            self.referenced.insert(function);
        }
        utils::instruction(self, operator)
    }

    fn const_expr(&mut self, expression: wasmparser::ConstExpr<'_>) -> Result<ConstExpr, Error<Unlinkable>> {
        constant::compute(self, &expression).map(|value| value.expression()).map_err(Error::UserError)
    }
}

/// The sections of the linked module.
#[derive(Default)]
struct Sections {
    types: TypeSection,
    imports: ImportSection,
    functions: FunctionSection,
    tables: TableSection,
    memories: MemorySection,
    globals: GlobalSection,
    exports: ExportSection,
    elements: ElementSection,
    code: CodeSection,
    data: DataSection,
    data_count: u32,
    names: NameMap,
}

impl Sections {
    fn module(self) -> Vec<u8> {
        let mut names = NameSection::new();
        names.functions(&self.names);
        let mut module = Module::new();
        module
            .section(&self.types)
            .section(&self.imports)
            .section(&self.functions)
            .section(&self.tables)
            .section(&self.memories)
            .section(&self.globals)
            .section(&self.exports)
            .section(&self.elements)
            .section(&DataCountSection { count: self.data_count })
            .section(&self.code)
            .section(&self.data)
            .section(&names);
        module.finish()
    }
}

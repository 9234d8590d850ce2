//! Reads what a component is made of from its sections, without validating or compiling it.

use std::ops::Range;

use wasmparser::{
    BinaryReader, CanonicalFunction, ComponentAlias, ComponentExport, ComponentExternalKind, ComponentInstance,
    ComponentInstantiationArg, ComponentOuterAliasKind, ComponentType, ComponentTypeRef, ElementItems, ElementKind,
    Encoding, Instance, Parser, Payload,
};

use super::nesting;

/// The most parts (modules, components, instances with their arguments, aliases, imports, exports) that a component's
/// file may contain. Components of the largest toolchains have a few thousand.
const PARTS_MAX: usize = 250_000;
/// How deep components, and types of components, may lie within each other.
const DEPTH_MAX: usize = 100;

/// How many bytes wasmtime allocates for each instance of a core module, depending on what the module has: the sizes of
/// the fields of its `VMContext` and of the data beside it, rounded up. `tests/tests/instances_cost.rs` measures that
/// it is no more.
const INSTANCE_BYTES: u64 = 2_048;
const IMPORT_BYTES: u64 = 40;
const FUNCTION_BYTES: u64 = 40;
const GLOBAL_BYTES: u64 = 16;
const TAG_BYTES: u64 = 16;
const TABLE_BYTES: u64 = 256;
const MEMORY_BYTES: u64 = 1_024;
const DATA_SEGMENT_BYTES: u64 = 16;
const ELEMENT_SEGMENT_BYTES: u64 = 48;
const PASSIVE_ELEMENT_BYTES: u64 = 16;

/// A component, with all that lies within it.
pub(super) struct Sketch<'a> {
    /// The components; the first one is the outermost.
    pub(super) components: Vec<ComponentSketch<'a>>,
    /// For each core module, how many bytes an instance takes.
    pub(super) modules: Vec<u64>,
}

/// One component: the steps of its instantiation, in order.
#[derive(Default)]
pub(super) struct ComponentSketch<'a> {
    pub(super) steps: Vec<Step<'a>>,
}

/// A step of the instantiation of a component. Each kind of thing has an index of its own, by which later steps name it.
pub(super) enum Step<'a> {
    /// A core module is defined.
    Module(usize),
    /// A component is defined.
    Component(usize),
    /// An import with this name.
    Import(&'a str, ComponentExternalKind),
    /// An export, which gets a new index.
    Export(&'a str, ComponentExternalKind, u32),
    /// An instance of a core module.
    CoreInstance(u32),
    /// An instance of a component.
    Instance(u32, Box<[ComponentInstantiationArg<'a>]>),
    /// An instance made of existing items.
    Bundle(Box<[ComponentExport<'a>]>),
    /// An alias of an instance's export.
    Alias(u32, &'a str, ComponentExternalKind),
    /// An alias of an item of an outer component, this many levels further out.
    Outer(ComponentOuterAliasKind, u32, u32),
    /// A function crosses from one component to another, or to the host and back.
    Canonical,
    /// A resource is defined.
    Resource,
    /// This many items that cost nothing but looking at them.
    Others(usize),
}

/// Why there is no sketch.
pub(super) enum Unsketched {
    /// The bytes are no component.
    Damaged(wasmparser::BinaryReaderError),
    /// It is larger than any publisher needs.
    TooMuch(String),
}

impl From<wasmparser::BinaryReaderError> for Unsketched {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Damaged(error)
    }
}

type Result<T> = std::result::Result<T, Unsketched>;

/// Reads what `bytes` are made of.
pub(super) fn sketch(bytes: &[u8]) -> Result<Sketch<'_>> {
    let mut reading = Reading { bytes, ..Reading::default() };
    for payload in Parser::new(0).parse_all(bytes) {
        reading.payload(payload?)?;
    }
    Ok(Sketch { components: reading.components, modules: reading.modules })
}

/// The module or component to which the next sections belong.
enum Open {
    Module(usize),
    Component(usize),
}

#[derive(Default)]
struct Reading<'a> {
    bytes: &'a [u8],
    components: Vec<ComponentSketch<'a>>,
    modules: Vec<u64>,
    open: Vec<Open>,
    parts: usize,
}

impl<'a> Reading<'a> {
    fn payload(&mut self, payload: Payload<'a>) -> Result<()> {
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } => self.module(),
            Payload::Version { encoding: Encoding::Component, .. } => self.component(),
            Payload::End(_) => {
                self.open.pop();
                Ok(())
            }
            payload => match self.open.last() {
                Some(Open::Module(index)) => {
                    let (index, bytes) = (*index, module_section(payload)?);
                    self.modules.get_mut(index).into_iter().for_each(|sum| *sum = sum.saturating_add(bytes));
                    Ok(())
                }
                Some(Open::Component(index)) => self.component_section(*index, payload),
                None => Ok(()),
            },
        }
    }

    fn module(&mut self) -> Result<()> {
        let index = self.modules.len();
        self.define(Step::Module(index))?;
        self.modules.push(INSTANCE_BYTES);
        self.open.push(Open::Module(index));
        Ok(())
    }

    fn component(&mut self) -> Result<()> {
        let index = self.components.len();
        self.define(Step::Component(index))?;
        self.components.push(ComponentSketch::default());
        self.open.push(Open::Component(index));
        if self.open.len() > DEPTH_MAX {
            return Err(too_much(format!("it nests components deeper than {DEPTH_MAX}")));
        }
        Ok(())
    }

    /// Adds a module or component to the component that contains it, if any.
    fn define(&mut self, step: Step<'a>) -> Result<()> {
        match self.open.last() {
            Some(Open::Component(parent)) => self.step(*parent, step, 1),
            _ => Ok(()),
        }
    }

    fn step(&mut self, component: usize, step: Step<'a>, parts: usize) -> Result<()> {
        self.count(parts)?;
        if let Some(component) = self.components.get_mut(component) {
            component.steps.push(step);
        }
        Ok(())
    }

    fn count(&mut self, parts: usize) -> Result<()> {
        self.parts = self.parts.saturating_add(parts);
        if self.parts > PARTS_MAX {
            return Err(too_much(format!("it is made of more than {PARTS_MAX} parts")));
        }
        Ok(())
    }

    fn check_nesting(&self, section: Range<usize>) -> Result<()> {
        let section = BinaryReader::new(self.bytes.get(section.clone()).unwrap_or_default(), section.start);
        if nesting::is_deeper(section, DEPTH_MAX)? {
            return Err(too_much(format!("types are nested deeper within each other than {DEPTH_MAX}")));
        }
        Ok(())
    }

    fn component_section(&mut self, at: usize, payload: Payload<'a>) -> Result<()> {
        match payload {
            Payload::InstanceSection(section) => {
                for instance in section {
                    let (step, parts) = core_instance(instance?);
                    self.step(at, step, parts)?;
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    let (step, parts) = instance_of(instance?);
                    self.step(at, step, parts)?;
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    self.step(at, alias_of(alias?), 1)?;
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section {
                    self.step(at, canonical(&function?), 1)?;
                }
            }
            Payload::ComponentTypeSection(section) => {
                self.check_nesting(section.range())?;
                for ty in section {
                    let resource = matches!(ty?, ComponentType::Resource { .. });
                    self.step(at, if resource { Step::Resource } else { Step::Others(1) }, 1)?;
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import?;
                    self.step(at, Step::Import(import.name.name, kind(&import.ty)), 1)?;
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export?;
                    self.step(at, Step::Export(export.name.name, export.kind, export.index), 1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// What an instance of a module needs for this section.
fn module_section(payload: Payload<'_>) -> Result<u64> {
    let each = |count: u32, bytes: u64| u64::from(count) * bytes;
    Ok(match payload {
        // The number of imports is known only after they have been read.
        Payload::ImportSection(section) => {
            let mut imports = 0_u32;
            for import in section.into_imports() {
                import?;
                imports = imports.saturating_add(1);
            }
            each(imports, IMPORT_BYTES + FUNCTION_BYTES)
        }
        Payload::FunctionSection(section) => each(section.count(), FUNCTION_BYTES),
        Payload::TableSection(section) => each(section.count(), TABLE_BYTES),
        Payload::MemorySection(section) => each(section.count(), MEMORY_BYTES),
        Payload::TagSection(section) => each(section.count(), TAG_BYTES),
        Payload::GlobalSection(section) => each(section.count(), GLOBAL_BYTES),
        Payload::DataSection(section) => each(section.count(), DATA_SEGMENT_BYTES),
        Payload::ElementSection(section) => {
            let mut bytes = each(section.count(), ELEMENT_SEGMENT_BYTES);
            for element in section {
                let element = element?;
                if matches!(element.kind, ElementKind::Passive) {
                    bytes += each(items(&element.items), PASSIVE_ELEMENT_BYTES);
                }
            }
            bytes
        }
        _ => 0,
    })
}

fn too_much(reason: String) -> Unsketched {
    Unsketched::TooMuch(reason)
}

fn items(items: &ElementItems<'_>) -> u32 {
    match items {
        ElementItems::Functions(functions) => functions.count(),
        ElementItems::Expressions(_, expressions) => expressions.count(),
    }
}

fn core_instance(instance: Instance<'_>) -> (Step<'_>, usize) {
    match instance {
        Instance::Instantiate { module_index, args } => (Step::CoreInstance(module_index), 1 + args.len()),
        Instance::FromExports(exports) => (Step::Others(1 + exports.len()), 1 + exports.len()),
    }
}

fn instance_of(instance: ComponentInstance<'_>) -> (Step<'_>, usize) {
    match instance {
        ComponentInstance::Instantiate { component_index, args } => {
            let parts = 1 + args.len();
            (Step::Instance(component_index, args), parts)
        }
        ComponentInstance::FromExports(exports) => {
            let parts = 1 + exports.len();
            (Step::Bundle(exports), parts)
        }
    }
}

fn alias_of(alias: ComponentAlias<'_>) -> Step<'_> {
    match alias {
        ComponentAlias::InstanceExport { kind, instance_index, name } => Step::Alias(instance_index, name, kind),
        ComponentAlias::CoreInstanceExport { .. } => Step::Others(1),
        ComponentAlias::Outer { kind, count, index } => Step::Outer(kind, count, index),
    }
}

fn canonical(function: &CanonicalFunction) -> Step<'static> {
    // A lifted function is only noted. Every other one is compiled, and takes room in each instance.
    if matches!(function, CanonicalFunction::Lift { .. }) { Step::Others(1) } else { Step::Canonical }
}

fn kind(ty: &ComponentTypeRef) -> ComponentExternalKind {
    match ty {
        ComponentTypeRef::Module(_) => ComponentExternalKind::Module,
        ComponentTypeRef::Func(_) => ComponentExternalKind::Func,
        ComponentTypeRef::Value(_) => ComponentExternalKind::Value,
        ComponentTypeRef::Type(_) => ComponentExternalKind::Type,
        ComponentTypeRef::Instance(_) => ComponentExternalKind::Instance,
        ComponentTypeRef::Component(_) => ComponentExternalKind::Component,
    }
}

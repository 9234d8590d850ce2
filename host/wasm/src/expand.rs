//! Counts what a component unfolds to when it is compiled and instantiated. A component can define a thing once and use
//! it in many places, and each of these can lie in something that is used in many places: a few kilobytes become
//! billions of instances. The compiler unfolds all of it before anybody can stop it, so this counts first, up to the
//! bounds.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use wasmparser::{ComponentExport, ComponentExternalKind, ComponentInstantiationArg, ComponentOuterAliasKind};

use self::captures::{Capture, captures};
use self::item::{Bag, Defined, Item, Made, hosts};
use self::spent::{Counted, Spent};
use super::load_error::{LoadError, invalid};
use super::settings::Limits;
use super::sketch::{Sketch, Step, Unsketched, sketch};

mod captures;
mod item;
mod spent;

/// How deep instances may lie within each other.
const DEPTH_MAX: usize = 100;

/// Counts what `bytes` unfold to.
///
/// # Errors
///
/// [`LoadError::Invalid`] if they are damaged, [`LoadError::Expands`] if they unfold to more than a publisher may.
pub(super) fn check(name: &str, bytes: &[u8], limits: &Limits) -> Result<(), LoadError> {
    // Whatever the bytes are, a panic of the parser must not end the host.
    let checked = catch_unwind(AssertUnwindSafe(|| {
        let sketch = sketch(bytes)?;
        let unfolding = Unfolding::new(&sketch, limits).and_then(Unfolding::whole);
        unfolding.map_err(Unsketched::TooMuch)
    }));
    match checked {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Unsketched::Damaged(error))) => Err(invalid(name, error)),
        Ok(Err(Unsketched::TooMuch(reason))) => Err(LoadError::Expands { name: name.to_owned(), reason }),
        Err(_) => Err(invalid(name, "the parser failed on it")),
    }
}

/// What inner components can name of the component in which they are defined.
#[derive(Default)]
struct Scope {
    modules: Vec<Option<usize>>,
    components: Vec<Defined>,
    outer: Option<usize>,
}

/// What an instance receives, by name.
type Arguments<'a> = HashMap<&'a str, Item<'a>>;

/// An instance in the making.
struct Frame<'a> {
    scope: usize,
    depth: usize,
    instances: Vec<Made<'a>>,
    exports: Bag<'a>,
}

struct Unfolding<'s, 'a> {
    sketch: &'s Sketch<'a>,
    /// For each component, what it names of outer components, as seen from its parent.
    captures: Vec<Vec<Capture>>,
    scopes: Vec<Scope>,
    spent: Spent,
}

impl<'s, 'a> Unfolding<'s, 'a> {
    fn new(sketch: &'s Sketch<'a>, limits: &Limits) -> Counted<Self> {
        let spent = Spent::new(limits.instances as u64);
        Ok(Self { sketch, captures: captures(sketch)?, scopes: Vec::new(), spent })
    }

    fn whole(mut self) -> Counted<()> {
        let whole = Defined { component: (!self.sketch.components.is_empty()).then_some(0), scope: None, weight: 1 };
        self.instantiate(&whole, None, 0).map(|_| ())
    }

    /// Follows the instantiation of `defined`. `arguments` is what it receives, with None for what the host provides.
    fn instantiate(
        &mut self,
        defined: &Defined,
        arguments: Option<&Arguments<'a>>,
        depth: usize,
    ) -> Counted<Rc<Bag<'a>>> {
        if depth > DEPTH_MAX {
            return Err(format!("it nests instances deeper than {DEPTH_MAX}"));
        }
        let Some(component) = defined.component.and_then(|index| self.sketch.components.get(index)) else {
            return Ok(Rc::default());
        };
        let scope = self.scopes.len();
        self.scopes.push(Scope { outer: defined.scope, ..Scope::default() });
        let mut frame = Frame { scope, depth, instances: Vec::new(), exports: Bag::default() };
        for step in &component.steps {
            self.step(&mut frame, step, arguments)?;
        }
        Ok(Rc::new(frame.exports))
    }

    fn step(&mut self, frame: &mut Frame<'a>, step: &Step<'a>, arguments: Option<&Arguments<'a>>) -> Counted<()> {
        self.spent.work(1)?;
        match step {
            Step::Module(index) => self.scope(frame).modules.push(Some(*index)),
            Step::Component(index) => self.component(frame, *index)?,
            Step::Import(name, kind) => self.import(frame, name, *kind, arguments)?,
            Step::Export(name, kind, index) => self.export(frame, name, *kind, *index)?,
            Step::CoreInstance(module) => self.core_instance(frame, *module)?,
            Step::Instance(component, arguments) => self.instance(frame, *component, arguments)?,
            Step::Bundle(exports) => self.bundle(frame, exports)?,
            Step::Alias(instance, name, kind) => self.alias(frame, *instance, name, *kind)?,
            Step::Outer(kind, count, index) => {
                if let Some(item) = self.outer(Some(frame.scope), *kind, *count, *index)? {
                    self.push(frame, item)?;
                }
            }
            Step::Canonical => self.spent.canonical()?,
            Step::Resource => self.spent.resource()?,
            Step::Others(count) => self.spent.work(*count as u64)?,
        }
        Ok(())
    }

    fn scope(&mut self, frame: &Frame<'_>) -> &mut Scope {
        // `instantiate` has pushed it.
        &mut self.scopes[frame.scope]
    }

    /// A component as defined here, with everything that it captures from outer components.
    fn component(&mut self, frame: &Frame<'a>, component: usize) -> Counted<()> {
        let mut weight = 1_u64;
        for at in 0..self.captures.get(component).map_or(0, Vec::len) {
            let captured = self.captures.get(component).and_then(|captures| captures.get(at));
            let Some((count, kind, index)) = captured.copied() else { break };
            if let Some(item) = self.outer(Some(frame.scope), kind, count, index)? {
                weight = weight.saturating_add(item.weight());
            }
        }
        self.spent.work(weight)?;
        let defined = Defined { component: Some(component), scope: Some(frame.scope), weight };
        self.scope(frame).components.push(defined);
        Ok(())
    }

    fn import(
        &mut self,
        frame: &mut Frame<'a>,
        name: &str,
        kind: ComponentExternalKind,
        arguments: Option<&Arguments<'a>>,
    ) -> Counted<()> {
        self.spent.look_at(name)?;
        let item = arguments.and_then(|arguments| arguments.get(name).cloned());
        self.push(frame, item.unwrap_or_else(|| hosts(kind)))
    }

    fn export(&mut self, frame: &mut Frame<'a>, name: &'a str, kind: ComponentExternalKind, index: u32) -> Counted<()> {
        self.spent.look_at(name)?;
        let item = self.item(frame, kind, index)?;
        self.push(frame, item.clone())?;
        frame.exports.add(name, item);
        Ok(())
    }

    fn core_instance(&mut self, frame: &Frame<'a>, module: u32) -> Counted<()> {
        self.spent.instance()?;
        let module = *self.scope(frame).modules.get(module as usize).ok_or_else(missing)?;
        let bytes = module.and_then(|module| self.sketch.modules.get(module)).copied().unwrap_or_default();
        self.spent.core_instance(bytes)
    }

    fn instance(
        &mut self,
        frame: &mut Frame<'a>,
        component: u32,
        arguments: &[ComponentInstantiationArg<'a>],
    ) -> Counted<()> {
        let mut items = Arguments::with_capacity(arguments.len());
        for argument in arguments {
            self.spent.look_at(argument.name)?;
            items.insert(argument.name, self.item(frame, argument.kind, argument.index)?);
        }
        self.spent.instance()?;
        let defined = self.scope(frame).components.get(component as usize).ok_or_else(missing)?.clone();
        // The compiler copies what it knows of the resources so far for each instance.
        self.spent.work(defined.weight.saturating_add(self.spent.resources()))?;
        let made = self.instantiate(&defined, Some(&items), frame.depth + 1)?;
        self.spent.work(made.weight)?;
        frame.instances.push(Some(made));
        Ok(())
    }

    fn bundle(&mut self, frame: &mut Frame<'a>, exports: &[ComponentExport<'a>]) -> Counted<()> {
        let mut bag = Bag::default();
        for export in exports {
            self.spent.look_at(export.name.name)?;
            bag.add(export.name.name, self.item(frame, export.kind, export.index)?);
        }
        frame.instances.push(Some(Rc::new(bag)));
        Ok(())
    }

    fn alias(&mut self, frame: &mut Frame<'a>, instance: u32, name: &str, kind: ComponentExternalKind) -> Counted<()> {
        self.spent.look_at(name)?;
        let made = frame.instances.get(instance as usize).ok_or_else(missing)?;
        let found = made.as_ref().and_then(|bag| bag.items.get(name).cloned());
        self.push(frame, found.unwrap_or_else(|| hosts(kind)))
    }

    /// What was defined this many components further out. None for a type.
    fn outer(
        &self,
        scope: Option<usize>,
        kind: ComponentOuterAliasKind,
        count: u32,
        index: u32,
    ) -> Counted<Option<Item<'a>>> {
        let is_type = matches!(kind, ComponentOuterAliasKind::Type | ComponentOuterAliasKind::CoreType);
        if is_type {
            return Ok(None);
        }
        let mut scope = scope.and_then(|scope| self.scopes.get(scope));
        for _ in 0..count {
            let Some(inner) = scope else { break };
            scope = inner.outer.and_then(|outer| self.scopes.get(outer));
        }
        let (scope, index) = (scope.ok_or_else(missing)?, index as usize);
        Ok(Some(match kind {
            ComponentOuterAliasKind::Component => {
                Item::Component(scope.components.get(index).ok_or_else(missing)?.clone())
            }
            _ => Item::Module(*scope.modules.get(index).ok_or_else(missing)?),
        }))
    }

    fn item(&mut self, frame: &Frame<'a>, kind: ComponentExternalKind, index: u32) -> Counted<Item<'a>> {
        let index = index as usize;
        let item = match kind {
            ComponentExternalKind::Module => Item::Module(*self.scope(frame).modules.get(index).ok_or_else(missing)?),
            ComponentExternalKind::Component => {
                Item::Component(self.scope(frame).components.get(index).ok_or_else(missing)?.clone())
            }
            ComponentExternalKind::Instance => Item::Instance(frame.instances.get(index).ok_or_else(missing)?.clone()),
            _ => Item::Other,
        };
        self.spent.work(item.weight())?;
        Ok(item)
    }

    /// Gives an item its index.
    fn push(&mut self, frame: &mut Frame<'a>, item: Item<'a>) -> Counted<()> {
        self.spent.work(item.weight())?;
        match item {
            Item::Module(module) => self.scope(frame).modules.push(module),
            Item::Component(component) => self.scope(frame).components.push(component),
            Item::Instance(instance) => frame.instances.push(instance),
            Item::Other => {}
        }
        Ok(())
    }
}

fn missing() -> String {
    "it refers to something that it does not contain".to_owned()
}

//! Counts what a component unfolds to when it is compiled and instantiated. A component can define a thing once and use
//! it in many places, and each of these can lie in something that is used in many places: a few kilobytes become
//! billions of instances. The compiler unfolds all of it before anybody can stop it, so this counts first, up to the
//! bounds.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use wasmparser::{ComponentExternalKind, ComponentOuterAliasKind};

use super::load_error::{LoadError, invalid};
use super::settings::Limits;
use super::sketch::{Sketch, Step, Unsketched, sketch};

/// The most bytes that the host allocates for all core instances of one instance of a component, beside their memories
/// and tables: for their globals, functions, imports and segments.
pub(super) const INSTANCE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The most functions that cross between components, or to the host; each use counts.
const CANONICALS_MAX: u64 = 20_000;
/// The most steps of the instantiation. Copying an instance counts as one step for each thing in it.
const STEPS_MAX: u64 = 1_000_000;
/// This many bytes of a name take as long as any other step.
const NAME_BYTES_OF_A_STEP: u64 = 128;
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

/// Something with an index. Only things that can be instantiated have to be known; the others carry nothing.
#[derive(Clone)]
enum Item<'a> {
    Module(Option<usize>),
    Component(Defined),
    Instance(Made<'a>),
    Other,
}

/// A component, and where it was defined: it can use what outer components define.
#[derive(Clone)]
struct Defined {
    /// None if it comes from the host, which offers no components.
    component: Option<usize>,
    scope: Option<usize>,
    weight: u64,
}

/// An instance of a component, by its exports. None for the host's instances: nothing in them can be instantiated.
type Made<'a> = Option<Rc<Bag<'a>>>;

#[derive(Default)]
struct Bag<'a> {
    items: HashMap<&'a str, Item<'a>>,
    weight: u64,
}

/// What inner components can name of the component in which they are defined.
#[derive(Default)]
struct Scope {
    modules: Vec<Option<usize>>,
    components: Vec<Defined>,
    outer: Option<usize>,
}

/// How far out, what kind, which.
type Capture = (u32, ComponentOuterAliasKind, u32);

struct Unfolding<'s, 'a> {
    sketch: &'s Sketch<'a>,
    /// For each component, what it names of outer components, as seen from its parent.
    captures: Vec<Vec<Capture>>,
    instances_max: u64,
    scopes: Vec<Scope>,
    instances: u64,
    instance_bytes: u64,
    canonicals: u64,
    resources: u64,
    steps: u64,
}

/// Why it may not be unfolded.
type Counted<T> = Result<T, String>;

impl<'s, 'a> Unfolding<'s, 'a> {
    fn new(sketch: &'s Sketch<'a>, limits: &Limits) -> Counted<Self> {
        Ok(Self {
            sketch,
            captures: captures(sketch)?,
            instances_max: limits.instances as u64,
            scopes: Vec::new(),
            instances: 0,
            instance_bytes: 0,
            canonicals: 0,
            resources: 0,
            steps: 0,
        })
    }

    fn whole(mut self) -> Counted<()> {
        let whole = Defined { component: (!self.sketch.components.is_empty()).then_some(0), scope: None, weight: 1 };
        self.instantiate(&whole, None, 0).map(|_| ())
    }

    /// Follows the instantiation of `defined`. `arguments` is what it receives, with None for what the host provides.
    fn instantiate(
        &mut self,
        defined: &Defined,
        arguments: Option<&HashMap<&'a str, Item<'a>>>,
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

    fn step(
        &mut self,
        frame: &mut Frame<'a>,
        step: &Step<'a>,
        arguments: Option<&HashMap<&'a str, Item<'a>>>,
    ) -> Counted<()> {
        self.work(1)?;
        match step {
            Step::Module(index) => self.scope(frame).modules.push(Some(*index)),
            Step::Component(index) => {
                let defined = self.define(frame, *index)?;
                self.scope(frame).components.push(defined);
            }
            Step::Import(name, kind) => {
                self.look_at(name)?;
                let item = match arguments {
                    Some(arguments) => arguments.get(name).cloned(),
                    None => None,
                };
                self.push(frame, item.unwrap_or_else(|| hosts(*kind)))?;
            }
            Step::Export(name, kind, index) => {
                self.look_at(name)?;
                let item = self.item(frame, *kind, *index)?;
                self.push(frame, item.clone())?;
                frame.exports.add(name, item);
            }
            Step::CoreInstance(module) => self.core_instance(frame, *module)?,
            Step::Instance(component, written) => {
                let mut arguments = HashMap::with_capacity(written.len());
                for argument in written {
                    self.look_at(argument.name)?;
                    arguments.insert(argument.name, self.item(frame, argument.kind, argument.index)?);
                }
                self.instance(frame, *component, &arguments)?;
            }
            Step::Bundle(exports) => {
                let mut bag = Bag::default();
                for export in exports {
                    self.look_at(export.name.name)?;
                    bag.add(export.name.name, self.item(frame, export.kind, export.index)?);
                }
                frame.instances.push(Some(Rc::new(bag)));
            }
            Step::Alias(instance, name, kind) => {
                self.look_at(name)?;
                let found = match frame.instances.get(*instance as usize).ok_or_else(missing)? {
                    Some(bag) => bag.items.get(name).cloned(),
                    None => None,
                };
                self.push(frame, found.unwrap_or_else(|| hosts(*kind)))?;
            }
            Step::Outer(kind, count, index) => {
                if let Some(item) = self.outer(Some(frame.scope), *kind, *count, *index)? {
                    self.push(frame, item)?;
                }
            }
            Step::Canonical => self.canonical()?,
            Step::Resource => {
                self.resources += 1;
                self.canonical()?;
            }
            Step::Others(count) => self.work(*count as u64)?,
        }
        Ok(())
    }

    fn scope(&mut self, frame: &Frame<'_>) -> &mut Scope {
        // `instantiate` has pushed it.
        &mut self.scopes[frame.scope]
    }

    fn work(&mut self, steps: u64) -> Counted<()> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > STEPS_MAX {
            return Err(format!("its instantiation takes more than {STEPS_MAX} steps"));
        }
        Ok(())
    }

    /// Something that is found by its name, or gets a name: a long name counts as several steps.
    fn look_at(&mut self, name: &str) -> Counted<()> {
        self.work(name.len() as u64 / NAME_BYTES_OF_A_STEP)
    }

    fn canonical(&mut self) -> Counted<()> {
        self.canonicals += 1;
        if self.canonicals > CANONICALS_MAX {
            return Err(format!("more than {CANONICALS_MAX} functions and resources cross between its components"));
        }
        Ok(())
    }

    fn one_more_instance(&mut self) -> Counted<()> {
        self.instances += 1;
        if self.instances > self.instances_max {
            let max = self.instances_max;
            return Err(format!("it is made of more than {max} instances (limit: instances)"));
        }
        Ok(())
    }

    fn core_instance(&mut self, frame: &Frame<'a>, module: u32) -> Counted<()> {
        self.one_more_instance()?;
        let module = *self.scope(frame).modules.get(module as usize).ok_or_else(missing)?;
        let bytes = module.and_then(|module| self.sketch.modules.get(module)).copied().unwrap_or_default();
        self.instance_bytes = self.instance_bytes.saturating_add(bytes);
        if self.instance_bytes > INSTANCE_BYTES_MAX {
            return Err(format!(
                "the globals, functions, imports and segments of its core instances take more than {INSTANCE_BYTES_MAX} \
                 bytes"
            ));
        }
        Ok(())
    }

    fn instance(
        &mut self,
        frame: &mut Frame<'a>,
        component: u32,
        arguments: &HashMap<&'a str, Item<'a>>,
    ) -> Counted<()> {
        self.one_more_instance()?;
        let defined = self.scope(frame).components.get(component as usize).ok_or_else(missing)?.clone();
        // The compiler copies what it knows of the resources so far for each instance.
        self.work(defined.weight.saturating_add(self.resources))?;
        let made = self.instantiate(&defined, Some(arguments), frame.depth + 1)?;
        self.work(made.weight)?;
        frame.instances.push(Some(made));
        Ok(())
    }

    /// A component as defined here, with everything that it captures from outer components.
    fn define(&mut self, frame: &Frame<'a>, component: usize) -> Counted<Defined> {
        let mut weight = 1_u64;
        for at in 0..self.captures.get(component).map_or(0, Vec::len) {
            let captured = self.captures.get(component).and_then(|captures| captures.get(at));
            let Some((count, kind, index)) = captured.copied() else { break };
            if let Some(item) = self.outer(Some(frame.scope), kind, count, index)? {
                weight = weight.saturating_add(item.weight());
            }
        }
        self.work(weight)?;
        Ok(Defined { component: Some(component), scope: Some(frame.scope), weight })
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
        self.work(item.weight())?;
        Ok(item)
    }

    /// Gives an item its index.
    fn push(&mut self, frame: &mut Frame<'a>, item: Item<'a>) -> Counted<()> {
        self.work(item.weight())?;
        match item {
            Item::Module(module) => self.scope(frame).modules.push(module),
            Item::Component(component) => self.scope(frame).components.push(component),
            Item::Instance(instance) => frame.instances.push(instance),
            Item::Other => {}
        }
        Ok(())
    }
}

/// An instance in the making.
struct Frame<'a> {
    scope: usize,
    depth: usize,
    instances: Vec<Made<'a>>,
    exports: Bag<'a>,
}

impl<'a> Bag<'a> {
    fn add(&mut self, name: &'a str, item: Item<'a>) {
        self.weight = self.weight.saturating_add(item.weight());
        self.items.insert(name, item);
    }
}

impl Item<'_> {
    /// How many things the compiler copies when it copies this.
    fn weight(&self) -> u64 {
        match self {
            Self::Component(component) => component.weight,
            Self::Instance(Some(bag)) => bag.weight.saturating_add(1),
            _ => 1,
        }
    }
}

/// An item from the host: nothing in it unfolds.
fn hosts<'a>(kind: ComponentExternalKind) -> Item<'a> {
    match kind {
        ComponentExternalKind::Module => Item::Module(None),
        ComponentExternalKind::Component => Item::Component(Defined { component: None, scope: None, weight: 1 }),
        ComponentExternalKind::Instance => Item::Instance(None),
        _ => Item::Other,
    }
}

fn missing() -> String {
    "it refers to something that it does not contain".to_owned()
}

/// What each component captures of those in which it lies, for itself and for components within it.
fn captures(sketch: &Sketch<'_>) -> Counted<Vec<Vec<Capture>>> {
    let mut captures: Vec<Vec<Capture>> = vec![Vec::new(); sketch.components.len()];
    let mut all = 0_usize;
    // Inner components come after their outer component: going backwards, each finds the captures of its inner ones
    // complete.
    for (at, component) in sketch.components.iter().enumerate().rev() {
        let mut own = Vec::new();
        for step in &component.steps {
            match step {
                Step::Outer(kind, count, index) => own.extend(count.checked_sub(1).map(|count| (count, *kind, *index))),
                Step::Component(inner) => {
                    let of_inner = captures.get(*inner).into_iter().flatten();
                    own.extend(
                        of_inner.filter_map(|(count, kind, index)| Some((count.checked_sub(1)?, *kind, *index))),
                    );
                }
                _ => {}
            }
        }
        all = all.saturating_add(own.len());
        if all as u64 > STEPS_MAX {
            return Err(format!("its components use more than {STEPS_MAX} things of outer components"));
        }
        if let Some(place) = captures.get_mut(at) {
            *place = own;
        }
    }
    Ok(captures)
}

//! What a component is made of while it unfolds: the things that its steps define, import, export and name.

use std::collections::HashMap;
use std::rc::Rc;

use wasmparser::ComponentExternalKind;

/// Something with an index. Only things that can be instantiated have to be known; the others carry nothing.
#[derive(Clone)]
pub(super) enum Item<'a> {
    Module(Option<usize>),
    Component(Defined),
    Instance(Made<'a>),
    Other,
}

/// A component, and where it was defined: it can use what outer components define.
#[derive(Clone)]
pub(super) struct Defined {
    /// None if it comes from the host, which offers no components.
    pub(super) component: Option<usize>,
    pub(super) scope: Option<usize>,
    pub(super) weight: u64,
}

/// An instance of a component, by its exports. None for the host's instances: nothing in them can be instantiated.
pub(super) type Made<'a> = Option<Rc<Bag<'a>>>;

#[derive(Default)]
pub(super) struct Bag<'a> {
    pub(super) items: HashMap<&'a str, Item<'a>>,
    pub(super) weight: u64,
}

impl<'a> Bag<'a> {
    pub(super) fn add(&mut self, name: &'a str, item: Item<'a>) {
        self.weight = self.weight.saturating_add(item.weight());
        self.items.insert(name, item);
    }
}

impl Item<'_> {
    /// How many things the compiler copies when it copies this.
    pub(super) fn weight(&self) -> u64 {
        match self {
            Self::Component(component) => component.weight,
            Self::Instance(Some(bag)) => bag.weight.saturating_add(1),
            _ => 1,
        }
    }
}

/// An item from the host: nothing in it unfolds.
pub(super) fn hosts<'a>(kind: ComponentExternalKind) -> Item<'a> {
    match kind {
        ComponentExternalKind::Module => Item::Module(None),
        ComponentExternalKind::Component => Item::Component(Defined { component: None, scope: None, weight: 1 }),
        ComponentExternalKind::Instance => Item::Instance(None),
        _ => Item::Other,
    }
}

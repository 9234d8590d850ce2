//! What inner components use of the components in which they lie.

use wasmparser::ComponentOuterAliasKind;

use super::spent::{Counted, STEPS_MAX};
use crate::sketch::{Sketch, Step};

/// How far out, what kind, which.
pub(super) type Capture = (u32, ComponentOuterAliasKind, u32);

/// What each component captures of those in which it lies, for itself and for components within it.
pub(super) fn captures(sketch: &Sketch<'_>) -> Counted<Vec<Vec<Capture>>> {
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

//! Checks how hard the functions of a component are to compile. Most instructions cost the compiler a few hundred
//! bytes, but a few constructs cost without bound. This looks for them before the compiler begins.

use std::panic::{AssertUnwindSafe, catch_unwind};

use wasmparser::{BlockType, CompositeInnerType, FunctionBody, Operator, Parser, Payload, TypeRef};

use super::load_error::{LoadError, invalid};

/// The most functions of all modules together.
const FUNCTIONS_MAX: usize = 500_000;
/// The most types of functions of a module, which is what a valid one may have.
const TYPES_MAX: u32 = 1_000_000;
/// How deep loops may lie within each other in a function.
const LOOPS_DEPTH_MAX: usize = 500;
/// How deep blocks of any kind may lie within each other.
const BLOCKS_DEPTH_MAX: usize = 20_000;
/// The most values that a function may make, on its stack and in its locals.
const VALUES_MAX: u64 = 4_000_000;
/// The most of a function's locals times its blocks: the compiler keeps the value of each local in each block.
const LOCALS_IN_BLOCKS_MAX: u64 = 256_000_000;

/// Looks at each function.
///
/// # Errors
///
/// [`LoadError::Expands`], with the function. The compiler reports damaged bytes.
pub(super) fn check(name: &str, bytes: &[u8]) -> Result<(), LoadError> {
    // Whatever the bytes are, a panic of the parser must not end the host.
    match catch_unwind(AssertUnwindSafe(|| hardest(bytes))) {
        Ok(None) => Ok(()),
        Ok(Some(reason)) => Err(LoadError::Expands { name: name.to_owned(), reason }),
        Err(_) => Err(invalid(name, "the parser failed on it")),
    }
}

/// What is wrong with the first function that is too hard. None if there is none.
fn hardest(bytes: &[u8]) -> Option<String> {
    let (mut modules, mut functions) = (vec![Module::default()], 0_usize);
    for payload in Parser::new(0).parse_all(bytes) {
        let Ok(payload) = payload else { return None };
        match payload {
            Payload::Version { .. } => modules.push(Module::default()),
            Payload::End(_) => drop(modules.pop()),
            Payload::CodeSectionEntry(body) => {
                let module = modules.last_mut()?;
                let number = module.functions.len().saturating_sub(module.bodies_left);
                module.bodies_left = module.bodies_left.saturating_sub(1);
                if let Some(reason) = too_hard(&body, module) {
                    return Some(format!("its function {number} {reason}"));
                }
            }
            payload => {
                if let Payload::FunctionSection(section) = &payload {
                    functions = functions.saturating_add(section.count() as usize);
                }
                if matches!(&payload, Payload::TypeSection(section) if section.count() > TYPES_MAX) {
                    return Some(format!("one of its modules has more than {TYPES_MAX} types"));
                }
                if functions > FUNCTIONS_MAX {
                    return Some(format!("it has more than {FUNCTIONS_MAX} functions"));
                }
                modules.last_mut()?.section(payload).ok()?;
            }
        }
    }
    None
}

/// The parts of a module that determine how many values an instruction makes.
#[derive(Default)]
struct Module {
    /// The numbers of parameters and results of each function type.
    types: Vec<(usize, usize)>,
    /// The type of each function.
    functions: Vec<u32>,
    bodies_left: usize,
}

impl Module {
    fn section(&mut self, payload: Payload<'_>) -> wasmparser::Result<()> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section {
                    self.types.extend(group?.into_types().map(|ty| match ty.composite_type.inner {
                        CompositeInnerType::Func(function) => (function.params().len(), function.results().len()),
                        _ => (0, 0),
                    }));
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    if let TypeRef::Func(ty) | TypeRef::FuncExact(ty) = import?.ty {
                        self.functions.push(ty);
                    }
                }
            }
            Payload::FunctionSection(section) => {
                self.bodies_left = section.count() as usize;
                for ty in section {
                    self.functions.push(ty?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// How many values an instruction may make.
    fn values(&self, operator: &Operator<'_>) -> usize {
        let of_type = |ty: u32| self.types.get(ty as usize).copied().unwrap_or_default();
        let of_block = |ty: &BlockType| match ty {
            BlockType::FuncType(ty) => of_type(*ty),
            _ => (0, 1),
        };
        let (parameters, results) = match operator {
            Operator::Block { blockty } | Operator::Loop { blockty } | Operator::If { blockty } => of_block(blockty),
            Operator::TryTable { try_table } => of_block(&try_table.ty),
            Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                self.functions.get(*function_index as usize).map_or((0, 0), |ty| of_type(*ty))
            }
            Operator::CallIndirect { type_index, .. }
            | Operator::ReturnCallIndirect { type_index, .. }
            | Operator::CallRef { type_index }
            | Operator::ReturnCallRef { type_index } => of_type(*type_index),
            Operator::BrTable { targets } => (0, targets.len() as usize),
            _ => (0, 0),
        };
        1 + parameters + results
    }
}

/// Why a function is too hard. None if it is not.
fn too_hard(body: &FunctionBody<'_>, module: &Module) -> Option<String> {
    let mut locals = 0_u64;
    for group in body.get_locals_reader().ok()? {
        locals = locals.saturating_add(u64::from(group.ok()?.0));
    }
    let (mut open, mut loops, mut blocks, mut values) = (Vec::new(), 0_usize, 1_u64, locals);
    let mut operators = body.get_operators_reader().ok()?;
    while !operators.eof() {
        let operator = operators.read().ok()?;
        values = values.saturating_add(module.values(&operator) as u64);
        match operator {
            Operator::Block { .. } | Operator::If { .. } | Operator::TryTable { .. } => open.push(false),
            Operator::Loop { .. } => {
                open.push(true);
                loops += 1;
            }
            Operator::End => loops -= usize::from(open.pop() == Some(true)),
            Operator::Else | Operator::Br { .. } | Operator::BrIf { .. } | Operator::BrTable { .. } => {}
            _ => continue,
        }
        blocks += 1;
        if loops > LOOPS_DEPTH_MAX {
            return Some(format!("nests loops deeper than {LOOPS_DEPTH_MAX}"));
        }
        if open.len() > BLOCKS_DEPTH_MAX {
            return Some(format!("nests blocks deeper than {BLOCKS_DEPTH_MAX}"));
        }
    }
    if values > VALUES_MAX {
        return Some(format!("makes more than {VALUES_MAX} values"));
    }
    let locals_in_blocks = locals.saturating_mul(blocks);
    (locals_in_blocks > LOCALS_IN_BLOCKS_MAX).then(|| format!("has {locals} locals in {blocks} blocks"))
}

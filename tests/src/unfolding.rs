//! Components that are small as they are written, and huge as they are compiled or instantiated. Each is a publisher that
//! does its work, with more in it.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;

use wasm_encoder::{
    BlockType, CodeSection, Component, ComponentSection, ComponentSectionId, ConstExpr, DataSection, ElementSection,
    Elements, EntityType, Function, FunctionSection, GlobalSection, GlobalType, ImportSection, InstanceSection,
    Instruction, Module, ModuleArg, RawSection, TypeSection, ValType,
};

mod variants;

pub use variants::variants;

/// A hostile component: its name, its bytes, and the message when it is refused.
pub struct Hostile {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub says: &'static str,
}

/// All components that are refused for what they unfold to.
pub fn refused() -> Vec<Hostile> {
    let hostile = |name, bytes, says| Hostile { name, bytes, says };
    vec![
        hostile("a million globals in 150 instances", instances(&globals(1_000_000), 150), "core instances take more"),
        hostile("many imported globals", imported_globals(), "core instances take more"),
        hostile("many functions", instances(&functions(100_000), 150), "core instances take more"),
        hostile("passive elements", instances(&passive_elements(1_000_000), 100), "core instances take more"),
        hostile("passive data", instances(&passive_data(50_000), 100), "core instances take more"),
        hostile("three levels of 900", levels(900), "limit: instances"),
        hostile("two levels of 900 of the same component", levels_of_components(900), "limit: instances"),
        hostile("a component that is handed over", handed_over(), "limit: instances"),
        hostile("a component out of an instance", exported(), "limit: instances"),
        hostile("components that take two along each", captured_twice(), "steps"),
        hostile("instances of two instances each", bundled_twice(), "steps"),
        hostile("many lowered functions", lowered(), "cross between"),
        hostile("components within components", nested_components(200), "nests components deeper"),
        hostile("many aliases", aliases(300_000), "parts"),
        hostile("20,000 loops", with_function(&nested_loops(20_000)), "loops deeper"),
        hostile("50,000 blocks", with_function(&nested_blocks(50_000)), "blocks deeper"),
        hostile("locals in blocks", with_function(&locals_in_blocks()), "locals in"),
        hostile("blocks of a thousand values", with_function(&wide_blocks()), "values"),
        hostile("a table of branches", with_function(&branches()), "values"),
        hostile("a million functions", with_module(publisher(""), &functions(600_000)), "functions"),
    ]
}

/// A component that passes each count, and takes far more memory and time to be compiled than it has bytes.
pub fn hard_to_compile() -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], [ValType::I32]);
    let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
    for _ in 0..64 {
        functions.function(0);
        // Very many values that are all alive at its end.
        let mut function = Function::new([]);
        for value in 0..40_000 {
            function.instruction(&Instruction::LocalGet(0)).instruction(&Instruction::I32Const(value));
            function.instruction(&Instruction::I32Add);
        }
        for _ in 0..39_999 {
            function.instruction(&Instruction::I32Xor);
        }
        code.function(function.instruction(&Instruction::End));
    }
    let mut module = Module::new();
    with_module(publisher(""), module.section(&types).section(&functions).section(&code).as_slice())
}

/// A publisher that delivers, with this in its component.
pub fn publisher(more: &str) -> Vec<u8> {
    let read = |name: &str| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("wat").join(format!("{name}.wat"));
        std::fs::read_to_string(file).unwrap()
    };
    let text = read("contract").replacen("\n  ;; core\n", &format!("\n{}\n", read("good")), 1);
    wat::parse_str(text.replacen("  ;; exports\n", more, 1)).unwrap_or_else(|error| panic!("{error}"))
}

/// A publisher with one more core module.
fn with_module(publisher: Vec<u8>, module: &[u8]) -> Vec<u8> {
    let mut bytes = publisher;
    RawSection { id: ComponentSectionId::CoreModule.into(), data: module }.append_to_component(&mut bytes);
    bytes
}

/// A publisher in which a core module is instantiated so often. That of the publisher itself comes first.
pub fn instances(module: &[u8], count: usize) -> Vec<u8> {
    let mut instances = InstanceSection::new();
    (0..count).for_each(|_| {
        instances.instantiate(1, NO_ARGUMENTS);
    });
    let mut bytes = with_module(publisher(""), module);
    instances.append_to_component(&mut bytes);
    bytes
}

const NO_ARGUMENTS: [(&str, ModuleArg); 0] = [];

/// A module with this many globals.
pub fn globals(count: usize) -> Vec<u8> {
    let mut globals = GlobalSection::new();
    for _ in 0..count {
        let ty = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
        globals.global(ty, &ConstExpr::i32_const(0));
    }
    Module::new().section(&globals).as_slice().to_vec()
}

/// A module with this many functions, all of which can be called from elsewhere.
pub fn functions(count: u32) -> Vec<u8> {
    let (mut functions, mut code, mut elements) = (FunctionSection::new(), CodeSection::new(), ElementSection::new());
    for _ in 0..count {
        functions.function(0);
        code.function(Function::new([]).instruction(&Instruction::End));
    }
    elements.declared(Elements::Functions(Cow::Owned((0..count).collect())));
    with_type(&mut Module::new()).section(&functions).section(&elements).section(&code).as_slice().to_vec()
}

/// A module with this many elements in a segment that no table has yet.
pub fn passive_elements(count: usize) -> Vec<u8> {
    let (mut functions, mut code, mut elements) = (FunctionSection::new(), CodeSection::new(), ElementSection::new());
    functions.function(0);
    code.function(Function::new([]).instruction(&Instruction::End));
    elements.passive(Elements::Functions(Cow::Owned(vec![0; count])));
    with_type(&mut Module::new()).section(&functions).section(&elements).section(&code).as_slice().to_vec()
}

/// A module with this many segments of data that no memory has yet.
pub fn passive_data(count: usize) -> Vec<u8> {
    let mut data = DataSection::new();
    (0..count).for_each(|_| {
        data.passive([]);
    });
    Module::new().section(&data).as_slice().to_vec()
}

fn with_type(module: &mut Module) -> &mut Module {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    module.section(&types)
}

fn imported_globals() -> Vec<u8> {
    let mut imports = ImportSection::new();
    for _ in 0..50_000 {
        imports.import(
            "a",
            "b",
            EntityType::Global(GlobalType { val_type: ValType::I32, mutable: true, shared: false }),
        );
    }
    let one = r#"(core module $one (global (export "b") (mut i32) (i32.const 0)))
                 (core instance $one (instantiate $one))"#;
    let mut bytes = with_module(publisher(one), Module::new().section(&imports).as_slice());
    let mut instances = InstanceSection::new();
    (0..100).for_each(|_| {
        instances.instantiate(2, [("a", ModuleArg::Instance(1))]);
    });
    instances.append_to_component(&mut bytes);
    bytes
}

fn levels(each: usize) -> Vec<u8> {
    let cores = "(core instance (instantiate $m))".repeat(each);
    let inner = "(instance (instantiate $inner))".repeat(each);
    let outer = "(instance (instantiate $middle))".repeat(each);
    publisher(&format!(
        "(component $middle (component $inner (core module $m) {cores}) {inner})
         {outer}"
    ))
}

fn levels_of_components(each: usize) -> Vec<u8> {
    let (inner, outer) = ("(instance (instantiate $inner))".repeat(each), "(instance (instantiate $m))".repeat(each));
    publisher(&format!("(component $m (component $inner) {inner}) {outer}"))
}

/// Each component doubles what it gets.
fn handed_over() -> Vec<u8> {
    let mut text = "(component $c0 (core module $m) (core instance (instantiate $m)))".to_owned();
    for level in 1..20 {
        let before = level - 1;
        write!(
            text,
            "(component $t{level} (import \"c\" (component $c)) (instance (instantiate $c)) (instance (instantiate $c)))
             (component $c{level}
               (alias outer 1 $t{level} (component $t)) (alias outer 1 $c{before} (component $c))
               (instance (instantiate $t (with \"c\" (component $c)))))"
        )
        .unwrap();
    }
    publisher(&(text + "(instance (instantiate $c19))"))
}

/// A component that another one exports, and that is instantiated through that export.
fn exported() -> Vec<u8> {
    let cores = "(core instance (instantiate $m))".repeat(900);
    let uses = "(instance (instantiate $c))".repeat(900);
    publisher(&format!(
        "(component $box (component $c (core module $m) {cores}) (export \"c\" (component $c)))
         (instance $b (instantiate $box))
         (alias export $b \"c\" (component $c))
         {uses}"
    ))
}

fn captured_twice() -> Vec<u8> {
    let mut text = "(component $c0)".to_owned();
    for level in 1..60 {
        let before = level - 1;
        let capture = format!("(alias outer 1 $c{before} (component))");
        write!(text, "(component $c{level} {capture} {capture})").unwrap();
    }
    publisher(&text)
}

fn bundled_twice() -> Vec<u8> {
    // The validator has a limit for the size of one type: many instances of the largest that it takes.
    let mut text = "(component $none) (instance $i0 (instantiate $none))".to_owned();
    for level in 1..17 {
        let before = level - 1;
        write!(text, "(instance $i{level} (export \"a\" (instance $i{before})) (export \"b\" (instance $i{before})))")
            .unwrap();
    }
    publisher(&(text + &"(instance (export \"a\" (instance $i16)))".repeat(900)))
}

fn lowered() -> Vec<u8> {
    let lower = "(core func (canon lower (func $f)))".repeat(100);
    let uses = "(instance (instantiate $c (with \"f\" (func $f))))".repeat(900);
    publisher(&format!(
        "(core module $fm (func (export \"f\"))) (core instance $fi (instantiate $fm))
         (func $f (canon lift (core func $fi \"f\")))
         (component $c (import \"f\" (func $f)) {lower})
         {uses}"
    ))
}

fn nested_components(depth: usize) -> Vec<u8> {
    let within = |component: &[u8], mut outer: Vec<u8>| {
        RawSection { id: ComponentSectionId::Component.into(), data: component }.append_to_component(&mut outer);
        outer
    };
    let nested = (0..depth).fold(Component::HEADER.to_vec(), |inner, _| within(&inner, Component::HEADER.to_vec()));
    within(&nested, publisher(""))
}

fn aliases(count: usize) -> Vec<u8> {
    let one = r#"(core module $one (global (export "b") i32 (i32.const 0))) (core instance $one (instantiate $one))"#;
    publisher(&(one.to_owned() + &"(alias core export $one \"b\" (core global))".repeat(count)))
}

/// A publisher with a module of its own for this function.
fn with_function(function: &Function) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    types.ty().function([ValType::I32; 1_000], [ValType::I32; 1_000]);
    let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
    functions.function(0);
    code.function(function);
    let mut module = Module::new();
    with_module(publisher(""), module.section(&types).section(&functions).section(&code).as_slice())
}

fn nested(begin: &Instruction<'_>, depth: usize) -> Function {
    let mut function = Function::new([]);
    for _ in 0..depth {
        function.instruction(begin);
    }
    for _ in 0..=depth {
        function.instruction(&Instruction::End);
    }
    function
}

fn nested_loops(depth: usize) -> Function {
    nested(&Instruction::Loop(BlockType::Empty), depth)
}

fn nested_blocks(depth: usize) -> Function {
    nested(&Instruction::Block(BlockType::Empty), depth)
}

fn locals_in_blocks() -> Function {
    let mut function = Function::new([(50_000, ValType::I32)]);
    for local in 0..50_000 {
        function.instruction(&Instruction::LocalGet(local)).instruction(&Instruction::If(BlockType::Empty));
        function.instruction(&Instruction::I32Const(1)).instruction(&Instruction::LocalSet(local));
        function.instruction(&Instruction::End);
    }
    function.instruction(&Instruction::End);
    function
}

fn wide_blocks() -> Function {
    let mut function = Function::new([]);
    (0..1_000).for_each(|value| {
        function.instruction(&Instruction::I32Const(value));
    });
    for _ in 0..10_000 {
        function.instruction(&Instruction::Block(BlockType::FunctionType(1))).instruction(&Instruction::End);
    }
    (0..1_000).for_each(|_| {
        function.instruction(&Instruction::Drop);
    });
    function.instruction(&Instruction::End);
    function
}

fn branches() -> Function {
    let mut function = Function::new([]);
    function.instruction(&Instruction::I32Const(0));
    function.instruction(&Instruction::BrTable(Cow::Owned(vec![0; 5_000_000]), 0)).instruction(&Instruction::End);
    function
}

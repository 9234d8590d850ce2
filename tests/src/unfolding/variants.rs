//! More components that are hard to read: by sections that no compiler looks at, by nesting, by numbers, and by names.
//! Each is refused, or is a publisher.

use std::fmt::Write as _;

use wasm_encoder::{
    CodeSection, ComponentSection, ComponentSectionId, ConstExpr, CustomSection, DataSection, ExportKind,
    ExportSection, Function, FunctionSection, Instruction, MemorySection, MemoryType, Module, RawSection, TableSection,
    TableType, TypeSection,
};

use super::{Hostile, publisher, with_module, with_type};

/// So many bytes of a name are allowed.
const NAME_BYTES_MAX: usize = 100_000;

/// All of them. Where nothing is said, the one or the other may come of it.
pub fn variants() -> Vec<Hostile> {
    let hostile = |name, bytes, says| Hostile { name, bytes, says };
    vec![
        hostile("types within types", with_section(&nested_types(1_000_000)), "nested"),
        hostile("an alias of what is four billion components further out", outer_alias(), "does not contain"),
        hostile("a list of a list of a list", publisher(&lists(200_000)), ""),
        hostile("20 million types in a module", with_module(publisher(""), &types(20_000_000)), "types"),
        hostile("3 million exports", exports(4), ""),
        hostile("names of 50 MB that are looked up 900 times", long_names(), "steps"),
        hostile("a million custom sections", customs(1_000_000, 1), ""),
        hostile("a custom section of 60 MiB", customs(1, 60 << 20), ""),
        hostile("names of 60 MiB", names(), ""),
        hostile("memories of 16 MiB with two bytes in them", images(8), ""),
        hostile("more tables than an instance may have", with_module(publisher(""), &tables(101)), "limit of 100"),
    ]
}

fn with_section(data: &[u8]) -> Vec<u8> {
    let mut bytes = publisher("");
    RawSection { id: ComponentSectionId::Type.into(), data }.append_to_component(&mut bytes);
    bytes
}

/// A section with one type: a component with a type that is a component with a type, and so on.
fn nested_types(depth: usize) -> Vec<u8> {
    let mut section = vec![1];
    (0..depth).for_each(|_| section.extend_from_slice(&[0x41, 1, 1]));
    section.extend_from_slice(&[0x41, 0]);
    section
}

fn outer_alias() -> Vec<u8> {
    let mut bytes = publisher("");
    // A component, so many components further out, the first one; twenty of them.
    let mut section = vec![20];
    (0..20).for_each(|_| section.extend_from_slice(&[0x04, 0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0]));
    RawSection { id: ComponentSectionId::Alias.into(), data: &section }.append_to_component(&mut bytes);
    bytes
}

fn lists(depth: usize) -> String {
    let mut text = "(type $t0 (list u8))".to_owned();
    (1..depth).for_each(|level| write!(text, "(type $t{level} (list $t{}))", level - 1).unwrap());
    text + &format!("(export \"deep\" (type $t{}))", depth - 1)
}

fn types(count: u32) -> Vec<u8> {
    let mut types = TypeSection::new();
    (0..count).for_each(|_| types.ty().function([], []));
    Module::new().section(&types).as_slice().to_vec()
}

/// Modules with 800,000 exports each, of one function.
fn exports(modules: usize) -> Vec<u8> {
    let (mut functions, mut code, mut exports) = (FunctionSection::new(), CodeSection::new(), ExportSection::new());
    functions.function(0);
    code.function(Function::new([]).instruction(&Instruction::End));
    (0..800_000).for_each(|number| {
        exports.export(&format!("{number:x}"), ExportKind::Func, 0);
    });
    let module = with_type(&mut Module::new()).section(&functions).section(&exports).section(&code).as_slice().to_vec();
    (0..modules).fold(publisher(""), |bytes, _| with_module(bytes, &module))
}

/// A component that makes an instance with very long names, and is instantiated very often.
fn long_names() -> Vec<u8> {
    let mut exports = String::new();
    for number in 0..500 {
        write!(exports, "(export \"{}{number:03}\" (func $f))", "a".repeat(NAME_BYTES_MAX - 3)).unwrap();
    }
    let uses = "(instance (instantiate $c))".repeat(900);
    publisher(&format!(
        "(core module $fm (func (export \"f\"))) (core instance $fi (instantiate $fm))
         (func $f (canon lift (core func $fi \"f\")))
         (component $c
           (core module $fm (func (export \"f\"))) (core instance $fi (instantiate $fm))
           (func $f (canon lift (core func $fi \"f\")))
           (instance {exports}))
         {uses}"
    ))
}

fn customs(count: usize, length: usize) -> Vec<u8> {
    let mut bytes = publisher("");
    let data = vec![b'x'; length];
    (0..count).for_each(|_| {
        RawSection { id: 0, data: &[[1, b'n'].as_slice(), &data].concat() }.append_to_component(&mut bytes);
    });
    bytes
}

/// A name section of a module and one of the component, full of names.
fn names() -> Vec<u8> {
    let mut map = vec![0xC0, 0x84, 0x3D]; // 1,000,000
    for number in 0..1_000_000_u32 {
        let index = [(number & 0x7F) as u8 | 0x80, (number >> 7 & 0x7F) as u8 | 0x80, (number >> 14) as u8];
        map.extend_from_slice(&index);
        map.extend_from_slice(&[24]);
        map.extend_from_slice(&[b'n'; 24]);
    }
    let mut section = vec![1];
    leb(&mut section, map.len());
    section.extend_from_slice(&map);
    let mut module = Module::new();
    module.section(&CustomSection { name: "name".into(), data: section.as_slice().into() });
    let mut bytes = with_module(publisher(""), module.as_slice());
    CustomSection { name: "component-name".into(), data: section.as_slice().into() }.append_to_component(&mut bytes);
    bytes
}

fn leb(section: &mut Vec<u8>, mut number: usize) {
    while number > 0x7F {
        section.push((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    section.push(number as u8);
}

fn tables(count: usize) -> Vec<u8> {
    let mut tables = TableSection::new();
    let element_type = wasm_encoder::RefType::FUNCREF;
    (0..count).for_each(|_| {
        tables.table(TableType { element_type, table64: false, minimum: 0, maximum: None, shared: false });
    });
    Module::new().section(&tables).as_slice().to_vec()
}

/// The compiler makes an image of all between the two bytes of each memory.
fn images(modules: usize) -> Vec<u8> {
    (0..modules).fold(publisher(""), |bytes, _| with_module(bytes, &sparse_memory()))
}

fn sparse_memory() -> Vec<u8> {
    let (mut memories, mut data) = (MemorySection::new(), DataSection::new());
    memories.memory(MemoryType { minimum: 256, maximum: None, memory64: false, shared: false, page_size_log2: None });
    data.active(0, &ConstExpr::i32_const(0), [1]).active(0, &ConstExpr::i32_const((16 << 20) - 1), [1]);
    Module::new().section(&memories).section(&data).as_slice().to_vec()
}

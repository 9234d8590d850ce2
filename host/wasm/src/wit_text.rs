//! Writes types of components as WIT does, so that people can compare what they built with the contract.

use wasmtime::component::types::{Case, ComponentFunc, Field, Type};

/// The most characters: a component's types may unfold to any length.
const CHARS_MAX: usize = 1_500;

/// A function's signature with its types unfolded, cut if it is too long.
pub(super) fn signature(function: &str, ty: &ComponentFunc) -> String {
    let mut text = Text(format!("{function}: {}func(", if ty.async_() { "async " } else { "" }));
    text.list(ty.params(), |text, (name, ty)| {
        text.push(&format!("{name}: "));
        text.ty(&ty);
    });
    text.push(")");
    let results = ty.results();
    if results.len() > 0 {
        text.push(" -> ");
        text.list(results, |text, ty| text.ty(&ty));
    }
    if text.is_full() {
        text.0.push('…');
    }
    text.0
}

struct Text(String);

impl Text {
    fn is_full(&self) -> bool {
        self.0.len() > CHARS_MAX
    }

    fn push(&mut self, more: &str) {
        if !self.is_full() {
            self.0.push_str(more);
        }
    }

    fn list<T>(&mut self, items: impl Iterator<Item = T>, mut item: impl FnMut(&mut Self, T)) {
        for (index, one) in items.enumerate() {
            if self.is_full() {
                return;
            }
            if index > 0 {
                self.push(", ");
            }
            item(self, one);
        }
    }

    fn of(&mut self, name: &str, types: &[Option<Type>]) {
        self.push(name);
        self.push("<");
        self.list(types.iter(), |text, ty| match ty {
            Some(ty) => text.ty(ty),
            None => text.push("_"),
        });
        self.push(">");
    }

    fn optional(&mut self, name: &str, ty: Option<Type>) {
        match ty {
            Some(ty) => self.of(name, &[Some(ty)]),
            None => self.push(name),
        }
    }

    fn ty(&mut self, ty: &Type) {
        if self.is_full() {
            return;
        }
        match ty {
            Type::Bool => self.push("bool"),
            Type::S8 => self.push("s8"),
            Type::U8 => self.push("u8"),
            Type::S16 => self.push("s16"),
            Type::U16 => self.push("u16"),
            Type::S32 => self.push("s32"),
            Type::U32 => self.push("u32"),
            Type::S64 => self.push("s64"),
            Type::U64 => self.push("u64"),
            Type::Float32 => self.push("f32"),
            Type::Float64 => self.push("f64"),
            Type::Char => self.push("char"),
            Type::String => self.push("string"),
            Type::ErrorContext => self.push("error-context"),
            Type::Own(_) => self.push("own<resource>"),
            Type::Borrow(_) => self.push("borrow<resource>"),
            Type::List(list) => self.of("list", &[Some(list.ty())]),
            Type::FixedLengthList(list) => {
                self.push("list<");
                self.ty(&list.ty());
                self.push(&format!(", {}>", list.len()));
            }
            Type::Map(map) => self.of("map", &[Some(map.key()), Some(map.value())]),
            Type::Option(option) => self.of("option", &[Some(option.ty())]),
            Type::Tuple(tuple) => {
                self.push("tuple<");
                self.list(tuple.types(), |text, ty| text.ty(&ty));
                self.push(">");
            }
            Type::Result(result) => match (result.ok(), result.err()) {
                (None, None) => self.push("result"),
                (ok, None) => self.of("result", &[ok]),
                (ok, err) => self.of("result", &[ok, err]),
            },
            Type::Future(future) => self.optional("future", future.ty()),
            Type::Stream(stream) => self.optional("stream", stream.ty()),
            Type::Record(record) => self.block("record", record.fields(), Self::field),
            Type::Variant(variant) => self.block("variant", variant.cases(), Self::case),
            Type::Enum(names) => self.block("enum", names.names(), Self::push),
            Type::Flags(names) => self.block("flags", names.names(), Self::push),
        }
    }

    fn block<T>(&mut self, name: &str, items: impl Iterator<Item = T>, item: impl FnMut(&mut Self, T)) {
        self.push(name);
        self.push(" { ");
        self.list(items, item);
        self.push(" }");
    }

    fn field(&mut self, Field { name, ty }: Field<'_>) {
        self.push(&format!("{name}: "));
        self.ty(&ty);
    }

    fn case(&mut self, Case { name, ty }: Case<'_>) {
        self.push(name);
        if let Some(ty) = ty {
            self.push("(");
            self.ty(&ty);
            self.push(")");
        }
    }
}

//! Makes a program that can be instantiated from bytes, with every check that needs no running guest.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use outbox_engine::files;
use outbox_engine::text::shown;
use sha2::{Digest, Sha256};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentNamedList, InstancePre, Lift, Linker, Lower};

use super::bindings::{self, BATCH_PUBLISHER, LIFECYCLE, PUBLISHER, types};
use super::cache::{CodeCache, deserialize};
use super::code;
use super::compiler::{Compiled, GivenUp};
use super::engine::{EngineKind, TickingEngine};
use super::expand;
use super::load_error::{LoadError, REASON_CHARS_MAX, invalid};
use super::outgoing;
use super::settings::Settings;
use super::sockets;
use super::state::State;
use super::text::bounded;
use super::wit_text;

/// The beginning of the export of a publisher of any version.
pub(super) const CONTRACT: &str = "outbox:publisher/publisher@";
/// A compiled publisher, which all of its instances share.
pub(super) struct Program {
    pub(super) pre: InstancePre<State>,
    pub(super) publisher: bindings::publisher::GuestIndices,
    pub(super) batch: Option<bindings::batch_publisher::GuestIndices>,
    pub(super) lifecycle: Option<bindings::lifecycle::GuestIndices>,
    /// The sha256 digest of the component's bytes.
    pub(super) digest: [u8; 32],
    /// Whether its code came from the cache.
    pub(super) from_cache: bool,
    pub(super) engine: Arc<TickingEngine>,
}

/// Reads a regular file, at most as many bytes as a module may have.
pub(super) fn read(path: &Path, name: &str, bytes_max: usize) -> Result<Vec<u8>, LoadError> {
    files::read(path, bytes_max as u64).map_err(|source| match source.kind() {
        ErrorKind::FileTooLarge => LoadError::TooLarge { name: name.to_owned(), bytes_max },
        _ => LoadError::Unreadable { path: path.to_owned(), source },
    })
}

/// Compiles `bytes`, or finds their code in the cache, and checks that they are a publisher. Compiling takes
/// milliseconds to seconds, on all processors. Before it, what they unfold to is counted.
pub(super) fn program(name: &str, bytes: &[u8], settings: &Settings, given_up: &GivenUp) -> Result<Program, LoadError> {
    let limits = settings.limits.clone().bounded();
    check_size(name, bytes, limits.module_bytes)?;
    check_kind(name, bytes)?;
    expand::check(name, bytes, &limits)?;
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let cache = settings.cache.as_deref().and_then(open_cache);
    let kept = cache.as_ref().and_then(|cache| cached(cache, &digest));
    let (engine, component, new) = match kept {
        Some((engine, component)) => (engine, component, None),
        None => {
            code::check(name, bytes)?;
            let compiled = settings.compiler.compile(name, bytes, &limits, given_up)?;
            let (engine, component) = loaded(name, &compiled)?;
            (engine, component, Some(compiled.code))
        }
    };
    let from_cache = new.is_none();
    let pre = link(name, &engine, &component)?;
    let checked = Checked { name, pre: &pre };
    let (publisher, batch, lifecycle) = (checked.publisher()?, checked.batch()?, checked.lifecycle()?);
    if let (Some(cache), Some(code)) = (cache, new) {
        cache.store(engine.engine(), &digest, &code);
    }
    Ok(Program { publisher, batch, lifecycle, digest, from_cache, pre, engine })
}

/// Opens the cache. If the folder cannot be used, the only cost is compiling again.
fn open_cache(folder: &Path) -> Option<CodeCache> {
    let opened = CodeCache::open(folder);
    opened
        .inspect_err(|error| {
            let folder = shown(folder.display());
            tracing::warn!("compiled code is not kept: the folder {folder} cannot be used: {}", shown(error));
        })
        .ok()
}

/// Code from the cache, for whichever engine accepted it.
fn cached(cache: &CodeCache, digest: &[u8]) -> Option<(Arc<TickingEngine>, Component)> {
    [EngineKind::Plain, EngineKind::Concurrent].into_iter().find_map(|kind| {
        let engine = TickingEngine::shared(kind).ok()?;
        let component = cache.load(engine.engine(), digest)?;
        Some((engine, component))
    })
}

fn check_size(name: &str, bytes: &[u8], bytes_max: usize) -> Result<(), LoadError> {
    if bytes.len() > bytes_max {
        return Err(LoadError::TooLarge { name: name.to_owned(), bytes_max });
    }
    Ok(())
}

/// The first eight bytes tell a component, a core module and everything else apart.
pub(super) fn check_kind(name: &str, bytes: &[u8]) -> Result<(), LoadError> {
    let name = || name.to_owned();
    match bytes {
        [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => Ok(()),
        [b'\0', b'a', b's', b'm', _, _, 0, 0, ..] => Err(LoadError::CoreModule { name: name() }),
        [b'\0', b'a', b's', b'm', ..] => Err(invalid(&name(), "its version is unknown")),
        _ => Err(LoadError::NotWasm { name: name() }),
    }
}

/// The component that was compiled, on an engine that runs it.
fn loaded(name: &str, compiled: &Compiled) -> Result<(Arc<TickingEngine>, Component), LoadError> {
    let failed = |error: wasmtime::Error| LoadError::Engine { reason: format!("{error:#}") };
    let engine = TickingEngine::shared(compiled.kind).map_err(failed)?;
    let component = deserialize(engine.engine(), &compiled.code);
    Ok((engine, component.map_err(|error| invalid(name, format!("{error:#}")))?))
}

/// The packages that are linked. Whatever they reach outside the sandbox is denied until it is granted.
const OFFERED: [&str; 9] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:config/",
    "wasi:filesystem/",
    "wasi:http/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
    "outbox:publisher/",
];

fn link(name: &str, engine: &TickingEngine, component: &Component) -> Result<InstancePre<State>, LoadError> {
    let linker = linker(engine).map_err(|error| LoadError::Engine { reason: format!("{error:#}") })?;
    linker.instantiate_pre(component).map_err(|error| {
        let imports = component.component_type();
        let imports = imports.imports(engine.engine()).map(|(import, _)| import.to_owned());
        let unknown: Vec<String> = imports.filter(|import| !OFFERED.iter().any(|it| import.starts_with(it))).collect();
        let reason = if unknown.is_empty() { format!("{error:#}") } else { quoted(&unknown) };
        let reason = bounded(reason, REASON_CHARS_MAX);
        LoadError::Imports { name: name.to_owned(), reason }
    })
}

fn linker(engine: &TickingEngine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine.engine());
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    sockets::linker::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    outgoing::add_to_linker(&mut linker)?;
    wasmtime_wasi_config::add_to_linker(&mut linker, State::config)?;
    Ok(linker)
}

fn quoted(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    }
}

/// Looks up the exported interfaces, and compares the types of their functions with the contract's. Otherwise wasmtime
/// would compare them for each instance, and only then.
struct Checked<'a> {
    name: &'a str,
    pre: &'a InstancePre<State>,
}

/// The functions as the contract writes them.
const PUBLISH: &str = "publish: func(event: recorded) -> result<_, publish-error>";
const PUBLISH_BATCH: &str = "publish-batch: func(events: list<recorded>) -> list<result<_, publish-error>>";
const CONFIGURE: &str = "configure: func() -> result<_, string>";

type Event<'a> = types::Recorded<'a>;

impl Checked<'_> {
    fn publisher(&self) -> Result<bindings::publisher::GuestIndices, LoadError> {
        if !self.exports(PUBLISHER) {
            let exports = self.pre.component().component_type();
            let exports: Vec<String> =
                exports.exports(self.pre.engine()).map(|(export, _)| export.to_owned()).collect();
            if let Some(found) = exports.iter().find_map(|export| export.strip_prefix(CONTRACT)) {
                let found = bounded(found.to_owned(), REASON_CHARS_MAX);
                return Err(LoadError::OtherVersion { name: self.name.to_owned(), found });
            }
            return Err(LoadError::NotAPublisher {
                name: self.name.to_owned(),
                exports: bounded(quoted(&exports), REASON_CHARS_MAX),
            });
        }
        self.function::<(Event<'_>,), (bindings::Answer,)>(PUBLISHER, "publish", PUBLISH)?;
        bindings::publisher::GuestIndices::new(self.pre).map_err(|error| self.mismatch(PUBLISHER, format!("{error:#}")))
    }

    fn batch(&self) -> Result<Option<bindings::batch_publisher::GuestIndices>, LoadError> {
        if !self.exports(BATCH_PUBLISHER) {
            return Ok(None);
        }
        self.function::<(&[Event<'_>],), (Vec<bindings::Answer>,)>(BATCH_PUBLISHER, "publish-batch", PUBLISH_BATCH)?;
        let indices = bindings::batch_publisher::GuestIndices::new(self.pre);
        indices.map(Some).map_err(|error| self.mismatch(BATCH_PUBLISHER, format!("{error:#}")))
    }

    fn lifecycle(&self) -> Result<Option<bindings::lifecycle::GuestIndices>, LoadError> {
        if !self.exports(LIFECYCLE) {
            return Ok(None);
        }
        self.function::<(), (Result<(), String>,)>(LIFECYCLE, "configure", CONFIGURE)?;
        let indices = bindings::lifecycle::GuestIndices::new(self.pre);
        indices.map(Some).map_err(|error| self.mismatch(LIFECYCLE, format!("{error:#}")))
    }

    fn exports(&self, interface: &str) -> bool {
        self.pre.component().get_export_index(None, interface).is_some()
    }

    fn function<Params, Return>(&self, interface: &'static str, function: &str, contract: &str) -> Result<(), LoadError>
    where
        Params: ComponentNamedList + Lower,
        Return: ComponentNamedList + Lift,
    {
        let component = self.pre.component();
        let index = component.get_export_index(None, interface);
        let item = index.and_then(|interface| component.get_export(Some(&interface), function));
        let Some((ComponentItem::ComponentFunc(ty), _)) = item else {
            return Err(self.mismatch(interface, format!("it has no function `{function}`, which is `{contract}`")));
        };
        ty.typecheck::<Params, Return>(&self.pre.instance_type()).map_err(|error| {
            let found = wit_text::signature(function, &ty);
            self.mismatch(interface, format!("it has `{found}`, and the contract has `{contract}`: {error:#}"))
        })
    }

    fn mismatch(&self, interface: &'static str, reason: String) -> LoadError {
        LoadError::Mismatch { name: self.name.to_owned(), interface, reason: bounded(reason, REASON_CHARS_MAX) }
    }
}

//! Reads what a component says about itself from its sections, without compiling or running it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use outbox_engine::text::steers;
use serde::Serialize;
use sha2::{Digest, Sha256};
use wasmparser::{Encoding, Parser, Payload, ProducersSectionReader};

use super::bindings::{BATCH_PUBLISHER, LIFECYCLE};
use super::load::{CONTRACT, check_kind};
use super::load_error::{CONTRACT_VERSION, LoadError, invalid};
use super::text::bounded;

/// The most characters of one name that are shown, and the most names of one kind.
const NAME_CHARS_MAX: usize = 200;
const NAMES_MAX: usize = 200;
/// The most names of one kind that are read.
const READ_MAX: usize = 10_000;

/// What a component says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The sha256 digest of its bytes, in hex.
    pub digest: String,
    /// How many bytes it has.
    pub size: u64,
    /// The version of the contract `outbox:publisher` that it exports. None if it is no publisher.
    pub contract: Option<String>,
    /// Whether it exports `batch-publisher`.
    pub batch_publisher: bool,
    /// Whether it exports `lifecycle`.
    pub lifecycle: bool,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// What it may need, and which settings grant it. Many toolchains import more than a program uses.
    pub grants: Vec<GrantHint>,
    /// The languages and tools that made it, if it names them.
    pub toolchain: Vec<String>,
}

/// A setting that an import may need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GrantHint {
    /// What the component imports.
    pub import: &'static str,
    /// The line of the config that grants it.
    pub setting: &'static str,
}

const HINTS: [GrantHint; 5] = [
    GrantHint { import: "wasi:http/outgoing-handler", setting: "[publisher] allow_http = [\"https://HOST\"]" },
    GrantHint {
        import: "wasi:http/outgoing-handler",
        setting: "[publisher.secrets], for headers that the guest must not see",
    },
    GrantHint { import: "wasi:sockets/tcp", setting: "[publisher] allow_tcp = [\"HOST:PORT\"]" },
    GrantHint { import: "wasi:cli/environment", setting: "[publisher.env] NAME = \"value\"" },
    GrantHint { import: "wasi:config/", setting: "[publisher.config] key = \"value\"" },
];

/// Reads what a component says about itself; messages call it `name`.
///
/// # Errors
///
/// A [`LoadError`] if it is no component, or damaged.
pub fn inspect(name: &str, bytes: &[u8]) -> Result<Inspection, LoadError> {
    check_kind(name, bytes)?;
    // Whatever the bytes are, a panic of the parser must not end the host.
    catch_unwind(AssertUnwindSafe(|| read(name, bytes)))
        .unwrap_or_else(|_| Err(invalid(name, "the parser failed on it")))
}

fn read(name: &str, bytes: &[u8]) -> Result<Inspection, LoadError> {
    let (mut imports, mut exports, mut toolchain) = (Vec::new(), Vec::new(), BTreeSet::new());
    // How deep the parser is in nested modules and components.
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| invalid(name, error))? {
            Payload::Version { encoding: Encoding::Module | Encoding::Component, .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section.into_iter().take(READ_MAX.saturating_sub(imports.len())) {
                    imports.push(one_line(import.map_err(|error| invalid(name, error))?.name.name));
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section.into_iter().take(READ_MAX.saturating_sub(exports.len())) {
                    exports.push(one_line(export.map_err(|error| invalid(name, error))?.name.name));
                }
            }
            Payload::CustomSection(section) if section.name() == "producers" && toolchain.len() < READ_MAX => {
                // This section is for tools only: if it is damaged, less is shown.
                let reader = wasmparser::BinaryReader::new(section.data(), section.data_offset());
                toolchain.extend(ProducersSectionReader::new(reader).map(producers).unwrap_or_default());
            }
            _ => {}
        }
    }
    let exported = |interface: &str| exports.iter().any(|export| export == interface);
    // If there are several versions, the host calls the known one.
    let contract = exports.iter().filter_map(|export| export.strip_prefix(CONTRACT).map(ToOwned::to_owned));
    let contract = contract.max_by_key(|version| version == CONTRACT_VERSION);
    Ok(Inspection {
        digest: hex::encode(Sha256::digest(bytes)),
        size: bytes.len() as u64,
        contract,
        batch_publisher: exported(BATCH_PUBLISHER),
        lifecycle: exported(LIFECYCLE),
        grants: HINTS.into_iter().filter(|hint| imports.iter().any(|it| it.starts_with(hint.import))).collect(),
        toolchain: toolchain.into_iter().take(NAMES_MAX).collect(),
        imports: few(imports),
        exports: few(exports),
    })
}

fn few(mut names: Vec<String>) -> Vec<String> {
    names.truncate(NAMES_MAX);
    names
}

fn producers(section: ProducersSectionReader<'_>) -> Vec<String> {
    let fields = section.into_iter().flatten().take(NAMES_MAX);
    let values = fields.flat_map(|field| {
        let values = field.values.into_iter().flatten().take(NAMES_MAX);
        values.map(move |value| format!("{}: {} {}", field.name, value.name, value.version))
    });
    values.map(|text| one_line(text.trim_end())).collect()
}

/// A component can contain any names.
fn one_line(text: &str) -> String {
    bounded(text.chars().filter(|it| !steers(*it) && !it.is_control()).collect(), NAME_CHARS_MAX)
}

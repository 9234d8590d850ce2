//! The projects that `outbox publisher new` makes: the folders `examples/*-webhook` of outbox-wasm's repository, as
//! they were when this crate was built.
//!
//! ```
//! let template = outbox_templates::template("rust-webhook").ok_or("there is none")?;
//! assert!(template.files.iter().any(|file| file.path == "Cargo.toml"));
//! assert!(template.files.iter().any(|file| file.path == "build.sh" && file.is_executable));
//! # Ok::<(), &str>(())
//! ```

/// A folder of `examples/`.
pub struct Template {
    /// Its name. A project replaces it by its own name in all files.
    pub name: &'static str,
    /// Its files, in the order of their paths.
    pub files: &'static [File],
}

/// A file of a template.
pub struct File {
    /// Relative to the folder.
    pub path: &'static str,
    /// Its content.
    pub content: &'static [u8],
    /// Whether it is a script.
    pub is_executable: bool,
}

// `pub static TEMPLATES: &[Template]`
include!(concat!(env!("OUT_DIR"), "/templates.rs"));

/// The template of this name.
pub fn template(name: &str) -> Option<&'static Template> {
    TEMPLATES.iter().find(|template| template.name == name)
}

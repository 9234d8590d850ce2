//! Makes the table of the templates, from the folder `projects`. It links to the examples, and a package of this crate
//! has copies in place of the links. Links are followed: a project gets its own copies of the files that the examples
//! share.

use std::collections::BTreeMap;
use std::fs;
use std::io::Result;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What running an example leaves in its folder.
const MADE: [&str; 4] = ["build", "target", "node_modules", "__pycache__"];
/// A suffix for the names of files that would make Cargo or git treat a project's folder as a package or repository of
/// its own.
const SUFFIX: &str = ".template";

fn main() -> Result<()> {
    let projects = Path::new(env!("CARGO_MANIFEST_DIR")).join("projects");
    println!("cargo::rerun-if-changed={}", projects.display());
    let mut templates = String::new();
    for (name, folder) in entries(&projects)? {
        let mut files = BTreeMap::new();
        walk(&folder, "", &mut files)?;
        let files = files.iter().map(|(path, file)| row(path, file)).collect::<Result<String>>()?;
        templates += &format!("    Template {{ name: {name:?}, files: &[\n{files}    ] }},\n");
    }
    let table = format!("/// All of them.\npub static TEMPLATES: &[Template] = &[\n{templates}];\n");
    fs::write(Path::new(&std::env::var("OUT_DIR").unwrap_or_default()).join("templates.rs"), table)
}

/// Finds the files of a folder, by their paths within the template.
fn walk(folder: &Path, within: &str, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    println!("cargo::rerun-if-changed={}", folder.display());
    for (name, path) in entries(folder)?.into_iter().filter(|(name, _)| !MADE.contains(&name.as_str())) {
        println!("cargo::rerun-if-changed={}", path.display());
        if path.is_dir() {
            walk(&path, &format!("{within}{name}/"), files)?;
        } else {
            files.insert(format!("{within}{}", name.strip_suffix(SUFFIX).unwrap_or(&name)), path);
        }
    }
    Ok(())
}

/// The entries of a folder, by name, each with its real path.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entry = |entry: Result<fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), entry.path().canonicalize()?))
    };
    let mut entries = fs::read_dir(folder)?.map(entry).collect::<Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}

fn row(path: &str, file: &Path) -> Result<String> {
    let is_executable = fs::metadata(file)?.permissions().mode() & 0o100 != 0;
    let content = file.display().to_string();
    Ok(format!(
        "        File {{ path: {path:?}, content: include_bytes!({content:?}), is_executable: {is_executable} }},\n"
    ))
}

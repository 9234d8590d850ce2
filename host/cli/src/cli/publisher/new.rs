//! `outbox publisher new` makes a project for a publisher, in one of several languages. The project is the example of
//! that language, with everything needed to build and test it anywhere.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use outbox_templates::{File, Template, template};

use crate::cli::terminal::print;

#[derive(Args)]
pub struct New {
    /// The publisher's name: lower-case letters, digits and hyphens, starting with a letter. A folder of this name is
    /// made.
    name: String,
    /// The language.
    #[arg(long, value_name = "LANGUAGE")]
    lang: Language,
    /// The engine for JavaScript: quickjs is small, starlingmonkey has `fetch` and the web's other APIs.
    #[arg(long)]
    engine: Option<Engine>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Language {
    Rust,
    #[value(alias = "javascript")]
    Js,
    #[value(alias = "typescript")]
    Ts,
    Python,
    Go,
    C,
}

#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    Quickjs,
    Starlingmonkey,
}

impl New {
    pub fn run(self) -> Result<()> {
        let name = &self.name;
        ensure!(
            is_name(name),
            "invalid name {name:?}: use lower-case letters, digits and hyphens, starting with a letter"
        );
        let example = self.example()?;
        let template = template(example).with_context(|| format!("there is no template {example} in this program"))?;
        let folder = Path::new(name);
        ensure!(is_free(folder)?, "{name} exists already: take another name, or move it away");
        let files = template.files.iter().map(|file| Ok((file, content(template, file, name)?)));
        let files = files.collect::<Result<Vec<_>>>()?;
        for (file, content) in &files {
            write(&folder.join(file.path), content, file.is_executable)?;
        }
        print(format_args!(
            "{name} has {} files, README.md first. Next:\n\n    \
             cd {name}\n    \
             ./build.sh    # makes build/{name}.wasm\n    \
             ./test.sh     # the unit tests\n    \
             outbox publisher test build/{name}.wasm --event try/events.ndjson --stub-http try/answers.toml \\\n      \
             --allow-http https://hooks.example.com --env WEBHOOK_URL=https://hooks.example.com/orders\n\n\
             outbox.toml has the settings that suit it: outbox relay --db FILE --config outbox.toml",
            files.len()
        ))
    }

    /// The folder in `examples/`.
    fn example(&self) -> Result<&'static str> {
        Ok(match (self.lang, self.engine) {
            (Language::Js, None | Some(Engine::Quickjs)) => "javascript-quickjs-webhook",
            (Language::Js, Some(Engine::Starlingmonkey)) => "javascript-starlingmonkey-webhook",
            (Language::Ts, None | Some(Engine::Starlingmonkey)) => "typescript-webhook",
            (Language::Ts, Some(Engine::Quickjs)) => {
                bail!("TypeScript is built for starlingmonkey: leave out --engine")
            }
            (_, Some(_)) => bail!("--engine is for --lang js: leave it out"),
            (Language::Rust, None) => "rust-webhook",
            (Language::Python, None) => "python-webhook",
            (Language::Go, None) => "go-webhook",
            (Language::C, None) => "c-webhook",
        })
    }
}

fn is_name(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(is_part)
}

/// Whether the folder is missing or empty.
fn is_free(folder: &Path) -> Result<bool> {
    let said = || format!("{} cannot be looked into", folder.display());
    if !folder.try_exists().with_context(said)? {
        return Ok(true);
    }
    Ok(folder.is_dir() && fs::read_dir(folder).with_context(said)?.next().is_none())
}

/// The file's content, with the project's name in place of the template's.
fn content(template: &Template, file: &File, name: &str) -> Result<Vec<u8>> {
    let Ok(text) = str::from_utf8(file.content) else { return Ok(file.content.to_owned()) };
    let text = text.replace(template.name, name);
    Ok(if file.path == "Cargo.lock" { sorted_lock(&text, name)? } else { text }.into_bytes())
}

/// Sorts the packages of a Cargo.lock by name: otherwise Cargo would rewrite the file, and `--locked` would fail.
fn sorted_lock(text: &str, name: &str) -> Result<String> {
    let mut packages = text.trim_end().split("\n\n[[package]]\n");
    let head = packages.next().unwrap_or_default();
    let mut packages: Vec<&str> = packages.collect();
    let same_name = packages.iter().filter(|package| package.starts_with(&format!("name = \"{name}\"\n")));
    ensure!(same_name.count() == 1, "{name} is the name of a crate on which it depends: take another name");
    packages.sort_unstable();
    Ok(format!("{head}\n\n[[package]]\n{}\n", packages.join("\n\n[[package]]\n")))
}

fn write(path: &Path, content: &[u8], is_executable: bool) -> Result<()> {
    let written = || -> std::io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        fs::write(path, content)?;
        if is_executable { fs::set_permissions(path, Permissions::from_mode(0o755)) } else { Ok(()) }
    };
    written().with_context(|| format!("{} cannot be written", path.display()))
}

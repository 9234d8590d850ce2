//! `[publisher.secrets]`: where each secret is read from, and which requests it is for.

use std::env::{self, VarError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use outbox_host::files;
use outbox_host::publisher::component::{HeaderSecret, HttpGrant};
use serde::{Deserialize, Deserializer, de};

/// The most bytes of a secret's file: no header may be longer.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// Where to find a secret; not the secret itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretConfig {
    /// The variable of the relay's environment that contains it.
    pub env: Option<String>,
    /// The file that contains it, relative to the configuration file's folder.
    pub file: Option<PathBuf>,
    /// The header that it is sent in.
    pub header: String,
    /// What precedes it in the header.
    #[serde(default)]
    pub prefix: String,
    /// Where it is sent to.
    #[serde(rename = "for", deserialize_with = "destination")]
    pub destination: HttpGrant,
}

fn destination<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HttpGrant, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

impl SecretConfig {
    /// Reads the secret called `name`.
    pub fn read(&self, name: &str) -> Result<HeaderSecret> {
        let value = match (&self.env, &self.file) {
            (Some(variable), None) => from_env(variable),
            (None, Some(file)) => from_file(file),
            _ => bail!("the secret `{name}` has to have either `env` or `file`"),
        };
        let value = value.with_context(|| format!("the secret `{name}` cannot be read"))?;
        Ok(HeaderSecret::new(name, &value, &self.header, &self.prefix, self.destination.clone())?)
    }
}

fn from_env(variable: &str) -> Result<String> {
    match env::var(variable) {
        Ok(value) => Ok(value),
        Err(VarError::NotPresent) => bail!("the environment variable {variable} is not set"),
        // The error itself would show the value.
        Err(VarError::NotUnicode(_)) => bail!("the environment variable {variable} is not UTF-8"),
    }
}

/// Editors end the last line with a line break, which is no part of the secret.
fn from_file(file: &Path) -> Result<String> {
    let value = files::read_text(file, FILE_BYTES_MAX).with_context(|| file.display().to_string())?;
    Ok(value.trim_end_matches(['\r', '\n']).to_owned())
}

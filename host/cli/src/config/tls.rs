//! `[publisher] tls`: which certificate authorities a publisher's HTTPS requests trust beside the system's.

use std::path::PathBuf;

use anyhow::{Context, Result};
use outbox_host::files;
use outbox_host::publisher::component::Authorities;
use serde::Deserialize;

/// The most bytes of a file of certificates. All authorities that Mozilla trusts take a quarter of a MiB.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Where to find the publisher's certificate authorities.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// PEM; relative to the configuration file's folder.
    pub ca_file: Option<PathBuf>,
}

impl TlsConfig {
    /// Reads them.
    pub fn authorities(&self) -> Result<Authorities> {
        let Some(file) = &self.ca_file else { return Ok(Authorities::default()) };
        let read =
            || -> Result<Authorities> { Ok(Authorities::with(files::read_text(file, FILE_BYTES_MAX)?.as_bytes())?) };
        read().with_context(|| format!("the certificate authorities of {} (tls.ca_file)", file.display()))
    }
}

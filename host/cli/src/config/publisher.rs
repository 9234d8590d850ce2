//! `[publisher]` and `[publishers.NAME]`: a publisher, and what it may do.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;

use anyhow::{Result, bail};
use outbox_host::publisher::component::{
    Authorities, Grants, HeaderSecret, HttpGrant, Isolation, LimitsConfig, Settings, TcpGrant, Time,
};
use outbox_host::{CanaryRules, PublisherOptions, RateBy, RateLimit};
use serde::Deserialize;

use super::compiler::compiler;
use super::secrets::SecretConfig;
use super::tls::TlsConfig;
use super::values::{Percentage, RateConfig, batch_bytes, batch_max, batch_wait, parsed};

/// `[publisher]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PublisherConfig {
    /// The component; relative to the file's folder.
    pub file: Option<PathBuf>,
    /// The deployed publisher with this name.
    pub name: Option<String>,
    pub canary: CanaryConfig,
    #[serde(deserialize_with = "parsed")]
    pub allow_http: Vec<HttpGrant>,
    #[serde(deserialize_with = "parsed")]
    pub allow_tcp: Vec<TcpGrant>,
    pub allow_private: bool,
    pub env: BTreeMap<String, String>,
    pub config: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, SecretConfig>,
    pub tls: TlsConfig,
    /// The folder of compiled code; relative to the file's folder.
    pub cache: Option<PathBuf>,
    pub limits: LimitsConfig,
    pub isolation: IsolationConfig,
    pub recycle_after: Option<u32>,
    /// The most calls of it at once; without it, that of `[relay]`.
    pub concurrency: Option<usize>,
    /// How fast it is given entries.
    pub rate: Option<RateConfig>,
    /// How many of them pass at once after a pause.
    pub burst: Option<NonZeroU32>,
    /// Whose entries share the rate.
    pub rate_by: RateBy,
    /// The most events of a call, if it takes batches; without it, as many as the component takes.
    #[serde(deserialize_with = "batch_max")]
    pub batch_max: Option<usize>,
    /// The most bytes of events of such a call.
    #[serde(deserialize_with = "batch_bytes")]
    pub batch_bytes: Option<usize>,
    /// How long to wait for more events of such a call.
    #[serde(deserialize_with = "batch_wait")]
    pub batch_wait: Option<Time>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum IsolationConfig {
    /// An instance serves many events.
    #[default]
    Reuse,
    /// Each call gets an instance of its own.
    PerEvent,
}

/// `[publisher.canary]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CanaryConfig {
    pub events: Option<u64>,
    pub margin: Option<Percentage>,
    pub withdraw_on_trap: Option<bool>,
}

impl CanaryConfig {
    pub fn rules(&self) -> CanaryRules {
        let defaults = CanaryRules::default();
        CanaryRules {
            events: self.events.unwrap_or(defaults.events),
            margin: self.margin.map_or(defaults.margin, |margin| margin.0),
            withdraw_on_trap: self.withdraw_on_trap.unwrap_or(defaults.withdraw_on_trap),
        }
    }
}

impl PublisherConfig {
    /// Every path in it.
    pub(super) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let secrets = self.secrets.values_mut().flat_map(|secret| &mut secret.file);
        self.file.iter_mut().chain(&mut self.cache).chain(&mut self.tls.ca_file).chain(secrets)
    }

    /// Reads the secrets: they are not read before this.
    ///
    /// # Errors
    ///
    /// Names the secret that is missing or cannot be used, but never its value.
    pub fn secrets(&self) -> Result<Vec<HeaderSecret>> {
        self.secrets.iter().map(|(name, secret)| secret.read(name)).collect()
    }

    /// Reads the certificate authorities that the publisher trusts.
    ///
    /// # Errors
    ///
    /// Names the file that cannot be read, or contains no certificate.
    pub fn authorities(&self) -> Result<Authorities> {
        self.tls.authorities()
    }

    /// How the relay calls it.
    ///
    /// # Errors
    ///
    /// Names the key that has no effect without a rate.
    pub fn options(&self) -> Result<PublisherOptions> {
        let without_rate = [("burst", self.burst.is_some()), ("rate_by", self.rate_by != RateBy::default())];
        if let Some((key, _)) = without_rate.iter().find(|(_, is_set)| *is_set && self.rate.is_none()) {
            bail!("it has `{key}`, but no `rate`: write for example rate = \"100/s\", or leave `{key}` out");
        }
        let defaults = PublisherOptions::default();
        Ok(PublisherOptions {
            concurrency: self.concurrency,
            rate: self.rate.map(|RateConfig(rate)| RateLimit { rate, burst: self.burst, by: self.rate_by }),
            batch_max: self.batch_max,
            batch_bytes: self.batch_bytes.unwrap_or(defaults.batch_bytes),
            batch_wait: self.batch_wait.map_or(defaults.batch_wait, |wait| wait.0),
        })
    }

    /// The settings for the component, without its secrets and certificate authorities, which are read from files.
    pub fn settings(&self) -> Settings {
        let recycle_after = self.recycle_after.map(|recycle_after| Isolation::Reuse { recycle_after });
        Settings {
            limits: self.limits.limits(),
            grants: Grants {
                allow_http: self.allow_http.clone(),
                allow_tcp: self.allow_tcp.clone(),
                allow_private: self.allow_private,
                env: self.env.clone(),
                config: self.config.clone(),
                secrets: Vec::new(),
            },
            isolation: match self.isolation {
                IsolationConfig::Reuse => recycle_after.unwrap_or_default(),
                IsolationConfig::PerEvent => Isolation::PerEvent,
            },
            cache: self.cache.clone(),
            compiler: compiler(),
            ..Settings::default()
        }
    }
}

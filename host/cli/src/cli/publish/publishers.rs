//! The publishers that a relay is to use, as the command line and the settings name them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use outbox_host::publisher::component::{ComponentPublisher, Settings};
use outbox_host::{
    CanaryRules, OutboxStorageStrategy, Publisher, PublisherOptions, Publishers, Route, SqliteOutbox,
    VersionedPublisher, WatchedPublisher,
};

use crate::config::{Config, PublisherConfig};

/// Publishers, ready to be called.
pub struct Chosen {
    publishers: Vec<(String, Box<dyn Publisher>)>,
    /// Without routes, there is one publisher.
    routes: Vec<Route>,
    options: Vec<(String, PublisherOptions)>,
}

/// Where a publisher comes from.
pub enum Source {
    /// A file, as it is at the start.
    File(PathBuf),
    /// A file, as it is at any time.
    Watched(PathBuf),
    /// The outbox, which has its versions.
    Deployed(String),
}

impl Chosen {
    /// Loads the publishers. `named` is the command line's choice. It overrides the file, and the file overrides what
    /// is deployed.
    pub fn load(
        named: Option<Source>,
        config: &Config,
        outbox: &SqliteOutbox,
        settings: impl Fn(&PublisherConfig) -> Result<Settings>,
    ) -> Result<Self> {
        let load = |source: &Source, config: &PublisherConfig| source.load(settings(config)?, config.canary.rules());
        if config.route.is_empty() {
            ensure!(
                config.publishers.is_empty(),
                "there are [publishers.NAME], but no [[route]] that leads to them: for a single publisher, put its \
                 settings into [publisher]"
            );
            let source = match named {
                Some(source) => source,
                None => Source::of(&config.publisher, outbox)?,
            };
            return Ok(Self {
                publishers: vec![(String::new(), load(&source, &config.publisher)?)],
                routes: Vec::new(),
                options: vec![(String::new(), config.publisher.options().context("[publisher]")?)],
            });
        }
        ensure!(named.is_none(), "with [[route]], name publishers in the file, not with --publisher or --watch");
        ensure!(
            config.publisher == PublisherConfig::default(),
            "with [[route]], put the settings and grants of each publisher into [publishers.NAME]: [publisher], and \
             grants on the command line, are not allowed"
        );
        let routes: Vec<Route> = config.route.iter().map(|route| route.route().clone()).collect();
        let mut names: Vec<&String> = routes.iter().flat_map(|route| &route.publishers).collect();
        names.sort();
        names.dedup();
        if let Some(unused) = config.publishers.keys().find(|name| !names.contains(name)) {
            bail!("no [[route]] leads to [publishers.{unused}]");
        }
        let (mut publishers, mut options) = (Vec::new(), Vec::new());
        for name in names {
            let config = config.publishers.get(name).cloned().unwrap_or_default();
            let own = config.options().with_context(|| format!("the publisher {name}"))?;
            options.push((name.clone(), own));
            let source = Source::configured(&config)?.unwrap_or_else(|| Source::Deployed(name.clone()));
            let publisher = load(&source, &config).with_context(|| format!("the publisher {name}"))?;
            publishers.push((name.clone(), publisher));
        }
        Ok(Self { publishers, routes, options })
    }

    pub fn publishers(&self) -> Result<Publishers<'_>> {
        let publishers = match self.publishers.as_slice() {
            [(_, only)] if self.routes.is_empty() => Publishers::one(&**only),
            several => {
                let several = several.iter().map(|(name, publisher)| (name.as_str(), &**publisher));
                Publishers::routed(several, self.routes.clone())?
            }
        };
        let each = self.options.iter().cloned();
        Ok(each.fold(publishers, |publishers, (name, options)| publishers.with_options(&name, options)))
    }
}

impl Source {
    /// The source that `--publisher` means: a path contains a dot or a slash, and a name contains neither.
    pub fn named(publisher: String) -> Self {
        let is_file = publisher.contains(['.', '/']) || Path::new(&publisher).exists();
        if is_file { Self::File(publisher.into()) } else { Self::Deployed(publisher) }
    }

    fn configured(config: &PublisherConfig) -> Result<Option<Self>> {
        match (&config.file, &config.name) {
            (Some(_), Some(_)) => bail!("a publisher has both `file` and `name`: leave one of them out"),
            (Some(file), None) => Ok(Some(Self::File(file.clone()))),
            (None, Some(name)) => Ok(Some(Self::Deployed(name.clone()))),
            (None, None) => Ok(None),
        }
    }

    /// The only publisher: the one in the settings, or else the one that is deployed.
    fn of(config: &PublisherConfig, outbox: &SqliteOutbox) -> Result<Self> {
        if let Some(source) = Self::configured(config)? {
            return Ok(source);
        }
        let mut names: Vec<String> =
            outbox.deployments().versions(None)?.into_iter().map(|version| version.publisher).collect();
        names.dedup();
        match names.as_slice() {
            [] => bail!(
                "no publisher: name a file with --publisher FILE or `file` in [publisher], or deploy one with \
                 `outbox publisher deploy NAME FILE`"
            ),
            [name] => Ok(Self::Deployed(name.clone())),
            names => bail!(
                "there are several publishers ({}): say which with --publisher NAME, or write a [[route]] to each",
                names.join(", ")
            ),
        }
    }

    fn load(&self, settings: Settings, rules: CanaryRules) -> Result<Box<dyn Publisher>> {
        Ok(match self {
            Self::File(file) => {
                let publisher = ComponentPublisher::load(file, settings)?;
                tracing::debug!(publisher = publisher.name(), digest = &**publisher.digest(), "loaded");
                Box::new(publisher)
            }
            Self::Watched(file) => Box::new(WatchedPublisher::load(file, settings)?),
            Self::Deployed(name) => Box::new(VersionedPublisher::new(name, settings, rules)),
        })
    }
}

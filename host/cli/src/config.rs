//! `outbox.toml`: what may be set, and how it is read. Unknown keys are refused.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Span, SpanRelativeTo};
use outbox_host::outbox::Retention;
use outbox_host::publisher::component::{
    Authorities, Compiler, Grants, HeaderSecret, HttpGrant, Isolation, Settings, TcpGrant,
};
use outbox_host::{Backoff, CanaryRules, OnDeadLetter, Ordering, Policy, RelayOptions, files};
use serde::{Deserialize, Deserializer, de};

mod limits;
mod routes;
mod secrets;
mod tls;

pub use self::limits::LimitsConfig;
use self::routes::RouteConfig;
use self::secrets::SecretConfig;
use self::tls::TlsConfig;

/// The most bytes of the file: far more than any settings need.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The whole file. Everything in it is optional.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The database; relative to the file's folder.
    pub db: Option<PathBuf>,
    #[serde(default)]
    pub publisher: PublisherConfig,
    /// Several publishers, each with a name.
    #[serde(default)]
    pub publishers: BTreeMap<String, PublisherConfig>,
    #[serde(default)]
    pub route: Vec<RouteConfig>,
    #[serde(default)]
    pub relay: RelayConfig,
    #[serde(default)]
    pub retention: RetentionConfig,
}

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

/// A fraction from 0 to 1, written as `"5%"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentage(pub f64);

impl FromStr for Percentage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let share = percent.filter(|percent| (0.0..=100.0).contains(percent)).map(|percent| percent / 100.0);
        share.map(Self).ok_or_else(|| format!("`{text}` is no percentage: write for example \"5%\""))
    }
}

impl<'de> Deserialize<'de> for Percentage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// `[relay]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelayConfig {
    pub ordering: Ordering,
    pub on_dead_letter: OnDeadLetter,
    pub concurrency: Option<usize>,
    pub shutdown_grace: Option<Time>,
    pub max_attempts: Option<u32>,
    pub max_host_deaths: Option<u32>,
    pub backoff_initial: Option<Time>,
    pub backoff_max: Option<Time>,
    pub pause_initial: Option<Time>,
    pub pause_max: Option<Time>,
    pub retry_after_max: Option<Time>,
}

/// `[retention]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    pub dead_letters: Option<Time>,
    pub attempts: Option<Time>,
    pub audit: Option<Time>,
}

/// A length of time: `"500ms"`, `"1m 30s"`, `"30d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("`{text}` is no duration: write for example \"500ms\", \"1m 30s\" or \"30d\"");
        let signed = text.parse::<SignedDuration>().or_else(|_| {
            let span: Span = text.parse()?;
            span.to_duration(SpanRelativeTo::days_are_24_hours())
        });
        Duration::try_from(signed.map_err(|_| invalid())?).map(Self).map_err(|_| invalid())
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A list of texts, each of which is parsed.
fn parsed<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(de::Error::custom)).collect()
}

impl Config {
    /// Reads a file; paths in it are made relative to its folder.
    ///
    /// # Errors
    ///
    /// Names the file and, for what it does not understand, the line and column.
    pub fn read(path: &Path) -> Result<Self> {
        let text = files::read_text(path, FILE_BYTES_MAX).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config: Self = toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let publishers = config.publishers.values_mut().chain([&mut config.publisher]);
        let files = publishers.flat_map(PublisherConfig::files).chain(&mut config.db);
        files.for_each(|file| *file = folder.join(&*file));
        Ok(config)
    }
}

impl PublisherConfig {
    /// Every path in it.
    fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
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

/// The hidden command with which this program starts itself to compile a component.
pub const COMPILE: &str = "compile-component";

/// Set to `in-process` to compile within this process, for measurements that cannot include another process.
const COMPILE_VARIABLE: &str = "OUTBOX_COMPILE";

/// This program compiles publishers, in a process of its own.
pub fn compiler() -> Compiler {
    if std::env::var_os(COMPILE_VARIABLE).is_some_and(|how| how == "in-process") {
        return Compiler::InThisProcess;
    }
    Compiler::Process { program: "/proc/self/exe".into(), arguments: vec![COMPILE.into()] }
}

impl Config {
    /// The settings of the publisher with this name in the outbox.
    pub fn of_publisher(&self, name: &str) -> &PublisherConfig {
        self.publishers.get(name).unwrap_or(&self.publisher)
    }

    /// How the relay works.
    pub fn options(&self) -> RelayOptions {
        let (relay, retention) = (&self.relay, &self.retention);
        let (defaults, policy) = (RelayOptions::default(), Policy::default());
        let or = |time: Option<Time>, default: Duration| time.map_or(default, |time| time.0);
        let backoff = |initial, max, default: Backoff| Backoff {
            initial: or(initial, default.initial),
            max: or(max, default.max),
        };
        RelayOptions {
            policy: Policy {
                max_attempts: relay.max_attempts.unwrap_or(policy.max_attempts),
                max_host_deaths: relay.max_host_deaths.unwrap_or(policy.max_host_deaths),
                backoff: backoff(relay.backoff_initial, relay.backoff_max, policy.backoff),
                pause: backoff(relay.pause_initial, relay.pause_max, policy.pause),
                retry_after_max: or(relay.retry_after_max, policy.retry_after_max),
            },
            ordering: relay.ordering,
            on_dead_letter: relay.on_dead_letter,
            concurrency: relay.concurrency.unwrap_or(defaults.concurrency),
            shutdown_grace: or(relay.shutdown_grace, defaults.shutdown_grace),
            retention: Retention {
                dead_letters: retention.dead_letters.map(|time| time.0),
                attempts: retention.attempts.map(|time| time.0),
                audit: retention.audit.map(|time| time.0),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use outbox_host::publisher::component::Limits;
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_may_be_left_out() {
        let config = parse("").unwrap();
        assert_eq!(config.options(), RelayOptions::default());
        assert_eq!(config.publisher.settings().limits, Limits::default());
    }

    #[test]
    fn what_is_set_is_used() {
        let config = parse(
            r#"
            db = "app.db"
            [publisher]
            file = "webhook.wasm"
            allow_http = ["https://hooks.example.com"]
            env = { WEBHOOK_URL = "https://hooks.example.com/orders" }
            isolation = "per-event"
            canary = { events = 7, margin = "2.5%", withdraw_on_trap = true }
            limits = { call_time = "1m 30s", memory_mib = 7, http_requests = 2 }
            [relay]
            ordering = "none"
            on_dead_letter = "park"
            max_attempts = 3
            backoff_initial = "250ms"
            [retention]
            dead_letters = "30d"
            "#,
        )
        .unwrap();
        let settings = config.publisher.settings();
        let expected =
            Limits { call_time: Duration::from_secs(90), memory_bytes: 7 << 20, http_requests: 2, ..Limits::default() };
        assert_eq!(settings.limits, expected);
        assert_eq!(settings.isolation, Isolation::PerEvent);
        assert_eq!(settings.grants.allow_http.len(), 1);
        let rules = CanaryRules { events: 7, margin: 0.025, withdraw_on_trap: true };
        assert_eq!(config.publisher.canary.rules(), rules);
        let options = config.options();
        assert_eq!((options.ordering, options.on_dead_letter), (Ordering::None, OnDeadLetter::Park));
        assert_eq!((options.policy.max_attempts, options.policy.backoff.initial), (3, Duration::from_millis(250)));
        assert_eq!(options.retention.dead_letters, Some(Duration::from_secs(30 * 24 * 3_600)));
    }

    #[test]
    fn routes_lead_to_one_publisher_or_to_several() {
        let config = parse(
            r#"
            [[route]]
            match = { name = "order.*", category = "order", tenant = "acme" }
            publishers = ["webhook", "audit"]
            [[route]]
            publisher = "audit"
            [publishers.webhook]
            file = "webhook.wasm"
            "#,
        )
        .unwrap();
        let routes: Vec<_> = config.route.iter().map(RouteConfig::route).collect();
        assert_eq!(routes[0].publishers, ["webhook", "audit"]);
        assert!(routes[0].name.as_ref().unwrap().matches("order.placed"));
        assert_eq!(*routes[1], outbox_host::Route::to(["audit"]));
        assert_eq!(config.publishers["webhook"].file, Some("webhook.wasm".into()));
        for wrong in ["", "publisher = \"a\"\npublishers = [\"b\"]", "publishers = []"] {
            let error = parse(&format!("[[route]]\n{wrong}")).unwrap_err();
            assert!(error.contains("a route has either `publisher"), "{error}");
        }
        assert!(
            parse("[[route]]\nmatch = { name = \"\" }\npublisher = \"a\"").unwrap_err().contains("pattern is empty")
        );
        assert!(parse("[[route]]\nmatch = { nmae = \"a\" }\npublisher = \"a\"").unwrap_err().contains("nmae"));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_place() {
        let error = parse("[relay]\nmax_attemps = 3\n").unwrap_err();
        assert!(error.contains("line 2, column 1") && error.contains("max_attemps") && error.contains('^'), "{error}");
        let error = parse("[publisher.limits]\ncall_time = \"soon\"\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("`soon` is no duration"), "{error}");
        let error = parse("[publisher]\nallow_http = [\"example.com\"]\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("cannot be granted"), "{error}");
        let error = parse("[publisher]\nallow_tcp = [\"db.example.com\"]\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("it has no port"), "{error}");
        assert!(parse("[relay]\nshutdown_grace = \"-1s\"\n").unwrap_err().contains("is no duration"));
        assert!(parse("[relay]\nordering = \"backwards\"\n").is_err());
    }
    /// Lines that somebody may write: known keys with values of any kind, and noise.
    fn line() -> impl Strategy<Value = String> {
        const KEYS: &[&str] = &[
            "db",
            "file",
            "allow_http",
            "allow_private",
            "env",
            "config",
            "call_time",
            "memory_mib",
            "limits.lines",
            "isolation",
            "recycle_after",
            "ordering",
            "concurrency",
            "max_attempts",
            "backoff_max",
            "dead_letters",
        ];
        const VALUES: &[&str] = &[
            "true",
            "-1",
            "18446744073709551615",
            "9223372036854775807",
            "0",
            "1e400",
            "\"99999999999999h\"",
            "\"9223372036854775807s\"",
            "\"100y\"",
            "\"1s\"",
            "[\"https://*.a.example\"]",
            "{ a = \"b\" }",
            "\"per-event\"",
            "[[[]]]",
        ];
        let set = (prop::sample::select(KEYS), prop::sample::select(VALUES)).prop_map(|(k, v)| format!("{k} = {v}"));
        let table = prop::sample::select(&["[publisher]", "[publisher.limits]", "[relay]", "[retention]"][..]);
        prop_oneof![4 => set, 2 => table.prop_map(str::to_owned), 1 => any::<String>()]
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(lines in prop::collection::vec(line(), 0..8)) {
            if let Ok(config) = parse(&lines.join("\n")) {
                config.options();
                config.publisher.settings();
            }
        }

        #[test]
        fn no_single_setting_breaks_it(
            table in prop::sample::select(&["publisher", "publisher.limits", "relay", "retention"][..]),
            line in line(),
        ) {
            if let Ok(config) = parse(&format!("[{table}]\n{line}")) {
                config.options();
                config.publisher.settings();
            }
        }
    }
}

//! `outbox.toml`: what may be set, and how it is read. Unknown keys are refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use outbox_host::{RelayOptions, files};
use serde::Deserialize;

use self::relay::{RelayConfig, RetentionConfig};
use self::routes::RouteConfig;

mod compiler;
mod limits;
mod publisher;
mod relay;
mod routes;
mod secrets;
mod tls;
mod values;

pub use outbox_host::publisher::component::{LimitsConfig, Mib, Time};

pub use self::compiler::{COMPILE, compiler};
pub use self::limits::limit;
pub use self::publisher::{IsolationConfig, PublisherConfig};

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

    /// The settings of the publisher with this name in the outbox.
    pub fn of_publisher(&self, name: &str) -> &PublisherConfig {
        self.publishers.get(name).unwrap_or(&self.publisher)
    }

    /// How the relay works.
    pub fn options(&self) -> RelayOptions {
        RelayOptions { retention: self.retention.retention(), ..self.relay.options() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outbox_host::publisher::component::{Isolation, Limits};
    use outbox_host::{BreakerRules, CanaryRules, FairBy, OnDeadLetter, Ordering};
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
            fair_by = "tenant"
            tenant_weights = { acme = 4 }
            max_attempts = 3
            backoff_initial = "250ms"
            breaker_failures = 3
            breaker_patience = "1h"
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
        assert_eq!((options.fair_by, options.tenant_weights.get("acme")), (FairBy::Tenant, Some(&4)));
        assert_eq!((options.policy.max_attempts, options.policy.backoff.initial), (3, Duration::from_millis(250)));
        let patience = Duration::from_secs(3_600);
        assert_eq!(options.policy.breaker, BreakerRules { failures: 3, calls: 10, patience });
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
        let drops =
            parse("[[route]]\nmatch = { name = \"debug.*\" }\ndrop = true\n[[route]]\npublisher = \"a\"").unwrap();
        assert!(drops.route[0].route().drop && !drops.route[1].route().drop);
        for both in ["publisher = \"a\"", "publishers = [\"a\"]", "publishers = []"] {
            let error = parse(&format!("[[route]]\ndrop = true\n{both}")).unwrap_err();
            assert!(error.contains("leads to no publisher: leave one of both out"), "{error}");
        }
        assert!(parse("[[route]]\ndrop = false").unwrap_err().contains("a route has either `publisher"));
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
        assert!(parse("[relay]\nfair_by = \"nobody\"\n").is_err_and(|error| error.contains("expected `tenant`")));
        for weight in [0, -1, 1_001] {
            let error = parse(&format!("[relay]\ntenant_weights = {{ acme = {weight} }}\n")).unwrap_err();
            assert!(error.contains("from 1 to 1000"), "{error}");
        }
        assert_eq!(parse("[relay]\nordering = \"total\"\n").unwrap().options().ordering, Ordering::Total);
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
            "batch_max",
            "batch_wait",
            "max_attempts",
            "backoff_max",
            "breaker_calls",
            "breaker_patience",
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

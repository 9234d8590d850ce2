//! `[publisher.limits]`: what a publisher may use up.

use outbox_host::publisher::component::Limits;
use serde::Deserialize;

use super::Time;

const MIB: usize = 1024 * 1024;

/// One key for each field of [`Limits`]; the default of each is the library's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    pub call_time: Option<Time>,
    pub compile_time: Option<Time>,
    pub memory_mib: Option<usize>,
    pub module_mib: Option<usize>,
    pub table_elements: Option<usize>,
    pub instances: Option<usize>,
    pub hostcall_bytes: Option<usize>,
    pub resources: Option<usize>,
    pub reason_chars: Option<usize>,
    pub line_bytes: Option<usize>,
    pub lines: Option<usize>,
    pub log_bytes_per_second: Option<u64>,
    pub tcp_sockets: Option<usize>,
    pub http_requests: Option<u32>,
    pub http_response_bytes: Option<u64>,
}

impl LimitsConfig {
    /// The limits with what is not set at its default.
    pub fn limits(&self) -> Limits {
        let defaults = Limits::default();
        let mib = |mib: Option<usize>, default| mib.map_or(default, |mib| mib.saturating_mul(MIB));
        Limits {
            call_time: self.call_time.map_or(defaults.call_time, |time| time.0),
            compile_time: self.compile_time.map_or(defaults.compile_time, |time| time.0),
            memory_bytes: mib(self.memory_mib, defaults.memory_bytes),
            module_bytes: mib(self.module_mib, defaults.module_bytes),
            table_elements: self.table_elements.unwrap_or(defaults.table_elements),
            instances: self.instances.unwrap_or(defaults.instances),
            hostcall_bytes: self.hostcall_bytes.unwrap_or(defaults.hostcall_bytes),
            resources: self.resources.unwrap_or(defaults.resources),
            reason_chars: self.reason_chars.unwrap_or(defaults.reason_chars),
            line_bytes: self.line_bytes.unwrap_or(defaults.line_bytes),
            lines: self.lines.unwrap_or(defaults.lines),
            log_bytes_per_second: self.log_bytes_per_second.unwrap_or(defaults.log_bytes_per_second),
            tcp_sockets: self.tcp_sockets.unwrap_or(defaults.tcp_sockets),
            http_requests: self.http_requests.unwrap_or(defaults.http_requests),
            http_response_bytes: self.http_response_bytes.unwrap_or(defaults.http_response_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The block in which a document shows `[publisher.limits]`, each key with its default.
    fn shown(document: &str) -> LimitsConfig {
        let block = document.split("[publisher.limits]").nth(1).unwrap().split("\n[").next().unwrap();
        toml::from_str(block.split("```").next().unwrap()).unwrap()
    }

    /// How many keys there are: a new one is to be documented too.
    const KEYS: usize = 15;

    #[test]
    fn the_documents_show_every_key_with_its_default() {
        for document in [include_str!("../../../docs/configuration.md"), include_str!("../../../docs/security.md")] {
            let shown = shown(document);
            assert_eq!(shown.limits(), Limits::default());
            assert_eq!(format!("{shown:?}").matches(": Some(").count(), KEYS, "{shown:?}");
        }
        assert_eq!(format!("{:?}", LimitsConfig::default()).matches(": None").count(), KEYS);
    }
}

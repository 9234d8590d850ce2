//! `[publisher.limits]`: what a publisher may use up.

use std::str::FromStr;

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
    pub compile_mib: Option<usize>,
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

/// A limit on the command line, written as in the file: `tcp_sockets=4`.
impl FromStr for LimitsConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
        // First as it is written, such as a number; then as a text, whose quotes may be left out here.
        let quoted = format!("{} = {:?}", key.trim(), value.trim());
        toml::from_str(text).or_else(|_| toml::from_str(&quoted)).map_err(|error| error.message().to_owned())
    }
}

impl LimitsConfig {
    /// Each limit that is set here, or else the one that is set there.
    pub fn or(self, there: &Self) -> Self {
        Self {
            call_time: self.call_time.or(there.call_time),
            compile_time: self.compile_time.or(there.compile_time),
            compile_mib: self.compile_mib.or(there.compile_mib),
            memory_mib: self.memory_mib.or(there.memory_mib),
            module_mib: self.module_mib.or(there.module_mib),
            table_elements: self.table_elements.or(there.table_elements),
            instances: self.instances.or(there.instances),
            hostcall_bytes: self.hostcall_bytes.or(there.hostcall_bytes),
            resources: self.resources.or(there.resources),
            reason_chars: self.reason_chars.or(there.reason_chars),
            line_bytes: self.line_bytes.or(there.line_bytes),
            lines: self.lines.or(there.lines),
            log_bytes_per_second: self.log_bytes_per_second.or(there.log_bytes_per_second),
            tcp_sockets: self.tcp_sockets.or(there.tcp_sockets),
            http_requests: self.http_requests.or(there.http_requests),
            http_response_bytes: self.http_response_bytes.or(there.http_response_bytes),
        }
    }

    /// All limits: what is not set has its default.
    pub fn limits(&self) -> Limits {
        let defaults = Limits::default();
        let mib = |mib: Option<usize>, default| mib.map_or(default, |mib| mib.saturating_mul(MIB));
        Limits {
            call_time: self.call_time.map_or(defaults.call_time, |time| time.0),
            compile_time: self.compile_time.map_or(defaults.compile_time, |time| time.0),
            compile_bytes: mib(self.compile_mib, defaults.compile_bytes),
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

    #[test]
    fn a_limit_on_the_command_line_is_written_as_in_the_file() {
        let set: LimitsConfig = "tcp_sockets=4".parse().unwrap();
        assert_eq!(set, LimitsConfig { tcp_sockets: Some(4), ..LimitsConfig::default() });
        for time in ["call_time=5s", "call_time = \"5s\""] {
            assert_eq!(time.parse::<LimitsConfig>().unwrap().limits().call_time.as_secs(), 5);
        }
        let there = LimitsConfig { tcp_sockets: Some(1), lines: Some(2), ..LimitsConfig::default() };
        assert_eq!(set.or(&there), LimitsConfig { tcp_sockets: Some(4), lines: Some(2), ..LimitsConfig::default() });
        assert!("tcp_sokets=4".parse::<LimitsConfig>().unwrap_err().contains("unknown field `tcp_sokets`"));
        assert!("lines=many".parse::<LimitsConfig>().unwrap_err().contains("invalid type"));
        assert!("lines".parse::<LimitsConfig>().is_err());
    }

    /// The number of keys. If you add one, document it too.
    const KEYS: usize = 16;

    #[test]
    fn the_documents_show_every_key_with_its_default() {
        for document in
            [include_str!("../../../../docs/configuration.md"), include_str!("../../../../docs/security.md")]
        {
            let shown = shown(document);
            assert_eq!(shown.limits(), Limits::default());
            assert_eq!(format!("{shown:?}").matches(": Some(").count(), KEYS, "{shown:?}");
        }
        assert_eq!(format!("{:?}", LimitsConfig::default()).matches(": None").count(), KEYS);
    }
}

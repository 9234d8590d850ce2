//! Limits on the command line. They are declared in `outbox_wasm`.

use outbox_host::publisher::component::LimitsConfig;

/// Reads a limit as it is written in the file: `tcp_sockets=4`.
pub fn limit(text: &str) -> Result<LimitsConfig, String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    // First as it is written, such as a number; then as a text, whose quotes may be left out here.
    let quoted = format!("{} = {:?}", key.trim(), value.trim());
    toml::from_str(text).or_else(|_| toml::from_str(&quoted)).map_err(|error| error.message().to_owned())
}

#[cfg(test)]
mod tests {
    use outbox_host::publisher::component::Limits;

    use super::*;

    const CONFIGURATION: &str = include_str!("../../../../docs/configuration.md");
    const SECURITY: &str = include_str!("../../../../docs/security.md");

    #[test]
    fn a_limit_on_the_command_line_is_written_as_in_the_file() {
        let set = limit("tcp_sockets=4").unwrap();
        assert_eq!(set, LimitsConfig { tcp_sockets: Some(4), ..LimitsConfig::default() });
        for time in ["call_time=5s", "call_time = \"5s\""] {
            assert_eq!(limit(time).unwrap().limits().call_time.as_secs(), 5);
        }
        let there = LimitsConfig { tcp_sockets: Some(1), lines: Some(2), ..LimitsConfig::default() };
        assert_eq!(set.or(&there), LimitsConfig { tcp_sockets: Some(4), lines: Some(2), ..LimitsConfig::default() });
        assert!(limit("tcp_sokets=4").unwrap_err().contains("unknown field `tcp_sokets`"));
        assert!(limit("lines=many").unwrap_err().contains("invalid type"));
        assert!(limit("memory_mib=many").unwrap_err().contains("invalid type"));
        assert!(limit("lines").is_err());
    }

    #[test]
    fn what_is_not_set_has_its_default() {
        assert_eq!(LimitsConfig::defaults().limits(), Limits::default());
        assert_eq!(LimitsConfig::default().limits(), Limits::default());
        let set: LimitsConfig = toml::from_str("memory_mib = 7").unwrap();
        assert_eq!(set.limits(), Limits { memory_bytes: 7 * 1024 * 1024, ..Limits::default() });
    }

    /// The block in which a document shows `[publisher.limits]`.
    fn block(document: &str) -> &str {
        let block = document.split("[publisher.limits]").nth(1).unwrap().split("\n[").next().unwrap();
        block.split("```").next().unwrap()
    }

    /// If you add a limit, document it too.
    #[test]
    fn the_documents_show_every_limit_with_its_default() {
        for document in [CONFIGURATION, SECURITY] {
            let shown: LimitsConfig = toml::from_str(block(document)).unwrap();
            assert_eq!(shown, LimitsConfig::defaults());
        }
    }

    #[test]
    fn the_document_names_a_test_for_every_limit() {
        for key in block(CONFIGURATION).lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key) {
            assert!(SECURITY.lines().any(|line| line.starts_with("| ") && line.contains(&format!("`{key}`"))), "{key}");
        }
    }
}

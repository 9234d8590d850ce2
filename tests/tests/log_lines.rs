//! Nobody but the program writes a line of its log, and nobody steers the terminal that it is read on: neither a publisher
//! without any grant, nor a row, nor a file's name. And every call that logs or prints goes through the one function that
//! sees to it.

use std::fs;
use std::path::{Path, PathBuf};

use outbox_host::text::steers;
use outbox_tests::waiting::until;
use outbox_tests::workplace::{Signal, Workplace};
use serde_json::{Value, json};

/// The form of a forged line.
const FORGED: &str = "2026-01-31T00:00:00Z ERROR outbox: forged";

/// Texts that would begin a line, hide one, or turn the terminal's letters around.
fn hostile_texts() -> Vec<String> {
    let breaks = ["\n", "\r", "\r\n", "\u{b}", "\u{c}", "\u{85}", "\u{2028}", "\u{2029}"];
    let steering = [
        "\u{1b}[2K\u{1b}[1A",
        "\u{9b}2J",
        "\u{8}\u{8}",
        "\u{202e}",
        "\u{2066}",
        "\u{200f}",
        "\u{61c}",
        "\u{feff}",
        "\u{200b}",
        "\u{e0041}",
    ];
    breaks.into_iter().chain(steering).map(|it| format!("a{it}{FORGED}")).collect()
}

#[track_caller]
fn assert_harmless(text: &str) {
    assert_eq!(text.lines().find(|line| line.starts_with(FORGED)), None, "{text}");
    let steering = text.chars().find(|c| steers(*c));
    assert_eq!(steering, None, "{text:?}");
    // Nothing but the program's own lines begins at a line's first column.
    let carriage = text.contains('\r') || text.contains('\u{2028}');
    assert!(!carriage, "{text:?}");
}

fn append(place: &Workplace, name: &str, stream: &str, data: &Value) {
    let event = json!({"name": name, "stream_id": stream, "data": data});
    place.append(&format!("{event}\n"));
}

#[test]
fn a_publisher_without_a_grant_forges_nothing() {
    let place = Workplace::new();
    let texts = hostile_texts();
    for (number, text) in texts.iter().enumerate() {
        // A name to look up, a destination, and the guest's own words.
        append(&place, "looked.up", &format!("look-up-{number}"), &json!(format!("look-up {text}")));
        append(&place, "connected", &format!("connect-{number}"), &json!(format!("{text}:80")));
        append(&place, text, &format!("name-{number}"), &json!("no port"));
    }
    let mut relay = place.start_logged("relay --db app.db --publisher guests/tcp.wasm --max-attempts 1");
    until("all are dead letters", || place.status()["dead_letters"] == texts.len() * 3);
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
    let log = relay.log();
    assert_harmless(&log);
    // No name of a host has such letters in it: nobody looks one up, and nobody is told how to allow it.
    assert!(!log.contains("allow_tcp"), "{log}");
    for command in
        ["dead list --db app.db", "status --db app.db", "dead show 1 --db app.db", "dead list --db app.db --json"]
    {
        assert_harmless(&place.outbox(command).ok());
    }
    // A program that reads it gets the text as it is.
    let names: Vec<Value> = place.outbox("dead list --db app.db --json").json().as_array().unwrap().to_vec();
    for text in &texts {
        assert!(names.iter().any(|dead| dead["name"] == *text), "{text:?}");
    }
}

#[test]
fn a_log_of_json_has_an_object_a_line_with_the_texts_as_they_are() {
    let place = Workplace::new();
    for text in hostile_texts() {
        append(&place, "n", "s", &json!({"do": "reject", "reason": format!("said {text}")}));
    }
    let ran = place.outbox("run --db app.db --publisher guests/scripted.wasm --log-json");
    assert_harmless(&ran.stderr);
    for line in ran.stderr.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    assert_harmless(&ran.ok());
}

#[test]
fn names_of_files_and_arguments_do_not_steer() {
    let place = Workplace::new();
    let odd = format!("odd{}.wasm", "\u{1b}[2J\u{202e}\u{200b}");
    for command in [
        format!("publisher inspect {odd}"),
        format!("run --db app.db --publisher ./{odd}"),
        format!("append {odd} --db app.db"),
        format!("status --config {odd}"),
        odd.clone(),
        format!("status --{odd}"),
        format!("publisher deploy {odd} {odd} --db app.db"),
        format!("status --db {odd}"),
        format!("publisher versions {odd} --db app.db"),
    ] {
        let ran = place.outbox(&command);
        assert_harmless(&format!("{}{}", ran.stdout, ran.stderr));
    }
    fs::copy(outbox_tests::guest("noop"), place.path(&odd)).unwrap();
    assert_harmless(&place.outbox(&format!("publisher inspect {odd}")).ok());
    place.write(&odd, "no component");
    let refused = place.outbox(&format!("publisher inspect {odd}"));
    assert_harmless(&refused.stderr);
    place.write("outbox.toml", "db = \"\u{1b}[2J\u{202e}\n");
    assert_harmless(&place.outbox("status --config outbox.toml").stderr);
}

// --- every call ---------------------------------------------------------------------------------------------------------

/// The sources of the program and its libraries, without their tests.
fn sources() -> Vec<(PathBuf, String)> {
    let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host");
    let crates = fs::read_dir(host).unwrap().map(|entry| entry.unwrap().path().join("src"));
    let (mut folders, mut sources) = (crates.filter(|folder| folder.is_dir()).collect::<Vec<_>>(), Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") && !path.to_string_lossy().ends_with("_tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
                sources.push((path, code.join("\n")));
            }
        }
    }
    sources
}

/// The text between the first parenthesis of `text` and the one that closes it.
fn within(text: &str) -> &str {
    let (mut depth, mut in_text, mut escaped) = (0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            '(' | '[' | '{' if !in_text => depth += 1,
            ')' | ']' | '}' if !in_text => {
                depth -= 1;
                if depth == 0 {
                    return &text[1..at];
                }
            }
            _ => {}
        }
    }
    panic!("a parenthesis is not closed: {text}")
}

/// Parts that commas part, outside of parentheses and texts.
fn arguments(text: &str) -> Vec<String> {
    let (mut depth, mut in_text, mut escaped, mut parts) = (0, false, false, vec![String::new()]);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            '(' | '[' | '{' if !in_text => depth += 1,
            ')' | ']' | '}' if !in_text => depth -= 1,
            ',' if !in_text && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// What is wrong with a call of `tracing`; nothing where all that it puts into its message is shown.
fn fault(call: &str, source: &str) -> Option<String> {
    let arguments = arguments(call);
    let message = arguments.iter().position(|argument| argument.starts_with('"'))?;
    let is_shown = |name: &str| source.contains(&format!("let {name} = shown("));
    if let Some(field) = arguments[..message].iter().find(|field| field.contains('%') || field.contains("display(")) {
        return (!field.contains("shown(")).then(|| format!("the field `{field}`"));
    }
    let text = arguments[message].replace("{{", "").replace("}}", "");
    let holes = text.split('{').skip(1).map(|hole| hole.split(['}', ':']).next().unwrap().to_owned());
    let mut given = arguments[message + 1..].iter();
    for hole in holes {
        let harmless = match hole.as_str() {
            "" => given.next().is_some_and(|given| given.starts_with("shown(")),
            name => is_shown(name),
        };
        if !harmless {
            return Some(format!("`{{{hole}}}` in {text}"));
        }
    }
    None
}

#[test]
fn every_call_that_logs_shows_what_it_logs() {
    let mut faults = Vec::new();
    let mut calls = 0;
    for (path, source) in sources() {
        for level in ["error", "warn", "info", "debug", "trace", "event"] {
            for (at, name) in source.match_indices(&format!("{level}!(")) {
                let call = within(&source[at + name.len() - 1..]);
                calls += 1;
                faults.extend(fault(call, &source).map(|fault| format!("{}: {fault}", path.display())));
            }
        }
    }
    assert!(calls > 30, "only {calls} calls were found");
    assert!(faults.is_empty(), "write `{{}}` with `shown(…)` from `outbox_engine::text`:\n{}", faults.join("\n"));
}

#[test]
fn nothing_but_the_terminal_prints() {
    // The process that compiles, and those that measure, speak to the one that started it.
    let may = ["cli/terminal.rs", "wasm/src/compiler_process.rs", "bench/writer.rs", "bench/wake.rs"];
    for (path, source) in sources() {
        if may.iter().any(|it| path.ends_with(it)) {
            continue;
        }
        for printing in ["println!(", "eprintln!(", " print!(", "eprint!(", "dbg!(", "io::stdout()", "io::stderr()"] {
            assert!(!source.contains(printing), "{} has `{printing}`: use cli/terminal.rs", path.display());
        }
    }
}

#[test]
fn the_scan_finds_what_it_is_to_find() {
    for (call, is_harmless) in [
        (r#""nothing""#, true),
        (r#""{}: {}", shown(a), shown(&b.c(d))"#, true),
        (r#"target: "x", publisher, a = 3, ?b, "{}", shown(a)"#, true),
        (r#""{}", a"#, false),
        (r#""{a}""#, false),
        (r#""{a:?} {}", shown(b)"#, false),
        (r#"%a, "nothing""#, false),
        (r#"a = %shown(b), "nothing""#, true),
    ] {
        assert_eq!(fault(call, "").is_none(), is_harmless, "{call}");
    }
}

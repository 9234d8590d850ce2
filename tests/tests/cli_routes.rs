//! `[[route]]` in outbox.toml: several publishers, real destinations.

use outbox_tests::sink::Sink;
use outbox_tests::waiting::until;
use outbox_tests::workplace::{Signal, Workplace};
use serde_json::json;

fn lines(names: &[&str]) -> String {
    let line = |(number, name): (usize, &&str)| {
        format!(
            r#"{{"name": "{name}", "stream_id": "s-{number}", "category": "order", "data": {{"order": {number}}}}}"#
        ) + "\n"
    };
    names.iter().enumerate().map(line).collect()
}

fn webhook(name: &str, sink: &Sink) -> String {
    let url = sink.url();
    format!(
        "[publishers.{name}]\nfile = \"guests/rust-webhook.wasm\"\nallow_http = [\"{url}\"]\nenv = {{ WEBHOOK_URL = \"{url}\" }}\n"
    )
}

#[test]
fn entries_go_to_their_destinations_and_an_outage_of_one_is_no_outage_of_the_other() {
    let place = Workplace::new();
    let program = env!("CARGO_BIN_EXE_outbox-sink");
    let orders = Sink::start(&place.path("orders"), program);
    let audit = Sink::start_with(&place.path("audit"), program, &["--status", "503"]);
    let routes = "db = \"app.db\"\n\
        [[route]]\nmatch = { name = \"order.*\", category = \"order\" }\npublishers = [\"orders\", \"audit\"]\n\
        [[route]]\nmatch = { name = \"shop.*\" }\npublisher = \"orders\"\n";
    place.write("outbox.toml", [routes, &webhook("orders", &orders), &webhook("audit", &audit)].concat());
    place.append(&lines(&["shop.opened", "order.placed", "user.left", "shop.closed"]));
    let mut relay = place.start_logged("relay --config outbox.toml");
    until("what can be delivered is", || place.query("SELECT name FROM outbox") == ["order.placed"]);
    until("it is kept who has the rest", || {
        place.query("SELECT delivered_to FROM outbox_waiting") == [r#"["orders"]"#]
    });
    assert_eq!(orders.deliveries().len(), 3);
    let status = place.status();
    assert_eq!(status["relay"]["state"], "paused");
    assert!(status["relay"]["reason"].as_str().unwrap().starts_with("audit: "), "{status}");
    let dead = place.outbox("dead list --db app.db --json").json();
    assert_eq!((dead[0]["name"].as_str(), dead[0]["outcome"].as_str()), (Some("user.left"), Some("unrouted")));
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));

    // The next relay knows who has it.
    let mended = Sink::start(&place.path("mended"), program);
    place.write("outbox.toml", [routes, &webhook("orders", &orders), &webhook("audit", &mended)].concat());
    assert_eq!(place.outbox("run --config outbox.toml --json").json()["published"], 1);
    assert_eq!((orders.deliveries().len(), mended.deliveries().len()), (3, 1));
}

#[test]
fn deployed_publishers_are_routed_by_their_names() {
    let place = Workplace::new();
    place.outbox("publisher deploy quiet guests/noop.wasm --db app.db").ok();
    place.outbox("publisher deploy told guests/scripted.wasm --db app.db").ok();
    place.write(
        "outbox.toml",
        "db = \"app.db\"\n[[route]]\nmatch = { name = \"told.*\" }\npublisher = \"told\"\n[[route]]\npublisher = \"quiet\"\n",
    );
    place.append("{\"name\": \"told.x\", \"stream_id\": \"a\", \"data\": {\"do\": \"retry\", \"reason\": \"busy\"}}\n");
    place.append(&lines(&["order.placed"]));
    let ran = place.outbox("run --config outbox.toml").ok();
    assert!(ran.contains("published       1") && ran.contains("entry 1, attempt 1 by told: retry: busy"), "{ran}");
    let counts = place.query("SELECT publisher, state, delivered, failed FROM outbox_versions ORDER BY publisher");
    assert_eq!(counts, ["quiet|active|1|0", "told|active|0|1"]);
    assert_eq!(place.query("SELECT publisher FROM outbox_attempts"), ["told"]);
}

#[test]
fn a_route_that_drops_is_counted_and_said_once() {
    let place = Workplace::new();
    place.write(
        "outbox.toml",
        "db = \"app.db\"\n[[route]]\nmatch = { name = \"debug.*\" }\ndrop = true\n[[route]]\npublisher = \"quiet\"\n\
         [publishers.quiet]\nfile = \"guests/noop.wasm\"\n",
    );
    place.append(&lines(&["debug.a", "order.placed", "debug.b", "debug.c"]));
    let ran = place.outbox("run --config outbox.toml");
    assert_eq!(ran.stderr.matches("route 1 drops what it matches").count(), 1, "{}", ran.stderr);
    let printed = ran.ok();
    assert!(printed.contains("published       1\ndropped         3\n"), "{printed}");
    assert!(printed.contains("dead letters    0\nremaining       0\n"), "{printed}");
    place.append(&lines(&["debug.a"]));
    let ran = place.outbox("run --config outbox.toml --json").json();
    assert_eq!((&ran["published"], &ran["dropped"]), (&0.into(), &1.into()));

    let mut relay = place.start_logged("relay --config outbox.toml");
    for _ in 0..3 {
        place.append(&lines(&["debug.a", "debug.b"]));
        until("they are dropped", || place.status()["pending"] == 0);
    }
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(), Some(0));
    let log = relay.log();
    assert_eq!(log.matches("route 1 drops what it matches").count(), 1, "{log}");
    assert!(log.contains("dropped=6"), "{log}");
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let place = Workplace::new();
    let refused = |text: &str, options: &str| {
        place.write("outbox.toml", format!("db = \"app.db\"\n{text}"));
        place.outbox(&format!("run --config outbox.toml {options}")).refused()
    };
    let route = "[[route]]\npublisher = \"a\"\n";
    assert!(refused("[publishers.a]\nfile = \"guests/noop.wasm\"\n", "").contains("no [[route]] that leads to them"));
    assert!(refused(&format!("{route}[publisher]\nfile = \"x.wasm\"\n"), "").contains("into [publishers.NAME]"));
    assert!(refused(route, "--allow-http http://127.0.0.1:1").contains("grants on the command line, are not allowed"));
    assert!(refused(route, "--publisher guests/noop.wasm").contains("not with --publisher"));
    assert!(refused(&format!("{route}[publishers.b]\n"), "").contains("no [[route]] leads to [publishers.b]"));
    let both = refused(&format!("{route}drop = true\n"), "");
    assert!(both.contains("line 2") && both.contains("leads to no publisher: leave one of both out"), "{both}");
    let burst = refused(&format!("{route}[publishers.a]\nfile = \"guests/noop.wasm\"\nburst = 3\n"), "");
    assert!(burst.starts_with("the publisher a: it has `burst`, but no `rate`"), "{burst}");
    let missing = refused(&format!("{route}[publishers.a]\nfile = \"none.wasm\"\n"), "");
    assert!(missing.starts_with("the publisher a: cannot read"), "{missing}");
}

#[test]
fn a_rate_limit_is_kept_with_one_publisher_and_with_routes_and_the_status_says_what_waits_for_it() {
    let place = Workplace::new();
    let own = "file = \"guests/noop.wasm\"\nrate = \"2/h\"\nburst = 1\nrate_by = \"tenant\"\nconcurrency = 3\n";
    let [alone, routed] = ["[publisher]\n", "[[route]]\npublisher = \"a\"\n[publishers.a]\n"];
    for (table, name) in [(alone, ""), (routed, "a is ")] {
        place.query("DELETE FROM outbox");
        place.append(&["acme", "acme", "other"].map(|tenant| event_of(tenant) + "\n").concat());
        place.write("outbox.toml", format!("db = \"app.db\"\n{table}{own}"));
        let mut relay = place.start_logged("relay --config outbox.toml");
        until("one of each tenant is published", || place.status()["pending"] == 1);
        let line = format!("rate limit      {name}waiting, next entry ");
        until("the status says it", || place.outbox("status --config outbox.toml").ok().contains(&line));
        relay.signal(Signal::TERM);
        assert_eq!(relay.wait(), Some(0));
    }
}

fn event_of(tenant: &str) -> String {
    json!({"name": "order.paid", "stream_id": "s", "tenant_id": tenant, "data": 1}).to_string()
}

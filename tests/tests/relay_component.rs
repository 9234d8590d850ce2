//! The relay with real components as publishers: what they are called with is what they print. What the relay does with an
//! entry is tested in `relay.rs`, and what a component answers in `component.rs`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use outbox_host::publisher::component::{ComponentPublisher, OutputSink, Settings};
use outbox_host::{
    Backoff, JsonSerde, NewEvent, Outbox, OutboxStorageStrategy, Policy, RelayOptions, Report, StreamId,
};
use outbox_tests::guest;
use outbox_tests::outboxes::{Kept, event};

outbox_tests::for_each_storage! {
    an_empty_outbox_starts_no_instance
    each_event_is_printed_once_with_its_tenant_and_its_streams_name
    a_failing_event_is_called_for_max_attempts_times
    a_time_out_leaves_the_entry_in_place
    a_trap_leaves_the_entry_in_place_with_what_was_said
}

/// Longer than any of these calls takes that are to end, on a busy machine too.
const LONG: Duration = Duration::from_secs(60);

/// A component, and the lines that it printed.
struct Printing {
    publisher: ComponentPublisher,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Printing {
    fn load(name: &str, call_time: Duration) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = lines.clone();
        let output = OutputSink::new(move |line| kept.lock().unwrap().push(line.line.to_owned()));
        let mut settings = Settings { output, ..Settings::default() };
        settings.limits.call_time = call_time;
        Self { publisher: ComponentPublisher::load(&guest(name), settings).unwrap(), lines }
    }

    fn take_lines(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }
}

fn outbox<K: Kept>(kept: &K) -> Outbox<K::Strategy> {
    let policy = Policy { max_attempts: 3, backoff: Backoff::NONE, ..Policy::default() };
    Outbox::new(kept.open(), JsonSerde).with_options(RelayOptions { policy, ..RelayOptions::default() })
}

fn run<K: Kept>(kept: &K, component: &Printing) -> Report {
    outbox(kept).run(&component.publisher, None).unwrap()
}

fn an_empty_outbox_starts_no_instance<K: Kept>(kept: &K) {
    let component = Printing::load("scripted", LONG);
    assert_eq!(run(kept, &component), Report::default());
    assert_eq!(component.publisher.instances_started(), 0);
}

fn each_event_is_printed_once_with_its_tenant_and_its_streams_name<K: Kept>(kept: &K) {
    let of_tenants = ["acme", "globex"].map(|tenant| event("a", "{}").with_tenant(tenant));
    let named = NewEvent::json(StreamId::from_name("order 42"), "order.placed", "{}");
    outbox(kept).append(&[of_tenants.as_slice(), &[named]].concat()).unwrap();
    let component = Printing::load("rust-stdout", LONG);
    assert_eq!((run(kept, &component).published, run(kept, &component).published), (3, 0));
    let lines = component.take_lines();
    assert_eq!(lines.len(), 3, "{lines:?}");
    for shown in
        ["  acme  a  order.placed  {}", "  globex  a  order.placed  {}", "  default  order 42  order.placed  {}"]
    {
        assert_eq!(lines.iter().filter(|line| line.contains(shown)).count(), 1, "{lines:?}");
    }
}

fn a_failing_event_is_called_for_max_attempts_times<K: Kept>(kept: &K) {
    outbox(kept).append(&[event("a", r#"{"do": "retry", "reason": "busy"}"#)]).unwrap();
    let component = Printing::load("scripted", LONG);
    let last = (0..5).map(|_| run(kept, &component)).find(|report| report.dead_lettered > 0);
    assert_eq!(component.take_lines().iter().filter(|line| line.starts_with("published ")).count(), 3);
    let failure = &last.unwrap().failures[0];
    assert_eq!((failure.attempt, failure.outcome, failure.reason.as_str()), (3, "retry", "busy"));
}

fn a_time_out_leaves_the_entry_in_place<K: Kept>(kept: &K) {
    outbox(kept).append(&[event("a", r#"{"do": "spin"}"#), event("b", r#"{"do": "sleep"}"#)]).unwrap();
    let report = run(kept, &Printing::load("scripted", Duration::from_millis(300)));
    assert_eq!((report.to_be_retried, report.outcomes["timed-out"]), (2, 2));
    assert_eq!(kept.open().status().unwrap().pending, 2);
}

fn a_trap_leaves_the_entry_in_place_with_what_was_said<K: Kept>(kept: &K) {
    let trap = event("a", r#"{"do": "trap", "reason": "no luck"}"#);
    let position = outbox(kept).append(&[trap, event("b", "{}")]).unwrap()[0];
    let component = Printing::load("scripted", LONG);
    let report = run(kept, &component);
    assert_eq!((report.published, report.to_be_retried, report.outcomes["trapped"]), (1, 1, 1));
    let strategy = kept.open();
    assert_eq!(strategy.status().unwrap().pending, 1);
    let attempts = strategy.operator().attempts(position).unwrap();
    assert_eq!(attempts[0].digest.as_deref(), Some(&**component.publisher.digest()));
    assert!(attempts[0].stderr.contains("no luck") && attempts[0].reason.contains("unreachable"), "{attempts:?}");
}

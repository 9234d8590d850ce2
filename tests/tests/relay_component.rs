//! The behaviours of the pattern's reference implementation, python-event-sourcery, with real components as publishers:
//! what they were called with is what they printed.

use std::sync::{Arc, Mutex};

use outbox_host::publisher::component::{ComponentPublisher, OutputSink, Settings};
use outbox_host::{
    Backoff, JsonSerde, NewEvent, NoOutbox, Outbox, OutboxStorageStrategy, Policy, RelayOptions, Report, StreamId,
};
use outbox_tests::guest;
use outbox_tests::outboxes::{Kept, event};

outbox_tests::for_each_storage! {
    an_empty_outbox_calls_nobody
    the_limit_is_respected
    a_published_event_is_published_once_even_when_run_twice
    a_failing_event_is_published_max_attempts_times
    a_filtered_event_is_never_published
    the_events_of_all_tenants_are_received
    the_streams_name_is_passed_through
    a_trap_and_a_time_out_leave_the_entry_in_place
}

/// A component, and the lines that it printed.
struct Printing {
    publisher: ComponentPublisher,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Printing {
    fn load(name: &str) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = lines.clone();
        let output = OutputSink::new(move |line| kept.lock().unwrap().push(line.line.to_owned()));
        let mut settings = Settings { output, ..Settings::default() };
        settings.limits.call_time = std::time::Duration::from_millis(300);
        Self { publisher: ComponentPublisher::load(&guest(name), settings).unwrap(), lines }
    }

    fn take_lines(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }

    fn take_published(&self) -> usize {
        self.take_lines().iter().filter(|line| line.starts_with("published ")).count()
    }
}

fn outbox<K: Kept>(kept: &K) -> Outbox<K::Strategy> {
    let policy = Policy { max_attempts: 3, backoff: Backoff::NONE, ..Policy::default() };
    Outbox::new(kept.open(), JsonSerde).with_options(RelayOptions { policy, ..RelayOptions::default() })
}

fn run<K: Kept>(kept: &K, component: &Printing, limit: impl Into<Option<usize>>) -> Report {
    outbox(kept).run(&component.publisher, limit).unwrap()
}

fn an_empty_outbox_calls_nobody<K: Kept>(kept: &K) {
    let component = Printing::load("scripted");
    assert_eq!(run(kept, &component, None), Report::default());
    assert_eq!(component.take_published(), 0);
    assert_eq!(component.publisher.instances_started(), 0);
}

fn the_limit_is_respected<K: Kept>(kept: &K) {
    outbox(kept).append(&vec![event("a", "{}"); 150]).unwrap();
    let component = Printing::load("scripted");
    assert_eq!(run(kept, &component, 10).published, 10);
    assert_eq!(component.take_published(), 10);
    assert_eq!(run(kept, &component, None).published, 100, "the default limit");
    assert_eq!(component.take_published(), 100);
    assert_eq!(kept.open().status().unwrap().pending, 40);
}

fn a_published_event_is_published_once_even_when_run_twice<K: Kept>(kept: &K) {
    outbox(kept).append(&[event("a", "{}")]).unwrap();
    let component = Printing::load("scripted");
    run(kept, &component, None);
    run(kept, &component, None);
    assert_eq!(component.take_published(), 1);
}

fn a_failing_event_is_published_max_attempts_times<K: Kept>(kept: &K) {
    outbox(kept).append(&[event("a", r#"{"do": "retry", "reason": "busy"}"#)]).unwrap();
    let component = Printing::load("scripted");
    let last = (0..5).map(|_| run(kept, &component, None)).find(|report| report.dead_lettered > 0);
    assert_eq!(component.take_published(), 3);
    let failure = &last.unwrap().failures[0];
    assert_eq!((failure.attempt, failure.outcome, failure.reason.as_str()), (3, "retry", "busy"));
}

fn a_filtered_event_is_never_published<K: Kept>(kept: &K) {
    let outbox = outbox(kept).with_filterer(|event| event.name != "order.viewed");
    let viewed = NewEvent { name: "order.viewed".into(), ..event("a", "{}") };
    outbox.append(&[viewed, event("a", "{}")]).unwrap();
    let component = Printing::load("scripted");
    run(kept, &component, None);
    assert_eq!(component.take_published(), 1);
}

fn the_events_of_all_tenants_are_received<K: Kept>(kept: &K) {
    let events = ["acme", "globex", "default"].map(|tenant| event("a", "{}").with_tenant(tenant));
    outbox(kept).append(&events).unwrap();
    let component = Printing::load("rust-stdout");
    assert_eq!(run(kept, &component, None).published, 3);
    let lines = component.take_lines();
    for tenant in ["acme", "globex", "default"] {
        assert_eq!(lines.iter().filter(|line| line.contains(&format!("  {tenant}  a  "))).count(), 1, "{lines:?}");
    }
}

fn the_streams_name_is_passed_through<K: Kept>(kept: &K) {
    outbox(kept).append(&[NewEvent::json(StreamId::from_name("order 42"), "order.placed", "{}")]).unwrap();
    let component = Printing::load("rust-stdout");
    run(kept, &component, None);
    let lines = component.take_lines();
    assert!(lines[0].contains("  default  order 42  order.placed  {}"), "{lines:?}");
}

fn a_trap_and_a_time_out_leave_the_entry_in_place<K: Kept>(kept: &K) {
    let scripts = [r#"{"do": "trap", "reason": "no luck"}"#, r#"{"do": "spin"}"#, r#"{"do": "sleep"}"#, "{}"];
    let events: Vec<NewEvent> = (0..).zip(scripts).map(|(n, script)| event(&format!("s{n}"), script)).collect();
    let positions = outbox(kept).append(&events).unwrap();
    let component = Printing::load("scripted");
    let report = run(kept, &component, None);
    assert_eq!((report.published, report.to_be_retried), (1, 3));
    assert_eq!((report.outcomes["trapped"], report.outcomes["timed-out"]), (1, 2));
    let strategy = kept.open();
    assert_eq!(strategy.status().unwrap().pending, 3);
    let attempts = strategy.operator().attempts(positions[0]).unwrap();
    assert_eq!(attempts[0].digest.as_deref(), Some(&**component.publisher.digest()));
    assert!(attempts[0].stderr.contains("no luck") && attempts[0].reason.contains("unreachable"), "{attempts:?}");
}

#[test]
fn no_outbox_calls_nobody() {
    let outbox = Outbox::new(NoOutbox, JsonSerde);
    outbox.append(&[event("a", "{}")]).unwrap();
    let component = Printing::load("scripted");
    assert_eq!(outbox.run(&component.publisher, None).unwrap(), Report::default());
    assert_eq!(component.take_published(), 0);
}

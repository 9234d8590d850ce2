//! `outbox publisher test`: a component is called as a relay calls it, with the same limits and grants, and with events
//! from a file, the command line, or an outbox, which is only read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use outbox_host::outbox::{Operator, PageBounds};
use outbox_host::publisher::component::{
    ComponentPublisher, HttpAnswer, HttpTap, Limits, OutputSink, SeenRequest, Settings,
};
use outbox_host::{
    Attempt, JsonSerde, MemoryOutbox, Outbox, OutboxStorageStrategy, Outcome, Publisher, RawEntry, Recorded,
    SqliteOutbox, files,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::inspect::find;
use crate::cli::append;
use crate::cli::database::Database;
use crate::cli::running::Running;
use crate::cli::terminal::{print, print_json};

/// The most bytes of a file with events, or with answers to HTTP requests.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

#[derive(Args)]
pub struct Test {
    #[command(flatten)]
    database: Database,
    /// A file; or the name of a publisher that is kept in the outbox.
    #[arg(value_name = "FILE|NAME")]
    what: String,
    /// The events, as `outbox append` takes them: NDJSON, one a line.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "data", "from_db"])]
    event: Option<PathBuf>,
    /// The name of the only event.
    #[arg(long, default_value = "test", conflicts_with = "from_db")]
    name: String,
    /// Its data.
    #[arg(long, value_name = "JSON", default_value = "{}", conflicts_with = "from_db")]
    data: String,
    /// Take an entry or a dead letter of this database, by its position. It is not changed.
    #[arg(long, num_args = 2, value_names = ["DB", "POSITION"], allow_hyphen_values = true)]
    from_db: Option<Vec<String>>,
    /// How often to call it with each event.
    #[arg(long, value_name = "K", default_value_t = 1)]
    repeat: usize,
    /// Answer its HTTP requests from this file, and send none.
    #[arg(long, value_name = "FILE")]
    stub_http: Option<PathBuf>,
    #[command(flatten)]
    running: Running,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// `--stub-http`: the first answer that fits a request is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stubs {
    answer: Vec<Stub>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stub {
    method: Option<String>,
    url: Option<String>,
    status: u16,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    body: String,
}

/// The result of a call.
#[derive(Serialize)]
struct Call {
    position: u64,
    name: String,
    outcome: &'static str,
    reason: String,
    retry_after_ms: Option<u128>,
    milliseconds: f64,
    output: Vec<Line>,
    requests: Vec<SeenRequest>,
}

/// A line that the guest wrote.
#[derive(Clone, Serialize)]
struct Line {
    stream: &'static str,
    line: String,
}

/// The results of all calls.
#[derive(Serialize)]
struct Tested {
    calls: Vec<Call>,
    delivered: usize,
    median_milliseconds: f64,
    longest_milliseconds: f64,
    memory_bytes: usize,
    instances: u64,
}

impl Test {
    pub fn run(mut self) -> Result<()> {
        ensure!(self.repeat > 0, "--repeat has to be at least 1");
        let mut config = self.database.settings()?;
        self.running.grant(&mut config.publisher);
        let name = self.what.clone();
        let mut settings = self.running.settings(config.of_publisher(&name))?;
        let (_, bytes) = find(&name, &self.database, &settings.limits)?;
        let events = self.events()?;
        let tap = Arc::new(self.tap()?);
        let lines = Arc::new(Mutex::new(Vec::new()));
        settings.http_tap = Some(tap.clone());
        settings.output = collect(&lines);
        settings.limits = Limits { log_bytes_per_second: u64::MAX, ..settings.limits };
        let tested = self.test(&name, &bytes, settings, &events, &tap, &lines)?;
        let (calls, delivered) = (tested.calls.len(), tested.delivered);
        if self.json {
            print_json(&tested)?
        } else {
            self.print(&tested)?
        }
        ensure!(delivered == calls, "{} of {calls} calls did not deliver their event", calls - delivered);
        Ok(())
    }

    fn test(
        &self,
        name: &str,
        bytes: &[u8],
        settings: Settings,
        events: &[Recorded],
        tap: &HttpTap,
        lines: &Mutex<Vec<Line>>,
    ) -> Result<Tested> {
        let publisher = ComponentPublisher::from_bytes(name, bytes, settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut calls = Vec::new();
        for event in events.iter().flat_map(|event| std::iter::repeat_n(event, self.repeat)) {
            let began = Instant::now();
            let attempt = runtime.block_on(publisher.publish(event));
            let output = std::mem::take(&mut *lines.lock());
            calls.push(Call::new(event, &attempt, began.elapsed(), output, tap.take()));
        }
        let mut times: Vec<f64> = calls.iter().map(|call| call.milliseconds).collect();
        times.sort_by(f64::total_cmp);
        Ok(Tested {
            delivered: calls.iter().filter(|call| call.outcome == Outcome::Delivered.name()).count(),
            median_milliseconds: times.get(times.len() / 2).copied().unwrap_or_default(),
            longest_milliseconds: times.last().copied().unwrap_or_default(),
            memory_bytes: publisher.memory_bytes(),
            instances: publisher.instances_started(),
            calls,
        })
    }

    fn tap(&self) -> Result<HttpTap> {
        let Some(file) = &self.stub_http else { return Ok(HttpTap::default()) };
        let text = files::read_text(file, FILE_BYTES_MAX).with_context(|| format!("cannot read {}", file.display()))?;
        let stubs: Stubs = toml::from_str(&text).with_context(|| format!("{} is not valid", file.display()))?;
        let answers = stubs.answer.into_iter().map(|Stub { method, url, status, headers, body }| {
            let answer = HttpAnswer { method, url, status, headers: headers.into_iter().collect(), body };
            answer.check().map_err(anyhow::Error::msg).with_context(|| format!("{} is not valid", file.display()))?;
            Ok(answer)
        });
        Ok(HttpTap::answering(answers.collect::<Result<_>>()?))
    }

    /// Each event goes the way of an entry: appended, read and decoded.
    fn events(&self) -> Result<Vec<Recorded>> {
        if let Some([db, position]) = self.from_db.as_deref() {
            let position = position.parse().with_context(|| format!("{position} is no position of an entry"))?;
            let entry = SqliteOutbox::look(Path::new(db), |outbox| entry(outbox, db, position))?;
            return Ok(vec![decode(entry)?]);
        }
        let lines = match &self.event {
            Some(file) => {
                files::read_text(file, FILE_BYTES_MAX).with_context(|| format!("cannot read {}", file.display()))?
            }
            None => {
                let name = serde_json::to_string(&self.name)?;
                format!("{{\"name\": {name}, \"stream_id\": \"test\", \"data\": {}}}", self.data.replace('\n', " "))
            }
        };
        let parsed = (1..).zip(lines.lines()).filter(|(_, line)| !line.trim().is_empty());
        let parsed = parsed.map(|(number, line)| append::event(line).with_context(|| format!("line {number}")));
        let outbox = Outbox::new(MemoryOutbox::default(), JsonSerde);
        outbox.append(&parsed.collect::<Result<Vec<_>>>()?)?;
        let all = PageBounds { read_max: usize::MAX, bytes_max: usize::MAX, looked_at_max: usize::MAX };
        let entries = outbox.strategy().drain()?.next_page(all, &mut |_, _| true)?.entries;
        ensure!(!entries.is_empty(), "there is no event to call it with");
        entries.into_iter().map(decode).collect()
    }

    fn print(&self, tested: &Tested) -> Result<()> {
        for call in &tested.calls {
            let Call { position, name, outcome, reason, retry_after_ms, milliseconds, .. } = call;
            let after = retry_after_ms.map_or_else(String::new, |ms| format!(", not before {ms} ms have passed"));
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            print(format!("event {position}, {name:?}: {outcome} in {milliseconds:.2} ms{after}{reason}"))?;
            for SeenRequest { method, url, answer, body, .. } in &call.requests {
                print(format!("    {method} {url} ({} bytes): {answer}", body.len()))?;
            }
            call.output.iter().try_for_each(|Line { stream, line }| print(format!("    {stream}: {line}")))?;
        }
        let Tested { calls, delivered, median_milliseconds, longest_milliseconds, memory_bytes, instances } = tested;
        let requests: usize = calls.iter().map(|call| call.requests.len()).sum();
        print(format!("calls           {}, of which {delivered} delivered", calls.len()))?;
        print(format!("time            median {median_milliseconds:.2} ms, longest {longest_milliseconds:.2} ms"))?;
        print(format!("memory          {} KiB at its highest", memory_bytes / 1024))?;
        print(format!("instances       {instances}"))?;
        print(format!("HTTP requests   {requests}"))
    }
}

impl Call {
    fn new(event: &Recorded, attempt: &Attempt, took: Duration, output: Vec<Line>, requests: Vec<SeenRequest>) -> Self {
        let after = match &attempt.outcome {
            Outcome::Retry { after, .. } | Outcome::Unavailable { after, .. } => *after,
            _ => None,
        };
        Self {
            position: event.position,
            name: event.wrapped_event.name.clone(),
            outcome: attempt.outcome.name(),
            reason: attempt.outcome.reason().to_owned(),
            retry_after_ms: after.map(|after| after.as_millis()),
            milliseconds: took.as_secs_f64() * 1_000.0,
            output,
            requests,
        }
    }
}

fn collect(lines: &Arc<Mutex<Vec<Line>>>) -> OutputSink {
    let lines = lines.clone();
    OutputSink::new(move |line| {
        let line = Line { stream: line.stream.name(), line: line.line.to_owned() };
        lines.lock().push(line);
    })
}

fn decode(entry: RawEntry) -> Result<Recorded> {
    let position = entry.position;
    entry.decode(1, &JsonSerde).map_err(|error| anyhow::anyhow!("entry {position} is no event: {error}"))
}

/// The entry or the dead letter at this position.
fn entry(outbox: &SqliteOutbox, db: &str, position: i64) -> Result<RawEntry> {
    if let Some(entry) = outbox.entry(position)? {
        return Ok(entry);
    }
    match outbox.dead_entry(position)? {
        Some(entry) => Ok(entry),
        None => bail!("there is neither an entry nor a dead letter {position} in {db}"),
    }
}

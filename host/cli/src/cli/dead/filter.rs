//! The conditions on dead letters that the command line gives.

use clap::Args;
use jiff::Timestamp;
use outbox_host::outbox::DeadLetterFilter;

use crate::config::Time;

/// Which ones. Each condition that is given has to hold.
#[derive(Args)]
pub struct Filter {
    /// Those with this event name; `order.*` stands for every name that starts so.
    #[arg(long)]
    name: Option<String>,
    /// Those of the stream with this id or name.
    #[arg(long)]
    stream: Option<String>,
    /// Those of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Those that died since: a time (2026-01-31T12:00:00Z), or how long ago (2h, 7d).
    #[arg(long, value_parser = since)]
    since: Option<Timestamp>,
    /// Those whose reason, or outcome, has this in it.
    #[arg(long)]
    reason: Option<String>,
}

impl Filter {
    pub fn into_filter(self) -> DeadLetterFilter {
        let Self { name, stream, tenant, since, reason } = self;
        DeadLetterFilter { name, stream, tenant, since, reason, after: None }
    }

    pub fn is_empty(&self) -> bool {
        let Self { name, stream, tenant, since, reason } = self;
        name.is_none() && stream.is_none() && tenant.is_none() && since.is_none() && reason.is_none()
    }
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago: Time = text.parse()?;
    Timestamp::now().checked_sub(ago.0).map_err(|error| error.to_string())
}

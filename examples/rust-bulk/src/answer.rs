//! The answer of the destination: which of the events it has not stored.

use std::collections::HashMap;

use outbox_guest::{Error, Recorded};
use serde::Deserialize;

#[derive(Deserialize)]
struct Answer {
    failed: Vec<Failed>,
}

#[derive(Deserialize)]
struct Failed {
    /// The event's uuid.
    id: String,
    reason: String,
    /// Whether it will never be stored.
    #[serde(default)]
    rejected: bool,
}

/// The answer for each of these events: all but those that it names are stored. If nothing is said, all are.
///
/// # Errors
///
/// If it cannot be read: then nobody knows what is stored.
pub fn of_each(body: &str, events: &[&Recorded]) -> Result<Vec<Result<(), Error>>, Error> {
    if body.trim().is_empty() {
        return Ok(events.iter().map(|_| Ok(())).collect());
    }
    let answer: Answer = serde_json::from_str(body)
        .map_err(|error| Error::retryable(format!("the destination's answer cannot be read: {error}")))?;
    let failed: HashMap<&str, &Failed> = answer.failed.iter().map(|failed| (failed.id.as_str(), failed)).collect();
    let of_event = |event: &&Recorded| match failed.get(event.wrapped_event.uuid.as_str()) {
        None => Ok(()),
        Some(Failed { reason, rejected: true, .. }) => Err(Error::rejected(reason)),
        Some(Failed { reason, .. }) => Err(Error::retryable(reason)),
    };
    Ok(events.iter().map(of_event).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Vec<Recorded> {
        let event = |uuid: &str| {
            let mut event = Recorded::example("e", "{}");
            event.wrapped_event.uuid = uuid.into();
            event
        };
        ["a", "b", "c"].map(event).to_vec()
    }

    #[test]
    fn what_is_not_named_is_stored() {
        let events = events();
        let events: Vec<&Recorded> = events.iter().collect();
        let body =
            r#"{"failed": [{"id": "b", "reason": "busy"}, {"id": "c", "reason": "no such order", "rejected": true}]}"#;
        let answers = of_each(body, &events).unwrap();
        assert!(answers[0].is_ok());
        assert!(
            answers[1].as_ref().is_err_and(Error::is_retryable) && answers[2].as_ref().is_err_and(Error::is_rejected)
        );
        assert!(of_each("", &events).unwrap().iter().all(Result::is_ok));
    }

    #[test]
    fn an_answer_that_cannot_be_read_stores_nothing() {
        let events = events();
        let events: Vec<&Recorded> = events.iter().collect();
        for body in ["OK", "{", "{}", r#"{"failed": [{"id": 7}]}"#] {
            assert!(of_each(body, &events).is_err_and(|error| error.is_retryable()), "{body}");
        }
    }
}

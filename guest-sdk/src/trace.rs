use serde_json::Value;

use crate::Recorded;

/// A longer value is not sent as a header.
const HEADER_BYTES_MAX: usize = 512;

/// The trace to which an event belongs, in the form of W3C's Trace Context.
///
/// ```
/// use outbox_guest::Recorded;
///
/// let mut event = Recorded::example("order.placed", "{}");
/// assert_eq!(event.trace(), None);
/// event.wrapped_event.context = r#"{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}"#.into();
/// let trace = event.trace().unwrap();
/// let headers: Vec<(&str, &str)> = trace.headers().collect();
/// assert_eq!(headers, [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trace {
    /// `traceparent`: the trace and the span that the event was made in.
    pub parent: String,
    /// `tracestate`: what vendors add to it.
    pub state: Option<String>,
}

impl Trace {
    /// The headers of a request that carry it on. A value that cannot be a header's is left out, since an application
    /// may write anything into its context.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let parent = Some(self.parent.as_str()).filter(|value| is_header_value(value));
        let state = self.state.as_deref().filter(|value| parent.is_some() && is_header_value(value));
        parent.map(|value| ("traceparent", value)).into_iter().chain(state.map(|value| ("tracestate", value)))
    }
}

impl Recorded {
    /// The trace that the event's context names: `traceparent` and `tracestate` in the context itself, or in
    /// `components.opentelemetry.values`, where python-event-sourcery puts them. None if there is no `traceparent`, or
    /// it is no text.
    pub fn trace(&self) -> Option<Trace> {
        let context: Value = self.context().ok()?;
        let nested = &context["components"]["opentelemetry"]["values"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        [&context, nested].into_iter().find_map(|carrier| {
            let parent = text(&carrier["traceparent"])?;
            Some(Trace { parent, state: text(&carrier["tracestate"]) })
        })
    }
}

fn is_header_value(value: &str) -> bool {
    (1..=HEADER_BYTES_MAX).contains(&value.len()) && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(context: &str) -> Vec<String> {
        let mut event = Recorded::example("order.placed", "{}");
        event.wrapped_event.context = context.into();
        let trace = event.trace();
        trace.iter().flat_map(Trace::headers).map(|(name, value)| format!("{name} {value}")).collect()
    }

    #[test]
    fn it_is_found_where_the_context_has_it() {
        let nested =
            |context: &str| format!(r#"{{"correlation_id": null, "components": {{"opentelemetry": {context}}}}}"#);
        assert_eq!(headers(r#"{"tracestate": "k=v", "traceparent": "00-a"}"#), ["traceparent 00-a", "tracestate k=v"]);
        let values = r#"{"values": {"traceparent": "00-b", "tracestate": "k=v"}}"#;
        assert_eq!(headers(&nested(values)), ["traceparent 00-b", "tracestate k=v"]);
        let both = nested(values).replacen('{', r#"{"traceparent": "00-a", "#, 1);
        assert_eq!(headers(&both), ["traceparent 00-a"]);
        assert_eq!(headers(r#"{"traceparent": "00-a", "tracestate": 7}"#), ["traceparent 00-a"]);
        for none in [r#"{"traceparent": 7, "tracestate": "k=v"}"#, "[]", "7", r#"{"components": 7}"#, "no JSON"] {
            assert!(headers(none).is_empty(), "{none}");
        }
        for none in ["7", "[]", r#"{"values": "00-a"}"#, r#"[{"values": {"traceparent": "00-a"}}]"#] {
            assert!(headers(&nested(none)).is_empty(), "{none}");
        }
    }

    #[test]
    fn what_can_be_no_header_is_none() {
        for value in ["", r"00-\r\nx: y", "é", &"x".repeat(HEADER_BYTES_MAX + 1)] {
            assert!(headers(&format!(r#"{{"traceparent": "{value}", "tracestate": "k=v"}}"#)).is_empty(), "{value}");
        }
    }
}

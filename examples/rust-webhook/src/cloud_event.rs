use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use outbox_guest::{Error, Payload, Recorded, Trace};
use serde::Serialize;

pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// The attributes of a CloudEvent, and after them, as extensions, what CloudEvents has no attribute for. Positions and
/// versions are strings: an integer of CloudEvents has 32 bits.
#[derive(Serialize)]
struct Attributes<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    r#type: &'a str,
    subject: &'a str,
    time: &'a str,
    datacontenttype: &'a str,
    outboxposition: String,
    outboxattempt: i32,
    tenantid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    streamname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    streamcategory: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    streamversion: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    orderid: Option<&'a str>,
    // The extension of CloudEvents for distributed tracing.
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<&'a str>,
}

/// The event in the structured JSON format of CloudEvents 1.0.
///
/// JSON data is put in as the text that it is, so that it arrives byte for byte as the application wrote it.
pub fn json(event: &Recorded, source: &str, order: Option<&str>, trace: Option<&Trace>) -> Result<String, Error> {
    let (key, datacontenttype, data) = match &event.wrapped_event.data {
        Payload::Json(text) => ("data", "application/json", text.clone()),
        Payload::Binary { content_type, bytes } => {
            ("data_base64", content_type.as_str(), format!("\"{}\"", BASE64.encode(bytes)))
        }
    };
    let attributes = serde_json::to_string(&Attributes {
        specversion: "1.0",
        id: &event.wrapped_event.uuid,
        source,
        r#type: &event.wrapped_event.name,
        subject: &event.stream_id.id,
        time: &event.wrapped_event.created_at,
        datacontenttype,
        outboxposition: event.position.to_string(),
        outboxattempt: event.attempt.try_into().unwrap_or(i32::MAX),
        tenantid: &event.tenant_id,
        streamname: event.stream_id.name.as_deref(),
        streamcategory: event.stream_id.category.as_deref(),
        streamversion: event.wrapped_event.version.map(|version| version.to_string()),
        orderid: order,
        traceparent: trace.map(|trace| trace.parent.as_str()),
        tracestate: trace.and_then(|trace| trace.state.as_deref()),
    })?;
    let members = attributes.strip_suffix('}').unwrap_or(&attributes);
    Ok(format!("{members},\"{key}\":{data}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parsed(event: &Recorded) -> Value {
        let text = json(event, "/shop", None, event.trace().as_ref()).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn an_event_has_the_attributes_that_cloudevents_requires_and_the_outboxs_own() {
        let mut event = Recorded::example("order.placed", r#"{"order": 7}"#);
        event.position = u64::MAX;
        event.stream_id.name = Some("Ada's \"orders\"".into());
        event.wrapped_event.version = Some(3);
        assert_eq!(
            parsed(&event),
            json!({
                "specversion": "1.0",
                "id": "00000000-0000-4000-8000-000000000001",
                "source": "/shop",
                "type": "order.placed",
                "subject": "example-1",
                "time": "2026-01-31T12:00:00.000Z",
                "datacontenttype": "application/json",
                "outboxposition": "18446744073709551615",
                "outboxattempt": 1,
                "tenantid": "default",
                "streamname": "Ada's \"orders\"",
                "streamversion": "3",
                "data": {"order": 7},
            })
        );
    }

    #[test]
    fn json_data_arrives_byte_for_byte() {
        let data = "{\"z\": 1.10, \"a\":\t1e2,\n \"z\": \"\\u00e9\"} ";
        let text = json(&Recorded::example("order.placed", data), "/shop", None, None).unwrap();
        assert!(text.ends_with(&format!(",\"data\":{data}}}")), "{text}");
    }

    #[test]
    fn binary_data_arrives_as_base64() {
        let mut event = Recorded::example("image.stored", "null");
        event.wrapped_event.data = Payload::Binary { content_type: "image/png".into(), bytes: vec![0xff, 0, 1] };
        let sent = parsed(&event);
        assert_eq!((&sent["datacontenttype"], &sent["data_base64"]), (&json!("image/png"), &json!("/wAB")));
        assert_eq!(sent.get("data"), None);
    }

    #[test]
    fn the_trace_of_the_context_is_passed_on_where_there_is_one() {
        let mut event = Recorded::example("order.placed", "{}");
        event.wrapped_event.context = json!({"traceparent": "00-ab-cd-01", "user": 7}).to_string();
        assert_eq!(parsed(&event)["traceparent"], "00-ab-cd-01");
        let values = json!({"traceparent": "00-ef-01-01", "tracestate": "k=v"});
        event.wrapped_event.context = json!({"components": {"opentelemetry": {"values": values}}}).to_string();
        assert_eq!(
            (&parsed(&event)["traceparent"], &parsed(&event)["tracestate"]),
            (&json!("00-ef-01-01"), &json!("k=v"))
        );
        event.wrapped_event.context = json!({"traceparent": 7}).to_string();
        assert_eq!(parsed(&event).get("traceparent"), None);
    }

    #[test]
    fn an_order_is_an_attribute_of_its_own() {
        let text = json(&Recorded::example("order.placed", "{}"), "/shop", Some("a \"7\""), None).unwrap();
        let sent: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(sent["orderid"], "a \"7\"");
        assert_eq!(parsed(&Recorded::example("order.paid", "{}")).get("orderid"), None);
    }

    #[test]
    fn extension_names_are_what_cloudevents_allows() {
        let event = Recorded::example("order.placed", "{}");
        for name in parsed(&event).as_object().unwrap().keys() {
            assert!(
                name.len() <= 20 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()),
                "{name}"
            );
        }
    }
}

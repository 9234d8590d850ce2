use serde::Deserialize;
use serde_json::Value;

/// The largest whole number that every reader of JSON holds exactly.
const MAX_ORDER: u64 = (1 << 53) - 1;

/// What is asked of the data of `order.placed`.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
pub struct OrderPlaced {
    /// A whole number, in digits, or a string.
    pub order: String,
}

impl TryFrom<Value> for OrderPlaced {
    type Error = &'static str;

    fn try_from(data: Value) -> Result<Self, Self::Error> {
        match &data["order"] {
            Value::String(text) => Ok(Self { order: text.clone() }),
            Value::Number(number) if number.as_u64().is_some_and(|number| number <= MAX_ORDER) => {
                Ok(Self { order: number.to_string() })
            }
            _ => Err("it has no \"order\" that is a whole number or a string"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outbox_guest::{Error, Recorded};

    fn order(data: &str) -> Result<String, Error> {
        Ok(Recorded::example("order.placed", data).data::<OrderPlaced>()?.order)
    }

    #[test]
    fn an_order_is_a_whole_number_or_a_string() {
        assert_eq!(order(r#"{"order": 7}"#).unwrap(), "7");
        assert_eq!(order(r#"{"lines": [{"order": 1}], "order": "a/\u00e9"}"#).unwrap(), "a/é");
        assert_eq!(order(r#"{"order": 9007199254740991}"#).unwrap(), "9007199254740991");
    }

    #[test]
    fn anything_else_is_rejected_with_what_is_missing() {
        let orders = ["-1", "1.5", "9007199254740992", "true", "null", "[7]", "{\"order\": 7}"];
        let objects = orders.map(|order| format!("{{\"order\": {order}}}"));
        for data in objects.iter().map(String::as_str).chain(["{}", "[7]", "7", "\"order\"", "null"]) {
            let error = order(data).unwrap_err();
            assert!(error.is_rejected());
            assert!(error.to_string().ends_with("no \"order\" that is a whole number or a string"), "{error}");
        }
    }
}

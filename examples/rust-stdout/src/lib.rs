//! Prints each event on one line of standard output.

use outbox_guest::{Error, Payload, Publisher, Recorded};

#[derive(Default)]
struct Stdout;

impl Publisher for Stdout {
    fn publish(&mut self, event: Recorded) -> Result<(), Error> {
        println!("{}", line(&event));
        Ok(())
    }
}

outbox_guest::export!(Stdout);

fn line(event: &Recorded) -> String {
    let Recorded { wrapped_event, stream_id, position, tenant_id, attempt, .. } = event;
    let stream = stream_id.name.as_ref().unwrap_or(&stream_id.id);
    let again = if *attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
    let data = match &wrapped_event.data {
        Payload::Json(text) => one_line(text),
        Payload::Binary { content_type, bytes } => format!("{} bytes of {content_type}", bytes.len()),
    };
    format!("{position:>6}  {tenant_id}  {stream}  {}{again}  {data}", wrapped_event.name)
}

/// JSON has line breaks only between its tokens, where a space means the same.
fn one_line(json: &str) -> String {
    json.replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = Recorded::example("order.placed", "{\n\"order\": 7\n}");
        assert_eq!(line(&event), "     1  default  example-1  order.placed  { \"order\": 7 }");
    }

    #[test]
    fn a_streams_name_a_later_attempt_and_binary_data_show() {
        let mut event = Recorded::example("image.stored", "null");
        event.stream_id.name = Some("gallery".into());
        event.attempt = 2;
        event.wrapped_event.data = Payload::Binary { content_type: "image/png".into(), bytes: vec![0; 3] };
        assert_eq!(line(&event), "     1  default  gallery  image.stored (attempt 2)  3 bytes of image/png");
    }
}

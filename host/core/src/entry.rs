//! Decodes a row, which may contain anything, to a [`Recorded`].

use std::borrow::Cow;

use crate::attempt::Outcome;
use crate::column;
use crate::raw::RawEntry;
use crate::recorded::{Recorded, StreamId, WrappedEvent};
use crate::row::Column;
use crate::serde::{Serde, StoredData};

/// Which part of a row cannot be decoded, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{column}: {reason}")]
pub struct Undecodable {
    column: &'static str,
    reason: String,
}

impl From<Undecodable> for Outcome {
    fn from(undecodable: Undecodable) -> Self {
        Self::Undecodable { reason: undecodable.to_string() }
    }
}

impl RawEntry {
    /// Decodes the entry for its attempt number `attempt`.
    ///
    /// # Errors
    ///
    /// Names the part of the row that is not valid.
    pub fn decode(self, attempt: u32, serde: &dyn Serde) -> Result<Recorded, Undecodable> {
        let row = self.row();
        let version = column::version(&row.version).map_err(of(Column::Version))?;
        let content_type = column::optional(&row.content_type).map_err(of(Column::ContentType))?;
        let uuid = column::uuid(&row.uuid).map_err(of(Column::Uuid))?;
        let name = column::required(&row.name).map_err(of(Column::Name))?.into_owned();
        let created_at = column::created_at(&row.created_at).map_err(of(Column::CreatedAt))?.into_owned();
        let context = column::context(&row.context).map_err(of(Column::Context))?.into_owned();
        let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
        let stream_id = StreamId {
            id: column::stream_id(&row.stream_id).map_err(of(Column::StreamId))?.into_owned(),
            name: owned(column::optional(&row.stream_name).map_err(of(Column::StreamName))?),
            category: owned(column::optional(&row.category).map_err(of(Column::Category))?),
        };
        column::wanted_time(&row.publish_after).map_err(of(Column::PublishAfter))?;
        column::wanted_time(&row.expires_at).map_err(of(Column::ExpiresAt))?;
        let tenant_id = column::tenant_id(&row.tenant_id).map_err(of(Column::TenantId))?.into_owned();
        let (position, content_type) = (self.position, owned(content_type));
        let data = column::data(self.into_data()).map_err(of(Column::Data))?;
        let data = serde.deserialize(StoredData { content_type, value: data });
        let data = data.map_err(|error| of(Column::Data)(error.to_string()))?;
        let position = u64::try_from(position)
            .map_err(|_| Undecodable { column: "position", reason: format!("{position} is less than 1") })?;
        let wrapped_event = WrappedEvent { uuid, name, version, created_at, data, context };
        Ok(Recorded { wrapped_event, stream_id, position, tenant_id, attempt })
    }
}

fn of(column: Column) -> impl Fn(String) -> Undecodable {
    move |reason| Undecodable { column: column.name(), reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::recorded::Payload;
    use crate::row::{Field, Row};
    use crate::serde::JsonSerde;

    fn row() -> Row<'static> {
        Row {
            tenant_id: "acme".into(),
            stream_id: "order-1".into(),
            stream_name: Field::Null,
            category: "order".into(),
            uuid: "7c0e8b1e-9d3f-4a55-8a44-0a3f6f3f9a01".into(),
            name: "order.placed".into(),
            version: Field::Integer(3),
            created_at: "2026-01-31T12:00:00.000Z".into(),
            content_type: Field::Null,
            context: "{}".into(),
            data: "{\"order\": 7}".into(),
            ..Row::default()
        }
    }

    fn decoded(change: impl FnOnce(&mut Row<'static>)) -> Result<Recorded, String> {
        decoded_at(7, change)
    }

    fn decoded_at(position: i64, change: impl FnOnce(&mut Row<'static>)) -> Result<Recorded, String> {
        let mut row = row();
        change(&mut row);
        RawEntry::new(position, &row).decode(2, &JsonSerde).map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_row() {
        let recorded = decoded(|_| {}).unwrap();
        assert_eq!((recorded.position, recorded.attempt, recorded.tenant_id.as_str()), (7, 2, "acme"));
        assert_eq!(recorded.stream_id, StreamId::new("order-1").with_category("order"));
        assert_eq!(recorded.wrapped_event.version, Some(3));
        assert_eq!(recorded.wrapped_event.data, Payload::Json("{\"order\": 7}".into()));
    }

    #[test]
    fn what_may_be_missing_and_what_may_have_another_form() {
        let recorded = decoded(|entry| {
            entry.tenant_id = Field::Null;
            entry.context = Field::Null;
            entry.version = Field::Null;
            entry.category = Field::Null;
            entry.stream_id = Field::Integer(42);
            entry.uuid = Field::Bytes(vec![0x11; 16].into());
            entry.data = Field::Integer(5);
        });
        let recorded = recorded.unwrap();
        assert_eq!((recorded.tenant_id.as_str(), recorded.stream_id.id.as_str()), ("default", "42"));
        assert_eq!(recorded.wrapped_event.uuid.to_string(), "11111111-1111-1111-1111-111111111111");
        assert_eq!(recorded.wrapped_event.data, Payload::Json("5".into()));
        assert_eq!(recorded.wrapped_event.context, "{}");
    }

    #[test]
    fn times_come_out_in_utc() {
        for (written, expected) in [
            ("2026-01-31T12:00:00.000Z", "2026-01-31T12:00:00.000Z"),
            ("2026-01-31 12:00:00", "2026-01-31T12:00:00Z"),
            ("2026-01-31T12:00:00", "2026-01-31T12:00:00Z"),
            ("2026-01-31T12:00:00.5+02:00", "2026-01-31T10:00:00.5Z"),
            ("2026-03-31T12:00:00.000Z", "2026-03-31T12:00:00.000Z"),
        ] {
            let recorded = decoded(|entry| entry.created_at = written.into()).unwrap();
            assert_eq!(recorded.wrapped_event.created_at, expected, "{written}");
        }
        for written in ["yesterday", "", "2026-13-31T12:00:00.000Z", "2026-02-30T12:00:00.000Z"] {
            assert!(decoded(|entry| entry.created_at = written.into()).is_err(), "{written}");
        }
    }

    #[test]
    fn anything_else_names_the_column() {
        type Change = fn(&mut Row<'static>);
        let changes: [(&str, Change); 17] = [
            ("stream_id: it is NULL", |entry| entry.stream_id = Field::Null),
            ("stream_id: it is empty", |entry| entry.stream_id = "".into()),
            ("name: it is NULL", |entry| entry.name = Field::Null),
            ("name: text in UTF-8 is expected, not a blob", |entry| entry.name = Field::Bytes(vec![0xff].into())),
            ("name: text in UTF-8 is expected, not text in another", |entry| {
                entry.name = Field::Text(vec![0xff].into())
            }),
            ("uuid: a UUID is expected, not NULL", |entry| entry.uuid = Field::Null),
            ("uuid: ", |entry| entry.uuid = "seven".into()),
            ("uuid: ", |entry| entry.uuid = Field::Bytes(vec![1].into())),
            ("version: -1 must not be negative", |entry| entry.version = Field::Integer(-1)),
            ("version: a whole number", |entry| entry.version = "v1".into()),
            ("data: JSON text is expected, not NULL", |entry| entry.data = Field::Null),
            ("data: data is not JSON", |entry| entry.data = "{".into()),
            ("context: it is not a JSON object", |entry| entry.context = "[]".into()),
            ("created_at: a date and time", |entry| entry.created_at = Field::Integer(5)),
            ("publish_after: a date and time", |entry| entry.publish_after = Field::Integer(5)),
            ("publish_after: `tomorrow` is no date and time", |entry| entry.publish_after = "tomorrow".into()),
            ("expires_at: `` is no date and time", |entry| entry.expires_at = "".into()),
        ];
        for (expected, change) in changes {
            let error = decoded(change).unwrap_err();
            assert!(error.starts_with(expected), "{error} does not start with {expected}");
        }
        assert_eq!(decoded_at(-1, |_| {}).unwrap_err().to_string(), "position: -1 is less than 1");
    }

    /// Anything that a column can contain, including what is nearly right.
    fn any_field() -> impl Strategy<Value = Field<'static>> {
        const NEARLY: &[&str] = &[
            "",
            "{}",
            "{\"a\":",
            "[1e999]",
            "\u{0}",
            "2026-02-30T12:00:00.000Z",
            "2026-01-31T12:00:00.00é",
            "9999-12-31T23:59:59.999Z",
            "-009999-01-02T01:59:59Z",
            "7c0e8b1e-9d3f-4a55-8a44-0a3f6f3f9a0",
            "{7c0e8b1e-9d3f-4a55-8a44-0a3f6f3f9a01}",
        ];
        prop_oneof![
            Just(Field::Null),
            any::<i64>().prop_map(Field::Integer),
            any::<f64>().prop_map(Field::Real),
            any::<String>().prop_map(Field::from),
            prop::sample::select(NEARLY).prop_map(Field::from),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| Field::Bytes(bytes.into())),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| Field::Text(bytes.into())),
            any::<u64>().prop_map(Field::TooLong),
        ]
    }

    proptest! {
        /// One or several parts of a good row are replaced by anything.
        #[test]
        fn whatever_a_row_holds_it_is_decoded_to_a_valid_event_or_refused(
            position in any::<i64>(),
            changes in prop::collection::vec((0..13_usize, any_field()), 0..4),
        ) {
            let mut changed = row();
            for (column, field) in changes {
                let Row { tenant_id, stream_id, stream_name, category, uuid, name, version, created_at,
                    content_type, context, data, publish_after, expires_at } = &mut changed;
                let columns = [tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type,
                    context, data, publish_after, expires_at];
                for (_, it) in columns.into_iter().enumerate().filter(|(index, _)| *index == column) {
                    *it = field.clone();
                }
            }
            let entry = RawEntry::new(position, &changed);
            entry.stream_key();
            let _ = (entry.publish_after(), entry.expires_at());
            match entry.decode(1, &JsonSerde) {
                Ok(Recorded { wrapped_event: event, stream_id, .. }) => {
                    prop_assert!(!event.name.is_empty() && !stream_id.id.is_empty());
                    prop_assert!(event.created_at.parse::<jiff::Timestamp>().is_ok(), "{}", event.created_at);
                    prop_assert!(serde_json::from_str::<serde_json::Map<_, _>>(&event.context).is_ok());
                }
                Err(refused) => prop_assert!(refused.to_string().contains(": ")),
            }
        }
    }
}

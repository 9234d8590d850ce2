//! Generated code, and the conversions from it. It is public only because the export macro's expansion names it.
#![allow(missing_docs, unsafe_code, clippy::all, reason = "generated")]

use crate::{Payload, Recorded, StreamId, WrappedEvent};

pub use publisher::outbox::publisher::types as contract;

// One world for each interface: a component's world is the union of those that its `export!` names.
pub mod publisher {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package outbox:guest; world only-publisher { export outbox:publisher/publisher@0.1.0; }",
        pub_export_macro: true,
        with: { "outbox:publisher/types@0.1.0": generate },
    });
}

pub mod batch {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package outbox:guest; world only-batch { export outbox:publisher/batch-publisher@0.1.0; }",
        pub_export_macro: true,
        with: { "outbox:publisher/types@0.1.0": super::contract },
    });
}

pub mod lifecycle {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package outbox:guest; world only-lifecycle { export outbox:publisher/lifecycle@0.1.0; }",
        pub_export_macro: true,
    });
}

impl From<contract::Recorded> for Recorded {
    fn from(from: contract::Recorded) -> Self {
        let contract::Recorded { wrapped_event, stream_id, position, tenant_id, attempt } = from;
        Self { wrapped_event: wrapped_event.into(), stream_id: stream_id.into(), position, tenant_id, attempt }
    }
}

impl From<contract::WrappedEvent> for WrappedEvent {
    fn from(from: contract::WrappedEvent) -> Self {
        let contract::WrappedEvent { uuid, name, version, created_at, data, context } = from;
        Self { uuid, name, version, created_at, data: data.into(), context }
    }
}

impl From<contract::Payload> for Payload {
    fn from(from: contract::Payload) -> Self {
        match from {
            contract::Payload::Json(text) => Self::Json(text),
            contract::Payload::Binary(contract::BinaryPayload { content_type, bytes }) => {
                Self::Binary { content_type, bytes }
            }
        }
    }
}

impl From<contract::StreamId> for StreamId {
    fn from(from: contract::StreamId) -> Self {
        let contract::StreamId { id, name, category } = from;
        Self { id, name, category }
    }
}

#[cfg(test)]
pub(crate) fn example() -> contract::Recorded {
    contract::Recorded {
        wrapped_event: contract::WrappedEvent {
            uuid: "7c0e8b1e-9d3f-4a55-8a44-0a3f6f3f9a01".into(),
            name: "order.placed".into(),
            version: Some(3),
            created_at: "2026-01-31T12:00:00.000Z".into(),
            data: contract::Payload::Json("{}".into()),
            context: "{}".into(),
        },
        stream_id: contract::StreamId { id: "order-7".into(), name: None, category: Some("order".into()) },
        position: 12,
        tenant_id: "default".into(),
        attempt: 1,
    }
}

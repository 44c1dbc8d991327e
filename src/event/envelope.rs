//! The envelope of an event (spec 07 §1): what the outbox stores and a webhook sends.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Event, EventError, EventId};
use crate::proto::json;

/// An event on its way to the consumer.
///
/// ```
/// use wamd::event::{Envelope, Event, EventId, SessionQrExhausted};
///
/// let event = Event::from(SessionQrExhausted::new());
/// let id = EventId::random(1_716_894_200_000, &[0; 10]);
/// let envelope = Envelope::new(&event, "s1", id, 1_716_894_200_000);
/// assert_eq!(
///     envelope.to_json(),
///     r#"{"event":"session.qr_exhausted","sessionId":"s1","eventId":"01HYZDWW600000000000000000","timestamp":1716894200000,"offline":false,"data":{}}"#,
/// );
/// assert_eq!(Envelope::from_json(envelope.to_json().as_bytes()), Ok(envelope));
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Envelope {
    /// The name, such as `message.received`.
    pub event: Cow<'static, str>,
    /// The embedding program's name of the session.
    pub session_id: String,
    /// The same when the event is delivered again: the key to recognise duplicates by.
    pub event_id: EventId,
    /// Position in the session's outbox: strictly increasing, without gaps, durable. Absent for ephemeral events, which
    /// never enter the outbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// When the engine produced the event, unix milliseconds. Not the time of the message.
    pub timestamp: u64,
    /// Produced while the server delivered its offline queue.
    #[serde(default)]
    pub offline: bool,
    /// The data of the event, as [`Event::data`] gives it.
    pub data: Value,
}

impl Envelope {
    /// An envelope without `seq`, for a live event. `timestamp` is unix milliseconds.
    pub fn new(event: &Event, session_id: impl Into<String>, event_id: EventId, timestamp: u64) -> Self {
        Self {
            event: Cow::Borrowed(event.name()),
            session_id: session_id.into(),
            event_id,
            seq: None,
            timestamp,
            offline: false,
            data: event.data(),
        }
    }

    /// With the position that the event has in the outbox.
    #[must_use]
    pub fn with_seq(self, seq: u64) -> Self {
        Self { seq: Some(seq), ..self }
    }

    /// Marked as produced from the offline queue, or not.
    #[must_use]
    pub fn with_offline(self, offline: bool) -> Self {
        Self { offline, ..self }
    }

    /// The JSON text, compact, numbers as ECMAScript prints them.
    pub fn to_json(&self) -> String {
        let mut out = Vec::with_capacity(512);
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, json::EcmaFormatter);
        // As in `super::json`: nothing in an envelope refuses, and a vector takes everything.
        let written = self.serialize(&mut serializer);
        debug_assert!(written.is_ok());
        String::from_utf8(out).unwrap_or_default()
    }

    /// Reads what [`Envelope::to_json`] wrote.
    ///
    /// # Errors
    /// [`EventError::Malformed`].
    pub fn from_json(text: &[u8]) -> Result<Self, EventError> {
        serde_json::from_slice(text)
            .map_err(|error| EventError::Malformed { line: error.line(), column: error.column() })
    }
}

/// Everything but the data.
impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("event", &self.event)
            .field("session_id", &self.session_id)
            .field("event_id", &self.event_id)
            .field("seq", &self.seq)
            .field("timestamp", &self.timestamp)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

//! What the driver counts, with feature `metrics`, for whichever recorder the program has installed
//! (the `metrics` crate).
//!
//! | name | kind | labels | what |
//! |---|---|---|---|
//! | `wamd_accounts` | gauge | `state` | accounts that run, by [`SessionState`], in lower case |
//! | `wamd_events_total` | counter | `event` | events that went to the consumer, by name |
//! | `wamd_connections_total` | counter | `step`: `dialled`, `opened`, `closed` | connections that were begun, that stood, that the other side or the network ended |
//! | `wamd_socket_bytes_total` | counter | `direction`: `in`, `out` | bytes of websocket messages |
//! | `wamd_socket_messages_total` | counter | `direction` | websocket messages |
//! | `wamd_commits_total` | counter | `result`: `ok`, `failed` | batches given to the store, after joining |
//! | `wamd_commit_seconds` | histogram | | from there until they were durable |
//! | `wamd_commit_bytes` | histogram | | keys, values and events of one |
//! | `wamd_loads_total` | counter | `result` | reads of the store |
//! | `wamd_load_seconds` | histogram | | how long they took |
//! | `wamd_commands_total` | counter | `result`: `ok`, `refused` | answers to calls of [`Client`](super::Client) |
//! | `wamd_cpu_jobs_total` | counter | | computations for the pool |
//! | `wamd_cpu_seconds` | histogram | | from asking until they were done, waiting included |
//!
//! No label names an account, a person or a group: their number does not grow with use. Without the feature all of it is
//! nothing.

#![cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "nothing is counted without the feature"))]

use std::time::Duration;

use crate::{
    event::{Envelope, SessionState},
    store::Batch,
};

#[cfg(feature = "metrics")]
use metrics::{counter, gauge, histogram};

/// An account went from one state to another; `None` is not running.
pub(super) fn state(from: Option<SessionState>, to: Option<SessionState>) {
    #[cfg(feature = "metrics")]
    {
        if let Some(from) = from {
            gauge!("wamd_accounts", "state" => from.as_str().to_ascii_lowercase()).decrement(1.0);
        }
        if let Some(to) = to {
            gauge!("wamd_accounts", "state" => to.as_str().to_ascii_lowercase()).increment(1.0);
        }
    }
}

/// An event was put into the consumer's channel.
pub(super) fn event(envelope: &Envelope) {
    #[cfg(feature = "metrics")]
    counter!("wamd_events_total", "event" => envelope.event.clone()).increment(1);
}

/// `dialled`, `opened` or `closed`.
pub(super) fn connection(step: &'static str) {
    #[cfg(feature = "metrics")]
    counter!("wamd_connections_total", "step" => step).increment(1);
}

/// A websocket message: `in` or `out`.
pub(super) fn message(direction: &'static str, bytes: usize) {
    #[cfg(feature = "metrics")]
    {
        counter!("wamd_socket_bytes_total", "direction" => direction).increment(bytes as u64);
        counter!("wamd_socket_messages_total", "direction" => direction).increment(1);
    }
}

/// A batch is given to the store.
pub(super) fn batch(batch: &Batch) {
    #[cfg(feature = "metrics")]
    {
        let puts: usize = batch.puts.iter().map(|(key, value)| key.id.len() + value.len()).sum();
        let deletes: usize = batch.deletes.iter().map(|key| key.id.len()).sum();
        let events: usize = batch.events.iter().map(|event| event.body.len()).sum();
        #[expect(clippy::cast_precision_loss, reason = "bytes in memory")]
        histogram!("wamd_commit_bytes").record((puts + deletes + events) as f64);
    }
}

/// It is durable, or not.
pub(super) fn committed(took: Duration, ok: bool) {
    #[cfg(feature = "metrics")]
    {
        counter!("wamd_commits_total", "result" => result(ok)).increment(1);
        histogram!("wamd_commit_seconds").record(took);
    }
}

/// The store was read, or could not be.
pub(super) fn loaded(took: Duration, ok: bool) {
    #[cfg(feature = "metrics")]
    {
        counter!("wamd_loads_total", "result" => result(ok)).increment(1);
        histogram!("wamd_load_seconds").record(took);
    }
}

/// A call was answered.
pub(super) fn command(ok: bool) {
    #[cfg(feature = "metrics")]
    counter!("wamd_commands_total", "result" => if ok { "ok" } else { "refused" }).increment(1);
}

/// The pool has done something.
pub(super) fn computed(took: Duration) {
    #[cfg(feature = "metrics")]
    {
        counter!("wamd_cpu_jobs_total").increment(1);
        histogram!("wamd_cpu_seconds").record(took);
    }
}

#[cfg(feature = "metrics")]
const fn result(ok: bool) -> &'static str {
    if ok { "ok" } else { "failed" }
}

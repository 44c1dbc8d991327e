//! What the events of a session say about its state.

use wamd::event::Envelope;

/// The state that follows from an event, as spec 07 §3 has it.
pub(crate) fn state_after(event: &Envelope) -> Option<&'static str> {
    let reason = event.data["reason"].as_str().unwrap_or_default();
    Some(match &*event.event {
        "session.qr_updated" | "session.qr_exhausted" | "session.pair_error" => "PENDING",
        "session.disconnected" if event.data["linked"] == false && event.data["willReconnect"] == false => "PENDING",
        "session.connecting" | "session.paired" => "CONNECTING",
        "session.connected" => "CONNECTED",
        "session.reconnecting" if reason == "restart_required" => "CONNECTING",
        "session.reconnecting" => "DISCONNECTED",
        "session.disconnected" => match reason {
            "replaced" => "REPLACED",
            "logged_out" => "LOGGED_OUT",
            "banned" => "BANNED",
            "outdated" => "OUTDATED",
            _ => "DISCONNECTED",
        },
        "session.logged_out" => "LOGGED_OUT",
        "session.banned" => "BANNED",
        "session.outdated" => "OUTDATED",
        _ => return None,
    })
}

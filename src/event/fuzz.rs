//! Entry point of the fuzz target, which an ordinary test replays, too.

use super::Envelope;

/// Reads `data` as a row of the outbox. What can be read is written in one form only.
///
/// # Panics
/// When that does not hold, which is what the fuzzer looks for.
pub fn envelope(data: &[u8]) {
    let Ok(envelope) = Envelope::from_json(data) else { return };
    let text = envelope.to_json();
    let again = Envelope::from_json(text.as_bytes());
    assert_eq!(again.map(|again| again.to_json()), Ok(text));
}
